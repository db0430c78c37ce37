//! The repository: chunks in blocks in packs, an index, a log, and trees over them.
//!
//! Never knows where files come from or who asks; never prints. What it stores is durable before it is referred to,
//! and a record of the log is the one step that commits.

mod attest;
mod block;
mod cache;
mod chunker;
mod clients;
mod commit;
mod copied;
mod duplicates;
mod filter;
mod gc;
mod kept;
mod keys;
mod kit;
mod known;
mod known_damage;
mod log;
mod mirror;
mod news;
mod nodes;
mod offline;
mod pack_list;
mod packer;
mod parity;
mod pinned;
mod reader;
mod repair;
mod rescue;
mod roles;
mod rotate;
mod sealed;
mod session;
mod shards;
mod slot_memory;
mod slots;
mod sound;
mod stat;
mod surroundings;
mod thaw;
mod underway;
mod verify;
mod view;
mod wide;

pub use crate::store::Tier;
pub use cache::StatRow;
pub use chunker::Chunker;
pub use clients::{ClientInfo, Enrolled, Enrolment};
pub use copied::CopyMap;
pub use gc::{Decision, LockReport, PackDecision, PruneOptions, PruneReport, Truncation};
pub use kit::{identity_in, join_shares, parse_identity, split_identity};
pub use known_damage::Unreadable;
pub use log::{
    ATTESTED, EVERYBODY, LostRecords, Member, RecordProblem, RecordsReport, Rollback, SealedEntry, SnapshotEntry, Standing,
    StoredTime, TakeProblem, Turn,
};
pub use mirror::{MirrorOptions, MirrorReport, mirror, mirror_stores};
pub use nodes::Nodes;
pub use pack_list::{NEVER, PackList, PackSet};
pub use pinned::PinnedHead;
pub use reader::{BlockPlace, Reader};
pub use repair::{Covered, FoundSnapshot, MOST_ALIKE, Mend, Repairer, uncover};
pub use rescue::Rescued;
pub use roles::Act;
pub use rotate::{RotateOptions, RotateReport, RotatedSlot, SlotFate};
pub use session::{ChunkWriter, Session, SessionCounts};
pub use shards::{CompactOptions, CompactReport, IndexProblem, Shards};
pub use slots::{Access, NewSlot, OpenOptions, SlotInfo, default_sizes, generate_identity, recipients_of};
pub use stat::StatCache;
#[doc(hidden)]
pub use surroundings::{Lane, SideBySide, Surroundings};
pub use thaw::{THAW_DAYS, ThawOptions, ThawPlan, ThawReport, thaw_time};
pub use verify::{Depth, Lost, PackProblem, PackReport, PackVerifier, Trouble};
pub use view::Contents;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
use crate::format::key::{Bundle, Role};
use crate::format::repository::RepositoryFormat;
use crate::id::{ClientId, Fingerprint, InstanceId};
use crate::store::{AnyStore, Key, Location};
use cache::{Cache, Opened};
use keys::Keys;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// An opened repository; cheap to clone, usable from many threads.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    store: AnyStore,
    format: RepositoryFormat,
    fingerprint: Fingerprint,
    keys: Arc<Keys>,
    cache: Mutex<Cache>,
    connection: Mutex<Connection>,
    state: PathBuf,
    /// Tells this machine from others with the same identity.
    instance: InstanceId,
    mender: parity::Mender,
    rescued: Mutex<Rescued>,
    parity: Mutex<Option<u16>>,
    met: OnceLock<Error>,
    /// What was found when the repository was opened, before anybody listened.
    notices: Mutex<Vec<String>>,
    duplicates: duplicates::Duplicates,
    /// All logs were read a moment ago, and whoever is about to act says that this is new enough to begin with.
    just_opened: AtomicBool,
    /// Who holds tables of contents.
    turns: log::Turns,
    /// Parts of objects that this machine keeps, if it shall.
    kept: OnceLock<kept::Kept>,
    /// Where they are.
    parts: PathBuf,
    /// The folder of the cache, where the one that was named cannot be written; with those that were full too.
    temporary: Mutex<Vec<tempfile::TempDir>>,
    /// The parts are not believed: somebody looks at the store itself.
    unkept: AtomicBool,
}

impl Repository {
    /// Makes sure that there is a repository at `location`, before anybody is asked for a passphrase. What opening it reads is
    /// asked for meanwhile.
    ///
    /// # Errors
    /// `NoRepository`; what the store says.
    pub fn reach(location: &Location, options: &OpenOptions) -> Result<()> {
        location.open_expecting(&offline::expected(location, options)).map(drop)
    }

