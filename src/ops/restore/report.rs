//! What a restore counts while its threads work.

use super::RestoreReport;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, stop_if_asked};
use crate::format::snapshot::{Failure, MAX_FAILURES};
use crate::ops::gathered::Gathered;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes of failures after which no more are kept: somebody may have made paths as long as can be.
const TOLD: u64 = 4 << 20;

/// Counts and failures, shared by all threads.
pub(super) struct Tally<'a> {
    pub(super) observer: &'a dyn Observer,
    pub(super) progress: Arc<Progress>,
    report: Mutex<RestoreReport>,
    /// Bytes of the failures that are kept.
    told: AtomicU64,
    /// Paths of what is damaged, if anybody asked for them.
    lost: Option<Mutex<Gathered<Vec<u8>>>>,
    files: AtomicU64,
    bytes: AtomicU64,
    written: AtomicU64,
    /// The target has no room, or what is needed must be thawed first: nothing that comes after can succeed.
    full: OnceLock<Error>,
}

impl<'a> Tally<'a> {
    /// `salvaging` keeps the paths of all that is damaged.
    pub(super) fn new(observer: &'a dyn Observer, salvaging: bool) -> Self {
        Self {
            observer,
            progress: Arc::default(),
            report: Mutex::default(),
            told: AtomicU64::new(0),
            lost: salvaging.then(Mutex::default),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            full: OnceLock::new(),
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.observer.interrupted() || self.full.get().is_some()
    }

    /// Fails with why the restore has to stop, if it has to.
    pub(super) fn stop_if_needed(&self) -> Result<()> {
        if let Some(error) = self.full.get() {
            let hint = format!("{}; what is restored already stays and is not written again", error.hint());
            return Err(Error::new(error.kind(), error.to_string()).with_hint(hint));
        }
        let hint = "run the same command again; what is restored already is not written again";
        stop_if_asked(self.observer).map_err(|error| error.with_hint(hint))
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut RestoreReport)) {
        change(&mut self.report.lock().expect("no code panics while it holds this lock"));
    }

    pub(super) fn fail(&self, path: &[u8], error: &Error) {
        if error.kind() == ErrorKind::Interrupted {
            return;
        }
        if matches!(error.kind(), ErrorKind::Full | ErrorKind::Archived) {
            let message = format!("restore {}: {error}", String::from_utf8_lossy(path));
            let _ = self.full.set(Error::new(error.kind(), message).with_hint(error.hint()));
            return;
        }
        self.observer.observe(Event::Failure { path, error });
        if let Some(lost) = self.lost.as_ref().filter(|_| error.kind() == ErrorKind::Damaged) {
            let noted = lost.lock().expect("no code panics while it holds this lock").push(&path.to_vec());
            if let Err(error) = noted {
                let _ = self.full.set(error);
            }
        }
        let reason = error.to_string();
        let told = self.told.fetch_add((path.len() + reason.len()) as u64, Ordering::Relaxed);
        self.count(|report| {
            report.failure_count += 1;
            report.damaged |= error.kind() == ErrorKind::Damaged;
            if report.failures.len() < MAX_FAILURES && told < TOLD {
                report.failures.push(Failure { path: path.to_vec(), reason });
            }
        });
    }

    /// True if a failure of this path was noted; after very many, not all are.
    pub(super) fn has_failed(&self, path: &[u8]) -> bool {
        let report = self.report.lock().expect("no code panics while it holds this lock");
        report.failures.iter().any(|failure| failure.path == path)
    }

    pub(super) fn warn(&self, path: &[u8], problems: &[Error]) {
        if problems.is_empty() {
            return;
        }
        self.count(|report| report.warnings += problems.len() as u64);
        for problem in problems {
            self.observer.observe(Event::Note(&format!("{}: {problem}", String::from_utf8_lossy(path))));
        }
    }

    pub(super) fn file(&self, size: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.progress.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Paths of what is damaged.
    pub(super) fn take_lost(&self) -> Gathered<Vec<u8>> {
        let take =
            |lost: &Mutex<Gathered<_>>| std::mem::take(&mut *lost.lock().expect("no code panics while it holds this lock"));
        self.lost.as_ref().map(take).unwrap_or_default()
    }

    pub(super) fn into_report(self) -> RestoreReport {
        let mut report = self.report.into_inner().expect("all threads have ended");
        report.files = self.files.into_inner();
        report.bytes = self.bytes.into_inner();
        report.bytes_written = self.written.into_inner();
        report
    }
}
