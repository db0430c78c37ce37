//! Carries a window of a restore out: every block is read and opened once, and its chunks go to their files.

use super::report::Tally;
use crate::error::{Error, Result};
use crate::format::tree::{ChunkType, DataMap, Node};
use crate::id::ChunkId;
use crate::ops::on_panic::OnPanic;
use crate::repo::{BlockPlace, Reader, Repository};
use crate::source::files::{TargetDir, TargetFile};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::ops::{AddAssign, SubAssign};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ScopedJoinHandle;

/// Blocks of one pack that a worker gets at once where requests cost time, so that it can fetch them together.
const BATCH: usize = 8;

/// How a file gets its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A new file takes the name once it is whole.
    Replace,
    /// Differing pieces are written into the file that is there.
    Patch,
    /// The file that is there has the content; it only gets its metadata.
    Keep,
}

/// A file being restored; pieces of it may be in several blocks and windows.
pub(super) struct File {
    pub(super) dir: TargetDir,
    pub(super) node: Node,
    pub(super) path: Vec<u8>,
    pub(super) way: Way,
    /// Pieces that are not written yet, and one more while there may come others.
    pub(super) left: AtomicU64,
    map: DataMap,
    target: Mutex<Option<Arc<TargetFile>>>,
    failed: AtomicBool,
}

impl File {
    pub(super) fn new(dir: TargetDir, node: Node, path: Vec<u8>, way: Way) -> Self {
        let map = DataMap::new(&node.holes);
        let (left, failed) = (AtomicU64::new(1), AtomicBool::new(false));
        Self { dir, node, path, way, left, map, target: Mutex::new(None), failed }
    }

    /// What it takes of memory.
    pub(super) fn footprint(&self) -> u32 {
        u32::try_from(self.node.footprint() + self.path.len()).unwrap_or(u32::MAX)
    }

    fn open(&self) -> Result<Arc<TargetFile>> {
        let mut target = self.target.lock().expect("no code panics while it holds this lock");
        if let Some(target) = &*target {
            return Ok(target.clone());
        }
        let opened = match self.way {
            Way::Replace => self.dir.create_file(&TargetDir::temporary_name())?,
            Way::Patch | Way::Keep => self.dir.open_file(&self.node.name)?,
        };
        if self.node.flags != 0 {
            opened.prepare(&self.node);
        }
        let opened = Arc::new(opened);
        *target = Some(opened.clone());
        Ok(opened)
    }

    fn fail(&self, tally: &Tally<'_>, error: &Error) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            tally.fail(&self.path, error);
        }
    }

    fn write(&self, tally: &Tally<'_>, offset: u64, bytes: &[u8]) {
        let written = self.open().and_then(|target| target.write_at(offset, bytes));
        match written {
            Ok(()) => tally.wrote(bytes.len() as u64),
            Err(error) => self.fail(tally, &error),
        }
    }

    /// One piece less; whoever takes the last one gives the file its metadata and name.
    pub(super) fn release(&self, tally: &Tally<'_>) {
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let failed = self.failed.load(Ordering::Relaxed);
        let finished = if failed { Ok(Vec::new()) } else { self.finish() };
        // Dropped unfinished, a new file is removed: nothing that is not whole takes the name.
        self.target.lock().expect("no code panics while it holds this lock").take();
        match finished {
            Ok(problems) if !failed => {
                tally.warn(&self.path, &problems);
                match self.way {
                    Way::Keep => tally.count(|report| report.unchanged += 1),
                    Way::Replace | Way::Patch => tally.file(self.node.size),
                }
            }
            Ok(_) => {}
            Err(error) => self.fail(tally, &error),
        }
    }

    fn finish(&self) -> Result<Vec<Error>> {
        let target = self.open()?;
        let ends_in_hole = self.node.holes.last().is_some_and(|hole| hole.offset + hole.len == self.node.size);
        if self.way == Way::Patch {
            for hole in &self.node.holes {
                target.punch(hole.offset, hole.len)?;
            }
        }
        if ends_in_hole || self.way == Way::Patch {
            target.set_len(self.node.size)?;
        }
        self.target.lock().expect("no code panics while it holds this lock").take();
        let target = Arc::into_inner(target).ok_or_else(|| Error::failed("finish a file: it is still being written"))?;
        target.finish(&self.node, &self.node.name)
    }
}

/// A piece of a file that comes from a block.
pub(super) struct Piece {
    pub(super) file: Arc<File>,
    pub(super) id: ChunkId,
    /// Offset in the raw block.
    pub(super) start: u32,
    pub(super) len: u32,
    /// Offset in the data of the file, its holes left out.
    pub(super) at: u64,
    /// Memory that is kept because of it, for the first piece of a file.
    pub(super) held: u32,
    /// It is the only one of its file.
    pub(super) is_whole: bool,
    /// It was left for the next window once.
    pub(super) has_waited: bool,
}

impl Piece {
    pub(super) fn load(&self) -> Load {
        Load { pieces: 1, split: usize::from(!self.is_whole), held: self.held as usize }
    }
}

/// All that is wanted of one block.
pub(super) struct Job {
    pub(super) place: BlockPlace,
    pub(super) pieces: Vec<Piece>,
    /// Number of the window in which it was handed out.
    pub(super) window: u64,
    pub(super) load: Load,
}

