//! The real engine in a simulated world: several machines back up, forget, and prune in one repository at once, with every
//! kind of fault.
//!
//! One seed decides everything that the store sees: who goes on when, what goes wrong, what is backed up, what the clocks
//! say, which of the calls that a machine makes beside each other comes first, and every random byte that the engine draws (`lifeboat::repo::Surroundings`). So a world whose seed is known happens
//! again call by call, byte by byte; the last test here holds the simulation to that. A failure prints the seed, with the
//! command that runs it again, and all that happened.
//!
//! `LIFEBOAT_SEEDS` says how many worlds there are, `LIFEBOAT_SEED` which one is the first: with 1 and the number that a
//! failure printed, that one alone.
#![expect(clippy::print_stdout, reason = "a test says how to repeat it")]

mod age_file;
mod ledger;
mod repeat;
#[path = "../support/mod.rs"]
mod support;
mod world;

use ledger::{Ledger, What};
use lifeboat::crypto::wrap::identity_of;
use lifeboat::error::Result;
use lifeboat::event::Silent;
use lifeboat::format::key::Role;
use lifeboat::ops::backup::{BackupOptions, CheckpointOptions, Input, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, Truncation, prune};
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::repo::{
    Access, CompactOptions, Enrolment, NewSlot, Repository, SnapshotEntry, Surroundings, default_sizes, recipients_of,
};
use lifeboat::store::{AnyStore, Memory, Store};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use support::ahead::Ahead;
use support::{Bench, contents, noise};
use tempfile::TempDir;
use world::{Chance, Odds, World};
use zeroize::Zeroizing;

/// What each machine does, one after the other.
const DEEDS: usize = 5;

/// A machine: its keys and its place.
struct Machine {
    number: usize,
    role: Role,
    identity: Arc<Zeroizing<String>>,
    surroundings: Surroundings,
}

struct Simulation {
    seed: u64,
    bench: Bench,
    memory: Memory,
    world: Arc<World>,
    ledger: Ledger,
    next: AtomicU64,
}

/// Machines of a world.
const MACHINES: usize = 4;
/// Whoever sets the world up and looks at what came of it.
const JUDGE: usize = MACHINES;

/// Where files are that are backed up: the working directory, so that its own name is in no snapshot.
fn ground() -> Arc<TempDir> {
    static GROUND: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut ground = GROUND.lock().unwrap();
    ground.upgrade().unwrap_or_else(|| {
        let new = Arc::new(support::dir_in_memory());
        std::env::set_current_dir(new.path()).unwrap();
        *ground = Arc::downgrade(&new);
        new
    })
}

impl Simulation {
    fn new(seed: u64, odds: Odds) -> Self {
        let memory = Memory::default();
        let world = World::new(seed, odds, MACHINES, memory.clone());
        let (identity, _) = identity_of(&drawn(seed, "owner")).unwrap();
        Self { seed, bench: Bench::bare(identity), memory, world, ledger: Ledger::default(), next: AtomicU64::new(0) }
    }

    fn surroundings(&self, actor: usize) -> Surroundings {
        let random = drawn(self.seed, &format!("actor {actor}"));
        Surroundings::simulated(random, self.world.clock(actor), age_file::wrap, self.world.side_by_side(actor))
    }

