//! The index: which chunk is in which block of which pack.

use super::sums::{body_sum, chunk_sum};
use super::{damaged, failed};
use crate::error::{Error, Result};
use crate::format::log::PackRef;
use crate::format::pack::{BlockRow, Codec, SealEntry, TableEntry, Toc};
use crate::format::tree::ChunkType;
use crate::id::{ChunkPrefix, ClientId, PackId, SessionId};
use crate::repo::block::table_digest;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::HashSet;

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::repo) struct Place {
    /// Number of the pack in the cache.
    pub(in crate::repo) pack: u32,
    /// Position of the block in the pack.
    pub(in crate::repo) block: u32,
    /// Offset in the raw block.
    pub(in crate::repo) start: u32,
    /// Length in bytes.
    pub(in crate::repo) len: u32,
}

/// What is needed to read one block.
#[derive(Debug, Clone)]
pub(in crate::repo) struct StoredBlock {
    pub(in crate::repo) row: BlockRow,
    pub(in crate::repo) offset: u64,
    pub(in crate::repo) table: [u8; 32],
}

/// What is needed to read a pack.
pub(in crate::repo) struct StoredPack {
    pub(in crate::repo) id: PackId,
    pub(in crate::repo) size: u64,
    pub(in crate::repo) seals: Vec<SealEntry>,
    pub(in crate::repo) blocks: Vec<StoredBlock>,
}

const BLOCK_LEN: usize = 20 + 8 + 32;

fn encode_blocks(toc: &Toc) -> Vec<u8> {
    let mut out = Vec::with_capacity(toc.blocks.len() * BLOCK_LEN);
    let mut offset = u64::from(toc.first_block);
    for block in &toc.blocks {
        block.row.encode(&mut out);
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&table_digest(&block.chunks));
        offset += u64::from(block.row.stored_len());
    }
    out
}

fn wrong_pack() -> Error {
    damaged("a pack's row is damaged")
}

fn decode_blocks(bytes: &[u8]) -> Result<Vec<StoredBlock>> {
    let wrong = wrong_pack;
    let (rows, rest) = bytes.as_chunks::<BLOCK_LEN>();
    if !rest.is_empty() {
        return Err(wrong());
    }
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    let long = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    rows.iter()
        .map(|bytes| {
            let row = BlockRow {
                seal: u16::from_le_bytes([bytes[0], bytes[1]]),
                number: long(&bytes[2..10]),
                kind: ChunkType::from_code(bytes[10]).ok_or_else(wrong)?,
                codec: Codec::from_code(bytes[11]).ok_or_else(wrong)?,
                raw_len: word(&bytes[12..16]),
                packed_len: word(&bytes[16..20]),
            };
            row.check()?;
            Ok(StoredBlock { row, offset: long(&bytes[20..28]), table: bytes[28..60].try_into().expect("32 bytes") })
        })
        .collect()
}

