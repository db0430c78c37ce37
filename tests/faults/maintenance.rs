//! A fault at every call of the runs that take things away: forget and prune.

use crate::calls::{FAILS, FULL, LATE, STALE, TORN, TWICE, cause_is_named, every_call};
use crate::scene::{Fault, Machine, Scene, Tree, is_proper};
use crate::support::interposed::{Fate, Interposed};
use lifeboat::error::{ErrorKind, Result};
use lifeboat::event::Silent;
use lifeboat::ops::prune::{PruneOptions, PruneReport, prune};
use lifeboat::store::{AnyStore, Memory, Store};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

const ALL: [Fault; 7] = [FAILS, FULL, LATE, TORN, STALE, TWICE, Fault::Gone];

fn pruned(scene: &Scene, store: AnyStore, machine: &str) -> Result<PruneReport> {
    let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
    prune(&scene.open(store, machine)?, &options, &Silent)
}

fn bytes_of_packs(memory: &Memory) -> u64 {
    let mut sum = 0;
    let add = &mut |entry: lifeboat::store::Entry| {
        sum += entry.size;
        Ok(())
    };
    memory.list("packs", add).unwrap();
    sum
}

/// A prune with the fault at every call; then another one, which brings what that one began to an end.
fn prunes(machine: Machine, fault: Fault) {
    let scene = Scene::forgotten();
    let undisturbed = {
        let memory = scene.memory();
        let before = bytes_of_packs(&memory);
        assert!(pruned(&scene, Arc::new(memory.clone()), &scene.machine(machine)).unwrap().pruned.deleted > 0);
        let after = bytes_of_packs(&memory);
        assert!(after < before);
        after
    };
    let faults = every_call(&scene, machine, fault, |memory, faulty, name, what| {
        let result = pruned(&scene, faulty.store.store(), name);
        let Some((verb, key)) = faulty.hit() else { return assert!(result.is_ok(), "{what}: nothing failed") };
        let what = format!("{what}, {verb:?} {key}");
        if let Err(error) = result {
            is_proper(&error, &what);
            cause_is_named(&error, fault, &what);
        }
        let store: AnyStore = Arc::new(memory.clone());
        pruned(&scene, store.clone(), name).unwrap_or_else(|error| panic!("{what}: the next prune: {error}"));
        // What a fault made somebody write anew is small; the space of the forgotten snapshot is back.
        let left = bytes_of_packs(memory);
        assert!(left <= undisturbed + undisturbed / 10, "{what}: {left} bytes of packs, {undisturbed} without a fault");
        assert_eq!(scene.is_unharmed(memory, name, &what), scene.past.len(), "{what}");
    });
    assert!(faults > 0, "{fault:?}: nothing was made to fail");
}

#[test]
fn a_prune_that_meets_a_fault_at_any_call_harms_nothing_and_the_next_one_ends_it() {
    ALL.into_iter().for_each(|fault| prunes(Machine::Same, fault));
}

#[test]
fn a_prune_that_meets_a_fault_at_any_call_on_a_new_machine_harms_nothing() {
    [FAILS, LATE, STALE].into_iter().for_each(|fault| prunes(Machine::New, fault));
}

/// What a thread says that dies as the test wants, and what whoever waits for it says then.
fn is_wanted(panic: &str) -> bool {
    panic.contains("as the test wants") || panic == "a scoped thread panicked"
}

/// Deaths that are wanted are not reported: their backtraces would hide those that are not.
fn be_silent_of_wanted_deaths() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.payload_as_str().is_some_and(is_wanted) {
                usual(panic);
            }
        }));
    });
}

