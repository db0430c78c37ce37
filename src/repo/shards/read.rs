//! One index object, read piece by piece: every piece is sealed by itself, so what is not asked for is not read.

use super::MAX_OBJECT;
use crate::crypto::derive::{CommittedKey, object_key};
use crate::crypto::seal::{PIECE_LEN, TAG_LEN, open_piece, sealed_len};
use crate::error::{Error, Result};
use crate::format::envelope::{HEADER_LEN, Header, ObjectKind, padme};
use crate::format::index::{ENTRY_LEN, IndexEntry, IndexLayout};
use crate::id::{ChunkPrefix, IndexId, PackId};
use crate::repo::Repository;
use crate::store::Key;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

/// Length of the header and the commitment.
const HEAD_LEN: usize = HEADER_LEN + 32;
/// Pieces that are kept of an object.
const KEPT_PIECES: usize = 8;
/// Pieces that are read at once where all of them are wanted.
const RUN: u64 = 16;
/// Guesses by the value of the prefix before the search halves what is left: prefixes are hashes, so guesses are good.
const GUESSES: u32 = 6;

/// An index object that is open.
pub(super) struct Shard {
    repository: Repository,
    key: Key,
    secret: CommittedKey,
    /// Length of all plaintext: the length of the body, the body, and its padding.
    plain_len: u64,
    layout: IndexLayout,
    kept: RefCell<VecDeque<(u64, Arc<Vec<u8>>)>>,
}

impl Shard {
    /// Opens an index object: reads its beginning, and where its parts lie.
    ///
    /// # Errors
    /// `Damaged` if it is gone, or not what it should be.
    pub(super) fn open(repository: &Repository, id: &IndexId) -> Result<Self> {
        let key = Key::index(id);
        let wrong = |why: &str| Error::damaged(format!("open the index object {id}: {why}"));
        let size = repository.store().size(&key)?.ok_or_else(|| wrong("it is gone"))?;
        if size > MAX_OBJECT || size < (HEAD_LEN + TAG_LEN) as u64 {
            return Err(wrong("its length cannot be"));
        }
        let first_len = usize::try_from(size).expect("at most 64 MiB").min(HEAD_LEN + PIECE_LEN + TAG_LEN);
        let mut first = vec![0; first_len];
        let keep = repository.read_part(&key, 0, &mut first)?;
        let sealed = if keep { first.clone() } else { Vec::new() };
        let header = Header::decode(&first)?;
        if header.kind != ObjectKind::Index {
            return Err(wrong("it is of another kind"));
        }
        let keys = repository.keys();
        let secret = object_key(keys.index_key(header.generation)?, &keys.repository, &header.encode());
        if secret.commit != first[HEADER_LEN..HEAD_LEN] {
            return Err(wrong("it was sealed with another key, or changed"));
        }
        let is_last = size == first_len as u64;
        let opened = open_piece(&secret.key, 0, is_last, &mut first[HEAD_LEN..])?.to_vec();
        let length = opened.first_chunk::<4>().ok_or_else(|| wrong("it is cut off"))?;
        let body_len = u64::from(u32::from_le_bytes(*length));
        let plain_len = padme(body_len + 4);
        let fits = usize::try_from(plain_len).is_ok_and(|plain| (HEAD_LEN + sealed_len(plain)) as u64 == size);
        if !fits {
            return Err(wrong("its length is not what it says"));
        }
        let layout = IndexLayout { level: 1, packs_at: 0, packs: 0, entries_at: 0, entries: 0, range: ([0; 16], [0; 16]) };
        if let Some(parts) = repository.kept().filter(|_| keep) {
            parts.put(&key, 0, &sealed);
        }
        let kept = RefCell::new(VecDeque::from([(0, Arc::new(opened))]));
        let mut shard = Self { repository: repository.clone(), key, secret, plain_len, layout, kept };
        shard.layout = IndexLayout::find(body_len, |at, len| shard.read(at, len))?;
        Ok(shard)
    }

    /// First and last prefix that it covers.
    pub(super) fn range(&self) -> (ChunkPrefix, ChunkPrefix) {
        self.layout.range
    }

    fn pieces(&self) -> u64 {
        self.plain_len.div_ceil(PIECE_LEN as u64)
    }

