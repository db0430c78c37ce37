//! Checkpoints of the logs: which one is in force, up to where it speaks of each log, and what the next one has to say.

use super::failed;
use crate::error::Result;
use crate::format::gc::PruneObject;
use crate::format::log::{Head, Machine, PackRef, StandingDeed};
use crate::id::{ClientId, InstanceId, ObjectHash, PackId, SessionId, SnapshotId};
use crate::repo::log::Deed;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::HashSet;

/// Codes of records that stay although they are old, as long as they say something.
const ATTEST: u64 = 11;
const INDEX: u64 = 14;

/// A checkpoint that a plan put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::repo) struct InForce {
    /// The plan's generation.
    pub(in crate::repo) generation: u64,
    /// Its record in the owner's log.
    pub(in crate::repo) seq: u64,
    pub(in crate::repo) hash: ObjectHash,
    /// Up to where it speaks of each log, ascending.
    pub(in crate::repo) heads: Vec<Head>,
}

impl InForce {
    /// What a plan of the owner names, if it names something.
    pub(in crate::repo) fn of(plan: &PruneObject) -> Option<Self> {
        let (seq, hash) = plan.checkpoint?;
        Some(Self { generation: plan.generation, seq, hash, heads: plan.heads.clone() })
    }

    /// Up to where it speaks of a log.
    pub(in crate::repo) fn floor(&self, client: &ClientId) -> Option<&Head> {
        let at = self.heads.binary_search_by_key(client, |head| head.client).ok()?;
        self.heads.get(at)
    }
}

/// Notes what a plan puts in force. The one before stays known, in case that this one turns out to say something else
/// than its plan.
pub(super) fn put_in_force(transaction: &Transaction<'_>, plan: &PruneObject) -> Result<()> {
    let Some((seq, hash)) = plan.checkpoint else { return Ok(()) };
    let generation = plan.generation.cast_signed();
    let before = "DELETE FROM floor WHERE generation < (SELECT max(generation) FROM prune WHERE checkpoint IS NOT NULL)";
    transaction.execute(before, []).map_err(failed)?;
    let sql = "UPDATE prune SET checkpoint_seq = ?, checkpoint = ? WHERE generation = ?";
    transaction.execute(sql, params![seq.cast_signed(), &hash.0[..], generation]).map_err(failed)?;
    let sql = "INSERT OR REPLACE INTO floor(generation, client, seq, hash) VALUES(?, ?, ?, ?)";
    let mut insert = transaction.prepare_cached(sql).map_err(failed)?;
    for head in &plan.heads {
        insert.execute(params![generation, &head.client.0[..], head.seq.cast_signed(), &head.hash.0[..]]).map_err(failed)?;
    }
    Ok(())
}

/// Forgets a checkpoint that says something else than its plan: the plan is one without.
pub(in crate::repo) fn dismiss(connection: &Connection, generation: u64) -> Result<()> {
    let sql = "UPDATE prune SET checkpoint = NULL, checkpoint_seq = NULL WHERE generation = ?";
    connection
        .execute(sql, [generation.cast_signed()])
        .and_then(|_| connection.execute("DELETE FROM floor WHERE generation = ?", [generation.cast_signed()]))
        .map(drop)
        .map_err(failed)
}

const NEWEST: &str = "(SELECT max(generation) FROM prune WHERE checkpoint IS NOT NULL)";

fn head(row: &Row<'_>) -> rusqlite::Result<Option<Head>> {
    let (client, hash): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(2)?);
    let seq = row.get::<_, i64>(1)?.cast_unsigned();
    Ok(ClientId::from_slice(&client).zip(ObjectHash::from_slice(&hash)).map(|(client, hash)| Head { client, seq, hash }))
}

fn all_heads(connection: &Connection, sql: &str) -> Result<Vec<Head>> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map([], head).map_err(failed)?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>().map_err(failed)?;
    Ok(rows.into_iter().flatten().collect())
}

/// The checkpoint in force.
pub(in crate::repo) fn in_force(connection: &Connection) -> Result<Option<InForce>> {
    let sql = format!("SELECT generation, checkpoint_seq, checkpoint FROM prune WHERE generation = {NEWEST}");
    let found = connection.query_row(&sql, [], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, Vec<u8>>(2)?))
    });
    let Some((generation, seq, hash)) = found.optional().map_err(failed)? else { return Ok(None) };
    let heads =
        all_heads(connection, &format!("SELECT client, seq, hash FROM floor WHERE generation = {NEWEST} ORDER BY client"))?;
    Ok(ObjectHash::from_slice(&hash).map(|hash| InForce { generation, seq, hash, heads }))
}

/// The floor of a log: up to where the checkpoint in force speaks of it.
pub(in crate::repo) fn floor(connection: &Connection, client: &ClientId) -> Result<Option<Head>> {
    let sql = format!("SELECT client, seq, hash FROM floor WHERE generation = {NEWEST} AND client = ?");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    statement.query_row([&client.0[..]], head).optional().map(Option::flatten).map_err(failed)
}

