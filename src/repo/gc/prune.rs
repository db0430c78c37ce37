//! The steps of a prune.

use super::decide::{ARCHIVED, Candidate, Decision, PackDecision, PruneOptions, Truncation, decide, reason, weigh};
use super::full::{Listed, largest};
use super::lock::{LockReport, Reach, WantedLocks};
use super::mark::{Marker, Trusted, not_looked_into};
use super::view::View;
use crate::crypto::sign::PRUNE_OBJECT;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, Stage, stop_if_asked};
use crate::format::envelope::ObjectKind;
use crate::format::gc::PruneObject;
use crate::format::key::Role;
use crate::format::log::{Head, PackRef, RecordBody};
use crate::id::{ObjectHash, PackId};
use crate::repo::cache::marks::Usage;
use crate::repo::gc::follow::MAX_PRUNE;
use crate::repo::sealed::{not_allowed, seal_object};
use crate::repo::{CompactReport, Repository, ThawPlan, cache};
use crate::store::{Key, Next, Removal, remove};
use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// How often trees are looked at again because other prunes moved them.
const MARK_ATTEMPTS: usize = 10;

/// Folders in which there is something of what a plan lets go.
const DELETED_FROM: [&str; 4] = ["parity", "contents", "packs", "index"];

/// What a prune did, or with `dry_run` would do.
#[derive(Debug, Default)]
pub struct PruneReport {
    /// Every pack in the store and what becomes of it.
    pub packs: Vec<PackDecision>,
    /// The generation that was run, if anything was to be deleted.
    pub generation: Option<u64>,
    /// Packs written anew.
    pub written: u64,
    /// Bytes of them.
    pub bytes_written: u64,
    /// Packs that were to be written anew, and stay as they are because time was up.
    pub put_off: u64,
    /// Packs deleted.
    pub deleted: u64,
    /// Bytes of them.
    pub bytes_deleted: u64,
    /// Packs that were condemned and then spared, because somebody needed them after all.
    pub spared: u64,
    /// Chunks that snapshots need and that no pack holds.
    pub missing: u64,
    /// What was written of the index.
    pub compacted: CompactReport,
    /// Index objects deleted.
    pub index_deleted: u64,
    /// Packs that were not written anew because they are archived.
    pub archived: u64,
    /// Of all that was to be written anew, what can be read and what cannot, where there are archives.
    pub thaw: ThawPlan,
    /// What became of locks, where the store has them.
    pub locks: LockReport,
    /// Old records of logs for which a checkpoint is to stand: in a dry run, how many would go.
    pub records_to_go: u64,
    /// Records of logs deleted.
    pub records_deleted: u64,
    /// Old records that are worth a prune by the owner, where this one may not let them go.
    pub records_for_owner: u64,
}

pub(super) struct Prune<'a> {
    pub(super) repository: &'a Repository,
    pub(super) options: &'a PruneOptions,
    pub(super) observer: &'a dyn Observer,
    marker: Marker,
    /// Packs that are condemned at once.
    most: usize,
    /// How far locks reach, as seen from the beginning.
    reach: Option<Reach>,
    pub(super) report: PruneReport,
}

impl Repository {
    /// Takes back the space of what no snapshot needs. Any number of runners may do this at once, and any may stop
    /// anywhere; backups go on meanwhile.
    ///
    /// # Errors
    /// `Refused` if the keys at hand may not prune, `Damaged` if a tree that must be followed cannot be read.
    pub fn prune(&self, options: &PruneOptions, observer: &dyn Observer) -> Result<PruneReport> {
        if !matches!(self.role(), Role::Owner | Role::Maintainer) {
            return Err(not_allowed("prune", self.role().name()));
        }
        match Prune::new(self, options, observer)?.run() {
            Err(error) if error.kind() == ErrorKind::Full && !options.dry_run => self.prune_full(options, error, observer),
            other => other,
        }
    }

    /// Makes sure that no prune overlooks what this client has just said of a snapshot: a generation that is open is
    /// brought to its end. Only then is it known whether the snapshot stands.
    pub(in crate::repo) fn settle(&self, observer: &dyn Observer) -> Result<()> {
        self.follow_prunes()?;
        let newest = cache::prune::newest(&self.connection())?;
        if newest.is_none_or(|row| row.plan.is_some() || row.condemn.is_none()) {
            return Ok(());
        }
        if !matches!(self.role(), Role::Owner | Role::Maintainer) {
            return Err(Error::new(
                ErrorKind::InUse,
                "make sure of the snapshot: a prune is under way and may not have seen this",
            )
            .with_hint("it is recorded; once `lifeboat prune` has come to its end, run the same command again"));
        }
        let options = PruneOptions { truncation: Truncation::Never, ..PruneOptions::default() };
        Prune::new(self, &options, observer)?.settle()
    }
}

