//! Stores on other machines: one set of rules over any kind of server.
//!
//! A [`Remote`] does single requests. Here they are repeated when they fail in a way that passes, bounded in number,
//! and made into what a [`Store`] promises: an object is created once, what was put is looked at before it is believed
//! to be there, and a failure says what to do.

use super::ahead::{Ahead, Listing, Next, Object};
use super::fault::{Fault, FaultKind};
use super::line::{Line, stopped};
use super::promises::{self, Answers, Promises};
use super::retry::{Again, Retry, runtime};
use super::s3_api::S3Api;
use super::spool::Spool;
use super::{Created, Entry, Key, Staged, Store};
use crate::error::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::Semaphore;

/// What is to become an object.
pub(super) enum Body {
    Bytes(Bytes),
    Spool(Mutex<Spool>),
}

impl Body {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Spool(spool) => spool.lock().expect("no code panics while it holds this lock").length(),
        }
    }

    /// At most `length` bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Bytes, Fault> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(start..start + length.min(bytes.len() - start)))
            }
            Self::Spool(spool) => {
                let mut spool = spool.lock().expect("no code panics while it holds this lock");
                spool.read(offset, length).map_err(|error| Fault::lasting(error.to_string()))
            }
        }
    }
}

/// What a server says of an object.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Name below the root of the store.
    pub(super) name: String,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) modified: i64,
}

/// A part of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    /// Folders that must be listed as well, by their names below the root of the store.
    pub(super) folders: Vec<String>,
    /// From where the listing of this folder goes on.
    pub(super) next: Option<String>,
}

/// How long an object that is put is going to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is read often, or must be there at once.
    Hot,
    /// It is read for a restore alone.
    Cold,
}

/// Single requests to a server; each may fail, and none is repeated here.
#[async_trait]
pub(super) trait Remote: Send + Sync {
    /// Makes an object if there is none of that name; false if there is. As atomic as the server is.
    async fn create(&self, name: &str, body: &Body, kind: Use) -> Result<bool, Fault>;

    /// The whole object, or a fault if it is longer than `limit`.
    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, Fault>;

    /// Exactly `length` bytes from `offset` on.
    async fn read(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, Fault>;

    /// What is there, `None` if nothing is.
    async fn look(&self, name: &str) -> Result<Option<Item>, Fault>;

    /// A part of what is in `folder` (empty for all), from `next` on.
    async fn list(&self, folder: &str, next: Option<String>) -> Result<Page, Fault>;

    /// Deletes an object, which may be gone already.
    async fn delete(&self, name: &str) -> Result<(), Fault>;

    /// What only S3 has, with the bucket, which knows the folder.
    fn s3(&self) -> Option<(&S3Api, &super::object::Bucket)> {
        None
    }

    /// True if nothing in the protocol lets a server create atomically, whatever a race shows.
    fn never_atomic(&self) -> bool {
        false
    }
}

/// A store on another machine.
#[derive(Clone)]
pub(super) struct Far {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) remote: Box<dyn Remote>,
    place: String,
    retry: Retry,
    line: Line,
    width: usize,
    permits: Semaphore,
    /// Something succeeded once, so that a failure is more likely to pass.
    reached: AtomicBool,
    answers: Answers,
    /// What was asked for before somebody reads it.
    ahead: Ahead,
}

/// Entries of a listing that wait for whoever reads it.
const LISTED: usize = 4096;

/// How an object is made.
struct Making<'a> {
    kind: Use,
    /// A name that is taken by the very same bytes is as good as a new one.
    exact: bool,
    /// Done each time that the server said that it has made the object, or shows that it had.
    made: &'a (dyn Fn() + Sync),
}

impl Far {
    /// Has an object at hand for whoever reads it next.
    pub(super) fn hold(&self, key: &Key, bytes: Vec<u8>) {
        self.inner.ahead.hold(key, bytes);
    }

    fn ask(&self, (key, limit): &(Key, u64)) -> JoinHandle<Result<Vec<u8>>> {
        let (far, name, limit) = (self.clone(), key.to_string(), *limit);
        std::thread::spawn(move || far.get_now(&name, limit))
    }

    fn ask_listing(&self, folder: &str) -> Listing {
        let (far, folder) = (self.clone(), folder.to_owned());
        let (listed, entries) = sync_channel(LISTED);
        let thread = std::thread::spawn(move || {
            // Whoever wanted it may have gone.
            let gone = |_| Error::failed("list objects: nobody reads the listing");
            far.list_now(&folder, &mut |entry| listed.send(entry).map_err(gone))
        });
        Listing { entries, thread }
    }

    fn list_now(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let named = |item: Item| {
            let key = Key::new(item.name).ok().filter(|key| !key.as_str().starts_with("tmp/"))?;
            Some(Entry { key, size: item.size, modified: item.modified })
        };
        let mut left = vec![(prefix.to_owned(), None)];
        while !left.is_empty() {
            let now = left.split_off(left.len() - left.len().min(self.inner.width));
            for (folder, page) in runtime().block_on(self.inner.pages(now))? {
                page.items.into_iter().filter_map(named).try_for_each(&mut *each)?;
                left.extend(page.folders.into_iter().map(|folder| (folder, None)));
                left.extend(page.next.map(|next| (folder, Some(next))));
            }
        }
        Ok(())
    }