/// Floors of logs that were not read as far; with `surely`, not before it was known that nothing of them had been deleted.
pub(in crate::repo) fn not_reached(connection: &Connection, surely: bool) -> Result<Vec<Head>> {
    let read = if surely { "sure" } else { "seq" };
    let sql = format!(
        "SELECT f.client, f.seq, f.hash FROM floor f LEFT JOIN head h ON h.client = f.client
         WHERE f.generation = {NEWEST} AND (h.seq IS NULL OR h.{read} < f.seq)"
    );
    all_heads(connection, &sql)
}

/// Notes that logs were read as far as `heads` before anything of them could have been deleted: plans were read since, and none
/// cut them off. Else a place may have been freed and taken again, and the record there says nothing.
pub(in crate::repo) fn confirm(connection: &Connection, heads: &[Head]) -> Result<()> {
    let unsure = connection.prepare_cached("SELECT 1 FROM head WHERE sure <> seq LIMIT 1").and_then(|mut any| any.exists([]));
    if !unsure.map_err(failed)? {
        return Ok(());
    }
    let sql = "UPDATE head SET sure = ?2 WHERE client = ?1 AND sure <> ?2 AND seq >= ?2";
    let mut update = connection.prepare_cached(sql).map_err(failed)?;
    heads
        .iter()
        .try_for_each(|head| update.execute(params![&head.client.0[..], head.seq.cast_signed()]).map(drop).map_err(failed))
}

/// The generation whose checkpoint the cache was made from; 0 if it was made from records alone.
pub(in crate::repo) fn adopted(connection: &Connection) -> Result<u64> {
    let found = connection.query_row("SELECT value FROM meta WHERE key = 'adopted'", [], |row| row.get::<_, i64>(0));
    found.optional().map(|generation| generation.map_or(0, i64::cast_unsigned)).map_err(failed)
}

/// Notes that a snapshot was pruned.
pub(in crate::repo) fn note_pruned(connection: &Connection, id: &SnapshotId) -> Result<()> {
    let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO pruned(id) VALUES(?)").map_err(failed)?;
    insert.execute([&id.0[..]]).map(drop).map_err(failed)
}

/// Notes a record that stays where it is.
pub(in crate::repo) fn note_lasting(transaction: &Transaction<'_>, record: &Head, kind: u64) -> Result<()> {
    let values = params![&record.client.0[..], record.seq.cast_signed(), &record.hash.0[..], kind.cast_signed()];
    let sql = "INSERT OR REPLACE INTO lasting(client, seq, hash, kind) VALUES(?, ?, ?, ?)";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// Records that have to stay: those that say who takes part and what is lost, and those that vouch for packs or name index
/// objects that are there still; ascending.
pub(in crate::repo) fn staying(connection: &Connection) -> Result<Vec<Head>> {
    let sql = format!(
        "SELECT client, seq, hash FROM lasting l WHERE kind NOT IN ({ATTEST}, {INDEX})
         OR kind = {ATTEST} AND (client, seq) IN (SELECT client, seq FROM attested WHERE pack NOT IN (SELECT pack FROM gone))
         OR kind = {INDEX} AND (client, seq) IN
            (SELECT client, seq FROM shard_set s
             WHERE NOT EXISTS(SELECT 1 FROM shard JOIN gone ON gone.pack = shard.id WHERE shard.no = s.no))
         ORDER BY client, seq"
    );
    all_heads(connection, &sql)
}

/// How many records of the logs are above the floors and will not stay.
pub(in crate::repo) fn superfluous(connection: &Connection) -> Result<u64> {
    let sql = format!(
        "SELECT ifnull(sum(h.seq - ifnull(f.seq, 0)), 0) -
            (SELECT count(*) FROM lasting l LEFT JOIN floor b ON b.client = l.client AND b.generation = {NEWEST}
             WHERE l.seq > ifnull(b.seq, 0))
         FROM head h LEFT JOIN floor f ON f.client = h.client AND f.generation = {NEWEST}"
    );
    let count: i64 = connection.query_row(&sql, [], |row| row.get(0)).map_err(failed)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Calls `each` for every pack that is listed, by client, those first that claims alone list.
pub(in crate::repo) fn each_listed(
    connection: &Connection,
    mut each: impl FnMut(ClientId, bool, PackRef) -> Result<()>,
) -> Result<()> {
    let sql = "SELECT client, committed, id, size, toc_len FROM pack WHERE client IS NOT NULL
               UNION ALL SELECT client, committed, pack, size, toc_len FROM unread ORDER BY 1, 2, 3";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let (client, id): (Vec<u8>, Vec<u8>) = (row.get(0).map_err(failed)?, row.get(2).map_err(failed)?);
        let size: i64 = row.get(3).map_err(failed)?;
        if let (Some(client), Some(id)) = (ClientId::from_slice(&client), PackId::from_slice(&id)) {
            let pack = PackRef { id, size: size.cast_unsigned(), toc_len: row.get(4).map_err(failed)? };
            each(client, row.get(1).map_err(failed)?, pack)?;
        }
    }
    Ok(())
}

/// Which client made which session, of those in `used`; by client.
pub(in crate::repo) fn sessions(connection: &Connection, used: &HashSet<SessionId>) -> Result<Vec<(ClientId, SessionId)>> {
    let mut statement = connection.prepare("SELECT client, id FROM session ORDER BY client, id").map_err(failed)?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))).map_err(failed)?;
    let mut found = Vec::new();
    for row in rows {
        let (client, session) = row.map_err(failed)?;
        found.extend(ClientId::from_slice(&client).zip(SessionId::from_slice(&session)));
    }
    found.retain(|(_, session)| used.contains(session));
    Ok(found)
}