    /// Reads and opens pieces that lie one after the other.
    fn fetch(&self, first: u64, count: u64) -> Result<Vec<u8>> {
        let end = self.pieces().min(first.saturating_add(count));
        let sealed_piece = (PIECE_LEN + TAG_LEN) as u64;
        let all = usize::try_from(self.plain_len).expect("at most 64 MiB");
        let size = (HEAD_LEN + sealed_len(all)) as u64;
        let from = HEAD_LEN as u64 + first * sealed_piece;
        let until = size.min(HEAD_LEN as u64 + end * sealed_piece);
        let mut sealed = vec![0; usize::try_from(until.saturating_sub(from)).expect("at most 64 MiB")];
        let keep = self.repository.read_part(&self.key, from, &mut sealed)?;
        let unopened = if keep && count == 1 { sealed.clone() } else { Vec::new() };
        let mut plain = Vec::with_capacity(sealed.len());
        for (number, piece) in (first..end).zip(sealed.chunks_mut(PIECE_LEN + TAG_LEN)) {
            let position = usize::try_from(number).expect("at most 64 MiB");
            let opened = open_piece(&self.secret.key, position, number + 1 == self.pieces(), piece);
            plain.extend_from_slice(opened.map_err(|error| error.while_doing(format!("read {}", self.key)))?);
        }
        // Runs are read where all of it is wanted, once.
        if let Some(parts) = self.repository.kept().filter(|_| !unopened.is_empty()) {
            parts.put(&self.key, from, &unopened);
        }
        Ok(plain)
    }

    fn piece(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        if let Some((_, piece)) = self.kept.borrow().iter().find(|(known, _)| *known == number) {
            return Ok(piece.clone());
        }
        let piece = Arc::new(self.fetch(number, 1)?);
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT_PIECES {
            kept.pop_front();
        }
        kept.push_back((number, piece.clone()));
        Ok(piece)
    }

