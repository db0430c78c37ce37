//! Encoding of a node (docs/format.md#74-nodes).

use super::{ChunkRef, Content, Hole, MAX_FILE, NODE_MAX_CHUNKS, Node, NodeKind, Time, Xattr};
use crate::error::Result;
use crate::format::cbor::{Decoder, Encoder, MapEncoder, unknown};
use crate::id::ChunkId;

/// Longest name or link target in bytes.
const MAX_NAME: usize = 65_535;

fn encode_time(encoder: &mut Encoder<'_>, time: Time) {
    match i64::try_from(time.total_nanos()) {
        Ok(nanos) => encoder.int(nanos),
        Err(_) => encode_absolute(encoder, time),
    }
}

fn encode_absolute(encoder: &mut Encoder<'_>, time: Time) {
    encoder.array(2);
    encoder.int(time.secs);
    encoder.uint(time.nanos.into());
}

fn encode_relative(encoder: &mut Encoder<'_>, time: Time, base: Time) {
    match i64::try_from(time.total_nanos() - base.total_nanos()) {
        Ok(nanos) => encoder.int(nanos),
        Err(_) => encode_absolute(encoder, time),
    }
}

/// Appends one node.
pub fn encode_node(node: &Node, out: &mut Vec<u8>) {
    let mut map = MapEncoder::new(out);
    map.key(0).bytes(&node.name);
    map.key(1).uint(node.kind.code().into());
    map.key(2).uint(node.mode.into());
    map.key(3).uint(node.uid.into());
    map.key(4).uint(node.gid.into());
    if !node.user.is_empty() {
        map.key(5).bytes(&node.user);
    }
    if !node.group.is_empty() {
        map.key(6).bytes(&node.group);
    }
    encode_time(&mut map.key(7), node.mtime);
    for (key, time) in [(8, node.ctime), (9, node.btime), (10, node.atime)] {
        if let Some(time) = time {
            encode_relative(&mut map.key(key), time, node.mtime);
        }
    }
    if node.size > 0 {
        map.key(11).uint(node.size);
    }
    if node.kind == NodeKind::File {
        encode_content(&mut map, &node.content);
    }
    if !node.holes.is_empty() {
        let mut array = map.key(15);
        array.array(node.holes.len() * 2);
        for hole in &node.holes {
            array.uint(hole.offset);
            array.uint(hole.len);
        }
    }
    encode_rest(map, node);
}

fn encode_content(map: &mut MapEncoder<'_>, content: &Content) {
    match content {
        Content::Chunks(chunks) => {
            let ids: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.id.0).collect();
            map.key(12).bytes(&ids);
            if chunks.len() > 1 {
                let mut array = map.key(13);
                array.array(chunks.len());
                chunks.iter().for_each(|chunk| array.uint(chunk.len));
            }
        }
        Content::List { depth, root } => {
            let mut array = map.key(14);
            array.array(3);
            array.uint((*depth).into());
            array.bytes(&root.id.0);
            array.uint(root.len);
        }
    }
}

fn encode_rest(mut map: MapEncoder<'_>, node: &Node) {
    if !node.target.is_empty() {
        map.key(16).bytes(&node.target);
    }
    if let Some(subtree) = &node.subtree {
        map.key(17).bytes(&subtree.0);
    }
    if let Some((major, minor)) = node.device {
        let mut array = map.key(18);
        array.array(2);
        array.uint(major.into());
        array.uint(minor.into());
    }
    if let Some((device, inode)) = node.link {
        let mut array = map.key(19);
        array.array(2);
        array.uint(device);
        array.uint(inode);
    }
    if !node.xattrs.is_empty() {
        let mut array = map.key(20);
        array.array(node.xattrs.len() * 2);
        for xattr in &node.xattrs {
            array.bytes(&xattr.name);
            array.bytes(&xattr.value);
        }
    }
    if node.flags != 0 {
        map.key(21).uint(node.flags.into());
    }
    if node.unstable {
        map.key(22).boolean(true);
    }
    map.finish(&node.extra);
}

fn decode_absolute(decoder: &mut Decoder<'_>) -> Result<Time> {
    if decoder.array()? != 2 {
        return Err(decoder.wrong("a time that is not two integers"));
    }
    let time = Time { secs: decoder.int()?, nanos: decoder.uint32()? };
    if time.nanos >= 1_000_000_000 {
        return Err(decoder.wrong("nanoseconds beyond a second"));
    }
    Ok(time)
}

