//! Choosing snapshots: by id, by unique prefix, or the latest that fits a filter.

use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::Snapshot;
use crate::repo::{Repository, SnapshotEntry};

/// Which snapshots are meant; empty fields fit everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Any of these hosts.
    pub hosts: Vec<String>,
    /// Any of these kinds.
    pub kinds: Vec<String>,
    /// All of these tags.
    pub tags: Vec<String>,
    /// Any of these paths, as given to the backup.
    pub paths: Vec<Vec<u8>>,
}

/// Fewest digits of a prefix.
const LEAST_DIGITS: usize = 4;

impl SnapshotFilter {
    /// True if the snapshot is one of those that are meant.
    #[must_use]
    pub fn fits(&self, snapshot: &Snapshot) -> bool {
        let any = |wanted: &[String], have: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == have);
        any(&self.hosts, &snapshot.host)
            && any(&self.kinds, &snapshot.kind)
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && (self.paths.is_empty() || self.paths.iter().any(|path| snapshot.paths.contains(path)))
    }
}

/// All snapshots that fit, oldest first.
///
/// # Errors
/// As [`Repository::snapshots`].
pub fn list(repository: &Repository, filter: &SnapshotFilter) -> Result<Vec<SnapshotEntry>> {
    let mut all = repository.snapshots()?;
    all.retain(|entry| filter.fits(&entry.snapshot));
    all.sort_by_key(|entry| (entry.snapshot.start, entry.id));
    Ok(all)
}

/// The snapshot that `text` names: `latest`, an id, or the beginning of one.
///
/// # Errors
/// `Missing` if there is none, `Usage` if several begin like that.
pub fn find(repository: &Repository, text: &str, filter: &SnapshotFilter) -> Result<SnapshotEntry> {
    let hint = "`lifeboat snapshots` lists them";
    if text == "latest" {
        let newest = list(repository, filter)?.into_iter().max_by_key(|entry| (entry.snapshot.end, entry.id));
        return newest.ok_or_else(|| Error::missing("find the latest snapshot: there is none that fits").with_hint(hint));
    }
    let digits = text.len() >= LEAST_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !digits {
        let message = format!("find the snapshot {text:?}: neither `latest` nor {LEAST_DIGITS} or more digits of an id");
        return Err(Error::new(ErrorKind::Missing, message).with_hint(hint));
    }
    let mut found = repository.snapshots()?;
    found.retain(|entry| entry.id.to_string().starts_with(text));
    match found.len() {
        0 => Err(Error::missing(format!("find the snapshot {text}: no id begins like that")).with_hint(hint)),
        1 => Ok(found.remove(0)),
        _ => {
            let ids: Vec<String> = found.iter().map(|entry| entry.id.to_string()[..12].to_owned()).collect();
            Err(Error::usage(format!("find the snapshot {text}: several ids begin like that: {}", ids.join(", ")))
                .with_hint("give more digits"))
        }
    }
}
