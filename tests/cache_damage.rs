//! A local cache that is damaged: every verb goes on with one that is made anew, and none believes what it says.

mod support;

use lifeboat::event::Silent;
use lifeboat::id::PackId;
use lifeboat::ops::backup::{BackupOptions, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::forget::{Allow, Survey, forget};
use lifeboat::ops::ls::{LsOptions, ls};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::restore::restore;
use lifeboat::repo::{NEVER, Repository, SnapshotEntry};
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::interposed::{Fate, Interposed};
use support::{Bench, Recorder, contents, noise};

const PAGE: usize = 4096;

type Tree = Vec<(PathBuf, Option<Vec<u8>>)>;

/// A repository with a past, as it is before each damage.
struct Scene {
    bench: Bench,
    /// What each snapshot holds.
    trees: BTreeMap<String, Tree>,
    /// The number of the call at which the cache is taken away.
    taken_at: Option<u64>,
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
}

impl Scene {
    /// Snapshots that share chunks, one that was pruned, and one that was forgotten; the source differs from all.
    fn new() -> Self {
        let bench = Bench::in_memory();
        let mut trees = BTreeMap::new();
        for number in 0..30u64 {
            bench.write(&format!("{}/{number}", number % 3), noise(number, 3_000));
        }
        bench.write("gone", noise(1000, 20_000));
        bench.settled_backup();
        std::fs::remove_file(bench.source().join("gone")).unwrap();
        let mut scene = Self { bench, trees: BTreeMap::new(), taken_at: None };
        for round in 0..3u64 {
            scene.bench.write(&format!("{round}/new"), noise(100 + round, 30_000));
            scene.bench.write("1/1", noise(200 + round, 3_000));
            scene.bench.age_source();
            let id = scene.bench.settled_backup().id.unwrap();
            trees.insert(id.to_string(), contents(&scene.bench.source()));
        }
        scene.forget_oldest();
        scene.prune();
        scene.forget_oldest();
        scene.bench.write("gone", noise(1000, 20_000));
        scene.bench.write("0/fresh", noise(300, 9_000));
        scene.trees = trees;
        scene.lay_down();
        for folder in ["repository", "cache", "state"] {
            copy(&scene.bench.path(folder), &scene.bench.path(&format!("saved-{folder}")));
        }
        scene
    }

    fn cache(&self) -> PathBuf {
        let folder = std::fs::read_dir(self.bench.path("cache")).unwrap().flatten().next().unwrap();
        folder.path().join("cache.sqlite")
    }

    /// Nothing waits in the log of SQLite: all of it is in the file.
    fn lay_down(&self) {
        let connection = Connection::open(self.cache()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }

    fn reset(&self) {
        for folder in ["repository", "cache", "state"] {
            copy(&self.bench.path(&format!("saved-{folder}")), &self.bench.path(folder));
        }
        let _ = std::fs::remove_dir_all(self.bench.path("out"));
    }

    fn open(&self) -> Repository {
        let Some(at) = self.taken_at else { return self.bench.open() };
        let cache = self.bench.path("cache");
        let store = Interposed::new(self.bench.location().open().unwrap(), move |number, _, _| {
            if number == at {
                std::fs::remove_dir_all(&cache).unwrap();
            }
            Fate::Pass
        });
        Repository::open_store(store.store(), &self.bench.access(), &self.bench.options(), &Silent).unwrap()
    }

    fn forget_oldest(&self) {
        let repository = self.open();
        let oldest = repository.snapshots().unwrap()[0].id.to_string();
        let plan = Survey::of_names(&repository, &[oldest]).unwrap().plan_all();
        forget(&repository, &plan, Allow::Everything, &Silent).unwrap();
    }

    fn prune(&self) {
        let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
        prune(&self.open(), &options, &Silent).unwrap();
    }

    fn backup(&self) -> Tree {
        let repository = self.open();
        let options = BackupOptions { settle: Duration::ZERO, ..self.bench.backup_options() };
        let report = backup(&repository, options, &Silent).unwrap();
        assert!(!report.incomplete(), "{:?}", report.snapshot.failures);
        contents(&self.bench.source())
    }

    fn restored(&self, entry: &SnapshotEntry) -> Tree {
        let out = self.bench.path("out");
        let _ = std::fs::remove_dir_all(&out);
        let report = restore(&self.open(), entry, &self.bench.restore_options(&out), &Silent).unwrap();
        assert_eq!((report.failure_count, report.damaged), (0, false));
        contents(&out)
    }

    fn verb(&self, verb: Verb) {
        match verb {
            Verb::Snapshots => assert_eq!(self.open().snapshots().unwrap().len(), 2),
            Verb::Ls => {
                let (repository, mut listed) = (self.open(), 0);
                let latest = repository.snapshots().unwrap().pop().unwrap();
                let options = LsOptions { path: self.bench.subpath(), recursive: true };
                ls(&repository, &latest, &options, &Silent, &mut |_, _| {
                    listed += 1;
                    Ok(())
                })
                .unwrap();
                assert_eq!(listed, self.trees[&latest.id.to_string()].len());
            }
            Verb::Restore => {
                let latest = self.bench.latest();
                assert!(self.restored(&latest) == self.trees[&latest.id.to_string()]);
            }
            Verb::Check => {
                let report = check(&self.open(), &CheckOptions::of_all_data(1), &Silent).unwrap();
                assert!(!report.is_damaged(), "{:?}", report.findings);
            }
            Verb::Backup => {
                let tree = self.backup();
                same(&self.restored(&self.bench.latest()), &tree);
            }
            Verb::Forget => self.forget_oldest(),
            Verb::Prune => self.prune(),
        }
    }

    /// Whatever was done: every snapshot that is kept is what it was, as a machine sees it that has no cache.
    fn verify(&self) {
        std::fs::remove_dir_all(self.bench.path("cache")).unwrap();
        let repository = self.open();
        for entry in repository.snapshots().unwrap() {
            if let Some(tree) = self.trees.get(&entry.id.to_string()) {
                assert!(self.restored(&entry) == *tree, "{} is not what it was", entry.id);
            }
        }
    }
}

/// Fails with the names of what differs.
fn same(found: &Tree, expected: &Tree) {
    let differing = |of: &Tree, from: &Tree| -> Vec<PathBuf> {
        of.iter().filter(|entry| !from.contains(entry)).map(|(path, _)| path.clone()).collect()
    };
    assert!(found == expected, "{:?} instead of {:?}", differing(found, expected), differing(expected, found));
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Snapshots,
    Ls,
    Restore,
    Check,
    Backup,
    Forget,
    Prune,
}

const VERBS: [Verb; 7] = [Verb::Backup, Verb::Restore, Verb::Prune, Verb::Ls, Verb::Check, Verb::Forget, Verb::Snapshots];

type Damage = Box<dyn Fn(&mut [u8])>;

fn damages(page: usize) -> Vec<(&'static str, Damage)> {
    let flip = move |seed: u64| -> Damage {
        let drawn = noise(seed * 1_000_003 + page as u64, 3);
        let at = usize::from(u16::from_le_bytes([drawn[0], drawn[1]])) % PAGE;
        Box::new(move |bytes| bytes[at] ^= 1 << (drawn[2] % 8))
    };
    vec![
        ("zeros", Box::new(|bytes: &mut [u8]| bytes.fill(0))),
        ("noise", Box::new(move |bytes: &mut [u8]| bytes.copy_from_slice(&noise(page as u64, bytes.len())))),
        ("the header of the page", Box::new(|bytes: &mut [u8]| bytes[3] ^= 1)),
        ("a bit", flip(1)),
        ("another bit", flip(2)),
    ]
}

#[test]
fn whichever_page_is_damaged_every_verb_does_its_work() {
    let scene = Scene::new();
    let pages = std::fs::metadata(scene.cache()).unwrap().len() as usize / PAGE;
    let mut turn = 0;
    for page in 0..pages {
        for (name, damage) in damages(page) {
            let verb = VERBS[turn % VERBS.len()];
            turn += 1;
            scene.reset();
            let mut bytes = std::fs::read(scene.cache()).unwrap();
            damage(&mut bytes[page * PAGE..][..PAGE]);
            std::fs::write(scene.cache(), bytes).unwrap();
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                scene.verb(verb);
                scene.verify();
            }));
            assert!(done.is_ok(), "page {page} of {pages}, {name}, {verb:?}");
        }
    }
}

