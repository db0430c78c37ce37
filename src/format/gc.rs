//! Prune objects: what a prune judges, and what it may delete (docs/format.md#10-prune-objects).

use super::cbor::{Decoder, Fields, MapEncoder};
use super::envelope::ObjectKind;
use super::index::decode_packs;
use super::log::{Head, decode_heads, encode_heads};
use crate::error::Result;
use crate::id::{ClientId, ObjectHash, PackId};

/// One prune object; what it means is said by the kind of the object that it is sealed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneObject {
    /// Who made it.
    pub client: ClientId,
    /// The prune generation.
    pub generation: u64,
    /// Packs condemned, or to delete, ascending.
    pub packs: Vec<PackId>,
    /// Heads seen, ascending.
    pub heads: Vec<Head>,
    /// The client's clock, nanoseconds since 1970.
    pub time: i64,
    /// Of a condemn object: the plan of the generation before, if there was one. Of a plan: its condemn object.
    pub previous: Option<ObjectHash>,
    /// Of the owner's plan: the checkpoint that it puts in force, a record of the owner's log.
    pub checkpoint: Option<(u64, ObjectHash)>,
}

impl PruneObject {
    /// The bytes that are signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let packs: Vec<u8> = self.packs.iter().flat_map(|pack| pack.0).collect();
        let mut out = Vec::with_capacity(packs.len() + 256);
        let mut map = MapEncoder::new(&mut out);
        map.key(0).bytes(&self.client.0);
        map.key(1).uint(self.generation);
        map.key(2).bytes(&packs);
        if !self.heads.is_empty() {
            encode_heads(&mut map.key(3), &self.heads);
        }
        map.key(4).int(self.time);
        if let Some(previous) = &self.previous {
            map.key(5).bytes(&previous.0);
        }
        if let Some((seq, hash)) = &self.checkpoint {
            let mut place = map.key(6);
            place.array(2);
            place.uint(*seq);
            place.bytes(&hash.0);
        }
        map.finish(&[]);
        out
    }

    /// Decodes the prune object in a sealed object of this kind.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(kind: ObjectKind, bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes, "a prune object");
        let mut fields = Fields::start(&mut decoder)?;
        let object = Self {
            client: ClientId(fields.required(0, Decoder::fixed)?),
            generation: fields.required(1, Decoder::uint)?,
            packs: fields.required(2, decode_packs)?,
            heads: fields.optional(3, decode_heads)?.unwrap_or_default(),
            time: fields.required(4, Decoder::int)?,
            previous: fields.optional(5, |decoder| decoder.fixed().map(ObjectHash))?,
            checkpoint: fields.optional(6, |decoder| match decoder.array()? {
                2 => Ok((decoder.uint()?, ObjectHash(decoder.fixed()?))),
                _ => Err(decoder.wrong("a place of a checkpoint that is not two values")),
            })?,
        };
        fields.end()?;
        decoder.end()?;
        if kind == ObjectKind::Condemn && object.checkpoint.is_some() {
            return Err(decoder.wrong("a condemn object that names a checkpoint"));
        }
        if kind == ObjectKind::Plan && object.previous.is_none() {
            return Err(decoder.wrong("a plan that names no condemn object"));
        }
        Ok(object)
    }
}
