//! Many clients at once: writers that rely on each other's packs, maintainers that forget and prune, readers that
//! restore, all on one store and none waiting for another.
//!
//! Each works 200 rounds, or as many as a slow machine does in 40 seconds; `LIFEBOAT_ROUNDS` sets how many however long they
//! take, `LIFEBOAT_SEED` what they do.
#![expect(clippy::print_stdout, reason = "figures are printed for those who ask with --no-capture")]

mod support;

use lifeboat::error::{ErrorKind, Result};
use lifeboat::event::Silent;
use lifeboat::format::key::Role;
use lifeboat::format::log::RecordRef;
use lifeboat::id::SnapshotId;
use lifeboat::ops::backup::{BackupOptions, BackupReport, Input, backup};
use lifeboat::ops::check::{CheckOptions, ReadData, check};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::restore::restore;
use lifeboat::repo::{Access, Enrolment, NewSlot, Repository, SnapshotEntry, generate_identity};
use lifeboat::store::{AnyStore, Counts, Measured, ObjectClass, Operation};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};
use support::interposed::{Fate, Interposed};
use support::{Bench, contents, noise};
use zeroize::Zeroizing;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Numbers that look random and are the same for the same seed.
struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.thrown += 1;
        let hash = blake3::hash(&[self.seed.to_le_bytes(), self.thrown.to_le_bytes()].concat());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A machine with keys of its own.
struct Client {
    name: String,
    identity: Zeroizing<String>,
}

impl Client {
    fn enrol(bench: &Bench, role: Role, name: &str, trust: &str) -> Self {
        let (identity, recipient) = generate_identity().unwrap();
        let slot = NewSlot::Recipient(recipient);
        let enrolment = Enrolment { role, slot, name: name.into(), trust: vec![trust.into()] };
        bench.open().enrol(&bench.access(), &enrolment).unwrap();
        std::fs::create_dir_all(bench.path(name)).unwrap();
        Self { name: name.into(), identity }
    }

    fn open(&self, bench: &Bench, store: AnyStore) -> Result<Repository> {
        let access = Access { identity: Some(Zeroizing::new(self.identity.as_bytes().to_vec())), passphrase: None };
        Repository::open_store(store, &access, &bench.options_of(&self.name), &Silent)
    }

    fn source(&self, bench: &Bench) -> PathBuf {
        bench.path(&self.name)
    }

    fn back_up(&self, bench: &Bench, store: AnyStore) -> Result<BackupReport> {
        let input = Input::Paths(vec![self.source(bench)]);
        let options = BackupOptions { input, host: self.name.clone(), threads: 1, ..bench.backup_options() };
        backup(&self.open(bench, store)?, options, &Silent)
    }
}

/// What was backed up, and what somebody wanted forgotten.
#[derive(Default)]
struct Ledger {
    trees: Mutex<HashMap<SnapshotId, (String, blake3::Hash)>>,
    forgotten: Mutex<HashSet<RecordRef>>,
    backups: AtomicU64,
    cut_off: AtomicU64,
    prunes: AtomicU64,
    deleted: AtomicU64,
    restores: AtomicU64,
}

fn hash_of(dir: &std::path::Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (path, bytes) in contents(dir) {
        let (name, bytes) = (path.to_str().unwrap().to_owned(), bytes.map(|bytes| blake3::hash(&bytes)));
        hasher.update(format!("{name} {bytes:?}\n").as_bytes());
    }
    hasher.finalize()
}

/// Changes some files of a client; what they hold, others hold too, so that clients rely on each other.
fn change(dir: &std::path::Path, dice: &mut Dice) {
    for _ in 0..1 + dice.below(4) {
        let path = dir.join(format!("d{}/f{}", dice.below(3), dice.below(6)));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if dice.one_in(4) {
            let _ = std::fs::remove_file(&path);
        } else {
            let seed = dice.below(60);
            std::fs::write(&path, noise(seed, 500 + usize::try_from(seed).unwrap() * 400)).unwrap();
        }
    }
    if dice.one_in(10) {
        let _ = std::fs::remove_dir_all(dir.join("d0"));
    }
}

