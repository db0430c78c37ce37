//! The model as stateright runs it, and what must hold in every state.

use super::actions::{Action, Chances};
use super::judge::View;
use super::repository::{LOGS, Record, Repository, Runner, Wish};
use super::rules::{Bounds, Rules};
use super::{steps, symmetry};
use stateright::{Model, Property};

/// docs/protocol.md within some bounds, with some of its rules.
#[derive(Debug, Clone)]
pub struct Protocol {
    pub bounds: Bounds,
    pub rules: Rules,
}

impl Protocol {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, rules: Rules::ALL }
    }

    /// The same without some rule.
    pub fn without(bounds: Bounds, leave_out: impl FnOnce(&mut Rules)) -> Self {
        let mut broken = Self::new(bounds);
        leave_out(&mut broken.rules);
        broken
    }

    fn view<'a>(&self, repository: &'a Repository) -> View<'a> {
        View::new(repository, &self.rules, repository.heads())
    }

    /// I1 and I2: whatever counts and is not pruned has all its chunks in packs that are listed and there.
    fn is_whole(&self, repository: &Repository) -> bool {
        let view = self.view(repository);
        view.snapshots().all(|snapshot| view.is_whole(snapshot.needs) || view.pruned(snapshot.place))
    }

    /// I3: what was reported as committed counts for every reader, until a plan has seen it as forgotten.
    fn keeps_reports(&self, repository: &Repository) -> bool {
        let view = self.view(repository);
        let found = |writer: usize, number: u8| {
            repository.places().any(|(place, record)| {
                let is_it = matches!(record, Record::Snapshot { session, .. } if session == number);
                let alive = view.counts(place) || view.pruned(place);
                is_it && usize::from(place.log) == writer && alive
            })
        };
        (0..2).all(|writer| (0..8).all(|number| repository.reported[writer] & (1 << number) == 0 || found(writer, number)))
    }

    /// J4: an unforget or a hold that was reported as done keeps the snapshot.
    fn keeps_wishes(&self, repository: &Repository) -> bool {
        let Wish::Reported { snapshot, .. } = repository.wish else { return true };
        let view = self.view(repository);
        !view.pruned(snapshot) && !view.forgotten(snapshot) && view.snapshots().any(|s| s.place == snapshot)
    }

    /// A prune that somebody begins now, alone, comes to its end, and then every writer can commit.
    fn can_finish(&self, repository: &Repository) -> bool {
        // What others do must not be needed for it, and no further prune begins.
        let bounds = Bounds { slow: false, generations: repository.newest(), ..self.bounds };
        let alone = Self { bounds, rules: self.rules };
        let mut state = Repository { runners: [Runner::Idle; 2], ..*repository };
        while state.open_generation().is_some() {
            let mut actions = Vec::new();
            Chances { bounds: &alone.bounds, rules: &alone.rules, repository: &state, actions: &mut actions }.prune();
            let forward = |action: &&Action| matches!(action, Action::Fence { .. } | Action::MarkAndPublish { .. });
            // The last mark is the one with the latest heads.
            let next =
                actions.iter().rev().filter(forward).find_map(|action| steps::step(&alone.bounds, &alone.rules, &state, *action));
            match next {
                Some(next) => state = next,
                None => return false,
            }
        }
        true
    }

    /// C5 leaves every writer a base with which it can commit.
    fn can_commit(&self, repository: &Repository) -> bool {
        let mut actions = Vec::new();
        let chances = Chances { bounds: &self.bounds, rules: &self.rules, repository, actions: &mut actions };
        (0..3).all(|log| !chances.bases(log).is_empty())
    }
}

impl Model for Protocol {
    type State = Repository;
    type Action = Action;

    fn init_states(&self) -> Vec<Repository> {
        vec![Repository::new()]
    }

    fn actions(&self, repository: &Repository, actions: &mut Vec<Action>) {
        Chances { bounds: &self.bounds, rules: &self.rules, repository, actions }.collect();
    }

    fn next_state(&self, repository: &Repository, action: Action) -> Option<Repository> {
        let next = steps::step(&self.bounds, &self.rules, repository, action)?;
        Some(symmetry::canonical(&self.bounds, &self.rules, &next))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always("I1, I2: what is not pruned is whole", Self::is_whole),
            Property::<Self>::always("I3: what was reported stays", Self::keeps_reports),
            Property::<Self>::always("J4: what is wanted stays", Self::keeps_wishes),
            Property::<Self>::always("a prune can be brought to its end", Self::can_finish),
            Property::<Self>::always("a writer can commit", Self::can_commit),
        ];
        properties.extend(self.reachable());
        properties
    }
}

impl Protocol {
    /// What must happen somewhere: a model in which nothing happens proves nothing.
    fn reachable(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::sometimes("a pack that nobody needs is deleted", |_, repository| repository.pruned != [0; LOGS]),
            Property::<Self>::sometimes("a condemned pack is spared", |_, repository| {
                let of = |generation| repository.plan(generation).is_some_and(|packs| packs != repository.condemned(generation));
                (1..=repository.newest()).any(of)
            }),
            Property::<Self>::sometimes("all backups are reported", |model, repository| {
                repository.reported.iter().all(|reported| reported.count_ones() == u32::from(model.bounds.sessions))
            }),
        ];
        if self.bounds.wishes > 0 {
            properties.push(Property::<Self>::sometimes("a snapshot comes back", |_, repository| {
                matches!(repository.wish, Wish::Reported { hold: false, .. })
            }));
        }
        if self.bounds.truncation {
            properties.push(Property::<Self>::sometimes("records are deleted", |_, repository| {
                repository.logs.iter().any(|log| log.freed > 0)
            }));
        }
        properties
    }
}
