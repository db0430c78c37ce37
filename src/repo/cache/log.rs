//! What was read of the log and verified.

use super::failed;
use crate::error::Result;
use crate::format::log::{Head, RecordRef};
use crate::id::{ClientId, ObjectHash, PackId, SessionId, SlotId, SnapshotId};
use crate::repo::log::{Deed, Judgement, Seen};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::HashMap;

/// A snapshot record as the cache keeps it.
pub(in crate::repo) struct CachedSnapshot {
    pub(in crate::repo) id: SnapshotId,
    pub(in crate::repo) client: ClientId,
    pub(in crate::repo) seq: u64,
    /// Of a checkpoint: the session that made it.
    pub(in crate::repo) session: Option<SessionId>,
    /// The record, encoded: its snapshot is sealed.
    pub(in crate::repo) sealed: Vec<u8>,
    /// The snapshot's bytes, once a key that opens it was at hand.
    pub(in crate::repo) body: Option<Vec<u8>>,
    /// The record's time.
    pub(in crate::repo) time: i64,
}

/// How far a log was read, and the newest prune generation that a fence in it told of.
pub(in crate::repo) fn head(connection: &Connection, client: &ClientId) -> Result<Option<(Head, u64)>> {
    let mut statement = connection.prepare_cached("SELECT seq, hash, fence FROM head WHERE client = ?").map_err(failed)?;
    let found = statement.query_row([&client.0[..]], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
    });
    let found = found.optional().map_err(failed)?;
    Ok(found.and_then(|(seq, hash, fence)| Some((Head { client: *client, seq, hash: ObjectHash::from_slice(&hash)? }, fence))))
}

/// All heads, ascending.
pub(in crate::repo) fn heads(connection: &Connection) -> Result<Vec<Head>> {
    let mut statement = connection.prepare_cached("SELECT client, seq, hash FROM head ORDER BY client").map_err(failed)?;
    let rows = statement.query_map([], |row| {
        let (client, hash): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(2)?);
        let seq = row.get::<_, i64>(1)?.cast_unsigned();
        Ok(ClientId::from_slice(&client).zip(ObjectHash::from_slice(&hash)).map(|(client, hash)| Head { client, seq, hash }))
    });
    let rows = rows.map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(rows.into_iter().flatten().collect())
}

/// Key of the note that there was nothing in a log.
fn nothing_in(client: &ClientId) -> String {
    format!("nothing-in {client}")
}

/// True if this log was looked at to its end, duplicates and all, and there was nothing in it.
pub(in crate::repo) fn was_empty(connection: &Connection, client: &ClientId) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM meta WHERE key = ?").map_err(failed)?;
    statement.exists([nothing_in(client)]).map_err(failed)
}

/// Notes that.
pub(in crate::repo) fn note_empty(connection: &Connection, client: &ClientId) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO meta(key, value) VALUES(?, 1)";
    connection.execute(sql, [nothing_in(client)]).map(drop).map_err(failed)
}

/// Logs in which there was nothing.
pub(in crate::repo) fn all_empty(connection: &Connection) -> Result<Vec<ClientId>> {
    let sql = "SELECT key FROM meta WHERE key GLOB 'nothing-in *'";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    let keys = rows.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let clients = keys.iter().filter_map(|key| ClientId::from_hex(key.rsplit(' ').next()?).ok());
    let mut empty = Vec::new();
    for client in clients {
        if head(connection, &client)?.is_none() {
            empty.push(client);
        }
    }
    Ok(empty)
}

