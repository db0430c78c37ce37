//! `check`: verifies a repository; reports every finding, and changes nothing in the store.

mod finding;
mod packs;
mod select;
mod trees;
mod wholeness;

pub use finding::{DamagedSnapshot, Finding, Findings, Severity};
pub(in crate::ops) use packs::{PackFindings, each_pack};
pub use select::ReadData;

use crate::error::{Error, Result};
use crate::event::{Event, Observer, Progress, Stage};
use crate::ops::gathered::Gathered;
use crate::ops::thaw::ThawOptions;
use crate::repo::{Act, Depth, Repository};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How deep to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Only the chain of the logs, and that all objects are there with their lengths.
    pub quick: bool,
    /// What of the data to read, open, and hash.
    pub read_data: Option<ReadData>,
    /// What to do about packs that must be thawed first.
    pub thaw: ThawOptions,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
}

impl CheckOptions {
    /// Everything is read, with so many threads.
    #[must_use]
    pub fn of_all_data(threads: usize) -> Self {
        Self { read_data: Some(ReadData::default()), threads, ..Self::default() }
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Everything that is wrong, in the order found.
    pub findings: Findings,
    /// Snapshots that cannot be restored whole.
    pub damaged: Gathered<DamagedSnapshot>,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Log records and prune objects looked at.
    pub records: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Packs of which every byte was read.
    pub packs_read: u64,
    /// Chunks known.
    pub chunks: u64,
    /// Bytes read from the store.
    pub bytes_read: u64,
    /// Packs of other clients that this check vouched for in the log.
    pub attested: u64,
    /// When the pack that was not read for the longest time was last read whole, nanoseconds since 1970; `None` if some
    /// never was.
    pub oldest_read: Option<i64>,
    /// How long it took.
    pub elapsed: Duration,
    /// This machine's index is not what the packs say.
    own_index_differs: bool,
}

impl CheckReport {
    /// True if something is damaged, even if nothing is lost by it yet.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.has_damage()
    }
}

/// Verifies the logs, the packs, the trees of all snapshots, and as much of the data as `options` say.
///
/// # Errors
/// Only what keeps the check from going on; everything that is wrong with the repository is in the report.
pub fn check(repository: &Repository, options: &CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
    repository.permit(if options.read_data.is_some() { Act::Read } else { Act::List })?;
    // Damage of the cache must not pass for damage of the repository.
    repository.ensure_sound_cache(observer)?;
    repository.ignore_kept_parts();
    repository.with_sound_cache(observer, |_| true, || verify(repository, options, observer))
}

fn verify(repository: &Repository, options: &CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
    let began = Instant::now();
    let mut report = CheckReport::default();
    repository.load_index(observer)?;
    report.findings.extend(repository.met().map(Finding::of_opening).into_iter())?;
    let progress = Arc::new(Progress::default());
    observer.observe(Event::Started(Stage::Checking, &progress));
    let checked = std::thread::scope(|scope| {
        // It waits for one answer after the other, and for nothing else that is asked.
        let asked = scope.spawn(|| repository.probe_store());
        let checked = look(repository, options, (&progress, began), observer, &mut report);
        // A store in trouble is reported by everything else that is asked of it, and those who may not write cannot ask.
        let lacks = asked.join().map_err(|_| Error::panicked("ask the store what it keeps"))?.unwrap_or_default();
        checked.and_then(|()| report.findings.extend(lacks.into_iter().map(Finding::of_store)))
    });
    observer.observe(Event::Finished(Stage::Checking));
    checked?;
    report.elapsed = began.elapsed();
    Ok(report)
}

/// Compares index objects with the tables of contents, as far as this machine's index has them right.
fn verify_index(repository: &Repository, quick: bool, observer: &dyn Observer, report: &mut CheckReport) -> Result<()> {
    let quick = quick || report.own_index_differs;
    repository.verify_index_objects(quick, observer, &mut |problem| report.findings.add(&Finding::of_index(problem)))
}

fn look(
    repository: &Repository,
    options: &CheckOptions,
    (progress, began): (&Progress, Instant),
    observer: &dyn Observer,
    report: &mut CheckReport,
) -> Result<()> {
    let mut take = |problem| report.findings.add(&Finding::of_record(problem));
    report.records = repository.verify_records(observer, &mut take)?.looked_at;
    report.findings.extend(repository.verify_slots()?.into_iter().map(Finding::of_record))?;
    if !options.quick {
        let locks = repository.look_at_locks(observer)?;
        report.findings.extend(locks.filter(|locks| locks.extended > 0).iter().map(Finding::of_locks))?;
    }
    report.findings.extend(repository.cloned()?.iter().map(|(member, machines)| Finding::of_clones(member, *machines)))?;
    let depth = if options.quick { Depth::Exists } else { Depth::Contents };
    let chosen = packs::choose(repository, depth, options, began, report)?;
    if repository.may_be_archived(&options.thaw) {
        repository.make_readable(&chosen.packs_to_read()?, ("check", &options.thaw), observer)?;
    }
    let unreadable = packs::verify(repository, &chosen, (options, progress), observer, report)?;
    verify_index(repository, options.quick, observer, report)?;
    report.chunks = repository.chunk_count()?;
    if !options.quick {
        let threads = repository.workers(options.threads);
        let trees = || trees::check(repository, &unreadable, threads, observer);
        let found = repository.reading(observer, &[], |found| found.damaged.is_empty(), trees)?;
        report.snapshots = found.snapshots;
        report.findings.extend(found.second_try.then(Finding::of_second_try).into_iter())?;
        let mut counts = Vec::new();
        for damaged in found.damaged.iter() {
            let damaged = damaged?;
            report.findings.add(&Finding::of_snapshot(&damaged))?;
            counts.push((damaged.id, damaged.count));
        }
        report.damaged = found.damaged;
        repository.note_damaged(&counts)?;
    }
    Ok(())
}
