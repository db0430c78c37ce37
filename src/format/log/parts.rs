//! Parts that several kinds of records have.

use super::{Head, PackRef, RecordRef, SealedSnapshot};
use crate::error::Result;
use crate::format::cbor::{Decoder, Encoder};
use crate::format::pack::{MAX_PACK, MAX_TOC};
use crate::id::{ClientId, ObjectHash, PackId};

pub(in crate::format) fn encode_heads(encoder: &mut Encoder<'_>, heads: &[Head]) {
    encoder.array(heads.len());
    for head in heads {
        encoder.array(3);
        encoder.bytes(&head.client.0);
        encoder.uint(head.seq);
        encoder.bytes(&head.hash.0);
    }
}

pub(in crate::format) fn decode_heads(decoder: &mut Decoder<'_>) -> Result<Vec<Head>> {
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

pub(super) fn encode_packs(encoder: &mut Encoder<'_>, packs: &[PackRef]) {
    encoder.array(packs.len());
    for pack in packs {
        encoder.array(3);
        encoder.bytes(&pack.id.0);
        encoder.uint(pack.size);
        encoder.uint(pack.toc_len.into());
    }
}

pub(super) fn decode_packs(decoder: &mut Decoder<'_>) -> Result<Vec<PackRef>> {
    let mut packs = Vec::new();
    for _ in 0..decoder.array()? {
        if decoder.array()? != 3 {
            return Err(decoder.wrong("a pack that is not three values"));
        }
        let id = PackId(decoder.fixed()?);
        let pack = PackRef { id, size: decoder.uint()?, toc_len: decoder.uint32()? };
        if pack.size > MAX_PACK || pack.toc_len > MAX_TOC {
            return Err(decoder.wrong("a pack of a length that cannot be"));
        }
        packs.push(pack);
    }
    if !packs.is_sorted_by(|a, b| a.id < b.id) {
        return Err(decoder.wrong("packs that do not ascend"));
    }
    Ok(packs)
}

pub(super) fn encode_sealed(encoder: &mut Encoder<'_>, sealed: &SealedSnapshot) {
    encoder.array(6);
    encoder.bytes(&sealed.seal);
    encoder.uint(sealed.number);
    encoder.uint(sealed.codec.into());
    encoder.uint(sealed.raw_len.into());
    encoder.uint(sealed.packed_len.into());
    encoder.bytes(&sealed.sealed);
}

pub(super) fn decode_sealed(decoder: &mut Decoder<'_>) -> Result<SealedSnapshot> {
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

pub(super) fn encode_records(encoder: &mut Encoder<'_>, records: &[RecordRef]) {
    encoder.array(records.len());
    for record in records {
        encoder.array(2);
        encoder.bytes(&record.client.0);
        encoder.uint(record.seq);
    }
}

pub(super) fn decode_records(decoder: &mut Decoder<'_>) -> Result<Vec<RecordRef>> {
    let mut records = Vec::new();
    for _ in 0..decoder.array()? {
        if decoder.array()? != 2 {
            return Err(decoder.wrong("a place of a record that is not two values"));
        }
        records.push(RecordRef { client: ClientId(decoder.fixed()?), seq: decoder.uint()? });
    }
    if records.is_empty() || !records.is_sorted_by(|a, b| a < b) {
        return Err(decoder.wrong("records that do not ascend, or none"));
    }
    Ok(records)
}

/// Ids of one kind, as an array of byte strings.
pub(super) fn encode_ids<'i, const LEN: usize>(encoder: &mut Encoder<'_>, ids: impl ExactSizeIterator<Item = &'i [u8; LEN]>) {
    encoder.array(ids.len());
    ids.for_each(|id| encoder.bytes(id));
}

/// Ids in the order in which they stand.
pub(super) fn decode_ids<const LEN: usize, T>(decoder: &mut Decoder<'_>, make: impl Fn([u8; LEN]) -> T) -> Result<Vec<T>> {
    (0..decoder.array()?).map(|_| decoder.fixed().map(&make)).collect()
}

/// Ids that ascend.
pub(super) fn decode_sorted<const LEN: usize, T: Ord>(
    decoder: &mut Decoder<'_>,
    make: impl Fn([u8; LEN]) -> T,
) -> Result<Vec<T>> {
    let ids = decode_ids(decoder, make)?;
    if !ids.is_sorted_by(|a, b| a < b) {
        return Err(decoder.wrong("ids that do not ascend"));
    }
    Ok(ids)
}

/// Something that is left out when it has no members.
pub(super) fn not_empty<T>(decoder: &Decoder<'_>, list: Vec<T>) -> Result<Vec<T>> {
    if list.is_empty() { Err(decoder.wrong("an empty array that should have been left out")) } else { Ok(list) }
}
