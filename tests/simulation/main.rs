//! The real engine in a simulated world: several machines back up, forget, and prune in one repository at once, with every
//! kind of fault.
//!
//! One seed decides who goes on when, what goes wrong, and what is backed up. Keys and names of objects are random all the
//! same, so calls whose order goes by names may change places from run to run; a failure prints all that happened.
//!
//! `LIFEBOAT_SEEDS` says how many worlds there are, `LIFEBOAT_SEED` which one is the first: with 1 and the number that a
//! failure printed, that one alone.
#![expect(clippy::print_stdout, reason = "a test says how to repeat it")]

mod ledger;
#[path = "../support/mod.rs"]
mod support;
mod world;

use ledger::{Ledger, What};
use lifeboat::error::Result;
use lifeboat::event::Silent;
use lifeboat::format::key::Role;
use lifeboat::ops::backup::{BackupOptions, CheckpointOptions, Input, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, Truncation, prune};
use lifeboat::ops::restore::restore;
use lifeboat::repo::{
    Access, CompactOptions, Enrolment, NewSlot, Repository, SnapshotEntry, default_sizes, generate_identity, recipients_of,
};
use lifeboat::store::{AnyStore, Memory, Store};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::{Bench, contents, noise};
use world::{Chance, Odds, World};
use zeroize::Zeroizing;

/// What each machine does, one after the other.
const DEEDS: usize = 5;

/// A machine: its keys and its place.
struct Machine {
    number: usize,
    role: Role,
    identity: Arc<Zeroizing<String>>,
}

struct Simulation {
    bench: Bench,
    memory: Memory,
    ledger: Ledger,
    next: AtomicU64,
}

/// Worlds in which old records of logs were deleted.
static CUT_OFF: AtomicU64 = AtomicU64::new(0);

impl Simulation {
    fn new() -> Self {
        let (memory, bench) = (Memory::default(), Bench::in_memory());
        Self { bench, memory, ledger: Ledger::default(), next: AtomicU64::new(0) }
    }

    /// A repository with three clients, in which everybody trusts everybody.
    fn set_up(&self) -> Vec<Machine> {
        let store: AnyStore = Arc::new(self.memory.clone());
        let recipient = recipients_of(self.bench.identity.as_bytes()).unwrap().remove(0);
        let (slot, sizes) = (NewSlot::Recipient(recipient), default_sizes(4096).unwrap());
        let owner = Repository::init_store(|| Ok(store), &slot, sizes, 1, &self.bench.options_of("first")).unwrap();
        let mut machines = Vec::new();
        let owners = Arc::new(self.bench.identity.clone());
        for (number, role) in [Role::Owner, Role::Writer, Role::Maintainer, Role::Owner].into_iter().enumerate() {
            let identity = if role == Role::Owner {
                owners.clone()
            } else {
                let (identity, recipient) = generate_identity().unwrap();
                let trust = vec!["all".to_owned()];
                let enrolment = Enrolment { role, slot: NewSlot::Recipient(recipient), name: format!("m{number}"), trust };
                owner.enrol(&self.bench.access(), &enrolment).unwrap();
                Arc::new(identity)
            };
            machines.push(Machine { number, role, identity });
        }
        machines
    }

    /// True if some log has a gap.
    fn is_cut_off(&self) -> bool {
        let mut logs: HashMap<_, (u64, u64)> = HashMap::new();
        let note = &mut |entry: lifeboat::store::Entry| {
            if let Some((client, seq)) = entry.key.log_seq() {
                let (count, newest) = logs.entry(client).or_default();
                (*count, *newest) = (*count + 1, seq.max(*newest));
            }
            Ok(())
        };
        self.memory.list("log", note).unwrap();
        logs.values().any(|(count, newest)| count <= newest)
    }

    fn backup_options(&self, source: PathBuf, tag: &str) -> BackupOptions {
        let checkpoint = CheckpointOptions { every: Duration::from_hours(1), bytes: u64::MAX };
        BackupOptions {
            input: Input::Paths(vec![source]),
            tags: vec![tag.to_owned()],
            threads: 1,
            checkpoint,
            ..self.bench.backup_options()
        }
    }
}

