//! Names of things, each a type of its own.

use crate::error::{Error, Result};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// The id in `bytes`, if they are exactly as long as one.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The id written as lower-case hexadecimal digits.
            ///
            /// # Errors
            /// `Usage` if `text` is not that.
            pub fn from_hex(text: &str) -> Result<Self> {
                let mut bytes = [0; $bytes];
                decode_hex(text, &mut bytes)?;
                Ok(Self(bytes))
            }

            /// The first eight digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::from_hex(&text).map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }
    };
}

id!(/// Keyed hash of one chunk's plaintext: its name, and the proof of its content.
    ChunkId, 32);
id!(/// BLAKE3 of a pack's bytes: its name in the store.
    PackId, 32);
id!(/// BLAKE3 of an index object's bytes: its name in the store.
    IndexId, 32);
id!(/// Keyed hash of a snapshot's bytes.
    SnapshotId, 32);
id!(/// Random name of a repository.
    RepositoryId, 16);
id!(/// First half of the hash of a client's public key: the name of its log.
    ClientId, 16);
id!(/// Random name of one run of a writer.
    SessionId, 16);
id!(/// Random name of a key slot.
    SlotId, 16);
id!(/// Random name of a machine's memory of a repository: two machines with one identity differ in it.
    InstanceId, 16);
id!(/// What a person compares to know that a repository is theirs.
    Fingerprint, 16);
id!(/// BLAKE3 of a whole object, as a link in a chain.
    ObjectHash, 32);

/// The first half of a [`ChunkId`]: enough to find a chunk, never enough to trust it.
pub type ChunkPrefix = [u8; 16];

impl ChunkId {
    /// What the index and the tables of contents keep of the id.
    #[must_use]
    pub fn prefix(&self) -> ChunkPrefix {
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&self.0[..16]);
        prefix
    }
}

impl From<SnapshotId> for ChunkId {
    fn from(id: SnapshotId) -> Self {
        Self(id.0)
    }
}

impl From<ChunkId> for SnapshotId {
    fn from(id: ChunkId) -> Self {
        Self(id.0)
    }
}

fn decode_hex(text: &str, bytes: &mut [u8]) -> Result<()> {
    let wrong = || Error::usage(format!("read the id {text:?}: not {} lower-case hexadecimal digits", bytes.len() * 2));
    if text.len() != bytes.len() * 2 {
        return Err(wrong());
    }
    let mut out = Vec::with_capacity(bytes.len());
    for pair in text.as_bytes().chunks_exact(2) {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err(wrong()),
        }
    }
    bytes.copy_from_slice(&out);
    Ok(())
}
