//! What snapshots need, in a database of its own that is thrown away: sorted on disk, so that memory is bounded.

use super::failed;
use crate::error::{Error, Result};
use crate::id::{ChunkPrefix, ClientId};
use rusqlite::{Connection, params};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tempfile::TempPath;

/// How much of a pack is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::repo) struct Usage {
    /// Bytes of all its chunks, before compression.
    pub(in crate::repo) total: u64,
    /// Bytes of those that some snapshot needs from here.
    pub(in crate::repo) used: u64,
    /// Chunks that some snapshot needs from here.
    pub(in crate::repo) used_chunks: u64,
    /// The latest time until which what is needed from here is to be locked, nanoseconds since 1970.
    pub(in crate::repo) lock_until: i64,
    /// Bytes of its blocks, as they are stored, that nobody needs, if that was looked at block by block.
    pub(in crate::repo) unused: Option<u64>,
}

/// Which packs each client may rely on.
pub(in crate::repo) trait Trust {
    /// True if `client` relies on the pack of that number.
    fn trusts(&self, client: u32, pack: u32) -> bool;
}

/// Chunks that snapshots need, each with the client whose snapshot it is.
pub(in crate::repo) struct Marks {
    connection: Connection,
    clients: Vec<ClientId>,
    // Deleted with the value.
    _path: TempPath,
}

