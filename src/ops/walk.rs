//! Walks the tree of a snapshot, for the verbs that look at all of it.

use crate::error::{Error, Result};
use crate::event::{Observer, stop_if_asked};
use crate::format::tree::{Node, NodeKind};
use crate::id::ChunkId;
use crate::repo::Reader;

/// Directories within each other that are followed.
pub(super) const MAX_DEPTH: usize = 16_384;

/// Length of a path that is followed.
pub(super) const MAX_PATH: usize = 1 << 20;

/// Calls `each` with every node at and below `top`, directories before what is in them; `path` is that of `top`.
///
/// # Errors
/// `Damaged` where a page cannot be read, `Interrupted`, or what `each` returns.
pub fn walk(
    reader: &Reader,
    top: &Node,
    path: &[u8],
    observer: &dyn Observer,
    each: &mut dyn FnMut(&[u8], &Node) -> Result<()>,
) -> Result<()> {
    let mut path = path.to_vec();
    if !top.name.is_empty() {
        each(&path, top)?;
    }
    top.subtree.map_or(Ok(()), |root| below(reader, &root, &mut path, observer, (each, 0)))
}

type Each<'a> = (&'a mut dyn FnMut(&[u8], &Node) -> Result<()>, usize);

fn below(reader: &Reader, root: &ChunkId, path: &mut Vec<u8>, observer: &dyn Observer, each: Each<'_>) -> Result<()> {
    let (each, depth) = each;
    if depth >= MAX_DEPTH || path.len() >= MAX_PATH {
        return Err(Error::damaged(format!("read the directory {root}: it is nested too deeply")));
    }
    for node in reader.nodes(root)? {
        stop_if_asked(observer)?;
        let node = node?;
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&node.name);
        each(path, &node)?;
        // Nothing of the node is held while the walk is below it.
        let (kind, subtree) = (node.kind, node.subtree);
        drop(node);
        if let (NodeKind::Directory, Some(subtree)) = (kind, subtree) {
            below(reader, &subtree, path, observer, (&mut *each, depth + 1))?;
        }
        path.truncate(length);
    }
    Ok(())
}
