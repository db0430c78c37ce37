//! What somebody can store who has the key of a machine that backs up: whatever it is, every command names the object,
//! ends with the exit code for damage, and takes no more memory than for an honest repository. And objects that were moved.
#![expect(clippy::print_stdout, reason = "a test says what it skips, and figures to those who ask with --no-capture")]

#[path = "../support/mod.rs"]
mod support;

mod lost;
mod moved;
mod objects;
mod scene;
mod trees;
