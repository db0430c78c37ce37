//! Prune: taking back the space of what no snapshot needs (docs/protocol.md).
//!
//! Nothing here locks, and nothing relies on a clock: a generation is condemned, fenced off in every log, marked once
//! more, planned, and only what the published plan lists is ever deleted. Any step may be the last one of a runner;
//! the next runner goes on from it.

mod archived;
mod decide;
mod fence;
mod fetch;
mod follow;
mod full;
mod index;
mod lock;
mod mark;
mod prune;
mod repack;
mod truncate;
mod view;

pub use decide::{Decision, PackDecision, PruneOptions, Truncation};
pub(super) use follow::{MAX_PRUNE, next_prune};
pub use lock::LockReport;
pub(super) use mark::Marker;
pub use prune::PruneReport;
pub(super) use view::{Kept, View};