impl<'a> Prune<'a> {
    pub(super) fn new(repository: &'a Repository, options: &'a PruneOptions, observer: &'a dyn Observer) -> Result<Self> {
        let (marker, reach) = (Marker::new(repository)?, Reach::of_store(repository));
        Ok(Self { repository, options, observer, marker, most: usize::MAX, reach, report: PruneReport::default() })
    }

    /// Condemns no more packs than that at once.
    pub(super) fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    pub(super) fn run(mut self) -> Result<PruneReport> {
        let began = Instant::now();
        // What is condemned may be anything: all logs are read again before anything is planned (P4).
        if !self.repository.inner.just_opened.swap(false, Ordering::Relaxed) {
            self.repository.refresh(self.observer)?;
        }
        self.repository.verify_all_known()?;
        if !self.options.dry_run {
            // Whatever an earlier runner left: its generation is brought to an end, and its plan carried out.
            if self.open_generation()?.is_some() {
                self.settle()?;
            }
            self.expect_listings()?;
            self.delete()?;
        }
        // Both are listed while the trees are read.
        self.repository.expect_listings(if self.options.dry_run { &["packs"] } else { &["packs", "index"] });
        let view = self.mark()?;
        let listed = self.list()?;
        let candidates = self.candidates(&listed)?;
        let target = u64::from(self.repository.format().pack_target);
        let mut decisions = decide(&candidates, self.options, target);
        let frozen = self.spare_archived(&candidates, &mut decisions)?;
        self.report.packs = candidates
            .iter()
            .zip(&decisions)
            .enumerate()
            .map(|(place, (candidate, decision))| PackDecision {
                id: candidate.id,
                size: candidate.size,
                modified: listed.get(&candidate.id).map_or(0, |(_, modified)| *modified),
                total: candidate.usage.total,
                used: candidate.usage.used,
                lock_until: candidate.usage.lock_until,
                decision: *decision,
                reason: if frozen.contains(&place) { ARCHIVED } else { reason(candidate, *decision) },
            })
            .collect();
        let wanted = WantedLocks::of(&self.report.packs, &view, self.reach);
        let mut truncates = self.is_to_truncate()?;
        self.count_for_owner()?;
        if self.options.dry_run {
            self.repository.extend_locks(&wanted, (false, &mut self.report.locks), self.observer)?;
            return Ok(self.report);
        }
        let deadline = self.options.max_duration.map(|duration| began + duration);
        let repacked = self.repack(&candidates, &decisions, deadline)?;
        let condemned = candidates.iter().zip(&decisions).filter(|(candidate, decision)| match decision {
            Decision::Drop => true,
            Decision::Repack => candidate.number.is_some_and(|number| repacked.contains(&number)),
            _ => false,
        });
        let mut condemned: BTreeSet<PackId> = condemned.map(|(candidate, _)| candidate.id).collect();
        condemned.extend(self.compact()?);
        if condemned.len() > self.most {
            largest(&mut condemned, &listed, self.most);
        }
        while !condemned.is_empty() || truncates {
            let (generation, is_ours) = self.condemn(&condemned)?;
            self.finish_generation(generation)?;
            self.delete()?;
            if is_ours {
                break;
            }
            truncates = false;
            // Somebody else was faster with this generation: what it left goes in the next one.
            let gone = cache::prune::gone(&self.repository.connection())?;
            condemned.retain(|pack| !gone.contains(pack));
        }
        self.repository.extend_locks(&wanted, (true, &mut self.report.locks), self.observer)?;
        Ok(self.report)
    }

    /// Asks for the listings that deleting looks at, if there is anything to delete.
    fn expect_listings(&self) -> Result<()> {
        if !cache::prune::gone(&self.repository.connection())?.is_empty() {
            self.repository.expect_listings(&DELETED_FROM);
        }
        Ok(())
    }

    fn stage<T>(&self, stage: Stage, work: impl FnOnce(&Arc<Progress>) -> Result<T>) -> Result<T> {
        let progress = Arc::new(Progress::default());
        self.observer.observe(Event::Started(stage, &progress));
        let result = work(&progress);
        self.observer.observe(Event::Finished(stage));
        result
    }

