//! Files that change while they are backed up: what is kept is a state that they had, or it is said that it is none.

mod support;

use lifeboat::event::Silent;
use lifeboat::ops::backup::{BackupOptions, backup};
use lifeboat::ops::restore::restore;
use lifeboat::repo::SnapshotEntry;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::interposed::{Fate, Interposed, Verb};
use support::{Bench, Recorder, noise};

/// So long that a backup is still reading when its first block reaches the store, whatever waits on the way.
const LARGE: usize = 40 << 20;
const HALF: usize = LARGE / 2;

fn open(path: &Path) -> std::fs::File {
    std::fs::File::options().write(true).open(path).unwrap()
}

/// Backs up with one worker while `change` is made at the first write to the store; returns what was said to have failed.
fn changed_midway(bench: &Bench, change: fn(&Path)) -> Vec<String> {
    let (path, done) = (bench.source().join("file"), AtomicBool::new(false));
    let store = Interposed::new(bench.location().open().unwrap(), move |_, verb, _| {
        if verb == Verb::Write && !done.swap(true, Ordering::SeqCst) {
            change(&path);
        }
        Fate::Pass
    });
    let recorder = Recorder::default();
    let options = BackupOptions { threads: 1, ..bench.backup_options() };
    let report = backup(&bench.open_over(store.store(), "writer").unwrap(), options, &recorder).unwrap();
    let failures = recorder.failures.into_inner().unwrap();
    assert_eq!(report.incomplete(), !failures.is_empty());
    failures
}

/// What the snapshot has of the file.
fn kept(bench: &Bench, entry: &SnapshotEntry) -> Vec<u8> {
    let target = bench.path("out");
    bench.restore(entry, &target);
    let bytes = std::fs::read(target.join("file")).unwrap();
    std::fs::remove_dir_all(&target).unwrap();
    bytes
}

#[test]
fn a_large_file_that_changes_midway_is_flagged_or_whole_and_the_next_backup_has_it() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("appended to", |path| {
            let mut file = open(path);
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(&noise(3, 6 << 20)).unwrap();
        }),
        ("cut off", |path| open(path).set_len(HALF as u64).unwrap()),
        ("cut off and begun anew", |path| {
            open(path).set_len(0).unwrap();
            open(path).write_all(&noise(2, 9 << 20)).unwrap();
        }),
        ("written over", |path| open(path).write_all(&noise(2, LARGE)).unwrap()),
        ("replaced", |path| {
            std::fs::write(path.with_extension("new"), noise(2, LARGE)).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("removed", |path| std::fs::remove_file(path).unwrap()),
    ];
    let (old, new) = (noise(1, LARGE), noise(2, LARGE));
    for (name, change) in changes {
        let bench = Bench::in_memory();
        bench.write("file", &old);
        let failures = changed_midway(&bench, change);
        let bytes = kept(&bench, &bench.latest());
        match name {
            // What has the name now is another file: that of before is whole.
            "replaced" | "removed" => assert!(bytes == old, "{name}: {} bytes", bytes.len()),
            "appended to" | "cut off" => {
                assert!(old.starts_with(&bytes) && bytes.len() >= HALF, "{name}: {} bytes", bytes.len());
            }
            _ => assert!(bytes.iter().zip(&old).zip(&new).all(|((is, old), new)| is == old || is == new), "{name}"),
        }
        let said = failures.iter().any(|said| said.contains("/file: ") && said.contains("changed while it was read"));
        assert!(said || matches!(name, "replaced" | "removed"), "{name}: {failures:?}");
        let Ok(now) = std::fs::read(bench.source().join("file")) else { continue };
        // By the times that are believed soonest, what was flagged is read again all the same.
        assert_eq!(bench.settled_backup().snapshot.failure_count, 0, "{name}");
        assert!(kept(&bench, &bench.latest()) == now, "{name}: the next backup");
    }
}

