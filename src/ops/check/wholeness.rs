//! Whether any tree lacks something, found out by all threads at once. What is missing, and in which files, is for
//! [`super::trees`] to say: few repositories make it necessary.

use super::trees::{MAX_DEPTH, SeenLists, content_is_readable, readable};
use crate::error::{Error, Result};
use crate::event::{Observer, stop_if_asked};
use crate::id::{ChunkId, ChunkPrefix};
use crate::ops::seen::Seen;
use crate::repo::{Reader, Repository, Unreadable};
use rayon::Scope;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Directories that one task walks: enough to be worth a task, few enough that all threads have some.
const TASK: usize = 16;

struct Search<'a> {
    /// One for each thread.
    readers: Vec<Mutex<Reader>>,
    unreadable: &'a Unreadable,
    /// Directories that somebody walks, or has walked; beyond a limit some are walked again, which costs time and no memory.
    seen: Mutex<Seen<ChunkPrefix>>,
    lists: SeenLists,
    /// Something is missing, or the search cannot go on: nobody needs to look further.
    ended: AtomicBool,
    failure: Mutex<Option<Error>>,
    observer: &'a dyn Observer,
}

/// True if everything below the directories `roots` can be read.
///
/// # Errors
/// Only what keeps the search from going on.
pub(super) fn all_is_there(
    repository: &Repository,
    roots: Vec<ChunkId>,
    unreadable: &Unreadable,
    threads: usize,
    observer: &dyn Observer,
) -> Result<bool> {
    let readers = (0..threads).map(|_| repository.reader().map(Mutex::new)).collect::<Result<_>>()?;
    let (seen, ended, failure) = (Mutex::default(), AtomicBool::new(false), Mutex::new(None));
    let search = Search { readers, unreadable, seen, lists: Mutex::default(), ended, failure, observer };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|number| format!("check-{number}"));
    let pool = pool.build().map_err(|error| Error::failed(format!("start {threads} threads: {error}")))?;
    pool.scope(|scope| search.spawn(roots, 0, scope));
    match lock(&search.failure).take() {
        Some(error) => Err(error),
        None => Ok(!search.ended.load(Ordering::Relaxed)),
    }
}

impl Search<'_> {
    fn spawn<'scope>(&'scope self, mut directories: Vec<ChunkId>, depth: usize, scope: &Scope<'scope>) {
        while !directories.is_empty() {
            let task = directories.split_off(directories.len().saturating_sub(TASK));
            scope.spawn(move |scope| {
                for directory in &task {
                    match self.walk(directory, depth, scope) {
                        Ok(true) => {}
                        Ok(false) => self.ended.store(true, Ordering::Relaxed),
                        Err(error) => {
                            lock(&self.failure).get_or_insert(error);
                            self.ended.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    }

    /// Looks at one directory, and has those in it looked at; false if something in it is missing.
    fn walk<'scope>(&'scope self, directory: &ChunkId, depth: usize, scope: &Scope<'scope>) -> Result<bool> {
        stop_if_asked(self.observer)?;
        if self.ended.load(Ordering::Relaxed) || !self.is_new(directory) {
            return Ok(true);
        }
        if depth >= MAX_DEPTH {
            return Ok(false);
        }
        let number = rayon::current_thread_index().expect("tasks run in the pool");
        let reader = lock(&self.readers[number]);
        let Some(nodes) = readable(reader.nodes(directory))? else { return Ok(false) };
        // Somebody may name one directory as often as there is room for names.
        let (mut below, mut named) = (Vec::new(), Seen::default());
        for node in nodes {
            let Some(node) = readable(node)? else { return Ok(false) };
            match &node.subtree {
                Some(subtree) => below.extend(named.add(subtree.prefix()).then_some(*subtree)),
                None if content_is_readable(&reader, &node, self.unreadable, &self.lists)? => {}
                None => return Ok(false),
            }
        }
        drop(named);
        self.spawn(below, depth + 1, scope);
        Ok(true)
    }

    fn is_new(&self, directory: &ChunkId) -> bool {
        let mut seen = lock(&self.seen);
        !seen.has(&directory.prefix()) && seen.add(directory.prefix())
    }
}

/// What a thread that panicked held is whole all the same: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
