//! The stat cache: what a directory's entries looked like when they were last backed up, one packed row for a
//! directory (or for each run of a very large one).
//!
//! Rows belong to an origin, a path that was backed up. They may be believed while the last complete snapshot of that
//! origin is live and nothing was removed from the index since: then every chunk they name is there.

use super::failed;
use super::sums::RowHash;
use crate::error::Result;
use crate::id::SnapshotId;
use rusqlite::{Connection, OptionalExtension, params};

/// One row: entries of a directory.
pub struct StatRow {
    /// Hash of the directory's path below its origin.
    pub path: [u8; 16],
    /// Which run of the directory.
    pub part: u32,
    /// How many runs there are, said with the row that is saved last; 0 with others.
    pub parts: u32,
    /// The entries, as the backup packs them.
    pub entries: Vec<u8>,
}

pub(in crate::repo) fn origin(connection: &Connection, path: &[u8; 32]) -> Result<Option<(i64, SnapshotId, i64)>> {
    let mut statement = connection.prepare_cached("SELECT no, snapshot, epoch FROM origin WHERE path = ?").map_err(failed)?;
    let found = statement.query_row([&path[..]], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)));
    let found: Option<(i64, Vec<u8>, i64)> = found.optional().map_err(failed)?;
    Ok(found.and_then(|(number, snapshot, epoch)| Some((number, SnapshotId::from_slice(&snapshot)?, epoch))))
}

/// The origin's number; made, with no snapshot that could be live, if it is new.
pub(in crate::repo) fn make_origin(connection: &Connection, path: &[u8; 32]) -> Result<i64> {
    let sql = "INSERT INTO origin(path, snapshot, epoch) VALUES(?, zeroblob(32), 0) ON CONFLICT(path) DO NOTHING";
    connection.execute(sql, [&path[..]]).map_err(failed)?;
    connection.query_row("SELECT no FROM origin WHERE path = ?", [&path[..]], |row| row.get(0)).map_err(failed)
}

/// Says that all rows of the origin are what `snapshot` holds.
pub(in crate::repo) fn confirm_origin(connection: &Connection, origin: i64, snapshot: &SnapshotId, epoch: i64) -> Result<()> {
    let values = params![&snapshot.0[..], epoch, origin];
    connection.execute("UPDATE origin SET snapshot = ?, epoch = ? WHERE no = ?", values).map(drop).map_err(failed)
}

/// Says that rows of the origin are being replaced, so that none may be believed until the next confirmation.
pub(in crate::repo) fn doubt_origin(connection: &Connection, origin: i64) -> Result<()> {
    connection.execute("UPDATE origin SET snapshot = zeroblob(32) WHERE no = ?", [origin]).map(drop).map_err(failed)
}

/// Bytes of the hash at the end of each row: what it says of a file is taken over without reading the file.
const CHECK: usize = 8;

pub(super) fn check(origin: i64, path: &[u8], part: i64, entries: &[u8]) -> [u8; CHECK] {
    let mut hash = RowHash::of("directory");
    hash.number(origin);
    hash.bytes(path);
    hash.number(part);
    hash.bytes(entries);
    hash.end().to_le_bytes()
}

/// Takes the hash off the end of a row; false if it is not that of what is left.
pub(super) fn is_sound(origin: i64, path: &[u8], part: i64, row: &mut Vec<u8>) -> bool {
    let found = row.split_last_chunk::<CHECK>().is_some_and(|(entries, end)| check(origin, path, part, entries) == *end);
    row.truncate(row.len().saturating_sub(CHECK));
    found
}

const LOAD: &str = "SELECT part, entries FROM directory WHERE origin = ? AND path = ? ORDER BY part";

/// The rows of a directory; none at all if one of them is not as it was written.
pub(in crate::repo) fn load(connection: &Connection, origin: i64, path: &[u8; 16]) -> Result<Vec<Vec<u8>>> {
    let mut statement = connection.prepare_cached(LOAD).map_err(failed)?;
    let mut rows = statement.query(params![origin, &path[..]]).map_err(failed)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let (part, mut entries): (i64, Vec<u8>) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        if part != found.len() as i64 || !is_sound(origin, path, part, &mut entries) {
            return Ok(Vec::new());
        }
        found.push(entries);
    }
    Ok(found)
}

pub(in crate::repo) fn save(connection: &mut Connection, origin: i64, rows: &mut [StatRow]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    {
        let mut clear =
            transaction.prepare_cached("DELETE FROM directory WHERE origin = ? AND path = ? AND part >= ?").map_err(failed)?;
        let mut insert = transaction
            .prepare_cached("INSERT OR REPLACE INTO directory(origin, path, part, entries) VALUES(?, ?, ?, ?)")
            .map_err(failed)?;
        for row in rows {
            if row.parts > 0 {
                clear.execute(params![origin, &row.path[..], row.parts]).map_err(failed)?;
            }
            let end = check(origin, &row.path, row.part.into(), &row.entries);
            row.entries.extend_from_slice(&end);
            insert.execute(params![origin, &row.path[..], row.part, row.entries]).map_err(failed)?;
        }
    }
    transaction.commit().map_err(failed)
}

/// Removes the rows of directories that are not in `seen`, which is sorted.
pub(in crate::repo) fn retain(connection: &mut Connection, origin: i64, seen: &[[u8; 16]]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    {
        let mut rows = transaction.prepare("SELECT DISTINCT path FROM directory WHERE origin = ?").map_err(failed)?;
        let mut remove = transaction.prepare("DELETE FROM directory WHERE origin = ? AND path = ?").map_err(failed)?;
        let paths = rows.query_map([origin], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
        let gone: Vec<Vec<u8>> = paths
            .filter(|path| path.as_ref().map_or(true, |path| seen.binary_search_by(|known| known[..].cmp(path)).is_err()))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        for path in gone {
            remove.execute(params![origin, path]).map_err(failed)?;
        }
    }
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::StatementStatus;

    #[test]
    fn reading_the_rows_of_another_directory_does_not_plan_the_query_anew() {
        let folder = tempfile::tempdir().unwrap();
        let opened = crate::repo::cache::Cache::open(folder.path()).unwrap();
        for connection in [opened.connection, opened.cache.connect().unwrap()] {
            (0..9).for_each(|number| drop(load(&connection, i64::from(number % 3), &[number; 16]).unwrap()));
            let statement = connection.prepare_cached(LOAD).unwrap();
            assert!(statement.get_status(StatementStatus::Run) >= 9);
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
        }
    }
}
