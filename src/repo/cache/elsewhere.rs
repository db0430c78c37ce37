//! A cache whose folder cannot be written, or is on a full disk: what is there is read, what is new is kept for as long as
//! the command runs.

use super::{Cache, Opened};
use crate::error::{Error, ErrorKind, Result};
use std::io::ErrorKind as Io;
use std::path::Path;
use tempfile::TempDir;

/// True if the folder is in the way, and not what is in it.
fn cannot_be_written(error: &Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly, SystemIoFailure};
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<rusqlite::Error>());
    matches!(error.io_kind(), Some(Io::PermissionDenied | Io::ReadOnlyFilesystem | Io::NotADirectory))
        || source.is_some_and(|error| matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly | SystemIoFailure)))
}

/// What errors of the cache begin with.
pub(super) const DOING: &str = "use the local cache";

/// True if the error says that there is no room for the cache.
pub(in crate::repo) fn is_full(error: &Error) -> bool {
    // What threads met is told without what is below it.
    error.kind() == ErrorKind::Full && error.to_string().contains(DOING)
}

/// Opens the cache in `folder`. Where nothing can be written there, a copy of it, as far as it can be read, in a folder
/// that is gone with the second value.
pub(in crate::repo) fn open(folder: &Path) -> Result<(Opened, Option<TempDir>)> {
    match Cache::open(folder) {
        Ok(opened) => Ok((opened, None)),
        Err(error) if cannot_be_written(&error) || is_without_room(&error) => {
            copy(folder, error).map(|(opened, temporary)| (opened, Some(temporary)))
        }
        Err(error) => Err(error),
    }
}

/// True if not even a folder, or the first page, finds room.
fn is_without_room(error: &Error) -> bool {
    is_full(error) || matches!(error.io_kind(), Some(Io::StorageFull | Io::QuotaExceeded))
}

/// A copy of the cache in `folder`, where `error` keeps it from being used.
///
/// # Errors
/// `error`, if there is no place for a copy either.
pub(in crate::repo) fn copy(folder: &Path, error: Error) -> Result<(Opened, TempDir)> {
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
    Ok((opened, temporary))
}
