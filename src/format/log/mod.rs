//! Log records (docs/format.md#8-the-log).

mod body;
mod checkpoint;
mod parts;

pub use body::RecordBody;
pub use checkpoint::{Checkpoint, ListedPacks, Machine, StandingDeed};
pub(super) use parts::{decode_heads, encode_heads};

use crate::error::Result;
use crate::format::cbor::{Decoder, MapEncoder, unknown};
use crate::id::{ClientId, ObjectHash, PackId};

/// Longest record in bytes.
pub const MAX_RECORD: u64 = 16 << 20;

/// The newest record that was seen of some log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Whose log.
    pub client: ClientId,
    /// Its sequence number.
    pub seq: u64,
    /// Hash of the whole object.
    pub hash: ObjectHash,
}

/// A pack and what is needed to read its table of contents at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct PackRef {
    /// Its name.
    pub id: PackId,
    /// Its length.
    pub size: u64,
    /// Length of its sealed table of contents.
    pub toc_len: u32,
}

/// A snapshot that is sealed within its record: a block of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSnapshot {
    /// Encoded seal entry.
    pub seal: Vec<u8>,
    /// Number of the block.
    pub number: u64,
    /// Code of the codec.
    pub codec: u8,
    /// Length of the snapshot.
    pub raw_len: u32,
    /// Length after compression.
    pub packed_len: u32,
    /// The sealed block.
    pub sealed: Vec<u8>,
}

/// A record, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordRef {
    /// Whose log.
    pub client: ClientId,
    /// The place in it.
    pub seq: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose log it is in.
    pub client: ClientId,
    /// Its place there.
    pub seq: u64,
    /// Hash of the record before.
    pub previous: Option<ObjectHash>,
    /// The client's clock, nanoseconds since 1970.
    pub time: i64,
    /// Heads seen of other logs, ascending.
    pub heads: Vec<Head>,
    /// Base prune generation.
    pub base: u64,
    /// What it says.
    pub body: RecordBody,
    /// Who signed it, where that is not the log's own client: a fence.
    pub author: Option<ClientId>,
    /// Fields of later versions, kept as they are: key and encoded value.
    pub extra: Vec<(u64, Vec<u8>)>,
}

impl Record {
    /// The bytes that are signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let kind = self.body.encode(&mut body);
        let mut out = Vec::with_capacity(body.len() + 256);
        let mut map = MapEncoder::new(&mut out);
        map.key(0).bytes(&self.client.0);
        map.key(1).uint(self.seq);
        if let Some(previous) = &self.previous {
            map.key(2).bytes(&previous.0);
        }
        map.key(3).int(self.time);
        if !self.heads.is_empty() {
            encode_heads(&mut map.key(4), &self.heads);
        }
        if self.base > 0 {
            map.key(5).uint(self.base);
        }
        map.key(6).uint(kind);
        map.key(7).encoded(&body);
        if let Some(author) = &self.author {
            map.key(8).bytes(&author.0);
        }
        map.finish(&self.extra);
        out
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes, "a log record");
        let decoder = &mut decoder;
        let mut map = decoder.map()?;
        let mut record = Self {
            client: ClientId([0; 16]),
            seq: 0,
            previous: None,
            time: 0,
            heads: Vec::new(),
            base: 0,
            body: RecordBody::Fence { generation: 0 },
            author: None,
            extra: Vec::new(),
        };
        let (mut seen, mut kind) = (0u64, 0);
        while let Some(key) = map.key(decoder)? {
            seen |= 1 << key.min(63);
            match key {
                0 => record.client = ClientId(decoder.fixed()?),
                1 => record.seq = decoder.uint()?,
                2 => record.previous = Some(ObjectHash(decoder.fixed()?)),
                3 => record.time = decoder.int()?,
                4 => record.heads = decode_heads(decoder)?,
                5 => record.base = decoder.uint()?,
                6 => kind = decoder.uint()?,
                7 => record.body = RecordBody::decode(kind, decoder)?,
                8 => record.author = Some(ClientId(decoder.fixed()?)),
                _ => unknown(key, decoder, &mut record.extra)?,
            }
        }
        decoder.end()?;
        let chained = record.previous.is_some() == (record.seq > 0);
        let base = (seen & 1 << 5 != 0) == (record.base > 0);
        let foreign =
            record.author.is_none_or(|author| author != record.client && matches!(record.body, RecordBody::Fence { .. }));
        if seen & 0xcb != 0xcb || !chained || !base || !foreign {
            return Err(decoder.wrong("fields that are missing or contradict each other"));
        }
        Ok(record)
    }
}
