//! Backups that are cut off, and those that go on from there.

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::ops::backup::{BackupOptions, CheckpointOptions, backup};
use lifeboat::ops::check::{CheckOptions, check};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::interposed::{Fate, Interposed, Verb};
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

fn local(bench: &Bench) -> lifeboat::store::AnyStore {
    bench.location().open().unwrap()
}

/// A backup over a store that dies at a claim, the first one that began when half of the content was stored. On a busy
/// machine a backup may be done before that: then it is tried again.
fn cut_off() -> Bench {
    for _ in 0..10 {
        let bench = Bench::new();
        fill(&bench);
        let (half_stored, dead) = (AtomicBool::new(false), AtomicBool::new(false));
        let half = FILES * LENGTH as u64 / 2;
        let repository_dir = bench.repository_dir();
        let store = Interposed::new(local(&bench), move |_, verb, key| {
            if dead.load(Ordering::SeqCst) {
                return Fate::Fail(ErrorKind::Failed);
            }
            if verb == Verb::Write && half_stored.load(Ordering::SeqCst) {
                // Time for the thread that writes claims.
                std::thread::sleep(Duration::from_millis(20));
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
    let writer = bench.open_over(local(&bench), "writer").unwrap();
    let report = backup(&writer, bench.backup_options(), &Silent).unwrap();
    assert!(stored(&bench) < all + all / 20, "{} bytes are stored for {all}", stored(&bench));
    assert!(report.snapshot.counts.bytes_read < all * 3 / 4, "{} bytes were read", report.snapshot.counts.bytes_read);
    assert!(report.snapshot.counts.unmodified > 0);
    healthy(&bench);
}

#[test]
fn another_machine_finds_in_the_log_what_was_stored() {
    let bench = cut_off();
    let all = FILES * LENGTH as u64 + 20_000_000;
    let other = bench.open_over(local(&bench), "other").unwrap();
    let before = stored(&bench);
    backup(&other, bench.backup_options(), &Silent).unwrap();
    assert!(stored(&bench) - before < all * 3 / 4, "{} bytes were stored again", stored(&bench) - before);
    healthy(&bench);
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
    healthy(&bench);
    // A whole run on the same machine: its own checkpoints end with it.
    let writer = bench.open_over(local(&bench), "writer").unwrap();
    backup(&writer, eager(&bench), &Silent).unwrap();
    let incomplete = bench.open().snapshots().unwrap().iter().filter(|entry| entry.snapshot.incomplete).count();
    assert_eq!(incomplete, 1, "only that of the run that was cut off is left");
}

fn healthy(bench: &Bench) {
    let report = check(&bench.open(), &CheckOptions { read_data: true, threads: 2 }, &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}
