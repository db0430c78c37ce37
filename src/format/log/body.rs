//! What records say, by kind.

use super::parts::{
    decode_ids, decode_packs, decode_records, decode_sealed, decode_sorted, encode_ids, encode_packs, encode_records,
    encode_sealed, not_empty,
};
use super::{Checkpoint, PackRef, RecordRef, SealedSnapshot};
use crate::error::{ErrorKind, Result};
use crate::format::cbor::{Decoder, Fields, MapEncoder, non_empty_text};
use crate::format::key::Role;
use crate::id::{ChunkPrefix, ClientId, IndexId, ObjectHash, PackId, SessionId, SlotId, SnapshotId};

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
    /// A prune has begun; commits after it must know it.
    Fence {
        /// The prune generation.
        generation: u64,
    },
    /// Snapshots that are wanted no more.
    Forget {
        /// Their records, ascending.
        records: Vec<RecordRef>,
    },
    /// Snapshots that are wanted again.
    Unforget {
        /// Their records, ascending.
        records: Vec<RecordRef>,
    },
    /// Snapshots that nobody may forget.
    Hold {
        /// Their records, ascending.
        records: Vec<RecordRef>,
        /// Why, empty if not said.
        reason: String,
    },
    /// The end of a hold.
    Unhold {
        /// Their records, ascending.
        records: Vec<RecordRef>,
    },
    /// A client may take part from now on.
    Enrol {
        /// Its public key.
        public: [u8; 32],
        /// What it may do.
        role: Role,
        /// What it is called.
        name: String,
        /// Clients whose chunks it takes as known, ascending.
        trusted: Vec<ClientId>,
        /// Its key slot.
        slot: Option<SlotId>,
    },
    /// A client takes part no more.
    Revoke {
        /// The client.
        client: ClientId,
        /// Its last record that counts.
        last: u64,
    },
    /// New keys are in use.
    Generation {
        /// Number of the generation.
        number: u32,
        /// Hashes of every log's head at that time, ascending.
        base: Vec<ObjectHash>,
    },
    /// A reader has hashed all chunks of packs.
    Attest {
        /// The packs, ascending.
        packs: Vec<PackId>,
    },
    /// Everything that counts, so that older records need not be read.
    Checkpoint(Checkpoint),
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
    /// Index objects that maintenance made.
    Index {
        /// The index objects.
        indexes: Vec<IndexId>,
        /// Packs that they cover, ascending.
        packs: Vec<PackId>,
    },
    /// Content that is known to be gone: nobody should rely on having it there.
    Lost {
        /// Packs, ascending.
        packs: Vec<PackId>,
        /// The chunks of these packs that are gone, by prefix, ascending; all if there are none here.
        chunks: Vec<ChunkPrefix>,
    },
}

impl RecordBody {
    /// Its code in the format.
    #[must_use]
    pub fn code(&self) -> u64 {
        match self {
            Self::Genesis { .. } => 0,
            Self::Snapshot { .. } => 1,
            Self::Claim { .. } => 2,
            Self::Fence { .. } => 3,
            Self::Forget { .. } => 4,
            Self::Unforget { .. } => 5,
            Self::Hold { .. } => 6,
            Self::Unhold { .. } => 7,
            Self::Enrol { .. } => 8,
            Self::Revoke { .. } => 9,
            Self::Generation { .. } => 10,
            Self::Attest { .. } => 11,
            Self::Checkpoint(_) => 12,
            Self::Slot { .. } => 13,
            Self::Index { .. } => 14,
            Self::Lost { .. } => 15,
        }
    }