struct Scene<'a> {
    bench: &'a Bench,
    ledger: &'a Ledger,
    rounds: u64,
    /// When enough was done on a machine that is slow, if nobody asked for a number of rounds.
    end: Option<Instant>,
}

impl Scene<'_> {
    fn rounds(&self, of: u64) -> impl Iterator<Item = u64> + use<> {
        let end = self.end;
        (0..of).take_while(move |_| end.is_none_or(|end| Instant::now() < end))
    }

    fn store(&self) -> AnyStore {
        self.bench.location().open().unwrap()
    }

    fn writer(&self, client: &Client, mut dice: Dice) {
        let dir = client.source(self.bench);
        for _ in self.rounds(self.rounds) {
            change(&dir, &mut dice);
            if dice.one_in(40) {
                let _ = std::fs::remove_dir_all(self.bench.options_of(&client.name).cache_dir);
            }
            if dice.one_in(10) {
                // Cut off at some call; what became of it the next one sees.
                let at = dice.below(30);
                let store = Interposed::new(self.store(), move |call, _, _| match call {
                    call if call < at => Fate::Pass,
                    call if call == at => Fate::FailAfter(ErrorKind::Failed),
                    _ => Fate::Fail(ErrorKind::Failed),
                });
                match client.back_up(self.bench, store.store()) {
                    Ok(report) => self.note(client, &report, &dir),
                    Err(_) => drop(self.ledger.cut_off.fetch_add(1, Ordering::Relaxed)),
                }
                self.note_unheard(client, &dir);
                continue;
            }
            // Prunes without grace may be faster several times.
            let report = (0..20).find_map(|_| match client.back_up(self.bench, self.store()) {
                Err(error) if error.kind() == ErrorKind::InUse => None,
                other => Some(other.unwrap()),
            });
            self.note(client, &report.expect("no prune is faster that often"), &dir);
        }
    }

    fn note(&self, client: &Client, report: &BackupReport, dir: &std::path::Path) {
        assert!(!report.incomplete());
        let tree = (client.name.clone(), hash_of(dir));
        self.ledger.trees.lock().unwrap().insert(report.id.unwrap(), tree);
        self.ledger.backups.fetch_add(1, Ordering::Relaxed);
    }

    /// A backup that reported a failure may have been committed: its answer was lost.
    fn note_unheard(&self, client: &Client, dir: &std::path::Path) {
        let owner = self.bench.open_over(self.store(), &format!("owner-of-{}", client.name)).unwrap();
        let mut trees = self.ledger.trees.lock().unwrap();
        for entry in owner.all_snapshots().unwrap() {
            if entry.snapshot.host == client.name && !entry.snapshot.incomplete && !trees.contains_key(&entry.id) {
                trees.insert(entry.id, (client.name.clone(), hash_of(dir)));
            }
        }
    }

    fn pruner(&self, client: &Client, mut dice: Dice) {
        for _ in self.rounds(self.rounds) {
            let repository = client.open(self.bench, self.store()).unwrap();
            let mut by_client: BTreeMap<_, Vec<SnapshotEntry>> = BTreeMap::new();
            for entry in repository.snapshots().unwrap() {
                by_client.entry(entry.client).or_default().push(entry);
            }
            for entries in by_client.values() {
                let surplus = entries.len().saturating_sub(4);
                let going: Vec<RecordRef> =
                    entries[..surplus].iter().filter(|_| !dice.one_in(3)).map(SnapshotEntry::record).collect();
                self.ledger.forgotten.lock().unwrap().extend(&going);
                match repository.forget(&going) {
                    Ok(()) => {}
                    // The other pruner may have forgotten and pruned one of them meanwhile.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Missing, "{error}"),
                }
                if let Some(record) = going.first().filter(|_| dice.one_in(8)) {
                    match repository.unforget(&[*record]) {
                        // The other one forgets again what is surplus to it, so this proves nothing of its own.
                        Ok(()) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Missing, "{error}"),
                    }
                }
            }
            let options = PruneOptions {
                grace: if dice.one_in(5) { Duration::ZERO } else { Duration::from_secs(3600) },
                max_unused: dice.below(50) as f64 / 100.0,
                repack_small: dice.one_in(3),
                ..PruneOptions::default()
            };
            let report = prune(&repository, &options, &Silent).unwrap();
            self.ledger.deleted.fetch_add(report.pruned.deleted, Ordering::Relaxed);
            self.ledger.prunes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reader(&self, client: &Client, mut dice: Dice) {
        for round in self.rounds(self.rounds / 4) {
            let repository = client.open(self.bench, self.store()).unwrap();
            let all = repository.snapshots().unwrap();
            if all.is_empty() {
                continue;
            }
            let entry = &all[usize::try_from(dice.below(all.len() as u64)).unwrap()];
            if entry.snapshot.incomplete {
                continue;
            }
            // A prune may move what it was going to read; then it looks again.
            let whole = (0..3).find_map(|_| {
                repository.refresh(&Silent).unwrap();
                self.restored(&repository, entry, &format!("out-{round}"))
            });
            let known = self.ledger.trees.lock().unwrap().get(&entry.id).cloned();
            match (whole, known) {
                (Some(hash), Some((_, expected))) => assert_eq!(hash, expected, "snapshot {}", entry.id),
                (Some(_), None) => {}
                (None, _) => {
                    let forgotten = self.ledger.forgotten.lock().unwrap().contains(&entry.record());
                    assert!(forgotten, "snapshot {} cannot be restored, and nobody forgot it", entry.id);
                }
            }
            self.ledger.restores.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hash of what a snapshot gives; `None` if it could not be restored whole.
    fn restored(&self, repository: &Repository, entry: &SnapshotEntry, name: &str) -> Option<blake3::Hash> {
        let target = self.bench.path(name);
        let path = self.bench.path(&entry.snapshot.host).canonicalize().unwrap();
        let subpath = path.to_str().unwrap().trim_start_matches('/').as_bytes().to_vec();
        let options = lifeboat::ops::restore::RestoreOptions { subpath, threads: 1, ..self.bench.restore_options(&target) };
        let result = restore(repository, entry, &options, &Silent);
        let whole = result.is_ok_and(|report| report.failure_count == 0);
        let hash = whole.then(|| hash_of(&target));
        let _ = std::fs::remove_dir_all(&target);
        hash
    }

    /// Everything that is left can be restored, and is what was backed up; what is not left was forgotten.
    fn verify(&self) {
        let owner = self.bench.open_over(self.store(), "last").unwrap();
        prune(&owner, &PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() }, &Silent).unwrap();
        let options = CheckOptions { read_data: Some(ReadData::default()), threads: 2, ..CheckOptions::default() };
        let report = check(&owner, &options, &Silent).unwrap();
        assert!(!report.is_damaged(), "{:?}", report.findings);
        let (trees, forgotten) = (self.ledger.trees.lock().unwrap(), self.ledger.forgotten.lock().unwrap());
        let left = owner.snapshots().unwrap();
        let mut found = HashSet::new();
        for entry in left.iter().filter(|entry| !entry.snapshot.incomplete) {
            let (name, expected) = trees.get(&entry.id).unwrap_or_else(|| panic!("snapshot {}: nobody made it", entry.id));
            assert_eq!(entry.snapshot.host, *name);
            assert_eq!(self.restored(&owner, entry, "last-out"), Some(*expected), "snapshot {}", entry.id);
            found.insert(entry.id);
        }
        assert!(found.len() >= 4);
        // Every snapshot that was reported as committed stands, or somebody forgot it.
        let lost = trees.len() - found.len();
        assert!(lost <= forgotten.len(), "{lost} snapshots are gone, and {} were forgotten", forgotten.len());
    }
}

#[test]
fn four_writers_two_pruners_and_a_reader_lose_nothing() {
    let (rounds, seed) = (number("LIFEBOAT_ROUNDS", 200), number("LIFEBOAT_SEED", 1));
    let bench = Bench::in_memory();
    let writers: Vec<_> = (0..4).map(|at| Client::enrol(&bench, Role::Writer, &format!("writer{at}"), "all")).collect();
    let pruners: Vec<_> = (0..2).map(|at| Client::enrol(&bench, Role::Maintainer, &format!("pruner{at}"), "none")).collect();
    let reader = Client::enrol(&bench, Role::Reader, "reader", "none");
    let ledger = Ledger::default();
    let end = std::env::var_os("LIFEBOAT_ROUNDS").is_none().then(|| Instant::now() + Duration::from_secs(40));
    let scene = Scene { bench: &bench, ledger: &ledger, rounds, end };
    println!("seed {seed}, {rounds} rounds each");
    std::thread::scope(|scope| {
        let scene = &scene;
        for (at, client) in (0u64..).zip(&writers) {
            scope.spawn(move || scene.writer(client, Dice { seed: seed * 100 + at, thrown: 0 }));
        }
        for (at, client) in (0u64..).zip(&pruners) {
            scope.spawn(move || scene.pruner(client, Dice { seed: seed * 100 + 50 + at, thrown: 0 }));
        }
        scope.spawn(|| scene.reader(&reader, Dice { seed: seed * 100 + 90, thrown: 0 }));
    });
    scene.verify();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} backups, {} cut off, {} prunes that deleted {} packs, {} restores",
        count(&ledger.backups),
        count(&ledger.cut_off),
        count(&ledger.prunes),
        count(&ledger.deleted),
        count(&ledger.restores)
    );
    assert!(count(&ledger.backups) > 0 && count(&ledger.deleted) > 0);
}

