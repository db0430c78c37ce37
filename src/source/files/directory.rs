//! Open directories and the names in them.

use super::names::{check_name, failed};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::NodeKind;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::path::Path;

/// An open directory; everything below it is reached through it.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
}

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Directory {
    /// Opens the directory at `path`, as the user wrote it: symbolic links in it are followed.
    ///
    /// The first call raises the process's limit of open files as far as is permitted: a walk holds every directory
    /// above it open, and the usual 1,024 are fewer than a tree can be deep.
    ///
    /// # Errors
    /// `Missing` if there is none, else what the system says.
    pub fn open_root(path: &Path) -> Result<Self> {
        raise_open_files();
        let open = |flags| rustix::fs::openat(CWD, path, flags, Mode::empty());
        let fd = quietly(OPEN, open).map_err(|errno| Error::io("open the directory", path.display(), errno.into()))?;
        Ok(Self { fd })
    }

    /// Opens the directory `name` in this one; a symbolic link there is an error, not followed.
    ///
    /// # Errors
    /// `Refused` for a name that is not one entry's, `Missing` if there is none, else what the system says.
    pub fn open_child(&self, name: &[u8]) -> Result<Self> {
        check_name(name)?;
        let open = |flags| rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        let fd = quietly(OPEN | OFlags::NOFOLLOW, open).map_err(|errno| failed("open the directory", name, errno))?;
        Ok(Self { fd })
    }

    /// Where the symbolic link `name` leads to.
    ///
    /// # Errors
    /// What the system says, also of what is no link.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        let read = rustix::fs::readlinkat(self, name, Vec::new());
        read.map(|target| target.into_bytes()).map_err(|errno| failed("read the link", name, errno))
    }

    /// The names of all entries but `.` and `..`, ascending by their bytes.
    ///
    /// # Errors
    /// What the system says; `Unsupported` for more than 4 GiB of names.
    pub fn names(&self) -> Result<Names> {
        let read = || -> rustix::io::Result<Names> {
            rustix::fs::seek(&self.fd, SeekFrom::Start(0))?;
            list(self.fd.as_fd())
        };
        let mut names = read().map_err(|errno| match errno {
            Errno::OVERFLOW => Error::new(ErrorKind::Unsupported, "list the directory: more than 4 GiB of names"),
            errno => failed("list", b"the directory", errno),
        })?;
        names.sort();
        Ok(names)
    }

    pub(super) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How many files and directories this process may hold open at once.
#[must_use]
pub fn most_open_files() -> usize {
    raise_open_files();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        // Without the higher limit most trees work as well; the others say which directory could not be opened.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    });
}

/// Opens without changing the access time where that is permitted: the owner and root may, others get `EPERM`.
#[cfg(target_os = "linux")]
pub(super) fn quietly(flags: OFlags, open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        result => result,
    }
}

/// Opens; only Linux can leave the access time alone.
#[cfg(not(target_os = "linux"))]
pub(super) fn quietly(flags: OFlags, open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    open(flags)
}

/// The names of one directory in one allocation: 16 bytes and the name itself for each.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The first eight bytes as a number, big-endian: most comparisons end here without touching the name.
    prefix: u64,
    start: u32,
    len: u16,
    kind: Option<NodeKind>,
}

impl Names {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if the directory is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name at `index`, in ascending order.
    ///
    /// # Panics
    /// If `index` is not below `len`.
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        name_of(&self.bytes, &self.entries[index])
    }

    /// What the directory says the entry is; some file systems do not say.
    ///
    /// # Panics
    /// If `index` is not below `len`.
    #[must_use]
    pub fn kind(&self, index: usize) -> Option<NodeKind> {
        self.entries[index].kind
    }

    /// All names, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| name_of(&self.bytes, entry))
    }

    /// Where `name` is, if it is there.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| name_of(&self.bytes, entry).cmp(name)).ok()
    }

    fn push(&mut self, name: &[u8], kind: FileType) -> rustix::io::Result<()> {
        if matches!(name, b"." | b"..") {
            return Ok(());
        }
        let start = u32::try_from(self.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
        let len = u16::try_from(name.len()).map_err(|_| Errno::OVERFLOW)?;
        let mut first = [0; 8];
        let common = name.len().min(8);
        first[..common].copy_from_slice(&name[..common]);
        self.bytes.extend_from_slice(name);
        self.entries.push(Entry { prefix: u64::from_be_bytes(first), start, len, kind: known_kind(kind) });
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        // No name holds a NUL, so the padding of a short prefix sorts before every longer name.
        self.entries.sort_unstable_by(|left, right| {
            left.prefix.cmp(&right.prefix).then_with(|| name_of(bytes, left).cmp(name_of(bytes, right)))
        });
    }
}

fn name_of<'a>(bytes: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.start as usize;
    &bytes[start..start + usize::from(entry.len)]
}

fn known_kind(kind: FileType) -> Option<NodeKind> {
    Some(match kind {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::Unknown => return None,
    })
}

#[cfg(target_os = "linux")]
fn list(fd: BorrowedFd<'_>) -> rustix::io::Result<Names> {
    let mut names = Names::default();
    let mut buffer: Vec<u8> = Vec::with_capacity(64 << 10);
    let mut entries = rustix::fs::RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        names.push(entry.file_name().to_bytes(), entry.file_type())?;
    }
    Ok(names)
}

#[cfg(not(target_os = "linux"))]
fn list(fd: BorrowedFd<'_>) -> rustix::io::Result<Names> {
    let mut names = Names::default();
    for entry in rustix::fs::Dir::read_from(fd)? {
        let entry = entry?;
        names.push(entry.file_name().to_bytes(), entry.file_type())?;
    }
    Ok(names)
}

/// The path through which the entry `name` of `dir` can be reached by calls that take no descriptor.
#[cfg(target_os = "linux")]
pub(super) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    use rustix::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// Adds permissions to the file or directory `name`, never following a link; false if that is not possible.
#[cfg(target_os = "linux")]
pub(super) fn proc_chmod(dir: BorrowedFd<'_>, name: &[u8], add: Mode) -> bool {
    let hold = || -> rustix::io::Result<()> {
        let held = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let seen = super::stat::of(&held)?;
        if !matches!(seen.kind, NodeKind::File | NodeKind::Directory) {
            return Err(Errno::LOOP);
        }
        rustix::fs::chmod(proc_path(held.as_fd(), b""), super::names::permissions(seen.mode) | add)
    };
    hold().is_ok()
}

/// Adds permissions to the file or directory `name`; not possible here without following links.
#[cfg(not(target_os = "linux"))]
pub(super) fn proc_chmod(_: BorrowedFd<'_>, _: &[u8], _: Mode) -> bool {
    false
}
