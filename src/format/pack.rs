//! Packs: seal entries, the table of contents, and the footer (docs/format.md#6-packs).

use super::envelope::{HEADER_LEN, Header, ObjectKind, padme};
use super::tree::{ChunkType, Class};
use crate::error::{Error, Result};
use crate::id::{ChunkPrefix, SessionId};
use std::fmt;
use std::sync::Arc;

/// Longest raw block.
pub const MAX_RAW_BLOCK: u32 = 16 << 20;
/// Longest pack.
pub const MAX_PACK: u64 = 256 << 20;
/// Longest table of contents, sealed.
pub const MAX_TOC: u32 = 64 << 20;
/// Length of its table of contents at which a pack is closed: of the smallest chunks, the table takes more than they do.
pub const TOC_TARGET: usize = 8 << 20;
/// Most blocks of a pack: more than fit into a table of that length.
const MAX_BLOCKS: usize = 1 << 18;
/// Length of the footer.
pub const FOOTER_LEN: usize = 40;
/// Longest age file of a seal entry.
const MAX_SEAL: usize = 8192;
/// Most seal entries of a pack.
const MAX_SEALS: u16 = 4096;
/// Packed blocks are padded to a multiple of this.
const BLOCK_PADDING: u32 = 64;
const TAG_LEN: u32 = 16;
const FOOTER_MAGIC: [u8; 4] = *b"LFBP";
const ROW_LEN: usize = 20;
/// What a chunk takes of a table of contents, at least.
const CHUNK_LEN: usize = 17;

fn wrong(why: &str) -> Error {
    Error::damaged(format!("decode a pack: {why}"))
}

/// How a block is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// Its code in the format.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// The codec with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd].into_iter().find(|codec| codec.code() == code)
    }
}

/// How the secret of a session is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealEntry {
    /// The session.
    pub session: SessionId,
    /// What it seals.
    pub class: Class,
    /// Generation of the vault.
    pub generation: u32,
    /// Commitment of the session's key.
    pub commit: [u8; 32],
    /// The age file that holds the secret.
    pub wrapped: Vec<u8>,
}

impl SealEntry {
    /// Appends the entry.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.0);
        out.extend_from_slice(&[self.class.code(), 1]);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.commit);
        let length = u16::try_from(self.wrapped.len()).expect("an age file of 32 bytes is short");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.wrapped);
    }

    /// Reads an entry from the start of `bytes`, and its length.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize)> {
        let mut reader = Bytes(bytes);
        let session = SessionId(reader.array()?);
        let class = Class::from_code(reader.array::<1>()?[0]).ok_or_else(|| wrong("an unknown class"))?;
        if reader.array::<1>()?[0] != 1 {
            return Err(wrong("an unknown type of seal").as_kind(crate::error::ErrorKind::Unsupported));
        }
        let generation = reader.word()?;
        let commit = reader.array()?;
        let length = usize::from(u16::from_le_bytes(reader.array()?));
        if length > MAX_SEAL {
            return Err(wrong("a seal that is too long"));
        }
        let wrapped = reader.take(length)?.to_vec();
        Ok((Self { session, class, generation, commit, wrapped }, bytes.len() - reader.0.len()))
    }
}

/// What the table of contents says of a block besides its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRow {
    /// Position in the seal table.
    pub seal: u16,
    /// Unique in session and class.
    pub number: u64,
    /// Type of all its chunks.
    pub kind: ChunkType,
    /// How it is packed.
    pub codec: Codec,
    /// Length before compression.
    pub raw_len: u32,
    /// Length after compression, before padding.
    pub packed_len: u32,
}

impl BlockRow {
    /// Length of the packed bytes with their padding.
    #[must_use]
    pub fn padded_len(&self) -> u32 {
        self.packed_len.next_multiple_of(BLOCK_PADDING)
    }

    /// Length in the pack.
    #[must_use]
    pub fn stored_len(&self) -> u32 {
        self.padded_len() + TAG_LEN
    }

    /// Appends the row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.seal.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&[self.kind.code(), self.codec.code()]);
        out.extend_from_slice(&self.raw_len.to_le_bytes());
        out.extend_from_slice(&self.packed_len.to_le_bytes());
    }

    fn decode(reader: &mut Bytes<'_>) -> Result<Self> {
        let seal = u16::from_le_bytes(reader.array()?);
        let number = u64::from_le_bytes(reader.array()?);
        let [kind, codec] = reader.array()?;
        let kind = ChunkType::from_code(kind).ok_or_else(|| wrong("an unknown type of chunk"))?;
        let codec = Codec::from_code(codec).ok_or_else(|| wrong("an unknown codec"))?;
        let row = Self { seal, number, kind, codec, raw_len: reader.word()?, packed_len: reader.word()? };
        row.check()?;
        Ok(row)
    }

    /// Checks the lengths against the limits.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn check(&self) -> Result<()> {
        let raw_fits = self.codec == Codec::Zstd || self.packed_len == self.raw_len;
        if self.raw_len > MAX_RAW_BLOCK || self.packed_len > MAX_RAW_BLOCK + 4096 || !raw_fits {
            return Err(wrong("block lengths that cannot be"));
        }
        Ok(())
    }
}

