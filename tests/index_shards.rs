//! The sorted index in the store: compaction changes nothing but where the index lies.

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::format::index::IndexEntry;
use lifeboat::format::log::RecordBody;
use lifeboat::format::tree::NodeKind;
use lifeboat::id::{ChunkId, PackId};
use lifeboat::ops::check::{CheckOptions, Severity, check};
use lifeboat::ops::prune::{CompactOptions, PruneOptions, prune};
use lifeboat::ops::repair::{RepairOptions, repair};
use lifeboat::repo::{PruneReport, Reader, Repository};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use support::interposed::{Fate, Interposed, Verb};
use support::synthetic::Owner;
use support::versions::{self, Tree, restores, whole};
use support::{Bench, tamper};

/// Every prune compacts whatever there is, into many shards.
fn options() -> PruneOptions {
    let index = CompactOptions { packs: 1, entries: 50, everything: false };
    PruneOptions { grace: Duration::ZERO, max_unused: 0.0, index, ..PruneOptions::default() }
}

fn compacting(bench: &Bench, machine: &str) -> PruneReport {
    let repository = bench.open_over(local(bench), machine).unwrap();
    prune(&repository, &options(), &Silent).unwrap().pruned
}

fn local(bench: &Bench) -> lifeboat::store::AnyStore {
    bench.location().open().unwrap()
}

fn fill(bench: &Bench, version: u64) -> Tree {
    versions::fill(bench, version, 24, 3, |file| 3000 + usize::try_from(file).unwrap() * 1900)
}

/// All chunks that the snapshots need, by walking their trees.
fn chunks(repository: &Repository) -> Vec<ChunkId> {
    fn walk(reader: &Reader, root: &ChunkId, found: &mut Vec<ChunkId>) {
        found.push(*root);
        for node in reader.nodes(root).unwrap() {
            let node = node.unwrap();
            match &node.subtree {
                Some(subtree) => walk(reader, subtree, found),
                None if node.kind == NodeKind::File => {
                    found.extend(reader.contents(&node.content).unwrap().map(|chunk| chunk.unwrap().id));
                }
                None => {}
            }
        }
    }
    let reader = repository.reader().unwrap();
    let mut found = Vec::new();
    for entry in repository.snapshots().unwrap() {
        walk(&reader, &entry.snapshot.root, &mut found);
    }
    found
}

/// Every chunk is found in the shards, in the pack from which it is read; what is not there is not found.
fn lookups_are_right(bench: &Bench, machine: &str) {
    let repository = bench.open_over(local(bench), machine).unwrap();
    let (reader, shards) = (repository.reader().unwrap(), repository.shards().unwrap());
    for id in chunks(&repository) {
        let pack = reader.pack_of(reader.locate(&id).unwrap().0).unwrap();
        let found = shards.find(&id.prefix()).unwrap();
        assert!(found.contains(&pack), "the chunk {id} is in {pack}, and the shards say {found:?}");
        let mut stranger = id.prefix();
        stranger[9] ^= 1;
        assert_eq!(shards.find(&stranger).unwrap(), []);
    }
}

fn shards(bench: &Bench) -> usize {
    bench.objects("index").len()
}

fn forget_first(repository: &Repository, count: usize) {
    let records: Vec<_> = repository.snapshots().unwrap().iter().take(count).map(|entry| entry.record()).collect();
    repository.forget(&records).unwrap();
}

#[test]
fn a_compaction_puts_every_chunk_into_shards_and_the_next_one_replaces_them() {
    let bench = Bench::new();
    let first = fill(&bench, 1);
    bench.backup();
    let report = compacting(&bench, "one");
    assert!(report.compacted.shards > 2 && report.compacted.packs > 0, "{report:?}");
    assert_eq!(shards(&bench), usize::try_from(report.compacted.shards).unwrap());
    assert_eq!(report.generation, None);
    lookups_are_right(&bench, "two");
    let second = fill(&bench, 2);
    bench.backup();
    let report = compacting(&bench, "one");
    assert!(report.index_deleted > 2, "{report:?}");
    assert_eq!(shards(&bench), usize::try_from(report.compacted.shards).unwrap());
    lookups_are_right(&bench, "two");
    whole(&bench, &[&first, &second]);
    let report = compacting(&bench, "one");
    assert_eq!((report.compacted.shards, report.index_deleted, report.generation), (0, 0, None), "nothing is left to do");
}

