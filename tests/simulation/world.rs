//! The simulated world: one store, and a scheduler that lets one actor run at a time.
//!
//! Every call of the store is a point at which another actor may go on instead, and at which things may go wrong.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

use crate::support::noise;
use lifeboat::error::{Error, ErrorKind, Result};
use lifeboat::store::{AnyStore, Created, Entry, Key, Memory, Staged, Store};
use std::collections::HashMap;
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
}

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
    turn: Option<usize>,
    step: u64,
    /// Until when an actor is not chosen, if another one can be.
    asleep: Vec<u64>,
    late: Vec<(u64, Late)>,
    names: HashMap<String, usize>,
    journal: Vec<String>,
}

pub struct World {
    state: Mutex<State>,
    changed: Condvar,
    memory: Memory,
}

impl World {
    pub fn new(seed: u64, odds: Odds, actors: usize, memory: Memory) -> Arc<Self> {
        let state = State {
            chance: Chance::new(seed),
            odds,
            actors: vec![Actor::Coming; actors],
            turn: None,
            step: 0,
            asleep: vec![0; actors],
            late: Vec::new(),
            names: HashMap::new(),
            journal: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), memory })
    }

    /// The store as an actor sees it.
    pub fn store(self: &Arc<Self>, actor: usize) -> AnyStore {
        Arc::new(Seen { world: self.clone(), actor })
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
        drop(self.wait(state, actor));
    }

    /// Leaves for good.
    pub fn leave(&self, actor: usize) {
        let mut state = self.state();
        state.actors[actor] = Actor::Gone;
        if state.turn == Some(actor) {
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

    /// Where in time it is.
    pub fn step(&self) -> u64 {
        self.state().step
    }

    /// A choice of an actor's.
    pub fn choose(&self, limit: usize) -> usize {
        self.state().chance.below(limit)
    }

    pub fn journal(&self) -> Vec<String> {
        self.state().journal.clone()
    }

    /// Everything that was still to take place does.
    pub fn settle(&self) {
        let late = std::mem::take(&mut self.state().late);
        late.into_iter().for_each(|(_, late)| self.make(late));
    }

    fn make(&self, late: Late) {
        match late {
            Late::Put(key, bytes, time) => {
                if self.memory.create(&key, &bytes).unwrap() == Created::New {
                    self.memory.set_modified(&key, time);
                }
            }
            Late::Delete(key) => self.memory.delete(&key).unwrap(),
        }
    }

    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, actor: usize) -> MutexGuard<'a, State> {
        while state.turn != Some(actor) {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        state
    }

    /// One call of an actor: others may come first, and what was delayed may take place.
    fn call(&self, actor: usize, verb: &str, key: &str) -> Fate {
        let mut state = self.wait(self.state(), actor);
        state.pass_on();
        if state.turn != Some(actor) {
            self.changed.notify_all();
            state = self.wait(state, actor);
        }
        state.step += 1;
        let step = state.step;
        let (due, late) = std::mem::take(&mut state.late).into_iter().partition(|(when, _)| *when <= step);
        state.late = late;
        let due: Vec<(u64, Late)> = due;
        due.into_iter().for_each(|(_, late)| self.make(late));
        let fate = state.fate(actor, verb);
        let name = state.name(key);
        let line = format!("{step}: actor {actor}: {verb} {name}: {fate:?}");
        state.journal.push(line);
        fate
    }

    fn later(&self, late: Late) {
        let mut state = self.state();
        let when = state.step + 1 + state.chance.below(200) as u64;
        state.late.push((when, late));
    }

    /// What the clock of the store says: nothing that anybody may rely on.
    fn time(&self) -> i64 {
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
        let day = 86_400_000_000_000;
        [now, now, now - 2 * day, 0, 130 * 365 * day, now + 400 * day][self.choose(6)]
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
        self.turn = Some(among[self.chance.below(among.len())]);
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

    /// Random names differ from run to run, so the journal numbers them.
    fn name(&mut self, key: &str) -> String {
        let Some((folder, last)) = key.rsplit_once('/') else { return key.to_owned() };
        let folder = folder.split('/').next().unwrap_or_default();
        if folder == "gc" || folder == "format" {
            return key.to_owned();
        }
        let seq = if folder == "log" { format!("/{}", last.trim_start_matches('0')) } else { String::new() };
        let name = if folder == "log" { key.split('/').nth(1).unwrap_or_default() } else { last };
        let next = self.names.len();
        let number = self.names.entry(format!("{folder}/{name}")).or_insert(next);
        format!("{folder}/#{number}{seq}")
    }
}

/// The store as one actor sees it.
struct Seen {
    world: Arc<World>,
    actor: usize,
}

fn broken(verb: &str, key: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("{verb} {key}: the simulation wants it to fail"))
}

impl Seen {
    fn read<T>(&self, verb: &str, key: &str, call: impl FnOnce(&Memory) -> Result<T>) -> Result<T> {
        match self.world.call(self.actor, verb, key) {
            Fate::Pass => call(&self.world.memory),
            _ => Err(broken(verb, key)),
        }
    }

    fn write(&self, verb: &str, key: &Key, bytes: &[u8]) -> Result<Created> {
        let fate = self.world.call(self.actor, verb, key.as_str());
        let time = self.world.time();
        match fate {
            Fate::Pass | Fate::LostAnswer => {
                let created = self.world.memory.create(key, bytes)?;
                if created == Created::New {
                    self.world.memory.set_modified(key, time);
                }
                if fate == Fate::Pass { Ok(created) } else { Err(broken(verb, key.as_str())) }
            }
            Fate::Later => {
                self.world.later(Late::Put(key.clone(), bytes.to_vec(), time));
                Err(broken(verb, key.as_str()))
            }
            Fate::Fail | Fate::Crash => Err(broken(verb, key.as_str())),
        }
    }
}

struct SeenStaged {
    seen: Seen,
    bytes: Vec<u8>,
}

impl Staged for SeenStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        self.seen.write("put", key, &self.bytes).map(drop)
    }
}

impl Store for Seen {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.write("put", key, bytes).map(drop)
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        self.write("create", key, bytes)
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(SeenStaged { seen: Self { world: self.world.clone(), actor: self.actor }, bytes: Vec::new() }))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        self.read("get", key.as_str(), |memory| memory.get(key, limit))
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read("read", key.as_str(), |memory| memory.read_at(key, offset, buffer))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.read("size", key.as_str(), |memory| memory.size(key))
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        self.read("time", key.as_str(), |memory| memory.modified(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut entries = Vec::new();
        self.read("list", prefix, |memory| {
            memory.list(prefix, &mut |entry| {
                entries.push(entry);
                Ok(())
            })
        })?;
        // Which entries are left out must not hang on their random names.
        let left_out = entries.iter().map(|_| {
            let mut state = self.world.state();
            let lag = state.odds.lag;
            state.chance.permille(lag)
        });
        let left_out: Vec<bool> = left_out.collect();
        entries.into_iter().zip(left_out).filter(|(_, out)| !out).try_for_each(|(entry, _)| each(entry))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        match self.world.call(self.actor, "delete", key.as_str()) {
            Fate::Pass => self.world.memory.delete(key),
            Fate::LostAnswer => self.world.memory.delete(key).and(Err(broken("delete", key.as_str()))),
            Fate::Later => {
                self.world.later(Late::Delete(key.clone()));
                Ok(())
            }
            Fate::Fail | Fate::Crash => Err(broken("delete", key.as_str())),
        }
    }

    fn describe(&self) -> String {
        format!("the store that actor {} sees", self.actor)
    }
}
