//! Damage as a matrix: what is done × to which object × what is run next. Never a panic or a wait without end, never a
//! wrong byte restored, never fewer files that can be restored than before, and the right exit code.

mod support;

use lifeboat::error::{Error, Result};
use lifeboat::event::Silent;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::repair::{RepairOptions, repair};
use lifeboat::ops::restore::restore;
use lifeboat::repo::{CompactOptions, OpenOptions, Repository};
use lifeboat::store::Location;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;
use support::versions::copy_tree;
use support::{Bench, contents, noise, tamper};

/// No command may take longer.
const DEADLINE: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Flip,
    Truncate,
    Zero,
    Delete,
    SwapTwo,
    ReplayOld,
    Extra,
}

const ACTIONS: [Action; 7] =
    [Action::Flip, Action::Truncate, Action::Zero, Action::Delete, Action::SwapTwo, Action::ReplayOld, Action::Extra];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Format,
    Slot,
    Record,
    LastRecord,
    MetaPack,
    DataPack,
    TwinPack,
    Index,
    Condemn,
    Plan,
    Parity,
    Cache,
}

const OBJECTS: [Object; 12] = [
    Object::Format,
    Object::Slot,
    Object::Record,
    Object::LastRecord,
    Object::MetaPack,
    Object::DataPack,
    Object::TwinPack,
    Object::Index,
    Object::Condemn,
    Object::Plan,
    Object::Parity,
    Object::Cache,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Backup,
    Restore,
    Check,
    Repair,
    Prune,
}

const COMMANDS: [Command; 5] = [Command::Backup, Command::Restore, Command::Check, Command::Repair, Command::Prune];

/// What was backed up, by the time of the snapshot.
type Trees = BTreeMap<i64, Vec<(PathBuf, Option<Vec<u8>>)>>;

/// A repository with a past: backups, a forgotten one, a prune, and parity beside the newest packs.
struct Template {
    bench: Bench,
    trees: Trees,
    /// Two packs of the same length.
    twins: [PathBuf; 2],
}

impl Template {
    fn new() -> Self {
        let bench = Bench::new();
        let mut trees = Trees::new();
        for round in 0..3u64 {
            for number in 0..5 {
                bench.write(&format!("{round}/{number}"), noise(round * 10 + number, 9000));
            }
            bench.write("changing", noise(100 + round, 20_000));
            let repository = bench.open();
            // Only one of the packs has parity, so that there is damage that nothing mends.
            repository.set_parity(if round == 2 { 50 } else { 0 });
            let report = backup(&repository, bench.backup_options(), &Silent).unwrap();
            trees.insert(report.snapshot.start, contents(&bench.source()));
            if round == 1 {
                let first = repository.snapshots().unwrap()[0].record();
                repository.forget(&[first]).unwrap();
                prune_now(&repository).unwrap();
            }
        }
        let twins = bench.twins("twin", |report| {
            trees.insert(report.snapshot.start, contents(&bench.source()));
        });
        let twins = twins.map(|twin| twin.strip_prefix(bench.dir.path()).unwrap().to_owned());
        // Index objects of a few entries each.
        let compact = CompactOptions { entries: 20, everything: true, ..CompactOptions::default() };
        assert!(bench.open().compact_index(&compact, &Silent).unwrap().shards > 1);
        bench.open();
        Self { bench, trees, twins }
    }
}

fn prune_now(repository: &Repository) -> Result<()> {
    let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
    prune(repository, &options, &Silent).map(drop)
}

/// A copy of the template that may be damaged.
struct Scene<'a> {
    template: &'a Template,
    dir: tempfile::TempDir,
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() { files(&entry.path(), found) } else { found.push(entry.path()) }
    }
    found.sort();
}

