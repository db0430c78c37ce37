//! Object stores: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

use super::far::{Body, Item, Page, Remote, Use};
use super::fault::{Fault, FaultKind, plain};
use super::s3_api::S3Api;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, TagSet,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Objects longer than this are put in parts, which are sent side by side and repeated one by one. That costs two more answers,
/// but a connection to a place far away is no faster than its window, and where something is lost, each waits for itself.
const SINGLE: u64 = 16 << 20;
/// Most bytes of a part. All have the same length, but for the last, as some servers want it.
const PART: usize = 9 << 20;
/// Parts under way at once, of all objects together: what of them is in memory is no more than that.
pub(super) const PARTS: usize = 12;

/// What one of the clouds can do.
pub(super) trait Cloud: ObjectStore + MultipartStore + PaginatedListStore {}

impl<T: ObjectStore + MultipartStore + PaginatedListStore> Cloud for T {}

/// A bucket, or a folder in one.
pub(super) struct Bucket {
    pub(super) cloud: Arc<dyn Cloud>,
    /// Folder, without slashes at its ends.
    pub(super) root: String,
    /// Class of storage of objects that are read for a restore alone; the default of the bucket if there is none.
    pub(super) cold: Option<String>,
    /// Tags of every object.
    pub(super) tags: Vec<(String, String)>,
    /// What is noted with every object, by name.
    pub(super) metadata: Vec<(String, String)>,
    /// What only S3 has.
    pub(super) s3: Option<S3Api>,
    /// Retention was asked for and read back once.
    pub(super) lock_seen: AtomicBool,
    /// Room for what is being sent, in parts.
    pub(super) room: Semaphore,
    /// What goes up in parts can be given neither a class nor tags, as the library speaks to Azure.
    pub(super) bare_parts: bool,
}

impl Bucket {
    /// The name within the bucket.
    pub(super) fn full(&self, name: &str) -> String {
        match (self.root.as_str(), name) {
            ("", name) => name.to_owned(),
            (root, "") => root.to_owned(),
            (root, name) => format!("{root}/{name}"),
        }
    }

    fn path(&self, name: &str) -> Result<Path, Fault> {
        Path::parse(self.full(name)).map_err(|error| Fault::lasting(format!("its name cannot be used here: {error}")))
    }

