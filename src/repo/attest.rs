//! Vouching for packs: a reader that has hashed every chunk says so, and then clients rely on them that do not trust
//! whoever wrote them.

use crate::error::Result;
use crate::format::log::RecordBody;
use crate::id::PackId;
use crate::repo::{Repository, cache};

/// Packs that one record names.
const PACKS_PER_RECORD: usize = 100_000;

impl Repository {
    /// Says in the log that all chunks of these packs were hashed and are what they should be. Those that everybody relies
    /// on anyway are left out, and a key that cannot sign says nothing. Returns how many were named.
    ///
    /// # Errors
    /// `Full`, `Failed`.
    pub fn attest(&self, whole: impl Iterator<Item = PackId>) -> Result<u64> {
        if self.keys().signer().is_err() {
            return Ok(0);
        }
        let wanted = cache::index::not_attested(&self.connection(), &self.owner())?;
        let mut packs: Vec<PackId> = whole.filter(|pack| wanted.contains(pack)).collect();
        packs.sort_unstable();
        packs.dedup();
        for packs in packs.chunks(PACKS_PER_RECORD) {
            self.append(RecordBody::Attest { packs: packs.to_vec() })?;
        }
        Ok(packs.len() as u64)
    }
}
