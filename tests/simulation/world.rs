//! The simulated world: one store, and a scheduler that lets one actor run at a time.
//!
//! Every call of the store is a point at which another actor may go on instead, and at which things may go wrong. Nothing
//! here hangs on when the system lets a thread run: whose turn it is, which of the things goes on that a machine does beside
//! each other, what becomes of a call, and what the clocks say are drawn from the seed, call by call.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

mod lanes;
mod seen;

use crate::support::noise;
use lanes::{LANE, Runner};
use lifeboat::store::{AnyStore, Created, Key, Memory, Store};
use seen::{Seen, brief};
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Numbers that are the same for the same seed (SplitMix64; Steele, Lea, Flood 2014).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(u64::from_le_bytes(noise(seed, 8).try_into().unwrap()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// True in so many of 1,000 cases.
    pub fn permille(&mut self, odds: usize) -> bool {
        self.below(1000) < odds
    }
}

/// How often somebody falls asleep, of 1,000 calls.
const SLEEPS: usize = 30;
/// For how many calls of others, at most.
const LONGEST_SLEEP: usize = 400;

/// How often things go wrong, of 1,000 calls.
#[derive(Debug, Clone, Copy)]
pub struct Odds {
    /// A call fails.
    pub fault: usize,
    /// The machine that makes the call crashes.
    pub crash: usize,
    /// A listing leaves an entry out.
    pub lag: usize,
    /// Calls that machines make beside each other, as they do where answers take long.
    pub width: usize,
}

/// When the world begins, nanoseconds since 1970: long before any real file was written, so that none seems to be settled.
const BEGINNING: i64 = 1_000_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// What takes place after its caller has gone on.
enum Late {
    Put(Key, Vec<u8>, i64),
    Delete(Key),
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Fail,
    /// It is made, and the answer is lost.
    LostAnswer,
    /// The answer is lost, or for a delete comes early, and the call is made at some later time.
    Later,
    Crash,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Actor {
    Coming,
    There,
    Crashed,
    Gone,
}

struct State {
    chance: Chance,
    odds: Odds,
    actors: Vec<Actor>,
    turn: Option<Runner>,
    /// What of an actor may go on. While things are done beside each other, who asked for them is none of these.
    lanes: Vec<Vec<usize>>,
    /// How many lanes an actor has had.
    made: Vec<usize>,
    step: u64,
    /// Until when an actor is not chosen, if another one can be.
    asleep: Vec<u64>,
    late: Vec<(u64, Late)>,
    /// How wrong each actor's clock is.
    skew: Vec<i64>,
    /// Who waits for an answer of the store.
    asking: BTreeSet<Runner>,
    /// Somebody made two calls at once: then threads go on in an order that no seed decides.
    crowded: bool,
    journal: Vec<String>,
}

pub struct World {
    state: Mutex<State>,
    changed: Condvar,
    memory: Memory,
}

impl World {
    pub fn new(seed: u64, odds: Odds, actors: usize, memory: Memory) -> Arc<Self> {
        let mut chance = Chance::new(seed);
        let skew = (0..actors).map(|_| [0, 0, 0, -2 * DAY, 400 * DAY][chance.below(5)]).collect();
        let state = State {
            chance,
            odds,
            actors: vec![Actor::Coming; actors],
            turn: None,
            lanes: vec![vec![0]; actors],
            made: vec![1; actors],
            step: 0,
            asleep: vec![0; actors],
            late: Vec::new(),
            skew,
            asking: BTreeSet::new(),
            crowded: false,
            journal: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), memory })
    }

    /// The store as an actor sees it.
    pub fn store(self: &Arc<Self>, actor: usize) -> AnyStore {
        let width = self.state().odds.width;
        Arc::new(Seen::new(self.clone(), actor, width))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until all actors are there and this one may go first.
    pub fn enter(&self, actor: usize) {
        let mut state = self.state();
        state.actors[actor] = Actor::There;
        if !state.actors.contains(&Actor::Coming) {
            state.pass_on();
            self.changed.notify_all();
        }
        drop(self.wait(state, (actor, 0)));
    }

    /// Leaves for good.
    pub fn leave(&self, actor: usize) {
        let mut state = self.state();
        state.actors[actor] = Actor::Gone;
        if state.turn.is_some_and(|(turn, _)| turn == actor) {
            state.pass_on();
        }
        self.changed.notify_all();
    }

    /// Notes what an actor begins or ends, and starts its machine again if it had crashed; true if it had.
    pub fn note(&self, actor: usize, what: &str) -> bool {
        let mut state = self.state();
        let had = state.actors[actor] == Actor::Crashed;
        state.actors[actor] = Actor::There;
        let line = format!("{}: actor {actor}: {what}", state.step);
        state.journal.push(line);
        had
    }

    /// An actor's clock.
    pub fn clock(self: &Arc<Self>, actor: usize) -> Arc<dyn Fn() -> i64 + Send + Sync> {
        let world = self.clone();
        Arc::new(move || {
            let state = world.state();
            state.now() + state.skew.get(actor).copied().unwrap_or_default()
        })
    }

    /// Where in time it is.
    pub fn step(&self) -> u64 {
        self.state().step
    }

    /// A choice of an actor's.
    pub fn choose(&self, limit: usize) -> usize {
        self.state().chance.below(limit)
    }

    /// True if the threads of some actor called the store side by side.
    pub fn was_crowded(&self) -> bool {
        self.state().crowded
    }

    /// All that happened: every call of the store, whole, with what became of it.
    pub fn journal(&self) -> Vec<String> {
        self.state().journal.clone()
    }

    /// Everything that was still to take place does.
    pub fn settle(&self) {
        let late = std::mem::take(&mut self.state().late);
        late.into_iter().for_each(|(_, late)| {
            let line = self.make(late);
            self.state().journal.push(line);
        });
    }

    /// Says what it did.
    fn make(&self, late: Late) -> String {
        match late {
            Late::Put(key, bytes, time) => {
                let created = self.memory.create(&key, &bytes).unwrap();
                if created == Created::New {
                    self.memory.set_modified(&key, time);
                }
                format!("a late put {key} of {}: {created:?}", brief(&bytes))
            }
            Late::Delete(key) => {
                self.memory.delete(&key).unwrap();
                format!("a late delete {key}")
            }
        }
    }

    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, runner: Runner) -> MutexGuard<'a, State> {
        while state.turn != Some(runner) {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        state
    }

    /// One call of an actor: others may come first, and what was delayed may take place.
    fn call(&self, actor: usize, verb: &str) -> Fate {
        let runner = (actor, LANE.get());
        let mut state = self.state();
        state.crowded |= !state.asking.insert(runner);
        let mut state = self.wait(state, runner);
        state.pass_on();
        if state.turn != Some(runner) {
            self.changed.notify_all();
            state = self.wait(state, runner);
        }
        state.step += 1;
        let step = state.step;
        let (due, late) = std::mem::take(&mut state.late).into_iter().partition(|(when, _)| *when <= step);
        state.late = late;
        let due: Vec<(u64, Late)> = due;
        for (_, late) in due {
            let line = self.make(late);
            state.journal.push(format!("{step}: {line}"));
        }
        state.fate(actor, verb)
    }

    /// Notes a call that was made, and what came of it.
    fn answer(&self, actor: usize, what: &str, fate: Fate, result: &str) {
        let mut state = self.state();
        let lane = LANE.get();
        state.asking.remove(&(actor, lane));
        let beside = match state.lanes[actor].len() {
            1 => String::new(),
            several => format!(" in lane {lane} of {several}"),
        };
        let line = format!("{}: actor {actor}{beside}: {what}: {fate:?}: {result}", state.step);
        state.journal.push(line);
    }

    fn later(&self, late: Late) {
        let mut state = self.state();
        let when = state.step + 1 + state.chance.below(200) as u64;
        state.late.push((when, late));
    }

    /// What the clock of the store says: nothing that anybody may rely on.
    fn time(&self) -> i64 {
        let now = self.state().now();
        [now, now, now - 2 * DAY, 0, 130 * 365 * DAY, now + 400 * DAY][self.choose(6)]
    }
}

