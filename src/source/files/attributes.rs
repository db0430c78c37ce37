//! Extended attributes and inode flags, as the system keeps them.

use crate::format::tree::Xattr;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// The largest list and the largest value that Linux allows.
#[cfg(target_os = "linux")]
const LARGEST: usize = 64 << 10;

/// Where attributes are read: an open file, or an entry that cannot be opened (reached through `/proc`).
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// An open file.
    Open(BorrowedFd<'a>),
    /// A path whose last part is not followed.
    #[cfg(target_os = "linux")]
    Path(&'a [u8]),
}

/// An attribute that could not be read, and why.
pub(super) type Unread = (Vec<u8>, Errno);

/// Reads all attributes, ascending by name: one system call when there are none, else one more for each.
///
/// Those that cannot be read are named in the second part.
pub(super) fn read_xattrs(place: Place<'_>) -> rustix::io::Result<(Vec<Xattr>, Vec<Unread>)> {
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    let list = match system::list(place) {
        Ok(list) => list,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok((found, lost)),
        Err(errno) => return Err(errno),
    };
    for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match system::get(place, name) {
            Ok(value) => found.push(Xattr { name: name.to_vec(), value }),
            // Removed since the list was read, or listed by a file system that keeps none.
            Err(errno) if errno == system::ABSENT || errno == Errno::OPNOTSUPP => {}
            Err(errno) => lost.push((name.to_vec(), errno)),
        }
    }
    found.sort_unstable();
    Ok((found, lost))
}

