//! When the store says that records were written: beside what clients claim, the only time there is.

use crate::error::Result;
use crate::format::log::RecordRef;
use crate::id::ClientId;
use crate::repo::Repository;
use crate::store::Key;
use std::collections::{BTreeSet, HashMap};

impl Repository {
    /// When each of the records was written, nanoseconds since 1970 by the store's clock. A record that is no longer in
    /// the store has no time.
    ///
    /// # Errors
    /// `Failed` if the store cannot be listed.
    pub fn stored_times(&self, records: &[RecordRef]) -> Result<HashMap<RecordRef, i64>> {
        let clients: BTreeSet<ClientId> = records.iter().map(|record| record.client).collect();
        let mut listed = HashMap::new();
        for client in clients {
            self.store().list(&format!("log/{client}"), &mut |entry| {
                if let Some((client, seq)) = entry.key.log_seq() {
                    listed.insert(RecordRef { client, seq }, entry.modified);
                }
                Ok(())
            })?;
        }
        let mut times = HashMap::new();
        for record in records {
            // A list may lag behind, so what it lacks is asked for by name.
            let time = match listed.get(record) {
                Some(time) => Some(*time),
                None => self.store().modified(&Key::log(&record.client, record.seq))?,
            };
            times.extend(time.map(|time| (*record, time)));
        }
        Ok(times)
    }
}
