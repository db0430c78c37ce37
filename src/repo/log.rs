//! The log: reading and verifying what is new, and appending the record that commits.

use crate::crypto::seal;
use crate::crypto::sign::{self, LOG_RECORD, SIGNATURE_LEN, client_id};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::format::cbor::Decoder;
use crate::format::envelope::{HEADER_LEN, ObjectKind};
use crate::format::log::{Head, MAX_RECORD, PackRef, Record, RecordBody, SealedSnapshot};
use crate::format::pack::{BlockRow, Codec, FOOTER_LEN, Footer, MAX_PACK, SealEntry, TableEntry, Toc, decode_head};
use crate::format::snapshot::Snapshot;
use crate::format::tree::ChunkType;
use crate::id::{ChunkId, ClientId, ObjectHash, SnapshotId};
use crate::repo::Repository;
use crate::repo::block::{Opener, table_digest};
use crate::repo::cache::{self, CachedSnapshot, failed};
use crate::repo::sealed::{open_object, seal_object};
use crate::repo::{heads, keys::Keys};
use crate::store::{Created, Key};

/// A committed snapshot and where its record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// Its id.
    pub id: SnapshotId,
    /// What it says.
    pub snapshot: Snapshot,
    /// The client that made it.
    pub client: ClientId,
    /// The place of its record in that client's log.
    pub seq: u64,
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

impl Repository {
    /// Reads what is new in the log.
    ///
    /// # Errors
    /// `RolledBack` if the store shows less than was seen before, `Failed` if it cannot be read.
    pub fn refresh(&self, observer: &dyn Observer) -> Result<()> {
        let client = self.owner();
        let known = cache::log::head(&self.connection(), &client)?;
        let remembered = heads::load(&self.inner.state);
        for head in remembered.iter().chain(&known) {
            self.verify_remembered(head)?;
        }
        let mut head = known;
        loop {
            let seq = head.map_or(0, |head| head.seq + 1);
            let bytes = match self.store().get(&Key::log(&client, seq), MAX_RECORD) {
                Err(error) if error.kind() == ErrorKind::Missing => break,
                other => other?,
            };
            head = Some(self.take_in(head, seq, &bytes, observer)?);
        }
        let Some(head) = head else {
            return Err(Error::new(ErrorKind::NoRepository, "open the repository: its log has no first record")
                .with_hint("init was interrupted; delete the directory and run init again"));
        };
        if !remembered.contains(&head) {
            heads::save(&self.inner.state, &[head])?;
        }
        Ok(())
    }

    fn verify_remembered(&self, head: &Head) -> Result<()> {
        let found = match self.store().get(&Key::log(&head.client, head.seq), MAX_RECORD) {
            Err(error) if error.kind() == ErrorKind::Missing => None,
            other => Some(ObjectHash(*blake3::hash(&other?).as_bytes())),
        };
        if found == Some(head.hash) {
            return Ok(());
        }
        let what = if found.is_none() { "is gone" } else { "is another one" };
        let message = format!("open the repository: record {} of the log, seen before, {what}", head.seq);
        Err(Error::new(ErrorKind::RolledBack, message).with_hint(format!(
            "the store was set back to an older state or tampered with; if you did this yourself, delete {} and the cache",
            self.inner.state.display()
        )))
    }

    /// Takes one record in; one that does not verify is void: it keeps its place in the chain and says nothing.
    fn take_in(&self, head: Option<Head>, seq: u64, bytes: &[u8], observer: &dyn Observer) -> Result<Head> {
        let client = self.owner();
        let next = Head { client, seq, hash: ObjectHash(*blake3::hash(bytes).as_bytes()) };
        let record = open_record(self.keys(), &self.inner.format.owner, bytes).and_then(|record| {
            let chained = record.client == client && record.seq == seq && record.previous == head.map(|head| head.hash);
            if chained { Ok(record) } else { Err(Error::damaged("it does not follow the record before it")) }
        });
        match record {
            Ok(record) => self.apply(&record, &next, observer)?,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            Err(error) => {
                observer.observe(Event::Warning(&format!("record {seq} of the log is void: {error}")));
                let mut connection = self.connection();
                let transaction = connection.transaction().map_err(failed)?;
                cache::log::set_head(&transaction, &next)?;
                transaction.commit().map_err(failed)?;
            }
        }
        Ok(next)
    }

