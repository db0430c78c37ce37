//! What is known to be damaged: what the log says is lost, and what checks on this machine found.

use super::failed;
use super::sums::RowHash;
use crate::error::Result;
use crate::id::{ChunkPrefix, PackId, SnapshotId};
use rusqlite::{Connection, OptionalExtension, Params, Transaction, params};
use std::collections::HashSet;

/// Rows of what is lost or cannot be read that are worked on at once.
const AT_ONCE: u32 = 10_000;

/// Takes in what a record says is lost: in `packs`, all chunks, or those of `chunks` if there are any.
pub(in crate::repo) fn tell_lost(transaction: &Transaction<'_>, packs: &[PackId], chunks: &[ChunkPrefix]) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO told_lost(pack, chunk) VALUES(?, ?)";
    let mut insert = transaction.prepare_cached(sql).map_err(failed)?;
    for pack in packs {
        if chunks.is_empty() {
            insert.execute(params![&pack.0[..], &[0u8; 0][..]]).map_err(failed)?;
        }
        for chunk in chunks {
            insert.execute(params![&pack.0[..], &chunk[..]]).map_err(failed)?;
        }
        match chunks.is_empty() {
            true => note_lost(transaction, pack, &[0; 0])?,
            false => chunks.iter().try_for_each(|chunk| note_lost(transaction, pack, chunk))?,
        }
    }
    // Whoever took something over without looking it up has to look.
    super::prune::raise_epoch(transaction)
}

/// Makes what was told of a chunk, or without a name of all of a pack, count for the pack's rows in the index.
fn note_lost(connection: &Connection, pack: &PackId, chunk: &[u8]) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO lost(pack, chunk) SELECT no, ? FROM pack WHERE id = ?";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.execute(params![chunk, &pack.0[..]]).map(drop).map_err(failed)
}

/// Makes all that was told of a pack count for its rows in the index. It may be more than fits into memory, where SQLite
/// would put it.
pub(in crate::repo) fn resolve(connection: &Connection, pack: &PackId) -> Result<()> {
    let sql = "SELECT chunk FROM told_lost WHERE pack = ? AND chunk > ? ORDER BY chunk LIMIT ?";
    let mut next = connection.prepare_cached(sql).map_err(failed)?;
    if is_told(connection, pack, None)? {
        note_lost(connection, pack, &[0; 0])?;
    }
    let mut last: Vec<u8> = Vec::new();
    loop {
        let rows = next.query_map(params![&pack.0[..], last, AT_ONCE], |row| row.get(0)).map_err(failed)?;
        let chunks: Vec<Vec<u8>> = rows.collect::<Result<_, _>>().map_err(failed)?;
        chunks.iter().try_for_each(|chunk| note_lost(connection, pack, chunk))?;
        let Some(chunk) = chunks.into_iter().next_back() else { return Ok(()) };
        last = chunk;
    }
}

/// Deletes from a table whose key is the pack and a chunk what `condition` says, some rows after the others: SQLite keeps in
/// memory which rows a statement is to delete.
pub(super) fn delete_some(connection: &Connection, table: &str, condition: &str, values: impl Params + Copy) -> Result<()> {
    let rows = format!("SELECT pack, chunk FROM {table} WHERE {condition} LIMIT {AT_ONCE}");
    let sql = format!("DELETE FROM {table} WHERE (pack, chunk) IN ({rows})");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    while statement.execute(values).map_err(failed)? > 0 {}
    Ok(())
}

/// True if the log says already that a chunk of the pack, or without one all of it, is lost.
pub(in crate::repo) fn is_told(connection: &Connection, pack: &PackId, chunk: Option<&ChunkPrefix>) -> Result<bool> {
    let sql = "SELECT 1 FROM told_lost WHERE pack = ? AND chunk IN (?, x'')";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let chunk = chunk.map_or(&[][..], |chunk| &chunk[..]);
    statement.exists(params![&pack.0[..], chunk]).map_err(failed)
}