    fn attributes(&self, name: &str, kind: Use) -> Attributes {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/octet-stream".into());
        for (name, value) in &self.metadata {
            attributes.insert(Attribute::Metadata(name.clone().into()), value.clone().into());
        }
        if let (Some(class), Use::Cold, true) = (&self.cold, kind, name.starts_with("packs/")) {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }

    fn tag_set(&self) -> TagSet {
        let mut tags = TagSet::default();
        self.tags.iter().for_each(|(name, value)| tags.push(name, value));
        tags
    }

    /// Looks whether the server keeps the retention that it was asked for: some take it and drop it.
    async fn see_lock(&self, name: &str) -> Result<(), Fault> {
        let Some(s3) = self.s3.as_ref().filter(|s3| s3.retention.is_some() && super::s3_extras::is_kept(name)) else {
            return Ok(());
        };
        if self.lock_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = s3.state(&self.full(name)).await?;
        if state.is_none_or(|state| state.locked_until.is_none()) {
            // Nobody relies on it yet, and no repository that claims more than it has is to be left.
            return Err(Fault::new(FaultKind::Denied, "the server took it and dropped its lock: it can be deleted").hint(
                "use a bucket that was made with object lock, and credentials that may see its locks, or take lock-days out of the URL",
            ));
        }
        self.lock_seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until there is room for so many bytes, or for as many as there ever is. What is short needs none.
    async fn room_for(&self, length: u64) -> SemaphorePermit<'_> {
        let parts = usize::try_from((length + PART as u64 / 2) / PART as u64).unwrap_or(PARTS).min(PARTS);
        let parts = u32::try_from(parts).expect("there are a few");
        self.room.acquire_many(parts).await.expect("nobody closes it")
    }

    async fn create_whole(&self, path: &Path, body: Bytes, attributes: Attributes) -> Result<bool, Fault> {
        let options = PutOptions { mode: PutMode::Create, tags: self.tag_set(), attributes, ..PutOptions::default() };
        match self.cloud.put_opts(path, body.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(fault(error)),
        }
    }

    async fn create_in_parts(&self, path: &Path, body: &Body, attributes: Attributes) -> Result<bool, Fault> {
        let options = match self.bare_parts {
            true => PutMultipartOptions::default(),
            false => PutMultipartOptions { tags: self.tag_set(), attributes, ..PutMultipartOptions::default() },
        };
        let id = self.cloud.create_multipart_opts(path, options).await.map_err(fault)?;
        let length = usize::try_from(body.len().div_ceil(body.len().div_ceil(PART as u64).max(1))).unwrap_or(PART).max(1);
        let starts = (0..body.len()).step_by(length).enumerate();
        let send = async |(number, start): (usize, u64)| {
            let _room = self.room_for(PART as u64).await;
            let part = body.read(start, length)?;
            // A part may fail on its own: the others need not be sent again.
            let mut left = 3;
            loop {
                match self.cloud.put_part(path, &id, number, part.clone().into()).await.map_err(fault) {
                    Err(fault) if fault.is_passing() && left > 0 => left -= 1,
                    other => return other,
                }
                tokio::time::sleep(super::retry::Retry::default().pause(3 - left)).await;
            }
        };
        let parts: Result<Vec<_>, Fault> = futures_util::stream::iter(starts.map(send)).buffered(PARTS).try_collect().await;
        let done = match parts {
            Ok(parts) => self.cloud.complete_multipart(path, &id, parts).await,
            Err(fault) => {
                let _ = self.cloud.abort_multipart(path, &id).await;
                return Err(fault);
            }
        };
        match done {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                let _ = self.cloud.abort_multipart(path, &id).await;
                Ok(false)
            }
            // Left for the next attempt to look at: it may have been completed.
            Err(error) => Err(fault(error)),
        }
    }

    fn item(&self, meta: &ObjectMeta) -> Option<Item> {
        let name = meta.location.as_ref();
        let name = if self.root.is_empty() { name } else { name.strip_prefix(&self.root)?.strip_prefix('/')? };
        // Whole seconds: a question about one object is answered in seconds, a listing sometimes in parts of them.
        let modified = meta.last_modified.timestamp().saturating_mul(1_000_000_000);
        Some(Item { name: name.to_owned(), size: meta.size, modified })
    }

    async fn fetch(&self, name: &str, range: Option<GetRange>, limit: u64) -> Result<(Bytes, u64), Fault> {
        let options = GetOptions { range, ..GetOptions::default() };
        let got = self.cloud.get_opts(&self.path(name)?, options).await.map_err(fault)?;
        let (size, wanted) = (got.meta.size, got.range.end - got.range.start);
        if wanted > limit {
            return Err(Fault::new(FaultKind::Damaged, format!("{size} bytes are more than it can have")));
        }
        let room = usize::try_from(wanted).map_err(|_| Fault::lasting("it is longer than the memory"))?;
        let (mut bytes, mut stream) = (BytesMut::with_capacity(room), got.into_stream());
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(fault)?;
            if bytes.len() + piece.len() > room {
                return Err(Fault::passing("more came than was said"));
            }
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() != room {
            return Err(Fault::of_line(format!("the connection ended after {} of {wanted} bytes", bytes.len())));
        }
        Ok((bytes.freeze(), size))
    }
}

