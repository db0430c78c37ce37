//! Compaction: putting what the tables of contents say into sorted shards (docs/protocol.md, section 7).

use super::merge::{Merge, SetStream, Stream, cached};
use super::write::ShardWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, Stage, stop_if_asked};
use crate::format::log::RecordBody;
use crate::id::{IndexId, PackId};
use crate::repo::cache::shards::{self, ShardSet};
use crate::repo::sealed::{may_be_damage, not_allowed};
use crate::repo::{Repository, cache};
use crate::store::Key;
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most packs of a set: the record that names them must not get too long.
const MAX_PACKS: usize = 1 << 18;

/// When, and into what.
#[derive(Debug, Clone)]
pub struct CompactOptions {
    /// Packs outside all shards that are too many.
    pub packs: usize,
    /// Most entries of a shard; fewer if an object cannot hold them.
    pub entries: usize,
    /// Everything is merged into one set, however little is new.
    pub everything: bool,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { packs: 128, entries: 1 << 21, everything: false }
    }
}

/// What a compaction wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Shards written.
    pub shards: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries in them.
    pub entries: u64,
    /// Packs that they cover.
    pub packs: u64,
}

/// What goes into one set.
pub(super) struct Merging {
    /// Sets that it replaces.
    pub(super) sets: Vec<ShardSet>,
    pub(super) packs: Vec<PackId>,
}

/// What became of a set.
enum Outcome {
    Written(CompactReport),
    /// The set of this number, which was to be merged, cannot be read: once more, without it.
    Unreadable(i64),
    /// A prune condemned something of it.
    Outrun,
}

impl Repository {
    /// Puts what is in no shard yet into sorted shards, with what older, smaller sets hold. Nothing is written while fewer
    /// than `options.packs` packs are outside. What the new shards replace goes with the next prune.
    ///
    /// # Errors
    /// `Refused` if the keys at hand may not, `Full`, `Failed`.
    pub fn compact_index(&self, options: &CompactOptions, observer: &dyn Observer) -> Result<CompactReport> {
        if !self.may_write_index() {
            return Err(not_allowed("compact the index", self.role().name()));
        }
        let mut report = CompactReport::default();
        let mut unreadable = HashSet::new();
        while let Some(merging) = self.plan_compaction(options, &unreadable)? {
            let progress = Arc::new(Progress::default());
            progress.files_total.store(merging.packs.len() as u64, Ordering::Relaxed);
            observer.observe(Event::Started(Stage::Compacting, &progress));
            let written = self.write_set(&merging, options, observer);
            observer.observe(Event::Finished(Stage::Compacting));
            match written? {
                Outcome::Written(written) => {
                    report.shards += written.shards;
                    report.bytes += written.bytes;
                    report.entries += written.entries;
                    report.packs += written.packs;
                    if options.everything {
                        break;
                    }
                }
                Outcome::Unreadable(set) => drop(unreadable.insert(set)),
                Outcome::Outrun => break,
            }
        }
        Ok(report)
    }

    /// Writes one set; false if it was not written.
    pub(super) fn compact(&self, merging: &Merging, options: &CompactOptions, observer: &dyn Observer) -> Result<bool> {
        Ok(matches!(self.write_set(merging, options, observer)?, Outcome::Written(_)))
    }

    /// Which packs and sets are merged next, if there is enough to do. Sets grow in steps of three or more, so that each
    /// entry is written a few times in all, and there are a few sets to look into.
    fn plan_compaction(&self, options: &CompactOptions, unreadable: &HashSet<i64>) -> Result<Option<Merging>> {
        let connection = self.connection();
        let sets: Vec<ShardSet> = shards::sets(&connection)?;
        let good: Vec<&ShardSet> = sets.iter().filter(|set| set.is_good() && !unreadable.contains(&set.number)).collect();
        let mut packs = shards::uncovered(&connection, &good)?;
        let is_due = match options.everything {
            true => !packs.is_empty() || good.len() > 1,
            false => !packs.is_empty() && packs.len() >= options.packs,
        };
        if !is_due {
            return Ok(None);
        }
        packs.truncate(MAX_PACKS);
        let mut merged: Vec<ShardSet> = Vec::new();
        for set in good.into_iter().rev() {
            let together = packs.len() + usize::try_from(set.live).unwrap_or(usize::MAX);
            let is_small = options.everything || set.live <= 2 * packs.len() as u64 || set.live * 2 < set.made_of;
            if is_small && together <= MAX_PACKS {
                packs.extend(shards::packs_of(&connection, set.number)?);
                merged.push(set.clone());
            }
        }
        packs.sort_unstable();
        packs.dedup();
        Ok(Some(Merging { sets: merged, packs }))
    }

