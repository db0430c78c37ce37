//! Reads the content of files: small ones whole, large ones in segments that several workers cut at once.
//!
//! Cutting by content is a chain: where a chunk begins depends on where the one before ended. A worker therefore cuts
//! its segment from its own start, which soon falls into step with the true chain, then waits for the true start from
//! the segment before, and cuts again only up to the first point that both have in common.

use super::lists::ListBuilder;
use super::run::{Run, Worker};
use crate::error::{Error, Result};
use crate::format::tree::{ChunkRef, ChunkType, Content, DataMap, Hole};
use crate::ops::on_panic::OnPanic;
use crate::source::files::{SourceFile, Stat};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Files up to this are read at once; larger ones in segments of this length.
pub(super) const SEGMENT: usize = 4 << 20;
/// Times that a file is read again when it changed meanwhile.
const ATTEMPTS: usize = 3;

/// What was read of a file.
pub(super) struct Read {
    pub(super) content: Content,
    pub(super) holes: Vec<Hole>,
    pub(super) size: u64,
    pub(super) stable: bool,
}

/// The data of a sparse file.
struct Extents {
    holes: Vec<Hole>,
    map: DataMap,
}

impl Extents {
    /// Fills `buffer` with data from data offset `at` on; less than that only at the end of the file. A read that ends
    /// short at `expected`, where the file was seen to end, is not asked again whether it does.
    fn read(&self, file: &SourceFile, at: u64, buffer: &mut [u8], expected: usize) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let (offset, run) = self.map.place(at + filled as u64);
            let end = buffer.len().min(filled.saturating_add(usize::try_from(run).unwrap_or(usize::MAX)));
            let count = file.read_once_at(&mut buffer[filled..end], offset)?;
            filled += count;
            if count == 0 || (filled == expected && filled < end) {
                break;
            }
        }
        Ok(filled)
    }
}

fn extents(file: &SourceFile, stat: &Stat) -> Result<Extents> {
    let holes = if stat.may_have_holes() { file.data_extents(stat.size)? } else { Vec::new() };
    Ok(Extents { map: DataMap::new(&holes), holes })
}

fn data_len(size: u64, holes: &[Hole]) -> u64 {
    size - holes.iter().map(|hole| hole.len).sum::<u64>()
}

/// Reads a file that fits one segment.
pub(super) fn read_small(run: &Run<'_>, worker: &mut Worker, file: &SourceFile, stat: &Stat) -> Result<Read> {
    let mut stat = *stat;
    for attempt in 1.. {
        let extents = extents(file, &stat)?;
        let expected = usize::try_from(data_len(stat.size, &extents.holes)).expect("small files fit memory");
        // One byte more than expected: a read that stops short of it has seen the end.
        worker.buffer.resize(worker.buffer.len().max(expected + 1), 0);
        let mut buffer = std::mem::take(&mut worker.buffer);
        let count = extents.read(file, 0, &mut buffer[..=expected], expected);
        let read = count.and_then(|count| {
            let data = &buffer[..count.min(expected)];
            let now = file.stat()?;
            let stable = count == expected && now.same_content(&stat);
            if !stable && attempt < ATTEMPTS && now.size <= SEGMENT as u64 {
                stat = now;
                return Ok(None);
            }
            worker.counts.bytes_read += data.len() as u64;
            let content = store(run, worker, data)?;
            // A file that shrank keeps what was there; its holes are then no longer where they were.
            let (holes, size) = match stable || count >= expected {
                true => (extents.holes, stat.size),
                false => (Vec::new(), data.len() as u64),
            };
            Ok(Some(Read { content, holes, size, stable }))
        });
        worker.buffer = buffer;
        if let Some(read) = read? {
            return Ok(read);
        }
    }
    unreachable!("the last attempt returns")
}

fn store(run: &Run<'_>, worker: &mut Worker, mut data: &[u8]) -> Result<Content> {
    let mut list = ListBuilder::default();
    while !data.is_empty() {
        let (chunk, rest) = data.split_at(run.chunker.cut(data));
        let reference = worker.writer.put(ChunkType::Data, chunk)?;
        list.push(reference, &mut worker.writer)?;
        data = rest;
    }
    list.finish(&mut worker.writer)
}

/// A large file that several workers read.
pub(super) struct LargeFile {
    file: SourceFile,
    stat: Stat,
    extents: Extents,
    data_len: u64,
    segments: usize,
    segment: usize,
    next: AtomicUsize,
    done: AtomicUsize,
    short: AtomicBool,
    seen: AtomicU64,
    chain: Mutex<Chain>,
    moved: Condvar,
    failure: Mutex<Option<Error>>,
}

struct Chain {
    /// True starts of segments, as far as they are known.
    starts: Vec<u64>,
    /// References of finished segments that wait for one before them.
    waiting: Vec<Option<Vec<ChunkRef>>>,
    listed: usize,
    list: Option<ListBuilder>,
}

impl LargeFile {
    pub(super) fn new(run: &Run<'_>, file: SourceFile, stat: &Stat) -> Result<Self> {
        file.advise_sequential();
        let extents = extents(&file, stat)?;
        let data_len = data_len(stat.size, &extents.holes);
        let segment = SEGMENT.max(run.chunker.maximum() * 4);
        let segments = usize::try_from(data_len.div_ceil(segment as u64)).expect("segments fit memory").max(1);
        Ok(Self {
            file,
            stat: *stat,
            extents,
            data_len,
            segments,
            segment,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            short: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            chain: Mutex::new(Chain {
                starts: vec![0],
                waiting: (0..segments).map(|_| None).collect(),
                listed: 0,
                list: Some(ListBuilder::default()),
            }),
            moved: Condvar::new(),
            failure: Mutex::new(None),
        })
    }

