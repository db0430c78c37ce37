//! Removing what a restore finds in its way.

use super::directory::{Directory, proc_chmod};
use super::names::{check_name, failed, permissions, shown};
use super::stat;
use super::write::{TargetDir, unlock, unlock_entry};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::NodeKind;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

/// A directory this far down is moved up and emptied later, so that any depth needs few descriptors.
const DEEPEST: usize = 64;

impl TargetDir {
    /// Removes the entry `name` and everything below it; no link is followed, and what is gone already is no error.
    ///
    /// # Errors
    /// `Refused` for a hostile name; what the system says. What could be removed until then is gone.
    pub fn remove_all(&self, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let mut pending = vec![name.to_vec()];
        while let Some(top) = pending.pop() {
            let base = self.directory();
            let removed = self.unlocking(|| unlink(base, &top)).map_err(|errno| failed("remove", &top, errno))?;
            if !removed {
                Emptying { base, pending: &mut pending }.remove_directory(base, &top, 1)?;
            }
        }
        Ok(())
    }
}

impl TargetDir {
    /// Removes the entry `name`, unless it is a directory that holds something: then it stays, and the answer is false.
    ///
    /// # Errors
    /// `Refused` for a hostile name; what the system says.
    pub(super) fn remove_alone(&self, name: &[u8]) -> Result<bool> {
        check_name(name)?;
        let base = self.directory();
        if self.unlocking(|| unlink(base, name)).map_err(|errno| failed("remove", name, errno))? {
            return Ok(true);
        }
        let remove = || rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR);
        let result = match self.unlocking(remove) {
            Err(Errno::PERM | Errno::ACCESS) if make_changeable(base, name) => remove(),
            result => result,
        };
        match result {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(errno) => Err(failed("remove the directory", name, errno)),
        }
    }
}

struct Emptying<'a> {
    base: &'a Directory,
    /// Directories that were moved up into `base`.
    pending: &'a mut Vec<Vec<u8>>,
}

impl Emptying<'_> {
    fn remove_directory(&mut self, parent: &Directory, name: &[u8], depth: usize) -> Result<()> {
        let opened = match parent.open_child(name) {
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::PermissionDenied) => {
                proc_chmod(parent.as_fd(), name, Mode::RWXU);
                parent.open_child(name)
            }
            result => result,
        };
        let directory = match opened {
            Err(error) if error.kind() == ErrorKind::Missing => return Ok(()),
            result => result?,
        };
        if directory.stat_self()?.dev != self.base.stat_self()?.dev {
            let message = format!("remove the directory {}: another file system is mounted there", shown(name));
            return Err(Error::new(ErrorKind::Refused, message).with_hint("unmount it first, if what is on it may go"));
        }
        let names = directory.names()?;
        for index in 0..names.len() {
            let entry = names.get(index);
            let known_directory = names.kind(index) == Some(NodeKind::Directory);
            if !known_directory && unlink(&directory, entry).map_err(|errno| failed("remove", entry, errno))? {
                continue;
            }
            if depth < DEEPEST {
                self.remove_directory(&directory, entry, depth + 1)?;
            } else {
                self.move_up(&directory, entry)?;
            }
        }
        drop(directory);
        let remove = || rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        let result = match remove() {
            Err(Errno::PERM | Errno::ACCESS) if make_changeable(parent, name) => remove(),
            result => result,
        };
        match result {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove the directory", name, errno)),
        }
    }

    fn move_up(&mut self, from: &Directory, name: &[u8]) -> Result<()> {
        let temporary = TargetDir::temporary_name();
        let rename = || rustix::fs::renameat(from, name, self.base, &temporary);
        let result = match rename() {
            Err(Errno::PERM | Errno::ACCESS) if make_changeable(from, name) => rename(),
            result => result,
        };
        result.map_err(|errno| failed("remove the directory", name, errno))?;
        self.pending.push(temporary);
        Ok(())
    }
}

/// Removes what is not a directory; false if it is one.
fn unlink(directory: &Directory, name: &[u8]) -> rustix::io::Result<bool> {
    let remove = || rustix::fs::unlinkat(directory, name, AtFlags::empty());
    let result = match remove() {
        Err(Errno::PERM | Errno::ACCESS) => {
            // Some systems say so of a directory.
            if stat::at(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.kind == NodeKind::Directory {
                return Ok(false);
            }
            make_changeable(directory, name);
            remove()
        }
        result => result,
    };
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Takes off what keeps an owner or root from removing the entry: locks, and a directory's missing permissions.
fn make_changeable(directory: &Directory, name: &[u8]) -> bool {
    let entry = unlock_entry(directory, name);
    let locked = unlock(directory.as_fd());
    let permitted = stat::of(directory).is_ok_and(|seen| {
        let mode = permissions(seen.mode) | Mode::RWXU;
        seen.mode & 0o300 != 0o300 && rustix::fs::fchmod(directory, mode).is_ok()
    });
    entry || locked || permitted
}
