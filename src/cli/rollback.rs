//! What `--accept-rollback` says before the older state is taken for the true one.

use super::text;
use crate::error::{Error, Result};
use crate::format::snapshot::Snapshot;
use crate::id::SnapshotId;
use crate::repo::{LostRecords, Rollback};
use std::io::Write;

/// Tells what is lost, also where little shall be said: it is not told again.
pub(super) fn tell(json: bool, rollback: &Rollback) -> Result<()> {
    let logs = rollback.logs.iter().map(|lost| if json { log_json(lost) } else { log_line(lost) });
    let snapshots = rollback.snapshots.iter().map(|(id, snapshot)| match json {
        true => snapshot_json(id, snapshot.as_ref()),
        false => snapshot_line(id, snapshot.as_ref()),
    });
    let lines: String = logs.chain(snapshots).map(|line| line + "\n").collect();
    let mut out = std::io::stderr().lock();
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).map_err(|error| Error::io("write", "what is lost", error))
}

fn log_line(lost: &LostRecords) -> String {
    let LostRecords { client, seen, .. } = lost;
    match lost.left {
        Some(left) if left < *seen => format!("lost: the log of client {client} ends at record {left}, it was seen up to {seen}"),
        Some(_) => format!("lost: the log of client {client} was seen up to record {seen}, and another one is there now"),
        None => format!("lost: the log of client {client}, which was seen up to record {seen}"),
    }
}

fn snapshot_line(id: &SnapshotId, snapshot: Option<&Snapshot>) -> String {
    let words = snapshot.map(|snapshot| {
        let (host, kind) = (text::printable(snapshot.host.as_bytes()), text::printable(snapshot.kind.as_bytes()));
        format!(", {kind} of {host}, {}", text::time(snapshot.end))
    });
    format!("lost: snapshot {}{}", id.short(), words.unwrap_or_default())
}

fn log_json(lost: &LostRecords) -> String {
    let client = lost.client.to_string();
    serde_json::json!({"event": "rollback", "client": client, "seen": lost.seen, "left": lost.left}).to_string()
}

fn snapshot_json(id: &SnapshotId, snapshot: Option<&Snapshot>) -> String {
    let (host, time) = snapshot.map(|snapshot| (snapshot.host.as_str(), text::json_time(snapshot.end))).unzip();
    serde_json::json!({"event": "rollback", "snapshot": id.to_string(), "host": host, "time": time}).to_string()
}
