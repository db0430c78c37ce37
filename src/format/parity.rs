//! Parity sidecars: what is needed to make lost parts of a pack anew (docs/format.md#11-parity).
//!
//! The code is that of Lin, Chung, and Han ("Novel Polynomial Basis and Its Application to Reed-Solomon Erasure Codes",
//! FOCS 2014) over GF(2^16), as in Leopard-RS: of n + m shards any n are enough.

use crate::error::{Error, Result};
use crate::id::PackId;
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

const MAGIC: [u8; 8] = [0x89, b'L', b'F', b'P', 0x0d, 0x0a, 0x1a, 0x0a];
/// Bytes of a shard.
pub const SHARD_LEN: usize = 64 << 10;
/// Most shards of a pack that one sidecar covers: 40 MiB, so that a full pack of the usual size has one.
pub const GROUP_SHARDS: usize = 640;
/// Most bytes of a pack that one sidecar covers.
pub const GROUP_LEN: u64 = (GROUP_SHARDS * SHARD_LEN) as u64;
/// Length of the part of the head that says how long the head is.
pub const FIXED_LEN: usize = 64;
const HASH_LEN: usize = 32;
/// Bytes of each shard that are coded at a time: the code works on columns, and this bounds its memory.
const COLUMN: usize = 4096;

fn wrong(why: &str) -> Error {
    Error::damaged(format!("decode a parity sidecar: {why}"))
}

/// How many sidecars a pack of this length has.
#[must_use]
pub fn groups(pack_len: u64) -> u64 {
    pack_len.div_ceil(GROUP_LEN)
}

/// Shards of a pack that the sidecar at `group` covers; 0 if the pack ends before.
#[must_use]
pub fn shards_in(pack_len: u64, group: u64) -> usize {
    let rest = pack_len.saturating_sub(group.saturating_mul(GROUP_LEN)).min(GROUP_LEN);
    usize::try_from(rest.div_ceil(SHARD_LEN as u64)).expect("a group is 640 shards")
}

/// Recovery shards for `data` shards at a share in per mille: at least one, at most as many.
#[must_use]
pub fn recovery_count(data: usize, share: u16) -> usize {
    (data * usize::from(share)).div_ceil(1000).clamp(1, data.max(1))
}

/// What stands before the recovery shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParityHead {
    /// The pack that is covered.
    pub pack: PackId,
    /// Its length.
    pub pack_len: u64,
    /// Which part of it is covered.
    pub group: u16,
    /// How much parity was asked for, in per mille; small packs have more, because there is no half shard.
    pub share: u16,
    /// Hashes of the shards of the pack, the last one filled up with zeros.
    pub data: Vec<[u8; HASH_LEN]>,
    /// Hashes of the recovery shards.
    pub recovery: Vec<[u8; HASH_LEN]>,
}

