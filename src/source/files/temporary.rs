//! Names of what a restore has not finished, and removing what one that was killed has left.

use super::names::failed;
use super::write::TargetDir;
use crate::error::{Error, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &str = ".lifeboat-";

/// The number of this process, and one that no other process has: process numbers come again, in containers at once.
fn process() -> &'static (u32, u64) {
    static PROCESS: OnceLock<(u32, u64)> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let mut random = [0; 8];
        // Without randomness the number of the process alone tells names apart.
        let _ = getrandom::fill(&mut random);
        (std::process::id(), u64::from_le_bytes(random))
    })
}

impl TargetDir {
    /// A name that no other call gives, in no process, for a file that is not finished yet.
    #[must_use]
    pub fn temporary_name() -> Vec<u8> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, random) = process();
        format!("{PREFIX}{process:x}-{random:016x}-{:x}", NEXT.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }

    /// Removes what restores that were killed have left in this directory, if it was there before; returns how much.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_leftovers(&self) -> Result<u64> {
        if !self.existed() {
            return Ok(0);
        }
        let mut removed = 0;
        for name in self.directory().names()?.iter().filter(|name| is_dead(name)) {
            self.remove_all(name)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Keeps other restores out of the directory until the last clone of this handle is gone, however the process ends.
    /// Where the file system has no locks, nothing is kept out.
    ///
    /// # Errors
    /// `InUse` if another restore keeps others out.
    pub fn lock(&self) -> Result<()> {
        match rustix::fs::flock(self.directory(), FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                Err(Error::new(crate::error::ErrorKind::InUse, "restore: another restore is writing into the same directory")
                    .with_hint("wait for it to end, or choose another directory"))
            }
            Err(Errno::INTR) => Err(failed("lock", b"the directory", Errno::INTR)),
            _ => Ok(()),
        }
    }
}

/// True for a name that a process of this program gave which does not run any more.
fn is_dead(name: &[u8]) -> bool {
    let Some(made) = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(PREFIX)) else { return false };
    let parts: Vec<&str> = made.split('-').collect();
    let [number, random, count] = parts[..] else { return false };
    let hex = |part: &str| u64::from_str_radix(part, 16).ok();
    let (Some(number), Some(random), Some(_)) = (hex(number), hex(random).filter(|_| random.len() == 16), hex(count)) else {
        return false;
    };
    if number == u64::from(process().0) {
        return random != process().1;
    }
    let number = i32::try_from(number).ok().and_then(Pid::from_raw);
    number.is_some_and(|number| test_kill_process(number) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_processes_that_are_gone_are_dead() {
        assert!(!is_dead(&TargetDir::temporary_name()));
        let (own, random) = process();
        assert!(is_dead(format!(".lifeboat-{own:x}-{:016x}-0", random ^ 1).as_bytes()));
        assert!(!is_dead(b".lifeboat-1-0123456789abcdef-0"), "the first process runs");
        // Beyond the largest number that a process can have.
        assert!(is_dead(b".lifeboat-7ffffffe-0123456789abcdef-1f"));
        for other in [".lifeboat-restore", ".lifeboat-1-2", ".lifeboat-7ffffffe-1-1", "x", ".lifeboat-7ffffffe-0123456789abcdef-"]
        {
            assert!(!is_dead(other.as_bytes()), "{other}");
        }
    }
}
