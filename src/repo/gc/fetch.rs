//! Fetching what is needed of packs that are written anew, some requests ahead of whoever takes it.

use super::mark::Marker;
use crate::error::{Error, Result};
use crate::format::log::PackRef;
use crate::format::pack::{BlockEntry, MAX_PACK, SealEntry, Toc};
use crate::repo::Repository;
use crate::repo::log::together;
use crate::store::Key;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

/// Bytes between two needed blocks that are fetched in vain so that both come with one request.
const LARGEST_GAP: u64 = 128 << 10;
/// Bytes that are fetched with one request, at most, if no block is longer.
const LONGEST_SPAN: u64 = 4 << 20;
/// Requests under way at once, where that is worth it.
const SPANS: usize = 8;
/// Bytes that are fetched ahead, but for the last request.
const AHEAD: u64 = 32 << 20;

/// A needed block: where it lies, and the chunks in it that are needed, by their offsets.
pub(super) struct Wanted {
    pub(super) entry: BlockEntry,
    offset: u64,
    pub(super) needed: HashSet<u32>,
}

impl Wanted {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.entry.row.stored_len())
    }
}

/// Blocks that are fetched with one request.
struct Span(Vec<Wanted>);

impl Span {
    /// Where it begins and ends in its pack.
    fn ends(&self) -> (u64, u64) {
        (self.0.first().map_or(0, |block| block.offset), self.0.last().map_or(0, Wanted::end))
    }
}

/// One pack that is read for its needed chunks.
pub(super) struct Source<'a> {
    pub(super) repository: &'a Repository,
    pack: PackRef,
    pub(super) seals: Vec<SealEntry>,
    toc: Toc,
    /// The keys at hand open its blocks. Of others only the hash of the whole pack says what they are.
    pub(super) is_readable: bool,
}

/// What comes of a pack, one after the other.
pub(super) enum Step<'a> {
    /// Blocks that lie together.
    Blocks(Arc<Source<'a>>, Blocks),
    /// Something of it cannot be read.
    Failed(Error),
    /// It was all.
    End,
}

/// Blocks, and the bytes of the pack in which they lie.
pub(super) struct Blocks {
    span: Span,
    /// Where the bytes begin in the pack.
    from: u64,
    bytes: Vec<u8>,
}

impl Blocks {
    /// Each block as it is stored.
    pub(super) fn each(&self, mut take: impl FnMut(&Wanted, &[u8]) -> Result<()>) -> Result<()> {
        self.span.0.iter().try_for_each(|wanted| {
            let place = |offset: u64| usize::try_from(offset - self.from).unwrap_or(usize::MAX);
            let bytes = self.bytes.get(place(wanted.offset)..place(wanted.end()));
            take(wanted, bytes.ok_or_else(|| Error::damaged("read a block: its pack is shorter than it says"))?)
        })
    }
}

impl<'a> Source<'a> {
    fn open(repository: &'a Repository, pack: PackRef, toc: Contents) -> Result<Self> {
        let (seals, toc) = toc?;
        let is_readable = seals.iter().all(|seal| repository.keys().open_session(seal).is_ok());
        Ok(Self { repository, pack, seals, toc, is_readable })
    }

    /// The needed chunks, given by block and offset, in the requests with which their blocks are fetched.
    fn spans(&self, live: &[(u32, u32)]) -> VecDeque<Span> {
        let mut needed: HashMap<u32, HashSet<u32>> = HashMap::new();
        for (block, start) in live {
            needed.entry(*block).or_default().insert(*start);
        }
        // Where a request costs nothing, what is fetched in vain does.
        let joined = self.repository.width() > 1 && self.is_readable;
        let (mut offset, mut spans) = (u64::from(self.toc.first_block), VecDeque::<Span>::new());
        for (number, entry) in (0u32..).zip(&self.toc.blocks) {
            if let Some(needed) = needed.remove(&number) {
                let wanted = Wanted { entry: entry.clone(), offset, needed };
                let joins = |span: &Span| {
                    let (first, last) = span.ends();
                    let near = joined && wanted.offset - last <= LARGEST_GAP && wanted.end() - first <= LONGEST_SPAN;
                    near || !self.is_readable
                };
                match spans.back_mut().filter(|span| joins(span)) {
                    Some(span) => span.0.push(wanted),
                    None => spans.push_back(Span(vec![wanted])),
                }
            }
            offset += u64::from(entry.row.stored_len());
        }
        spans
    }

    /// Bytes that are fetched for the span.
    fn cost(&self, span: &Span) -> u64 {
        let (first, end) = span.ends();
        if self.is_readable { end - first } else { self.pack.size }
    }

