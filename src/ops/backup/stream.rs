//! A stream as a backup: one file whose bytes come from a pipe or a command.

use super::lists::ListBuilder;
use super::pages::PageBuilder;
use super::{BackupOptions, Committed, Input, finish};
use crate::error::{Error, Result};
use crate::event::{Event, Observer, Progress, Stage, stop_if_asked};
use crate::format::snapshot::{Counts, Snapshot};
use crate::format::tree::{ChunkType, Node, NodeKind, Time, encode_node};
use crate::repo::{ChunkWriter, Repository, Session};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes that are read before they are cut.
const WINDOW: usize = 4 << 20;

/// Backs the stream up. An error of the stream, or of what it came from, commits nothing.
pub(super) fn back_up(
    repository: &Repository,
    options: BackupOptions,
    mut snapshot: Snapshot,
    observer: &dyn Observer,
) -> Result<Option<Committed>> {
    let Input::Stream { name, mut reader, finish: end } = options.input else {
        return Err(Error::usage("back up a stream: paths were given"));
    };
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let (Some(last), false) = (parts.last(), parts.iter().any(|part| matches!(*part, b"." | b".."))) else {
        return Err(Error::usage("name the stream: the name must be a file's, without . and .. parts"));
    };
    snapshot.paths = vec![name.clone()];
    snapshot.parent = super::parent(repository, &snapshot).map(|parent| parent.id);
    let session = Session::start(repository, options.dry_run)?;
    let mut writer = session.writer()?;
    let progress = Arc::new(Progress::default());
    progress.at(&name);
    observer.observe(Event::Started(Stage::BackingUp, &progress));
    let stored = store(repository, &mut writer, &mut *reader, &progress, observer).and_then(|stored| end().map(|()| stored));
    // Ctrl-C ends the writer at the other end of a pipe as well: what looks like the end of the stream then is none.
    let stored = stored.and_then(|stored| stop_if_asked(observer).map(|()| stored));
    observer.observe(Event::Finished(Stage::BackingUp));
    let (content, size) = match stored {
        Ok(stored) => stored,
        Err(error) => {
            session.abandon(writer)?;
            return Err(error);
        }
    };
    let mut node = Node::new(last.to_vec(), NodeKind::File);
    node.mode = 0o600;
    node.mtime = Time::from_total_nanos(snapshot.start.into()).unwrap_or_default();
    node.content = content;
    node.size = size;
    for part in parts.iter().rev().skip(1) {
        let mut above = Node::new(part.to_vec(), NodeKind::Directory);
        above.mode = 0o700;
        above.mtime = node.mtime;
        above.subtree = Some(page(&node, &mut writer)?);
        node = above;
    }
    snapshot.root = page(&node, &mut writer)?;
    let directories = parts.len() as u64 - 1;
    let counts = Counts { files: 1, directories, bytes: size, new: 1, bytes_read: size, ..Counts::default() };
    finish(session, writer, snapshot, counts, options.dry_run)
}

fn page(node: &Node, writer: &mut ChunkWriter) -> Result<crate::id::ChunkId> {
    let mut encoded = Vec::new();
    encode_node(node, &mut encoded);
    let mut pages = PageBuilder::default();
    pages.push(&node.name, &encoded, writer)?;
    pages.finish(writer)
}

fn store(
    repository: &Repository,
    writer: &mut ChunkWriter,
    reader: &mut dyn Read,
    progress: &Progress,
    observer: &dyn Observer,
) -> Result<(crate::format::tree::Content, u64)> {
    let chunker = repository.chunker()?;
    let mut list = ListBuilder::default();
    let mut buffer = vec![0; WINDOW.max(chunker.maximum() * 2)];
    let (mut filled, mut size, mut ended) = (0, 0, false);
    while !ended || filled > 0 {
        stop_if_asked(observer)?;
        while !ended && filled < buffer.len() {
            match reader.read(&mut buffer[filled..]) {
                Ok(0) => ended = true,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => stop_if_asked(observer)?,
                Err(error) => return Err(Error::io("read", "the stream", error)),
            }
        }
        let mut at = 0;
        while at < filled && (ended || filled - at >= chunker.maximum()) {
            let length = chunker.cut(&buffer[at..filled]);
            let reference = writer.put(ChunkType::Data, &buffer[at..at + length])?;
            list.push(reference, writer)?;
            at += length;
            size += length as u64;
            progress.bytes.fetch_add(length as u64, Ordering::Relaxed);
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
    Ok((list.finish(writer)?, size))
}
