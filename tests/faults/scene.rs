//! A repository with a past, copied for every fault.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

use crate::support::interposed::{Fate, Interposed, Verb};
use crate::support::{Bench, contents, noise};
use lifeboat::error::{Error, Result};
use lifeboat::event::Silent;
use lifeboat::ops::backup::{BackupReport, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::restore::{RestoreReport, restore};
use lifeboat::repo::{Repository, SnapshotEntry};
use lifeboat::store::{AnyStore, Key, Local, Memory, Store};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub type Tree = Vec<(PathBuf, Option<Vec<u8>>)>;

/// Two snapshots, and a source that has changed since.
pub struct Scene {
    pub bench: Bench,
    objects: Vec<(Key, Vec<u8>)>,
    pub past: Vec<Tree>,
    next: AtomicU64,
}

/// Which machine the run is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// The one that made the snapshots, with its cache.
    Same,
    /// One that has never seen the repository.
    New,
}

/// What happens at the call that is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This.
    Once(Fate),
    /// The store is away, from that call on.
    Gone,
}

/// A store with one fault in it, and what it hit.
pub struct Faulty {
    pub store: Interposed,
    hit: Arc<Mutex<Option<(Verb, String)>>>,
}

impl Faulty {
    pub fn new(below: AnyStore, at: u64, fault: Fault) -> Self {
        let hit = Arc::new(Mutex::new(None));
        let noted = hit.clone();
        let store = Interposed::new(below, move |number, verb, key| {
            let fate = match fault {
                Fault::Gone if number >= at => Fate::Fail(lifeboat::error::ErrorKind::Failed),
                Fault::Once(fate) if number == at && applies(fate, verb) => fate,
                _ => return Fate::Pass,
            };
            noted.lock().unwrap().get_or_insert((verb, key.to_owned()));
            fate
        });
        Self { store, hit }
    }

    pub fn hit(&self) -> Option<(Verb, String)> {
        self.hit.lock().unwrap().clone()
    }
}

/// Whether such a call can end so.
fn applies(fate: Fate, verb: Verb) -> bool {
    use Verb::{Create, Delete, Finish, Get, List, Put, ReadAt, Size, Stage, Write};
    match fate {
        Fate::Fail(lifeboat::error::ErrorKind::Full) => matches!(verb, Put | Create | Stage | Write | Finish),
        Fate::FailAfter(_) => matches!(verb, Put | Create | Finish | Delete),
        Fate::Tear => matches!(verb, Put | Create | Finish),
        Fate::Hide => matches!(verb, Get | ReadAt | Size | List),
        Fate::Repeat => verb == Create,
        Fate::Fail(_) | Fate::Pass => true,
    }
}

impl Scene {
    pub fn new() -> Self {
        Self::prepared(|_, _| {})
    }

    /// The first of the two snapshots is forgotten, and nothing that only it needs is gone yet.
    pub fn forgotten() -> Self {
        Self::prepared(|bench, past| {
            let repository = bench.open();
            repository.forget(&[repository.snapshots().unwrap()[0].record()]).unwrap();
            past.remove(0);
        })
    }

    fn prepared(prepare: impl FnOnce(&Bench, &mut Vec<Tree>)) -> Self {
        let bench = Bench::in_memory();
        let mut past = Vec::new();
        for version in 1..=2 {
            fill(&bench, version);
            bench.backup();
            past.push(contents(&bench.source()));
        }
        prepare(&bench, &mut past);
        let store = Local::open(&bench.repository_dir()).unwrap();
        let objects = all_objects(&store);
        fill(&bench, 3);
        Self { bench, objects, past, next: AtomicU64::new(0) }
    }

    /// The repository as it was, in memory.
    pub fn memory(&self) -> Memory {
        let memory = Memory::default();
        self.objects.iter().for_each(|(key, bytes)| memory.put(key, bytes).unwrap());
        memory
    }

    /// A machine of its own for one run.
    pub fn machine(&self, machine: Machine) -> String {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        if machine == Machine::Same {
            copy(&self.bench.path("cache"), &self.bench.path(&format!("cache-{name}")));
            copy(&self.bench.path("state"), &self.bench.path(&format!("state-{name}")));
        }
        name
    }

    /// Forgets a machine, so that the disk does not fill up.
    pub fn drop_machine(&self, name: &str) {
        for folder in ["cache", "state"] {
            let _ = std::fs::remove_dir_all(self.bench.path(&format!("{folder}-{name}")));
        }
    }

