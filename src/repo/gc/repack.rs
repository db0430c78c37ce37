//! Writing anew what is needed of packs that are going to be deleted.
//!
//! A block of which everything is needed is copied as it is, sealed. Of other blocks, whoever can open them writes the
//! needed chunks into new blocks; others copy them whole. Nothing is copied that was not verified: by its chunks'
//! hashes where the keys allow it, else by the hash of the whole pack.

use super::mark::Marker;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, stop_if_asked};
use crate::format::log::PackRef;
use crate::format::pack::{BlockEntry, MAX_PACK, SealEntry, TOC_TARGET, Toc};
use crate::format::tree::Class;
use crate::repo::block::{Opener, table_digest};
use crate::repo::cache;
use crate::repo::log::together;
use crate::repo::packer::OpenPack;
use crate::repo::{ChunkWriter, Repository, Session};
use crate::store::Key;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Bytes between two needed blocks that are fetched in vain so that both come with one request.
const LARGEST_GAP: u64 = 128 << 10;
/// Bytes that are fetched with one request, at most, if no block is longer.
const LONGEST_SPAN: u64 = 4 << 20;
/// Requests for one pack under way at once, where that is worth it.
const SPANS: usize = 8;

/// Most sessions whose blocks one pack holds.
const MAX_SEALS: usize = 64;

/// A block that goes on as it is.
struct Copied {
    entry: BlockEntry,
    seal: SealEntry,
    bytes: Vec<u8>,
}

/// What a repack did.
#[derive(Default)]
pub(in crate::repo) struct Repacked {
    /// New packs.
    pub(in crate::repo) packs: Vec<PackRef>,
    /// Numbers of the packs that are not needed any more.
    pub(in crate::repo) done: HashSet<u32>,
}

/// A needed block: where it lies, and the chunks in it that are needed, by their offsets.
struct Wanted<'a> {
    entry: &'a BlockEntry,
    offset: u64,
    needed: HashSet<u32>,
}

/// Blocks that are fetched with one request.
type Span<'a> = Vec<Wanted<'a>>;

impl Wanted<'_> {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.entry.row.stored_len())
    }
}

struct Copier<'a> {
    repository: &'a Repository,
    waiting: [Vec<Copied>; 2],
    packs: Vec<PackRef>,
}

impl Copier<'_> {
    fn push(&mut self, copied: Copied) -> Result<()> {
        let slot = usize::from(copied.seal.class == Class::Meta);
        let waiting = &mut self.waiting[slot];
        waiting.push(copied);
        let bytes: usize = waiting.iter().map(|copied| copied.bytes.len()).sum();
        let seals: HashSet<[u8; 32]> = waiting.iter().map(|copied| copied.seal.commit).collect();
        let table: usize = waiting.iter().map(|copied| copied.entry.toc_len()).sum();
        let target = u64::from(self.repository.format().pack_target);
        let full = bytes as u64 >= target || table >= TOC_TARGET || seals.len() >= MAX_SEALS;
        if full { self.write(slot) } else { Ok(()) }
    }

    /// Writes what waits into one pack.
    fn write(&mut self, slot: usize) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting[slot]);
        self.packs.extend(Self::written(self.repository, waiting)?);
        Ok(())
    }

    /// Writes what is left, while `rewrite` does the same.
    fn finish(self, rewrite: Rewrite) -> Result<Vec<PackRef>> {
        let (repository, mut packs) = (self.repository, self.packs);
        let [data, meta] = self.waiting;
        std::thread::scope(|scope| {
            let at_once = repository.width() > 1;
            let write = |waiting| move || Self::written(repository, waiting);
            let (data, meta) = (write(data), write(meta));
            if !at_once {
                packs.extend(data()?);
                packs.extend(meta()?);
                packs.extend(rewrite.finish()?);
                return Ok(());
            }
            // Each waits for answers of its own.
            let threads = [scope.spawn(data), scope.spawn(meta)];
            let rewritten = rewrite.finish();
            for thread in threads {
                let written = thread.join().unwrap_or_else(|_| Err(Error::failed("store a pack: its thread failed")));
                packs.extend(written?);
            }
            packs.extend(rewritten?);
            Ok(())
        })?;
        packs.sort_unstable();
        Ok(packs)
    }

    fn written(repository: &Repository, waiting: Vec<Copied>) -> Result<Option<PackRef>> {
        if waiting.is_empty() {
            return Ok(None);
        }
        let mut seals: Vec<SealEntry> = Vec::new();
        for copied in &waiting {
            if seals.iter().all(|seal| seal.commit != copied.seal.commit) {
                seals.push(copied.seal.clone());
            }
        }
        let (keys, parity) = (repository.keys(), repository.parity()?);
        let mut pack = OpenPack::start(keys, &keys.surroundings, repository.store(), seals.clone(), parity)?;
        for Copied { mut entry, seal, bytes } in waiting {
            let position = seals.iter().position(|known| known.commit == seal.commit).expect("all seals were gathered");
            entry.row.seal = u16::try_from(position).expect("there are at most MAX_SEALS");
            pack.push(entry, &bytes)?;
        }
        let finished = pack.finish(u64::from(repository.format().pack_target))?;
        cache::index::insert_pack(&mut repository.connection(), &finished.pack, None, &finished.seals, &finished.toc)?;
        Ok(Some(finished.pack))
    }
}

