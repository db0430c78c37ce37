//! Windows of a restore: the pieces of many files, put in the order in which their blocks lie, and what can be ended only
//! once they are written.

use super::execute::{Job, Load, Piece, Workers, panicked};
use crate::error::Result;
use crate::format::tree::Node;
use crate::repo::{BlockPlace, Reader};
use crate::source::files::{TargetDir, most_open_files};
use std::collections::{BTreeMap, HashMap};

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
/// Pieces that may be under way before more is planned, and jobs of each worker that may be in any case.
const MOST_UNDER_WAY: usize = 8 << 10;
const JOBS_UNDER_WAY: usize = 2;
/// Fewer pieces than these, of a block that is small, are not worth a job of their own.
const LEAST_PIECES: usize = 16;
/// After so many pieces it is looked whether a worker has nothing to do: then it gets the blocks of which most is wanted so
/// far, if that is an eighth of one or more, and if so many pieces are there that a window might have ended.
const FEED_AFTER: u64 = 128;
const LEAST_FED: u64 = 4;
/// Blocks of which it is known how much was handed out already.
const MOST_GIVEN: usize = 16 << 10;

/// A directory that waits for its metadata, or a name that waits for the file to which it is a link, with its path.
pub(super) type Waiting = (TargetDir, Node, Vec<u8>);

/// What can be ended because all before it is written, in the order in which it came.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) links: Vec<Waiting>,
    pub(super) directories: Vec<Waiting>,
}

/// What is wanted of a block so far.
#[derive(Default)]
struct Wanted {
    pieces: Vec<Piece>,
    load: Load,
    bytes: u64,
    /// With so many bytes nothing more is to be expected.
    most: u64,
}

/// Jobs that were handed out and are not done yet.
#[derive(Default)]
struct UnderWay {
    jobs: usize,
    load: Load,
}