    /// A repository with an owner, whose identity may be on two machines, a maintainer, and one or two writers, of whom
    /// each trusts everybody, nobody, whom a reader vouches for, or the other.
    fn set_up(&self, chance: &mut Chance) -> Vec<Machine> {
        let store: AnyStore = Arc::new(self.memory.clone());
        let recipient = recipients_of(self.bench.identity.as_bytes()).unwrap().remove(0);
        let (slot, sizes) = (NewSlot::Recipient(recipient), default_sizes(4096).unwrap());
        let (judge, options) = (self.surroundings(JUDGE), self.bench.options_of("first"));
        let owner = Repository::init_in(&judge, || Ok(store), &slot, (sizes, 1), &options).unwrap();
        let mut machines = Vec::new();
        let owners = Arc::new(self.bench.identity.clone());
        let last = [Role::Owner, Role::Writer][chance.below(2)];
        for (number, role) in [Role::Owner, Role::Writer, Role::Maintainer, last].into_iter().enumerate() {
            let identity = if role == Role::Owner {
                owners.clone()
            } else {
                let (identity, recipient) = identity_of(&drawn(self.seed, &format!("machine {number}"))).unwrap();
                // Nobody is called m1 yet when m1 itself is enrolled.
                let trust = ["all", "none", "attested", if number == 3 { "m1" } else { "all" }][chance.below(4)].to_owned();
                let (slot, name) = (NewSlot::Recipient(recipient), format!("m{number}"));
                owner.enrol(&self.bench.access(), &Enrolment { role, slot, name, trust: vec![trust] }).unwrap();
                Arc::new(identity)
            };
            machines.push(Machine { number, role, identity, surroundings: self.surroundings(number) });
        }
        let mut keys = Vec::new();
        let key = &mut |entry: lifeboat::store::Entry| {
            keys.push(entry.key);
            Ok(())
        };
        self.memory.list("", key).unwrap();
        keys.iter().for_each(|key| self.memory.set_modified(key, self.world.clock(JUDGE)()));
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
        // One that answers late is asked ahead.
        let store = world.store(self.number);
        let store = if store.width() > 1 { Ahead::over(store) } else { store };
        Repository::open_in(&self.surroundings, store, &access, &options, &Silent)
    }

    fn source(&self, simulation: &Simulation) -> PathBuf {
        PathBuf::from(format!("world-{}-{}", simulation.seed, self.number))
    }