    fn fetch(self: Arc<Self>, span: Span) -> Step<'a> {
        match self.bytes(&span) {
            Ok((from, bytes)) => Step::Blocks(self, Blocks { span, from, bytes }),
            Err(error) => Step::Failed(error),
        }
    }

    /// Bytes in which the span lies, and where they begin.
    fn bytes(&self, span: &Span) -> Result<(u64, Vec<u8>)> {
        let key = Key::pack(&self.pack.id);
        if self.is_readable {
            let (first, end) = span.ends();
            let mut bytes = vec![0; usize::try_from(end - first).expect("at most a pack")];
            return self.repository.store().read_at(&key, first, &mut bytes).map(|()| (first, bytes));
        }
        let bytes = self.repository.store().get(&key, MAX_PACK)?;
        if *blake3::hash(&bytes).as_bytes() != self.pack.id.0 {
            return Err(Error::damaged(format!("read the pack {}: its bytes are not what its name says", self.pack.id)));
        }
        Ok((0, bytes))
    }
}

type Contents = Result<(Vec<SealEntry>, Toc)>;

/// What is to be fetched, in order; packs are opened as their turn comes.
struct Plan<'a> {
    repository: &'a Repository,
    marker: &'a Marker,
    packs: &'a [(u32, PackRef)],
    at: usize,
    tocs: VecDeque<Contents>,
    open: Option<(Arc<Source<'a>>, VecDeque<Span>)>,
}

enum Wish<'a> {
    Span(Arc<Source<'a>>, Span),
    Told(Step<'a>),
}

impl<'a> Plan<'a> {
    /// The next thing, and the number of the pack that it is about; a pack is begun if `goes_on`.
    fn next(&mut self, goes_on: &mut dyn FnMut() -> Result<bool>) -> Result<Option<(usize, Wish<'a>)>> {
        if let Some((source, mut spans)) = self.open.take() {
            let at = self.at - 1;
            let Some(span) = spans.pop_front() else { return Ok(Some((at, Wish::Told(Step::End)))) };
            self.open = Some((source.clone(), spans));
            return Ok(Some((at, Wish::Span(source, span))));
        }
        let rest = &self.packs[self.at..];
        let Some((number, pack)) = rest.first() else { return Ok(None) };
        if !goes_on()? {
            self.packs = &self.packs[..self.at];
            return Ok(None);
        }
        if self.tocs.is_empty() {
            let some = &rest[..together(&rest[..rest.len().min(self.repository.width())], |(_, pack)| pack)];
            self.tocs = self.repository.side_by_side_or_mended(some, |(_, pack)| self.repository.load_toc(pack)).into();
        }
        let toc = self.tocs.pop_front().unwrap_or_else(|| self.repository.load_toc(pack));
        let live = self.marker.marks.live(*number)?;
        self.at += 1;
        Ok(Some(match Source::open(self.repository, *pack, toc) {
            Ok(source) => {
                let spans = source.spans(&live);
                self.open = Some((Arc::new(source), spans));
                return self.next(goes_on);
            }
            Err(error) => (self.at - 1, Wish::Told(Step::Failed(error))),
        }))
    }
}

enum Begun<'scope, 'a> {
    Asked(ScopedJoinHandle<'scope, Step<'a>>),
    Told(Step<'a>),
}

impl Repository {
    /// Hands what is needed of these packs to `take`, with their places in `packs`, in their order, and fetches the next blocks
    /// meanwhile. A pack is begun only if `goes_on`.
    pub(super) fn each_needed<'a>(
        &'a self,
        (marker, packs): (&'a Marker, &'a [(u32, PackRef)]),
        goes_on: &mut dyn FnMut() -> Result<bool>,
        take: &mut dyn FnMut(usize, Step<'a>) -> Result<()>,
    ) -> Result<()> {
        // In a simulation one after the other: who is read first must not hang on who runs first.
        let most = if self.keys().surroundings.is_simulated() { 1 } else { self.width().min(SPANS) };
        let mut plan = Plan { repository: self, marker, packs, at: 0, tocs: VecDeque::new(), open: None };
        std::thread::scope(|scope| {
            let (mut begun, mut ahead) = (VecDeque::new(), 0);
            loop {
                while begun.len() < most
                    && ahead < AHEAD
                    && let Some((at, wish)) = plan.next(goes_on)?
                {
                    let cost = if let Wish::Span(source, span) = &wish { source.cost(span) } else { 0 };
                    ahead += cost;
                    let now = match wish {
                        Wish::Span(source, span) if most > 1 => Begun::Asked(scope.spawn(move || source.fetch(span))),
                        Wish::Span(source, span) => Begun::Told(source.fetch(span)),
                        Wish::Told(step) => Begun::Told(step),
                    };
                    begun.push_back((at, cost, now));
                }
                let Some((at, cost, now)) = begun.pop_front() else { return Ok(()) };
                let failed = |_| Step::Failed(Error::panicked("read a pack"));
                let step = match now {
                    Begun::Told(step) => step,
                    Begun::Asked(thread) => thread.join().unwrap_or_else(failed),
                };
                ahead -= cost;
                take(at, step)?;
            }
        })
    }
}
