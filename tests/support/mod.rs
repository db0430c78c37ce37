//! What the integration tests share: a repository of their own, and ways to look at what happens to it.
#![expect(unreachable_pub, reason = "it is a module of each test program")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part of it, one may use all")]

pub mod ahead;
pub mod counterfeit;
pub mod forge;
pub mod history;
pub mod home;
pub mod interposed;
pub mod journal;
pub mod plant;
pub mod synthetic;
pub mod team;
pub mod terminal;
pub mod versions;

use lifeboat::event::{Event, Observer, Silent};
use lifeboat::format::log::PackRef;
use lifeboat::id::PackId;
use lifeboat::ops::backup::{BackupOptions, BackupReport, Input, backup};
use lifeboat::ops::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use lifeboat::repo::{Access, NewSlot, OpenOptions, Repository, SnapshotEntry, default_sizes, generate_identity};
use lifeboat::source::files::RuleOptions;
use lifeboat::store::Location;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use zeroize::Zeroizing;

/// A temporary directory on a disk in memory where there is one with room; containers often have a tiny one.
pub fn dir_in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let is_roomy = rustix::fs::statvfs(memory).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= 1 << 30);
    let dir = if is_roomy { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.or_else(|_| tempfile::tempdir()).unwrap()
}

/// A directory with a repository, a cache, and a source.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub identity: Zeroizing<String>,
}

impl Bench {
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// On a disk in memory where there is one: for tests that make many caches, and mean no disk.
    pub fn in_memory() -> Self {
        Self::within(dir_in_memory())
    }

    /// The same without a repository.
    pub fn bare(identity: Zeroizing<String>) -> Self {
        Self { dir: dir_in_memory(), identity }
    }