/// One pack that is read for its needed chunks.
struct Source<'a> {
    repository: &'a Repository,
    pack: PackRef,
    seals: Vec<SealEntry>,
    toc: Toc,
    /// The whole pack, where its blocks cannot be opened.
    whole: Option<Vec<u8>>,
}

impl<'a> Source<'a> {
    fn open(repository: &'a Repository, pack: PackRef, toc: Result<(Vec<SealEntry>, Toc)>) -> Result<Self> {
        let (seals, toc) = toc?;
        let readable = seals.iter().all(|seal| repository.keys().open_session(seal).is_ok());
        let whole = if readable {
            None
        } else {
            let bytes = repository.store().get(&Key::pack(&pack.id), MAX_PACK)?;
            if *blake3::hash(&bytes).as_bytes() != pack.id.0 {
                return Err(Error::damaged(format!("read the pack {}: its bytes are not what its name says", pack.id)));
            }
            Some(bytes)
        };
        Ok(Self { repository, pack, seals, toc, whole })
    }

    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).expect("at most a pack")];
        if let Some(whole) = &self.whole {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let part = whole.get(from..from.saturating_add(bytes.len()));
            bytes.copy_from_slice(part.ok_or_else(|| Error::damaged("read a block: its pack is shorter than it says"))?);
        } else {
            self.repository.store().read_at(&Key::pack(&self.pack.id), offset, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// The needed chunks, given by block and offset, in the requests with which their blocks are fetched.
    fn spans(&self, live: &[(u32, u32)]) -> Vec<Span<'_>> {
        let mut needed: HashMap<u32, HashSet<u32>> = HashMap::new();
        for (block, start) in live {
            needed.entry(*block).or_default().insert(*start);
        }
        // Where a request costs nothing, what is fetched in vain does.
        let far = self.repository.width() > 1;
        let (mut offset, mut spans) = (u64::from(self.toc.first_block), Vec::<Span<'_>>::new());
        for (number, entry) in (0u32..).zip(&self.toc.blocks) {
            if let Some(needed) = needed.remove(&number) {
                let wanted = Wanted { entry, offset, needed };
                let joins = |span: &Span<'_>| {
                    let (first, last) = (span.first().map_or(0, |block| block.offset), span.last().map_or(0, Wanted::end));
                    far && wanted.offset - last <= LARGEST_GAP && wanted.end() - first <= LONGEST_SPAN
                };
                match spans.last_mut().filter(|span| joins(span)) {
                    Some(span) => span.push(wanted),
                    None => spans.push(vec![wanted]),
                }
            }
            offset += u64::from(entry.row.stored_len());
        }
        spans
    }

    /// Takes the needed chunks, given by block and offset, over.
    fn take(&self, live: &[(u32, u32)], copier: &mut Copier<'_>, rewrite: &mut Rewrite) -> Result<()> {
        let spans = self.spans(live);
        for some in spans.chunks(self.repository.width().min(SPANS)) {
            let fetch = |span: &Span<'_>| {
                let (first, end) = (span.first().map_or(0, |block| block.offset), span.last().map_or(0, Wanted::end));
                self.bytes(first, end - first).map(|bytes| (first, bytes))
            };
            for (span, fetched) in some.iter().zip(self.repository.side_by_side(some, fetch)) {
                let (first, fetched) = fetched?;
                for Wanted { entry, offset, needed } in span {
                    let from = usize::try_from(offset - first).expect("it lies within what was fetched");
                    let bytes = fetched[from..from + entry.row.stored_len() as usize].to_vec();
                    self.block(entry, bytes, needed, (copier, rewrite))?;
                }
            }
        }
        Ok(())
    }

    fn block(
        &self,
        entry: &BlockEntry,
        bytes: Vec<u8>,
        needed: &HashSet<u32>,
        to: (&mut Copier<'_>, &mut Rewrite),
    ) -> Result<()> {
        let (copier, rewrite) = to;
        let seal = self.seals.get(usize::from(entry.row.seal));
        let seal = seal.ok_or_else(|| Error::damaged("read a block: its pack has no such seal"))?;
        let copied = |bytes| Copied { entry: entry.clone(), seal: seal.clone(), bytes };
        let Some((writer, opener)) = rewrite.parts.as_mut().filter(|_| self.whole.is_none()) else {
            return copier.push(copied(bytes));
        };
        let keys = self.repository.keys();
        let session = keys.open_session(seal)?;
        let table = table_digest(&entry.chunks);
        let mut sealed = bytes.clone();
        let raw = opener.open(&keys.repository, &session, &entry.row, &table, &mut sealed)?;
        let whole = needed.len() == entry.chunks.len();
        let mut start = 0u32;
        for chunk in &entry.chunks {
            let part = raw.get(start as usize..(start + chunk.len) as usize);
            let part = part.ok_or_else(|| Error::damaged("read a block: it is shorter than its table says"))?;
            if needed.contains(&start) {
                let id = keys.name(entry.row.kind, part)?;
                if id.prefix() != chunk.prefix {
                    return Err(Error::damaged(format!("verify the chunk {id}: its bytes are others")));
                }
                if !whole {
                    writer.rewrite(entry.row.kind, &id, part)?;
                }
            }
            start += chunk.len;
        }
        if whole { copier.push(copied(bytes)) } else { Ok(()) }
    }
}

