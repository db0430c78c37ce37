//! Directories that are restored into.

use super::apply::{Found, Settings, WriteOptions, gives_acl};
use super::attributes::flags;
use super::directory::{Directory, proc_chmod};
use super::names::{check_name, failed, permissions, shown};
use super::stat::{self, Stat};
use super::target_file::TargetFile;
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Node, NodeKind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// The place that a restore was told to write to.
#[derive(Debug, Clone, Copy)]
pub struct Target;

impl Target {
    /// Opens the directory at `path`, as the user wrote it; makes it, and those above it, if `create` says so.
    ///
    /// # Errors
    /// `Missing` if there is none and none is to be made, else what the system says.
    pub fn open(path: &Path, create: bool, options: WriteOptions) -> Result<TargetDir> {
        if create {
            std::fs::create_dir_all(path).map_err(|error| Error::io("make the directory", path.display(), error))?;
        }
        let directory = Directory::open_root(path)?;
        let seen = directory.stat_self()?;
        let gives_acl = gives_acl(directory.as_fd());
        let settings = Arc::new(Settings::new(options));
        let inner = Inner { directory, settings, seen, existed: true, asked_for: true, gives_acl, new_ids: OnceLock::new() };
        Ok(TargetDir { inner: Arc::new(inner) })
    }
}

/// An open directory to restore into; clones share it. Nothing below it is reached through a symbolic link.
#[derive(Debug, Clone)]
pub struct TargetDir {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) directory: Directory,
    pub(super) settings: Arc<Settings>,
    /// How it was when it was opened.
    seen: Stat,
    /// It was there before.
    existed: bool,
    /// The user named it; it is not unlocked for that.
    asked_for: bool,
    /// New entries get an ACL from it.
    pub(super) gives_acl: bool,
    /// Owner and group that a new entry gets from the system: depends on the mount, the mode, and the server behind it.
    new_ids: OnceLock<(u32, u32)>,
}

