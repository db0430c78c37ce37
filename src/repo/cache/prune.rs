//! Prunes: which generations there were, what they condemned, and what they deleted.

use super::damage::delete_some;
use super::failed;
use super::log::seen;
use crate::error::Result;
use crate::format::gc::PruneObject;
use crate::id::{ObjectHash, PackId};
use crate::repo::log::Seen;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::HashSet;

/// Rows of the index that are looked at by one statement.
const PIECE: u32 = 1 << 18;

/// The newest generation of which a condemn object was read; 0 if there was none.
pub(in crate::repo) fn generation(connection: &Connection) -> Result<u64> {
    let found: i64 =
        connection.query_row("SELECT ifnull(max(generation), 0) FROM prune", [], |row| row.get(0)).map_err(failed)?;
    Ok(found.cast_unsigned())
}

/// A generation as it was read.
#[derive(PartialEq, Eq)]
pub(in crate::repo) struct PruneRow {
    pub(in crate::repo) generation: u64,
    /// Hash of the condemn object; `None` if it is void and condemned nothing.
    pub(in crate::repo) condemn: Option<ObjectHash>,
    /// Hash of the plan, once there is one.
    pub(in crate::repo) plan: Option<ObjectHash>,
}

/// The newest generation.
pub(in crate::repo) fn newest(connection: &Connection) -> Result<Option<PruneRow>> {
    let sql = "SELECT generation, condemn, plan FROM prune ORDER BY generation DESC LIMIT 1";
    let found = connection.query_row(sql, [], prune_row);
    found.optional().map_err(failed)
}

/// Takes in a condemn object: from now on nothing is borrowed from these packs. Void objects condemn nothing, and need
/// no plan.
pub(in crate::repo) fn condemn(
    transaction: &Transaction<'_>,
    generation: u64,
    object: Option<(ObjectHash, &PruneObject)>,
) -> Result<()> {
    let (hash, client) = object.map(|(hash, object)| (hash.0.to_vec(), object.client.0.to_vec())).unzip();
    let sql = "INSERT OR IGNORE INTO prune(generation, condemn, client) VALUES(?, ?, ?)";
    transaction.execute(sql, params![generation.cast_signed(), hash, client]).map_err(failed)?;
    let packs = object.map_or(&[][..], |(_, object)| object.packs.as_slice());
    {
        let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO condemned(pack) VALUES(?)").map_err(failed)?;
        for pack in packs {
            insert.execute([&pack.0[..]]).map_err(failed)?;
        }
    }
    let sql = "UPDATE pack SET condemned = 1 WHERE id IN (SELECT pack FROM condemned)";
    // Index objects are condemned too; nothing that is borrowed lies in them.
    if transaction.execute(sql, []).map_err(failed)? > 0 {
        raise_epoch(transaction)?;
    }
    Ok(())
}

/// Takes in the plan of a generation: its packs are gone, and what it spared may be borrowed again.
pub(in crate::repo) fn plan(
    transaction: &Transaction<'_>,
    generation: u64,
    hash: &ObjectHash,
    object: Option<&PruneObject>,
) -> Result<()> {
    let (heads, packs) = object.map_or((&[][..], &[][..]), |object| (object.heads.as_slice(), object.packs.as_slice()));
    if let Some(object) = object {
        super::checkpoint::put_in_force(transaction, object)?;
    }
    let planner = object.map(|object| object.client.0.to_vec());
    let seen: Vec<u8> = heads.iter().flat_map(|head| [&head.client.0[..], &head.seq.to_be_bytes()].concat()).collect();
    let values = params![&hash.0[..], planner, seen, generation.cast_signed()];
    transaction.execute("UPDATE prune SET plan = ?, planner = ?, heads = ? WHERE generation = ?", values).map_err(failed)?;
    {
        let mut gone = transaction.prepare_cached("INSERT OR IGNORE INTO gone(pack) VALUES(?)").map_err(failed)?;
        for pack in packs {
            gone.execute([&pack.0[..]]).map_err(failed)?;
        }
    }
    let removed: i64 = transaction
        .query_row("SELECT count(*) FROM pack WHERE id IN (SELECT pack FROM gone)", [], |row| row.get(0))
        .map_err(failed)?;
    if removed > 0 {
        drop_chunks(transaction)?;
        delete_some(transaction, "lost", "pack IN (SELECT no FROM pack WHERE id IN (SELECT pack FROM gone))", [])?;
        delete_some(transaction, "bad", "pack IN (SELECT pack FROM gone)", [])?;
        transaction
            .execute_batch(
                "DELETE FROM verified WHERE pack IN (SELECT pack FROM gone);
                 DELETE FROM pack WHERE id IN (SELECT pack FROM gone);",
            )
            .map_err(failed)?;
        raise_epoch(transaction)?;
    }
    super::shards::drop_gone(transaction)?;
    transaction.execute("DELETE FROM unread WHERE pack IN (SELECT pack FROM gone)", []).map_err(failed)?;
    transaction.execute_batch("DELETE FROM condemned; UPDATE pack SET condemned = 0 WHERE condemned = 1").map_err(failed)
}

