//! Taking back space: what is needed stays, whoever writes or stops meanwhile.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use lifeboat::event::Silent;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{Decision, PruneOptions, PruneReport, prune};
use lifeboat::repo::Repository;
use lifeboat::store::Local;
use std::fs::FileTimes;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};
use support::home::Home;
use support::interposed::{Fate, Interposed, Verb};
use support::{Bench, contents, noise};

type Tree = Vec<(std::path::PathBuf, Option<Vec<u8>>)>;

fn options() -> PruneOptions {
    PruneOptions { grace: Duration::ZERO, ..PruneOptions::default() }
}

fn run(bench: &Bench) -> PruneReport {
    prune(&bench.open(), &options(), &Silent).unwrap()
}

fn stored(bench: &Bench) -> u64 {
    bench.objects("packs").iter().map(|path| path.metadata().unwrap().len()).sum()
}

fn healthy(bench: &Bench) {
    let report = check(&bench.open(), &CheckOptions::of_all_data(2), &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

#[test]
fn a_prune_whose_time_is_up_says_what_it_put_off_and_the_next_one_does_it() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    fill(&bench, 2);
    bench.backup();
    forget_first(&bench.open(), 1);
    let hurried = PruneOptions { max_unused: 0.0, max_duration: Some(Duration::ZERO), ..options() };
    let report = prune(&bench.open(), &hurried, &Silent).unwrap();
    let planned = report.pruned.packs.iter().filter(|pack| pack.decision == Decision::Repack).count() as u64;
    assert!(
        planned > 0 && report.pruned.put_off == planned && report.pruned.written == 0,
        "{} of {planned}",
        report.pruned.put_off
    );
    let report = prune(&bench.open(), &PruneOptions { max_duration: None, ..hurried }, &Silent).unwrap();
    assert!(report.pruned.put_off == 0 && report.pruned.written > 0);
    healthy(&bench);
}

/// Every snapshot that is kept comes back as its tree was.
fn restorable(bench: &Bench, expected: &[Tree]) {
    let snapshots = bench.open().snapshots().unwrap();
    assert_eq!(snapshots.len(), expected.len());
    for (number, (entry, expected)) in snapshots.iter().zip(expected).enumerate() {
        let target = bench.path(&format!("out-{number}"));
        bench.restore(entry, &target);
        assert_eq!(contents(&target), *expected);
        std::fs::remove_dir_all(&target).unwrap();
    }
}

fn forget_first(repository: &Repository, count: usize) {
    let records: Vec<_> = repository.snapshots().unwrap().iter().take(count).map(|entry| entry.record()).collect();
    repository.forget(&records).unwrap();
}

fn fill(bench: &Bench, version: u64) {
    for file in 0..60 {
        // A third of the files is the same in every version.
        let seed = if file % 3 == 0 { file } else { version * 1000 + file };
        bench.write(&format!("d{}/f{file}", file % 7), noise(seed, 3000 + usize::try_from(file).unwrap() * 900));
    }
    bench.age_source();
}

#[test]
fn a_prune_without_anything_forgotten_deletes_nothing() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    // One that has nothing to store, not even itself, outside of its record.
    bench.backup();
    let before = bench.objects("");
    let report = run(&bench);
    assert_eq!((report.pruned.generation, report.pruned.missing), (None, 0));
    assert_eq!(bench.objects(""), before);
}

#[test]
fn space_of_a_forgotten_snapshot_comes_back_and_the_others_stay_whole() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    fill(&bench, 2);
    bench.backup();
    let second = contents(&bench.source());
    let both = stored(&bench);
    forget_first(&bench.open(), 1);
    let report = run(&bench);
    assert_eq!(report.pruned.generation, Some(1));
    assert!(report.pruned.deleted > 0 && report.pruned.bytes_deleted > 0);
    restorable(&bench, std::slice::from_ref(&second));
    healthy(&bench);

    let fresh = Bench::new();
    for (name, bytes) in &second {
        if let Some(bytes) = bytes {
            fresh.write(name.to_str().unwrap(), bytes);
        }
    }
    fresh.backup();
    let (after, alone) = (stored(&bench), stored(&fresh));
    assert!(after < both, "{after} bytes of {both} are left: {:?}", report.pruned);
    assert!(after as f64 <= alone as f64 * 1.05, "{after} bytes are left where {alone} would do");
    // Nothing is left to do.
    assert_eq!(run(&bench).pruned.generation, None);
}

#[test]
fn a_dry_run_says_what_would_go_and_changes_nothing() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    fill(&bench, 2);
    bench.backup();
    forget_first(&bench.open(), 1);
    let before = bench.objects("");
    let report = prune(&bench.open(), &PruneOptions { dry_run: true, ..options() }, &Silent).unwrap();
    assert!(report.sum(Decision::Repack).packs + report.sum(Decision::Drop).packs > 0);
    assert_eq!(bench.objects(""), before);
}

