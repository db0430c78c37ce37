//! When the store says that records were written: beside what clients claim, the only time there is.

use crate::error::Result;
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

impl Repository {
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