/// Where single chunks are written anew, if the keys at hand can read and write.
struct Rewrite {
    // Dropped first: a session ends only when all its writers are gone.
    parts: Option<(ChunkWriter, Opener)>,
    session: Option<Session>,
}

impl Rewrite {
    fn start(repository: &Repository) -> Result<Self> {
        let session = match Session::start(repository, false) {
            Ok(session) => session,
            Err(error) if error.kind() == ErrorKind::Refused => return Ok(Self { session: None, parts: None }),
            Err(error) => return Err(error),
        };
        let parts = Some((session.writer()?, Opener::new()?));
        Ok(Self { session: Some(session), parts })
    }

    /// What made the writer fail: its threads know better.
    fn cause_of(self, error: Error) -> Error {
        match self.finish() {
            Err(cause) if error.kind() == ErrorKind::Failed => cause,
            _ => error,
        }
    }

    fn finish(self) -> Result<Vec<PackRef>> {
        match (self.session, self.parts) {
            (Some(session), Some((writer, _))) => session.finish_rewrite(writer),
            _ => Ok(Vec::new()),
        }
    }
}

impl Repository {
    /// Writes anew what is needed of `sources`, until `deadline`. A source that cannot be read whole stays.
    pub(in crate::repo) fn repack(
        &self,
        marker: &Marker,
        sources: &[(u32, PackRef)],
        deadline: Option<Instant>,
        progress: &Progress,
        observer: &dyn Observer,
    ) -> Result<Repacked> {
        let mut copier = Copier { repository: self, waiting: [Vec::new(), Vec::new()], packs: Vec::new() };
        let mut rewrite = Rewrite::start(self)?;
        let mut done = HashSet::new();
        let mut rest = sources;
        let tocs = std::iter::from_fn(|| {
            let some = &rest[..together(&rest[..rest.len().min(self.width())], |(_, pack)| pack)];
            rest = &rest[some.len()..];
            (!some.is_empty()).then(|| self.side_by_side(some, |(_, pack)| self.load_toc(pack)))
        })
        .flatten();
        for ((number, pack), toc) in sources.iter().zip(tocs) {
            stop_if_asked(observer)?;
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                observer.observe(Event::Note("time is up: the rest is repacked another time"));
                break;
            }
            let live = marker.marks.live(*number)?;
            let taken = Source::open(self, *pack, toc).and_then(|source| source.take(&live, &mut copier, &mut rewrite));
            match taken {
                Ok(()) => drop(done.insert(*number)),
                // Another runner's plan took it, so nobody needs it, or what was needed of it is elsewhere by now.
                Err(error) if error.kind() == ErrorKind::Missing => {}
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    let message = format!("pack {} stays as it is, because it is damaged: {error}", pack.id);
                    observer.observe(Event::Warning(&message));
                }
                Err(error) => return Err(rewrite.cause_of(error)),
            }
            progress.files.fetch_add(1, Ordering::Relaxed);
            progress.bytes.fetch_add(pack.size, Ordering::Relaxed);
        }
        Ok(Repacked { packs: copier.finish(rewrite)?, done })
    }
}
