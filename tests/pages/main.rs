//! Pages that hold commands: the transcripts of `tests/cli`, and the documentation.

mod blocks;
mod documentation;
mod plain;
mod shell;
#[path = "../support/mod.rs"]
mod support;
mod transcripts;
