//! A store that asks, before each call, what is to become of it.

use lifeboat::error::{Error, ErrorKind, Result};
use lifeboat::store::{AnyStore, Created, Entry, Key, Staged, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Put,
    Create,
    Stage,
    Write,
    Finish,
    Get,
    ReadAt,
    Size,
    List,
    Delete,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is made.
    Pass,
    /// It fails, and was not made.
    Fail(ErrorKind),
    /// It is made, and says that it failed.
    FailAfter(ErrorKind),
}

type Judge = dyn Fn(u64, Verb, &str) -> Fate + Send + Sync;

/// The store; `judge` is asked with the number of the call, its verb, and its key (empty if it has none).
#[derive(Clone)]
pub struct Interposed {
    inner: AnyStore,
    judge: Arc<Judge>,
    calls: Arc<AtomicU64>,
}

impl Interposed {
    pub fn new(inner: AnyStore, judge: impl Fn(u64, Verb, &str) -> Fate + Send + Sync + 'static) -> Self {
        Self { inner, judge: Arc::new(judge), calls: Arc::default() }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn store(&self) -> AnyStore {
        Arc::new(self.clone())
    }

    fn judged<T>(&self, verb: Verb, key: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let error = |kind| Error::new(kind, format!("{verb:?} {key}: as the test wants"));
        match (self.judge)(number, verb, key) {
            Fate::Pass => call(),
            Fate::Fail(kind) => Err(error(kind)),
            Fate::FailAfter(kind) => call().and_then(|_| Err(error(kind))),
        }
    }
}

struct InterposedStaged {
    inner: Box<dyn Staged>,
    store: Interposed,
}

impl Staged for InterposedStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let inner = &mut self.inner;
        self.store.judged(Verb::Write, "", || inner.write(bytes))
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        let Self { inner, store } = *self;
        store.judged(Verb::Finish, key.as_str(), || inner.finish(key))
    }
}

impl Store for Interposed {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.judged(Verb::Put, key.as_str(), || self.inner.put(key, bytes))
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        self.judged(Verb::Create, key.as_str(), || self.inner.create(key, bytes))
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        let inner = self.judged(Verb::Stage, "", || self.inner.stage())?;
        Ok(Box::new(InterposedStaged { inner, store: self.clone() }))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        self.judged(Verb::Get, key.as_str(), || self.inner.get(key, limit))
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.judged(Verb::ReadAt, key.as_str(), || self.inner.read_at(key, offset, buffer))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.judged(Verb::Size, key.as_str(), || self.inner.size(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.judged(Verb::List, prefix, || self.inner.list(prefix, each))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.judged(Verb::Delete, key.as_str(), || self.inner.delete(key))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
