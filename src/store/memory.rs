//! A store in memory, for tests and simulations.

use super::{Created, Entry, Key, Staged, Store};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

type Objects = Arc<Mutex<BTreeMap<Key, Vec<u8>>>>;

/// A store that lives as long as its handles.
#[derive(Default, Clone)]
pub struct Memory {
    objects: Objects,
}

impl Memory {
    /// Changes the bytes of an object, as rot or an attacker would.
    pub fn tamper(&self, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.lock().get_mut(key) {
            change(bytes);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Vec<u8>>> {
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
        let mut objects = self.1.lock().expect("no code panics while it holds this lock");
        objects.entry(key.clone()).or_insert(self.0);
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
        objects.insert(key.clone(), bytes.to_vec());
        Ok(Created::New)
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(StagedBytes(Vec::new(), self.objects.clone())))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        let objects = self.lock();
        let bytes = objects.get(key).ok_or_else(|| Error::missing(format!("read the object {key}: there is none")))?;
        if bytes.len() as u64 > limit {
            return Err(Error::damaged(format!("read the object {key}: longer than it can be")));
        }
        Ok(bytes.clone())
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let objects = self.lock();
        let bytes = objects.get(key).ok_or_else(|| Error::missing(format!("read the object {key}: there is none")))?;
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| bytes.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(range.ok_or_else(|| Error::damaged(format!("read the object {key}: it is cut off")))?);
        Ok(())
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        Ok(self.lock().get(key).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let entries: Vec<Entry> = (self.lock().iter())
            .filter(|(key, _)| prefix.is_empty() || key.as_str().starts_with(&format!("{prefix}/")))
            .map(|(key, bytes)| Entry { key: key.clone(), size: bytes.len() as u64, modified: 0 })
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
