//! Clients that the owner's log enrolled, and the machines that use their identities.

use super::{damaged, failed};
use crate::crypto::sign::client_id;
use crate::error::{Error, Result};
use crate::format::key::Role;
use crate::id::{ClientId, InstanceId, SlotId};
use crate::repo::log::Member;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

fn member(row: &Row<'_>) -> rusqlite::Result<Option<Member>> {
    let (public, role, name): (Vec<u8>, u8, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (trusted, last, base): (Vec<u8>, Option<i64>, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let (ended, first_slot, slot): (Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(6)?, row.get(7)?, row.get(8)?);
    let (Ok(public), Some(role)) = (<[u8; 32]>::try_from(public.as_slice()), Role::from_code(role)) else { return Ok(None) };
    let id_of = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| SlotId::from_slice(&bytes));
    Ok(Some(Member {
        id: client_id(&public),
        public,
        role,
        name,
        trusted: trusted.as_chunks::<16>().0.iter().map(|id| ClientId(*id)).collect(),
        last: last.map(i64::cast_unsigned),
        ended: ended.map(i64::cast_unsigned),
        base: base.cast_unsigned(),
        first_slot: id_of(first_slot),
        slot: id_of(slot),
    }))
}

const COLUMNS: &str = "SELECT public, role, name, trusted, last, base, ended, first_slot, slot FROM client";

fn wrong_row() -> Error {
    damaged("a client's row is damaged")
}

/// All but the owner, in the order of their enrolment.
pub(in crate::repo) fn all(connection: &Connection) -> Result<Vec<Member>> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} ORDER BY seq")).map_err(failed)?;
    let rows = statement.query_map([], member).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?.ok_or_else(wrong_row)).collect()
}

/// The client of this id, who is not the owner.
pub(in crate::repo) fn find(connection: &Connection, id: &ClientId) -> Result<Option<Member>> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE id = ?")).map_err(failed)?;
    let found = statement.query_row([&id.0[..]], member).optional().map_err(failed)?;
    found.map(|row| row.ok_or_else(wrong_row)).transpose()
}

/// Enrols a client; one that is enrolled again keeps its base and its first slot, and stays revoked if it was.
pub(in crate::repo) fn enrol(transaction: &Transaction<'_>, member: &Member, seq: u64) -> Result<()> {
    let trusted: Vec<u8> = member.trusted.iter().flat_map(|id| id.0).collect();
    let slot = member.slot.map(|slot| slot.0.to_vec());
    let values = params![
        &member.id.0[..],
        &member.public[..],
        member.role.code(),
        member.name,
        trusted,
        member.base.cast_signed(),
        seq.cast_signed(),
        slot
    ];
    let sql = "INSERT INTO client(id, public, role, name, trusted, last, base, seq, first_slot, slot)
               VALUES(?1, ?2, ?3, ?4, ?5, NULL, ?6, ?7, ?8, ?8)
               ON CONFLICT(id) DO UPDATE SET role = excluded.role, name = excluded.name, trusted = excluded.trusted,
                                             slot = excluded.slot";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// Ends a client's part after its record `last`; what it wrote later counts no more, nor do its prunes after the prune
/// generation `ended`. A revocation is never undone.
pub(in crate::repo) fn revoke(transaction: &Transaction<'_>, client: &ClientId, last: u64, ended: u64) -> Result<()> {
    super::shards::revoke(transaction, &client.0, last.cast_signed())?;
    let values = params![&client.0[..], last.cast_signed()];
    let until = params![&client.0[..], last.cast_signed(), ended.cast_signed()];
    let sql = "UPDATE client SET last = min(ifnull(last, ?2), ?2), ended = min(ifnull(ended, ?3), ?3) WHERE id = ?1";
    transaction
        .execute(sql, until)
        .and_then(|_| transaction.execute("DELETE FROM snapshot WHERE client = ?1 AND seq > ?2", values))
        .and_then(|_| transaction.execute("DELETE FROM judgement WHERE client = ?1 AND seq > ?2", values))
        .and_then(|_| transaction.execute("DELETE FROM attested WHERE client = ?1 AND seq > ?2", values))
        .map_err(failed)?;
    // Prunes and fences beyond were taken in while they counted. If there are any, all is judged again from the start.
    let sql = "INSERT INTO meta(key, value)
               SELECT 'anew', 1 WHERE EXISTS(SELECT 1 FROM prune WHERE (client = ?1 OR planner = ?1) AND generation > ?2)
               OR EXISTS(SELECT 1 FROM fenced WHERE client = ?1 AND generation > ?2) ON CONFLICT(key) DO NOTHING";
    transaction.execute(sql, params![&client.0[..], ended.cast_signed()]).map_err(failed)?;
    // What others stored on the word of this client must be looked up again.
    super::prune::raise_epoch(transaction)
}

/// Notes which machine wrote the record at `seq`.
pub(in crate::repo) fn add_instance(transaction: &Transaction<'_>, client: &ClientId, id: &InstanceId, seq: u64) -> Result<()> {
    let values = params![&client.0[..], &id.0[..], seq.cast_signed()];
    let sql = "INSERT INTO instance(client, id, first, last) VALUES(?1, ?2, ?3, ?3)
               ON CONFLICT(client, id) DO UPDATE SET last = max(last, ?3)";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// The newest record of the log that another machine wrote after this one had begun to, if it was not told of before.
pub(in crate::repo) fn news_of_others(connection: &Connection, client: &ClientId, own: &InstanceId) -> Result<Option<u64>> {
    let sql = "SELECT max(b.last) FROM instance a, instance b WHERE a.client = ?1 AND a.id = ?2 AND b.client = ?1 AND b.id <> ?2
               AND b.last > a.first AND b.last > ifnull((SELECT value FROM meta WHERE key = 'told'), -1)";
    let found: Option<i64> = connection.query_row(sql, params![&client.0[..], &own.0[..]], |row| row.get(0)).map_err(failed)?;
    Ok(found.map(i64::cast_unsigned))
}

/// Notes that the user was told of another machine's record.
pub(in crate::repo) fn note_told(connection: &Connection, seq: u64) -> Result<()> {
    let sql = "INSERT INTO meta(key, value) VALUES('told', ?1) ON CONFLICT(key) DO UPDATE SET value = ?1";
    connection.execute(sql, [seq.cast_signed()]).map(drop).map_err(failed)
}

/// How many machines wrote to the log in turns: more than one if the identity is used from several at once. A machine
/// that took over from another one is not counted.
pub(in crate::repo) fn machines(connection: &Connection, client: &ClientId) -> Result<u64> {
    let sql = "SELECT count(*) FROM instance a WHERE client = ?1 AND EXISTS(SELECT 1 FROM instance b
               WHERE b.client = ?1 AND b.id <> a.id AND a.first <= b.last AND b.first <= a.last)";
    let count: i64 = connection.query_row(sql, [&client.0[..]], |row| row.get(0)).map_err(failed)?;
    Ok(count.cast_unsigned().max(1))
}

/// Notes that the record at `seq` is of a kind that this version does not know.
pub(in crate::repo) fn note_unknown(transaction: &Transaction<'_>, client: &ClientId, seq: u64) -> Result<()> {
    let values = params![seq.cast_signed(), &client.0[..]];
    let sql = "UPDATE head SET unknown = ifnull(unknown, ?1) WHERE client = ?2";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// The first record of a log that this version does not know.
pub(in crate::repo) fn unknown(connection: &Connection, client: &ClientId) -> Result<Option<u64>> {
    let found = connection.query_row("SELECT unknown FROM head WHERE client = ?", [&client.0[..]], |row| row.get(0));
    let found: Option<Option<i64>> = found.optional().map_err(failed)?;
    Ok(found.flatten().map(i64::cast_unsigned))
}

/// When the newest record of a log says that it was written, and how many of its records are void.
pub(in crate::repo) fn last_record(connection: &Connection, client: &ClientId) -> Result<Option<(i64, u64)>> {
    let sql = "SELECT time, void FROM head WHERE client = ?";
    let found = connection.query_row(sql, [&client.0[..]], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())));
    found.optional().map_err(failed)
}

