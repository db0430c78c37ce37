//! Faults of stores and disks: whatever fails, and when, what was committed stays, and the next run goes on.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod disks;
mod maintenance;
mod order;
mod scene;
mod system;
mod threads;