    fn apply(&self, record: &Record, head: &Head, observer: &dyn Observer) -> Result<()> {
        let (packs, snapshot) = match &record.body {
            RecordBody::Snapshot { id, snapshot, packs, .. } => (packs.as_slice(), Some((id, snapshot))),
            RecordBody::Claim { packs, .. } => (packs.as_slice(), None),
            _ => (&[][..], None),
        };
        for pack in packs {
            if let Err(error) = self.index_pack(pack) {
                observer.observe(Event::Warning(&format!("pack {} cannot be indexed: {error}", pack.id)));
            }
        }
        let snapshot = snapshot.map(|(id, sealed)| {
            let body = open_snapshot(self.keys(), id, sealed).ok();
            let sealed = record.encode();
            CachedSnapshot { id: *id, client: record.client, seq: record.seq, sealed, body }
        });
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(failed)?;
        if let Some(snapshot) = &snapshot {
            cache::log::add_snapshot(&transaction, snapshot, record.time)?;
        }
        if let RecordBody::Slot { id, added, label, recipient } = &record.body {
            cache::log::set_slot(&transaction, id, *added, (label, recipient), record.time)?;
        }
        cache::log::set_head(&transaction, head)?;
        transaction.commit().map_err(failed)
    }

    /// Puts a pack that the log lists into the index, from its table of contents.
    fn index_pack(&self, pack: &PackRef) -> Result<()> {
        {
            let connection = self.connection();
            let known = connection.prepare_cached("SELECT 1 FROM pack WHERE id = ?").and_then(|mut s| s.exists([&pack.id.0[..]]));
            if known.map_err(failed)? {
                connection.execute("UPDATE pack SET logged = 1 WHERE id = ?", [&pack.id.0[..]]).map_err(failed)?;
                return Ok(());
            }
        }
        let (seals, toc) = self.load_toc(pack)?;
        cache::index::insert_pack(&mut self.connection(), pack, true, &seals, &toc)
    }

    /// Reads and opens the table of contents of a pack.
    pub(super) fn load_toc(&self, pack: &PackRef) -> Result<(Vec<SealEntry>, Toc)> {
        let key = Key::pack(&pack.id);
        let tail_len = u64::from(pack.toc_len) + FOOTER_LEN as u64;
        if pack.size > MAX_PACK || pack.size < tail_len + HEADER_LEN as u64 {
            return Err(Error::damaged(format!("read the pack {}: its listed length cannot be", pack.id)));
        }
        let mut tail = vec![0; usize::try_from(tail_len).expect("at most 64 MiB")];
        self.store().read_at(&key, pack.size - tail_len, &mut tail)?;
        let mut front = vec![0; usize::try_from(pack.size.min(1 << 10)).expect("at most 1 KiB")];
        self.store().read_at(&key, 0, &mut front)?;
        let (header, seals) = match decode_head(&front) {
            Err(_) if pack.size > front.len() as u64 => {
                front.resize(usize::try_from(pack.size.min(1 << 20)).expect("at most 1 MiB"), 0);
                self.store().read_at(&key, 0, &mut front)?;
                decode_head(&front)?
            }
            other => other?,
        };
        let (sealed, footer) = tail.split_at(pack.toc_len as usize);
        let footer = Footer::decode(footer)?;
        let repository = &self.inner.format.id;
        let object = crate::crypto::derive::object_key(self.keys().index_key(header.generation)?, repository, &header.encode());
        if footer.commit != object.commit || footer.toc_len != pack.toc_len {
            return Err(Error::damaged(format!("read the pack {}: its footer does not fit", pack.id)));
        }
        let toc = Toc::decode(&seal::open_pieces(&object.key, sealed)?, seals.len())?;
        let stored: u64 = toc.blocks.iter().map(|block| u64::from(block.row.stored_len())).sum();
        if u64::from(toc.first_block) + stored + u64::from(toc.padding) + tail_len != pack.size {
            return Err(Error::damaged(format!("read the pack {}: its parts do not add up to its length", pack.id)));
        }
        Ok((seals, toc))
    }

