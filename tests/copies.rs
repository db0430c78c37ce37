//! Snapshots in a second repository, and a second copy of a repository.

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::{Progress, Silent};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::copy::{CopyOptions, CopyReport, copy};
use lifeboat::ops::mirror::{MirrorOptions, mirror};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::thaw::ThawOptions;
use lifeboat::repo::{Repository, SnapshotEntry, mirror_stores};
use lifeboat::store::{AnyStore, Location};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::home::Home;
use support::interposed::{Fate, Interposed, Verb};
use support::{Bench, Recorder, contents, noise, tamper};

type Tree = Vec<(PathBuf, Option<Vec<u8>>)>;

const OPTIONS: CopyOptions = CopyOptions { dry_run: false, thaw: ThawOptions::NONE, threads: 2 };

fn fill(bench: &Bench, version: u64) -> Tree {
    for file in 0..40 {
        let seed = if file % 4 == 0 { version * 1000 + file } else { file };
        bench.write(&format!("d{}/f{file}", file % 5), noise(seed, 1000 + usize::try_from(file).unwrap() * 900));
    }
    // Long enough for a list of chunks of its own, and with chunks that are the same.
    bench.write("long", [noise(7, 300_000), vec![0; 200_000], noise(version, 100_000)].concat());
    bench.write("empty", "");
    bench.age_source();
    contents(&bench.source())
}

fn two_versions(bench: &Bench) -> [Tree; 2] {
    let first = fill(bench, 1);
    bench.backup();
    let second = fill(bench, 2);
    bench.backup();
    [first, second]
}

fn copy_all(source: &Bench, target: &Repository) -> CopyReport {
    let repository = source.open();
    copy(&repository, target, &repository.snapshots().unwrap(), OPTIONS, &Silent).unwrap()
}

/// Restores from `target` what was backed up in `source`, and compares it.
fn restored(source: &Bench, target: &Bench, entry: &SnapshotEntry, expected: &Tree) {
    let out = target.path("out");
    let options = lifeboat::ops::restore::RestoreOptions { subpath: source.subpath(), ..target.restore_options(&out) };
    lifeboat::ops::restore::restore(&target.open(), entry, &options, &Silent).unwrap();
    assert_eq!(contents(&out), *expected);
    std::fs::remove_dir_all(&out).unwrap();
}

