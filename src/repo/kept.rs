//! Parts of objects that this machine has read from a store elsewhere, kept so that they need not be fetched again: sealed
//! as they are in the store, so whoever may not read them there cannot read them here.
//!
//! Only directories, lists of chunks, and pieces of the index are kept; what they are of never changes. A file holds one part
//! behind a hash of it and of what it is a part of, and is believed only if both fit. Anybody may remove any of it at any time.

use crate::repo::Repository;
use crate::store::Key;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// Bytes of the hash in front of each part.
const HASH: usize = 32;
/// A file that is used is touched if it was not touched for this long: what was used least recently goes first.
const TOUCH_SECS: u64 = 60;
/// What is left, in parts of the limit, when there was too much.
const LEFT: (u64, u64) = (9, 10);

/// What is kept of one repository.
pub(super) struct Kept {
    folder: PathBuf,
    limit: u64,
    /// Bytes there are, as far as is known; nobody has looked yet while it is `None`.
    size: Mutex<Option<u64>>,
}

/// What a part is of, and the hash that belongs to its bytes.
fn hash(key: &Key, offset: u64, bytes: &[u8]) -> [u8; HASH] {
    let mut hasher = blake3::Hasher::new_derive_key("lifeboat v1 kept part");
    hasher.update(key.as_str().as_bytes()).update(&[0]).update(&offset.to_le_bytes()).update(bytes);
    *hasher.finalize().as_bytes()
}

impl Kept {
    pub(super) fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit, size: Mutex::new(None) }
    }

    fn path(&self, key: &Key, offset: u64, length: usize) -> PathBuf {
        let name = blake3::hash(format!("{key} {offset} {length}").as_bytes()).to_hex();
        self.folder.join(&name[..2]).join(&name[2..34])
    }

    /// Fills `buffer` with the part of the object that begins at `offset`, if it is kept and whole.
    pub(super) fn read(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> bool {
        let path = self.path(key, offset, buffer.len());
        let Ok(found) = std::fs::read(&path) else { return false };
        let whole = found
            .split_first_chunk::<HASH>()
            .filter(|(expected, bytes)| bytes.len() == buffer.len() && hash(key, offset, bytes) == **expected);
        let Some((_, bytes)) = whole else {
            let _ = std::fs::remove_file(&path);
            return false;
        };
        buffer.copy_from_slice(bytes);
        touch(&path);
        true
    }

    /// True if a part of this length is there; whether it is whole is for [`Kept::read`] to find out.
    pub(super) fn has(&self, key: &Key, offset: u64, length: usize) -> bool {
        std::fs::metadata(self.path(key, offset, length)).is_ok_and(|found| found.len() == (length + HASH) as u64)
    }

    /// Keeps a part that was read and found whole. Where that cannot be, it is not kept.
    pub(super) fn put(&self, key: &Key, offset: u64, bytes: &[u8]) {
        let length = (bytes.len() + HASH) as u64;
        if length > self.limit / 4 {
            return;
        }
        let path = self.path(key, offset, bytes.len());
        if self.write(&path, &hash(key, offset, bytes), bytes).is_ok() {
            self.grow(length);
        }
    }

    fn write(&self, path: &Path, hash: &[u8], bytes: &[u8]) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(hash)?;
        file.write_all(bytes)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Counts what was added; what was used least recently goes if that is too much.
    fn grow(&self, added: u64) {
        let mut size = self.size.lock().expect("no code panics while it holds this lock");
        let known = match *size {
            Some(size) => size + added,
            None => self.files().iter().map(|(_, size, _)| size).sum(),
        };
        *size = Some(if known > self.limit { self.evict() } else { known });
    }

    /// Removes files until there is room again; returns the bytes that are left.
    fn evict(&self) -> u64 {
        let mut files = self.files();
        let mut left: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort_unstable();
        for (_, size, path) in files {
            if left <= self.limit / LEFT.1 * LEFT.0 {
                break;
            }
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
            left = left.saturating_sub(size);
        }
        left
    }

    /// All files: when each was used last, its length, and where it is.
    fn files(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let folders = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let entries = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect()
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.files().iter().map(|(_, size, _)| size).sum()
    }
}

