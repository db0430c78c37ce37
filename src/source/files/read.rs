//! Reading one regular file.

use super::directory::{Directory, quietly};
use super::names::{check_name, failed, shown};
use super::stat::{self, Stat};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Hole, NodeKind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

/// A regular file, open for reading. Reads may run in several threads at once.
#[derive(Debug)]
pub struct SourceFile {
    fd: OwnedFd,
    opened: Stat,
    position: u64,
}

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl SourceFile {
    /// Opens the regular file `name` that was seen as `expected`, or that was not looked at yet: two system calls.
    ///
    /// The access time stays as it is where that is permitted. Nothing that was put in the file's place since
    /// is read: a symbolic link is not followed, and a fifo does not make the call wait.
    ///
    /// # Errors
    /// `Missing` if it is gone, `Failed` if another file is there now, else what the system says.
    pub fn open<'s>(directory: &Directory, name: &[u8], expected: impl Into<Option<&'s Stat>>) -> Result<Self> {
        let expected = expected.into();
        check_name(name)?;
        let fd = open(directory.as_fd(), name, expected).map_err(|errno| failed("open", name, errno))?;
        let opened = stat::of(&fd).map_err(|errno| failed("look at", name, errno))?;
        if opened.kind != NodeKind::File || expected.is_some_and(|expected| !opened.same_file(expected)) {
            let message = format!("open {}: another file took its place meanwhile", shown(name));
            return Err(Error::new(ErrorKind::Failed, message).with_hint("back up again to get the new one"));
        }
        Ok(Self { fd, opened, position: 0 })
    }

    /// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_once_at(&mut buffer[done..], offset.saturating_add(done as u64))? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Reads at `offset` with one system call; nothing is read only where the file ends.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_once_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        loop {
            match rustix::io::pread(&self.fd, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                read => return read.map_err(|errno| failed("read", b"the file", errno)),
            }
        }
    }

    /// Reads on from where the last call ended, until `buffer` is full or the file ends.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    /// How the file was when it was opened.
    #[must_use]
    pub fn opened(&self) -> &Stat {
        &self.opened
    }

    /// How the file is now: one system call.
    ///
    /// # Errors
    /// What the system says.
    pub fn stat(&self) -> Result<Stat> {
        stat::of(&self.fd).map_err(|errno| failed("look at", b"the file", errno))
    }

    /// True if the content may have changed since the file was opened: one system call.
    ///
    /// # Errors
    /// What the system says.
    pub fn changed(&self) -> Result<bool> {
        Ok(!self.stat()?.same_content(&self.opened))
    }

    /// The holes in the first `size` bytes, ascending, not touching; none where the file system does not tell.
    ///
    /// Costs two system calls for each hole; worth it only where [`Stat::may_have_holes`].
    ///
    /// # Errors
    /// What the system says.
    pub fn data_extents(&self, size: u64) -> Result<Vec<Hole>> {
        holes(self.fd.as_fd(), size).map_err(|errno| failed("find the holes of", b"the file", errno))
    }

    /// Tells the system that the file will be read from front to end; worth a call for large files only.
    pub fn advise_sequential(&self) {
        #[cfg(target_os = "linux")]
        // Only advice: a file system that does not take it reads as well without.
        let _ = rustix::fs::fadvise(&self.fd, 0, None, rustix::fs::Advice::Sequential);
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open(directory: BorrowedFd<'_>, name: &[u8], expected: Option<&Stat>) -> rustix::io::Result<OwnedFd> {
    let attempt = |flags| rustix::fs::openat(directory, name, flags, Mode::empty());
    match quietly(OPEN | OFlags::NONBLOCK, attempt) {
        #[cfg(target_os = "linux")]
        Err(Errno::AGAIN) => open_leased(directory, name, expected),
        result => {
            let _ = expected;
            result
        }
    }
}

/// Another process holds a lease on the file (a file server does): the open has to wait until it is given up.
/// Waiting is safe only for a regular file, so the file is held without opening it, and then opened itself.
#[cfg(target_os = "linux")]
fn open_leased(directory: BorrowedFd<'_>, name: &[u8], expected: Option<&Stat>) -> rustix::io::Result<OwnedFd> {
    let held = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let seen = stat::of(&held)?;
    if seen.kind != NodeKind::File || expected.is_some_and(|expected| !seen.same_file(expected)) {
        return Err(Errno::AGAIN);
    }
    let path = super::directory::proc_path(held.as_fd(), b"");
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn holes(fd: BorrowedFd<'_>, size: u64) -> rustix::io::Result<Vec<Hole>> {
    let mut holes = Vec::new();
    let mut offset = 0;
    while offset < size {
        let start = match rustix::fs::seek(fd, SeekFrom::Hole(offset)) {
            Ok(start) => start,
            // Not supported here, or the file became shorter meanwhile.
            Err(Errno::INVAL | Errno::NXIO | Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(errno),
        };
        if start >= size {
            break;
        }
        let end = match rustix::fs::seek(fd, SeekFrom::Data(start)) {
            Ok(end) => end.min(size),
            // Unless the file became shorter meanwhile, and this is its end.
            Err(Errno::NXIO) if stat::of(fd)?.size < size => break,
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(errno),
        };
        if end > start {
            holes.push(Hole { offset: start, len: end - start });
        }
        // Another process may fill the hole between the two calls; never stay where we are.
        offset = end.max(start + 1);
    }
    Ok(holes)
}
