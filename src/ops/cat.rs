//! `cat`: the bytes of one file of a snapshot.

use super::again::Once;
use crate::error::{Error, Result};
use crate::event::Observer;
use crate::format::tree::NodeKind;
use crate::repo::{Repository, SnapshotEntry};
use std::io::Write;

/// Writes the file at `path` in the snapshot to `out`, holes as zeros.
///
/// # Errors
/// `Missing` if there is none, `Usage` if it is no regular file, `Damaged`, `Failed` if `out` fails.
pub fn cat(
    repository: &Repository,
    entry: &SnapshotEntry,
    path: &[u8],
    out: &mut dyn Write,
    observer: &dyn Observer,
) -> Result<()> {
    let mut once = Once::new(out);
    repository.reading(
        observer,
        &[entry],
        |()| true,
        || {
            once.begin();
            write(repository, entry, path, &mut once)
        },
    )
}

fn write(repository: &Repository, entry: &SnapshotEntry, path: &[u8], out: &mut dyn Write) -> Result<()> {
    let reader = repository.reader()?;
    let node = reader.resolve(&entry.snapshot.root, path)?;
    if node.kind != NodeKind::File {
        let message = match path {
            [] => "print a file: no path was given".to_owned(),
            path => format!("print {:?}: it is no regular file", String::from_utf8_lossy(path)),
        };
        return Err(Error::usage(message).with_hint(
            "name a file as SNAPSHOT:PATH; `lifeboat ls -R SNAPSHOT` shows the paths, `lifeboat restore` writes all back",
        ));
    }
    reader.write_file(&node, out)
}