    /// Marks what is needed, as the logs are now. When another runner moved what was being read, it is looked at once
    /// more, with new marks: those of a tree that was left half-way would hide the other half.
    fn mark(&mut self) -> Result<View> {
        let seen = |repository: &Repository| -> Result<_> {
            let connection = repository.connection();
            let unread = cache::unread::count(&connection)?;
            Ok((cache::prune::newest(&connection)?, cache::log::heads(&connection)?, unread))
        };
        let mut attempts = 0;
        loop {
            let before = seen(self.repository)?;
            match self.mark_once() {
                Err(error) if error.kind() == ErrorKind::Damaged && attempts < MARK_ATTEMPTS => {
                    attempts += 1;
                    self.repository.refresh(self.observer)?;
                    let now = seen(self.repository)?;
                    if now == before {
                        return Err(if now.2 == 0 { error } else { not_looked_into(now.2) });
                    }
                    self.marker = Marker::new(self.repository)?;
                }
                other => return other,
            }
        }
    }

    fn mark_once(&mut self) -> Result<View> {
        self.repository.load_index(self.observer)?;
        let view = self.repository.view(self.reach)?;
        let progress = Arc::new(Progress::default());
        self.observer.observe(Event::Started(Stage::Marking, &progress));
        let marked = self.marker.mark(&view, &progress, self.observer);
        self.observer.observe(Event::Finished(Stage::Marking));
        marked.map_err(|error| match error.kind() {
            ErrorKind::Damaged => error.while_doing("mark what snapshots need").with_hint(
                "what lies below a tree that cannot be read is unknown, so nothing is deleted; `lifeboat check` names the \
                 snapshots, `lifeboat repair` mends them, or forget them",
            ),
            _ => error,
        })?;
        self.report.missing = self.marker.marks.missing()?;
        Ok(view)
    }

    fn list(&self) -> Result<Listed> {
        let mut listed = Listed::new();
        self.repository.store().list("packs", &mut |entry| {
            if let Some(id) = entry.key.pack_id() {
                listed.insert(id, (entry.size, entry.modified));
            }
            stop_if_asked(self.observer)
        })?;
        Ok(listed)
    }

    /// All packs in the store, with what is needed of each, and those that are gone from it and that nobody needs.
    fn candidates(&self, listed: &Listed) -> Result<Vec<Candidate>> {
        let (states, unread, gone) = {
            let connection = self.repository.connection();
            let unread = cache::unread::ids(&connection)?;
            (cache::index::pack_states(&connection)?, unread, cache::prune::gone(&connection)?)
        };
        // A pack that is missing or cut off is no place to rely on.
        let whole = |pack: &PackRef| listed.get(&pack.id).is_some_and(|(size, _)| *size == pack.size);
        let broken: HashSet<u32> = states.iter().filter(|state| !whole(&state.pack)).map(|state| state.number).collect();
        let trust = Trusted::of(self.repository, &self.marker.marks, &broken)?;
        let condemned = states.iter().filter(|state| state.condemned).map(|state| state.number).collect();
        let usage = self.marker.marks.usage(&trust, &condemned)?;
        let grace = i64::try_from(self.options.grace.as_nanos()).unwrap_or(i64::MAX);
        let now = self.repository.now();
        let is_young = |id: &PackId| listed.get(id).is_some_and(|(_, modified)| now.saturating_sub(*modified) < grace);
        let known: HashSet<PackId> = states.iter().map(|state| state.pack.id).collect();
        let is_used = |number: &u32| usage.get(number).is_some_and(|usage| usage.used_chunks > 0);
        let mut candidates: Vec<Candidate> = states
            .iter()
            .filter(|state| listed.contains_key(&state.pack.id) || state.committed && !is_used(&state.number))
            .map(|state| Candidate {
                number: Some(state.number),
                id: state.pack.id,
                size: if listed.contains_key(&state.pack.id) { state.pack.size } else { 0 },
                usage: usage.get(&state.number).copied().unwrap_or_default(),
                young: !state.committed && is_young(&state.pack.id),
                broken: broken.contains(&state.number),
            })
            .collect();
        let orphans = listed.iter().filter(|(id, _)| !known.contains(id) && !unread.contains(id) && !gone.contains(id));
        candidates.extend(orphans.map(|(id, (size, _))| Candidate {
            number: None,
            id: *id,
            size: *size,
            usage: Usage::default(),
            young: is_young(id),
            broken: false,
        }));
        let repackable: HashSet<u32> = candidates.iter().filter_map(|candidate| candidate.number).collect();
        self.marker.marks.note_live(&trust, &repackable)?;
        weigh(self.repository, &self.marker.marks, &mut candidates)?;
        Ok(candidates)
    }

