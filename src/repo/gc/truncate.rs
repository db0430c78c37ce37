//! Letting a checkpoint stand for old records of the logs, and deleting these (docs/protocol.md#6-checkpoints-and-truncation).
//!
//! Where anything is in the way, logs stay as they are: a prune without a checkpoint is as good.

use super::decide::Truncation;
use super::prune::Prune;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, stop_if_asked};
use crate::format::key::Role;
use crate::format::log::{Checkpoint, Head, ListedPacks, Record, RecordBody, RecordRef, StandingDeed};
use crate::id::{ClientId, ObjectHash};
use crate::repo::log::{Deed, Judgement, Standing};
use crate::repo::{Repository, cache};
use crate::store::{Key, Removal, remove_versions};
use std::collections::{HashMap, HashSet};

/// Bytes of a part of a checkpoint, by estimate.
const PART: usize = 4 << 20;
/// Bytes of what cannot be split.
const MOST: usize = 8 << 20;
/// Bytes of a head, a pack, or a name in a checkpoint, at most.
const ENTRY: usize = 72;
/// Records that make it worth while, and those that do if they are half of all.
const ENOUGH: u64 = 1000;
const ENOUGH_OF_HALF: u64 = 100;

impl Prune<'_> {
    /// How many records can go, and whether that is worth while.
    fn old_records(&self) -> Result<(u64, bool)> {
        let connection = self.repository.connection();
        let staying = cache::checkpoint::staying(&connection)?.len() as u64;
        let old = cache::checkpoint::superfluous(&connection)?;
        Ok((old, old >= ENOUGH || old >= ENOUGH_OF_HALF && old * 2 >= old + staying))
    }

    /// Notes that logs are long, where the keys at hand cannot do anything about it.
    pub(super) fn count_for_owner(&mut self) -> Result<()> {
        if self.repository.role() != Role::Owner
            && self.options.truncation != Truncation::Never
            && let (old, true) = self.old_records()?
        {
            self.report.records_for_owner = old;
        }
        Ok(())
    }

    /// True if the logs are to be cut off.
    pub(super) fn is_to_truncate(&mut self) -> Result<bool> {
        let truncation = self.options.truncation;
        if self.repository.role() != Role::Owner || truncation == Truncation::Never {
            return Ok(false);
        }
        let (old, enough) = self.old_records()?;
        let is_due = if truncation == Truncation::Always { old > 0 } else { enough };
        if is_due {
            self.report.records_to_go = old;
        }
        Ok(is_due)
    }

    /// Appends a checkpoint of the logs up to `heads`, which this runner has marked by, if one is due and nothing is in
    /// the way. Nobody heeds it unless the plan that is published names it.
    pub(super) fn checkpoint(&mut self, heads: &[Head]) -> Result<Option<(u64, ObjectHash)>> {
        if !self.is_to_truncate()? || self.repository.verify_all_known().is_err() {
            return Ok(None);
        }
        match self.repository.compose_checkpoint(heads) {
            Err(error) if error.kind() == ErrorKind::Full => {
                self.observer.observe(Event::Note("the logs are cut off another time: the store is full"));
                Ok(None)
            }
            other => other,
        }
    }

    /// Adds the records of which nothing but older versions is left, because somebody deleted them: no listing shows them, and
    /// whoever finds the mark takes what lies below it for the record. Not everybody may list versions.
    fn add_deleted(&self, is_old: &dyn Fn(&Key) -> Option<(ClientId, u64)>, old: &mut Vec<OldRecord>) -> Result<()> {
        let store = self.repository.store();
        let Some(extras) = store.extras() else { return Ok(()) };
        for folder in ["log/", "copies/log/"] {
            let listed = extras.versions(folder, &mut |version| {
                let original = version.key.original();
                old.extend(is_old(original.as_ref().unwrap_or(&version.key)).map(|place| (place, version.key)));
                stop_if_asked(self.observer)
            });
            match listed {
                Err(error) if error.is_unreachable() || error.kind() == ErrorKind::Interrupted => return Err(error),
                // A server that does not list them has none, as far as can be told.
                other => drop(other),
            }
        }
        Ok(())
    }

    /// Deletes the records for which the checkpoint in force stands.
    pub(super) fn delete_records(&mut self) -> Result<()> {
        let repository = self.repository;
        let in_force = cache::checkpoint::in_force(&repository.connection())?;
        let Some(in_force) = in_force.filter(|_| !self.options.dry_run) else { return Ok(()) };
        let is_old = |key: &Key| {
            let place = key.log_seq();
            place.filter(|(client, seq)| in_force.floor(client).is_some_and(|floor| *seq < floor.seq))
        };
        let mut old: Vec<OldRecord> = Vec::new();
        for folder in ["log", "copies/log"] {
            repository.store().list(folder, &mut |entry| {
                let original = entry.key.original();
                old.extend(is_old(original.as_ref().unwrap_or(&entry.key)).map(|place| (place, entry.key)));
                stop_if_asked(self.observer)
            })?;
        }
        self.add_deleted(&is_old, &mut old)?;
        if old.is_empty() {
            return Ok(());
        }
        let staying = match repository.readable_checkpoint(&in_force) {
            Ok(Some(checkpoint)) => checkpoint.staying,
            Ok(None) => return Ok(()),
            // Who cannot look must not delete: what a part says is in no other place then.
            Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => {
                self.observer.observe(Event::Warning(&error.to_string()));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let staying: HashSet<(ClientId, u64)> = staying.iter().map(|head| (head.client, head.seq)).collect();
        old.retain(|(place, _)| !staying.contains(place));
        old.sort_unstable();
        old.dedup();
        for some in old.chunks(repository.width()) {
            stop_if_asked(self.observer)?;
            let removed = repository.side_by_side(some, |(_, key)| remove_versions(&**repository.store(), key, repository.now()));
            for ((_, key), removal) in some.iter().zip(removed) {
                match removal {
                    Ok(Removal::Gone) => self.report.records_deleted += u64::from(key.log_seq().is_some()),
                    Ok(Removal::Locked(_)) => {}
                    // Not everybody who may prune may delete records: then the owner's next prune does.
                    Err(error) if error.kind() == ErrorKind::Refused => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Place of a record, and an object that holds it.
type OldRecord = ((ClientId, u64), Key);

/// Puts together a checkpoint; what is too long for one record goes into parts of it.
struct Composer<'a> {
    repository: &'a Repository,
    part: Checkpoint,
    size: usize,
    parts: Vec<(u64, ObjectHash)>,
}

impl Composer<'_> {
    /// Makes room for so many bytes.
    fn room(&mut self, size: usize) -> Result<&mut Checkpoint> {
        if self.size > 0 && self.size + size > PART {
            let part = std::mem::take(&mut self.part);
            let head = self.repository.append(RecordBody::Checkpoint(part))?;
            self.parts.push((head.seq, head.hash));
            self.size = 0;
        }
        self.size += size;
        Ok(&mut self.part)
    }

    fn records(&mut self, records: Vec<Vec<u8>>) -> Result<()> {
        for bytes in records {
            self.room(bytes.len() + ENTRY)?.records.push(bytes);
        }
        Ok(())
    }

    fn packs(&mut self) -> Result<()> {
        // A connection of its own: parts are appended in between.
        let connection = self.repository.cache().connect()?;
        cache::checkpoint::each_listed(&connection, |client, committed, pack| {
            let packs = &mut self.room(ENTRY)?.packs;
            match packs.last_mut() {
                Some(last) if (last.client, last.committed) == (client, committed) => last.packs.push(pack),
                _ => packs.push(ListedPacks { client, committed, packs: vec![pack] }),
            }
            Ok(())
        })
    }

    fn sessions(&mut self) -> Result<()> {
        let used = cache::index::sessions_in_use(&self.repository.connection())?;
        let sessions = cache::checkpoint::sessions(&self.repository.connection(), &used)?;
        for (client, session) in sessions {
            let sessions = &mut self.room(ENTRY)?.sessions;
            match sessions.last_mut() {
                Some((last, sessions)) if *last == client => sessions.push(session),
                _ => sessions.push((client, vec![session])),
            }
        }
        Ok(())
    }
}

/// A snapshot's record as a checkpoint carries it on: its packs are listed by the checkpoint itself.
fn carried(sealed: &[u8]) -> Result<Record> {
    let mut record = Record::decode(sealed)?;
    record.heads = Vec::new();
    record.extra = Vec::new();
    match &mut record.body {
        RecordBody::Snapshot { packs, .. } | RecordBody::Claim { packs, .. } => packs.clear(),
        _ => return Err(Error::failed("read the local cache: a snapshot's record is none")),
    }
    Ok(record)
}

/// Of what was done to a snapshot, the forgets and holds that nothing took back.
fn standing_deeds(snapshot: RecordRef, judgements: &[Judgement], reason: &str) -> Vec<StandingDeed> {
    let undone_by = |deed: Deed| if deed == Deed::Hold { Deed::Unhold } else { Deed::Unforget };
    let is_undone = |done: &Judgement| judgements.iter().any(|undo| undo.deed == undone_by(done.deed) && undo.knew(done.by));
    let deeds = judgements.iter().filter(|done| matches!(done.deed, Deed::Forget | Deed::Hold) && !is_undone(done));
    let mut deeds: Vec<StandingDeed> = deeds
        .map(|done| {
            let hold = done.deed == Deed::Hold;
            let reason = if hold { reason.to_owned() } else { String::new() };
            StandingDeed { snapshot, by: done.by, hold, reason }
        })
        .collect();
    deeds.sort();
    deeds
}

impl Repository {
    /// Appends a checkpoint of what the logs say up to `heads`; `None` if the cache has seen more by now, or if it would
    /// be too long.
    fn compose_checkpoint(&self, heads: &[Head]) -> Result<Option<(u64, ObjectHash)>> {
        let is_of_heads = || -> Result<bool> { Ok(cache::log::heads(&self.connection())? == heads) };
        if !is_of_heads()? {
            return Ok(None);
        }
        let judgements = cache::log::judgements(&self.connection())?;
        let (mut records, mut deeds) = (Vec::new(), Vec::new());
        for (cached, standing, reason) in self.standings()? {
            if standing == Standing::Forgotten {
                // The plan that names this checkpoint prunes it.
                cache::checkpoint::note_pruned(&self.connection(), &cached.id)?;
                continue;
            }
            let place = RecordRef { client: cached.client, seq: cached.seq };
            let done = judgements.get(&place).map_or(&[][..], |(done, _)| done);
            deeds.extend(standing_deeds(place, done, &reason));
            records.push((place, carried(&cached.sealed)?.encode()));
        }
        let staying = cache::checkpoint::staying(&self.connection())?;
        let machines = cache::checkpoint::machines(&self.connection())?;
        let pruned = cache::checkpoint::pruned(&self.connection())?;
        // All of this is of one moment, whoever else uses the cache.
        let counts = [heads.len(), staying.len(), machines.len(), 2 * deeds.len(), pruned.len()];
        let reasons: usize = deeds.iter().map(|deed| deed.reason.len()).sum();
        let is_too_long = counts.iter().sum::<usize>() * ENTRY + reasons > MOST;
        if !is_of_heads()? || is_too_long || records.iter().any(|(_, record)| record.len() > PART) {
            return Ok(None);
        }
        deeds.sort();
        records.sort();
        let floors: HashMap<ClientId, u64> = heads.iter().map(|head| (head.client, head.seq)).collect();
        let is_below = |head: &Head| floors.get(&head.client).is_some_and(|floor| head.seq <= *floor);
        let staying: Vec<Head> = staying.into_iter().filter(is_below).collect();
        let mut composer = Composer { repository: self, part: Checkpoint::default(), size: 0, parts: Vec::new() };
        composer.records(records.into_iter().map(|(_, record)| record).collect())?;
        composer.packs()?;
        composer.sessions()?;
        let Composer { part, parts, .. } = composer;
        let whole = Checkpoint { heads: heads.to_vec(), staying, deeds, machines, pruned, parts, ..part };
        let head = self.append(RecordBody::Checkpoint(whole))?;
        Ok(Some((head.seq, head.hash)))
    }
}