/// The machines that wrote to logs, ascending.
pub(in crate::repo) fn machines(connection: &Connection) -> Result<Vec<Machine>> {
    let mut statement = connection.prepare("SELECT client, id, first, last FROM instance ORDER BY client, id").map_err(failed)?;
    let rows = statement.query_map([], |row| {
        let (client, id): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (first, last) = (row.get::<_, i64>(2)?.cast_unsigned(), row.get::<_, i64>(3)?.cast_unsigned());
        let ids = ClientId::from_slice(&client).zip(InstanceId::from_slice(&id));
        Ok(ids.map(|(client, instance)| Machine { client, instance, first, last }))
    });
    let rows = rows.map_err(failed)?.collect::<rusqlite::Result<Vec<_>>>().map_err(failed)?;
    Ok(rows.into_iter().flatten().collect())
}

/// Notes which machine wrote to a log.
pub(in crate::repo) fn add_machine(transaction: &Transaction<'_>, machine: &Machine) -> Result<()> {
    super::members::add_instance(transaction, &machine.client, &machine.instance, machine.first)?;
    super::members::add_instance(transaction, &machine.client, &machine.instance, machine.last)
}

/// Snapshots that were pruned and of which a pack has a copy.
pub(in crate::repo) fn pruned(connection: &Connection) -> Result<Vec<SnapshotId>> {
    let sql = "SELECT id FROM pruned WHERE substr(id, 1, 16) IN (SELECT id FROM chunk) ORDER BY id";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>().map_err(failed)?;
    Ok(rows.iter().filter_map(|id| SnapshotId::from_slice(id)).collect())
}

/// Forgets what was read of logs, so that a checkpoint can take its place: some of it may have been read where places had
/// been freed. What packs hold stays, and so does what prunes said, and what this machine remembers of its own snapshots.
pub(in crate::repo) fn begin_anew(transaction: &Transaction<'_>) -> Result<()> {
    transaction
        .execute_batch(
            "CREATE TEMP TABLE body AS SELECT client, seq, id, body FROM snapshot WHERE body IS NOT NULL;
             DELETE FROM head; DELETE FROM client; DELETE FROM instance; DELETE FROM snapshot; DELETE FROM session;
             DELETE FROM attested; DELETE FROM judgement; DELETE FROM slot; DELETE FROM unread; DELETE FROM shard;
             DELETE FROM shard_set; DELETE FROM shard_pack; DELETE FROM lasting; UPDATE pack SET client = NULL, committed = 0;
             DELETE FROM meta WHERE key GLOB 'nothing-in *';",
        )
        .map_err(failed)?;
    super::prune::raise_epoch(transaction)
}

/// Takes in what a checkpoint says was done to snapshots and how far it speaks of each log, with the time of the last
/// record there, and ends what [`begin_anew`] began.
pub(in crate::repo) fn adopt(
    transaction: &Transaction<'_>,
    generation: u64,
    reached: &[(Head, Option<i64>)],
    deeds: &[StandingDeed],
) -> Result<()> {
    for deed in deeds {
        let kind = if deed.hold { Deed::Hold } else { Deed::Forget };
        super::log::add_judgements(transaction, (deed.by, kind), &[], &[deed.snapshot], &deed.reason)?;
    }
    for (head, time) in reached {
        super::log::set_head(transaction, head, generation, *time)?;
    }
    transaction.execute("UPDATE head SET sure = seq WHERE sure <> seq", []).map_err(failed)?;
    let sql = "INSERT INTO meta(key, value) VALUES('adopted', ?1) ON CONFLICT(key) DO UPDATE SET value = ?1";
    transaction.execute(sql, [generation.cast_signed()]).map_err(failed)?;
    transaction
        .execute_batch(
            "UPDATE snapshot SET body = (SELECT b.body FROM body b WHERE b.client = snapshot.client AND b.seq = snapshot.seq
                                         AND b.id = snapshot.id) WHERE body IS NULL;
             DROP TABLE body;",
        )
        .map_err(failed)
}