impl<'a> Scene<'a> {
    fn new(template: &'a Template) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for part in ["repository", "cache", "state"] {
            copy_tree(&template.bench.path(part), &dir.path().join(part));
        }
        Self { template, dir }
    }

    fn objects(&self, object: Object) -> Vec<PathBuf> {
        let below = |folder: &str| {
            let mut found = Vec::new();
            files(&self.dir.path().join(folder), &mut found);
            found
        };
        let by_length = || {
            let mut packs = below("repository/packs");
            packs.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
            packs
        };
        let named = |folder: &str, end: &str| {
            let mut found = below(folder);
            found.retain(|path| path.to_string_lossy().ends_with(end));
            found
        };
        match object {
            Object::Format => below("repository/format"),
            Object::Slot => below("repository/keys"),
            Object::Record => below("repository/log").into_iter().skip(2).collect(),
            Object::LastRecord => below("repository/log").into_iter().rev().collect(),
            Object::MetaPack => by_length(),
            Object::DataPack => by_length().into_iter().rev().collect(),
            Object::TwinPack => self.template.twins.iter().map(|twin| self.dir.path().join(twin)).collect(),
            Object::Index => below("repository/index"),
            Object::Condemn => named("repository/gc", ".condemn"),
            Object::Plan => named("repository/gc", ".plan"),
            Object::Parity => below("repository/parity"),
            Object::Cache => named("cache", "cache.sqlite"),
        }
    }

    /// False if there is nothing to do that to.
    fn damage(&self, action: Action, object: Object) -> bool {
        let objects = self.objects(object);
        let Some(first) = objects.first() else { return false };
        let other = objects.get(1).map(|path| std::fs::read(path).unwrap());
        match (action, other) {
            (Action::Flip, _) => tamper(first, |bytes| {
                let at = bytes.len() * 2 / 3;
                bytes[at] ^= 0x10;
            }),
            (Action::Truncate, _) => tamper(first, |bytes| bytes.truncate(bytes.len() / 2)),
            (Action::Zero, _) => tamper(first, |bytes| bytes.fill(0)),
            (Action::Delete, _) => std::fs::remove_file(first).unwrap(),
            (Action::SwapTwo, Some(other)) => {
                let bytes = std::fs::read(first).unwrap();
                tamper(first, |first| *first = other);
                tamper(&objects[1], |second| *second = bytes);
            }
            (Action::ReplayOld, Some(other)) => tamper(first, |bytes| *bytes = other),
            (Action::Extra, _) => std::fs::write(extra(first), std::fs::read(first).unwrap()).unwrap(),
            _ => return false,
        }
        true
    }

    fn open(&self, machine: Option<&str>) -> Result<Repository> {
        let named = |part: &str| self.dir.path().join(machine.map_or(part.to_owned(), |machine| format!("{part}-{machine}")));
        let options = OpenOptions { cache_dir: named("cache"), state_dir: named("state"), fingerprint: None };
        let location = Location::directory(&self.dir.path().join("repository"));
        Repository::open(&location, &self.template.bench.access(), &options, &Silent)
    }

    fn open_damaged(&self) -> Result<Repository> {
        let part = |part: &str| self.dir.path().join(part);
        let options = OpenOptions { cache_dir: part("cache"), state_dir: part("state"), fingerprint: None };
        Repository::open_damaged(&Location::directory(&part("repository")), &self.template.bench.access(), &options, &Silent)
    }

    /// Files of all snapshots that a machine without a cache can restore; fails on a wrong byte.
    fn restorable(&self, machine: &str) -> usize {
        let Ok(repository) = self.open(Some(machine)) else { return 0 };
        let mut count = BTreeMap::new();
        for entry in repository.snapshots().unwrap_or_default() {
            let target = self.dir.path().join(format!("{machine}-{}-{}", entry.id, entry.seq));
            let _ = restore(&repository, &entry, &self.template.bench.restore_options(&target), &Silent);
            if !target.exists() {
                continue;
            }
            let original = self.template.trees.get(&entry.snapshot.start);
            for (path, bytes) in contents(&target) {
                let Some(bytes) = bytes.filter(|_| !path.to_string_lossy().contains(".lifeboat")) else { continue };
                if let Some(original) = original {
                    let known = original.iter().find(|(known, _)| *known == path);
                    assert!(
                        known.is_some_and(|(_, known)| known.as_ref() == Some(&bytes)),
                        "{} is not what it was",
                        path.display()
                    );
                    count.insert((entry.id, path), ());
                }
            }
            std::fs::remove_dir_all(&target).unwrap();
        }
        count.len()
    }

    fn run(&self, command: Command) -> Result<bool> {
        match command {
            Command::Backup => backup(&self.open(None)?, self.template.bench.backup_options(), &Silent).map(|_| false),
            Command::Prune => prune_now(&self.open(None)?).map(|()| false),
            Command::Check => {
                check(&self.open_damaged()?, &CheckOptions::of_all_data(1), &Silent).map(|report| report.is_damaged())
            }
            Command::Repair => {
                let options = RepairOptions { apply: true, threads: 1, ..RepairOptions::default() };
                repair(&self.open_damaged()?, &options, &Silent).map(|report| !report.findings.is_empty())
            }
            Command::Restore => {
                let repository = self.open(None)?;
                let mut damaged = false;
                for entry in repository.snapshots()? {
                    let target = self.dir.path().join(format!("restored-{}", entry.id));
                    let report = restore(&repository, &entry, &self.template.bench.restore_options(&target), &Silent)?;
                    damaged |= report.damaged;
                }
                Ok(damaged)
            }
        }
    }
}

