//! A machine that has nothing but an identity and the place of the repository.

#![expect(clippy::print_stdout, reason = "figures")]

mod support;

use lifeboat::event::Silent;
use lifeboat::ops::prune::{CompactOptions, PruneOptions, prune};
use lifeboat::ops::restore::restore;
use lifeboat::repo::Repository;
use lifeboat::store::{Counts, Measured, ObjectClass, Operation};
use std::sync::Arc;
use std::time::Duration;
use support::synthetic::{Owner, PACK_LEN};
use support::{Bench, contents, noise};

const READS: [Operation; 2] = [Operation::Get, Operation::Read];

fn bytes_read(counts: &Counts) -> u64 {
    READS.iter().map(|read| counts.all(*read).bytes).sum()
}

fn from_packs(counts: &Counts) -> u64 {
    READS.iter().map(|read| counts.of(*read, ObjectClass::Pack).bytes).sum()
}

fn merging() -> CompactOptions {
    CompactOptions { everything: true, ..CompactOptions::default() }
}

/// A machine without a cache, and the store that counts what it asks for.
fn fresh(bench: &Bench, machine: &str) -> (Repository, Measured) {
    let store = Measured::new(bench.location().open().unwrap());
    (bench.open_over(Arc::new(store.clone()), machine).unwrap(), store)
}

fn packs_len(bench: &Bench) -> u64 {
    bench.objects("packs").iter().map(|path| path.metadata().unwrap().len()).sum()
}

#[test]
fn one_file_of_a_terabyte_is_there_after_reading_less_than_ten_megabytes() {
    let bench = Bench::new();
    for file in 0..200 {
        bench.write(&format!("some/where/deep/d{}/f{file}", file % 7), noise(file, 30_000));
    }
    bench.backup();
    let packs = 1 << 15;
    assert_eq!(packs * PACK_LEN, 1 << 40);
    Owner::of(&bench).plant(7, 2_000_000, u32::try_from(packs).unwrap());
    bench.open().compact_index(&merging(), &Silent).unwrap();

    let (repository, store) = fresh(&bench, "fresh");
    let entry = repository.snapshots().unwrap().pop().unwrap();
    let mut options = bench.restore_options(&bench.path("out"));
    options.subpath.extend_from_slice(b"/some/where/deep/d3/f31");
    let report = restore(&repository, &entry, &options, &Silent).unwrap();
    assert_eq!((report.files, report.failure_count), (1, 0));
    assert_eq!(std::fs::read(bench.path("out/f31")).unwrap(), noise(31, 30_000));
    let counts = store.counts();
    println!("{} bytes in {} calls", bytes_read(&counts), counts.total().calls);
    assert!(bytes_read(&counts) < 10_000_000, "{} bytes were read: {counts:?}", bytes_read(&counts));
    assert!(counts.total().calls < 100, "{counts:?}");
}

#[test]
fn a_whole_restore_reads_each_needed_pack_once_and_no_other() {
    let bench = Bench::new();
    bench.write("first", noise(1, 40_000_000));
    bench.backup();
    let first = packs_len(&bench);
    std::fs::remove_file(bench.source().join("first")).unwrap();
    // More pieces than are planned at once.
    bench.write("second", noise(2, 150_000_000));
    for file in 0..50 {
        bench.write(&format!("d{}/f{file}", file % 3), noise(1000 + file, 5000));
    }
    bench.backup();
    let second = packs_len(&bench) - first;
    let options = CompactOptions { packs: 1, ..CompactOptions::default() };
    bench.open().compact_index(&options, &Silent).unwrap();

    let (repository, store) = fresh(&bench, "fresh");
    let entry = repository.snapshots().unwrap().pop().unwrap();
    let report = restore(&repository, &entry, &bench.restore_options(&bench.path("out")), &Silent).unwrap();
    assert_eq!(report.failure_count, 0);
    assert!(contents(&bench.path("out")) == contents(&bench.source()));
    let read = from_packs(&store.counts());
    println!("{read} bytes of {second} in needed packs, {first} in others");
    assert!(read <= second + second / 50, "{read} bytes of packs were read where {second} are needed");
}

#[test]
fn without_any_cache_a_lost_shard_only_costs_time() {
    let bench = Bench::new();
    for file in 0..40 {
        bench.write(&format!("f{file}"), noise(file, 20_000));
    }
    bench.backup();
    let index = CompactOptions { packs: 1, entries: 60, ..CompactOptions::default() };
    let options = PruneOptions { grace: Duration::ZERO, index, ..PruneOptions::default() };
    prune(&bench.open(), &options, &Silent).unwrap();
    let shards = bench.objects("index");
    assert!(shards.len() > 2);
    for (number, shard) in shards.iter().enumerate() {
        let restored = |machine: &str| {
            let (repository, _) = fresh(&bench, machine);
            let entry = repository.snapshots().unwrap().pop().unwrap();
            let target = bench.path(machine);
            let report = restore(&repository, &entry, &bench.restore_options(&target), &Silent).unwrap();
            assert_eq!(report.failure_count, 0);
            assert_eq!(contents(&target), contents(&bench.source()));
        };
        std::fs::remove_file(shard).unwrap();
        restored(&format!("lost-{number}"));
        if number == 2 {
            break;
        }
    }
}
