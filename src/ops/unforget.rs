//! `unforget`: brings forgotten snapshots back, as long as no prune has run.

use super::select;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::repo::{Repository, SnapshotEntry};
use std::collections::BTreeSet;

/// Brings back the forgotten snapshots that `names`, ids or the beginnings of them, name.
///
/// # Errors
/// `Missing` if one is not among those that were forgotten or a prune was faster, `Refused` if the keys at hand may not.
pub fn unforget(repository: &Repository, names: &[String]) -> Result<Vec<SnapshotId>> {
    let mut forgotten = repository.all_snapshots()?;
    forgotten.retain(|entry| !entry.is_kept());
    let mut chosen: Vec<SnapshotEntry> = Vec::new();
    for name in names {
        let found = select::named(&forgotten, name).map_err(|error| match error.kind() {
            ErrorKind::Missing => {
                Error::missing(format!("bring back the snapshot {name}: no forgotten snapshot has an id that begins like that"))
                    .with_hint("`lifeboat snapshots --forgotten` lists them; what was pruned cannot come back")
            }
            _ => error,
        })?;
        chosen.extend(found);
    }
    let records: Vec<_> = chosen.iter().map(SnapshotEntry::record).collect();
    repository.unforget(&records)?;
    let ids: BTreeSet<SnapshotId> = chosen.into_iter().map(|entry| entry.id).collect();
    Ok(ids.into_iter().collect())
}
