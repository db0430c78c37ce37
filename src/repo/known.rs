//! Which chunks need not be stored: those of this session that are on their way, and those of the index.
//!
//! A chunk is in the in-flight set from the moment a worker takes it on until its pack is durable and in the index;
//! so the set is bounded by the packs being written, not by the repository.

use crate::error::Result;
use crate::id::ChunkPrefix;
use crate::repo::cache::IndexReader;
use crate::repo::filter::Filter;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, OnceLock};

const SHARDS: usize = 64;

/// Prefixes are parts of keyed hashes already; hashing them again would gain nothing.
#[derive(Default)]
struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

type Shard = Mutex<HashSet<ChunkPrefix, BuildHasherDefault<PrefixHasher>>>;

/// The set of chunks that are stored or on their way.
pub(super) struct Known {
    in_flight: Vec<Shard>,
    filter: OnceLock<Filter>,
    building: Mutex<()>,
}

impl Known {
    pub(super) fn new() -> Self {
        Self { in_flight: (0..SHARDS).map(|_| Shard::default()).collect(), filter: OnceLock::new(), building: Mutex::new(()) }
    }

    fn shard(&self, prefix: &ChunkPrefix) -> std::sync::MutexGuard<'_, HashSet<ChunkPrefix, BuildHasherDefault<PrefixHasher>>> {
        self.in_flight[usize::from(prefix[15]) % SHARDS].lock().expect("no code panics while it holds this lock")
    }

    /// The filter over the index, made when it is first needed: an unchanged tree never asks.
    fn filter(&self, index: &IndexReader) -> Result<&Filter> {
        if let Some(filter) = self.filter.get() {
            return Ok(filter);
        }
        let _one = self.building.lock().expect("no code panics while it holds this lock");
        if let Some(filter) = self.filter.get() {
            return Ok(filter);
        }
        index.refresh()?;
        let count = usize::try_from(index.count()?).unwrap_or(usize::MAX);
        let filter = Filter::for_keys(count.saturating_mul(2).max(1 << 20));
        index.prefixes(|prefix| filter.insert(prefix))?;
        Ok(self.filter.get_or_init(|| filter))
    }

    /// True if the caller must store the chunk; from then on others take it as known.
    pub(super) fn take_on(&self, prefix: &ChunkPrefix, index: &IndexReader) -> Result<bool> {
        if self.shard(prefix).contains(prefix) {
            return Ok(false);
        }
        if self.filter(index)?.may_contain(prefix) && self.is_stored(prefix, index)? {
            return Ok(false);
        }
        Ok(self.shard(prefix).insert(*prefix))
    }

    /// True if the chunk is in the index.
    pub(super) fn is_stored(&self, prefix: &ChunkPrefix, index: &IndexReader) -> Result<bool> {
        if index.place(prefix)?.is_some() {
            return Ok(true);
        }
        // The reader's view may be older than the pack that holds the chunk.
        index.refresh()?;
        Ok(index.place(prefix)?.is_some())
    }

    /// Notes that the chunks of a pack are in the index now.
    pub(super) fn settle<'a>(&self, prefixes: impl Iterator<Item = &'a ChunkPrefix>) {
        for prefix in prefixes {
            // First visible in the filter, then gone from the set: nobody finds it in neither.
            if let Some(filter) = self.filter.get() {
                filter.insert(prefix);
            }
            self.shard(prefix).remove(prefix);
        }
    }
}
