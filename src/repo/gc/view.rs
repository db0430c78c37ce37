//! What a prune decides on: the logs as they were at one moment, and the snapshots that are kept by them.

use super::lock::Reach;
use crate::error::Result;
use crate::format::log::Head;
use crate::id::{ChunkId, ClientId, SnapshotId};
use crate::repo::log::Standing;
use crate::repo::{Repository, cache};

/// A snapshot that is kept.
pub(in crate::repo) struct Kept {
    pub(in crate::repo) id: SnapshotId,
    pub(in crate::repo) client: ClientId,
    pub(in crate::repo) root: ChunkId,
    /// Until when what it needs is to be locked, nanoseconds since 1970; 0 where nothing is.
    pub(in crate::repo) lock_until: i64,
}

/// The logs at one moment.
pub(in crate::repo) struct View {
    pub(in crate::repo) heads: Vec<Head>,
    pub(in crate::repo) snapshots: Vec<Kept>,
}

impl Repository {
    /// The view of the cache as it is. Heads and snapshots are of the same moment, whoever else uses the cache: a plan
    /// that claimed to have seen what it did not consider would take a snapshot that somebody brought back. `reach` says how long
    /// what each snapshot needs is to be locked.
    pub(in crate::repo) fn view(&self, reach: Option<Reach>) -> Result<View> {
        loop {
            let heads = cache::log::heads(&self.connection())?;
            let snapshots = self.all_snapshots()?;
            let unchanged = cache::log::heads(&self.connection())? == heads;
            if unchanged {
                let kept = snapshots.into_iter().filter(|entry| entry.standing != Standing::Forgotten);
                let kept = kept.map(|entry| Kept {
                    id: entry.id,
                    client: entry.client,
                    root: entry.snapshot.root,
                    lock_until: reach.map_or(0, |reach| reach.of(&entry)),
                });
                return Ok(View { heads, snapshots: kept.collect() });
            }
        }
    }
}
