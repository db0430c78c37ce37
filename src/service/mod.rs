//! What goes on around the work of the verbs, on the machine that runs them.

pub mod history;
