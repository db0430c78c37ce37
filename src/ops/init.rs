//! `init`: makes a repository and its first key slot.

use crate::error::Result;
use crate::id::{Fingerprint, RepositoryId};
use crate::repo::{NewSlot, OpenOptions, Repository, default_sizes};
use crate::store::Location;

/// Sizes that a repository is made with; they never change afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// Average chunk size in bytes, a power of two; the smallest is a quarter, the largest four times as long.
    pub chunk_average: u32,
    /// zstd level of backups.
    pub level: i32,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { chunk_average: 64 << 10, level: 3 }
    }
}

impl InitOptions {
    /// Fails if no repository can be made with these.
    ///
    /// # Errors
    /// `Usage`.
    pub fn check(&self) -> Result<()> {
        if !(1..=19).contains(&self.level) {
            return Err(crate::error::Error::usage(format!("use the compression level {}: not between 1 and 19", self.level)));
        }
        default_sizes(self.chunk_average).map(drop)
    }
}

/// What `init` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// Name of the repository.
    pub repository: RepositoryId,
    /// What to compare and to keep.
    pub fingerprint: Fingerprint,
}

/// Makes a repository at `location` whose first slot is `slot`.
///
/// # Errors
/// `Refused` if something is there already, `Usage` for sizes or a recipient that cannot be used.
pub fn init(location: &Location, slot: &NewSlot, options: &InitOptions, open: &OpenOptions) -> Result<InitReport> {
    options.check()?;
    let sizes = default_sizes(options.chunk_average)?;
    let repository = Repository::init(location, slot, sizes, options.level, open)?;
    Ok(InitReport { repository: repository.format().id, fingerprint: repository.fingerprint() })
}
