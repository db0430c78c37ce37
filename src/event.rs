//! What the library tells while it works. The core never prints: faces observe.

use crate::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A long piece of work that has progress of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the log and bringing the local cache up to date.
    Opening,
    /// Finding out how much there is to do.
    Scanning,
    /// Reading, cutting, and storing files.
    BackingUp,
    /// Writing snapshots, or objects, into another repository.
    Copying,
    /// Writing files back.
    Restoring,
    /// Verifying the repository.
    Checking,
    /// Comparing what was written with what is stored.
    Verifying,
    /// Finding out what snapshots need.
    Marking,
    /// Writing anew what is needed of packs that are mostly not.
    Repacking,
    /// Putting the index in the store into order.
    Compacting,
    /// Deleting what nobody needs.
    Deleting,
    /// Mending what is damaged.
    Repairing,
    /// Waiting for packs that are being thawed.
    Thawing,
}

/// Counters of one stage, written by its workers and read by whoever shows them.
///
/// Totals are zero while they are unknown.
#[derive(Debug, Default)]
pub struct Progress {
    /// Files, or objects when checking, that are done.
    pub files: AtomicU64,
    /// Files that there will be.
    pub files_total: AtomicU64,
    /// Bytes of plaintext that are done.
    pub bytes: AtomicU64,
    /// Bytes that there will be.
    pub bytes_total: AtomicU64,
    current: Mutex<Vec<u8>>,
}

impl Progress {
    /// Counts one finished file of `bytes` bytes.
    pub fn add_file(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes the path being worked on; skipped rather than waited for when another worker is noting one.
    pub fn at(&self, path: &[u8]) {
        if let Ok(mut current) = self.current.try_lock() {
            current.clear();
            current.extend_from_slice(path);
        }
    }

    /// A path that was being worked on a moment ago.
    #[must_use]
    pub fn current(&self) -> Vec<u8> {
        self.current.lock().map(|current| current.clone()).unwrap_or_default()
    }
}

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage began; its counters may be read until it is finished.
    Started(Stage, &'a Arc<Progress>),
    /// A stage ended.
    Finished(Stage),
    /// One file or object could not be processed and is missing from the result.
    Failure {
        /// The path or object, as bytes.
        path: &'a [u8],
        /// Why.
        error: &'a Error,
    },
    /// Something the user should know although nothing was lost.
    Warning(&'a str),
    /// A remark for `--verbose`.
    Note(&'a str),
}

/// Whoever watches the work: a terminal, a JSON stream, a test.
pub trait Observer: Send + Sync {
    /// Takes one event; must return soon.
    fn observe(&self, event: Event<'_>);

    /// True once the work should stop at the next safe point.
    fn interrupted(&self) -> bool {
        false
    }
}

/// An observer that sees nothing and never interrupts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: Event<'_>) {}
}

/// Fails with `Interrupted` once the observer asks for a stop.
///
/// # Errors
/// `Interrupted`.
pub fn stop_if_asked(observer: &dyn Observer) -> crate::error::Result<()> {
    if observer.interrupted() {
        return Err(Error::new(crate::error::ErrorKind::Interrupted, "stopped on request")
            .with_hint("run the same command again; what was stored already is not stored twice"));
    }
    Ok(())
}
