//! Reading a file system out and putting it back.
//!
//! Everything works relative to open directories, one name at a time: a path of any length can be walked, no
//! call is fooled by a directory that was renamed meanwhile, and no symbolic link is ever followed below the
//! directory that the user named. System calls per file are the budget; each function says what it spends.
//!
//! Out: [`Directory`] lists and [`Stat`]s, [`Rules`] leaves out, [`SourceFile`] reads, and
//! `node` of each makes the [`Node`](crate::format::tree::Node) with all metadata but the content.
//! Back: [`TargetDir`] makes directories, links, and devices, [`TargetFile`] takes bytes, and `finish` of each
//! puts the metadata on.

mod apply;
mod attributes;
mod compare;
mod directory;
mod exclude;
mod metadata;
mod names;
mod own;
mod owners;
mod place;
mod read;
mod remove;
mod stat;
mod target_file;
mod temporary;
mod write;

pub use apply::WriteOptions;
pub use compare::differences;
pub use directory::{Directory, Names, most_open_files};
pub use exclude::{RuleOptions, Rules};
pub use metadata::ReadOptions;
pub use names::check_name;
pub use owners::Owners;
pub use read::SourceFile;
pub use stat::Stat;
pub use target_file::TargetFile;
pub use write::{Target, TargetDir};