    /// Writes anew what is needed of the packs that are to go, and lists the new ones in the log; returns the numbers of
    /// those that are not needed any more.
    fn repack(&mut self, candidates: &[Candidate], decisions: &[Decision], deadline: Option<Instant>) -> Result<HashSet<u32>> {
        let chosen: HashSet<u32> = candidates
            .iter()
            .zip(decisions)
            .filter(|(_, decision)| **decision == Decision::Repack)
            .filter_map(|(candidate, _)| candidate.number)
            .collect();
        if chosen.is_empty() {
            return Ok(chosen);
        }
        let states = cache::index::pack_states(&self.repository.connection())?;
        let sources: Vec<(u32, PackRef)> =
            states.iter().filter(|state| chosen.contains(&state.number)).map(|state| (state.number, state.pack)).collect();
        let repacked = self.stage(Stage::Repacking, |progress| {
            progress.files_total.store(sources.len() as u64, Ordering::Relaxed);
            progress.bytes_total.store(sources.iter().map(|(_, pack)| pack.size).sum(), Ordering::Relaxed);
            self.repository.repack(&self.marker, &sources, deadline, progress, self.observer)
        })?;
        self.report.put_off = repacked.put_off;
        self.report.written = repacked.packs.len() as u64;
        self.report.bytes_written = repacked.packs.iter().map(|pack| pack.size).sum();
        // Only once the log lists them does everybody find the chunks there.
        let listed = repacked.packs.is_empty() || self.claim(repacked.packs)?;
        Ok(if listed { repacked.done } else { HashSet::new() })
    }

