//! `backup`: one snapshot of paths, of a stream, or of a command's output.

mod checkpoint;
mod content;
mod directory;
mod entries;
mod handover;
pub(in crate::ops) mod lists;
pub(in crate::ops) mod pages;
mod run;
mod stream;
mod tops;
mod walk;

pub use checkpoint::CheckpointOptions;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Stage, stop_if_asked};
use crate::format::snapshot::{Counts, Snapshot};
use crate::id::ChunkId;
use crate::id::SnapshotId;
use crate::ops::latest::latest;
use crate::repo::{Act, Repository, Session, SnapshotEntry, StatCache};
use crate::source::files::RuleOptions;
use crate::source::files::{Directory, Owners, ReadOptions, Rules};
use run::{Run, Trust, Untold, Worker};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;
use tops::Asked;

/// Where the bytes come from.
pub enum Input {
    /// Files and directories.
    Paths(Vec<PathBuf>),
    /// One stream, kept as a file of that name.
    Stream {
        /// Path of the file in the snapshot.
        name: Vec<u8>,
        /// The bytes; a failure while reading fails the backup.
        reader: Box<dyn Read + Send>,
        /// Called at the end of the stream; an error (a command that failed) fails the backup, and nothing is committed.
        finish: Box<dyn FnOnce() -> crate::error::Result<()> + Send>,
    },
}

/// What to back up and how to name it.
pub struct BackupOptions {
    /// The source.
    pub input: Input,
    /// Kind of the snapshot.
    pub kind: String,
    /// Tags, in any order.
    pub tags: Vec<String>,
    /// A remark.
    pub description: String,
    /// Name of this machine.
    pub host: String,
    /// Who runs it.
    pub user: String,
    /// What to leave out.
    pub rules: RuleOptions,
    /// Keep access times.
    pub atime: bool,
    /// Read every file, whatever the stat cache says.
    pub reread: bool,
    /// For how long before the backup a file must not have changed for its times to be believed by the next one. A file
    /// that changes twice within a tick of its file system's clock has the same times after both.
    pub settle: Duration,
    /// Read and count, store nothing.
    pub dry_run: bool,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
    /// Application metadata by name.
    pub metadata: Vec<(String, String)>,
    /// Until when the snapshot is to be kept at least, nanoseconds since 1970.
    pub retain_until: Option<i64>,
    /// When to write down what is done so far.
    pub checkpoint: CheckpointOptions,
}

/// [`BackupOptions::settle`] for every file system: the coarsest clock among them ticks every two seconds.
pub const SETTLE: Duration = Duration::from_secs(2);

/// What a backup did.
#[derive(Debug)]
pub struct BackupReport {
    /// The snapshot; absent after a dry run.
    pub id: Option<SnapshotId>,
    /// What was recorded of it.
    pub snapshot: Snapshot,
    /// How long it took.
    pub elapsed: Duration,
}

impl BackupReport {
    /// True if something that was asked for is missing from the snapshot.
    #[must_use]
    pub fn incomplete(&self) -> bool {
        self.snapshot.failure_count > 0
    }
}

/// Backs up `options.input` and commits one snapshot.
///
/// # Errors
/// `Missing` if a path is not there, `Full`, `Interrupted`, `Refused`; then nothing is committed, and what was stored
/// already is not stored again by the next run.
pub fn backup(repository: &Repository, options: BackupOptions, observer: &dyn Observer) -> Result<BackupReport> {
    repository.permit(Act::BackUp)?;
    let began = Instant::now();
    let mut snapshot = Snapshot::empty();
    snapshot.start = repository.now();
    snapshot.kind.clone_from(&options.kind);
    snapshot.host.clone_from(&options.host);
    snapshot.user.clone_from(&options.user);
    snapshot.description.clone_from(&options.description);
    snapshot.tags = sorted(options.tags.clone());
    snapshot.metadata.clone_from(&options.metadata);
    snapshot.metadata.sort_unstable();
    snapshot.metadata.dedup_by(|a, b| a.0 == b.0);
    snapshot.retain_until = options.retain_until;
    snapshot.version = env!("CARGO_PKG_VERSION").to_owned();
    repository.load_stored_index(observer)?;
    let (id, snapshot) = match options.input {
        Input::Paths(ref paths) => {
            // An error says that nothing was committed.
            repository.with_sound_cache(observer, |_| true, || files(repository, &options, paths, &snapshot, observer))?
        }
        // A stream cannot be read twice; but the next one shall not meet a damaged cache.
        Input::Stream { .. } => {
            let stored = stream::back_up(repository, options, snapshot, observer);
            repository.mend_cache_after(stored, observer)?.ok_or_else(outrun)?
        }
    };
    Ok(BackupReport { id, snapshot, elapsed: began.elapsed() })
}

