//! What a machine does beside other things: each is a lane, and which lane goes on is drawn from the seed at every call of the
//! store, as it is for machines.

use super::World;
use lifeboat::repo::{Lane, SideBySide};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

/// Something that a machine does, beside other things or alone: the machine's number and its own.
pub(super) type Runner = (usize, usize);

std::thread_local! {
    /// Which of the things that its machine does beside each other a thread does; 0 for what is done alone.
    pub(super) static LANE: Cell<usize> = const { Cell::new(0) };
}

impl World {
    /// Lets an actor do several things beside each other: at each call of the store another one may go on instead.
    pub fn side_by_side(self: &Arc<Self>, actor: usize) -> SideBySide {
        let world = self.clone();
        Arc::new(move |lanes: &mut [Lane<'_>]| world.split((actor, LANE.get()), lanes))
    }

    fn split(&self, runner: Runner, tasks: &mut [Lane<'_>]) {
        let (actor, lane) = runner;
        let first = {
            let mut state = self.state();
            let first = state.made[actor];
            state.made[actor] += tasks.len();
            state.lanes[actor].retain(|known| *known != lane);
            state.lanes[actor].extend(first..first + tasks.len());
            state.pass_on();
            first
        };
        self.changed.notify_all();
        let left = Mutex::new(tasks.len());
        std::thread::scope(|scope| {
            for (task, number) in tasks.iter_mut().zip(first..) {
                let left = &left;
                scope.spawn(move || {
                    LANE.set(number);
                    drop(self.wait(self.state(), (actor, number)));
                    let done = catch_unwind(AssertUnwindSafe(task));
                    self.join((actor, number), lane, &mut left.lock().unwrap());
                    done.unwrap_or_else(|panic| resume_unwind(panic));
                });
            }
        });
        drop(self.wait(self.state(), runner));
    }

    /// One of the things that are done beside each other is done; after the last one, who asked for them may go on.
    fn join(&self, (actor, lane): Runner, parent: usize, left: &mut usize) {
        let mut state = self.state();
        state.lanes[actor].retain(|known| *known != lane);
        *left -= 1;
        if *left == 0 {
            state.lanes[actor].push(parent);
        }
        state.pass_on();
        self.changed.notify_all();
    }
}
