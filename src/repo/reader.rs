//! Reads chunks back: finds them, opens their block, and hashes every one before it is believed.

use crate::error::{Error, ErrorKind, Result};
use crate::event::Silent;
use crate::format::log::PackRef;
use crate::format::tree::{ChunkType, Class};
use crate::id::{ChunkId, ChunkPrefix, PackId};
use crate::repo::block::Opener;
use crate::repo::cache::{self, IndexReader, Place, StoredBlock, StoredPack};
use crate::repo::nodes::Allowance;
use crate::repo::sealed::may_be_damage;
use crate::repo::{Repository, Shards};
use crate::store::Key;
use rusqlite::Connection;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

/// Packs whose block tables are kept, and blocks in all of these: somebody may have made them long.
const KEPT_PACKS: usize = 256;
const KEPT_ROWS: usize = 1 << 17;
/// Memory of a seal, in rows.
const SEAL_ROWS: usize = 8;
/// Bytes of decoded blocks that are kept: pages of a tree that has changed often lie in many blocks.
const KEPT_BYTES: usize = 16 << 20;

/// Memory for pages of the index, negative as SQLite wants it for KiB.
const INDEX_KIB: i32 = -20_480;

/// Bytes between two blocks that are fetched in vain so that both come with one request.
const LARGEST_GAP: u64 = 128 << 10;
/// Bytes that are fetched with one request, at most.
const LONGEST_SPAN: u64 = 8 << 20;

/// Bytes of a tree that are fetched with one request: its pages lie close together, those of a directory before its own.
const NEIGHBOURHOOD: u64 = 512 << 10;
/// So many of these are kept: a tree that has changed lies in several packs.
const NEIGHBOURHOODS: usize = 6;

/// Which block of which pack; orders as the blocks lie in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockPlace {
    /// Number of the pack in the local cache.
    pub pack: u32,
    /// Position of the block in it.
    pub block: u32,
}

/// Reads chunks; each thread has one of its own.
pub struct Reader {
    repository: Repository,
    index: IndexReader,
    shards: OnceCell<Shards>,
    /// All tables of contents were asked for.
    complete: Cell<bool>,
    state: RefCell<State>,
    pub(super) allowance: Allowance,
}

struct State {
    packs: VecDeque<(u32, Arc<StoredPack>)>,
    blocks: VecDeque<(BlockPlace, Arc<Vec<u8>>)>,
    opener: Opener,
    stored: Vec<u8>,
    ahead: Option<Ahead>,
    /// What lies around the pages of trees that were read last.
    near: VecDeque<Ahead>,
}

/// Bytes of a pack that were fetched because several blocks of it are wanted.
struct Ahead {
    pack: PackId,
    offset: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    fn part(&self, pack: &PackId, offset: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        self.bytes.get(start..start.checked_add(length)?).filter(|_| self.pack == *pack)
    }
}

impl Repository {
    /// A reader for the calling thread.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be opened.
    pub fn reader(&self) -> Result<Reader> {
        self.reader_with(self.cache().connect()?)
    }

    /// A reader that keeps more of the index in memory, for the calling thread, which looks many chunks up.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be opened.
    pub fn planning_reader(&self) -> Result<Reader> {
        let connection = self.cache().connect()?;
        connection.pragma_update(None, "cache_size", INDEX_KIB).map_err(cache::failed)?;
        self.reader_with(connection)
    }

    fn reader_with(&self, connection: Connection) -> Result<Reader> {
        let state = State {
            packs: VecDeque::new(),
            blocks: VecDeque::new(),
            opener: Opener::new()?,
            stored: Vec::new(),
            ahead: None,
            near: VecDeque::new(),
        };
        let index = IndexReader::new(connection)?;
        let (shards, complete) = (OnceCell::new(), Cell::new(false));
        let (state, allowance) = (RefCell::new(state), Allowance::default());
        Ok(Reader { repository: self.clone(), index, shards, complete, state, allowance })
    }
}

