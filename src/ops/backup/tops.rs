//! The paths that were asked for, as a tree above what is walked.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A directory above the paths asked for, or one of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tops {
    /// Number of the path asked for, if this is one: everything below it is wanted.
    pub(super) origin: Option<usize>,
    /// Paths asked for below it: all that is wanted of it, unless it belongs to one that was asked for itself.
    pub(super) below: BTreeMap<Vec<u8>, Self>,
}

/// What was asked for.
pub(super) struct Asked {
    /// The tree of the paths.
    pub(super) tops: Tops,
    /// The directory that it begins in.
    pub(super) from: PathBuf,
    /// Each path as the tree has it.
    pub(super) named: Vec<PathBuf>,
    /// Each path in its absolute form.
    pub(super) absolute: Vec<PathBuf>,
    /// Those that are symbolic links to directories, as they were asked for.
    pub(super) links: Vec<PathBuf>,
}

/// The tree of `paths`.
///
/// Relative paths begin in the working directory, unless there are absolute ones as well, or one that leaves it.
pub(super) fn tops(paths: &[PathBuf]) -> Result<Asked> {
    let mut absolute = Vec::new();
    let mut relative = Some(Vec::new());
    for path in paths {
        let full = resolve(path)?;
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let kept = path.is_relative() && plain && std::path::absolute(path).is_ok_and(|spelled| spelled == full);
        relative = relative.filter(|_| kept && path.components().next().is_some());
        if let Some(relative) = &mut relative {
            // Without a slash at its end, or two of them within: they make it no other path.
            relative.push(path.components().collect());
        }
        absolute.push(full);
    }
    let (from, named) = match relative {
        Some(relative) => (PathBuf::from("."), relative),
        None => (PathBuf::from("/"), absolute.clone()),
    };
    let mut tops = Tops::default();
    for (number, path) in named.iter().enumerate() {
        insert(&mut tops, path, number);
    }
    let is_link = |path: &Path| path.is_symlink() && path.is_dir();
    let links = paths.iter().zip(&absolute).filter(|(_, full)| is_link(full)).map(|(path, _)| path.clone()).collect();
    Ok(Asked { tops, from, named, absolute, links })
}

impl Tops {
    /// The names below it that lead to paths asked for, in order.
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        self.below.keys().cloned().collect()
    }
}

fn insert(tops: &mut Tops, path: &Path, number: usize) {
    let mut at = tops;
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        at = at.below.entry(part.as_os_str().as_bytes().to_vec()).or_default();
    }
    at.origin.get_or_insert(number);
}

/// The absolute path with links above the last part resolved: the last part is backed up as what it is, unless a slash
/// behind it asks for the directory that it leads to.
fn resolve(path: &Path) -> Result<PathBuf> {
    let failed = |error| Error::io("back up", path.display(), error).with_hint("check the spelling; nothing was stored");
    let bytes = path.as_os_str().as_bytes();
    let through = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let found = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !through => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            parent.canonicalize().map_err(failed)?.join(name)
        }
        _ => path.canonicalize().map_err(failed)?,
    };
    found.symlink_metadata().map_err(failed)?;
    Ok(found)
}