/// Calls `each` with every pack that was found whole in every byte, and when it last was, nanoseconds since 1970.
pub(in crate::repo) fn each_verified(connection: &Connection, each: &mut dyn FnMut(&PackId, i64) -> Result<()>) -> Result<()> {
    let mut statement = connection.prepare_cached("SELECT pack, time FROM verified").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let (pack, time): (Vec<u8>, i64) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        if let Some(pack) = PackId::from_slice(&pack) {
            each(&pack, time)?;
        }
    }
    Ok(())
}

/// Hash of a row: it outlives the table that it is in.
pub(super) fn verified_sum(pack: &[u8], time: i64) -> i64 {
    let mut hash = RowHash::of("verified");
    hash.bytes(pack);
    hash.number(time);
    hash.end()
}

/// Notes what was found of a pack: `time`, if every byte was read and all of it is whole, and the chunks that cannot be
/// read; one without a name stands for all of them. What was known before goes only if all of it was `read`.
pub(in crate::repo) fn note_read(
    connection: &mut Connection,
    pack: &PackId,
    (read, time): (bool, Option<i64>),
    bad: &mut dyn Iterator<Item = Option<&ChunkPrefix>>,
) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    if read {
        delete_some(&transaction, "bad", "pack = ?", [&pack.0[..]])?;
    }
    match time {
        Some(time) => {
            let sql = "INSERT OR REPLACE INTO verified(pack, time, sum) VALUES(?, ?, ?)";
            transaction.execute(sql, params![&pack.0[..], time, verified_sum(&pack.0, time)]).map_err(failed)?;
        }
        None => drop(transaction.execute("DELETE FROM verified WHERE pack = ?", [&pack.0[..]]).map_err(failed)?),
    }
    {
        let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO bad(pack, chunk) VALUES(?, ?)").map_err(failed)?;
        for chunk in bad {
            let chunk = chunk.map_or(&[][..], |chunk| &chunk[..]);
            insert.execute(params![&pack.0[..], chunk]).map_err(failed)?;
        }
    }
    transaction.commit().map_err(failed)
}

/// True if a check could read nothing of a pack.
pub(in crate::repo) fn is_wholly_bad(connection: &Connection, pack: &PackId) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM bad WHERE pack = ? AND chunk = x''").map_err(failed)?;
    statement.exists([&pack.0[..]]).map_err(failed)
}

/// Forgets that all of a pack was found unreadable.
pub(in crate::repo) fn forget_whole(connection: &Connection, pack: &PackId) -> Result<()> {
    connection.execute("DELETE FROM bad WHERE pack = ? AND chunk = x''", [&pack.0[..]]).map(drop).map_err(failed)
}

/// Numbers of the packs of which a check found something unreadable.
pub(in crate::repo) fn bad(connection: &Connection) -> Result<HashSet<u32>> {
    // Not with IN: what cannot be read may be more than fits into memory, where SQLite would put it.
    let sql = "SELECT no FROM pack WHERE EXISTS(SELECT 1 FROM bad WHERE bad.pack = pack.id)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

/// Notes which snapshots cannot be restored whole, in place of what was noted before.
pub(in crate::repo) fn set_damaged(connection: &mut Connection, damaged: &[(SnapshotId, u64)]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    transaction.execute("DELETE FROM damaged", []).map_err(failed)?;
    for (snapshot, files) in damaged {
        let values = params![&snapshot.0[..], files.cast_signed()];
        transaction.execute("INSERT OR REPLACE INTO damaged(snapshot, files) VALUES(?, ?)", values).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// How many files and directories of the snapshot the last check found damaged.
pub(in crate::repo) fn damaged(connection: &Connection, snapshot: &SnapshotId) -> Result<u64> {
    let mut statement = connection.prepare_cached("SELECT files FROM damaged WHERE snapshot = ?").map_err(failed)?;
    let found: Option<i64> = statement.query_row([&snapshot.0[..]], |row| row.get(0)).optional().map_err(failed)?;
    Ok(found.map_or(0, i64::cast_unsigned))
}
