//! Trees as a reader sees them: directories, paths, and contents of files.

use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{ChunkRef, ChunkType, Content, ListPage, Node, NodeKind, Page, PageRef, decode_page};
use crate::id::ChunkId;
use crate::repo::reader::Reader;
use std::io::Write;

/// Deepest nesting of pages that is followed.
const MAX_PAGE_DEPTH: usize = 10;

/// The nodes of one directory in ascending order of their names, one page in memory at a time. A page that is lost is an
/// error in its place, and the nodes of the other pages follow.
pub struct Nodes<'a> {
    reader: &'a Reader,
    /// The levels above the leaf: depth of the pages, and those that follow.
    levels: Vec<(u8, std::vec::IntoIter<PageRef>)>,
    leaf: std::vec::IntoIter<Node>,
    last: Option<Vec<u8>>,
    failed: bool,
}

impl Nodes<'_> {
    /// Opens a page. Below another page it must be what the reference says, so that no page is met twice, and whoever
    /// wrote it cannot keep a reader busy forever.
    fn open(&mut self, id: &ChunkId, first: Option<&[u8]>) -> Result<()> {
        let wrong = |why: &str| Err(Error::damaged(format!("read the directory page {id}: {why}")));
        let depth = self.levels.last().map(|(depth, _)| *depth);
        match self.reader.page(id)? {
            Page::Leaf(nodes) => {
                if depth.is_some_and(|depth| depth != 1)
                    || first.is_some_and(|first| nodes.first().is_none_or(|node| node.name != first))
                {
                    return wrong("it is not what the page above it says");
                }
                self.leaf = nodes.into_iter();
            }
            Page::Inner { depth: here, pages } => {
                if depth.is_some_and(|depth| depth != here + 1) || first.is_some_and(|first| pages[0].first != first) {
                    return wrong("it is not what the page above it says");
                }
                self.levels.push((here, pages.into_iter()));
            }
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Node>> {
        loop {
            if let Some(node) = self.leaf.next() {
                if self.last.as_ref().is_some_and(|last| *last >= node.name) {
                    self.levels.clear();
                    self.leaf = Vec::new().into_iter();
                    return Err(Error::damaged("read a directory: its names are not in order"));
                }
                self.last = Some(node.name.clone());
                return Ok(Some(node));
            }
            let Some((_, level)) = self.levels.last_mut() else { return Ok(None) };
            match level.next() {
                Some(page) if self.last.as_ref().is_some_and(|last| *last >= page.first) => {
                    self.levels.clear();
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
                    self.levels.pop();
                }
            }
        }
    }
}

impl Iterator for Nodes<'_> {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        // A page that is lost takes its own entries along, and no others.
        self.failed = next.as_ref().is_err_and(|error| !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing));
        next.transpose()
    }
}

/// The chunks of a file in order, one list page of each level in memory at a time.
pub struct Contents<'a> {
    reader: &'a Reader,
    levels: Vec<(u8, std::vec::IntoIter<ChunkRef>)>,
    failed: bool,
}

impl Contents<'_> {
    fn open(&mut self, depth: u8, reference: &ChunkRef) -> Result<()> {
        let page = ListPage::decode(&self.reader.chunk(ChunkType::List, &reference.id)?)?;
        if page.depth != depth || page.data_len() != reference.len {
            return Err(Error::damaged(format!("read the list page {}: not what its reference says", reference.id)));
        }
        self.levels.push((depth, page.refs.into_iter()));
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<ChunkRef>> {
        while let Some((depth, refs)) = self.levels.last_mut() {
            match (refs.next(), *depth) {
                (None, _) => {
                    self.levels.pop();
                }
                (Some(reference), 0) => return Ok(Some(reference)),
                (Some(reference), depth) => self.open(depth - 1, &reference)?,
            }
        }
        Ok(None)
    }
}

impl Iterator for Contents<'_> {
    type Item = Result<ChunkRef>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Entries of a directory that an error names.
const NAMED: usize = 6;

