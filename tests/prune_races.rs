//! Prunes, backups, and forgets that get in each other's way, at every step.

#![expect(clippy::print_stdout, reason = "a test says how much it has tried")]

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::format::envelope::ObjectKind;
use lifeboat::format::log::RecordRef;
use lifeboat::id::PackId;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, Truncation, prune};
use lifeboat::repo::Repository;
use lifeboat::store::Key;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use support::forge::Thief;
use support::interposed::{Fate, Interposed, Verb};
use support::versions::{self, Tree, whole};
use support::{Bench, Recorder, contents, tamper};

/// A prune that leaves nothing that could go, of packs and of logs.
fn options() -> PruneOptions {
    PruneOptions { grace: Duration::ZERO, max_unused: 0.0, truncation: Truncation::Always, ..PruneOptions::default() }
}

fn fill(bench: &Bench, version: u64) -> Tree {
    versions::fill(bench, version, 20, 3, |file| 2000 + usize::try_from(file).unwrap() * 700)
}

fn forget_all_but_last(repository: &Repository) {
    let all = repository.snapshots().unwrap();
    let records: Vec<_> = all[..all.len() - 1].iter().map(|entry| entry.record()).collect();
    repository.forget(&records).unwrap();
}

fn local(bench: &Bench) -> lifeboat::store::AnyStore {
    bench.location().open().unwrap()
}

/// One snapshot that is kept and one that is forgotten, so that a prune has something to do.
fn two_versions(bench: &Bench) -> Tree {
    fill(bench, 1);
    bench.backup();
    let second = fill(bench, 2);
    bench.backup();
    forget_all_but_last(&bench.open());
    second
}

#[test]
fn a_backup_that_a_prune_outruns_stores_again_what_the_prune_took() {
    outrun(Duration::ZERO);
}

/// With a grace what the writer stored itself is not condemned, and what it borrowed is.
#[test]
fn a_backup_of_which_a_prune_takes_only_what_is_borrowed_stores_that_again() {
    outrun(Duration::from_hours(24));
}

fn outrun(grace: Duration) {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    // The writer's cache knows the first version; then everything of it is forgotten.
    let machine = bench.open_over(local(&bench), "writer").unwrap();
    drop(machine);
    let second = fill(&bench, 2);
    bench.backup();
    forget_all_but_last(&bench.open());
    let pruned = Arc::new(AtomicBool::new(false));
    let (flag, other) = (pruned.clone(), bench.open());
    // The moment before the record is put: the last one at which a prune can slip in.
    let store = Interposed::new(local(&bench), move |_, verb, key| {
        if verb == Verb::Create && key.starts_with("log/") && !flag.swap(true, Ordering::SeqCst) {
            let report = prune(&other, &PruneOptions { grace, ..options() }, &Silent).unwrap();
            assert!(report.pruned.deleted > 0);
        }
        Fate::Pass
    });
    // The first version again: the writer borrows what the prune takes.
    let first = fill(&bench, 1);
    let writer = bench.open_over(store.store(), "writer").unwrap();
    let recorder = Recorder::default();
    backup(&writer, bench.backup_options(), &recorder).unwrap();
    assert!(pruned.load(Ordering::SeqCst));
    assert!(recorder.warnings.lock().unwrap().iter().any(|warning| warning.contains("prune")));
    whole(&bench, &[&second, &first]);
}

/// A repository in which a prune has something to do, as often as it is wanted.
struct Again {
    bench: Bench,
    kept: Tree,
}

impl Again {
    /// What the repository is, and what this machine remembers of it.
    const PARTS: [&str; 3] = ["repository", "cache", "state"];

    fn new() -> Self {
        let bench = Bench::in_memory();
        let kept = two_versions(&bench);
        let again = Self { bench, kept };
        for part in Self::PARTS {
            versions::copy_tree(&again.bench.path(part), &again.saved(part));
        }
        again
    }

    fn saved(&self, part: &str) -> PathBuf {
        self.bench.path(&format!("saved-{part}"))
    }

