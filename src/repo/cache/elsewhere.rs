//! A cache whose folder cannot be written: what is there is read, what is new is kept for as long as the command runs.

use super::{Cache, Opened};
use crate::error::{Error, Result};
use std::io::ErrorKind as Io;
use std::path::Path;
use tempfile::TempDir;

/// True if the folder is in the way, and not what is in it.
fn cannot_be_written(error: &Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<rusqlite::Error>());
    matches!(error.io_kind(), Some(Io::PermissionDenied | Io::ReadOnlyFilesystem | Io::NotADirectory))
        || source.is_some_and(|error| matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly)))
}

/// Opens the cache in `folder`. Where nothing can be written there, a copy of it, as far as it can be read, in a folder
/// that is gone with the second value.
pub(in crate::repo) fn open(folder: &Path) -> Result<(Opened, Option<TempDir>)> {
    let error = match Cache::open(folder) {
        Ok(opened) => return Ok((opened, None)),
        Err(error) if cannot_be_written(&error) => error,
        Err(error) => return Err(error),
    };
    let Ok(temporary) = tempfile::Builder::new().prefix("lifeboat-cache-").tempdir() else { return Err(error) };
    for name in ["cache.sqlite", "cache.sqlite-wal"] {
        // What cannot be copied is read from the store.
        if std::fs::copy(folder.join(name), temporary.path().join(name)).is_err() {
            break;
        }
    }
    let mut opened = Cache::open(temporary.path())?;
    opened.notice = Some(format!(
        "the cache in {} cannot be written ({error}): what this command learns is not kept for the next one; --cache-dir \
         names another folder",
        folder.display()
    ));
    Ok((opened, Some(temporary)))
}
