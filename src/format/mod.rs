//! Bytes ⇄ values of the repository format (docs/format.md): pure, without I/O, keys, or a clock.
//!
//! Every decoder takes hostile bytes: it checks lengths before it allocates, never panics, and accepts
//! nothing that does not encode back to the same bytes.

pub mod cbor;
pub mod envelope;
pub mod gc;
pub mod index;
pub mod key;
pub mod log;
pub mod pack;
pub mod parity;
pub mod repository;
pub mod snapshot;
pub mod tree;
