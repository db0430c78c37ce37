//! What one system call tells about a file.

use super::directory::Directory;
use super::names::failed;
use crate::error::Result;
use crate::format::tree::{NodeKind, Time};
use rustix::fd::AsFd;
use rustix::fs::AtFlags;

/// Everything that `statx` (or `fstatat`) says of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes; of a symbolic link the length of its target.
    pub size: u64,
    /// Number of names.
    pub nlink: u64,
    /// Device of the file system.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Major and minor number, of a device.
    pub rdev: (u32, u32),
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the metadata.
    pub ctime: Time,
    /// Creation, where the file system keeps it.
    pub btime: Option<Time>,
    /// Last reading.
    pub atime: Time,
    /// Room taken, in units of 512 bytes.
    pub blocks: u64,
    /// The mount, where the kernel tells it.
    pub mount_id: Option<u64>,
    /// Linux `STATX_ATTR_*` bits that are set.
    pub attributes: u64,
    /// Linux `STATX_ATTR_*` bits that the file system knows.
    pub attributes_mask: u64,
}

impl Stat {
    /// True if the file may have holes, so that asking for them is worth two system calls.
    #[must_use]
    pub fn may_have_holes(&self) -> bool {
        self.kind == NodeKind::File && self.blocks.saturating_mul(512) < self.size
    }

    /// True if both describe the same file, whatever its content.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.ino == other.ino && self.dev == other.dev && self.kind == other.kind
    }

    /// True if nothing says that the content changed between the two looks at one file.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.same_file(other) && self.size == other.size && self.mtime == other.mtime && self.ctime == other.ctime
    }
}

impl Directory {
    /// Looks at the entry `name`, not following a symbolic link: one system call.
    ///
    /// # Errors
    /// `Missing` if there is no such entry.
    pub fn stat(&self, name: &[u8]) -> Result<Stat> {
        at(self.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| failed("look at", name, errno))
    }

    /// Looks at the directory itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn stat_self(&self) -> Result<Stat> {
        of(self.as_fd()).map_err(|errno| failed("look at", b"the directory", errno))
    }
}

/// Looks at an open file.
pub(super) fn of(fd: impl AsFd) -> rustix::io::Result<Stat> {
    #[cfg(target_os = "linux")]
    return at(fd, b"", AtFlags::EMPTY_PATH);
    #[cfg(not(target_os = "linux"))]
    return Ok(portable::from_stat(&rustix::fs::fstat(fd)?));
}

#[cfg(target_os = "linux")]
pub(super) fn at(dir: impl AsFd, name: &[u8], flags: AtFlags) -> rustix::io::Result<Stat> {
    use rustix::fs::{StatxFlags, StatxTimestamp, makedev, statx};

    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let found = statx(dir, name, flags | AtFlags::NO_AUTOMOUNT, wanted)?;
    let has = |flag: StatxFlags| found.stx_mask & flag.bits() != 0;
    let time = |stamp: StatxTimestamp| Time { secs: stamp.tv_sec, nanos: stamp.tv_nsec };
    Ok(Stat {
        kind: kind_of(rustix::fs::FileType::from_raw_mode(u32::from(found.stx_mode))),
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        size: found.stx_size,
        nlink: u64::from(found.stx_nlink),
        dev: makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
        rdev: (found.stx_rdev_major, found.stx_rdev_minor),
        mtime: time(found.stx_mtime),
        ctime: time(found.stx_ctime),
        btime: has(StatxFlags::BTIME).then(|| time(found.stx_btime)),
        atime: time(found.stx_atime),
        blocks: found.stx_blocks,
        mount_id: has(StatxFlags::MNT_ID).then_some(found.stx_mnt_id),
        attributes: found.stx_attributes.bits(),
        attributes_mask: found.stx_attributes_mask.bits(),
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn at(dir: impl AsFd, name: &[u8], flags: AtFlags) -> rustix::io::Result<Stat> {
    Ok(portable::from_stat(&rustix::fs::statat(dir, name, flags)?))
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use super::{Stat, Time, kind_of};
    use rustix::fs::{FileType, major, minor};

    #[expect(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the widths of these fields differ by system")]
    pub(super) fn from_stat(found: &rustix::fs::Stat) -> Stat {
        let time = |secs: i64, nanos: i64| Time { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Stat {
            kind: kind_of(FileType::from_raw_mode(found.st_mode)),
            mode: u32::from(found.st_mode) & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
            size: u64::try_from(found.st_size).unwrap_or(0),
            nlink: u64::from(found.st_nlink),
            dev: found.st_dev as u64,
            ino: u64::from(found.st_ino),
            rdev: (major(found.st_rdev as _), minor(found.st_rdev as _)),
            mtime: time(found.st_mtime.into(), found.st_mtime_nsec.into()),
            ctime: time(found.st_ctime.into(), found.st_ctime_nsec.into()),
            #[cfg(target_os = "macos")]
            btime: Some(time(found.st_birthtime.into(), found.st_birthtime_nsec.into())),
            #[cfg(not(target_os = "macos"))]
            btime: None,
            atime: time(found.st_atime.into(), found.st_atime_nsec.into()),
            blocks: u64::try_from(found.st_blocks).unwrap_or(0),
            mount_id: None,
            attributes: 0,
            attributes_mask: 0,
        }
    }
}

/// What kind of node a file of that type is; types unknown to the format count as sockets, which have no content.
fn kind_of(kind: rustix::fs::FileType) -> NodeKind {
    use rustix::fs::FileType as Type;
    match kind {
        Type::RegularFile => NodeKind::File,
        Type::Directory => NodeKind::Directory,
        Type::Symlink => NodeKind::Symlink,
        Type::Fifo => NodeKind::Fifo,
        Type::CharacterDevice => NodeKind::CharDevice,
        Type::BlockDevice => NodeKind::BlockDevice,
        Type::Socket | Type::Unknown => NodeKind::Socket,
    }
}
