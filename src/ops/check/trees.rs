//! Verifying that everything that a snapshot names can be read.

use super::{DamagedSnapshot, wholeness};
use crate::error::{ErrorKind, Result};
use crate::event::{Observer, stop_if_asked};
use crate::format::tree::{ChunkRef, Content, Node, NodeKind};
use crate::id::{ChunkId, ChunkPrefix};
use crate::ops::gathered::Gathered;
use crate::ops::seen::Seen;
use crate::repo::{Nodes, Reader, Repository, SnapshotEntry, Unreadable};
use std::sync::Mutex;

/// Length of a path, and number of directories within each other, beyond which a tree is taken to be hostile.
const MAX_PATH: usize = 1 << 20;
pub(super) const MAX_DEPTH: usize = 16_384;
/// Paths that are named for each snapshot, and bytes of them: somebody may have made each as long as can be.
const NAMED: usize = 100;
const NAMED_BYTES: usize = 256 << 10;

/// Pages of lists below which nothing is missing, with their levels and lengths. They may stand in many places.
pub(super) type SeenLists = Mutex<Seen<(ChunkPrefix, u8, u64)>>;

/// What was found of the trees of all snapshots.
pub(super) struct TreesFound {
    pub(super) snapshots: u64,
    pub(super) damaged: Gathered<DamagedSnapshot>,
    /// Something could not be read, and then it could.
    pub(super) second_try: bool,
}

struct Trees<'a> {
    reader: &'a Reader,
    unreadable: &'a Unreadable,
    /// Directories below which nothing is missing.
    whole: Seen<ChunkPrefix>,
    /// Directories of this snapshot below which something is: what it is was told where they were met first.
    damaged: Seen<ChunkPrefix>,
    lists: SeenLists,
    observer: &'a dyn Observer,
}

/// A directory that the walk is in.
struct Level<'a> {
    nodes: Nodes<'a>,
    root: ChunkPrefix,
    /// Length of its path.
    length: usize,
    whole: bool,
}

pub(super) fn check(
    repository: &Repository,
    unreadable: &Unreadable,
    threads: usize,
    observer: &dyn Observer,
) -> Result<TreesFound> {
    let snapshots = repository.snapshots()?;
    let mut found = TreesFound { snapshots: snapshots.len() as u64, damaged: Gathered::default(), second_try: false };
    let roots = snapshots.iter().map(|entry| entry.snapshot.root).collect();
    let whole = wholeness::all_is_there(repository, roots, unreadable, threads, observer)?;
    if !whole {
        name_missing(repository, unreadable, snapshots, &mut found.damaged, observer)?;
        found.second_try = found.damaged.is_empty();
    }
    // What was rescued on the way is a finding of its pack already.
    repository.take_rescued();
    Ok(found)
}

/// Walks every tree again, in order, and says what is missing.
fn name_missing(
    repository: &Repository,
    unreadable: &Unreadable,
    snapshots: Vec<SnapshotEntry>,
    found: &mut Gathered<DamagedSnapshot>,
    observer: &dyn Observer,
) -> Result<()> {
    let reader = repository.reader()?;
    let (whole, damaged, lists) = (Seen::default(), Seen::default(), Mutex::default());
    let mut trees = Trees { reader: &reader, unreadable, whole, damaged, lists, observer };
    for entry in snapshots {
        let mut damaged = DamagedSnapshot { id: entry.id, count: 0, paths: Vec::new() };
        trees.damaged = Seen::default();
        trees.walk(&entry.snapshot.root, &mut damaged)?;
        if damaged.count > 0 {
            found.push(&damaged)?;
        }
    }
    Ok(())
}

