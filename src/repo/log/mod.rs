//! The log: what every client says, in an order of its own, signed and chained.
//!
//! Following reads what is new and verifies it; appending is the one step that commits.

mod adopt;
mod append;
mod apply;
mod checkpoint;
mod deeds;
mod follow;
mod heads;
mod instance;
mod judge;
mod members;
mod read_on;
mod records;
mod revoked;
mod rollback;
mod snapshots;
mod stored;
mod toc;
mod turns;
mod unreadable;

pub(super) use follow::object_hash;
pub(super) use heads::remembered;
pub(super) use instance::load as load_instance;
pub use judge::Standing;
pub(super) use judge::{Deed, Judgement, Seen};
pub use members::{ATTESTED, EVERYBODY, Member};
pub use records::{RecordProblem, RecordsReport, TakeProblem};
pub use rollback::{LostRecords, Rollback};
pub(super) use snapshots::open_snapshot;
pub use snapshots::{SealedEntry, SnapshotEntry};
pub(in crate::repo) use stored::SHORT;
pub use stored::StoredTime;
pub use turns::Turn;
pub(super) use turns::{Turns, together};
