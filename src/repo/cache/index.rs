//! The index: which chunk is in which block of which pack.

use super::failed;
use crate::error::{Error, Result};
use crate::format::log::PackRef;
use crate::format::pack::{BlockRow, Codec, SealEntry, Toc};
use crate::format::tree::ChunkType;
use crate::id::{ChunkPrefix, PackId};
use crate::repo::block::table_digest;
use rusqlite::{Connection, OptionalExtension, params};

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

fn decode_blocks(bytes: &[u8]) -> Result<Vec<StoredBlock>> {
    let wrong = || Error::failed("read the local cache: a pack's row is damaged");
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

fn decode_seals(mut bytes: &[u8]) -> Result<Vec<SealEntry>> {
    let mut seals = Vec::new();
    while !bytes.is_empty() {
        let (seal, length) = SealEntry::decode(bytes)?;
        seals.push(seal);
        bytes = &bytes[length..];
    }
    Ok(seals)
}

/// Adds a pack and its chunks in one transaction. Chunks that are known already keep their place.
pub(in crate::repo) fn insert_pack(
    connection: &mut Connection,
    pack: &PackRef,
    logged: bool,
    seals: &[SealEntry],
    toc: &Toc,
) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let known: Option<bool> = transaction
        .query_row("SELECT logged FROM pack WHERE id = ?", [&pack.id.0[..]], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    if let Some(known) = known {
        if logged && !known {
            transaction.execute("UPDATE pack SET logged = 1 WHERE id = ?", [&pack.id.0[..]]).map_err(failed)?;
        }
        return transaction.commit().map_err(failed);
    }
    transaction
        .execute(
            "INSERT INTO pack(id, size, toc_len, logged, seals, blocks) VALUES(?, ?, ?, ?, ?, ?)",
            params![&pack.id.0[..], pack.size.cast_signed(), pack.toc_len, logged, encode_seals(seals), encode_blocks(toc)],
        )
        .map_err(failed)?;
    let number = transaction.last_insert_rowid();
    let mut rows: Vec<(ChunkPrefix, u32, u32, u32)> = Vec::new();
    for (block, position) in toc.blocks.iter().zip(0u32..) {
        let mut start = 0;
        for chunk in &block.chunks {
            rows.push((chunk.prefix, position, start, chunk.len));
            start += chunk.len;
        }
    }
    // In the order of the table, or every row touches a page of its own.
    rows.sort_unstable();
    {
        let mut insert = transaction
            .prepare_cached("INSERT OR IGNORE INTO chunk(id, pack, block, start, len) VALUES(?, ?, ?, ?, ?)")
            .map_err(failed)?;
        for (prefix, block, start, len) in &rows {
            insert.execute(params![&prefix[..], number, block, start, len]).map_err(failed)?;
        }
    }
    transaction.commit().map_err(failed)
}

/// Packs that no record of the log lists yet.
pub(in crate::repo) fn unlogged_packs(connection: &Connection) -> Result<Vec<PackRef>> {
    let mut statement = connection.prepare_cached("SELECT id, size, toc_len FROM pack WHERE logged = 0").map_err(failed)?;
    let rows = statement
        .query_map([], |row| {
            let (id, size): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
            Ok(PackRef {
                id: PackId::from_slice(&id).unwrap_or(PackId([0; 32])),
                size: size.cast_unsigned(),
                toc_len: row.get(2)?,
            })
        })
        .map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

/// Counts removals from the index; what was known before a removal must be looked up again.
pub(in crate::repo) fn epoch(connection: &Connection) -> Result<i64> {
    let found = connection.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0));
    found.optional().map(|epoch| epoch.unwrap_or(0)).map_err(failed)
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
        let mut statement =
            self.connection.prepare_cached("SELECT pack, block, start, len FROM chunk WHERE id = ?").map_err(failed)?;
        let found = statement.query_row([&prefix[..]], |row| {
            Ok(Place { pack: row.get(0)?, block: row.get(1)?, start: row.get(2)?, len: row.get(3)? })
        });
        found.optional().map_err(failed)
    }

    pub(in crate::repo) fn pack(&self, number: u32) -> Result<StoredPack> {
        let mut statement = self.connection.prepare_cached("SELECT id, seals, blocks FROM pack WHERE no = ?").map_err(failed)?;
        let row = statement.query_row([number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (id, seals, blocks): (Vec<u8>, Vec<u8>, Vec<u8>) = row.map_err(failed)?;
        let id = PackId::from_slice(&id).ok_or_else(|| Error::failed("read the local cache: a pack's row is damaged"))?;
        Ok(StoredPack { id, seals: decode_seals(&seals)?, blocks: decode_blocks(&blocks)? })
    }

    /// Rows of the chunk table.
    pub(in crate::repo) fn count(&self) -> Result<u64> {
        let count: i64 = self.connection.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0)).map_err(failed)?;
        Ok(count.cast_unsigned())
    }

    /// All packs: number, name, and length.
    pub(in crate::repo) fn packs(&self) -> Result<Vec<(u32, PackRef)>> {
        let mut statement = self.connection.prepare("SELECT no, id, size, toc_len FROM pack ORDER BY no").map_err(failed)?;
        let rows = statement
            .query_map([], |row| {
                let (id, size): (Vec<u8>, i64) = (row.get(1)?, row.get(2)?);
                let id = PackId::from_slice(&id).unwrap_or(PackId([0; 32]));
                Ok((row.get(0)?, PackRef { id, size: size.cast_unsigned(), toc_len: row.get(3)? }))
            })
            .map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
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