fn healthy(repository: &Repository) {
    let report = check(repository, &CheckOptions::of_all_data(2), &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

#[test]
fn copied_snapshots_restore_the_same_and_keep_what_was_said_of_them() {
    let (source, target) = (Bench::new(), Bench::new());
    let trees = two_versions(&source);
    let report = copy_all(&source, &target.open());
    assert_eq!((report.copied.len(), report.present.len(), report.failed.len()), (2, 0, 0));
    let (from, to) = (source.open().snapshots().unwrap(), target.open().snapshots().unwrap());
    assert_eq!(to.len(), 2);
    for ((from, to), tree) in from.iter().zip(&to).zip(&trees) {
        restored(&source, &target, to, tree);
        let (a, b) = (&from.snapshot, &to.snapshot);
        assert_eq!((&a.host, &a.kind, &a.paths, a.start, a.end), (&b.host, &b.kind, &b.paths, b.start, b.end));
        assert_eq!((a.counts.files, a.counts.bytes), (b.counts.files, b.counts.bytes));
        assert!(b.metadata.iter().any(|(name, origin)| name == "copy-of" && origin.contains(&from.id.to_string())));
        assert_ne!(from.id, to.id);
    }
    assert_eq!(to[1].snapshot.parent, Some(to[0].id));
    healthy(&target.open());
}

/// Every byte, every name, and the time of every object.
fn state(root: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let whole = |(path, bytes): (PathBuf, Option<Vec<u8>>)| {
        let modified = root.join(&path).metadata().unwrap().modified().unwrap();
        Some((path, bytes?, modified))
    };
    contents(root).into_iter().filter_map(whole).collect()
}

#[test]
fn a_copy_and_a_mirror_leave_the_source_as_it_is_to_the_last_byte() {
    let (source, target) = (Bench::new(), Bench::new());
    two_versions(&source);
    let repository = source.open();
    repository.forget(&[repository.snapshots().unwrap()[0].record()]).unwrap();
    let before = state(&source.repository_dir());
    for _ in 0..2 {
        assert_eq!(copy_all(&source, &target.open()).failed.len(), 0);
        mirror(&source.location(), &place(&target, "mirror"), MIRROR, &Silent).unwrap();
    }
    // From a machine that has no cache of the source yet.
    let stranger = Repository::open(&source.location(), &source.access(), &source.options_of("other"), &Silent).unwrap();
    let third = Bench::new();
    let report = copy(&stranger, &third.open(), &stranger.snapshots().unwrap(), OPTIONS, &Silent).unwrap();
    assert_eq!((report.copied.len(), report.failed.len()), (1, 0));
    assert!(state(&source.repository_dir()) == before);
    // And one that goes wrong half-way.
    let store = Interposed::new(third.location().open().unwrap(), |number, _, _| match number > 12 {
        true => Fate::Fail(ErrorKind::Full),
        false => Fate::Pass,
    });
    source.write("more", noise(11, 200_000));
    source.backup();
    let before = state(&source.repository_dir());
    let full = third.open_over(store.store(), "full").and_then(|target| {
        let repository = source.open();
        copy(&repository, &target, &repository.snapshots()?, OPTIONS, &Silent).map(drop)
    });
    assert!(full.is_err());
    assert!(state(&source.repository_dir()) == before);
}

#[test]
fn a_second_copy_reads_only_what_is_new_and_stores_nothing_twice() {
    let (source, target) = (Bench::new(), Bench::new());
    two_versions(&source);
    let first = copy_all(&source, &target.open());
    let again = copy_all(&source, &target.open());
    assert_eq!((again.copied.len(), again.present.len()), (0, 2));
    let third = fill(&source, 3);
    source.backup();
    let report = copy_all(&source, &target.open());
    assert_eq!((report.copied.len(), report.present.len()), (1, 2));
    assert!(report.copied[0].bytes_read < first.copied[0].bytes_read / 2, "{report:?}");
    assert!(report.copied[0].bytes_read >= 100_000);
    restored(&source, &target, &target.latest(), &third);
    // Without the map everything is read once more, and nothing is stored twice.
    std::fs::remove_dir_all(target.path("cache")).unwrap();
    source.write("one-more", "x");
    source.backup();
    let report = copy_all(&source, &target.open());
    assert!(report.copied[0].bytes_read > 500_000);
    assert!(report.copied[0].added.bytes_added < 5_000, "{report:?}");
    healthy(&target.open());
}

#[test]
fn a_snapshot_that_comes_back_or_goes_on_to_a_third_repository_is_the_same_one() {
    let (first, second, third) = (Bench::new(), Bench::new(), Bench::new());
    two_versions(&first);
    copy_all(&first, &second.open());
    assert_eq!(copy_all(&second, &first.open()).present.len(), 2);
    assert_eq!(copy_all(&second, &third.open()).copied.len(), 2);
    assert_eq!(copy_all(&first, &third.open()).present.len(), 2);
    healthy(&third.open());
}

#[test]
fn a_dry_run_says_what_it_would_read_and_changes_nothing() {
    let (source, target) = (Bench::new(), Bench::new());
    two_versions(&source);
    let before = contents(&target.repository_dir());
    let repository = source.open();
    let options = CopyOptions { dry_run: true, ..OPTIONS };
    let report = copy(&repository, &target.open(), &repository.snapshots().unwrap(), options, &Silent).unwrap();
    assert_eq!(report.copied.len(), 2);
    assert!(report.copied[0].bytes_read > 500_000 && report.copied[0].to.is_none());
    assert_eq!(contents(&target.repository_dir()), before);
}

#[test]
fn a_repository_is_not_copied_into_itself() {
    let bench = Bench::new();
    two_versions(&bench);
    let repository = bench.open();
    let error = copy(&repository, &bench.open(), &repository.snapshots().unwrap(), OPTIONS, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn what_the_source_lost_fails_the_snapshots_that_need_it_and_no_others() {
    let (source, target) = (Bench::new(), Bench::new());
    let first = fill(&source, 1);
    source.backup();
    let whole = source.objects("packs");
    source.write("d0/f0", noise(77_777, 50_000));
    source.age_source();
    source.backup();
    let longest = source.objects("packs").into_iter().filter(|pack| !whole.contains(pack));
    let longest = longest.max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    tamper(&longest, |bytes| bytes[200..40_000].fill(0x5a));
    let repository = source.open();
    let recorder = Recorder::default();
    let report = copy(&repository, &target.open(), &repository.snapshots().unwrap(), OPTIONS, &recorder).unwrap();
    assert_eq!((report.copied.len(), report.failed.len()), (1, 1));
    assert!(report.incomplete());
    assert_eq!(recorder.failures.lock().unwrap().len(), 1);
    restored(&source, &target, &target.latest(), &first);
    healthy(&target.open());
}

#[test]
fn a_copy_that_is_cut_off_at_any_call_goes_on_and_loses_nothing() {
    let source = Bench::in_memory();
    let trees = two_versions(&source);
    for call in (0..60).step_by(3) {
        let target = Bench::in_memory();
        let store = Interposed::new(target.location().open().unwrap(), move |number, _, _| match number == call {
            true => Fate::FailAfter(ErrorKind::Failed),
            false => Fate::Pass,
        });
        if let Ok(repository) = target.open_over(store.store(), "one") {
            let from = source.open();
            let _ = copy(&from, &repository, &from.snapshots().unwrap(), OPTIONS, &Silent);
        }
        copy_all(&source, &target.open());
        let all = target.open().snapshots().unwrap();
        assert_eq!(all.len(), 2, "call {call}");
        restored(&source, &target, &all[0], &trees[0]);
        restored(&source, &target, &all[1], &trees[1]);
        healthy(&target.open());
    }
}

#[test]
fn a_prune_of_the_target_that_is_faster_makes_the_copy_store_again_what_it_took() {
    let (source, target) = (Bench::new(), Bench::new());
    let [_, second] = two_versions(&source);
    copy_all(&source, &target.open());
    let (done, other) = (AtomicBool::new(false), target.open());
    let store = Interposed::new(target.location().open().unwrap(), move |_, verb, key| {
        if verb == Verb::Create && key.starts_with("log/") && !done.swap(true, Ordering::SeqCst) {
            let records: Vec<_> = other.snapshots().unwrap().iter().map(SnapshotEntry::record).collect();
            other.forget(&records).unwrap();
            let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
            assert!(prune(&other, &options, &Silent).unwrap().pruned.deleted > 0);
        }
        Fate::Pass
    });
    // As if the target had forgotten them: nothing is present any more, and all is borrowed.
    let records: Vec<_> = target.open().snapshots().unwrap().iter().map(SnapshotEntry::record).collect();
    target.open().forget(&records[1..]).unwrap();
    let repository = target.open_over(store.store(), "writer").unwrap();
    let from = source.open();
    let recorder = Recorder::default();
    let report = copy(&from, &repository, &from.snapshots().unwrap(), OPTIONS, &recorder).unwrap();
    assert_eq!(report.copied.len(), 1);
    assert!(recorder.warnings.lock().unwrap().iter().any(|warning| warning.contains("prune")));
    restored(&source, &target, &target.latest(), &second);
    healthy(&target.open());
}

const MIRROR: MirrorOptions = MirrorOptions { dry_run: false, verify: false, thaw: ThawOptions::NONE, threads: 2 };

fn place(bench: &Bench, name: &str) -> Location {
    Location::directory(&bench.path(name))
}

/// All objects of a store directory.
fn objects(root: &Path) -> Tree {
    let mut all = contents(root);
    all.retain(|(path, bytes)| bytes.is_some() && !path.starts_with("tmp") && !path.starts_with(".reserve"));
    all
}

fn equal(bench: &Bench, name: &str) {
    assert_eq!(objects(&bench.repository_dir()), objects(&bench.path(name)));
}

#[test]
fn a_mirror_is_equal_byte_for_byte_and_takes_only_what_is_new() {
    let bench = Bench::new();
    let trees = two_versions(&bench);
    let report = mirror(&bench.location(), &place(&bench, "mirror"), MIRROR, &Silent).unwrap();
    assert_eq!(usize::try_from(report.copied).unwrap(), objects(&bench.repository_dir()).len());
    equal(&bench, "mirror");
    let before = objects(&bench.repository_dir()).len();
    bench.write("new", noise(5, 3000));
    bench.backup();
    let dry = MirrorOptions { dry_run: true, ..MIRROR };
    let told = mirror(&bench.location(), &place(&bench, "mirror"), dry, &Silent).unwrap();
    let report = mirror(&bench.location(), &place(&bench, "mirror"), MIRROR, &Silent).unwrap();
    assert_eq!((told.copied, told.bytes), (report.copied, report.bytes));
    assert_eq!(usize::try_from(report.copied).unwrap(), objects(&bench.repository_dir()).len() - before);
    equal(&bench, "mirror");
    let second = Repository::open(&place(&bench, "mirror"), &bench.access(), &bench.options_of("other"), &Silent).unwrap();
    healthy(&second);
    let entry = second.snapshots().unwrap().remove(0);
    let out = bench.path("out");
    lifeboat::ops::restore::restore(&second, &entry, &bench.restore_options(&out), &Silent).unwrap();
    assert_eq!(contents(&out), trees[0]);
}

#[test]
fn a_mirror_that_is_cut_off_at_any_call_goes_on() {
    let bench = Bench::in_memory();
    two_versions(&bench);
    let source = bench.location().open().unwrap();
    for call in 0..40 {
        let name = format!("mirror-{call}");
        let to = place(&bench, &name).create().unwrap();
        let store: AnyStore = Interposed::new(to, move |number, _, _| match number == call {
            true => Fate::FailAfter(ErrorKind::Failed),
            false => Fate::Pass,
        })
        .store();
        let _ = mirror_stores(&source, &store, MIRROR, &Progress::default(), &Silent);
        // Whatever of it shows is whole: nothing is named that is not there.
        if let Ok(shown) = Repository::open(&place(&bench, &name), &bench.access(), &bench.options_of(&name), &Silent) {
            healthy(&shown);
        }
        mirror(&bench.location(), &place(&bench, &name), MIRROR, &Silent).unwrap();
        equal(&bench, &name);
    }
}

#[test]
fn a_mirror_repairs_what_is_damaged_on_either_side() {
    let bench = Bench::new();
    two_versions(&bench);
    mirror(&bench.location(), &place(&bench, "mirror"), MIRROR, &Silent).unwrap();
    let (there, here) = (bench.path("mirror"), bench.objects("packs"));
    let name = here[0].strip_prefix(bench.repository_dir()).unwrap().to_owned();
    tamper(&there.join(&name), |bytes| bytes[100] ^= 1);
    std::fs::remove_file(&here[1]).unwrap();
    let verify = MirrorOptions { verify: true, ..MIRROR };
    let report = mirror(&bench.location(), &place(&bench, "mirror"), verify, &Silent).unwrap();
    assert_eq!(report.replaced, [name.to_str().unwrap()]);
    mirror(&place(&bench, "mirror"), &bench.location(), verify, &Silent).unwrap();
    equal(&bench, "mirror");
    // What is damaged here is not carried over there, and is said.
    tamper(&here[0], |bytes| bytes[100] ^= 1);
    let report = mirror(&bench.location(), &place(&bench, "fresh"), MIRROR, &Silent).unwrap();
    assert_eq!(report.damaged, [name.to_str().unwrap()]);
    assert!(!bench.path("fresh").join(&name).exists());
}

#[test]
fn a_mirror_never_overwrites_what_went_another_way() {
    let bench = Bench::new();
    two_versions(&bench);
    mirror(&bench.location(), &place(&bench, "mirror"), MIRROR, &Silent).unwrap();
    bench.write("here", "1");
    bench.backup();
    let there = Repository::open(&place(&bench, "mirror"), &bench.access(), &bench.options_of("other"), &Silent).unwrap();
    bench.write("there", "2");
    lifeboat::ops::backup::backup(&there, bench.backup_options(), &Silent).unwrap();
    let before = (objects(&bench.repository_dir()), objects(&bench.path("mirror")));
    let error = mirror(&bench.location(), &place(&bench, "mirror"), MIRROR, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!((objects(&bench.repository_dir()), objects(&bench.path("mirror"))), before);
    let other = Bench::new();
    let error = mirror(&bench.location(), &other.location(), MIRROR, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn a_prune_in_the_midst_of_a_mirror_makes_it_look_again() {
    let bench = Bench::new();
    two_versions(&bench);
    let (done, other) = (AtomicBool::new(false), bench.open());
    let source: AnyStore = Interposed::new(bench.location().open().unwrap(), move |_, verb, key| {
        if verb == Verb::List && key == "packs" && !done.swap(true, Ordering::SeqCst) {
            let records: Vec<_> = other.snapshots().unwrap()[..1].iter().map(SnapshotEntry::record).collect();
            other.forget(&records).unwrap();
            let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
            assert!(prune(&other, &options, &Silent).unwrap().pruned.deleted > 0);
        }
        Fate::Pass
    })
    .store();
    let target = place(&bench, "mirror").create().unwrap();
    mirror_stores(&source, &target, MIRROR, &Progress::default(), &Silent).unwrap();
    let shown = Repository::open(&place(&bench, "mirror"), &bench.access(), &bench.options_of("other"), &Silent).unwrap();
    assert_eq!(shown.snapshots().unwrap().len(), 1);
    healthy(&shown);
}

#[test]
fn a_backup_is_copied_afterwards_with_what_could_not_be_copied_before() {
    let home = Home::documents();
    let (one, two) = (home.path("documents/one"), home.path("two"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    home.ok(&["init"]);
    let again = |options: &[&str], code: i32| {
        let output = home.run(&[&["backup", "documents", "--json"], options].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{options:?}: {said}");
        (serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["copies"].take(), said)
    };
    let in_place = |place: &str| home.json(&["snapshots", "--repo", place, "--json"]).as_array().unwrap().len();
    // What is not there fails its own copy, and neither the backup nor the copy in another place.
    home.ok(&["init", "--repo", two]);
    let (copies, said) = again(&["--copy-to", one, "--copy-to", two], 3);
    assert!(said.contains("the backup is done, its copy in") && said.contains("there is none"), "{said}");
    assert!(copies[0]["error"].is_string() && copies[1]["copied"].as_array().unwrap().len() == 1, "{copies}");
    // From the configuration, and with everything that was missing. A copy beneath what is backed up is no part of it.
    home.ok(&["init", "--repo", one]);
    std::fs::write(home.path(".config/lifeboat/lifeboat.toml"), format!("copy-to = [\"{one}\", \"~/two\"]\n")).unwrap();
    let (copies, _) = again(&[], 0);
    assert_eq!(copies[0]["copied"].as_array().unwrap().len(), 2, "{copies}");
    assert_eq!(copies[1]["copied"].as_array().unwrap().len(), 1, "{copies}");
    assert!(!home.ok(&["ls", "-R", "latest"]).contains("one/packs"));
    // Not another machine's, not with --no-copy, and not when nothing is stored.
    assert_eq!(again(&["--no-copy", "--host", "other"], 0).0, serde_json::json!([]));
    assert!(again(&["--dry-run"], 0).0.is_null());
    again(&[], 0);
    assert_eq!((in_place(one), in_place(two)), (3, 3));
    assert!(home.ok(&["backup", "documents"]).contains("copied 1 snapshot"));
    assert_eq!(home.code(&["backup", "documents", "--copy-to", one, "--no-copy"]), 2);
    home.ok(&["restore", "latest", "--repo", one, "--to", "out", "--verify"]);
    home.ok(&["check", "--repo", two, "--read-data"]);
}