impl ParityHead {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = |hashes: &[[u8; HASH_LEN]]| u16::try_from(hashes.len()).expect("at most 640").to_le_bytes();
        let mut out = Vec::with_capacity(FIXED_LEN + (self.data.len() + self.recovery.len() + 1) * HASH_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[1, 0]);
        out.extend_from_slice(&self.group.to_le_bytes());
        out.extend_from_slice(&u32::try_from(SHARD_LEN).expect("64 KiB").to_le_bytes());
        out.extend_from_slice(&self.pack_len.to_le_bytes());
        out.extend_from_slice(&count(&self.data));
        out.extend_from_slice(&count(&self.recovery));
        out.extend_from_slice(&self.share.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.pack.0);
        self.data.iter().chain(&self.recovery).for_each(|hash| out.extend_from_slice(hash));
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// Length of the head that begins with these [`FIXED_LEN`] bytes.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn length(fixed: &[u8]) -> Result<usize> {
        let (_, data, recovery) = Self::decode_fixed(fixed)?;
        Ok(FIXED_LEN + (data + recovery + 1) * HASH_LEN)
    }

    /// Share of parity that was asked for, in per mille, from the first [`FIXED_LEN`] bytes.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn share(fixed: &[u8]) -> Result<u16> {
        Self::decode_fixed(fixed).map(|(head, _, _)| head.share)
    }

    fn decode_fixed(bytes: &[u8]) -> Result<(Self, usize, usize)> {
        let fixed = bytes.first_chunk::<FIXED_LEN>().ok_or_else(|| wrong("cut off"))?;
        let short = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let pack_len = u64::from_le_bytes(fixed[16..24].try_into().expect("8 bytes"));
        let shard_len = u32::from_le_bytes(fixed[12..16].try_into().expect("4 bytes"));
        if fixed[..8] != MAGIC {
            return Err(wrong("not a sidecar"));
        }
        if fixed[8..10] != [1, 0] || shard_len as usize != SHARD_LEN {
            return Err(wrong("written by a newer version").as_kind(crate::error::ErrorKind::Unsupported));
        }
        let (data, recovery) = (usize::from(short(24)), usize::from(short(26)));
        let counted = data > 0 && data == shards_in(pack_len, short(10).into()) && (1..=data).contains(&recovery);
        if pack_len > super::pack::MAX_PACK || !counted || !(1..=1000).contains(&short(28)) || fixed[30..32] != [0; 2] {
            return Err(wrong("counts that cannot be"));
        }
        let pack = PackId(fixed[32..64].try_into().expect("32 bytes"));
        Ok((Self { pack, pack_len, group: short(10), share: short(28), data: Vec::new(), recovery: Vec::new() }, data, recovery))
    }

    /// Decodes a head; its own hash says that it is whole.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut head, data, recovery) = Self::decode_fixed(bytes)?;
        let length = Self::length(bytes)?;
        if bytes.len() != length {
            return Err(wrong("a head of a wrong length"));
        }
        let (body, hash) = bytes.split_at(length - HASH_LEN);
        if blake3::hash(body).as_bytes() != hash {
            return Err(wrong("its hash does not fit"));
        }
        let (hashes, _) = body[FIXED_LEN..].as_chunks::<HASH_LEN>();
        head.data = hashes[..data].to_vec();
        head.recovery = hashes[data..data + recovery].to_vec();
        Ok(head)
    }
}

fn code_failed(error: reed_solomon_simd::Error) -> Error {
    Error::failed(format!("compute parity: {error}"))
}

/// The recovery shards, joined, for a group of shards, joined; the last may be shorter and counts as filled with zeros.
///
/// # Errors
/// `Failed` for counts that the code does not have.
pub fn encode_recovery(data: &[u8], recovery: usize) -> Result<Vec<u8>> {
    let count = data.len().div_ceil(SHARD_LEN);
    let mut encoder = HighRateEncoder::new(count, recovery, COLUMN, DefaultEngine::new(), None).map_err(code_failed)?;
    let mut out = vec![0; recovery * SHARD_LEN];
    let mut padded = [0; COLUMN];
    for column in (0..SHARD_LEN).step_by(COLUMN) {
        for shard in data.chunks(SHARD_LEN) {
            let part = shard.get(column..).unwrap_or_default();
            let part = &part[..part.len().min(COLUMN)];
            padded[..part.len()].copy_from_slice(part);
            padded[part.len()..].fill(0);
            encoder.add_original_shard(padded).map_err(code_failed)?;
        }
        let coded = encoder.encode().map_err(code_failed)?;
        for (shard, part) in out.chunks_mut(SHARD_LEN).zip(coded.recovery_iter()) {
            shard[column..column + COLUMN].copy_from_slice(part);
        }
    }
    Ok(out)
}

/// Makes the `lost` shards of `data`, which holds whole shards, anew from recovery shards, each with its number out of
/// `count`.
///
/// # Errors
/// `Damaged` if there are fewer recovery shards than lost ones.
pub fn decode_lost(data: &mut [u8], lost: &[usize], recovery: &[(usize, Vec<u8>)], count: usize) -> Result<()> {
    if recovery.len() < lost.len() {
        return Err(Error::damaged("make lost shards anew: more are lost than there is parity for"));
    }
    let shards = data.len() / SHARD_LEN;
    let mut decoder = HighRateDecoder::new(shards, count, COLUMN, DefaultEngine::new(), None).map_err(code_failed)?;
    for column in (0..SHARD_LEN).step_by(COLUMN) {
        let part = column..column + COLUMN;
        for (number, shard) in data.chunks_exact(SHARD_LEN).enumerate().filter(|(number, _)| !lost.contains(number)) {
            decoder.add_original_shard(number, &shard[part.clone()]).map_err(code_failed)?;
        }
        for (number, shard) in recovery {
            decoder.add_recovery_shard(*number, &shard[part.clone()]).map_err(code_failed)?;
        }
        let decoded = decoder.decode().map_err(code_failed)?;
        for (number, restored) in decoded.restored_original_iter() {
            data[number * SHARD_LEN..][part.clone()].copy_from_slice(restored);
        }
    }
    Ok(())
}
