//! Log records (docs/format.md#8-the-log).

use super::cbor::{Decoder, Encoder, MapEncoder};
use crate::error::Result;
use crate::id::{ClientId, IndexId, ObjectHash, PackId, SessionId, SlotId, SnapshotId};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody {
    /// The first record of the owner's log.
    Genesis {
        /// Hash of format/1.
        format: ObjectHash,
    },
    /// A finished backup: the commit point.
    Snapshot {
        /// Its id.
        id: SnapshotId,
        /// The snapshot.
        snapshot: SealedSnapshot,
        /// Packs that exist for its sake, ascending.
        packs: Vec<PackRef>,
        /// Index objects that cover them.
        indexes: Vec<IndexId>,
        /// Sessions that wrote it.
        sessions: Vec<SessionId>,
    },
    /// Packs of a backup that is not finished.
    Claim {
        /// The packs.
        packs: Vec<PackRef>,
        /// A checkpoint of it.
        checkpoint: Option<(SnapshotId, SealedSnapshot)>,
    },
    /// A key slot was added or removed.
    Slot {
        /// The slot.
        id: SlotId,
        /// True when added.
        added: bool,
        /// What the user calls it, empty if nothing.
        label: String,
        /// To whom it is sealed, empty for a passphrase.
        recipient: String,
    },
    /// A kind that this version reads past: its code and encoded body.
    Other(u64, Vec<u8>),
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
}

impl Record {
    /// The bytes that are signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let kind = encode_body(&self.body, &mut body);
        let mut out = Vec::with_capacity(body.len() + 256);
        let mut map = MapEncoder::new(&mut out);
        map.key(0).bytes(&self.client.0);
        map.key(1).uint(self.seq);
        if let Some(previous) = &self.previous {
            map.key(2).bytes(&previous.0);
        }
        map.key(3).int(self.time);
        if !self.heads.is_empty() {
            let mut array = map.key(4);
            array.array(self.heads.len());
            for head in &self.heads {
                array.array(3);
                array.bytes(&head.client.0);
                array.uint(head.seq);
                array.bytes(&head.hash.0);
            }
        }
        if self.base > 0 {
            map.key(5).uint(self.base);
        }
        map.key(6).uint(kind);
        map.key(7).encoded(&body);
        map.finish(&[]);
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
            body: RecordBody::Other(0, Vec::new()),
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
                7 => record.body = decode_body(kind, decoder)?,
                _ => super::cbor::unknown(key, decoder, &mut Vec::new())?,
            }
        }
        decoder.end()?;
        let chained = record.previous.is_some() == (record.seq > 0);
        let base = (seen & 1 << 5 != 0) == (record.base > 0);
        if seen & 0xcb != 0xcb || !chained || !base {
            return Err(decoder.wrong("fields that are missing or contradict each other"));
        }
        Ok(record)
    }
}

fn decode_heads(decoder: &mut Decoder<'_>) -> Result<Vec<Head>> {
    let mut heads = Vec::new();
    for _ in 0..decoder.array()? {
        if decoder.array()? != 3 {
            return Err(decoder.wrong("a head that is not three values"));
        }
        let client = ClientId(decoder.fixed()?);
        heads.push(Head { client, seq: decoder.uint()?, hash: ObjectHash(decoder.fixed()?) });
    }
    if heads.is_empty() || !heads.is_sorted_by(|a, b| a.client < b.client) {
        return Err(decoder.wrong("heads that do not ascend"));
    }
    Ok(heads)
}

fn encode_packs(encoder: &mut Encoder<'_>, packs: &[PackRef]) {
    encoder.array(packs.len());
    for pack in packs {
        encoder.array(3);
        encoder.bytes(&pack.id.0);
        encoder.uint(pack.size);
        encoder.uint(pack.toc_len.into());
    }
}

fn decode_packs(decoder: &mut Decoder<'_>) -> Result<Vec<PackRef>> {
    let mut packs = Vec::new();
    for _ in 0..decoder.array()? {
        if decoder.array()? != 3 {
            return Err(decoder.wrong("a pack that is not three values"));
        }
        let id = PackId(decoder.fixed()?);
        packs.push(PackRef { id, size: decoder.uint()?, toc_len: decoder.uint32()? });
    }
    if !packs.is_sorted_by(|a, b| a.id < b.id) {
        return Err(decoder.wrong("packs that do not ascend"));
    }
    Ok(packs)
}

fn encode_sealed(encoder: &mut Encoder<'_>, sealed: &SealedSnapshot) {
    encoder.array(6);
    encoder.bytes(&sealed.seal);
    encoder.uint(sealed.number);
    encoder.uint(sealed.codec.into());
    encoder.uint(sealed.raw_len.into());
    encoder.uint(sealed.packed_len.into());
    encoder.bytes(&sealed.sealed);
}

