//! Packs that records list and whose tables of contents are not in the index.

use super::failed;
use super::index::pack_ref;
use crate::error::Result;
use crate::format::log::PackRef;
use crate::id::{ClientId, PackId};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::HashSet;

/// Notes a pack that a record lists and whose table of contents was not read yet.
pub(in crate::repo) fn add(transaction: &Transaction<'_>, pack: &PackRef, client: &ClientId) -> Result<()> {
    let values = params![&pack.id.0[..], pack.size.cast_signed(), pack.toc_len, &client.0[..]];
    let sql = "INSERT OR IGNORE INTO unread(pack, size, toc_len, client) VALUES(?, ?, ?, ?)";
    transaction.execute(sql, values).map(drop).map_err(failed)
}

/// Which of the listed packs whose tables of contents are not in the index.
#[derive(Debug, Clone, Copy)]
pub(in crate::repo) struct Wanted {
    /// Those only that no whole set of shards covers.
    pub(in crate::repo) uncovered: bool,
    /// Lengths of their tables, from more than the first to the second.
    pub(in crate::repo) lengths: (i64, i64),
}

/// The next of the listed packs whose tables of contents are not in the index, and who lists them: at most `most` of those
/// whose names come after `after`, ascending.
pub(in crate::repo) fn next(
    connection: &Connection,
    wanted: &Wanted,
    (after, most): (&[u8], usize),
) -> Result<Vec<(PackRef, ClientId)>> {
    let which = if wanted.uncovered { format!("AND NOT EXISTS({})", super::shards::COVERED) } else { String::new() };
    let sql = format!(
        "SELECT pack, size, toc_len, client FROM unread WHERE pack > ? AND toc_len > ? AND toc_len <= ? {which}
         ORDER BY pack LIMIT ?"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let (more, until) = wanted.lengths;
    let rows = statement.query_map(params![after, more, until, most as i64], listed);
    rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// How many listed packs have a table of contents that is not in the index.
pub(in crate::repo) fn count(connection: &Connection) -> Result<u64> {
    let count: i64 = connection.query_row("SELECT count(*) FROM unread", [], |row| row.get(0)).map_err(failed)?;
    Ok(count.cast_unsigned())
}

/// Calls `each` with every listed pack whose table of contents is not in the index.
pub(in crate::repo) fn each(connection: &Connection, each: &mut dyn FnMut(&PackRef) -> Result<()>) -> Result<()> {
    each_of(connection, "SELECT pack, size, toc_len FROM unread", each)
}

/// The same with those only that no whole set of shards covers.
pub(in crate::repo) fn each_uncovered(connection: &Connection, each: &mut dyn FnMut(&PackRef) -> Result<()>) -> Result<()> {
    let covered = super::shards::COVERED;
    each_of(connection, &format!("SELECT pack, size, toc_len FROM unread WHERE NOT EXISTS({covered})"), each)
}

fn each_of(connection: &Connection, sql: &str, each: &mut dyn FnMut(&PackRef) -> Result<()>) -> Result<()> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        each(&pack_ref(row).map_err(failed)?)?;
    }
    Ok(())
}

/// The names of all of them.
pub(in crate::repo) fn ids(connection: &Connection) -> Result<HashSet<PackId>> {
    let mut found = HashSet::new();
    each(connection, &mut |pack| {
        found.insert(pack.id);
        Ok(())
    })?;
    Ok(found)
}

/// The pack, if it is listed and its table of contents is not in the index.
pub(in crate::repo) fn find(connection: &Connection, pack: &PackId) -> Result<Option<(PackRef, ClientId)>> {
    let sql = "SELECT pack, size, toc_len, client FROM unread WHERE pack = ?";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_row([&pack.0[..]], listed).optional().map_err(failed)
}

fn listed(row: &Row<'_>) -> rusqlite::Result<(PackRef, ClientId)> {
    let client: Vec<u8> = row.get(3)?;
    Ok((pack_ref(row)?, ClientId::from_slice(&client).unwrap_or(ClientId([0; 16]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::cache::{Cache, IndexReader};

    #[test]
    fn a_pack_that_another_process_indexes_while_all_are_read_is_among_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = Cache::open(folder.path()).unwrap();
        let pack = |number: u8| PackRef { id: PackId([number; 32]), size: 1000, toc_len: 50 };
        let transaction = opened.connection.transaction().unwrap();
        [1, 2].into_iter().for_each(|number| add(&transaction, &pack(number), &ClientId([7; 16])).unwrap());
        transaction.commit().unwrap();
        let index = |connection: &Connection, number: u8| {
            let sql = "INSERT INTO pack(id, size, toc_len, chunks, body_sum, seals, blocks)
                       SELECT pack, size, toc_len, 0, 0, x'', x'' FROM unread WHERE pack = ?";
            for sql in [sql, "DELETE FROM unread WHERE pack = ?"] {
                assert_eq!(connection.execute(sql, [&[number; 32][..]]).unwrap(), 1);
            }
        };
        index(&opened.connection, 1);
        let reader = IndexReader::new(opened.cache.connect().unwrap()).unwrap();
        let mut all = Vec::new();
        let mut note = |found: &PackRef| {
            if *found == pack(1) {
                index(&opened.connection, 2);
            }
            all.push(*found);
            Ok(())
        };
        reader.each_pack(&mut note).unwrap();
        assert_eq!(all, [pack(1), pack(2)]);
    }
}