/// Deletes the chunks of packs that are gone: one pass over the index, whatever the number of packs, in pieces, because SQLite
/// keeps in memory which rows a statement is to delete.
fn drop_chunks(transaction: &Transaction<'_>) -> Result<()> {
    let gone = "pack IN (SELECT no FROM pack WHERE id IN (SELECT pack FROM gone))";
    let mut end = transaction.prepare("SELECT id FROM chunk WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?").map_err(failed)?;
    let mut piece = transaction.prepare(&format!("DELETE FROM chunk WHERE id >= ? AND id < ? AND {gone}")).map_err(failed)?;
    let mut from: Vec<u8> = Vec::new();
    while let Some(until) = end.query_row(params![from, PIECE], |row| row.get::<_, Vec<u8>>(0)).optional().map_err(failed)? {
        piece.execute([&from, &until]).map_err(failed)?;
        from = until;
    }
    let rest = format!("DELETE FROM chunk WHERE id >= ? AND {gone}");
    transaction.execute(&rest, [&from]).map(drop).map_err(failed)
}

/// All generations.
pub(in crate::repo) fn all(connection: &Connection) -> Result<Vec<PruneRow>> {
    let mut statement =
        connection.prepare_cached("SELECT generation, condemn, plan FROM prune ORDER BY generation").map_err(failed)?;
    let rows = statement.query_map([], prune_row).map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

fn prune_row(row: &Row<'_>) -> rusqlite::Result<PruneRow> {
    let hash = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| ObjectHash::from_slice(&bytes));
    Ok(PruneRow { generation: row.get::<_, i64>(0)?.cast_unsigned(), condemn: hash(row.get(1)?), plan: hash(row.get(2)?) })
}

/// What each published plan after a generation had seen of the logs.
pub(in crate::repo) fn plans(connection: &Connection, after: u64) -> Result<Vec<Seen>> {
    let sql = "SELECT heads FROM prune WHERE plan IS NOT NULL AND generation > ?";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map([after.cast_signed()], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    rows.map(|row| row.map(|bytes| seen(&bytes)).map_err(failed)).collect()
}

/// The same for the plans by which snapshots can be judged: all that they had seen was read. Before that, a record which takes
/// a forget back may be missing. What plans saw up to the checkpoint that was adopted is in it.
pub(in crate::repo) fn plans_within_sight(connection: &Connection) -> Result<Vec<Seen>> {
    let known: Seen = super::log::heads(connection)?.into_iter().map(|head| (head.client, head.seq)).collect();
    let mut plans = plans(connection, super::checkpoint::adopted(connection)?)?;
    plans.retain(|plan| plan.iter().all(|(client, seq)| known.get(client).is_some_and(|known| known >= seq)));
    Ok(plans)
}

/// The packs that the newest generation condemned, while its plan is not there.
pub(in crate::repo) fn condemned(connection: &Connection) -> Result<HashSet<PackId>> {
    ids(connection, "SELECT pack FROM condemned")
}

/// The packs that plans listed.
pub(in crate::repo) fn gone(connection: &Connection) -> Result<HashSet<PackId>> {
    ids(connection, "SELECT pack FROM gone")
}

fn ids(connection: &Connection, sql: &str) -> Result<HashSet<PackId>> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    let mut found = HashSet::new();
    for row in rows {
        found.extend(PackId::from_slice(&row.map_err(failed)?));
    }
    Ok(found)
}

/// True if a plan listed the pack.
pub(in crate::repo) fn is_gone(connection: &Connection, pack: &PackId) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM gone WHERE pack = ?").map_err(failed)?;
    statement.exists([&pack.0[..]]).map_err(failed)
}

/// What was known of the index must be looked up again.
pub(super) fn raise_epoch(transaction: &Transaction<'_>) -> Result<()> {
    let sql = "INSERT INTO meta(key, value) VALUES('epoch', 1) ON CONFLICT(key) DO UPDATE SET value = value + 1";
    transaction.execute(sql, []).map(drop).map_err(failed)
}