fn decode_sealed(decoder: &mut Decoder<'_>) -> Result<SealedSnapshot> {
    if decoder.array()? != 6 {
        return Err(decoder.wrong("a sealed snapshot that is not six values"));
    }
    Ok(SealedSnapshot {
        seal: decoder.bytes()?.to_vec(),
        number: decoder.uint()?,
        codec: decoder.uint8()?,
        raw_len: decoder.uint32()?,
        packed_len: decoder.uint32()?,
        sealed: decoder.bytes()?.to_vec(),
    })
}

/// Appends the body and returns the code of its kind.
fn encode_body(body: &RecordBody, out: &mut Vec<u8>) -> u64 {
    if let RecordBody::Other(kind, encoded) = body {
        out.extend_from_slice(encoded);
        return *kind;
    }
    let mut map = MapEncoder::new(out);
    let kind = match body {
        RecordBody::Genesis { format } => {
            map.key(0).bytes(&format.0);
            0
        }
        RecordBody::Snapshot { id, snapshot, packs, indexes, sessions } => {
            map.key(0).bytes(&id.0);
            encode_sealed(&mut map.key(1), snapshot);
            encode_packs(&mut map.key(2), packs);
            if !indexes.is_empty() {
                let mut array = map.key(3);
                array.array(indexes.len());
                indexes.iter().for_each(|index| array.bytes(&index.0));
            }
            let mut array = map.key(4);
            array.array(sessions.len());
            sessions.iter().for_each(|session| array.bytes(&session.0));
            1
        }
        RecordBody::Claim { packs, checkpoint } => {
            encode_packs(&mut map.key(0), packs);
            if let Some((id, sealed)) = checkpoint {
                let mut pair = map.key(1);
                pair.array(2);
                pair.bytes(&id.0);
                encode_sealed(&mut pair, sealed);
            }
            2
        }
        RecordBody::Slot { id, added, label, recipient } => {
            map.key(0).bytes(&id.0);
            if *added {
                map.key(1).boolean(true);
            }
            for (key, text) in [(2, label), (3, recipient)] {
                if !text.is_empty() {
                    map.key(key).text(text);
                }
            }
            13
        }
        RecordBody::Other(kind, _) => *kind,
    };
    map.finish(&[]);
    kind
}

fn decode_body(kind: u64, decoder: &mut Decoder<'_>) -> Result<RecordBody> {
    if !matches!(kind, 0 | 1 | 2 | 13) {
        return Ok(RecordBody::Other(kind, decoder.any()?.to_vec()));
    }
    let mut map = decoder.map()?;
    let mut next = |decoder: &mut Decoder<'_>| map.key(decoder);
    let missing = |decoder: &Decoder<'_>| decoder.wrong("a body with fields that are missing or not known");
    let mut key = next(decoder)?;
    if key != Some(0) {
        return Err(missing(decoder));
    }
    let body = match kind {
        0 => {
            let format = ObjectHash(decoder.fixed()?);
            key = next(decoder)?;
            RecordBody::Genesis { format }
        }
        1 => {
            let id = SnapshotId(decoder.fixed()?);
            if next(decoder)? != Some(1) {
                return Err(missing(decoder));
            }
            let snapshot = decode_sealed(decoder)?;
            if next(decoder)? != Some(2) {
                return Err(missing(decoder));
            }
            let packs = decode_packs(decoder)?;
            key = next(decoder)?;
            let mut indexes = Vec::new();
            if key == Some(3) {
                indexes = (0..decoder.array()?).map(|_| decoder.fixed().map(IndexId)).collect::<Result<_>>()?;
                key = next(decoder)?;
            }
            if key != Some(4) {
                return Err(missing(decoder));
            }
            let sessions = (0..decoder.array()?).map(|_| decoder.fixed().map(SessionId)).collect::<Result<_>>()?;
            key = next(decoder)?;
            RecordBody::Snapshot { id, snapshot, packs, indexes, sessions }
        }
        2 => {
            let packs = decode_packs(decoder)?;
            key = next(decoder)?;
            let mut checkpoint = None;
            if key == Some(1) {
                if decoder.array()? != 2 {
                    return Err(missing(decoder));
                }
                checkpoint = Some((SnapshotId(decoder.fixed()?), decode_sealed(decoder)?));
                key = next(decoder)?;
            }
            RecordBody::Claim { packs, checkpoint }
        }
        _ => {
            let id = SlotId(decoder.fixed()?);
            key = next(decoder)?;
            let (mut added, mut label, mut recipient) = (false, String::new(), String::new());
            if key == Some(1) {
                added = decoder.flag()?;
                key = next(decoder)?;
            }
            if key == Some(2) {
                label = decoder.text()?.to_owned();
                key = next(decoder)?;
            }
            if key == Some(3) {
                recipient = decoder.text()?.to_owned();
                key = next(decoder)?;
            }
            RecordBody::Slot { id, added, label, recipient }
        }
    };
    if key.is_some() {
        return Err(missing(decoder));
    }
    Ok(body)
}