impl State {
    /// Who goes on. Now and then somebody falls asleep, so that others get far while it is in the midst of something.
    fn pass_on(&mut self) {
        let ready: Vec<usize> =
            (0..self.actors.len()).filter(|actor| matches!(self.actors[*actor], Actor::There | Actor::Crashed)).collect();
        if ready.is_empty() {
            self.turn = None;
            return;
        }
        if self.chance.permille(SLEEPS) {
            let sleeper = ready[self.chance.below(ready.len())];
            self.asleep[sleeper] = self.step + self.chance.below(LONGEST_SLEEP) as u64;
        }
        let awake: Vec<usize> = ready.iter().copied().filter(|actor| self.asleep[*actor] <= self.step).collect();
        let among = if awake.is_empty() { &ready } else { &awake };
        let actor = among[self.chance.below(among.len())];
        let lane = match self.lanes[actor].len() {
            0 => unreachable!("whoever waits for others is not asked to go on"),
            1 => 0,
            several => self.chance.below(several),
        };
        self.turn = Some((actor, self.lanes[actor][lane]));
    }

    fn fate(&mut self, actor: usize, verb: &str) -> Fate {
        if self.actors[actor] == Actor::Crashed {
            return Fate::Crash;
        }
        if self.chance.permille(self.odds.crash) {
            self.actors[actor] = Actor::Crashed;
            // What was under way may have arrived.
            return if self.chance.permille(500) { Fate::LostAnswer } else { Fate::Crash };
        }
        if !self.chance.permille(self.odds.fault) {
            return Fate::Pass;
        }
        match verb {
            "put" | "create" | "delete" => [Fate::Fail, Fate::LostAnswer, Fate::Later][self.chance.below(3)],
            _ => Fate::Fail,
        }
    }

    /// A call takes a second.
    fn now(&self) -> i64 {
        BEGINNING + i64::try_from(self.step).unwrap() * SECOND
    }
}
