//! Packs that must be thawed before what is needed of them can be written anew.
//!
//! Unless somebody asks for more, they stay: thawing costs more than the little of them that nobody needs. They go when nobody
//! needs anything of them. A prune never waits half-way: what cannot be read is left as it is, and whoever wants it asks for it
//! afterwards and prunes once more, with marks of then.

use super::decide::{Candidate, Decision};
use super::prune::Prune;
use crate::error::Result;
use crate::event::Progress;
use crate::format::log::PackRef;
use crate::repo::cache;
use crate::repo::thaw::{ThawPlan, plan};
use std::collections::HashSet;

impl Prune<'_> {
    /// Keeps what would have been written anew and cannot be read now; the places of these candidates.
    pub(super) fn spare_archived(&mut self, candidates: &[Candidate], decisions: &mut [Decision]) -> Result<HashSet<usize>> {
        let (repository, mut frozen) = (self.repository, HashSet::new());
        let chosen: HashSet<u32> = (candidates.iter().zip(&*decisions))
            .filter(|(_, decision)| **decision == Decision::Repack)
            .filter_map(|(candidate, _)| candidate.number)
            .collect();
        if chosen.is_empty() || !repository.may_be_archived(&self.options.thaw) {
            return Ok(frozen);
        }
        let states = cache::index::pack_states(&repository.connection())?;
        let packs: Vec<PackRef> = states.iter().filter(|state| chosen.contains(&state.number)).map(|state| state.pack).collect();
        let found = plan(repository.store(), &packs, &Progress::default(), self.observer)?.unwrap_or_default();
        let waiting: HashSet<_> = found.archived.iter().chain(&found.thawing).map(|(pack, _)| pack.id).collect();
        for (place, candidate) in candidates.iter().enumerate() {
            if decisions[place] == Decision::Repack && waiting.contains(&candidate.id) {
                decisions[place] = Decision::Keep;
                frozen.insert(place);
            }
        }
        self.report.archived = frozen.len() as u64;
        self.report.thaw = found;
        Ok(frozen)
    }
}

impl ThawPlan {
    /// The packs that cannot be read now.
    #[must_use]
    pub fn unreadable(&self) -> Vec<PackRef> {
        self.archived.iter().chain(&self.thawing).map(|(pack, _)| *pack).collect()
    }
}