/// The newest key generation that the owner announced.
pub(in crate::repo) fn generation(connection: &Connection) -> Result<u32> {
    let found = connection.query_row("SELECT value FROM meta WHERE key = 'generation'", [], |row| row.get(0));
    found.optional().map(|number| number.unwrap_or(1)).map_err(failed)
}

/// Notes that the owner announced a key generation.
pub(in crate::repo) fn set_generation(transaction: &Transaction<'_>, number: u32) -> Result<()> {
    let sql = "INSERT INTO meta(key, value) VALUES('generation', ?1) ON CONFLICT(key) DO UPDATE SET value = max(value, ?1)";
    transaction.execute(sql, [number]).map(drop).map_err(failed)
}

/// Notes that a client fenced a log for a prune generation.
pub(in crate::repo) fn note_fence(transaction: &Transaction<'_>, client: &ClientId, generation: u64) -> Result<()> {
    let sql = "INSERT INTO fenced(client, generation) VALUES(?1, ?2)
               ON CONFLICT(client) DO UPDATE SET generation = max(generation, ?2)";
    transaction.execute(sql, params![&client.0[..], i64::try_from(generation).unwrap_or(i64::MAX)]).map(drop).map_err(failed)
}

/// True if a revocation says that something was taken in that does not count.
pub(in crate::repo) fn must_read_anew(connection: &Connection) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM meta WHERE key = 'anew'").map_err(failed)?;
    statement.exists([]).map_err(failed)
}

/// Forgets everything that logs and prunes said, so that all of it is read and judged again. What packs hold stays.
pub(in crate::repo) fn read_anew(transaction: &Transaction<'_>) -> Result<()> {
    transaction
        .execute_batch(
            "DELETE FROM head; DELETE FROM client; DELETE FROM instance; DELETE FROM snapshot; DELETE FROM session;
             DELETE FROM attested; DELETE FROM judgement; DELETE FROM prune; DELETE FROM condemned; DELETE FROM gone;
             DELETE FROM slot; DELETE FROM unread; DELETE FROM fenced; DELETE FROM shard; DELETE FROM shard_set;
             DELETE FROM shard_pack; DELETE FROM floor; DELETE FROM lasting;
             DELETE FROM meta WHERE key IN ('anew', 'adopted') OR key GLOB 'nothing-in *';
             UPDATE pack SET client = NULL, committed = 0, condemned = 0;",
        )
        .map_err(failed)?;
    super::prune::raise_epoch(transaction)
}
