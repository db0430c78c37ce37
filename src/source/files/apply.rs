//! Putting metadata on what was restored.

use super::attributes::{flags, remove_xattr, set_xattr, xattr_names};
use super::names::{failed, permissions, shown};
use super::owners::LocalIds;
use crate::error::{Error, ErrorKind};
use crate::format::tree::{Node, NodeKind, Time};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Gid, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::sync::atomic::AtomicU64;

/// Which metadata are put back, and what may be destroyed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Use the numbers of owner and group, not their names.
    pub numeric_ids: bool,
    /// Leave owner and group to the system.
    pub no_owner: bool,
    /// Extended attributes, with ACLs and capabilities.
    pub xattrs: bool,
    /// Inode flags.
    pub flags: bool,
    /// Remove what is of another kind and in the way, but no directory that holds something; else it is refused.
    pub replace: bool,
    /// With `replace`: such directories too, with all that they hold.
    pub empty: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { numeric_ids: false, no_owner: false, xattrs: true, flags: true, replace: false, empty: false }
    }
}

/// What all directories and files of one restore share.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) options: WriteOptions,
    ids: LocalIds,
    /// Directories that were removed because they were in the way.
    pub(super) cleared: AtomicU64,
}

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// Set user id and set group id.
const SET_ID_BITS: u32 = 0o6000;

/// What is known of an object before its metadata are put on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Owner and group, if they are known.
    pub(super) ids: Option<(u32, u32)>,
    /// Permission bits, if they are known.
    pub(super) mode: Option<u32>,
    /// It was there before and may have attributes and flags of its own.
    pub(super) existed: bool,
    /// It may have got ACLs from its directory.
    pub(super) inherited_acl: bool,
}

impl Settings {
    pub(super) fn new(options: WriteOptions) -> Self {
        Self { options, ids: LocalIds::default(), cleared: AtomicU64::new(0) }
    }

    /// Owner and group that the node gets here, if any are to be set.
    pub(super) fn ids_of(&self, node: &Node) -> Option<(u32, u32)> {
        if self.options.no_owner {
            return None;
        }
        if self.options.numeric_ids {
            return Some((node.uid, node.gid));
        }
        Some((self.ids.user(&node.user, node.uid), self.ids.group(&node.group, node.gid)))
    }

    /// Puts owner, attributes, mode, and times on an open file or directory, in this order: a change of owner clears
    /// capabilities and the set-id bits, a file without write permission takes no attributes, and every other call
    /// would touch the times. Flags come last and elsewhere ([`Settings::put_flags`]): they forbid everything else.
    pub(super) fn put(&self, fd: BorrowedFd<'_>, node: &Node, found: Found, problems: &mut Vec<Error>) {
        let owned = self.put_owner(node, found.ids, problems, |uid, gid| rustix::fs::fchown(fd, uid, gid));
        if self.options.xattrs {
            put_xattrs(fd, node, found, problems);
        }
        let mode = mode_of(node, owned);
        // An ACL that was set or removed has changed the mode as well, and so may have a change of owner.
        let touched = !node.xattrs.is_empty() || found.inherited_acl || found.existed;
        if touched || found.mode != Some(mode) || owned != Owned::Already {
            let result = rustix::fs::fchmod(fd, permissions(mode));
            note(result, "set the mode of", node, problems);
        }
        if let Some(times) = times_of(node, problems) {
            note(rustix::fs::futimens(fd, &times), "set the times of", node, problems);
        }
    }

