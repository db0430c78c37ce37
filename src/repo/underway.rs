//! Objects that are complete and on their way to a store, several at once where an answer takes long.

use crate::error::{Error, Result};
use crate::repo::surroundings::Surroundings;
use crate::store::AnyStore;
use std::collections::VecDeque;
use std::thread::JoinHandle;

/// Objects on their way to a store that is far away.
const UPLOADS: usize = 6;

/// Uploads that were begun, with what each comes to. Whatever they hold is bounded by their number: who begins one too
/// many waits for the oldest.
pub(super) struct Underway<T> {
    most: usize,
    begun: VecDeque<JoinHandle<Result<T>>>,
}

impl<T: Send + 'static> Underway<T> {
    /// None yet. To a store that answers at once, and in a simulation, they go one after the other.
    pub(super) fn to(store: &AnyStore, surroundings: &Surroundings) -> Self {
        let most = if store.width() > 1 && !surroundings.is_simulated() { UPLOADS } else { 0 };
        Self { most, begun: VecDeque::new() }
    }

    /// Begins `upload`, after it has waited until there is room. `done` gets what came to its end meanwhile, in the order in
    /// which it was begun.
    pub(super) fn begin(
        &mut self,
        upload: impl FnOnce() -> Result<T> + Send + 'static,
        done: &mut dyn FnMut(T) -> Result<()>,
    ) -> Result<()> {
        if self.most == 0 {
            return done(upload()?);
        }
        self.settle(self.most - 1, done)?;
        let spawned = std::thread::Builder::new().name("upload".into()).spawn(upload);
        self.begun.push_back(spawned.map_err(|error| Error::io("start a thread for", "an upload", error))?);
        Ok(())
    }

    /// Waits for all of them.
    pub(super) fn finish(&mut self, done: &mut dyn FnMut(T) -> Result<()>) -> Result<()> {
        self.settle(0, done)
    }

    /// Waits for the oldest until no more than `most` are left. After a failure the others are waited for as well.
    fn settle(&mut self, most: usize, done: &mut dyn FnMut(T) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        while self.begun.len() > most || (result.is_err() && !self.begun.is_empty()) {
            let Some(upload) = self.begun.pop_front() else { break };
            let ended = upload.join().unwrap_or_else(|_| Err(Error::panicked("store an object")));
            result = result.and_then(|()| done(ended?));
        }
        result
    }
}

impl<T> Drop for Underway<T> {
    /// Nothing goes on behind the back of who gave up.
    fn drop(&mut self) {
        self.begun.drain(..).for_each(|upload| drop(upload.join()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn of(most: usize) -> Underway<usize> {
        Underway { most, begun: VecDeque::new() }
    }

    #[test]
    fn so_many_are_under_way_and_no_more_and_what_they_come_to_keeps_its_order() {
        for most in [0, 1, 3] {
            let (now, highest, mut ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Vec::new());
            let mut underway = of(most);
            let mut done = |number| {
                ended.push(number);
                Ok(())
            };
            for number in 0..20 {
                let (now, highest) = (now.clone(), highest.clone());
                let upload = move || {
                    highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(number)
                };
                underway.begin(upload, &mut done).unwrap();
            }
            underway.finish(&mut done).unwrap();
            assert_eq!(ended, (0..20).collect::<Vec<_>>());
            assert!(highest.load(Ordering::SeqCst) <= most.max(1));
        }
    }

    #[test]
    fn after_a_failure_the_others_are_waited_for_and_say_nothing() {
        let (ended, mut told) = (Arc::new(AtomicUsize::new(0)), Vec::new());
        let mut underway = of(8);
        for number in 0..6 {
            let ended = ended.clone();
            let upload = move || {
                ended.fetch_add(1, Ordering::SeqCst);
                if number == 2 { Err(Error::failed("store an object: the disk is on fire")) } else { Ok(number) }
            };
            underway.begin(upload, &mut |_| unreachable!("there is room for all")).unwrap();
        }
        let error = underway.finish(&mut |number| {
            told.push(number);
            Ok(())
        });
        assert!(error.unwrap_err().to_string().contains("on fire"));
        assert_eq!((told, ended.load(Ordering::SeqCst)), (vec![0, 1], 6));
    }
}
