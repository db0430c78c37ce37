//! Lists of operations on a repository in memory, compared with a plain model: which snapshots there are, and what is in
//! each of them.

use lifeboat::event::Silent;
use lifeboat::ops::backup::{BackupOptions, CheckpointOptions, Input, SETTLE, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::repo::{Access, NewSlot, OpenOptions, Repository, SnapshotEntry, default_sizes, generate_identity};
use lifeboat::source::files::RuleOptions;
use lifeboat::store::{AnyStore, Memory};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Operations in a list; what comes after is not looked at.
const MOST: usize = 24;

static IDENTITY: LazyLock<(zeroize::Zeroizing<String>, String)> = LazyLock::new(|| generate_identity().expect("randomness"));

/// Where a snapshot is, as the model sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Held,
    /// `pruned` if a prune has run since: then it may be gone.
    Forgotten {
        pruned: bool,
    },
}

struct World {
    store: AnyStore,
    folder: tempfile::TempDir,
    /// In the order of their commits: content and state.
    model: Vec<(Vec<u8>, State)>,
    /// By their records, so that several of the same content are told apart.
    numbers: BTreeMap<(String, u64), usize>,
}

/// Reads pairs of bytes as operations, and compares after each.
pub(crate) fn run(data: &[u8]) {
    let mut world = World::new();
    for pair in data.chunks_exact(2).take(MOST) {
        world.step(pair[0], pair[1]);
        world.compare(pair[0]);
    }
    let repository = world.open(0);
    let options = CheckOptions::of_all_data(1);
    let report = check(&repository, &options, &Silent).expect("a check");
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

/// Up to eight pieces, each there or not: what two contents share is stored once.
fn content(choice: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in (0..8).filter(|bit| choice & (1 << bit) != 0) {
        let mut bytes = vec![0; 3000 + 9000 * piece];
        blake3::Hasher::new().update(&[piece as u8]).finalize_xof().fill(&mut bytes);
        out.extend_from_slice(&bytes);
    }
    out
}

fn number(entry: &SnapshotEntry) -> (String, u64) {
    (entry.client.to_string(), entry.seq)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let store: AnyStore = Arc::new(Memory::default());
        let world = Self { store, folder, model: Vec::new(), numbers: BTreeMap::new() };
        let (slot, sizes) = (NewSlot::Recipient(IDENTITY.1.clone()), default_sizes(4096).expect("a valid size"));
        let store = world.store.clone();
        Repository::init_store(|| Ok(store), &slot, sizes, 3, &world.options(0)).expect("an init");
        world
    }

    fn options(&self, machine: u8) -> OpenOptions {
        let path = |what: &str| self.folder.path().join(format!("{what}-{machine}"));
        OpenOptions { cache_dir: path("cache"), state_dir: path("state"), fingerprint: None }
    }

    /// The repository as one of two machines of the same owner sees it.
    fn open(&self, machine: u8) -> Repository {
        let identity = zeroize::Zeroizing::new(IDENTITY.0.as_bytes().to_vec());
        let access = Access { identity: Some(identity), passphrase: None };
        Repository::open_store(self.store.clone(), &access, &self.options(machine & 1), &Silent).expect("opening")
    }

    fn entry(&self, repository: &Repository, number: usize) -> Option<SnapshotEntry> {
        let all = repository.snapshots().expect("a list");
        all.into_iter().find(|entry| self.numbers.get(&self::number(entry)) == Some(&number))
    }

    fn step(&mut self, operation: u8, choice: u8) {
        let machine = operation >> 7;
        let chosen = if self.model.is_empty() { 0 } else { usize::from(choice) % self.model.len() };
        match operation % 8 {
            0 | 1 => self.back_up(machine, choice),
            2 => self.forget(machine, chosen),
            3 => self.unforget(machine, chosen),
            4 => self.hold(machine, chosen),
            5 => self.unhold(machine, chosen),
            6 => self.prune(machine, choice),
            _ => {
                let _ = std::fs::remove_dir_all(self.options(machine).cache_dir);
            }
        }
    }

    fn back_up(&mut self, machine: u8, choice: u8) {
        let content = content(choice);
        let reader = Box::new(std::io::Cursor::new(content.clone()));
        let input = Input::Stream { name: b"stream".to_vec(), reader, finish: Box::new(|| Ok(())) };
        let options = BackupOptions {
            input,
            kind: "full".into(),
            tags: Vec::new(),
            description: String::new(),
            host: "fuzz".into(),
            user: String::new(),
            rules: RuleOptions::default(),
            atime: false,
            reread: false,
            settle: SETTLE,
            dry_run: false,
            threads: 1,
            metadata: Vec::new(),
            retain_until: None,
            checkpoint: CheckpointOptions::default(),
        };
        let repository = self.open(machine);
        let report = backup(&repository, options, &Silent).expect("a backup");
        let known = |entry: &SnapshotEntry| self.numbers.contains_key(&number(entry));
        let all = repository.snapshots().expect("a list");
        let new = all.iter().find(|entry| !known(entry)).expect("the snapshot is there");
        assert_eq!(Some(new.id), report.id);
        self.numbers.insert(number(new), self.model.len());
        self.model.push((content, State::Live));
    }

    fn forget(&mut self, machine: u8, chosen: usize) {
        let repository = self.open(machine);
        let Some(entry) = self.entry(&repository, chosen) else { return };
        let forgotten = repository.forget(&[entry.record()]);
        let state = &mut self.model[chosen].1;
        assert_eq!(forgotten.is_ok(), *state == State::Live, "{state:?}: {forgotten:?}");
        if forgotten.is_ok() {
            *state = State::Forgotten { pruned: false };
        }
    }

    fn unforget(&mut self, machine: u8, chosen: usize) {
        let Some((_, State::Forgotten { pruned })) = self.model.get(chosen).cloned() else { return };
        let repository = self.open(machine);
        let all = repository.all_snapshots().expect("a list");
        let is_it = |entry: &SnapshotEntry| self.numbers.get(&number(entry)) == Some(&chosen);
        let Some(entry) = all.into_iter().find(|entry| is_it(entry)) else {
            return assert!(pruned, "it is gone without a prune");
        };
        match repository.unforget(&[entry.record()]) {
            Ok(()) => self.model[chosen].1 = State::Live,
            Err(error) => assert!(pruned, "{error}"),
        }
    }

    fn hold(&mut self, machine: u8, chosen: usize) {
        let repository = self.open(machine);
        let Some(entry) = self.entry(&repository, chosen) else { return };
        repository.hold(&[entry.record()], "a reason").expect("a hold");
        self.model[chosen].1 = State::Held;
    }

    fn unhold(&mut self, machine: u8, chosen: usize) {
        let repository = self.open(machine);
        let Some(entry) = self.entry(&repository, chosen) else { return };
        repository.unhold(&[entry.record()]).expect("the end of a hold");
        self.model[chosen].1 = State::Live;
    }

    fn prune(&mut self, machine: u8, choice: u8) {
        let options = PruneOptions {
            grace: Duration::ZERO,
            max_unused: f64::from(choice % 4) / 4.0,
            repack_small: choice & 4 != 0,
            dry_run: choice & 24 == 24,
            ..PruneOptions::default()
        };
        let report = prune(&self.open(machine), &options, &Silent).expect("a prune");
        assert_eq!(report.pruned.missing, 0);
        if !options.dry_run {
            for (_, state) in &mut self.model {
                if let State::Forgotten { pruned } = state {
                    *pruned = true;
                }
            }
        }
    }

    /// Exactly the snapshots of the model are there, and each has its content.
    fn compare(&self, operation: u8) {
        let repository = self.open(operation >> 6);
        let mut found: Vec<usize> = Vec::new();
        for entry in repository.snapshots().expect("a list") {
            let number = *self.numbers.get(&number(&entry)).expect("a snapshot that nobody made");
            let (content, state) = &self.model[number];
            assert_eq!(entry.is_held(), *state == State::Held);
            assert!(read(&repository, &entry) == *content, "snapshot {number} has another content");
            found.push(number);
        }
        found.sort_unstable();
        let stands = |state: &State| matches!(state, State::Live | State::Held);
        let expected: Vec<usize> =
            self.model.iter().enumerate().filter(|(_, (_, state))| stands(state)).map(|(number, _)| number).collect();
        assert_eq!(found, expected);
    }
}

fn read(repository: &Repository, entry: &SnapshotEntry) -> Vec<u8> {
    let reader = repository.reader().expect("a reader");
    let node = reader.resolve(&entry.snapshot.root, b"stream").expect("the file");
    let mut out = Vec::new();
    reader.write_file(&node, &mut out).expect("its content");
    out
}
