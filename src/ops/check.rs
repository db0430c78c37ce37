//! `check`: verifies a repository; reports every finding and changes nothing.

use crate::id::SnapshotId;
use std::time::Duration;

/// How deep to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read, open, and hash all data, not only the structure.
    pub read_data: bool,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is lost; something is left over or out of date.
    Notice,
    /// Data of a snapshot is lost or cannot be trusted.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object concerned, by its name in the store.
    pub object: String,
    /// What is wrong, in words.
    pub problem: String,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Everything that is wrong, in the order found.
    pub findings: Vec<Finding>,
    /// Snapshots that cannot be restored whole, with the first paths concerned.
    pub damaged: Vec<(SnapshotId, Vec<Vec<u8>>)>,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Chunks known.
    pub chunks: u64,
    /// Bytes read from the store.
    pub bytes_read: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl CheckReport {
    /// True if data is lost.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }
}
