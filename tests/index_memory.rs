//! An index of many chunks is searched and compacted in bounded memory. `LIFEBOAT_SYNTHETIC_CHUNKS=100000000 cargo test
//! --test index_memory -- --nocapture` says what it takes for a hundred million; they need 6 GB on the disk.

#![expect(clippy::print_stdout, reason = "figures, and why a test is skipped")]

mod support;

use lifeboat::event::Silent;
use lifeboat::repo::CompactOptions;
use lifeboat::store::{Measured, ObjectClass, Operation};
use std::sync::Arc;
use std::time::Instant;
use support::Bench;
use support::synthetic::{Dice, Owner};

/// Most resident memory in KiB.
const LIMIT: u64 = 256 << 10;

/// Peak of the resident memory in KiB since [`forget_peak`].
#[cfg(target_os = "linux")]
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().split(' ').next()?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn peak() -> Option<u64> {
    None
}

fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[test]
fn an_index_of_many_chunks_is_compacted_and_searched_in_bounded_memory() {
    let chunks: u64 = std::env::var("LIFEBOAT_SYNTHETIC_CHUNKS").map_or(1_500_000, |text| text.parse().unwrap());
    let bench = Bench::new();
    let owner = Owner::of(&bench);
    let mut planted = Vec::new();
    for (seed, share) in [(1, 6), (2, 3), (3, 1)] {
        let chunks = chunks * share / 10;
        planted.extend(owner.plant(seed, chunks, u32::try_from(chunks / 512).unwrap()));
    }
    let store = Measured::new(bench.location().open().unwrap());
    let repository = bench.open_over(Arc::new(store.clone()), "reader").unwrap();
    forget_peak();

    let began = Instant::now();
    let options = CompactOptions { everything: true, ..CompactOptions::default() };
    let report = repository.compact_index(&options, &Silent).unwrap();
    let (compacting, merged) = (began.elapsed(), peak());
    assert_eq!(report.entries, [6, 3, 1].map(|share| chunks * share / 10).iter().sum::<u64>());
    forget_peak();

    let before = store.counts();
    let began = Instant::now();
    // Without the sets that were merged: they go with the next prune.
    let shards = repository.shards().unwrap();
    for chunk in &planted {
        assert_eq!(shards.find(&chunk.prefix).unwrap(), [chunk.pack]);
    }
    let mut dice = Dice(99);
    for _ in 0..500 {
        let stranger = [dice.roll().to_be_bytes(), dice.roll().to_be_bytes()].concat();
        assert_eq!(shards.find(stranger.first_chunk().unwrap()).unwrap(), []);
    }
    let (searching, searched) = (began.elapsed(), peak());
    let read = store.counts().since(&before).of(Operation::Read, ObjectClass::Index);
    let lookups = planted.len() as u64 + 500;
    println!(
        "{chunks} chunks in {} shards, {} MiB: compacted in {compacting:.1?} with {:?} KiB resident; {lookups} lookups in \
         {searching:.1?} with {:?} KiB, {} reads and {} KiB for each",
        report.shards,
        report.bytes >> 20,
        merged,
        searched,
        read.calls as f64 / lookups as f64,
        read.bytes / lookups / 1024,
    );
    let (Some(merged), Some(searched)) = (merged, searched) else {
        println!("skipped: this system does not say how much memory a process has had");
        return;
    };
    assert!(merged < LIMIT, "{merged} KiB were resident while compacting");
    assert!(searched < LIMIT, "{searched} KiB were resident while searching");
}
