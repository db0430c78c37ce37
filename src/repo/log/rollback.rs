//! Going on with a store that was set back, once somebody has said that it was meant.

use super::heads;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
use crate::format::log::{Head, MAX_RECORD, RecordBody};
use crate::format::snapshot::Snapshot;
use crate::id::{ClientId, SnapshotId};
use crate::repo::cache::CachedSnapshot;
use crate::repo::log::object_hash;
use crate::repo::{Access, OpenOptions, Repository};
use crate::store::{Key, Location};

/// What a store that was set back lacks of what this machine has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollback {
    /// Logs that are shorter than they were, or go on differently.
    pub logs: Vec<LostRecords>,
    /// Snapshots whose records are gone: the id, and the snapshot as far as it can be read.
    pub snapshots: Vec<(SnapshotId, Option<Snapshot>)>,
}

/// Records of one log that were there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRecords {
    /// Whose log.
    pub client: ClientId,
    /// The last record that was seen.
    pub seen: u64,
    /// The last one that there is now, as far as that one; `None` if the log is gone. Where it equals `seen`, other
    /// records have taken the places of those that were seen.
    pub left: Option<u64>,
}

impl Repository {
    /// Opens a repository although its store shows less than this machine has seen. What is lost is told before it is
    /// forgotten that it was ever seen; a failure to tell forgets nothing.
    ///
    /// # Errors
    /// As [`Repository::open`], but for `RolledBack`; and what `tell` returns.
    pub fn open_rolled_back(
        location: &Location,
        access: &Access,
        options: &OpenOptions,
        observer: &dyn Observer,
        tell: &mut dyn FnMut(&Rollback) -> Result<()>,
    ) -> Result<Self> {
        let assemble = || Self::assemble(location.open()?, access, options);
        let repository = assemble()?;
        let rollback = repository.rollback()?;
        tell(&rollback)?;
        if rollback == Rollback::default() {
            repository.refresh_told(observer, false)?;
            return Ok(repository);
        }
        // The cache speaks of records that are gone. It goes first: what is still remembered then brings this here again.
        repository.clear_cache()?;
        heads::forget(&repository.inner.state)?;
        drop(repository);
        let repository = assemble()?;
        repository.refresh_told(observer, false)?;
        Ok(repository)
    }

    /// What the store lacks of what was seen.
    fn rollback(&self) -> Result<Rollback> {
        let mut rollback = Rollback::default();
        for head in self.seen_heads()? {
            let is_cut_off = || {
                // Prunes are read after what they may have deleted was missed.
                self.store().expect_nothing();
                Ok::<_, Error>(self.follow_prunes().is_ok() && self.is_cut_off(&head)?)
            };
            if !self.shows_as_it_was(&head)? && !is_cut_off()? {
                rollback.logs.push(LostRecords { client: head.client, seen: head.seq, left: self.end_of_log(&head)? });
            }
        }
        if rollback.logs.is_empty() {
            return Ok(rollback);
        }
        for (cached, _, _) in self.standings()? {
            let concerned = rollback.logs.iter().any(|lost| lost.client == cached.client);
            if concerned && !self.has_record_of(&cached)? {
                let snapshot = cached.body.as_deref().and_then(|body| Snapshot::decode(body).ok());
                rollback.snapshots.push((cached.id, snapshot));
            }
        }
        Ok(rollback)
    }

    /// True if the record at `head` is the one that was seen.
    pub(super) fn shows_as_it_was(&self, head: &Head) -> Result<bool> {
        match self.store().get(&Key::log(&head.client, head.seq), MAX_RECORD) {
            Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => Ok(false),
            other => Ok(object_hash(&other?) == head.hash),
        }
    }

    /// The last record up to `head` that is in the store.
    fn end_of_log(&self, head: &Head) -> Result<Option<u64>> {
        for seq in (0..=head.seq).rev() {
            if self.store().size(&Key::log(&head.client, seq))?.is_some() {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    fn has_record_of(&self, cached: &CachedSnapshot) -> Result<bool> {
        let bytes = match self.store().get(&Key::log(&cached.client, cached.seq), MAX_RECORD) {
            Err(error) if error.kind() == ErrorKind::Missing => return Ok(false),
            other => other?,
        };
        let Ok(record) = self.open_record(&bytes) else { return Ok(false) };
        Ok(match record.body {
            RecordBody::Snapshot { id, .. } => id == cached.id,
            RecordBody::Claim { checkpoint: Some((id, _)), .. } => id == cached.id,
            _ => false,
        })
    }
}