impl<'a> Trees<'a> {
    fn walk(&mut self, root: &ChunkId, damaged: &mut DamagedSnapshot) -> Result<()> {
        let mut path = Vec::new();
        let mut levels = Vec::new();
        self.enter(root, &path, &mut levels, damaged)?;
        while let Some(level) = levels.last_mut() {
            path.truncate(level.length);
            match level.nodes.next().map(readable) {
                None => {
                    let level = levels.pop().expect("it was looked at just now");
                    if let Some(above) = levels.last_mut() {
                        above.whole &= level.whole;
                    }
                    if level.whole {
                        self.whole.add(level.root)
                    } else {
                        self.damaged.add(level.root)
                    };
                }
                Some(node) => {
                    let above = levels.len() - 1;
                    levels[above].whole &= match node? {
                        None => miss(&path, damaged),
                        Some(node) => {
                            join(&mut path, &node.name);
                            match &node.subtree {
                                Some(subtree) => self.enter(subtree, &path, &mut levels, damaged)?,
                                None => {
                                    let found = content_is_readable(self.reader, &node, self.unreadable, &self.lists)?;
                                    found || miss(&path, damaged)
                                }
                            }
                        }
                    };
                }
            }
        }
        Ok(())
    }

    /// Goes into a directory, unless it is known to be whole; false if it cannot be opened.
    fn enter(&mut self, root: &ChunkId, path: &[u8], levels: &mut Vec<Level<'a>>, damaged: &mut DamagedSnapshot) -> Result<bool> {
        stop_if_asked(self.observer)?;
        if self.whole.has(&root.prefix()) {
            return Ok(true);
        }
        if self.damaged.has(&root.prefix()) {
            return Ok(miss(path, damaged));
        }
        let too_deep = path.len() >= MAX_PATH || levels.len() >= MAX_DEPTH;
        let opened = if too_deep { None } else { readable(self.reader.nodes(root))? };
        let Some(nodes) = opened else { return Ok(miss(path, damaged)) };
        levels.push(Level { nodes, root: root.prefix(), length: path.len(), whole: true });
        Ok(true)
    }
}

/// True if all chunks of what the node holds are somewhere.
pub(super) fn content_is_readable(reader: &Reader, node: &Node, unreadable: &Unreadable, lists: &SeenLists) -> Result<bool> {
    match &node.content {
        _ if node.kind != NodeKind::File => Ok(true),
        Content::Chunks(chunks) => are_readable(reader, chunks, unreadable),
        Content::List { depth, root } => list_is_readable(reader, (*depth, root), unreadable, lists),
    }
}

fn are_readable(reader: &Reader, chunks: &[ChunkRef], unreadable: &Unreadable) -> Result<bool> {
    for chunk in chunks {
        if !reader.is_readable(chunk, unreadable)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list_is_readable(
    reader: &Reader,
    (depth, reference): (u8, &ChunkRef),
    unreadable: &Unreadable,
    lists: &SeenLists,
) -> Result<bool> {
    let known = (reference.id.prefix(), depth, reference.len);
    let seen = || lists.lock().expect("no code panics while it holds this lock");
    if seen().has(&known) {
        return Ok(true);
    }
    let Some(page) = readable(reader.list_page(depth, reference))? else { return Ok(false) };
    match depth.checked_sub(1) {
        None if !are_readable(reader, &page.refs, unreadable)? => return Ok(false),
        None => {}
        Some(below) => {
            for reference in &page.refs {
                if !list_is_readable(reader, (below, reference), unreadable, lists)? {
                    return Ok(false);
                }
            }
        }
    }
    seen().add(known);
    Ok(true)
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Counts a file or directory as damaged; always false.
fn miss(path: &[u8], damaged: &mut DamagedSnapshot) -> bool {
    damaged.count += 1;
    let named: usize = damaged.paths.iter().map(Vec::len).sum();
    if damaged.paths.len() < NAMED && named < NAMED_BYTES {
        damaged.paths.push(if path.is_empty() { b"/".to_vec() } else { path.to_vec() });
    }
    false
}

/// Tells what is a finding from what keeps the check from going on.
pub(super) fn readable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing | ErrorKind::Failed) => Ok(None),
        Err(error) => Err(error),
    }
}
