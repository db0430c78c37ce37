//! Faults of stores and disks: whatever fails, and when, what was committed stays, and the next run goes on.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod scene;
