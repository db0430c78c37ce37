//! What checks on this machine found: kept in the local cache, so that lists can mark it and later checks know what was
//! read when.

use crate::error::Result;
use crate::format::tree::ChunkRef;
use crate::id::{ChunkPrefix, PackId, SnapshotId};
use crate::repo::cache::Place;
use crate::repo::verify::{Depth, Lost, PackProblem, PackReport};
use crate::repo::{Reader, Repository, cache};
use std::collections::{HashMap, HashSet};

/// What cannot be read, by the numbers of packs in the local index.
#[derive(Debug, Clone, Default)]
pub struct Unreadable {
    packs: HashSet<u32>,
    chunks: HashSet<(u32, ChunkPrefix)>,
}

impl Unreadable {
    /// Adds what is lost of a pack.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn add(&mut self, repository: &Repository, pack: &PackId, lost: &Lost) -> Result<()> {
        // What is not in the index is not found there anyway.
        let Some(number) = cache::index::number(&repository.connection(), pack)? else { return Ok(()) };
        match lost {
            Lost::Nothing => {}
            Lost::Everything => drop(self.packs.insert(number)),
            Lost::Chunks(chunks) => self.chunks.extend(chunks.iter().map(|chunk| (number, *chunk))),
        }
        Ok(())
    }

    /// Forgets what was known of a pack: it was read anew.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn clear(&mut self, repository: &Repository, pack: &PackId) -> Result<()> {
        if self.packs.is_empty() && self.chunks.is_empty() {
            return Ok(());
        }
        if let Some(number) = cache::index::number(&repository.connection(), pack)? {
            self.packs.remove(&number);
            self.chunks.retain(|(known, _)| *known != number);
        }
        Ok(())
    }

    /// Forgets that all of a pack was unreadable: its table of contents was read.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be used.
    pub fn clear_whole(&mut self, repository: &Repository, pack: &PackId) -> Result<()> {
        if self.packs.is_empty() {
            return Ok(());
        }
        let connection = repository.connection();
        if cache::index::number(&connection, pack)?.is_some_and(|number| self.packs.remove(&number)) {
            cache::damage::forget_whole(&connection, pack)?;
        }
        Ok(())
    }

    fn has(&self, pack: u32, chunk: &ChunkPrefix) -> bool {
        self.packs.contains(&pack) || self.chunks.contains(&(pack, *chunk))
    }
}

impl Repository {
    /// What earlier checks on this machine found unreadable.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn known_unreadable(&self) -> Result<Unreadable> {
        let mut known = Unreadable::default();
        let bad = cache::damage::bad(&self.connection())?;
        for (pack, chunk) in bad {
            let lost = chunk.map_or(Lost::Everything, |chunk| Lost::Chunks(vec![chunk]));
            known.add(self, &pack, &lost)?;
        }
        Ok(known)
    }

    /// When each pack was last found whole in every byte, nanoseconds since 1970 by this machine's clock.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn packs_read(&self) -> Result<HashMap<PackId, i64>> {
        cache::damage::verified(&self.connection())
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
        let mut bad: Vec<Option<ChunkPrefix>> = Vec::new();
        for problem in &found.problems {
            match &problem.lost {
                Lost::Nothing => {}
                Lost::Everything => bad.push(None),
                Lost::Chunks(chunks) => bad.extend(chunks.iter().copied().map(Some)),
            }
        }
        let whole = depth == Depth::Data && !found.problems.iter().any(PackProblem::concerns_data);
        let time = whole.then(|| self.now());
        cache::damage::note_read(&mut self.connection(), pack, (read, time), &bad)
    }

    /// Writes down which snapshots a check found damaged, with how many files.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be written.
    pub fn note_damaged(&self, damaged: impl Iterator<Item = (SnapshotId, u64)>) -> Result<()> {
        cache::damage::set_damaged(&mut self.connection(), &damaged.collect::<Vec<_>>())
    }
}

impl Reader {
    /// True if some pack that is not known to be damaged there holds the chunk.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn is_readable(&self, chunk: &ChunkRef, unreadable: &Unreadable) -> Result<bool> {
        let prefix = chunk.id.prefix();
        let fits = |place: &Place| u64::from(place.len) == chunk.len && !unreadable.has(place.pack, &prefix);
        Ok(self.places(&chunk.id)?.iter().any(fits))
    }
}