/// Names of all attributes of an open file.
pub(super) fn xattr_names(fd: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let list = system::list(Place::Open(fd))?;
    Ok(list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

#[cfg(target_os = "linux")]
mod system {
    use super::{BorrowedFd, Errno, LARGEST, Place};
    use rustix::fs::{XattrFlags, fgetxattr, flistxattr, lgetxattr, llistxattr};
    use std::mem::MaybeUninit;

    /// What a read of an attribute that is not there says.
    pub(super) const ABSENT: Errno = Errno::NODATA;

    pub(super) fn list(place: Place<'_>) -> rustix::io::Result<Vec<u8>> {
        fill(|buffer| match place {
            Place::Open(fd) => Ok(flistxattr(fd, buffer)?.0.to_vec()),
            Place::Path(path) => Ok(llistxattr(path, buffer)?.0.to_vec()),
        })
    }

    pub(super) fn get(place: Place<'_>, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
        fill(|buffer| match place {
            Place::Open(fd) => Ok(fgetxattr(fd, name, buffer)?.0.to_vec()),
            Place::Path(path) => Ok(lgetxattr(path, name, buffer)?.0.to_vec()),
        })
    }

    /// Tries with a small buffer on the stack, then with one that holds whatever the kernel can give.
    fn fill(read: impl Fn(&mut [MaybeUninit<u8>]) -> rustix::io::Result<Vec<u8>>) -> rustix::io::Result<Vec<u8>> {
        match read(&mut [MaybeUninit::uninit(); 512]) {
            Err(Errno::RANGE) => read(Vec::with_capacity(LARGEST).spare_capacity_mut()),
            result => result,
        }
    }

    pub(crate) fn set(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
    }

    pub(crate) fn remove(fd: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::fremovexattr(fd, name)
    }
}

#[cfg(target_os = "macos")]
mod system {
    use super::{BorrowedFd, Errno, Place};
    use rustix::fs::XattrFlags;

    /// What a read of an attribute that is not there says.
    pub(super) const ABSENT: Errno = Errno::NOATTR;

    pub(super) fn list(place: Place<'_>) -> rustix::io::Result<Vec<u8>> {
        let Place::Open(fd) = place;
        let mut list = Vec::with_capacity(rustix::fs::flistxattr(fd, &mut [0_u8; 0])?);
        rustix::fs::flistxattr(fd, rustix::buffer::spare_capacity(&mut list))?;
        Ok(list)
    }

    pub(super) fn get(place: Place<'_>, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
        let Place::Open(fd) = place;
        let mut value = Vec::with_capacity(rustix::fs::fgetxattr(fd, name, &mut [0_u8; 0])?);
        rustix::fs::fgetxattr(fd, name, rustix::buffer::spare_capacity(&mut value))?;
        Ok(value)
    }

    pub(crate) fn set(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
    }

    pub(crate) fn remove(fd: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        rustix::fs::fremovexattr(fd, name)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
mod system {
    use super::{BorrowedFd, Errno, Place};

    /// Never met: nothing is listed.
    pub(super) const ABSENT: Errno = Errno::NOENT;

    pub(super) fn list(_: Place<'_>) -> rustix::io::Result<Vec<u8>> {
        Err(Errno::OPNOTSUPP)
    }

    pub(super) fn get(_: Place<'_>, _: &[u8]) -> rustix::io::Result<Vec<u8>> {
        Err(Errno::OPNOTSUPP)
    }

    pub(crate) fn set(_: BorrowedFd<'_>, _: &[u8], _: &[u8]) -> rustix::io::Result<()> {
        Err(Errno::OPNOTSUPP)
    }

    pub(crate) fn remove(_: BorrowedFd<'_>, _: &[u8]) -> rustix::io::Result<()> {
        Err(Errno::OPNOTSUPP)
    }
}

pub(super) use system::{remove as remove_xattr, set as set_xattr};

/// Sets an attribute of what a descriptor opened with `O_PATH` names, a symbolic link included.
#[cfg(target_os = "linux")]
pub(super) fn set_xattr_held(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    let path = super::directory::proc_path(fd, b"");
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty())
}

/// Inode flags (`FS_*_FL`) that a user can set, and that say how a file is to be treated rather than how it is stored.
#[cfg(target_os = "linux")]
pub(super) mod flags {
    use rustix::fd::BorrowedFd;
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    use rustix::io::Errno;

    const NOCOMP: u32 = 0x400;
    const DAX: u32 = 0x200_0000;
    const CASEFOLD: u32 = 0x4000_0000;
    /// No change and no name more or less is possible while one of these is set.
    pub(crate) const LOCKS: u32 = IFlags::IMMUTABLE.bits() | IFlags::APPEND.bits();
    /// These take effect only when set on an empty file.
    pub(crate) const EARLY: u32 = IFlags::NOCOW.bits() | IFlags::COMPRESSED.bits() | NOCOMP | CASEFOLD;
    /// Those that are kept.
    pub(crate) const KEPT: u32 = IFlags::SECURE_REMOVAL.bits()
        | IFlags::UNRM.bits()
        | IFlags::COMPRESSED.bits()
        | IFlags::SYNC.bits()
        | IFlags::IMMUTABLE.bits()
        | IFlags::APPEND.bits()
        | IFlags::NODUMP.bits()
        | IFlags::NOATIME.bits()
        | NOCOMP
        | IFlags::JOURNALING.bits()
        | IFlags::NOTAIL.bits()
        | IFlags::DIRSYNC.bits()
        | IFlags::TOPDIR.bits()
        | IFlags::NOCOW.bits()
        | DAX
        | IFlags::PROJECT_INHERIT.bits()
        | CASEFOLD;

    /// The kept flags of an open file or directory; none where the file system has none.
    pub(crate) fn get(fd: BorrowedFd<'_>) -> rustix::io::Result<u32> {
        match ioctl_getflags(fd) {
            Ok(flags) => Ok(flags.bits() & KEPT),
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(0),
            Err(errno) => Err(errno),
        }
    }

    /// Makes those flags that are in `mask` equal to `wanted`; returns the ones that could not be set, and why.
    pub(crate) fn set(fd: BorrowedFd<'_>, wanted: u32, mask: u32) -> Result<(), (u32, Errno)> {
        let all = ioctl_getflags(fd).map_err(|errno| (wanted & mask, errno))?.bits();
        let next = (all & !mask) | (wanted & mask);
        if next == all {
            return Ok(());
        }
        let Err(first) = ioctl_setflags(fd, IFlags::from_bits_retain(next)) else { return Ok(()) };
        // One flag that this file system does not have spoils the whole call: try them one by one.
        let (mut reached, mut lost) = (all, 0);
        for bit in (0..32).map(|shift| 1_u32 << shift).filter(|bit| (next ^ all) & bit != 0) {
            let attempt = (reached & !bit) | (next & bit);
            match ioctl_setflags(fd, IFlags::from_bits_retain(attempt)) {
                Ok(()) => reached = attempt,
                Err(_) => lost |= bit,
            }
        }
        if lost == 0 { Ok(()) } else { Err((lost, first)) }
    }
}

/// Other systems keep such flags elsewhere or have none.
#[cfg(not(target_os = "linux"))]
pub(super) mod flags {
    use rustix::fd::BorrowedFd;
    use rustix::io::Errno;

    pub(crate) const LOCKS: u32 = 0;
    pub(crate) const EARLY: u32 = 0;
    pub(crate) const KEPT: u32 = u32::MAX;

    pub(crate) fn get(_: BorrowedFd<'_>) -> rustix::io::Result<u32> {
        Ok(0)
    }

    pub(crate) fn set(_: BorrowedFd<'_>, wanted: u32, mask: u32) -> Result<(), (u32, Errno)> {
        if wanted & mask == 0 { Ok(()) } else { Err((wanted & mask, Errno::OPNOTSUPP)) }
    }
}
