//! Looking single chunks up: a few pieces of one shard of each set, and nothing of the others.

use super::read::Shard;
use crate::error::{ErrorKind, Result};
use crate::id::{ChunkPrefix, IndexId, PackId};
use crate::repo::sealed::may_be_damage;
use crate::repo::{Repository, cache};
use std::cell::OnceCell;

/// A shard that is opened when something in its range is looked up.
struct Lazy {
    id: IndexId,
    /// `None` if it cannot be read.
    shard: OnceCell<Option<Shard>>,
}

/// The sorted index as it was when this was made; for one thread.
pub struct Shards {
    repository: Repository,
    sets: Vec<Vec<Lazy>>,
}

impl Repository {
    /// The sorted index, nothing of which is read yet.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn shards(&self) -> Result<Shards> {
        let sets = cache::shards::sets(&self.connection())?;
        let lazy = |id| Lazy { id, shard: OnceCell::new() };
        let sets = sets.into_iter().filter(|set| set.whole).map(|set| set.shards.into_iter().map(lazy).collect());
        Ok(Shards { repository: self.clone(), sets: sets.collect() })
    }
}

impl Shards {
    /// Packs that may hold the chunk. A shard that is gone or damaged says nothing.
    ///
    /// # Errors
    /// `Failed` if the store cannot be read.
    pub fn find(&self, prefix: &ChunkPrefix) -> Result<Vec<PackId>> {
        let mut packs = Vec::new();
        for set in &self.sets {
            for pack in self.find_in(set, prefix)? {
                if !packs.contains(&pack) {
                    packs.push(pack);
                }
            }
        }
        Ok(packs)
    }

    fn find_in(&self, set: &[Lazy], prefix: &ChunkPrefix) -> Result<Vec<PackId>> {
        let Some(shard) = self.covering(set, prefix)? else { return Ok(Vec::new()) };
        let found = shard.find(prefix).and_then(|entries| entries.iter().map(|entry| shard.pack(entry.pack)).collect());
        unless_damaged(found).map(Option::unwrap_or_default)
    }

    /// The shard whose range holds the prefix. Prefixes are hashes, so shards of about one length divide their range
    /// evenly; what this guess misses is found by halving.
    fn covering<'a>(&self, set: &'a [Lazy], prefix: &ChunkPrefix) -> Result<Option<&'a Shard>> {
        let (mut low, mut high) = (0, set.len());
        let front = usize::from(prefix[0]) << 8 | usize::from(prefix[1]);
        let mut at = (front * set.len()) >> 16;
        while low < high {
            let lazy = &set[at.clamp(low, high - 1)];
            if lazy.shard.get().is_none() {
                let opened = unless_damaged(Shard::open(&self.repository, &lazy.id))?;
                let _ = lazy.shard.set(opened);
            }
            let Some(shard) = lazy.shard.get().and_then(Option::as_ref) else { return Ok(None) };
            let (first, last) = shard.range();
            let position = at.clamp(low, high - 1);
            if *prefix < first {
                high = position;
            } else if last < *prefix {
                low = position + 1;
            } else {
                return Ok(Some(shard));
            }
            // The neighbour first: the guess is rarely off by more.
            at = if *prefix < first { high.saturating_sub(1) } else { low };
        }
        Ok(None)
    }
}

fn unless_damaged<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if may_be_damage(&error) || error.kind() == ErrorKind::Missing => Ok(None),
        Err(error) => Err(error),
    }
}
