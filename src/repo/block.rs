//! Solid blocks: chunks that lie together are compressed and sealed together.

use crate::crypto::derive::{BlockContext, block_key};
use crate::crypto::seal::{open_in_place, open_into, seal_in_place};
use crate::error::{Error, Result};
use crate::format::pack::{BlockRow, Codec, TableEntry, encode_table};
use crate::format::tree::ChunkType;
use crate::id::{ChunkId, RepositoryId};
use crate::repo::keys::Keys;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

const NONCE: [u8; 12] = [0; 12];
/// Compression that saves less than this share of the input is not kept: 1/32.
const LEAST_GAIN: usize = 32;

/// A block that is sealed and was verified.
pub(super) struct SealedBlock {
    pub(super) row: BlockRow,
    pub(super) chunks: Vec<TableEntry>,
    pub(super) bytes: Vec<u8>,
}

/// Hash of a block's chunk table.
pub(super) fn table_digest(chunks: &[TableEntry]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(4 + chunks.len() * 20);
    encode_table(chunks, &mut bytes);
    *blake3::hash(&bytes).as_bytes()
}

fn context<'a>(row: &BlockRow, table: &'a [u8; 32]) -> BlockContext<'a> {
    BlockContext {
        number: row.number,
        codec: row.codec.code(),
        kind: row.kind.code(),
        raw_len: row.raw_len,
        packed_len: row.packed_len,
        table,
    }
}

/// Chunks of one type that are waiting to fill a block.
pub(super) struct OpenBlock {
    pub(super) kind: ChunkType,
    pub(super) raw: Vec<u8>,
    pub(super) chunks: Vec<TableEntry>,
}

impl OpenBlock {
    pub(super) fn new(kind: ChunkType) -> Self {
        Self { kind, raw: Vec::new(), chunks: Vec::new() }
    }

    pub(super) fn push(&mut self, id: &ChunkId, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("chunks are at most 4 MiB");
        self.raw.extend_from_slice(bytes);
        self.chunks.push(TableEntry { len, prefix: id.prefix() });
    }
}

/// Compresses and seals blocks; one for each worker.
pub(super) struct Sealer {
    compressor: Compressor<'static>,
    opener: Opener,
}

impl Sealer {
    pub(super) fn new(level: i32) -> Result<Self> {
        let failed = |error| Error::io("prepare", "zstd", error);
        let mut compressor = Compressor::new(level).map_err(failed)?;
        compressor.include_checksum(false).map_err(failed)?;
        Ok(Self { compressor, opener: Opener::new()? })
    }

    /// Empties `block` into a sealed block, written to `out`, which is a buffer to reuse. What was sealed is opened
    /// again, decompressed, and hashed before it is let go: a fault of memory, compressor, or cipher never reaches
    /// the store.
    pub(super) fn seal(
        &mut self,
        keys: &Keys,
        session: &[u8; 32],
        number: u64,
        block: &mut OpenBlock,
        mut out: Vec<u8>,
    ) -> Result<SealedBlock> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("blocks are at most 16 MiB");
        let raw_len = length(&block.raw);
        let codec = self.pack(&mut block.raw, &mut out)?;
        let chunks = std::mem::take(&mut block.chunks);
        let row = BlockRow { seal: 0, number, kind: block.kind, codec, raw_len, packed_len: length(&out) };
        let table = table_digest(&chunks);
        let key = block_key(session, &context(&row, &table));
        out.resize(row.padded_len() as usize, 0);
        seal_in_place(&key, &NONCE, &keys.repository.0, &mut out, 0);
        block.raw.clear();

        let mut rest = self.opener.open_copy(&keys.repository, session, &row, &table, &out)?;
        for chunk in &chunks {
            let (bytes, after) = rest.split_at(chunk.len as usize);
            if keys.name(block.kind, bytes)?.prefix() != chunk.prefix {
                return Err(Error::failed("verify a block before it is stored: its content is not what was read")
                    .with_hint("this machine's memory or processor makes errors; nothing was committed"));
            }
            rest = after;
        }
        Ok(SealedBlock { row, chunks, bytes: out })
    }

    /// Leaves in `out` what is to be sealed; `raw` may be another buffer afterwards.
    fn pack(&mut self, raw: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Codec> {
        out.clear();
        out.reserve(zstd_safe::compress_bound(raw.len()) + 128);
        let packed =
            self.compressor.compress_to_buffer(&raw[..], out).map_err(|error| Error::io("compress", "a block", error))?;
        if packed + raw.len() / LEAST_GAIN < raw.len() {
            return Ok(Codec::Zstd);
        }
        // As it is, without a copy: the buffers change places.
        std::mem::swap(raw, out);
        Ok(Codec::Raw)
    }
}

