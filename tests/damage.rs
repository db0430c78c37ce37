//! Damage is noticed, named, and never passed on; what is whole still comes back.

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::ops::check::{CheckOptions, CheckReport, ReadData};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::repair::{RepairOptions, repair};
use lifeboat::ops::restore::restore;
use lifeboat::ops::thaw::ThawOptions;
use lifeboat::repo::{Access, NewSlot, Repository, generate_identity};
use lifeboat::store::{Key, Local, Memory, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Bench, contents, noise, tamper};
use zeroize::Zeroizing;

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

/// A repository with two key slots and two snapshots that share nothing, and an object of each kind.
struct Whole {
    bench: Bench,
    objects: Vec<(Key, Vec<u8>)>,
    second: Access,
    trees: [Vec<(std::path::PathBuf, Option<Vec<u8>>)>; 2],
}

impl Whole {
    /// With `parity`, also a second way to everything: parity beside packs, and duplicates of what is small.
    fn new(parity: Option<u16>) -> Self {
        let bench = Bench::in_memory();
        let (identity, recipient) = generate_identity().unwrap();
        bench.open().add_slot(&bench.access(), &NewSlot::Recipient(recipient), "second").unwrap();
        let second = Access { identity: Some(Zeroizing::new(identity.as_bytes().to_vec())), passphrase: None };
        let trees = [1, 2, 3].map(|version| {
            let _ = std::fs::remove_dir_all(bench.source());
            (0..3).for_each(|file| bench.write(&format!("{version}/{file}"), noise(version * 10 + file, 3000)));
            bench.backup();
            contents(&bench.source())
        });
        let repository = bench.open();
        repository.forget(&[repository.snapshots().unwrap()[0].record()]).unwrap();
        let index = lifeboat::repo::CompactOptions { packs: 1, entries: 50, everything: false };
        let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, index, ..PruneOptions::default() };
        assert!(prune(&repository, &options, &Silent).unwrap().pruned.deleted > 0);
        if parity.is_some() {
            let options = RepairOptions { parity, apply: true, threads: 2, ..RepairOptions::default() };
            repair(&repository, &options, &Silent).unwrap();
        }
        let store = Local::open(&bench.repository_dir()).unwrap();
        let mut names = Vec::new();
        let listed = store.list("", &mut |entry| {
            names.push((entry.key, entry.size));
            Ok(())
        });
        listed.unwrap();
        let objects = names.into_iter().map(|(key, size)| (key.clone(), store.get(&key, size).unwrap())).collect();
        let [_, first, last] = trees;
        Self { bench, objects, second, trees: [first, last] }
    }

    /// Whole snapshots that a machine restores which has never seen the repository; nothing that it restores is wrong.
    fn restorable(&self, store: Memory, access: &Access, what: &str) -> Result<usize, lifeboat::error::Error> {
        let name = what.replace('/', " ");
        let repository = Repository::open_store(Arc::new(store), access, &self.bench.options_of(&name), &Silent)?;
        let (mut whole, target) = (0, self.bench.path(&format!("out {name}")));
        for entry in repository.snapshots()? {
            let done = restore(&repository, &entry, &self.bench.restore_options(&target), &Silent);
            let is_whole = done.is_ok_and(|report| report.failure_count == 0);
            let files = if target.exists() { contents(&target) } else { Vec::new() };
            for (path, bytes) in files.iter().filter(|(path, _)| !path.to_string_lossy().contains(".lifeboat")) {
                let known = self.trees.iter().flatten().any(|(known, was)| known == path && (was == bytes));
                assert!(known, "{what}: {} is not what it was", path.display());
            }
            whole += usize::from(is_whole && self.trees.contains(&files));
            let _ = std::fs::remove_dir_all(&target);
        }
        drop(repository);
        for folder in ["cache", "state"] {
            let _ = std::fs::remove_dir_all(self.bench.path(&format!("{folder}-{name}")));
        }
        Ok(whole)
    }

    /// The object cut off at, or filled with zeros from, each of some lengths, or with `LIFEBOAT_ALL` each of all.
    fn at_every_length(&self, key: &Key, bytes: &[u8]) {
        let all = std::env::var_os("LIFEBOAT_ALL").is_some();
        let step = if all { 1 } else { bytes.len() / 8 + 1 };
        let mut lengths: Vec<usize> = (0..bytes.len()).step_by(step).collect();
        lengths.extend([1, 7, 8, 16, 31, 32, 33, 64, bytes.len() - 1].into_iter().filter(|length| *length < bytes.len()));
        lengths.sort_unstable();
        lengths.dedup();
        for length in lengths {
            for zeros in [false, true] {
                let what = format!("{key} {} at {length} of {}", if zeros { "zeroed" } else { "cut off" }, bytes.len());
                let mut damaged = bytes[..length].to_vec();
                damaged.resize(if zeros { bytes.len() } else { length }, 0);
                let memory = Memory::default();
                for (other, whole) in &self.objects {
                    memory.put(other, if other == key { &damaged } else { whole }).unwrap();
                }
                let first = self.restorable(memory.clone(), &self.bench.access(), &format!("{what} one"));
                let second = self.restorable(memory, &self.second, &format!("{what} two"));
                let outcomes = [&first, &second].map(|outcome| outcome.as_ref().ok().copied());
                match key.as_str().split('/').next().unwrap() {
                    // It ends where it ended, but for padding: what is the same is not damaged.
                    _ if damaged == bytes => assert_eq!(outcomes, [Some(2), Some(2)], "{what}"),
                    "keys" => assert!(outcomes.contains(&Some(2)), "{what}: the other slot opens: {first:?} {second:?}"),
                    "index" => assert_eq!(outcomes, [Some(2), Some(2)], "{what}"),
                    "packs" => assert!(outcomes.iter().all(|whole| whole.is_some_and(|whole| whole >= 1)), "{what}"),
                    _ => {}
                }
                for error in [first, second].into_iter().filter_map(Result::err) {
                    // The only slot that this identity opens may look like one of a later version.
                    let is_told = matches!(error.exit_code(), 10..=14) || error.kind() == ErrorKind::Unsupported;
                    assert!(is_told, "{what}: exit code {}: {error}", error.exit_code());
                }
            }
        }
    }
}

