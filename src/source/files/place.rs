//! Everything that is restored whole: symbolic and hard links, fifos, sockets, devices.

use super::apply::{mode_of, note, times_of};
use super::attributes::flags;
use super::names::{check_name, failed, permissions};
use super::write::{TargetDir, in_the_way, unlock};
use crate::error::{Error, Result};
use crate::format::tree::{Node, NodeKind};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

impl TargetDir {
    /// Makes the symbolic link, fifo, socket, or device `name` with its metadata, replacing a file or link of that
    /// name; returns what could not be set.
    ///
    /// # Errors
    /// `Refused` for a hostile name, or if a directory is there and `replace` was not asked for, or without the right to make
    /// devices; else what the system says.
    pub fn create_special(&self, node: &Node, name: &[u8]) -> Result<Vec<Error>> {
        check_name(name)?;
        let made_at = match self.unlocking(|| self.make(node, name)) {
            Ok(()) => name.to_vec(),
            Err(Errno::EXIST) => {
                let temporary = Self::temporary_name();
                self.make(node, &temporary).map_err(|errno| not_made(node, name, errno))?;
                temporary
            }
            Err(errno) => return Err(not_made(node, name, errno)),
        };
        let mut problems = Vec::new();
        if node.kind == NodeKind::Symlink {
            self.put_on_symlink(node, &made_at, &mut problems);
        } else {
            self.put_on_special(node, &made_at, &mut problems);
        }
        if made_at != name {
            self.move_or_remove(&made_at, name)?;
        }
        Ok(problems)
    }

    /// Makes `name` another name of the file `original_name` in `original`, replacing a file or link of that name.
    ///
    /// # Errors
    /// `Refused` for a hostile name, or if a directory is there and `replace` was not asked for; else what the
    /// system says.
    pub fn link(&self, name: &[u8], original: &Self, original_name: &[u8]) -> Result<()> {
        check_name(name)?;
        check_name(original_name)?;
        let (from, to) = (original.directory(), self.directory());
        let link = |at: &[u8]| self.unlocking(|| rustix::fs::linkat(from, original_name, to, at, AtFlags::empty()));
        let result = match link(name) {
            // An immutable file takes no further name: the lock is taken off and put on again.
            Err(Errno::PERM) => original.while_unlocked(original_name, || link(name)),
            result => result,
        };
        match result {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let temporary = Self::temporary_name();
                let linked = match link(&temporary) {
                    Err(Errno::PERM) => original.while_unlocked(original_name, || link(&temporary)),
                    result => result,
                };
                linked.map_err(|errno| failed("link", name, errno))?;
                self.move_or_remove(&temporary, name)
            }
            Err(errno) => Err(failed("link", name, errno)),
        }
    }

    /// Gives the entry `from` the name `to`, replacing what is there if that is permitted.
    pub(super) fn move_into_place(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let directory = self.directory();
        let rename = || rustix::fs::renameat(directory, from, directory, to);
        let result = match self.unlocking(rename) {
            Err(Errno::PERM) if self.unlock_entry(to) => rename(),
            result => result,
        };
        match result {
            Ok(()) => Ok(()),
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                self.clear_the_way(to, "write")?;
                rename().map_err(|errno| failed("write", to, errno))
            }
            Err(Errno::NOTDIR) => Err(in_the_way("write", to)),
            Err(errno) => Err(failed("write", to, errno)),
        }
    }

    fn move_or_remove(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let moved = self.move_into_place(from, to);
        // Renaming one name of a file to another of its names does nothing, so `from` may still be there.
        let _ = rustix::fs::unlinkat(self.directory(), from, AtFlags::empty());
        moved
    }

    fn make(&self, node: &Node, name: &[u8]) -> rustix::io::Result<()> {
        let directory = self.directory();
        let owner_only = Mode::RUSR | Mode::WUSR;
        let kind = match node.kind {
            NodeKind::Symlink => return rustix::fs::symlinkat(node.target.as_slice(), directory, name),
            NodeKind::Fifo => FileType::Fifo,
            NodeKind::Socket => FileType::Socket,
            NodeKind::CharDevice => FileType::CharacterDevice,
            NodeKind::BlockDevice => FileType::BlockDevice,
            NodeKind::File | NodeKind::Directory => return Err(Errno::INVAL),
        };
        system::make(directory.as_fd(), name, kind, owner_only, node.device.unwrap_or((0, 0)))
    }

    /// A symbolic link has an owner and times of its own, and attributes on some file systems, but no mode.
    fn put_on_symlink(&self, node: &Node, name: &[u8], problems: &mut Vec<Error>) {
        let settings = &self.inner.settings;
        let directory = self.directory();
        settings.put_owner(node, self.known_ids_of_new(), problems, |uid, gid| {
            rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        });
        if settings.options.xattrs && !node.xattrs.is_empty() {
            system::put_xattrs(directory.as_fd(), node, name, problems);
        }
        if let Some(times) = times_of(node, problems) {
            let result = rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
            note(result, "set the times of", node, problems);
        }
    }

    fn put_on_special(&self, node: &Node, name: &[u8], problems: &mut Vec<Error>) {
        let settings = &self.inner.settings;
        let directory = self.directory();
        let owned = settings.put_owner(node, self.known_ids_of_new(), problems, |uid, gid| {
            rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        });
        if settings.options.xattrs && (!node.xattrs.is_empty() || self.inner.gives_acl) {
            system::put_xattrs(directory.as_fd(), node, name, problems);
        }
        let mode = permissions(mode_of(node, owned));
        note(system::set_mode(directory.as_fd(), name, node.kind, mode), "set the mode of", node, problems);
        if let Some(times) = times_of(node, problems) {
            let result = rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
            note(result, "set the times of", node, problems);
        }
    }

    /// Runs the call while the entry is not immutable or append-only, if that can be done.
    fn while_unlocked(&self, name: &[u8], call: impl Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
        let modes = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(self.directory(), name, modes, Mode::empty()) else { return Err(Errno::PERM) };
        let before = flags::get(fd.as_fd())?;
        if !unlock(fd.as_fd()) {
            return Err(Errno::PERM);
        }
        let result = call();
        flags::set(fd.as_fd(), before, flags::LOCKS).map_err(|(_, errno)| errno)?;
        result
    }
}

