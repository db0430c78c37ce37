//! `restore`: writes a snapshot, or a part of it, back to a file system.

mod compare;
mod execute;
mod known;
mod levels;
mod needed;
mod place;
mod plan;
mod report;
mod salvage;
mod verify;
mod window;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Stage};
use crate::format::snapshot::Failure;
use crate::format::tree::NodeKind;
use crate::ops::gathered::Gathered;
use crate::ops::thaw::{ThawOptions, ThawReport};
use crate::repo::{Act, Repository, Rescued, SnapshotEntry};
use crate::source::files::RuleOptions;
use place::Place;
use report::Tally;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// A target that is not empty is refused, except to resume the same restore.
    #[default]
    Refuse,
    /// Made equal to the snapshot; only differing content is written.
    Always,
    /// Made equal if its size or modification time differs.
    IfChanged,
    /// Replaced if the snapshot's is newer.
    IfNewer,
    /// Kept.
    Never,
}

/// Where to put it and how.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Directory to restore into.
    pub target: PathBuf,
    /// Path within the snapshot that is put directly into the target, empty for the whole tree.
    pub subpath: Vec<u8>,
    /// Only what matches any of these globs (directories above are made as needed).
    pub include: Vec<String>,
    /// Nothing that matches these rules.
    pub exclude: RuleOptions,
    /// What happens to files that are there.
    pub overwrite: Overwrite,
    /// Remove what the snapshot does not have, within the paths that were backed up: what lies beside them is not known
    /// to the snapshot. Neither what is mounted there nor a directory of the program itself is removed.
    pub delete: bool,
    /// Say what would be done.
    pub dry_run: bool,
    /// Read back and compare afterwards.
    pub verify: bool,
    /// Use numeric ids, not names.
    pub numeric_ids: bool,
    /// Leave owner and group alone.
    pub no_owner: bool,
    /// Write what is left of damaged files, beside where they belong, with a list of what is missing.
    pub salvage: bool,
    /// What to do about packs that must be thawed first.
    pub thaw: ThawOptions,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
}