    /// Sets owner and group if they differ from those `found`; another group than the owner's may be permitted
    /// where the owner is not.
    pub(super) fn put_owner(
        &self,
        node: &Node,
        found: Option<(u32, u32)>,
        problems: &mut Vec<Error>,
        chown: impl Fn(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> Owned {
        let Some((uid, gid)) = self.ids_of(node) else {
            return if found == Some((node.uid, node.gid)) { Owned::Already } else { Owned::Other };
        };
        if found == Some((uid, gid)) {
            return Owned::Already;
        }
        // The highest number means "leave it" to the system, so no file can belong to it.
        if uid == u32::MAX || gid == u32::MAX {
            problems.push(Error::failed(format!("set the owner of {}: {uid}:{gid} cannot own a file", shown(&node.name))));
            return Owned::Other;
        }
        let Err(errno) = chown(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) else { return Owned::Changed };
        let group = chown(None, Some(Gid::from_raw(gid)));
        if group.is_ok() && found.is_some_and(|(known, _)| known == uid) {
            return Owned::Changed;
        }
        problems.push(failed(&format!("set the owner {uid}:{gid} of"), &node.name, errno));
        Owned::Other
    }

    /// Sets the inode flags of an open file or directory.
    pub(super) fn put_flags(&self, fd: impl AsFd, node: &Node, existed: bool, problems: &mut Vec<Error>) {
        if !self.options.flags || (node.flags == 0 && !existed) {
            return;
        }
        if let Err((lost, errno)) = flags::set(fd.as_fd(), node.flags, flags::KEPT)
            && node.flags & lost != 0
        {
            problems.push(failed(&format!("set the inode flags {:#x} of", node.flags & lost), &node.name, errno));
        }
    }

    /// Sets those flags that a file takes only while it is empty; what cannot be set is noted by `put_flags`.
    pub(super) fn put_early_flags(&self, fd: impl AsFd, node: &Node) {
        if self.options.flags && node.flags & flags::EARLY != 0 {
            let _ = flags::set(fd.as_fd(), node.flags, flags::EARLY);
        }
    }
}

/// Whose the object is after its owner was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owned {
    /// The right one's, and it was before.
    Already,
    /// The right one's now.
    Changed,
    /// Somebody else's.
    Other,
}

/// The mode to set. A program that ran as its owner must not run as whoever restores it instead.
pub(super) fn mode_of(node: &Node, owned: Owned) -> u32 {
    let mode = node.mode & 0o7777;
    if owned == Owned::Other && node.kind != NodeKind::Directory { mode & !SET_ID_BITS } else { mode }
}

/// The times to set, the access time only where it was kept.
pub(super) fn times_of(node: &Node, problems: &mut Vec<Error>) -> Option<Timestamps> {
    let valid = |time: &Time| time.nanos < 1_000_000_000;
    if !valid(&node.mtime) || node.atime.as_ref().is_some_and(|atime| !valid(atime)) {
        let message = format!("set the times of {}: more than 999,999,999 nanoseconds", shown(&node.name));
        problems.push(Error::new(ErrorKind::Damaged, message));
        return None;
    }
    let stamp = |time: Time| Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) as _ };
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Some(Timestamps { last_access: node.atime.map_or(omit, stamp), last_modification: stamp(node.mtime) })
}

fn put_xattrs(fd: BorrowedFd<'_>, node: &Node, found: Found, problems: &mut Vec<Error>) {
    if found.existed {
        for name in xattr_names(fd).unwrap_or_default() {
            if !has_xattr(node, &name) && !is_the_systems(&name) {
                let doing = format!("remove the extended attribute {} of", shown(&name));
                note(remove_xattr(fd, &name), &doing, node, problems);
            }
        }
    } else if found.inherited_acl {
        for name in [ACCESS_ACL, DEFAULT_ACL] {
            if !has_xattr(node, name) {
                // Not having one is what is wanted.
                let _ = remove_xattr(fd, name);
            }
        }
    }
    for xattr in &node.xattrs {
        let result = set_xattr(fd, &xattr.name, &xattr.value);
        note_xattr(result, &xattr.name, node, problems);
    }
}

/// True if a new entry of the directory gets an ACL from it.
pub(super) fn gives_acl(fd: BorrowedFd<'_>) -> bool {
    xattr_names(fd).is_ok_and(|names| names.iter().any(|name| name == DEFAULT_ACL))
}

/// True for labels that the security policy here gave, and that only it may take away.
fn is_the_systems(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != b"security.capability"
}

fn has_xattr(node: &Node, name: &[u8]) -> bool {
    node.xattrs.iter().any(|xattr| xattr.name == name)
}

pub(super) fn note(result: rustix::io::Result<()>, doing: &str, node: &Node, problems: &mut Vec<Error>) {
    if let Err(errno) = result {
        problems.push(failed(doing, &node.name, errno));
    }
}

pub(super) fn note_xattr(result: rustix::io::Result<()>, name: &[u8], node: &Node, problems: &mut Vec<Error>) {
    if let Err(errno) = result {
        // Some systems say that an argument is wrong where a file system has no such attributes.
        let errno = if errno == Errno::INVAL && name.starts_with(b"system.") { Errno::OPNOTSUPP } else { errno };
        problems.push(failed(&format!("set the extended attribute {} of", shown(name)), &node.name, errno));
    }
}
