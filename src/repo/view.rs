//! Trees as a reader sees them: directories, paths, and contents of files.

use crate::error::{Error, Result};
use crate::format::tree::{ChunkRef, ChunkType, Content, ListPage, Node, NodeKind, Page, decode_page};
use crate::id::ChunkId;
use crate::repo::nodes::Nodes;
use crate::repo::reader::Reader;
use std::io::Write;

/// Deepest nesting of pages that is followed.
const MAX_PAGE_DEPTH: usize = 10;

/// The chunks of a file in order, one list page of each level in memory at a time.
pub struct Contents<'a> {
    reader: &'a Reader,
    levels: Vec<(u8, std::vec::IntoIter<ChunkRef>)>,
    failed: bool,
}

impl Contents<'_> {
    fn open(&mut self, depth: u8, reference: &ChunkRef) -> Result<()> {
        let page = self.reader.list_page(depth, reference)?;
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
        Nodes::new(self, root)
    }

    /// Lets the directories that are read from here on give so many entries and no more, so that a tree in which few pages
    /// stand in many places ends.
    pub fn limit_entries(&self, entries: u64) {
        self.allowance.limit(entries);
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

    /// A page of a list of chunks, `depth` levels above them.
    ///
    /// # Errors
    /// `Damaged`, also if it is not what the reference says.
    pub fn list_page(&self, depth: u8, reference: &ChunkRef) -> Result<ListPage> {
        let page = ListPage::decode(&self.chunk(ChunkType::List, &reference.id)?)?;
        if page.depth != depth || page.data_len() != reference.len {
            return Err(Error::damaged(format!("read the list page {}: not what its reference says", reference.id)));
        }
        Ok(page)
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
        let failed = |error| Error::io("write to the output what is in", String::from_utf8_lossy(&node.name), error);
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
