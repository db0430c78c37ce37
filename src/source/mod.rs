//! Where data comes from and goes back to: file systems now, streams and databases beside them.
//!
//! Nothing here knows of repositories, chunks, or stores.

pub mod files;
