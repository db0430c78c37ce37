//! Clients that the owner's log enrolled.

use super::failed;
use crate::crypto::sign::client_id;
use crate::error::{Error, Result};
use crate::format::key::Role;
use crate::id::ClientId;
use crate::repo::log::Member;
use rusqlite::{Connection, Row, Transaction, params};

fn member(row: &Row<'_>) -> rusqlite::Result<Option<Member>> {
    let (public, role, name): (Vec<u8>, u8, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (trusted, last, base): (Vec<u8>, Option<i64>, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let (Ok(public), Some(role)) = (<[u8; 32]>::try_from(public.as_slice()), Role::from_code(role)) else { return Ok(None) };
    let trusted = trusted.as_chunks::<16>().0.iter().map(|id| ClientId(*id)).collect();
    let (last, base) = (last.map(i64::cast_unsigned), base.cast_unsigned());
    Ok(Some(Member { id: client_id(&public), public, role, name, trusted, last, base }))
}

/// All but the owner, in the order of their enrolment.
pub(in crate::repo) fn all(connection: &Connection) -> Result<Vec<Member>> {
    let mut statement =
        connection.prepare_cached("SELECT public, role, name, trusted, last, base FROM client ORDER BY seq").map_err(failed)?;
    let rows = statement.query_map([], member).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?.ok_or_else(|| Error::failed("read the local cache: a client's row is damaged"))).collect()
}

/// Enrols a client; one that is enrolled again keeps its base, and stays revoked if it was.
pub(in crate::repo) fn enrol(transaction: &Transaction<'_>, member: &Member, seq: u64) -> Result<()> {
    let trusted: Vec<u8> = member.trusted.iter().flat_map(|id| id.0).collect();
    let values = params![
        &member.id.0[..],
        &member.public[..],
        member.role.code(),
        member.name,
        trusted,
        member.base.cast_signed(),
        seq.cast_signed()
    ];
    let sql = "INSERT INTO client(id, public, role, name, trusted, last, base, seq) VALUES(?, ?, ?, ?, ?, NULL, ?, ?)
               ON CONFLICT(id) DO UPDATE SET role = excluded.role, name = excluded.name, trusted = excluded.trusted";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// Ends a client's part after its record `last`; what it wrote later counts no more. A revocation is never undone.
pub(in crate::repo) fn revoke(transaction: &Transaction<'_>, client: &ClientId, last: u64) -> Result<()> {
    super::shards::revoke(transaction, &client.0, last.cast_signed())?;
    let values = params![&client.0[..], last.cast_signed()];
    transaction
        .execute("UPDATE client SET last = min(ifnull(last, ?2), ?2) WHERE id = ?1", values)
        .and_then(|_| transaction.execute("DELETE FROM snapshot WHERE client = ?1 AND seq > ?2", values))
        .and_then(|_| transaction.execute("DELETE FROM judgement WHERE client = ?1 AND seq > ?2", values))
        .map(drop)
        .map_err(failed)
}
