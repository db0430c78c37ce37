//! Backups that are cut off, and those that go on from there.

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::{Event, Observer, Progress, Silent, Stage};
use lifeboat::ops::backup::{BackupOptions, CheckpointOptions, backup};
use lifeboat::store::{Measured, ObjectClass, Operation};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use support::home::Home;
use support::interposed::{Fate, Interposed, Verb};
use support::versions::undamaged;
use support::{Bench, contents, noise};

const FILES: u64 = 300;
const LENGTH: usize = 300_000;

fn fill(bench: &Bench) {
    for file in 0..FILES {
        bench.write(&format!("d{}/e{}/f{file}", file % 5, file % 11), noise(file, LENGTH));
    }
    bench.write("large", noise(99_999, 20_000_000));
}

/// Checkpoints as often as can be.
fn eager(bench: &Bench) -> BackupOptions {
    let checkpoint = CheckpointOptions { every: Duration::from_millis(1), bytes: 1 };
    BackupOptions { checkpoint, settle: Duration::ZERO, ..bench.backup_options() }
}

fn stored(bench: &Bench) -> u64 {
    stored_in(&bench.repository_dir())
}

fn stored_in(repository: &Path) -> u64 {
    let folders = std::fs::read_dir(repository.join("packs")).unwrap().flatten();
    let packs = folders.flat_map(|folder| folder.path().read_dir().unwrap().flatten());
    packs.map(|pack| pack.metadata().map_or(0, |metadata| metadata.len())).sum()
}

/// The source as the latest snapshot has it: its root names everything below.
fn tree(bench: &Bench) -> lifeboat::format::tree::Node {
    let entry = bench.latest();
    assert!(!entry.snapshot.incomplete);
    bench.open().reader().unwrap().resolve(&entry.snapshot.root, &bench.subpath()).unwrap()
}

fn local(bench: &Bench) -> lifeboat::store::AnyStore {
    bench.location().open().unwrap()
}

/// A backup over a store that dies at a claim, the first one that began when half of the content was stored. On a busy
/// machine a backup may be done before that: then it is tried again.
fn cut_off() -> Bench {
    for _ in 0..20 {
        let bench = Bench::new();
        fill(&bench);
        let (half_stored, dead) = (AtomicBool::new(false), AtomicBool::new(false));
        let half = FILES * LENGTH as u64 / 2;
        let repository_dir = bench.repository_dir();
        let store = Interposed::new(local(&bench), move |_, verb, key| {
            if dead.load(Ordering::SeqCst) {
                return Fate::Fail(ErrorKind::Failed);
            }
            let appends = verb == Verb::Create && key.starts_with("log/");
            if appends && stored_in(&repository_dir) > half && half_stored.swap(true, Ordering::SeqCst) {
                dead.store(true, Ordering::SeqCst);
                return Fate::FailAfter(ErrorKind::Failed);
            }
            Fate::Pass
        });
        let writer = bench.open_over(store.store(), "writer").unwrap();
        let ended = backup(&writer, eager(&bench), &Silent);
        if ended.is_err() && bench.latest().snapshot.incomplete {
            return bench;
        }
    }
    panic!("no backup was cut off at a claim");
}

#[test]
fn a_backup_that_was_cut_off_goes_on_without_reading_or_storing_again_what_was_done() {
    let bench = cut_off();
    let before = stored(&bench);
    let all = FILES * LENGTH as u64 + 20_000_000;
    assert!(before > FILES * LENGTH as u64 / 2);
    let measured = Measured::new(local(&bench));
    let writer = bench.open_over(Arc::new(measured.clone()), "writer").unwrap();
    let report = backup(&writer, bench.backup_options(), &Silent).unwrap();
    assert!(stored(&bench) < all + all / 20, "{} bytes are stored for {all}", stored(&bench));
    let counts = measured.counts();
    assert_eq!(counts.of(Operation::Put, ObjectClass::Pack).bytes, stored(&bench) - before, "nothing is put twice");
    // Of what is stored, lists of chunks and pages of directories are looked at, and no contents.
    let read = counts.of(Operation::Read, ObjectClass::Pack).bytes;
    assert!(read < before / 10, "{read} bytes of packs are read back");
    assert!(report.snapshot.counts.bytes_read < all * 3 / 4, "{} bytes were read", report.snapshot.counts.bytes_read);
    assert!(report.snapshot.counts.unmodified > 0);
    undamaged(&bench);
    // It is what a run would have made that was never cut off, to the last chunk: one that knows nothing and reads all.
    let resumed = tree(&bench);
    let clean = bench.open_over(local(&bench), "clean").unwrap();
    let report = backup(&clean, BackupOptions { reread: true, ..bench.backup_options() }, &Silent).unwrap();
    assert_eq!(report.snapshot.counts.bytes_read, all, "it read everything");
    assert!(tree(&bench) == resumed);
    let target = bench.path("out");
    bench.restore(&bench.latest(), &target);
    assert!(contents(&target) == contents(&bench.source()));
}

