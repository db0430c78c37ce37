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
    /// `Full`, `Failed`; those of `whole`.
    pub fn attest(&self, whole: impl Iterator<Item = Result<PackId>>) -> Result<u64> {
        if self.keys().signer().is_err() {
            return Ok(0);
        }
        let (owner, mut named, mut packs) = (self.owner(), 0, Vec::new());
        let mut tell = |packs: &mut Vec<PackId>| {
            packs.sort_unstable();
            packs.dedup();
            named += packs.len() as u64;
            self.append(RecordBody::Attest { packs: std::mem::take(packs) }).map(drop)
        };
        for pack in whole {
            let pack = pack?;
            if cache::index::is_unattested(&self.connection(), &pack, &owner)? {
                packs.push(pack);
                if packs.len() == PACKS_PER_RECORD {
                    tell(&mut packs)?;
                }
            }
        }
        if !packs.is_empty() {
            tell(&mut packs)?;
        }
        Ok(named)
    }
}
