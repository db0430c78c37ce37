//! `repair`: finds out what can be mended, and mends it if it is told to.

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, Silent, Stage, stop_if_asked};
use crate::format::log::PackRef;
use crate::ops::check::{self, Finding, Findings, PackFindings, Severity};
use crate::ops::gathered::Gathered;
use crate::ops::thaw::ThawOptions;
use crate::repo::{Act, MOST_ALIKE, Mend, PackList, PackSet, RecordProblem, RecordsReport, Repairer, Repository, Trouble};
use crate::store::Location;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What to mend, and with what.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// Another copy of the repository, from which objects are fetched.
    pub from: Option<Location>,
    /// Change the repository; without it, only say what would be done.
    pub apply: bool,
    /// Parity for packs that have none, in per mille of their length, and duplicates of the small objects.
    pub parity: Option<u16>,
    /// What to do about packs that must be thawed first.
    pub thaw: ThawOptions,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It would be done with `apply`.
    Planned,
    /// It was done.
    Done,
    /// There was nothing to do any more.
    Needless,
    /// It failed; what could be read before still can be.
    Failed,
}

/// A step with its outcome.
#[derive(Debug, Serialize, Deserialize)]
pub struct Step {
    /// What is to be done.
    pub mend: Mend,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it failed, or empty.
    pub reason: String,
}

/// What a repair found and did.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// All findings, those too for which nothing can be done.
    pub findings: Findings,
    /// What can be done, in order.
    pub steps: Gathered<Step>,
    /// Steps that were done.
    pub done: u64,
    /// Steps that failed.
    pub failed: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl RepairReport {
    /// True if something of the plan could not be done.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed > 0
    }

    fn add(&mut self, step: &Step) -> Result<()> {
        match step.outcome {
            Outcome::Done => self.done += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Planned | Outcome::Needless => {}
        }
        self.steps.push(step)
    }
}

/// Reads everything, plans what can be mended, and with `apply` does it. A repository in which nothing is wrong is left as
/// it is, and nothing that could be restored before is lost by it.
///
/// # Errors
/// Only what keeps the repair from going on; a step that failed is in the report.
pub fn repair(repository: &Repository, options: &RepairOptions, observer: &dyn Observer) -> Result<RepairReport> {
    repository.permit(Act::Read)?;
    repository.ensure_sound_cache(observer)?;
    repository.ignore_kept_parts();
    let began = Instant::now();
    let mut report = RepairReport::default();
    let progress = Arc::new(Progress::default());
    observer.observe(Event::Started(Stage::Checking, &progress));
    let planned = plan(repository, options, &progress, observer, &mut report);
    observer.observe(Event::Finished(Stage::Checking));
    let mends = planned?;
    let progress = Arc::new(Progress::default());
    progress.files_total.store(mends.len(), Ordering::Relaxed);
    observer.observe(Event::Started(Stage::Repairing, &progress));
    let carried_out = carry_out(repository, options, &mends, (&progress, observer), &mut report);
    observer.observe(Event::Finished(Stage::Repairing));
    carried_out?;
    report.elapsed = began.elapsed();
    Ok(report)
}

fn plan(
    repository: &Repository,
    options: &RepairOptions,
    progress: &Progress,
    observer: &dyn Observer,
    report: &mut RepairReport,
) -> Result<Gathered<Mend>> {
    let repairer = repository.repairer(options.from.as_ref())?;
    let mut mends = Gathered::default();
    report.findings.extend(repository.met().map(Finding::of_opening).into_iter())?;
    let records = plan_objects(repository, &repairer, &mut mends, (report, observer))?;
    let packs = repository.packs()?;
    if repository.may_be_archived(&options.thaw) {
        let packs: Vec<PackRef> = packs.iter().collect::<Result<_>>()?;
        repository.make_readable(&packs, ("repair", &options.thaw), observer)?;
    }
    let found = plan_packs(repository, &repairer, (packs, options, progress), (&mut mends, report), observer)?;
    // What cannot be read of tables of contents is a finding of its pack already.
    repository.load_index(&Silent)?;
    let mut index_is_damaged = false;
    repository.verify_index_objects(found.index, observer, &mut |problem| {
        if problem.needless {
            return Ok(());
        }
        index_is_damaged = true;
        report.findings.add(&Finding::of_index(problem))
    })?;
    let mut add = |mend: Mend| mends.push(&mend);
    repairer.plan_index().filter(|_| index_is_damaged).into_iter().try_for_each(&mut add)?;
    repairer.plan_snapshots(&records.snapshots, &found.packs, observer)?.into_iter().try_for_each(&mut add)?;
    if let Some(share) = options.parity {
        repairer.plan_parity(share, &found.packs, &found.parity, &mut add)?;
        repairer.plan_duplicates()?.into_iter().try_for_each(&mut add)?;
    }
    if found.index {
        add(Mend::Index)?;
    }
    Ok(mends)
}

