//! The directories that the walk of a restore is in.

use crate::error::{Error, Result};
use crate::format::tree::{Node, NodeKind};
use crate::repo::Reader;
use crate::source::files::TargetDir;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Memory that the nodes of the directories may take that the walk is in, one within the other.
const HELD: usize = 16 << 20;

/// A directory of the snapshot that the walk is in.
pub(super) struct Level {
    /// Length of its path.
    length: usize,
    /// Its path, where something refers to it.
    path: Option<Arc<Vec<u8>>>,
    pub(super) node: Node,
    /// What the node takes of memory; `None` if only what the walk needs is kept of it, and the rest is read again.
    pub(super) footprint: Option<usize>,
    /// Made once something in it is restored.
    pub(super) target: Option<TargetDir>,
}

/// All of them, the deepest last.
#[derive(Default)]
pub(super) struct Levels {
    stack: Vec<Level>,
    /// Path of the deepest one, and maybe more behind it.
    path: Vec<u8>,
    held: usize,
}

impl Levels {
    /// Path of the directory that the walk is in.
    pub(super) fn here(&self) -> &[u8] {
        &self.path[..self.last().map_or(0, |level| level.length)]
    }

    /// The same, to be kept.
    pub(super) fn kept_here(&mut self) -> Arc<Vec<u8>> {
        let level = self.stack.last_mut().expect("the walk is in a directory");
        level.path.get_or_insert_with(|| Arc::new(self.path[..level.length].to_vec())).clone()
    }

    /// Begins at the top.
    pub(super) fn push_top(&mut self, node: Node, target: Option<TargetDir>) {
        self.stack.push(Level { length: 0, path: None, node, footprint: Some(0), target });
    }

    /// Goes into a directory.
    pub(super) fn push(&mut self, mut node: Node, path: Vec<u8>) {
        let footprint = node.footprint();
        let kept = self.held + footprint <= HELD;
        if kept {
            self.held += footprint;
        } else {
            node = Node { subtree: node.subtree, ..Node::new(node.name, NodeKind::Directory) };
        }
        let footprint = kept.then_some(footprint);
        self.stack.push(Level { length: path.len(), path: None, node, footprint, target: None });
        self.path = path;
    }

    pub(super) fn pop(&mut self) -> Level {
        let level = self.stack.pop().expect("it was pushed before");
        self.held -= level.footprint.unwrap_or(0);
        level
    }

    /// All of a node that was kept in a directory in the one that the walk is in.
    pub(super) fn whole(&self, reader: &Reader, node: Node, footprint: Option<usize>) -> Result<Node> {
        if footprint.is_some() {
            return Ok(node);
        }
        let root = self.last().and_then(|above| above.node.subtree);
        let found = root.map_or(Ok(None), |root| reader.lookup(&root, &node.name))?;
        found.ok_or_else(|| Error::damaged("restore the directory: it is not where it was read before"))
    }
}

impl Deref for Levels {
    type Target = [Level];

    fn deref(&self) -> &[Level] {
        &self.stack
    }
}

impl DerefMut for Levels {
    fn deref_mut(&mut self) -> &mut [Level] {
        &mut self.stack
    }
}
