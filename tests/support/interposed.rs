//! A store that asks, before each call, what is to become of it.

use lifeboat::error::{Error, ErrorKind, Result};
use lifeboat::store::{AnyStore, Created, Entry, Key, Promises, Staged, Store};
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
    Probe,
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
    /// Half of the object is there under its name afterwards, and it says that it failed. As `Fail` where no object is
    /// given its name.
    Tear,
    /// It answers as if the object were not there yet. As `Pass` where nothing is asked.
    Hide,
    /// It is made twice, as by a store whose first answer was lost on the way. As `Pass` but for `Create`.
    Repeat,
}

type Judge = dyn Fn(u64, Verb, &str) -> Fate + Send + Sync;

/// The store; `judge` is asked with the number of the call, its verb, and its key (empty if it has none).
#[derive(Clone)]
pub struct Interposed {
    inner: AnyStore,
    judge: Arc<Judge>,
    calls: Arc<AtomicU64>,
    width: usize,
}

impl Interposed {
    pub fn new(inner: AnyStore, judge: impl Fn(u64, Verb, &str) -> Fate + Send + Sync + 'static) -> Self {
        Self { inner, judge: Arc::new(judge), calls: Arc::default(), width: 1 }
    }

    /// As if it were far away, so that this many requests are worth having under way at once.
    pub fn wide(self, width: usize) -> Self {
        Self { width, ..self }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn store(&self) -> AnyStore {
        Arc::new(self.clone())
    }

    fn judged<T>(&self, verb: Verb, key: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.carried_out(self.fate(verb, key), verb, key, call)
    }

    fn fate(&self, verb: Verb, key: &str) -> (u64, Fate) {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        (number, (self.judge)(number, verb, key))
    }

    fn carried_out<T>(&self, fate: (u64, Fate), verb: Verb, key: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let error = |kind| Error::new(kind, format!("{verb:?} {key}: call {} fails as the test wants", fate.0));
        match fate.1 {
            Fate::Pass | Fate::Repeat => call(),
            Fate::Fail(kind) => Err(error(kind)),
            Fate::FailAfter(kind) => call().and_then(|_| Err(error(kind))),
            Fate::Tear => Err(error(ErrorKind::Failed)),
            Fate::Hide if matches!(verb, Verb::Get | Verb::ReadAt) => Err(error(ErrorKind::Missing)),
            Fate::Hide => call(),
        }
    }
}

impl Interposed {
    /// Leaves half of the object behind if that is its fate.
    fn torn(&self, fate: (u64, Fate), key: &Key, bytes: &[u8]) -> (u64, Fate) {
        if fate.1 == Fate::Tear {
            self.inner.put(key, &bytes[..bytes.len() / 2]).unwrap();
        }
        fate
    }
}

struct InterposedStaged {
    inner: Box<dyn Staged>,
    store: Interposed,
    bytes: Vec<u8>,
}

impl Staged for InterposedStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let inner = &mut self.inner;
        self.bytes.extend_from_slice(bytes);
        self.store.judged(Verb::Write, "", || inner.write(bytes))
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        let Self { inner, store, bytes } = *self;
        let fate = store.torn(store.fate(Verb::Finish, key.as_str()), key, &bytes);
        store.carried_out(fate, Verb::Finish, key.as_str(), || inner.finish(key))
    }
}

impl Store for Interposed {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let fate = self.torn(self.fate(Verb::Put, key.as_str()), key, bytes);
        self.carried_out(fate, Verb::Put, key.as_str(), || self.inner.put(key, bytes))
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        let fate = self.torn(self.fate(Verb::Create, key.as_str()), key, bytes);
        if fate.1 == Fate::Repeat {
            self.inner.create(key, bytes)?;
        }
        self.carried_out(fate, Verb::Create, key.as_str(), || self.inner.create(key, bytes))
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        let inner = self.judged(Verb::Stage, "", || self.inner.stage())?;
        Ok(Box::new(InterposedStaged { inner, store: self.clone(), bytes: Vec::new() }))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        self.judged(Verb::Get, key.as_str(), || self.inner.get(key, limit))
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.judged(Verb::ReadAt, key.as_str(), || self.inner.read_at(key, offset, buffer))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        let fate = self.fate(Verb::Size, key.as_str());
        if fate.1 == Fate::Hide {
            return Ok(None);
        }
        self.carried_out(fate, Verb::Size, key.as_str(), || self.inner.size(key))
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        self.judged(Verb::Size, key.as_str(), || self.inner.modified(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let fate = self.fate(Verb::List, prefix);
        if fate.1 == Fate::Hide {
            return Ok(());
        }
        self.carried_out(fate, Verb::List, prefix, || self.inner.list(prefix, each))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.judged(Verb::Delete, key.as_str(), || self.inner.delete(key))
    }

    fn release_reserve(&self, bytes: u64) -> Result<bool> {
        self.inner.release_reserve(bytes)
    }

    fn keep_reserve(&self) -> Result<()> {
        self.inner.keep_reserve()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn probe(&self) -> Result<Option<Promises>> {
        self.judged(Verb::Probe, "", || self.inner.probe())
    }

    fn width(&self) -> usize {
        self.width
    }
}
