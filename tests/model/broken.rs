//! Section 10 of docs/protocol.md: each rule that is left out, and what is lost then.

use super::SMALL;
use super::protocol::Protocol;
use super::rules::{Bounds, Rules};
use stateright::{Checker, HasDiscoveries, Model};

const WHOLE: &str = "I1, I2: what is not pruned is whole";
const REPORTED: &str = "I3: what was reported stays";
const WANTED: &str = "J4: what is wanted stays";
const COMMITS: &str = "a writer can commit";

/// Fails unless leaving a rule out breaks this property.
fn breaks(bounds: Bounds, property: &'static str, leave_out: impl FnOnce(&mut Rules)) {
    let model = Protocol::without(bounds, leave_out);
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().threads(2).finish_when(wanted).spawn_bfs().join();
    let path =
        checker.discovery(property).unwrap_or_else(|| panic!("{property}: holds in all {} states", checker.unique_state_count()));
    let actions = path.into_actions();
    println!("{property}, broken in {} steps:", actions.len());
    actions.iter().for_each(|action| println!("  {action:?}"));
}

#[test]
fn without_the_fence_a_writer_borrows_what_is_deleted() {
    breaks(SMALL, WHOLE, |rules| rules.fence = false);
}

#[test]
fn without_revalidation_a_writer_commits_with_a_condemned_pack() {
    breaks(SMALL, WHOLE, |rules| rules.revalidate = false);
}

#[test]
fn without_the_published_plan_a_runner_that_slept_deletes_what_was_spared() {
    breaks(Bounds { slow: true, ..SMALL }, WHOLE, |rules| rules.published_plan = false);
}

#[test]
fn without_looking_after_the_create_a_lost_race_passes_for_a_commit() {
    breaks(Bounds { slow: true, ..SMALL }, REPORTED, |rules| rules.look_after_create = false);
}

#[test]
fn with_a_clock_a_writer_that_slept_loses_its_packs() {
    breaks(Bounds { slow: true, ..SMALL }, WHOLE, |rules| rules.no_clock = false);
}

#[test]
fn with_orphans_borrowed_nobody_finds_the_chunks() {
    breaks(SMALL, WHOLE, |rules| rules.borrow_listed = false);
}

#[test]
fn with_records_deleted_by_an_own_checkpoint_a_snapshot_is_lost() {
    let bounds = Bounds { truncation: true, packs: 2, forgets: 0, generations: 1, ..SMALL };
    breaks(bounds, REPORTED, |rules| rules.planned_checkpoint = false);
}

#[test]
fn without_the_look_at_the_floor_a_commit_in_a_deleted_place_is_reported() {
    breaks(Bounds { truncation: true, packs: 2, forgets: 0, ..SMALL }, REPORTED, |rules| rules.look_at_floor = false);
}

#[test]
fn without_a_base_at_enrolment_a_new_client_borrows_what_is_deleted() {
    breaks(Bounds { enrolment: true, ..SMALL }, WHOLE, |rules| rules.enrol_base = false);
}

#[test]
fn without_the_owners_log_fenced_first_a_new_client_is_overlooked() {
    breaks(Bounds { enrolment: true, ..SMALL }, WHOLE, |rules| rules.owner_first = false);
}

#[test]
fn behind_a_fence_that_it_does_not_know_a_writer_commits_a_void_record() {
    breaks(SMALL, REPORTED, |rules| rules.never_behind = false);
}

#[test]
fn with_two_prunes_open_at_once_nobody_can_commit() {
    breaks(SMALL, COMMITS, |rules| rules.closed_before_next = false);
}

#[test]
fn with_an_unforget_that_is_reported_at_once_a_plan_takes_the_snapshot() {
    breaks(Bounds { wishes: 1, forgets: 1, ..SMALL }, WANTED, |rules| rules.settled = false);
}
