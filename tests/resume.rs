//! Backups that are cut off, and those that go on from there.

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::ops::backup::{BackupOptions, CheckpointOptions, backup};
use lifeboat::ops::check::{CheckOptions, check};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    bench.age_source();
    // A file that has just changed is read again whatever was remembered of it.
    std::thread::sleep(Duration::from_millis(3100));
}

/// Checkpoints as often as can be.
fn eager(bench: &Bench) -> BackupOptions {
    let checkpoint = CheckpointOptions { every: Duration::from_millis(1), bytes: 1 };
    BackupOptions { checkpoint, ..bench.backup_options() }
}

fn stored(bench: &Bench) -> u64 {
    bench.objects("packs").iter().map(|path| path.metadata().unwrap().len()).sum()
}

fn local(bench: &Bench) -> lifeboat::store::AnyStore {
    bench.location().open().unwrap()
}

/// A backup over a store that dies when about half of the content is stored, and after at least one claim.
fn cut_off(bench: &Bench) {
    let (claims, dead) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let half = FILES * LENGTH as u64 / 2;
    let (repository_dir, counted) = (bench.repository_dir(), claims.clone());
    let store = Interposed::new(local(bench), move |_, verb, key| {
        if verb == Verb::Create && key.starts_with("log/") {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut sum = 0;
            for folder in std::fs::read_dir(repository_dir.join("packs")).unwrap().flatten() {
                for pack in folder.path().read_dir().unwrap().flatten() {
                    sum += pack.metadata().unwrap().len();
                }
            }
            if sum > half {
                dead.store(true, Ordering::SeqCst);
                return Fate::FailAfter(ErrorKind::Failed);
            }
        }
        if dead.load(Ordering::SeqCst) { Fate::Fail(ErrorKind::Failed) } else { Fate::Pass }
    });
    let writer = bench.open_over(store.store(), "writer").unwrap();
    backup(&writer, eager(bench), &Silent).unwrap_err();
    assert!(claims.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_backup_that_was_cut_off_goes_on_without_reading_or_storing_again_what_was_done() {
    let bench = Bench::new();
    fill(&bench);
    cut_off(&bench);
    let before = stored(&bench);
    let all = FILES * LENGTH as u64 + 20_000_000;
    assert!(before > FILES * LENGTH as u64 / 2);
    let writer = bench.open_over(local(&bench), "writer").unwrap();
    let report = backup(&writer, bench.backup_options(), &Silent).unwrap();
    assert!(stored(&bench) < all + all / 20, "{} bytes are stored for {all}", stored(&bench));
    assert!(report.snapshot.counts.bytes_read < all * 7 / 10, "{} bytes were read", report.snapshot.counts.bytes_read);
    assert!(report.snapshot.counts.unmodified > 0);
    healthy(&bench);
}

#[test]
fn another_machine_finds_in_the_log_what_was_stored() {
    let bench = Bench::new();
    fill(&bench);
    cut_off(&bench);
    let all = FILES * LENGTH as u64 + 20_000_000;
    let other = bench.open_over(local(&bench), "other").unwrap();
    let before = stored(&bench);
    backup(&other, bench.backup_options(), &Silent).unwrap();
    assert!(stored(&bench) - before < all * 7 / 10, "{} bytes were stored again", stored(&bench) - before);
    healthy(&bench);
}

#[test]
fn a_checkpoint_can_be_restored_and_gives_way_to_the_finished_snapshot() {
    let bench = Bench::new();
    fill(&bench);
    cut_off(&bench);
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
