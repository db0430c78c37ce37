//! `stats`: how much is stored, and how well.

use crate::error::Result;
use crate::event::Silent;
use crate::repo::Repository;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// Sums over some snapshots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub snapshots: u64,
    /// Bytes of all their files, each snapshot counted for itself.
    pub bytes_raw: u64,
    /// Bytes that they added to the store.
    pub bytes_stored: u64,
}

/// What is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsReport {
    /// Snapshots that are kept.
    pub snapshots: u64,
    /// Bytes of all files in all snapshots.
    pub bytes_raw: u64,
    /// Bytes of all chunks before compression, those of directories too, each counted once.
    pub bytes_deduplicated: u64,
    /// Bytes of all objects in the store.
    pub bytes_stored: u64,
    /// Chunks in the index.
    pub chunks: u64,
    /// By kind of snapshot.
    pub by_kind: BTreeMap<String, Sum>,
    /// By the day on which they began.
    pub by_day: BTreeMap<Date, Sum>,
    /// Objects and their bytes, by the first part of their names.
    pub objects: BTreeMap<String, (u64, u64)>,
}

/// Adds up what is stored; days are those of `zone`.
///
/// # Errors
/// `Failed` if the store cannot be listed, `Damaged`.
pub fn stats(repository: &Repository, zone: &TimeZone) -> Result<StatsReport> {
    repository.load_index(&Silent)?;
    let mut report = StatsReport { objects: repository.usage()?, chunks: repository.chunk_count()?, ..StatsReport::default() };
    report.bytes_deduplicated = repository.chunk_bytes()?;
    report.bytes_stored = report.objects.values().map(|(_, bytes)| bytes).sum();
    for entry in repository.snapshots()? {
        let (snapshot, counts) = (&entry.snapshot, &entry.snapshot.counts);
        let start = jiff::Timestamp::from_nanosecond(snapshot.start.into()).unwrap_or_default();
        report.snapshots += 1;
        report.bytes_raw = report.bytes_raw.saturating_add(counts.bytes);
        let day = start.to_zoned(zone.clone()).date();
        for sum in [report.by_kind.entry(snapshot.kind.clone()).or_default(), report.by_day.entry(day).or_default()] {
            sum.snapshots += 1;
            sum.bytes_raw = sum.bytes_raw.saturating_add(counts.bytes);
            sum.bytes_stored = sum.bytes_stored.saturating_add(counts.bytes_stored);
        }
    }
    Ok(report)
}
