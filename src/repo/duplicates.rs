//! Reading small objects from their duplicates where the first ones are gone or damaged.
//!
//! A duplicate is believed as little as the first: it must open, be signed, and follow what lies before it. What was
//! missing and read so is put back before anything is committed behind it.

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::format::repository::{MAX_FORMAT, RepositoryFormat};
use crate::repo::Repository;
use crate::store::{AnyStore, Key};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

/// Longest small object.
const MAX_OBJECT: u64 = 64 << 20;

/// What was read from duplicates.
#[derive(Default)]
pub(super) struct Duplicates {
    used: Mutex<Used>,
    /// Objects that have one, by a listing: made once, where something is missing.
    listed: OnceLock<HashSet<Key>>,
    /// The listing failed.
    unlisted: AtomicBool,
}

#[derive(Default)]
struct Used {
    all: BTreeSet<Key>,
    untold: BTreeSet<Key>,
    /// Those that are missing, with their bytes.
    missing: BTreeMap<Key, Vec<u8>>,
}

impl Duplicates {
    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().expect("no code panics while it holds this lock")
    }

    pub(super) fn note(&self, key: Key) {
        let mut used = self.used();
        if used.all.insert(key.clone()) {
            used.untold.insert(key);
        }
    }
}

/// The format of a repository, from `format/1`, or if that is gone or damaged, from its duplicate. Whose it is has to
/// be seen from the slots.
pub(super) fn read_format(store: &AnyStore, duplicates: &Duplicates) -> Result<(RepositoryFormat, Vec<u8>)> {
    let read = |key: &Key| {
        let bytes = store.get(key, MAX_FORMAT).map_err(|error| match error.kind() {
            ErrorKind::Missing => error,
            _ => error.while_doing("open the repository"),
        })?;
        RepositoryFormat::decode(&bytes).map(|format| (format, bytes))
    };
    read(&Key::format()).or_else(|error| {
        if !matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged | ErrorKind::NoRepository) {
            return Err(error);
        }
        let format = read(&Key::copy_of(&Key::format())).map_err(|_| error)?;
        duplicates.note(Key::format());
        Ok(format)
    })
}

/// The duplicate of `format/1`, if it is there and says something else.
pub(super) fn second_format(store: &AnyStore, first: &[u8]) -> Option<(RepositoryFormat, Vec<u8>)> {
    let bytes = store.get(&Key::copy_of(&Key::format()), MAX_FORMAT).ok().filter(|bytes| bytes != first)?;
    RepositoryFormat::decode(&bytes).ok().map(|format| (format, bytes))
}

impl Repository {
    /// The duplicate of a small object, if a listing shows one and it is as it must be.
    pub(super) fn duplicate_of(&self, key: &Key, is_right: &dyn Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let bytes = self.second_copy(key, is_right)?;
        self.inner.duplicates.note(key.clone());
        Some(bytes)
    }

    /// The same, to look at and not to go by.
    pub(super) fn second_copy(&self, key: &Key, is_right: &dyn Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let listed = self.listed_duplicates().contains(key);
        let bytes = listed.then(|| self.store().get(&Key::copy_of(key), MAX_OBJECT))?;
        bytes.ok().filter(|bytes| is_right(bytes))
    }

    /// Objects that were read from their duplicates.
    pub(super) fn read_from_duplicates(&self) -> BTreeSet<Key> {
        self.inner.duplicates.used().all.clone()
    }

    /// The same for one that is missing: it is put back before anything is committed.
    pub(super) fn duplicate_of_missing(&self, key: &Key, is_right: &dyn Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let bytes = self.duplicate_of(key, is_right)?;
        self.inner.duplicates.used().missing.insert(key.clone(), bytes.clone());
        Some(bytes)
    }

    /// True if it is known which objects have duplicates.
    pub(super) fn knows_duplicates(&self) -> bool {
        self.inner.duplicates.listed.get().is_some() && !self.inner.duplicates.unlisted.load(Ordering::Relaxed)
    }

    fn listed_duplicates(&self) -> &HashSet<Key> {
        let known = &self.inner.duplicates.listed;
        if let Some(listed) = known.get() {
            return listed;
        }
        let mut listed = HashSet::new();
        // Where it fails there are none: the first copies say what is wrong.
        let whole = self.store().list("copies", &mut |entry| {
            listed.extend(entry.key.original());
            Ok(())
        });
        self.inner.duplicates.unlisted.fetch_or(whole.is_err(), Ordering::Relaxed);
        // Several may ask at once; nobody waits for another's answer.
        known.get_or_init(|| listed)
    }

    /// Says which objects were read from their duplicates.
    pub(super) fn tell_of_duplicates(&self, observer: &dyn Observer) {
        for key in std::mem::take(&mut self.inner.duplicates.used().untold) {
            let message =
                format!("{key} is gone or damaged and was read from its duplicate: `lifeboat repair --apply` puts it back");
            observer.observe(Event::Warning(&message));
        }
    }

    /// Puts back what is missing and was read from duplicates: nobody finds what lies behind a gap.
    pub(super) fn fill_gaps(&self) -> Result<()> {
        let missing = std::mem::take(&mut self.inner.duplicates.used().missing);
        for (key, bytes) in &missing {
            if let Err(error) = self.store().create(key, bytes) {
                let error: Error = error.while_doing(format!("put {key} back from its duplicate"));
                self.inner.duplicates.used().missing.extend(missing);
                return Err(error);
            }
        }
        Ok(())
    }
}
