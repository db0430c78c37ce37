//! `backup`: one snapshot of paths, of a stream, or of a command's output.

use crate::format::snapshot::Snapshot;
use crate::id::SnapshotId;
use crate::source::files::RuleOptions;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// Where the bytes come from.
pub enum Input {
    /// Files and directories.
    Paths(Vec<PathBuf>),
    /// One stream, kept as a file of that name.
    Stream {
        /// Path of the file in the snapshot.
        name: Vec<u8>,
        /// The bytes; a failure while reading fails the backup.
        reader: Box<dyn Read + Send>,
        /// Called at the end of the stream; an error (a command that failed) fails the backup, and nothing is committed.
        finish: Box<dyn FnOnce() -> crate::error::Result<()> + Send>,
    },
}

/// What to back up and how to name it.
pub struct BackupOptions {
    /// The source.
    pub input: Input,
    /// Kind of the snapshot.
    pub kind: String,
    /// Tags, in any order.
    pub tags: Vec<String>,
    /// A remark.
    pub description: String,
    /// Name of this machine.
    pub host: String,
    /// Who runs it.
    pub user: String,
    /// What to leave out.
    pub rules: RuleOptions,
    /// Keep access times.
    pub atime: bool,
    /// Read every file, whatever the stat cache says.
    pub reread: bool,
    /// Read and count, store nothing.
    pub dry_run: bool,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
    /// Application metadata by name.
    pub metadata: Vec<(String, String)>,
}

/// What a backup did.
#[derive(Debug)]
pub struct BackupReport {
    /// The snapshot; absent after a dry run.
    pub id: Option<SnapshotId>,
    /// What was recorded of it.
    pub snapshot: Snapshot,
    /// How long it took.
    pub elapsed: Duration,
}

impl BackupReport {
    /// True if something that was asked for is missing from the snapshot.
    #[must_use]
    pub fn incomplete(&self) -> bool {
        self.snapshot.failure_count > 0
    }
}