#[test]
fn a_forgotten_snapshot_comes_back_until_a_prune_has_run() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    let first = contents(&bench.source());
    fill(&bench, 2);
    bench.backup();
    let second = contents(&bench.source());
    let repository = bench.open();
    let record = repository.snapshots().unwrap()[0].record();
    repository.forget(&[record]).unwrap();
    assert_eq!(repository.snapshots().unwrap().len(), 1);
    repository.unforget(&[record]).unwrap();
    run(&bench);
    restorable(&bench, &[first, second]);
    repository.refresh(&Silent).unwrap();
    repository.forget(&[record]).unwrap();
    run(&bench);
    repository.refresh(&Silent).unwrap();
    assert!(repository.unforget(&[record]).is_err());
    assert_eq!(bench.open().all_snapshots().unwrap().len(), 1);
}

#[test]
fn a_held_snapshot_is_not_forgotten() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    let repository = bench.open();
    let record = repository.snapshots().unwrap()[0].record();
    repository.hold(&[record], "audit").unwrap();
    assert!(repository.forget(&[record]).is_err());
    assert_eq!(repository.snapshots().unwrap()[0].reason, "audit");
    repository.unhold(&[record]).unwrap();
    repository.forget(&[record]).unwrap();
    assert!(repository.snapshots().unwrap().is_empty());
}

#[test]
fn a_cache_that_was_rebuilt_sees_the_same_after_a_prune() {
    let bench = Bench::new();
    for version in 1..4 {
        fill(&bench, version);
        bench.backup();
    }
    let last = contents(&bench.source());
    forget_first(&bench.open(), 2);
    run(&bench);
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    restorable(&bench, std::slice::from_ref(&last));
    healthy(&bench);
    // And the next backup borrows nothing that is gone.
    fill(&bench, 1);
    bench.backup();
    let first = contents(&bench.source());
    restorable(&bench, &[last, first]);
    healthy(&bench);
}

#[test]
fn packs_that_no_log_lists_go_after_their_grace() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    let name = blake3::hash(b"nobody's").to_hex().to_string();
    let orphan = bench.repository_dir().join("packs").join(&name[..2]).join(&name);
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, b"nobody's").unwrap();
    let polite = prune(&bench.open(), &PruneOptions::default(), &Silent).unwrap();
    assert_eq!(polite.sum(Decision::Spare).packs, 1);
    assert!(orphan.exists());
    run(&bench);
    assert!(!orphan.exists());
    healthy(&bench);
}

/// The disk may note when something was read, or not, or lie: what is needed is known from logs and trees.
#[test]
fn no_time_of_an_object_makes_it_go_that_is_needed() {
    let times = [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800)];
    for time in times {
        let bench = Bench::in_memory();
        fill(&bench, 1);
        bench.backup();
        fill(&bench, 2);
        bench.backup();
        let second = contents(&bench.source());
        forget_first(&bench.open(), 1);
        for grace in [Duration::from_secs(24 * 3600), Duration::ZERO] {
            for object in bench.objects("") {
                let file = std::fs::File::open(&object).unwrap();
                file.set_times(FileTimes::new().set_accessed(time).set_modified(time)).unwrap();
            }
            prune(&bench.open(), &PruneOptions { grace, max_unused: 0.0, ..PruneOptions::default() }, &Silent).unwrap();
            restorable(&bench, std::slice::from_ref(&second));
            healthy(&bench);
        }
    }
}

/// A disk in memory that is unmounted when this is dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn disks_that_note_no_or_few_times_of_reading_keep_what_is_needed() {
    for option in ["noatime", "relatime", "strictatime"] {
        let home = Home::filled_in_memory();
        let place = home.path("disk");
        std::fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("{option},size=64m"), "none"]).arg(&place).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            return println!("skipped: no disk can be mounted here");
        }
        let _mounted = Mounted(&place);
        let at = ["--repo", "disk/repository"];
        home.ok(&[&["init"][..], &at].concat());
        for version in 0..3 {
            std::fs::write(home.path("documents/changing"), noise(version, 200_000)).unwrap();
            home.ok(&[&["backup", "documents"][..], &at].concat());
        }
        home.ok(&[&["forget", "--keep-last", "1", "--allow-most"][..], &at].concat());
        let pruned = home.json(&[&["prune", "--grace", "0s", "--max-unused", "0", "--json"][..], &at].concat());
        assert!(pruned["deleted"].as_u64().unwrap() > 0, "{option}: {pruned}");
        home.ok(&[&["check", "--read-data"][..], &at].concat());
        home.ok(&[&["restore", "latest:documents", "--to", "out"][..], &at].concat());
        assert!(contents(&home.path("out")) == contents(&home.path("documents")), "{option}");
    }
}

