//! Mending: from parity, from another copy, from meta packs; and what cannot be mended is marked and heals.

mod support;

use lifeboat::event::Silent;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, CheckReport, check};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::repair::{Outcome, RepairOptions, RepairReport, repair};
use lifeboat::ops::restore::restore;
use lifeboat::repo::{OpenOptions, Repository};
use lifeboat::store::Location;
use std::path::PathBuf;
use support::versions::copy_tree;
use support::{Bench, contents, noise, tamper};

const SHARD: usize = 64 << 10;

fn filled(parity: u16) -> Bench {
    let bench = Bench::new();
    for number in 0..40 {
        bench.write(&format!("{}/{number}", number % 4), noise(number, 60_000));
    }
    let repository = bench.open();
    repository.set_parity(parity);
    backup(&repository, bench.backup_options(), &Silent).unwrap();
    bench
}

fn look(bench: &Bench) -> CheckReport {
    check(&bench.open(), &CheckOptions::of_all_data(2), &Silent).unwrap()
}

fn mend(bench: &Bench, options: RepairOptions) -> RepairReport {
    let place = (&bench.location(), &bench.access(), &bench.options());
    let repository = Repository::open_damaged(place.0, place.1, place.2, &Silent).unwrap();
    repair(&repository, &RepairOptions { threads: 2, ..options }, &Silent).unwrap()
}

fn apply() -> RepairOptions {
    RepairOptions { apply: true, ..RepairOptions::default() }
}

