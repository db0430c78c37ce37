//! What checks on this machine found: kept in the local cache, so that lists can mark it and later checks know what was
//! read when.

use crate::error::Result;
use crate::format::tree::ChunkRef;
use crate::id::{ChunkPrefix, PackId, SnapshotId};
use crate::repo::verify::{Depth, Lost, PackProblem, PackReport};
use crate::repo::{Reader, Repository, cache};
use std::collections::HashSet;

/// Which packs of the local index have something that cannot be read. What it is may be more than fits into memory, and stays
/// in the cache.
#[derive(Debug, Default)]
pub struct Unreadable {
    packs: HashSet<u32>,
}

impl Repository {
    /// What checks on this machine found unreadable up to now.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn known_unreadable(&self) -> Result<Unreadable> {
        Ok(Unreadable { packs: cache::damage::bad(&self.connection())? })
    }

    /// Forgets that nothing of a pack could be read, if that is what is known: its table of contents was.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read or written.
    pub fn note_back(&self, pack: &PackId) -> Result<()> {
        let connection = self.connection();
        match cache::damage::is_wholly_bad(&connection, pack)? {
            true => cache::damage::forget_whole(&connection, pack),
            false => Ok(()),
        }
    }

    /// This machine's clock, nanoseconds since 1970: told to people, and never relied on.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.keys().surroundings.now()
    }

    /// False in a simulation: what only the system sets of a file is not for its seed to decide.
    #[must_use]
    pub fn keeps_times_of_change(&self) -> bool {
        !self.keys().surroundings.is_simulated()
    }

    /// Writes down what was found of a pack that was read, or that is damaged.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be written.
    pub fn note_read(&self, pack: &PackId, depth: Depth, found: &PackReport) -> Result<()> {
        // What was known of single chunks stays known unless every block was looked at.
        let read = depth == Depth::Data && !found.problems.iter().any(|problem| problem.lost == Lost::Everything);
        let mut bad = found.problems.iter().flat_map(|problem| {
            let (all, chunks): (Option<Option<&ChunkPrefix>>, &[ChunkPrefix]) = match &problem.lost {
                Lost::Nothing => (None, &[]),
                Lost::Everything => (Some(None), &[]),
                Lost::Chunks(chunks) => (None, chunks),
            };
            all.into_iter().chain(chunks.iter().map(Some))
        });
        let whole = depth == Depth::Data && !found.problems.iter().any(PackProblem::concerns_data);
        let time = whole.then(|| self.now());
        cache::damage::note_read(&mut self.connection(), pack, (read, time), &mut bad)
    }

    /// Writes down which snapshots a check found damaged, with how many files.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be written.
    pub fn note_damaged(&self, damaged: &[(SnapshotId, u64)]) -> Result<()> {
        cache::damage::set_damaged(&mut self.connection(), damaged)
    }
}

impl Reader {
    /// True if some pack that is not known to be damaged there holds the chunk.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn is_readable(&self, chunk: &ChunkRef, unreadable: &Unreadable) -> Result<bool> {
        for place in self.places(&chunk.id)?.iter().filter(|place| u64::from(place.len) == chunk.len) {
            if !unreadable.packs.contains(&place.pack) || !self.is_bad(place.pack, &chunk.id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
