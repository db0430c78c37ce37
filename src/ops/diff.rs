//! `diff`: what differs between two snapshots, or a snapshot and a directory.

use super::again::HandedOut;
use crate::error::{Error, Result};
use crate::event::{Observer, stop_if_asked};
use crate::format::tree::{Node, NodeKind};
use crate::id::ChunkId;
use crate::ops::walk::{MAX_DEPTH, MAX_PATH};
use crate::repo::{Nodes, Reader, Repository};
use crate::source::files::{Directory, Owners, ReadOptions, differences};
use std::path::PathBuf;

/// One side of a comparison.
#[derive(Debug, Clone)]
pub enum Side {
    /// A directory of a snapshot, by its root page, and how many entries the snapshot's tree has at most.
    Snapshot(ChunkId, u64),
    /// A directory as it is now.
    Live(PathBuf),
}

/// How an entry differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the second side has it.
    Added,
    /// Only the first side has it.
    Removed,
    /// Both have it, and these fields differ; `content` among them.
    Changed(Vec<&'static str>),
}

/// What was compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffReport {
    /// Entries of the second side only.
    pub added: u64,
    /// Entries of the first side only.
    pub removed: u64,
    /// Entries that differ.
    pub changed: u64,
}

/// The entries of one directory, from either side, ascending by name.
enum Entries<'a> {
    Stored(Nodes<'a>),
    Live(Box<Live>),
    None,
}

struct Live {
    directory: Directory,
    names: crate::source::files::Names,
    next: usize,
    owners: Owners,
}

impl Entries<'_> {
    fn next(&mut self) -> Result<Option<(Node, Option<Directory>)>> {
        match self {
            Self::None => Ok(None),
            Self::Stored(nodes) => nodes.next().transpose().map(|node| node.map(|node| (node, None))),
            Self::Live(live) => {
                if live.next >= live.names.len() {
                    return Ok(None);
                }
                let name = live.names.get(live.next).to_vec();
                live.next += 1;
                let stat = live.directory.stat(&name)?;
                let (mut node, _) = live.directory.node(&name, &stat, &mut live.owners, &ReadOptions::default())?;
                node.size = if stat.kind == NodeKind::File { stat.size } else { 0 };
                let inner = match stat.kind {
                    NodeKind::Directory => Some(live.directory.open_child(&name)?),
                    _ => None,
                };
                Ok(Some((node, inner)))
            }
        }
    }
}

struct Differ<'a> {
    reader: &'a Reader,
    observer: &'a dyn Observer,
    each: &'a mut dyn FnMut(&[u8], &Change) -> Result<()>,
    report: DiffReport,
    live: bool,
    /// Directories that it is in.
    depth: usize,
}

/// Calls `each` with every path that differs and how. Contents of a directory that is there now are judged by size and
/// modification time; those of snapshots by their chunks.
///
/// # Errors
/// `Missing`, `Damaged`, `Interrupted`, or what `each` returns.
pub fn diff(
    repository: &Repository,
    sides: (&Side, &Side),
    observer: &dyn Observer,
    each: &mut dyn FnMut(&[u8], &Change) -> Result<()>,
) -> Result<DiffReport> {
    let mut handed = HandedOut::default();
    let work = || {
        handed.begin();
        if handed.count() > 0 && matches!(sides, (Side::Live(_), _) | (_, Side::Live(_))) {
            // What is there now may be something else already.
            return Err(
                Error::failed("compare: what was being read is somewhere else now").with_hint("run the same command again")
            );
        }
        let mut each = |path: &[u8], change: &Change| if handed.is_new() { each(path, change) } else { Ok(()) };
        compare(repository, sides, observer, &mut each)
    };
    repository.reading(observer, &[], |_| true, work)
}