/// What pieces are in all.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Load {
    pub(super) pieces: usize,
    /// Those of files of several pieces.
    pub(super) split: usize,
    /// Memory that is kept because of them.
    pub(super) held: usize,
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.pieces += other.pieces;
        self.split += other.split;
        self.held += other.held;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        self.pieces -= other.pieces;
        self.split -= other.split;
        self.held -= other.held;
    }
}

/// Worker threads that carry jobs out.
pub(super) struct Workers<'a> {
    /// Jobs of one pack, in the order in which its blocks lie.
    pub(super) jobs: Sender<Vec<Job>>,
    /// Most jobs that are worth being sent together.
    pub(super) batch: usize,
    pub(super) threads: usize,
    /// Jobs that are done, well or not. They are let go by the thread that made them: memory that goes back to where another
    /// thread takes some makes both of them wait. An error says that a worker is gone, with what it had.
    pub(super) done: Receiver<Result<Job>>,
    pub(super) tally: &'a Tally<'a>,
}

/// Runs `plan` with workers at its service.
pub(super) fn with_workers<T>(
    repository: &Repository,
    threads: usize,
    tally: &Tally<'_>,
    plan: impl FnOnce(&Workers<'_>) -> Result<T>,
) -> Result<T> {
    // A window of jobs is there at most; whoever hands it out goes on to plan the next one.
    let (jobs, queue) = unbounded::<Vec<Job>>();
    let (finished, done) = unbounded::<Result<Job>>();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                let (queue, finished) = (queue.clone(), finished.clone());
                scope.spawn(move || {
                    let _told = OnPanic(|| drop(finished.send(Err(panicked()))));
                    let reader = repository.reader();
                    for jobs in queue {
                        match &reader {
                            Ok(reader) => carry_out_all(reader, &jobs, tally),
                            Err(error) => jobs.iter().for_each(|job| lose(job, tally, error)),
                        }
                        if jobs.into_iter().any(|job| finished.send(Ok(job)).is_err()) {
                            break;
                        }
                    }
                })
            })
            .collect();
        drop((queue, finished));
        let batch = if repository.width() > 1 { BATCH } else { 1 };
        let result = plan(&Workers { jobs, batch, threads, done, tally });
        let ended: Vec<_> = handles.into_iter().map(ScopedJoinHandle::join).collect();
        if ended.iter().all(std::result::Result::is_ok) { result } else { result.and(Err(panicked())) }
    })
}

/// The error of a worker that is gone.
pub(super) fn panicked() -> Error {
    Error::panicked("restore files")
}

fn lose(job: &Job, tally: &Tally<'_>, error: &Error) {
    for piece in &job.pieces {
        piece.file.fail(tally, error);
        piece.file.release(tally);
    }
}

fn carry_out_all(reader: &Reader, jobs: &[Job], tally: &Tally<'_>) {
    let places: Vec<BlockPlace> = jobs.iter().map(|job| job.place).collect();
    for (position, job) in jobs.iter().enumerate() {
        if jobs.len() > 1 && !tally.stopped() {
            reader.fetch_ahead(&places[position..]);
        }
        carry_out(reader, job, tally);
    }
}

fn carry_out(reader: &Reader, job: &Job, tally: &Tally<'_>) {
    if tally.stopped() {
        let stopped = Error::new(crate::error::ErrorKind::Interrupted, "stopped on request");
        job.pieces.iter().for_each(|piece| piece.file.failed.store(true, Ordering::Relaxed));
        return lose(job, tally, &stopped);
    }
    let mut elsewhere = Vec::new();
    let wanted = job.pieces.iter().map(|piece| piece.start as usize + piece.len as usize).max().unwrap_or(0);
    let opened = reader.with_block(job.place, wanted, |raw| {
        for piece in &job.pieces {
            let bytes = raw.get(piece.start as usize..piece.start as usize + piece.len as usize);
            let bytes = bytes.ok_or_else(|| Error::damaged("read a block: it is shorter than the index says"));
            match bytes.and_then(|bytes| reader.verify(ChunkType::Data, &piece.id, bytes).map(|()| bytes)) {
                Ok(bytes) => {
                    write_piece(piece, bytes, tally);
                    // At once: a block may hold pieces of more files than may be open.
                    piece.file.release(tally);
                }
                Err(error) => elsewhere.push((piece, error)),
            }
        }
        Ok(())
    });
    if let Err(error) = opened {
        let again = || Error::new(error.kind(), error.to_string());
        elsewhere = job.pieces.iter().map(|piece| (piece, again())).collect();
    }
    for (piece, error) in elsewhere {
        match reader.chunk_elsewhere(ChunkType::Data, &piece.id, job.place, error) {
            Ok(bytes) if bytes.len() == piece.len as usize => write_piece(piece, &bytes, tally),
            Ok(_) => piece.file.fail(tally, &Error::damaged("read a chunk: its length is another one")),
            Err(error) => piece.file.fail(tally, &error),
        }
        piece.file.release(tally);
    }
}

/// Writes a piece around the holes of its file.
fn write_piece(piece: &Piece, mut bytes: &[u8], tally: &Tally<'_>) {
    let mut at = piece.at;
    while !bytes.is_empty() {
        let (offset, run) = piece.file.map.place(at);
        let (now, rest) = bytes.split_at(usize::try_from(run).unwrap_or(usize::MAX).min(bytes.len()));
        piece.file.write(tally, offset, now);
        at += now.len() as u64;
        bytes = rest;
    }
}