/// A thread other than the one that was asked dies at one of its calls to the store: that ends the run, whoever waits for it
/// does not wait for ever, what is said is that death and not what came of it, and what is committed stays.
fn a_thread_dies(what: &str, run: fn(&Scene, AnyStore, &str) -> Result<()>) {
    be_silent_of_wanted_deaths();
    let scene = Scene::forgotten();
    let asked = std::thread::current().id();
    let mut died = 0;
    for at in [0, 1, 2, 5, 11, 23, 47] {
        let memory = scene.memory();
        let name = scene.machine(Machine::New);
        let dead = Arc::new(AtomicBool::new(false));
        let (flag, calls) = (dead.clone(), AtomicU64::new(0));
        let store = Interposed::new(Arc::new(memory.clone()), move |_, verb, key| {
            let elsewhere = std::thread::current().id() != asked;
            if elsewhere && calls.fetch_add(1, Ordering::SeqCst) == at {
                flag.store(true, Ordering::SeqCst);
                panic!("{verb:?} {key}: this thread dies as the test wants");
            }
            Fate::Pass
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&scene, store.store(), &name)));
        let dead = dead.load(Ordering::SeqCst);
        match ended {
            Ok(ended) => {
                assert!(dead || ended.is_ok(), "{what}, call {at}: nothing died");
                ended.err().iter().for_each(|error| is_proper(error, what));
            }
            Err(panic) => {
                let said =
                    panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
                let said = said.unwrap_or_default();
                assert!(dead && is_wanted(&said), "{what}, call {at}: {said}");
            }
        }
        died += usize::from(dead);
        assert_eq!(scene.is_unharmed(&memory, &name, &format!("{what}, call {at}")), scene.past.len(), "{what}");
        scene.drop_machine(&name);
    }
    assert!(died > 0, "{what}: no thread but that of the test calls the store");
}

#[test]
fn a_thread_that_dies_in_maintenance_ends_the_run_and_harms_nothing() {
    a_thread_dies("prune", |scene, store, machine| pruned(scene, store, machine).map(drop));
    a_thread_dies("check", |scene, store, machine| {
        let options = lifeboat::ops::check::CheckOptions::of_all_data(2);
        lifeboat::ops::check::check(&scene.open(store, machine)?, &options, &Silent).map(drop)
    });
    a_thread_dies("compact", |scene, store, machine| {
        let options = lifeboat::repo::CompactOptions { packs: 1, entries: 50, everything: true };
        scene.open(store, machine)?.compact_index(&options, &Silent).map(drop)
    });
}

fn forget_first(scene: &Scene, store: AnyStore, machine: &str) -> Result<()> {
    let repository = scene.open(store, machine)?;
    let first = repository.snapshots()?.first().map(lifeboat::repo::SnapshotEntry::record);
    repository.forget(&[first.ok_or_else(|| lifeboat::error::Error::missing("find a snapshot: there is none"))?])
}

#[test]
fn a_forget_that_meets_a_fault_at_any_call_forgets_what_it_was_told_or_nothing() {
    let scene = Scene::new();
    let kept = |store: &AnyStore, machine: &str| -> Vec<Tree> {
        let repository = scene.open(store.clone(), machine).unwrap();
        repository.snapshots().unwrap().iter().map(|entry| scene.restored(&repository, entry)).collect()
    };
    for (machine, fault) in ALL.map(|fault| (Machine::Same, fault)).into_iter().chain([(Machine::New, FAILS)]) {
        every_call(&scene, machine, fault, |memory, faulty, name, what| {
            let result = forget_first(&scene, faulty.store.store(), name);
            let store: AnyStore = Arc::new(memory.clone());
            let left = kept(&store, name);
            match result {
                Ok(()) => assert!(left == scene.past[1..], "{what}: {} are left", left.len()),
                Err(error) => {
                    is_proper(&error, what);
                    if faulty.hit().is_some() && error.kind() != ErrorKind::Missing {
                        cause_is_named(&error, fault, what);
                    }
                    assert!(left == scene.past || left == scene.past[1..], "{what}: {} are left", left.len());
                    if left.len() == scene.past.len() {
                        forget_first(&scene, store.clone(), name).unwrap_or_else(|error| panic!("{what}: again: {error}"));
                    }
                }
            }
            let stranger = scene.machine(Machine::New);
            assert!(kept(&store, &stranger) == scene.past[1..], "{what}: as another machine sees it");
            scene.drop_machine(&stranger);
        });
    }
}
