//! What S3 has besides objects, with the same retries as all other requests.

use super::Key;
use super::extras::{Asked, Extras, ObjectState, Tier, Version};
use super::far::{Far, Inner};
use super::object::Bucket;
use super::retry::runtime;
use super::s3_api::{Listed, S3Api};
use crate::error::{Error, Result};
use std::future::Future;

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

impl Inner {
    fn with_s3<T, F: Future<Output = Result<T, super::fault::Fault>>>(
        &self,
        doing: &str,
        what: &str,
        request: impl Fn() -> F,
    ) -> Result<T> {
        runtime().block_on(self.attempt(doing, what, request))
    }
}

impl Far {
    fn s3(&self) -> (&S3Api, &Bucket) {
        self.inner.remote.s3().expect("extras are only handed out where there is one")
    }
}

fn version(bucket: &Bucket, listed: Listed) -> Option<Version> {
    let name = match bucket.root.as_str() {
        "" => listed.name.as_str(),
        root => listed.name.strip_prefix(root)?.strip_prefix('/')?,
    };
    let Listed { id, size, modified, latest, deleted, .. } = listed;
    // Names of other things in the bucket are none of a repository's.
    Some(Version { key: Key::new(name).ok()?, id, size, modified, latest, deleted })
}

impl Extras for Far {
    fn cold_class(&self) -> Option<&str> {
        self.s3().1.cold.as_deref()
    }

    fn lock_days(&self) -> Option<u32> {
        self.s3().0.retention.as_ref().map(|retention| retention.days)
    }

    fn lock_limit(&self) -> Option<u32> {
        self.s3().0.retention.as_ref().map(|retention| retention.limit)
    }

    fn state(&self, key: &Key) -> Result<Option<ObjectState>> {
        let (s3, bucket) = self.s3();
        let name = bucket.full(key.as_str());
        self.inner.with_s3("look at the object", key.as_str(), || s3.state(&name))
    }

    fn thaw(&self, key: &Key, tier: Tier, days: u32) -> Result<Asked> {
        let (s3, bucket) = self.s3();
        let name = bucket.full(key.as_str());
        self.inner.with_s3("thaw the object", key.as_str(), || s3.thaw(&name, tier, Some(days)))
    }

    fn lock_until(&self, key: &Key, until: i64, is_strict: bool) -> Result<()> {
        let (s3, bucket) = self.s3();
        let name = bucket.full(key.as_str());
        // Upwards: less than what was asked for would be shorter.
        let until = until.saturating_add(SECOND - 1).div_euclid(SECOND);
        self.inner.with_s3("lengthen the lock of", key.as_str(), || s3.lock_until(&name, until, is_strict))
    }

    fn versions(&self, prefix: &str, each: &mut dyn FnMut(Version) -> Result<()>) -> Result<()> {
        let (s3, bucket) = self.s3();
        let full = bucket.full(prefix);
        let mut next = None;
        loop {
            let page = self.inner.with_s3("list the versions of", prefix, || s3.versions(&full, next.clone()))?;
            page.versions.into_iter().filter_map(|listed| version(bucket, listed)).try_for_each(&mut *each)?;
            if page.next.is_none() || page.next == next {
                return Ok(());
            }
            next = page.next;
        }
    }

    fn read_version(&self, version: &Version, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let (s3, bucket) = self.s3();
        let (name, length) = (bucket.full(version.key.as_str()), buffer.len());
        let read = || s3.read(&name, &version.id, offset, length);
        let bytes = self.inner.with_s3("read a version of", version.key.as_str(), read)?;
        if bytes.len() != length {
            return Err(Error::damaged(format!("read a version of {}: it is cut off", version.key)));
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn delete_version(&self, version: &Version) -> Result<()> {
        let (s3, bucket) = self.s3();
        let name = bucket.full(version.key.as_str());
        self.inner.with_s3("delete a version of", version.key.as_str(), || s3.delete(&name, &version.id))
    }
}