const EXISTING: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl TargetDir {
    /// The directory, for looking at what is there.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// True if the directory was there before.
    #[must_use]
    pub fn existed(&self) -> bool {
        self.inner.existed
    }

    /// True if nothing else holds it: what was restored into it is done, and so it stays.
    pub fn is_last(&mut self) -> bool {
        Arc::get_mut(&mut self.inner).is_some()
    }

    /// Opens the directory `name`, or makes it with mode 0700: three system calls.
    ///
    /// # Errors
    /// `Refused` for a hostile name, or if something else is there and `replace` was not asked for.
    pub fn child(&self, name: &[u8]) -> Result<Self> {
        check_name(name)?;
        let doing = "make the directory";
        let mut existed = !self.make_directory(name).map_err(|errno| failed(doing, name, errno))?;
        let fd = match self.open_directory(name) {
            Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) if existed => {
                self.clear_the_way(name, doing)?;
                existed = !self.make_directory(name).map_err(|errno| failed(doing, name, errno))?;
                self.open_directory(name)
            }
            result => result,
        };
        let fd = fd.map_err(|errno| failed("open the directory", name, errno))?;
        self.below(fd, name, existed, true)
    }

    /// Opens the directory `name`, which must be there, and changes nothing about it.
    ///
    /// # Errors
    /// `Refused` for a hostile name, `Missing` if there is none, else what the system says.
    pub fn open_child(&self, name: &[u8]) -> Result<Self> {
        check_name(name)?;
        let opened = rustix::fs::openat(&self.inner.directory, name, EXISTING, Mode::empty());
        let fd = opened.map_err(|errno| failed("open the directory", name, errno))?;
        self.below(fd, name, true, false)
    }

    /// Opens the directory at `path` below this one (names joined by `/`, empty for this one), which must be there, and
    /// changes nothing about it: for a place to come back to, a path is cheaper to keep than an open directory.
    ///
    /// # Errors
    /// `Refused` for a hostile name, `Missing` if there is none, else what the system says.
    pub fn open_path(&self, path: &[u8]) -> Result<Self> {
        let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        names.into_iter().try_fold(self.clone(), |above, name| above.open_child(name))
    }

    fn below(&self, fd: OwnedFd, name: &[u8], existed: bool, for_writing: bool) -> Result<Self> {
        let directory = Directory::from_fd(fd);
        let seen = stat::of(&directory).map_err(|errno| failed("look at", name, errno))?;
        let gives_acl = if existed { gives_acl(directory.as_fd()) } else { self.inner.gives_acl };
        if existed && for_writing && seen.mode & 0o700 != 0o700 && seen.uid == rustix::process::geteuid().as_raw() {
            // Until `finish` gives it the mode that it had: an owner may take his own permission away.
            let _ = rustix::fs::fchmod(&directory, permissions(seen.mode | 0o700));
        }
        let settings = Arc::clone(&self.inner.settings);
        let inner = Inner { directory, settings, seen, existed, asked_for: false, gives_acl, new_ids: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a new file under a name of the caller's choice, readable by nobody else; `finish` gives it its own.
    ///
    /// # Errors
    /// `Refused` for a hostile name; what the system says, also if the name is taken.
    pub fn create_file(&self, temporary: &[u8]) -> Result<TargetFile> {
        check_name(temporary)?;
        let modes = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(&self.inner.directory, temporary, modes, Mode::RUSR | Mode::WUSR);
        let fd = self.unlocking(create).map_err(|errno| failed("create", temporary, errno))?;
        let ids = self.ids_of_new(fd.as_fd());
        let inherited_acl = self.inner.gives_acl;
        let found = Found { ids, mode: (!inherited_acl).then_some(0o600), existed: false, inherited_acl };
        Ok(TargetFile::new(self.clone(), fd, temporary.to_vec(), found))
    }

    /// Opens the regular file `name` to change parts of it in place.
    ///
    /// # Errors
    /// `Refused` for a hostile name, for what is no regular file, and for a file that has other names as well (which
    /// may lie anywhere): make a new file instead. `Missing` if there is none.
    pub fn open_file(&self, name: &[u8]) -> Result<TargetFile> {
        check_name(name)?;
        let modes = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.inner.directory, name, modes, Mode::empty());
        let opened = match open() {
            Err(Errno::PERM) if self.unlock_entry(name) => open(),
            Err(Errno::ACCESS) if self.make_writable(name) => open(),
            result => result,
        };
        let fd = opened.map_err(|errno| match errno {
            Errno::LOOP | Errno::ISDIR | Errno::NXIO => in_the_way("open", name),
            errno => failed("open", name, errno),
        })?;
        let seen = stat::of(&fd).map_err(|errno| failed("look at", name, errno))?;
        if seen.kind != NodeKind::File || seen.nlink != 1 {
            let message = format!("open {} for writing: not a regular file with one name", shown(name));
            return Err(Error::new(ErrorKind::Refused, message).with_hint("write a new file in its place"));
        }
        let ids = Some((seen.uid, seen.gid));
        let found = Found { ids, mode: Some(seen.mode), existed: true, inherited_acl: false };
        Ok(TargetFile::in_place(self.clone(), fd, name.to_vec(), found))
    }

    /// Puts the node's metadata on the directory itself, after everything in it is done; returns what could not be set.
    pub fn finish(&self, node: &Node) -> Vec<Error> {
        let Inner { directory, settings, seen, existed, gives_acl, .. } = &*self.inner;
        let mut problems = Vec::new();
        let found = Found {
            ids: Some((seen.uid, seen.gid)),
            mode: (!gives_acl).then_some(seen.mode),
            existed: *existed,
            inherited_acl: *gives_acl,
        };
        settings.put(directory.as_fd(), node, found, &mut problems);
        settings.put_flags(directory, node, *existed, &mut problems);
        problems
    }

    /// Waits until everything on the directory's file system is durable.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        let result = rustix::fs::syncfs(&self.inner.directory);
        #[cfg(not(target_os = "linux"))]
        let result = rustix::fs::fsync(&self.inner.directory);
        result.map_err(|errno| failed("make durable", b"the restored files", errno))
    }

    /// Owner and group of a new entry, asked of the first one and the same for all.
    fn ids_of_new(&self, fd: BorrowedFd<'_>) -> Option<(u32, u32)> {
        if let Some(ids) = self.inner.new_ids.get() {
            return Some(*ids);
        }
        let seen = stat::of(fd).ok()?;
        Some(*self.inner.new_ids.get_or_init(|| (seen.uid, seen.gid)))
    }

    /// Owner and group of a new entry, if they are known already.
    pub(super) fn known_ids_of_new(&self) -> Option<(u32, u32)> {
        self.inner.new_ids.get().copied()
    }

    /// Makes the directory; false if there is something of that name.
    fn make_directory(&self, name: &[u8]) -> rustix::io::Result<bool> {
        match self.unlocking(|| rustix::fs::mkdirat(&self.inner.directory, name, Mode::RWXU)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn open_directory(&self, name: &[u8]) -> rustix::io::Result<OwnedFd> {
        let open = || rustix::fs::openat(&self.inner.directory, name, EXISTING, Mode::empty());
        match open() {
            Err(Errno::ACCESS) if self.make_accessible(name, Mode::RWXU) => open(),
            result => result,
        }
    }

    /// Removes what is at `name` if that was asked for.
    pub(super) fn clear_the_way(&self, name: &[u8], doing: &str) -> Result<()> {
        let options = &self.inner.settings.options;
        let is_directory = self.directory().stat(name).is_ok_and(|found| found.kind == NodeKind::Directory);
        match (options.replace, options.empty) {
            (false, _) => return Err(in_the_way(doing, name)),
            (true, true) => self.remove_all(name)?,
            (true, false) if self.remove_alone(name)? => {}
            (true, false) => return Err(filled(doing, name)),
        }
        self.inner.settings.cleared.fetch_add(u64::from(is_directory), Ordering::Relaxed);
        Ok(())
    }

    /// How many directories were removed because they were in the way.
    #[must_use]
    pub fn cleared(&self) -> u64 {
        self.inner.settings.cleared.load(Ordering::Relaxed)
    }

    /// Fails if the directory `name` is in the way and would stay: it holds something, and not `all` may go.
    ///
    /// # Errors
    /// `Refused`; what the system says.
    pub fn verify_clearable(&self, name: &[u8], all: bool) -> Result<()> {
        if all || self.directory().open_child(name)?.names()?.is_empty() {
            return Ok(());
        }
        Err(filled("write", name))
    }

    /// Runs the call, and once more if the directory itself is immutable or append-only and can be unlocked.
    pub(super) fn unlocking<T>(&self, call: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match call() {
            Err(Errno::PERM) if self.unlock() => call(),
            result => result,
        }
    }

    fn unlock(&self) -> bool {
        let lockable = self.inner.existed && !self.inner.asked_for && self.inner.settings.options.flags;
        lockable && unlock(self.inner.directory.as_fd())
    }

    /// Takes the locks off the entry `name`; false if there were none.
    pub(super) fn unlock_entry(&self, name: &[u8]) -> bool {
        self.inner.settings.options.flags && unlock_entry(&self.inner.directory, name)
    }

    fn make_writable(&self, name: &[u8]) -> bool {
        self.make_accessible(name, Mode::RUSR | Mode::WUSR)
    }

    /// Gives the owner of `name` permissions that he took from himself; false if that is not possible.
    fn make_accessible(&self, name: &[u8], mode: Mode) -> bool {
        proc_chmod(self.inner.directory.as_fd(), name, mode)
    }
}

/// The error for something of another kind where a node should be.
pub(super) fn in_the_way(doing: &str, name: &[u8]) -> Error {
    let message = format!("{doing} {}: something of another kind is there", shown(name));
    Error::new(ErrorKind::Refused, message).with_hint("move it away, or allow it to be overwritten")
}

/// The error for a directory that holds something where another kind of node should be.
fn filled(doing: &str, name: &[u8]) -> Error {
    let message = format!("{doing} {}: a directory that is not empty is there", shown(name));
    Error::new(ErrorKind::Refused, message).with_hint("move it away, or let --delete remove it with all that it holds")
}

/// Makes an immutable or append-only file changeable; false if it was.
pub(super) fn unlock(fd: BorrowedFd<'_>) -> bool {
    let locks = flags::get(fd).unwrap_or(0) & flags::LOCKS;
    locks != 0 && flags::set(fd, 0, flags::LOCKS).is_ok()
}

/// The same for an entry that is not open.
pub(super) fn unlock_entry(directory: &Directory, name: &[u8]) -> bool {
    let modes = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, modes, Mode::empty()).is_ok_and(|fd| unlock(fd.as_fd()))
}
