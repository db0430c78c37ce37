//! The steps of a prune.

use super::decide::{Candidate, Decision, PackDecision, PruneOptions, decide, reason};
use super::mark::{Marker, Trusted};
use super::view::View;
use crate::crypto::sign::PRUNE_OBJECT;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, Stage, stop_if_asked};
use crate::format::envelope::ObjectKind;
use crate::format::gc::PruneObject;
use crate::format::key::Role;
use crate::format::log::{PackRef, RecordBody};
use crate::id::PackId;
use crate::repo::cache::marks::Usage;
use crate::repo::log::now;
use crate::repo::sealed::{not_allowed, seal_object};
use crate::repo::{Repository, cache};
use crate::store::Key;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

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
    /// Packs deleted.
    pub deleted: u64,
    /// Bytes of them.
    pub bytes_deleted: u64,
    /// Packs that were condemned and then spared, because somebody needed them after all.
    pub spared: u64,
    /// Chunks that snapshots need and that no pack holds.
    pub missing: u64,
}

/// Packs as the store lists them: length, and when it got them.
type Listed = HashMap<PackId, (u64, i64)>;

struct Prune<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    observer: &'a dyn Observer,
    marker: Marker,
    report: PruneReport,
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
        let marker = Marker::new(self)?;
        Prune { repository: self, options, observer, marker, report: PruneReport::default() }.run()
    }
}