fn not_made(node: &Node, name: &[u8], errno: Errno) -> Error {
    if errno == Errno::PERM && matches!(node.kind, NodeKind::CharDevice | NodeKind::BlockDevice) {
        let error = failed("make the device", name, errno);
        return error.with_hint("only root may make devices; --exclude leaves them out");
    }
    failed("make", name, errno)
}

/// Calls that take a path reach the entry through a descriptor that holds it, so that nothing put in its place
/// meanwhile is touched.
#[cfg(target_os = "linux")]
mod system {
    use super::super::apply::note_xattr;
    use super::super::attributes::set_xattr_held;
    use super::super::directory::proc_path;
    use super::super::stat;
    use crate::error::Error;
    use crate::format::tree::{Node, NodeKind};
    use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
    use rustix::fs::{FileType, Mode, OFlags, makedev};
    use rustix::io::Errno;

    pub(super) fn make(
        directory: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        mode: Mode,
        device: (u32, u32),
    ) -> rustix::io::Result<()> {
        rustix::fs::mknodat(directory, name, kind, mode, makedev(device.0, device.1))
    }

    fn hold(directory: BorrowedFd<'_>, name: &[u8], kind: NodeKind) -> rustix::io::Result<OwnedFd> {
        let held = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if stat::of(&held)?.kind == kind { Ok(held) } else { Err(Errno::STALE) }
    }

    pub(super) fn put_xattrs(directory: BorrowedFd<'_>, node: &Node, name: &[u8], problems: &mut Vec<Error>) {
        let held = match hold(directory, name, node.kind) {
            Ok(held) => held,
            Err(errno) => return note_xattr(Err(errno), b"(all)", node, problems),
        };
        if node.kind != NodeKind::Symlink {
            // One that came from the directory's default; not having it is what is wanted.
            let _ = rustix::fs::removexattr(proc_path(held.as_fd(), b""), "system.posix_acl_access");
        }
        for xattr in &node.xattrs {
            note_xattr(set_xattr_held(held.as_fd(), &xattr.name, &xattr.value), &xattr.name, node, problems);
        }
    }

    pub(super) fn set_mode(directory: BorrowedFd<'_>, name: &[u8], kind: NodeKind, mode: Mode) -> rustix::io::Result<()> {
        rustix::fs::chmod(proc_path(hold(directory, name, kind)?.as_fd(), b""), mode)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::super::apply::note_xattr;
    use crate::error::Error;
    use crate::format::tree::{Node, NodeKind};
    use rustix::fd::BorrowedFd;
    use rustix::fs::{AtFlags, FileType, Mode};
    use rustix::io::Errno;

    /// No system but Linux makes sockets or devices relative to a directory everywhere; fifos can be made.
    pub(super) fn make(
        directory: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        mode: Mode,
        device: (u32, u32),
    ) -> rustix::io::Result<()> {
        let _ = (directory, name, kind, mode, device);
        Err(Errno::OPNOTSUPP)
    }

    pub(super) fn put_xattrs(_: BorrowedFd<'_>, node: &Node, _: &[u8], problems: &mut Vec<Error>) {
        for xattr in &node.xattrs {
            note_xattr(Err(Errno::OPNOTSUPP), &xattr.name, node, problems);
        }
    }

    pub(super) fn set_mode(directory: BorrowedFd<'_>, name: &[u8], _: NodeKind, mode: Mode) -> rustix::io::Result<()> {
        rustix::fs::chmodat(directory, name, mode, AtFlags::SYMLINK_NOFOLLOW)
    }
}