/// Takes note of the record at `head` and of its time; one without a time is void, and counted as such.
pub(in crate::repo) fn set_head(transaction: &Transaction<'_>, head: &Head, fence: u64, time: Option<i64>) -> Result<()> {
    let void = i64::from(time.is_none());
    let values = params![&head.client.0[..], head.seq.cast_signed(), &head.hash.0[..], fence.cast_signed(), void, time];
    let sql = "INSERT INTO head(client, seq, hash, fence, void, time) VALUES(?1, ?2, ?3, ?4, ?5, ifnull(?6, 0))
               ON CONFLICT(client) DO UPDATE SET seq = ?2, hash = ?3, fence = ?4, void = void + ?5, time = ifnull(?6, time)
               WHERE seq < ?2";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

pub(in crate::repo) fn add_snapshot(transaction: &Transaction<'_>, snapshot: &CachedSnapshot) -> Result<()> {
    let session = snapshot.session.map(|session| session.0.to_vec());
    let values = params![
        &snapshot.id.0[..],
        &snapshot.client.0[..],
        snapshot.seq.cast_signed(),
        snapshot.time,
        session,
        snapshot.sealed,
        snapshot.body
    ];
    let sql = "INSERT OR REPLACE INTO snapshot(id, client, seq, time, session, sealed, body) VALUES(?, ?, ?, ?, ?, ?, ?)";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// Drops the checkpoints that a session made before the record at `seq`, which says more.
pub(in crate::repo) fn supersede(transaction: &Transaction<'_>, client: &ClientId, session: &SessionId, seq: u64) -> Result<()> {
    let values = params![&client.0[..], &session.0[..], seq.cast_signed()];
    let sql = "DELETE FROM snapshot WHERE client = ? AND session = ? AND seq < ?";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// Notes that `client` says it made this session.
pub(in crate::repo) fn add_session(transaction: &Transaction<'_>, client: &ClientId, session: &SessionId) -> Result<()> {
    let values = params![&session.0[..], &client.0[..]];
    transaction.execute("INSERT OR IGNORE INTO session(id, client) VALUES(?, ?)", values).map(drop).map_err(failed)
}

/// Notes that a record says that its client has hashed a pack.
pub(in crate::repo) fn add_attested(transaction: &Transaction<'_>, pack: &PackId, by: &RecordRef) -> Result<()> {
    let values = params![&pack.0[..], &by.client.0[..], by.seq.cast_signed()];
    let sql = "INSERT OR IGNORE INTO attested(pack, client, seq) VALUES(?, ?, ?)";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// Notes what a record does to snapshots.
pub(in crate::repo) fn add_judgements(
    transaction: &Transaction<'_>,
    by: (RecordRef, Deed),
    heads: &[Head],
    records: &[RecordRef],
    reason: &str,
) -> Result<()> {
    let seen: Vec<u8> = heads.iter().flat_map(|head| [&head.client.0[..], &head.seq.to_be_bytes()].concat()).collect();
    let sql = "INSERT OR IGNORE INTO judgement(snapshot_client, snapshot_seq, client, seq, deed, heads, reason)
               VALUES(?, ?, ?, ?, ?, ?, ?)";
    let mut insert = transaction.prepare_cached(sql).map_err(failed)?;
    for record in records {
        let values = params![
            &record.client.0[..],
            record.seq.cast_signed(),
            &by.0.client.0[..],
            by.0.seq.cast_signed(),
            by.1.code(),
            seen,
            reason
        ];
        insert.execute(values).map_err(failed)?;
    }
    Ok(())
}

pub(super) fn seen(bytes: &[u8]) -> Seen {
    let (heads, _) = bytes.as_chunks::<24>();
    let split = |head: &[u8; 24]| {
        let (client, seq) = head.split_at(16);
        (ClientId(client.try_into().expect("16 bytes")), u64::from_be_bytes(seq.try_into().expect("8 bytes")))
    };
    heads.iter().map(split).collect()
}

/// What records did to snapshots, by snapshot, with the reason of the last hold.
pub(in crate::repo) fn judgements(connection: &Connection) -> Result<HashMap<RecordRef, (Vec<Judgement>, String)>> {
    let sql = "SELECT snapshot_client, snapshot_seq, client, seq, deed, heads, reason FROM judgement ORDER BY client, seq";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut found: HashMap<RecordRef, (Vec<Judgement>, String)> = HashMap::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let place = |at: usize| -> rusqlite::Result<RecordRef> {
            let client: Vec<u8> = row.get(at)?;
            let client = ClientId::from_slice(&client).unwrap_or(ClientId([0; 16]));
            Ok(RecordRef { client, seq: row.get::<_, i64>(at + 1)?.cast_unsigned() })
        };
        let (snapshot, by) = (place(0).map_err(failed)?, place(2).map_err(failed)?);
        let deed: u8 = row.get(4).map_err(failed)?;
        let (heads, reason): (Vec<u8>, String) = (row.get(5).map_err(failed)?, row.get(6).map_err(failed)?);
        let Some(deed) = Deed::from_code(deed) else { continue };
        let entry = found.entry(snapshot).or_default();
        entry.0.push(Judgement { by, deed, seen: seen(&heads) });
        if deed == Deed::Hold {
            entry.1 = reason;
        }
    }
    Ok(found)
}

pub(in crate::repo) fn snapshots(connection: &Connection) -> Result<Vec<CachedSnapshot>> {
    let mut statement = connection
        .prepare("SELECT id, client, seq, session, sealed, body, time FROM snapshot ORDER BY time, client, seq")
        .map_err(failed)?;
    let rows = statement
        .query_map([], |row| {
            let (id, client): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let session: Option<Vec<u8>> = row.get(3)?;
            Ok(CachedSnapshot {
                id: SnapshotId::from_slice(&id).unwrap_or(SnapshotId([0; 32])),
                client: ClientId::from_slice(&client).unwrap_or(ClientId([0; 16])),
                seq: row.get::<_, i64>(2)?.cast_unsigned(),
                session: session.and_then(|session| SessionId::from_slice(&session)),
                sealed: row.get(4)?,
                body: row.get(5)?,
                time: row.get(6)?,
            })
        })
        .map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

/// Where a snapshot's records are.
pub(in crate::repo) fn records_of(connection: &Connection, id: &SnapshotId) -> Result<Vec<RecordRef>> {
    let mut statement = connection.prepare_cached("SELECT client, seq FROM snapshot WHERE id = ?").map_err(failed)?;
    let rows = statement.query_map([&id.0[..]], |row| {
        let client: Vec<u8> = row.get(0)?;
        let client = ClientId::from_slice(&client).unwrap_or(ClientId([0; 16]));
        Ok(RecordRef { client, seq: row.get::<_, i64>(1)?.cast_unsigned() })
    });
    rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// Drops a snapshot that was pruned, and remembers that it was: it may lie in a pack still.
pub(in crate::repo) fn remove_pruned(connection: &Connection, record: &RecordRef, id: &SnapshotId) -> Result<()> {
    super::checkpoint::note_pruned(connection, id)?;
    remove_snapshot(connection, record)
}

/// Drops a snapshot.
pub(in crate::repo) fn remove_snapshot(connection: &Connection, record: &RecordRef) -> Result<()> {
    let values = params![&record.client.0[..], record.seq.cast_signed()];
    connection.execute("DELETE FROM snapshot WHERE client = ? AND seq = ?", values).map(drop).map_err(failed)
}

pub(in crate::repo) fn set_body(connection: &Connection, record: &RecordRef, body: &[u8]) -> Result<()> {
    let values = params![body, &record.client.0[..], record.seq.cast_signed()];
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

/// The slots that the log names.
pub(in crate::repo) fn slots(connection: &Connection) -> Result<Vec<SlotId>> {
    let mut statement = connection.prepare_cached("SELECT id FROM slot ORDER BY id").map_err(failed)?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(rows.iter().filter_map(|id| SlotId::from_slice(id)).collect())
}

/// What the log says of a slot: label, recipient, time.
pub(in crate::repo) fn slot(connection: &Connection, id: &SlotId) -> Result<Option<(String, String, i64)>> {
    let found = connection.query_row("SELECT label, recipient, time FROM slot WHERE id = ?", [&id.0[..]], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    found.optional().map_err(failed)
}