/// Notes that a file was used.
fn touch(path: &Path) {
    let Ok(file) = std::fs::File::open(path) else { return };
    let age = file.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
    if age.is_none_or(|age| age.as_secs() >= TOUCH_SECS) {
        let _ = file.set_modified(SystemTime::now());
    }
}

impl Repository {
    /// Keeps what is read of directories, lists of chunks, and the index on this machine, up to so many bytes. For stores of
    /// which an answer takes long.
    pub fn keep_parts(&self, limit: u64) {
        if limit > 0 {
            let _ = self.inner.kept.set(Kept::new(self.inner.parts.clone(), limit));
        }
    }

    /// Bytes of parts that are kept on this machine.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        Kept::new(self.inner.parts.clone(), 0).bytes()
    }

    /// Removes all parts that are kept.
    ///
    /// # Errors
    /// `Failed` if they cannot be removed.
    pub fn remove_kept_parts(&self) -> crate::error::Result<()> {
        match std::fs::remove_dir_all(&self.inner.parts) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::error::Error::io("remove what is kept in", self.inner.parts.display(), error))
            }
            _ => Ok(()),
        }
    }

    /// Reads everything from the store from now on, because the store is what is looked at.
    pub fn ignore_kept_parts(&self) {
        self.inner.unkept.store(true, Ordering::Relaxed);
    }

    /// What is kept, if anything shall be.
    pub(super) fn kept(&self) -> Option<&Kept> {
        self.inner.kept.get().filter(|_| !self.inner.unkept.load(Ordering::Relaxed))
    }

    /// Reads a part of an object that never changes: from what is kept, or from the store. The second is true if it has to be
    /// kept once it is found to be whole.
    pub(super) fn read_part(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> crate::error::Result<bool> {
        if self.kept().is_some_and(|kept| kept.read(key, offset, buffer)) {
            return Ok(false);
        }
        self.store().read_at(key, offset, buffer).map(|()| self.kept().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_comes_back_as_it_was_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().join("parts"), 1 << 20);
        let (key, other) = (Key::new("packs/ab/cd").unwrap(), Key::new("packs/ab/ce").unwrap());
        let mut buffer = [0; 4];
        assert!(!kept.read(&key, 7, &mut buffer));
        kept.put(&key, 7, b"abcd");
        assert!(kept.read(&key, 7, &mut buffer) && buffer == *b"abcd");
        assert!(!kept.read(&other, 7, &mut buffer) && !kept.read(&key, 8, &mut buffer) && !kept.read(&key, 7, &mut [0; 3]));
        let path = kept.path(&key, 7, 4);
        for damage in [0, HASH, HASH + 3] {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[damage] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert!(!kept.read(&key, 7, &mut buffer) && !path.exists());
            kept.put(&key, 7, b"abcd");
        }
        // A part under another one's name is not taken for it.
        kept.put(&other, 7, b"efgh");
        std::fs::copy(kept.path(&other, 7, 4), &path).unwrap();
        assert!(!kept.read(&key, 7, &mut buffer));
        std::fs::remove_dir_all(folder.path().join("parts")).unwrap();
        assert!(!kept.read(&other, 7, &mut buffer));
        kept.put(&other, 7, b"efgh");
        assert!(kept.read(&other, 7, &mut buffer));
    }

    #[test]
    fn what_was_used_least_recently_goes_when_there_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().to_owned(), 20_000);
        let key = |number: u64| Key::new(format!("packs/{number}")).unwrap();
        let mut buffer = vec![0; 968];
        for number in 0..15 {
            kept.put(&key(number), 0, &[7; 968]);
            let path = kept.path(&key(number), 0, 968);
            let old = SystemTime::now() - std::time::Duration::from_secs(1000 - number);
            std::fs::File::open(path).unwrap().set_modified(old).unwrap();
        }
        assert!(kept.read(&key(0), 0, &mut buffer), "it is the oldest, and now the newest");
        (15..40).for_each(|number| kept.put(&key(number), 0, &[7; 968]));
        assert!(kept.bytes() <= 20_000, "{}", kept.bytes());
        assert!(kept.read(&key(39), 0, &mut buffer) && !kept.read(&key(1), 0, &mut buffer));
        kept.put(&key(50), 0, &vec![0; 6000]);
        assert!(!kept.read(&key(50), 0, &mut vec![0; 6000]), "one part never takes the place of all others");
    }
}