    /// As it was at the beginning, and nobody else has seen it yet.
    fn reset(&self) {
        for entry in std::fs::read_dir(self.bench.dir.path()).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name != "source" && !name.starts_with("saved-") {
                std::fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        Self::PARTS.iter().for_each(|part| versions::copy_tree(&self.saved(part), &self.bench.path(part)));
    }

    /// A prune stops at this call, and another machine goes on; false if there is no such call.
    fn stops_at(&self, call: u64, fate: Fate) -> bool {
        let bench = &self.bench;
        let store = Interposed::new(local(bench), move |number, _, _| if number == call { fate } else { Fate::Pass });
        if let Ok(repository) = bench.open_over(store.store(), "pruner") {
            let _ = prune(&repository, &options(), &Silent);
        }
        whole(bench, &[&self.kept]);
        // Another machine goes on, and the space comes back.
        prune(&bench.open_over(local(bench), "second").unwrap(), &options(), &Silent).unwrap();
        whole(bench, &[&self.kept]);
        let last = prune(&bench.open_over(local(bench), "third").unwrap(), &options(), &Silent).unwrap();
        assert_eq!(last.pruned.deleted, 0);
        store.calls() > call
    }
}

#[test]
fn a_prune_that_stops_at_any_call_is_gone_on_with_and_loses_nothing() {
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let again = Again::new();
                loop {
                    let call = next.fetch_add(1, Ordering::SeqCst);
                    if call >= end.load(Ordering::SeqCst) {
                        break;
                    }
                    for fate in [Fate::Fail(ErrorKind::Failed), Fate::FailAfter(ErrorKind::Failed), Fate::Fail(ErrorKind::Full)] {
                        again.reset();
                        if !again.stops_at(call, fate) {
                            end.fetch_min(call, Ordering::SeqCst);
                            break;
                        }
                    }
                }
            });
        }
    });
    let calls = end.load(Ordering::SeqCst);
    println!("a prune makes {calls} calls");
    assert!(calls > 60, "a prune makes {calls} calls only");
}

/// What brings a snapshot back, the moment before a plan is published that was made without it.
fn at_the_last_moment(deed: impl Fn(&Repository, RecordRef) + Send + Sync + 'static) {
    let bench = Bench::new();
    let first = fill(&bench, 1);
    bench.backup();
    let second = fill(&bench, 2);
    bench.backup();
    let record = bench.open().snapshots().unwrap()[0].record();
    bench.open().forget(&[record]).unwrap();
    let (done, other) = (AtomicBool::new(false), bench.open());
    let store = Interposed::new(local(&bench), move |_, verb, key| {
        if verb == Verb::Create && key.ends_with(".plan") && !done.swap(true, Ordering::SeqCst) {
            deed(&other, record);
        }
        Fate::Pass
    });
    prune(&bench.open_over(store.store(), "pruner").unwrap(), &options(), &Silent).unwrap();
    whole(&bench, &[&first, &second]);
}

#[test]
fn an_unforget_that_succeeds_is_not_overlooked_by_the_prune_that_runs() {
    at_the_last_moment(|repository, record| repository.unforget(&[record]).unwrap());
}

#[test]
fn a_hold_that_succeeds_is_not_overlooked_by_the_prune_that_runs() {
    at_the_last_moment(|repository, record| repository.hold(&[record], "").unwrap());
}

#[test]
fn a_prune_waits_with_a_generation_until_the_one_before_is_closed() {
    let bench = Bench::new();
    let kept = two_versions(&bench);
    // Another runner condemns the same at the last moment, and stops before its plan.
    let stopped = Interposed::new(local(&bench), |_, verb, key| match verb == Verb::Create && key.ends_with(".plan") {
        true => Fate::Fail(ErrorKind::Failed),
        false => Fate::Pass,
    });
    let other = bench.open_over(stopped.store(), "stopped").unwrap();
    let done = AtomicBool::new(false);
    let store = Interposed::new(local(&bench), move |_, verb, key| {
        if verb == Verb::Create && key.ends_with(".condemn") && !done.swap(true, Ordering::SeqCst) {
            prune(&other, &options(), &Silent).unwrap_err();
        }
        Fate::Pass
    });
    prune(&bench.open_over(store.store(), "pruner").unwrap(), &options(), &Silent).unwrap();
    let mut names: Vec<String> = bench.objects("gc").iter().map(|path| path.file_name().unwrap().display().to_string()).collect();
    names.sort();
    let (condemned, planned): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.ends_with(".condemn"));
    assert_eq!(condemned.len(), planned.len(), "{names:?}");
    whole(&bench, &[&kept]);
}

