//! From a file to its node: all metadata, without the content.

use super::attributes::{Place, flags, read_xattrs};
use super::directory::{Directory, quietly};
use super::names::{check_name, failed, shown};
use super::owners::Owners;
use super::read::SourceFile;
use super::stat::Stat;
use crate::error::{Error, Result};
use crate::format::tree::{Node, NodeKind};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Mode, OFlags};

/// Which metadata are read beyond those of `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Keep the time of the last reading.
    pub atime: bool,
    /// Keep the times that only the system sets: of the last change of metadata, and of the creation.
    pub changed: bool,
    /// Extended attributes, with ACLs and capabilities.
    pub xattrs: bool,
    /// Inode flags.
    pub flags: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { atime: false, changed: true, xattrs: true, flags: true }
    }
}

impl Directory {
    /// The node of the entry `name`, seen as `stat`, and what could not be read of it.
    ///
    /// A file or directory is opened for its attributes when `options.flags` is set (four system calls), else one
    /// call is made through its path. Where the entry is open anyway, [`SourceFile::node`] and
    /// [`Directory::node_self`] are cheaper: two calls.
    ///
    /// # Errors
    /// `Refused` for a name that is not one entry's; what the system says if a link cannot be read.
    pub fn node(&self, name: &[u8], stat: &Stat, owners: &mut Owners, options: &ReadOptions) -> Result<(Node, Vec<Error>)> {
        check_name(name)?;
        let mut node = base(name, stat, owners, options);
        let mut problems = Vec::new();
        if stat.kind == NodeKind::Symlink {
            let target = rustix::fs::readlinkat(self, name, Vec::with_capacity(128));
            node.target = target.map_err(|errno| failed("read the link", name, errno))?.into_bytes();
        }
        let openable = matches!(stat.kind, NodeKind::File | NodeKind::Directory);
        let by_path = cfg!(target_os = "linux");
        if openable && (options.flags || (options.xattrs && !by_path)) {
            let modes = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = quietly(modes, |flags| rustix::fs::openat(self, name, flags, Mode::empty()));
            if let Ok(fd) = opened {
                attributes(&mut node, fd.as_fd(), options, &mut problems);
                return Ok((node, problems));
            }
        }
        if options.xattrs {
            self.xattrs_by_path(&mut node, &mut problems);
        }
        Ok((node, problems))
    }

    /// The node of this directory itself, which is called `name`, and what could not be read of it.
    pub fn node_self(&self, name: &[u8], stat: &Stat, owners: &mut Owners, options: &ReadOptions) -> (Node, Vec<Error>) {
        let (mut node, mut problems) = (base(name, stat, owners, options), Vec::new());
        attributes(&mut node, self.as_fd(), options, &mut problems);
        (node, problems)
    }

    #[cfg(target_os = "linux")]
    fn xattrs_by_path(&self, node: &mut Node, problems: &mut Vec<Error>) {
        let path = super::directory::proc_path(self.as_fd(), &node.name);
        xattrs(node, Place::Path(&path), problems);
    }

    #[cfg(not(target_os = "linux"))]
    fn xattrs_by_path(&self, _: &mut Node, _: &mut Vec<Error>) {}
}

impl SourceFile {
    /// The node of this file, which is called `name`, as it was when it was opened, and what could not be read of it.
    pub fn node(&self, name: &[u8], owners: &mut Owners, options: &ReadOptions) -> (Node, Vec<Error>) {
        let (mut node, mut problems) = (base(name, self.opened(), owners, options), Vec::new());
        attributes(&mut node, self.as_fd(), options, &mut problems);
        (node, problems)
    }
}

/// What `stat` and the names of the owners give.
fn base(name: &[u8], stat: &Stat, owners: &mut Owners, options: &ReadOptions) -> Node {
    let mut node = Node::new(name.to_vec(), stat.kind);
    node.mode = stat.mode;
    node.uid = stat.uid;
    node.gid = stat.gid;
    node.user = owners.user(stat.uid).to_vec();
    node.group = owners.group(stat.gid).to_vec();
    node.mtime = stat.mtime;
    node.ctime = options.changed.then_some(stat.ctime);
    node.btime = stat.btime.filter(|_| options.changed);
    node.atime = options.atime.then_some(stat.atime);
    if stat.kind == NodeKind::File {
        node.size = stat.size;
    }
    if matches!(stat.kind, NodeKind::CharDevice | NodeKind::BlockDevice) {
        node.device = Some(stat.rdev);
    }
    if stat.nlink > 1 && stat.kind != NodeKind::Directory {
        node.link = Some((stat.dev, stat.ino));
    }
    node
}

fn attributes(node: &mut Node, fd: BorrowedFd<'_>, options: &ReadOptions, problems: &mut Vec<Error>) {
    if options.xattrs {
        xattrs(node, Place::Open(fd), problems);
    }
    if options.flags {
        match flags::get(fd) {
            Ok(found) => node.flags = found,
            Err(errno) => problems.push(failed("read the inode flags of", &node.name, errno)),
        }
    }
}

fn xattrs(node: &mut Node, place: Place<'_>, problems: &mut Vec<Error>) {
    match read_xattrs(place) {
        Ok((found, lost)) => {
            node.xattrs = found;
            for (attribute, errno) in lost {
                let doing = format!("read the extended attribute {} of", shown(&attribute));
                problems.push(failed(&doing, &node.name, errno));
            }
        }
        Err(errno) => problems.push(failed("read the extended attributes of", &node.name, errno)),
    }
}