fn sorted(mut tags: Vec<String>) -> Vec<String> {
    tags.retain(|tag| !tag.is_empty());
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// The latest snapshot of the same host and paths.
fn parent(repository: &Repository, snapshot: &Snapshot) -> Option<SnapshotEntry> {
    let (mut all, _) = repository.known_snapshots().ok()?;
    let same = |other: &Snapshot| other.host == snapshot.host && other.paths == snapshot.paths;
    all.retain(|entry| entry.is_kept() && same(&entry.snapshot));
    latest(&all, repository.now()).map(|found| found.entry.clone())
}

type Committed = (Option<crate::id::SnapshotId>, Snapshot);

/// How often a backup is done again because a prune was faster. Each time only what that prune took is stored again, so
/// a second one is rare and a third one is a sign of something else.
const ATTEMPTS: usize = 5;

fn files(
    repository: &Repository,
    options: &BackupOptions,
    paths: &[PathBuf],
    snapshot: &Snapshot,
    observer: &dyn Observer,
) -> Result<Committed> {
    for _ in 0..ATTEMPTS {
        if let Some(committed) = attempt(repository, options, paths, snapshot.clone(), observer)? {
            return Ok(committed);
        }
        observer.observe(Event::Warning("a prune took what this backup relied on: storing it again"));
    }
    Err(outrun())
}

fn outrun() -> Error {
    Error::new(ErrorKind::InUse, "commit the snapshot: a prune took what it relied on; nothing was committed")
        .with_hint("run the backup again; what was stored stays stored")
}

/// Walks and commits; `None` if a prune was faster.
fn attempt(
    repository: &Repository,
    options: &BackupOptions,
    paths: &[PathBuf],
    mut snapshot: Snapshot,
    observer: &dyn Observer,
) -> Result<Option<Committed>> {
    if paths.is_empty() {
        return Err(Error::usage("back up: no path was given").with_hint("say what to back up, such as `lifeboat backup ~`"));
    }
    let (Asked { tops, from, named, absolute, .. }, rules) = asked(options, paths, observer)?;
    snapshot.paths = named.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    let parent = parent(repository, &snapshot);
    snapshot.parent = parent.as_ref().map(|parent| parent.id);
    let session = Session::start(repository, options.dry_run)?;
    let pool = pool(options.threads)?;
    let origins: Vec<_> =
        absolute.iter().map(|path| repository.stat_cache(path.as_os_str().as_bytes())).collect::<Result<_>>()?;
    if origins.iter().any(StatCache::trusted) {
        session.rely_on_index();
    }
    let workers = workers(repository, &session, &origins, pool.current_num_threads())?;
    let read = ReadOptions { atime: options.atime, changed: repository.keeps_times_of_change(), xattrs: true, flags: true };
    let settled = i128::from(snapshot.start) - i128::try_from(options.settle.as_nanos()).unwrap_or(i128::MAX);
    let trust = Trust { reread: options.reread, settled };
    let parts = (repository.chunker()?, rules, read, trust);
    let run = Run::new(parts, observer, &session, workers);
    if let Some(parent) = &parent {
        run.progress.files_total.store(parent.snapshot.counts.files, std::sync::atomic::Ordering::Relaxed);
        run.progress.bytes_total.store(parent.snapshot.counts.bytes, std::sync::atomic::Ordering::Relaxed);
    }
    observer.observe(Event::Started(Stage::BackingUp, &run.progress));
    let when = (!options.dry_run).then_some(options.checkpoint);
    let walked = checkpoint::alongside(&run, when, &snapshot, || walk_all(&run, &pool, &from, tops));
    observer.observe(Event::Finished(Stage::BackingUp));
    let walked = walked.and_then(|root| stop_if_asked(observer).map(|()| root));
    let (failures, failure_count) = run.take_failures();
    let mut counts = Counts::default();
    let Run { workers, .. } = run;
    let mut writers = Vec::new();
    let mut seen: Vec<Vec<[u8; 16]>> = origins.iter().map(|_| Vec::new()).collect();
    for worker in workers {
        let mut worker = worker.into_inner().expect("the walk has ended");
        counts.add(&worker.counts);
        // Also of a backup that was stopped: the next one need not read again what is stored.
        worker.stat.iter_mut().for_each(|stat| stat.hand_over(&session));
        writers.push(worker.writer);
        seen.iter_mut().zip(worker.seen).for_each(|(all, some)| all.extend(some));
    }
    let writer = writers.pop().expect("a pool has a thread");
    drop(writers);
    snapshot.failures = failures;
    snapshot.failure_count = failure_count;
    match walked {
        Ok(root) => snapshot.root = root,
        Err(error) => {
            // What its threads met is nearer to the cause than what a worker saw of it.
            session.abandon(writer)?;
            return Err(error);
        }
    }
    let Some(committed) = finish(session, writer, snapshot, counts, options.dry_run)? else { return Ok(None) };
    if let (Some(id), false) = (&committed.0, options.dry_run) {
        for (origin, mut seen) in origins.into_iter().zip(seen) {
            seen.sort_unstable();
            // The snapshot is committed; without this the next backup looks every chunk up.
            if let Err(error) = origin.confirm(id, &seen) {
                observer.observe(Event::Warning(&format!("remember the files that were backed up: {error}")));
            }
        }
    }
    Ok(Some(committed))
}

/// What was asked for, if it can be backed up.
fn asked(options: &BackupOptions, paths: &[PathBuf], observer: &dyn Observer) -> Result<(Asked, Rules)> {
    let asked = tops::tops(paths)?;
    let rules = Rules::new(&options.rules)?;
    refuse_own(&rules, &asked.absolute)?;
    if asked.tops.origin.is_some() && !options.rules.one_file_system {
        return Err(Error::usage("back up /: what is mounted below it is not all made of files")
            .with_hint("add --one-file-system, and name what else is to be kept: `lifeboat backup -x / /boot /home`"));
    }
    for link in &asked.links {
        let link = link.display();
        let message = format!("{link} is a symbolic link and kept as one; for what is in the directory, write {link}/");
        observer.observe(Event::Warning(&message));
    }
    Ok((asked, rules))
}

/// Fails if a repository was asked to hold itself.
fn refuse_own(rules: &Rules, paths: &[PathBuf]) -> Result<()> {
    let Some(own) = paths.iter().find(|path| rules.is_within_own(path)) else { return Ok(()) };
    Err(Error::usage(format!("back up {}: it belongs to the repository that would hold it", own.display()))
        .with_hint("for a second copy of a repository, copy its directory while nothing writes to it"))
}

fn workers(repository: &Repository, session: &Session, origins: &[StatCache], count: usize) -> Result<Vec<Mutex<Worker>>> {
    let worker = || {
        Ok(Mutex::new(Worker {
            writer: session.writer()?,
            lists: repository.reader()?,
            owners: Owners::new(),
            buffer: Vec::new(),
            node: Vec::new(),
            stat: origins.iter().map(|origin| origin.reopen(repository)).collect::<Result<_>>()?,
            counts: Counts::default(),
            untold: Untold::default(),
            seen: origins.iter().map(|_| Vec::new()).collect(),
        }))
    };
    (0..count).map(|_| worker()).collect()
}

/// Commits, or with `dry_run` only counts; `None` if a prune was faster.
fn finish(
    session: Session,
    writer: crate::repo::ChunkWriter,
    mut snapshot: Snapshot,
    mut counts: Counts,
    dry_run: bool,
) -> Result<Option<Committed>> {
    snapshot.end = session.now();
    if dry_run {
        counts.bytes_added = session.counts().bytes_added;
        snapshot.counts = counts;
        session.abandon(writer)?;
        return Ok(Some((None, snapshot)));
    }
    let committed = session.commit(writer, |added| {
        counts.bytes_added = added.bytes_added;
        counts.bytes_stored = added.bytes_stored;
        snapshot.counts = counts;
        snapshot
    })?;
    Ok(committed.map(|(id, snapshot)| (Some(id), snapshot)))
}

fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|number| format!("worker-{number}"));
    builder.build().map_err(|error| Error::failed(format!("start the worker threads: {error}")))
}

fn walk_all(run: &Run<'_>, pool: &rayon::ThreadPool, from: &std::path::Path, tops: tops::Tops) -> Result<ChunkId> {
    let directory = Directory::open_root(from)?;
    pool.scope(|scope| match walk::top(run, directory, &tops) {
        Ok(top) => walk::begin(scope, run, top, Some(tops)),
        Err(error) => run.give_up(error),
    });
    if let Some(error) = run.take_fatal() {
        return Err(error);
    }
    let flushed: Result<Vec<()>> = pool.broadcast(|_| run.worker().writer.flush()).into_iter().collect();
    flushed?;
    let root = run.root.lock().expect("the walk has ended").take();
    root.ok_or_else(|| Error::failed("back up: the walk ended before its top"))
}
