//! Damage is noticed, named, and never passed on; what is whole still comes back.

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::ops::check::{CheckOptions, CheckReport, ReadData};
use lifeboat::ops::restore::restore;
use lifeboat::ops::thaw::ThawOptions;
use std::path::Path;
use support::{Bench, contents, noise, tamper};

const ALL: ReadData = ReadData { share: 1.0, max_age: None, max_duration: None };
const READ: CheckOptions = CheckOptions { quick: false, read_data: Some(ALL), thaw: ThawOptions::NONE, threads: 2 };
const STRUCTURE: CheckOptions = CheckOptions { quick: false, read_data: None, thaw: ThawOptions::NONE, threads: 2 };

fn check(bench: &Bench, options: &CheckOptions) -> CheckReport {
    lifeboat::ops::check::check(&bench.open(), options, &Silent).unwrap()
}

fn filled() -> Bench {
    let bench = Bench::new();
    for number in 0..60 {
        bench.write(&format!("{}/{number}", number % 5), noise(number, 20_000));
    }
    bench.backup();
    bench
}

/// The larger pack holds data, the smaller one trees.
fn packs(bench: &Bench) -> (std::path::PathBuf, std::path::PathBuf) {
    let mut packs = bench.objects("packs");
    packs.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    (packs.pop().unwrap(), packs.pop().unwrap())
}

/// A way to damage a file.
type Damage = fn(&Path);

fn damages() -> Vec<(&'static str, Damage)> {
    vec![
        ("a flipped bit", |path| tamper(path, |bytes| bytes[5000] ^= 4)),
        ("a cut tail", |path| tamper(path, |bytes| bytes.truncate(bytes.len() - 100))),
        ("zeros", |path| tamper(path, |bytes| bytes[2000..6000].fill(0))),
        ("nothing left", |path| tamper(path, Vec::clear)),
        ("no file", |path| std::fs::remove_file(path).unwrap()),
        ("bytes behind the end", |path| tamper(path, |bytes| bytes.extend_from_slice(&[1, 2, 3]))),
    ]
}

#[test]
fn a_healthy_repository_has_no_findings() {
    let bench = filled();
    let report = check(&bench, &READ);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn every_damage_to_a_data_pack_is_found_and_the_rest_is_restored() {
    for (name, damage) in damages() {
        let bench = filled();
        damage(&packs(&bench).0);
        let report = check(&bench, &READ);
        assert!(report.is_damaged(), "{name}");
        let restored = bench.restore(&bench.latest(), &bench.path("out"));
        let original = contents(&bench.source());
        for (path, content) in contents(&bench.path("out")) {
            let content = content.filter(|_| !path.to_string_lossy().starts_with(".lifeboat"));
            if content.is_some() {
                let whole = original.iter().find(|(known, _)| *known == path).map(|(_, content)| content.clone());
                assert!(whole == Some(content), "{name}: {} is not what it was", path.display());
            }
        }
        if restored.failure_count > 0 {
            assert!(restored.damaged && !report.damaged.is_empty(), "{name}");
        }
    }
}

#[test]
fn the_quick_check_sees_what_is_gone_or_cut_off() {
    for (name, damage) in damages().into_iter().filter(|(name, _)| name.contains("no") || name.contains("tail")) {
        let bench = filled();
        damage(&packs(&bench).0);
        let report = check(&bench, &STRUCTURE);
        assert!(report.is_damaged() && !report.damaged.is_empty(), "{name}: {:?}", report.findings);
    }
}

#[test]
fn damage_to_a_tree_pack_never_hangs_or_panics() {
    for (name, damage) in damages() {
        let bench = filled();
        damage(&packs(&bench).1);
        let report = check(&bench, &READ);
        assert!(report.is_damaged(), "{name}");
        let outcome = restore(&bench.open(), &bench.latest(), &bench.restore_options(&bench.path("out")), &Silent);
        match outcome {
            Ok(report) => assert!(report.failure_count == 0 || report.damaged, "{name}"),
            Err(error) => assert_eq!(error.exit_code(), 13, "{name}: {error}"),
        }
    }
}

#[test]
fn a_lost_or_damaged_cache_is_rebuilt() {
    for action in 0..4 {
        let bench = filled();
        let cache = bench.open().cache_path();
        match action {
            0 => std::fs::remove_dir_all(bench.path("cache")).unwrap(),
            1 => std::fs::write(&cache, b"not a database").unwrap(),
            2 => tamper(&cache, |bytes| bytes[..200].fill(7)),
            _ => tamper(&cache, |bytes| bytes[60..64].copy_from_slice(&99u32.to_be_bytes())),
        }
        if action > 0 {
            for suffix in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", cache.display()));
            }
        }
        bench.restore(&bench.latest(), &bench.path("out"));
        assert_eq!(contents(&bench.path("out")), contents(&bench.source()), "action {action}");
        let report = bench.backup();
        assert!(report.snapshot.counts.bytes_added < 4096, "action {action}: known chunks are not stored again");
    }
}

#[test]
fn a_store_that_was_set_back_is_noticed() {
    let bench = filled();
    let record = bench.objects("log").pop().unwrap();
    std::fs::remove_file(record).unwrap();
    let error = bench.try_open().err().unwrap();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::RolledBack, 14));
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    assert_eq!(bench.try_open().err().unwrap().kind(), ErrorKind::RolledBack);
}

#[test]
fn a_changed_log_record_is_noticed() {
    let bench = filled();
    let record = bench.objects("log").pop().unwrap();
    tamper(&record, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(bench.try_open().err().unwrap().kind(), ErrorKind::RolledBack);
    // A machine that never saw it takes the record as void, and the snapshot is not there.
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    std::fs::remove_dir_all(bench.path("state")).unwrap();
    assert!(bench.open().snapshots().unwrap().is_empty());
    // The next backup goes on behind it and finds all chunks anew.
    bench.backup();
    bench.restore(&bench.latest(), &bench.path("out"));
    assert_eq!(contents(&bench.path("out")), contents(&bench.source()));
}

#[test]
fn damaged_slots_formats_and_foreign_objects_are_errors_of_their_own() {
    let bench = filled();
    let slot = bench.objects("keys").pop().unwrap();
    let saved = std::fs::read(&slot).unwrap();
    for length in [0, 1, 20, saved.len() / 2, saved.len() - 1] {
        tamper(&slot, |bytes| *bytes = saved[..length].to_vec());
        assert!(matches!(bench.try_open().err().unwrap().exit_code(), 12 | 13), "length {length}");
    }
    tamper(&slot, |bytes| *bytes = saved.clone());
    bench.open();
    let other = filled();
    tamper(&slot, |bytes| *bytes = std::fs::read(other.objects("keys").pop().unwrap()).unwrap());
    assert_eq!(bench.try_open().err().unwrap().exit_code(), 12);
    tamper(&slot, |bytes| *bytes = saved);
    let format = bench.objects("format").pop().unwrap();
    tamper(&format, |bytes| bytes[27] = b'2');
    assert_eq!(bench.try_open().err().unwrap().kind(), ErrorKind::Unsupported);
    tamper(&format, |bytes| *bytes = b"something else".to_vec());
    assert_eq!(bench.try_open().err().unwrap().exit_code(), 10);
}