/// Opens and decompresses blocks into buffers of its own.
pub(super) struct Opener {
    unpacker: Unpacker,
    plain: Vec<u8>,
}

impl Opener {
    pub(super) fn new() -> Result<Self> {
        let decompressor = Decompressor::new().map_err(|error| Error::io("prepare", "zstd", error))?;
        Ok(Self { unpacker: Unpacker { decompressor, raw: Vec::new() }, plain: Vec::new() })
    }

    /// The raw bytes of a block. `stored` is opened in place; the result lives until the next call.
    pub(super) fn open<'a>(
        &'a mut self,
        repository: &RepositoryId,
        session: &[u8; 32],
        row: &BlockRow,
        table: &[u8; 32],
        stored: &'a mut [u8],
    ) -> Result<&'a [u8]> {
        self.unpack(repository, session, row, table, stored)?;
        Ok(self.raw(row, stored))
    }

    /// What [`Opener::unpack`] found.
    pub(super) fn raw<'a>(&'a self, row: &BlockRow, stored: &'a [u8]) -> &'a [u8] {
        if row.codec == Codec::Raw { &stored[..row.packed_len as usize] } else { &self.unpacker.raw }
    }

    /// Opens `stored` in place, and decompresses it where it is compressed.
    pub(super) fn unpack(
        &mut self,
        repository: &RepositoryId,
        session: &[u8; 32],
        row: &BlockRow,
        table: &[u8; 32],
        stored: &mut [u8],
    ) -> Result<()> {
        row.check()?;
        let key = block_key(session, &context(row, table));
        let padded = open_in_place(&key, &NONCE, &repository.0, stored)?;
        self.unpacker.unpack(row, padded).map(drop)
    }

    /// As [`Opener::open`], but leaves `stored` as it is.
    fn open_copy(
        &mut self,
        repository: &RepositoryId,
        session: &[u8; 32],
        row: &BlockRow,
        table: &[u8; 32],
        stored: &[u8],
    ) -> Result<&[u8]> {
        row.check()?;
        let key = block_key(session, &context(row, table));
        let length = open_into(&key, &NONCE, &repository.0, stored, &mut self.plain)?;
        self.unpacker.unpack(row, &self.plain[..length])
    }
}

/// True for exactly one zstd frame that says to expand to `raw_len` bytes, without checksum and dictionary (RFC 8878,
/// 3.1.1): no frames joined, none to be skipped, and none that grows beyond what was asked for.
fn is_plain_frame(packed: &[u8], raw_len: u32) -> bool {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    /// Of the frame's descriptor: the reserved bit, checksum, and length of the dictionary's id.
    const UNUSED: u8 = 0b0000_1111;
    /// Largest exponent of a window, over 10: those of 2^24 bytes and eighths more of it.
    const WINDOW: u8 = 14;
    let [_, _, _, _, descriptor, window, ..] = packed else { return false };
    // A frame in a single segment needs no window but its content.
    let fits = descriptor & 0b0010_0000 != 0 || window >> 3 <= WINDOW;
    packed.starts_with(&MAGIC)
        && fits
        && descriptor & UNUSED == 0
        && matches!(zstd_safe::get_frame_content_size(packed), Ok(Some(length)) if length == u64::from(raw_len))
        && zstd_safe::find_frame_compressed_size(packed) == Ok(packed.len())
}

struct Unpacker {
    decompressor: Decompressor<'static>,
    raw: Vec<u8>,
}

impl Unpacker {
    fn unpack<'a>(&'a mut self, row: &BlockRow, padded: &'a [u8]) -> Result<&'a [u8]> {
        let wrong = |why: &str| Error::damaged(format!("open a block: {why}"));
        let (packed, padding) =
            padded.split_at_checked(row.packed_len as usize).ok_or_else(|| wrong("it is shorter than it says"))?;
        if padding.len() >= 64 || padding.iter().any(|byte| *byte != 0) {
            return Err(wrong("its padding is not empty"));
        }
        if row.codec == Codec::Raw {
            return Ok(packed);
        }
        if !is_plain_frame(packed, row.raw_len) {
            return Err(wrong("it is not one zstd frame of its length"));
        }
        self.raw.clear();
        self.raw.reserve(row.raw_len as usize);
        match self.decompressor.decompress_to_buffer(packed, &mut self.raw) {
            Ok(length) if length == row.raw_len as usize => Ok(&self.raw),
            _ => Err(wrong("it does not decompress to its length")),
        }
    }
}