impl Prune<'_> {
    fn run(mut self) -> Result<PruneReport> {
        let began = Instant::now();
        self.repository.refresh(self.observer)?;
        if !self.options.dry_run {
            // Whatever an earlier runner left: its generation is brought to an end, and its plan carried out.
            if let Some(generation) = self.open_generation()? {
                self.finish_generation(generation)?;
            }
            self.delete()?;
        }
        let view = self.mark()?;
        let listed = self.list()?;
        let candidates = self.candidates(&listed, &view)?;
        let target = u64::from(self.repository.format().pack_target);
        let decisions = decide(&candidates, self.options, target);
        self.report.packs = candidates
            .iter()
            .zip(&decisions)
            .map(|(candidate, decision)| PackDecision {
                id: candidate.id,
                size: candidate.size,
                total: candidate.usage.total,
                used: candidate.usage.used,
                decision: *decision,
                reason: reason(candidate, *decision),
            })
            .collect();
        if self.options.dry_run {
            return Ok(self.report);
        }
        let deadline = self.options.max_duration.map(|duration| began + duration);
        let repacked = self.repack(&candidates, &decisions, deadline)?;
        let condemned = candidates.iter().zip(&decisions).filter(|(candidate, decision)| match decision {
            Decision::Drop => true,
            Decision::Repack => candidate.number.is_some_and(|number| repacked.contains(&number)),
            _ => false,
        });
        let condemned: BTreeSet<PackId> = condemned.map(|(candidate, _)| candidate.id).collect();
        if !condemned.is_empty() {
            let generation = self.condemn(condemned.into_iter().collect())?;
            self.finish_generation(generation)?;
            self.delete()?;
        }
        Ok(self.report)
    }

    fn stage<T>(&self, stage: Stage, work: impl FnOnce(&Arc<Progress>) -> Result<T>) -> Result<T> {
        let progress = Arc::new(Progress::default());
        self.observer.observe(Event::Started(stage, &progress));
        let result = work(&progress);
        self.observer.observe(Event::Finished(stage));
        result
    }

    /// Marks what is needed, as the logs are now.
    fn mark(&mut self) -> Result<View> {
        let view = self.repository.view()?;
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

    /// All packs in the store, with what is needed of each.
    fn candidates(&self, listed: &Listed, _: &View) -> Result<Vec<Candidate>> {
        let (states, unread, gone) = {
            let connection = self.repository.connection();
            let unread: HashSet<PackId> = cache::index::unread(&connection)?.into_iter().map(|(pack, _)| pack.id).collect();
            (cache::index::pack_states(&connection)?, unread, cache::prune::gone(&connection)?)
        };
        // A pack that is missing or cut off is no place to rely on.
        let whole = |pack: &PackRef| listed.get(&pack.id).is_some_and(|(size, _)| *size == pack.size);
        let broken: HashSet<u32> = states.iter().filter(|state| !whole(&state.pack)).map(|state| state.number).collect();
        let trust = Trusted::of(self.repository, &self.marker.marks, &broken)?;
        let condemned = states.iter().filter(|state| state.condemned).map(|state| state.number).collect();
        let usage = self.marker.marks.usage(&trust, &condemned)?;
        let grace = i64::try_from(self.options.grace.as_nanos()).unwrap_or(i64::MAX);
        let is_young = |id: &PackId| listed.get(id).is_some_and(|(_, modified)| now().saturating_sub(*modified) < grace);
        let known: HashSet<PackId> = states.iter().map(|state| state.pack.id).collect();
        let mut candidates: Vec<Candidate> = states
            .iter()
            .filter(|state| listed.contains_key(&state.pack.id))
            .map(|state| Candidate {
                number: Some(state.number),
                id: state.pack.id,
                size: state.pack.size,
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
        self.report.written = repacked.packs.len() as u64;
        self.report.bytes_written = repacked.packs.iter().map(|pack| pack.size).sum();
        if !repacked.packs.is_empty() {
            // Only once the log lists them does everybody find the chunks there.
            self.repository.append(RecordBody::Claim { packs: repacked.packs, checkpoint: None })?;
        }
        Ok(repacked.done)
    }

    /// The newest generation, if its plan is not there yet.
    fn open_generation(&self) -> Result<Option<u64>> {
        let newest = cache::prune::newest(&self.repository.connection())?;
        Ok(newest.filter(|row| row.plan.is_none() && row.condemn.is_some()).map(|row| row.generation))
    }

    /// Publishes what may go. Whoever was faster with this generation is helped instead.
    fn condemn(&self, packs: Vec<PackId>) -> Result<u64> {
        let generation = self.repository.known_prune()? + 1;
        self.publish(&Key::condemn(generation), ObjectKind::Condemn, (generation, packs, Vec::new()))?;
        self.repository.follow_prunes()?;
        Ok(generation)
    }

    /// Creates a prune object; somebody else's in its place is as good.
    fn publish(&self, key: &Key, kind: ObjectKind, content: (u64, Vec<PackId>, Vec<crate::format::log::Head>)) -> Result<()> {
        let repository = self.repository;
        let (generation, packs, heads) = content;
        let previous = match kind {
            ObjectKind::Plan => cache::prune::newest(&repository.connection())?.and_then(|row| row.condemn),
            _ => cache::prune::newest(&repository.connection())?.and_then(|row| row.plan),
        };
        let client = repository.keys().client()?;
        let object = PruneObject { client, generation, packs, heads, time: now(), previous };
        let map = object.encode();
        let mut body = repository.keys().signer()?.sign(PRUNE_OBJECT, &repository.inner.format.id, &map).to_vec();
        body.extend_from_slice(&map);
        let sealed = seal_object(repository.keys(), kind, &body)?;
        repository.created(key, &sealed).map(drop)
    }

    /// From the condemn object to the plan: fences, a second look, and the plan.
    fn finish_generation(&mut self, generation: u64) -> Result<()> {
        self.fence_all(generation)?;
        self.repository.refresh(self.observer)?;
        if self.open_generation()? == Some(generation) {
            let view = self.mark()?;
            let condemned = cache::prune::condemned(&self.repository.connection())?;
            let needed = self.still_needed(&condemned)?;
            let mut packs: Vec<PackId> = condemned.iter().filter(|id| !needed.contains(id)).copied().collect();
            packs.sort_unstable();
            self.report.spared = needed.len() as u64;
            self.publish(&Key::plan(generation), ObjectKind::Plan, (generation, packs, view.heads))?;
            self.repository.follow_prunes()?;
        }
        if self.open_generation()? == Some(generation) {
            return Err(Error::new(ErrorKind::Failed, format!("read the plan of prune {generation}: it is not there"))
                .with_hint("the store lost an object that it had accepted; nothing was deleted"));
        }
        self.report.generation = Some(generation);
        Ok(())
    }

    /// Says in every log that what follows must know this prune. The owner's comes first: whoever is enrolled after it
    /// begins with a log that must know it too.
    fn fence_all(&self, generation: u64) -> Result<()> {
        let mut fenced = HashSet::new();
        loop {
            let members = self.repository.members()?;
            let next = members.iter().find(|member| member.last.is_none() && !fenced.contains(&member.id));
            let Some(member) = next else { return Ok(()) };
            self.repository.fence(member, generation)?;
            fenced.insert(member.id);
            self.repository.follow_owner()?;
        }
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
        Ok(needed.map(|state| state.pack.id).collect())
    }

    /// Deletes what published plans list, as far as it is still there.
    fn delete(&mut self) -> Result<()> {
        let gone = cache::prune::gone(&self.repository.connection())?;
        if gone.is_empty() {
            return Ok(());
        }
        let listed = self.list()?;
        let doomed: Vec<(PackId, u64)> =
            listed.iter().filter(|(id, _)| gone.contains(id)).map(|(id, (size, _))| (*id, *size)).collect();
        self.stage(Stage::Deleting, |progress| {
            progress.files_total.store(doomed.len() as u64, Ordering::Relaxed);
            doomed.iter().try_for_each(|(id, size)| {
                stop_if_asked(self.observer)?;
                self.repository.store().delete(&Key::pack(id))?;
                progress.add_file(*size);
                Ok(())
            })
        })?;
        self.report.deleted += doomed.len() as u64;
        self.report.bytes_deleted += doomed.iter().map(|(_, size)| size).sum::<u64>();
        Ok(())
    }
}
