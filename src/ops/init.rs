//! `init`: makes a repository and its first key slot.

use crate::id::{Fingerprint, RepositoryId};

/// Sizes that a repository is made with; they never change afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// Average chunk size in bytes, a power of two; the smallest is a quarter, the largest four times as long.
    pub chunk_average: u32,
    /// zstd level.
    pub level: i32,
    /// Recipient of the owner's slot (`age1…`, `ssh-…`); absent with a passphrase.
    pub recipient: Option<String>,
}

/// What `init` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// Name of the repository.
    pub repository: RepositoryId,
    /// What to compare and to keep.
    pub fingerprint: Fingerprint,
}