/// A name of the same kind that no object has.
fn extra(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let (stem, end) = name.split_once('.').map_or((name.as_str(), String::new()), |(stem, end)| (stem, format!(".{end}")));
    let last = if stem.ends_with('7') { '8' } else { '7' };
    path.with_file_name(format!("{}{last}{end}", &stem[..stem.len() - 1]))
}

/// Damage that a check on the machine that made the repository must find, unless it cannot open it at all.
fn must_be_found(action: Action, object: Object) -> bool {
    match (action, object) {
        (Action::Extra, _) | (_, Object::Cache) => false,
        // Not every pack has parity.
        (Action::Delete, Object::Parity) => false,
        // Which slots there are is known; that one was exchanged for another whole one is for whoever holds its key to see.
        (Action::SwapTwo | Action::ReplayOld, Object::Slot) => false,
        _ => true,
    }
}

fn exit_code(error: &Error) -> u8 {
    error.exit_code()
}

fn cell(template: &Template, action: Action, object: Object, command: Command) {
    let name = format!("{action:?} {object:?}, then {command:?}");
    let scene = Scene::new(template);
    if !scene.damage(action, object) {
        return;
    }
    let before = scene.restorable("before");
    match scene.run(command) {
        Ok(found) if command == Command::Check => {
            assert!(found || !must_be_found(action, object), "{name}: nothing was found");
        }
        Ok(_) => {}
        Err(error) => {
            let code = exit_code(&error);
            assert!(matches!(code, 10..=14), "{name}: exit code {code}: {error}");
            // Nothing is lost with these, so nothing fails.
            assert!(!matches!(object, Object::Parity | Object::Cache), "{name}: {error}");
        }
    }
    let after = scene.restorable("after");
    assert!(after >= before, "{name}: {after} files can be restored, it were {before}");
}

#[test]
fn no_damage_is_made_worse_by_what_is_run_next() {
    let template = Template::new();
    let all = Scene::new(&template).restorable("all");
    assert!(all >= 20, "{all} files can be restored when nothing is damaged");
    let cells: Vec<_> = ACTIONS
        .iter()
        .flat_map(|action| {
            OBJECTS.iter().flat_map(move |object| COMMANDS.iter().map(move |command| (*action, *object, *command)))
        })
        .collect();
    let queue = Mutex::new(cells.into_iter());
    let failed = Mutex::new(Vec::new());
    let (done, waiting) = channel();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (queue, template, failed, done) = (&queue, &template, &failed, done.clone());
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some((action, object, command)) = next else { break };
                    if std::panic::catch_unwind(|| cell(template, action, object, command)).is_err() {
                        failed.lock().unwrap().push(format!("{action:?} {object:?}, then {command:?}"));
                    }
                    done.send(()).unwrap();
                }
            });
        }
        drop(done);
        loop {
            match waiting.recv_timeout(DEADLINE) {
                Ok(()) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                // A thread that waits for ever cannot be ended otherwise.
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => std::process::abort(),
            }
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}
