//! `forget`: decides which snapshots go, says for each why, and forgets them. Their content stays until a prune.
//!
//! Surveying, planning, and executing are steps of their own: a dry run leaves the last one out, and a person can look
//! at the plan before it. What rules say is an argument, so that nothing here depends on what a rule is.

mod objection;

pub use objection::{Allow, Objection};

use super::select::{self, SnapshotFilter};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
use crate::format::log::RecordRef;
use crate::id::SnapshotId;
use crate::repo::{Act, Repository, SnapshotEntry, StoredTime};
use std::collections::HashSet;

/// Which of the two times of a snapshot rules go by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Times {
    /// The one that its client claims; nothing is forgotten by it where the store's own differs by more than a day.
    #[default]
    Checked,
    /// The one that its client claims.
    Claimed,
    /// The one at which the store says that its record was written.
    Stored,
}

/// A snapshot that may be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The snapshot.
    pub entry: SnapshotEntry,
    /// When the store says that its record was written.
    pub stored: Option<StoredTime>,
    /// Until when its own retention keeps it, nanoseconds since 1970; `None` if it has none, or if that has ended.
    pub retained: Option<i64>,
}

impl Candidate {
    /// The time that rules go by, nanoseconds since 1970.
    #[must_use]
    pub fn time(&self, times: Times) -> i64 {
        match times {
            Times::Stored => match self.stored {
                Some(StoredTime::At(time)) => time,
                Some(StoredTime::NotAfter(time)) => time.min(self.entry.snapshot.end),
                None => self.entry.snapshot.end,
            },
            Times::Checked | Times::Claimed => self.entry.snapshot.end,
        }
    }
}

/// What rules say of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Number of the group that it was judged in.
    pub group: usize,
    /// Why it is kept, in words; empty if it goes.
    pub kept_by: Vec<String>,
}

/// What there is to choose from.
#[derive(Debug, Clone)]
pub struct Survey {
    candidates: Vec<Candidate>,
    /// All that is kept in the repository, so that it can be told what would be left.
    kept: Vec<SnapshotEntry>,
}

/// What becomes of each candidate, and what speaks against it.
#[derive(Debug, Clone)]
pub struct ForgetPlan {
    /// The candidates and what was decided.
    pub fates: Vec<(Candidate, Decision)>,
    /// What speaks against carrying it out.
    pub objections: Vec<Objection>,
}

/// What was forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetReport {
    /// The snapshots.
    pub forgotten: Vec<SnapshotId>,
    /// How many there are left in the repository.
    pub kept: usize,
}

impl Survey {
    /// The snapshots that fit `filter`, oldest first.
    ///
    /// # Errors
    /// `Missing` if the filter names something that no snapshot has, or nothing fits.
    pub fn of_filter(repository: &Repository, filter: &SnapshotFilter) -> Result<Self> {
        repository.permit(Act::Forget)?;
        let kept = repository.snapshots()?;
        select::verify_known(&kept, filter)?;
        let chosen: Vec<SnapshotEntry> = kept.iter().filter(|entry| filter.fits(&entry.snapshot)).cloned().collect();
        if chosen.is_empty() {
            return Err(select::nothing_fits(&kept, filter));
        }
        Self::new(repository, kept, chosen)
    }

    /// The snapshots that are named by their ids or the beginnings of them.
    ///
    /// # Errors
    /// `Missing` if one is not there, `Usage` if a beginning is that of several, `Refused` if one is held.
    pub fn of_names(repository: &Repository, names: &[String]) -> Result<Self> {
        repository.permit(Act::Forget)?;
        let chosen = select::all_named(repository, names)?;
        verify_none_held(&chosen)?;
        Self::new(repository, repository.snapshots()?, chosen)
    }

    fn new(repository: &Repository, kept: Vec<SnapshotEntry>, chosen: Vec<SnapshotEntry>) -> Result<Self> {
        let records: Vec<_> = chosen.iter().map(SnapshotEntry::record).collect();
        let times = repository.stored_times(&records)?;
        let now = repository.now();
        let candidate = |entry: SnapshotEntry| Candidate {
            stored: times.get(&entry.record()).copied(),
            retained: entry.snapshot.retain_until.filter(|until| *until > now),
            entry,
        };
        Ok(Self { candidates: chosen.into_iter().map(candidate).collect(), kept })
    }

