//! What was read although the first place of it is damaged: from parity, or from another pack.

use crate::id::PackId;
use crate::repo::Repository;
use std::collections::BTreeSet;

/// Packs that are remembered by name.
const NAMED: usize = 1000;

/// Reads that were rescued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Blocks and chunks that were read from parity or from another pack.
    pub reads: u64,
    /// The damaged packs: the first thousand.
    pub packs: BTreeSet<PackId>,
}

impl Repository {
    /// What was rescued since this was last asked.
    pub fn take_rescued(&self) -> Rescued {
        self.inner.rescued.lock().map(|mut rescued| std::mem::take(&mut *rescued)).unwrap_or_default()
    }

    pub(in crate::repo) fn note_rescue(&self, damaged: &PackId) {
        if let Ok(mut rescued) = self.inner.rescued.lock() {
            rescued.reads += 1;
            if rescued.packs.len() < NAMED {
                rescued.packs.insert(*damaged);
            }
        }
    }
}
