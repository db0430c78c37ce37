//! What check looks at, what it remembers, and what a reader does about damage by itself.

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::format::log::{PackRef, RecordBody};
use lifeboat::id::PackId;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, CheckReport, ReadData, Severity, check};
use lifeboat::ops::restore::restore;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::forge::Thief;
use support::interposed::{Fate, Interposed, Verb};
use support::{Bench, Recorder, contents, noise, tamper};

fn filled() -> Bench {
    let bench = Bench::new();
    for backup in 0..4 {
        for number in 0..10 {
            bench.write(&format!("{backup}/{number}"), noise(backup * 100 + number, 30_000));
        }
        bench.backup();
    }
    bench
}

fn reading(read_data: ReadData) -> CheckOptions {
    CheckOptions { read_data: Some(read_data), threads: 2, ..CheckOptions::default() }
}

fn look(bench: &Bench, options: &CheckOptions) -> CheckReport {
    check(&bench.open(), options, &Silent).unwrap()
}

/// The packs, the largest first.
fn packs(bench: &Bench) -> Vec<PathBuf> {
    let mut packs = bench.objects("packs");
    packs.sort_by_key(|path| std::cmp::Reverse(std::fs::metadata(path).unwrap().len()));
    packs
}

#[test]
fn the_quick_check_reads_no_packs_and_finds_what_is_gone_or_shorter() {
    let bench = filled();
    let quick = CheckOptions { quick: true, ..CheckOptions::default() };
    let report = look(&bench, &quick);
    assert!(report.findings.is_empty() && report.bytes_read == 0, "{:?}", report.findings);
    assert!(report.records >= 6 && report.packs >= 4);
    tamper(&packs(&bench)[0], |bytes| bytes.truncate(1000));
    std::fs::remove_file(&packs(&bench)[1]).unwrap();
    let findings = look(&bench, &quick).findings;
    assert_eq!(
        findings.iter().map(Result::unwrap).filter(|finding| finding.severity == Severity::Damage).count(),
        2,
        "{findings:?}"
    );
    assert!(findings.iter().map(Result::unwrap).all(|finding| finding.object.starts_with("pack ") && !finding.hint.is_empty()));
}

#[test]
fn shares_come_to_every_pack_and_an_age_leaves_out_what_was_read() {
    let bench = filled();
    let quarter = reading(ReadData { share: 0.25, ..ReadData::default() });
    let first = look(&bench, &quarter);
    assert!(first.packs_read > 0 && first.packs_read < first.packs && first.oldest_read.is_none());
    let mut read = first.packs_read;
    for _ in 0..8 {
        read += look(&bench, &quarter).packs_read;
    }
    let last = look(&bench, &quarter);
    assert!(read >= last.packs && last.oldest_read.is_some(), "all were read by now");
    let aged = |hours| reading(ReadData { max_age: Some(Duration::from_hours(hours)), ..ReadData::default() });
    assert_eq!(look(&bench, &aged(1)).packs_read, 0);
    assert_eq!(look(&bench, &aged(0)).packs_read, last.packs);
    let none = reading(ReadData { max_duration: Some(Duration::ZERO), ..ReadData::default() });
    assert_eq!(look(&bench, &none).packs_read, 0);
}

#[test]
fn a_check_that_is_stopped_goes_on_with_the_packs_that_it_had_not_read() {
    let bench = filled();
    let all = look(&bench, &CheckOptions { quick: true, ..CheckOptions::default() }).packs;
    let (recorder, begun) = (Arc::new(Recorder::default()), Mutex::new(BTreeSet::new()));
    let (stopped, checks) = (recorder.clone(), Arc::new(AtomicBool::new(false)));
    let counts = checks.clone();
    // Somebody asks it to stop when it begins with the third pack.
    let store = Interposed::new(bench.location().open().unwrap(), move |_, verb, key| {
        if verb == Verb::ReadAt && key.starts_with("packs/") && counts.load(Ordering::Relaxed) {
            let mut begun = begun.lock().unwrap();
            begun.insert(key.to_owned());
            stopped.stop.store(begun.len() > 2, Ordering::Relaxed);
        }
        Fate::Pass
    });
    let opened = bench.open_over(store.store(), "journal").unwrap();
    let options = CheckOptions { threads: 1, ..reading(ReadData::default()) };
    checks.store(true, Ordering::Relaxed);
    let error = check(&opened, &options, &*recorder).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let lately = reading(ReadData { max_age: Some(Duration::from_hours(1)), ..ReadData::default() });
    let rest = check(&opened, &lately, &Silent).unwrap();
    assert!(rest.packs_read > 0 && rest.packs_read < all, "{} of {all} packs", rest.packs_read);
    assert!(rest.oldest_read.is_some(), "by now all were read");
    assert_eq!(check(&opened, &lately, &Silent).unwrap().packs_read, 0);
}

