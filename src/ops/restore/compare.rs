//! What is there already, compared with what a restore would write.

use crate::error::{ErrorKind, Result};
use crate::format::tree::{ChunkRef, ChunkType, DataMap, Node, NodeKind};
use crate::repo::Reader;
use crate::source::files::{Stat, TargetDir};

/// What has this name in the directory.
pub(super) fn existing(target: &TargetDir, name: &[u8]) -> Result<Option<Stat>> {
    if !target.existed() {
        return Ok(None);
    }
    match target.directory().stat(name) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == ErrorKind::Missing => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn looks_equal(found: &Stat, node: &Node) -> bool {
    found.kind == NodeKind::File && found.size == node.size && found.mtime == node.mtime
}

/// A file that is there already, to find what need not be written.
pub(super) struct Comparison {
    file: crate::source::files::TargetFile,
    map: DataMap,
    size: u64,
}

impl Comparison {
    pub(super) fn new(target: &TargetDir, node: &Node) -> Option<Self> {
        let file = target.open_file(&node.name).ok()?;
        let size = target.directory().stat(&node.name).ok()?.size;
        Some(Self { file, map: DataMap::new(&node.holes), size })
    }

    pub(super) fn is_equal(&mut self, reader: &Reader, node: &Node, buffer: &mut Vec<u8>) -> Result<bool> {
        if self.size != node.size || !node.holes.is_empty() {
            return Ok(false);
        }
        let mut at = 0;
        for reference in reader.contents(&node.content)? {
            let reference = reference?;
            if !self.same(reader, &reference, at, buffer) {
                return Ok(false);
            }
            at += reference.len;
        }
        Ok(true)
    }

    /// True if the file has this chunk's bytes at its place already.
    pub(super) fn same(&self, reader: &Reader, reference: &ChunkRef, at: u64, buffer: &mut Vec<u8>) -> bool {
        let (offset, run) = self.map.place(at);
        let broken = run < reference.len;
        let Ok(len) = usize::try_from(reference.len) else { return false };
        if broken || len > 16 << 20 {
            return false;
        }
        buffer.resize(len, 0);
        let read = self.file.read_at(buffer, offset);
        read.is_ok_and(|count| count == len) && reader.verify(ChunkType::Data, &reference.id, buffer).is_ok()
    }
}