    /// Lists new packs in the log; false if somebody else's prune took them for orphans meanwhile. Then what they were
    /// made from stays.
    fn claim(&self, packs: Vec<PackRef>) -> Result<bool> {
        let repository = self.repository;
        let outrun = Cell::new(false);
        let still_valid = || {
            outrun.set(!cache::index::all_borrowable(&repository.connection(), &[], &packs)?);
            if outrun.get() { Err(Error::new(ErrorKind::InUse, "list new packs: a prune was faster")) } else { Ok(()) }
        };
        match repository.append_if(RecordBody::Claim { packs: packs.clone(), checkpoint: None }, &still_valid) {
            Ok(_) => Ok(true),
            Err(_) if outrun.get() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The newest generation, if its plan is not there yet.
    fn open_generation(&self) -> Result<Option<u64>> {
        let newest = cache::prune::newest(&self.repository.connection())?;
        Ok(newest.filter(|row| row.plan.is_none() && row.condemn.is_some()).map(|row| row.generation))
    }

    /// Publishes what may go, once the generation before is closed; returns the generation, and whether this list counts and
    /// not somebody else's.
    fn condemn(&mut self, packs: &BTreeSet<PackId>) -> Result<(u64, bool)> {
        // What is closed stays closed, and a name that is taken is found out by who creates it.
        if self.open_generation()?.is_some() {
            self.settle()?;
        }
        let generation = self.repository.known_prune()? + 1;
        let content = (generation, packs.iter().copied().collect(), Vec::new());
        let is_ours = self.publish(ObjectKind::Condemn, content, None)?;
        self.repository.follow_prunes()?;
        Ok((generation, is_ours))
    }

    /// Brings whatever generation is open to its end.
    fn settle(&mut self) -> Result<()> {
        loop {
            self.repository.follow_prunes()?;
            let Some(generation) = self.open_generation()? else { return Ok(()) };
            self.finish_generation(generation)?;
        }
    }

    /// Creates a prune object; true if it is there, false if somebody else's took its place, which is as good.
    fn publish(
        &self,
        kind: ObjectKind,
        content: (u64, Vec<PackId>, Vec<Head>),
        checkpoint: Option<(u64, ObjectHash)>,
    ) -> Result<bool> {
        let repository = self.repository;
        let (generation, packs, heads) = content;
        let newest = cache::prune::newest(&repository.connection())?;
        let (key, next, previous) = match kind {
            ObjectKind::Plan => (Key::plan(generation), Key::condemn(generation + 1), newest.and_then(|row| row.condemn)),
            _ => (Key::condemn(generation), Key::plan(generation), newest.and_then(|row| row.plan)),
        };
        // What is deleted after a plan is looked for at the same time: what a listing omits is found by the next prune.
        let folders = if matches!(kind, ObjectKind::Plan) { DELETED_FROM.to_vec() } else { Vec::new() };
        let next = Next { objects: vec![(key.clone(), MAX_PRUNE), (next, MAX_PRUNE)], folders };
        let client = repository.keys().client()?;
        let object = PruneObject { client, generation, packs, heads, time: repository.now(), previous, checkpoint };
        let map = object.encode();
        let mut body = repository.keys().signer()?.sign(PRUNE_OBJECT, &repository.inner.format.id, &map).to_vec();
        body.extend_from_slice(&map);
        let sealed = seal_object(repository.keys(), kind, &body)?;
        repository.created(&key, &sealed, &next)
    }

    /// From the condemn object to the plan: fences, a second look, and the plan.
    fn finish_generation(&mut self, generation: u64) -> Result<()> {
        self.fence_all(generation)?;
        self.repository.verify_all_known()?;
        if self.open_generation()? == Some(generation) {
            let view = self.mark()?;
            let condemned = cache::prune::condemned(&self.repository.connection())?;
            let needed = self.still_needed(&condemned)?;
            let going = condemned.difference(&needed).copied().collect();
            let shards = self.repository.shards_still_needed(&going)?;
            let mut packs: Vec<PackId> = going.into_iter().filter(|id| !shards.contains(id)).collect();
            packs.sort_unstable();
            self.report.spared = needed.len() as u64;
            let checkpoint = self.checkpoint(&view.heads)?;
            self.publish(ObjectKind::Plan, (generation, packs, view.heads), checkpoint)?;
            self.repository.follow_prunes()?;
        }
        if self.open_generation()? == Some(generation) {
            return Err(Error::new(ErrorKind::Failed, format!("read the plan of prune {generation}: it is not there"))
                .with_hint("the store lost an object that it had accepted; nothing was deleted"));
        }
        self.report.generation = Some(generation);
        Ok(())
    }

    /// The condemned packs that somebody needs, now that every commit either is marked or must know the condemnation.
    fn still_needed(&self, condemned: &HashSet<PackId>) -> Result<HashSet<PackId>> {
        let listed = self.list()?;
        let states = cache::index::pack_states(&self.repository.connection())?;
        let whole = |pack: &PackRef| listed.get(&pack.id).is_some_and(|(size, _)| *size == pack.size);
        let broken: HashSet<u32> = states.iter().filter(|state| !whole(&state.pack)).map(|state| state.number).collect();
        let trust = Trusted::of(self.repository, &self.marker.marks, &broken)?;
        let avoided = states.iter().filter(|state| condemned.contains(&state.pack.id)).map(|state| state.number).collect();
        let usage = self.marker.marks.usage(&trust, &avoided)?;
        let is_used = |number: &u32| usage.get(number).is_some_and(|usage| usage.used_chunks > 0);
        let needed = states.iter().filter(|state| condemned.contains(&state.pack.id) && is_used(&state.number));
        let mut needed: HashSet<PackId> = needed.map(|state| state.pack.id).collect();
        // Who cannot look into a pack that a record lists must not delete it.
        needed.extend(cache::unread::ids(&self.repository.connection())?.intersection(condemned));
        Ok(needed)
    }

    /// Deletes what published plans list, as far as it is still there.
    fn delete(&mut self) -> Result<()> {
        self.delete_records()?;
        let gone = cache::prune::gone(&self.repository.connection())?;
        if gone.is_empty() {
            return Ok(());
        }
        self.repository.delete_parity_of(&gone)?;
        let listed = self.list()?;
        let doomed: Vec<(PackId, u64)> =
            listed.iter().filter(|(id, _)| gone.contains(id)).map(|(id, (size, _))| (*id, *size)).collect();
        // Each pass finds those again that are still locked.
        let (mut locks, mut deleted) = (LockReport { left: 0, left_bytes: 0, until: None, ..self.report.locks }, (0, 0));
        self.stage(Stage::Deleting, |progress| {
            progress.files_total.store(doomed.len() as u64, Ordering::Relaxed);
            doomed.chunks(self.repository.width()).try_for_each(|packs| {
                stop_if_asked(self.observer)?;
                let remove = |(id, _): &(PackId, u64)| remove(&**self.repository.store(), &Key::pack(id), self.repository.now());
                let removed = self.repository.side_by_side(packs, remove);
                for ((_, size), removal) in packs.iter().zip(removed) {
                    match removal? {
                        Removal::Gone => deleted = (deleted.0 + 1, deleted.1 + size),
                        Removal::Locked(until) => locks.leave(*size, until),
                    }
                    progress.add_file(*size);
                }
                Ok(())
            })
        })?;
        self.delete_shards(&gone)?;
        self.report.locks = locks;
        self.report.deleted += deleted.0;
        self.report.bytes_deleted += deleted.1;
        Ok(())
    }
}
