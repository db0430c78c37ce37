//! Retention of objects, where the store locks them: lengthened for what snapshots that stand need, never shortened, and
//! left to run out for everything else.
//!
//! What is put is locked for so many days. A prune that finds less than half of them left on something that is needed
//! locks it for all of them again. So as long as prunes run at least twice in that time, nothing that a snapshot needs
//! can be deleted by anybody, and what a forgotten snapshot needed alone can go when its time has run out.

use super::decide::{Candidate, Decision, PackDecision};
use super::prune::Prune;
use crate::error::{ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::id::{ClientId, IndexId, PackId};
use crate::repo::thaw::side_by_side;
use crate::repo::{Repository, cache};
use crate::store::{Entry, Extras, Key, archive};
use std::collections::HashSet;
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

impl Repository {
    /// Looks at the locks of everything that is not about to go; `None` if nothing is to be locked.
    ///
    /// # Errors
    /// What the store says.
    pub fn look_at_locks(&self, observer: &dyn Observer) -> Result<Option<LockReport>> {
        if self.store().extras().and_then(Extras::lock_days).is_none() {
            return Ok(None);
        }
        let mut report = LockReport::default();
        self.extend_locks(&[], (false, &mut report), observer)?;
        Ok(Some(report))
    }

    /// Lengthens the retention of what is needed; without `apply` only counts.
    pub(super) fn extend_locks(
        &self,
        decisions: &[PackDecision],
        (apply, report): (bool, &mut LockReport),
        observer: &dyn Observer,
    ) -> Result<()> {
        let store = self.store();
        let Some((extras, days)) = store.extras().and_then(|extras| Some((extras, extras.lock_days()?))) else {
            return Ok(());
        };
        let (now, span) = (self.now(), i64::from(days).saturating_mul(DAY));
        let gone = cache::prune::gone(&self.connection())?;
        let dropped = decisions.iter().filter(|pack| pack.decision == Decision::Drop).map(|pack| pack.id);
        let idle: HashSet<PackId> = dropped.chain(gone).collect();
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
                if pack.is_none_or(|pack| !idle.contains(&pack)) && !is_cut_off(&key) {
                    due.push(key);
                }
                Ok(())
            })?;
        }
        let extended = extend(extras, (&due, store.width()), (now, span, apply), observer)?;
        report.looked_at += due.len() as u64;
        report.extended += extended.0;
        report.refused += extended.1;
        Ok(())
    }
}

impl Prune<'_> {
    /// Packs that must be thawed before they can be read are not written anew for what little of them nobody needs: thawing
    /// costs more than that. They go when nobody needs anything of them.
    pub(super) fn spare_archived(&mut self, candidates: &[Candidate], decisions: &mut [Decision]) -> Result<()> {
        let store = self.repository.store();
        let Some(extras) = archive(&**store) else { return Ok(()) };
        let asked: Vec<usize> = (0..candidates.len()).filter(|at| decisions[*at] == Decision::Repack).collect();
        let frozen = Mutex::new(Vec::new());
        side_by_side(store.width(), &asked, self.observer, |at| {
            let state = extras.state(&Key::pack(&candidates[*at].id))?;
            if state.is_some_and(|state| !state.availability.is_readable()) {
                frozen.lock().expect("no code panics while it holds this lock").push(*at);
            }
            Ok(())
        })?;
        for at in frozen.into_inner().expect("no code panics while it holds this lock") {
            decisions[at] = Decision::Keep;
            self.report.archived += 1;
        }
        Ok(())
    }
}

fn extend(
    extras: &dyn Extras,
    (due, width): (&[Key], usize),
    (now, span, apply): (i64, i64, bool),
    observer: &dyn Observer,
) -> Result<(u64, u64)> {
    let counts = Mutex::new((0, 0));
    side_by_side(width, due, observer, |key| {
        let Some(state) = extras.state(key)? else { return Ok(()) };
        if state.locked_until.is_some_and(|until| until.saturating_sub(now) >= span / 2) {
            return Ok(());
        }
        let done = if apply { extras.lock_until(key, now.saturating_add(span), state.is_strict) } else { Ok(()) };
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
