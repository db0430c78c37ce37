//! Which part of its tree a snapshot knows whole: what was asked for, not what lies above it. And what is asked for now.

use crate::error::{Error, Result};
use crate::format::snapshot::Snapshot;
use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The part of the tree that a snapshot knows whole.
pub(super) struct Known {
    paths: Vec<Vec<u8>>,
    subpath: Vec<u8>,
    /// What could not be read when the snapshot was made.
    missed: BTreeSet<Vec<u8>>,
}

impl Known {
    /// Of a restore of what is at `subpath` in a snapshot.
    pub(super) fn new(snapshot: &Snapshot, subpath: &[u8]) -> Self {
        let plain = |path: &Vec<u8>| path.iter().position(|byte| *byte != b'/').map_or(&[][..], |start| &path[start..]).to_vec();
        // An empty path is the whole of a file system.
        let named = snapshot.paths.iter().filter(|path| !path.is_empty());
        let missed = snapshot.failures.iter().map(|failure| plain(&failure.path)).collect();
        Self { paths: named.map(plain).collect(), subpath: subpath.to_vec(), missed }
    }

    fn full(&self, path: &[u8]) -> Vec<u8> {
        let parts = [self.subpath.as_slice(), path];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'/')
    }

    /// True if it was asked for at backup, by itself.
    pub(super) fn is_asked(&self, path: &[u8]) -> bool {
        self.paths.contains(&self.full(path))
    }

    /// True if it was asked for, or something above it was.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        let full = self.full(path);
        let holds = |path: &Vec<u8>| match full.strip_prefix(path.as_slice()) {
            Some(rest) => path.is_empty() || matches!(rest, [] | [b'/', ..]),
            None => false,
        };
        self.paths.iter().any(holds)
    }

    /// True if it could not be read when the snapshot was made, or if that holds of something above or below it: that the
    /// snapshot does not have it says nothing then.
    pub(super) fn was_missed(&self, path: &[u8]) -> bool {
        if self.missed.is_empty() {
            return false;
        }
        let full = self.full(path);
        let mut above = full.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &full[..at]);
        let below = [&full, &b"/"[..]].concat();
        self.missed.contains(&full)
            || above.any(|above| self.missed.contains(above))
            || self.missed.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below))
    }
}

/// The patterns of what is asked for.
pub(super) struct Include {
    set: GlobSet,
    /// Those that nothing matched yet, with their texts.
    unmatched: Vec<(String, GlobMatcher)>,
}

impl Include {
    /// Of these patterns, if there are any.
    ///
    /// # Errors
    /// `Usage` if one is none.
    pub(super) fn new(globs: &[String]) -> Result<Option<Self>> {
        if globs.is_empty() {
            return Ok(None);
        }
        let mut set = GlobSetBuilder::new();
        let mut unmatched = Vec::new();
        for text in globs {
            let trimmed = text.trim_start_matches('/');
            let wrong = |error| Error::usage(format!("read the pattern {text:?}: {error}"));
            // Like gitignore: without a slash it matches at any depth.
            let anywhere = !text.trim_end_matches('/').contains('/');
            let pattern = if anywhere { format!("**/{trimmed}") } else { trimmed.to_owned() };
            let glob = GlobBuilder::new(pattern.trim_end_matches('/')).literal_separator(true).build().map_err(wrong)?;
            unmatched.push((text.clone(), glob.compile_matcher()));
            set.add(glob);
        }
        let set = set.build().map_err(|error| Error::usage(format!("read the patterns: {error}")))?;
        Ok(Some(Self { set, unmatched }))
    }

    /// True if a pattern matches the path, or a directory above it: what lies below an included one is included.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.set.is_match(OsStr::from_bytes(&path[..end])))
    }

    /// Notes that there is something at this path.
    pub(super) fn note(&mut self, path: &[u8]) {
        self.unmatched.retain(|(_, glob)| !glob.is_match(OsStr::from_bytes(path)));
    }

    /// The patterns that nothing matched.
    pub(super) fn unmatched(&self) -> Vec<String> {
        self.unmatched.iter().map(|(text, _)| text.clone()).collect()
    }
}
