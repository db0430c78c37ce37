//! `prune`: takes back the space of what no snapshot needs.

use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
use crate::ops::thaw::ThawReport;
use crate::repo::{Act, PruneReport as Pruned, Repository};
pub use crate::repo::{CompactOptions, Decision, PackDecision, PruneOptions, Truncation};
use std::time::{Duration, Instant};

/// What a prune did.
#[derive(Debug)]
pub struct PruneReport {
    /// What was decided and done.
    pub pruned: Pruned,
    /// What was asked for, if anything was to be thawed.
    pub thaw: Option<ThawReport>,
    /// Why some packs could not be written anew yet: they are being thawed. The same prune goes on later.
    pub unfinished: Option<Error>,
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
/// `Usage` if no archive thaws as asked; `Refused` if the keys at hand may not prune, `Damaged` if a tree that must be followed cannot be read; then nothing
/// was deleted.
pub fn prune(repository: &Repository, options: &PruneOptions, observer: &dyn Observer) -> Result<PruneReport> {
    repository.permit(Act::Forget)?;
    repository.verify_tier("prune", &options.thaw)?;
    let began = Instant::now();
    // What goes is decided by what the cache says is needed.
    repository.ensure_sound_cache(observer)?;
    let once = || repository.with_sound_cache(observer, |_| true, || repository.prune(options, observer));
    let mut report = PruneReport { pruned: once()?, thaw: None, unfinished: None, elapsed: Duration::ZERO };
    let waiting = report.pruned.thaw.unreadable();
    if options.thaw.tier.is_some() && !options.dry_run && !waiting.is_empty() {
        match repository.make_readable(&waiting, ("write packs anew", &options.thaw), observer) {
            Ok(thawed) => {
                report.thaw = thawed;
                report.pruned = report.pruned.and(once()?);
            }
            Err(error) if error.kind() == ErrorKind::Archived => report.unfinished = Some(error),
            Err(error) => return Err(error),
        }
    }
    report.elapsed = began.elapsed();
    Ok(report)
}
