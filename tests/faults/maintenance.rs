//! A fault at every call of the runs that take things away: forget and prune.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

use crate::calls::{FAILS, FULL, LATE, STALE, TORN, TWICE, cause_is_named, every_call};
use crate::scene::{Fault, Machine, Scene, Tree, is_proper};
use lifeboat::error::{ErrorKind, Result};
use lifeboat::event::{Observer, Silent};
use lifeboat::ops::prune::{PruneOptions, PruneReport, prune};
use lifeboat::store::{AnyStore, Memory, Store};
use std::sync::Arc;
use std::time::Duration;

const ALL: [Fault; 7] = [FAILS, FULL, LATE, TORN, STALE, TWICE, Fault::Gone];

pub fn pruned(scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer) -> Result<PruneReport> {
    let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
    prune(&scene.open(store, machine)?, &options, observer)
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
        assert!(pruned(&scene, Arc::new(memory.clone()), &scene.machine(machine), &Silent).unwrap().pruned.deleted > 0);
        let after = bytes_of_packs(&memory);
        assert!(after < before);
        after
    };
    let faults = every_call(&scene, machine, fault, |memory, faulty, name, what| {
        let result = pruned(&scene, faulty.store.store(), name, &Silent);
        let Some((verb, key)) = faulty.hit() else { return assert!(result.is_ok(), "{what}: nothing failed") };
        let what = format!("{what}, {verb:?} {key}");
        if let Err(error) = result {
            is_proper(&error, &what);
            cause_is_named(&error, fault, &what);
        }
        let store: AnyStore = Arc::new(memory.clone());
        pruned(&scene, store.clone(), name, &Silent).unwrap_or_else(|error| panic!("{what}: the next prune: {error}"));
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