    /// All that this machine does.
    fn live(&self, simulation: &Simulation, world: &Arc<World>) {
        let mut cache = 0;
        for _ in 0..DEEDS {
            let choice = match self.role {
                Role::Writer => 0,
                Role::Maintainer => 3 + world.choose(7),
                _ => world.choose(11),
            };
            let outcome = match choice {
                0..=2 => self.back_up(simulation, world, cache),
                3..=4 => self.change(simulation, world, cache, What::Forget),
                5 if world.choose(4) == 0 => self.change(simulation, world, cache, What::Hold),
                5 => self.change(simulation, world, cache, What::Unforget),
                10 => self.vouch(simulation, world, cache),
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
            let path = source.join(format!("f{file}"));
            std::fs::write(&path, content).unwrap();
            set_old(&path);
        }
        set_old(&source);
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

    /// Says that all packs are what they should be, which they are here; then machines rely on them that trust no writer.
    fn vouch(&self, simulation: &Simulation, world: &Arc<World>, cache: usize) -> Result<()> {
        world.note(self.number, "vouch");
        let repository = self.open(simulation, world, cache)?;
        let mut packs = Vec::new();
        repository.each_listed_pack(&mut |pack, _| {
            packs.push(Ok(*pack));
            Ok(())
        })?;
        repository.attest(packs.into_iter()).map(drop)
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

/// Files have the times that the seed says.
fn set_old(path: &Path) {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(900_000_000);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Bytes that a seed gives for a purpose.
fn drawn(seed: u64, purpose: &str) -> [u8; 32] {
    blake3::derive_key(&format!("lifeboat simulation {purpose}"), &seed.to_le_bytes())
}

/// A prune that compacts the index and cuts off the logs whenever it can.
fn eager() -> PruneOptions {
    let index = CompactOptions { packs: 1, entries: 16, ..CompactOptions::default() };
    let truncation = Truncation::Always;
    PruneOptions { grace: Duration::ZERO, max_unused: 0.0, index, truncation, ..PruneOptions::default() }
}

/// The repository as it is, with no world around it.
fn plainly(simulation: &Simulation, machine: &str) -> Repository {
    let store: AnyStore = Arc::new(simulation.memory.clone());
    let (bench, surroundings) = (&simulation.bench, simulation.surroundings(JUDGE + 1 + machine.len()));
    Repository::open_in(&surroundings, store, &bench.access(), &bench.options_of(machine), &Silent).unwrap()
}

/// Nothing is damaged, and every snapshot that must be there is; returns those that are shown, with who sees them.
fn verify(simulation: &Simulation, machine: &str) -> (Repository, Vec<SnapshotEntry>) {
    let repository = plainly(simulation, machine);
    let report = check(&repository, &CheckOptions::of_all_data(1), &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let shown: Vec<SnapshotEntry> = repository.snapshots().unwrap();
    for tag in simulation.ledger.standing() {
        assert!(shown.iter().any(|entry| entry.snapshot.tags[0] == tag), "{tag} is gone");
    }
    (repository, shown)
}

/// Every snapshot that is shown is what was backed up.
fn restore_all(simulation: &Simulation, (repository, shown): &(Repository, Vec<SnapshotEntry>)) {
    for entry in shown {
        let target = simulation.bench.path("restored");
        let path = entry.snapshot.paths[0].clone();
        let options = RestoreOptions { subpath: path, threads: 1, ..simulation.bench.restore_options_to(&target) };
        restore(repository, entry, &options, &Silent).unwrap();
        let tag = &entry.snapshot.tags[0];
        assert!(contents(&target) == simulation.ledger.tree(tag), "{tag} is another tree");
        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// One world from its beginning to its end; returns all that happened in it, and whether old records of logs were deleted.
fn simulate(seed: u64) -> (Vec<String>, bool) {
    let mut chance = Chance::new(seed ^ 0x5eed);
    let width = [1, 1, 1, 3][chance.below(4)];
    let [fault, crash, lag] = [[0, 5, 30], [0, 3, 12], [0, 0, 100]].map(|odds| odds[chance.below(3)]);
    let odds = Odds { fault, crash, lag, width };
    let simulation = Simulation::new(seed, odds);
    let machines = simulation.set_up(&mut chance);
    let world = &simulation.world;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        std::thread::scope(|scope| {
            for machine in &machines {
                let simulation = &simulation;
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
        assert!(!world.was_crowded(), "the threads of a machine called the store side by side without being told when");
        world.settle();
        let (_, before) = verify(&simulation, "reader");
        // Whatever was left open can be brought to its end, by somebody who saw nothing of all this, and takes nothing that
        // is needed.
        prune(&plainly(&simulation, "first"), &eager(), &Silent).unwrap();
        let after = verify(&simulation, "another");
        let names = |shown: &[SnapshotEntry]| shown.iter().map(|entry| entry.id).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names(&before), names(&after.1));
        restore_all(&simulation, &after);
    }));
    machines.iter().for_each(|machine| drop(std::fs::remove_dir_all(machine.source(&simulation))));
    if let Err(panic) = ended {
        println!("{}", world.journal().join("\n"));
        println!("{odds:?}; to run this world again: LIFEBOAT_SEED={seed} LIFEBOAT_SEEDS=1 cargo test --test simulation");
        std::panic::resume_unwind(panic);
    }
    (world.journal(), simulation.is_cut_off())
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_happens_to_several_machines_at_once_nothing_that_was_committed_is_lost() {
    let _ground = ground();
    let (first, count) = (number("LIFEBOAT_SEED", 1), number("LIFEBOAT_SEEDS", 1000));
    let (next, cut_off) = (AtomicU64::new(first), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        break;
                    }
                    match catch_unwind(|| simulate(seed)) {
                        Ok((_, was_cut_off)) => cut_off.fetch_add(u64::from(was_cut_off), Ordering::Relaxed),
                        Err(panic) => {
                            next.store(u64::MAX / 2, Ordering::SeqCst);
                            std::panic::resume_unwind(panic);
                        }
                    };
                }
            });
        }
    });
    let cut_off = cut_off.load(Ordering::Relaxed);
    println!("{count} worlds from LIFEBOAT_SEED={first}, in {cut_off} of which logs were cut off");
    assert!(cut_off * 4 > count || count < 20, "logs were cut off in {cut_off} worlds only");
}