    /// Bytes of the body.
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        let (mut at, end) = (at + 4, at + 4 + len);
        let mut out = Vec::new();
        while at < end {
            let piece = self.piece(at / PIECE_LEN as u64)?;
            let from = usize::try_from(at % PIECE_LEN as u64).expect("less than a piece");
            let until = piece.len().min(from + usize::try_from(end - at).unwrap_or(usize::MAX));
            let part = piece.get(from..until).filter(|part| !part.is_empty());
            let part = part.ok_or_else(|| Error::damaged(format!("read {}: it is cut off", self.key)))?;
            out.extend_from_slice(part);
            at += part.len() as u64;
        }
        Ok(out)
    }

    fn entry(&self, number: u64) -> Result<IndexEntry> {
        let bytes = self.read(self.layout.entries_at + number * ENTRY_LEN as u64, ENTRY_LEN as u64)?;
        Ok(IndexEntry::decode(bytes.first_chunk().expect("as many bytes as were asked for")))
    }

    /// The pack at this position.
    pub(super) fn pack(&self, position: u32) -> Result<PackId> {
        if u64::from(position) >= self.layout.packs {
            return Err(Error::damaged(format!("read {}: an entry names a pack that is not there", self.key)));
        }
        let bytes = self.read(self.layout.packs_at + u64::from(position) * 32, 32)?;
        Ok(PackId(bytes.try_into().expect("as many bytes as were asked for")))
    }

    /// All packs that its entries may name.
    pub(super) fn packs(&self) -> Result<Vec<PackId>> {
        let first = (self.layout.packs_at + 4) / PIECE_LEN as u64;
        let end = self.layout.packs_at + 4 + self.layout.packs * 32;
        let plain = self.fetch(first, end.div_ceil(PIECE_LEN as u64) - first)?;
        let from = usize::try_from(self.layout.packs_at + 4 - first * PIECE_LEN as u64).expect("less than a piece");
        let count = usize::try_from(self.layout.packs).expect("at most 64 MiB");
        let ids = plain.get(from..from + count * 32);
        let ids = ids.ok_or_else(|| Error::damaged(format!("read {}: it is cut off", self.key)))?;
        Ok(ids.as_chunks::<32>().0.iter().copied().map(PackId).collect())
    }

    /// The entries with this prefix.
    pub(super) fn find(&self, prefix: &ChunkPrefix) -> Result<Vec<IndexEntry>> {
        let mut found = Vec::new();
        let mut number = self.lower_bound(prefix)?;
        while number < self.layout.entries {
            let entry = self.entry(number)?;
            if entry.prefix != *prefix {
                break;
            }
            found.push(entry);
            number += 1;
        }
        Ok(found)
    }

    /// Number of the first entry that is not below `prefix`.
    fn lower_bound(&self, prefix: &ChunkPrefix) -> Result<u64> {
        let (mut low, mut high) = (0, self.layout.entries);
        let (mut first, mut last) = self.layout.range;
        let mut turn = 0;
        while low < high {
            turn += 1;
            let guess = if turn <= GUESSES { guess(prefix, (&first, &last), (low, high)) } else { low + (high - low) / 2 };
            // Everything in the piece of the guess costs nothing more.
            let (begin, end) = self.span(guess, low, high);
            let (head, tail) = (self.entry(begin)?.prefix, self.entry(end - 1)?.prefix);
            if *prefix <= head {
                (high, last) = (begin, head);
            } else if tail < *prefix {
                (low, first) = (end, tail);
            } else {
                return self.bisect(prefix, begin, end);
            }
        }
        Ok(low)
    }

    /// Entries between `low` and `high` that lie whole in the piece in which the entry `guess` begins, or that one alone.
    fn span(&self, guess: u64, low: u64, high: u64) -> (u64, u64) {
        let entry = ENTRY_LEN as u64;
        let start = self.layout.entries_at + 4;
        let piece = (start + guess * entry) / PIECE_LEN as u64 * PIECE_LEN as u64;
        let begin = piece.saturating_sub(start).div_ceil(entry).max(low).min(guess);
        let end = ((piece + PIECE_LEN as u64).saturating_sub(start) / entry).min(high).max(guess + 1);
        (begin, end)
    }

    fn bisect(&self, prefix: &ChunkPrefix, mut low: u64, mut high: u64) -> Result<u64> {
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.prefix < *prefix { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// All entries in order, many at once.
    pub(super) fn into_entries(self) -> Entries {
        Entries { shard: self, next: 0, buffer: Vec::new(), buffered: 0, last: None }
    }
}

/// Where the entry should be if prefixes lie evenly between `first` and `last`.
fn guess(prefix: &ChunkPrefix, (first, last): (&ChunkPrefix, &ChunkPrefix), (low, high): (u64, u64)) -> u64 {
    let front = |prefix: &ChunkPrefix| u128::from_be_bytes(*prefix) >> 32;
    let (first, last) = (front(first), front(last));
    let width = last.saturating_sub(first).max(1) >> 32;
    let offset = front(prefix).clamp(first, last).saturating_sub(first) >> 32;
    let steps = u128::from(high - low) * offset / width.max(1);
    let steps = u64::try_from(steps).unwrap_or(u64::MAX);
    low.saturating_add(steps).min(high - 1)
}

/// The entries of one object, ascending.
pub(super) struct Entries {
    shard: Shard,
    next: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer in the plaintext.
    buffered: u64,
    last: Option<IndexEntry>,
}

impl Entries {
    fn advance(&mut self) -> Result<Option<IndexEntry>> {
        let layout = &self.shard.layout;
        if self.next >= layout.entries {
            return Ok(None);
        }
        let at = layout.entries_at + 4 + self.next * ENTRY_LEN as u64;
        let end = at + ENTRY_LEN as u64;
        if at < self.buffered || end > self.buffered + self.buffer.len() as u64 {
            let piece = at / PIECE_LEN as u64;
            self.buffer = self.shard.fetch(piece, RUN)?;
            self.buffered = piece * PIECE_LEN as u64;
        }
        let from = usize::try_from(at - self.buffered).expect("within the buffer");
        let row = self.buffer.get(from..).and_then(|rest| rest.first_chunk());
        let wrong = |why: &str| Error::damaged(format!("read {}: {why}", self.shard.key));
        let entry = IndexEntry::decode(row.ok_or_else(|| wrong("it is cut off"))?);
        let (first, last) = layout.range;
        let placed = u64::from(entry.pack) < layout.packs && first <= entry.prefix && entry.prefix <= last;
        if !placed || self.last.is_some_and(|last| last >= entry) {
            return Err(wrong("its entries are out of order, out of range, or without a pack"));
        }
        self.last = Some(entry);
        self.next += 1;
        Ok(Some(entry))
    }
}

impl Iterator for Entries {
    type Item = Result<IndexEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.next = u64::MAX;
        }
        next.transpose()
    }
}
