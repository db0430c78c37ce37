//! Putting whole objects in the place of damaged ones.

use super::{Mend, Repairer};
use crate::error::{Error, ErrorKind, Result};
use crate::format::envelope::ObjectKind;
use crate::format::log::{MAX_RECORD, PackRef};
use crate::format::repository::MAX_FORMAT;
use crate::repo::log::object_hash;
use crate::repo::sealed::open_object;
use crate::repo::{PackList, PackSet, Repository, cache};
use crate::store::{AnyStore, Key};

/// Longest object that is no pack.
const MAX_SMALL: u64 = 64 << 20;
/// Bytes that are copied at a time.
const STEP: usize = 4 << 20;

/// Writes the bytes of an object, piece by piece.
type Source<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;

fn each_piece(store: &AnyStore, key: &Key, size: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; STEP];
    let mut at = 0;
    while at < size {
        let step = usize::try_from(size - at).unwrap_or(usize::MAX).min(STEP);
        store.read_at(key, at, &mut buffer[..step])?;
        each(&buffer[..step])?;
        at += step as u64;
    }
    Ok(())
}

/// Puts what `source` gives under `key`, if it has the hash that it should have.
fn write(store: &AnyStore, key: &Key, hash: Option<[u8; 32]>, source: Source<'_>) -> Result<()> {
    let mut staged = store.stage()?;
    let mut hasher = blake3::Hasher::new();
    source(&mut |bytes| {
        hasher.update(bytes);
        staged.write(bytes)
    })?;
    if hash.is_some_and(|hash| hash != *hasher.finalize().as_bytes()) {
        return Err(Error::damaged(format!("mend {key}: what was found is not what its name says")));
    }
    staged.finish(key)
}

impl Repository {
    /// True if `bytes` are what belongs under `key`: opened, signed, or of the hash that was seen.
    fn is_right(&self, key: &Key, bytes: &[u8]) -> Result<bool> {
        if *key == Key::format() {
            return Ok(bytes == self.inner.format.encode());
        }
        if let Some((client, seq)) = key.log_seq() {
            let seen = self.seen_heads()?;
            let is_seen = |hash| seen.iter().all(|head| (head.client, head.seq) != (client, seq) || head.hash == hash);
            let record = self.open_record(bytes);
            return Ok(record.is_ok_and(|record| (record.client, record.seq) == (client, seq)) && is_seen(object_hash(bytes)));
        }
        if key.slot_id().is_some() {
            return Ok(!crate::crypto::wrap::recipient_kinds(bytes).is_empty());
        }
        for row in cache::prune::all(&self.connection())? {
            let objects = [
                (Key::condemn(row.generation), ObjectKind::Condemn, row.condemn),
                (Key::plan(row.generation), ObjectKind::Plan, row.plan),
            ];
            for (known, kind, hash) in objects {
                if known == *key {
                    return Ok(hash == Some(object_hash(bytes)) && open_object(self.keys(), kind, bytes).is_ok());
                }
            }
        }
        Ok(false)
    }
}

impl Repairer {
    /// True if the object at `key` in `store` is what belongs under `name`.
    pub(super) fn is_good(&self, store: &AnyStore, key: &Key, name: &Key) -> Result<bool> {
        let limit = if *name == Key::format() { MAX_FORMAT } else { MAX_SMALL };
        match store.get(key, limit) {
            Ok(bytes) => self.repository.is_right(name, &bytes),
            Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn hash_of(&self, store: &AnyStore, key: &Key, size: u64) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let read = each_piece(store, key, size, &mut |bytes| {
            hasher.update(bytes);
            Ok(())
        });
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => Ok([0; 32]),
            other => other.map(|()| *hasher.finalize().as_bytes()),
        }
    }

    pub(super) fn put_mended(&self, pack: &PackRef) -> Result<()> {
        let repository = &self.repository;
        self.replace(&Key::pack(&pack.id), Some(pack.id.0), &|each| repository.each_mended(&pack.id, pack.size, each))
    }

    pub(super) fn put_duplicate(&self, key: &Key) -> Result<()> {
        let store = self.repository.store();
        let spare = Key::copy_of(key);
        let Some(id) = key.pack_id() else {
            let bytes = self.verified(key, store.get(&spare, MAX_SMALL)?)?;
            return self.replace(key, None, &|each| each(&bytes));
        };
        let size = store.size(&spare)?.ok_or_else(|| Error::missing(format!("put {key} back: {spare} is gone")))?;
        if self.hash_of(store, &spare, size)? != id.0 {
            return Err(Error::damaged(format!("put {key} back: {spare} is damaged too")));
        }
        self.replace(key, Some(id.0), &|each| each_piece(store, &spare, size, each))?;
        store.delete(&spare)
    }