/// What one backup of each of 20 writers asks of the store, all at once.
#[test]
fn twenty_writers_at_once_put_a_handful_of_objects_each() {
    const WRITERS: usize = 20;
    let bench = Bench::in_memory();
    for trust in ["none", "attested"] {
        let clients: Vec<_> =
            (0..WRITERS).map(|at| Client::enrol(&bench, Role::Writer, &format!("{trust}{at}"), trust)).collect();
        for (at, client) in (0u64..).zip(&clients) {
            (0..50).for_each(|file| {
                let path = client.source(&bench).join(format!("f{file}"));
                std::fs::write(path, noise(at * 1000 + file, 4000)).unwrap();
            });
        }
        for what in ["first", "second", "third"] {
            if what != "first" {
                clients.iter().for_each(|client| std::fs::write(client.source(&bench).join("f0"), what).unwrap());
            }
            let barrier = Barrier::new(WRITERS);
            let counts: Vec<Counts> = std::thread::scope(|scope| {
                let run = |client| {
                    let (bench, barrier) = (&bench, &barrier);
                    scope.spawn(move || {
                        let measured = Measured::new(bench.location().open().unwrap());
                        let store: AnyStore = Arc::new(measured.clone());
                        barrier.wait();
                        Client::back_up(client, bench, store).unwrap();
                        measured.counts()
                    })
                };
                let threads: Vec<_> = clients.iter().map(run).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let mean = |of: &dyn Fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>() as f64 / WRITERS as f64;
            let written = |counts: &Counts| counts.all(Operation::Put) + counts.all(Operation::Create);
            let (puts, bytes) = (mean(&|counts| written(counts).calls), mean(&|counts| written(counts).bytes));
            let gets = mean(&|counts| counts.all(Operation::Get).calls + counts.all(Operation::Read).calls);
            let logs = mean(&|counts| counts.of(Operation::Get, ObjectClass::Log).calls);
            println!("trust {trust}, {what} backup: {puts:.1} puts, {bytes:.0} bytes, {gets:.1} gets, {logs:.1} of logs");
            assert!(puts <= 4.0, "{what}: {puts} puts for one backup");
            if trust == "none" && what != "first" {
                assert!(gets <= 12.0, "{what}: {gets} gets, although it needs no other writer's log");
            }
        }
    }
    let owner = bench.open();
    assert_eq!(owner.snapshots().unwrap().len(), 2 * 3 * WRITERS);
    let options = CheckOptions { read_data: Some(ReadData::default()), threads: 2, ..CheckOptions::default() };
    assert!(!check(&owner, &options, &Silent).unwrap().is_damaged());
}