    /// True if the record stays in the store although a checkpoint stands for its log.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Genesis { .. }
                | Self::Enrol { .. }
                | Self::Revoke { .. }
                | Self::Generation { .. }
                | Self::Attest { .. }
                | Self::Slot { .. }
                | Self::Index { .. }
                | Self::Lost { .. }
        )
    }

    /// Appends the body and returns the code of its kind.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> u64 {
        let mut map = MapEncoder::new(out);
        match self {
            Self::Genesis { format } => map.key(0).bytes(&format.0),
            Self::Snapshot { .. } | Self::Claim { .. } => self.encode_commit(&mut map),
            Self::Checkpoint(checkpoint) => checkpoint.encode(&mut map),
            Self::Fence { generation } => map.key(0).uint(*generation),
            Self::Forget { records } | Self::Unforget { records } | Self::Unhold { records } => {
                encode_records(&mut map.key(0), records);
            }
            Self::Hold { records, reason } => {
                encode_records(&mut map.key(0), records);
                encode_text(&mut map, 1, reason);
            }
            Self::Revoke { client, last } => {
                map.key(0).bytes(&client.0);
                map.key(1).uint(*last);
            }
            Self::Generation { number, base } => {
                map.key(0).uint((*number).into());
                encode_ids(&mut map.key(1), base.iter().map(|id| &id.0));
            }
            Self::Attest { packs } => encode_ids(&mut map.key(0), packs.iter().map(|id| &id.0)),
            Self::Enrol { .. } | Self::Slot { .. } => self.encode_access(&mut map),
            Self::Index { indexes, packs } => {
                encode_ids(&mut map.key(0), indexes.iter().map(|id| &id.0));
                encode_ids(&mut map.key(1), packs.iter().map(|id| &id.0));
            }
            Self::Lost { packs, chunks } => {
                encode_ids(&mut map.key(0), packs.iter().map(|id| &id.0));
                map.key(1).bytes(&chunks.concat());
            }
        }
        map.finish(&[]);
        self.code()
    }

    fn encode_commit(&self, map: &mut MapEncoder<'_>) {
        match self {
            Self::Snapshot { id, snapshot, packs, indexes, sessions } => {
                map.key(0).bytes(&id.0);
                encode_sealed(&mut map.key(1), snapshot);
                encode_packs(&mut map.key(2), packs);
                if !indexes.is_empty() {
                    encode_ids(&mut map.key(3), indexes.iter().map(|id| &id.0));
                }
                encode_ids(&mut map.key(4), sessions.iter().map(|id| &id.0));
            }
            Self::Claim { packs, checkpoint } => {
                encode_packs(&mut map.key(0), packs);
                if let Some((id, sealed)) = checkpoint {
                    let mut pair = map.key(1);
                    pair.array(2);
                    pair.bytes(&id.0);
                    encode_sealed(&mut pair, sealed);
                }
            }
            _ => {}
        }
    }

    fn encode_access(&self, map: &mut MapEncoder<'_>) {
        match self {
            Self::Enrol { public, role, name, trusted, slot } => {
                map.key(0).bytes(public);
                map.key(1).uint(role.code().into());
                map.key(2).text(name);
                if !trusted.is_empty() {
                    encode_ids(&mut map.key(3), trusted.iter().map(|id| &id.0));
                }
                if let Some(slot) = slot {
                    map.key(4).bytes(&slot.0);
                }
            }
            Self::Slot { id, added, label, recipient } => {
                map.key(0).bytes(&id.0);
                if *added {
                    map.key(1).boolean(true);
                }
                encode_text(map, 2, label);
                encode_text(map, 3, recipient);
            }
            _ => {}
        }
    }

    /// Decodes the body of a record of this kind.
    pub(super) fn decode(kind: u64, decoder: &mut Decoder<'_>) -> Result<Self> {
        if kind > 15 {
            let error = decoder.wrong(&format!("records of kind {kind} are not known"));
            return Err(error.as_kind(ErrorKind::Unsupported).with_hint("update lifeboat"));
        }
        let mut fields = Fields::start(decoder)?;
        let body = match kind {
            1 | 2 => decode_commit(kind, &mut fields),
            12 => Checkpoint::decode(&mut fields).map(Self::Checkpoint),
            4..=7 => decode_judgement(kind, &mut fields),
            8 | 13 => decode_access(kind, &mut fields),
            _ => decode_rest(kind, &mut fields),
        }?;
        fields.end()?;
        Ok(body)
    }
}

fn encode_text(map: &mut MapEncoder<'_>, key: u64, text: &str) {
    if !text.is_empty() {
        map.key(key).text(text);
    }
}

