//! Stores: named immutable objects in a directory, in memory, or elsewhere.
//!
//! A store never learns what its objects mean. `put` may be repeated, `create` is the one atomic step that
//! commits are built on, and nothing overwrites.

mod address;
mod ahead;
mod aws_files;
mod clouds;
mod extras;
mod far;
mod far_extras;
mod fault;
mod line;
mod local;
mod location;
mod measured;
mod memory;
mod object;
mod offline;
mod promises;
mod reserve;
mod retry;
mod s3_api;
mod s3_extras;
mod settings;
mod sftp;
mod spool;
mod ssh;
mod temporary;
mod throttle;
mod webdav;
mod wire;

pub use ahead::Next;
pub use extras::{ARCHIVES, Asked, Availability, Extras, ObjectState, Removal, Tier, Version, archive, remove, remove_versions};
pub use line::Line;
pub use local::Local;
pub use location::Location;
pub use measured::{Count, Counts, Measured, ObjectClass, Operation};
pub use memory::Memory;
pub use offline::Offline;
pub use promises::Promises;
pub use settings::StoreSettings;

use crate::error::{Error, Result};
use crate::id::{ClientId, IndexId, PackId, SlotId};
use std::fmt;
use std::sync::Arc;

/// Name of an object: `/`-separated parts of `[0-9a-z.]`, relative, never empty, never with a dot first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Key(String);

/// What became of a [`Store::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is there now, durable, with the given bytes.
    New,
    /// Another object had the name already; nothing was changed.
    Exists,
}

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When the store says it was written, nanoseconds since 1970.
    pub modified: i64,
}

/// An object that is written in steps and gets its name at the end. Dropped before that, it leaves nothing.
pub trait Staged: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// `Full`, `Failed`.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes the object durable and visible under `key`. An object that is there already is kept.
    ///
    /// # Errors
    /// `Full`, `Failed`; then nothing is visible.
    fn finish(self: Box<Self>, key: &Key) -> Result<()>;
}

/// A place that keeps named immutable objects. All methods may be called from many threads.
pub trait Store: Send + Sync {
    /// Puts a whole object whose name is the hash of its bytes; one that is there already is kept. Durable on return.
    ///
    /// # Errors
    /// `Full`, `Failed`.
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()>;

    /// Creates an object if there is none of that name, atomically, durable on return.
    ///
    /// # Errors
    /// `Full`, `Failed`; then it is unknown whether the object is there.
    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created>;

    /// Begins an object that is written in steps.
    ///
    /// # Errors
    /// `Full`, `Failed`.
    fn stage(&self) -> Result<Box<dyn Staged>>;

    /// Begins an object that is read for a restore alone, and may lie in a class of storage that is cheap and slow.
    ///
    /// # Errors
    /// `Full`, `Failed`.
    fn stage_cold(&self) -> Result<Box<dyn Staged>> {
        self.stage()
    }

    /// The whole object, if it is no longer than `limit` bytes.
    ///
    /// # Errors
    /// `Missing`; `Damaged` if it is longer than `limit`; `Failed`.
    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>>;

    /// Reads `buffer.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// `Missing`; `Damaged` if the object ends before; `Failed`.
    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Size of an object, `None` if there is none.
    ///
    /// # Errors
    /// `Failed`.
    fn size(&self, key: &Key) -> Result<Option<u64>>;

