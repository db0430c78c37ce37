//! Pages of a directory (docs/format.md#72-directories).

use super::{Node, PAGE_LIMIT, node};
use crate::error::Result;
use crate::format::cbor::{Decoder, Encoder, MapEncoder};
use crate::id::ChunkId;

/// Most entries of a page.
pub const PAGE_MAX_ENTRIES: usize = 1024;
/// Length that a page does not exceed unless a single entry does.
pub const PAGE_MAX_BYTES: usize = 256 << 10;
/// Deepest page.
const MAX_DEPTH: u8 = 8;
/// A page ends after an entry whose hash is a multiple of this.
const PAGE_MEAN: u32 = 64;

/// A reference to a page and what a look-up needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRef {
    /// The page.
    pub id: ChunkId,
    /// The first name below it.
    pub first: Vec<u8>,
    /// Nodes below it.
    pub count: u64,
}

/// A decoded page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Nodes in ascending order of their names.
    Leaf(Vec<Node>),
    /// References to pages.
    Inner {
        /// Levels below this one.
        depth: u8,
        /// The pages, ascending.
        pages: Vec<PageRef>,
    },
}

/// True if a page of this depth ends after the entry whose name has this keyed hash.
#[must_use]
pub fn page_ends(name_hash: &[u8; 32], depth: u8) -> bool {
    let at = usize::from(depth) * 4;
    depth <= 6 && u32::from_le_bytes(name_hash[at..at + 4].try_into().expect("4 bytes")).is_multiple_of(PAGE_MEAN)
}

/// Appends a leaf of `count` nodes that are encoded already, joined in ascending order.
pub fn encode_leaf(nodes: &[u8], count: usize, out: &mut Vec<u8>) {
    let mut map = MapEncoder::new(out);
    let mut array = map.key(1);
    array.array(count);
    array.encoded(nodes);
    map.finish(&[]);
}

/// Appends a page of references.
pub fn encode_inner(depth: u8, pages: &[PageRef], out: &mut Vec<u8>) {
    let mut map = MapEncoder::new(out);
    map.key(0).uint(depth.into());
    let ids: Vec<u8> = pages.iter().flat_map(|page| page.id.0).collect();
    map.key(1).bytes(&ids);
    let mut names = map.key(2);
    names.array(pages.len());
    pages.iter().for_each(|page| names.bytes(&page.first));
    let mut counts: Encoder<'_> = map.key(3);
    counts.array(pages.len());
    pages.iter().for_each(|page| counts.uint(page.count));
    map.finish(&[]);
}

/// Decodes a page.
///
/// # Errors
/// `Damaged`, `Unsupported`.
pub fn decode_page(bytes: &[u8]) -> Result<Page> {
    let mut decoder = Decoder::new(bytes, "a page of a directory");
    if bytes.len() > PAGE_LIMIT {
        return Err(decoder.wrong("too long"));
    }
    let mut map = decoder.map()?;
    let page = match map.key(&mut decoder)? {
        Some(1) => leaf(&mut decoder)?,
        Some(0) => {
            let depth = decoder.uint8()?;
            if depth == 0 || depth > MAX_DEPTH || map.key(&mut decoder)? != Some(1) {
                return Err(decoder.wrong("a depth that cannot be, or no references"));
            }
            let ids = decoder.bytes()?;
            if ids.is_empty() || ids.len() % 32 != 0 || map.key(&mut decoder)? != Some(2) {
                return Err(decoder.wrong("ids of a wrong length, or no names"));
            }
            let count = ids.len() / 32;
            if count > PAGE_MAX_ENTRIES {
                return Err(decoder.wrong("more references than a page has"));
            }
            let names = names(&mut decoder, count)?;
            if map.key(&mut decoder)? != Some(3) || decoder.array()? != count {
                return Err(decoder.wrong("no counts"));
            }
            let mut pages = Vec::with_capacity(count);
            for (id, first) in ids.chunks_exact(32).filter_map(ChunkId::from_slice).zip(names) {
                pages.push(PageRef { id, first, count: decoder.uint()? });
            }
            Page::Inner { depth, pages }
        }
        _ => return Err(decoder.wrong("a page without entries")),
    };
    if map.key(&mut decoder)?.is_some() {
        return Err(decoder.wrong("a field that is not known"));
    }
    decoder.end()?;
    Ok(page)
}

fn leaf(decoder: &mut Decoder<'_>) -> Result<Page> {
    let count = decoder.array()?;
    if count > PAGE_MAX_ENTRIES {
        return Err(decoder.wrong("more nodes than a page has"));
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(count);
    for _ in 0..count {
        let node = node::node(decoder)?;
        if nodes.last().is_some_and(|last| last.name >= node.name) {
            return Err(decoder.wrong("names that do not ascend"));
        }
        nodes.push(node);
    }
    Ok(Page::Leaf(nodes))
}

fn names(decoder: &mut Decoder<'_>, count: usize) -> Result<Vec<Vec<u8>>> {
    if decoder.array()? != count {
        return Err(decoder.wrong("not one name for each page"));
    }
    let mut names: Vec<Vec<u8>> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = decoder.bytes()?;
        if names.last().is_some_and(|last| last.as_slice() >= name) {
            return Err(decoder.wrong("names that do not ascend"));
        }
        names.push(name.to_vec());
    }
    Ok(names)
}
