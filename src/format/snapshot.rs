//! A snapshot: one finished backup (docs/format.md#75-snapshots).

use crate::id::{ChunkId, SnapshotId};

/// What a backup counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, fifos, sockets, devices.
    pub others: u64,
    /// Bytes of all files, holes left out.
    pub bytes: u64,
    /// Files that the parent did not have.
    pub new: u64,
    /// Files that differ from the parent's.
    pub changed: u64,
    /// Files that are as in the parent.
    pub unmodified: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes of chunks that the repository did not have, before compression.
    pub bytes_added: u64,
    /// Bytes that the store grew by.
    pub bytes_stored: u64,
}

/// A path that is missing from a snapshot, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The path.
    pub path: Vec<u8>,
    /// The reason in words.
    pub reason: String,
}

/// One finished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Root page of the tree.
    pub root: ChunkId,
    /// What kind of backup it is: `full`, `incremental`, `state`, `config`, `logs`, `database`, `wal`, or another word.
    pub kind: String,
    /// The snapshot it was compared with.
    pub parent: Option<SnapshotId>,
    /// Name of the machine.
    pub host: String,
    /// What was asked for, as given.
    pub paths: Vec<Vec<u8>>,
    /// Tags, ascending.
    pub tags: Vec<String>,
    /// A remark of the user's, empty if none.
    pub description: String,
    /// Start, nanoseconds since 1970.
    pub start: i64,
    /// End, nanoseconds since 1970.
    pub end: i64,
    /// What was counted.
    pub counts: Counts,
    /// The first 1,000 failures.
    pub failures: Vec<Failure>,
    /// All failures.
    pub failure_count: u64,
    /// Program version.
    pub version: String,
    /// Who ran it, empty if unknown.
    pub user: String,
    /// A checkpoint of a backup that did not finish.
    pub incomplete: bool,
    /// Application metadata by name, ascending.
    pub metadata: Vec<(String, String)>,
    /// Fields of later versions, kept as they are: key and encoded value.
    pub extra: Vec<(u64, Vec<u8>)>,
}
