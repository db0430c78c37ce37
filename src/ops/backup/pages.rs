//! Builds the pages of a directory from its nodes in order.

use crate::error::Result;
use crate::format::tree::{ChunkType, PAGE_MAX_BYTES, PAGE_MAX_ENTRIES, PageRef, encode_inner, encode_leaf, page_ends};
use crate::id::ChunkId;
use crate::repo::ChunkWriter;

/// Takes encoded nodes in ascending order of their names.
#[derive(Clone, Default)]
pub(in crate::ops) struct PageBuilder {
    nodes: Vec<u8>,
    count: usize,
    first: Vec<u8>,
    /// References of each inner level, from depth 1 on.
    levels: Vec<Vec<PageRef>>,
}

impl PageBuilder {
    pub(in crate::ops) fn push(&mut self, name: &[u8], node: &[u8], writer: &mut ChunkWriter) -> Result<()> {
        if self.count > 0 && self.nodes.len() + node.len() > PAGE_MAX_BYTES {
            self.close_leaf(writer)?;
        }
        if self.count == 0 {
            self.first = name.to_vec();
        }
        self.nodes.extend_from_slice(node);
        self.count += 1;
        if self.count >= PAGE_MAX_ENTRIES || page_ends(&writer.page_hash(name)?, 0) {
            self.close_leaf(writer)?;
        }
        Ok(())
    }

    fn close_leaf(&mut self, writer: &mut ChunkWriter) -> Result<()> {
        let mut page = Vec::with_capacity(self.nodes.len() + 16);
        encode_leaf(&self.nodes, self.count, &mut page);
        let id = writer.put(ChunkType::Tree, &page)?.id;
        self.nodes.clear();
        let count = std::mem::take(&mut self.count) as u64;
        let reference = PageRef { id, first: std::mem::take(&mut self.first), count };
        self.push_reference(1, reference, writer)
    }

    fn push_reference(&mut self, depth: usize, reference: PageRef, writer: &mut ChunkWriter) -> Result<()> {
        if self.levels.len() < depth {
            self.levels.push(Vec::new());
        }
        let small = u8::try_from(depth).expect("a few levels hold any directory");
        // The first name of a page decides where the page above it ends, so it must not decide alone: a level of one
        // reference says nothing.
        let ends = page_ends(&writer.page_hash(&reference.first)?, small) && !self.levels[depth - 1].is_empty();
        self.levels[depth - 1].push(reference);
        if ends || self.levels[depth - 1].len() >= PAGE_MAX_ENTRIES {
            self.close_level(depth, writer)?;
        }
        Ok(())
    }

    fn close_level(&mut self, depth: usize, writer: &mut ChunkWriter) -> Result<()> {
        let pages = std::mem::take(&mut self.levels[depth - 1]);
        let mut page = Vec::with_capacity(pages.len() * 64);
        encode_inner(u8::try_from(depth).expect("a few levels hold any directory"), &pages, &mut page);
        let id = writer.put(ChunkType::Tree, &page)?.id;
        let count = pages.iter().map(|page| page.count).sum();
        let first = pages.into_iter().next().map(|page| page.first).unwrap_or_default();
        self.push_reference(depth + 1, PageRef { id, first, count }, writer)
    }

    /// The root page.
    pub(in crate::ops) fn finish(mut self, writer: &mut ChunkWriter) -> Result<ChunkId> {
        if self.count > 0 || self.levels.is_empty() {
            self.close_leaf(writer)?;
        }
        let mut depth = 1;
        loop {
            match (depth == self.levels.len(), self.levels[depth - 1].len()) {
                (true, 1) => return Ok(self.levels[depth - 1][0].id),
                (_, 0) => {}
                _ => self.close_level(depth, writer)?,
            }
            depth += 1;
        }
    }
}
