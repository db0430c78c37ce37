//! Retention of objects, where the store locks them: lengthened for what snapshots that stand need, never shortened, and
//! left to run out for everything else.
//!
//! What is put is locked for so many days. What a snapshot without a retention of its own needs, and a held one, is locked for
//! all of them again when less than half of them are left, for as long as the snapshot stands. What others need is locked to the
//! end of the longest of their retentions and no further. A retention is what a writer claimed, so a lock never reaches further
//! ahead than whoever prunes has said. What a forgotten snapshot needed alone can go when its time has run out.

use super::decide::{Decision, PackDecision};
use super::mark::{Marker, Trusted};
use super::view::View;
use crate::error::{ErrorKind, Result};
use crate::event::{Event, Observer, Progress};
use crate::id::{ClientId, IndexId, PackId};
use crate::repo::thaw::side_by_side;
use crate::repo::{Act, Repository, SnapshotEntry, cache};
use crate::store::{Entry, Extras, Key};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// Nanoseconds of a day.
const DAY: i64 = 86_400_000_000_000;
/// What is locked besides packs.
const OTHERS: [&str; 6] = ["format", "keys", "log", "gc", "index", "contents"];

/// What became of locks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockReport {
    /// Objects whose retention was asked for.
    pub looked_at: u64,
    /// Objects that were locked for longer, or in a dry run would be.
    pub extended: u64,
    /// Objects whose retention these credentials may not lengthen.
    pub refused: u64,
    /// Packs that nobody needs and that are still locked.
    pub left: u64,
    /// Their bytes.
    pub left_bytes: u64,
    /// When the last of them may go, nanoseconds since 1970, as far as it is known.
    pub until: Option<i64>,
}

impl LockReport {
    /// Counts a pack that must stay until its lock has run out.
    pub(super) fn leave(&mut self, bytes: u64, until: Option<i64>) {
        self.left += 1;
        self.left_bytes += bytes;
        self.until = self.until.max(until);
    }
}

/// How far locks reach, as seen from one moment.
#[derive(Debug, Clone, Copy)]
pub(in crate::repo) struct Reach {
    now: i64,
    /// What is locked anew is locked for so long.
    span: i64,
    /// No lock reaches further ahead than this.
    limit: i64,
}

impl Reach {
    /// From now on; `None` if nothing is to be locked.
    pub(super) fn of_store(repository: &Repository) -> Option<Self> {
        let extras = repository.store().extras()?;
        let length = |days: u32| i64::from(days).saturating_mul(DAY);
        Some(Self { now: repository.now(), span: length(extras.lock_days()?), limit: length(extras.lock_limit()?) })
    }

    /// The end of a lock that is lengthened again and again.
    fn rolling(self) -> i64 {
        self.now.saturating_add(self.span)
    }

    /// Until when what a snapshot needs is to be locked.
    pub(super) fn of(self, entry: &SnapshotEntry) -> i64 {
        match entry.snapshot.retain_until.map(|until| until.min(self.now.saturating_add(self.limit))) {
            Some(until) if entry.is_held() => until.max(self.rolling()),
            Some(until) => until,
            None => self.rolling(),
        }
    }

    /// True if what is locked until `locked` is to be locked until `wanted`: at once if that is the end of its last retention, and
    /// else when more than half of the days are missing.
    fn is_due(self, locked: Option<i64>, wanted: i64) -> bool {
        let locked = locked.unwrap_or(self.now).max(self.now);
        locked < wanted && (wanted < self.rolling() || locked.saturating_add(self.span / 2) < wanted)
    }
}

impl View {
    /// Until when what all snapshots have in common is to be locked. Where there is none, the repository is there to be used.
    fn longest_lock(&self, reach: Option<Reach>) -> i64 {
        let longest = self.snapshots.iter().map(|snapshot| snapshot.lock_until).max();
        longest.unwrap_or_else(|| reach.map_or(0, Reach::rolling))
    }
}

/// How long things are to be locked.
pub(super) struct WantedLocks {
    reach: Option<Reach>,
    /// Packs that go.
    idle: HashSet<PackId>,
    /// Until when packs are to be locked, nanoseconds since 1970.
    packs: HashMap<PackId, i64>,
    /// The same for other packs: those that came meanwhile are locked, and who needs them is looked at another time.
    unknown: i64,
    /// The same for all else: it is needed by all snapshots alike.
    others: i64,
}

impl WantedLocks {
    pub(super) fn of(decisions: &[PackDecision], view: &View, reach: Option<Reach>) -> Self {
        let dropped = decisions.iter().filter(|pack| pack.decision == Decision::Drop);
        let others = view.longest_lock(reach);
        Self {
            reach,
            idle: dropped.map(|pack| pack.id).collect(),
            packs: decisions.iter().map(|pack| (pack.id, pack.lock_until)).collect(),
            unknown: reach.map_or(0, |reach| others.min(reach.rolling())),
            others,
        }
    }
}

