//! Windows of a restore: the pieces of many files, put in the order in which their blocks lie, and what can be ended only
//! once they are written.

use super::execute::{Job, Piece, Workers};
use crate::error::{Error, Result};
use crate::format::tree::Node;
use crate::repo::BlockPlace;
use crate::source::files::{TargetDir, most_open_files};

/// Pieces in a window. The first one is small, so that the workers have something to do soon, and each is twice as large
/// as the one before until they have this size.
const WINDOW_PIECES: usize = 32 << 10;
const FIRST_WINDOW_PIECES: usize = 2 << 10;
/// Directories in a window, if there are descriptors for them: each holds one, and up to four windows are on their way.
/// A block is opened once for each window that wants some of it; after many increments most windows do.
const WINDOW_DIRECTORIES: usize = 4096;
/// The part of the descriptors that the directories of one window may take, and the files of which a part waits.
const DESCRIPTORS_SHARE: usize = 8;
/// Memory that the nodes of a window may take.
const WINDOW_BYTES: usize = 32 << 20;
/// In windows of fewer pieces nothing waits for the next one: the workers have nothing else to do.
const PATIENT_PIECES: usize = 4 * FIRST_WINDOW_PIECES;

/// A directory that waits for its metadata, or a name that waits for the file to which it is a link, with its path.
pub(super) type Waiting = (TargetDir, Node, Vec<u8>);

/// What can be ended because all before it is written, in the order in which it came.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) links: Vec<Waiting>,
    pub(super) directories: Vec<Waiting>,
}

/// The window that is being planned, and what is left to do for those before it.
pub(super) struct Window<'a> {
    workers: &'a Workers<'a>,
    pieces: Vec<(BlockPlace, Piece)>,
    /// What the nodes take of memory.
    bytes: usize,
    /// Jobs of the window before that are not done yet, or that nobody has asked about.
    in_flight: usize,
    most_pieces: usize,
    most_directories: usize,
    /// Pieces that may wait for the next window.
    most_waiting: usize,
    /// A block of which so many bytes are wanted does not wait for more.
    enough: u64,
    /// Of the window that is planned, of those before it of which pieces wait, and of those that are being written.
    ending: [Ended; 3],
}

impl<'a> Window<'a> {
    /// An empty window; blocks have about `block` bytes.
    pub(super) fn new(workers: &'a Workers<'a>, block: u32) -> Self {
        let share = most_open_files() / DESCRIPTORS_SHARE;
        Self {
            workers,
            pieces: Vec::new(),
            bytes: 0,
            in_flight: 0,
            most_pieces: FIRST_WINDOW_PIECES,
            most_directories: share.clamp(64, WINDOW_DIRECTORIES),
            most_waiting: share.min(WINDOW_PIECES / 2),
            enough: u64::from(block / 2),
            ending: Default::default(),
        }
    }

    /// Adds a piece of a file.
    pub(super) fn add(&mut self, place: BlockPlace, piece: Piece) {
        self.pieces.push((place, piece));
    }

    /// Notes that a node with its path is kept until the window is done.
    pub(super) fn hold(&mut self, node: &Node, path: &[u8]) {
        self.bytes += node.footprint() + path.len();
    }

    /// Adds a name of a file that has another one.
    pub(super) fn link(&mut self, link: Waiting) {
        self.hold(&link.1, &link.2);
        self.ending[0].links.push(link);
    }

    /// Adds a directory of which everything is planned.
    pub(super) fn leave(&mut self, directory: Waiting) {
        self.hold(&directory.1, &directory.2);
        self.ending[0].directories.push(directory);
    }

    /// True if it holds enough to be handed out.
    pub(super) fn is_full(&self) -> bool {
        let directories = self.ending[0].directories.len();
        self.pieces.len() >= self.most_pieces || directories >= self.most_directories || self.bytes >= WINDOW_BYTES
    }

    /// True if it can take no more, not even of the same file. Cut in the middle of a file, blocks of which both windows
    /// want some are fetched twice.
    pub(super) fn is_overfull(&self) -> bool {
        self.pieces.len() >= WINDOW_PIECES
    }

    /// Hands the window out, after the one before is done, and begins the next; returns what can be ended. After the
    /// `last` one, an empty one is handed out, when that one is done.
    pub(super) fn turn(&mut self, last: bool) -> Result<Ended> {
        let many = self.pieces.len() >= self.most_pieces;
        let patient = many && !last && self.most_pieces >= PATIENT_PIECES && self.bytes < WINDOW_BYTES / 2;
        if many {
            self.most_pieces = (self.most_pieces * 2).min(WINDOW_PIECES);
        }
        let jobs = self.jobs(patient);
        for _ in 0..std::mem::take(&mut self.in_flight) {
            self.workers.done.recv().map_err(|_| Error::failed("restore: the worker threads have ended"))?;
        }
        self.hand_out(jobs)?;
        self.bytes = 0;
        let [planned, before, written] = std::mem::take(&mut self.ending);
        self.ending = match self.pieces.is_empty() {
            // With everything of it being written, nothing of a window waits for the next one.
            true => [Ended::default(), Ended::default(), before.and(planned)],
            false => [Ended::default(), planned, before],
        };
        Ok(written)
    }

    /// What is to be done now. With `patient`, a block of which little is wanted waits for the next window, once: after
    /// many increments, what one directory wants lies in many blocks, and the next directories want more of them.
    fn jobs(&mut self, patient: bool) -> Vec<Job> {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.sort_by_key(|(place, piece)| (*place, piece.start));
        let mut jobs: Vec<Job> = Vec::new();
        for (place, piece) in pieces {
            match jobs.last_mut() {
                Some(job) if job.place == place => job.pieces.push(piece),
                _ => jobs.push(Job { place, pieces: vec![piece] }),
            }
        }
        if !patient {
            return jobs;
        }
        let mut now = Vec::new();
        for job in jobs {
            let wanted: u64 = job.pieces.iter().map(|piece| u64::from(piece.len)).sum();
            let due = wanted >= self.enough || job.pieces.iter().any(|piece| piece.has_waited);
            if due || self.pieces.len() + job.pieces.len() > self.most_waiting {
                now.push(job);
            } else {
                self.pieces.extend(job.pieces.into_iter().map(|piece| (job.place, Piece { has_waited: true, ..piece })));
            }
        }
        now
    }

    fn hand_out(&mut self, jobs: Vec<Job>) -> Result<()> {
        self.in_flight = jobs.len();
        // A little is fetched by all of them at once, and much in large pieces.
        let most = self.workers.batch.min(jobs.len().div_ceil(self.workers.threads.max(1)));
        let mut batches: Vec<Vec<Job>> = Vec::new();
        for job in jobs {
            match batches.last_mut() {
                Some(batch) if batch.len() < most && batch[0].place.pack == job.place.pack => batch.push(job),
                _ => batches.push(vec![job]),
            }
        }
        for batch in batches {
            self.workers.jobs.send(batch).map_err(|_| Error::failed("restore: the worker threads have ended"))?;
        }
        Ok(())
    }
}

impl Ended {
    fn and(mut self, after: Self) -> Self {
        self.links.extend(after.links);
        self.directories.extend(after.directories);
        self
    }
}
