//! Verifying all records of all logs and all prune objects again, for check: not only what is new.

use super::checkpoint::snapshot_named;
use super::follow::object_hash;
use super::members::Member;
use super::stored::{Front, SHORT};
use crate::crypto::wrap::recipient_kinds;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Observer, stop_if_asked};
use crate::format::envelope::ObjectKind;
use crate::format::log::{Head, MAX_RECORD, Record};
use crate::format::repository::MAX_FORMAT;
use crate::id::{ClientId, ObjectHash, SlotId, SnapshotId};
use crate::repo::cache::checkpoint::InForce;
use crate::repo::cache::prune::PruneRow;
use crate::repo::gc::MAX_PRUNE;
use crate::repo::sealed::open_object;
use crate::repo::slots::MAX_SLOT;
use crate::repo::{Repository, cache};
use crate::store::Key;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::{ControlFlow, RangeInclusive};

/// Something wrong with a small object.
#[derive(Debug)]
pub struct RecordProblem {
    /// The object, by its kind and name.
    pub object: String,
    /// What is wrong.
    pub error: Error,
    /// True if nothing is lost by it.
    pub harmless: bool,
}

/// What was seen of logs and prune objects.
#[derive(Debug, Default)]
pub struct RecordsReport {
    /// Objects looked at.
    pub looked_at: u64,
    /// The snapshots that records name which can be read, those too that were forgotten or pruned.
    pub snapshots: HashSet<SnapshotId>,
}

/// The record before the one that is looked at.
#[derive(Clone, Copy)]
enum Before {
    /// It was read, and has this hash; the first record has none before it.
    Read(Option<ObjectHash>),
    /// It is gone.
    Unknown,
}

/// The records of a log that are looked at.
struct Span {
    known: Option<Head>,
    remembered: Option<Head>,
    floor: Option<Head>,
    last: Head,
}

impl Span {
    fn seqs(&self) -> RangeInclusive<u64> {
        self.floor.map_or(0, |floor| floor.seq)..=self.last.seq
    }
}

/// Objects that are read in a known order, some ahead where an answer takes long.
struct Ahead<'a> {
    repository: &'a Repository,
    keys: Box<dyn Iterator<Item = Key> + 'a>,
    limit: u64,
    /// Nothing of one that is long.
    found: VecDeque<(Key, Front)>,
}

impl Ahead<'_> {
    /// The next object.
    fn get(&mut self, key: &Key) -> Result<Option<Vec<u8>>> {
        if self.found.is_empty() {
            let some: Vec<Key> = self.keys.by_ref().take(self.repository.width()).collect();
            let found = self.repository.fronts_of(&some, SHORT);
            self.found = some.into_iter().zip(found).collect();
        }
        match self.found.pop_front() {
            Some((next, Some(found))) if next == *key => found,
            _ => self.repository.front_of(key, self.limit),
        }
    }
}

/// Takes what is wrong as soon as it is found: somebody may have written any number of records that are none.
pub type TakeProblem<'a> = &'a mut dyn FnMut(RecordProblem) -> Result<()>;

/// What was seen, and who is told what is wrong.
struct Look<'a> {
    report: RecordsReport,
    take: TakeProblem<'a>,
    observer: &'a dyn Observer,
}

fn gone(member: &Member, seq: u64) -> Error {
    Error::damaged(format!("read record {seq} of the log of {}: it is gone", member.id))
}

impl Look<'_> {
    fn add_void(&mut self, key: &Key, error: Error) -> Result<()> {
        let error = error.while_doing("it was void from the beginning and says nothing");
        (self.take)(RecordProblem { object: format!("object {key}"), error, harmless: true })
    }

    fn add(&mut self, key: &Key, error: Error) -> Result<()> {
        (self.take)(RecordProblem { object: format!("object {key}"), error, harmless: false })
    }
}

/// Records of a log that cannot be read or do not fit, by their places: what is wrong with each is looked at again once it
/// is known whether they were so when they were written.
#[derive(Default)]
struct Doubtful {
    /// First and last places of runs.
    runs: Vec<(u64, u64)>,
    /// Hash of the last one.
    last: Option<ObjectHash>,
}