#[test]
fn a_prune_whose_packs_another_one_deletes_looks_anew() {
    for place in 0.. {
        let bench = Bench::in_memory();
        let kept = two_versions(&bench);
        let other = bench.open_over(local(&bench), "other").unwrap();
        let reads = Arc::new(AtomicU64::new(0));
        let counted = reads.clone();
        let store = Interposed::new(local(&bench), move |_, verb, key| {
            let reads = matches!(verb, Verb::Get | Verb::ReadAt) && key.starts_with("packs/");
            if reads && counted.fetch_add(1, Ordering::SeqCst) == place {
                let report = prune(&other, &options(), &Silent).unwrap();
                assert!(report.pruned.deleted > 0);
            }
            Fate::Pass
        });
        prune(&bench.open_over(store.store(), "pruner").unwrap(), &options(), &Silent).unwrap();
        whole(&bench, &[&kept]);
        if reads.load(Ordering::SeqCst) <= place {
            break;
        }
    }
}

#[test]
fn two_prunes_at_once_delete_what_one_published() {
    for round in 0..6 {
        let bench = Bench::new();
        let kept = two_versions(&bench);
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            for machine in ["one", "two"] {
                let (bench, barrier) = (&bench, &barrier);
                scope.spawn(move || {
                    let repository = bench.open_over(local(bench), machine).unwrap();
                    barrier.wait();
                    prune(&repository, &options(), &Silent).unwrap();
                });
            }
        });
        whole(&bench, &[&kept]);
        assert!(bench.repository_dir().join("gc").read_dir().unwrap().count() >= 2, "round {round}");
    }
}

#[test]
fn backups_go_on_while_prunes_run() {
    let bench = Bench::new();
    let mut trees = vec![fill(&bench, 0)];
    bench.backup();
    let done = AtomicBool::new(false);
    let prunes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let repository = bench.open_over(local(&bench), "pruner").unwrap();
            while !done.load(Ordering::SeqCst) {
                repository.refresh(&Silent).unwrap();
                forget_all_but_last(&repository);
                // With a grace: without any, prunes that never pause would take every unfinished backup's packs.
                let options = PruneOptions { grace: Duration::from_secs(3600), ..options() };
                prune(&repository, &options, &Silent).unwrap();
                prunes.fetch_add(1, Ordering::SeqCst);
            }
        });
        let backups = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for version in 1..12 {
                trees.push(fill(&bench, version % 4));
                bench.backup();
            }
        }));
        done.store(true, Ordering::SeqCst);
        backups.unwrap();
    });
    assert!(prunes.load(Ordering::SeqCst) > 0);
    let repository = bench.open();
    forget_all_but_last(&repository);
    prune(&repository, &options(), &Silent).unwrap();
    whole(&bench, &[trees.last().unwrap()]);
}

/// A lid that is closed in the midst of a prune, at any of its calls: meanwhile somebody else backs up what it is about to take,
/// and prunes too. Then it goes on as if nothing had been.
#[test]
fn a_prune_that_sleeps_at_any_call_takes_nothing_that_was_committed_meanwhile() {
    for call in 0.. {
        let bench = Bench::in_memory();
        let kept = two_versions(&bench);
        let awake = Arc::new(AtomicBool::new(false));
        let (flag, others) = (awake.clone(), Arc::new(bench));
        let bench = others.clone();
        let store = Interposed::new(local(&bench), move |number, _, _| {
            // Every seventh one, so that it does not take long; which ones changes nothing.
            if number == 2 + 7 * call && !flag.swap(true, Ordering::SeqCst) {
                // What only the forgotten version has, borrowed by a machine that knows it, and once more by a stranger.
                fill(&others, 1);
                others.backup();
                prune(&others.open_over(local(&others), "other").unwrap(), &options(), &Silent).unwrap();
            }
            Fate::Pass
        });
        if let Ok(repository) = bench.open_over(store.store(), "pruner") {
            prune(&repository, &options(), &Silent).unwrap();
        }
        if !awake.load(Ordering::SeqCst) {
            assert!(call > 2, "it slept {call} times only");
            break;
        }
        let first = contents(&bench.source());
        whole(&bench, &[&kept, &first]);
    }
}