    pub fn open(&self, store: AnyStore, machine: &str) -> Result<Repository> {
        self.bench.open_over(store, machine)
    }

    pub fn backup(&self, store: AnyStore, machine: &str) -> Result<BackupReport> {
        // One worker, so that every run makes the same calls in the same order.
        let options = lifeboat::ops::backup::BackupOptions { threads: 1, ..self.bench.backup_options() };
        backup(&self.open(store, machine)?, options, &Silent)
    }

    pub fn restore(&self, repository: &Repository, entry: &SnapshotEntry, target: &Path) -> Result<RestoreReport> {
        restore(repository, entry, &self.bench.restore_options(target), &Silent)
    }

    /// Everything that was committed before comes back byte for byte, a check that reads all data finds no damage, and
    /// the next backup succeeds. Returns how many snapshots there were before that backup.
    pub fn is_unharmed(&self, memory: &Memory, machine: &str, what: &str) -> usize {
        let store: AnyStore = Arc::new(memory.clone());
        let count = self.is_whole(&store, machine, what);
        self.backup(store.clone(), machine).unwrap_or_else(|error| panic!("{what}: the next backup: {error}"));
        let stranger = self.machine(Machine::New);
        let expected: Tree = contents(&self.bench.source());
        let repository = self.open(store.clone(), &stranger).unwrap();
        let entries = repository.snapshots().unwrap();
        assert_eq!(entries.len(), count + 1, "{what}: one more snapshot");
        assert!(self.restored(&repository, entries.last().unwrap()) == expected, "{what}: the next backup");
        drop(repository);
        self.is_whole(&store, &stranger, what);
        self.drop_machine(&stranger);
        count
    }

    fn is_whole(&self, store: &AnyStore, machine: &str, what: &str) -> usize {
        let repository = self.open(store.clone(), machine).unwrap_or_else(|error| panic!("{what}: opening: {error}"));
        let entries = repository.snapshots().unwrap();
        assert!(entries.len() >= self.past.len(), "{what}: a snapshot is gone");
        for (entry, tree) in entries.iter().zip(&self.past) {
            assert!(self.restored(&repository, entry) == *tree, "{what}: snapshot {}", entry.id.short());
        }
        for later in entries.iter().skip(self.past.len()) {
            assert!(self.restored(&repository, later) == contents(&self.bench.source()), "{what}: {}", later.id.short());
        }
        let mut ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), entries.len(), "{what}: a snapshot was committed twice");
        let report = check(&repository, &CheckOptions::of_all_data(1), &Silent).unwrap();
        assert!(!report.is_damaged(), "{what}: {:?}", report.findings);
        entries.len()
    }

    pub fn restored(&self, repository: &Repository, entry: &SnapshotEntry) -> Tree {
        let target = self.bench.path(&format!("out-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let report = self.restore(repository, entry, &target).unwrap();
        assert_eq!(report.failure_count, 0, "{:?}", report.failures);
        let tree = contents(&target);
        std::fs::remove_dir_all(&target).unwrap();
        tree
    }
}

pub fn all_objects(store: &dyn Store) -> Vec<(Key, Vec<u8>)> {
    let mut keys = Vec::new();
    let taken = store.list("", &mut |entry| {
        keys.push((entry.key, entry.size));
        Ok(())
    });
    taken.unwrap();
    keys.into_iter().map(|(key, size)| (key.clone(), store.get(&key, size).unwrap())).collect()
}

/// Files that stay, files that change, and files that come and go.
pub fn fill(bench: &Bench, version: u64) {
    bench.write("same", noise(1, 70_000));
    bench.write("deep/down/same too", noise(2, 3000));
    bench.write("changing", noise(100 + version, 40_000));
    bench.write(&format!("deep/only in {version}"), noise(200 + version, 9000));
    bench.write("empty", b"");
    let _ = std::fs::remove_file(bench.source().join(format!("deep/only in {}", version - 1)));
    bench.age_source();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An error as a user should see one.
pub fn is_proper(error: &Error, what: &str) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.lines().count() == 1, "{what}: {text:?}");
    assert!([1, 10, 11, 13, 14].contains(&error.exit_code()), "{what}: exit code {}: {text}", error.exit_code());
}