impl Doubtful {
    fn add(&mut self, seq: u64, hash: ObjectHash) {
        self.last = Some(hash);
        match self.runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(seq) => *last = seq,
            _ => self.runs.push((seq, seq)),
        }
    }

    fn take(&mut self) -> impl Iterator<Item = u64> + use<> {
        self.last = None;
        std::mem::take(&mut self.runs).into_iter().flat_map(|(first, last)| first..=last)
    }
}

impl Repository {
    /// Verifies that every record that was ever read is still there and follows the one before it, and every prune object.
    ///
    /// # Errors
    /// Only what kept them from being looked at; those of `take`.
    pub fn verify_records(&self, observer: &dyn Observer, take: TakeProblem<'_>) -> Result<RecordsReport> {
        let mut look = Look { report: RecordsReport::default(), take, observer };
        // They are looked at after the logs, and need nothing of them.
        self.expect_listings(&["keys", "packs", "index"]);
        // Ascending, so that the last one of each log stays.
        let remembered: HashMap<ClientId, Head> = self.seen_heads()?.into_iter().map(|head| (head.client, head)).collect();
        let cut = self.verify_checkpoint(&mut look)?;
        let members = self.members()?;
        let spans = members.iter().map(|member| {
            let head = remembered.get(&member.id).copied();
            self.span_of(member, (head, cut.as_ref()))
        });
        let spans: Vec<Option<Span>> = spans.collect::<Result<_>>()?;
        let places = spans.iter().flatten().flat_map(|span| span.seqs().map(|seq| Key::log(&span.last.client, seq)));
        let mut ahead = Ahead { repository: self, keys: Box::new(places), limit: MAX_RECORD, found: VecDeque::new() };
        for (member, span) in members.iter().zip(&spans) {
            if let Some(span) = span {
                self.verify_log((member, span), &mut ahead, &mut look)?;
            }
        }
        self.verify_prunes(&mut look)?;
        Ok(look.report)
    }

    /// Verifies the checkpoint in force and the records that it says are there, and takes in what it says of snapshots.
    fn verify_checkpoint(&self, look: &mut Look<'_>) -> Result<Option<InForce>> {
        let Some(in_force) = cache::checkpoint::in_force(&self.connection())? else { return Ok(None) };
        let key = Key::log(&self.owner(), in_force.seq);
        let mut load = || -> Result<bool> {
            let Some(checkpoint) = self.load_checkpoint(&in_force)? else { return Ok(false) };
            for head in checkpoint.staying.iter().filter(|head| in_force.floor(&head.client) != Some(head)) {
                stop_if_asked(look.observer)?;
                look.report.looked_at += 1;
                let verified = self.staying_record(head).and_then(|bytes| self.open_record(&bytes));
                match verified {
                    Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                    Err(error) => look.add(&Key::log(&head.client, head.seq), error)?,
                    Ok(_) => {}
                }
            }
            self.each_part(checkpoint, &mut |part| {
                look.report.snapshots.extend(&part.pruned);
                for bytes in &part.records {
                    look.report.snapshots.extend(snapshot_named(&Record::decode(bytes)?));
                }
                stop_if_asked(look.observer).map(|()| ControlFlow::Continue(()))
            })?;
            Ok(true)
        };
        match load() {
            Ok(counts) => return Ok(counts.then_some(in_force)),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            // The walk through the owner's log finds the object that is gone or damaged.
            Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => {}
            Err(error) => look.add(&key, error)?,
        }
        // What the records that are gone named is known from the cache, as far as it is.
        look.report.snapshots.extend(cache::checkpoint::pruned(&self.connection())?);
        look.report.snapshots.extend(self.standings()?.into_iter().map(|(cached, _, _)| cached.id));
        Ok(Some(in_force))
    }

