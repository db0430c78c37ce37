//! Buckets that keep versions: what was deleted or overwritten there is still below.
//!
//! Objects are created once, so of several versions the oldest counts; where the name is a hash, the one that has it.

use super::{Mend, Repairer};
use crate::error::{Error, ErrorKind, Result};
use crate::format::log::PackRef;
use crate::id::{ClientId, PackId};
use crate::repo::{Repository, cache};
use crate::store::{AnyStore, Created, Extras, Key, Location, Version};
use std::collections::BTreeMap;

/// Longest small object.
const MAX_SMALL: u64 = 64 << 20;
/// Bytes that are read at a time.
const STEP: usize = 4 << 20;
/// Folders of what is never deleted.
const LASTING: [&str; 2] = ["format", "gc"];
/// The folder of records, of which those go for which a checkpoint stands.
const RECORDS: &str = "log";

/// An object that a reader does not get as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// The version that counts.
    pub version: Version,
    /// It is hidden by a mark of deletion, and not by other bytes.
    pub deleted: bool,
}

impl Covered {
    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> String {
        self.version.key.to_string()
    }
}

/// Hands the bytes of a version over, piece by piece.
pub(super) fn each_piece(extras: &dyn Extras, version: &Version, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; STEP];
    let mut at = 0;
    while at < version.size {
        let step = usize::try_from(version.size - at).unwrap_or(usize::MAX).min(STEP);
        extras.read_version(version, at, &mut buffer[..step])?;
        each(&buffer[..step])?;
        at += step as u64;
    }
    Ok(())
}

