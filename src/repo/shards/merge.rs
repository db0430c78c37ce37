//! Merging sorted streams of index entries; memory grows with the number of streams and with nothing else.

use super::read::{Entries, Shard};
use crate::error::{Error, Result};
use crate::format::index::IndexEntry;
use crate::id::{IndexId, PackId};
use crate::repo::{Repository, cache};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries that ascend.
pub(super) type Stream<'a> = Box<dyn Iterator<Item = Result<IndexEntry>> + 'a>;

/// The entries of several streams in order, each once.
pub(super) struct Merge<'a> {
    streams: Vec<Stream<'a>>,
    heads: BinaryHeap<Reverse<(IndexEntry, usize)>>,
    last: Option<IndexEntry>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(mut streams: Vec<Stream<'a>>) -> Result<Self> {
        let mut heads = BinaryHeap::new();
        for (number, stream) in streams.iter_mut().enumerate() {
            heads.extend(stream.next().transpose()?.map(|entry| Reverse((entry, number))));
        }
        Ok(Self { streams, heads, last: None })
    }

    pub(super) fn advance(&mut self) -> Result<Option<IndexEntry>> {
        while let Some(Reverse((entry, number))) = self.heads.pop() {
            let next = self.streams[number].next().transpose()?;
            self.heads.extend(next.map(|entry| Reverse((entry, number))));
            if self.last != Some(entry) {
                self.last = Some(entry);
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// The entries of a set of shards that name one of `packs`, by its position there.
pub(super) struct SetStream<'a> {
    repository: &'a Repository,
    packs: &'a [PackId],
    shards: std::vec::IntoIter<IndexId>,
    /// The shard that is being read, and where its packs are in `packs`. Both ascend, so the order stays.
    open: Option<(Entries, Vec<Option<u32>>)>,
    last: Option<IndexEntry>,
}

impl<'a> SetStream<'a> {
    pub(super) fn new(repository: &'a Repository, packs: &'a [PackId], shards: Vec<IndexId>) -> Self {
        Self { repository, packs, shards: shards.into_iter(), open: None, last: None }
    }

    fn advance(&mut self) -> Result<Option<IndexEntry>> {
        loop {
            let Some((entries, positions)) = &mut self.open else {
                let Some(id) = self.shards.next() else { return Ok(None) };
                let shard = Shard::open(self.repository, &id)?;
                let position = |pack: &PackId| self.packs.binary_search(pack).ok().and_then(|at| u32::try_from(at).ok());
                let positions = shard.packs()?.iter().map(position).collect();
                self.open = Some((shard.into_entries(), positions));
                continue;
            };
            let Some(entry) = entries.next().transpose()? else {
                self.open = None;
                continue;
            };
            let Some(pack) = positions.get(entry.pack as usize).copied().flatten() else { continue };
            let entry = IndexEntry { pack, ..entry };
            if self.last.is_some_and(|last| last >= entry) {
                return Err(Error::damaged("merge the index: the shards of one set overlap"));
            }
            self.last = Some(entry);
            return Ok(Some(entry));
        }
    }
}

impl Iterator for SetStream<'_> {
    type Item = Result<IndexEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// The entries of the local index that name one of `packs`.
pub(super) fn cached<'a>(repository: &Repository, packs: &'a [PackId]) -> Result<Stream<'a>> {
    let entries = cache::shards::CachedEntries::new(repository.cache().connect()?, packs)?;
    Ok(Box::new(entries))
}
