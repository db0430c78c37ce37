//! Duplicates of small objects: opening reads from them what is gone or damaged, says so, and repair puts it back.

mod support;

use lifeboat::event::Silent;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::repair::{Outcome, RepairOptions, repair};
use lifeboat::repo::Repository;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Bench, Recorder, contents, noise, tamper};

/// A repository with a past, and duplicates of all of it.
fn filled() -> Bench {
    let bench = Bench::in_memory();
    for round in 0..3 {
        bench.write("file", noise(round, 40_000));
        bench.backup();
    }
    let repository = bench.open();
    repository.forget(&[repository.snapshots().unwrap()[0].record()]).unwrap();
    let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
    prune(&repository, &options, &Silent).unwrap();
    mend(&bench, RepairOptions { parity: Some(50), apply: true, ..RepairOptions::default() });
    bench
}

fn mend(bench: &Bench, options: RepairOptions) {
    let repository = Repository::open_damaged(&bench.location(), &bench.access(), &bench.options(), &Silent).unwrap();
    let report = repair(&repository, &RepairOptions { threads: 2, ..options }, &Silent).unwrap();
    assert!(report.steps.iter().map(Result::unwrap).all(|step| step.outcome != Outcome::Failed), "{:?}", report.steps);
}

/// Opens as a machine does that knows nothing; says what it was warned of.
fn opened(bench: &Bench, machine: &str) -> (Repository, Vec<String>) {
    let recorder = Recorder::default();
    let repository = Repository::open(&bench.location(), &bench.access(), &bench.options_of(machine), &recorder).unwrap();
    (repository, recorder.warnings.into_inner().unwrap())
}

/// Objects that have a duplicate.
fn small(bench: &Bench) -> Vec<(String, PathBuf)> {
    let root = bench.repository_dir();
    let name = |path: &Path| path.strip_prefix(root.join("copies")).unwrap().to_str().unwrap().to_owned();
    bench.objects("copies").iter().map(|copy| (name(copy), root.join(name(copy)))).collect()
}

type Damage = (&'static str, fn(&Path));

fn damages() -> [Damage; 6] {
    [
        // Where sealed objects have their version, and the generation of their key.
        ("another version", |path| tamper(path, |bytes| bytes[9] ^= 2)),
        ("another generation", |path| tamper(path, |bytes| bytes[12] ^= 2)),
        ("gone", |path| std::fs::remove_file(path).unwrap()),
        ("cut off", |path| tamper(path, |bytes| bytes.truncate(bytes.len() / 2))),
        ("zeros", |path| tamper(path, |bytes| bytes.fill(0))),
        ("one bit", |path| {
            tamper(path, |bytes| {
                let at = bytes.len() * 2 / 3;
                bytes[at] ^= 4;
            });
        }),
    ]
}

#[test]
fn a_machine_that_knows_nothing_opens_a_repository_whose_small_objects_are_gone_or_damaged() {
    let bench = filled();
    let objects = small(&bench);
    for folder in ["format/", "keys/", "log/", "gc/"] {
        assert!(objects.iter().any(|(name, _)| name.starts_with(folder)), "{folder}: {objects:?}");
    }
    let whole: Vec<_> = bench.open().snapshots().unwrap().iter().map(|entry| entry.id).collect();
    for (number, (name, path)) in objects.iter().enumerate() {
        let before = std::fs::read(path).unwrap();
        for (damage, hurt) in damages() {
            hurt(path);
            let (repository, warnings) = opened(&bench, &format!("{number} {damage}"));
            let ids: Vec<_> = repository.snapshots().unwrap().iter().map(|entry| entry.id).collect();
            assert_eq!(ids, whole, "{name} {damage}: {warnings:?}");
            let told = warnings.iter().any(|text| text.contains(name) && text.contains("lifeboat repair --apply"));
            assert!(told, "{name} {damage}: {warnings:?}");
            let _ = std::fs::remove_file(path);
            std::fs::write(path, &before).unwrap();
        }
    }
}

#[test]
fn repair_puts_back_what_was_read_from_duplicates() {
    for (damage, hurt) in damages() {
        let bench = filled();
        for (_, path) in small(&bench).iter().filter(|(name, _)| !name.starts_with("gc/")) {
            hurt(path);
        }
        let report = check(&opened(&bench, "other").0, &CheckOptions::default(), &Silent).unwrap();
        assert!(report.is_damaged(), "{damage}");
        mend(&bench, RepairOptions { apply: true, ..RepairOptions::default() });
        let (repository, warnings) = opened(&bench, "third");
        assert!(warnings.is_empty(), "{damage}: {warnings:?}");
        let report = check(&repository, &CheckOptions::of_all_data(2), &Silent).unwrap();
        assert!(report.findings.is_empty(), "{damage}: {:?}", report.findings);
    }
}

#[test]
fn what_is_missing_is_put_back_before_anything_is_committed_behind_it() {
    let bench = filled();
    let last = bench.objects("log").pop().unwrap();
    std::fs::remove_file(&last).unwrap();
    let (repository, warnings) = opened(&bench, "other");
    assert!(warnings.iter().any(|text| text.contains("its duplicate")), "{warnings:?}");
    assert!(!last.exists(), "opening alone writes nothing");
    bench.write("more", noise(9, 1000));
    backup(&repository, bench.backup_options(), &Silent).unwrap();
    assert!(last.exists());
    // Those who have seen the record, and those who have not, see what came after it.
    for machine in ["first", "fourth"] {
        let (repository, warnings) = opened(&bench, machine);
        assert!(warnings.is_empty(), "{warnings:?}");
        let entry = repository.snapshots().unwrap().pop().unwrap();
        let target = bench.path(machine);
        bench.restore(&entry, &target);
        assert_eq!(contents(&target), contents(&bench.source()));
    }
    bench.open();
}

#[test]
fn a_duplicate_that_is_another_ones_is_not_believed() {
    let (bench, other) = (filled(), filled());
    let root = bench.repository_dir();
    // All of another repository, under the right names, and the first record in the place of the second.
    for (name, path) in small(&bench) {
        let theirs = small(&other).into_iter().find(|(theirs, _)| theirs[..4] == name[..4]).unwrap().1;
        std::fs::copy(theirs, root.join("copies").join(&name)).unwrap();
        if name.starts_with("keys/") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = Repository::open(&bench.location(), &bench.access(), &bench.options_of("new"), &Silent).err().unwrap();
    assert!(matches!(error.exit_code(), 12 | 13), "{error}");
}
