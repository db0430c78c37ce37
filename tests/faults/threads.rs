//! A thread panics in the midst of a run: whoever waits for it does not wait for ever, the run is no success, and nothing is harmed.

use crate::maintenance::pruned;
use crate::scene::{Machine, Scene, is_proper};
use crate::support::interposed::{Fate, Interposed, Verb};
use crate::support::{contents, noise};
use lifeboat::error::{Error, Result};
use lifeboat::event::{Event, Observer, Silent};
use lifeboat::ops::backup::{BackupOptions, CheckpointOptions, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::copy::{CopyOptions, copy};
use lifeboat::ops::repair::{RepairOptions, repair};
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::repo::{CompactOptions, NewSlot, Repository, default_sizes};
use lifeboat::store::{AnyStore, Location, Memory};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock, mpsc};
use std::thread::{ThreadId, current, spawn};
use std::time::Duration;

/// After this, a run waits for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is called when a thread panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Called {
    Store,
    Observer,
}

/// Which threads may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The one that was asked for the run.
    Asked,
    Others,
}

use Called::{Observer as Watched, Store as Stored};
use Who::{Asked, Others};

/// A panic in one of the calls that these threads make.
struct Death {
    called: Called,
    who: Who,
    at: u64,
    asked: OnceLock<ThreadId>,
    calls: AtomicU64,
    has_come: AtomicBool,
}

impl Death {
    fn new((called, who, at): (Called, Who, u64)) -> Self {
        let (asked, calls, has_come) = Default::default();
        Self { called, who, at, asked, calls, has_come }
    }

    fn may_come(&self, called: Called) {
        let who = if self.asked.get() == Some(&current().id()) { Asked } else { Others };
        if (called, who) == (self.called, self.who) && self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            self.has_come.store(true, Ordering::SeqCst);
            // Without the hook for panics: it is wanted, so nobody is told.
            resume_unwind(Box::new("this thread dies as the test wants"));
        }
    }
}

impl Observer for Death {
    fn observe(&self, _: Event<'_>) {
        self.may_come(Watched);
    }

    fn interrupted(&self) -> bool {
        self.may_come(Watched);
        false
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref().map(String::as_str)).unwrap_or_default()
}

/// What comes of a wanted panic: a scope that a thread of it has panicked, and a lock that it held.
fn is_wanted(panic: &str) -> bool {
    panic.contains("as the test wants") || panic == "a scoped thread panicked" || panic.contains("PoisonError")
}