#[test]
fn damaged_snapshots_are_marked_in_lists_until_they_are_whole_again() {
    let bench = filled();
    let whole = std::fs::read(&packs(&bench)[0]).unwrap();
    tamper(&packs(&bench)[0], |bytes| bytes[2000] ^= 1);
    assert!(bench.open().snapshots().unwrap().iter().all(|entry| entry.damaged_files == 0));
    let report = look(&bench, &CheckOptions::of_all_data(2));
    assert!(!report.damaged.is_empty());
    for damaged in report.damaged.iter().map(Result::unwrap) {
        assert_eq!(damaged.count, damaged.paths.len() as u64);
    }
    let marked = bench.open().snapshots().unwrap();
    let marked = marked.iter().filter(|entry| entry.damaged_files > 0).count();
    assert_eq!(marked as u64, report.damaged.len());
    // What was found by reading stays known to a check that does not read.
    assert_eq!(look(&bench, &CheckOptions::default()).damaged.len(), report.damaged.len());
    tamper(&packs(&bench)[0], |bytes| *bytes = whole);
    assert!(look(&bench, &CheckOptions::of_all_data(2)).damaged.is_empty());
    assert!(bench.open().snapshots().unwrap().iter().all(|entry| entry.damaged_files == 0));
}

#[test]
fn every_damaged_pack_is_a_finding_of_its_own() {
    let bench = filled();
    let count = packs(&bench).len();
    for pack in packs(&bench) {
        tamper(&pack, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    }
    let report = look(&bench, &CheckOptions::of_all_data(2));
    let named: std::collections::BTreeSet<_> = report.findings.iter().map(|finding| finding.unwrap().object).collect();
    assert_eq!(named.iter().filter(|object| object.starts_with("pack ")).count(), count);
}

#[test]
fn a_record_that_was_damaged_long_ago_is_found_although_later_ones_follow() {
    let bench = filled();
    let records = bench.objects("log");
    tamper(&records[2], |bytes| bytes[200] ^= 1);
    std::fs::remove_file(&records[3]).unwrap();
    let report = look(&bench, &CheckOptions::default());
    let damaged = report.findings.iter().map(Result::unwrap).filter(|finding| finding.object.starts_with("object log/"));
    assert!(damaged.count() >= 1, "{:?}", report.findings);
    assert!(report.is_damaged());
}

#[test]
fn a_chunk_that_lies_in_two_packs_is_read_from_the_one_that_is_whole() {
    let bench = Bench::new();
    for number in 0..20 {
        bench.write(&format!("{}/{number}", number % 3), noise(number, 40_000));
    }
    // Each machine stores all of it, because neither knows of the other's.
    let store = || bench.location().open().unwrap();
    let (one, two) = (bench.open_over(store(), "one").unwrap(), bench.open_over(store(), "two").unwrap());
    backup(&one, bench.backup_options(), &Silent).unwrap();
    let first = packs(&bench).len();
    backup(&two, bench.backup_options(), &Silent).unwrap();
    assert_eq!(bench.objects("packs").len(), first * 2);
    bench.open();
    // The longest two have the data; of which of them the index reads first depends on chance. Not those of the trees: the
    // directories above the source may have changed meanwhile, and so lie in one pack only.
    let mut rescued = 0;
    for (turn, lost) in packs(&bench)[..2].iter().enumerate() {
        let bytes = std::fs::read(lost).unwrap();
        std::fs::remove_file(lost).unwrap();
        let report = look(&bench, &CheckOptions::of_all_data(2));
        assert!(report.is_damaged());
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
        for entry in bench.open().snapshots().unwrap() {
            let target = bench.path(&format!("{turn}-{}", entry.id));
            let restored = bench.restore(&entry, &target);
            assert_eq!(restored.failure_count, 0);
            assert!(restored.rescued.packs.len() <= 1);
            rescued += restored.rescued.reads;
            assert_eq!(contents(&target), contents(&bench.source()));
        }
        std::fs::write(lost, bytes).unwrap();
    }
    assert!(rescued > 0);
}

/// Two packs of the same length, whose tables of contents have the same length too.
fn twins() -> (Bench, [PathBuf; 2]) {
    let bench = Bench::new();
    let twins = bench.twins("twin", |_| ());
    (bench, twins)
}

#[test]
fn a_whole_pack_in_the_place_of_another_one_of_its_length_is_damage() {
    for swap in [true, false] {
        let (bench, twins) = twins();
        let [first, second] = [0, 1].map(|which| std::fs::read(&twins[which]).unwrap());
        tamper(&twins[0], |bytes| *bytes = second);
        if swap {
            tamper(&twins[1], |bytes| *bytes = first);
        }
        for options in [CheckOptions::of_all_data(1), CheckOptions::default()] {
            let report = look(&bench, &options);
            let damage = report.findings.iter().map(Result::unwrap).filter(|finding| finding.severity == Severity::Damage);
            let damaged: Vec<_> = damage.filter(|finding| finding.object.starts_with("pack ")).collect();
            assert_eq!(damaged.len(), 1 + usize::from(swap), "{options:?}: {:?}", report.findings);
            assert!(report.is_damaged() && damaged.iter().all(|finding| finding.problem.contains("name")), "{damaged:?}");
        }
    }
}

#[test]
fn a_key_slot_that_a_listing_omits_is_not_gone() {
    let bench = filled();
    let lags = Arc::new(AtomicBool::new(false));
    let omits = lags.clone();
    let store = Interposed::new(bench.location().open().unwrap(), move |_, verb, key| match verb {
        Verb::List if key == "keys" && omits.load(Ordering::Relaxed) => Fate::Hide,
        _ => Fate::Pass,
    });
    let repository = bench.open_over(store.store(), "behind").unwrap();
    lags.store(true, Ordering::Relaxed);
    let report = check(&repository, &CheckOptions::default(), &Silent).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    for slot in bench.objects("keys") {
        std::fs::remove_file(slot).unwrap();
    }
    let report = check(&repository, &CheckOptions::default(), &Silent).unwrap();
    assert!(report.is_damaged(), "{:?}", report.findings);
}

/// Somebody lists packs that there are not. Their names come before those of others, so they are asked for first.
#[test]
fn packs_that_there_are_not_cost_an_opening_one_listing_which_hides_none_that_there_are() {
    const ABSENT: u64 = 6000;
    let bench = filled();
    let identity = bench.path("identity");
    std::fs::write(&identity, &bench.identity).unwrap();
    let thief = Thief::with(bench.repository_dir(), &identity);
    let absent = |number: u64| {
        let mut id = [0; 32];
        id[8..16].copy_from_slice(&number.to_be_bytes());
        PackRef { id: PackId(id), size: 1 << 20, toc_len: 1000 }
    };
    let packs = (0..ABSENT).map(absent).collect();
    thief.record(thief.client(), 0, None, RecordBody::Claim { packs, checkpoint: None });
    let (asked, listed, lags) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (asks, lists, hides) = (asked.clone(), listed.clone(), lags.clone());
    let store = Interposed::new(bench.location().open().unwrap(), move |_, verb, key| {
        match verb {
            Verb::ReadAt if key.starts_with("packs/00/000000") => drop(asks.fetch_add(1, Ordering::Relaxed)),
            Verb::List if key == "packs" => {
                lists.fetch_add(1, Ordering::Relaxed);
                return if hides.load(Ordering::Relaxed) { Fate::Hide } else { Fate::Pass };
            }
            _ => {}
        }
        Fate::Pass
    });
    // A new machine, which has to read all tables of contents.
    let opened = bench.open_over(store.store(), "new").unwrap();
    assert!((1..ABSENT / 2).contains(&asked.load(Ordering::Relaxed)), "{asked:?} reads");
    assert_eq!(listed.load(Ordering::Relaxed), 1);
    assert_eq!(opened.packs().unwrap().len() as u64, ABSENT + bench.objects("packs").len() as u64);
    assert!(opened.chunk_count().unwrap() > 40, "those that there are were read");
    drop(opened);
    // Another one, to which the store lists nothing: what it needs it finds all the same.
    lags.store(true, Ordering::Relaxed);
    let opened = bench.open_over(store.store(), "late").unwrap();
    assert_eq!(opened.chunk_count().unwrap(), 0);
    let target = bench.path("out");
    let report = restore(&opened, &bench.latest(), &bench.restore_options(&target), &Silent).unwrap();
    assert_eq!((report.failure_count, contents(&target)), (0, contents(&bench.source())));
    // And once more, with a listing that is as it should be: nothing was taken for gone.
    lags.store(false, Ordering::Relaxed);
    let report = check(&bench.open_over(store.store(), "third").unwrap(), &reading(ReadData::default()), &Silent).unwrap();
    assert_eq!(
        (report.packs_read, report.findings.len()),
        (report.packs, ABSENT),
        "all are asked for, and nothing else is wrong"
    );
}
