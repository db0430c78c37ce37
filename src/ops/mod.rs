//! The verbs: one file, one function `(repository, options, observer) -> report` each.
//!
//! Operations decide and do; they never print, never read the environment, and never see a store or a key.

mod again;
pub mod backup;
pub mod cat;
pub mod check;
pub mod copy;
pub mod cost;
pub mod diff;
pub mod dump;
pub mod find;
pub mod forget;
pub mod gathered;
pub mod hold;
pub mod init;
pub mod kit;
pub mod latest;
pub mod ls;
pub mod mirror;
mod on_panic;
pub mod prune;
pub mod repair;
pub mod restore;
mod seen;
pub mod select;
pub mod stats;
pub mod thaw;
pub mod unforget;
pub mod walk;
