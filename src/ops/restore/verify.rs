//! Reads back what was restored and compares it with the snapshot.

use super::RestoreOptions;
use super::report::Tally;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Stage, stop_if_asked};
use crate::format::tree::{ChunkType, Node, NodeKind};
use crate::id::ChunkId;
use crate::repo::Reader;
use crate::source::files::{Directory, Rules, SourceFile};

/// Longest chunk that is read back: the longest block holds no longer one.
const LONGEST_CHUNK: usize = 16 << 20;

/// Compares every file below `top` that is at the target with its content in the snapshot.
pub(super) fn verify(reader: &Reader, top: &Node, options: &RestoreOptions, tally: &Tally<'_>) -> Result<()> {
    tally.observer.observe(Event::Started(Stage::Verifying, &tally.progress));
    let rules = Rules::new(&options.exclude)?;
    let directory = Directory::open_root(&options.target)?;
    let verified = match top.kind {
        NodeKind::Directory => below(reader, top.subtree.as_ref(), &directory, (&rules, options), tally, &mut Vec::new()),
        _ => file(reader, top, &directory, tally, &top.name),
    };
    tally.observer.observe(Event::Finished(Stage::Verifying));
    verified
}

fn below(
    reader: &Reader,
    root: Option<&ChunkId>,
    directory: &Directory,
    choice: (&Rules, &RestoreOptions),
    tally: &Tally<'_>,
    path: &mut Vec<u8>,
) -> Result<()> {
    let Some(root) = root else { return Ok(()) };
    for node in reader.nodes(root)? {
        stop_if_asked(tally.observer)?;
        let node = node?;
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&node.name);
        let is_dir = node.kind == NodeKind::Directory;
        if !choice.0.excludes(path, is_dir) {
            match node.kind {
                NodeKind::Directory => match directory.open_child(&node.name) {
                    Ok(inner) => {
                        // Nothing of the node is held while the walk is below it.
                        let subtree = node.subtree;
                        drop(node);
                        below(reader, subtree.as_ref(), &inner, choice, tally, path)?;
                    }
                    // Directories that hold nothing of what was asked for are not made.
                    Err(_) if !choice.1.include.is_empty() => {}
                    Err(error) => tally.fail(path, &error),
                },
                NodeKind::File if !choice.1.include.is_empty() && directory.stat(&node.name).is_err() => {}
                NodeKind::File => file(reader, &node, directory, tally, path)?,
                _ => {}
            }
        }
        path.truncate(length);
    }
    Ok(())
}

fn file(reader: &Reader, node: &Node, directory: &Directory, tally: &Tally<'_>, path: &[u8]) -> Result<()> {
    match compare(reader, node, directory) {
        Ok(()) => tally.count(|report| report.verified += 1),
        // What could not be restored was said then.
        Err(error) if error.kind() == ErrorKind::Missing && tally.has_failed(path) => {}
        Err(error) => tally.fail(path, &error),
    }
    Ok(())
}

fn compare(reader: &Reader, node: &Node, directory: &Directory) -> Result<()> {
    let differs = || Error::failed("verify the restored file: it differs from the snapshot");
    let stat = directory.stat(&node.name)?;
    if stat.kind != NodeKind::File || stat.size != node.size {
        return Err(differs());
    }
    let source = SourceFile::open(directory, &node.name, &stat)?;
    let mut holes = node.holes.iter().peekable();
    let mut offset = 0;
    let mut buffer = Vec::new();
    for reference in reader.contents(&node.content)? {
        let reference = reference?;
        let len = usize::try_from(reference.len).ok().filter(|len| *len <= LONGEST_CHUNK).ok_or_else(differs)?;
        buffer.resize(len, 0);
        let mut filled = 0;
        while filled < len {
            while let Some(hole) = holes.next_if(|hole| hole.offset <= offset) {
                offset += hole.len;
            }
            let run = holes.peek().map_or(u64::MAX, |hole| hole.offset - offset);
            let step = usize::try_from(run).unwrap_or(usize::MAX).min(len - filled);
            if source.read_at(&mut buffer[filled..filled + step], offset)? != step {
                return Err(differs());
            }
            filled += step;
            offset += step as u64;
        }
        reader.verify(ChunkType::Data, &reference.id, &buffer).map_err(|_| differs())?;
    }
    Ok(())
}
