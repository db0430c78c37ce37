//! The nodes of a directory, page by page, in bounded memory whatever somebody stored.

use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Node, Page, PageRef};
use crate::id::ChunkId;
use crate::repo::reader::Reader;
use std::cell::Cell;

/// Memory that the pages of all directories may take that a reader has open, one within the other. Those that are opened
/// beyond it hold nothing, and read their pages again for each entry.
const HELD: usize = 32 << 20;

/// What a reader allows the directories that it has open.
pub(super) struct Allowance {
    held: Cell<usize>,
    /// Entries that may still come.
    entries: Cell<u64>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { held: Cell::new(0), entries: Cell::new(u64::MAX) }
    }
}

impl Allowance {
    /// True if so much may be held; it is until it is released.
    fn hold(&self, bytes: usize) -> bool {
        let held = self.held.get().saturating_add(bytes);
        if held > HELD {
            return false;
        }
        self.held.set(held);
        true
    }

    fn release(&self, bytes: usize) {
        self.held.set(self.held.get().saturating_sub(bytes));
    }

    pub(super) fn limit(&self, entries: u64) {
        self.entries.set(entries);
    }

    fn take_entry(&self) -> bool {
        let left = self.entries.get();
        self.entries.set(left.saturating_sub(1));
        left > 0
    }
}

/// The nodes of one directory in ascending order of their names, one page in memory at a time. A page that is lost is an
/// error in its place, and the nodes of the other pages follow.
pub struct Nodes<'a> {
    reader: &'a Reader,
    root: ChunkId,
    /// The levels above the leaf: depth of the pages, those that follow, and what they take of memory.
    levels: Vec<(u8, std::vec::IntoIter<PageRef>, usize)>,
    leaf: std::vec::IntoIter<Node>,
    /// What the leaf takes of memory.
    held: usize,
    /// Nothing is held, and each entry is looked for anew.
    sparing: bool,
    last: Option<Vec<u8>>,
    failed: bool,
}

/// Fails unless a page below another one is what the reference says, so that no page is met twice, and whoever wrote it
/// cannot keep a reader busy forever. `above` is the depth of the page above, and what it says of the first name.
fn check_page(id: &ChunkId, page: &Page, above: Option<(u8, &[u8])>) -> Result<()> {
    let Some((depth, first)) = above else { return Ok(()) };
    let fits = match page {
        Page::Leaf(nodes) => depth == 1 && nodes.first().is_some_and(|node| node.name == first),
        Page::Inner { depth: here, pages } => depth == here + 1 && pages.first().is_some_and(|page| page.first == first),
    };
    if fits {
        return Ok(());
    }
    Err(Error::damaged(format!("read the directory page {id}: it is not what the page above it says")))
}

fn footprint(page: &Page) -> usize {
    match page {
        Page::Leaf(nodes) => nodes.iter().map(Node::footprint).sum(),
        Page::Inner { pages, .. } => pages.iter().map(|page| size_of::<PageRef>() + page.first.len()).sum(),
    }
}

impl<'a> Nodes<'a> {
    pub(super) fn new(reader: &'a Reader, root: &ChunkId) -> Result<Self> {
        let leaf = Vec::new().into_iter();
        let (levels, last) = (Vec::new(), None);
        let mut nodes = Self { reader, root: *root, levels, leaf, held: 0, sparing: false, last, failed: false };
        nodes.open(root, None)?;
        Ok(nodes)
    }

    /// Opens a page.
    fn open(&mut self, id: &ChunkId, first: Option<&[u8]>) -> Result<()> {
        let page = self.reader.page(id)?;
        check_page(id, &page, first.and_then(|first| Some((self.levels.last()?.0, first))))?;
        self.release_leaf();
        let bytes = footprint(&page);
        if !self.reader.allowance.hold(bytes) {
            self.release();
            self.sparing = true;
            return Ok(());
        }
        match page {
            Page::Leaf(nodes) => (self.leaf, self.held) = (nodes.into_iter(), bytes),
            Page::Inner { depth, pages } => self.levels.push((depth, pages.into_iter(), bytes)),
        }
        Ok(())
    }

    fn release_leaf(&mut self) {
        self.leaf = Vec::new().into_iter();
        self.reader.allowance.release(std::mem::take(&mut self.held));
    }

    /// Holds nothing any more; nothing follows unless it is sparing.
    fn release(&mut self) {
        self.release_leaf();
        while let Some((_, _, bytes)) = self.levels.pop() {
            self.reader.allowance.release(bytes);
        }
    }

    fn advance(&mut self) -> Result<Option<Node>> {
        loop {
            if self.sparing {
                let next = self.successor(&self.root, None).inspect_err(|_| self.failed = true)?;
                self.last = next.as_ref().map(|node| node.name.clone()).or(self.last.take());
                return Ok(next);
            }
            if let Some(node) = self.leaf.next() {
                if self.last.as_ref().is_some_and(|last| *last >= node.name) {
                    self.release();
                    return Err(Error::damaged("read a directory: its names are not in order"));
                }
                self.last = Some(node.name.clone());
                return Ok(Some(node));
            }
            let Some((_, level, _)) = self.levels.last_mut() else { return Ok(None) };
            match level.next() {
                Some(page) if self.last.as_ref().is_some_and(|last| *last >= page.first) => {
                    self.release();
                    return Err(Error::damaged("read a directory: its pages are not in order"));
                }
                Some(page) => {
                    // Also when it cannot be read: what follows must lie behind it.
                    if let Err(error) = self.open(&page.id, Some(&page.first)) {
                        self.last = Some(page.first);
                        return Err(error);
                    }
                }
                None => {
                    let ended = self.levels.pop();
                    self.reader.allowance.release(ended.map_or(0, |(_, _, bytes)| bytes));
                }
            }
        }
    }

    /// The first node behind the last one, at or below this page.
    fn successor(&self, id: &ChunkId, above: Option<(u8, &[u8])>) -> Result<Option<Node>> {
        let page = self.reader.page(id)?;
        check_page(id, &page, above)?;
        let last = self.last.as_deref();
        match page {
            Page::Leaf(nodes) => Ok(nodes.into_iter().find(|node| last.is_none_or(|last| last < node.name.as_slice()))),
            Page::Inner { depth, pages } => {
                let after = last.map_or(0, |last| pages.partition_point(|page| page.first.as_slice() <= last));
                for page in &pages[after.saturating_sub(1)..] {
                    if let Some(node) = self.successor(&page.id, Some((depth, &page.first)))? {
                        return Ok(Some(node));
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

impl Iterator for Nodes<'_> {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        if matches!(next, Ok(Some(_))) && !self.reader.allowance.take_entry() {
            self.failed = true;
            self.release();
            let error =
                Error::damaged(format!("read the directory {}: the tree has more entries than its snapshot counts", self.root));
            return Some(Err(error.with_hint("whoever made it does not mean it to be restored; forget it")));
        }
        // A page that is lost takes its own entries along, and no others.
        self.failed |= next.as_ref().is_err_and(|error| !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing));
        next.transpose()
    }
}
