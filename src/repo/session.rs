//! A session: one run of a writer, from its first chunk to its record in the log.
//!
//! Workers cut and seal; one thread packs; one thread keeps the cache. Every channel is bounded, and the buffers of
//! sealed blocks go round, so memory is workers × block plus what waits for the packer. The channels are those of the
//! standard library: with a thread that ends early, what still waits for it goes too, and so does whoever waits for that.

use crate::error::{Error, Result};
use crate::event::Silent;
use crate::format::log::{PackRef, SealedSnapshot};
use crate::format::tree::{ChunkRef, ChunkType, Class};
use crate::id::{ChunkId, ClientId, PackId, SessionId};
use crate::repo::Repository;
use crate::repo::block::{OpenBlock, Sealer};
use crate::repo::cache::{self, IndexReader, StatRow};
use crate::repo::keys::{Keys, OwnSession};
use crate::repo::known::{Known, Taken};
use crate::repo::packer::{Packed, PackedBlock, Packer, ToPack};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

/// Trees are read in pieces, and after many increments from many places: their blocks are closed at this part of the
/// target, so that less is decompressed for a page. Smaller ones cost bytes: these cost 0.02 % of a first backup.
const META_PART: usize = 24;

/// Chunks of a block: of the smallest ones, fewer fill it than its bytes would take.
const MAX_CHUNKS: usize = 1 << 16;

/// Blocks that may wait for the packer.
const WAITING_BLOCKS: usize = 6;

/// Pages of SQLite's log after which it is written back: 64 MiB.
const WAL_PAGES: u32 = 16_384;
/// Memory for pages of the connection that writes the cache, negative as SQLite wants it for KiB.
const CACHE_KIB: i32 = -16_384;
/// Rows of the stat cache that are saved in one transaction, if so many wait.
const ROWS_AT_ONCE: usize = 256;

struct OpenSession {
    own: OnceLock<(Arc<crate::format::pack::SealEntry>, OwnSession)>,
    making: Mutex<()>,
    next_number: AtomicU64,
}

impl OpenSession {
    fn new() -> Self {
        Self { own: OnceLock::new(), making: Mutex::new(()), next_number: AtomicU64::new(0) }
    }

    fn get(&self, keys: &Keys, class: Class) -> Result<&(Arc<crate::format::pack::SealEntry>, OwnSession)> {
        if let Some(own) = self.own.get() {
            return Ok(own);
        }
        let _one = self.making.lock().expect("no code panics while it holds this lock");
        if self.own.get().is_none() {
            let own = keys.start_session(class)?;
            let _ = self.own.set((Arc::new(own.entry.clone()), own));
        }
        Ok(self.own.get().expect("it was set just now"))
    }
}

/// What all workers of a session share.
pub(super) struct Shared {
    pub(super) keys: Arc<Keys>,
    known: Known,
    pub(super) borrowed: Mutex<Borrowed>,
    sessions: [OpenSession; 2],
    dry_run: bool,
    block_target: usize,
    level: i32,
    bytes_added: AtomicU64,
    bytes_stored: AtomicU64,
    chunks_added: AtomicU64,
    /// What ended a thread of the session.
    failure: OnceLock<Error>,
}

impl Shared {
    /// Notes what ended a thread of the session, before others see that it has ended.
    fn note<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|error| drop(self.failure.set(error.told_again())))
    }

    /// Why nothing can be stored any more.
    pub(super) fn over(&self) -> Error {
        self.failure.get().map_or_else(over, Error::told_again)
    }

    /// The sessions that were begun, one of each class at most.
    pub(super) fn begun(&self) -> impl Iterator<Item = (Class, SessionId)> {
        self.sessions.iter().filter_map(|session| session.own.get()).map(|(entry, _)| (entry.class, entry.session))
    }

    fn session(&self, class: Class) -> &OpenSession {
        &self.sessions[usize::from(class == Class::Meta)]
    }
}

/// What a session relies on without having stored it itself.
#[derive(Default)]
pub(super) struct Borrowed {
    /// All that the index held at the start: a tree was taken over without looking its chunks up.
    pub(super) everything: bool,
    /// Numbers of packs.
    pub(super) packs: HashSet<u32>,
}

/// Work for the thread that owns the cache's writing connection.
enum CacheWork {
    Packed(Packed),
    Stat(i64, Vec<StatRow>),
}