/// A chunk of a block: its length and the prefix of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEntry {
    /// Length in bytes.
    pub len: u32,
    /// First half of the id.
    pub prefix: ChunkPrefix,
}

/// Appends the bytes whose hash binds a block to its chunks.
pub fn encode_table(chunks: &[TableEntry], out: &mut Vec<u8>) {
    let count = u32::try_from(chunks.len()).expect("a block has fewer chunks than bytes");
    out.extend_from_slice(&count.to_le_bytes());
    for chunk in chunks {
        out.extend_from_slice(&chunk.len.to_le_bytes());
        out.extend_from_slice(&chunk.prefix);
    }
}

/// The chunks of a block. Those of all blocks of a table of contents lie in one piece of memory, however many blocks there
/// are; whoever keeps a clone of one keeps none of the others.
pub struct ChunkTable {
    all: Arc<Vec<TableEntry>>,
    range: (u32, u32),
}

impl From<Vec<TableEntry>> for ChunkTable {
    fn from(chunks: Vec<TableEntry>) -> Self {
        let end = u32::try_from(chunks.len()).expect("a block has fewer chunks than bytes");
        Self { all: Arc::new(chunks), range: (0, end) }
    }
}

impl Clone for ChunkTable {
    fn clone(&self) -> Self {
        Self::from(self.to_vec())
    }
}

impl std::ops::Deref for ChunkTable {
    type Target = [TableEntry];

    fn deref(&self) -> &[TableEntry] {
        &self.all[self.range.0 as usize..self.range.1 as usize]
    }
}

impl<'a> IntoIterator for &'a ChunkTable {
    type Item = &'a TableEntry;
    type IntoIter = std::slice::Iter<'a, TableEntry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for ChunkTable {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ChunkTable {}

impl fmt::Debug for ChunkTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.iter()).finish()
    }
}

/// A block in the table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockEntry {
    /// What is said of it.
    pub row: BlockRow,
    /// Its chunks, in order.
    pub chunks: ChunkTable,
}

impl BlockEntry {
    /// What it adds to a table of contents, at most.
    #[must_use]
    pub fn toc_len(&self) -> usize {
        ROW_LEN + 4 + self.chunks.len() * (5 + 16)
    }
}

/// The table of contents of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toc {
    /// Offset of the first block.
    pub first_block: u32,
    /// Length of the random bytes behind the last block.
    pub padding: u32,
    /// The blocks, one after the other.
    pub blocks: Vec<BlockEntry>,
}

impl Toc {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let chunks: usize = self.blocks.iter().map(|block| block.chunks.len()).sum();
        let mut out = Vec::with_capacity(12 + self.blocks.len() * (ROW_LEN + 4) + chunks * 19);
        out.extend_from_slice(&self.first_block.to_le_bytes());
        out.extend_from_slice(&self.padding.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.blocks.len()).expect("few blocks").to_le_bytes());
        for block in &self.blocks {
            block.row.encode(&mut out);
            out.extend_from_slice(&u32::try_from(block.chunks.len()).expect("few chunks").to_le_bytes());
            for chunk in &block.chunks {
                push_varint(chunk.len, &mut out);
            }
            for chunk in &block.chunks {
                out.extend_from_slice(&chunk.prefix);
            }
        }
        out
    }

    /// Decodes the table of contents of a pack with `seals` seal entries.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(bytes: &[u8], seals: usize) -> Result<Self> {
        let mut reader = Bytes(bytes);
        let mut toc = Self { first_block: reader.word()?, padding: reader.word()?, blocks: Vec::new() };
        let count = reader.word()? as usize;
        if count > MAX_BLOCKS || count > reader.0.len() / (ROW_LEN + 4) {
            return Err(wrong("more blocks than bytes, or than a pack can have"));
        }
        let (mut rows, mut chunks) = (Vec::with_capacity(count), Vec::with_capacity(reader.0.len() / CHUNK_LEN));
        for _ in 0..count {
            let row = decode_block(&mut reader, &mut chunks)?;
            if usize::from(row.seal) >= seals {
                return Err(wrong("a block without a seal"));
            }
            rows.push((row, u32::try_from(chunks.len()).map_err(|_| wrong("too many chunks"))?));
        }
        chunks.shrink_to_fit();
        let all = Arc::new(chunks);
        let mut start = 0;
        toc.blocks = rows
            .into_iter()
            .map(|(row, end)| {
                let range = (std::mem::replace(&mut start, end), end);
                BlockEntry { row, chunks: ChunkTable { all: all.clone(), range } }
            })
            .collect();
        if !reader.0.is_empty() {
            return Err(wrong("bytes behind the table of contents"));
        }
        let class = |block: &BlockEntry| block.row.kind.class();
        if toc.blocks.windows(2).any(|pair| class(&pair[0]) != class(&pair[1])) {
            return Err(wrong("blocks of both classes"));
        }
        let total = toc.blocks.iter().try_fold(u64::from(toc.first_block), |sum, block| {
            sum.checked_add(u64::from(block.row.stored_len())).filter(|sum| *sum <= MAX_PACK)
        });
        total.map(|_| toc).ok_or_else(|| wrong("blocks that are longer than a pack can be"))
    }
}