#[test]
fn wherever_the_log_of_the_cache_is_damaged_every_verb_does_its_work() {
    let mut scene = Scene::new();
    scene.reset();
    {
        // While it is open, its log stays.
        let _open = scene.open();
        let tree = scene.backup();
        scene.trees.insert(scene.bench.latest().id.to_string(), tree);
        scene.forget_oldest();
        for folder in ["repository", "cache", "state"] {
            copy(&scene.bench.path(folder), &scene.bench.path(&format!("saved-{folder}")));
        }
    }
    let log = |scene: &Scene| PathBuf::from(format!("{}-wal", scene.cache().display()));
    scene.reset();
    let length = std::fs::metadata(log(&scene)).unwrap().len() as usize;
    assert!(length > 10 * PAGE);
    for (turn, at) in (0..length).step_by(length / 40).enumerate() {
        let verb = VERBS[turn % VERBS.len()];
        scene.reset();
        let mut bytes = std::fs::read(log(&scene)).unwrap();
        match turn % 3 {
            0 => bytes[at] ^= 4,
            1 => bytes[at..(at + PAGE).min(length)].fill(0),
            _ => bytes.truncate(at),
        }
        std::fs::write(log(&scene), bytes).unwrap();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scene.verb(verb);
            scene.verify();
        }));
        assert!(done.is_ok(), "offset {at} of {length}, {verb:?}");
    }
}

