//! What is left of damaged files: written beside where they belong, under another name, with a list of what is missing.

use super::SalvagedFile;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Observer, stop_if_asked};
use crate::format::tree::{ChunkType, DataMap, Node, NodeKind};
use crate::ops::gathered::Gathered;
use crate::repo::Reader;
use crate::source::files::TargetDir;

/// What is put behind the name of a file that is not whole.
const SUFFIX: &[u8] = b".damaged";
/// Longest name that file systems take.
const MAX_NAME: usize = 255;
/// Bytes of the list that are written at once, and some more.
const STEP: usize = 64 << 10;
/// Name of the list of what is missing.
pub(super) const LIST: &[u8] = b".lifeboat-holes.txt";

/// Writes what is left of the files at `paths`, which could not be restored, and the list of what is missing of them.
/// Paths that are no files, or of which nothing is left, are in the list as wholly missing.
pub(super) fn salvage(
    reader: &Reader,
    top: &Node,
    target: &TargetDir,
    paths: &Gathered<Vec<u8>>,
    observer: &dyn Observer,
) -> Result<Gathered<SalvagedFile>> {
    let mut salvaged = Gathered::default();
    for path in paths.iter() {
        let path = path?;
        stop_if_asked(observer)?;
        let node = match &top.subtree {
            Some(root) => reader.resolve(root, &path).ok(),
            None => Some(top.clone()),
        };
        let file = node.filter(|node| node.kind == NodeKind::File);
        let written = file.map(|node| write(reader, &node, target, &path)).transpose();
        salvaged.push(&match written {
            Err(error) if matches!(error.kind(), ErrorKind::Full | ErrorKind::Interrupted) => return Err(error),
            Ok(Some(file)) => file,
            Ok(None) | Err(_) => SalvagedFile { path, name: None, size: 0, holes: Vec::new() },
        })?;
    }
    write_list(target, &salvaged)?;
    Ok(salvaged)
}

/// Writes the chunks of a file that can be read; the others stay zero, and are named as holes of the data.
fn write(reader: &Reader, node: &Node, target: &TargetDir, path: &[u8]) -> Result<SalvagedFile> {
    let split = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let directory = target.open_path(&path[..split])?;
    let file = directory.create_file(&TargetDir::temporary_name())?;
    let map = DataMap::new(&node.holes);
    let mut holes: Vec<(u64, u64)> = Vec::new();
    let mut miss = |offset: u64, length: u64| match holes.last_mut() {
        Some((from, before)) if *from + *before == offset => *before += length,
        _ => holes.push((offset, length)),
    };
    let mut at = 0;
    for reference in reader.contents(&node.content).into_iter().flatten() {
        // Behind a list that is lost nothing more is known.
        let Ok(reference) = reference else { break };
        let read = reader.chunk(ChunkType::Data, &reference.id).ok().filter(|bytes| bytes.len() as u64 == reference.len);
        let mut done = 0;
        while done < reference.len {
            let (offset, run) = map.place(at + done);
            let step = run.min(reference.len - done);
            match &read {
                Some(bytes) => {
                    let from = usize::try_from(done).unwrap_or(usize::MAX);
                    let until = usize::try_from(done + step).unwrap_or(usize::MAX);
                    file.write_at(offset, bytes.get(from..until).unwrap_or_default())?;
                }
                None => miss(offset, step),
            }
            done += step;
        }
        at += reference.len;
    }
    let (end, _) = map.place(at);
    let known_holes: u64 = node.holes.iter().filter(|hole| hole.offset >= end).map(|hole| hole.len).sum();
    if node.size.saturating_sub(end) > known_holes {
        miss(end, node.size - end);
    }
    file.set_len(node.size)?;
    let mut name = node.name.clone();
    name.truncate(MAX_NAME - SUFFIX.len());
    name.extend_from_slice(SUFFIX);
    file.finish(node, &name)?;
    Ok(SalvagedFile { path: path.to_vec(), name: Some(name), size: node.size, holes })
}

/// One line for each hole: offset, length, path; a path of which nothing is left has neither.
fn write_list(target: &TargetDir, salvaged: &Gathered<SalvagedFile>) -> Result<()> {
    let list = target.create_file(&TargetDir::temporary_name())?;
    let (mut text, mut at) = (Vec::new(), 0);
    for file in salvaged.iter() {
        let file = file?;
        let path = file.path.escape_ascii();
        if file.name.is_none() {
            text.extend_from_slice(format!("all\t{path}\n").as_bytes());
        }
        for (offset, length) in &file.holes {
            text.extend_from_slice(format!("{offset}\t{length}\t{path}\n").as_bytes());
            if text.len() >= STEP {
                list.write_at(at, &text)?;
                at += text.len() as u64;
                text.clear();
            }
        }
    }
    list.write_at(at, &text)?;
    let mut node = Node::new(LIST.to_vec(), NodeKind::File);
    node.mode = 0o600;
    let now = target.directory().stat_self()?;
    (node.uid, node.gid, node.mtime) = (now.uid, now.gid, now.mtime);
    list.finish(&node, LIST).map(drop).map_err(|error: Error| error.while_doing("write the list of what is missing"))
}
