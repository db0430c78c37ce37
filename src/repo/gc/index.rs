//! What a prune does to the index in the store: puts it into order, and takes away what that replaced.

use super::prune::Prune;
use crate::error::{ErrorKind, Result};
use crate::event::{Event, stop_if_asked};
use crate::id::{IndexId, PackId};
use crate::store::{Key, Removal, remove};
use std::collections::HashSet;

impl Prune<'_> {
    /// Compacts the index if there is enough to do; returns the index objects that nobody needs any more.
    pub(super) fn compact(&mut self) -> Result<Vec<PackId>> {
        match self.repository.compact_index(&self.options.index, self.observer) {
            Ok(report) => self.report.compacted = report,
            // Space is what a prune is for: the index can wait until there is some.
            Err(error) if error.kind() == ErrorKind::Full => {
                self.observer.observe(Event::Note("the index is put into order another time: the store is full"));
            }
            Err(error) => return Err(error),
        }
        let grace = i64::try_from(self.options.grace.as_nanos()).unwrap_or(i64::MAX);
        let listed = self.repository.listed_shards()?.into_iter();
        let now = self.repository.now();
        let old = listed.filter(|(_, _, modified)| now.saturating_sub(*modified) >= grace).map(|(id, _, _)| id);
        let useless = self.repository.useless_shards(&old.collect())?;
        Ok(useless.into_iter().map(|id| PackId(id.0)).collect())
    }

    /// Deletes the index objects that published plans list.
    pub(super) fn delete_shards(&mut self, gone: &HashSet<PackId>) -> Result<()> {
        let listed = self.repository.listed_shards()?;
        let doomed: Vec<IndexId> = listed.into_iter().map(|(id, _, _)| id).filter(|id| gone.contains(&PackId(id.0))).collect();
        for some in doomed.chunks(self.repository.width()) {
            stop_if_asked(self.observer)?;
            let removed = self
                .repository
                .side_by_side(some, |id| remove(&**self.repository.store(), &Key::index(id), self.repository.now()));
            for removal in removed {
                self.report.index_deleted += u64::from(removal? == Removal::Gone);
            }
        }
        Ok(())
    }
}
