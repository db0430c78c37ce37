//! What logs came to, so that their old records need not be kept (docs/protocol.md#6-checkpoints-and-truncation).

use super::parts::{decode_heads, decode_ids, decode_packs, decode_sorted, encode_heads, encode_ids, encode_packs, not_empty};
use super::{Head, PackRef, RecordRef};
use crate::error::Result;
use crate::format::cbor::{Decoder, Encoder, Fields, MapEncoder};
use crate::id::{ClientId, InstanceId, ObjectHash, SessionId, SnapshotId};

/// A checkpoint, or a part of one: what all its parts say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Records of snapshots that stand: their maps, without what they had seen of other logs and without packs.
    pub records: Vec<Vec<u8>>,
    /// Packs that are listed.
    pub packs: Vec<ListedPacks>,
    /// Records below the heads that stay in the store, ascending.
    pub staying: Vec<Head>,
    /// Up to where it speaks of each log, ascending; a part says nothing of that.
    pub heads: Vec<Head>,
    /// Who made which sessions, ascending by client.
    pub sessions: Vec<(ClientId, Vec<SessionId>)>,
    /// Forgets and holds that stand, ascending.
    pub deeds: Vec<StandingDeed>,
    /// Which machines wrote to which logs, ascending.
    pub machines: Vec<Machine>,
    /// Snapshots that were forgotten and pruned, and may lie in packs still, ascending.
    pub pruned: Vec<SnapshotId>,
    /// Records of the same log with the rest, ascending: place and hash.
    pub parts: Vec<(u64, ObjectHash)>,
}

/// Packs that one client lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPacks {
    /// The client.
    pub client: ClientId,
    /// True if the record of a snapshot lists them, and not only claims.
    pub committed: bool,
    /// The packs, ascending.
    pub packs: Vec<PackRef>,
}

/// A forget that no unforget took back, or a hold that no unhold ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StandingDeed {
    /// The snapshot.
    pub snapshot: RecordRef,
    /// The record that says so.
    pub by: RecordRef,
    /// True for a hold, false for a forget.
    pub hold: bool,
    /// Why, empty if not said.
    pub reason: String,
}

/// A machine that wrote to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine {
    /// Whose log.
    pub client: ClientId,
    /// The machine.
    pub instance: InstanceId,
    /// Its first record there, and its last.
    pub first: u64,
    /// See `first`.
    pub last: u64,
}

fn place(encoder: &mut Encoder<'_>, record: &RecordRef) {
    encoder.bytes(&record.client.0);
    encoder.uint(record.seq);
}

fn decode_place(decoder: &mut Decoder<'_>) -> Result<RecordRef> {
    Ok(RecordRef { client: ClientId(decoder.fixed()?), seq: decoder.uint()? })
}

/// An array under `key`, left out when it is empty.
fn each<T>(map: &mut MapEncoder<'_>, key: u64, values: &[T], mut encode: impl FnMut(&mut Encoder<'_>, &T)) {
    if !values.is_empty() {
        let mut encoder = map.key(key);
        encoder.array(values.len());
        values.iter().for_each(|value| encode(&mut encoder, value));
    }
}

/// An array of arrays of `length` values, with at least one member.
fn several<T>(decoder: &mut Decoder<'_>, length: usize, decode: impl Fn(&mut Decoder<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    for _ in 0..decoder.array()? {
        if decoder.array()? != length {
            return Err(decoder.wrong("a part of a checkpoint of a wrong length"));
        }
        found.push(decode(decoder)?);
    }
    not_empty(decoder, found)
}

fn ascending<T: Ord>(decoder: &Decoder<'_>, values: Vec<T>) -> Result<Vec<T>> {
    if values.is_sorted_by(|a, b| a < b) { Ok(values) } else { Err(decoder.wrong("parts of a checkpoint that do not ascend")) }
}

