//! Which packs a restore is going to read.

use super::compare::{Comparison, existing, looks_equal};
use super::plan::{Planner, REPLACE_LIMIT};
use super::{Overwrite, RestoreOptions, execute, known, place::Place, report::Tally};
use crate::error::Result;
use crate::event::{Observer, Silent};
use crate::format::log::PackRef;
use crate::format::tree::{Node, NodeKind};
use crate::repo::{Reader, Repository, SnapshotEntry};
use crate::source::files::{Stat, TargetDir};
use std::collections::BTreeSet;

/// Goes through the restore without writing anything, and notes what it would read.
pub(super) fn packs(
    repository: &Repository,
    reader: &Reader,
    (entry, top): (&SnapshotEntry, &Node),
    options: &RestoreOptions,
    observer: &dyn Observer,
) -> Result<Vec<PackRef>> {
    // What is lost is told when it is restored, and not twice.
    let stops = Quiet(observer);
    let tally = Tally::new(&stops, false);
    // What a restore that was cut off left is compared, whatever the names of the files say.
    let overwrite = if options.overwrite == Overwrite::Refuse { Overwrite::Always } else { options.overwrite };
    let dry = RestoreOptions { dry_run: true, overwrite, ..options.clone() };
    let place = Place::open(&dry, "")?;
    let mut needed = BTreeSet::new();
    execute::with_workers(repository, 1, &tally, |workers| {
        let known = known::Known::new(&entry.snapshot, &options.subpath);
        let mut planner = Planner::new(reader, &dry, workers, (&place, known))?;
        planner.needed = Some(BTreeSet::new());
        planner.run(top.clone(), place.target.clone())?;
        needed = planner.needed.take().unwrap_or_default();
        Ok(())
    })?;
    needed.into_iter().map(|number| reader.pack_ref(number)).collect()
}

/// Hears nothing and stops when the other wants to.
struct Quiet<'a>(&'a dyn Observer);

impl Observer for Quiet<'_> {
    fn observe(&self, event: crate::event::Event<'_>) {
        Silent.observe(event);
    }

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}

impl Planner<'_> {
    /// The directory that the walk has just entered, if it is there; nothing is made.
    pub(super) fn look(&self) -> Option<TargetDir> {
        let [.., above, level] = &self.levels[..] else { return None };
        above.target.as_ref()?.open_child(&level.node.name).ok()
    }

    /// What has the name of an entry of the directory that the walk is in, in a dry run.
    pub(super) fn seen(&self, name: &[u8]) -> Result<Option<Stat>> {
        let target = self.levels.last().and_then(|level| level.target.as_ref());
        target.map_or(Ok(None), |target| existing(target, name))
    }

    /// Counts the directory that would be removed because it is in the way of something else, in a dry run.
    ///
    /// # Errors
    /// `Refused` if it would stay, because it holds something.
    pub(super) fn would_clear(&self, name: &[u8], found: Option<&Stat>) -> Result<()> {
        let target = self.levels.last().and_then(|level| level.target.as_ref());
        let (Some(target), true) = (target, found.is_some_and(|found| found.kind == NodeKind::Directory)) else { return Ok(()) };
        if self.needed.is_none() {
            target.verify_clearable(name, self.options.delete)?;
            self.workers.tally.count(|report| report.deleted += 1);
        }
        Ok(())
    }

    /// Notes the packs from which the file's content would be read, if somebody asked for them.
    pub(super) fn need(&mut self, node: &Node, found: Option<&Stat>) -> Result<()> {
        let Some(mut needed) = self.needed.take() else { return Ok(()) };
        let result = self.need_of(node, found, &mut needed);
        self.needed = Some(needed);
        result
    }

    fn need_of(&mut self, node: &Node, found: Option<&Stat>, needed: &mut BTreeSet<u32>) -> Result<()> {
        if found.is_some_and(|found| self.overwrite == Overwrite::IfChanged && looks_equal(found, node)) {
            return Ok(());
        }
        let target = self.levels.last().and_then(|level| level.target.clone());
        let mut compare = target.filter(|_| found.is_some()).and_then(|target| Comparison::new(&target, node));
        let mut buffer = Vec::new();
        if let Some(compare) = &mut compare
            && compare.is_equal(self.reader, node, &mut buffer)?
        {
            return Ok(());
        }
        let patched = compare.filter(|_| node.size > REPLACE_LIMIT);
        let mut at = 0;
        for reference in self.reader.contents(&node.content)? {
            let reference = reference?;
            let is_there = patched.as_ref().is_some_and(|patched| patched.same(self.reader, &reference, at, &mut buffer));
            if !is_there {
                needed.insert(self.reader.locate(&reference.id)?.0.pack);
            }
            at += reference.len;
        }
        Ok(())
    }
}
