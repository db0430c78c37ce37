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

/// A listing that is under way: its entries, and the thread that knows whether these are all.
pub(super) struct Listing {
    pub(super) entries: Receiver<Entry>,
    pub(super) thread: JoinHandle<Result<()>>,
}

impl Listing {
    /// Hands its entries to `each`, as they come.
    pub(super) fn each(self, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.entries.into_iter().try_for_each(each)?;
        self.thread.join().unwrap_or_else(|_| Err(Error::panicked("list objects")))
    }
}

/// Objects and listings, each of which is handed out once.
#[derive(Default)]
pub(super) struct Ahead {
    objects: Mutex<HashMap<String, Object>>,
    listings: Mutex<HashMap<String, Listing>>,
}

impl Ahead {
    fn objects(&self) -> MutexGuard<'_, HashMap<String, Object>> {
        self.objects.lock().expect("no code panics while it holds this lock")
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<String, Listing>> {
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
    pub(super) fn add_listing(&self, folder: &str, ask: impl FnOnce() -> Listing) {
        self.listings().entry(folder.to_owned()).or_insert_with(ask);
    }

    pub(super) fn take(&self, name: &str) -> Option<Object> {
        self.objects().remove(name)
    }

    pub(super) fn take_listing(&self, folder: &str) -> Option<Listing> {
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
            Self::Coming(asked) => asked.join().unwrap_or_else(|_| Err(Error::panicked("read an object"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn a_listing_whose_thread_panics_is_not_taken_for_whole() {
        for panics in [false, true] {
            let (listed, entries) = sync_channel(8);
            let thread = std::thread::spawn(move || {
                for name in ["log/1", "log/2"] {
                    let entry = Entry { key: Key::new(name)?, size: 1, modified: 0 };
                    listed.send(entry).map_err(|_| Error::failed("list objects: nobody reads the listing"))?;
                }
                if panics { std::panic::resume_unwind(Box::new("as the test wants")) } else { Ok(()) }
            });
            let mut count = 0;
            let listing = Listing { entries, thread };
            let ended = listing.each(&mut |_| {
                count += 1;
                Ok(())
            });
            assert_eq!((count, ended.is_err()), (2, panics));
        }
    }
}
