//! Snapshots with times of one's own choice, as a wrong clock or a liar would make them.

use lifeboat::format::snapshot::Snapshot;
use lifeboat::id::SnapshotId;
use lifeboat::repo::{Repository, Session};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Nanoseconds since 1970 of a time as in RFC 3339.
pub fn nanos(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_nanosecond().try_into().unwrap()
}

/// Commits a snapshot that says it ended at `end`, with the tree of the newest one there is and otherwise as `change`
/// makes it.
pub fn claim(repository: &Repository, end: &str, change: impl FnOnce(&mut Snapshot)) -> SnapshotId {
    let last = repository.snapshots().unwrap().pop().unwrap().snapshot;
    let session = Session::start(repository, false).unwrap();
    let writer = session.writer().unwrap();
    let mut snapshot = Snapshot { start: nanos(end), end: nanos(end), tags: Vec::new(), incomplete: false, ..last };
    change(&mut snapshot);
    session.commit(writer, |_| snapshot).unwrap().unwrap().0
}

/// The same, and the store has it since then, too.
pub fn plant(repository: &Repository, dir: &Path, end: &str, change: impl FnOnce(&mut Snapshot)) -> SnapshotId {
    let id = claim(repository, end, change);
    let entry = repository.snapshots().unwrap().into_iter().find(|entry| entry.id == id).unwrap();
    let record = dir.join(format!("log/{}/{:016x}", entry.client, entry.seq));
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos(end).cast_unsigned());
    std::fs::File::open(record).unwrap().set_modified(time).unwrap();
    id
}