    fn get_now(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let inner = &self.inner;
        let got = runtime().block_on(inner.attempt("read the object", name, || inner.remote.get(name, limit)));
        got.map(Into::into)
    }

    pub(super) fn new(
        remote: Box<dyn Remote>,
        place: String,
        (retry, line): (Retry, Line),
        width: usize,
        answers: Answers,
    ) -> Self {
        let permits = Semaphore::new(width);
        Self {
            inner: Arc::new(Inner {
                remote,
                place,
                retry,
                line,
                width,
                permits,
                reached: AtomicBool::new(false),
                answers,
                ahead: Ahead::default(),
            }),
        }
    }
}

/// The fault for an object that is gone right after the server said that it has it.
fn lost() -> Fault {
    Fault::passing("the server said that it has it, and does not")
        .hint("this server loses objects: do not use it for backups before that is mended")
}

impl Inner {
    /// Repeats a request until it succeeds or fails for good.
    pub(super) async fn attempt<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        doing: &str,
        what: &str,
        request: impl Fn() -> F,
    ) -> Result<T> {
        let tries = AtomicU32::new(0);
        // Before anything has succeeded, a wrong name is more likely than trouble that passes.
        let retry = if self.reached.load(Ordering::Relaxed) { self.retry } else { self.retry.brief() };
        let attempt = async || {
            tries.fetch_add(1, Ordering::Relaxed);
            let _permit = self.permits.acquire().await.expect("nobody closes it");
            self.line.unless_stopped(request()).await
        };
        let again = |fault: &Fault| {
            tracing::debug!("{doing} {what}: {fault}");
            if !fault.is_passing() {
                return Again::No;
            }
            self.line.fails(fault);
            if fault.of_line { Again::Patiently } else { Again::Counted }
        };
        let result = retry.run(attempt, again, async |pause| self.line.pause(pause).await).await;
        match result {
            Ok(value) => {
                self.reached.store(true, Ordering::Relaxed);
                self.line.works();
                Ok(value)
            }
            Err(fault) => {
                let fault = if fault.is_passing() && self.line.is_stopped() { stopped() } else { fault };
                if matches!(fault.kind, FaultKind::Missing | FaultKind::Denied | FaultKind::Damaged) {
                    self.reached.store(true, Ordering::Relaxed);
                    self.line.works();
                }
                Err(fault.into_error(doing, what, tries.load(Ordering::Relaxed)))
            }
        }
    }

    async fn look(&self, name: &str) -> Result<Option<Item>> {
        self.attempt("look at the object", name, || self.remote.look(name)).await
    }

    /// Makes an object, and believes it when it is seen there.
    async fn make(&self, key: &Key, body: &Body, making: &Making<'_>) -> Result<Created> {
        let name = key.as_str();
        let unsure = AtomicBool::new(false);
        let made = self.attempt("store the object", name, || self.try_make(name, body, making, &unsure)).await;
        made.map_err(|error| match error.kind() {
            // To find no place for it is not to find it missing.
            ErrorKind::Missing => error.as_kind(ErrorKind::Failed),
            _ => error,
        })
    }

    async fn try_make(&self, name: &str, body: &Body, making: &Making<'_>, unsure: &AtomicBool) -> Result<Created, Fault> {
        let Making { kind, exact, .. } = *making;
        let atomic = self.answers.atomic();
        // A server that ignores the condition would replace what is there.
        let there = if atomic || exact { None } else { self.remote.look(name).await? };
        let made = match there {
            Some(_) => false,
            None => match self.remote.create(name, body, kind).await {
                Err(fault) => {
                    unsure.store(true, Ordering::Relaxed);
                    return Err(fault);
                }
                Ok(made) => made,
            },
        };
        if made {
            (making.made)();
        }
        if made || exact {
            let found = self.remote.look(name).await?.map(|item| item.size);
            if found != Some(body.len()) {
                unsure.store(true, Ordering::Relaxed);
                return Err(match found {
                    Some(size) if !made => {
                        let why = format!("an object of that name is there, with {size} bytes instead of {}", body.len());
                        Fault::new(FaultKind::Damaged, why).hint("`lifeboat check` says what else is damaged")
                    }
                    _ => lost(),
                });
            }
        }
        if exact || (made && atomic) {
            return Ok(if made { Created::New } else { Created::Exists });
        }
        if made || unsure.load(Ordering::Relaxed) {
            // Either an earlier attempt made it and its answer was lost, or this server may have let others win as well.
            let ours = self.remote.get(name, body.len()).await;
            let whole = body.read(0, usize::try_from(body.len()).unwrap_or(usize::MAX))?;
            return match ours {
                Ok(bytes) if bytes == whole => {
                    if !made {
                        (making.made)();
                    }
                    Ok(Created::New)
                }
                Ok(_) => Ok(Created::Exists),
                Err(fault) if fault.kind == FaultKind::Damaged => Ok(Created::Exists),
                Err(fault) => Err(fault),
            };
        }
        Ok(Created::Exists)
    }

    /// Parts of listings, side by side: the next ones of `folders`, each from where it goes on.
    async fn pages(&self, folders: Vec<(String, Option<String>)>) -> Result<Vec<(String, Page)>> {
        let one = async |(folder, next): (String, Option<String>)| {
            let shown = if folder.is_empty() { "the repository" } else { &folder };
            let page = self.attempt("list the objects in", shown, || self.remote.list(&folder, next.clone())).await;
            page.map(|page| (folder, page))
        };
        join_all(folders.into_iter().map(one)).await.into_iter().collect()
    }
}

