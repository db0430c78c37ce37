//! Writing index objects: sealed piece by piece, each piece opened again before it is let go.

use super::MAX_OBJECT;
use crate::crypto::derive::{CommittedKey, object_key};
use crate::crypto::seal::{PIECE_LEN, open_piece, seal_piece};
use crate::error::{Error, Result};
use crate::format::envelope::{ObjectKind, padme};
use crate::format::index::{ENTRY_LEN, IndexEntry, IndexObject};
use crate::id::{ChunkPrefix, IndexId, PackId};
use crate::repo::Repository;
use crate::repo::sealed::new_header;
use crate::repo::underway::Underway;
use crate::store::{Key, Staged};

/// What is left for entries of the longest object besides its packs: lengths are padded by at most a thirtieth there.
const ROOM: usize = 60 << 20;

struct Sealing {
    staged: Box<dyn Staged>,
    hasher: blake3::Hasher,
    secret: CommittedKey,
    plain: Vec<u8>,
    number: usize,
    /// Bytes of plaintext that are still to come.
    left: u64,
    written: u64,
}

impl Sealing {
    fn start(repository: &Repository, body_len: u64) -> Result<Self> {
        let keys = repository.keys();
        let header = new_header(keys, ObjectKind::Index)?;
        let secret = object_key(keys.index_key(header.generation)?, &keys.repository, &header.encode());
        let length = u32::try_from(body_len).ok().filter(|_| padme(body_len + 4) < MAX_OBJECT);
        let length = length.ok_or_else(|| Error::failed("write an index object: it is too long"))?;
        let mut sealing = Self {
            staged: repository.store().stage()?,
            hasher: blake3::Hasher::new(),
            secret,
            plain: Vec::with_capacity(PIECE_LEN),
            number: 0,
            left: padme(body_len + 4),
            written: 0,
        };
        let mut head = header.encode().to_vec();
        head.extend_from_slice(&sealing.secret.commit);
        sealing.append(&head)?;
        sealing.push(&length.to_le_bytes())?;
        Ok(sealing)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.staged.write(bytes)
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PIECE_LEN - self.plain.len()));
            self.plain.extend_from_slice(now);
            self.left -= now.len() as u64;
            bytes = rest;
            if self.plain.len() == PIECE_LEN || self.left == 0 {
                self.seal()?;
            }
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<()> {
        let mut sealed = self.plain.clone();
        let is_last = self.left == 0;
        seal_piece(&self.secret.key, self.number, is_last, &mut sealed, 0);
        let mut again = sealed.clone();
        if *open_piece(&self.secret.key, self.number, is_last, &mut again)? != *self.plain {
            return Err(Error::failed("write an index object: what was sealed does not open to what it was"));
        }
        self.append(&sealed)?;
        self.plain.clear();
        self.number += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<(IndexId, u64)> {
        let zeros = vec![0; usize::try_from(self.left).expect("at most 64 MiB")];
        self.push(&zeros)?;
        let id = IndexId(*self.hasher.finalize().as_bytes());
        self.staged.finish(&Key::index(&id))?;
        Ok((id, self.written))
    }
}

/// Shards that are durable.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// In the order of their ranges.
    pub(super) shards: Vec<IndexId>,
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Written {
    fn note(&mut self, (id, bytes): (IndexId, u64)) -> Result<()> {
        self.shards.push(id);
        self.bytes += bytes;
        Ok(())
    }
}

/// Cuts a stream of entries into shards.
pub(super) struct ShardWriter<'a> {
    repository: &'a Repository,
    packs: &'a [PackId],
    capacity: usize,
    first: ChunkPrefix,
    last: ChunkPrefix,
    rows: Vec<u8>,
    written: Written,
    uploads: Underway<(IndexId, u64)>,
}

impl<'a> ShardWriter<'a> {
    /// Entries name packs by their position in `packs`, which ascends. A shard holds at most `limit` entries, fewer if
    /// they do not fit.
    pub(super) fn new(repository: &'a Repository, packs: &'a [PackId], limit: usize) -> Self {
        let room = ROOM.saturating_sub(packs.len() * 32) / ENTRY_LEN;
        let capacity = limit.clamp(1, room.max(1)) * ENTRY_LEN;
        let (written, uploads) = (Written::default(), Underway::to(repository.store(), &repository.keys().surroundings));
        Self { repository, packs, capacity, first: [0; 16], last: [0; 16], rows: Vec::new(), written, uploads }
    }

    /// Adds an entry, which is not below the one before.
    pub(super) fn push(&mut self, entry: &IndexEntry) -> Result<()> {
        // All entries of a prefix are in one shard.
        if self.rows.len() >= self.capacity && entry.prefix != self.last {
            self.close(self.last)?;
            self.first = u128::from_be_bytes(self.last).wrapping_add(1).to_be_bytes();
        }
        self.last = entry.prefix;
        entry.encode(&mut self.rows);
        self.written.entries += 1;
        Ok(())
    }

    fn close(&mut self, last: ChunkPrefix) -> Result<()> {
        let head = IndexObject::encode_head(1, self.packs, &(self.first, last), self.rows.len());
        let mut sealing = Sealing::start(self.repository, (head.len() + self.rows.len()) as u64)?;
        sealing.push(&head)?;
        sealing.push(&self.rows)?;
        self.rows.clear();
        let written = &mut self.written;
        self.uploads.begin(move || sealing.finish(), &mut |shard| written.note(shard))
    }

    /// Writes the last shard, which covers the rest.
    pub(super) fn finish(mut self) -> Result<Written> {
        self.close([0xff; 16])?;
        let written = &mut self.written;
        self.uploads.finish(&mut |shard| written.note(shard))?;
        Ok(self.written)
    }
}