/// A run of a writer.
pub struct Session {
    pub(super) repository: Repository,
    pub(super) shared: Arc<Shared>,
    pub(super) blocks: Option<SyncSender<ToPack>>,
    spare: crossbeam_channel::Receiver<Vec<u8>>,
    /// Packs that claims of this session list.
    pub(super) claimed: Mutex<HashSet<PackId>>,
    stat: Option<SyncSender<CacheWork>>,
    packer: Option<JoinHandle<Result<()>>>,
    indexer: Option<JoinHandle<Result<Vec<PackRef>>>>,
    forwarder: Option<JoinHandle<()>>,
    pub(super) trusting: Vec<ClientId>,
    pub(super) incarnation: Vec<u8>,
    pub(super) epoch: i64,
}

/// Counts of a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionCounts {
    /// Bytes of new chunks before compression.
    pub bytes_added: u64,
    /// Bytes that the store grew by.
    pub bytes_stored: u64,
    /// New chunks.
    pub chunks_added: u64,
}

impl Session {
    /// Begins a session; with `dry_run` nothing is stored and nothing can be committed.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot back up.
    pub fn start(repository: &Repository, dry_run: bool) -> Result<Self> {
        repository.verify_current_keys()?;
        let format = repository.format();
        // What could not be read has been told of by now; nothing is borrowed from it.
        repository.load_stored_index(&Silent)?;
        repository.verify_index()?;
        let trusting = repository.trusting()?;
        let (incarnation, epoch, barred) = {
            let connection = repository.connection();
            let barred = cache::index::unborrowable(&connection, &trusting)?;
            (cache::index::incarnation(&connection)?, cache::index::epoch(&connection)?, barred)
        };
        let shared = Arc::new(Shared {
            keys: repository.keys().clone(),
            known: Known::new(barred),
            borrowed: Mutex::default(),
            sessions: [OpenSession::new(), OpenSession::new()],
            dry_run,
            block_target: format.block_target as usize,
            level: format.level,
            bytes_added: AtomicU64::new(0),
            bytes_stored: AtomicU64::new(0),
            chunks_added: AtomicU64::new(0),
            failure: OnceLock::new(),
        });
        if shared.keys.surroundings.is_simulated() {
            // Else the packer asks for it, while this thread goes on.
            repository.parity()?;
        }
        let (blocks, block_queue) = sync_channel(WAITING_BLOCKS);
        let (finished, finished_queue) = sync_channel(2);
        #[expect(clippy::disallowed_methods, reason = "many read it, and nobody waits for what is in it")]
        let (buffers, spare) = crossbeam_channel::bounded(WAITING_BLOCKS * 2);
        let (stat, cache_queue) = sync_channel(128);
        let packer = Packer {
            keys: shared.keys.clone(),
            surroundings: shared.keys.surroundings.branch()?,
            store: repository.store().clone(),
            target: u64::from(format.pack_target),
            repository: repository.clone(),
            blocks: block_queue,
            finished,
            buffers,
        };
        let for_packer = shared.clone();
        let packer = spawn("packer", move || for_packer.note(packer.run()))?;
        let to_cache = stat.clone();
        let forwarder = spawn("packs", move || {
            while let Ok(packed) = finished_queue.recv() {
                if to_cache.send(CacheWork::Packed(packed)).is_err() {
                    break;
                }
            }
        })?;
        let (cache, for_indexer) = (repository.cache(), shared.clone());
        let indexer = spawn("indexer", move || for_indexer.note(keep_cache(&cache, &for_indexer, &cache_queue)))?;
        Ok(Self {
            repository: repository.clone(),
            shared,
            blocks: Some(blocks),
            spare,
            claimed: Mutex::default(),
            stat: Some(stat),
            packer: Some(packer),
            indexer: Some(indexer),
            forwarder: Some(forwarder),
            trusting,
            incarnation,
            epoch,
        })
    }

    /// Says that trees are taken over without looking up what they hold.
    pub fn rely_on_index(&self) {
        self.shared.borrowed.lock().expect("no code panics while it holds this lock").everything = true;
    }

    /// What changes whenever a prune may have taken something that was in the index before.
    #[must_use]
    pub fn state_of_index(&self) -> (Vec<u8>, i64) {
        (self.incarnation.clone(), self.epoch)
    }

    /// A writer for one worker thread.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be opened.
    pub fn writer(&self) -> Result<ChunkWriter> {
        let kinds = [ChunkType::Data, ChunkType::Tree, ChunkType::List, ChunkType::Snapshot];
        Ok(ChunkWriter {
            shared: self.shared.clone(),
            blocks: self.blocks.clone().ok_or_else(over)?,
            spare: self.spare.clone(),
            open: kinds.map(OpenBlock::new),
            sealer: Sealer::new(self.shared.level)?,
            borrowed: HashSet::new(),
            index: IndexReader::new(self.repository.cache().connect()?)?,
        })
    }