fn decode_commit(kind: u64, fields: &mut Fields<'_, '_>) -> Result<RecordBody> {
    let indexes = |decoder: &mut Decoder<'_>| decode_ids(decoder, IndexId).and_then(|ids| not_empty(decoder, ids));
    Ok(match kind {
        1 => RecordBody::Snapshot {
            id: SnapshotId(fields.required(0, Decoder::fixed)?),
            snapshot: fields.required(1, decode_sealed)?,
            packs: fields.required(2, decode_packs)?,
            indexes: fields.optional(3, indexes)?.unwrap_or_default(),
            sessions: fields.required(4, |decoder| decode_ids(decoder, SessionId))?,
        },
        _ => {
            let packs = fields.required(0, decode_packs)?;
            let checkpoint = fields.optional(1, |decoder| match decoder.array()? {
                2 => Ok((SnapshotId(decoder.fixed()?), decode_sealed(decoder)?)),
                _ => Err(decoder.wrong("a checkpoint that is not two values")),
            })?;
            RecordBody::Claim { packs, checkpoint }
        }
    })
}

fn decode_judgement(kind: u64, fields: &mut Fields<'_, '_>) -> Result<RecordBody> {
    let records = fields.required(0, decode_records)?;
    Ok(match kind {
        4 => RecordBody::Forget { records },
        5 => RecordBody::Unforget { records },
        6 => RecordBody::Hold { records, reason: fields.optional(1, non_empty_text)?.unwrap_or_default() },
        _ => RecordBody::Unhold { records },
    })
}

fn decode_access(kind: u64, fields: &mut Fields<'_, '_>) -> Result<RecordBody> {
    if kind == 13 {
        return Ok(RecordBody::Slot {
            id: SlotId(fields.required(0, Decoder::fixed)?),
            added: fields.optional(1, Decoder::flag)?.unwrap_or_default(),
            label: fields.optional(2, non_empty_text)?.unwrap_or_default(),
            recipient: fields.optional(3, non_empty_text)?.unwrap_or_default(),
        });
    }
    let trusted = |decoder: &mut Decoder<'_>| decode_sorted(decoder, ClientId).and_then(|ids| not_empty(decoder, ids));
    Ok(RecordBody::Enrol {
        public: fields.required(0, Decoder::fixed)?,
        role: fields.required(1, |decoder| {
            let code = decoder.uint8()?;
            Role::from_code(code).ok_or_else(|| decoder.wrong("an unknown role"))
        })?,
        name: fields.required(2, |decoder| decoder.text().map(str::to_owned))?,
        trusted: fields.optional(3, trusted)?.unwrap_or_default(),
        slot: fields.optional(4, |decoder| decoder.fixed().map(SlotId))?,
    })
}

fn decode_rest(kind: u64, fields: &mut Fields<'_, '_>) -> Result<RecordBody> {
    let packs = |decoder: &mut Decoder<'_>| decode_sorted(decoder, PackId);
    Ok(match kind {
        0 => RecordBody::Genesis { format: ObjectHash(fields.required(0, Decoder::fixed)?) },
        3 => RecordBody::Fence { generation: fields.required(0, Decoder::uint)? },
        9 => {
            RecordBody::Revoke { client: ClientId(fields.required(0, Decoder::fixed)?), last: fields.required(1, Decoder::uint)? }
        }
        10 => RecordBody::Generation {
            number: fields.required(0, Decoder::uint32)?,
            base: fields.required(1, |decoder| decode_sorted(decoder, ObjectHash))?,
        },
        11 => RecordBody::Attest { packs: fields.required(0, packs)? },
        14 => RecordBody::Index {
            indexes: fields.required(0, |decoder| decode_ids(decoder, IndexId))?,
            packs: fields.required(1, packs)?,
        },
        _ => RecordBody::Lost { packs: fields.required(0, packs)?, chunks: fields.required(1, decode_prefixes)? },
    })
}

fn decode_prefixes(decoder: &mut Decoder<'_>) -> Result<Vec<ChunkPrefix>> {
    let (prefixes, rest) = decoder.bytes()?.as_chunks::<16>();
    if !rest.is_empty() || !prefixes.is_sorted_by(|a, b| a < b) {
        return Err(decoder.wrong("prefixes of a wrong length or order"));
    }
    Ok(prefixes.to_vec())
}
