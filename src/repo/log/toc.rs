//! Tables of contents: putting packs that the log lists into the index.

use super::turns::HELD;
use crate::crypto::derive::object_key;
use crate::crypto::seal;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, stop_if_asked};
use crate::format::envelope::HEADER_LEN;
use crate::format::log::PackRef;
use crate::format::pack::{FOOTER_LEN, Footer, MAX_PACK, SealEntry, Toc, decode_head};
use crate::id::{ClientId, PackId};
use crate::repo::cache;
use crate::repo::{PackList, PackSet, Repository};
use crate::store::{Key, archive};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

/// Tables of contents that are read at once.
const LOADERS: usize = 4;
/// Packs that are taken on together.
const AT_ONCE: usize = 1 << 10;
/// Packs that are missing at one opening before a listing is asked which of the rest are there.
const MANY_MISSING: u64 = 256;
/// Longest head of a pack.
const MAX_HEAD: u64 = 1 << 20;

/// Packs, and which of them a listing has.
struct Listed {
    packs: PackList,
    there: PackSet,
}

impl Repository {
    /// Puts all packs that the log lists into the index.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be used. A pack that cannot be read is a warning.
    pub fn load_index(&self, observer: &dyn Observer) -> Result<()> {
        self.index_unread((false, true), observer)
    }

    /// The same without those that a listing of the store lacks, where many are missing: for whoever loses nothing by not
    /// knowing of a pack.
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn load_stored_index(&self, observer: &dyn Observer) -> Result<()> {
        self.index_unread((false, false), observer)
    }

    /// Puts the packs into the index that no shard covers. Those that could not be read before are tried again; by now a
    /// prune may be known that removed them. Where many turn out to be missing, a listing of the store says which of the rest
    /// are worth asking for: it may lag behind, so whoever misses a chunk asks for all of them ([`Repository::load_index`]).
    pub(super) fn index_uncovered(&self, observer: &dyn Observer) -> Result<()> {
        self.index_unread((true, false), observer)
    }

    /// All packs, or those that no shard covers; with `each` also those are asked for that a listing lacks. Some after the
    /// others: somebody may have listed more packs that there are not than fit into memory. Long tables, which no writer
    /// makes, come last.
    fn index_unread(&self, (uncovered, each): (bool, bool), observer: &dyn Observer) -> Result<()> {
        let short = i64::try_from(HELD).expect("it is a few MiB");
        let (mut missing, mut left_out, mut listed, mut asked) = (0, 0, None, each);
        for lengths in [(-1, short), (short, i64::MAX)] {
            let wanted = cache::unread::Wanted { uncovered, lengths };
            let mut after: Vec<u8> = Vec::new();
            loop {
                let mut some = cache::unread::next(&self.connection(), &wanted, (&after, AT_ONCE))?;
                let (last, count) = (some.last().map(|(pack, _)| pack.id), some.len());
                if let Some(Listed { packs, there }) = &listed {
                    let is_there = |id: &PackId| Ok::<_, Error>(packs.find(id)?.is_none_or(|at| there.has(at)));
                    let kept = some.into_iter().map(|found| Ok((is_there(&found.0.id)?, found)));
                    let kept = kept.collect::<Result<Vec<_>>>()?;
                    some = kept.into_iter().filter_map(|(is_there, found)| is_there.then_some(found)).collect();
                    left_out += count - some.len();
                }
                missing += self.index_packs(&some, observer)?;
                if !asked && missing >= MANY_MISSING {
                    asked = true;
                    listed = self.listed_of(uncovered)?;
                }
                match last {
                    Some(last) if count == AT_ONCE => after = last.0.to_vec(),
                    _ => break,
                }
            }
        }
        if left_out > 0 {
            let message = format!("{left_out} more packs that the log lists are not in the store: `lifeboat check` names them");
            observer.observe(Event::Warning(&message));
        }
        Ok(())
    }

