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

/// What is to be done about a chunk.
pub(super) enum Taken {
    /// Nobody has it: the caller stores it.
    New,
    /// Somebody in this session stores it.
    OnItsWay,
    /// It is in the pack of that number.
    Stored(u32),
}

/// The set of chunks that are stored or on their way.
pub(super) struct Known {
    /// Packs that must not be relied on.
    barred: HashSet<u32>,
    in_flight: Vec<Shard>,
    filter: OnceLock<Filter>,
    building: Mutex<()>,
}

impl Known {
    pub(super) fn new(barred: HashSet<u32>) -> Self {
        Self {
            barred,
            in_flight: (0..SHARDS).map(|_| Shard::default()).collect(),
            filter: OnceLock::new(),
            building: Mutex::new(()),
        }
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

    /// Decides about a chunk; once it is to be stored by the caller, others take it as on its way.
    pub(super) fn take_on(&self, prefix: &ChunkPrefix, index: &IndexReader) -> Result<Taken> {
        if self.shard(prefix).contains(prefix) {
            return Ok(Taken::OnItsWay);
        }
        if self.filter(index)?.may_contain(prefix)
            && let Some(pack) = self.stored_in(prefix, index)?
        {
            return Ok(Taken::Stored(pack));
        }
        Ok(if self.shard(prefix).insert(*prefix) { Taken::New } else { Taken::OnItsWay })
    }

    /// A pack of the index that holds the chunk and may be relied on.
    pub(super) fn stored_in(&self, prefix: &ChunkPrefix, index: &IndexReader) -> Result<Option<u32>> {
        if let Some(pack) = index.pack_of(prefix, &self.barred)? {
            return Ok(Some(pack));
        }
        // The reader's view may be older than the pack that holds the chunk.
        index.refresh()?;
        index.pack_of(prefix, &self.barred)
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
