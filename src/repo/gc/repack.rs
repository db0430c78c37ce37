//! Writing anew what is needed of packs that are going to be deleted.
//!
//! A block of which everything is needed is copied as it is, sealed. Of other blocks, whoever can open them writes the
//! needed chunks into new blocks; others copy them whole. Nothing is copied that was not verified: by its chunks'
//! hashes where the keys allow it, else by the hash of the whole pack.

use super::fetch::{Source, Step};
use super::mark::Marker;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, stop_if_asked};
use crate::format::log::PackRef;
use crate::format::pack::{BlockEntry, SealEntry, TOC_TARGET};
use crate::format::tree::Class;
use crate::repo::block::{Opener, table_digest};
use crate::repo::cache;
use crate::repo::packer::{FinishedPack, OpenPack};
use crate::repo::underway::Underway;
use crate::repo::{ChunkWriter, Repository, Session};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

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
    /// How many stay because time was up.
    pub(in crate::repo) put_off: u64,
}

struct Copier<'a> {
    repository: &'a Repository,
    waiting: [Vec<Copied>; 2],
    uploads: Underway<FinishedPack>,
    packs: Vec<PackRef>,
}

impl<'a> Copier<'a> {
    fn new(repository: &'a Repository) -> Self {
        let uploads = Underway::to(repository.store(), &repository.keys().surroundings);
        Self { repository, waiting: [Vec::new(), Vec::new()], uploads, packs: Vec::new() }
    }

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

    /// Writes what waits into one pack, which goes up beside those before it.
    fn write(&mut self, slot: usize) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting[slot]);
        if waiting.is_empty() {
            return Ok(());
        }
        let (repository, packs) = (self.repository, &mut self.packs);
        let target = u64::from(repository.format().pack_target);
        let pack = packed(repository, waiting)?;
        self.uploads.begin(move || pack.finish(target), &mut |finished| note(repository, packs, &finished))
    }

    /// Writes what is left, while `rewrite` does the same. All of it is durable then.
    fn finish(mut self, rewrite: Rewrite) -> Result<Vec<PackRef>> {
        self.write(0)?;
        self.write(1)?;
        // Its threads are at work until it has come to its end.
        let rewritten = rewrite.finish();
        let (repository, packs) = (self.repository, &mut self.packs);
        self.uploads.finish(&mut |finished| note(repository, packs, &finished))?;
        let mut packs = self.packs;
        packs.extend(rewritten?);
        packs.sort_unstable();
        Ok(packs)
    }
}

/// A pack with these blocks, which is still to be put.
fn packed(repository: &Repository, waiting: Vec<Copied>) -> Result<OpenPack> {
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
    Ok(pack)
}

/// Takes down a pack that is durable.
fn note(repository: &Repository, packs: &mut Vec<PackRef>, finished: &FinishedPack) -> Result<()> {
    cache::index::insert_pack(&mut repository.connection(), &finished.pack, None, &finished.seals, &finished.toc)?;
    packs.push(finished.pack);
    Ok(())
}

impl Source<'_> {
    /// Takes what is needed of a block over.
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
        let Some((writer, opener)) = rewrite.parts.as_mut().filter(|_| self.is_readable) else {
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

/// Where what is needed goes, and what became of each source.
struct Repacking<'a> {
    sources: &'a [(u32, PackRef)],
    copier: Copier<'a>,
    rewrite: Rewrite,
    done: HashSet<u32>,
    /// The source that was given up last.
    given_up: Option<usize>,
}

impl Repacking<'_> {
    fn take(&mut self, at: usize, step: Step<'_>, observer: &dyn Observer) -> Result<()> {
        if self.given_up == Some(at) {
            return Ok(());
        }
        let taken = match step {
            Step::Blocks(source, blocks) => blocks.each(|wanted, bytes| {
                let to = (&mut self.copier, &mut self.rewrite);
                source.block(&wanted.entry, bytes.to_vec(), &wanted.needed, to)
            }),
            Step::Failed(error) => Err(error),
            Step::End => {
                self.done.insert(self.sources[at].0);
                return Ok(());
            }
        };
        match taken {
            // Another runner's plan took it, so nobody needs it, or what was needed of it is elsewhere by now.
            Err(error) if error.kind() == ErrorKind::Missing => {}
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let message = format!("pack {} stays as it is, because it is damaged: {error}", self.sources[at].1.id);
                observer.observe(Event::Warning(&message));
            }
            other => return other,
        }
        self.given_up = Some(at);
        Ok(())
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
        // Asked for while packs are read.
        self.expect_parity();
        let (copier, rewrite) = (Copier::new(self), Rewrite::start(self)?);
        let mut repacking = Repacking { sources, copier, rewrite, done: HashSet::new(), given_up: None };
        let mut is_late = false;
        let mut goes_on = || {
            stop_if_asked(observer)?;
            is_late |= deadline.is_some_and(|deadline| Instant::now() >= deadline);
            Ok(!is_late)
        };
        let mut last = None;
        let taken = self.each_needed((marker, sources), &mut goes_on, &mut |at, step| {
            if last != Some(at) {
                last = Some(at);
                progress.files.fetch_add(1, Ordering::Relaxed);
                progress.bytes.fetch_add(sources[at].1.size, Ordering::Relaxed);
            }
            repacking.take(at, step, observer)
        });
        let Repacking { copier, rewrite, done, .. } = repacking;
        match taken {
            Ok(()) => {
                let put_off = if is_late { sources.len().saturating_sub(done.len()) as u64 } else { 0 };
                Ok(Repacked { packs: copier.finish(rewrite)?, done, put_off })
            }
            Err(error) => Err(rewrite.cause_of(error)),
        }
    }
}
