//! Committed snapshots and what became of them.

use super::judge::{Standing, standing};
use crate::error::{Error, Result};
use crate::format::cbor::Decoder;
use crate::format::log::{Head, Record, RecordBody, RecordRef, SealedSnapshot};
use crate::format::pack::{BlockRow, Codec, SealEntry, TableEntry};
use crate::format::snapshot::Snapshot;
use crate::format::tree::ChunkType;
use crate::id::{ChunkId, ClientId, SnapshotId};
use crate::repo::Repository;
use crate::repo::block::{Opener, table_digest};
use crate::repo::cache::{self, CachedSnapshot};
use crate::repo::keys::Keys;
use crate::repo::roles::Act;

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
    /// When that client says it wrote the record, nanoseconds since 1970.
    pub recorded: i64,
    /// Whether it is kept.
    pub standing: Standing,
    /// Why it is held, if it is and somebody said so.
    pub reason: String,
    /// How many files and directories of it the last check on this machine found damaged.
    pub damaged_files: u64,
}

impl SnapshotEntry {
    /// True if it is there to be restored: neither forgotten nor pruned.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self.standing, Standing::Live | Standing::Held)
    }

    /// True if a hold protects it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.standing == Standing::Held
    }

    /// The place of its record.
    #[must_use]
    pub fn record(&self) -> RecordRef {
        RecordRef { client: self.client, seq: self.seq }
    }
}

/// A snapshot of which the keys at hand can tell no more than that it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEntry {
    /// Its id.
    pub id: SnapshotId,
    /// The client that made it.
    pub client: ClientId,
    /// The place of its record in that client's log.
    pub seq: u64,
    /// When that client says it wrote the record, nanoseconds since 1970.
    pub time: i64,
    /// Whether it is kept.
    pub standing: Standing,
}

impl Repository {
    /// What a writer may know: the snapshots that this machine made itself and remembers, and of all others that they are
    /// there; each oldest first. For other roles the same as [`Repository::all_snapshots`].
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn known_snapshots(&self) -> Result<(Vec<SnapshotEntry>, Vec<SealedEntry>)> {
        let (mut known, mut sealed) = (Vec::new(), Vec::new());
        let opens = self.permit(Act::List).is_ok();
        for (cached, standing, reason) in self.standings()? {
            if opens || cached.body.is_some() {
                known.push(self.snapshot_entry(cached, standing, reason)?);
            } else {
                let CachedSnapshot { id, client, seq, time, .. } = cached;
                sealed.push(SealedEntry { id, client, seq, time, standing });
            }
        }
        Ok((known, sealed))
    }

    /// Remembers what this machine stored as a snapshot.
    pub(in crate::repo) fn remember_body(&self, head: &Head, body: &[u8]) -> Result<()> {
        let record = RecordRef { client: head.client, seq: head.seq };
        cache::log::set_body(&self.connection(), &record, body)
    }

    /// All snapshots that are kept, oldest first.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot read them.
    pub fn snapshots(&self) -> Result<Vec<SnapshotEntry>> {
        let mut all = self.all_snapshots()?;
        all.retain(SnapshotEntry::is_kept);
        Ok(all)
    }

    /// All snapshots, those too that were forgotten and not yet pruned, oldest first.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot read them.
    pub fn all_snapshots(&self) -> Result<Vec<SnapshotEntry>> {
        self.permit(Act::List)?;
        let standings = self.standings()?;
        standings.into_iter().map(|(cached, standing, reason)| self.snapshot_entry(cached, standing, reason)).collect()
    }

    /// Every snapshot in the cache with its standing and the reason of a hold; pruned ones are dropped.
    pub(in crate::repo) fn standings(&self) -> Result<Vec<(CachedSnapshot, Standing, String)>> {
        let connection = self.connection();
        let mut judgements = cache::log::judgements(&connection)?;
        let plans = if judgements.is_empty() { Vec::new() } else { cache::prune::plans_within_sight(&connection)? };
        let mut kept = Vec::new();
        for cached in cache::log::snapshots(&connection)? {
            let record = RecordRef { client: cached.client, seq: cached.seq };
            let (judgements, reason) = judgements.remove(&record).unwrap_or_default();
            match standing(&judgements, &plans) {
                Standing::Pruned => cache::log::remove_pruned(&connection, &record, &cached.id)?,
                standing => kept.push((cached, standing, reason)),
            }
        }
        Ok(kept)
    }

    fn snapshot_entry(&self, cached: CachedSnapshot, standing: Standing, reason: String) -> Result<SnapshotEntry> {
        let body = match &cached.body {
            Some(body) => body.clone(),
            None => {
                let (id, sealed) = match Record::decode(&cached.sealed)?.body {
                    RecordBody::Snapshot { id, snapshot, .. } => (id, snapshot),
                    RecordBody::Claim { checkpoint: Some(checkpoint), .. } => checkpoint,
                    _ => return Err(cache::damaged("a snapshot's row is damaged")),
                };
                let body = open_snapshot(self.keys(), &id, &sealed)?;
                cache::log::set_body(&self.connection(), &RecordRef { client: cached.client, seq: cached.seq }, &body)?;
                body
            }
        };
        let snapshot = Snapshot::decode(&body)?;
        let damaged_files = cache::damage::damaged(&self.connection(), &cached.id)?;
        let (id, client, seq, recorded) = (cached.id, cached.client, cached.seq, cached.time);
        // That of a hold that has ended says nothing, and whoever began behind a checkpoint never heard it.
        let reason = if standing == Standing::Held { reason } else { String::new() };
        Ok(SnapshotEntry { id, snapshot, client, seq, recorded, standing, reason, damaged_files })
    }

    /// True if the snapshot is kept.
    pub(in crate::repo) fn is_live(&self, id: &SnapshotId) -> Result<bool> {
        let connection = self.connection();
        let records = cache::log::records_of(&connection, id)?;
        let judgements = cache::log::judgements(&connection)?;
        let plans = cache::prune::plans_within_sight(&connection)?;
        let kept = |record| {
            let judged = judgements.get(record).map_or(&[][..], |(judgements, _)| judgements);
            matches!(standing(judged, &plans), Standing::Live | Standing::Held)
        };
        Ok(records.iter().any(kept))
    }
}

/// Opens the snapshot in a record.
pub(in crate::repo) fn open_snapshot(keys: &Keys, id: &SnapshotId, sealed: &SealedSnapshot) -> Result<Vec<u8>> {
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
