//! Reading checkpoints: the owner's record that a plan names, and the records with its parts.

use super::follow::object_hash;
use crate::error::{Error, Result};
use crate::format::log::{Checkpoint, Head, MAX_RECORD, Record, RecordBody, RecordRef};
use crate::id::{ObjectHash, SnapshotId};
use crate::repo::Repository;
use crate::repo::cache;
use crate::repo::cache::checkpoint::InForce;
use crate::store::Key;
use std::ops::ControlFlow;

/// The snapshot, or the checkpoint of one, that a record names.
pub(super) fn snapshot_named(record: &Record) -> Option<SnapshotId> {
    match &record.body {
        RecordBody::Snapshot { id, .. } | RecordBody::Claim { checkpoint: Some((id, _)), .. } => Some(*id),
        _ => None,
    }
}

impl Repository {
    /// The checkpoint, verified, without its parts; `None` if it was made from other records than its plan, which is then
    /// one without.
    ///
    /// # Errors
    /// `Missing`, `Damaged`.
    pub(in crate::repo) fn load_checkpoint(&self, checkpoint: &InForce) -> Result<Option<Checkpoint>> {
        let found = self.load_part(checkpoint.seq, &checkpoint.hash)?;
        Ok((found.heads == checkpoint.heads).then_some(found))
    }

    /// The same, if all its parts can be read too.
    ///
    /// # Errors
    /// `Missing`, `Damaged`.
    pub(in crate::repo) fn readable_checkpoint(&self, checkpoint: &InForce) -> Result<Option<Checkpoint>> {
        let found = self.load_checkpoint(checkpoint)?;
        for (seq, hash) in found.iter().flat_map(|found| &found.parts) {
            self.load_part(*seq, hash)?;
        }
        Ok(found)
    }

    /// An object of a log, from its duplicate if it is gone or has another hash and that has not.
    pub(super) fn front_or_duplicate(&self, key: &Key, hash: &ObjectHash) -> Result<Option<Vec<u8>>> {
        let is_it = |bytes: &[u8]| object_hash(bytes) == *hash;
        match self.front_of(key, MAX_RECORD)? {
            Some(bytes) if is_it(&bytes) => Ok(Some(bytes)),
            Some(bytes) => Ok(Some(self.duplicate_of(key, &is_it).unwrap_or(bytes))),
            None => Ok(self.duplicate_of_missing(key, &is_it)),
        }
    }

    /// A record of the owner's log that is a part of a checkpoint.
    pub(in crate::repo) fn load_part(&self, seq: u64, hash: &ObjectHash) -> Result<Checkpoint> {
        let key = Key::log(&self.owner(), seq);
        let bytes = self.front_or_duplicate(&key, hash)?;
        let bytes = bytes.ok_or_else(|| Error::missing(format!("read the checkpoint of the logs: {key} is gone")))?;
        if object_hash(&bytes) != *hash {
            return Err(Error::damaged(format!("read the checkpoint of the logs: {key} is not the one that a plan names")));
        }
        let record = self.open_record(&bytes)?;
        match record.body {
            RecordBody::Checkpoint(checkpoint) if (record.client, record.seq) == (self.owner(), seq) => Ok(checkpoint),
            _ => Err(Error::damaged(format!("read the checkpoint of the logs: {key} is none"))),
        }
    }

    /// Calls `each` with the checkpoint and then with its parts, one at a time, until it says that it is enough.
    pub(in crate::repo) fn each_part(
        &self,
        checkpoint: Checkpoint,
        each: &mut dyn FnMut(Checkpoint) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let parts = checkpoint.parts.clone();
        if each(checkpoint)?.is_break() {
            return Ok(());
        }
        for (seq, hash) in parts {
            if each(self.load_part(seq, &hash)?)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// True if a checkpoint in force stands for this record, which need not be there any more.
    pub(in crate::repo) fn is_cut_off(&self, head: &Head) -> Result<bool> {
        let floor = cache::checkpoint::floor(&self.connection(), &head.client)?;
        Ok(floor.is_some_and(|floor| head.seq < floor.seq))
    }

    /// True if a record that was created just now is where it counts: its place may be one that was freed while its writer
    /// slept, and a record there says nothing unless the checkpoint lists it.
    pub(super) fn counts_where_it_is(&self, head: &Head, record: &Record) -> Result<bool> {
        self.follow_prunes()?;
        let Some(in_force) = cache::checkpoint::in_force(&self.connection())? else { return Ok(true) };
        let Some(floor) = in_force.floor(&head.client) else { return Ok(true) };
        if head.seq >= floor.seq {
            return Ok(head.seq > floor.seq || head.hash == floor.hash);
        }
        let Some(checkpoint) = self.load_checkpoint(&in_force)? else { return Ok(true) };
        if checkpoint.staying.contains(head) {
            return Ok(true);
        }
        let (place, id) = (RecordRef { client: head.client, seq: head.seq }, snapshot_named(record));
        let mut found = false;
        self.each_part(checkpoint, &mut |part| {
            for bytes in &part.records {
                let carried = Record::decode(bytes)?;
                found |= id.is_some()
                    && RecordRef { client: carried.client, seq: carried.seq } == place
                    && snapshot_named(&carried) == id;
            }
            Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }
}
