//! Sets of index objects: which there are, and which packs they cover.

use super::failed;
use crate::error::Result;
use crate::format::index::IndexEntry;
use crate::format::log::RecordRef;
use crate::id::{ChunkPrefix, IndexId, PackId};
use rusqlite::{Connection, Transaction, params};
use std::collections::{HashMap, HashSet};

/// The index objects of one record.
#[derive(Debug, Clone)]
pub(in crate::repo) struct ShardSet {
    pub(in crate::repo) number: i64,
    /// In the order of their ranges.
    pub(in crate::repo) shards: Vec<IndexId>,
    /// Packs that it covered when it was made, and those of them that are there still.
    pub(in crate::repo) made_of: u64,
    pub(in crate::repo) live: u64,
    /// No plan lists one of its objects.
    pub(in crate::repo) whole: bool,
    /// No condemn object of an open generation lists one of its objects.
    pub(in crate::repo) condemned: bool,
}

impl ShardSet {
    /// True if it may be relied on for what it covers.
    pub(in crate::repo) fn is_good(&self) -> bool {
        self.whole && !self.condemned
    }
}

/// Takes in an index record. Packs that a plan took are left out.
pub(in crate::repo) fn add_set(
    transaction: &Transaction<'_>,
    place: RecordRef,
    indexes: &[IndexId],
    packs: &[PackId],
) -> Result<()> {
    let values = params![&place.client.0[..], place.seq.cast_signed(), packs.len() as i64];
    let sql = "INSERT OR IGNORE INTO shard_set(client, seq, packs) VALUES(?, ?, ?)";
    if transaction.execute(sql, values).map_err(failed)? == 0 {
        return Ok(());
    }
    let number = transaction.last_insert_rowid();
    let mut shard =
        transaction.prepare_cached("INSERT OR IGNORE INTO shard(no, position, id) VALUES(?, ?, ?)").map_err(failed)?;
    for (id, position) in indexes.iter().zip(0i64..) {
        shard.execute(params![number, position, &id.0[..]]).map_err(failed)?;
    }
    let sql = "INSERT OR IGNORE INTO shard_pack(pack, no) SELECT ?1, ?2
               WHERE NOT EXISTS(SELECT 1 FROM gone WHERE pack = ?1)";
    let mut pack = transaction.prepare_cached(sql).map_err(failed)?;
    for id in packs {
        pack.execute(params![&id.0[..], number]).map_err(failed)?;
    }
    Ok(())
}

/// Drops the sets of a client whose records lie behind `last`.
pub(in crate::repo) fn revoke(transaction: &Transaction<'_>, client: &[u8], last: i64) -> Result<()> {
    let sets = "(SELECT no FROM shard_set WHERE client = ? AND seq > ?)";
    for sql in [format!("DELETE FROM shard WHERE no IN {sets}"), format!("DELETE FROM shard_pack WHERE no IN {sets}")] {
        transaction.execute(&sql, params![client, last]).map_err(failed)?;
    }
    let sql = "DELETE FROM shard_set WHERE client = ? AND seq > ?";
    transaction.execute(sql, params![client, last]).map(drop).map_err(failed)
}

/// Drops the packs that plans took from what sets cover.
pub(super) fn drop_gone(transaction: &Transaction<'_>) -> Result<()> {
    transaction.execute("DELETE FROM shard_pack WHERE pack IN (SELECT pack FROM gone)", []).map(drop).map_err(failed)
}

/// All sets, the largest first.
pub(in crate::repo) fn sets(connection: &Connection) -> Result<Vec<ShardSet>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT no, packs, (SELECT count(*) FROM shard_pack p WHERE p.no = s.no),
                    NOT EXISTS(SELECT 1 FROM shard JOIN gone ON gone.pack = shard.id WHERE shard.no = s.no),
                    EXISTS(SELECT 1 FROM shard JOIN condemned c ON c.pack = shard.id WHERE shard.no = s.no)
             FROM shard_set s",
        )
        .map_err(failed)?;
    let rows = statement.query_map([], |row| {
        let unsigned = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
        let (number, made_of, live) = (row.get(0)?, unsigned(1)?, unsigned(2)?);
        Ok(ShardSet { number, shards: Vec::new(), made_of, live, whole: row.get(3)?, condemned: row.get(4)? })
    });
    let mut sets = rows.map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut shards = connection.prepare_cached("SELECT id FROM shard WHERE no = ? ORDER BY position").map_err(failed)?;
    for set in &mut sets {
        let ids = shards.query_map([set.number], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
        for id in ids {
            set.shards.extend(IndexId::from_slice(&id.map_err(failed)?));
        }
    }
    sets.sort_by_key(|set| (std::cmp::Reverse(set.live), set.number));
    Ok(sets)
}

/// The packs that a set covers, ascending.
pub(in crate::repo) fn packs_of(connection: &Connection, set: i64) -> Result<Vec<PackId>> {
    let sql = "SELECT pack FROM shard_pack WHERE no = ? ORDER BY pack";
    packs(connection, sql, params![set])
}

/// The same, without those whose tables of contents were not read.
pub(in crate::repo) fn read_packs_of(connection: &Connection, set: i64) -> Result<Vec<PackId>> {
    let unread = "SELECT 1 FROM unread WHERE unread.pack = shard_pack.pack";
    let sql = format!("SELECT pack FROM shard_pack WHERE no = ? AND NOT EXISTS({unread}) ORDER BY pack");
    packs(connection, &sql, params![set])
}

