//! Keys and what is done with them (docs/format.md#3-keys). Secrets here have no `Debug`, are wiped when dropped,
//! and never appear in an error.

pub mod derive;
pub mod seal;
pub mod share;
pub mod sign;
pub mod wrap;

use crate::error::{Error, Result};

/// Fills a new array with random bytes of the operating system.
///
/// # Errors
/// `Failed` if the system has none to give.
pub fn random<const LEN: usize>() -> Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Fills `bytes` with random bytes of the operating system.
///
/// # Errors
/// `Failed` if the system has none to give.
pub fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| Error::failed(format!("draw random bytes from the system: {error}")))
}
