//! C4 and T5: readers that write too. Such a one goes from place to place to the end of the log, which may be cut off meanwhile,
//! and places that were freed may be taken again. What it has read on its way is what it borrows from and publishes.

use super::*;

const WALKING: Truncation = Truncation { walking: true, ..ALL };

impl Truncation {
    pub(super) fn draft_behind(state: &mut State, reader: usize) {
        let due = state.counted();
        state.written += 1;
        let reader = &mut state.readers[reader];
        (reader.phase, reader.draft, reader.due) = (Phase::Trying, state.written, due);
    }

    /// Reads what is there if somebody was faster. That it was deleted in between is as if it had been stopped.
    pub(super) fn create_behind(state: &mut State, reader: usize) {
        let Reader { next, last, draft, .. } = state.readers[reader];
        let found = state.there[usize::from(next)];
        if found.is_none() {
            state.store(usize::from(next), Stored { record: draft, previous: last });
        }
        let reader = &mut state.readers[reader];
        reader.phase = if found.is_some() { Phase::Asking } else { Phase::Looking };
        found.into_iter().for_each(|stored| reader.take_in(stored));
    }

    /// T5, of a writer.
    pub(super) fn read_plans_on_the_way(&self, state: &mut State, reader: usize) {
        let (plans, floor) = (state.plan_count(), state.in_force().floor);
        let reader = &mut state.readers[reader];
        (reader.plans, reader.phase) = (plans, Phase::Trying);
        if self.way && floor > reader.sure {
            reader.stop();
        }
    }

    /// T6, of a reader.
    pub(super) fn look_at_floor_behind(state: &mut State, reader: usize) {
        let (plans, plan) = (state.plan_count(), state.in_force());
        let reader = &mut state.readers[reader];
        let record = reader.draft;
        reader.plans = plans;
        if reader.next < plan.floor && plan.listed & set(record) == 0 {
            return reader.stop();
        }
        reader.take_in(Stored { record, previous: reader.last });
        reader.draft = 0;
        reader.end();
        state.reported |= set(record);
    }
}

#[test]
fn a_writer_that_reads_place_after_place_of_a_log_that_is_cut_off_believes_what_counts_and_nothing_else() {
    let checker = WALKING.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
    // Their number is part of the test: a change that makes the model see less is seen here.
    assert_eq!(checker.unique_state_count(), 4_167_488);
}

#[test]
fn without_a_look_at_plans_on_the_way_a_writer_believes_a_record_in_a_freed_place() {
    breaks(COUNTS, Truncation { way: false, ..WALKING });
}

#[test]
fn without_a_look_at_plans_on_the_way_a_writer_publishes_a_checkpoint_without_what_was_reported() {
    breaks(REPORTED, Truncation { way: false, ..WALKING });
}