/// A reader that stops in the midst of a refresh, and goes on when a forget, an unforget, and a prune lie behind it, must not
/// take the snapshot for pruned because it has read of the plan and not yet of the unforget.
#[test]
fn a_plan_is_judged_by_only_when_all_that_it_saw_was_read() {
    let bench = Bench::new();
    let first = fill(&bench, 1);
    bench.backup();
    let second = fill(&bench, 2);
    bench.backup();
    let record = bench.open().snapshots().unwrap()[0].record();
    // At each look at the logs' ends, one after the other.
    for call in 0..40 {
        let (done, other) = (AtomicBool::new(false), bench.open_over(local(&bench), "other").unwrap());
        let store = Interposed::new(local(&bench), move |number, _, _| {
            if number == call && !done.swap(true, Ordering::SeqCst) {
                other.forget(&[record]).unwrap();
                other.unforget(&[record]).unwrap();
                prune(&other, &options(), &Silent).unwrap();
            }
            Fate::Pass
        });
        let machine = format!("reader-{call}");
        let reader = bench.open_over(store.store(), &machine).unwrap();
        reader.snapshots().unwrap();
        let seen = bench.open_over(local(&bench), &machine).unwrap().snapshots().unwrap();
        assert_eq!(seen.len(), 2, "call {call}");
    }
    whole(&bench, &[&first, &second]);
}

/// The repository as a machine sees it on which another one prunes at the first call that `when` picks.
fn pruned_at(bench: &Bench, when: impl Fn(Verb, &str) -> bool + Send + Sync + 'static) -> (Repository, Arc<AtomicBool>) {
    let (armed, other) = (Arc::new(AtomicBool::new(false)), bench.open());
    let (flag, done, folder) = (armed.clone(), AtomicBool::new(false), bench.repository_dir());
    let store = Interposed::new(local(bench), move |_, verb, key| {
        if flag.load(Ordering::SeqCst) && when(verb, key) && !done.swap(true, Ordering::SeqCst) {
            let report = prune(&other, &options(), &Silent).unwrap();
            assert!(report.pruned.deleted > 0 && report.pruned.written > 0);
        }
        // A directory still reads what it has open; other stores do not.
        if key.starts_with("packs/") && !folder.join(key).exists() { Fate::Hide } else { Fate::Pass }
    });
    (bench.open_over(store.store(), "reader").unwrap(), armed)
}

#[test]
fn what_a_prune_deletes_while_it_is_read_is_not_damage() {
    type When = fn(Verb, &str) -> bool;
    let whens: [When; 3] = [
        |verb, key| verb == Verb::ReadAt && key.starts_with("packs/"),
        |verb, key| verb == Verb::List && key == "packs",
        |verb, key| verb == Verb::Size && key.starts_with("packs/"),
    ];
    for (number, when) in whens.into_iter().enumerate() {
        for quick in [true, false] {
            let bench = Bench::new();
            two_versions(&bench);
            let (repository, armed) = pruned_at(&bench, when);
            armed.store(true, Ordering::SeqCst);
            let options = CheckOptions { quick, ..CheckOptions::of_all_data(2) };
            let report = check(&repository, &options, &Silent).unwrap();
            assert!(!report.is_damaged() && report.damaged.is_empty(), "{number}: {:?}", report.findings);
        }
        let bench = Bench::new();
        let kept = two_versions(&bench);
        let (repository, armed) = pruned_at(&bench, when);
        let entry = repository.snapshots().unwrap().pop().unwrap();
        armed.store(true, Ordering::SeqCst);
        let target = bench.path("out");
        let report = lifeboat::ops::restore::restore(&repository, &entry, &bench.restore_options(&target), &Silent).unwrap();
        assert_eq!((report.failure_count, report.damaged, report.rescued.reads), (0, false, 0), "{number}");
        assert_eq!(contents(&target), kept);
    }
}

