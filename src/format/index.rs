//! Index objects: where chunks are (docs/format.md#9-index-objects).

use super::cbor::{Decoder, Fields, MapEncoder};
use crate::error::{Error, Result};
use crate::id::{ChunkPrefix, PackId};

/// Length of an entry.
pub const ENTRY_LEN: usize = 28;

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

impl IndexEntry {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        for position in [self.pack, self.block, self.chunk] {
            out.extend_from_slice(&position.to_le_bytes());
        }
    }

    /// The entry in these bytes.
    #[must_use]
    pub fn decode(row: &[u8; ENTRY_LEN]) -> Self {
        let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&row[..16]);
        Self { prefix, pack: word(16), block: word(20), chunk: word(24) }
    }
}

/// Where the parts of an index object lie in its body, so that one entry can be read without the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexLayout {
    /// Level.
    pub level: u8,
    /// Offset of the joined pack ids.
    pub packs_at: u64,
    /// Number of packs.
    pub packs: u64,
    /// Offset of the first entry.
    pub entries_at: u64,
    /// Number of entries.
    pub entries: u64,
    /// First and last prefix of the range that the object covers.
    pub range: (ChunkPrefix, ChunkPrefix),
}

/// Bytes from the end of the pack ids to the first entry, at most: two keys, the range, and a length.
const MIDDLE_LEN: u64 = 1 + 2 + 32 + 1 + 9;

impl IndexLayout {
    /// Finds the parts of a body of `length` bytes; `read` gives the bytes at an offset, at most as many as asked for.
    ///
    /// # Errors
    /// `Damaged`, or what `read` returns.
    pub fn find(length: u64, mut read: impl FnMut(u64, u64) -> Result<Vec<u8>>) -> Result<Self> {
        let wrong = || Error::damaged("decode an index object: its parts do not fit");
        let first = read(0, length.min(16))?;
        let (Some([0xa4, 0, level @ (0 | 1), 1]), Some(head)) = (first.first_chunk::<4>(), first.get(4..)) else {
            return Err(wrong());
        };
        let (ids_len, head_len) = byte_string(head).ok_or_else(wrong)?;
        let packs_at = 4 + head_len;
        let middle_at = packs_at.checked_add(ids_len).filter(|at| *at <= length).ok_or_else(wrong)?;
        let middle = read(middle_at, MIDDLE_LEN.min(length - middle_at))?;
        let (Some([2, 0x58, 32]), Some(range), Some(3)) = (middle.first_chunk::<3>(), middle.get(3..35), middle.get(35)) else {
            return Err(wrong());
        };
        let (entries_len, head_len) = byte_string(&middle[36..]).ok_or_else(wrong)?;
        let entries_at = middle_at + 36 + head_len;
        let (first, last) = range.split_at(16);
        let range = (first.try_into().expect("16 bytes"), last.try_into().expect("16 bytes"));
        let whole = entries_at.checked_add(entries_len) == Some(length) && range.0 <= range.1;
        if !whole || ids_len % 32 != 0 || entries_len % ENTRY_LEN as u64 != 0 {
            return Err(wrong());
        }
        Ok(Self { level: *level, packs_at, packs: ids_len / 32, entries_at, entries: entries_len / ENTRY_LEN as u64, range })
    }
}

/// Length of a byte string and of its head, if its length is written in the shortest way.
fn byte_string(bytes: &[u8]) -> Option<(u64, u64)> {
    let (length, head) = match *bytes.first()? {
        short @ 0x40..0x58 => (u64::from(short - 0x40), 1),
        0x58 => (u64::from(*bytes.get(1)?), 2),
        0x59 => (u64::from(u16::from_be_bytes(*bytes.get(1..)?.first_chunk()?)), 3),
        0x5a => (u64::from(u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?)), 5),
        _ => return None,
    };
    let shortest = match head {
        1 => true,
        2 => length >= 24,
        3 => length > 0xff,
        _ => length > 0xffff,
    };
    shortest.then_some((length, head))
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
        let entries_len = self.entries.len() * ENTRY_LEN;
        let mut out = Self::encode_head(self.level, &self.packs, &self.range, entries_len);
        out.reserve_exact(entries_len);
        self.entries.iter().for_each(|entry| entry.encode(&mut out));
        out
    }

    /// The bytes that come before `entries_len` bytes of entries, with which the object ends.
    #[must_use]
    pub fn encode_head(level: u8, packs: &[PackId], range: &(ChunkPrefix, ChunkPrefix), entries_len: usize) -> Vec<u8> {
        let packs: Vec<u8> = packs.iter().flat_map(|pack| pack.0).collect();
        let mut out = Vec::with_capacity(packs.len() + 64);
        let mut map = MapEncoder::new(&mut out);
        map.key(0).uint(level.into());
        map.key(1).bytes(&packs);
        map.key(2).bytes(&[range.0, range.1].concat());
        map.key(3).bytes_head(entries_len);
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
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(rows.len());
    for row in rows {
        let entry = IndexEntry::decode(row);
        let placed = (entry.pack as usize) < packs && range.0 <= entry.prefix && entry.prefix <= range.1;
        if !placed || entries.last().is_some_and(|last| *last >= entry) {
            return Err(decoder.wrong("entries out of order, out of range, or without a pack"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_object_are_found_where_they_lie() {
        for (packs, entries) in [(0u32, 0u32), (1, 1), (3, 9), (9, 700), (2100, 5)] {
            let ids = (0..packs).map(|pack| PackId(std::array::from_fn(|at| pack.to_be_bytes()[at % 4])));
            let mut ids: Vec<PackId> = ids.collect();
            ids.sort_unstable();
            let rows = (0..entries).map(|at| IndexEntry {
                prefix: std::array::from_fn(|byte| if byte < 4 { at.to_be_bytes()[byte] } else { 7 }),
                pack: 0,
                block: at,
                chunk: 2,
            });
            let object = IndexObject { level: 1, packs: ids, range: ([0; 16], [255; 16]), entries: rows.collect() };
            let bytes = object.encode();
            let read = |at: u64, len: u64| Ok(bytes[at as usize..(at + len) as usize].to_vec());
            let layout = IndexLayout::find(bytes.len() as u64, read).unwrap();
            assert_eq!((layout.level, layout.packs, layout.entries), (1, packs.into(), entries.into()));
            assert_eq!(layout.range, object.range);
            let row = |at: usize| bytes[layout.entries_at as usize + at * ENTRY_LEN..].first_chunk().unwrap();
            assert!((0..entries as usize).all(|at| IndexEntry::decode(row(at)) == object.entries[at]));
            assert!(IndexLayout::find(bytes.len() as u64 - 1, read).is_err());
            assert_eq!(IndexObject::decode(&bytes).is_ok(), packs > 0 || entries == 0);
        }
    }
}
