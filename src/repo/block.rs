//! Solid blocks: chunks that lie together are compressed and sealed together.

use crate::crypto::derive::{BlockContext, block_key};
use crate::crypto::seal::{open_in_place, open_into, seal_in_place};
use crate::error::{Error, Result};
use crate::format::pack::{BlockRow, Codec, TableEntry, encode_table};
use crate::format::tree::ChunkType;
use crate::id::{ChunkId, RepositoryId};
use crate::repo::keys::Keys;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

const NONCE: [u8; 12] = [0; 12];
/// Compression that saves less than this share of the input is not kept: 1/32.
const LEAST_GAIN: usize = 32;
/// Samples that are taken of a block, and bytes of each.
const SAMPLES: usize = 16;
const SAMPLE: usize = 4 << 10;

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
    /// The last block of contents did not become shorter: the next one is likely to be of the same kind.
    incompressible: bool,
    sample: Vec<u8>,
}

impl Sealer {
    pub(super) fn new(level: i32) -> Result<Self> {
        let failed = |error| Error::io("prepare", "zstd", error);
        let mut compressor = Compressor::new(level).map_err(failed)?;
        compressor.include_checksum(false).map_err(failed)?;
        Ok(Self { compressor, opener: Opener::new()?, incompressible: false, sample: Vec::new() })
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
        let codec = self.pack(block.kind, &mut block.raw, &mut out)?;
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
    fn pack(&mut self, kind: ChunkType, raw: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Codec> {
        let packed = if self.is_in_vain(kind, raw, out)? { raw.len() } else { self.compress(raw, out)? };
        let codec = if packed + raw.len() / LEAST_GAIN < raw.len() { Codec::Zstd } else { Codec::Raw };
        if kind == ChunkType::Data {
            self.incompressible = codec == Codec::Raw;
        }
        if codec == Codec::Raw {
            // As it is, without a copy: the buffers change places.
            std::mem::swap(raw, out);
        }
        Ok(codec)
    }

    fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<usize> {
        out.clear();
        out.reserve(zstd_safe::compress_bound(raw.len()) + 128);
        self.compressor.compress_to_buffer(raw, out).map_err(|error| Error::io("compress", "a block", error))
    }

    /// True if a block would most likely not become shorter: the one before did not, and samples from all over this one do not
    /// either, not by a tenth of what would count.
    fn is_in_vain(&mut self, kind: ChunkType, raw: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        if !self.incompressible || kind != ChunkType::Data || raw.len() < 4 * SAMPLES * SAMPLE {
            return Ok(false);
        }
        let mut sample = std::mem::take(&mut self.sample);
        sample.clear();
        raw.chunks(raw.len() / SAMPLES).take(SAMPLES).for_each(|part| sample.extend_from_slice(&part[..SAMPLE]));
        let packed = self.compress(&sample, out)?;
        self.sample = sample;
        Ok(packed + self.sample.len() / (10 * LEAST_GAIN) >= self.sample.len())
    }
}

/// Opens and decompresses blocks into buffers of its own.
pub(super) struct Opener {
    unpacker: Unpacker,
    plain: Vec<u8>,
}

impl Opener {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { unpacker: Unpacker::new()?, plain: Vec::new() })
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
        self.unpack((repository, session), (row, table), stored, usize::MAX)?;
        Ok(self.raw(row, stored))
    }

    /// What [`Opener::unpack`] found.
    pub(super) fn raw<'a>(&'a self, row: &BlockRow, stored: &'a [u8]) -> &'a [u8] {
        if row.codec == Codec::Raw { &stored[..row.packed_len as usize] } else { &self.unpacker.raw }
    }

