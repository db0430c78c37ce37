//! Section 7 of docs/protocol.md, X1 to X4: index objects are put together while others commit and prune.
//!
//! Packs stay here, and each is in one index object at first, that of the record that commits it. What must stay is I6:
//! every pack is covered by an index object that is listed and there.

use stateright::{Checker, HasDiscoveries, Model, Property};

/// Logs: the writer's and that of the runners.
const LOGS: usize = 2;
const RUNNERS: usize = 1;
const OBJECTS: usize = 4;
const GENERATIONS: usize = 2;
const PACKS: u8 = 2;

/// A set of packs or of index objects, one bit for each.
type Set = u8;

/// The rule that a broken variant leaves out.
#[derive(Debug, Clone, Copy)]
struct Compaction {
    /// X3: an index object goes only if others cover its packs, and those stay.
    covered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    /// Packs that each index object covers; 0 if its name is free.
    covers: [Set; OBJECTS],
    /// Index objects that a record names, and those of them that the runner of the open generation may not have read.
    listed: Set,
    unread: Set,
    gone: Set,
    condemned: [Option<Set>; GENERATIONS],
    plans: [Option<Set>; GENERATIONS],
    /// The newest fence in each log.
    fences: [u8; LOGS],
    /// Packs that are committed: the first of them.
    packs: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A writer or a runner stores an index object, which is an orphan until a record names it.
    Store {
        covers: Set,
    },
    /// A record in a log names it. A writer's record commits a new pack with it, a runner's what was there.
    Commit {
        log: usize,
        object: usize,
    },
    Condemn {
        objects: Set,
    },
    Fence {
        log: usize,
    },
    /// P4 and P5 at once, with `view` as the objects that the runner has read of.
    MarkAndPublish {
        view: Set,
    },
}

impl State {
    fn newest(&self) -> usize {
        self.condemned.iter().flatten().count()
    }

    fn open(&self) -> Option<usize> {
        let newest = self.newest();
        (newest > 0 && self.plans[newest - 1].is_none()).then_some(newest)
    }

    fn objects(&self) -> impl Iterator<Item = usize> {
        let covers = self.covers;
        (0..OBJECTS).filter(move |object| covers[*object] != 0)
    }

    fn stored(&self) -> Set {
        self.objects().fold(0, |set, object| set | 1 << object)
    }

    /// Packs that any of these objects covers.
    fn covered(&self, objects: Set) -> Set {
        self.objects().filter(|object| objects & (1 << object) != 0).fold(0, |packs, object| packs | self.covers[object])
    }

    /// The first pack that is not committed.
    fn next_pack(&self) -> Set {
        1 << self.packs
    }
}

impl Compaction {
    const ALL: Self = Self { covered: true };

    /// X3: what may go of what is condemned.
    fn plan(&self, state: &State, condemned: Set, view: Set) -> Set {
        let covered = state.covered(view & !state.gone & !condemned);
        let may_go = |object: &usize| !self.covered || state.covers[*object] & !covered == 0;
        state.objects().filter(may_go).fold(0, |set, object| set | 1 << object) & condemned
    }
}

/// Index objects that a record in this log cannot name, for each state of knowledge that its writer may be in.
fn refused(state: &State, log: usize) -> Vec<Set> {
    let least = usize::from(state.fences[log]);
    let mut all = Vec::new();
    for base in least..=state.newest() {
        let before = state.plans[..base.saturating_sub(1)].iter().flatten().fold(0, |set, plan| set | plan);
        let condemned = base.checked_sub(1).and_then(|at| state.condemned[at]).unwrap_or(0);
        all.push(before | condemned);
        all.extend(base.checked_sub(1).and_then(|at| state.plans[at]).map(|plan| before | plan));
    }
    all
}

impl Model for Compaction {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let none = [None; GENERATIONS];
        vec![State {
            covers: [0; OBJECTS],
            listed: 0,
            unread: 0,
            gone: 0,
            condemned: none,
            plans: none,
            fences: [0; LOGS],
            packs: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let orphans = state.stored() & !state.listed & !state.gone;
        if state.objects().count() < OBJECTS && orphans.count_ones() < 3 {
            let committed = state.next_pack() - 1;
            actions.extend((1..=committed).map(|covers| Action::Store { covers }));
            actions.extend((state.packs < PACKS).then_some(Action::Store { covers: state.next_pack() }));
        }
        for log in 0..LOGS {
            for object in state.objects().filter(|object| orphans & (1 << object) != 0) {
                let new = state.covers[object] == state.next_pack();
                let usable = refused(state, log).iter().any(|refused| refused & (1 << object) == 0);
                if usable && new == (log != RUNNERS) {
                    actions.push(Action::Commit { log, object });
                }
            }
        }
        let Some(open) = state.open() else {
            let there = state.stored() & !state.gone;
            let room = state.newest() < GENERATIONS;
            actions
                .extend((1..=there).filter(|objects| room && objects & !there == 0).map(|objects| Action::Condemn { objects }));
            return;
        };
        let unfenced = |log: &usize| usize::from(state.fences[*log]) < open;
        actions.extend((0..LOGS).filter(unfenced).map(|log| Action::Fence { log }));
        if !(0..LOGS).any(|log| unfenced(&log)) {
            let views = (0..=Set::MAX).filter(|missing| missing & !state.unread == 0).map(|missing| state.listed & !missing);
            actions.extend(views.map(|view| Action::MarkAndPublish { view }));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = *before;
        match action {
            Action::Store { covers } => state.covers[state.objects().count()] = covers,
            Action::Commit { log, object } => {
                state.packs += u8::from(state.covers[object] == state.next_pack());
                state.listed |= 1 << object;
                if state.open().is_some_and(|open| usize::from(state.fences[log]) >= open) {
                    state.unread |= 1 << object;
                }
            }
            Action::Condemn { objects } => state.condemned[state.newest()] = Some(objects),
            Action::Fence { log } => state.fences[log] = u8::try_from(state.open()?).ok()?,
            Action::MarkAndPublish { view } => {
                let open = state.open()?;
                let plan = self.plan(&state, state.condemned[open - 1]?, view);
                state.plans[open - 1] = Some(plan);
                state.gone |= plan;
                state.unread = 0;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("I6: every pack is covered", |_, state| {
                state.covered(state.listed & !state.gone) & (state.next_pack() - 1) == state.next_pack() - 1
            }),
            Property::<Self>::sometimes("index objects are replaced", |_, state| {
                state.gone.count_ones() >= 2 && state.packs == PACKS
            }),
        ]
    }
}

fn breaks(rules: Compaction) {
    let property = "I6: every pack is covered";
    let checker = rules.checker().threads(2).finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "{rules:?}: holds in all {} states", checker.unique_state_count());
}

#[test]
fn the_index_always_covers_every_pack() {
    let checker = Compaction::ALL.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
}

#[test]
fn without_a_look_at_what_covers_instead_packs_are_in_no_index() {
    breaks(Compaction { covered: false });
}
