//! A store that asks for what is read next before anybody reads it, as one far away does: what it answers may be old by then.

use lifeboat::error::Result;
use lifeboat::store::{AnyStore, Created, Entry, Key, Next, Staged, Store};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

pub struct Ahead {
    inner: AnyStore,
    /// What was asked for and not read yet. Nobody holds the lock while the store is asked.
    objects: Mutex<HashMap<Key, Result<Vec<u8>>>>,
    listings: Mutex<HashMap<String, Vec<Entry>>>,
}

impl Ahead {
    pub fn over(inner: AnyStore) -> AnyStore {
        Arc::new(Self { inner, objects: Mutex::default(), listings: Mutex::default() })
    }

    fn ask(&self, (key, limit): &(Key, u64)) {
        let answer = self.inner.get(key, *limit);
        self.objects.lock().unwrap().insert(key.clone(), answer);
    }

    fn ask_listings(&self, next: &Next) {
        for folder in &next.folders {
            let mut entries = Vec::new();
            let listed = self.inner.list(folder, &mut |entry| {
                entries.push(entry);
                Ok(())
            });
            // What fails is asked for again by whoever reads it.
            if listed.is_ok() {
                self.listings.lock().unwrap().entry((*folder).to_owned()).or_insert(entries);
            }
        }
    }
}

impl Store for Ahead {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.inner.put(key, bytes)
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        self.inner.create(key, bytes)
    }

    fn create_then(&self, key: &Key, bytes: &[u8], next: &Next) -> Result<Created> {
        let created = self.inner.create(key, bytes)?;
        if created == Created::New {
            next.objects.iter().for_each(|object| self.ask(object));
            self.ask_listings(next);
        }
        Ok(created)
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        self.inner.stage()
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        let asked = self.objects.lock().unwrap().remove(key);
        asked.unwrap_or_else(|| self.inner.get(key, limit))
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.inner.read_at(key, offset, buffer)
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.inner.size(key)
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        self.inner.modified(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let asked = self.listings.lock().unwrap().remove(prefix);
        match asked {
            Some(entries) => entries.into_iter().try_for_each(each),
            None => self.inner.list(prefix, each),
        }
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.objects.lock().unwrap().remove(key);
        self.inner.delete(key)
    }

    /// The last one first: nobody may rely on an order among them.
    fn expect(&self, next: &Next) {
        for object in next.objects.iter().rev() {
            let is_known = self.objects.lock().unwrap().contains_key(&object.0);
            if !is_known {
                self.ask(object);
            }
        }
        self.ask_listings(next);
    }

    fn expect_nothing(&self) {
        self.objects.lock().unwrap().clear();
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn width(&self) -> usize {
        self.inner.width()
    }
}