impl Marks {
    /// Opens an empty set in `folder`, beside the cache at `cache`.
    pub(in crate::repo) fn new(folder: &Path, cache: &Path) -> Result<Self> {
        let doing = |error| Error::io("make a file for marks in", folder.display(), error);
        let path = tempfile::Builder::new().prefix("marks-").tempfile_in(folder).map_err(doing)?.into_temp_path();
        let connection = Connection::open(&path).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;
                 CREATE TABLE used(id BLOB, client INTEGER, until INTEGER, PRIMARY KEY(id, client)) WITHOUT ROWID;
                 CREATE TABLE live(pack INTEGER, block INTEGER, start INTEGER, len INTEGER, PRIMARY KEY(pack, block, start))
                 WITHOUT ROWID;
                 BEGIN;",
            )
            .map_err(failed)?;
        connection
            .execute("ATTACH ? AS cache", [cache.to_string_lossy()])
            .or_else(|_| {
                connection.execute_batch("COMMIT")?;
                let attached = connection.execute("ATTACH ? AS cache", [cache.to_string_lossy()]);
                connection.execute_batch("BEGIN")?;
                attached
            })
            .map_err(failed)?;
        connection.busy_timeout(std::time::Duration::from_secs(60)).map_err(failed)?;
        Ok(Self { connection, clients: Vec::new(), _path: path })
    }

    /// A number for the client.
    pub(in crate::repo) fn client(&mut self, client: &ClientId) -> u32 {
        let known = self.clients.iter().position(|known| known == client);
        let position = known.unwrap_or_else(|| {
            self.clients.push(*client);
            self.clients.len() - 1
        });
        u32::try_from(position).expect("there are fewer clients than that")
    }

    /// The clients by their numbers.
    pub(in crate::repo) fn clients(&self) -> &[ClientId] {
        &self.clients
    }

    /// Marks a chunk as needed by a client's snapshot, and to be locked until then; false if it was marked before, for however
    /// long.
    pub(in crate::repo) fn mark(&self, prefix: &ChunkPrefix, (client, until): (u32, i64)) -> Result<bool> {
        let sql = "INSERT OR IGNORE INTO used(id, client, until) VALUES(?, ?, ?)";
        let mut insert = self.connection.prepare_cached(sql).map_err(failed)?;
        insert.execute(params![&prefix[..], client, until]).map(|rows| rows > 0).map_err(failed)
    }

    /// Sees the index as it is now; within one transaction it would stay as it was.
    fn refresh(&self) -> Result<()> {
        self.connection.execute_batch("COMMIT; BEGIN").map_err(failed)
    }

    /// Marks that are not in the index at all.
    pub(in crate::repo) fn missing(&self) -> Result<u64> {
        self.refresh()?;
        let sql = "SELECT count(DISTINCT id) FROM used WHERE NOT EXISTS(SELECT 1 FROM cache.chunk c WHERE c.id = used.id)";
        let count: i64 = self.connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
        Ok(count.cast_unsigned())
    }

    /// How much of each pack is needed, by its number. Of a chunk that lies in several packs, each client relies on the
    /// newest that it trusts and that is not among `avoided`; where there is none such, on all that it has. On a place that
    /// a record says is lost, or that a check on this machine could not read, it does not rely.
    pub(in crate::repo) fn usage(&self, trust: &dyn Trust, avoided: &HashSet<u32>) -> Result<HashMap<u32, Usage>> {
        self.refresh()?;
        let mut usage: HashMap<u32, Usage> = HashMap::new();
        {
            let mut statement =
                self.connection.prepare("SELECT pack, sum(len) FROM cache.chunk GROUP BY pack").map_err(failed)?;
            let mut rows = statement.query([]).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                let (pack, total): (u32, i64) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
                usage.entry(pack).or_default().total = total.cast_unsigned();
            }
        }
        self.each_needed(trust, avoided, |[pack, _, _, len], until, is_first| {
            let usage = usage.entry(pack).or_default();
            usage.lock_until = usage.lock_until.max(until);
            usage.used += if is_first { u64::from(len) } else { 0 };
            usage.used_chunks += u64::from(is_first);
            Ok(())
        })?;
        Ok(usage)
    }

    /// Notes the chunks that are needed from `packs`, for [`Marks::live`].
    pub(in crate::repo) fn note_live(&self, trust: &dyn Trust, packs: &HashSet<u32>) -> Result<()> {
        self.refresh()?;
        self.connection.execute("DELETE FROM live", []).map_err(failed)?;
        let sql = "INSERT OR IGNORE INTO live(pack, block, start, len) VALUES(?, ?, ?, ?)";
        let mut insert = self.connection.prepare_cached(sql).map_err(failed)?;
        self.each_needed(trust, &HashSet::new(), |place, _, is_first| {
            if is_first && packs.contains(&place[0]) {
                insert.execute(place).map_err(failed)?;
            }
            Ok(())
        })
    }

    /// The chunks that are needed from a pack: block and offset in it, ascending.
    pub(in crate::repo) fn live(&self, pack: u32) -> Result<Vec<(u32, u32)>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT block, start FROM live WHERE pack = ? ORDER BY block, start")
            .map_err(failed)?;
        let rows = statement.query_map([pack], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// Bytes, before compression, that are needed of each block of a pack of which some are.
    pub(in crate::repo) fn live_bytes(&self, pack: u32) -> Result<Vec<(u32, u64)>> {
        let sql = "SELECT block, sum(len) FROM live WHERE pack = ? GROUP BY block";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let rows = statement.query_map([pack], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// Calls `each` with pack, block, offset, and length of every chunk at the place from which it is needed, with the time until
    /// which it is to be locked there, and whether this is the first client that needs it from there.
    fn each_needed(
        &self,
        trust: &dyn Trust,
        avoided: &HashSet<u32>,
        mut each: impl FnMut([u32; 4], i64, bool) -> Result<()>,
    ) -> Result<()> {
        // Both tables lie in the order of ids, so this is one pass over each.
        let sql = "SELECT u.id, u.client, c.pack, c.block, c.start, c.len,
                   EXISTS(SELECT 1 FROM cache.lost l WHERE l.pack = c.pack AND l.chunk IN (c.id, x''))
                   OR c.pack IN (SELECT p.no FROM cache.pack p WHERE p.id IN (SELECT pack FROM cache.bad))
                   AND EXISTS(SELECT 1 FROM cache.bad b JOIN cache.pack p ON p.id = b.pack
                              WHERE p.no = c.pack AND b.chunk IN (c.id, x'')), u.until
                   FROM used u JOIN cache.chunk c ON c.id = u.id ORDER BY u.id, u.client, c.pack";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut group: Option<(Vec<u8>, u32, i64)> = None;
        let mut places: Vec<[u32; 5]> = Vec::new();
        let mut done: HashSet<u32> = HashSet::new();
        let mut settle = |group: &Option<(Vec<u8>, u32, i64)>, places: &mut Vec<[u32; 5]>, done: &mut HashSet<u32>| {
            let Some((_, client, until)) = group else { return Ok(()) };
            let is_lost = |place: &[u32; 5]| place[4] != 0;
            let good = |place: &&[u32; 5]| !is_lost(place) && !avoided.contains(&place[0]) && trust.trusts(*client, place[0]);
            let chosen = if places.len() > 1 { places.iter().filter(good).max().copied() } else { None };
            let needed: &[[u32; 5]] = chosen.as_ref().map_or(places.as_slice(), std::slice::from_ref);
            for [pack, block, start, len, _] in needed {
                // Several clients may need the same chunk from the same place.
                each([*pack, *block, *start, *len], *until, done.insert(*pack))?;
            }
            places.clear();
            Ok::<(), Error>(())
        };
        while let Some(row) = rows.next().map_err(failed)? {
            let id = row.get_ref(0).map_err(failed)?.as_blob().map_err(|_| Error::failed("read marks: a row is damaged"))?;
            let client: u32 = row.get(1).map_err(failed)?;
            let same = group.as_ref().map(|(known, of, _)| (known == id, *of == client));
            if same != Some((true, true)) {
                settle(&group, &mut places, &mut done)?;
                if !same.is_some_and(|(id, _)| id) {
                    done.clear();
                }
                group = Some((id.to_vec(), client, row.get(7).map_err(failed)?));
            }
            let column = |at: usize| row.get::<_, u32>(at).map_err(failed);
            places.push([column(2)?, column(3)?, column(4)?, column(5)?, column(6)?]);
        }
        settle(&group, &mut places, &mut done)
    }
}
