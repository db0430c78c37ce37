//! docs/protocol.md as a model, of which every state is visited: writers, runners of prunes, and people take their steps in
//! every order, and any of them may stop after any step.
//!
//! What is small here: two writers, two or three prunes, three forgets, and packs of one chunk each. What is larger than
//! life: a runner may condemn any packs, so whatever the first mark does is covered, and any listing; whoever reads may
//! know as little as the rules let it, so caches that lag behind are covered, and listings and reads in any order; a pack in a
//! published plan is gone at once. A crash is a step that never comes.
//!
//! The first tests visit all states with all rules in force. Each of the others leaves out one rule of section 10 and must
//! find how something is lost. `LIFEBOAT_MODEL=large` makes the first ones larger, which takes long and much memory.
#![expect(unreachable_pub, clippy::print_stdout, reason = "all of it is one test program, which says what it visited")]

mod actions;
mod broken;
mod compaction;
mod judge;
mod protocol;
mod repository;
mod revocation;
mod rules;
mod steps;
mod symmetry;
mod truncation;

use protocol::Protocol;
use rules::Bounds;
use stateright::{Checker, Model};

/// Two writers that make one backup each, any number of runners, two prunes, three forgets.
const SMALL: Bounds = Bounds {
    sessions: 1,
    chunks: 1,
    packs: 3,
    generations: 2,
    slow: false,
    runners: 2,
    forgets: 3,
    wishes: 0,
    claims: false,
    late_puts: 0,
    truncation: false,
    enrolment: false,
};

/// Visits every state. Their number is part of the test: a change of the model that makes it see less is seen here.
fn holds(bounds: Bounds, states: usize) {
    let large = std::env::var("LIFEBOAT_MODEL").is_ok_and(|size| size == "large");
    let bounds = if large { Bounds { sessions: bounds.sessions + 1, packs: bounds.packs + 1, ..bounds } } else { bounds };
    let checker = Protocol::new(bounds).checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{bounds:?}: {} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    assert!(large || checker.unique_state_count() == states, "{} states, not {states}", checker.unique_state_count());
}

#[test]
fn two_writers_two_prunes_and_three_forgets_lose_nothing() {
    holds(Bounds { sessions: 2, ..SMALL }, 1_965_283);
}

#[test]
fn three_prunes_lose_nothing() {
    holds(Bounds { sessions: 2, generations: 3, packs: 2, forgets: 2, ..SMALL }, 1_131_080);
}

#[test]
fn two_runners_whose_every_step_is_apart_lose_nothing() {
    holds(Bounds { slow: true, ..SMALL }, 16_527);
}

#[test]
fn backups_of_different_content_lose_nothing() {
    holds(Bounds { chunks: 2, packs: 4, forgets: 2, ..SMALL }, 397_169);
}

#[test]
fn claims_lose_nothing() {
    holds(Bounds { claims: true, forgets: 1, ..SMALL }, 410_821);
}

#[test]
fn a_put_that_takes_place_after_its_writer_gave_up_loses_nothing() {
    holds(Bounds { late_puts: 1, ..SMALL }, 290_631);
}

#[test]
fn what_is_wanted_again_or_held_stays() {
    holds(Bounds { forgets: 2, wishes: 2, ..SMALL }, 704_045);
}

#[test]
fn logs_that_are_cut_off_lose_nothing() {
    holds(Bounds { truncation: true, wishes: 1, packs: 2, forgets: 1, ..SMALL }, 434_733);
}

#[test]
fn a_client_that_is_enrolled_meanwhile_loses_nothing() {
    holds(Bounds { enrolment: true, ..SMALL }, 28_406);
}