    /// Saves rows of the stat cache.
    pub(super) fn save_stat(&self, origin: i64, rows: Vec<StatRow>) {
        if let Some(stat) = &self.stat {
            // The thread ends early only on an error of its own, which `finish` reports.
            let _ = stat.send(CacheWork::Stat(origin, rows));
        }
    }

    /// This machine's clock, nanoseconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.repository.now()
    }

    /// What the session added so far.
    #[must_use]
    pub fn counts(&self) -> SessionCounts {
        SessionCounts {
            bytes_added: self.shared.bytes_added.load(Ordering::Relaxed),
            bytes_stored: self.shared.bytes_stored.load(Ordering::Relaxed),
            chunks_added: self.shared.chunks_added.load(Ordering::Relaxed),
        }
    }

    /// Ends the threads; returns the packs written. All writers must be gone.
    pub(super) fn finish(&mut self) -> Result<Vec<PackRef>> {
        self.blocks = None;
        let packed = join(self.packer.take());
        self.stat = None;
        if let Some(forwarder) = self.forwarder.take() {
            let _ = forwarder.join();
        }
        // The packer ends early when the indexer did, so that one's error comes first.
        let packs = join(self.indexer.take())?;
        packed.map(|_| packs.unwrap_or_default())
    }

    /// Ends a session that wrote chunks anew for a prune; returns its packs, which are durable.
    pub(super) fn finish_rewrite(mut self, mut writer: ChunkWriter) -> Result<Vec<PackRef>> {
        let flushed = writer.flush();
        drop(writer);
        // What the threads met is nearer to the cause than what the writer saw of it.
        let packs = self.finish()?;
        flushed.map(|()| packs)
    }

    /// Ends the session without a commit. What was stored stays known, so that the next run goes on from there.
    ///
    /// # Errors
    /// What went wrong in its threads.
    pub fn abandon(mut self, writer: ChunkWriter) -> Result<()> {
        drop(writer);
        self.finish().map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

pub(super) fn over() -> Error {
    Error::failed("store a chunk: the session has ended")
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(|error| Error::io("start a thread for", name, error))
}

fn join<T>(handle: Option<JoinHandle<Result<T>>>) -> Result<Option<T>> {
    match handle.map(JoinHandle::join) {
        None => Ok(None),
        Some(Ok(result)) => result.map(Some),
        Some(Err(_)) => Err(Error::panicked("store chunks")),
    }
}

fn keep_cache(cache: &cache::Cache, shared: &Shared, work: &Receiver<CacheWork>) -> Result<Vec<PackRef>> {
    let mut connection = cache.connect()?;
    // Workers read while this thread writes, so the log of SQLite cannot start over meanwhile, and each attempt sorts
    // all of it: at the default of 1,000 pages that took a seventh of the time of a backup of many changed files.
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES).map_err(cache::failed)?;
    // What is written goes to random places of a large table; from the default of 4 MiB it would be read back all the time.
    connection.pragma_update(None, "cache_size", CACHE_KIB).map_err(cache::failed)?;
    let mut packs = Vec::new();
    let mut doubted = Vec::new();
    let mut next = None;
    while let Some(some) = next.take().or_else(|| work.recv().ok()) {
        match some {
            // The other end may have given up waiting.
            CacheWork::Packed(Packed::Barrier(reply)) => drop(reply.send(packs.clone())),
            CacheWork::Packed(Packed::Pack(pack)) => {
                cache::index::insert_pack(&mut connection, &pack.pack, None, &pack.seals, &pack.toc)?;
                shared.known.settle(pack.toc.blocks.iter().flat_map(|block| block.chunks.iter().map(|chunk| &chunk.prefix)));
                packs.push(pack.pack);
            }
            CacheWork::Stat(origin, mut rows) => {
                // One transaction for many directories.
                while rows.len() < ROWS_AT_ONCE && next.is_none() {
                    match work.try_recv() {
                        Ok(CacheWork::Stat(same, more)) if same == origin => rows.extend(more),
                        Ok(other) => next = Some(other),
                        Err(_) => break,
                    }
                }
                if !doubted.contains(&origin) {
                    cache::stat::doubt_origin(&connection, origin)?;
                    doubted.push(origin);
                }
                cache::stat::save(&mut connection, origin, &mut rows)?;
            }
        }
    }
    Ok(packs)
}

/// Names, deduplicates, and stores chunks; one for each worker thread.
pub struct ChunkWriter {
    shared: Arc<Shared>,
    blocks: SyncSender<ToPack>,
    spare: crossbeam_channel::Receiver<Vec<u8>>,
    open: [OpenBlock; 4],
    sealer: Sealer,
    /// Packs relied on since the last flush.
    borrowed: HashSet<u32>,
    index: IndexReader,
}