    /// The packs that are not in the index, or those that no shard covers, and which of them the store lists; `None` if it
    /// does not say.
    fn listed_of(&self, uncovered: bool) -> Result<Option<Listed>> {
        let packs = PackList::of(|add| match uncovered {
            true => cache::unread::each_uncovered(&self.connection(), add),
            false => cache::unread::each(&self.connection(), add),
        })?;
        let mut there = PackSet::of(&packs);
        let asked = self.each_listed_pack(&mut |id, _| {
            packs.find(id)?.into_iter().for_each(|at| there.add(at));
            Ok(())
        });
        match asked {
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            // Some credentials may not list; then each is asked for.
            Err(_) => Ok(None),
            Ok(()) => Ok(Some(Listed { packs, there })),
        }
    }

    /// Puts the pack into the index, if it is listed and not there yet.
    pub(in crate::repo) fn index_pack(&self, pack: &PackId) -> Result<()> {
        let Some((pack, client)) = cache::unread::find(&self.connection(), pack)? else { return Ok(()) };
        let _turn = self.turn_for(&pack);
        let (seals, toc) = self.load_toc(&pack)?;
        cache::index::insert_pack(&mut self.connection(), &pack, Some(&client), &seals, &toc)
    }

    /// Returns how many are not in the store.
    fn index_packs(&self, packs: &[(PackRef, ClientId)], observer: &dyn Observer) -> Result<u64> {
        let missing = Cell::new(0);
        let warn = |pack: &PackRef, error: &Error| {
            missing.set(missing.get() + u64::from(error.kind() == ErrorKind::Missing));
            observer.observe(Event::Warning(&format!("pack {} cannot be indexed: {error}", pack.id)));
        };
        if packs.is_empty() {
            return Ok(0);
        }
        // Long tables come one by one; in a simulation all do, and no thread is begun of which it
        // does not know: who is read first must not hang on who runs first.
        let alone = |pack: &PackRef| u64::from(pack.toc_len) > HELD || self.keys().surroundings.is_simulated();
        let (long, packs): (Vec<_>, Vec<_>) = packs.iter().partition(|(pack, _)| alone(pack));
        let threads = match self.width() {
            // A few are read faster than threads are started.
            1 => (packs.len() / 8).clamp(1, LOADERS),
            width => packs.len().min(width),
        };
        let next = AtomicUsize::new(0);
        // What waits in it goes with its reader, and gives its turn back: others wait for that.
        let (loaded, queue) = sync_channel(threads);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (next, loaded, packs) = (&next, loaded.clone(), &packs);
                scope.spawn(move || {
                    while let Some((pack, client)) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let turn = self.turn_for(pack);
                        if observer.interrupted() || loaded.send((pack, client, self.load_toc(pack), turn)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(loaded);
            for (pack, client, toc, _turn) in queue {
                match toc {
                    Ok((seals, toc)) => {
                        cache::index::insert_pack(&mut self.connection(), pack, Some(client), &seals, &toc)?;
                    }
                    Err(error) => warn(pack, &error),
                }
            }
            stop_if_asked(observer)
        })?;
        for (pack, client) in &long {
            stop_if_asked(observer)?;
            let _turn = self.turn_for(pack);
            match self.load_toc(pack) {
                Ok((seals, toc)) => cache::index::insert_pack(&mut self.connection(), pack, Some(client), &seals, &toc)?,
                Err(error) => warn(pack, &error),
            }
        }
        Ok(missing.get())
    }

    /// Reads and opens the table of contents of a pack, from parity if need be.
    pub(in crate::repo) fn load_toc(&self, pack: &PackRef) -> Result<(Vec<SealEntry>, Toc)> {
        self.load_stored_toc(pack).or_else(|error| {
            if error.kind() == ErrorKind::Interrupted {
                return Err(error);
            }
            let mended = |offset, buffer: &mut [u8]| self.read_mended(&pack.id, pack.size, offset, buffer);
            let toc = match self.read_toc(pack, &mended) {
                Ok(toc) => toc,
                Err(_) => self.older_toc(pack).ok_or(error)?,
            };
            self.note_rescue(&pack.id);
            Ok(toc)
        })
    }

    /// The same from a version of the pack that was deleted or overwritten.
    fn older_toc(&self, pack: &PackRef) -> Option<(Vec<SealEntry>, Toc)> {
        let extras = self.store().extras()?;
        let versions = self.older_versions(&pack.id, pack.size);
        versions.iter().find_map(|version| self.read_toc(pack, &|at, buffer| extras.read_version(version, at, buffer)).ok())
    }

    /// The same, from nowhere but the pack itself, or from what lies beside it where it would have to be thawed.
    pub(in crate::repo) fn load_stored_toc(&self, pack: &PackRef) -> Result<(Vec<SealEntry>, Toc)> {
        let key = Key::pack(&pack.id);
        if archive(&**self.store()).is_some()
            && let Ok(found) = self.load_contents(pack)
        {
            return Ok(found);
        }
        self.read_toc(pack, &|offset, buffer| self.store().read_at(&key, offset, buffer))
    }

    /// The table of contents from the object that has nothing but that, and the head.
    fn load_contents(&self, pack: &PackRef) -> Result<(Vec<SealEntry>, Toc)> {
        let tail_len = u64::from(pack.toc_len) + FOOTER_LEN as u64;
        let bytes = self.store().get(&Key::contents(&pack.id), tail_len + MAX_HEAD)?;
        let cut_off = || Error::damaged(format!("read the contents of the pack {}: they are cut off", pack.id));
        let head_len = (bytes.len() as u64).checked_sub(tail_len).ok_or_else(cut_off)?;
        self.read_toc(pack, &|offset, buffer| {
            // Where the pack has its blocks, this has nothing.
            let from = if offset < head_len { Some(offset) } else { (offset + tail_len).checked_sub(pack.size) };
            let from = from.map(|from| if offset < head_len { from } else { from + head_len }).ok_or_else(cut_off)?;
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let there = bytes.get(from..).ok_or_else(cut_off)?;
            let length = there.len().min(buffer.len());
            buffer[..length].copy_from_slice(&there[..length]);
            buffer[length..].fill(0);
            Ok(())
        })
    }

    fn read_toc(&self, pack: &PackRef, read: &(dyn Fn(u64, &mut [u8]) -> Result<()> + Sync)) -> Result<(Vec<SealEntry>, Toc)> {
        let tail_len = u64::from(pack.toc_len) + FOOTER_LEN as u64;
        if pack.size > MAX_PACK || pack.size < tail_len + HEADER_LEN as u64 {
            return Err(Error::damaged(format!("read the pack {}: its listed length cannot be", pack.id)));
        }
        let part = |(offset, length): &(u64, u64)| {
            let mut part = vec![0; usize::try_from(*length).expect("at most 64 MiB")];
            read(*offset, &mut part).map(|()| part)
        };
        let mut ends =
            self.side_by_side_or_mended(&[(pack.size - tail_len, tail_len), (0, pack.size.min(1 << 10))], part).into_iter();
        let (Some(tail), Some(front)) = (ends.next(), ends.next()) else { unreachable!("both ends were asked for") };
        let (tail, mut front) = (tail?, front?);
        let (header, seals) = match decode_head(&front) {
            Err(_) if pack.size > front.len() as u64 => {
                front.resize(usize::try_from(pack.size.min(1 << 20)).expect("at most 1 MiB"), 0);
                read(0, &mut front)?;
                decode_head(&front)?
            }
            other => other?,
        };
        let (sealed, footer) = tail.split_at(pack.toc_len as usize);
        let footer = Footer::decode(footer)?;
        let repository = &self.inner.format.id;
        let object = object_key(self.keys().index_key(header.generation)?, repository, &header.encode());
        if footer.commit != object.commit || footer.toc_len != pack.toc_len {
            return Err(Error::damaged(format!("read the pack {}: its footer does not fit", pack.id)));
        }
        let opened = seal::open_pieces(&object.key, sealed)?;
        // A table may be long, and takes more memory once it is decoded.
        drop(tail);
        let toc = Toc::decode(&opened, seals.len())?;
        let stored: u64 = toc.blocks.iter().map(|block| u64::from(block.row.stored_len())).sum();
        if u64::from(toc.first_block) + stored + u64::from(toc.padding) + tail_len != pack.size {
            return Err(Error::damaged(format!("read the pack {}: its parts do not add up to its length", pack.id)));
        }
        Ok((seals, toc))
    }
}