fn encode_seals(seals: &[SealEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    seals.iter().for_each(|seal| seal.encode(&mut out));
    out
}

pub(super) fn decode_seals(mut bytes: &[u8]) -> Result<Vec<SealEntry>> {
    let mut seals = Vec::new();
    while !bytes.is_empty() {
        let (seal, length) = SealEntry::decode(bytes)?;
        seals.push(seal);
        bytes = &bytes[length..];
    }
    Ok(seals)
}

/// Notes that `client` lists the pack in its log; the first one to do so stays. False if the pack is not known.
pub(in crate::repo) fn list_pack(connection: &Connection, pack: &PackId, client: &ClientId) -> Result<bool> {
    let sql = "UPDATE pack SET client = ifnull(client, ?) WHERE id = ?";
    connection.execute(sql, params![&client.0[..], &pack.0[..]]).map(|rows| rows > 0).map_err(failed)
}

/// Notes that a finished snapshot lists the pack.
pub(in crate::repo) fn commit_pack(transaction: &Transaction<'_>, pack: &PackId) -> Result<()> {
    for sql in ["UPDATE pack SET committed = 1 WHERE id = ?", "UPDATE unread SET committed = 1 WHERE pack = ?"] {
        transaction.prepare_cached(sql).and_then(|mut update| update.execute([&pack.0[..]])).map_err(failed)?;
    }
    Ok(())
}

/// What prune needs to know of a pack.
pub(in crate::repo) struct PackState {
    pub(in crate::repo) number: u32,
    pub(in crate::repo) pack: PackRef,
    /// A finished snapshot lists it.
    pub(in crate::repo) committed: bool,
    /// A prune that is not planned yet condemned it.
    pub(in crate::repo) condemned: bool,
}

/// All packs of the index.
pub(in crate::repo) fn pack_states(connection: &Connection) -> Result<Vec<PackState>> {
    let sql = "SELECT id, size, toc_len, no, committed, condemned FROM pack ORDER BY no";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| {
        let pack = pack_ref(row)?;
        Ok(PackState { number: row.get(3)?, pack, committed: row.get(4)?, condemned: row.get(5)? })
    });
    rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// Adds a pack and its chunks in one transaction; one that is known already, or that a prune removed, changes nothing.
/// `client` lists it in its log, or nobody does yet.
pub(in crate::repo) fn insert_pack(
    connection: &mut Connection,
    pack: &PackRef,
    client: Option<&ClientId>,
    seals: &[SealEntry],
    toc: &Toc,
) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let client = client.map(|client| client.0.to_vec());
    let (seals, blocks) = (encode_seals(seals), encode_blocks(toc));
    let (body, rows) = (body_sum(&seals, &blocks), chunk_rows(toc));
    let added = transaction
        .execute(
            "INSERT INTO pack(id, size, toc_len, client, committed, condemned, seals, blocks, body_sum, chunks)
             SELECT ?1, ?2, ?3, ?4, ifnull((SELECT committed FROM unread WHERE pack = ?1), 0),
                    EXISTS(SELECT 1 FROM condemned WHERE pack = ?1), ?5, ?6, ?7, ?8
             WHERE NOT EXISTS(SELECT 1 FROM gone WHERE pack = ?1) ON CONFLICT(id) DO NOTHING",
            params![&pack.id.0[..], pack.size.cast_signed(), pack.toc_len, client, seals, blocks, body, rows.len() as i64],
        )
        .map_err(failed)?;
    let number = transaction.last_insert_rowid();
    transaction.execute("DELETE FROM unread WHERE pack = ?", [&pack.id.0[..]]).map_err(failed)?;
    if added == 0 {
        return transaction.commit().map_err(failed);
    }
    {
        let mut insert = transaction
            .prepare_cached("INSERT INTO chunk(id, pack, block, start, len, nth, sum) VALUES(?, ?, ?, ?, ?, ?, ?)")
            .map_err(failed)?;
        let numbered = u32::try_from(number).map_err(|_| Error::failed("use the local cache: it has too many packs"))?;
        for row in &rows {
            let TableEntry { prefix, len } = row.of(toc);
            let ChunkRow { block, start, nth } = *row;
            let sum = chunk_sum(prefix, [numbered, block, start, *len, nth]);
            insert.execute(params![&prefix[..], number, block, start, len, nth, sum]).map_err(failed)?;
        }
    }
    super::damage::resolve(&transaction, &pack.id)?;
    transaction.commit().map_err(failed)
}

/// The position of a chunk's block, its offset there, and its position in the block. A table may have millions of them.
struct ChunkRow {
    block: u32,
    start: u32,
    nth: u32,
}

impl ChunkRow {
    fn of<'a>(&self, toc: &'a Toc) -> &'a TableEntry {
        &toc.blocks[self.block as usize].chunks[self.nth as usize]
    }
}

/// What a pack holds, each chunk once, in the order of the table: otherwise every row touches a page of its own.
fn chunk_rows(toc: &Toc) -> Vec<ChunkRow> {
    let mut rows = Vec::with_capacity(toc.blocks.iter().map(|block| block.chunks.len()).sum());
    for (block, position) in toc.blocks.iter().zip(0u32..) {
        let mut start = 0;
        for (chunk, nth) in block.chunks.iter().zip(0u32..) {
            rows.push(ChunkRow { block: position, start, nth });
            start += chunk.len;
        }
    }
    rows.sort_unstable_by_key(|row| (&row.of(toc).prefix, row.block, row.nth));
    rows.dedup_by_key(|row| &row.of(toc).prefix);
    rows
}

