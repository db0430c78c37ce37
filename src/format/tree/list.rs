//! Pages of the list of a large file's chunks (docs/format.md#71-lists).

use super::{ChunkRef, MAX_FILE, PAGE_LIMIT};
use crate::error::Result;
use crate::format::cbor::{Decoder, MapEncoder};
use crate::id::ChunkId;

/// Most references of a list page.
pub const LIST_MAX_REFS: usize = 1024;

/// A page of references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// 0: the references are data chunks; otherwise pages one level below.
    pub depth: u8,
    /// The references, in order.
    pub refs: Vec<ChunkRef>,
}

/// True if a list page ends after this reference.
#[must_use]
pub fn list_ends(id: &ChunkId) -> bool {
    id.0[0] == 0
}

impl ListPage {
    /// Appends the page.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut map = MapEncoder::new(out);
        if self.depth > 0 {
            map.key(0).uint(self.depth.into());
        }
        let ids: Vec<u8> = self.refs.iter().flat_map(|reference| reference.id.0).collect();
        map.key(1).bytes(&ids);
        let mut lengths = map.key(2);
        lengths.array(self.refs.len());
        self.refs.iter().for_each(|reference| lengths.uint(reference.len));
        map.finish(&[]);
    }

    /// Decodes a page.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes, "a page of a chunk list");
        if bytes.len() > PAGE_LIMIT {
            return Err(decoder.wrong("too long"));
        }
        let mut map = decoder.map()?;
        let mut key = map.key(&mut decoder)?;
        let mut depth = 0;
        if key == Some(0) {
            depth = decoder.uint8()?;
            if depth == 0 || depth > 8 {
                return Err(decoder.wrong("a depth that cannot be"));
            }
            key = map.key(&mut decoder)?;
        }
        if key != Some(1) {
            return Err(decoder.wrong("no references"));
        }
        let ids = decoder.bytes()?;
        let count = ids.len() / 32;
        let sized = ids.len() % 32 == 0 && (1..=LIST_MAX_REFS).contains(&count);
        if !sized || map.key(&mut decoder)? != Some(2) || decoder.array()? != count {
            return Err(decoder.wrong("references of a wrong number"));
        }
        let mut refs = Vec::with_capacity(count);
        for id in ids.chunks_exact(32).filter_map(ChunkId::from_slice) {
            refs.push(ChunkRef { id, len: decoder.uint()? });
        }
        if map.key(&mut decoder)?.is_some() {
            return Err(decoder.wrong("a field that is not known"));
        }
        decoder.end()?;
        let total = refs.iter().try_fold(0u64, |sum, reference| sum.checked_add(reference.len));
        if refs.iter().any(|reference| reference.len == 0) || total.is_none_or(|total| total > MAX_FILE) {
            return Err(decoder.wrong("lengths that no file has"));
        }
        Ok(Self { depth, refs })
    }

    /// Bytes of data below the page.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.refs.iter().fold(0, |sum, reference| sum.saturating_add(reference.len))
    }
}