impl Machine {
    fn open(&self, simulation: &Simulation, world: &Arc<World>, cache: usize) -> Result<Repository> {
        let access = Access { identity: Some(Zeroizing::new(self.identity.as_bytes().to_vec())), passphrase: None };
        let options = simulation.bench.options_of(&format!("{}-{cache}", self.number));
        Repository::open_store(world.store(self.number), &access, &options, &Silent)
    }

    fn source(&self, simulation: &Simulation) -> PathBuf {
        simulation.bench.path(&format!("source-{}", self.number))
    }

    /// All that this machine does.
    fn live(&self, simulation: &Simulation, world: &Arc<World>) {
        let mut cache = 0;
        for _ in 0..DEEDS {
            let choice = match self.role {
                Role::Writer => 0,
                Role::Maintainer => 3 + world.choose(7),
                _ => world.choose(10),
            };
            let outcome = match choice {
                0..=2 => self.back_up(simulation, world, cache),
                3..=4 => self.change(simulation, world, cache, What::Forget),
                5 if world.choose(4) == 0 => self.change(simulation, world, cache, What::Hold),
                5 => self.change(simulation, world, cache, What::Unforget),
                _ => self.prune(simulation, world, cache),
            };
            let words = outcome.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned());
            if world.note(self.number, &words) && world.choose(3) == 0 {
                // The disk is lost with the machine.
                cache += 1;
            }
        }
    }

    fn back_up(&self, simulation: &Simulation, world: &Arc<World>, cache: usize) -> Result<()> {
        let tag = format!("backup-{}", simulation.next.fetch_add(1, Ordering::SeqCst));
        let source = self.source(simulation);
        let _ = std::fs::remove_dir_all(&source);
        std::fs::create_dir(&source).unwrap();
        for file in 0..4 {
            let content = noise(world.choose(2) as u64, 3000 + 900 * file);
            std::fs::write(source.join(format!("f{file}")), content).unwrap();
        }
        simulation.ledger.begin(&tag, contents(&source));
        world.note(self.number, &format!("{tag} begins"));
        let repository = self.open(simulation, world, cache)?;
        backup(&repository, simulation.backup_options(source, &tag), &Silent)?;
        simulation.ledger.committed(&tag);
        Ok(())
    }

    fn change(&self, simulation: &Simulation, world: &Arc<World>, cache: usize, what: What) -> Result<()> {
        world.note(self.number, &format!("{what:?}"));
        let repository = self.open(simulation, world, cache)?;
        let mut all = repository.all_snapshots()?;
        all.retain(|entry| entry.is_kept() != (what == What::Unforget));
        all.sort_by_key(|entry| entry.snapshot.tags.clone());
        if all.is_empty() {
            return Ok(());
        }
        // All of them, or one.
        let first = world.choose(all.len());
        let count = if what == What::Forget && world.choose(2) == 0 { all.len() } else { first + 1 };
        let chosen = &all[if count == all.len() { 0 } else { first }..count];
        let (tags, from): (Vec<&str>, u64) = (chosen.iter().map(|entry| entry.snapshot.tags[0].as_str()).collect(), world.step());
        world.note(self.number, &format!("{what:?} {}", tags.join(", ")));
        tags.iter().for_each(|tag| simulation.ledger.attempt(tag, what, from));
        let records: Vec<_> = chosen.iter().map(SnapshotEntry::record).collect();
        match what {
            What::Forget => repository.forget(&records)?,
            What::Unforget => repository.unforget(&records)?,
            What::Hold => repository.hold(&records, "")?,
        }
        tags.iter().for_each(|tag| simulation.ledger.done(tag, what, from, world.step()));
        Ok(())
    }

    fn prune(&self, simulation: &Simulation, world: &Arc<World>, cache: usize) -> Result<()> {
        world.note(self.number, "prune");
        let grace = [Duration::ZERO, Duration::ZERO, Duration::from_hours(24)][world.choose(3)];
        let max_unused = [0.0, 0.5][world.choose(2)];
        let truncation = [Truncation::Always, Truncation::Never][world.choose(2)];
        let repository = self.open(simulation, world, cache)?;
        prune(&repository, &PruneOptions { grace, max_unused, truncation, ..eager() }, &Silent).map(drop)
    }
}

