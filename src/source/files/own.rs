//! The places of the program itself: the repository, and what a machine keeps of it.

use super::stat::Stat;
use std::path::{Path, PathBuf};

/// A directory, however it is reached.
type Identity = (u64, u64);

/// Directories that a backup passes over and that a restore leaves alone.
#[derive(Debug, Default)]
pub(super) struct Own {
    paths: Vec<PathBuf>,
    places: Vec<Identity>,
    /// The places and all that they lie in.
    around: Vec<Identity>,
}

fn identity(path: &Path) -> Option<Identity> {
    let seen = std::fs::symlink_metadata(path).ok()?;
    Some((std::os::unix::fs::MetadataExt::dev(&seen), std::os::unix::fs::MetadataExt::ino(&seen)))
}

impl Own {
    /// Those of the directories that are there.
    pub(super) fn new(directories: &[PathBuf]) -> Self {
        let mut own = Self::default();
        for path in directories.iter().filter_map(|path| path.canonicalize().ok()) {
            own.places.extend(identity(&path));
            own.around.extend(path.ancestors().filter_map(identity));
            own.paths.push(path);
        }
        own
    }

    pub(super) fn is(&self, seen: &Stat) -> bool {
        self.places.contains(&(seen.dev, seen.ino))
    }

    pub(super) fn is_at_or_below(&self, seen: &Stat) -> bool {
        self.around.contains(&(seen.dev, seen.ino))
    }

    pub(super) fn holds(&self, path: &Path) -> bool {
        path.canonicalize().is_ok_and(|path| self.paths.iter().any(|own| path.starts_with(own)))
    }
}
