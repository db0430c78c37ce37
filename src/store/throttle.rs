//! Limits of bytes per second.
//!
//! Remote stores take tokens where bytes meet the wire, piece by piece, so that the line is loaded evenly and not in
//! bursts of a pack. Directories, which have no such place, are wrapped in [`Throttled`].

use super::settings::Limits;
use super::{AnyStore, Created, Entry, Extras, Key, Promises, Staged, Store};
use crate::error::Result;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes after which tokens are taken: small enough to be even, large enough to cost nothing.
pub(super) const PIECE: usize = 64 << 10;

/// A bucket that fills at `rate` and lets bytes through that it has; a taker may go into debt, and then waits.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// When everything that was let through will have been paid for.
    paid: Mutex<Instant>,
}

impl Bucket {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), paid: Mutex::new(Instant::now()) }
    }

    /// Bytes per second.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// Takes tokens for `bytes`; what is returned must be waited for before they are sent.
    pub(super) fn take(&self, bytes: usize) -> Duration {
        self.take_at(bytes, Instant::now())
    }

    fn take_at(&self, bytes: usize, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let mut paid = self.paid.lock().expect("no code panics while it holds this lock");
        // A line that was idle has saved up a tenth of a second, no more.
        let floor = now.checked_sub(Duration::from_millis(100)).unwrap_or(now);
        *paid = (*paid).max(floor) + cost;
        paid.saturating_duration_since(now)
    }
}

/// Waits until `bytes` may go on.
pub(super) async fn pace(bucket: Option<&Bucket>, bytes: usize) {
    if let Some(wait) = bucket.map(|bucket| bucket.take(bytes)).filter(|wait| !wait.is_zero()) {
        tokio::time::sleep(wait).await;
    }
}

fn pace_thread(bucket: Option<&Bucket>, bytes: usize) {
    if let Some(wait) = bucket.map(|bucket| bucket.take(bytes)).filter(|wait| !wait.is_zero()) {
        std::thread::sleep(wait);
    }
}

/// A store whose bytes flow no faster than the limits.
pub(super) struct Throttled {
    pub(super) store: AnyStore,
    pub(super) limits: Limits,
}

struct ThrottledStage {
    staged: Box<dyn Staged>,
    limits: Limits,
}

impl Staged for ThrottledStage {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        pace_thread(self.limits.upload.as_deref(), bytes.len());
        self.staged.write(bytes)
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        self.staged.finish(key)
    }
}

impl Store for Throttled {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        pace_thread(self.limits.upload.as_deref(), bytes.len());
        self.store.put(key, bytes)
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        pace_thread(self.limits.upload.as_deref(), bytes.len());
        self.store.create(key, bytes)
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(ThrottledStage { staged: self.store.stage()?, limits: self.limits.clone() }))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        let bytes = self.store.get(key, limit)?;
        pace_thread(self.limits.download.as_deref(), bytes.len());
        Ok(bytes)
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        pace_thread(self.limits.download.as_deref(), buffer.len());
        self.store.read_at(key, offset, buffer)
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.store.size(key)
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        self.store.modified(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.store.list(prefix, each)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.store.delete(key)
    }

    fn release_reserve(&self, bytes: u64) -> Result<bool> {
        self.store.release_reserve(bytes)
    }

    fn keep_reserve(&self) -> Result<()> {
        self.store.keep_reserve()
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    fn stage_cold(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(ThrottledStage { staged: self.store.stage_cold()?, limits: self.limits.clone() }))
    }

    fn width(&self) -> usize {
        self.store.width()
    }

    fn promises(&self) -> Option<Promises> {
        self.store.promises()
    }

    fn extras(&self) -> Option<&dyn Extras> {
        self.store.extras()
    }

    fn probe(&self) -> Result<Option<Promises>> {
        self.store.probe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;
    use std::sync::Arc;

    #[test]
    fn a_bucket_lets_through_what_its_rate_allows_whoever_takes() {
        let bucket = Bucket::new(1_000_000);
        let start = Instant::now();
        *bucket.paid.lock().unwrap() = start;
        assert_eq!(bucket.take_at(500_000, start), Duration::from_millis(500));
        assert_eq!(bucket.take_at(500_000, start), Duration::from_secs(1));
        let later = start + Duration::from_millis(900);
        assert_eq!(bucket.take_at(0, later), Duration::from_millis(100));
        let idle = start + Duration::from_secs(60);
        assert_eq!(bucket.take_at(100_000, idle), Duration::ZERO, "what an idle line saved up");
        assert_eq!(bucket.take_at(100_000, idle), Duration::from_millis(100), "and no more than that");
    }

    #[test]
    fn a_throttled_store_keeps_what_it_is_given() {
        let limits = Limits { upload: Some(Arc::new(Bucket::new(1 << 30))), download: Some(Arc::new(Bucket::new(1 << 30))) };
        let store = Throttled { store: Arc::new(Memory::default()), limits };
        let key = Key::new("log/a/0").unwrap();
        assert_eq!(store.create(&key, b"one").unwrap(), Created::New);
        assert_eq!(store.create(&key, b"two").unwrap(), Created::Exists);
        let pack = Key::new("packs/00/00").unwrap();
        let mut staged = store.stage().unwrap();
        staged.write(b"pack").unwrap();
        staged.finish(&pack).unwrap();
        assert_eq!(store.get(&key, 10).unwrap(), b"one");
        let mut part = [0; 2];
        store.read_at(&pack, 1, &mut part).unwrap();
        assert_eq!(&part, b"ac");
        assert_eq!(store.size(&pack).unwrap(), Some(4));
        store.delete(&pack).unwrap();
        assert_eq!(store.size(&pack).unwrap(), None);
    }
}