    /// The same, but no snapshot's own retention counts.
    #[must_use]
    pub fn despite_retention(mut self) -> Self {
        self.candidates.iter_mut().for_each(|candidate| candidate.retained = None);
        self
    }

    /// What rules have to judge.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// All that is kept in the repository.
    #[must_use]
    pub fn kept(&self) -> &[SnapshotEntry] {
        &self.kept
    }

    /// The plan that follows from what rules, going by `times`, said of each candidate.
    #[must_use]
    pub fn plan(self, decisions: Vec<Decision>, times: Times) -> ForgetPlan {
        debug_assert_eq!(decisions.len(), self.candidates.len(), "rules speak of every candidate");
        let fates: Vec<_> = self.candidates.into_iter().zip(decisions).collect();
        let mut objections = objection::to_rules(&fates, times);
        objections.extend(objection::to_loss(&fates, &self.kept));
        ForgetPlan { fates, objections }
    }

    /// The plan in which all candidates go.
    #[must_use]
    pub fn plan_all(self) -> ForgetPlan {
        let fates: Vec<_> = self.candidates.into_iter().map(|candidate| (candidate, Decision::default())).collect();
        let mut objections: Vec<Objection> = objection::to_retention(&fates).into_iter().collect();
        objections.extend(objection::to_loss(&fates, &self.kept));
        ForgetPlan { fates, objections }
    }
}

fn verify_none_held<'a>(chosen: impl IntoIterator<Item = &'a SnapshotEntry>) -> Result<()> {
    let Some(held) = chosen.into_iter().find(|entry| entry.is_held()) else { return Ok(()) };
    let id = held.id.short();
    let reason = if held.reason.is_empty() { String::new() } else { format!(" ({})", held.reason) };
    let message = format!("forget the snapshot {id}: it is held{reason}");
    Err(Error::new(ErrorKind::Refused, message).with_hint(format!("`lifeboat unhold {id}` ends the hold")))
}

impl ForgetPlan {
    /// The snapshots that go.
    pub fn going(&self) -> impl Iterator<Item = &Candidate> {
        self.fates.iter().filter(|(_, decision)| decision.kept_by.is_empty()).map(|(candidate, _)| candidate)
    }

    /// Why the plan may not be carried out, if `allow` does not permit it.
    #[must_use]
    pub fn refusal(&self, allow: Allow) -> Option<Error> {
        self.objections.iter().find(|objection| !objection.is_met_by(allow)).map(Objection::to_error)
    }
}

/// Forgets what the plan says, as far as nobody else has forgotten it since.
///
/// # Errors
/// `Refused` if the plan does more than `allow` permits, also together with what others have forgotten since it was made, if
/// a hold began since, or the keys at hand may not forget.
pub fn forget(repository: &Repository, plan: &ForgetPlan, allow: Allow, observer: &dyn Observer) -> Result<ForgetReport> {
    if let Some(refusal) = plan.refusal(allow) {
        return Err(refusal);
    }
    repository.with_sound_cache(observer, |_| true, || carry_out(repository, plan, allow, observer))
}

fn carry_out(repository: &Repository, plan: &ForgetPlan, allow: Allow, observer: &dyn Observer) -> Result<ForgetReport> {
    // Somebody may have looked at the plan for hours.
    repository.refresh(observer)?;
    let kept = repository.snapshots()?;
    if let Some(objection) = objection::to_loss(&plan.fates, &kept).iter().find(|objection| !objection.is_met_by(allow)) {
        return Err(objection.to_error().while_doing("others have forgotten snapshots in the meantime"));
    }
    let left: HashSet<RecordRef> = kept.iter().map(SnapshotEntry::record).collect();
    let planned: HashSet<RecordRef> = plan.going().map(|candidate| candidate.entry.record()).collect();
    verify_none_held(kept.iter().filter(|entry| planned.contains(&entry.record())))?;
    let going: Vec<&SnapshotEntry> =
        plan.going().map(|candidate| &candidate.entry).filter(|entry| left.contains(&entry.record())).collect();
    repository.forget(&going.iter().map(|entry| entry.record()).collect::<Vec<_>>())?;
    let forgotten: Vec<SnapshotId> = going.iter().map(|entry| entry.id).collect();
    Ok(ForgetReport { kept: kept.len() - forgotten.len(), forgotten })
}
