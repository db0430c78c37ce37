//! `hold` and `unhold`: what is held cannot be forgotten.

use super::select;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::repo::{Repository, SnapshotEntry};

/// Holds the snapshots that `names`, ids or the beginnings of them, name.
///
/// # Errors
/// `Missing` if one is not there, `Usage` if a beginning is that of several.
pub fn hold(repository: &Repository, names: &[String], reason: &str) -> Result<Vec<SnapshotId>> {
    let chosen = select::all_named(repository, names)?;
    // To hold once more without a word takes no reason away.
    let fresh: Vec<_> = chosen.iter().filter(|entry| !(reason.is_empty() && entry.is_held())).cloned().collect();
    if !fresh.is_empty() || chosen.is_empty() {
        repository.hold(&records(&fresh), reason)?;
    }
    Ok(ids(&chosen))
}

/// Ends the holds of the snapshots that `names` name.
///
/// # Errors
/// `Missing` if one is not there or is not held, `Refused` if the keys at hand may not.
pub fn unhold(repository: &Repository, names: &[String]) -> Result<Vec<SnapshotId>> {
    let chosen = select::all_named(repository, names)?;
    if let Some(free) = chosen.iter().find(|entry| !entry.is_held()) {
        return Err(Error::new(ErrorKind::Missing, format!("end the hold of the snapshot {}: it is not held", free.id.short()))
            .with_hint("`lifeboat snapshots` marks those that are"));
    }
    repository.unhold(&records(&chosen))?;
    Ok(ids(&chosen))
}

fn records(chosen: &[SnapshotEntry]) -> Vec<crate::format::log::RecordRef> {
    chosen.iter().map(SnapshotEntry::record).collect()
}

fn ids(chosen: &[SnapshotEntry]) -> Vec<SnapshotId> {
    chosen.iter().map(|entry| entry.id).collect()
}
