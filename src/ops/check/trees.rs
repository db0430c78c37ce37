//! Verifying that everything that a snapshot names can be read.

use super::{CheckReport, DamagedSnapshot, Finding, wholeness};
use crate::error::{ErrorKind, Result};
use crate::event::{Observer, stop_if_asked};
use crate::format::tree::{Node, NodeKind};
use crate::id::{ChunkId, ChunkPrefix};
use crate::repo::{Nodes, Reader, Repository, SnapshotEntry, Unreadable};
use std::collections::HashSet;

/// Length of a path, and number of directories within each other, beyond which a tree is taken to be hostile.
const MAX_PATH: usize = 1 << 20;
pub(super) const MAX_DEPTH: usize = 16_384;
/// Directories that are remembered as whole; beyond that some are looked at again, which costs time and no memory.
pub(super) const REMEMBERED: usize = 500_000;
/// Paths that are named for each snapshot.
const NAMED: usize = 100;

struct Trees<'a> {
    reader: &'a Reader,
    unreadable: Unreadable,
    /// Directories below which nothing is missing.
    whole: HashSet<ChunkPrefix>,
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
    unreadable: Unreadable,
    threads: usize,
    report: &mut CheckReport,
    observer: &dyn Observer,
) -> Result<()> {
    let snapshots = repository.snapshots()?;
    report.snapshots = snapshots.len() as u64;
    let roots = snapshots.iter().map(|entry| entry.snapshot.root).collect();
    let whole = wholeness::all_is_there(repository, roots, &unreadable, threads, observer)?;
    if !whole {
        name_missing(repository, unreadable, snapshots, report, observer)?;
    }
    // What was rescued on the way is a finding of its pack already.
    repository.take_rescued();
    Ok(())
}

/// Walks every tree again, in order, and says what is missing.
fn name_missing(
    repository: &Repository,
    unreadable: Unreadable,
    snapshots: Vec<SnapshotEntry>,
    report: &mut CheckReport,
    observer: &dyn Observer,
) -> Result<()> {
    let reader = repository.reader()?;
    let mut trees = Trees { reader: &reader, unreadable, whole: HashSet::new(), observer };
    for entry in snapshots {
        let mut damaged = DamagedSnapshot { id: entry.id, count: 0, paths: Vec::new() };
        trees.walk(&entry.snapshot.root, &mut damaged)?;
        if damaged.count > 0 {
            report.findings.push(Finding::of_snapshot(&damaged));
            report.damaged.push(damaged);
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
                    if level.whole && self.whole.len() < REMEMBERED {
                        self.whole.insert(level.root);
                    }
                }
                Some(node) => {
                    let above = levels.len() - 1;
                    levels[above].whole &= match node? {
                        None => miss(&path, damaged),
                        Some(node) => {
                            join(&mut path, &node.name);
                            match &node.subtree {
                                Some(subtree) => self.enter(subtree, &path, &mut levels, damaged)?,
                                None => content_is_readable(self.reader, &node, &self.unreadable)? || miss(&path, damaged),
                            }
                        }
                    };
                }
            }
        }
        Ok(())
    }

    /// Goes into a directory, unless it is known to be whole; false if it cannot be opened.
    fn enter(&self, root: &ChunkId, path: &[u8], levels: &mut Vec<Level<'a>>, damaged: &mut DamagedSnapshot) -> Result<bool> {
        stop_if_asked(self.observer)?;
        if self.whole.contains(&root.prefix()) {
            return Ok(true);
        }
        let too_deep = path.len() >= MAX_PATH || levels.len() >= MAX_DEPTH;
        let opened = if too_deep { None } else { readable(self.reader.nodes(root))? };
        let Some(nodes) = opened else { return Ok(miss(path, damaged)) };
        levels.push(Level { nodes, root: root.prefix(), length: path.len(), whole: true });
        Ok(true)
    }
}

/// True if all chunks of what the node holds are somewhere.
pub(super) fn content_is_readable(reader: &Reader, node: &Node, unreadable: &Unreadable) -> Result<bool> {
    if node.kind != NodeKind::File {
        return Ok(true);
    }
    let Some(contents) = readable(reader.contents(&node.content))? else { return Ok(false) };
    for reference in contents {
        let Some(reference) = readable(reference)? else { return Ok(false) };
        if !reader.is_readable(&reference.id, unreadable)? {
            return Ok(false);
        }
    }
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
    if damaged.paths.len() < NAMED {
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