impl Reader {
    /// Sees what was added to the index since.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn refresh(&self) -> Result<()> {
        self.index.refresh()
    }

    /// Where a chunk is: its block, its offset there, and its length.
    ///
    /// # Errors
    /// `Damaged` if no pack holds it.
    pub fn locate(&self, id: &ChunkId) -> Result<(BlockPlace, u32, u32)> {
        let place = match self.index.place(&id.prefix())? {
            None => self.look_further(&id.prefix())?,
            found => found,
        };
        let Place { pack, block, start, len } = place.ok_or_else(|| {
            Error::damaged(format!("find the chunk {id}: no pack of the repository holds it"))
                .with_hint("`lifeboat check` says what is damaged; `lifeboat cache rebuild` if only the cache is")
        })?;
        Ok((BlockPlace { pack, block }, start, len))
    }

    /// Looks for a chunk that is not in the local index: others may have added it meanwhile, a shard may know its pack, or
    /// it is in a pack that no table of contents was read of yet.
    fn look_further(&self, prefix: &ChunkPrefix) -> Result<Option<Place>> {
        self.index.refresh()?;
        if let Some(place) = self.index.place(prefix)? {
            return Ok(Some(place));
        }
        if self.shards.get().is_none() {
            let _ = self.shards.set(self.repository.shards()?);
        }
        let shards = self.shards.get().expect("it was set just now");
        for pack in shards.find(prefix)? {
            match self.repository.index_pack(&pack) {
                // One that is damaged is no reason to give up: another may hold the chunk as well.
                Err(error) if may_be_damage(&error) || error.kind() == ErrorKind::Missing => continue,
                other => other?,
            }
            self.index.refresh()?;
            if let Some(place) = self.index.place(prefix)? {
                return Ok(Some(place));
            }
        }
        // A prune may have taken what the shards said; a shard may be lost, or wrong.
        self.complete_index()?;
        self.index.place(prefix)
    }

    /// Reads the tables of contents of all packs that shards had made unnecessary to read, once.
    fn complete_index(&self) -> Result<()> {
        if self.complete.replace(true) {
            return Ok(());
        }
        self.repository.follow_prunes()?;
        self.repository.load_index(&Silent)?;
        self.index.refresh()
    }

    /// The pack that a block is in.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn pack_of(&self, place: BlockPlace) -> Result<PackId> {
        Ok(self.pack(&mut self.state.borrow_mut(), place.pack)?.id)
    }

    /// All places of a chunk.
    pub(super) fn places(&self, id: &ChunkId) -> Result<Vec<Place>> {
        self.index.places(&id.prefix())
    }

    /// True if a check on this machine could not read the chunk from that pack.
    pub(super) fn is_bad(&self, pack: u32, id: &ChunkId) -> Result<bool> {
        self.index.is_bad(pack, &id.prefix())
    }

    fn pack(&self, state: &mut State, number: u32) -> Result<Arc<StoredPack>> {
        if let Some((_, pack)) = state.packs.iter().find(|(known, _)| *known == number) {
            return Ok(pack.clone());
        }
        let pack = Arc::new(self.index.pack(number)?);
        let rows_of = |pack: &StoredPack| pack.blocks.len() + SEAL_ROWS * pack.seals.len();
        let mut rows = state.packs.iter().map(|(_, pack)| rows_of(pack)).sum::<usize>() + rows_of(&pack);
        while (state.packs.len() >= KEPT_PACKS || rows > KEPT_ROWS)
            && let Some((_, oldest)) = state.packs.pop_front()
        {
            rows -= rows_of(&oldest);
        }
        state.packs.push_back((number, pack.clone()));
        Ok(pack)
    }

    /// The pack with this number in the local cache.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn pack_ref(&self, number: u32) -> Result<PackRef> {
        let pack = self.pack(&mut self.state.borrow_mut(), number)?;
        Ok(PackRef { id: pack.id, size: pack.size, toc_len: 0 })
    }

    /// Raw bytes of a block.
    ///
    /// # Errors
    /// `Damaged` if its pack does not have it, `Failed` if the cache cannot be read.
    pub fn block_length(&self, place: BlockPlace) -> Result<u64> {
        let pack = self.pack(&mut self.state.borrow_mut(), place.pack)?;
        let block = pack.blocks.get(place.block as usize);
        let block = block.ok_or_else(|| Error::damaged("the index names a block that its pack does not have"))?;
        Ok(block.row.raw_len.into())
    }

    /// About how many bytes of content the repository puts into a block.
    #[must_use]
    pub fn block_target(&self) -> u32 {
        self.repository.format().block_target
    }

    /// Says that these blocks, in this order, are wanted next. The first ones that lie close together are fetched with one
    /// request, if they are not at hand already. What cannot be fetched so is left for [`Reader::with_block`] to report.
    pub fn fetch_ahead(&self, places: &[BlockPlace]) {
        let mut state = self.state.borrow_mut();
        let Some(number) = places.first().map(|place| place.pack) else { return };
        let Ok(pack) = self.pack(&mut state, number) else { return };
        let range = |place: &BlockPlace| {
            let block = pack.blocks.get(place.block as usize).filter(|_| place.pack == number)?;
            Some((block.offset, block.offset.checked_add(u64::from(block.row.stored_len()))?))
        };
        let Some((first, mut last)) = range(&places[0]) else { return };
        let length = |end: u64| usize::try_from(end - first).unwrap_or(usize::MAX);
        if state.ahead.as_ref().is_some_and(|ahead| ahead.part(&pack.id, first, length(last)).is_some()) {
            return;
        }
        let mut joined = 1;
        for (begin, end) in places[1..].iter().map_while(range) {
            if begin < last || begin - last > LARGEST_GAP || end - first > LONGEST_SPAN {
                break;
            }
            (last, joined) = (end, joined + 1);
        }
        let mut bytes = state.ahead.take().map(|ahead| ahead.bytes).unwrap_or_default();
        bytes.resize(length(last), 0);
        if joined > 1 && self.repository.store().read_at(&Key::pack(&pack.id), first, &mut bytes).is_ok() {
            state.ahead = Some(Ahead { pack: pack.id, offset: first, bytes });
        }
    }

    /// Fetches what lies around a page of a tree, where a request costs time. What cannot be fetched so is left for whoever
    /// reads the block alone.
    fn fetch_around(&self, state: &mut State, pack: &StoredPack, place: BlockPlace) {
        let Some(block) = pack.blocks.get(place.block as usize).filter(|block| block.row.kind != ChunkType::Data) else { return };
        let length = block.row.stored_len() as usize;
        let mut near = state.near.iter();
        if self.repository.width() == 1 || near.any(|near| near.part(&pack.id, block.offset, length).is_some()) {
            return;
        }
        if self.repository.kept().is_some_and(|kept| kept.has(&Key::pack(&pack.id), block.offset, length)) {
            return;
        }
        let end_of = |block: &StoredBlock| block.offset + u64::from(block.row.stored_len());
        let (before, after) = pack.blocks.split_at(place.block as usize);
        let (mut first, mut end) = (block.offset, end_of(block));
        for block in before.iter().rev().take_while(|block| end.saturating_sub(block.offset) <= NEIGHBOURHOOD) {
            first = block.offset;
        }
        for block in after.iter().take_while(|block| end_of(block) - first <= NEIGHBOURHOOD) {
            end = end_of(block);
        }
        let oldest = if state.near.len() < NEIGHBOURHOODS { None } else { state.near.pop_front() };
        let mut bytes = oldest.map(|near| near.bytes).unwrap_or_default();
        bytes.resize(usize::try_from(end - first).unwrap_or(length), 0);
        if self.repository.store().read_at(&Key::pack(&pack.id), first, &mut bytes).is_ok() {
            state.near.push_back(Ahead { pack: pack.id, offset: first, bytes });
        }
    }

    /// Opens a block and hands its raw bytes to `each`, at least the first `wanted` of them, without keeping it. The bytes are
    /// authentic as a block; each chunk must still be verified with [`Reader::verify`].
    ///
    /// # Errors
    /// `Damaged` if it is not what was stored, `Missing` if its pack is gone, or what `each` returns.
    pub fn with_block<T>(&self, place: BlockPlace, wanted: usize, each: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let mut state = self.state.borrow_mut();
        let pack = self.pack(&mut state, place.pack)?;
        let State { opener, stored, ahead, .. } = &mut *state;
        let kept = pack.blocks.get(place.block as usize);
        let kept = kept.and_then(|block| ahead.as_ref()?.part(&pack.id, block.offset, block.row.stored_len() as usize));
        each(self.open(&pack, (place, wanted), (opener, stored), kept)?)
    }

    fn open<'a>(
        &self,
        pack: &StoredPack,
        (place, wanted): (BlockPlace, usize),
        (opener, stored): (&'a mut Opener, &'a mut Vec<u8>),
        fetched: Option<&[u8]>,
    ) -> Result<&'a [u8]> {
        let key = Key::pack(&pack.id);
        let inside = |error: Error| error.while_doing(format!("block {} of {key}", place.block));
        let block = pack.blocks.get(place.block as usize);
        let block = block.ok_or_else(|| inside(Error::damaged("the index names a block that its pack does not have")))?;
        let seal = pack.seals.get(usize::from(block.row.seal));
        let seal = seal.ok_or_else(|| inside(Error::damaged("the index names a seal that its pack does not have")))?;
        let session = self.repository.keys().open_session(seal).map_err(inside)?;
        stored.resize(block.row.stored_len() as usize, 0);
        let repository = &self.repository.format().id;
        let store = self.repository.store();
        let (keys, head) = ((repository, &*session), (&block.row, &block.table));
        let mut unpack = |stored: &mut Vec<u8>| opener.unpack(keys, head, stored, wanted);
        // Trees and lists are looked at again and again; files are not.
        let parts = self.repository.kept().filter(|_| seal.class == Class::Meta);
        if parts.is_some_and(|parts| parts.read(&key, block.offset, stored)) && unpack(stored).is_ok() {
            return Ok(opener.raw(&block.row, stored));
        }
        let read = match fetched {
            Some(bytes) => {
                stored.copy_from_slice(bytes);
                Ok(())
            }
            None => store.read_at(&key, block.offset, stored).map_err(|error| match error.kind() {
                // The log names the pack, so its absence is a loss, not a wrong name.
                ErrorKind::Missing => error.as_kind(ErrorKind::Damaged),
                _ => error,
            }),
        };
        let sealed = if parts.is_some() && read.is_ok() { stored.clone() } else { Vec::new() };
        let opened = read.and_then(|()| unpack(stored).map_err(inside));
        if let (Some(parts), Ok(())) = (parts, &opened) {
            parts.put(&key, block.offset, &sealed);
        }
        if let Err(error) = opened {
            if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Archived) {
                return Err(error);
            }
            // What was hurt on the way from elsewhere comes whole the next time.
            let mut fetch = || store.read_at(&key, block.offset, stored).and_then(|()| unpack(stored)).is_ok();
            let again = store.width() > 1 && (fetch() || fetch());
            if !again {
                let known = (&pack.id, pack.size);
                let mended = self.repository.read_mended(known.0, known.1, block.offset, stored).and_then(|()| unpack(stored));
                let mut opens = |stored: &mut Vec<u8>| unpack(stored).is_ok();
                if mended.is_err() && !self.repository.read_older(known, block.offset, stored, &mut opens) {
                    return Err(error);
                }
                self.repository.note_rescue(&pack.id);
            }
        }
        Ok(opener.raw(&block.row, stored))
    }

    /// Fails unless `bytes` are the chunk named `id`.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn verify(&self, kind: ChunkType, id: &ChunkId, bytes: &[u8]) -> Result<()> {
        if self.repository.keys().name(kind, bytes)? == *id {
            return Ok(());
        }
        Err(Error::damaged(format!("verify the chunk {id}: its bytes are others")))
    }

    /// The bytes of a chunk.
    ///
    /// # Errors
    /// `Damaged` if it is lost or changed.
    pub fn chunk(&self, kind: ChunkType, id: &ChunkId) -> Result<Vec<u8>> {
        let (place, start, len) = self.locate(id)?;
        match self.chunk_at(kind, id, (place, start, len)) {
            Err(error) => self.chunk_elsewhere(kind, id, place, error),
            whole => whole,
        }
    }

    /// The bytes of a chunk that could not be read at `failed`, from any other pack that holds it. The report of the work
    /// that is going on tells of it.
    ///
    /// # Errors
    /// `error`, if there is no other place, or no better one.
    pub fn chunk_elsewhere(&self, kind: ChunkType, id: &ChunkId, failed: BlockPlace, error: Error) -> Result<Vec<u8>> {
        if error.kind() == ErrorKind::Interrupted {
            return Err(error);
        }
        if self.complete_index().is_err() {
            return Err(error);
        }
        for Place { pack, block, start, len } in self.index.places(&id.prefix())? {
            if pack == failed.pack {
                continue;
            }
            match self.chunk_at(kind, id, (BlockPlace { pack, block }, start, len)) {
                Err(other) if other.kind() == ErrorKind::Interrupted => return Err(other),
                Err(_) => {}
                Ok(bytes) => {
                    // One that a prune has deleted is not damaged.
                    if let Ok(pack) = self.pack(&mut self.state.borrow_mut(), failed.pack)
                        && !self.repository.is_gone(&pack.id)?
                    {
                        self.repository.note_rescue(&pack.id);
                    }
                    return Ok(bytes);
                }
            }
        }
        Err(error)
    }

    fn chunk_at(&self, kind: ChunkType, id: &ChunkId, at: (BlockPlace, u32, u32)) -> Result<Vec<u8>> {
        let (place, start, len) = at;
        let block = self.kept_block(place)?;
        let bytes = block.get(start as usize..start as usize + len as usize);
        let bytes =
            bytes.ok_or_else(|| Error::damaged(format!("read the chunk {id}: its block is shorter than the index says")))?;
        self.verify(kind, id, bytes)?;
        Ok(bytes.to_vec())
    }

    fn kept_block(&self, place: BlockPlace) -> Result<Arc<Vec<u8>>> {
        let mut state = self.state.borrow_mut();
        if let Some(position) = state.blocks.iter().position(|(known, _)| *known == place) {
            let found = state.blocks.remove(position).expect("the position was found just now");
            let block = found.1.clone();
            state.blocks.push_back(found);
            return Ok(block);
        }
        let pack = self.pack(&mut state, place.pack)?;
        self.fetch_around(&mut state, &pack, place);
        let State { blocks, opener, stored, near, .. } = &mut *state;
        let at_hand = pack.blocks.get(place.block as usize);
        let at_hand = at_hand
            .and_then(|block| near.iter().find_map(|near| near.part(&pack.id, block.offset, block.row.stored_len() as usize)));
        let raw = self.open(&pack, (place, usize::MAX), (opener, stored), at_hand)?;
        let mut buffer = Vec::new();
        let mut kept: usize = blocks.iter().map(|(_, block)| block.capacity()).sum();
        while kept + raw.len() > KEPT_BYTES
            && let Some((_, oldest)) = blocks.pop_front()
        {
            kept -= oldest.capacity();
            // The oldest block's memory is used again, unless somebody still reads it.
            buffer = Arc::try_unwrap(oldest).unwrap_or_default();
        }
        buffer.clear();
        buffer.extend_from_slice(raw);
        let block = Arc::new(buffer);
        blocks.push_back((place, block.clone()));
        Ok(block)
    }
}