    fn within(dir: tempfile::TempDir) -> Self {
        let (identity, recipient) = generate_identity().unwrap();
        let bench = Self { dir, identity };
        let sizes = default_sizes(4096).unwrap();
        let slot = NewSlot::Recipient(recipient);
        Repository::init(&bench.location(), &slot, sizes, 3, &bench.options()).unwrap();
        std::fs::create_dir(bench.source()).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn source(&self) -> PathBuf {
        self.path("source")
    }

    pub fn repository_dir(&self) -> PathBuf {
        self.path("repository")
    }

    pub fn location(&self) -> Location {
        Location::directory(&self.repository_dir())
    }

    /// The options of another machine: a cache and a memory of its own.
    pub fn options_of(&self, machine: &str) -> OpenOptions {
        let (cache, state) = (format!("cache-{machine}"), format!("state-{machine}"));
        OpenOptions { cache_dir: self.path(&cache), state_dir: self.path(&state), fingerprint: None }
    }

    /// The repository as another machine sees it, over a store of the test's.
    pub fn open_over(&self, store: lifeboat::store::AnyStore, machine: &str) -> lifeboat::error::Result<Repository> {
        Repository::open_store(store, &self.access(), &self.options_of(machine), &Silent)
    }

    pub fn options(&self) -> OpenOptions {
        OpenOptions { cache_dir: self.path("cache"), state_dir: self.path("state"), fingerprint: None }
    }

    pub fn access(&self) -> Access {
        Access { identity: Some(Zeroizing::new(self.identity.as_bytes().to_vec())), passphrase: None }
    }

    pub fn try_open(&self) -> lifeboat::error::Result<Repository> {
        Repository::open(&self.location(), &self.access(), &self.options(), &Silent)
    }

    pub fn open(&self) -> Repository {
        self.try_open().unwrap()
    }

    pub fn backup_options(&self) -> BackupOptions {
        BackupOptions {
            input: Input::Paths(vec![self.source()]),
            kind: "full".into(),
            tags: Vec::new(),
            description: String::new(),
            host: "test".into(),
            user: String::new(),
            rules: RuleOptions::default(),
            atime: false,
            reread: false,
            settle: lifeboat::ops::backup::SETTLE,
            dry_run: false,
            threads: 3,
            metadata: Vec::new(),
            retain_until: None,
            checkpoint: lifeboat::ops::backup::CheckpointOptions::default(),
        }
    }

    pub fn backup(&self) -> BackupReport {
        backup(&self.open(), self.backup_options(), &Silent).unwrap()
    }

    /// The same, and the next one believes the times of all that was there, however fresh it is.
    pub fn settled_backup(&self) -> BackupReport {
        let options = BackupOptions { settle: std::time::Duration::ZERO, ..self.backup_options() };
        backup(&self.open(), options, &Silent).unwrap()
    }

    pub fn latest(&self) -> SnapshotEntry {
        self.open().snapshots().unwrap().pop().unwrap()
    }

    /// The path of the source within snapshots.
    pub fn subpath(&self) -> Vec<u8> {
        let path = self.source().canonicalize().unwrap();
        path.to_str().unwrap().trim_start_matches('/').as_bytes().to_vec()
    }

    pub fn restore_options(&self, target: &Path) -> RestoreOptions {
        RestoreOptions { subpath: self.subpath(), ..self.restore_options_to(target) }
    }

    /// The same for a whole snapshot.
    pub fn restore_options_to(&self, target: &Path) -> RestoreOptions {
        RestoreOptions {
            target: target.to_owned(),
            subpath: Vec::new(),
            include: Vec::new(),
            exclude: RuleOptions::default(),
            overwrite: Overwrite::Refuse,
            delete: false,
            dry_run: false,
            verify: false,
            numeric_ids: false,
            no_owner: false,
            salvage: false,
            thaw: lifeboat::ops::thaw::ThawOptions::default(),
            threads: 3,
        }
    }

    pub fn restore(&self, entry: &SnapshotEntry, target: &Path) -> RestoreReport {
        restore(&self.open(), entry, &self.restore_options(target), &Silent).unwrap()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.source().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Makes everything in the source old, so that the stat cache may believe its times.
    pub fn age_source(&self) {
        age(&self.source());
    }

    /// Backs up versions of a small file until two packs are as long as each other in all of their parts, and returns
    /// those; how long a pack is depends on chance. `done` is called after each backup.
    pub fn twins(&self, name: &str, mut done: impl FnMut(&BackupReport)) -> [PathBuf; 2] {
        let mut known = std::collections::BTreeMap::new();
        for version in 0..50 {
            let before = self.open().packs().unwrap();
            self.write(name, noise(1000 + version, 1000));
            done(&self.backup());
            let now = self.open().packs().unwrap();
            let is_new = |pack: &PackRef| before.find(&pack.id).unwrap().is_none();
            for pack in now.iter().map(Result::unwrap).filter(is_new) {
                let path = |id: &PackId| self.repository_dir().join(format!("packs/{}/{id}", &id.to_string()[..2]));
                match known.insert((pack.size, pack.toc_len), (version, pack.id)) {
                    Some((other, id)) if other != version => return [path(&id), path(&pack.id)],
                    _ => {}
                }
            }
        }
        panic!("fifty packs of different lengths");
    }

    /// All objects of the repository below a folder.
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files(&self.repository_dir().join(folder), &mut found);
        found.sort();
        found
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn age(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_file() {
            let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        } else if path.is_dir() {
            age(&path);
        }
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Changes bytes of a file that may be read-only.
pub fn tamper(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The files below a directory with their content, sorted.
pub fn contents(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    fn walk(top: &Path, dir: &Path, out: &mut Vec<(PathBuf, Option<Vec<u8>>)>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(top).unwrap().to_owned();
            if path.is_dir() {
                out.push((name, None));
                walk(top, &path, out);
            } else {
                out.push((name, Some(std::fs::read(&path).unwrap())));
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    out.sort();
    out
}

/// An observer that keeps failures, and asks for a stop when told.
#[derive(Default)]
pub struct Recorder {
    pub failures: Mutex<Vec<String>>,
    pub warnings: Mutex<Vec<String>>,
    pub stop: std::sync::atomic::AtomicBool,
}

impl Observer for Recorder {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Failure { path, error } => {
                self.failures.lock().unwrap().push(format!("{}: {error}", String::from_utf8_lossy(path)));
            }
            Event::Warning(text) => self.warnings.lock().unwrap().push(text.into()),
            _ => {}
        }
    }

    fn interrupted(&self) -> bool {
        self.stop.load(std::sync::atomic::Ordering::Relaxed)
    }
}