/// No kind of object panics or hangs anybody when it ends early, and none takes others with it that do not need it.
#[test]
fn whatever_length_an_object_is_cut_off_at_the_others_stay_usable() {
    let whole = Whole::new(None);
    // Of each kind the longest and the shortest, and every key slot.
    let mut kinds: BTreeMap<String, Vec<&(Key, Vec<u8>)>> = BTreeMap::new();
    for object in &whole.objects {
        let name = object.0.as_str();
        let end = name.rsplit_once('.').map_or("", |(_, end)| end);
        kinds.entry(format!("{} {end}", name.split('/').next().unwrap())).or_default().push(object);
    }
    for folder in ["format ", "keys age", "log ", "packs ", "index ", "gc plan", "gc condemn"] {
        assert!(kinds.contains_key(folder), "{:?}", kinds.keys());
    }
    let mut chosen = Vec::new();
    for objects in kinds.values_mut() {
        objects.sort_by_key(|(_, bytes)| bytes.len());
        let last = objects.pop();
        chosen.extend(objects.first().copied().into_iter().chain(last));
    }
    side_by_side(&chosen, |(key, bytes)| whole.at_every_length(key, bytes));
}

fn side_by_side<T: Sync>(items: &[T], each: impl Fn(&T) + Sync) {
    let queue = Mutex::new(items.iter());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(item) = { queue.lock().unwrap().next() } {
                    each(item);
                }
            });
        }
    });
}

/// One bit of what every object begins with, also of what would say that a later version wrote it.
#[test]
fn one_wrong_bit_at_the_front_costs_nothing_where_there_is_a_second_way() {
    let whole = Whole::new(Some(100));
    let kept: Vec<&(Key, Vec<u8>)> = whole.objects.iter().filter(|(key, _)| !key.as_str().starts_with("copies/")).collect();
    assert!(kept.len() < whole.objects.len(), "there are duplicates");
    let failed = Mutex::new(Vec::new());
    side_by_side(&kept, |(key, bytes)| {
        for (at, bit) in [(0, 0), (8, 1), (9, 0), (9, 1), (9, 7), (10, 0), (10, 6), (11, 0), (13, 3), (20, 2), (50, 5), (64, 0)] {
            let memory = Memory::default();
            whole.objects.iter().for_each(|(other, bytes)| memory.put(other, bytes).unwrap());
            memory.tamper(key, |bytes| bytes[at] ^= 1 << bit);
            let what = format!("{key}, bit {bit} of byte {at} of {}", bytes.len());
            match whole.restorable(memory, &whole.bench.access(), &what) {
                Ok(2) => {}
                Ok(count) => failed.lock().unwrap().push(format!("{what}: {count} snapshots are whole")),
                Err(error) => failed.lock().unwrap().push(format!("{what}: {error}")),
            }
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}
