//! Builds the content of a file from its chunks, page by page: the list of a huge file is never whole in memory.

use crate::error::Result;
use crate::format::tree::{ChunkRef, ChunkType, Content, LIST_MAX_REFS, ListPage, NODE_MAX_CHUNKS, list_ends};
use crate::repo::ChunkWriter;

/// Takes references in order.
#[derive(Default)]
pub(in crate::ops) struct ListBuilder {
    levels: Vec<Vec<ChunkRef>>,
}

impl ListBuilder {
    pub(in crate::ops) fn push(&mut self, reference: ChunkRef, writer: &mut ChunkWriter) -> Result<()> {
        self.push_at(0, reference, writer)
    }

    fn push_at(&mut self, depth: usize, reference: ChunkRef, writer: &mut ChunkWriter) -> Result<()> {
        if self.levels.len() == depth {
            self.levels.push(Vec::new());
        }
        let level = &mut self.levels[depth];
        level.push(reference);
        // A short list stays in its node, so the first page is only cut once it is longer than that.
        let cut = list_ends(&reference.id) && level.len() > NODE_MAX_CHUNKS;
        if cut || level.len() >= LIST_MAX_REFS { self.close(depth, writer) } else { Ok(()) }
    }

    fn close(&mut self, depth: usize, writer: &mut ChunkWriter) -> Result<()> {
        let refs = std::mem::take(&mut self.levels[depth]);
        let page = ListPage { depth: u8::try_from(depth).expect("a few levels hold any file"), refs };
        let len = page.data_len();
        let mut bytes = Vec::with_capacity(page.refs.len() * 36);
        page.encode(&mut bytes);
        let id = writer.put(ChunkType::List, &bytes)?.id;
        self.push_at(depth + 1, ChunkRef { id, len }, writer)
    }

    pub(in crate::ops) fn finish(mut self, writer: &mut ChunkWriter) -> Result<Content> {
        if self.levels.len() <= 1 && self.levels.first().is_none_or(|refs| refs.len() <= NODE_MAX_CHUNKS) {
            return Ok(Content::Chunks(self.levels.pop().unwrap_or_default()));
        }
        let mut depth = 0;
        loop {
            let last = depth + 1 == self.levels.len();
            match (last, self.levels[depth].len()) {
                (true, 1) if depth > 0 => {
                    let depth = u8::try_from(depth - 1).expect("a few levels hold any file");
                    return Ok(Content::List { depth, root: self.levels.pop().expect("there is one")[0] });
                }
                (_, 0) => {}
                _ => self.close(depth, writer)?,
            }
            depth += 1;
        }
    }
}