/// Longer than any machine takes for what is awaited.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn where_answers_take_long_packs_that_are_written_anew_go_up_beside_each_other_and_all_of_them_before_their_record() {
    let bench = Bench::in_memory();
    (0..70).for_each(|file| bench.write(&format!("f{file}"), noise(file, 1 << 20)));
    bench.settled_backup();
    (0..70).step_by(10).for_each(|file| bench.write(&format!("f{file}"), noise(1000 + file, 1 << 20)));
    bench.settled_backup();
    forget_first(&bench.open(), 1);
    let (begun, in_vain, listed) = (Arc::new((Mutex::new(0), Condvar::new())), Arc::default(), Arc::default());
    let (met, alone, early): (_, Arc<AtomicBool>, Arc<AtomicBool>) = (begun.clone(), Arc::clone(&in_vain), Arc::clone(&listed));
    let (packs, before) = (bench.repository_dir().join("packs"), bench.objects("packs").len());
    let stored = move || files_below(&packs);
    let store = Interposed::new(Arc::new(Local::open(&bench.repository_dir()).unwrap()), move |_, verb, key| {
        let (count, more) = &*met;
        if verb == Verb::Finish && key.starts_with("packs/") {
            let mut count = count.lock().unwrap();
            *count += 1;
            more.notify_all();
            let (_count, waited) = more.wait_timeout_while(count, LONG, |count| *count < 2).unwrap();
            alone.fetch_or(waited.timed_out(), Ordering::SeqCst);
        } else if verb == Verb::Create && key.starts_with("log/") {
            early.fetch_or(stored() < before + *count.lock().unwrap(), Ordering::SeqCst);
        }
        Fate::Pass
    });
    let repository = bench.open_over(store.wide(8).store(), "far").unwrap();
    let report = prune(&repository, &PruneOptions { max_unused: 0.0, ..options() }, &Silent).unwrap();
    assert!(report.pruned.written >= 3, "{} packs", report.pruned.written);
    assert!(!in_vain.load(Ordering::SeqCst), "a pack went up while nothing else did");
    assert!(!listed.load(Ordering::SeqCst), "a record came before a pack that it may list");
    healthy(&bench);
}

/// Files below a directory of directories.
fn files_below(directory: &Path) -> usize {
    let entries = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    entries(directory).iter().map(|path| entries(path).len()).sum()
}

/// Its tree is taken over as it was, without a look at what is in it; that goes just before the commit.
#[test]
fn an_unchanged_tree_that_a_prune_takes_before_the_commit_is_stored_again() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.age_source();
    let local = || bench.location().open().unwrap();
    backup(&bench.open_over(local(), "writer").unwrap(), bench.backup_options(), &Silent).unwrap();
    let (other, pruned) = (bench.open(), AtomicBool::new(false));
    let store = Interposed::new(local(), move |_, verb, key| {
        if verb == Verb::Create && key.starts_with("log/") && !pruned.swap(true, Ordering::SeqCst) {
            forget_first(&other, 1);
            // What the writer has just stored is left alone.
            let options = PruneOptions { grace: Duration::from_hours(24), ..options() };
            assert!(prune(&other, &options, &Silent).unwrap().pruned.deleted > 0);
        }
        Fate::Pass
    });
    backup(&bench.open_over(store.store(), "writer").unwrap(), bench.backup_options(), &Silent).unwrap();
    healthy(&bench);
    restorable(&bench, &[contents(&bench.source())]);
}

/// Beside what is compressed well, a little that is not may be most of what is stored.
#[test]
fn what_nobody_needs_is_counted_as_it_is_stored() {
    let bench = Bench::new();
    bench.write("noise", noise(1, 2 << 20));
    let letters = noise(2, 24 << 20).into_iter().map(|byte| b'a' + byte % 2);
    bench.write("letters", letters.collect::<Vec<u8>>());
    bench.age_source();
    bench.backup();
    std::fs::remove_file(bench.source().join("noise")).unwrap();
    bench.age_source();
    bench.backup();
    forget_first(&bench.open(), 1);
    let before = stored(&bench);
    prune(&bench.open(), &PruneOptions { max_unused: 0.2, ..options() }, &Silent).unwrap();
    let after = stored(&bench);
    prune(&bench.open(), &PruneOptions { max_unused: 0.0, ..options() }, &Silent).unwrap();
    let least = stored(&bench);
    assert!(before > least * 13 / 10 && after <= least * 12 / 10, "{before} {after} {least}");
    healthy(&bench);
}
