//! Files that are restored.

use super::apply::Found;
use super::names::{check_name, failed};
use super::write::TargetDir;
use crate::error::{Error, Result};
use crate::format::tree::Node;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::AtFlags;
use rustix::io::Errno;

/// A file being restored. Writes may run in several threads at once; dropped unfinished, a new file is removed.
#[derive(Debug)]
pub struct TargetFile {
    directory: TargetDir,
    fd: OwnedFd,
    name: Vec<u8>,
    found: Found,
    /// Remove the file if it is not finished.
    provisional: bool,
}

impl TargetFile {
    pub(super) fn new(directory: TargetDir, fd: OwnedFd, name: Vec<u8>, found: Found) -> Self {
        Self { directory, fd, name, found, provisional: true }
    }

    pub(super) fn in_place(directory: TargetDir, fd: OwnedFd, name: Vec<u8>, found: Found) -> Self {
        Self { directory, fd, name, found, provisional: false }
    }

    /// Sets those inode flags that a file takes only while it is empty; worth a call only if the node has flags.
    pub fn prepare(&self, node: &Node) {
        self.directory.inner.settings.put_early_flags(&self.fd, node);
    }

    /// Writes all the bytes at `offset`. What is never written reads as zeros and takes no room.
    ///
    /// # Errors
    /// `Full` if there is no room, else what the system says.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&self.fd, &bytes[done..], offset.saturating_add(done as u64)) {
                Ok(0) => return Err(failed("write", &self.name, Errno::NOSPC)),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("write", &self.name, errno)),
            }
        }
        Ok(())
    }

    /// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&self.fd, &mut buffer[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("read", &self.name, errno)),
            }
        }
        Ok(done)
    }

    /// Makes the file that long; needed only where it ends in a hole or was longer.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_len(&self, len: u64) -> Result<()> {
        rustix::fs::ftruncate(&self.fd, len).map_err(|errno| failed("set the length of", &self.name, errno))
    }

    /// Makes a hole where the file may have data; zeros are written where the file system has no holes.
    ///
    /// # Errors
    /// `Full` if there is no room, else what the system says.
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::FallocateFlags;
            match rustix::fs::fallocate(&self.fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                result => return result.map_err(|errno| failed("make a hole in", &self.name, errno)),
            }
        }
        let zeros = [0; 16 << 10];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(zeros.len() as u64);
            self.write_at(offset.saturating_add(done), &zeros[..usize::try_from(step).unwrap_or(zeros.len())])?;
            done += step;
        }
        Ok(())
    }

    /// Puts the node's metadata on the file and gives it its name, replacing a file or link of that name; returns what
    /// could not be set. Four to six system calls.
    ///
    /// # Errors
    /// `Refused` for a hostile name, or if a directory is there and `replace` was not asked for; else what the system
    /// says. The new file is then removed.
    pub fn finish(mut self, node: &Node, name: &[u8]) -> Result<Vec<Error>> {
        check_name(name)?;
        let settings = &self.directory.inner.settings;
        let mut problems = Vec::new();
        settings.put(self.fd.as_fd(), node, self.found, &mut problems);
        if self.name != name {
            self.directory.move_into_place(&self.name, name)?;
        }
        settings.put_flags(&self.fd, node, self.found.existed, &mut problems);
        self.provisional = false;
        Ok(problems)
    }
}

impl AsFd for TargetFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for TargetFile {
    fn drop(&mut self) {
        if self.provisional {
            // Nobody is left to hear of it; what stays behind has a name that says what it is.
            let _ = rustix::fs::unlinkat(self.directory.directory(), &self.name, AtFlags::empty());
        }
    }
}
