//! A fault at every call that a run makes of its store, one after the other, until the run has no more calls.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

use crate::scene::{Fault, Faulty, Machine, Scene, Tree, is_proper};
use crate::support::contents;
use crate::support::interposed::{Fate, Verb};
use lifeboat::error::{ErrorKind, Result};
use lifeboat::event::Silent;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::repo::{NewSlot, Repository, default_sizes, generate_identity};
use lifeboat::store::{AnyStore, Memory};
use std::sync::Arc;

pub const FAILS: Fault = Fault::Once(Fate::Fail(ErrorKind::Failed));
pub const FULL: Fault = Fault::Once(Fate::Fail(ErrorKind::Full));
pub const LATE: Fault = Fault::Once(Fate::FailAfter(ErrorKind::Failed));
pub const TORN: Fault = Fault::Once(Fate::Tear);
pub const STALE: Fault = Fault::Once(Fate::Hide);
pub const TWICE: Fault = Fault::Once(Fate::Repeat);

/// Runs `each` with every call in turn made to fail, and stops when the run ends before the call comes; returns how
/// many calls were made to fail.
pub fn every_call(scene: &Scene, machine: Machine, fault: Fault, mut each: impl FnMut(&Memory, &Faulty, &str, &str)) -> u64 {
    let mut faults = 0;
    for call in 0.. {
        let memory = scene.memory();
        let faulty = Faulty::new(Arc::new(memory.clone()), call, fault);
        let name = scene.machine(machine);
        let what = format!("{fault:?} at call {call} on the {machine:?} machine");
        each(&memory, &faulty, &name, &what);
        scene.drop_machine(&name);
        faults += u64::from(faulty.hit().is_some());
        if faulty.store.calls() <= call {
            break;
        }
    }
    faults
}

/// A backup with the fault at every call.
fn backups(machine: Machine, fault: Fault) {
    let scene = Scene::new();
    let faults = every_call(&scene, machine, fault, |memory, faulty, name, what| {
        let result = scene.backup(faulty.store.store(), name);
        let Some((verb, key)) = faulty.hit() else { return assert!(result.is_ok(), "{what}: nothing failed") };
        let what = format!("{what}, {verb:?} {key}");
        let count = match &result {
            Ok(_) => 1..=1,
            // Nobody can tell what became of it, so it may be there, but once.
            Err(error) => {
                is_proper(error, &what);
                cause_is_named(error, fault, &what);
                0..=1
            }
        };
        let found = scene.is_unharmed(memory, name, &what) - scene.past.len();
        assert!(count.contains(&found), "{what}: {found} more snapshots after {:?}", result.map(|report| report.id));
    });
    assert!(faults > 0, "{fault:?}: nothing was made to fail");
}

/// The error names what failed, not a consequence of it.
pub fn cause_is_named(error: &lifeboat::error::Error, fault: Fault, what: &str) {
    match fault {
        FULL => assert_eq!(error.kind(), ErrorKind::Full, "{what}: {error}"),
        FAILS | Fault::Gone => assert!(error.to_string().contains("as the test wants"), "{what}: {error}"),
        _ => {}
    }
}

#[test]
fn a_backup_that_fails_at_any_call_harms_nothing() {
    backups(Machine::Same, FAILS);
}

#[test]
fn a_backup_that_fails_at_any_call_on_a_new_machine_harms_nothing() {
    backups(Machine::New, FAILS);
}

#[test]
fn a_backup_onto_a_store_that_is_full_at_any_call_harms_nothing() {
    backups(Machine::Same, FULL);
}

#[test]
fn a_backup_whose_puts_succeed_but_say_they_failed_commits_once_or_not_at_all() {
    backups(Machine::Same, LATE);
}

#[test]
fn a_backup_whose_store_repeats_a_create_commits_once() {
    backups(Machine::Same, TWICE);
}

#[test]
fn a_backup_that_leaves_half_an_object_harms_nothing() {
    backups(Machine::Same, TORN);
}

#[test]
fn a_backup_over_a_store_that_is_late_to_show_objects_harms_nothing() {
    backups(Machine::Same, STALE);
}

#[test]
fn a_backup_over_a_store_that_is_late_to_show_objects_to_a_new_machine_harms_nothing() {
    backups(Machine::New, STALE);
}

#[test]
fn a_backup_whose_store_goes_away_at_any_call_harms_nothing() {
    backups(Machine::Same, Fault::Gone);
}

/// A record whose answer is lost, and then what became of it cannot be asked, is not appended again.
#[test]
fn a_commit_of_which_nothing_more_is_heard_happened_once() {
    for repeated in [false, true] {
        let scene = Scene::new();
        let memory = scene.memory();
        let seen = std::sync::atomic::AtomicBool::new(false);
        let store = crate::support::interposed::Interposed::new(Arc::new(memory.clone()), move |_, verb, key| {
            use std::sync::atomic::Ordering::SeqCst;
            match verb {
                Verb::Create if key.starts_with("log/") => {
                    seen.store(true, SeqCst);
                    if repeated { Fate::Repeat } else { Fate::FailAfter(ErrorKind::Failed) }
                }
                Verb::Get if seen.swap(false, SeqCst) => Fate::Fail(ErrorKind::Failed),
                _ => Fate::Pass,
            }
        });
        let name = scene.machine(Machine::Same);
        let error = scene.backup(store.store(), &name).expect_err("the answer never came");
        is_proper(&error, "lost answer");
        assert_eq!(scene.is_unharmed(&memory, &name, "lost answer"), scene.past.len() + 1);
    }
}

