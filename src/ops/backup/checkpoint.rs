//! Checkpoints of a backup that goes on for long: what is finished so far, as a snapshot that is marked incomplete.
//!
//! A thread of its own looks now and then. It builds the tree of what every open directory has so far, lets every worker
//! seal what it holds as soon as it is between two files, waits until all of that is durable, and appends a claim. The walk
//! goes on meanwhile; a worker is held up only while it hands its open blocks over.

use super::directory::Dir;
use super::pages::PageBuilder;
use super::run::Run;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Node, encode_node};
use crate::id::ChunkId;
use crate::ops::on_panic::OnPanic;
use crate::repo::ChunkWriter;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// When a backup writes a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointOptions {
    /// After this time, if anything was stored since the last one.
    pub every: Duration,
    /// After so many stored bytes.
    pub bytes: u64,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self { every: Duration::from_mins(10), bytes: 10 << 30 }
    }
}

/// Tells the thread that the walk has ended.
#[derive(Default)]
struct Ending {
    ended: Mutex<bool>,
    changed: Condvar,
}

/// Tells it when it is dropped: also of a walk that panics.
struct Walking<'a>(&'a Ending);

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        *self.0.ended.lock().expect("no code panics while it holds this lock") = true;
        self.0.changed.notify_all();
    }
}

impl Ending {
    /// Waits; true once the walk has ended.
    fn wait(&self, time: Duration) -> bool {
        let ended = self.ended.lock().expect("no code panics while it holds this lock");
        let waited = self.changed.wait_timeout_while(ended, time, |ended| !*ended);
        *waited.expect("no code panics while it holds this lock").0
    }
}

/// Walks, and writes checkpoints meanwhile if it should.
pub(super) fn alongside<T>(
    run: &Run<'_>,
    options: Option<CheckpointOptions>,
    snapshot: &Snapshot,
    walk: impl FnOnce() -> T,
) -> T {
    let ending = Ending::default();
    std::thread::scope(|scope| {
        if let Some(options) = options {
            let ending = &ending;
            scope.spawn(move || keep(run, options, snapshot, ending));
        }
        let _walking = Walking(&ending);
        walk()
    })
}

/// Writes checkpoints until the walk has ended. One that fails is a warning: what matters is the end.
fn keep(run: &Run<'_>, options: CheckpointOptions, snapshot: &Snapshot, ending: &Ending) {
    let _end = OnPanic(|| run.give_up(Error::panicked("write a checkpoint")));
    let pause = (options.every / 4).clamp(Duration::from_millis(1), Duration::from_secs(1));
    let mut last = (Instant::now(), 0);
    while !ending.wait(pause) {
        let stored = run.session.counts().bytes_stored;
        let due = (last.0.elapsed() >= options.every && stored > last.1) || stored >= last.1.saturating_add(options.bytes);
        if !due || run.stopped() {
            continue;
        }
        if let Err(error) = write(run, snapshot.clone()) {
            run.observer.observe(Event::Warning(&format!("write a checkpoint: {error}")));
        }
        last = (Instant::now(), stored);
    }
}

fn write(run: &Run<'_>, mut snapshot: Snapshot) -> Result<()> {
    let mut writer = run.session.writer()?;
    let Some(root) = tree(run, &mut writer)? else { return Ok(()) };
    snapshot.counts = run.gather()?;
    snapshot.root = root;
    snapshot.incomplete = true;
    // The retention is that of the finished backup; what stands in for it goes as soon as there is one.
    snapshot.retain_until = None;
    snapshot.end = run.session.now();
    if run.session.claim(writer, &snapshot)? {
        run.observer.observe(Event::Note("checkpoint: what is done so far can be restored"));
    }
    Ok(())
}

/// The tree of what is finished; nothing if the walk has just begun or ended.
fn tree(run: &Run<'_>, writer: &mut ChunkWriter) -> Result<Option<ChunkId>> {
    let mut open: Vec<Arc<Dir>> = run.open_directories();
    // The deepest first, so that each is there when the one above it is built.
    open.sort_by_cached_key(|dir| std::cmp::Reverse(dir.depth()));
    let mut built: HashMap<(*const Dir, usize), Node> = HashMap::new();
    for dir in open {
        let part = |position: usize| built.get(&(Arc::as_ptr(&dir), position));
        let Some((mut node, root)) = dir.so_far(&part, writer)? else { continue };
        match &dir.parent {
            None => return Ok(Some(root)),
            Some((parent, position)) => {
                node.subtree = Some(root);
                built.insert((Arc::as_ptr(parent), *position), node);
            }
        }
    }
    Ok(None)
}

/// Adds a node to the pages of its directory.
pub(super) fn push_node(pages: &mut PageBuilder, node: &Node, writer: &mut ChunkWriter) -> Result<()> {
    let mut encoded = Vec::new();
    encode_node(node, &mut encoded);
    pages.push(&node.name, &encoded, writer)
}