    pub(super) fn fetch(&self, key: &Key) -> Result<()> {
        let other = self.other.as_ref().ok_or_else(|| Error::failed(format!("fetch {key}: there is no other copy")))?;
        if let Some(id) = key.pack_id() {
            if cache::prune::is_gone(&self.repository.connection(), &id)? {
                return Err(Error::new(ErrorKind::Refused, format!("fetch {key}: a prune deleted it for good")));
            }
            let size = other.size(key)?.ok_or_else(|| Error::missing(format!("fetch {key}: the other copy lost it too")))?;
            return self.replace(key, Some(id.0), &|each| each_piece(other, key, size, each));
        }
        let bytes = self.verified(key, other.get(key, MAX_SMALL.max(MAX_RECORD))?)?;
        self.replace(key, None, &|each| each(&bytes))
    }

    /// The bytes, if they are what belongs under `key`: they were when the step was planned.
    fn verified(&self, key: &Key, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if self.repository.is_right(key, &bytes)? {
            return Ok(bytes);
        }
        Err(Error::damaged(format!("put {key} back: what was read now is not what belongs there"))
            .with_hint("run the same command again"))
    }

    /// Puts what `source` gives under `key`. If a damaged object is there, the whole one is durable under a second name
    /// before that is deleted.
    pub(super) fn replace(&self, key: &Key, hash: Option<[u8; 32]>, source: Source<'_>) -> Result<()> {
        let store = self.repository.store();
        if store.size(key)?.is_none() {
            return write(store, key, hash, source);
        }
        let spare = Key::copy_of(key);
        let before = store.size(&spare)?;
        let kept = before.is_some();
        if let Some(size) = before {
            let mut hasher = blake3::Hasher::new();
            source(&mut |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            let expected = *hasher.finalize().as_bytes();
            if hash.is_some_and(|hash| hash != expected) {
                return Err(Error::damaged(format!("mend {key}: what was found is not what its name says")));
            }
            if self.hash_of(store, &spare, size)? != expected {
                // A second copy that is damaged too must not take the place of what is whole.
                store.delete(&spare)?;
                write(store, &spare, hash, source)?;
            }
        } else {
            write(store, &spare, hash, source)?;
        }
        let size = store.size(&spare)?.ok_or_else(|| Error::failed(format!("mend {key}: its second copy is not there")))?;
        store.delete(key)?;
        // From the second copy: what gave it may have needed the first.
        write(store, key, hash, &|each| each_piece(store, &spare, size, each))?;
        // A pack needs no second copy any more; that of a small object stays where there was one.
        if kept && hash.is_none() { Ok(()) } else { store.delete(&spare) }
    }

    /// Makes the second copy of a small object; false if there is one.
    pub(super) fn duplicate(&self, key: &Key) -> Result<bool> {
        let store = self.repository.store();
        let spare = Key::copy_of(key);
        let bytes = store.get(key, MAX_SMALL)?;
        match store.get(&spare, MAX_SMALL) {
            Ok(copy) if copy == bytes => return Ok(false),
            Ok(_) => store.delete(&spare)?,
            Err(error) if error.kind() == ErrorKind::Damaged => store.delete(&spare)?,
            Err(error) if error.kind() == ErrorKind::Missing => {}
            Err(error) => return Err(error),
        }
        store.put(&spare, &bytes).map(|()| true)
    }

    /// The duplicates that are missing, of all small objects on which much depends and that are whole.
    ///
    /// # Errors
    /// What kept the store from being listed.
    pub fn plan_duplicates(&self) -> Result<Vec<Mend>> {
        let store = self.repository.store();
        let mut sizes = std::collections::BTreeMap::new();
        store.list("copies", &mut |entry| {
            sizes.extend(entry.key.original().map(|key| (key, entry.size)));
            Ok(())
        })?;
        let mut mends = Vec::new();
        for folder in ["format", "keys", "log", "gc"] {
            store.list(folder, &mut |entry| {
                if sizes.get(&entry.key) != Some(&entry.size) {
                    mends.push(Mend::Duplicate(entry.key));
                }
                Ok(())
            })?;
        }
        mends.sort_by_key(ToString::to_string);
        Ok(mends)
    }

    /// Hands over those of `packs` that have no parity, or not all of it, without those of `planned`.
    ///
    /// # Errors
    /// What kept the store from being listed; those of `take`.
    pub fn plan_parity(
        &self,
        share: u16,
        packs: &PackList,
        planned: &PackSet,
        take: &mut dyn FnMut(Mend) -> Result<()>,
    ) -> Result<()> {
        let mut there = vec![0u32; packs.len()];
        self.repository.store().list("parity", &mut |entry| {
            if let Some((pack, _)) = entry.key.parity_of()
                && let Some(at) = packs.find(&pack)?
            {
                there[at] = there[at].saturating_add(1);
            }
            Ok(())
        })?;
        for ((at, pack), there) in packs.iter().enumerate().zip(there) {
            let pack = pack?;
            if u64::from(there) != crate::format::parity::groups(pack.size) && !planned.has(at) {
                take(Mend::Parity(pack, share))?;
            }
        }
        Ok(())
    }
}
