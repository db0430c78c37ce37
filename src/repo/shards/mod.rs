//! The sorted index in the store: which pack holds a chunk, found by reading a few pieces of a few objects.
//!
//! A compaction writes one set of shards, objects that divide the range of all prefixes among them, and one record that
//! names them and the packs that they cover. Nothing is ever believed because a shard says it: it only says where to
//! look, and a chunk that is not there is looked for in the tables of contents (docs/protocol.md, section 7).

mod compact;
mod lookup;
mod merge;
mod read;
mod verify;
mod write;

pub use compact::{CompactOptions, CompactReport};
pub use lookup::Shards;
pub use verify::IndexProblem;

/// Most bytes of an index object.
const MAX_OBJECT: u64 = 64 << 20;