struct FarStaged {
    store: Far,
    spool: Spool,
    kind: Use,
}

impl Staged for FarStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.spool.write(bytes)
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        let Self { store, spool, kind } = *self;
        runtime()
            .block_on(store.inner.make(key, &Body::Spool(Mutex::new(spool)), &Making { kind, exact: true, made: &|| {} }))
            .map(drop)
    }
}

impl Store for Far {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let body = Body::Bytes(Bytes::copy_from_slice(bytes));
        runtime().block_on(self.inner.make(key, &body, &Making { kind: Use::Hot, exact: true, made: &|| {} })).map(drop)
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        self.create_then(key, bytes, &Next::default())
    }

    fn create_then(&self, key: &Key, bytes: &[u8], next: &Next) -> Result<Created> {
        let body = Body::Bytes(Bytes::copy_from_slice(bytes));
        let made = || {
            // Beside the look at what was made. What was asked for before the create is too old.
            next.objects.iter().for_each(|object| self.inner.ahead.renew(object.0.as_str(), self.ask(object)));
            next.folders.iter().for_each(|folder| self.inner.ahead.add_listing(folder, || self.ask_listing(folder)));
        };
        runtime().block_on(self.inner.make(key, &body, &Making { kind: Use::Hot, exact: false, made: &made }))
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(FarStaged { store: self.clone(), spool: Spool::new(), kind: Use::Hot }))
    }

    fn stage_cold(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(FarStaged { store: self.clone(), spool: Spool::new(), kind: Use::Cold }))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        match self.inner.ahead.take(key.as_str()).map(Object::wait) {
            // It may have been asked for with a lower limit.
            Some(Err(error)) if error.kind() == ErrorKind::Damaged => self.get_now(key.as_str(), limit),
            Some(answer) => answer,
            None => self.get_now(key.as_str(), limit),
        }
    }

    fn expect(&self, next: &Next) {
        next.objects.iter().for_each(|object| self.inner.ahead.add(object.0.as_str(), || self.ask(object)));
        next.folders.iter().for_each(|folder| self.inner.ahead.add_listing(folder, || self.ask_listing(folder)));
    }

    fn expect_nothing(&self) {
        self.inner.ahead.clear_objects();
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let (name, length, inner) = (key.as_str(), buffer.len(), &self.inner);
        let request = || inner.remote.read(name, offset, length);
        let bytes = runtime().block_on(inner.attempt("read the object", name, request))?;
        if bytes.len() != length {
            return Err(Error::damaged(format!("read the object {name}: it is cut off")));
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        runtime().block_on(self.inner.look(key.as_str())).map(|item| item.map(|item| item.size))
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        runtime().block_on(self.inner.look(key.as_str())).map(|item| item.map(|item| item.modified))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        match self.inner.ahead.take_listing(prefix) {
            Some(listing) => listing.each(each),
            None => self.list_now(prefix, each),
        }
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let name = key.as_str();
        // What was at hand of it is not what is there.
        drop(self.inner.ahead.take(name));
        let inner = &self.inner;
        runtime().block_on(inner.attempt("delete the object", name, || inner.remote.delete(name)))
    }

    fn describe(&self) -> String {
        self.inner.place.clone()
    }

    fn width(&self) -> usize {
        self.inner.width
    }

    fn promises(&self) -> Option<Promises> {
        self.inner.answers.get()
    }

    fn extras(&self) -> Option<&dyn super::Extras> {
        self.inner.remote.s3().map(|_| self as &dyn super::Extras)
    }

    fn probe(&self) -> Result<Option<Promises>> {
        let inner = &self.inner;
        // It is made of many requests, and begins anew with other names: it is not repeated for as long as a single one.
        let known = inner.answers.get();
        let probe = async || promises::probe(&*inner.remote, known, inner.width).await.map_err(Fault::counted);
        let asked = inner.attempt("probe the store", &inner.place, probe);
        let promises = inner.answers.with_memory(runtime().block_on(asked)?);
        inner.answers.set(&promises);
        promises::unfit(&inner.place, &promises).map_or(Ok(Some(promises)), Err)
    }
}