#[test]
fn of_two_compactions_at_once_both_count_until_one_is_taken_away() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    compacting(&bench, "one");
    fill(&bench, 2);
    bench.backup();
    let machines = ["two", "three"].map(|machine| bench.open_over(local(&bench), machine).unwrap());
    for repository in &machines {
        assert!(repository.compact_index(&options().index, &Silent).unwrap().shards > 0);
    }
    lookups_are_right(&bench, "four");
    let before = shards(&bench);
    let report = compacting(&bench, "five");
    assert!(report.compacted.shards == 0 && report.index_deleted > 0, "{report:?}");
    assert!(shards(&bench) < before);
    lookups_are_right(&bench, "six");
}

#[test]
fn a_damaged_shard_hides_nothing_and_is_made_anew() {
    // In the middle; where the version stands, and the generation of the key: it looks as if a later program had written it.
    for place in [200, 9, 12] {
        let bench = Bench::new();
        let first = fill(&bench, 1);
        bench.backup();
        compacting(&bench, "one");
        for shard in bench.objects("index") {
            tamper(&shard, |bytes| bytes[place] ^= 2);
        }
        assert!(!index_findings(&bench)[0].is_empty());
        restores(&bench, &[&first]);
        let second = fill(&bench, 2);
        bench.backup();
        compacting(&bench, "two");
        lookups_are_right(&bench, "three");
        whole(&bench, &[&first, &second]);
    }
}

/// What a check says of index objects: those that must be mended, and those that nobody needs.
fn index_findings(bench: &Bench) -> [Vec<String>; 2] {
    let report = check(&bench.open(), &CheckOptions::default(), &Silent).unwrap();
    let of_index = report.findings.iter().map(Result::unwrap).filter(|finding| finding.object.starts_with("object index/"));
    let (damage, notices): (Vec<_>, Vec<_>) = of_index.partition(|finding| finding.severity == Severity::Damage);
    [damage, notices].map(|findings| findings.into_iter().map(|finding| finding.object + ": " + &finding.problem).collect())
}

fn mend_index(bench: &Bench) {
    let options = RepairOptions { apply: true, threads: 2, ..RepairOptions::default() };
    let report = repair(&bench.open(), &options, &Silent).unwrap();
    let steps: Vec<String> =
        report.steps.iter().map(Result::unwrap).map(|step| format!("{} {:?}", step.mend, step.outcome)).collect();
    assert_eq!(steps, ["write the damaged index objects anew Done"]);
}

/// After a repair nothing is wrong, and the next prune takes what was.
fn is_mended(bench: &Bench) {
    mend_index(bench);
    let [damage, notices] = index_findings(bench);
    assert!(damage.is_empty() && !notices.is_empty(), "{damage:?} {notices:?}");
    prune(&bench.open(), &PruneOptions { grace: Duration::ZERO, ..PruneOptions::default() }, &Silent).unwrap();
    assert_eq!(index_findings(bench), [Vec::<String>::new(), Vec::new()]);
    lookups_are_right(bench, "mended");
}

