//! `find`: files by name, size, and time, in one snapshot or in all.

use super::again::HandedOut;
use super::walk::walk;
use crate::error::{Error, Result};
use crate::event::Observer;
use crate::format::tree::{Node, NodeKind};
use crate::repo::{Repository, SnapshotEntry};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What to look for; empty fields fit everything.
#[derive(Debug, Clone, Default)]
pub struct FindOptions {
    /// Globs; one without a slash is matched with the name, others with the whole path.
    pub globs: Vec<String>,
    /// A regular expression that is found in the path.
    pub regex: Option<String>,
    /// Upper and lower case are the same.
    pub ignore_case: bool,
    /// At least so many bytes.
    pub larger: Option<u64>,
    /// At most so many bytes.
    pub smaller: Option<u64>,
    /// Modified at or after, nanoseconds since 1970.
    pub newer: Option<i64>,
    /// Modified before, nanoseconds since 1970.
    pub older: Option<i64>,
    /// Only these kinds of nodes; empty is any.
    pub kinds: Vec<NodeKind>,
}

/// A node that fits.
#[derive(Debug, Clone)]
pub struct FindHit<'a> {
    /// The snapshot that holds it.
    pub snapshot: &'a SnapshotEntry,
    /// Its path there.
    pub path: &'a [u8],
    /// The node.
    pub node: &'a Node,
}

struct Matcher<'a> {
    options: &'a FindOptions,
    globs: Option<GlobSet>,
    regex: Option<regex::bytes::Regex>,
}

impl<'a> Matcher<'a> {
    fn new(options: &'a FindOptions) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        for text in &options.globs {
            let inner = text.trim_start_matches('/');
            let pattern = if inner.contains('/') { inner.to_owned() } else { format!("**/{inner}") };
            let glob = GlobBuilder::new(&pattern).literal_separator(true).case_insensitive(options.ignore_case).build();
            set.add(glob.map_err(|error| Error::usage(format!("read the pattern {text:?}: {error}")))?);
        }
        let globs = set.build().map_err(|error| Error::usage(format!("read the patterns: {error}")))?;
        let regex = options.regex.as_ref().map(|text| {
            let built = regex::bytes::RegexBuilder::new(text).case_insensitive(options.ignore_case).build();
            built.map_err(|_| Error::usage(format!("read the regular expression {text:?}: it is not well formed")))
        });
        Ok(Self { options, globs: (!options.globs.is_empty()).then_some(globs), regex: regex.transpose()? })
    }

    fn fits(&self, path: &[u8], node: &Node) -> bool {
        let time = i64::try_from(node.mtime.total_nanos()).unwrap_or(if node.mtime.secs < 0 { i64::MIN } else { i64::MAX });
        let sized = self.options.larger.is_some() || self.options.smaller.is_some();
        (self.options.kinds.is_empty() || self.options.kinds.contains(&node.kind))
            && (!sized || node.kind == NodeKind::File)
            && self.options.larger.is_none_or(|least| node.size >= least)
            && self.options.smaller.is_none_or(|most| node.size <= most)
            && self.options.newer.is_none_or(|from| time >= from)
            && self.options.older.is_none_or(|until| time < until)
            && self.globs.as_ref().is_none_or(|globs| globs.is_match(OsStr::from_bytes(path)))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(path))
    }
}

/// Calls `each` with everything that fits in `snapshots`.
///
/// # Errors
/// `Usage` for patterns that cannot be read, `Damaged`, `Interrupted`, or what `each` returns.
pub fn find(
    repository: &Repository,
    snapshots: &[SnapshotEntry],
    options: &FindOptions,
    observer: &dyn Observer,
    each: &mut dyn FnMut(&FindHit<'_>) -> Result<()>,
) -> Result<()> {
    let matcher = Matcher::new(options)?;
    let mut handed = HandedOut::default();
    let look = || {
        handed.begin();
        let reader = repository.reader()?;
        for snapshot in snapshots {
            reader.limit_entries(snapshot.snapshot.counts.most_entries());
            let top = reader.resolve(&snapshot.snapshot.root, b"")?;
            walk(&reader, &top, b"", observer, &mut |path, node| match matcher.fits(path, node) && handed.is_new() {
                true => each(&FindHit { snapshot, path, node }),
                false => Ok(()),
            })?;
        }
        Ok(())
    };
    repository.reading(observer, &snapshots.iter().collect::<Vec<_>>(), |()| true, look)
}

/// A state of one file, and the snapshots that hold it in that state.
#[derive(Debug, Clone)]
pub struct Version {
    /// The file.
    pub node: Node,
    /// The snapshots, oldest first.
    pub snapshots: Vec<SnapshotEntry>,
}

/// The history of the file at `path` across `snapshots`: each state that differs from the one before.
///
/// # Errors
/// `Missing` if no snapshot has it, `Damaged`.
pub fn history(
    repository: &Repository,
    snapshots: &[SnapshotEntry],
    path: &[u8],
    observer: &dyn Observer,
) -> Result<Vec<Version>> {
    let all: Vec<&SnapshotEntry> = snapshots.iter().collect();
    repository.reading(observer, &all, |_| true, || versions(repository, snapshots, path))
}

fn versions(repository: &Repository, snapshots: &[SnapshotEntry], path: &[u8]) -> Result<Vec<Version>> {
    let reader = repository.reader()?;
    let mut versions: Vec<Version> = Vec::new();
    for snapshot in snapshots {
        let node = match reader.resolve(&snapshot.snapshot.root, path) {
            Err(error) if error.kind() == crate::error::ErrorKind::Missing => continue,
            other => other?,
        };
        match versions.last_mut() {
            Some(last) if last.node.content == node.content && last.node.mtime == node.mtime && last.node.size == node.size => {
                last.snapshots.push(snapshot.clone());
            }
            _ => versions.push(Version { node, snapshots: vec![snapshot.clone()] }),
        }
    }
    if versions.is_empty() {
        let message = format!("find {:?}: no snapshot has it", String::from_utf8_lossy(path));
        return Err(Error::missing(message).with_hint("`lifeboat find NAME` looks for it by name"));
    }
    Ok(versions)
}
