//! A store that writes down every change, so that a test can have it as it was after any of them.

use lifeboat::error::Result;
use lifeboat::store::{AnyStore, Created, Entry, Key, Memory, Staged, Store};
use std::sync::{Arc, Mutex};

/// A change that a store had made, and made durable, when it said so.
#[derive(Debug, Clone)]
pub enum Change {
    Put(Key, Arc<Vec<u8>>),
    Delete(Key),
}

/// A store in memory with its history.
#[derive(Clone, Default)]
pub struct Journal {
    inner: Arc<Memory>,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl Journal {
    pub fn store(&self) -> AnyStore {
        Arc::new(self.clone())
    }

    /// Changes so far.
    pub fn len(&self) -> usize {
        self.changes.lock().unwrap().len()
    }

    /// Another store, as this one was after the first `count` changes.
    pub fn after(&self, count: usize) -> AnyStore {
        let store = Memory::default();
        for change in &self.changes.lock().unwrap()[..count] {
            match change {
                Change::Put(key, bytes) => drop(store.create(key, bytes).unwrap()),
                Change::Delete(key) => store.delete(key).unwrap(),
            }
        }
        Arc::new(store)
    }

    fn note(&self, key: &Key, bytes: &[u8]) {
        self.changes.lock().unwrap().push(Change::Put(key.clone(), Arc::new(bytes.to_vec())));
    }
}

struct JournalStaged {
    journal: Journal,
    bytes: Vec<u8>,
}

impl Staged for JournalStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        self.journal.put(key, &self.bytes)
    }
}

impl Store for Journal {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.inner.put(key, bytes)?;
        self.note(key, bytes);
        Ok(())
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        let created = self.inner.create(key, bytes)?;
        if created == Created::New {
            self.note(key, bytes);
        }
        Ok(created)
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(JournalStaged { journal: self.clone(), bytes: Vec::new() }))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        self.inner.get(key, limit)
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.inner.read_at(key, offset, buffer)
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.inner.size(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.inner.list(prefix, each)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key)?;
        self.changes.lock().unwrap().push(Change::Delete(key.clone()));
        Ok(())
    }

    fn describe(&self) -> String {
        "a store with a history".into()
    }
}
