//! What was asked for before somebody reads it: answers that are under way, or at hand.

use super::{Entry, Key};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

/// What is read next: a store that answers late may ask for it ahead.
#[derive(Debug, Clone, Default)]
pub struct Next {
    /// Objects that are read whole, and how long they can be.
    pub objects: Vec<(Key, u64)>,
    /// Folders that are listed.
    pub folders: Vec<&'static str>,
}

/// An object that somebody is going to read.
pub(super) enum Object {
    Here(Vec<u8>),
    Coming(JoinHandle<Result<Vec<u8>>>),
}

/// Objects and listings, each of which is handed out once.
#[derive(Default)]
pub(super) struct Ahead {
    objects: Mutex<HashMap<String, Object>>,
    listings: Mutex<HashMap<String, Receiver<Result<Entry>>>>,
}

impl Ahead {
    fn objects(&self) -> MutexGuard<'_, HashMap<String, Object>> {
        self.objects.lock().expect("no code panics while it holds this lock")
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<String, Receiver<Result<Entry>>>> {
        self.listings.lock().expect("no code panics while it holds this lock")
    }

    pub(super) fn hold(&self, key: &Key, bytes: Vec<u8>) {
        self.objects().insert(key.to_string(), Object::Here(bytes));
    }

    /// Notes an answer that is under way in place of one that was asked for before.
    pub(super) fn renew(&self, name: &str, asked: JoinHandle<Result<Vec<u8>>>) {
        self.objects().insert(name.to_owned(), Object::Coming(asked));
    }

    /// Asks for an object unless that was done already.
    pub(super) fn add(&self, name: &str, ask: impl FnOnce() -> JoinHandle<Result<Vec<u8>>>) {
        self.objects().entry(name.to_owned()).or_insert_with(|| Object::Coming(ask()));
    }

    /// Asks for a listing unless that was done already.
    pub(super) fn add_listing(&self, folder: &str, ask: impl FnOnce() -> Receiver<Result<Entry>>) {
        self.listings().entry(folder.to_owned()).or_insert_with(ask);
    }

    pub(super) fn take(&self, name: &str) -> Option<Object> {
        self.objects().remove(name)
    }

    pub(super) fn take_listing(&self, folder: &str) -> Option<Receiver<Result<Entry>>> {
        self.listings().remove(folder)
    }

    /// What was asked for and nobody has read is not what is there.
    pub(super) fn clear_objects(&self) {
        self.objects().clear();
    }
}

impl Object {
    /// The bytes, once they are there.
    pub(super) fn wait(self) -> Result<Vec<u8>> {
        match self {
            Self::Here(bytes) => Ok(bytes),
            Self::Coming(asked) => asked.join().unwrap_or_else(|_| Err(Error::failed("read an object: its thread failed"))),
        }
    }
}