fn decode_time(decoder: &mut Decoder<'_>) -> Result<Time> {
    if decoder.at_integer() {
        let nanos = decoder.int()?;
        return Time::from_total_nanos(nanos.into()).ok_or_else(|| decoder.wrong("a time out of range"));
    }
    let time = decode_absolute(decoder)?;
    if i64::try_from(time.total_nanos()).is_ok() {
        return Err(decoder.wrong("a time that is not in its shortest form"));
    }
    Ok(time)
}

fn decode_relative(decoder: &mut Decoder<'_>, base: Time) -> Result<Time> {
    if decoder.at_integer() {
        let total = base.total_nanos() + i128::from(decoder.int()?);
        return Time::from_total_nanos(total).ok_or_else(|| decoder.wrong("a time out of range"));
    }
    let time = decode_absolute(decoder)?;
    if i64::try_from(time.total_nanos() - base.total_nanos()).is_ok() {
        return Err(decoder.wrong("a time that is not in its shortest form"));
    }
    Ok(time)
}

fn pair(decoder: &mut Decoder<'_>) -> Result<(u64, u64)> {
    match decoder.array()? {
        2 => Ok((decoder.uint()?, decoder.uint()?)),
        _ => Err(decoder.wrong("not a pair")),
    }
}

/// Parts of a content that stand under separate keys.
#[derive(Default)]
struct ContentParts {
    ids: Option<Vec<ChunkId>>,
    lengths: Vec<u64>,
    list: Option<Content>,
}

/// Decodes the node at the decoder's position.
pub(super) fn node(decoder: &mut Decoder<'_>) -> Result<Node> {
    let mut map = decoder.map()?;
    let mut node = Node::new(Vec::new(), NodeKind::Fifo);
    let mut parts = ContentParts::default();
    let mut seen = 0u64;
    while let Some(key) = map.key(decoder)? {
        seen |= 1 << key.min(63);
        match key {
            0 => node.name = decode_name(decoder)?,
            1 => {
                let code = decoder.uint8()?;
                node.kind = NodeKind::from_code(code).ok_or_else(|| decoder.wrong("an unknown kind of node"))?;
            }
            2 => node.mode = decoder.uint32()?,
            3 => node.uid = decoder.uint32()?,
            4 => node.gid = decoder.uint32()?,
            5 => node.user = non_empty(decoder)?,
            6 => node.group = non_empty(decoder)?,
            7 => node.mtime = decode_time(decoder)?,
            8 => node.ctime = Some(decode_relative(decoder, node.mtime)?),
            9 => node.btime = Some(decode_relative(decoder, node.mtime)?),
            10 => node.atime = Some(decode_relative(decoder, node.mtime)?),
            11 => node.size = decoder.uint()?,
            12..=14 => decode_content(key, decoder, &mut parts)?,
            15 => node.holes = decode_holes(decoder)?,
            16 => node.target = non_empty(decoder)?,
            17 => node.subtree = Some(ChunkId(decoder.fixed()?)),
            18 => {
                let (major, minor) = pair(decoder)?;
                let narrow = |number| u32::try_from(number).map_err(|_| decoder.wrong("a device number over 32 bits"));
                node.device = Some((narrow(major)?, narrow(minor)?));
            }
            19 => node.link = Some(pair(decoder)?),
            20 => node.xattrs = decode_xattrs(decoder)?,
            21 => node.flags = decoder.uint32()?,
            22 => node.unstable = decoder.flag()?,
            _ => unknown(key, decoder, &mut node.extra)?,
        }
    }
    if seen & 0x9f != 0x9f {
        return Err(decoder.wrong("a node without name, kind, mode, owner, or time"));
    }
    finish(decoder, node, parts, seen)
}

fn finish(decoder: &Decoder<'_>, mut node: Node, parts: ContentParts, seen: u64) -> Result<Node> {
    let has = |key: u64| seen & 1 << key != 0;
    let file = node.kind == NodeKind::File;
    let device = matches!(node.kind, NodeKind::CharDevice | NodeKind::BlockDevice);
    let fits = (has(12) || has(14)) == file
        && !(has(12) && has(14))
        && (file || !(has(11) || has(13) || has(15)))
        && has(16) == (node.kind == NodeKind::Symlink)
        && has(17) == (node.kind == NodeKind::Directory)
        && has(18) == device
        && !(has(19) && node.kind == NodeKind::Directory)
        && (has(11) == (node.size != 0))
        && node.size <= MAX_FILE
        && (has(21) == (node.flags != 0))
        && node.mode <= 0o7777;
    if !fits {
        return Err(decoder.wrong("fields that do not belong to this kind of node"));
    }
    let end = node.holes.last().map_or(0, |hole| hole.offset + hole.len);
    if end > node.size {
        return Err(decoder.wrong("a hole behind the end of its file"));
    }
    if file {
        node.content = content(decoder, parts, node.data_len())?;
    }
    Ok(node)
}

