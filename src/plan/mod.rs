//! Plans: what is kept and for how long, as values that were checked once.
//!
//! Everything here is pure: it reads no clock, opens no repository, and decides the same for the same input.

pub mod age;
pub mod prices;
pub mod retention;
