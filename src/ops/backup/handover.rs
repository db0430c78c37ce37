//! How a checkpoint gets what workers hold: each hands it over between two files, or two pieces of a large one.
//!
//! A worker holds its own lock for as long as it finds work, which on a slow line may be as long as the backup takes. Whoever waits
//! for that lock writes no checkpoint before the end.

use super::run::{Run, Worker};
use crate::error::{Error, Result};
use crate::format::snapshot::Counts;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, TryLockError};
use std::time::Duration;

/// After this time it is seen whether a worker has come to rest instead.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a checkpoint wants of one worker.
#[derive(Default)]
pub(super) struct Handover {
    wanted: AtomicBool,
    done: Mutex<Option<Counts>>,
    changed: Condvar,
}

impl Run<'_> {
    /// Hands over what the calling thread's worker holds, if a checkpoint wants it.
    pub(super) fn hand_over(&self, worker: &mut Worker) {
        let number = rayon::current_thread_index().expect("walks run in the pool");
        let handover = &self.handovers[number];
        if !handover.wanted.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = worker.writer.flush() {
            self.give_up(error);
        }
        let mut done = handover.done.lock().expect("no code panics while it holds this lock");
        *done = Some(worker.counts);
        handover.wanted.store(false, Ordering::Relaxed);
        handover.changed.notify_all();
    }

    /// Lets every worker hand over what it holds; returns what they have counted.
    pub(super) fn gather(&self) -> Result<Counts> {
        for handover in &self.handovers {
            *handover.done.lock().expect("no code panics while it holds this lock") = None;
            handover.wanted.store(true, Ordering::Relaxed);
        }
        let mut counts = Counts::default();
        for (number, handover) in self.handovers.iter().enumerate() {
            counts.add(&self.gather_from(number, handover)?);
        }
        Ok(counts)
    }

    fn gather_from(&self, number: usize, handover: &Handover) -> Result<Counts> {
        loop {
            let done = handover.done.lock().expect("no code panics while it holds this lock");
            if let Some(counts) = *done {
                return Ok(counts);
            }
            drop(done);
            match self.workers[number].try_lock() {
                // It has nothing to do just now.
                Ok(mut worker) => {
                    handover.wanted.store(false, Ordering::Relaxed);
                    worker.writer.flush()?;
                    return Ok(worker.counts);
                }
                // What a worker had that panicked is nowhere.
                Err(TryLockError::Poisoned(_)) => return Err(Error::panicked("back up files")),
                Err(TryLockError::WouldBlock) => {}
            }
            let done = handover.done.lock().expect("no code panics while it holds this lock");
            let waited = handover.changed.wait_timeout_while(done, LOOK_AGAIN, |done| done.is_none());
            drop(waited.expect("no code panics while it holds this lock"));
        }
    }
}