/// Nothing is reported of those: it would hide what is.
fn be_silent_of_wanted_panics() {
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

/// A run on the machine of that name, and what holds after it.
#[derive(Clone, Copy)]
struct Case {
    what: &'static str,
    run: fn(&Scene, AnyStore, &str, &dyn Observer) -> Result<()>,
    after: fn(&Scene, &Memory, &str, &str),
}

impl Case {
    /// The run with a panic in it, over a store that likes so many requests at once; false if there was no such call.
    fn dies(self, scene: &Arc<Scene>, width: usize, when: (Called, Who, u64)) -> bool {
        be_silent_of_wanted_panics();
        let what = format!("{}, {when:?}, width {width}", self.what);
        let (memory, name, death) = (scene.memory(), scene.machine(Machine::New), Arc::new(Death::new(when)));
        let for_store = death.clone();
        let store = Interposed::new(Arc::new(memory.clone()), move |_, _, _| {
            for_store.may_come(Stored);
            Fate::Pass
        });
        let (tell, told) = mpsc::channel();
        let (store, for_run, machine, in_scene) = (store.wide(width).store(), death.clone(), name.clone(), scene.clone());
        spawn(move || {
            for_run.asked.set(current().id()).unwrap();
            let ended = catch_unwind(AssertUnwindSafe(|| (self.run)(&in_scene, store, &machine, &*for_run)));
            let _ = tell.send(ended);
        });
        let ended = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: it waits for ever"));
        let has_come = death.has_come.load(Ordering::SeqCst);
        match ended {
            Ok(Ok(())) => assert!(!has_come, "{what}: it said that it was done"),
            Ok(Err(error)) => {
                assert!(has_come, "{what}: nothing panicked: {error}");
                is_proper(&error, &what);
            }
            Err(panic) => {
                let said = words(&*panic);
                assert!(has_come && is_wanted(said), "{what}: {said}");
            }
        }
        if has_come {
            (self.after)(scene, &memory, &name, &what);
        }
        scene.drop_machine(&name);
        has_come
    }

    /// The same at several calls of these kinds, each of which has some.
    fn dies_anywhere(self, scene: &Arc<Scene>, kinds: &[(Called, Who)]) {
        for (called, who) in kinds {
            let calls = [(1, 0), (4, 1), (1, 5), (4, 17)].into_iter();
            let died = calls.take_while(|(width, at)| self.dies(scene, *width, (*called, *who, *at))).count();
            assert!(died > 0, "{}: no thread to panic: {called:?}, {who:?}", self.what);
        }
    }
}

/// Nothing is lost, and at most the one new snapshot is there.
fn unharmed(scene: &Scene, memory: &Memory, machine: &str, what: &str) {
    let count = scene.is_unharmed(memory, machine, what);
    assert!(count <= scene.past.len() + 1, "{what}: {count} snapshots");
}

fn backed_up(scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer) -> Result<()> {
    let checkpoint = CheckpointOptions { every: Duration::ZERO, bytes: 1 };
    let options = BackupOptions { checkpoint, ..scene.bench.backup_options() };
    backup(&scene.open(store, machine)?, options, observer).map(drop)
}

#[test]
fn a_backup_of_which_a_thread_panics_ends_and_commits_nothing_by_halves() {
    let case = Case { what: "backup", run: backed_up, after: unharmed };
    case.dies_anywhere(&Arc::new(Scene::new()), &[(Stored, Others), (Watched, Others), (Watched, Asked)]);
}

/// Workers that cut one large file wait for each other.
#[test]
fn a_backup_of_a_large_file_ends_when_one_of_those_who_read_it_panics() {
    let scene = Scene::new();
    scene.bench.write("large", noise(3, 18 << 20));
    let scene = Arc::new(scene);
    let after = |scene: &Scene, memory: &Memory, machine: &str, what: &str| {
        let repository = scene.open(Arc::new(memory.clone()), machine).unwrap();
        let snapshots = repository.snapshots().unwrap();
        let whole = snapshots.iter().filter(|entry| !entry.snapshot.incomplete).count();
        assert_eq!(whole, scene.past.len(), "{what}");
    };
    let run = |scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer| {
        backup(&scene.open(store, machine)?, scene.bench.backup_options(), observer).map(drop)
    };
    let case = Case { what: "backup of a large file", run, after };
    // They ask whether to stop at each part of it, which comes last.
    let all = Death::new((Watched, Others, u64::MAX));
    all.asked.set(current().id()).unwrap();
    run(&scene, Arc::new(scene.memory()), &scene.machine(Machine::New), &all).unwrap();
    let all = all.calls.into_inner();
    let died = (all - 10..all).filter(|at| case.dies(&scene, 1, (Watched, Others, *at))).count();
    assert!(died > 5, "{died}");
}

fn target(scene: &Scene, machine: &str) -> PathBuf {
    scene.bench.path(&format!("restored-{machine}"))
}

fn restored(scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer) -> Result<()> {
    let repository = scene.open(store, machine)?;
    let first = repository.snapshots()?.into_iter().next();
    let first = first.ok_or_else(|| Error::missing("find a snapshot: there is none"))?;
    let options = RestoreOptions { verify: true, ..scene.bench.restore_options(&target(scene, machine)) };
    let report = restore(&repository, &first, &options, observer)?;
    if report.failure_count == 0 { Ok(()) } else { Err(Error::failed(format!("restore: {:?}", report.failures))) }
}

#[test]
fn a_restore_of_which_a_thread_panics_ends_and_goes_on_when_asked_again() {
    let after = |scene: &Scene, memory: &Memory, machine: &str, what: &str| {
        let target = target(scene, machine);
        let found = if target.exists() { contents(&target) } else { Vec::new() };
        let named = |path: &std::path::Path| !path.file_name().unwrap().to_string_lossy().starts_with(".lifeboat-");
        assert!(found.iter().all(|entry| !named(&entry.0) || scene.past[0].contains(entry)), "{what}: a wrong file has its name");
        restored(scene, Arc::new(memory.clone()), machine, &Silent).unwrap_or_else(|error| panic!("{what}: again: {error}"));
        assert!(contents(&target) == scene.past[0], "{what}: afterwards");
        std::fs::remove_dir_all(&target).unwrap();
    };
    let case = Case { what: "restore", run: restored, after };
    case.dies_anywhere(&Arc::new(Scene::new()), &[(Stored, Others), (Watched, Others), (Watched, Asked)]);
}

#[test]
fn a_thread_that_dies_in_maintenance_ends_the_run_and_harms_nothing() {
    let scene = Arc::new(Scene::forgotten());
    let run = |scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer| {
        pruned(scene, store, machine, observer).map(drop)
    };
    Case { what: "prune", run, after: unharmed }.dies_anywhere(&scene, &[(Stored, Others), (Watched, Asked)]);
    let run = |scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer| {
        check(&scene.open(store, machine)?, &CheckOptions::of_all_data(2), observer).map(drop)
    };
    let all = [(Stored, Others), (Watched, Others), (Watched, Asked)];
    Case { what: "check", run, after: unharmed }.dies_anywhere(&scene, &all);
    let run = |scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer| {
        let options = RepairOptions { from: None, apply: true, parity: Some(50), thaw: Default::default(), threads: 2 };
        repair(&scene.open(store, machine)?, &options, observer).map(drop)
    };
    Case { what: "repair", run, after: unharmed }.dies_anywhere(&scene, &all);
    let run = |scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer| {
        let options = CompactOptions { packs: 1, entries: 50, everything: true };
        scene.open(store, machine)?.compact_index(&options, observer).map(drop)
    };
    Case { what: "compact", run, after: unharmed }.dies_anywhere(&scene, &[(Stored, Others)]);
}

/// It is asked beside everything else, and a store in trouble may leave it unanswered.
#[test]
fn a_check_is_no_success_if_what_the_store_keeps_could_not_be_asked_for_because_of_a_panic() {
    let scene = Scene::new();
    let store = Interposed::new(Arc::new(scene.memory()), |_, verb, _| match verb {
        Verb::Probe => resume_unwind(Box::new("this thread dies as the test wants")),
        _ => Fate::Pass,
    });
    let repository = scene.open(store.store(), &scene.machine(Machine::New)).unwrap();
    let error = check(&repository, &CheckOptions::of_all_data(1), &Silent).expect_err("it panicked");
    assert!(error.to_string().contains("a fault of the program itself"), "{error}");
}

/// The repository of another machine in a directory, made when it is first asked for.
fn other(scene: &Scene, machine: &str) -> Result<Repository> {
    let place = scene.bench.path(&format!("other-{machine}"));
    let (location, options) = (Location::directory(&place), scene.bench.options_of(&format!("{machine}-other")));
    let access = scene.bench.access();
    if !place.exists() {
        let recipient = lifeboat::repo::recipients_of(scene.bench.identity.as_bytes())?.remove(0);
        Repository::init(&location, &NewSlot::Recipient(recipient), default_sizes(4096)?, 3, &options)?;
    }
    Repository::open(&location, &access, &options, &Silent)
}

fn copied_from(scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer) -> Result<()> {
    let (source, target) = (scene.open(store, machine)?, other(scene, machine)?);
    let options = CopyOptions { threads: 2, ..CopyOptions::default() };
    copy(&source, &target, &source.snapshots()?, options, observer).map(drop)
}

fn copied_to(scene: &Scene, store: AnyStore, machine: &str, observer: &dyn Observer) -> Result<()> {
    let (source, target) = (other(scene, "source")?, scene.open(store, machine)?);
    let options = CopyOptions { threads: 2, ..CopyOptions::default() };
    copy(&source, &target, &source.snapshots()?, options, observer).map(drop)
}

#[test]
fn a_copy_of_which_a_thread_panics_ends_and_goes_on_when_asked_again() {
    let scene = Arc::new(Scene::new());
    let after = |scene: &Scene, memory: &Memory, machine: &str, what: &str| {
        let again = copied_from(scene, Arc::new(memory.clone()), machine, &Silent);
        again.unwrap_or_else(|error| panic!("{what}: again: {error}"));
        let target = other(scene, machine).unwrap();
        let found: Vec<_> = target.snapshots().unwrap().iter().map(|entry| scene.restored(&target, entry)).collect();
        assert!(found == scene.past, "{what}: {} snapshots", found.len());
        std::fs::remove_dir_all(scene.bench.path(&format!("other-{machine}"))).unwrap();
        scene.drop_machine(&format!("{machine}-other"));
    };
    let all = [(Stored, Others), (Watched, Others), (Watched, Asked)];
    Case { what: "copy from", run: copied_from, after }.dies_anywhere(&scene, &all);
    backup(&other(&scene, "source").unwrap(), scene.bench.backup_options(), &Silent).unwrap();
    Case { what: "copy to", run: copied_to, after: unharmed }.dies_anywhere(&scene, &all);
}