impl Repository {
    /// Looks at the locks of everything that is not about to go; `None` if nothing is to be locked.
    ///
    /// # Errors
    /// What the store says.
    pub fn look_at_locks(&self, observer: &dyn Observer) -> Result<Option<LockReport>> {
        let Some(reach) = Reach::of_store(self) else { return Ok(None) };
        let mut report = LockReport::default();
        let wanted = self.wanted_locks(reach, observer)?;
        self.extend_locks(&wanted, (false, &mut report), observer)?;
        Ok(Some(report))
    }

    /// How long everything is to be locked, by what the snapshots that stand need of it.
    fn wanted_locks(&self, reach: Reach, observer: &dyn Observer) -> Result<WantedLocks> {
        let whole =
            |others| WantedLocks { reach: Some(reach), idle: HashSet::new(), packs: HashMap::new(), unknown: others, others };
        if self.permit(Act::List).is_err() {
            return Ok(whole(reach.rolling()));
        }
        let view = self.view(Some(reach))?;
        let others = view.longest_lock(Some(reach));
        if view.snapshots.iter().all(|snapshot| snapshot.lock_until == others) {
            return Ok(whole(others));
        }
        self.load_index(observer)?;
        let mut marker = Marker::new(self)?;
        match marker.mark(&view, &Progress::default(), observer) {
            // What lies below a damaged page is told of elsewhere.
            Err(error) if error.kind() == ErrorKind::Damaged => return Ok(whole(others)),
            marked => marked?,
        }
        let trust = Trusted::of(self, &marker.marks, &HashSet::new())?;
        let usage = marker.marks.usage(&trust, &HashSet::new())?;
        let states = cache::index::pack_states(&self.connection())?;
        let until = |number: u32| usage.get(&number).map_or(0, |usage| usage.lock_until);
        let packs = states.iter().map(|state| (state.pack.id, until(state.number))).collect();
        Ok(WantedLocks { packs, ..whole(others) })
    }

    /// Lengthens the retention of what is needed; without `apply` only counts.
    pub(super) fn extend_locks(
        &self,
        wanted: &WantedLocks,
        (apply, report): (bool, &mut LockReport),
        observer: &dyn Observer,
    ) -> Result<()> {
        let store = self.store();
        let (Some(extras), Some(reach)) = (store.extras(), wanted.reach) else { return Ok(()) };
        let gone = cache::prune::gone(&self.connection())?;
        // Locks of records for which a checkpoint stands run out.
        let cut_off = cache::checkpoint::in_force(&self.connection())?;
        let staying = cache::checkpoint::staying(&self.connection())?;
        let staying: HashSet<(ClientId, u64)> = staying.iter().map(|head| (head.client, head.seq)).collect();
        let is_cut_off = |key: &Key| {
            let place = key.log_seq().filter(|place| !staying.contains(place));
            let floor = place.and_then(|(client, seq)| Some((cut_off.as_ref()?.floor(&client)?.seq, seq)));
            floor.is_some_and(|(floor, seq)| seq < floor)
        };
        let mut due = Vec::new();
        for folder in OTHERS.into_iter().chain(["packs"]) {
            store.list(folder, &mut |Entry { key, .. }| {
                let index = || IndexId::from_hex(key.as_str().strip_prefix("index/")?).ok();
                let pack = key.pack_id().or_else(|| key.contents_of()).or_else(|| index().map(|id| PackId(id.0)));
                let idle = pack.is_some_and(|pack| gone.contains(&pack) || wanted.idle.contains(&pack));
                if !idle && !is_cut_off(&key) {
                    let of_pack = |pack| wanted.packs.get(&pack).copied().unwrap_or(wanted.unknown);
                    let is_index = key.as_str().starts_with("index/");
                    let until = pack.filter(|_| !is_index).map_or(wanted.others, of_pack);
                    due.push((key, until));
                }
                Ok(())
            })?;
        }
        let extended = extend(extras, (&due, store.width()), (reach, apply), observer)?;
        report.looked_at += due.len() as u64;
        report.extended += extended.0;
        report.refused += extended.1;
        Ok(())
    }
}

fn extend(
    extras: &dyn Extras,
    (due, width): (&[(Key, i64)], usize),
    (reach, apply): (Reach, bool),
    observer: &dyn Observer,
) -> Result<(u64, u64)> {
    let counts = Mutex::new((0, 0));
    side_by_side(width, due, observer, |(key, wanted)| {
        let Some(state) = extras.state(key)? else { return Ok(()) };
        if !reach.is_due(state.locked_until, *wanted) {
            return Ok(());
        }
        let done = if apply { extras.lock_until(key, *wanted, state.is_strict) } else { Ok(()) };
        let mut counts = counts.lock().expect("no code panics while it holds this lock");
        match done {
            Ok(()) => counts.0 += 1,
            Err(error) if error.kind() == ErrorKind::Refused => {
                if counts.1 == 0 {
                    observer.observe(Event::Warning(&format!("{error}; {}", error.hint())));
                }
                counts.1 += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    Ok(counts.into_inner().expect("no code panics while it holds this lock"))
}