/// A connection whose changes no sum follows: as bits that flip.
fn silently(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    for name in ["plus_row", "minus_row"] {
        let same = |context: &rusqlite::functions::Context<'_>| context.get::<i64>(0);
        connection.create_scalar_function(name, -1, FunctionFlags::SQLITE_UTF8, same).unwrap();
    }
    connection
}

fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Every single change of one value, and every loss of one row, of each table that has any.
fn changes(path: &Path) -> Vec<String> {
    let connection = silently(path);
    let mut changes = Vec::new();
    for table in texts(&connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'") {
        let count: i64 = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        if count == 0 {
            continue;
        }
        let keys = texts(&connection, &format!("SELECT name FROM pragma_table_info('{table}') WHERE pk > 0")).join(", ");
        let last = format!("({keys}) IN (SELECT {keys} FROM {table} ORDER BY {keys} DESC LIMIT 1)");
        changes.push(format!("DELETE FROM {table} WHERE {last}"));
        for column in texts(&connection, &format!("SELECT name FROM pragma_table_info('{table}')")) {
            let changed = format!(
                "CASE typeof({column}) WHEN 'integer' THEN {column} + 1 WHEN 'text' THEN {column} || 'x'
                 ELSE cast(substr({column}, 1, length({column}) - 1) || x'5a' AS BLOB) END"
            );
            changes.push(format!("UPDATE OR IGNORE {table} SET {column} = {changed} WHERE {last}"));
        }
    }
    changes
}

