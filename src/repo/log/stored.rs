//! When the store says that records were written: beside what clients claim, the only time there is.

use crate::error::{ErrorKind, Result};
use crate::format::log::RecordRef;
use crate::repo::Repository;
use crate::store::Key;
use std::collections::HashMap;

/// When a record was written, nanoseconds since 1970 by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredTime {
    /// Then.
    At(i64),
    /// Then or before: the record itself is no longer in the store, which got its newest record then.
    NotAfter(i64),
}

/// What there is of an object, if there is one; nothing of one that is long and was not read.
pub(super) type Front = Option<Result<Option<Vec<u8>>>>;

/// Longest small object that is read beside others, or before it is needed.
pub(in crate::repo) const SHORT: u64 = 1 << 20;

impl Repository {
    /// An object whose name is not its hash, as far as `limit`: of a longer one, which nobody made who keeps to the
    /// format, the front stands for all of it. `None` if there is none.
    pub(in crate::repo) fn front_of(&self, key: &Key, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.store().get(key, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::Missing => Ok(None),
            Err(error) if error.kind() == ErrorKind::Damaged && self.store().size(key)?.is_some_and(|size| size > limit) => {
                let mut front = vec![0; usize::try_from(limit).expect("limits are far below the address space")];
                self.store().read_at(key, 0, &mut front)?;
                Ok(Some(front))
            }
            Err(error) => Err(error),
        }
    }

    /// The same for several objects at once; nothing of one that is longer than `limit`, which is to be read in its turn: as
    /// many as are asked for may be as long as can be.
    pub(in crate::repo) fn fronts_of(&self, keys: &[Key], limit: u64) -> Vec<Front> {
        self.side_by_side(keys, |key| match self.store().get(key, limit) {
            Ok(bytes) => Some(Ok(Some(bytes))),
            Err(error) if error.kind() == ErrorKind::Missing => Some(Ok(None)),
            Err(error) if error.kind() == ErrorKind::Damaged => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// When each of the records was written. Records are missing from the answer only if the store has no record at all.
    ///
    /// # Errors
    /// `Failed` if the store cannot be listed.
    pub fn stored_times(&self, records: &[RecordRef]) -> Result<HashMap<RecordRef, StoredTime>> {
        let mut listed = HashMap::new();
        self.store().list("log", &mut |entry| {
            listed.extend(entry.key.log_seq().map(|(client, seq)| (RecordRef { client, seq }, entry.modified)));
            Ok(())
        })?;
        let newest = listed.values().copied().max();
        let mut times = HashMap::new();
        for record in records {
            // A list may lag behind, so what it lacks is asked for by name.
            let time = match listed.get(record) {
                Some(time) => Some(*time),
                None => self.store().modified(&Key::log(&record.client, record.seq))?,
            };
            let time = time.map(StoredTime::At).or(newest.map(StoredTime::NotAfter));
            times.extend(time.map(|time| (*record, time)));
        }
        Ok(times)
    }
}
