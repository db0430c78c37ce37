//! `ls`: what is in a directory of a snapshot.

use super::again::HandedOut;
use super::walk::walk;
use crate::error::Result;
use crate::event::{Observer, stop_if_asked};
use crate::format::tree::Node;
use crate::repo::{Repository, SnapshotEntry};

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LsOptions {
    /// Path within the snapshot; empty for its top.
    pub path: Vec<u8>,
    /// Also what is in directories below.
    pub recursive: bool,
}

/// Calls `each` with the path and node of everything in the directory that `options` name, or if that is
/// something else than a directory, with it alone.
///
/// # Errors
/// `Missing` if there is nothing at `path`, `Damaged`, `Interrupted`, or what `each` returns.
pub fn ls(
    repository: &Repository,
    entry: &SnapshotEntry,
    options: &LsOptions,
    observer: &dyn Observer,
    each: &mut dyn FnMut(&[u8], &Node) -> Result<()>,
) -> Result<()> {
    let mut handed = HandedOut::default();
    repository.reading(
        observer,
        &[entry],
        |()| true,
        || {
            handed.begin();
            list(repository, entry, options, observer, &mut |path, node| {
                if handed.is_new() { each(path, node) } else { Ok(()) }
            })
        },
    )
}

fn list(
    repository: &Repository,
    entry: &SnapshotEntry,
    options: &LsOptions,
    observer: &dyn Observer,
    each: &mut dyn FnMut(&[u8], &Node) -> Result<()>,
) -> Result<()> {
    let path = options.path.as_slice();
    let reader = repository.reader()?;
    reader.limit_entries(entry.snapshot.counts.most_entries());
    let mut top = reader.resolve(&entry.snapshot.root, path)?;
    let Some(root) = &top.subtree else { return each(path, &top) };
    if options.recursive {
        // A node without a name is not listed itself.
        top.name.clear();
        return walk(&reader, &top, path, observer, each);
    }
    let above = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
    for node in reader.nodes(root)? {
        stop_if_asked(observer)?;
        let node = node?;
        each(&[&above, node.name.as_slice()].concat(), &node)?;
    }
    Ok(())
}
