//! A store in memory, for tests and simulations.

use super::{Created, Entry, Key, Staged, Store};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

type Objects = Arc<Mutex<BTreeMap<Key, Object>>>;

struct Object {
    bytes: Vec<u8>,
    /// Nanoseconds since 1970.
    modified: i64,
}

impl Object {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, modified: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX) }
    }
}

/// A store that lives as long as its handles.
#[derive(Default, Clone)]
pub struct Memory {
    objects: Objects,
}

impl Memory {
    /// Changes the bytes of an object, as rot or an attacker would.
    pub fn tamper(&self, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(object) = self.lock().get_mut(key) {
            change(&mut object.bytes);
        }
    }

    /// Sets the time, in nanoseconds since 1970, at which the store says that an object was written.
    pub fn set_modified(&self, key: &Key, modified: i64) {
        if let Some(object) = self.lock().get_mut(key) {
            object.modified = modified;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Object>> {
        self.objects.lock().expect("no code panics while it holds this lock")
    }
}

struct StagedBytes(Vec<u8>, Objects);

impl Staged for StagedBytes {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        let Self(bytes, objects) = *self;
        let mut objects = objects.lock().expect("no code panics while it holds this lock");
        objects.entry(key.clone()).or_insert_with(|| Object::new(bytes));
        Ok(())
    }
}

impl Store for Memory {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.create(key, bytes).map(drop)
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(Created::Exists);
        }
        objects.insert(key.clone(), Object::new(bytes.to_vec()));
        Ok(Created::New)
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(StagedBytes(Vec::new(), self.objects.clone())))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        let objects = self.lock();
        let object = objects.get(key).ok_or_else(|| Error::missing(format!("read the object {key}: there is none")))?;
        let bytes = &object.bytes;
        if bytes.len() as u64 > limit {
            return Err(Error::damaged(format!("read the object {key}: longer than it can be")));
        }
        Ok(bytes.clone())
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let objects = self.lock();
        let object = objects.get(key).ok_or_else(|| Error::missing(format!("read the object {key}: there is none")))?;
        let bytes = &object.bytes;
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| bytes.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(range.ok_or_else(|| Error::damaged(format!("read the object {key}: it is cut off")))?);
        Ok(())
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        Ok(self.lock().get(key).map(|object| object.bytes.len() as u64))
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        Ok(self.lock().get(key).map(|object| object.modified))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let entries: Vec<Entry> = (self.lock().iter())
            .filter(|(key, _)| prefix.is_empty() || key.as_str().starts_with(&format!("{prefix}/")))
            .map(|(key, object)| Entry { key: key.clone(), size: object.bytes.len() as u64, modified: object.modified })
            .collect();
        entries.into_iter().try_for_each(each)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.lock().remove(key);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Local;

    fn listed(store: &dyn Store, key: &Key) -> i64 {
        let mut found = Vec::new();
        store
            .list("log", &mut |entry| {
                found.push((entry.key, entry.modified));
                Ok(())
            })
            .unwrap();
        found.into_iter().find(|(listed, _)| listed == key).unwrap().1
    }

    #[test]
    fn a_store_says_when_it_got_an_object_by_name_as_in_a_list() {
        let dir = tempfile::tempdir().unwrap();
        let (memory, local) = (Memory::default(), Local::create(&dir.path().join("store")).unwrap());
        let (key, missing) = (Key::new("log/a/0").unwrap(), Key::new("log/a/1").unwrap());
        for store in [&memory as &dyn Store, &local] {
            store.create(&key, b"record").unwrap();
            let time = store.modified(&key).unwrap().unwrap();
            assert!(time > 1_600_000_000_000_000_000, "{time}");
            assert_eq!(listed(store, &key), time);
            assert_eq!(store.modified(&missing).unwrap(), None);
        }
        memory.set_modified(&key, 7);
        assert_eq!((memory.modified(&key).unwrap(), listed(&memory, &key)), (Some(7), 7));
    }
}