#[test]
fn no_value_of_the_cache_is_believed_that_was_not_written() {
    let scene = Scene::new();
    let changes = changes(&scene.cache());
    assert!(changes.len() > 80, "{}", changes.len());
    for (turn, change) in changes.iter().enumerate() {
        scene.reset();
        silently(&scene.cache()).execute(change, []).unwrap();
        let verbs = if turn % 2 == 0 { [Verb::Prune, Verb::Backup] } else { [Verb::Backup, Verb::Prune] };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            verbs.iter().for_each(|verb| scene.verb(*verb));
            scene.verify();
        }));
        assert!(done.is_ok(), "{change}, {verbs:?}");
    }
}

#[test]
fn a_row_that_survived_its_pack_lends_nothing() {
    let scene = Scene::new();
    scene.reset();
    let connection = silently(&scene.cache());
    // As if the number of the pack had been another one when its rows were removed: all chunks there are, in each pack.
    connection.execute_batch("UPDATE chunk SET pack = (SELECT max(no) FROM pack WHERE no <> chunk.pack)").unwrap();
    drop(connection);
    let tree = scene.backup();
    assert!(scene.restored(&scene.bench.latest()) == tree);
    scene.verify();
}

#[test]
fn whenever_the_cache_is_taken_away_every_verb_goes_on() {
    let mut scene = Scene::new();
    for verb in [Verb::Backup, Verb::Restore, Verb::Prune, Verb::Check, Verb::Ls, Verb::Forget] {
        for call in (0..40).step_by(3) {
            scene.reset();
            scene.taken_at = Some(call);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene.verb(verb)));
            scene.taken_at = None;
            assert!(done.is_ok(), "call {call}, {verb:?}");
            let _ = std::fs::create_dir(scene.bench.path("cache"));
            scene.verify();
        }
    }
}

/// When each pack was read whole, of those that were.
fn times(repository: &Repository) -> HashMap<PackId, i64> {
    let packs = repository.packs().unwrap();
    let read = packs.iter().map(|pack| pack.unwrap().id).zip(repository.packs_read(&packs).unwrap());
    read.filter(|(_, time)| *time != NEVER).collect()
}

#[test]
fn what_the_store_does_not_tell_is_carried_over() {
    let scene = Scene::new();
    scene.reset();
    check(&scene.open(), &CheckOptions::of_all_data(1), &Silent).unwrap();
    let read = times(&scene.open());
    assert!(!read.is_empty());
    scene.lay_down();
    let connection = silently(&scene.cache());
    connection.execute("DELETE FROM head", []).unwrap();
    connection.execute("UPDATE verified SET time = time + 1 WHERE pack = (SELECT max(pack) FROM verified)", []).unwrap();
    drop(connection);
    let recorder = Recorder::default();
    let repository = Repository::open(&scene.bench.location(), &scene.bench.access(), &scene.bench.options(), &recorder).unwrap();
    assert_eq!(recorder.warnings.lock().unwrap().len(), 1, "one line says so");
    let kept = times(&repository);
    assert_eq!(kept.len(), read.len() - 1, "all but the row that was changed");
    assert!(kept.iter().all(|(pack, time)| read[pack] == *time));
    drop(repository);
    // What the files looked like is known as well: only what is new is read.
    let repository = scene.open();
    let report = backup(&repository, scene.bench.backup_options(), &Silent).unwrap();
    assert!(report.snapshot.counts.bytes_read < 60_000, "{}", report.snapshot.counts.bytes_read);
}

#[test]
fn a_process_that_has_the_old_cache_open_commits_nothing_by_it() {
    let scene = Scene::new();
    scene.reset();
    let old = scene.open();
    silently(&scene.cache()).execute("DELETE FROM head", []).unwrap();
    let new = scene.open();
    for repository in [&old, &new] {
        let options = BackupOptions { settle: Duration::ZERO, ..scene.bench.backup_options() };
        backup(repository, options, &Silent).unwrap();
    }
    let tree = contents(&scene.bench.source());
    let snapshots = scene.open().snapshots().unwrap();
    assert_eq!(snapshots.len(), 4);
    assert!(snapshots[2..].iter().all(|entry| scene.restored(entry) == tree));
    scene.verify();
}
