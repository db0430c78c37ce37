//! The second walk: the trees, with the target's names for everything that they name.

use super::Copying;
use crate::error::{Error, Result};
use crate::event::stop_if_asked;
use crate::format::tree::{ChunkRef, Content, Node, encode_node};
use crate::id::ChunkId;
use crate::ops::backup::lists::ListBuilder;
use crate::ops::backup::pages::PageBuilder;
use crate::ops::walk::MAX_DEPTH;
use crate::repo::{ChunkWriter, Reader};

impl Copying<'_> {
    /// Builds the tree below `root` in the target; all data of its files is there. Returns its root page.
    pub(super) fn tree(&self, root: &ChunkId, writer: &mut ChunkWriter) -> Result<ChunkId> {
        let reader = self.source.reader()?;
        // Each directory is read twice.
        reader.limit_entries(self.most_entries.saturating_mul(2));
        self.directory(&reader, root, writer, 0)
    }

    fn directory(&self, reader: &Reader, root: &ChunkId, writer: &mut ChunkWriter, depth: usize) -> Result<ChunkId> {
        if depth >= MAX_DEPTH {
            return Err(Error::damaged(format!("read the directory {root}: it is nested too deeply")));
        }
        if let Some(name) = self.map().directory(root)? {
            return Ok(name);
        }
        // What is below comes first and is noted, so that no page is held half built meanwhile.
        for node in reader.nodes(root)? {
            stop_if_asked(self.observer)?;
            // The node itself is not held meanwhile.
            let subtree = node?.subtree;
            if let Some(subtree) = subtree {
                self.directory(reader, &subtree, writer, depth + 1)?;
            }
        }
        let mut pages = PageBuilder::default();
        let mut encoded = Vec::new();
        for node in reader.nodes(root)? {
            stop_if_asked(self.observer)?;
            let mut node = node?;
            if let Some(subtree) = node.subtree {
                node.subtree = Some(self.directory(reader, &subtree, writer, depth + 1)?);
            }
            node.content = self.renamed(reader, &node, writer)?;
            encoded.clear();
            encode_node(&node, &mut encoded);
            pages.push(&node.name, &encoded, writer)?;
        }
        let name = pages.finish(writer)?;
        self.map().add_directory(root, &name)?;
        Ok(name)
    }

    /// The content of a file in the target's names.
    fn renamed(&self, reader: &Reader, node: &Node, writer: &mut ChunkWriter) -> Result<Content> {
        let mut list = ListBuilder::default();
        for chunk in reader.contents(&node.content)? {
            let ChunkRef { id, len } = chunk?;
            let name = self.map().chunk(&id)?.ok_or_else(|| {
                let name = String::from_utf8_lossy(&node.name).into_owned();
                Error::failed(format!("copy {name:?}: the map of what was copied is gone or damaged"))
                    .with_hint("run the copy again; it is made anew")
            })?;
            list.push(ChunkRef { id: name, len }, writer)?;
        }
        list.finish(writer)
    }
}