/// The window that is being planned, and what is left to do for those before it.
pub(super) struct Window<'a> {
    workers: &'a Workers<'a>,
    number: u64,
    /// Where requests cost no time, a block goes out as soon as all of it is wanted.
    streams: bool,
    wanted: BTreeMap<BlockPlace, Wanted>,
    /// All of what is wanted, and how many pieces were ever added.
    load: Load,
    added: u64,
    /// Bytes of blocks that were handed out, while others of the same block may still be wanted.
    given: HashMap<BlockPlace, u64>,
    /// What waits to be ended takes of memory.
    bytes: usize,
    /// What was handed out and is not done yet: of this window, and of the one before.
    under_way: [UnderWay; 2],
    most_pieces: usize,
    most_directories: usize,
    /// Most directories wait for something, and there are as many as may.
    is_crowded: bool,
    /// Pieces of files of several that may wait for the next window: such files may be open.
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
        let streams = workers.batch == 1;
        Self {
            workers,
            number: 0,
            streams,
            wanted: BTreeMap::new(),
            load: Load::default(),
            added: 0,
            given: HashMap::new(),
            bytes: 0,
            under_way: Default::default(),
            most_pieces: if streams { WINDOW_PIECES } else { FIRST_WINDOW_PIECES },
            most_directories: share.clamp(64, WINDOW_DIRECTORIES),
            most_waiting: share.min(WINDOW_PIECES / 2),
            enough: u64::from(block / 2),
            is_crowded: false,
            ending: Default::default(),
        }
    }

    /// Adds a piece of a file. A block of which everything is wanted goes to the workers.
    pub(super) fn add(&mut self, reader: &Reader, place: BlockPlace, piece: Piece) -> Result<()> {
        let given = &self.given;
        let wanted = self.wanted.entry(place).or_insert_with(|| {
            // What cannot be looked up now is reported by whoever reads the block.
            let length = reader.block_length(place).unwrap_or(u64::MAX);
            Wanted { most: length.saturating_sub(given.get(&place).copied().unwrap_or(0)), ..Wanted::default() }
        });
        let load = piece.load();
        wanted.load += load;
        self.load += load;
        wanted.bytes += u64::from(piece.len);
        wanted.pieces.push(piece);
        let is_worth = wanted.load.pieces >= LEAST_PIECES || wanted.bytes >= self.enough;
        let goes = self.streams && wanted.bytes >= wanted.most && is_worth;
        self.added += 1;
        if goes {
            self.stream(place)?;
        }
        if self.added.is_multiple_of(FEED_AFTER) {
            self.drain()?;
            self.feed()?;
        }
        Ok(())
    }

    /// Hands out what is wanted most while workers have nothing to do, though more of the same blocks may be wanted later.
    fn feed(&mut self) -> Result<()> {
        while self.streams && self.is_idle() && self.load.pieces >= FIRST_WINDOW_PIECES {
            let worth = self.wanted.iter().filter(|(_, wanted)| wanted.bytes >= self.enough / LEAST_FED);
            let Some(place) = worth.max_by_key(|(_, wanted)| wanted.bytes).map(|(place, _)| *place) else { break };
            self.stream(place)?;
        }
        Ok(())
    }

    /// Hands one block out, when there is room for it.
    fn stream(&mut self, place: BlockPlace) -> Result<()> {
        let Some(wanted) = self.wanted.remove(&place) else { return Ok(()) };
        self.load -= wanted.load;
        let job = self.job(place, wanted);
        self.hand_out(vec![job])?;
        while self.is_overloaded() {
            self.receive()?;
        }
        Ok(())
    }

    fn job(&mut self, place: BlockPlace, wanted: Wanted) -> Job {
        if wanted.bytes >= wanted.most || self.given.len() >= MOST_GIVEN {
            self.given.remove(&place);
        } else if self.streams {
            *self.given.entry(place).or_default() += wanted.bytes;
        }
        let mut pieces = wanted.pieces;
        pieces.sort_by_key(|piece| piece.start);
        Job { place, pieces, window: self.number, load: wanted.load }
    }

    /// Notes that a node with its path is kept until the window is done.
    fn hold(&mut self, node: &Node, path: &[u8]) {
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

    /// The directories in which nothing is left to be done, if there are so many that the window would have to end.
    pub(super) fn take_done(&mut self) -> Result<Vec<Waiting>> {
        if !self.streams || self.ending[0].directories.len() < self.most_directories {
            return Ok(Vec::new());
        }
        self.drain()?;
        let waiting = &mut self.ending[0].directories;
        let done: Vec<Waiting> = waiting.extract_if(.., |(target, ..)| target.is_last()).collect();
        // Looked for again and again, a few at a time, they would cost more than a window that ends.
        self.is_crowded = done.len() < self.most_directories / 8;
        self.bytes -= done.iter().map(|(_, node, path)| node.footprint() + path.len()).sum::<usize>();
        Ok(done)
    }

    /// True if it holds enough to be handed out.
    pub(super) fn is_full(&self) -> bool {
        let many = self.ending[0].directories.len() >= self.most_directories;
        if many || self.is_crowded || self.bytes + self.load.held >= WINDOW_BYTES {
            return true;
        }
        self.load.pieces >= self.most_pieces || (self.streams && self.load.split >= 4 * self.most_waiting)
    }

    /// True if it can take no more, not even of the same file. Cut in the middle of a file, blocks of which both windows
    /// want some are fetched twice.
    pub(super) fn is_overfull(&self) -> bool {
        self.load.pieces >= WINDOW_PIECES
    }

    /// Hands the window out, after the one before is done, and begins the next; returns what can be ended. After the
    /// `last` one, an empty one is handed out, when that one is done.
    pub(super) fn turn(&mut self, last: bool) -> Result<Ended> {
        let many = self.load.pieces >= self.most_pieces;
        let busy = self.streams || (many && self.most_pieces >= PATIENT_PIECES);
        let patient = busy && !last && self.bytes + self.load.held < WINDOW_BYTES / 2;
        if many {
            self.most_pieces = (self.most_pieces * 2).min(WINDOW_PIECES);
        }
        let jobs = self.jobs(patient);
        while self.under_way[1].jobs > 0 {
            self.receive()?;
        }
        self.hand_out(jobs)?;
        self.number += 1;
        self.under_way.swap(0, 1);
        (self.bytes, self.is_crowded) = (0, false);
        let [planned, before, written] = std::mem::take(&mut self.ending);
        self.ending = match self.wanted.is_empty() {
            // With everything of it being written, nothing of a window waits for the next one.
            true => [Ended::default(), Ended::default(), before.and(planned)],
            false => [Ended::default(), planned, before],
        };
        Ok(written)
    }

    /// What is to be done now. With `patient`, a block of which little is wanted waits for the next window, once: after
    /// many increments, what one directory wants lies in many blocks, and the next directories want more of them.
    fn jobs(&mut self, patient: bool) -> Vec<Job> {
        self.load = Load::default();
        let mut jobs = Vec::new();
        for (place, mut wanted) in std::mem::take(&mut self.wanted) {
            let due = wanted.bytes >= self.enough || wanted.pieces.iter().any(|piece| piece.has_waited);
            let rest = self.load.pieces + wanted.load.pieces > WINDOW_PIECES / 2
                || self.load.split + wanted.load.split > self.most_waiting;
            if !patient || due || rest {
                jobs.push(self.job(place, wanted));
            } else {
                wanted.pieces.iter_mut().for_each(|piece| piece.has_waited = true);
                self.load += wanted.load;
                self.wanted.insert(place, wanted);
            }
        }
        jobs
    }

    fn hand_out(&mut self, jobs: Vec<Job>) -> Result<()> {
        for job in &jobs {
            self.under_way[0].jobs += 1;
            self.under_way[0].load += job.load;
        }
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
            self.workers.jobs.send(batch).map_err(|_| panicked())?;
        }
        Ok(())
    }

    fn is_overloaded(&self) -> bool {
        let [now, before] = &self.under_way;
        let few = now.jobs + before.jobs <= JOBS_UNDER_WAY * self.workers.threads;
        now.load.held + before.load.held > WINDOW_BYTES || (!few && now.load.pieces + before.load.pieces > MOST_UNDER_WAY)
    }

    /// True if a worker has nothing to do, as far as that was heard of.
    fn is_idle(&self) -> bool {
        self.under_way.iter().map(|under_way| under_way.jobs).sum::<usize>() < self.workers.threads
    }

    fn receive(&mut self) -> Result<()> {
        let done = self.workers.done.recv().map_err(|_| panicked())??;
        self.note(&done);
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        while let Ok(done) = self.workers.done.try_recv() {
            self.note(&done?);
        }
        Ok(())
    }

    fn note(&mut self, done: &Job) {
        let under_way = &mut self.under_way[usize::from(done.window != self.number)];
        under_way.jobs -= 1;
        under_way.load -= done.load;
    }
}

impl Ended {
    fn and(mut self, after: Self) -> Self {
        self.links.extend(after.links);
        self.directories.extend(after.directories);
        self
    }
}