impl ChunkWriter {
    /// Stores a chunk unless the repository has it.
    ///
    /// # Errors
    /// `Failed` if the session cannot store any more.
    pub fn put(&mut self, kind: ChunkType, bytes: &[u8]) -> Result<ChunkRef> {
        let id = self.shared.keys.name(kind, bytes)?;
        let reference = ChunkRef { id, len: bytes.len() as u64 };
        match self.shared.known.take_on(&id.prefix(), &self.index)? {
            Taken::New => {}
            Taken::OnItsWay => return Ok(reference),
            Taken::Stored(pack) => {
                self.borrowed.insert(pack);
                return Ok(reference);
            }
        }
        self.shared.bytes_added.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let before = self.shared.chunks_added.fetch_add(1, Ordering::Relaxed);
        if self.shared.dry_run {
            return Ok(reference);
        }
        if before == 0 {
            self.blocks.send(ToPack::Soon).map_err(|_| self.shared.over())?;
        }
        let slot = usize::from(kind.code()) - 1;
        self.open[slot].push(&id, bytes);
        if self.is_full(slot) {
            self.seal(slot)?;
        }
        Ok(reference)
    }

    /// Stores a chunk although the index has it: from where it lies now it is going to be taken away.
    pub(super) fn rewrite(&mut self, kind: ChunkType, id: &ChunkId, bytes: &[u8]) -> Result<()> {
        let slot = usize::from(kind.code()) - 1;
        self.open[slot].push(id, bytes);
        if self.is_full(slot) { self.seal(slot) } else { Ok(()) }
    }

    fn is_full(&self, slot: usize) -> bool {
        let OpenBlock { kind, raw, chunks } = &self.open[slot];
        let part = if kind.class() == Class::Meta { META_PART } else { 1 };
        raw.len() >= self.shared.block_target / part || chunks.len() >= MAX_CHUNKS
    }

    /// True if the repository has the chunk, in a pack that is durable.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn is_stored(&mut self, id: &ChunkId) -> Result<bool> {
        let pack = self.shared.known.stored_in(&id.prefix(), &self.index)?;
        self.borrowed.extend(pack);
        Ok(pack.is_some())
    }

    fn seal(&mut self, slot: usize) -> Result<()> {
        if self.open[slot].chunks.is_empty() {
            return Ok(());
        }
        let class = self.open[slot].kind.class();
        let session = self.shared.session(class);
        let (seal, own) = session.get(&self.shared.keys, class)?;
        let number = session.next_number.fetch_add(1, Ordering::Relaxed);
        let buffer = self.spare.try_recv().unwrap_or_default();
        let block = self.sealer.seal(&self.shared.keys, &own.key, number, &mut self.open[slot], buffer)?;
        self.shared.bytes_stored.fetch_add(block.bytes.len() as u64, Ordering::Relaxed);
        self.blocks.send(ToPack::Block(PackedBlock { seal: seal.clone(), block })).map_err(|_| self.shared.over())
    }

    /// Seals what is open.
    ///
    /// # Errors
    /// As [`ChunkWriter::put`].
    pub fn flush(&mut self) -> Result<()> {
        self.shared.borrowed.lock().expect("no code panics while it holds this lock").packs.extend(self.borrowed.drain());
        (0..self.open.len()).try_for_each(|slot| self.seal(slot))
    }

    /// Seals a snapshot for its record.
    pub(super) fn seal_snapshot(&mut self, id: &ChunkId, bytes: &[u8]) -> Result<SealedSnapshot> {
        let session = self.shared.session(Class::Meta);
        let (seal, own) = session.get(&self.shared.keys, Class::Meta)?;
        let number = session.next_number.fetch_add(1, Ordering::Relaxed);
        let mut block = OpenBlock::new(ChunkType::Snapshot);
        block.push(id, bytes);
        let sealed = self.sealer.seal(&self.shared.keys, &own.key, number, &mut block, Vec::new())?;
        let mut encoded = Vec::new();
        seal.encode(&mut encoded);
        Ok(SealedSnapshot {
            seal: encoded,
            number,
            codec: sealed.row.codec.code(),
            raw_len: sealed.row.raw_len,
            packed_len: sealed.row.packed_len,
            sealed: sealed.bytes,
        })
    }

    /// Where pages of a directory end.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot back up.
    pub fn page_hash(&self, name: &[u8]) -> Result<[u8; 32]> {
        self.shared.keys.page_hash(name)
    }
}