/// Reads a block, whose chunks it appends to those of the blocks before.
fn decode_block(reader: &mut Bytes<'_>, chunks: &mut Vec<TableEntry>) -> Result<BlockRow> {
    let row = BlockRow::decode(reader)?;
    let count = reader.word()? as usize;
    if count == 0 || count > reader.0.len() / CHUNK_LEN {
        return Err(wrong("more chunks than bytes, or none"));
    }
    let first = chunks.len();
    let mut total = 0u64;
    for _ in 0..count {
        let len = reader.varint()?;
        total += u64::from(len);
        chunks.push(TableEntry { len, prefix: [0; 16] });
    }
    for chunk in &mut chunks[first..] {
        chunk.prefix = reader.array()?;
    }
    if total != u64::from(row.raw_len) {
        return Err(wrong("chunks that do not fill their block"));
    }
    Ok(row)
}

fn push_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f | 0x80) as u8);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The bytes before the first block.
#[must_use]
pub fn encode_head(header: &Header, seals: &[SealEntry]) -> Vec<u8> {
    let mut out = header.encode().to_vec();
    out.extend_from_slice(&u16::try_from(seals.len()).expect("few seals").to_le_bytes());
    seals.iter().for_each(|seal| seal.encode(&mut out));
    out
}

/// Reads the bytes before the first block: the header and the seals. `bytes` may go on behind them.
///
/// # Errors
/// `Damaged`, `Unsupported`.
pub fn decode_head(bytes: &[u8]) -> Result<(Header, Vec<SealEntry>)> {
    let header = Header::decode(bytes)?;
    if header.kind != ObjectKind::Pack {
        return Err(wrong("an object of another kind"));
    }
    let mut reader = Bytes(&bytes[HEADER_LEN..]);
    let count = u16::from_le_bytes(reader.array()?);
    if count > MAX_SEALS {
        return Err(wrong("too many seals"));
    }
    let mut seals = Vec::new();
    for _ in 0..count {
        let (seal, length) = SealEntry::decode(reader.0)?;
        reader.take(length)?;
        seals.push(seal);
    }
    Ok((header, seals))
}

/// The last bytes of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Commitment of the key of the table of contents.
    pub commit: [u8; 32],
    /// Length of the sealed table of contents.
    pub toc_len: u32,
}

impl Footer {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut out = [0; FOOTER_LEN];
        out[..32].copy_from_slice(&self.commit);
        out[32..36].copy_from_slice(&self.toc_len.to_le_bytes());
        out[36..].copy_from_slice(&FOOTER_MAGIC);
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; FOOTER_LEN] = bytes.try_into().map_err(|_| wrong("a footer of a wrong length"))?;
        let mut reader = Bytes(bytes);
        let footer = Self { commit: reader.array()?, toc_len: reader.word()? };
        if reader.0 != FOOTER_MAGIC || footer.toc_len > MAX_TOC {
            return Err(wrong("no footer; it was cut off or overwritten"));
        }
        Ok(footer)
    }
}

/// Length to which a pack is padded: full ones hide little and lose little, small ones follow Padmé.
#[must_use]
pub fn padded_pack_len(length: u64, target: u64) -> u64 {
    if length >= target { length.next_multiple_of(64 << 10) } else { padme(length) }
}

/// Fixed-width fields, taken from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| wrong("cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN]> {
        Ok(self.take(LEN)?.try_into().expect("as many bytes as were taken"))
    }

    fn word(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn varint(&mut self) -> Result<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.array::<1>()?[0];
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0xf {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(wrong("a length that is not in its shortest form")) } else { Ok(value) };
            }
        }
        Err(wrong("a length that is too long"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_of_a_block_does_not_keep_the_chunks_of_all_others() {
        let all = Arc::new(vec![TableEntry { len: 1, prefix: [0; 16] }; 1000]);
        let block = ChunkTable { all: all.clone(), range: (10, 12) };
        let kept = block.clone();
        assert!(kept == block && kept.all.len() == 2);
        drop(block);
        assert_eq!(Arc::strong_count(&all), 1);
    }
}