    /// The records of a log that are looked at; `None` if none was ever seen.
    fn span_of(&self, member: &Member, (remembered, cut): (Option<Head>, Option<&InForce>)) -> Result<Option<Span>> {
        let floor = cut.and_then(|cut| cut.floor(&member.id)).copied();
        let known = cache::log::head(&self.connection(), &member.id)?.map(|(head, _)| head);
        let last = known.into_iter().chain(remembered).max_by_key(|head| head.seq);
        Ok(last.map(|last| Span { known, remembered, floor, last }))
    }

    fn verify_log(&self, (member, span): (&Member, &Span), ahead: &mut Ahead<'_>, look: &mut Look<'_>) -> Result<()> {
        let Span { known, remembered, floor, .. } = *span;
        let mut before = if floor.is_some() { Before::Unknown } else { Before::Read(None) };
        // Those since the last one that does fit: the next one that does says whether they were so when it was written.
        let mut doubtful = Doubtful::default();
        for seq in span.seqs() {
            stop_if_asked(look.observer)?;
            look.report.looked_at += 1;
            let key = Key::log(&member.id, seq);
            let bytes = match ahead.get(&key) {
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) => {
                    look.add(&key, error)?;
                    before = Before::Unknown;
                    continue;
                }
                Ok(None) => {
                    look.add(&key, gone(member, seq))?;
                    before = Before::Unknown;
                    continue;
                }
                Ok(Some(bytes)) => bytes,
            };
            let hash = object_hash(&bytes);
            let seen = [known, remembered, floor].into_iter().flatten().find(|head| head.seq == seq);
            if seen.is_some_and(|Head { hash: seen, .. }| seen != hash) {
                let message = "verify a log record: it is not the one that was seen before";
                look.add(&key, Error::new(ErrorKind::RolledBack, message))?;
            }
            let expected = match (doubtful.last, before) {
                (Some(hash), _) => Some(Some(hash)),
                (None, Before::Read(hash)) => Some(hash),
                (None, Before::Unknown) => None,
            };
            match self.open_record(&bytes) {
                Ok(record) if (record.client, record.seq) == (member.id, seq) => {
                    look.report.snapshots.extend(snapshot_named(&record));
                    let fits = expected.is_none_or(|expected| expected == record.previous);
                    if !fits && doubtful.last.is_none() {
                        doubtful.add(seq, hash);
                        continue;
                    }
                    for seq in doubtful.take() {
                        self.tell_doubtful((member, seq), look, &|_| fits)?;
                    }
                    before = Before::Read(Some(hash));
                }
                _ => doubtful.add(seq, hash),
            }
        }
        // Whoever saw these as something else says so, and so does a duplicate that is right.
        let was_never_right = |key: &Key| {
            let is_record =
                |bytes: &[u8]| self.open_record(bytes).is_ok_and(|record| Some((record.client, record.seq)) == key.log_seq());
            self.second_copy(key, &is_record).is_none()
        };
        for seq in doubtful.take() {
            self.tell_doubtful((member, seq), look, &was_never_right)?;
        }
        Ok(())
    }

    /// Says what is wrong with a record that was in doubt.
    fn tell_doubtful(&self, (member, seq): (&Member, u64), look: &mut Look<'_>, is_void: &dyn Fn(&Key) -> bool) -> Result<()> {
        stop_if_asked(look.observer)?;
        let key = Key::log(&member.id, seq);
        let error = match self.front_of(&key, MAX_RECORD) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => return look.add(&key, error),
            Ok(None) => return look.add(&key, gone(member, seq)),
            Ok(Some(bytes)) => match self.open_record(&bytes) {
                Ok(record) if (record.client, record.seq) == (member.id, seq) => {
                    Error::damaged("verify a log record: it does not follow the record before it")
                }
                Ok(_) => Error::damaged("verify a log record: it belongs to another place"),
                Err(error) => error,
            },
        };
        if is_void(&key) { look.add_void(&key, error) } else { look.add(&key, error) }
    }

    fn verify_prunes(&self, look: &mut Look<'_>) -> Result<()> {
        let known = cache::prune::all(&self.connection())?;
        let keys = known.iter().flat_map(|row| {
            let condemn = row.condemn.map(|_| Key::condemn(row.generation));
            condemn.into_iter().chain(row.plan.map(|_| Key::plan(row.generation)))
        });
        let mut ahead = Ahead { repository: self, keys: Box::new(keys), limit: MAX_PRUNE, found: VecDeque::new() };
        for PruneRow { generation, condemn, plan } in &known {
            let (generation, condemn, plan) = (*generation, *condemn, *plan);
            let objects =
                [(ObjectKind::Condemn, Key::condemn(generation), condemn), (ObjectKind::Plan, Key::plan(generation), plan)];
            for (kind, key, hash) in objects {
                let Some(hash) = hash else { continue };
                look.report.looked_at += 1;
                match ahead.get(&key) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                    Err(error) => look.add(&key, error)?,
                    Ok(None) => look.add(&key, Error::damaged(format!("read the object {key}: it is gone")))?,
                    Ok(Some(bytes)) if object_hash(&bytes) != hash => {
                        look.add(&key, Error::damaged(format!("verify {key}: it is not the one that was seen before")))?;
                    }
                    Ok(Some(bytes)) => {
                        if let Err(error) = open_object(self.keys(), kind, &bytes) {
                            look.add_void(&key, error)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn verify_slot(&self, id: &SlotId) -> Result<()> {
        let wrapped = self.store().get(&Key::slot(id), MAX_SLOT)?;
        if recipient_kinds(&wrapped).is_empty() {
            return Err(Error::damaged(format!("read the key slot {id}: it is no age file"))
                .with_hint("other slots open the repository; remove this one with `lifeboat key remove`, and add it again"));
        }
        Ok(())
    }

    /// It may have been read from its duplicate.
    fn verify_format(&self) -> Result<Option<RecordProblem>> {
        let error = match self.store().get(&Key::format(), MAX_FORMAT) {
            Ok(bytes) if bytes == self.format().encode() => return Ok(None),
            Ok(_) => Error::damaged("read format/1: it is not what this repository was made with"),
            Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => error.as_kind(ErrorKind::Damaged),
            Err(error) => return Err(error),
        };
        Ok(Some(RecordProblem { object: format!("object {}", Key::format()), error, harmless: false }))
    }

    /// Looks at `format/1` and the key slots: those that the log names are there, and what is there can be read as one.
    ///
    /// # Errors
    /// Only what kept them from being looked at.
    pub fn verify_slots(&self) -> Result<Vec<RecordProblem>> {
        let mut problems = Vec::new();
        problems.extend(self.verify_format()?);
        let mut there = Vec::new();
        self.store().list("keys", &mut |entry| {
            there.extend(entry.key.slot_id());
            Ok(())
        })?;
        for id in cache::log::slots(&self.connection())? {
            if there.contains(&id) {
                continue;
            }
            // A listing may lag behind, and this one may have been asked for when the repository was opened.
            if self.store().size(&Key::slot(&id))?.is_some() {
                there.push(id);
            } else {
                let error =
                    Error::damaged(format!("read the key slot {id}: it is gone, and the log does not say that it was removed"));
                problems.push(RecordProblem { object: format!("object {}", Key::slot(&id)), error, harmless: false });
            }
        }
        let verified = there.chunks(self.width()).flat_map(|some| self.side_by_side(some, |id| self.verify_slot(id)));
        for (id, verified) in there.iter().copied().zip(verified) {
            if let Err(error) = verified {
                problems.push(RecordProblem { object: format!("object {}", Key::slot(&id)), error, harmless: false });
            }
        }
        for key in self.read_from_duplicates().into_iter().filter(|key| key.slot_id().is_some()) {
            let object = format!("object {key}");
            if problems.iter().all(|problem| problem.object != object) {
                let error = Error::damaged(format!("open {key}: it is gone or damaged, and its duplicate is not"));
                problems.push(RecordProblem { object, error, harmless: false });
            }
        }
        Ok(problems)
    }
}