    /// Writes a set and names it in the log.
    fn write_set(&self, merging: &Merging, options: &CompactOptions, observer: &dyn Observer) -> Result<Outcome> {
        let damaged = Cell::new(None);
        let mut streams: Vec<Stream<'_>> = vec![cached(self, &merging.packs)?];
        for set in &merging.sets {
            if !self.is_indexed(set)? {
                let (number, damaged) = (set.number, &damaged);
                let stream = SetStream::new(self, &merging.packs, set.shards.clone());
                streams.push(Box::new(stream.inspect(move |entry| {
                    let is_lost = |error: &Error| may_be_damage(error) || error.kind() == ErrorKind::Missing;
                    if entry.as_ref().is_err_and(is_lost) {
                        damaged.set(Some(number));
                    }
                })));
            }
        }
        let mut writer = ShardWriter::new(self, &merging.packs, options.entries);
        let copied = Merge::new(streams).and_then(|mut merge| {
            let mut count = 0u64;
            while let Some(entry) = merge.advance()? {
                writer.push(&entry)?;
                count += 1;
                if count.is_multiple_of(65_536) {
                    stop_if_asked(observer)?;
                }
            }
            Ok(())
        });
        if let (Err(error), Some(number)) = (&copied, damaged.get()) {
            observer.observe(Event::Warning(&format!("a part of the index is made anew from the packs: {error}")));
            return Ok(Outcome::Unreadable(number));
        }
        copied?;
        let written = writer.finish()?;
        let report = CompactReport {
            shards: written.shards.len() as u64,
            bytes: written.bytes,
            entries: written.entries,
            packs: merging.packs.len() as u64,
        };
        let named = self.name_set(written.shards, &merging.packs)?;
        Ok(if named { Outcome::Written(report) } else { Outcome::Outrun })
    }

    /// True if the cache has what the set holds, so that it need not be read.
    fn is_indexed(&self, set: &ShardSet) -> Result<bool> {
        let connection = self.connection();
        shards::all_loaded(&connection, set.number)
    }

    /// Appends the record that names a set; false if a prune condemned something of it.
    fn name_set(&self, indexes: Vec<IndexId>, packs: &[PackId]) -> Result<bool> {
        let outrun = Cell::new(false);
        let still_valid = || {
            outrun.set(!shards::may_be_named(&self.connection(), &indexes, packs)?);
            if outrun.get() { Err(Error::new(ErrorKind::InUse, "name shards: a prune was faster")) } else { Ok(()) }
        };
        let body = RecordBody::Index { indexes: indexes.clone(), packs: packs.to_vec() };
        match self.append_if(body, &still_valid) {
            Ok(_) => Ok(true),
            Err(_) if outrun.get() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Index objects that nobody needs: those of sets whose packs other sets cover, those that are left of sets that are
    /// not whole, and those in `listed` that no record names.
    pub(in crate::repo) fn useless_shards(&self, listed: &HashSet<IndexId>) -> Result<Vec<IndexId>> {
        let connection = self.connection();
        let sets = shards::sets(&connection)?;
        let gone = cache::prune::gone(&connection)?;
        let is_gone = |id: &&IndexId| gone.contains(&PackId(id.0));
        let mut kept: Vec<&ShardSet> = sets.iter().filter(|set| set.is_good()).collect();
        let mut useless: Vec<IndexId> = Vec::new();
        // The smallest is given up first, and of two that cover the same, the older: a repair may have written the newer.
        let mut order: Vec<&ShardSet> = sets.iter().collect();
        order.sort_by_key(|set| (set.live, set.number));
        for set in order {
            let others: Vec<&ShardSet> = kept.iter().copied().filter(|other| other.number != set.number).collect();
            if !set.whole || set.is_good() && shards::is_covered(&connection, set, &others, &HashSet::new())? {
                kept = others;
                useless.extend(set.shards.iter().filter(|id| !is_gone(id)));
            }
        }
        let named: HashSet<IndexId> = sets.iter().flat_map(|set| set.shards.iter().copied()).collect();
        useless.extend(listed.iter().filter(|id| !named.contains(id) && !is_gone(id)));
        useless.sort_unstable();
        Ok(useless)
    }

    /// Of condemned objects, the shards that must stay: nothing that is listed and not condemned covers their packs, but
    /// for those that are about to go.
    pub(in crate::repo) fn shards_still_needed(&self, going: &HashSet<PackId>) -> Result<HashSet<PackId>> {
        let connection = self.connection();
        let sets = shards::sets(&connection)?;
        let good: Vec<&ShardSet> = sets.iter().filter(|set| set.is_good()).collect();
        let mut needed = HashSet::new();
        for set in sets.iter().filter(|set| set.whole && set.condemned) {
            if !shards::is_covered(&connection, set, &good, going)? {
                needed.extend(set.shards.iter().map(|id| PackId(id.0)));
            }
        }
        Ok(needed)
    }

    /// Index objects in the store, by listing it: length, and when it got them.
    pub(in crate::repo) fn listed_shards(&self) -> Result<Vec<(IndexId, u64, i64)>> {
        let mut listed = Vec::new();
        self.store().list("index", &mut |entry| {
            let id = entry.key.as_str().rsplit('/').next().and_then(|name| IndexId::from_hex(name).ok());
            listed.extend(id.filter(|id| Key::index(id) == entry.key).map(|id| (id, entry.size, entry.modified)));
            Ok(())
        })?;
        Ok(listed)
    }
}
