//! The header of every sealed object, and the padding of those that are not packs (docs/format.md#33-sealed-objects).

use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 8] = [0x89, b'L', b'F', b'B', 0x0d, 0x0a, 0x1a, 0x0a];
/// Length of the header.
pub const HEADER_LEN: usize = 64;

/// What a sealed object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// Blocks and their table of contents.
    Pack,
    /// Where chunks are.
    Index,
    /// A record of a client's log.
    Log,
    /// Packs that a prune is about to judge.
    Condemn,
    /// Packs that a prune may delete.
    Plan,
}

impl ObjectKind {
    const ALL: [Self; 5] = [Self::Pack, Self::Index, Self::Log, Self::Condemn, Self::Plan];

    fn code(self) -> u8 {
        match self {
            Self::Pack => 1,
            Self::Index => 2,
            Self::Log => 3,
            Self::Condemn => 4,
            Self::Plan => 5,
        }
    }
}

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: ObjectKind,
    /// Key generation that it is sealed under.
    pub generation: u32,
    /// Random; makes the key of each object its own.
    pub salt: [u8; 32],
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8] = self.kind.code();
        out[9] = 1;
        out[10] = 1;
        out[12..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..48].copy_from_slice(&self.salt);
        out
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// `Damaged`; `Unsupported` for a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = |why: &str| Error::damaged(format!("decode the header of an object: {why}"));
        let bytes = bytes.get(..HEADER_LEN).ok_or_else(|| wrong("cut off"))?;
        if bytes[..8] != MAGIC {
            return Err(wrong("not an object of this format"));
        }
        if bytes[9] != 1 || bytes[10] != 1 {
            return Err(Error::new(ErrorKind::Unsupported, "decode the header of an object: written by a newer version")
                .with_hint("update lifeboat"));
        }
        if bytes[11] != 0 || bytes[48..] != [0; 16] {
            return Err(wrong("flags that are not known"));
        }
        let kind = ObjectKind::ALL.into_iter().find(|kind| kind.code() == bytes[8]).ok_or_else(|| wrong("unknown kind"))?;
        let generation = u32::from_le_bytes(bytes[12..16].try_into().expect("4 bytes"));
        Ok(Self { kind, generation, salt: bytes[16..48].try_into().expect("32 bytes") })
    }
}

/// The Padmé length of `length` (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files", PETS 2019):
/// at most 12 % more, and few enough different lengths to say little.
#[must_use]
pub fn padme(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1u64 << exponent.saturating_sub(kept)) - 1;
    length.saturating_add(mask) & !mask
}

/// Puts the length before a body and pads it.
#[must_use]
pub fn pad_body(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("bodies are limited to 64 MiB");
    let padded = padme(u64::from(length) + 4);
    let mut out = Vec::with_capacity(usize::try_from(padded).expect("64 MiB"));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(body);
    out.resize(usize::try_from(padded).expect("64 MiB"), 0);
    out
}

/// The body within its padding.
///
/// # Errors
/// `Damaged` if the padding is not what it must be.
pub fn unpad_body(padded: &[u8]) -> Result<&[u8]> {
    let wrong = || Error::damaged("decode an object: its padding is wrong");
    let (length, rest) = padded.split_first_chunk::<4>().ok_or_else(wrong)?;
    let length = u32::from_le_bytes(*length);
    let body = rest.get(..length as usize).ok_or_else(wrong)?;
    let padded_right = padme(u64::from(length) + 4) == padded.len() as u64;
    if !padded_right || rest[body.len()..].iter().any(|byte| *byte != 0) {
        return Err(wrong());
    }
    Ok(body)
}
