//! Choosing snapshots: by id, by unique prefix, or the latest that fits a filter.

/// Which snapshots are meant; empty fields fit everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Any of these hosts.
    pub hosts: Vec<String>,
    /// Any of these kinds.
    pub kinds: Vec<String>,
    /// All of these tags.
    pub tags: Vec<String>,
    /// Any of these paths, as given to the backup.
    pub paths: Vec<Vec<u8>>,
}
