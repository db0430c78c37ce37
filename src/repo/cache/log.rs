//! What was read of the log and verified.

use super::failed;
use crate::error::Result;
use crate::format::log::Head;
use crate::id::{ClientId, ObjectHash, SlotId, SnapshotId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// A snapshot record as the cache keeps it.
pub(in crate::repo) struct CachedSnapshot {
    pub(in crate::repo) id: SnapshotId,
    pub(in crate::repo) client: ClientId,
    pub(in crate::repo) seq: u64,
    /// The record, encoded: its snapshot is sealed.
    pub(in crate::repo) sealed: Vec<u8>,
    /// The snapshot's bytes, once a key that opens it was at hand.
    pub(in crate::repo) body: Option<Vec<u8>>,
}

pub(in crate::repo) fn head(connection: &Connection, client: &ClientId) -> Result<Option<Head>> {
    let found = connection.query_row("SELECT seq, hash FROM head WHERE client = ?", [&client.0[..]], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
    });
    let found = found.optional().map_err(failed)?;
    Ok(found
        .and_then(|(seq, hash)| Some(Head { client: *client, seq: seq.cast_unsigned(), hash: ObjectHash::from_slice(&hash)? })))
}

pub(in crate::repo) fn set_head(transaction: &Transaction<'_>, head: &Head) -> Result<()> {
    let values = params![&head.client.0[..], head.seq.cast_signed(), &head.hash.0[..]];
    transaction.execute("INSERT OR REPLACE INTO head(client, seq, hash) VALUES(?, ?, ?)", values).map(drop).map_err(failed)
}

pub(in crate::repo) fn add_snapshot(transaction: &Transaction<'_>, snapshot: &CachedSnapshot, time: i64) -> Result<()> {
    let values =
        params![&snapshot.id.0[..], &snapshot.client.0[..], snapshot.seq.cast_signed(), time, snapshot.sealed, snapshot.body];
    let sql = "INSERT OR REPLACE INTO snapshot(id, client, seq, time, sealed, body) VALUES(?, ?, ?, ?, ?, ?)";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

pub(in crate::repo) fn snapshots(connection: &Connection) -> Result<Vec<CachedSnapshot>> {
    let mut statement =
        connection.prepare("SELECT id, client, seq, sealed, body FROM snapshot ORDER BY time, client, seq").map_err(failed)?;
    let rows = statement
        .query_map([], |row| {
            let (id, client): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            Ok(CachedSnapshot {
                id: SnapshotId::from_slice(&id).unwrap_or(SnapshotId([0; 32])),
                client: ClientId::from_slice(&client).unwrap_or(ClientId([0; 16])),
                seq: row.get::<_, i64>(2)?.cast_unsigned(),
                sealed: row.get(3)?,
                body: row.get(4)?,
            })
        })
        .map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

pub(in crate::repo) fn set_body(connection: &Connection, snapshot: &CachedSnapshot, body: &[u8]) -> Result<()> {
    let values = params![body, &snapshot.client.0[..], snapshot.seq.cast_signed()];
    connection.execute("UPDATE snapshot SET body = ? WHERE client = ? AND seq = ?", values).map(drop).map_err(failed)
}

pub(in crate::repo) fn set_slot(
    transaction: &Transaction<'_>,
    id: &SlotId,
    added: bool,
    texts: (&str, &str),
    time: i64,
) -> Result<()> {
    if added {
        let values = params![&id.0[..], texts.0, texts.1, time];
        let sql = "INSERT OR REPLACE INTO slot(id, label, recipient, time) VALUES(?, ?, ?, ?)";
        transaction.execute(sql, values).map(drop).map_err(failed)
    } else {
        transaction.execute("DELETE FROM slot WHERE id = ?", [&id.0[..]]).map(drop).map_err(failed)
    }
}

/// What the log says of a slot: label, recipient, time.
pub(in crate::repo) fn slot(connection: &Connection, id: &SlotId) -> Result<Option<(String, String, i64)>> {
    let found = connection.query_row("SELECT label, recipient, time FROM slot WHERE id = ?", [&id.0[..]], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    found.optional().map_err(failed)
}