    /// When the store says the object was written, nanoseconds since 1970 by the store's own clock; `None` if there is
    /// none.
    ///
    /// # Errors
    /// `Failed`.
    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        let folder = key.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut found = None;
        self.list(folder, &mut |entry| {
            if entry.key == *key {
                found = Some(entry.modified);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `each` for every object under `prefix` (a folder such as `packs`, or empty for all), in no order.
    ///
    /// # Errors
    /// `Failed`, or what `each` returns.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;

    /// Deletes an object; one that is not there is deleted already.
    ///
    /// # Errors
    /// `Failed`, `Refused`.
    fn delete(&self, key: &Key) -> Result<()>;

    /// Gives up so many bytes of what the store keeps back for the day on which it is full; true if there was something.
    ///
    /// # Errors
    /// `Failed`.
    fn release_reserve(&self, _bytes: u64) -> Result<bool> {
        Ok(false)
    }

    /// Keeps something back again, as much as there is room for.
    ///
    /// # Errors
    /// `Full`, `Failed`.
    fn keep_reserve(&self) -> Result<()> {
        Ok(())
    }

    /// The place in words, for messages.
    fn describe(&self) -> String;

    /// The same as [`Store::create`]; if it creates the object, a store that answers late may ask for what is read next as
    /// soon as the object is there, and before it has made sure of it.
    ///
    /// # Errors
    /// As `create`.
    fn create_then(&self, key: &Key, bytes: &[u8], _next: &Next) -> Result<Created> {
        self.create(key, bytes)
    }

    /// Says what is read next, each once: a store that answers late may ask for it now, unless it has done so already.
    fn expect(&self, _next: &Next) {}

    /// From now on nothing counts that was read earlier: what was expected and not read is asked for anew. Listings stay, as
    /// they may lag behind anyway.
    fn expect_nothing(&self) {}

    /// Requests that are worth having under way at once; 1 for a store that answers at once.
    fn width(&self) -> usize {
        1
    }

    /// What a probe found, if there was one.
    fn promises(&self) -> Option<Promises> {
        None
    }

    /// What it has besides objects, if it has anything.
    fn extras(&self) -> Option<&dyn Extras> {
        None
    }

    /// Finds out what the store keeps of what a repository needs; `None` for stores that keep it by their nature.
    ///
    /// # Errors
    /// `Failed`; `Refused` if the store can hold no repository.
    fn probe(&self) -> Result<Option<Promises>> {
        Ok(None)
    }
}

/// A handle to some store.
pub type AnyStore = Arc<dyn Store>;

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Key {
    /// The key written as `text`.
    ///
    /// # Errors
    /// `Damaged` if it is not a relative name of lower-case letters, digits, dots, and slashes.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'.'))
                && !part.starts_with('.')
        };
        if text.len() > 200 || !text.split('/').all(part) {
            return Err(Error::damaged(format!("use the object name {text:?}: not a name of this format")));
        }
        Ok(Self(text))
    }

    /// `format/1`.
    #[must_use]
    pub fn format() -> Self {
        Self("format/1".into())
    }

    /// A key slot.
    #[must_use]
    pub fn slot(id: &SlotId) -> Self {
        Self(format!("keys/{id}.age"))
    }

    /// A pack.
    #[must_use]
    pub fn pack(id: &PackId) -> Self {
        let name = id.to_string();
        Self(format!("packs/{}/{name}", &name[..2]))
    }

    /// A record of a log.
    #[must_use]
    pub fn log(client: &ClientId, seq: u64) -> Self {
        Self(format!("log/{client}/{seq:016x}"))
    }

    /// What a prune condemns.
    #[must_use]
    pub fn condemn(generation: u64) -> Self {
        Self(format!("gc/{generation:016x}.condemn"))
    }

    /// What a prune may delete.
    #[must_use]
    pub fn plan(generation: u64) -> Self {
        Self(format!("gc/{generation:016x}.plan"))
    }

    /// An index object.
    #[must_use]
    pub fn index(id: &IndexId) -> Self {
        Self(format!("index/{id}"))
    }

    /// The parity of one part of a pack.
    #[must_use]
    pub fn parity(pack: &PackId, group: u64) -> Self {
        Self(format!("parity/{pack}.{group}"))
    }

    /// The head and the table of contents of a pack that must be thawed before it can be read.
    #[must_use]
    pub fn contents(pack: &PackId) -> Self {
        Self(format!("contents/{pack}"))
    }

    /// The pack whose head and table of contents this names, if it does.
    #[must_use]
    pub fn contents_of(&self) -> Option<PackId> {
        PackId::from_hex(self.0.strip_prefix("contents/")?).ok()
    }

    /// The second copy of a small object that much depends on.
    #[must_use]
    pub fn copy_of(key: &Self) -> Self {
        Self(format!("copies/{key}"))
    }

    /// The object that this is the second copy of, if it is one.
    #[must_use]
    pub fn original(&self) -> Option<Self> {
        self.0.strip_prefix("copies/").and_then(|name| Self::new(name).ok())
    }

    /// The pack and the part of it whose parity this names, if it names one.
    #[must_use]
    pub fn parity_of(&self) -> Option<(PackId, u64)> {
        let (pack, group) = self.0.strip_prefix("parity/")?.split_once('.')?;
        let found = (PackId::from_hex(pack).ok()?, group.parse().ok()?);
        (Self::parity(&found.0, found.1) == *self).then_some(found)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pack that this names, if it names one.
    #[must_use]
    pub fn pack_id(&self) -> Option<PackId> {
        let id = PackId::from_hex(self.0.rsplit('/').next()?).ok()?;
        (Self::pack(&id) == *self).then_some(id)
    }

    /// The place in its log of the record that this names, if it names one.
    #[must_use]
    pub fn log_seq(&self) -> Option<(ClientId, u64)> {
        let (client, seq) = self.0.strip_prefix("log/")?.split_once('/')?;
        let place = (ClientId::from_hex(client).ok()?, u64::from_str_radix(seq, 16).ok()?);
        (Self::log(&place.0, place.1) == *self).then_some(place)
    }

    /// The slot that this names, if it names one.
    #[must_use]
    pub fn slot_id(&self) -> Option<SlotId> {
        let id = SlotId::from_hex(self.0.strip_prefix("keys/")?.strip_suffix(".age")?).ok()?;
        (Self::slot(&id) == *self).then_some(id)
    }
}
