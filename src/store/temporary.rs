//! Temporary files of a directory store: made, locked while their writer lives, and removed when it is dead.
//!
//! A writer holds a lock on its file from the moment it is made until it is gone, and the system ends the lock with the
//! process, however that ends. So a file on which somebody else gets the lock has no writer. Whoever removes one holds
//! its lock while doing so: a writer that has made a file and finds it locked, or without a name, makes another.
//!
//! That locks are seen by everybody is sure on one running system only; some network file systems keep them to the
//! machine. Names say on which running system they were made, and files of others must be old as well.

use crate::error::{Error, Result};
use rustix::fs::OFlags;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Age at which a file from another running system is dead, if its lock is free as well.
const GRACE_SECS: i64 = 24 * 60 * 60;
/// Files made before giving up, if others always take them away.
const ATTEMPTS: usize = 16;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A new file in `tmp/`, locked; removed when dropped.
pub(super) struct Temporary {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The lock ends after this, with the descriptor.
        let _ = fs::remove_file(&self.path);
    }
}

impl Temporary {
    /// Makes a file below `root`.
    pub(super) fn new(root: &Path) -> Result<Self> {
        let failed = |error| Error::io("write to the repository", root.display(), error);
        for _ in 0..ATTEMPTS {
            let made = Self::make(&root.join("tmp"))?.map_err(failed)?;
            if made.is_ours().map_err(failed)? {
                return Ok(made);
            }
        }
        Err(Error::failed(format!("write to the repository {}: others remove its temporary files", root.display())))
    }

    fn make(folder: &Path) -> Result<io::Result<Self>> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Error::failed(format!("draw a random name: {error}")))?;
        let name = format!("{}.{}.{number}.{:016x}", system(), std::process::id(), u64::from_le_bytes(random));
        let path = folder.join(name);
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| open())
            }
            other => other,
        };
        Ok(file.map(|file| Self { file, path }))
    }

    /// Locks the file; false if somebody who takes it for dead was faster.
    fn is_ours(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            // Where there are no locks nobody else gets one either, and nothing is ever taken for dead.
            Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(self.file.metadata()?.nlink() > 0),
        }
    }

    /// Seconds since 1970 by the clock of the file system.
    pub(super) fn made_at(&self) -> Option<i64> {
        self.file.metadata().ok().map(|metadata| metadata.mtime())
    }
}

/// Names the running system, as long as it runs; `0` where it has no such name.
fn system() -> &'static str {
    static SYSTEM: OnceLock<String> = OnceLock::new();
    SYSTEM.get_or_init(|| match fs::read("/proc/sys/kernel/random/boot_id") {
        Ok(id) if !id.is_empty() => blake3::hash(&id).to_hex()[..16].to_owned(),
        _ => "0".to_owned(),
    })
}

/// Removes files of dead writers below `root`: those of this running system, and with `now`, by the clock of the file
/// system, old ones of others. What cannot be looked at or removed stays; nothing depends on it.
pub(super) fn remove_dead(root: &Path, now: Option<i64>) {
    let Ok(entries) = fs::read_dir(root.join("tmp")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if let Some(here) = name.to_str().and_then(made_here) {
            let _ = remove_if_dead(&entry.path(), here, now);
        }
    }
}

/// True if a temporary file of this name was made on this running system, `None` if it is no name of such a file.
fn made_here(name: &str) -> Option<bool> {
    let parts: Vec<&str> = name.split('.').collect();
    let [made_on, process, number, random] = parts[..] else { return None };
    let is_random = random.len() == 16 && u64::from_str_radix(random, 16).is_ok();
    let is_ours = is_random && process.parse::<u32>().is_ok() && number.parse::<u64>().is_ok();
    is_ours.then(|| made_on == system() && made_on != "0")
}

fn remove_if_dead(path: &Path, here: bool, now: Option<i64>) -> io::Result<()> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).expect("flags fit");
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let seen = file.metadata()?;
    let old = now.is_some_and(|now| now.saturating_sub(seen.mtime().max(seen.ctime())) > GRACE_SECS);
    if !seen.is_file() || !(here || old) || file.try_lock().is_err() {
        return Ok(());
    }
    // The name still stands for the file that is locked; names are never given twice, so this cannot change any more.
    let named = fs::symlink_metadata(path)?;
    if (named.dev(), named.ino()) == (seen.dev(), seen.ino()) { fs::remove_file(path) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path) -> usize {
        fs::read_dir(root.join("tmp")).unwrap().count()
    }

    fn leave(root: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = root.join("tmp").join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn dead_name(number: u32) -> String {
        format!("{}.999999.{number}.0123456789abcdef", system())
    }

    #[test]
    fn a_file_of_a_living_writer_stays_and_that_of_a_dead_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let alive = Temporary::new(dir.path()).unwrap();
        leave(dir.path(), &dead_name(1), b"left");
        remove_dead(dir.path(), None);
        assert!(alive.path.exists() && names(dir.path()) == 1);
        drop(alive);
        assert_eq!(names(dir.path()), 0);
    }

    #[test]
    fn what_is_no_temporary_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        drop(Temporary::new(dir.path()).unwrap());
        let outside = dir.path().join("outside");
        fs::write(&outside, b"precious").unwrap();
        leave(dir.path(), "notes.txt", b"");
        leave(dir.path(), "1.2.3.4", b"");
        fs::create_dir(dir.path().join("tmp").join(dead_name(2))).unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join("tmp").join(dead_name(3))).unwrap();
        remove_dead(dir.path(), Some(i64::MAX));
        assert_eq!((names(dir.path()), fs::read(&outside).unwrap()), (4, b"precious".to_vec()));
    }

    #[test]
    fn a_file_of_another_system_goes_only_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let now = Temporary::new(dir.path()).unwrap().made_at().unwrap();
        let path = leave(dir.path(), "00000000000000aa.77.0.0123456789abcdef", b"elsewhere");
        remove_dead(dir.path(), None);
        remove_dead(dir.path(), Some(now + GRACE_SECS / 2));
        assert!(path.exists());
        let locked = File::open(&path).unwrap();
        locked.try_lock().unwrap();
        remove_dead(dir.path(), Some(now + 2 * GRACE_SECS));
        assert!(path.exists(), "its writer lives");
        drop(locked);
        remove_dead(dir.path(), Some(now + 2 * GRACE_SECS));
        assert!(!path.exists());
    }

    #[test]
    fn writers_and_those_who_clean_up_never_meet() {
        let dir = tempfile::tempdir().unwrap();
        drop(Temporary::new(dir.path()).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let made = Temporary::new(dir.path()).unwrap();
                        assert!(made.path.exists(), "the file of a living writer was removed");
                    }
                });
                scope.spawn(|| (0..200).for_each(|_| remove_dead(dir.path(), None)));
            }
        });
        assert_eq!(names(dir.path()), 0);
    }
}