fn compare(
    repository: &Repository,
    sides: (&Side, &Side),
    observer: &dyn Observer,
    each: &mut dyn FnMut(&[u8], &Change) -> Result<()>,
) -> Result<DiffReport> {
    let reader = repository.reader()?;
    let most = [sides.0, sides.1].map(|side| if let Side::Snapshot(_, entries) = side { *entries } else { 0 });
    reader.limit_entries(most[0].saturating_add(most[1]));
    let live = matches!(sides.0, Side::Live(_)) || matches!(sides.1, Side::Live(_));
    let mut differ = Differ { reader: &reader, observer, each, report: DiffReport::default(), live, depth: 0 };
    let (first, second) = (entries(&reader, sides.0)?, entries(&reader, sides.1)?);
    differ.directory(first, second, &mut Vec::new())?;
    Ok(differ.report)
}

fn entries<'a>(reader: &'a Reader, side: &Side) -> Result<Entries<'a>> {
    match side {
        Side::Snapshot(root, _) => reader.nodes(root).map(Entries::Stored),
        Side::Live(path) => live(Directory::open_root(path)?),
    }
}

fn live(directory: Directory) -> Result<Entries<'static>> {
    let names = directory.names()?;
    Ok(Entries::Live(Box::new(Live { directory, names, next: 0, owners: Owners::new() })))
}

type Item = Option<(Node, Option<Directory>)>;

impl<'a> Differ<'a> {
    fn directory(&mut self, mut first: Entries<'a>, mut second: Entries<'a>, path: &mut Vec<u8>) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH || path.len() >= MAX_PATH {
            let message = format!("compare the directory {}: it is nested too deeply", String::from_utf8_lossy(path));
            return Err(Error::damaged(message));
        }
        let (mut a, mut b) = (first.next()?, second.next()?);
        loop {
            stop_if_asked(self.observer)?;
            let order = match (&a, &b) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.name.cmp(&b.name),
            };
            let left = if order.is_le() { a.take() } else { None };
            let right = if order.is_ge() { b.take() } else { None };
            // The next ones are not held while this one is gone through.
            self.pair(left, right, path)?;
            if order.is_le() {
                a = first.next()?;
            }
            if order.is_ge() {
                b = second.next()?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn pair(&mut self, left: Item, right: Item, path: &mut Vec<u8>) -> Result<()> {
        let Some(name) = left.as_ref().or(right.as_ref()).map(|(node, _)| node.name.clone()) else { return Ok(()) };
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        match (&left, &right) {
            (Some((a, _)), Some((b, _))) => {
                let fields = self.fields(a, b);
                if !fields.is_empty() {
                    self.report.changed += 1;
                    (self.each)(path, &Change::Changed(fields))?;
                }
            }
            (Some(_), None) => {
                self.report.removed += 1;
                (self.each)(path, &Change::Removed)?;
            }
            _ => {
                self.report.added += 1;
                (self.each)(path, &Change::Added)?;
            }
        }
        // Directories with the same pages are the same, however much is below them.
        let page = |item: &Item| item.as_ref().and_then(|(node, _)| node.subtree);
        if page(&left).is_none() || page(&left) != page(&right) {
            let (first, second) = (self.below(left)?, self.below(right)?);
            if !matches!((&first, &second), (Entries::None, Entries::None)) {
                self.directory(first, second, path)?;
            }
        }
        path.truncate(length);
        Ok(())
    }

    fn below(&self, item: Item) -> Result<Entries<'a>> {
        match item {
            Some((_, Some(directory))) => live(directory),
            Some((Node { subtree: Some(root), .. }, None)) => self.reader.nodes(&root).map(Entries::Stored),
            _ => Ok(Entries::None),
        }
    }

    fn fields(&self, a: &Node, b: &Node) -> Vec<&'static str> {
        let mut fields = differences(a, b);
        let both_files = a.kind == NodeKind::File && b.kind == NodeKind::File;
        let differs = if self.live { a.size != b.size || a.mtime != b.mtime } else { a.content != b.content };
        if both_files && differs && !fields.contains(&"content") {
            fields.push("content");
        }
        fields
    }
}