/// A pack in the first three columns.
pub(super) fn pack_ref(row: &Row<'_>) -> rusqlite::Result<PackRef> {
    let (id, size): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
    let id = PackId::from_slice(&id).unwrap_or(PackId([0; 32]));
    Ok(PackRef { id, size: size.cast_unsigned(), toc_len: row.get(2)? })
}

/// Packs that no record of the log lists yet, and that no prune condemned.
pub(in crate::repo) fn unlogged_packs(connection: &Connection) -> Result<Vec<PackRef>> {
    let sql = "SELECT id, size, toc_len FROM pack WHERE client IS NULL AND condemned = 0";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map([], pack_ref).map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

/// Numbers of the packs that no record of the log lists.
pub(in crate::repo) fn unlisted(connection: &Connection) -> Result<Vec<u32>> {
    let mut statement = connection.prepare_cached("SELECT no FROM pack WHERE client IS NULL").map_err(failed)?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

/// True if packs may still be borrowed: their numbers in `numbers`, their names in `own`.
pub(in crate::repo) fn all_borrowable(connection: &Connection, numbers: &[u32], own: &[PackRef]) -> Result<bool> {
    let mut by_number = connection.prepare_cached("SELECT 1 FROM pack WHERE no = ? AND condemned = 0").map_err(failed)?;
    for number in numbers {
        if !by_number.exists([number]).map_err(failed)? {
            return Ok(false);
        }
    }
    let mut by_name = connection.prepare_cached("SELECT 1 FROM pack WHERE id = ? AND condemned = 0").map_err(failed)?;
    for pack in own {
        if !by_name.exists([&pack.id.0[..]]).map_err(failed)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Numbers of the packs from which `trusting` may not borrow: condemned ones, and those of others whom it does not
/// trust.
pub(in crate::repo) fn unborrowable(connection: &Connection, trusting: &[ClientId]) -> Result<HashSet<u32>> {
    let mut found = distrusted(connection, trusting)?;
    let mut statement = connection.prepare_cached("SELECT no FROM pack WHERE condemned = 1").map_err(failed)?;
    let condemned = statement.query_map([], |row| row.get(0)).map_err(failed)?;
    for number in condemned {
        found.insert(number.map_err(failed)?);
    }
    Ok(found)
}

/// Numbers of the packs of others that `trusting` does not rely on. Whoever lists a pack may be trusted, or all who made
/// the sessions in it, or a reader has hashed it.
pub(in crate::repo) fn distrusted(connection: &Connection, trusting: &[ClientId]) -> Result<HashSet<u32>> {
    let mut statement = connection
        .prepare("SELECT no, client, seals, EXISTS(SELECT 1 FROM attested WHERE pack = id) FROM pack")
        .map_err(failed)?;
    let mut maker = connection.prepare_cached("SELECT client FROM session WHERE id = ?").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut found = HashSet::new();
    let is_trusted = |bytes: &[u8]| trusting.iter().any(|client| client.0[..] == *bytes);
    while let Some(row) = rows.next().map_err(failed)? {
        let client: Option<Vec<u8>> = row.get(1).map_err(failed)?;
        if row.get(3).map_err(failed)? || client.is_none_or(|client| is_trusted(&client)) {
            continue;
        }
        let seals: Vec<u8> = row.get(2).map_err(failed)?;
        for seal in decode_seals(&seals)? {
            let makers = maker.query_map([&seal.session.0[..]], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
            let makers = makers.collect::<Result<Vec<_>, _>>().map_err(failed)?;
            if !makers.iter().any(|maker| is_trusted(maker)) {
                found.insert(row.get(0).map_err(failed)?);
                break;
            }
        }
    }
    Ok(found)
}

/// The sessions in packs that are listed: whose they are matters for who relies on them.
pub(in crate::repo) fn sessions_in_use(connection: &Connection) -> Result<HashSet<SessionId>> {
    let mut statement = connection.prepare("SELECT seals FROM pack WHERE client IS NOT NULL").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut found = HashSet::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let seals: Vec<u8> = row.get(0).map_err(failed)?;
        found.extend(decode_seals(&seals)?.iter().map(|seal| seal.session));
    }
    Ok(found)
}

/// True if a client other than the owner lists the pack, and nobody vouched for it.
pub(in crate::repo) fn is_unattested(connection: &Connection, pack: &PackId, owner: &ClientId) -> Result<bool> {
    let sql = "SELECT 1 FROM pack WHERE id = ?1 AND client IS NOT NULL AND client <> ?2
               AND NOT EXISTS(SELECT 1 FROM attested WHERE pack = ?1)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.exists([&pack.0[..], &owner.0[..]]).map_err(failed)
}

/// The number of a pack.
pub(in crate::repo) fn number(connection: &Connection, pack: &PackId) -> Result<Option<u32>> {
    let mut statement = connection.prepare_cached("SELECT no FROM pack WHERE id = ?").map_err(failed)?;
    statement.query_row([&pack.0[..]], |row| row.get(0)).optional().map_err(failed)
}

/// Names this cache; one that was made anew has another name, and other numbers for its packs.
pub(in crate::repo) fn incarnation(connection: &Connection) -> Result<Vec<u8>> {
    let found = connection.query_row("SELECT value FROM meta WHERE key = 'incarnation'", [], |row| row.get(0));
    found.optional().map_err(failed)?.ok_or_else(|| damaged("it has no name"))
}

/// Counts removals from the index; what was known before a removal must be looked up again.
pub(in crate::repo) fn epoch(connection: &Connection) -> Result<i64> {
    let found = connection.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0));
    found.optional().map(|epoch| epoch.unwrap_or(0)).map_err(failed)
}

/// The columns of a place.
const PLACE: &str = "SELECT pack, block, start, len, nth, sum, id FROM chunk c";
/// A place of a chunk, whichever comes first; asked for each chunk that is read.
const FIRST_PLACE: &str = "SELECT pack, block, start, len, nth, sum, id FROM chunk c WHERE id = ? LIMIT 1";

/// Reads the row of a chunk; one that is not as it was written names no place at all.
fn place(row: &Row<'_>) -> rusqlite::Result<Option<Place>> {
    let numbers = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
    let sound = chunk_sum(row.get_ref(6)?.as_blob()?, numbers) == row.get::<_, u32>(5)?;
    let [pack, block, start, len, _] = numbers;
    Ok(sound.then_some(Place { pack, block, start, len }))
}

fn sound(place: Option<Place>) -> Result<Place> {
    place.ok_or_else(|| damaged("what it says of a chunk is not what was written"))
}

/// A connection that looks chunks up. It reads within one transaction, which costs a fraction of one for each
/// look-up, and takes a new one when something newer may be there.
pub(in crate::repo) struct IndexReader {
    connection: Connection,
}

impl IndexReader {
    pub(in crate::repo) fn new(connection: Connection) -> Result<Self> {
        connection.execute_batch("PRAGMA query_only=1; BEGIN").map_err(failed)?;
        Ok(Self { connection })
    }

    /// Sees what was added since.
    pub(in crate::repo) fn refresh(&self) -> Result<()> {
        self.connection.execute_batch("COMMIT; BEGIN").map_err(failed)
    }

    pub(in crate::repo) fn place(&self, prefix: &ChunkPrefix) -> Result<Option<Place>> {
        let mut statement = self.connection.prepare_cached(FIRST_PLACE).map_err(failed)?;
        statement.query_row([&prefix[..]], place).optional().map_err(failed)?.map(sound).transpose()
    }

    /// All places of a chunk: after a repack, or when two clients stored it at once, there are several.
    pub(in crate::repo) fn places(&self, prefix: &ChunkPrefix) -> Result<Vec<Place>> {
        let mut statement = self.connection.prepare_cached(&format!("{PLACE} WHERE id = ?")).map_err(failed)?;
        let rows = statement.query_map([&prefix[..]], place).map_err(failed)?;
        rows.map(|row| row.map_err(failed).and_then(sound)).collect()
    }

    /// A pack that holds the chunk, is not among `barred`, and has not lost it.
    pub(in crate::repo) fn pack_of(&self, prefix: &ChunkPrefix, barred: &HashSet<u32>) -> Result<Option<u32>> {
        let sql = format!(
            "{PLACE} WHERE id = ?
             AND NOT EXISTS(SELECT 1 FROM lost WHERE lost.pack = c.pack AND lost.chunk IN (c.id, x''))"
        );
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query([&prefix[..]]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            // Borrowing on the word of a damaged row could lose what it stands for.
            let place = place(row).map_err(failed).and_then(sound)?;
            if !barred.contains(&place.pack) {
                return Ok(Some(place.pack));
            }
        }
        Ok(None)
    }

    /// What is needed to read a pack.
    pub(in crate::repo) fn pack(&self, number: u32) -> Result<StoredPack> {
        match self.pack_in_view(number)? {
            Some(pack) => Ok(pack),
            None => {
                // Somebody else may have added it since.
                self.refresh()?;
                let gone = || Error::damaged("find a pack in the local cache: a prune has removed it");
                self.pack_in_view(number)?.ok_or_else(gone)
            }
        }
    }

    fn pack_in_view(&self, number: u32) -> Result<Option<StoredPack>> {
        let mut statement =
            self.connection.prepare_cached("SELECT id, seals, blocks, size, body_sum FROM pack WHERE no = ?").map_err(failed)?;
        let row = statement.query_row([number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)));
        let Some(row) = row.optional().map_err(failed)? else { return Ok(None) };
        let (id, seals, blocks, size, sum): (Vec<u8>, Vec<u8>, Vec<u8>, i64, i64) = row;
        let id = PackId::from_slice(&id).filter(|_| body_sum(&seals, &blocks) == sum).ok_or_else(wrong_pack)?;
        Ok(Some(StoredPack { id, size: size.cast_unsigned(), seals: decode_seals(&seals)?, blocks: decode_blocks(&blocks)? }))
    }

    /// True if the chunk is where a table of contents says.
    pub(in crate::repo) fn has(&self, prefix: &ChunkPrefix, wanted: &Place) -> Result<bool> {
        let sql = format!("{PLACE} WHERE id = ? AND pack = ?");
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let found = statement.query_row(params![&prefix[..], wanted.pack], place).optional().map_err(failed)?;
        Ok(found.map(sound).transpose()?.is_some_and(|found| found.len == wanted.len))
    }

    /// True if a check could not read the chunk, or nothing of the pack of that number.
    pub(in crate::repo) fn is_bad(&self, pack: u32, prefix: &ChunkPrefix) -> Result<bool> {
        let sql = "SELECT 1 FROM bad WHERE pack = (SELECT id FROM pack WHERE no = ?) AND chunk IN (?, x'')";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.exists(params![pack, &prefix[..]]).map_err(failed)
    }

    pub(in crate::repo) fn number(&self, pack: &PackId) -> Result<Option<u32>> {
        number(&self.connection, pack)
    }

    /// Rows of the chunk table.
    pub(in crate::repo) fn count(&self) -> Result<u64> {
        let count: i64 = self.connection.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0)).map_err(failed)?;
        Ok(count.cast_unsigned())
    }

    /// Bytes of all chunks, each counted once however many packs have it.
    pub(in crate::repo) fn bytes(&self) -> Result<u64> {
        let sql = "SELECT total(len) FROM (SELECT max(len) AS len FROM chunk GROUP BY id)";
        self.connection.query_row(sql, [], |row| row.get::<_, f64>(0)).map(|bytes| bytes as u64).map_err(failed)
    }

    /// Calls `each` with every pack that there should be: those of the index in the order of their numbers, then those that
    /// records list and that could not be read. All as it was at one moment: a pack that another process puts into the index
    /// meanwhile is among them, and once.
    pub(in crate::repo) fn each_pack(&self, each: &mut dyn FnMut(&PackRef) -> Result<()>) -> Result<()> {
        let mut statement = self.connection.prepare("SELECT id, size, toc_len FROM pack ORDER BY no").map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            each(&pack_ref(row).map_err(failed)?)?;
        }
        super::unread::each(&self.connection, &mut |pack| match super::prune::is_gone(&self.connection, &pack.id)? {
            true => Ok(()),
            false => each(pack),
        })
    }

    /// Calls `each` with every known prefix.
    pub(in crate::repo) fn prefixes(&self, mut each: impl FnMut(&ChunkPrefix)) -> Result<()> {
        let mut statement = self.connection.prepare("SELECT id FROM chunk").map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let id = row.get_ref(0).map_err(failed)?;
            if let Some(prefix) = id.as_blob().ok().and_then(|bytes| bytes.try_into().ok()) {
                each(prefix);
            }
        }
        Ok(())
    }
}
