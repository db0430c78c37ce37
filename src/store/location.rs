//! Where a repository is, as the user writes it.

use super::{AnyStore, Local};
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The place of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    path: PathBuf,
}

impl Location {
    /// Reads a path or a `file://` URL.
    ///
    /// # Errors
    /// `Unsupported` for kinds of stores that this version does not have, `Usage` for an empty text.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::usage("read the place of the repository: it is empty"));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(Self { path: path.into() });
        }
        match text.split_once("://") {
            Some((scheme, _)) => {
                let message = format!("open the repository {scheme}://…: this version keeps repositories in directories only");
                Err(Error::new(ErrorKind::Unsupported, message).with_hint("give a path or file:///path"))
            }
            None => Ok(Self { path: text.into() }),
        }
    }

    /// The directory at `path`.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn local_path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    /// Opens the store that is there.
    ///
    /// # Errors
    /// `NoRepository` if there is none.
    pub fn open(&self) -> Result<AnyStore> {
        Ok(Arc::new(Local::open(&self.path)?))
    }

    /// Makes the store, which may be there already if it is empty.
    ///
    /// # Errors
    /// `Refused` if the directory holds something else.
    pub fn create(&self) -> Result<AnyStore> {
        Ok(Arc::new(Local::create(&self.path)?))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.path.display())
    }
}