fn restores(machine: Machine, fault: Fault) {
    let scene = Scene::new();
    let target = scene.bench.path("restored");
    every_call(&scene, machine, fault, |memory, faulty, name, what| {
        let entry = |repository: &Repository| repository.snapshots().unwrap().remove(0);
        let result = scene.open(faulty.store.store(), name).and_then(|repository| {
            let first = repository.snapshots()?.into_iter().next();
            let first = first.ok_or_else(|| lifeboat::error::Error::missing("find a snapshot: there is none"))?;
            scene.restore(&repository, &first, &target)
        });
        let whole = match result {
            Ok(report) => report.failure_count == 0,
            Err(error) => {
                is_proper(&error, what);
                false
            }
        };
        if whole {
            assert!(contents(&target) == scene.past[0], "{what}: said to be whole");
        } else if target.exists() {
            let finished: Tree = contents(&target).into_iter().filter(|(path, _)| !is_unfinished(path)).collect();
            assert!(finished.iter().all(|entry| scene.past[0].contains(entry)), "{what}: a wrong file has its name");
        }
        // The same restore goes on where that one ended.
        let store: AnyStore = Arc::new(memory.clone());
        let repository = scene.open(store, name).unwrap();
        if !whole {
            let report = scene.restore(&repository, &entry(&repository), &target).unwrap();
            assert_eq!(report.failure_count, 0, "{what}");
        }
        assert!(contents(&target) == scene.past[0], "{what}: afterwards");
        std::fs::remove_dir_all(&target).unwrap();
    });
}

fn is_unfinished(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".lifeboat-"))
}

#[test]
fn a_restore_that_meets_a_fault_at_any_call_restores_nothing_wrong_and_can_go_on() {
    for fault in [FAILS, STALE, Fault::Gone] {
        restores(Machine::Same, fault);
    }
}

#[test]
fn a_restore_that_meets_a_fault_at_any_call_on_a_new_machine_can_go_on() {
    restores(Machine::New, FAILS);
    restores(Machine::New, STALE);
}

#[test]
fn a_check_that_meets_a_fault_at_any_call_says_so_or_finds_nothing() {
    let scene = Scene::new();
    for (machine, fault) in [(Machine::Same, FAILS), (Machine::New, FAILS), (Machine::Same, STALE), (Machine::Same, Fault::Gone)]
    {
        every_call(&scene, machine, fault, |memory, faulty, name, what| {
            let options = CheckOptions::of_all_data(1);
            let run = |store: AnyStore| scene.open(store, name).and_then(|repository| check(&repository, &options, &Silent));
            match run(faulty.store.store()) {
                Err(error) => is_proper(&error, what),
                Ok(report) => {
                    let unread = matches!(faulty.hit(), Some((Verb::ReadAt, _))) && machine == Machine::Same;
                    assert!(!unread || report.is_damaged(), "{what}: passed over what it could not read");
                }
            }
            let report = run(Arc::new(memory.clone())).unwrap();
            assert!(report.findings.is_empty(), "{what}: {:?}", report.findings);
        });
    }
}

#[test]
fn an_init_that_meets_a_fault_at_any_call_makes_a_repository_or_none() {
    let scene = Scene::new();
    for fault in [FAILS, FULL, LATE, TWICE, TORN, STALE, Fault::Gone] {
        for call in 0.. {
            let memory = Memory::default();
            let faulty = Faulty::new(Arc::new(memory.clone()), call, fault);
            let name = scene.machine(Machine::New);
            let what = format!("{fault:?} at call {call}: {:?}", faulty.hit());
            let (identity, recipient) = generate_identity().unwrap();
            let init = |store: AnyStore| -> Result<Repository> {
                let (slot, sizes) = (NewSlot::Recipient(recipient.clone()), default_sizes(4096)?);
                Repository::init_store(|| Ok(store), &slot, sizes, 3, &scene.bench.options_of(&name))
            };
            let made = init(faulty.store.store());
            if let Err(error) = &made {
                is_proper(error, &what);
            }
            let access = lifeboat::repo::Access {
                identity: Some(zeroize::Zeroizing::new(identity.as_bytes().to_vec())),
                passphrase: None,
            };
            let machine = scene.machine(Machine::New);
            let open = || Repository::open_store(Arc::new(memory.clone()), &access, &scene.bench.options_of(&machine), &Silent);
            let torn = matches!(faulty.hit(), Some((_, key)) if fault == TORN && key.starts_with("format/"));
            match (made, open()) {
                (Ok(_), opened) => drop(opened.unwrap_or_else(|error| panic!("{what}: {error}"))),
                // A store that leaves half of `format/1` behind cannot be made good by anybody.
                (Err(_), Err(error)) if torn => is_proper(&error, &what),
                (Err(_), Ok(repository)) => assert!(repository.snapshots().unwrap().is_empty(), "{what}"),
                (Err(_), Err(_)) => {
                    init(Arc::new(memory.clone())).unwrap_or_else(|error| panic!("{what}: again: {error}"));
                    open().unwrap_or_else(|error| panic!("{what}: after the second init: {error}"));
                }
            }
            if faulty.store.calls() <= call {
                break;
            }
        }
    }
}