/// What is done to index objects, and what is said of it.
type Damage = (&'static str, fn(&[PathBuf]));

#[test]
fn a_check_finds_index_objects_that_are_damaged_or_gone_and_repair_writes_them_anew() {
    let damages: [Damage; 5] = [
        ("it is gone", |shards| std::fs::remove_file(&shards[0]).unwrap()),
        ("its bytes are not", |shards| tamper(&shards[1], |bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("its bytes are not", |shards| tamper(&shards[0], |bytes| bytes.truncate(100))),
        ("its bytes are not", |shards| {
            let other = std::fs::read(&shards[1]).unwrap();
            tamper(&shards[0], |bytes| *bytes = other);
        }),
        ("more than it can have", |shards| {
            std::fs::remove_file(&shards[0]).unwrap();
            std::fs::File::create(&shards[0]).unwrap().set_len(10 << 30).unwrap();
        }),
    ];
    for (expected, hurt) in damages {
        let bench = Bench::in_memory();
        fill(&bench, 1);
        bench.backup();
        compacting(&bench, "one");
        assert_eq!(index_findings(&bench), [Vec::<String>::new(), Vec::new()]);
        hurt(&bench.objects("index"));
        let [damage, _] = index_findings(&bench);
        assert!(damage.len() == 1 && damage[0].contains(expected), "{expected}: {damage:?}");
        is_mended(&bench);
    }
}

#[test]
fn a_check_compares_index_objects_with_what_packs_hold() {
    let bench = Bench::in_memory();
    fill(&bench, 1);
    bench.backup();
    let mut packs: Vec<PackId> = bench.open().packs().unwrap().iter().map(|pack| pack.unwrap().id).collect();
    packs.sort_unstable();
    // Whole objects of the owner's, which lack all that there is and name what there is not.
    let owner = Owner::of(&bench);
    let mut rows = Vec::new();
    IndexEntry { prefix: [7; 16], pack: 0, block: 0, chunk: 0 }.encode(&mut rows);
    let shard = owner.shard(&packs, ([0; 16], [0xff; 16]), &rows);
    owner.append(RecordBody::Index { indexes: vec![shard], packs: packs.clone() }, 0);
    let [damage, _] = index_findings(&bench);
    assert!(damage.len() == 1 && damage[0].contains("it lacks") && damage[0].contains("names 1 that"), "{damage:?}");
    is_mended(&bench);
    // Objects that do not cover all prefixes.
    let base = bench.objects("gc").iter().filter(|path| path.extension().is_some_and(|end| end == "plan")).count() as u64;
    let half = owner.shard(&packs, ([0; 16], [0x7f; 16]), &[]);
    owner.append(RecordBody::Index { indexes: vec![half], packs }, base);
    assert_eq!(index_findings(&bench)[0].len() + index_findings(&bench)[1].len(), 1);
    // One that no record names.
    owner.shard(&[], ([0; 16], [0xff; 16]), &[]);
    let [damage, notices] = index_findings(&bench);
    assert!(damage.is_empty() && notices.len() == 2, "{damage:?} {notices:?}");
}

#[test]
fn a_compaction_that_stops_at_any_call_loses_nothing() {
    let mut call = 0;
    loop {
        let bench = Bench::new();
        fill(&bench, 1);
        bench.backup();
        compacting(&bench, "first");
        let kept = fill(&bench, 2);
        bench.backup();
        forget_first(&bench.open(), 1);
        let reached = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let fates = [Fate::Fail(ErrorKind::Failed), Fate::FailAfter(ErrorKind::Failed), Fate::Fail(ErrorKind::Full)];
        let (flag, fate) = (reached.clone(), fates[usize::try_from(call).unwrap() % 3]);
        let store = Interposed::new(local(&bench), move |number, verb, _| {
            if number != call || verb == Verb::Size {
                return Fate::Pass;
            }
            flag.store(true, std::sync::atomic::Ordering::SeqCst);
            fate
        });
        if let Ok(repository) = bench.open_over(store.store(), "pruner") {
            let _ = prune(&repository, &options(), &Silent);
        }
        whole(&bench, &[&kept]);
        compacting(&bench, "second");
        lookups_are_right(&bench, "third");
        whole(&bench, &[&kept]);
        if !reached.load(std::sync::atomic::Ordering::SeqCst) && call > 20 {
            break;
        }
        call += 7;
    }
}

/// Something that happens to a repository.
#[derive(Debug, Clone)]
enum Deed {
    Backup(u64),
    ForgetFirst,
    Prune(&'static str),
    Compact(&'static str),
    CutOff(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let machine = prop::sample::select(vec!["a", "b"]);
    let deed = prop_oneof![
        3 => (0u64..5).prop_map(Deed::Backup),
        1 => Just(Deed::ForgetFirst),
        2 => machine.clone().prop_map(Deed::Prune),
        2 => machine.prop_map(Deed::Compact),
        1 => (0u64..60).prop_map(Deed::CutOff),
    ];
    prop::collection::vec(deed, 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    #[test]
    fn compaction_never_changes_what_lookups_and_restores_give(deeds in deeds()) {
        let bench = Bench::new();
        let mut trees: BTreeMap<u64, Tree> = BTreeMap::new();
        let mut next = 0;
        for deed in deeds {
            match deed {
                Deed::Backup(version) => {
                    trees.insert(next, fill(&bench, version));
                    next += 1;
                    bench.backup();
                }
                Deed::ForgetFirst if trees.len() > 1 => {
                    forget_first(&bench.open(), 1);
                    trees.pop_first();
                }
                Deed::ForgetFirst => {}
                Deed::Prune(machine) => drop(compacting(&bench, machine)),
                Deed::Compact(machine) => {
                    let repository = bench.open_over(local(&bench), machine).unwrap();
                    repository.compact_index(&options().index, &Silent).unwrap();
                }
                Deed::CutOff(call) => {
                    let fate = move |number, _, _: &str| if number >= call { Fate::Fail(ErrorKind::Failed) } else { Fate::Pass };
                    if let Ok(repository) = bench.open_over(Interposed::new(local(&bench), fate).store(), "cut") {
                        let _ = prune(&repository, &options(), &Silent);
                    }
                }
            }
        }
        compacting(&bench, "last");
        lookups_are_right(&bench, "reader");
        whole(&bench, &trees.values().collect::<Vec<_>>());
        let named: Vec<PackId> = bench.open().packs().unwrap().iter().map(|pack| pack.unwrap().id).collect();
        prop_assert_eq!(named.len(), bench.objects("packs").len());
    }
}