impl Reader {
    /// A page of a directory.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn page(&self, id: &ChunkId) -> Result<Page> {
        decode_page(&self.chunk(ChunkType::Tree, id)?)
    }

    /// The nodes of the directory with this root page.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn nodes(&self, root: &ChunkId) -> Result<Nodes<'_>> {
        let leaf = Vec::new().into_iter();
        let mut nodes = Nodes { reader: self, levels: Vec::new(), leaf, last: None, failed: false };
        nodes.open(root, None)?;
        Ok(nodes)
    }

    /// The node called `name` in the directory with this root page.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn lookup(&self, root: &ChunkId, name: &[u8]) -> Result<Option<Node>> {
        let mut id = *root;
        for _ in 0..MAX_PAGE_DEPTH {
            match self.page(&id)? {
                Page::Leaf(nodes) => return Ok(nodes.into_iter().find(|node| node.name == name)),
                Page::Inner { pages, .. } => {
                    let after = pages.partition_point(|page| page.first.as_slice() <= name);
                    match after.checked_sub(1) {
                        Some(position) => id = pages[position].id,
                        None => return Ok(None),
                    }
                }
            }
        }
        Err(Error::damaged(format!("read the directory page {root}: nested too deeply")))
    }

    /// The node at `path` (parts joined by `/`, a leading one does not matter); the empty path is a nameless directory
    /// with `root` as its page.
    ///
    /// # Errors
    /// `Missing` if there is nothing, `Damaged`.
    pub fn resolve(&self, root: &ChunkId, path: &[u8]) -> Result<Node> {
        let mut node = Node::new(Vec::new(), NodeKind::Directory);
        node.mode = 0o700;
        node.subtree = Some(*root);
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
            let found = match &node.subtree {
                Some(subtree) => self.lookup(subtree, part)?,
                None => None,
            };
            node = found.ok_or_else(|| self.no_such_path(path, &node))?;
        }
        Ok(node)
    }

    /// The error for a path that leads no further than to `last`, with what is there.
    fn no_such_path(&self, path: &[u8], last: &Node) -> Error {
        let error = Error::missing(format!("find {:?} in the snapshot: there is none", String::from_utf8_lossy(path)));
        let nodes = last.subtree.as_ref().and_then(|root| self.nodes(root).ok()).into_iter().flatten();
        let mut names: Vec<String> = nodes
            .map_while(Result::ok)
            .take(NAMED + 1)
            .map(|node| format!("{:?}", String::from_utf8_lossy(&node.name)))
            .collect();
        if names.len() > NAMED {
            names.truncate(NAMED);
            names.push("…".to_owned());
        }
        let place =
            if last.name.is_empty() { "at the top".into() } else { format!("in {:?}", String::from_utf8_lossy(&last.name)) };
        match names.is_empty() {
            true => error,
            false => error.with_hint(format!("{place}: {}; `lifeboat ls` lists them all", names.join(", "))),
        }
    }

    /// The chunks of a file's data, in order.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn contents(&self, content: &Content) -> Result<Contents<'_>> {
        let mut contents = Contents { reader: self, levels: Vec::new(), failed: false };
        match content {
            Content::Chunks(chunks) => contents.levels.push((0, chunks.clone().into_iter())),
            Content::List { depth, root } => contents.open(*depth, root)?,
        }
        Ok(contents)
    }

    /// Writes a file's bytes, holes as zeros.
    ///
    /// # Errors
    /// `Damaged` if a part is lost; what was written before it is right. `Failed` if `out` fails.
    pub fn write_file(&self, node: &Node, out: &mut dyn Write) -> Result<()> {
        let failed = |error| Error::io("write", String::from_utf8_lossy(&node.name), error);
        let mut holes = node.holes.iter().peekable();
        let mut at = 0;
        let mut fill = |at: &mut u64, out: &mut dyn Write| {
            while let Some(hole) = holes.next_if(|hole| hole.offset <= *at) {
                std::io::copy(&mut std::io::Read::take(std::io::repeat(0), hole.len), out).map_err(failed)?;
                *at += hole.len;
            }
            Ok::<_, Error>(holes.peek().map_or(u64::MAX, |hole| hole.offset))
        };
        for reference in self.contents(&node.content)? {
            let bytes = self.chunk(ChunkType::Data, &reference?.id)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let until = fill(&mut at, out)?;
                let step = usize::try_from(until - at).unwrap_or(usize::MAX).min(rest.len());
                out.write_all(&rest[..step]).map_err(failed)?;
                at += step as u64;
                rest = &rest[step..];
            }
        }
        fill(&mut at, out).map(drop)
    }
}
