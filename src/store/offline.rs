//! A store that cannot be reached: what is needed to open a repository was kept on this machine, and nothing else is there.

use super::{AnyStore, Created, Entry, Key, Staged, Store};
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// What is kept of the store at some place, in a folder with a file for each object.
pub struct Offline {
    folder: PathBuf,
    place: String,
}

impl Offline {
    /// A store that has what is in `folder`.
    #[must_use]
    pub fn open(folder: PathBuf, place: String) -> AnyStore {
        Arc::new(Self { folder, place })
    }

    /// The file of an object.
    #[must_use]
    pub fn file_of(key: &Key) -> String {
        key.as_str().replace('/', "-")
    }

    fn unreachable(&self, doing: &str, key: &str) -> Error {
        Error::failed(format!("{doing} {key}: {} cannot be reached, and this is not kept on this machine", self.place))
            .with_hint("once the store answers again, run the same command again")
            .unreachable()
    }
}

impl Store for Offline {
    fn put(&self, key: &Key, _: &[u8]) -> Result<()> {
        Err(self.unreachable("put", key.as_str()))
    }

    fn create(&self, key: &Key, _: &[u8]) -> Result<Created> {
        Err(self.unreachable("create", key.as_str()))
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Err(self.unreachable("put", "an object"))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        let bytes = std::fs::read(self.folder.join(Self::file_of(key))).map_err(|_| self.unreachable("get", key.as_str()))?;
        if bytes.len() as u64 > limit {
            return Err(Error::damaged(format!("get {key}: it is longer than it can be")));
        }
        Ok(bytes)
    }

    fn read_at(&self, key: &Key, _: u64, _: &mut [u8]) -> Result<()> {
        Err(self.unreachable("read", key.as_str()))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        Err(self.unreachable("look at", key.as_str()))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        if prefix != "keys" {
            return Err(self.unreachable("list", prefix));
        }
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().replacen('-', "/", 1);
            let key = Key::new(name).ok().filter(|key| key.slot_id().is_some());
            let Some(key) = key else { continue };
            each(Entry { key, size: entry.metadata().map_or(0, |metadata| metadata.len()), modified: 0 })?;
        }
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        Err(self.unreachable("delete", key.as_str()))
    }

    fn describe(&self) -> String {
        self.place.clone()
    }
}
