//! What a directory store keeps back for the day on which its disk is full: a file of no meaning. Where it lay there is
//! room for the few small objects by which a prune says what may go.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Its name begins with a dot, so that it is no object.
pub(super) const NAME: &str = ".reserve";
/// Enough for a condemn object, a plan, and fences in some dozens of logs.
const LENGTH: usize = 256 << 10;

/// Makes the reserve as long as it should be. Where there is no room for all of it, a part is better than none.
pub(super) fn keep(root: &Path) -> io::Result<()> {
    let path = root.join(NAME);
    let length = match fs::symlink_metadata(&path) {
        Ok(metadata) => usize::try_from(metadata.len()).unwrap_or(LENGTH),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    if length >= LENGTH {
        return Ok(());
    }
    // Bytes that do not compress, or a file system could keep them in less room than they are to free.
    let mut bytes = vec![0; LENGTH - length];
    blake3::Hasher::new().update(NAME.as_bytes()).finalize_xof().fill(&mut bytes);
    let mut file: File = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(&bytes)?;
    file.sync_data()
}

/// Gives up this many bytes of the reserve; false if there is none.
pub(super) fn release(root: &Path, bytes: u64) -> io::Result<bool> {
    let path = root.join(NAME);
    let length = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match length.checked_sub(bytes).filter(|left| *left > 0) {
        Some(left) => fs::OpenOptions::new().write(true).open(path)?.set_len(left)?,
        None => fs::remove_file(path)?,
    }
    Ok(length > 0)
}
