//! What all workers of a backup share, and what each has of its own.

use super::directory::Dir;
use super::handover::Handover;
use crate::error::Error;
use crate::event::{Event, Observer, Progress};
use crate::format::snapshot::{Counts, Failure, MAX_FAILURES};
use crate::format::tree::Content;
use crate::repo::{ChunkWriter, Chunker, Reader, StatCache};
use crate::source::files::{Owners, ReadOptions, Rules, Stat};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Contents of files with several names that are remembered, so that each is read once.
const MAX_LINKS: usize = 1 << 20;

/// What one worker thread has of its own.
pub(super) struct Worker {
    pub(super) writer: ChunkWriter,
    /// Reads lists of chunks back, to see whether a long file is stored.
    pub(super) lists: Reader,
    pub(super) owners: Owners,
    /// For the bytes of files; grows to a segment and stays.
    pub(super) buffer: Vec<u8>,
    /// For encoding nodes.
    pub(super) node: Vec<u8>,
    /// One stat cache for each path that is backed up.
    pub(super) stat: Vec<StatCache>,
    /// What it has counted.
    pub(super) counts: Counts,
    /// What it has done since it last told of its progress.
    pub(super) untold: Untold,
    /// Keys of the directories that were seen, for each path.
    pub(super) seen: Vec<Vec<[u8; 16]>>,
}

/// Finished files of which a worker has not told yet. A counter that all workers write to goes from one processor to the
/// other each time, which takes longer than much else that is done for a tiny file: so they tell of several at once.
#[derive(Default)]
pub(super) struct Untold {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Untold {
    /// Most files and bytes that are not told of.
    const MOST: (u64, u64) = (16, 1 << 20);

    /// True if it is time to tell.
    pub(super) fn is_much(&self) -> bool {
        self.files >= Self::MOST.0 || self.bytes >= Self::MOST.1
    }
}

/// A worker at work. If its thread panics, the others end soon: what it had is lost, so nothing is committed.
pub(super) struct Working<'a> {
    run: &'a Run<'a>,
    worker: MutexGuard<'a, Worker>,
}

impl Deref for Working<'_> {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl DerefMut for Working<'_> {
    fn deref_mut(&mut self) -> &mut Worker {
        &mut self.worker
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.run.give_up(Error::panicked("back up files"));
        }
    }
}

/// What was read of a file with several names.
#[derive(Clone)]
pub(super) struct Linked {
    pub(super) content: Content,
    pub(super) holes: Vec<crate::format::tree::Hole>,
    pub(super) size: u64,
}

/// Which times of files are believed.
#[derive(Clone, Copy)]
pub(super) struct Trust {
    /// Those of no file.
    pub(super) reread: bool,
    /// Those before this one, nanoseconds since 1970; it lies before the backup began, so that what changes from then on
    /// has later ones.
    pub(super) settled: i128,
}

impl Trust {
    /// True if the file is so fresh that a later change could leave its times as they are.
    pub(super) fn is_racy(self, stat: &Stat) -> bool {
        stat.ctime.total_nanos().max(stat.mtime.total_nanos()) >= self.settled
    }
}

/// One backup.
pub(super) struct Run<'a> {
    pub(super) chunker: Chunker,
    pub(super) rules: Rules,
    pub(super) read: ReadOptions,
    pub(super) trust: Trust,
    pub(super) observer: &'a dyn Observer,
    pub(super) progress: Arc<Progress>,
    pub(super) session: &'a crate::repo::Session,
    pub(super) workers: Vec<Mutex<Worker>>,
    /// One for each worker.
    pub(super) handovers: Vec<Handover>,
    /// Directories that may be open; those that are gone are dropped now and then.
    open: Mutex<Vec<Weak<Dir>>>,
    pub(super) links: Mutex<HashMap<(u64, u64), Linked>>,
    failures: Mutex<(Vec<Failure>, u64)>,
    fatal: Mutex<Option<Error>>,
    stop: AtomicBool,
    /// The root page, once the walk has come back to the top.
    pub(super) root: Mutex<Option<crate::id::ChunkId>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        parts: (Chunker, Rules, ReadOptions, Trust),
        observer: &'a dyn Observer,
        session: &'a crate::repo::Session,
        workers: Vec<Mutex<Worker>>,
    ) -> Self {
        let (chunker, rules, read, trust) = parts;
        Self {
            chunker,
            rules,
            read,
            trust,
            observer,
            progress: Arc::default(),
            session,
            handovers: workers.iter().map(|_| Handover::default()).collect(),
            workers,
            open: Mutex::default(),
            links: Mutex::default(),
            failures: Mutex::default(),
            fatal: Mutex::default(),
            stop: AtomicBool::new(false),
            root: Mutex::default(),
        }
    }

    /// The calling thread's worker. Whoever begins with something looks first whether the backup has stopped.
    pub(super) fn worker(&self) -> Working<'_> {
        let number = rayon::current_thread_index().expect("walks run in the pool");
        let worker = self.workers[number].lock().expect("nobody goes on after a panic");
        Working { run: self, worker }
    }

    /// Notes that a directory is open.
    pub(super) fn opened(&self, dir: &Arc<Dir>) {
        let mut open = self.open.lock().expect("no code panics while it holds this lock");
        if open.len() == open.capacity() {
            open.retain(|dir| dir.strong_count() > 0);
            let length = open.len();
            open.reserve(length.max(64));
        }
        open.push(Arc::downgrade(dir));
    }

    /// Directories that may be open.
    pub(super) fn open_directories(&self) -> Vec<Arc<Dir>> {
        self.open.lock().expect("no code panics while it holds this lock").iter().filter_map(Weak::upgrade).collect()
    }

    /// Tells of what a worker has done.
    pub(super) fn tell(&self, untold: &mut Untold) {
        let Untold { files, bytes } = std::mem::take(untold);
        self.progress.files.fetch_add(files, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// True if the backup cannot or should not go on.
    pub(super) fn stopped(&self) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return true;
        }
        if let Err(error) = crate::event::stop_if_asked(self.observer) {
            self.give_up(error);
            return true;
        }
        false
    }

    /// Ends the backup with an error; the first one counts.
    pub(super) fn give_up(&self, error: Error) {
        self.fatal.lock().expect("no code panics while it holds this lock").get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_fatal(&self) -> Option<Error> {
        self.fatal.lock().expect("no code panics while it holds this lock").take()
    }

    /// Notes that something is missing from the snapshot, or not as it should be.
    pub(super) fn fail(&self, path: &[u8], error: &Error) {
        self.observer.observe(Event::Failure { path, error });
        let mut failures = self.failures.lock().expect("no code panics while it holds this lock");
        failures.1 += 1;
        if failures.0.len() < MAX_FAILURES {
            failures.0.push(Failure { path: path.to_vec(), reason: error.to_string() });
        }
    }

    pub(super) fn take_failures(&self) -> (Vec<Failure>, u64) {
        std::mem::take(&mut *self.failures.lock().expect("no code panics while it holds this lock"))
    }

    pub(super) fn linked(&self, link: (u64, u64)) -> Option<Linked> {
        self.links.lock().expect("no code panics while it holds this lock").get(&link).cloned()
    }

    pub(super) fn remember_link(&self, link: (u64, u64), linked: Linked) {
        let mut links = self.links.lock().expect("no code panics while it holds this lock");
        if links.len() < MAX_LINKS {
            links.insert(link, linked);
        }
    }
}
