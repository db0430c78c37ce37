//! A directory as a store.
//!
//! An object is written to `tmp/`, synced, and linked to its name, so that whatever is visible is whole and durable.
//! A failed sync is final: the file is thrown away, never synced again, because the kernel may have dropped its pages.

use super::reserve;
use super::temporary::{Temporary, remove_dead};
use super::{Created, Entry, Key, Staged, Store};
use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once};

/// Descriptors of packs that are kept open for ranged reads.
const OPEN_FILES: usize = 32;
/// Bytes after which writing back is started, so that the last sync is short.
const WRITE_BACK_STEP: u64 = 4 << 20;

const FOLDERS: [&str; 7] = ["tmp", "format", "keys", "packs", "log", "index", "gc"];
/// Folders in which an `init` leaves nothing before it comes to its end.
const EMPTY_FOLDERS: [&str; 4] = ["format", "packs", "index", "gc"];

/// A store in a directory.
pub struct Local {
    root: PathBuf,
    open: Mutex<VecDeque<(Key, Arc<File>)>>,
    folders: Arc<Folders>,
    cleaned: Once,
}

/// Folders of the store that are durable, with all folders above them, because this process synced their names.
#[derive(Default)]
struct Folders(Mutex<HashSet<PathBuf>>);

impl Local {
    /// Opens the store in `root`.
    ///
    /// # Errors
    /// `NoRepository` if there is no directory or no repository in it.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self::at(root);
        // Its duplicate is enough to say that there is one.
        let found = fs::symlink_metadata(root.join("format/1"));
        match found.or_else(|error| fs::symlink_metadata(root.join("copies/format/1")).map_err(|_| error)) {
            Ok(_) => Ok(store),
            Err(error) if error.kind() == io::ErrorKind::NotFound && holds_packs(root) => {
                let message = format!("open the repository {}: its format/1 is gone", root.display());
                let hint = "put it back from any copy of the repository: it is one small file, and the same in all of them";
                Err(Error::damaged(message).with_hint(hint))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                let message = format!("open the repository {}: there is none", root.display());
                Err(Error::new(ErrorKind::NoRepository, message)
                    .with_hint(format!("make one with `lifeboat init --repo {}`, or check --repo", root.display())))
            }
            Err(error) => Err(Error::io("open the repository", root.display(), error)),
        }
    }

    /// Fails if something is in the directory that an `init` which did not come to its end does not leave.
    ///
    /// # Errors
    /// `Refused`, or what the system says.
    pub fn verify_vacant(root: &Path) -> Result<()> {
        match is_vacant(root) {
            Ok(true) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("make the repository", root.display(), error)),
            Ok(false) => {
                let message = format!("make the repository {}: the directory is not empty", root.display());
                let hint = "choose an empty directory; if a repository is there already, use it without init";
                Err(Error::new(ErrorKind::Refused, message).with_hint(hint))
            }
        }
    }

    /// Makes the directory and the folders of a store. What an `init` left that did not come to its end is no obstacle.
    ///
    /// # Errors
    /// `Refused` if something is there.
    pub fn create(root: &Path) -> Result<Self> {
        let failed = |error| Error::io("make the repository", root.display(), error);
        let made: Vec<&Path> = root.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(root).map_err(failed)?;
        Self::verify_vacant(root)?;
        for folder in FOLDERS {
            builder.create(root.join(folder)).map_err(failed)?;
        }
        sync_directory(root)?;
        for folder in made {
            sync_made(folder)?;
        }
        Ok(Self::at(root))
    }

    fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), open: Mutex::default(), folders: Arc::default(), cleaned: Once::new() }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn file(&self, key: &Key) -> Result<Arc<File>> {
        let mut open = self.open.lock().expect("no code panics while it holds this lock");
        if let Some(position) = open.iter().position(|(name, _)| name == key) {
            return Ok(open[position].1.clone());
        }
        drop(open);
        let file = Arc::new(self.open_file(key)?);
        open = self.open.lock().expect("no code panics while it holds this lock");
        if open.len() >= OPEN_FILES {
            open.pop_front();
        }
        open.push_back((key.clone(), file.clone()));
        Ok(file)
    }

    fn open_file(&self, key: &Key) -> Result<File> {
        let path = self.path(key);
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).expect("flags fit");
        let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let is_link = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        let file = opened.map_err(|error| match is_link(&error) {
            true => no_file(key),
            false => Error::io("read the object", key, error),
        })?;
        if file.metadata().is_ok_and(|metadata| metadata.is_file()) { Ok(file) } else { Err(no_file(key)) }
    }

    /// What the object is like, `None` if there is none.
    fn look_at(&self, key: &Key) -> Result<Option<fs::Metadata>> {
        match fs::symlink_metadata(self.path(key)) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
            Ok(_) => Err(no_file(key)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at the object", key, error)),
        }
    }

    /// A new temporary file. Before the first one, so that there is room for it, what dead writers left is removed.
    fn temporary(&self) -> Result<StagedFile> {
        self.cleaned.call_once(|| {
            remove_dead(&self.root, None);
            if let Some(now) = Temporary::new(&self.root).ok().and_then(|temporary| temporary.made_at()) {
                remove_dead(&self.root, Some(now));
            }
            // Without it a prune of a full disk takes some space freed by hand.
            let _ = reserve::keep(&self.root);
        });
        let temporary = Temporary::new(&self.root)?;
        Ok(StagedFile { temporary, root: self.root.clone(), folders: self.folders.clone(), written: 0, started: 0 })
    }
}

