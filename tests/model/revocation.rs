//! Section 8 of docs/protocol.md: a client is revoked while it commits, while others read its log in any order, borrow from
//! it, and prune.

use stateright::{Checker, HasDiscoveries, Model, Property};

/// Records that the client writes at most; each lists one pack, which has its number.
const RECORDS: u8 = 3;
/// The runner of a prune, a writer that borrows, and somebody who only reads.
const READERS: usize = 3;
const RUNNER: usize = 0;
const BORROWER: usize = 1;

/// The rules, each of which a broken variant leaves out.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// R1, R2: what counts is said by the place that the revocation names, and not by when a reader learnt of it.
    place: bool,
    /// R1: the revocation names the head that the owner has read.
    head: bool,
    /// R2: the packs of void records stay listed.
    listed: bool,
}

const ALL: Rules = Rules { place: true, head: true, listed: true };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Reader {
    /// How far it read the client's log.
    read: u8,
    /// It has read the revocation.
    knows: bool,
    /// Records that count for it, one bit for each.
    counted: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct State {
    /// Records in the client's log.
    written: u8,
    /// How many there were when the owner looked.
    seen: Option<u8>,
    /// Records below this count, and how many there were when that was said.
    revoked: Option<(u8, u8)>,
    readers: [Reader; READERS],
    /// The pack that the borrower's snapshot needs.
    borrowed: Option<u8>,
    /// Packs in a published plan.
    gone: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// The client, or whoever has its key: nothing stops it.
    Write,
    Look,
    Revoke,
    Take(usize),
    Learn(usize),
    Borrow(u8),
    Prune,
}

struct Revocation(Rules);

impl Revocation {
    fn take(&self, state: &mut State, reader: usize) {
        let revoked = state.revoked;
        let reader = &mut state.readers[reader];
        let counts = match revoked.filter(|_| reader.knows) {
            None => true,
            Some((last, _)) => self.0.place && reader.read < last,
        };
        reader.counted |= u8::from(counts) << reader.read;
        reader.read += 1;
    }

    fn prune(&self, state: &mut State) {
        let runner = state.readers[RUNNER];
        let all = (1 << runner.read) - 1;
        let listed = if self.0.listed { all } else { runner.counted };
        let borrowed = state.borrowed.map_or(0, |pack| 1 << pack);
        state.gone |= all & !(runner.counted | borrowed & listed);
    }
}

impl State {
    /// Those who have read everything.
    fn complete(&self) -> impl Iterator<Item = &Reader> {
        self.readers.iter().filter(|reader| reader.read == self.written && reader.knows == self.revoked.is_some())
    }
}

impl Model for Revocation {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if state.written < RECORDS {
            actions.push(Step::Write);
        }
        if state.revoked.is_none() {
            actions.push(Step::Look);
            actions.extend(state.seen.map(|_| Step::Revoke));
        }
        for (number, reader) in state.readers.iter().enumerate() {
            if reader.read < state.written {
                actions.push(Step::Take(number));
            }
            if state.revoked.is_some() && !reader.knows {
                actions.push(Step::Learn(number));
            }
        }
        // C3: what a plan took is not relied on.
        let open = state.readers[BORROWER].counted & !state.gone;
        if state.borrowed.is_none() {
            actions.extend((0..RECORDS).filter(|pack| open & (1 << pack) != 0).map(Step::Borrow));
        }
        // P4: after the fences, the logs are read to their ends; the revocation may come later.
        if state.readers[RUNNER].read == state.written {
            actions.push(Step::Prune);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = *state;
        match step {
            Step::Write => next.written += 1,
            Step::Look => next.seen = Some(state.written),
            Step::Revoke => {
                let last = if self.0.head { state.seen? } else { RECORDS };
                next.revoked = Some((last, state.written));
            }
            Step::Take(reader) => self.take(&mut next, reader),
            Step::Learn(reader) => {
                let (last, _) = state.revoked?;
                next.readers[reader].knows = true;
                if self.0.place {
                    next.readers[reader].counted &= (1 << last) - 1;
                }
            }
            Step::Borrow(pack) => next.borrowed = Some(pack),
            Step::Prune => self.prune(&mut next),
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ALIKE, |_, state: &State| {
                let mut counted = state.complete().map(|reader| reader.counted);
                counted.next().is_none_or(|first| counted.all(|other| other == first))
            }),
            Property::always(STOPPED, |_, state: &State| {
                let after = state.revoked.map_or(0, |(_, written)| !((1u8 << written) - 1));
                state.complete().all(|reader| reader.counted & after == 0)
            }),
            Property::always(WHOLE, |_, state: &State| {
                let borrowed = state.borrowed.map_or(0, |pack| 1 << pack);
                let needed = state.complete().fold(borrowed, |needed, reader| needed | reader.counted);
                needed & state.gone == 0
            }),
            Property::sometimes("a snapshot of a revoked client stays", |_, state: &State| {
                state.revoked.is_some() && state.complete().any(|reader| reader.counted != 0)
            }),
            Property::sometimes("a pack of a void record goes", |_, state: &State| state.gone != 0),
        ]
    }
}

const ALIKE: &str = "V2: whoever has read everything judges alike";
const STOPPED: &str = "R2: nothing counts that was written after the revocation";
const WHOLE: &str = "I1: what counts, and what others borrowed, is whole";

#[test]
fn a_client_that_is_revoked_while_it_commits_loses_nothing_and_adds_nothing() {
    let checker = Revocation(ALL).checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
}

/// Fails unless leaving a rule out breaks this property.
fn breaks(rules: Rules, property: &'static str) {
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = Revocation(rules).checker().finish_when(wanted).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{property}: holds"));
    println!("{property}, broken: {:?}", path.into_actions());
}

#[test]
fn without_the_place_of_the_revocation_readers_judge_by_when_they_learnt_of_it() {
    breaks(Rules { place: false, ..ALL }, ALIKE);
    breaks(Rules { place: false, ..ALL }, WHOLE);
}

#[test]
fn with_a_place_that_the_owner_has_not_read_a_thief_goes_on() {
    breaks(Rules { head: false, ..ALL }, STOPPED);
}

#[test]
fn without_the_packs_of_void_records_what_others_borrowed_is_deleted() {
    breaks(Rules { listed: false, ..ALL }, WHOLE);
}