    /// Appends a record to this client's log: the commit point. Whoever takes the place first wins; the other goes on
    /// to the next.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot write, `Full`, `Failed`.
    pub(super) fn append(&self, body: RecordBody) -> Result<Head> {
        if self.inner.format.read_only {
            return Err(Error::new(ErrorKind::Unsupported, "write to the repository: it needs a feature of a newer version")
                .with_hint("update lifeboat; reading works"));
        }
        let keys = self.keys();
        let client = keys.client()?;
        let mut record =
            Record { client, seq: 0, previous: None, time: now(), heads: Vec::new(), base: 0, body, extra: Vec::new() };
        loop {
            let head = cache::log::head(&self.connection(), &client)?;
            record.seq = head.map_or(0, |head| head.seq + 1);
            record.previous = head.map(|head| head.hash);
            let object = self.seal_record(&record)?;
            let key = Key::log(&client, record.seq);
            match self.store().create(&key, &object)? {
                Created::New => {
                    let head = Head { client, seq: record.seq, hash: ObjectHash(*blake3::hash(&object).as_bytes()) };
                    self.apply(&record, &head, &crate::event::Silent)?;
                    heads::save(&self.inner.state, &[head])?;
                    return Ok(head);
                }
                Created::Exists => {
                    let bytes = self.store().get(&key, MAX_RECORD)?;
                    self.take_in(head, record.seq, &bytes, &crate::event::Silent)?;
                }
            }
        }
    }

    fn seal_record(&self, record: &Record) -> Result<Vec<u8>> {
        let map = record.encode();
        let mut body = self.keys().signer()?.sign(LOG_RECORD, &self.inner.format.id, &map).to_vec();
        body.extend_from_slice(&map);
        seal_object(self.keys(), ObjectKind::Log, &body)
    }

    /// All live snapshots, oldest first.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot read them.
    pub fn snapshots(&self) -> Result<Vec<SnapshotEntry>> {
        let cached = cache::log::snapshots(&self.connection())?;
        cached.into_iter().map(|cached| self.snapshot_entry(cached)).collect()
    }

    fn snapshot_entry(&self, cached: CachedSnapshot) -> Result<SnapshotEntry> {
        let body = match &cached.body {
            Some(body) => body.clone(),
            None => {
                let RecordBody::Snapshot { id, snapshot, .. } = Record::decode(&cached.sealed)?.body else {
                    return Err(Error::failed("read the local cache: a snapshot's row is damaged"));
                };
                let body = open_snapshot(self.keys(), &id, &snapshot)?;
                cache::log::set_body(&self.connection(), &cached, &body)?;
                body
            }
        };
        let snapshot = Snapshot::decode(&body)?;
        Ok(SnapshotEntry { id: cached.id, snapshot, client: cached.client, seq: cached.seq })
    }

    /// True if the snapshot is live.
    pub(super) fn is_live(&self, id: &SnapshotId) -> Result<bool> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT 1 FROM snapshot WHERE id = ?").map_err(failed)?;
        statement.exists([&id.0[..]]).map_err(failed)
    }
}

/// Opens a record and verifies its signature.
fn open_record(keys: &Keys, public: &[u8; 32], bytes: &[u8]) -> Result<Record> {
    let body = open_object(keys, ObjectKind::Log, bytes)?;
    let (signature, map) =
        body.split_first_chunk::<SIGNATURE_LEN>().ok_or_else(|| Error::damaged("open a log record: it is cut off"))?;
    sign::verify(public, LOG_RECORD, &keys.repository, map, signature)?;
    let record = Record::decode(map)?;
    if record.client != client_id(public) {
        return Err(Error::damaged("open a log record: it is another client's"));
    }
    Ok(record)
}

/// Opens the snapshot in a record.
fn open_snapshot(keys: &Keys, id: &SnapshotId, sealed: &SealedSnapshot) -> Result<Vec<u8>> {
    let wrong = |why: &str| Error::damaged(format!("open the snapshot {id}: {why}"));
    let (seal, length) = SealEntry::decode(&sealed.seal)?;
    if length != sealed.seal.len() {
        return Err(wrong("its seal is too long"));
    }
    let row = BlockRow {
        seal: 0,
        number: sealed.number,
        kind: ChunkType::Snapshot,
        codec: Codec::from_code(sealed.codec).ok_or_else(|| wrong("an unknown codec"))?,
        raw_len: sealed.raw_len,
        packed_len: sealed.packed_len,
    };
    row.check()?;
    let session = keys.open_session(&seal)?;
    let table = table_digest(&[TableEntry { len: sealed.raw_len, prefix: ChunkId::from(*id).prefix() }]);
    let mut stored = sealed.sealed.clone();
    let mut opener = Opener::new()?;
    let raw = opener.open(&keys.repository, &session, &row, &table, &mut stored)?;
    if keys.name(ChunkType::Snapshot, raw)? != ChunkId::from(*id) {
        return Err(wrong("its content is not what its id says"));
    }
    // The decoder's strictness is part of the check.
    let mut decoder = Decoder::new(raw, "a snapshot");
    decoder.any()?;
    decoder.end()?;
    Ok(raw.to_vec())
}
