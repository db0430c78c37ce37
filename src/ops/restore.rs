//! `restore`: writes a snapshot, or a part of it, back to a file system.

use crate::format::snapshot::Failure;
use crate::source::files::RuleOptions;
use std::path::PathBuf;
use std::time::Duration;

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// A target that is not empty is refused, except to resume the same restore.
    #[default]
    Refuse,
    /// Made equal to the snapshot; only differing content is written.
    Always,
    /// Made equal if its size or modification time differs.
    IfChanged,
    /// Replaced if the snapshot's is newer.
    IfNewer,
    /// Kept.
    Never,
}

/// Where to put it and how.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Directory to restore into.
    pub target: PathBuf,
    /// Path within the snapshot that is put directly into the target, empty for the whole tree.
    pub subpath: Vec<u8>,
    /// Only what matches any of these globs (directories above are made as needed).
    pub include: Vec<String>,
    /// Nothing that matches these rules.
    pub exclude: RuleOptions,
    /// What happens to files that are there.
    pub overwrite: Overwrite,
    /// Remove what the snapshot does not have.
    pub delete: bool,
    /// Say what would be done.
    pub dry_run: bool,
    /// Read back and compare afterwards.
    pub verify: bool,
    /// Use numeric ids, not names.
    pub numeric_ids: bool,
    /// Leave owner and group alone.
    pub no_owner: bool,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct RestoreReport {
    /// Files written.
    pub files: u64,
    /// Files that were equal already.
    pub unchanged: u64,
    /// Files left alone because of `Overwrite`.
    pub skipped: u64,
    /// Directories.
    pub directories: u64,
    /// Links, fifos, sockets, devices.
    pub others: u64,
    /// Entries removed by `delete`.
    pub deleted: u64,
    /// Bytes of content in the files restored.
    pub bytes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Files read back and found equal, with `verify`.
    pub verified: u64,
    /// Metadata that could not be set (such as owners, without root).
    pub warnings: u64,
    /// What could not be restored: the first 1,000.
    pub failures: Vec<Failure>,
    /// All failures.
    pub failure_count: u64,
    /// How long it took.
    pub elapsed: Duration,
}
