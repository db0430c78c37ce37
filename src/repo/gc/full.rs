//! Pruning where no byte can be written: first only what nobody needs goes, a few packs at a time, with the room that the
//! store kept back for this. What needs room of its own, repacking and compacting, comes after.

use super::decide::{Decision, PackDecision, PruneOptions, Truncation};
use super::prune::{Prune, PruneReport};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::format::log::{Head, RecordBody};
use crate::id::PackId;
use crate::repo::{CompactOptions, Repository};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Packs that are condemned at once: the objects that say so must be small.
const MOST: usize = 512;

/// Room that a forget gets of the reserve: for its record, and for the file that becomes it.
const RECORD_ROOM: u64 = 32 << 10;

impl Repository {
    /// Appends a small record without which nothing can ever be freed, if need be with a part of the reserve.
    pub(in crate::repo) fn append_with_reserve(&self, body: RecordBody) -> Result<Head> {
        match self.append(body.clone()) {
            Err(error) if error.kind() == ErrorKind::Full && self.store().release_reserve(RECORD_ROOM)? => self.append(body),
            other => other,
        }
    }

    /// Goes on after a prune that ended because the store was `full`.
    pub(super) fn prune_full(&self, options: &PruneOptions, full: Error, observer: &dyn Observer) -> Result<PruneReport> {
        let hint = "nothing can go yet: forget snapshots, or free some space there in another way";
        let released = self.store().release_reserve(u64::MAX)?;
        observer.observe(Event::Note("the store is full: first what nobody needs goes, then the rest is done"));
        let index = CompactOptions { packs: usize::MAX, ..CompactOptions::default() };
        let truncation = Truncation::Never;
        let sparing = PruneOptions { max_repack: Some(0), repack_small: false, index, truncation, ..options.clone() };
        let first = Prune::new(self, &sparing, observer).and_then(|prune| prune.at_most(MOST).run());
        // What comes now may fill the store again; the reserve is made first.
        if released {
            let _ = self.store().keep_reserve();
        }
        let first = match first {
            Ok(report) if report.deleted > 0 => report,
            Ok(_) => return Err(full.with_hint(hint)),
            Err(error) => return Err(error),
        };
        match Prune::new(self, options, observer)?.run() {
            Ok(second) => Ok(first.and(second)),
            Err(error) if error.kind() == ErrorKind::Full => {
                observer.observe(Event::Warning(&format!("{error}; what nobody needs is gone, the rest stays as it was")));
                Ok(first)
            }
            Err(error) => Err(error),
        }
    }
}

impl PruneReport {
    /// This, and then what `later` did.
    #[must_use]
    pub fn and(self, mut later: Self) -> Self {
        let known: HashSet<PackId> = later.packs.iter().map(|pack| pack.id).collect();
        let went = |pack: &PackDecision| pack.decision == Decision::Drop && !known.contains(&pack.id);
        later.packs.extend(self.packs.into_iter().filter(went));
        Self {
            deleted: self.deleted + later.deleted,
            bytes_deleted: self.bytes_deleted + later.bytes_deleted,
            index_deleted: self.index_deleted + later.index_deleted,
            spared: self.spared + later.spared,
            written: self.written + later.written,
            bytes_written: self.bytes_written + later.bytes_written,
            records_deleted: self.records_deleted + later.records_deleted,
            generation: later.generation.or(self.generation),
            ..later
        }
    }
}

/// Packs as the store lists them: length, and when it got them.
pub(super) type Listed = BTreeMap<PackId, (u64, i64)>;

/// Leaves the largest `most` of the packs, whose lengths are `sizes`.
pub(super) fn largest(packs: &mut BTreeSet<PackId>, sizes: &Listed, most: usize) {
    let mut order: Vec<PackId> = packs.iter().copied().collect();
    order.sort_by_key(|id| std::cmp::Reverse(sizes.get(id).map_or(0, |(size, _)| *size)));
    order.truncate(most);
    packs.retain(|id| order.contains(id));
}