    pub(super) fn segments(&self) -> usize {
        self.segments
    }

    /// Reads segments until none is left. True for the worker that finished the last one.
    pub(super) fn work(&self, run: &Run<'_>, worker: &mut Worker) -> bool {
        let _let_go = OnPanic(|| self.let_go());
        loop {
            run.hand_over(worker);
            // A segment is taken only by a running worker, in order: whoever waits, waits for one that runs, or that lets
            // all others go when it panics.
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.segments {
                return false;
            }
            if let Err(error) = self.read_segment(run, worker, number) {
                self.failure.lock().expect("no code panics while it holds this lock").get_or_insert(error);
                self.true_start(number);
                self.pass_on(number, self.data_len);
            }
            if self.done.fetch_add(1, Ordering::AcqRel) + 1 == self.segments {
                return true;
            }
        }
    }

    fn failed(&self) -> bool {
        self.failure.lock().expect("no code panics while it holds this lock").is_some()
    }

    fn read_segment(&self, run: &Run<'_>, worker: &mut Worker, number: usize) -> Result<()> {
        let start = (number * self.segment) as u64;
        let wanted = usize::try_from((self.data_len - start).min((self.segment + run.chunker.maximum()) as u64));
        let wanted = wanted.expect("a segment fits memory");
        worker.buffer.resize(worker.buffer.len().max(wanted), 0);
        let mut buffer = std::mem::take(&mut worker.buffer);
        let result = self.cut_segment(run, worker, number, &mut buffer[..wanted]);
        worker.buffer = buffer;
        result
    }

    fn cut_segment(&self, run: &Run<'_>, worker: &mut Worker, number: usize, buffer: &mut [u8]) -> Result<()> {
        let start = (number * self.segment) as u64;
        let count = if run.stopped() || self.failed() { 0 } else { self.extents.read(&self.file, start, buffer, usize::MAX)? };
        if count < buffer.len() {
            self.short.store(true, Ordering::Relaxed);
        }
        let data = &buffer[..count];
        let last = number + 1 == self.segments;
        let end = if last { data.len() } else { data.len().min(self.segment) };
        let guess = if number == 0 { Vec::new() } else { cuts(run, data, 0, end, &[]) };
        let chain = self.true_start(number);
        if chain < start {
            // The file ended before this, and has grown again: what is here does not belong behind what was read.
            self.pass_on(number, chain);
            return self.collect(number, Vec::new(), worker);
        }
        let from = usize::try_from(chain - start).unwrap_or(usize::MAX).min(data.len());
        let cuts = cuts(run, data, from, end, &guess);
        self.pass_on(number, start + cuts.last().copied().unwrap_or(from) as u64);
        let mut refs = Vec::with_capacity(cuts.len());
        let mut at = from;
        for cut in cuts {
            refs.push(worker.writer.put(ChunkType::Data, &data[at..cut])?);
            at = cut;
        }
        let read = (at - from) as u64;
        self.seen.fetch_add(read, Ordering::Relaxed);
        worker.counts.bytes_read += read;
        run.progress.bytes.fetch_add(read, Ordering::Relaxed);
        self.collect(number, refs, worker)
    }

    /// Waits for the end of the segment before.
    fn true_start(&self, number: usize) -> u64 {
        let chain = self.moved.wait_while(self.chain(), |chain| chain.starts.len() <= number);
        chain.unwrap_or_else(PoisonError::into_inner).starts[number]
    }

    /// What a worker that panicked with it in hand left behind is good enough: of that backup nothing is committed.
    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets those go who wait for a segment that nobody brings to its end any more.
    fn let_go(&self) {
        self.chain().starts.resize(self.segments + 1, self.data_len);
        self.moved.notify_all();
    }

    fn pass_on(&self, number: usize, end: u64) {
        let mut chain = self.chain();
        if chain.starts.len() == number + 1 {
            chain.starts.push(end);
            self.moved.notify_all();
        }
    }

    /// Lists the references of finished segments as far as they follow each other.
    fn collect(&self, number: usize, refs: Vec<ChunkRef>, worker: &mut Worker) -> Result<()> {
        let mut chain = self.chain();
        chain.waiting[number] = Some(refs);
        let Chain { waiting, listed, list, .. } = &mut *chain;
        let list = list.as_mut().expect("the list is taken when all segments are done");
        while let Some(refs) = waiting.get_mut(*listed).and_then(Option::take) {
            for reference in refs {
                list.push(reference, &mut worker.writer)?;
            }
            *listed += 1;
        }
        Ok(())
    }

    /// The content, once all segments are done.
    pub(super) fn finish(&self, worker: &mut Worker) -> Result<Read> {
        if let Some(error) = self.failure.lock().expect("no code panics while it holds this lock").take() {
            return Err(error);
        }
        let list = self.chain().list.take();
        let content = list.expect("a file is finished once").finish(&mut worker.writer)?;
        let short = self.short.load(Ordering::Relaxed);
        let stable = !short && self.file.stat()?.same_content(&self.stat);
        let (holes, size) = match short {
            true => (Vec::new(), self.seen.load(Ordering::Relaxed)),
            false => (self.extents.holes.clone(), self.stat.size),
        };
        Ok(Read { content, holes, size, stable })
    }

    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }
}

/// Ends of the chunks from `from` on, up to the first at or behind `end`. Where a cut is also in `known`, cuts of the
/// same data from another start, the rest is taken from there: from a common point on both are the same.
fn cuts(run: &Run<'_>, data: &[u8], from: usize, end: usize, known: &[usize]) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut at = from;
    while at < end {
        at += run.chunker.cut(&data[at..]);
        cuts.push(at);
        if let Ok(position) = known.binary_search(&at) {
            cuts.extend_from_slice(&known[position + 1..]);
            break;
        }
    }
    cuts
}