    /// Opens the repository at `location`: finds a slot for `access`, and brings the cache up to the log.
    ///
    /// # Errors
    /// `NoRepository`, `WrongKey`, `RolledBack`, `Damaged`, `Unsupported`.
    pub fn open(location: &Location, access: &Access, options: &OpenOptions, observer: &dyn Observer) -> Result<Self> {
        let store = location.open_expecting(&offline::expected(location, options))?;
        let Some(limit) = location.keeps() else { return Self::open_store(store, access, options, observer) };
        let repository = Self::assemble(store, access, options)?;
        std::thread::scope(|scope| {
            // It may take one more answer, which nothing else waits for.
            scope.spawn(|| repository.remember_place(location, options));
            repository.bring_up(observer)
        })?;
        repository.keep_parts(limit);
        repository.remember_seen(location, options);
        Ok(repository)
    }

    /// The same for a store that is at hand.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn open_store(store: AnyStore, access: &Access, options: &OpenOptions, observer: &dyn Observer) -> Result<Self> {
        Self::open_in(&Surroundings::default(), store, access, options, observer)
    }

    /// The same in these surroundings.
    #[doc(hidden)]
    pub fn open_in(
        surroundings: &Surroundings,
        store: AnyStore,
        access: &Access,
        options: &OpenOptions,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let repository = Self::assemble_in(surroundings, store, access, options)?;
        repository.bring_up(observer).map(|()| repository)
    }

    /// Brings the cache of a repository that is being opened up to the logs.
    fn bring_up(&self, observer: &dyn Observer) -> Result<()> {
        match self.refresh_opened(observer) {
            Err(error) if cache::is_corrupt(&error) => self.remake_cache(observer),
            Err(error) if cache::elsewhere::is_full(&error) => self.leave_full_cache(error, observer),
            other => other,
        }
    }

    /// Opens a repository to look for damage, or to mend it: what is in the way of bringing the cache up to the log is
    /// remembered ([`Repository::met`]), and the cache stays as it was.
    ///
    /// # Errors
    /// What keeps the repository from being opened at all: `NoRepository`, `WrongKey`, a damaged `format/1`.
    pub fn open_damaged(location: &Location, access: &Access, options: &OpenOptions, observer: &dyn Observer) -> Result<Self> {
        let store = location.open_expecting(&offline::expected(location, options))?;
        let repository = Self::assemble(store, access, options)?;
        match repository.refresh_opened(observer) {
            Err(error) if cache::is_corrupt(&error) => repository.remake_cache(observer)?,
            Err(error) if cache::elsewhere::is_full(&error) => repository.leave_full_cache(error, observer)?,
            Err(error) if matches!(error.kind(), ErrorKind::RolledBack | ErrorKind::Damaged) => {
                // What was asked for and not read is not what is there when it is mended.
                repository.store().expect_nothing();
                let _ = repository.inner.met.set(error);
            }
            other => other?,
        }
        Ok(repository)
    }

    /// What was in the way when the repository was opened to look for damage.
    #[must_use]
    pub fn met(&self) -> Option<&Error> {
        self.inner.met.get()
    }

    /// Fails if the store shows less than this machine has seen: what is written behind a hole in a log is read by nobody who
    /// has not seen what was there, and nobody notices the hole any more.
    fn refuse_set_back(&self) -> Result<()> {
        match self.met() {
            Some(met) if met.kind() == ErrorKind::RolledBack => Err(met.told_again().while_doing("write to the log")),
            _ => Ok(()),
        }
    }

    /// Finds a slot and opens the cache, which may be behind the log.
    fn assemble(store: AnyStore, access: &Access, options: &OpenOptions) -> Result<Self> {
        Self::assemble_in(&Surroundings::default(), store, access, options)
    }

    fn assemble_in(surroundings: &Surroundings, store: AnyStore, access: &Access, options: &OpenOptions) -> Result<Self> {
        let duplicates = duplicates::Duplicates::default();
        let (format, encoded) = duplicates::read_format(&store, &duplicates).map_err(|error| match error.kind() {
            ErrorKind::Missing => {
                Error::new(ErrorKind::NoRepository, format!("open the repository {}: there is none", store.describe()))
                    .with_hint("make one with `lifeboat init`, or check --repo")
            }
            _ => error,
        })?;
        let open = |format: &RepositoryFormat, encoded: &[u8]| {
            Self::open_bundle((&store, &duplicates), (format, encoded), access, options)
        };
        let (format, (fingerprint, bundle)) = match open(&format, &encoded) {
            Ok(opened) => (format, opened),
            Err(error) => {
                // One that was changed and can be read all the same fits no slot.
                let second = duplicates::second_format(&store, &encoded).and_then(|(format, encoded)| {
                    let opened = open(&format, &encoded).ok()?;
                    Some((format, opened))
                });
                let second = second.ok_or(error)?;
                duplicates.note(Key::format());
                second
            }
        };
        Self::with_bundle((store, duplicates), (format, fingerprint), &bundle, options, surroundings)
    }

    /// The best bundle of a repository of this format, and its fingerprint.
    fn open_bundle(
        stored: (&AnyStore, &duplicates::Duplicates),
        (format, encoded): (&RepositoryFormat, &[u8]),
        access: &Access,
        options: &OpenOptions,
    ) -> Result<(Fingerprint, Bundle)> {
        let fingerprint = format.fingerprint(encoded);
        if options.fingerprint.is_some_and(|expected| expected != fingerprint) {
            let place = stored.0.describe();
            let message = format!("open the repository {place}: its fingerprint is {fingerprint}, not the one expected");
            return Err(Error::new(ErrorKind::WrongKey, message).with_hint("this is another repository, or somebody replaced it"));
        }
        let memory = options.state_dir.join(format!("{}.slots", format.id));
        if stored.0.width() > 1 {
            // What this machine met the last time is most likely what it meets now.
            stored.0.expect(&news::of_opening(format, options, stored.0.width()));
        }
        Ok((fingerprint, slots::open_bundle(stored, access, fingerprint, &memory)?))
    }

    fn with_bundle(
        (store, duplicates): (AnyStore, duplicates::Duplicates),
        (format, fingerprint): (RepositoryFormat, Fingerprint),
        bundle: &Bundle,
        options: &OpenOptions,
        surroundings: &Surroundings,
    ) -> Result<Self> {
        let name = format.id.to_string();
        let folder = options.cache_dir.join(&name);
        let (Opened { cache, connection, notice }, temporary) = cache::elsewhere::open(&folder)?;
        let keys = Arc::new(Keys::new(bundle, surroundings.clone()));
        let state = options.state_dir.join(format!("{name}.heads"));
        let instance = log::load_instance(&options.state_dir.join(format!("{name}.instance")), surroundings)?;
        let connection = Mutex::new(connection);
        let inner = Inner {
            store,
            format,
            fingerprint,
            keys,
            cache: Mutex::new(cache),
            connection,
            state,
            instance,
            mender: parity::Mender::default(),
            rescued: Mutex::default(),
            parity: Mutex::default(),
            met: OnceLock::new(),
            kept: OnceLock::new(),
            parts: folder.join("parts"),
            temporary: Mutex::new(temporary.into_iter().collect()),
            unkept: AtomicBool::new(false),
            just_opened: AtomicBool::new(false),
            turns: log::Turns::default(),
            notices: Mutex::new(notice.into_iter().collect()),
            duplicates,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the repository was made with.
    #[must_use]
    pub fn format(&self) -> &RepositoryFormat {
        &self.inner.format
    }

    /// What people compare.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.inner.fingerprint
    }

    /// The role of the slot that was opened.
    #[must_use]
    pub fn role(&self) -> Role {
        self.inner.keys.role
    }

    /// The place in words.
    #[must_use]
    pub fn describe(&self) -> String {
        self.inner.store.describe()
    }

    /// Where the local cache is.
    #[must_use]
    pub fn cache_path(&self) -> PathBuf {
        self.cache().path().to_owned()
    }

    /// A chunker with the repository's table and sizes.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot back up.
    pub fn chunker(&self) -> Result<Chunker> {
        Ok(Chunker::new(self.inner.keys.chunker_table()?, &self.inner.format.chunks))
    }

    /// Objects in the store and their bytes, by the first part of their names.
    ///
    /// # Errors
    /// `Failed` if the store cannot be listed.
    pub fn usage(&self) -> Result<std::collections::BTreeMap<String, (u64, u64)>> {
        let mut usage = std::collections::BTreeMap::new();
        self.inner.store.list("", &mut |entry| {
            let folder = entry.key.as_str().split('/').next().unwrap_or_default().to_owned();
            let sum: &mut (u64, u64) = usage.entry(folder).or_default();
            *sum = (sum.0 + 1, sum.1 + entry.size);
            Ok(())
        })?;
        Ok(usage)
    }

    fn store(&self) -> &AnyStore {
        &self.inner.store
    }

    fn keys(&self) -> &Arc<Keys> {
        &self.inner.keys
    }

    fn cache(&self) -> Cache {
        self.inner.cache.lock().expect("no code panics while it holds this lock").clone()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.inner.connection.lock().expect("no code panics while it holds this lock")
    }

    /// The owner's client id, whose log says who else there is.
    fn owner(&self) -> ClientId {
        crate::crypto::sign::client_id(&self.inner.format.owner)
    }
}