/// All of a version, which must be short.
fn whole(extras: &dyn Extras, version: &Version) -> Result<Vec<u8>> {
    if version.size > MAX_SMALL {
        return Err(Error::damaged(format!("read a version of {}: it is longer than it can be", version.key)));
    }
    let mut bytes = Vec::new();
    each_piece(extras, version, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

/// Finds what was deleted or overwritten of what never may be, and with `apply` puts it back. No key is needed. With
/// `records` all records of logs are, those too for which a checkpoint stands: they say nothing then, and do no harm.
///
/// # Errors
/// What the store says. A store that keeps no versions has nothing to find.
pub fn uncover(location: &Location, records: bool, apply: bool) -> Result<Vec<Covered>> {
    let store = location.open_unseen()?;
    let Some(extras) = store.extras() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for folder in LASTING.into_iter().chain(records.then_some(RECORDS)) {
        found.extend(covered(&store, extras, folder)?);
    }
    let mut slots = covered(&store, extras, "keys")?;
    // Slots are removed for good reasons, but never all of them.
    let mut some = false;
    store.list("keys", &mut |_| {
        some = true;
        Ok(())
    })?;
    slots.retain(|slot| !slot.deleted || !some);
    found.extend(slots);
    if apply {
        put_back(&store, extras, &found)?;
    }
    Ok(found)
}

fn put_back(store: &AnyStore, extras: &dyn Extras, found: &[Covered]) -> Result<()> {
    for covered in found {
        let (key, bytes) = (&covered.version.key, whole(extras, &covered.version)?);
        if !covered.deleted {
            store.delete(key)?;
        }
        if store.create(key, &bytes)? == Created::Exists && store.get(key, MAX_SMALL)? != bytes {
            return Err(Error::new(ErrorKind::InUse, format!("put {key} back: somebody else put something there")));
        }
    }
    Ok(())
}

fn covered(store: &AnyStore, extras: &dyn Extras, folder: &str) -> Result<Vec<Covered>> {
    // By object: the version that is seen, and the oldest with bytes, which is the last one.
    let mut objects: BTreeMap<Key, (Option<Version>, Option<Version>)> = BTreeMap::new();
    extras.versions(&format!("{folder}/"), &mut |version| {
        let (newest, oldest) = objects.entry(version.key.clone()).or_default();
        if version.latest {
            *newest = Some(version.clone());
        }
        if !version.deleted {
            *oldest = Some(version);
        }
        Ok(())
    })?;
    let mut found = Vec::new();
    for (key, versions) in objects {
        let (Some(newest), Some(version)) = versions else { continue };
        if newest.id == version.id {
            continue;
        }
        // What was put back is another version with the same bytes.
        if newest.deleted || newest.size != version.size || store.get(&key, MAX_SMALL)? != whole(extras, &version)? {
            found.push(Covered { version, deleted: newest.deleted });
        }
    }
    Ok(found)
}

impl Repository {
    /// Finds the records that were deleted or overwritten and for which no checkpoint stands, and with `apply` puts them
    /// back; then the repository must be opened anew.
    ///
    /// # Errors
    /// What the store says.
    pub fn uncover_records(&self, apply: bool) -> Result<Vec<Covered>> {
        let store = self.store();
        let Some(extras) = store.extras() else { return Ok(Vec::new()) };
        let in_force = cache::checkpoint::in_force(&self.connection())?;
        let staying = cache::checkpoint::staying(&self.connection())?;
        let stays = |place: &(ClientId, u64)| staying.iter().any(|head| (head.client, head.seq) == *place);
        let stands_for = |key: &Key| {
            let place = key.log_seq().filter(|place| !stays(place));
            let floor = place.and_then(|(client, seq)| Some((in_force.as_ref()?.floor(&client)?.seq, seq)));
            floor.is_some_and(|(floor, seq)| seq < floor)
        };
        let mut found = covered(store, extras, RECORDS)?;
        found.retain(|covered| !stands_for(&covered.version.key));
        if apply {
            put_back(store, extras, &found)?;
        }
        Ok(found)
    }

    /// Versions below the newest one of a pack that may be it; none if nobody may look at them.
    pub(in crate::repo) fn older_versions(&self, pack: &PackId, size: u64) -> Vec<Version> {
        let (key, mut versions) = (Key::pack(pack), Vec::new());
        let Some(extras) = self.store().extras() else { return versions };
        let listed = extras.versions(key.as_str(), &mut |version| {
            let fits = version.key == key && !version.deleted && !version.latest && version.size == size;
            versions.extend(fits.then_some(version));
            Ok(())
        });
        if listed.is_ok() { versions } else { Vec::new() }
    }

    /// Reads a part of a pack from one version after the other, until `is_right` takes what was read.
    pub(in crate::repo) fn read_older(
        &self,
        (pack, size): (&PackId, u64),
        offset: u64,
        buffer: &mut Vec<u8>,
        is_right: &mut dyn FnMut(&mut Vec<u8>) -> bool,
    ) -> bool {
        let Some(extras) = self.store().extras() else { return false };
        let versions = self.older_versions(pack, size);
        versions.iter().any(|version| extras.read_version(version, offset, buffer).is_ok() && is_right(buffer))
    }
}

impl Repairer {
    /// A step that puts a pack back from an older version, if one has the hash that is its name.
    pub(super) fn version_of(&self, pack: &PackRef) -> Result<Option<Mend>> {
        let Some(extras) = self.repository.store().extras() else { return Ok(None) };
        for version in self.repository.older_versions(&pack.id, pack.size) {
            let mut hasher = blake3::Hasher::new();
            let read = each_piece(extras, &version, &mut |piece| {
                hasher.update(piece);
                Ok(())
            });
            match read {
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Archived) => return Err(error),
                Ok(()) if *hasher.finalize().as_bytes() == pack.id.0 => {
                    return Ok(Some(Mend::FromVersion(*pack, Box::new(version))));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    pub(super) fn put_version(&self, pack: &PackRef, version: &Version) -> Result<()> {
        let store = self.repository.store().clone();
        let extras =
            store.extras().ok_or_else(|| Error::failed(format!("put {} back: the store has no versions", version.key)))?;
        self.replace(&version.key, Some(pack.id.0), &|each| each_piece(extras, version, each))
    }
}