    /// Opens `stored` in place, and decompresses it where it is compressed: all of it, or at least its first `wanted` bytes.
    /// What is behind them is authentic as well, but was not looked into.
    pub(super) fn unpack(
        &mut self,
        (repository, session): (&RepositoryId, &[u8; 32]),
        (row, table): (&BlockRow, &[u8; 32]),
        stored: &mut [u8],
        wanted: usize,
    ) -> Result<()> {
        row.check()?;
        let key = block_key(session, &context(row, table));
        let padded = open_in_place(&key, &NONCE, &repository.0, stored)?;
        self.unpacker.unpack(row, padded, wanted).map(drop)
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
        self.unpacker.unpack(row, &self.plain[..length], usize::MAX)
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

/// Most bytes that come out of one of the blocks of which zstd makes a frame (RFC 8878, 3.1.1.2.4): decompressing ends behind one.
const STEP: usize = 128 << 10;
/// Bytes of a frame with which decompressing it begins: the shortest header, with the magic number (RFC 8878, 3.1.1).
const FRAME_HEADER: usize = 6;

struct Unpacker {
    context: DCtx<'static>,
    raw: Vec<u8>,
}

impl Unpacker {
    fn new() -> Result<Self> {
        let failed = |why| Error::failed(format!("prepare zstd: {why}"));
        let mut context = DCtx::try_create().ok_or_else(|| failed("there is no memory"))?;
        // A part of a frame is written to where the whole would be, without a buffer between.
        context.set_parameter(DParameter::StableOutBuffer(true)).map_err(|code| failed(zstd_safe::get_error_name(code)))?;
        Ok(Self { context, raw: Vec::new() })
    }

    fn unpack<'a>(&'a mut self, row: &BlockRow, padded: &'a [u8], wanted: usize) -> Result<&'a [u8]> {
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
        let all = row.raw_len as usize;
        let whole = wanted >= all.saturating_sub(STEP);
        let length = if whole { self.context.decompress(&mut self.raw, packed).ok() } else { self.begin(packed, wanted) };
        match length {
            Some(length) if length == all || (!whole && length >= wanted) => Ok(&self.raw),
            _ => Err(wrong("it does not decompress to its length")),
        }
    }

    /// Decompresses a frame until so many bytes are there, or it ends; returns how many are.
    fn begin(&mut self, packed: &[u8], wanted: usize) -> Option<usize> {
        self.context.reset(ResetDirective::SessionOnly).ok()?;
        let mut out = OutBuffer::around(&mut self.raw);
        let (mut rest, mut input) = (packed, FRAME_HEADER);
        while out.pos() < wanted && input > 0 {
            // As much as it asks for each time: a header, or one block of the frame with the header of the next.
            let mut now = InBuffer::around(rest.split_off(..input.min(rest.len()))?);
            input = self.context.decompress_stream(&mut out, &mut now).ok()?;
            if now.pos() < now.src.len() {
                return None;
            }
        }
        Some(out.pos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::key::{Bundle, Generation, Role};

    #[test]
    fn a_block_is_decompressed_as_far_as_its_bytes_are_wanted_and_what_is_cut_off_is_refused() {
        let mut word = 1u32;
        let letters = std::iter::repeat_with(|| {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + (word >> 28) as u8
        });
        let raw: Vec<u8> = letters.take(700_000).collect();
        let packed = zstd::bulk::compress(&raw, 3).unwrap();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let row = BlockRow {
            seal: 0,
            number: 0,
            kind: ChunkType::Data,
            codec: Codec::Zstd,
            raw_len: length(&raw),
            packed_len: length(&packed),
        };
        let mut unpacker = Unpacker::new().unwrap();
        for wanted in [0, 1, STEP, STEP + 1, 400_000, raw.len() - STEP, raw.len() - 1, raw.len(), usize::MAX] {
            let got = unpacker.unpack(&row, &packed, wanted).unwrap();
            assert!(
                got.len() >= wanted.min(raw.len()) && got.len() <= raw.len().min(wanted.saturating_add(2 * STEP)),
                "{wanted}"
            );
            assert_eq!(got, &raw[..got.len()]);
        }
        // What was left in the middle of a frame does not reach into the next one.
        for wanted in [300_000, usize::MAX, 300_000] {
            let mut wrong = packed.clone();
            wrong[100_000] ^= 0x55;
            let _ = unpacker.unpack(&row, &wrong, wanted);
            let got = unpacker.unpack(&row, &packed, wanted).unwrap();
            assert_eq!(got, &raw[..got.len()]);
        }
        let half = BlockRow { packed_len: length(&packed) / 2, ..row };
        let packed = &packed[..packed.len() / 2];
        assert!(unpacker.unpack(&half, packed, 300_000).is_err() && unpacker.begin(packed, 600_000).is_none());
    }

    fn keys() -> Keys {
        let generation = Generation {
            number: 1,
            index: [1; 32],
            shared_data: Some([2; 32]),
            shared_meta: Some([3; 32]),
            vault_data: String::new(),
            vault_meta: String::new(),
            identity_data: None,
            identity_meta: None,
            extra: Vec::new(),
        };
        let bundle = Bundle {
            repository: RepositoryId([4; 16]),
            role: Role::Owner,
            signing_seed: Some([5; 32]),
            domain: Some([6; 32]),
            names: None,
            fingerprint: crate::id::Fingerprint([7; 16]),
            generations: vec![generation],
            extra: Vec::new(),
        };
        Keys::new(&bundle, crate::repo::Surroundings::default())
    }

    #[test]
    fn a_block_that_can_become_shorter_does_whatever_the_one_before_was_like() {
        let keys = keys();
        let mut noise = vec![0; 600_000];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
        let mut part = noise.clone();
        part[200_000..300_000].fill(b' ');
        let text: Vec<u8> = b"all work and no play ".iter().copied().cycle().take(600_000).collect();
        let mut sealer = Sealer::new(3).unwrap();
        let contents = [&noise, &noise, &part, &noise, &text, &noise, &noise, &text];
        let codecs = contents.map(|content| {
            let mut block = OpenBlock::new(ChunkType::Data);
            block.push(&keys.name(ChunkType::Data, content).unwrap(), content);
            let mut sealed = sealer.seal(&keys, &[8; 32], 1, &mut block, Vec::new()).unwrap();
            let table = table_digest(&sealed.chunks);
            let mut opener = Opener::new().unwrap();
            let opened = opener.open(&keys.repository, &[8; 32], &sealed.row, &table, &mut sealed.bytes).unwrap();
            assert!(opened == *content);
            sealed.row.codec
        });
        let (raw, zstd) = (Codec::Raw, Codec::Zstd);
        assert_eq!(codecs, [raw, raw, zstd, raw, zstd, raw, raw, zstd]);
    }

    /// Memory that changed between the naming of a chunk and the sealing of its block, at any byte of it.
    #[test]
    fn a_block_that_is_not_what_was_named_is_never_let_go() {
        let keys = keys();
        for kind in [ChunkType::Data, ChunkType::Tree] {
            for contents in [
                vec![7_u8; 5000],
                (0..5000_u32).flat_map(|at| blake3::hash(&at.to_le_bytes()).as_bytes()[..1].to_vec()).collect(),
            ] {
                let mut sealer = Sealer::new(3).unwrap();
                let filled = || {
                    let mut block = OpenBlock::new(kind);
                    for chunk in contents.chunks(1700) {
                        block.push(&keys.name(kind, chunk).unwrap(), chunk);
                    }
                    block
                };
                assert_eq!(sealer.seal(&keys, &[8; 32], 1, &mut filled(), Vec::new()).unwrap().chunks.len(), 3);
                for at in (0..contents.len()).step_by(311).chain([contents.len() - 1]) {
                    let mut block = filled();
                    block.raw[at] ^= 1;
                    let refused = sealer.seal(&keys, &[8; 32], 1, &mut block, Vec::new()).err().expect("it is not what was read");
                    assert!(refused.to_string().contains("its content is not what was read"), "{refused}");
                }
            }
        }
    }
}
