//! The first walk: chunks of files that the target does not have are read, verified, and stored.

use super::Copying;
use crate::error::{Error, Result};
use crate::event::stop_if_asked;
use crate::format::tree::{ChunkRef, ChunkType, NodeKind};
use crate::id::ChunkId;
use crate::ops::seen::Seen;
use crate::ops::walk::MAX_DEPTH;
use crate::repo::{ChunkWriter, Reader, Session};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::atomic::Ordering;

/// Chunks that a worker takes at a time.
const BATCH_CHUNKS: usize = 512;
/// Their bytes, about.
const BATCH_BYTES: u64 = 16 << 20;

/// Chunks on their way to a worker.
#[derive(Default)]
struct Batch {
    chunks: Vec<ChunkRef>,
    bytes: u64,
}

/// What the walk has at hand.
struct Finder<'a, 'b> {
    copying: &'a Copying<'b>,
    reader: Reader,
    writer: &'a mut ChunkWriter,
    batch: Batch,
    batches: Sender<Vec<ChunkRef>>,
}

impl Copying<'_> {
    /// Stores what the target does not have of the tree below `root`.
    pub(super) fn content(&self, session: &Session, writer: &mut ChunkWriter, root: &ChunkId) -> Result<()> {
        let threads = self.source.workers(self.options.threads);
        #[expect(clippy::disallowed_methods, reason = "many read it, and nobody waits for what is in it")]
        let (batches, queue) = bounded(threads);
        let mut workers = Vec::new();
        for _ in 0..threads {
            workers.push((self.source.reader()?, session.writer()?));
        }
        let reader = self.source.reader()?;
        reader.limit_entries(self.most_entries);
        std::thread::scope(|scope| {
            let started: Vec<_> = (workers.into_iter())
                .map(|(reader, writer)| {
                    let queue = queue.clone();
                    scope.spawn(move || self.store(&reader, writer, &queue))
                })
                .collect();
            drop(queue);
            let mut finder = Finder { copying: self, reader, writer, batch: Batch::default(), batches };
            let found = finder.below(root, 0).and_then(|()| finder.send());
            drop(finder);
            let mut stored = Ok(());
            for worker in started {
                let ended = worker.join().unwrap_or_else(|_| Err(Error::panicked("copy chunks")));
                stored = stored.and(ended);
            }
            // The walk ends early when all workers did, so their error comes first.
            stored.and(found)
        })
    }

    /// Reads and stores what comes; a batch lies in the source about as it was walked.
    fn store(&self, reader: &Reader, mut writer: ChunkWriter, queue: &Receiver<Vec<ChunkRef>>) -> Result<()> {
        while let Ok(batch) = queue.recv() {
            let mut names = Vec::with_capacity(batch.len());
            let mut placed = Vec::with_capacity(batch.len());
            for chunk in &batch {
                placed.push((reader.locate(&chunk.id)?.0, chunk));
            }
            placed.sort_by_key(|(place, _)| *place);
            for (_, chunk) in placed {
                stop_if_asked(self.observer)?;
                let bytes = reader.chunk(ChunkType::Data, &chunk.id)?;
                if bytes.len() as u64 != chunk.len {
                    return Err(Error::damaged(format!("read the chunk {}: not as long as its file says", chunk.id)));
                }
                names.push((chunk.id, writer.put(ChunkType::Data, &bytes)?.id));
                self.progress.bytes.fetch_add(chunk.len, Ordering::Relaxed);
            }
            self.map().add_chunks(&names)?;
        }
        writer.flush()
    }
}

impl Finder<'_, '_> {
    /// Looks at the directory with this root page and all below it.
    fn below(&mut self, root: &ChunkId, depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::damaged(format!("read the directory {root}: it is nested too deeply")));
        }
        if self.copying.map().directory(root)?.is_some() {
            return Ok(());
        }
        let copying = self.copying;
        // Somebody may name one directory as often as there is room for names.
        let (mut directories, mut named) = (Vec::new(), Seen::default());
        let mut missing = Vec::new();
        for node in self.reader.nodes(root)? {
            stop_if_asked(copying.observer)?;
            let node = node?;
            directories.extend(node.subtree.filter(|subtree| named.add(subtree.prefix())));
            if node.kind != NodeKind::File {
                continue;
            }
            copying.progress.at(&node.name);
            copying.progress.files.fetch_add(1, Ordering::Relaxed);
            for chunk in self.reader.contents(&node.content)? {
                let chunk = chunk?;
                let name = copying.map().chunk(&chunk.id)?;
                let is_there = match name {
                    Some(name) => self.writer.is_stored(&name)?,
                    None => false,
                };
                if !is_there {
                    if let Some(needed) = &copying.needed {
                        let pack = self.reader.locate(&chunk.id)?.0.pack;
                        needed.lock().expect("no code panics while it holds this lock").insert(pack);
                    }
                    missing.push(chunk);
                }
                if missing.len() >= BATCH_CHUNKS {
                    Self::take(&mut self.batch, &self.batches, copying, &mut missing)?;
                }
            }
        }
        Self::take(&mut self.batch, &self.batches, copying, &mut missing)?;
        drop(named);
        directories.iter().try_for_each(|root| self.below(root, depth + 1))
    }

    /// Puts chunks into the batch, and sends it when it is full.
    fn take(
        batch: &mut Batch,
        batches: &Sender<Vec<ChunkRef>>,
        copying: &Copying<'_>,
        missing: &mut Vec<ChunkRef>,
    ) -> Result<()> {
        if copying.options.dry_run {
            let bytes = missing.drain(..).map(|chunk| chunk.len).sum();
            copying.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        for chunk in missing.drain(..) {
            batch.bytes += chunk.len;
            batch.chunks.push(chunk);
            if batch.chunks.len() >= BATCH_CHUNKS || batch.bytes >= BATCH_BYTES {
                send(batch, batches)?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        send(&mut self.batch, &self.batches)
    }
}

fn send(batch: &mut Batch, batches: &Sender<Vec<ChunkRef>>) -> Result<()> {
    let Batch { chunks, .. } = std::mem::take(batch);
    if chunks.is_empty() {
        return Ok(());
    }
    batches.send(chunks).map_err(|_| Error::failed("copy chunks: all threads have ended"))
}