fn content(decoder: &Decoder<'_>, parts: ContentParts, data: u64) -> Result<Content> {
    if let Some(list) = parts.list {
        return match &list {
            Content::List { root, .. } if root.len == data => Ok(list),
            _ => Err(decoder.wrong("a list whose length is not the file's")),
        };
    }
    let ids = parts.ids.unwrap_or_default();
    let lengths = if ids.len() == 1 { vec![data] } else { parts.lengths };
    let total = lengths.iter().try_fold(0u64, |sum, length| sum.checked_add(*length));
    if lengths.len() != ids.len() || total != Some(data) || lengths.contains(&0) {
        return Err(decoder.wrong("chunk lengths that are not the file's"));
    }
    Ok(Content::Chunks(ids.into_iter().zip(lengths).map(|(id, len)| ChunkRef { id, len }).collect()))
}

fn decode_content(key: u64, decoder: &mut Decoder<'_>, parts: &mut ContentParts) -> Result<()> {
    match key {
        12 => {
            let bytes = decoder.bytes()?;
            if bytes.len() % 32 != 0 || bytes.len() > NODE_MAX_CHUNKS * 32 {
                return Err(decoder.wrong("chunk ids of a wrong length"));
            }
            parts.ids = Some(bytes.chunks_exact(32).filter_map(ChunkId::from_slice).collect());
        }
        13 => {
            let count = decoder.array()?;
            if parts.ids.as_ref().map_or(0, Vec::len) != count || count < 2 {
                return Err(decoder.wrong("chunk lengths that are not one for each id"));
            }
            parts.lengths = (0..count).map(|_| decoder.uint()).collect::<Result<_>>()?;
        }
        _ => {
            if decoder.array()? != 3 {
                return Err(decoder.wrong("a list that is not three values"));
            }
            let depth = decoder.uint8()?;
            let root = ChunkRef { id: ChunkId(decoder.fixed()?), len: decoder.uint()? };
            if depth > 8 {
                return Err(decoder.wrong("a list that is too deep"));
            }
            parts.list = Some(Content::List { depth, root });
        }
    }
    Ok(())
}

fn non_empty(decoder: &mut Decoder<'_>) -> Result<Vec<u8>> {
    match decoder.bytes()? {
        [] => Err(decoder.wrong("an empty string that should have been left out")),
        bytes if bytes.len() > MAX_NAME => Err(decoder.wrong("a string that is too long")),
        bytes => Ok(bytes.to_vec()),
    }
}

fn decode_name(decoder: &mut Decoder<'_>) -> Result<Vec<u8>> {
    let name = non_empty(decoder)?;
    if name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(decoder.wrong("a name that no directory can hold"));
    }
    Ok(name)
}

fn decode_holes(decoder: &mut Decoder<'_>) -> Result<Vec<Hole>> {
    let count = decoder.array()?;
    if count == 0 || count % 2 != 0 {
        return Err(decoder.wrong("holes that are not pairs"));
    }
    let mut holes = Vec::with_capacity(count / 2);
    let mut free = 0;
    for _ in 0..count / 2 {
        let hole = Hole { offset: decoder.uint()?, len: decoder.uint()? };
        let touches = hole.offset < free || (hole.offset == free && !holes.is_empty());
        match hole.offset.checked_add(hole.len) {
            Some(end) if hole.len > 0 && !touches => free = end,
            _ => return Err(decoder.wrong("holes that touch, overlap, or are empty")),
        }
        holes.push(hole);
    }
    Ok(holes)
}

fn decode_xattrs(decoder: &mut Decoder<'_>) -> Result<Vec<Xattr>> {
    let count = decoder.array()?;
    if count == 0 || count % 2 != 0 {
        return Err(decoder.wrong("extended attributes that are not pairs"));
    }
    let mut xattrs: Vec<Xattr> = Vec::with_capacity(count / 2);
    for _ in 0..count / 2 {
        let xattr = Xattr { name: non_empty(decoder)?, value: decoder.bytes()?.to_vec() };
        if xattr.name.contains(&0) || xattrs.last().is_some_and(|last| last.name >= xattr.name) {
            return Err(decoder.wrong("extended attributes out of order or with a hostile name"));
        }
        xattrs.push(xattr);
    }
    Ok(xattrs)
}

/// Decodes the node at the start of `bytes`; returns it and the length of its encoding.
///
/// # Errors
/// `Damaged`, `Unsupported`.
pub fn decode_node(bytes: &[u8]) -> Result<(Node, usize)> {
    let mut decoder = Decoder::new(bytes, "a node");
    let node = node(&mut decoder)?;
    Ok((node, decoder.position()))
}