/// A prune that compacts the index and cuts off the logs whenever it can.
fn eager() -> PruneOptions {
    let index = CompactOptions { packs: 1, entries: 16, ..CompactOptions::default() };
    let truncation = Truncation::Always;
    PruneOptions { grace: Duration::ZERO, max_unused: 0.0, index, truncation, ..PruneOptions::default() }
}

/// Every snapshot that is shown is what was backed up, and every one that must be there is.
fn verify(simulation: &Simulation, machine: &str) {
    let store: AnyStore = Arc::new(simulation.memory.clone());
    let repository = simulation.bench.open_over(store, machine).unwrap();
    let report = check(&repository, &CheckOptions::of_all_data(1), &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let shown: Vec<SnapshotEntry> = repository.snapshots().unwrap();
    for tag in simulation.ledger.standing() {
        assert!(shown.iter().any(|entry| entry.snapshot.tags[0] == tag), "{tag} is gone");
    }
    for entry in &shown {
        let target = simulation.bench.path("restored");
        let path = entry.snapshot.paths[0].strip_prefix(b"/").unwrap().to_vec();
        let mut options = simulation.bench.restore_options(&target);
        (options.subpath, options.threads) = (path, 1);
        restore(&repository, entry, &options, &Silent).unwrap();
        let tag = &entry.snapshot.tags[0];
        assert!(contents(&target) == simulation.ledger.tree(tag), "{tag} is another tree");
        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// One world from its beginning to its end.
fn simulate(seed: u64) {
    let mut chance = Chance::new(seed ^ 0x5eed);
    let odds = Odds { fault: [0, 5, 30][chance.below(3)], crash: [0, 3, 12][chance.below(3)], lag: [0, 0, 100][chance.below(3)] };
    let simulation = Simulation::new();
    let machines = simulation.set_up();
    let world = World::new(seed, odds, machines.len(), simulation.memory.clone());
    let ended = catch_unwind(AssertUnwindSafe(|| {
        std::thread::scope(|scope| {
            for machine in &machines {
                let (simulation, world) = (&simulation, &world);
                scope.spawn(move || {
                    world.enter(machine.number);
                    let lived = catch_unwind(AssertUnwindSafe(|| machine.live(simulation, world)));
                    world.leave(machine.number);
                    if let Err(panic) = lived {
                        std::panic::resume_unwind(panic);
                    }
                });
            }
        });
        world.settle();
        verify(&simulation, "reader");
        // Whatever was left open can be brought to its end, and takes nothing that is needed.
        let store: AnyStore = Arc::new(simulation.memory.clone());
        prune(&simulation.bench.open_over(store, "last").unwrap(), &eager(), &Silent).unwrap();
        verify(&simulation, "another");
        CUT_OFF.fetch_add(u64::from(simulation.is_cut_off()), Ordering::Relaxed);
    }));
    if let Err(panic) = ended {
        println!("{}", world.journal().join("\n"));
        println!("LIFEBOAT_SEED={seed} LIFEBOAT_SEEDS=1: {odds:?}");
        std::panic::resume_unwind(panic);
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_happens_to_several_machines_at_once_nothing_that_was_committed_is_lost() {
    let (first, count) = (number("LIFEBOAT_SEED", 1), number("LIFEBOAT_SEEDS", 1000));
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        break;
                    }
                    if let Err(panic) = catch_unwind(|| simulate(seed)) {
                        next.store(u64::MAX / 2, Ordering::SeqCst);
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
    let cut_off = CUT_OFF.load(Ordering::Relaxed);
    println!("{count} worlds from LIFEBOAT_SEED={first}, in {cut_off} of which logs were cut off");
    assert!(cut_off * 4 > count || count < 20, "logs were cut off in {cut_off} worlds only");
}
