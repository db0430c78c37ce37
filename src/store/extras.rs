//! What object stores have besides objects: classes that must be thawed before they can be read, retention, and older
//! versions of an object.

use super::{Key, Store};
use crate::error::{ErrorKind, Result};
use std::fmt;

/// Whether an object can be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Ready,
    /// It must be thawed first.
    Archived,
    /// It is being thawed.
    Thawing,
    /// It was thawed and can be read until then, nanoseconds since 1970.
    Thawed(i64),
}

impl Availability {
    /// True if it can be read now.
    #[must_use]
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Ready | Self::Thawed(_))
    }
}

/// How fast an archived object is thawed; what is slower is cheaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Within half a day or two days, by class of storage.
    Bulk,
    /// Within hours.
    Standard,
    /// Within minutes, and not from every class.
    Expedited,
}

impl fmt::Display for Tier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Bulk => "bulk",
            Self::Standard => "standard",
            Self::Expedited => "expedited",
        })
    }
}

/// What a store says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectState {
    /// Its length.
    pub size: u64,
    /// Class of storage, in upper case.
    pub class: String,
    /// Whether it can be read.
    pub availability: Availability,
    /// Until when nobody may delete it, nanoseconds since 1970.
    pub locked_until: Option<i64>,
    /// True if that lock is one that nobody may lift.
    pub is_strict: bool,
}

/// One version of an object in a bucket that keeps them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// The object.
    pub key: Key,
    /// Name of the version.
    pub id: String,
    /// Length.
    pub size: u64,
    /// When it was put, nanoseconds since 1970.
    pub modified: i64,
    /// True for the one that a reader gets who names no version.
    pub latest: bool,
    /// True for a mark that the object was deleted; older versions are still there.
    pub deleted: bool,
}

/// What became of a request to thaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It was asked for now.
    New,
    /// Somebody asked before, and it is not done.
    Before,
    /// It can be read already.
    Ready,
}

/// Stores that have it, offer it by [`Store::extras`].
pub trait Extras: Send + Sync {
    /// The class of storage of objects that are read for a restore alone, in upper case, if one was named.
    fn cold_class(&self) -> Option<&str>;

    /// Days for which what is put must be kept from being deleted; `None` if nothing was asked for.
    fn lock_days(&self) -> Option<u32>;

    /// Days ahead up to which a lock may reach that is lengthened for a snapshot's own retention; no less than
    /// [`Extras::lock_days`].
    fn lock_limit(&self) -> Option<u32>;

    /// What there is of an object, `None` if there is none.
    ///
    /// # Errors
    /// `Failed`, `Refused`.
    fn state(&self, key: &Key) -> Result<Option<ObjectState>>;

    /// Asks for an archived object to be readable for so many days. Asking twice is fine.
    ///
    /// # Errors
    /// `Failed`, `Refused`; `Unsupported` if that tier is not to be had.
    fn thaw(&self, key: &Key, tier: Tier, days: u32) -> Result<Asked>;

    /// Keeps an object from being deleted until then, nanoseconds since 1970; to lock it for less than before is for no
    /// caller to do. `is_strict` if it is locked so that nobody may lift it: that cannot become less.
    ///
    /// # Errors
    /// `Failed`, `Refused`.
    fn lock_until(&self, key: &Key, until: i64, is_strict: bool) -> Result<()>;

    /// Calls `each` for every version of the objects whose names begin with `prefix`, the newest of each object first.
    ///
    /// # Errors
    /// `Failed`, or what `each` returns. A store without versions has none.
    fn versions(&self, prefix: &str, each: &mut dyn FnMut(Version) -> Result<()>) -> Result<()>;

    /// Reads `buffer.len()` bytes of a version from `offset` on.
    ///
    /// # Errors
    /// `Missing`; `Damaged` if it ends before; `Failed`.
    fn read_version(&self, version: &Version, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Deletes one version for good; a mark of deletion too, so that the version below it is seen again.
    ///
    /// # Errors
    /// `Refused` if it is locked, `Failed`.
    fn delete_version(&self, version: &Version) -> Result<()>;
}

/// Classes of storage from which nothing can be read before it is thawed.
pub const ARCHIVES: &[&str] = &["GLACIER", "DEEP_ARCHIVE"];

/// The extras of a store into which packs are put that must be thawed before they can be read.
#[must_use]
pub fn archive(store: &dyn Store) -> Option<&dyn Extras> {
    store.extras().filter(|extras| extras.cold_class().is_some_and(|class| ARCHIVES.contains(&class)))
}

/// What became of an object that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Gone,
    /// It is locked until then, nanoseconds since 1970, as far as that is known.
    Locked(Option<i64>),
}

/// Deletes an object for good: where versions are kept and locked, all of them, once they may go. What is locked is left
/// as it is, and no mark is put on it.
///
/// # Errors
/// `Failed`, `Refused`.
pub fn remove(store: &dyn Store, key: &Key, now: i64) -> Result<Removal> {
    match store.extras().and_then(Extras::lock_days) {
        Some(_) => remove_versions(store, key, now),
        None => store.delete(key).map(|()| Removal::Gone),
    }
}

/// The same with all versions of the object in every store that keeps some: its name is of those of which the first
/// version counts, and nobody is to put it back.
///
/// # Errors
/// `Failed`, `Refused`.
pub fn remove_versions(store: &dyn Store, key: &Key, now: i64) -> Result<Removal> {
    let Some(extras) = store.extras() else { return store.delete(key).map(|()| Removal::Gone) };
    if extras.lock_days().is_some()
        && let Some(until) = extras.state(key)?.and_then(|state| state.locked_until)
        && until > now
    {
        return Ok(Removal::Locked(Some(until)));
    }
    let mut versions = Vec::new();
    let listed = extras.versions(key.as_str(), &mut |version| {
        versions.extend((version.key == *key).then_some(version));
        Ok(())
    });
    match listed {
        // Where they were not listed for once, a deletion would only put a mark over those that there are.
        Err(error) if error.is_unreachable() || error.kind() == ErrorKind::Interrupted => return Err(error),
        Err(_) => return store.delete(key).map(|()| Removal::Gone),
        Ok(()) if versions.is_empty() => return store.delete(key).map(|()| Removal::Gone),
        Ok(()) => {}
    }
    // The marks last: while one is there, nobody takes what is left below it for the object.
    versions.sort_by_key(|version| version.deleted);
    for version in versions {
        match extras.delete_version(&version) {
            Err(error) if error.kind() == ErrorKind::Refused => return Ok(Removal::Locked(None)),
            other => other?,
        }
    }
    Ok(Removal::Gone)
}
