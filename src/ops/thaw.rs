//! Archived packs: what must be thawed before it can be read.

pub use crate::repo::{THAW_DAYS, ThawOptions, ThawPlan, ThawReport, Tier, thaw_time};