/// A file in `tmp/`; removed when dropped.
struct StagedFile {
    temporary: Temporary,
    root: PathBuf,
    folders: Arc<Folders>,
    written: u64,
    started: u64,
}

impl StagedFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut file = &self.temporary.file;
        file.write_all(bytes).map_err(|error| Error::io("write to the repository", self.root.display(), error))?;
        self.written += bytes.len() as u64;
        if self.written - self.started >= WRITE_BACK_STEP {
            self.start_write_back();
        }
        Ok(())
    }

    /// Asks the kernel to begin writing what has been appended; only a hint, so its result does not matter.
    #[cfg(target_os = "linux")]
    fn start_write_back(&mut self) {
        use rustix::fs::{Advice, fadvise};
        let length = std::num::NonZeroU64::new(self.written - self.started);
        let _ = fadvise(&self.temporary.file, self.started, length, Advice::DontNeed);
        self.started = self.written;
    }

    #[cfg(not(target_os = "linux"))]
    fn start_write_back(&mut self) {
        self.started = self.written;
    }

    /// Syncs and links to the name; false if the name was taken.
    fn publish(self, key: &Key) -> Result<bool> {
        let failed = |error| Error::io("store the object", key, error);
        self.temporary.file.sync_data().map_err(failed)?;
        let target = self.root.join(key.as_str());
        let folder = target.parent().expect("keys have a folder");
        self.folders.make(folder, &self.root)?;
        let linked = match link(&self.temporary.path, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.folders.known().clear();
                self.folders.make(folder, &self.root)?;
                link(&self.temporary.path, &target)
            }
            other => other,
        };
        match linked {
            Ok(()) => sync_directory(folder).map(|()| true),
            // The winner may have died before its sync of the folder.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => sync_directory(folder).map(|()| false),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Folders {
    fn known(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// Makes sure that there is a folder below `root`, and that its name is durable and those of all above it are. Whoever
    /// else made it may have died before that, or not have come to it yet.
    fn make(&self, folder: &Path, root: &Path) -> Result<()> {
        if self.known().contains(folder) {
            return Ok(());
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| Error::io("make the folder", folder.display(), error))?;
        let below_root = || folder.ancestors().take_while(|folder| *folder != root);
        for folder in below_root() {
            if self.known().contains(folder) {
                break;
            }
            sync_directory(folder.parent().expect("it is below another one"))?;
        }
        self.known().extend(below_root().map(Path::to_owned));
        Ok(())
    }
}

impl Staged for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        self.publish(key).map(drop)
    }
}

/// The error for something else, such as a directory or a link, where an object should be.
fn no_file(key: &Key) -> Error {
    Error::damaged(format!("read the object {key}: it is no file"))
        .with_hint("something else was put in its place in the directory of the repository; move that away")
}

