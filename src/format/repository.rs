//! `format/1`: what a repository is (docs/format.md#2-format1).

use super::cbor::{Decoder, MapEncoder};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Fingerprint, RepositoryId};

const MAGIC: &[u8] = b"lifeboat repository format 1\n";
/// Longest object.
pub const MAX_FORMAT: u64 = 64 << 10;

/// Sizes of chunks in bytes, each a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// Shortest, except for the last of a file.
    pub minimum: u32,
    /// What is aimed at.
    pub average: u32,
    /// Longest.
    pub maximum: u32,
    /// FastCDC's normalisation, 0 to 3.
    pub normalisation: u8,
}

/// What a repository is made with; never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFormat {
    /// Its name.
    pub id: RepositoryId,
    /// Public key of the owner.
    pub owner: [u8; 32],
    /// How content is cut.
    pub chunks: ChunkSizes,
    /// Raw bytes at which a block is closed.
    pub block_target: u32,
    /// Stored bytes at which a pack is closed.
    pub pack_target: u32,
    /// zstd level of writers.
    pub level: i32,
    /// When it was made, nanoseconds since 1970.
    pub created: i64,
    /// True if a feature that this version does not know forbids writing.
    pub read_only: bool,
}

impl RepositoryFormat {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut map = MapEncoder::new(&mut out);
        map.key(0).bytes(&self.id.0);
        map.key(1).bytes(&self.owner);
        let mut chunker = map.key(2);
        chunker.array(5);
        let sizes = &self.chunks;
        for number in [1, sizes.minimum, sizes.average, sizes.maximum, sizes.normalisation.into()] {
            chunker.uint(number.into());
        }
        map.key(3).uint(self.block_target.into());
        map.key(4).uint(self.pack_target.into());
        map.key(5).int(self.level.into());
        map.key(6).array(0);
        map.key(7).array(0);
        map.key(8).int(self.created);
        map.finish(&[]);
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// `NoRepository` if it is something else, `Unsupported` if it is newer, `Damaged`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| not_ours(bytes))?;
        let mut decoder = Decoder::new(body, "format/1");
        let decoder = &mut decoder;
        let mut map = decoder.map()?;
        let mut next = |decoder: &mut Decoder<'_>, wanted| match map.key(decoder)? {
            Some(key) if key == wanted => Ok(()),
            _ => Err(decoder.wrong("fields that are missing or not known")),
        };
        next(decoder, 0)?;
        let id = RepositoryId(decoder.fixed()?);
        next(decoder, 1)?;
        let owner = decoder.fixed()?;
        next(decoder, 2)?;
        let chunks = chunk_sizes(decoder)?;
        next(decoder, 3)?;
        let block_target = decoder.uint32()?;
        next(decoder, 4)?;
        let pack_target = decoder.uint32()?;
        next(decoder, 5)?;
        let level = i32::try_from(decoder.int()?).map_err(|_| decoder.wrong("a level that cannot be"))?;
        next(decoder, 6)?;
        if let Some(feature) = texts(decoder)?.first() {
            return Err(Error::new(ErrorKind::Unsupported, format!("open the repository: it needs the feature {feature:?}"))
                .with_hint("update lifeboat"));
        }
        next(decoder, 7)?;
        let read_only = !texts(decoder)?.is_empty();
        next(decoder, 8)?;
        let created = decoder.int()?;
        if map.key(decoder)?.is_some() {
            return Err(decoder.wrong("fields that are not known"));
        }
        decoder.end()?;
        let sized = (64 << 10..=8 << 20).contains(&block_target) && (1 << 20..=128 << 20).contains(&pack_target);
        if !sized || !(-7..=22).contains(&level) {
            return Err(decoder.wrong("sizes out of their limits"));
        }
        Ok(Self { id, owner, chunks, block_target, pack_target, level, created, read_only })
    }

    /// What people compare: binds the owner's key, the name, and these bytes.
    #[must_use]
    pub fn fingerprint(&self, encoded: &[u8]) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.owner).update(&self.id.0).update(blake3::hash(encoded).as_bytes());
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Fingerprint(fingerprint)
    }
}

fn not_ours(bytes: &[u8]) -> Error {
    if bytes.starts_with(b"lifeboat repository format ") {
        return Error::new(ErrorKind::Unsupported, "open the repository: its format is newer than this version knows")
            .with_hint("update lifeboat");
    }
    if MAGIC.starts_with(bytes) {
        return Error::damaged("open the repository: the object format/1 is cut off")
            .with_hint("put it back from any copy of the repository; nothing else of it is needed to open what is there");
    }
    Error::new(ErrorKind::NoRepository, "open the repository: the object format/1 is not lifeboat's")
        .with_hint("check --repo; another program uses this place")
}

fn chunk_sizes(decoder: &mut Decoder<'_>) -> Result<ChunkSizes> {
    if decoder.array()? != 5 || decoder.uint()? != 1 {
        return Err(decoder.wrong("a chunker that is not known").as_kind(ErrorKind::Unsupported));
    }
    let sizes = ChunkSizes {
        minimum: decoder.uint32()?,
        average: decoder.uint32()?,
        maximum: decoder.uint32()?,
        normalisation: decoder.uint8()?,
    };
    let powers = [sizes.minimum, sizes.average, sizes.maximum].iter().all(|size| size.is_power_of_two());
    let ordered = 64 <= sizes.minimum && sizes.minimum <= sizes.average && sizes.average <= sizes.maximum;
    let masks = sizes.average.checked_ilog2().is_some_and(|bits| (8..=22).contains(&bits));
    if !powers || !ordered || !masks || sizes.maximum > 4 << 20 || sizes.normalisation > 3 {
        return Err(decoder.wrong("chunk sizes out of their limits"));
    }
    Ok(sizes)
}

fn texts(decoder: &mut Decoder<'_>) -> Result<Vec<String>> {
    (0..decoder.array()?).map(|_| Ok(decoder.text()?.to_owned())).collect()
}