/// Small files, changed without a pause by somebody who knows nothing of the backup.
#[test]
fn a_small_file_that_changes_all_the_time_is_kept_as_it_was_or_flagged() {
    const LENGTH: usize = 120_000;
    let bench = Bench::in_memory();
    let (whole, other) = (noise(1, LENGTH), noise(2, LENGTH / 3));
    for name in ["appended", "cut", "replaced"] {
        bench.write(name, &whole);
    }
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let source = bench.source();
    let mut snapshots = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                // Appended to until it is whole, and begun anew.
                std::fs::write(source.join("appended"), b"").unwrap();
                let mut file = std::fs::File::options().append(true).open(source.join("appended")).unwrap();
                whole.chunks(7000).for_each(|part| file.write_all(part).unwrap());
                for part in (0..LENGTH as u64).rev().step_by(20_000) {
                    open(&source.join("cut")).set_len(part).unwrap();
                }
                open(&source.join("cut")).write_all(&whole).unwrap();
                for state in [&other, &whole] {
                    std::fs::write(source.join("new"), state).unwrap();
                    std::fs::rename(source.join("new"), source.join("replaced")).unwrap();
                }
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        let backups = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let repository = bench.open();
            while snapshots.len() < 12 || rounds.load(Ordering::SeqCst) < 3 {
                let recorder = Recorder::default();
                backup(&repository, bench.backup_options(), &recorder).unwrap();
                snapshots.push(recorder.failures.into_inner().unwrap());
            }
        }));
        done.store(true, Ordering::SeqCst);
        backups.unwrap();
    });
    let repository = bench.open();
    for (entry, failures) in repository.snapshots().unwrap().iter().zip(&snapshots) {
        let target = bench.path("out");
        restore(&repository, entry, &bench.restore_options(&target), &Silent).unwrap();
        let read = |name: &str| std::fs::read(target.join(name)).ok();
        let flagged = |name: &str| failures.iter().any(|said| said.contains(&format!("/{name}: ")));
        for name in ["appended", "cut"] {
            // Both only ever hold a beginning of the whole.
            assert!(read(name).is_some_and(|bytes| whole.starts_with(&bytes)) || flagged(name), "{name}: {failures:?}");
        }
        let replaced = read("replaced");
        assert!(replaced.is_none_or(|bytes| bytes == whole || bytes == other), "a replaced file is one or the other");
        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// A file of many segments, begun anew without a pause: what is behind a place where it once ended is no part of it.
#[test]
fn a_large_file_that_is_begun_anew_all_the_time_is_kept_as_a_beginning_of_it() {
    let bench = Bench::in_memory();
    let whole = noise(1, 24 << 20);
    bench.write("file", &whole);
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let path = bench.source().join("file");
    let mut backups = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                open(&path).set_len(0).unwrap();
                open(&path).write_all(&whole).unwrap();
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let repository = bench.open();
            while backups < 10 || rounds.load(Ordering::SeqCst) < 10 {
                backup(&repository, bench.backup_options(), &Recorder::default()).unwrap();
                backups += 1;
            }
        }));
        done.store(true, Ordering::SeqCst);
        made.unwrap();
    });
    for entry in bench.open().snapshots().unwrap() {
        let bytes = kept(&bench, &entry);
        assert!(whole.starts_with(&bytes), "{} bytes are no beginning of the file", bytes.len());
    }
}

/// The file has been read, and the snapshot has not been committed: a change now has the time of a backup that has it.
#[test]
fn a_change_between_reading_and_the_commit_is_in_the_next_backup() {
    for settle in [Duration::ZERO, lifeboat::ops::backup::SETTLE] {
        let bench = Bench::in_memory();
        bench.write("file", noise(1, 9000));
        let path = bench.source().join("file");
        let mtime = std::fs::metadata(&path).unwrap().modified().unwrap();
        let (changed, done) = (path.clone(), AtomicBool::new(false));
        let store = Interposed::new(bench.location().open().unwrap(), move |_, verb, key| {
            if verb == Verb::Create && key.starts_with("log/") && !done.swap(true, Ordering::SeqCst) {
                // As long as before, with the time of before.
                open(&changed).write_all(&noise(2, 9000)).unwrap();
                open(&changed).set_modified(mtime).unwrap();
            }
            Fate::Pass
        });
        let options = || BackupOptions { settle, ..bench.backup_options() };
        let writer = bench.open_over(store.store(), "writer").unwrap();
        backup(&writer, options(), &Silent).unwrap();
        assert!(kept(&bench, &bench.latest()) == noise(1, 9000));
        backup(&writer, options(), &Silent).unwrap();
        assert!(kept(&bench, &bench.latest()) == noise(2, 9000), "settled after {settle:?}");
    }
}