impl Checkpoint {
    pub(super) fn encode(&self, map: &mut MapEncoder<'_>) {
        each(map, 0, &self.records, |encoder, record| encoder.bytes(record));
        each(map, 1, &self.packs, |encoder, listed| {
            encoder.array(3);
            encoder.bytes(&listed.client.0);
            encoder.boolean(listed.committed);
            encode_packs(encoder, &listed.packs);
        });
        if !self.staying.is_empty() {
            encode_heads(&mut map.key(2), &self.staying);
        }
        if !self.heads.is_empty() {
            encode_heads(&mut map.key(3), &self.heads);
        }
        each(map, 4, &self.sessions, |encoder, (client, sessions)| {
            encoder.array(2);
            encoder.bytes(&client.0);
            encode_ids(encoder, sessions.iter().map(|id| &id.0));
        });
        each(map, 5, &self.deeds, |encoder, deed| {
            encoder.array(6);
            place(encoder, &deed.snapshot);
            place(encoder, &deed.by);
            encoder.boolean(deed.hold);
            encoder.text(&deed.reason);
        });
        each(map, 6, &self.machines, |encoder, machine| {
            encoder.array(4);
            encoder.bytes(&machine.client.0);
            encoder.bytes(&machine.instance.0);
            encoder.uint(machine.first);
            encoder.uint(machine.last);
        });
        if !self.pruned.is_empty() {
            encode_ids(&mut map.key(7), self.pruned.iter().map(|id| &id.0));
        }
        each(map, 8, &self.parts, |encoder, (seq, hash)| {
            encoder.array(2);
            encoder.uint(*seq);
            encoder.bytes(&hash.0);
        });
    }

    pub(super) fn decode(fields: &mut Fields<'_, '_>) -> Result<Self> {
        let sorted = |decoder: &mut Decoder<'_>| decode_sorted(decoder, SnapshotId).and_then(|ids| not_empty(decoder, ids));
        Ok(Self {
            records: fields.optional(0, decode_records)?.unwrap_or_default(),
            packs: fields.optional(1, |decoder| several(decoder, 3, decode_listed))?.unwrap_or_default(),
            staying: fields.optional(2, decode_staying)?.unwrap_or_default(),
            heads: fields.optional(3, decode_heads)?.unwrap_or_default(),
            sessions: fields.optional(4, decode_sessions)?.unwrap_or_default(),
            deeds: fields.optional(5, decode_deeds)?.unwrap_or_default(),
            machines: fields.optional(6, decode_machines)?.unwrap_or_default(),
            pruned: fields.optional(7, sorted)?.unwrap_or_default(),
            parts: fields.optional(8, decode_parts)?.unwrap_or_default(),
        })
    }
}

fn decode_records(decoder: &mut Decoder<'_>) -> Result<Vec<Vec<u8>>> {
    let records = (0..decoder.array()?).map(|_| decoder.bytes().map(<[u8]>::to_vec)).collect::<Result<_>>()?;
    not_empty(decoder, records)
}

fn decode_listed(decoder: &mut Decoder<'_>) -> Result<ListedPacks> {
    let client = ClientId(decoder.fixed()?);
    Ok(ListedPacks { client, committed: decoder.boolean()?, packs: decode_packs(decoder)? })
}

fn decode_staying(decoder: &mut Decoder<'_>) -> Result<Vec<Head>> {
    let staying = several(decoder, 3, |decoder| {
        let record = decode_place(decoder)?;
        Ok(Head { client: record.client, seq: record.seq, hash: ObjectHash(decoder.fixed()?) })
    })?;
    if staying.is_sorted_by(|a, b| (a.client, a.seq) < (b.client, b.seq)) {
        Ok(staying)
    } else {
        Err(decoder.wrong("records that stay and do not ascend"))
    }
}

fn decode_sessions(decoder: &mut Decoder<'_>) -> Result<Vec<(ClientId, Vec<SessionId>)>> {
    let sessions = several(decoder, 2, |decoder| Ok((ClientId(decoder.fixed()?), decode_ids(decoder, SessionId)?)))?;
    ascending(decoder, sessions.iter().map(|(client, _)| *client).collect())?;
    Ok(sessions)
}

fn decode_deeds(decoder: &mut Decoder<'_>) -> Result<Vec<StandingDeed>> {
    let deeds = several(decoder, 6, |decoder| {
        let (snapshot, by) = (decode_place(decoder)?, decode_place(decoder)?);
        Ok(StandingDeed { snapshot, by, hold: decoder.boolean()?, reason: decoder.text()?.to_owned() })
    })?;
    ascending(decoder, deeds)
}

fn decode_machines(decoder: &mut Decoder<'_>) -> Result<Vec<Machine>> {
    let machines = several(decoder, 4, |decoder| {
        let (client, instance) = (ClientId(decoder.fixed()?), InstanceId(decoder.fixed()?));
        Ok(Machine { client, instance, first: decoder.uint()?, last: decoder.uint()? })
    })?;
    ascending(decoder, machines)
}

fn decode_parts(decoder: &mut Decoder<'_>) -> Result<Vec<(u64, ObjectHash)>> {
    let parts = several(decoder, 2, |decoder| Ok((decoder.uint()?, ObjectHash(decoder.fixed()?))))?;
    ascending(decoder, parts)
}