/// The program itself, killed when half of the content is stored. (Its files are too fresh to be believed by their times, so
/// they are read again, but not stored again.)
#[test]
fn a_program_that_is_killed_half_way_stores_only_what_it_had_not_written_down() {
    let all = 120 * 400_000;
    let killed_half_way = (0..10).any(|_| {
        let home = Home::filled_in_memory();
        for file in 0..120 {
            std::fs::write(home.path(&format!("documents/f{file}")), noise(file, 400_000)).unwrap();
        }
        let stored = || stored_in(&home.repository_dir());
        let eager = ["backup", "documents", "--checkpoint", "1ms", "--threads", "1", "--quiet"];
        let mut child = home.command(&eager).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && stored() < all / 2 {}
        // What is stored now is written down by the next record.
        let (claimed, records) = (stored(), home.records());
        while child.try_wait().unwrap().is_none() && home.records() == records {}
        let _ = child.kill();
        let killed = !child.wait().unwrap().success();
        let before = stored();
        home.ok(&["backup", "documents"]);
        let most = before + all.saturating_sub(claimed) + all / 20;
        assert!(stored() < most, "{} bytes are stored: {before} when it was killed, {claimed} of them written down", stored());
        home.ok(&["check", "--read-data"]);
        home.ok(&["restore", "latest:documents", "--to", "out"]);
        assert!(contents(&home.path("out")) == contents(&home.path("documents")));
        killed && claimed < all * 9 / 10
    });
    assert!(killed_half_way, "no backup could be killed half way");
}

#[test]
fn another_machine_finds_in_the_log_what_was_stored() {
    let bench = cut_off();
    let all = FILES * LENGTH as u64 + 20_000_000;
    let other = bench.open_over(local(&bench), "other").unwrap();
    let before = stored(&bench);
    backup(&other, bench.backup_options(), &Silent).unwrap();
    assert!(stored(&bench) - before < all * 3 / 4, "{} bytes were stored again", stored(&bench) - before);
    undamaged(&bench);
}

#[test]
fn a_checkpoint_can_be_restored_and_gives_way_to_the_finished_snapshot() {
    let bench = cut_off();
    let entry = bench.latest();
    assert!(entry.snapshot.incomplete);
    let target = bench.path("out");
    bench.restore(&entry, &target);
    let (restored, source) = (contents(&target), contents(&bench.source()));
    assert!(restored.len() > 4, "{} entries", restored.len());
    assert!(restored.iter().all(|entry| source.contains(entry)));
    undamaged(&bench);
    // A whole run on the same machine: its own checkpoints end with it.
    let writer = bench.open_over(local(&bench), "writer").unwrap();
    backup(&writer, eager(&bench), &Silent).unwrap();
    let incomplete = bench.open().snapshots().unwrap().iter().filter(|entry| entry.snapshot.incomplete).count();
    assert_eq!(incomplete, 1, "only that of the run that was cut off is left");
}

/// Times that a worker is let pause until there is a checkpoint.
const PATIENCE: u64 = 10;

/// Whenever a worker asks whether the backup goes on, which is between two files and two pieces of one, this lets it pause until there is
/// a checkpoint: once something was stored, a few times, and a little while each. It counts how often it was asked before that.
#[derive(Default)]
struct Patient {
    progress: Mutex<Option<Arc<Progress>>>,
    asked: AtomicU64,
    written: Mutex<bool>,
    changed: Condvar,
}

impl Observer for Patient {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Started(Stage::BackingUp, progress) => *self.progress.lock().unwrap() = Some(progress.clone()),
            Event::Note(note) if note.starts_with("checkpoint") => {
                *self.written.lock().unwrap() = true;
                self.changed.notify_all();
            }
            _ => {}
        }
    }

    fn interrupted(&self) -> bool {
        let on_a_worker = std::thread::current().name().is_some_and(|name| name.starts_with("worker"));
        let begun = self.progress.lock().unwrap().as_ref().is_some_and(|progress| progress.bytes.load(Ordering::SeqCst) > 0);
        let written = self.written.lock().unwrap();
        if on_a_worker && begun && !*written && self.asked.fetch_add(1, Ordering::SeqCst) < PATIENCE {
            drop(self.changed.wait_timeout_while(written, Duration::from_secs(1), |written| !*written).unwrap());
        }
        false
    }
}

/// A backup by one worker, in the middle of which there must be a checkpoint.
fn has_a_checkpoint_in_the_middle(bench: &Bench) {
    let observer = Patient::default();
    backup(&bench.open(), BackupOptions { threads: 1, ..eager(bench) }, &observer).unwrap();
    undamaged(bench);
    assert!(*observer.written.lock().unwrap(), "there was none at all");
    let asked = observer.asked.load(Ordering::SeqCst);
    assert!(asked < PATIENCE, "there was none when {asked} files or pieces were done");
}

#[test]
fn a_checkpoint_waits_for_no_directory_to_end() {
    let bench = Bench::in_memory();
    (0..200).for_each(|file| bench.write(&format!("f{file:03}"), noise(file, 100_000)));
    has_a_checkpoint_in_the_middle(&bench);
}

#[test]
fn a_checkpoint_waits_for_no_large_file_to_end() {
    let bench = Bench::in_memory();
    bench.write("image", noise(1, 64 << 20));
    has_a_checkpoint_in_the_middle(&bench);
}