/// All objects of the repository with their bytes.
fn objects(bench: &Bench) -> Vec<(PathBuf, Vec<u8>)> {
    bench.objects("").into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// The largest pack holds data.
fn data_pack(bench: &Bench) -> PathBuf {
    bench.objects("packs").into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn a_healthy_repository_is_left_as_it_is() {
    let bench = filled(50);
    let before = objects(&bench);
    let report = mend(&bench, apply());
    assert!(report.findings.is_empty() && report.steps.is_empty(), "{:?} {:?}", report.findings, report.steps);
    assert_eq!(objects(&bench), before);
}

#[test]
fn any_one_lost_shard_in_twenty_of_every_pack_is_read_from_parity_and_mended() {
    let bench = filled(50);
    let whole = objects(&bench);
    for offset in [0, 7, 13, 19] {
        for pack in bench.objects("packs") {
            tamper(&pack, |bytes| {
                for (number, shard) in bytes.chunks_mut(SHARD).enumerate() {
                    if number % 20 == offset {
                        shard.fill(0xaa);
                    }
                }
            });
        }
        // Also on a machine that has no index yet.
        let options = OpenOptions { cache_dir: bench.path("none"), state_dir: bench.path("none"), fingerprint: None };
        let repository = Repository::open(&bench.location(), &bench.access(), &options, &Silent).unwrap();
        let entry = repository.snapshots().unwrap().remove(0);
        let target = bench.path(&format!("out-{offset}"));
        let report = restore(&repository, &entry, &bench.restore_options(&target), &Silent).unwrap();
        assert_eq!(report.failure_count, 0);
        assert_eq!(contents(&target), contents(&bench.source()));
        std::fs::remove_dir_all(bench.path("none")).unwrap();
        let report = look(&bench);
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
        let planned = mend(&bench, RepairOptions::default());
        assert!(planned.steps.iter().map(Result::unwrap).all(|step| step.outcome == Outcome::Planned));
        mend(&bench, apply());
        assert_eq!(objects(&bench), whole, "offset {offset}");
    }
}

#[test]
fn parity_is_added_later_and_goes_with_its_packs() {
    let bench = filled(0);
    assert!(bench.objects("parity").is_empty());
    let report = mend(&bench, RepairOptions { parity: Some(50), ..apply() });
    assert!(report.steps.iter().map(Result::unwrap).all(|step| step.outcome == Outcome::Done), "{:?}", report.steps);
    assert_eq!(bench.objects("parity").len(), bench.objects("packs").len());
    let small = bench.objects("format").len() + bench.objects("keys").len() + bench.objects("log").len();
    assert_eq!(bench.objects("copies").len(), small);
    // What is written from now on has parity too, without being told.
    bench.write("more", noise(900, 100_000));
    bench.backup();
    assert_eq!(bench.objects("parity").len(), bench.objects("packs").len());
    let repository = bench.open();
    let all: Vec<_> = repository.snapshots().unwrap().iter().map(lifeboat::repo::SnapshotEntry::record).collect();
    repository.forget(&all).unwrap();
    let options = lifeboat::ops::prune::PruneOptions { grace: std::time::Duration::ZERO, ..Default::default() };
    lifeboat::ops::prune::prune(&repository, &options, &Silent).unwrap();
    assert_eq!((bench.objects("parity").len(), bench.objects("packs").len()), (0, 0));
}

#[test]
fn another_copy_gives_back_what_is_damaged_or_gone() {
    let bench = filled(0);
    bench.backup();
    let whole = objects(&bench);
    copy_tree(&bench.repository_dir(), &bench.path("other"));
    tamper(&data_pack(&bench), |bytes| bytes[5000] ^= 1);
    std::fs::remove_file(bench.objects("packs").into_iter().min_by_key(|path| path.metadata().unwrap().len()).unwrap()).unwrap();
    let record = bench.objects("log").pop().unwrap();
    tamper(&record, |bytes| bytes[300] ^= 1);
    let from = Some(Location::directory(&bench.path("other")));
    let report = mend(&bench, RepairOptions { from, ..apply() });
    assert!(report.steps.iter().map(Result::unwrap).all(|step| step.outcome == Outcome::Done), "{:?}", report.steps);
    assert_eq!(objects(&bench), whole);
    assert!(!look(&bench).is_damaged());
}

#[test]
fn what_is_lost_is_marked_and_the_next_backup_heals_it() {
    let bench = filled(0);
    bench.age_source();
    bench.backup();
    tamper(&data_pack(&bench), |bytes| bytes[200_000] ^= 1);
    assert!(!look(&bench).damaged.is_empty());
    let report = mend(&bench, apply());
    assert!(report.steps.iter().map(Result::unwrap).any(|step| step.mend.to_string().contains("lost")), "{:?}", report.steps);
    assert!(mend(&bench, apply()).steps.is_empty(), "it is marked once");
    assert!(!look(&bench).damaged.is_empty());
    bench.backup();
    assert!(look(&bench).damaged.is_empty(), "what is still there was stored again");
    for (number, entry) in bench.open().snapshots().unwrap().iter().enumerate() {
        let target = bench.path(&format!("out-{number}"));
        assert_eq!(bench.restore(entry, &target).failure_count, 0);
        assert_eq!(contents(&target), contents(&bench.source()));
    }
}

#[test]
fn nobody_looks_for_a_pack_that_is_lost_once_what_was_in_it_is_stored_again_and_a_prune_has_run() {
    let bench = filled(0);
    bench.age_source();
    bench.backup();
    std::fs::remove_file(data_pack(&bench)).unwrap();
    mend(&bench, apply());
    let pruned = || prune(&bench.open(), &PruneOptions::default(), &Silent).unwrap();
    pruned();
    assert!(look(&bench).findings.has_damage(), "what snapshots need is not forgotten");
    bench.backup();
    assert!(look(&bench).damaged.is_empty() && look(&bench).findings.has_damage(), "a prune has not run yet");
    pruned();
    assert!(!look(&bench).findings.has_damage(), "{:?}", look(&bench).findings);
    for (number, entry) in bench.open().snapshots().unwrap().iter().enumerate() {
        let target = bench.path(&format!("out-{number}"));
        assert_eq!(bench.restore(entry, &target).failure_count, 0);
        assert_eq!(contents(&target), contents(&bench.source()));
    }
}

#[test]
fn a_snapshot_whose_record_is_gone_is_committed_again_from_its_meta_pack() {
    let bench = filled(0);
    let lost = bench.latest().id;
    std::fs::remove_file(bench.objects("log").pop().unwrap()).unwrap();
    for part in ["cache", "state"] {
        std::fs::remove_dir_all(bench.path(part)).unwrap();
    }
    assert!(bench.open().snapshots().unwrap().is_empty());
    let report = mend(&bench, apply());
    assert!(
        report.steps.iter().map(Result::unwrap).all(|step| step.outcome == Outcome::Done) && !report.steps.is_empty(),
        "{:?}",
        report.steps
    );
    assert_eq!(bench.latest().id, lost);
    bench.restore(&bench.latest(), &bench.path("out"));
    assert_eq!(contents(&bench.path("out")), contents(&bench.source()));
}

#[test]
fn a_salvage_writes_what_is_left_and_lists_what_is_missing() {
    let bench = Bench::new();
    bench.write("large", noise(1, 3_000_000));
    bench.write("small", "whole");
    bench.backup();
    tamper(&data_pack(&bench), |bytes| bytes[1_500_000] ^= 1);
    let options = lifeboat::ops::restore::RestoreOptions { salvage: true, ..bench.restore_options(&bench.path("out")) };
    let report = restore(&bench.open(), &bench.latest(), &options, &Silent).unwrap();
    assert!(report.damaged && report.salvaged.len() == 1);
    assert!(!bench.path("out/large").exists() && bench.path("out/small").exists());
    let (left, whole) = (std::fs::read(bench.path("out/large.damaged")).unwrap(), noise(1, 3_000_000));
    let file = &report.salvaged.first(1).unwrap()[0];
    assert_eq!((left.len(), file.holes.is_empty()), (whole.len(), false));
    for (at, byte) in left.iter().enumerate() {
        let missing = file.holes.iter().any(|(offset, length)| (*offset..offset + length).contains(&(at as u64)));
        assert!(if missing { *byte == 0 } else { *byte == whole[at] }, "byte {at}");
    }
    assert!(std::fs::read_to_string(bench.path("out/.lifeboat-holes.txt")).unwrap().contains("large"));
}

#[test]
fn parity_that_is_damaged_beside_its_pack_is_made_anew_by_the_same_repair() {
    let bench = filled(100);
    let whole = objects(&bench);
    let pack = data_pack(&bench);
    tamper(&pack, |bytes| bytes[200_000] ^= 1);
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    let sidecar = bench.objects("parity").into_iter().find(|path| path.to_str().unwrap().contains(&name)).unwrap();
    // The last shard of parity: the others are enough to mend the pack.
    tamper(&sidecar, |bytes| {
        let last = bytes.len() - 100;
        bytes[last] ^= 1;
    });
    let report = mend(&bench, apply());
    assert!(report.steps.iter().map(Result::unwrap).all(|step| step.outcome == Outcome::Done), "{:?}", report.steps);
    assert!(look(&bench).findings.is_empty() && !report.steps.is_empty(), "{:?}", report.steps);
    let packs = |all: Vec<(PathBuf, Vec<u8>)>| -> Vec<_> {
        all.into_iter().filter(|(path, _)| path.components().any(|part| part.as_os_str() == "packs")).collect()
    };
    assert!(packs(objects(&bench)) == packs(whole));
}