#[test]
fn a_snapshot_that_is_pruned_while_it_is_read_is_missing_and_not_damaged() {
    let bench = Bench::new();
    fill(&bench, 1);
    bench.backup();
    fill(&bench, 2);
    bench.backup();
    let (repository, armed) = pruned_at(&bench, |verb, key| verb == Verb::ReadAt && key.starts_with("packs/"));
    let entry = repository.snapshots().unwrap().remove(0);
    bench.open().forget(&[entry.record()]).unwrap();
    armed.store(true, Ordering::SeqCst);
    let target = bench.path("out");
    let outcome = lifeboat::ops::restore::restore(&repository, &entry, &bench.restore_options(&target), &Silent);
    let error = outcome.map(|report| (report.files, report.failure_count)).expect_err("it is not there any more");
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    assert!(error.to_string().contains("a prune took it meanwhile"), "{error}");
}

/// The fence is there and what it speaks of is not: a record that does not know it would be void.
#[test]
fn a_writer_that_sees_a_fence_and_not_its_prune_commits_nothing() {
    let bench = Bench::new();
    two_versions(&bench);
    let hidden = |_, verb, key: &str| if verb == Verb::Get && key.starts_with("gc/") { Fate::Hide } else { Fate::Pass };
    let writer = bench.open_over(Interposed::new(local(&bench), hidden).store(), "writer").unwrap();
    prune(&bench.open(), &PruneOptions { truncation: Truncation::Never, ..options() }, &Silent).unwrap();
    fill(&bench, 3);
    let records = bench.objects("log").len();
    let error = backup(&writer, bench.backup_options(), &Silent).unwrap_err();
    assert!(error.to_string().contains("it names prune 1, which the store does not show"), "{error}");
    assert_eq!(bench.objects("log").len(), records);
}

/// Somebody condemned a pack that a snapshot needs, and whoever ends that prune cannot read what is in the pack.
#[test]
fn a_pack_that_cannot_be_looked_into_is_not_deleted() {
    let bench = Bench::new();
    let tree = fill(&bench, 1);
    bench.backup();
    let pack = bench.objects("packs").into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let id = PackId::from_hex(pack.file_name().unwrap().to_str().unwrap()).unwrap();
    std::fs::write(bench.path("identity"), bench.identity.as_bytes()).unwrap();
    let owner = Thief::with(bench.repository_dir(), &bench.path("identity"));
    owner.prune_object(ObjectKind::Condemn, owner.client(), 1, vec![id]);
    let saved = std::fs::read(&pack).unwrap();
    let end = saved.len() - 100;
    tamper(&pack, |bytes| bytes[end] ^= 1);
    let machine = bench.open_over(local(&bench), "other").unwrap();
    prune(&machine, &options(), &Silent).unwrap();
    assert!(bench.repository_dir().join(Key::plan(1).as_str()).exists() && pack.exists());
    tamper(&pack, |bytes| *bytes = saved);
    whole(&bench, &[&tree]);
}

/// Objects of a prune that was, once more in the places of the next one.
#[test]
fn a_prune_that_is_replayed_as_the_next_one_says_nothing() {
    let bench = Bench::new();
    let kept = two_versions(&bench);
    prune(&bench.open(), &options(), &Silent).unwrap();
    fill(&bench, 3);
    bench.backup();
    prune(&bench.open(), &options(), &Silent).unwrap();
    let file = |key: Key| bench.repository_dir().join(key.as_str());
    let newest = (1..).take_while(|generation| file(Key::plan(*generation)).exists()).last().unwrap();
    for key in [Key::condemn, Key::plan] {
        std::fs::copy(file(key(1)), file(key(newest + 1))).unwrap();
    }
    let third = contents(&bench.source());
    for name in ["new", "other"] {
        let machine = bench.open_over(local(&bench), name).unwrap();
        assert_eq!(machine.snapshots().unwrap().len(), 2);
        prune(&machine, &options(), &Silent).unwrap();
    }
    whole(&bench, &[&kept, &third]);
}
