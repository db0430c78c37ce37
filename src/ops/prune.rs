//! `prune`: takes back the space of what no snapshot needs.

use crate::error::Result;
use crate::event::Observer;
use crate::repo::{Act, PruneReport as Pruned, Repository};
pub use crate::repo::{CompactOptions, Decision, PackDecision, PruneOptions, Truncation};
use std::time::{Duration, Instant};

/// What a prune did.
#[derive(Debug)]
pub struct PruneReport {
    /// What was decided and done.
    pub pruned: Pruned,
    /// How long it took.
    pub elapsed: Duration,
}

/// Packs of one decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl PruneReport {
    /// How many packs the decision was made for.
    #[must_use]
    pub fn sum(&self, decision: Decision) -> Sum {
        let packs = self.pruned.packs.iter().filter(|pack| pack.decision == decision);
        packs.fold(Sum::default(), |sum, pack| Sum { packs: sum.packs + 1, bytes: sum.bytes + pack.size })
    }
}

/// Prunes the repository. Backups may run meanwhile, and so may other prunes.
///
/// # Errors
/// `Refused` if the keys at hand may not prune, `Damaged` if a tree that must be followed cannot be read; then nothing
/// was deleted.
pub fn prune(repository: &Repository, options: &PruneOptions, observer: &dyn Observer) -> Result<PruneReport> {
    repository.permit(Act::Forget)?;
    let began = Instant::now();
    // What goes is decided by what the cache says is needed.
    repository.ensure_sound_cache(observer)?;
    let pruned = repository.with_sound_cache(observer, |_| true, || repository.prune(options, observer))?;
    Ok(PruneReport { pruned, elapsed: began.elapsed() })
}