#[async_trait]
impl Remote for Bucket {
    async fn create(&self, name: &str, body: &Body, kind: Use) -> Result<bool, Fault> {
        let (path, attributes) = (self.path(name)?, self.attributes(name, kind));
        let needs_whole = self.bare_parts && attributes.get(&Attribute::StorageClass).is_some();
        let made = if body.len() > SINGLE && !needs_whole {
            self.create_in_parts(&path, body, attributes).await
        } else {
            let _room = self.room_for(body.len()).await;
            let whole = body.read(0, usize::try_from(body.len()).unwrap_or(usize::MAX))?;
            self.create_whole(&path, whole, attributes).await
        };
        let locks = self.s3.as_ref().is_some_and(|s3| s3.retention.is_some()) && super::s3_extras::is_kept(name);
        let made = made.map_err(|fault| match fault.kind {
            FaultKind::Lasting if locks => fault.or_hint("lock-days needs a bucket that was made with object lock"),
            _ => fault,
        })?;
        if made {
            self.see_lock(name).await?;
        }
        Ok(made)
    }

    fn s3(&self) -> Option<(&S3Api, &Self)> {
        self.s3.as_ref().map(|s3| (s3, self))
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, Fault> {
        self.fetch(name, None, limit).await.map(|(bytes, _)| bytes)
    }

    async fn read(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, Fault> {
        let end = offset.checked_add(length as u64).ok_or_else(cut_off)?;
        match self.fetch(name, Some(GetRange::Bounded(offset..end)), length as u64).await {
            Ok((_, size)) if size < end => Err(cut_off()),
            Ok((bytes, _)) if bytes.len() == length => Ok(bytes),
            Ok(_) => Err(Fault::passing("another part came than was asked for")),
            Err(fault) if fault.kind == FaultKind::Lasting && is_whole(&fault) => {
                let whole = self.get(name, u64::MAX).await?;
                let range = usize::try_from(offset).ok().and_then(|start| whole.get(start..start.checked_add(length)?));
                range.map(|range| whole.slice_ref(range)).ok_or_else(cut_off)
            }
            // Not every server has one answer for what begins behind the end.
            Err(fault) if fault.kind == FaultKind::Lasting => match self.look(name).await {
                Ok(Some(item)) if item.size < end => Err(cut_off()),
                _ => Err(fault),
            },
            Err(fault) => Err(fault),
        }
    }

    async fn look(&self, name: &str) -> Result<Option<Item>, Fault> {
        match self.cloud.head(&self.path(name)?).await.map_err(fault) {
            Ok(meta) => Ok(self.item(&meta)),
            Err(fault) if fault.kind == FaultKind::Missing => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn list(&self, folder: &str, next: Option<String>) -> Result<Page, Fault> {
        let prefix = match self.full(folder) {
            full if full.is_empty() => None,
            full => Some(format!("{full}/")),
        };
        let options = PaginatedListOptions { page_token: next, ..PaginatedListOptions::default() };
        let listed = self.cloud.list_paginated(prefix.as_deref(), options).await.map_err(fault)?;
        let items = listed.result.objects.iter().filter_map(|meta| self.item(meta)).collect();
        Ok(Page { items, folders: Vec::new(), next: listed.page_token })
    }

    async fn delete(&self, name: &str) -> Result<(), Fault> {
        match self.cloud.delete(&self.path(name)?).await.map_err(fault) {
            Err(fault) if fault.kind != FaultKind::Missing => Err(fault),
            _ => Ok(()),
        }
    }
}

fn cut_off() -> Fault {
    Fault::new(FaultKind::Damaged, "it is cut off")
}

/// True if the server sent the whole although a part was asked for.
fn is_whole(fault: &Fault) -> bool {
    fault.to_string().contains("non-partial")
}

/// What an error of the library means: the fault that the client made of the answer is somewhere below it.
pub(super) fn fault(error: object_store::Error) -> Fault {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(below) = cause {
        if let Some(fault) = below.downcast_ref::<Fault>() {
            return fault.clone();
        }
        cause = below.source();
    }
    let text = plain(&error.to_string());
    match error {
        object_store::Error::NotFound { .. } => Fault::missing(),
        object_store::Error::PermissionDenied { .. } => Fault::new(FaultKind::Denied, text),
        _ => Fault::lasting(text),
    }
}