/// A file of which only a part could be restored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SalvagedFile {
    /// Where it belongs.
    pub path: Vec<u8>,
    /// What it is called in its directory; `None` if nothing of it is left.
    pub name: Option<Vec<u8>>,
    /// Its length.
    pub size: u64,
    /// What is missing: offset and length in turn, zeros in the file.
    pub holes: Vec<(u64, u64)>,
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct RestoreReport {
    /// Files written.
    pub files: u64,
    /// Files that were equal already.
    pub unchanged: u64,
    /// Files left alone because of `Overwrite`.
    pub skipped: u64,
    /// Directories.
    pub directories: u64,
    /// Links, fifos, sockets, devices.
    pub others: u64,
    /// Entries removed by `delete`, and directories that were in the way of something else.
    pub deleted: u64,
    /// Patterns of `include` that nothing matched.
    pub unmatched: Vec<String>,
    /// Bytes of content in the files restored.
    pub bytes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Files read back and found equal, with `verify`.
    pub verified: u64,
    /// Metadata that could not be set (such as owners, without root).
    pub warnings: u64,
    /// What could not be restored: the first 1,000, or fewer where paths are very long.
    pub failures: Vec<Failure>,
    /// All failures.
    pub failure_count: u64,
    /// True if stored data turned out to be lost or changed.
    pub damaged: bool,
    /// What is damaged and could be restored all the same, from parity or from another pack.
    pub rescued: Rescued,
    /// What is left of damaged files, with `salvage`.
    pub salvaged: Gathered<SalvagedFile>,
    /// What had to be thawed; absent where nothing can be archived.
    pub thaw: Option<ThawReport>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Restores `entry`, or a part of it, as `options` say.
///
/// # Errors
/// `Refused` if the target is not empty, `Missing` if there is no such path, `Archived` if something must be thawed first,
/// before anything was written; `Full`, `Interrupted`. What could not be restored while the rest could is in the report.
pub fn restore(
    repository: &Repository,
    entry: &SnapshotEntry,
    options: &RestoreOptions,
    observer: &dyn Observer,
) -> Result<RestoreReport> {
    repository.permit(Act::Read)?;
    refuse_to_delete(entry, options)?;
    // What seems to be damaged may be what the cache says of it. What was restored by then is not restored again.
    repository.reading(
        observer,
        &[entry],
        |report: &RestoreReport| report.failure_count == 0,
        || attempt(repository, entry, options, observer),
    )
}

/// Says what the snapshot is not, though whoever asked for it may believe it.
fn warn(entry: &SnapshotEntry, delete: bool, observer: &dyn Observer) {
    let id = entry.id.short();
    if delete && entry.snapshot.failure_count > 0 {
        let message = format!("nothing is removed of what could not be read for snapshot {id}: `lifeboat show {id}` lists it");
        observer.observe(Event::Warning(&message));
    }
    if entry.snapshot.incomplete {
        let message = format!("snapshot {id} is of a backup that did not finish: it has only what was done");
        observer.observe(Event::Warning(&message));
    }
}

/// Fails if something would be removed because the snapshot does not have it, and nobody can say whether that was there.
fn refuse_to_delete(entry: &SnapshotEntry, options: &RestoreOptions) -> Result<()> {
    let snapshot = &entry.snapshot;
    let why = match snapshot.failure_count > snapshot.failures.len() as u64 {
        _ if snapshot.incomplete => "is of a backup that did not finish",
        true => "does not list all that could not be read for it",
        false => return Ok(()),
    };
    if !options.delete {
        return Ok(());
    }
    let message = format!("restore with --delete: snapshot {} {why}", entry.id.short());
    Err(Error::new(ErrorKind::Refused, message).with_hint("leave --delete out: it would remove what was only not backed up"))
}

fn attempt(
    repository: &Repository,
    entry: &SnapshotEntry,
    options: &RestoreOptions,
    observer: &dyn Observer,
) -> Result<RestoreReport> {
    let began = Instant::now();
    repository.take_rescued();
    let reader = repository.planning_reader()?;
    let top = reader.resolve(&entry.snapshot.root, &options.subpath)?;
    let most_entries = entry.snapshot.counts.most_entries();
    let marker = format!("{} {}", entry.id, String::from_utf8_lossy(&options.subpath).escape_default());
    let mut thawed = None;
    if repository.may_be_archived(&options.thaw) {
        Place::refuse(options, &marker)?;
        reader.limit_entries(most_entries);
        let packs = needed::packs(repository, &reader, (entry, &top), options, observer)?;
        let wishes = ThawOptions { dry_run: options.dry_run, ..options.thaw };
        thawed = repository.make_readable(&packs, ("restore", &wishes), observer)?;
    }
    reader.limit_entries(most_entries);
    let place = Place::open(options, &marker)?;
    warn(entry, options.delete, observer);
    let tally = Tally::new(observer, options.salvage);
    if options.subpath.is_empty() {
        let counts = &entry.snapshot.counts;
        tally.progress.files_total.store(counts.files, std::sync::atomic::Ordering::Relaxed);
        tally.progress.bytes_total.store(counts.bytes, std::sync::atomic::Ordering::Relaxed);
    } else if top.kind == NodeKind::File {
        tally.progress.bytes_total.store(top.size, std::sync::atomic::Ordering::Relaxed);
    }
    observer.observe(Event::Started(Stage::Restoring, &tally.progress));
    let threads = repository.workers(options.threads);
    let planned = execute::with_workers(repository, threads, &tally, |workers| {
        let known = known::Known::new(&entry.snapshot, &options.subpath);
        plan::Planner::new(&reader, options, workers, (&place, known))?.run(top.clone(), place.target.clone())
    });
    observer.observe(Event::Finished(Stage::Restoring));
    // Work that was handed out after a stop was dropped, and nobody counted it.
    planned.and_then(|()| tally.stop_if_needed())?;
    if options.verify && !options.dry_run {
        reader.limit_entries(most_entries);
        verify::verify(&reader, &top, options, &tally)?;
    }
    let lost = tally.take_lost();
    let mut report = tally.into_report();
    report.deleted += place.cleared();
    if let Some(target) = place.target.as_ref().filter(|_| !lost.is_empty() && !options.dry_run) {
        report.salvaged = salvage::salvage(&reader, &top, target, &lost, observer)?;
    }
    if report.failure_count == 0 && !options.dry_run {
        place.finish()?;
    }
    report.rescued = repository.take_rescued();
    report.thaw = thawed;
    report.elapsed = began.elapsed();
    Ok(report)
}