/// Packs that the log lists, that nobody condemned, and that none of these sets covers, ascending.
pub(in crate::repo) fn uncovered(connection: &Connection, sets: &[&ShardSet]) -> Result<Vec<PackId>> {
    let numbers: Vec<String> = sets.iter().map(|set| set.number.to_string()).collect();
    let sql = format!(
        "SELECT id FROM pack WHERE client IS NOT NULL AND condemned = 0
         AND NOT EXISTS(SELECT 1 FROM shard_pack s WHERE s.pack = id AND s.no IN ({})) ORDER BY id",
        numbers.join(",")
    );
    packs(connection, &sql, params![])
}

fn packs(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Vec<PackId>> {
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map(values, |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    let mut found = Vec::new();
    for row in rows {
        found.extend(PackId::from_slice(&row.map_err(failed)?));
    }
    Ok(found)
}

/// True if every pack of the set, but for those in `but`, is covered by one of `others` as well.
pub(in crate::repo) fn is_covered(
    connection: &Connection,
    set: &ShardSet,
    others: &[&ShardSet],
    but: &HashSet<PackId>,
) -> Result<bool> {
    let numbers: Vec<String> = others.iter().map(|set| set.number.to_string()).collect();
    let sql = format!(
        "SELECT pack FROM shard_pack p WHERE no = ?
         AND NOT EXISTS(SELECT 1 FROM shard_pack o WHERE o.pack = p.pack AND o.no IN ({}))",
        numbers.join(",")
    );
    Ok(packs(connection, &sql, params![set.number])?.iter().all(|pack| but.contains(pack)))
}

/// Rows for a pack `unread.pack` that a whole set covers.
pub(super) const COVERED: &str = "SELECT 1 FROM shard_pack p WHERE p.pack = unread.pack
    AND NOT EXISTS(SELECT 1 FROM shard JOIN gone ON gone.pack = shard.id WHERE shard.no = p.no)";

/// True if the tables of contents of all packs that the set covers are in the cache.
pub(in crate::repo) fn all_loaded(connection: &Connection, set: i64) -> Result<bool> {
    let sql = "SELECT 1 FROM shard_pack WHERE no = ? AND NOT EXISTS(SELECT 1 FROM pack WHERE id = shard_pack.pack) LIMIT 1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.exists([set]).map(|missing| !missing).map_err(failed)
}

/// True if no prune that is known condemned or took any of these.
pub(in crate::repo) fn may_be_named(connection: &Connection, indexes: &[IndexId], packs: &[PackId]) -> Result<bool> {
    let sql = "SELECT 1 FROM gone WHERE pack = ?1 UNION ALL SELECT 1 FROM condemned WHERE pack = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    for id in indexes.iter().map(|id| &id.0).chain(packs.iter().map(|id| &id.0)) {
        if statement.exists([&id[..]]).map_err(failed)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Rows that are read at a time.
const PAGE: usize = 4096;

/// The entries of the local index that name certain packs, in the order of index objects.
pub(in crate::repo) struct CachedEntries {
    connection: Connection,
    /// Where each pack, by its number in the cache, is among those wanted.
    positions: HashMap<u32, u32>,
    after: (Vec<u8>, i64),
    ready: std::vec::IntoIter<IndexEntry>,
    /// Entries of the last prefix that was read, of which the next page may have more.
    group: Vec<IndexEntry>,
    ended: bool,
}

impl CachedEntries {
    /// `packs` ascends.
    pub(in crate::repo) fn new(connection: Connection, packs: &[PackId]) -> Result<Self> {
        connection.execute_batch("PRAGMA query_only=1; BEGIN").map_err(failed)?;
        let mut positions = HashMap::with_capacity(packs.len());
        {
            let mut statement = connection.prepare("SELECT no FROM pack WHERE id = ?").map_err(failed)?;
            for (pack, position) in packs.iter().zip(0u32..) {
                let mut rows = statement.query([&pack.0[..]]).map_err(failed)?;
                if let Some(row) = rows.next().map_err(failed)? {
                    positions.insert(row.get(0).map_err(failed)?, position);
                }
            }
        }
        let (ready, group) = (Vec::new().into_iter(), Vec::new());
        Ok(Self { connection, positions, after: (Vec::new(), 0), ready, group, ended: false })
    }

    fn page(&mut self) -> Result<()> {
        let sql = "SELECT id, pack, block, nth FROM chunk WHERE (id, pack) > (?, ?) ORDER BY id, pack LIMIT ?";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params![self.after.0, self.after.1, PAGE as i64]).map_err(failed)?;
        let (mut count, mut out) = (0, Vec::new());
        while let Some(row) = rows.next().map_err(failed)? {
            count += 1;
            let (id, number): (Vec<u8>, u32) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
            if let (Ok(prefix), Some(pack)) = (ChunkPrefix::try_from(id.as_slice()), self.positions.get(&number)) {
                if self.group.first().is_some_and(|first| first.prefix != prefix) {
                    // Numbers of the cache come in another order than names.
                    self.group.sort_unstable();
                    out.append(&mut self.group);
                }
                let (block, chunk) = (row.get(2).map_err(failed)?, row.get(3).map_err(failed)?);
                self.group.push(IndexEntry { prefix, pack: *pack, block, chunk });
            }
            self.after = (id, number.into());
        }
        if count < PAGE {
            self.ended = true;
            self.group.sort_unstable();
            out.append(&mut self.group);
        }
        self.ready = out.into_iter();
        Ok(())
    }
}

impl Iterator for CachedEntries {
    type Item = Result<IndexEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.next() {
                return Some(Ok(entry));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.page() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}
