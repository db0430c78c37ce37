//! The place that a restore writes to: what it finds there, and how one that was cut off goes on.

use super::{Overwrite, RestoreOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Node, NodeKind};
use crate::source::files::{Target, TargetDir, WriteOptions};

/// Name of the file that says that a restore into its directory is not finished, and of what.
pub(super) const MARKER: &[u8] = b".lifeboat-restore";

/// Where to restore to, and what may be done there.
pub(super) struct Place {
    /// Absent in a dry run into a directory that is not there.
    pub(super) target: Option<TargetDir>,
    pub(super) overwrite: Overwrite,
    /// The same restore was cut off here.
    pub(super) resumed: bool,
    /// Keeps others out; its lock ends with it.
    _lock: Option<TargetDir>,
}

impl Place {
    /// Fails if [`Place::open`] would refuse what is there, and changes nothing.
    ///
    /// # Errors
    /// `Refused`.
    pub(super) fn refuse(options: &RestoreOptions, marker: &str) -> Result<()> {
        let is_filled = std::fs::read_dir(&options.target).is_ok_and(|mut names| names.next().is_some());
        let found = std::fs::read_to_string(options.target.join(".lifeboat-restore")).unwrap_or_default();
        if options.overwrite == Overwrite::Refuse && !options.dry_run && is_filled && found.lines().next() != Some(marker) {
            return Err(not_empty(options));
        }
        Ok(())
    }

    /// Opens the target. `marker` says what is restored into it.
    ///
    /// # Errors
    /// `Refused` if something is there that must not be overwritten, `InUse` if another restore is filling it.
    pub(super) fn open(options: &RestoreOptions, marker: &str) -> Result<Self> {
        let overwrite = options.overwrite;
        if options.dry_run {
            let target = match Target::open(&options.target, false, WriteOptions::default()) {
                Ok(target) => Some(target),
                Err(error) if error.kind() == ErrorKind::Missing => None,
                Err(error) => return Err(error),
            };
            return Ok(Self { target, overwrite, resumed: false, _lock: None });
        }
        let replace = overwrite != Overwrite::Refuse && overwrite != Overwrite::Never;
        let settings = WriteOptions {
            numeric_ids: options.numeric_ids,
            no_owner: options.no_owner,
            xattrs: true,
            flags: true,
            replace,
            // What a directory holds that the snapshot does not know is removed only by whoever asked for that.
            empty: options.delete,
        };
        let target = Target::open(&options.target, true, settings)?;
        target.remove_leftovers()?;
        if overwrite != Overwrite::Refuse {
            return Ok(Self { target: Some(target), overwrite, resumed: false, _lock: None });
        }
        target.lock()?;
        if target.directory().names()?.is_empty() {
            write_marker(&target, marker)?;
            return Ok(Self { target: Some(target.clone()), overwrite: Overwrite::Always, resumed: false, _lock: Some(target) });
        }
        let found = std::fs::read_to_string(options.target.join(".lifeboat-restore")).unwrap_or_default();
        let mut lines = found.lines();
        if lines.next() != Some(marker) {
            return Err(not_empty(options));
        }
        // The same restore was cut off: files that have their names are whole, the others are still missing. What a system
        // that has ended since has not written to its disk is not whole, though it may look so.
        let running = running_system();
        let overwrite =
            if running.is_some() && lines.next() == running.as_deref() { Overwrite::IfChanged } else { Overwrite::Always };
        let resumed = Target::open(&options.target, false, WriteOptions { replace: true, ..settings })?;
        Ok(Self { target: Some(resumed), overwrite, resumed: true, _lock: Some(target) })
    }

    /// How many directories were removed because they were in the way.
    pub(super) fn cleared(&self) -> u64 {
        self.target.as_ref().map_or(0, TargetDir::cleared)
    }

    /// Says that everything is restored.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn finish(&self) -> Result<()> {
        let Some(target) = &self.target else { return Ok(()) };
        match target.directory().stat(MARKER) {
            Ok(_) => target.remove_all(MARKER),
            Err(error) if error.kind() == ErrorKind::Missing => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn not_empty(options: &RestoreOptions) -> Error {
    let message = format!("restore into {}: the directory is not empty", options.target.display());
    let hint = "choose an empty directory, or say what happens to files that are there with --overwrite";
    Error::new(ErrorKind::Refused, message).with_hint(hint)
}

fn write_marker(target: &TargetDir, marker: &str) -> Result<()> {
    let file = target.create_file(&TargetDir::temporary_name())?;
    file.write_at(0, format!("{marker}\n{}\n", running_system().unwrap_or_default()).as_bytes())?;
    let mut node = Node::new(MARKER.to_vec(), NodeKind::File);
    node.mode = 0o600;
    let now = target.directory().stat_self()?;
    (node.uid, node.gid, node.mtime) = (now.uid, now.gid, now.mtime);
    file.finish(&node, MARKER).map(drop)
}

/// Names the running system, as long as it runs, if it has such a name.
fn running_system() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}