/// What can be done about records, prune objects, and key slots.
fn plan_objects(
    repository: &Repository,
    repairer: &Repairer,
    mends: &mut Gathered<Mend>,
    (report, observer): (&mut RepairReport, &dyn Observer),
) -> Result<RecordsReport> {
    let mut last = None;
    let mut take = |problem: RecordProblem| {
        if !problem.harmless
            && let Some(name) = problem.object.strip_prefix("object ")
        {
            match repairer.plan_object(name) {
                Ok(mend) if mend != last => {
                    mend.iter().try_for_each(|mend| mends.push(mend))?;
                    last = mend.or(last.take());
                }
                Ok(_) => {}
                Err(error) => report.findings.add(&not_looked_at(&problem.object, error)?)?,
            }
        }
        report.findings.add(&Finding::of_record(problem))
    };
    let records = repository.verify_records(observer, &mut take)?;
    repository.verify_slots()?.into_iter().try_for_each(take)?;
    Ok(records)
}

/// What was found of packs, besides what is to be mended.
struct PacksFound {
    packs: PackList,
    /// Those whose parity is made anew as it was asked for.
    parity: PackSet,
    /// This machine's index differs from one of them.
    index: bool,
}

/// What can be done about packs; it reads all of them.
fn plan_packs(
    repository: &Repository,
    repairer: &Repairer,
    (packs, options, progress): (PackList, &RepairOptions, &Progress),
    (mends, report): (&mut Gathered<Mend>, &mut RepairReport),
    observer: &dyn Observer,
) -> Result<PacksFound> {
    let (mut parity, mut index) = (PackSet::of(&packs), false);
    let (mut planned, mut findings): (Gathered<(usize, Mend)>, _) = (Gathered::default(), PackFindings::default());
    let packs = check::each_pack(repository, (packs, options.threads), progress, observer, &mut |at, pack, found| {
        findings.add(at, pack, &found)?;
        match repairer.plan_pack(pack, found) {
            Ok(mends) => mends.into_iter().try_for_each(|mend| {
                match &mend {
                    Mend::Index => {
                        index = true;
                        return Ok(());
                    }
                    Mend::Parity(_, share) if options.parity == Some(*share) => parity.add(at),
                    _ => {}
                }
                planned.push(&(at, mend))
            }),
            Err(error) => findings.push(at, not_looked_at(&format!("pack {}", pack.id), error)?, Trouble::Unreadable),
        }
    })?;
    findings.each(&mut |_, finding, _| report.findings.add(&finding))?;
    planned.each_by_place(|(at, _)| *at, &mut |(_, mend)| mends.push(&mend))?;
    Ok(PacksFound { packs, parity, index })
}

/// What keeps one object from being mended is no reason to leave others as they are; and nothing is marked as lost of what
/// another copy may have.
fn not_looked_at(object: &str, error: Error) -> Result<Finding> {
    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Full | ErrorKind::InUse) {
        return Err(error);
    }
    let problem = format!("nothing is done about it, because it is not known what can be: {error}");
    let hint = "run the same command again once the store, or the other copy, can be read".into();
    Ok(Finding { severity: Severity::Damage, object: object.into(), problem, hint })
}

fn carry_out(
    repository: &Repository,
    options: &RepairOptions,
    mends: &Gathered<Mend>,
    (progress, observer): (&Progress, &dyn Observer),
    report: &mut RepairReport,
) -> Result<()> {
    if let Some(share) = options.parity {
        repository.set_parity(share);
    }
    let repairer = repository.repairer(options.from.as_ref())?;
    let mut mends = mends.iter().peekable();
    while let Some(mend) = mends.next() {
        let mend = mend?;
        if !options.apply {
            report.add(&Step { mend, outcome: Outcome::Planned, reason: String::new() })?;
            continue;
        }
        stop_if_asked(observer)?;
        // Marks of whole packs that follow each other are one commit: somebody may have listed many packs that there are not.
        let mut alike = vec![mend];
        while alike[0].is_of_whole_pack()
            && alike.len() < MOST_ALIKE
            && let Some(mend) = mends.next_if(|mend| mend.as_ref().is_ok_and(Mend::is_of_whole_pack))
        {
            alike.push(mend?);
        }
        let (outcome, reason) = match repairer.carry_out_alike(&alike) {
            Ok(true) => (Outcome::Done, String::new()),
            Ok(false) => (Outcome::Needless, String::new()),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Full) => return Err(error),
            Err(error) => (Outcome::Failed, error.to_string()),
        };
        for mend in alike {
            progress.add_file(0);
            report.add(&Step { mend, outcome, reason: reason.clone() })?;
        }
    }
    Ok(())
}
