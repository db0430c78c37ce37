//! Index objects: where chunks are (docs/format.md#9-index-objects).

use super::cbor::{Decoder, Fields, MapEncoder};
use crate::error::Result;
use crate::id::{ChunkPrefix, PackId};

/// Length of an entry.
const ENTRY_LEN: usize = 28;

/// Where one chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// First half of the chunk's id.
    pub prefix: ChunkPrefix,
    /// Position of its pack in the object.
    pub pack: u32,
    /// Position of its block in the pack.
    pub block: u32,
    /// Its position in the block.
    pub chunk: u32,
}

/// One object of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexObject {
    /// 0: of one session; 1: a shard that maintenance made.
    pub level: u8,
    /// The packs that the entries name, ascending.
    pub packs: Vec<PackId>,
    /// First and last prefix of the range that the object covers.
    pub range: (ChunkPrefix, ChunkPrefix),
    /// The entries, ascending; one chunk may be in several places.
    pub entries: Vec<IndexEntry>,
}

impl IndexObject {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut entries = Vec::with_capacity(self.entries.len() * ENTRY_LEN);
        for entry in &self.entries {
            entries.extend_from_slice(&entry.prefix);
            for position in [entry.pack, entry.block, entry.chunk] {
                entries.extend_from_slice(&position.to_le_bytes());
            }
        }
        let packs: Vec<u8> = self.packs.iter().flat_map(|pack| pack.0).collect();
        let mut out = Vec::with_capacity(entries.len() + packs.len() + 64);
        let mut map = MapEncoder::new(&mut out);
        map.key(0).uint(self.level.into());
        map.key(1).bytes(&packs);
        map.key(2).bytes(&[self.range.0, self.range.1].concat());
        map.key(3).bytes(&entries);
        map.finish(&[]);
        out
    }

    /// Decodes an index object.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes, "an index object");
        let mut fields = Fields::start(&mut decoder)?;
        let level = fields.required(0, |decoder| match decoder.uint8()? {
            level @ (0 | 1) => Ok(level),
            _ => Err(decoder.wrong("a level that is not known")),
        })?;
        let packs = fields.required(1, decode_packs)?;
        let range = fields.required(2, decode_range)?;
        let entries = fields.required(3, |decoder| decode_entries(decoder, packs.len(), &range))?;
        fields.end()?;
        decoder.end()?;
        Ok(Self { level, packs, range, entries })
    }
}

/// Pack ids, joined and ascending.
pub(super) fn decode_packs(decoder: &mut Decoder<'_>) -> Result<Vec<PackId>> {
    let (ids, rest) = decoder.bytes()?.as_chunks::<32>();
    if !rest.is_empty() || !ids.is_sorted_by(|a, b| a < b) {
        return Err(decoder.wrong("pack ids of a wrong length or order"));
    }
    Ok(ids.iter().copied().map(PackId).collect())
}

fn decode_range(decoder: &mut Decoder<'_>) -> Result<(ChunkPrefix, ChunkPrefix)> {
    let both: [u8; 32] = decoder.fixed()?;
    let (mut first, mut last) = ([0; 16], [0; 16]);
    first.copy_from_slice(&both[..16]);
    last.copy_from_slice(&both[16..]);
    if first > last { Err(decoder.wrong("a range that ends before it begins")) } else { Ok((first, last)) }
}

fn decode_entries(decoder: &mut Decoder<'_>, packs: usize, range: &(ChunkPrefix, ChunkPrefix)) -> Result<Vec<IndexEntry>> {
    let (rows, rest) = decoder.bytes()?.as_chunks::<ENTRY_LEN>();
    if !rest.is_empty() {
        return Err(decoder.wrong("entries of a wrong length"));
    }
    let word = |row: &[u8; ENTRY_LEN], at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(rows.len());
    for row in rows {
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&row[..16]);
        let entry = IndexEntry { prefix, pack: word(row, 16), block: word(row, 20), chunk: word(row, 24) };
        let placed = (entry.pack as usize) < packs && range.0 <= prefix && prefix <= range.1;
        if !placed || entries.last().is_some_and(|last| *last >= entry) {
            return Err(decoder.wrong("entries out of order, out of range, or without a pack"));
        }
        entries.push(entry);
    }
    Ok(entries)
}