fn cut_off(key: &Key, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::damaged(format!("read the object {key}: it is cut off")),
        _ => Error::io("read the object", key, error),
    }
}

/// Gives the file a second name, failing if that is taken. Both operations are atomic; some file systems lack one of them.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::linkat(rustix::fs::CWD, from, rustix::fs::CWD, to, AtFlags::empty()) {
        Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::MLINK) => rename_new(from, to),
        other => other.map_err(Into::into),
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(Into::into)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn rename_new(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this file system has no hard links"))
}

/// True if there are packs and a log, as in a repository that was used.
fn holds_packs(root: &Path) -> bool {
    let filled = |folder: &str| fs::read_dir(root.join(folder)).is_ok_and(|mut names| names.next().is_some());
    filled("packs") && filled("log") && filled("keys")
}

/// True if there is nothing in the directory but what a store begins with.
fn is_vacant(root: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "lost+found" || name == reserve::NAME {
            continue;
        }
        let known = FOLDERS.iter().any(|folder| name == *folder) && entry.file_type()?.is_dir();
        let empty = EMPTY_FOLDERS.iter().any(|folder| name == *folder);
        if !known || (empty && fs::read_dir(entry.path())?.next().is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the name of a folder durable. Not everybody who may make one may read what it is in; then it has to do as it is.
fn sync_made(folder: &Path) -> Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    match fs::read_dir(above) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        _ => sync_directory(above),
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    match opened.and_then(rustix::fs::fsync) {
        // Some file systems cannot sync a directory and keep its entries by themselves.
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(Error::io("sync the folder", path.display(), error.into())),
    }
}

/// Modification time in nanoseconds since 1970; what a file system shows beyond the range is its end.
fn modified(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

impl Store for Local {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let mut staged = self.temporary()?;
        staged.append(bytes)?;
        staged.publish(key).map(drop)
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        let mut staged = self.temporary()?;
        staged.append(bytes)?;
        Ok(if staged.publish(key)? { Created::New } else { Created::Exists })
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(self.temporary()?))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_file(key)?;
        let size = file.metadata().map_err(|error| Error::io("read the object", key, error))?.len();
        if size > limit {
            return Err(Error::damaged(format!("read the object {key}: {size} bytes are more than it can have")));
        }
        let mut bytes = vec![0; usize::try_from(size).expect("limits are far below the address space")];
        file.read_exact_at(&mut bytes, 0).map_err(|error| cut_off(key, error))?;
        Ok(bytes)
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file(key)?.read_exact_at(buffer, offset).map_err(|error| cut_off(key, error))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        Ok(self.look_at(key)?.map(|metadata| metadata.len()))
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        Ok(self.look_at(key)?.map(|metadata| modified(&metadata)))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut folders = vec![PathBuf::from(prefix)];
        while let Some(folder) = folders.pop() {
            let failed = |error| Error::io("list the objects in", folder.display(), error);
            let entries = match fs::read_dir(self.root.join(&folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let path = folder.join(entry.file_name());
                let metadata = match entry.metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    other => other.map_err(failed)?,
                };
                // Below a name that no object has there is none.
                let Some(key) = path.to_str().and_then(|path| Key::new(path).ok()) else { continue };
                if metadata.is_dir() && path != Path::new("tmp") {
                    folders.push(path);
                } else if metadata.is_file() {
                    each(Entry { key, size: metadata.len(), modified: modified(&metadata) })?;
                }
            }
        }
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        // Another object may take the name, and an open descriptor would keep its room.
        self.open.lock().expect("no code panics while it holds this lock").retain(|(known, _)| known != key);
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("delete the object", key, error)),
            _ => Ok(()),
        }
    }

    fn release_reserve(&self, bytes: u64) -> Result<bool> {
        reserve::release(&self.root, bytes).map_err(|error| Error::io("release the reserve of", self.root.display(), error))
    }

    fn keep_reserve(&self) -> Result<()> {
        reserve::keep(&self.root).map_err(|error| Error::io("keep a reserve in", self.root.display(), error))
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}
