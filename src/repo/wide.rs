//! Several requests at once: what keeps the line to a store elsewhere full.

use crate::error::{ErrorKind, Result};
use crate::repo::Repository;
use crate::repo::surroundings::Lane;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

impl Repository {
    /// Requests that are worth having under way at once; 1 for a directory.
    #[must_use]
    pub fn width(&self) -> usize {
        self.store().width()
    }

    /// Says that the repository was opened for what is done next, so that a prune begins with the logs as they were read then. It
    /// reads all of them anew before it deletes anything.
    pub fn begin_as_opened(&self) {
        self.inner.just_opened.store(true, Ordering::Relaxed);
    }

    /// What the store does not keep of what a repository may rely on, in words; asked for by writing to it.
    ///
    /// # Errors
    /// `Refused` if these credentials may not write, or the store can hold no repository; `Failed`.
    pub fn probe_store(&self) -> Result<Vec<&'static str>> {
        Ok(self.store().probe()?.map(|promises| promises.lacks()).unwrap_or_default())
    }

    /// What keeps several clients from working at once on this store, in words; empty if nothing does. It is asked for by
    /// writing to the store where nobody on this machine has yet; `None` if these credentials may not do that.
    ///
    /// # Errors
    /// `Refused` if the store can hold no repository; `Failed`.
    pub fn keeps_from_sharing(&self) -> Result<Option<Vec<&'static str>>> {
        let store = self.store();
        let promises = match store.promises() {
            None => match store.probe() {
                Err(error) if error.kind() == ErrorKind::Refused && store.promises().is_none() => return Ok(None),
                asked => asked?,
            },
            known => known,
        };
        Ok(Some(promises.filter(|promises| !promises.many_writers()).map(|promises| promises.lacks()).unwrap_or_default()))
    }

    /// Worker threads for work that waits for the store: as many as asked for, else one for each processor, and more if the
    /// store is far away.
    #[must_use]
    pub fn workers(&self, asked: usize) -> usize {
        match asked {
            0 => std::thread::available_parallelism().map_or(4, std::num::NonZero::get).max(self.width()),
            asked => asked,
        }
    }

    /// Calls `ask` for each item, as many at once as the store likes; the answers are in the order of the items.
    pub(super) fn side_by_side<T: Sync, R: Send + Sync>(&self, items: &[T], ask: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let threads = self.width().min(items.len());
        if threads <= 1 {
            return items.iter().map(ask).collect();
        }
        let answers: Vec<OnceLock<R>> = items.iter().map(|_| OnceLock::new()).collect();
        let all = |answers: Vec<OnceLock<R>>| -> Vec<R> {
            answers.into_iter().map(|answer| answer.into_inner().expect("every item was asked for")).collect()
        };
        if let Some(side_by_side) = self.keys().surroundings.side_by_side() {
            let mut lanes: Vec<Lane<'_>> = Vec::new();
            for (item, answer) in items.iter().zip(&answers) {
                let ask = &ask;
                lanes.push(Box::new(move || drop(answer.set(ask(item)))));
            }
            side_by_side(&mut lanes);
            drop(lanes);
            return all(answers);
        }
        let next = AtomicUsize::new(0);
        let panicked = Mutex::new(None);
        std::thread::scope(|scope| {
            let work = || {
                while let Some((item, answer)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((items.get(at)?, &answers[at])))
                {
                    let _ = answer.set(ask(item));
                }
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                if let Err(panic) = thread.join() {
                    *panicked.lock().expect("no code panics while it holds this lock") = Some(panic);
                }
            }
        });
        if let Some(panic) = panicked.into_inner().expect("no code panics while it holds this lock") {
            std::panic::resume_unwind(panic);
        }
        all(answers)
    }

    /// The same for what may have to be mended from parity. Of that only one thing is done at a time, and a simulation lets
    /// nobody wait for anything but the store, so there they come one after the other.
    pub(super) fn side_by_side_or_mended<T: Sync, R: Send + Sync>(&self, items: &[T], ask: impl Fn(&T) -> R + Sync) -> Vec<R> {
        match self.keys().surroundings.is_simulated() {
            true => items.iter().map(ask).collect(),
            false => self.side_by_side(items, ask),
        }
    }
}
