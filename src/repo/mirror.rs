//! A mirror: the objects of a repository in another store, byte for byte. No key is needed.
//!
//! Nothing is ever overwritten. What records refer to goes before the records, so that whatever a mirror shows is whole;
//! and the records are those that were there before the packs were looked at, unless a prune came in between: then all is
//! looked at once more, because it may have deleted what those records still name.

use super::thaw::{ThawOptions, ThawReport, make_readable};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Observer, Progress, stop_if_asked};
use crate::format::log::PackRef;
use crate::format::pack::MAX_PACK;
use crate::id::ClientId;
use crate::store::{AnyStore, Created, Entry, Key, Location, Memory, archive};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes that are read and written at a time.
const STEP: usize = 4 << 20;
/// Longest object that is no pack and no index object.
const MAX_SMALL: u64 = 64 << 20;
/// What lies beside packs and small objects, so that they can be mended.
const BESIDE: [&str; 3] = ["parity", "copies", "contents"];
/// How often all is looked at once more because prunes go on.
const ROUNDS: usize = 10;

/// How to mirror.
#[derive(Debug, Clone, Copy, Default)]
pub struct MirrorOptions {
    /// Only say what would be copied.
    pub dry_run: bool,
    /// Read what the target has already, and put whole objects in the place of damaged ones.
    pub verify: bool,
    /// What to do about packs of the source that must be thawed first.
    pub thaw: ThawOptions,
    /// Objects copied at once; 0 for one per processor.
    pub threads: usize,
}

/// What a mirror did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MirrorReport {
    /// Objects copied, or in a dry run to be copied.
    pub copied: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Objects that were there already.
    pub present: u64,
    /// Damaged objects of the target in whose place whole ones were put.
    pub replaced: Vec<String>,
    /// Objects that the source has damaged, or that cannot be read there; they were not copied.
    pub damaged: Vec<String>,
    /// Key slots that only the target has: ways in that the source closed, or that it never had.
    pub only_there: Vec<String>,
    /// What had to be thawed; absent where nothing can be archived.
    pub thaw: Option<ThawReport>,
}

struct Mirror<'a> {
    source: &'a AnyStore,
    target: &'a AnyStore,
    options: MirrorOptions,
    observer: &'a dyn Observer,
    progress: &'a Progress,
    report: Mutex<MirrorReport>,
}

/// Brings the repository at `target` up to the one at `source`; makes it if there is none. Nothing is overwritten, and
/// nothing is deleted.
///
/// # Errors
/// `NoRepository` if there is none at `source`, `Refused` if something else is at `target`, and as [`mirror_stores`].
pub fn mirror(
    source: &Location,
    target: &Location,
    options: MirrorOptions,
    progress: &Progress,
    observer: &dyn Observer,
) -> Result<MirrorReport> {
    if source == target || source.is_same(target) {
        return Err(Error::usage(format!("mirror {source}: source and target are the same place")));
    }
    let from = source.open()?;
    let to = match target.open() {
        Err(error) if error.kind() == ErrorKind::NoRepository && options.dry_run => Arc::new(Memory::default()),
        Err(error) if error.kind() == ErrorKind::NoRepository => target.create()?,
        other => other?,
    };
    mirror_stores(&from, &to, options, progress, observer)
}

/// The same for stores that are at hand.
///
/// # Errors
/// `Refused` if the target is another repository or went another way than the source; then nothing was changed. `InUse` if
/// prunes of the source never paused, `Interrupted`, `Full`, `Failed`: the next mirror goes on.
pub fn mirror_stores(
    source: &AnyStore,
    target: &AnyStore,
    options: MirrorOptions,
    progress: &Progress,
    observer: &dyn Observer,
) -> Result<MirrorReport> {
    let mirror = Mirror { source, target, options, observer, progress, report: Mutex::default() };
    mirror.run()?;
    let mut report = mirror.report.into_inner().expect("no code panics while it holds this lock");
    report.replaced.sort_unstable();
    report.damaged.sort_unstable();
    Ok(report)
}

impl Mirror<'_> {
    /// Sees to it that the packs that are to be copied can be read.
    fn thaw(&self) -> Result<()> {
        if self.options.thaw.tier.is_none() && archive(&**self.source).is_none() {
            return Ok(());
        }
        let mut there = HashMap::new();
        self.target.list("packs", &mut |Entry { key, size, .. }| {
            there.insert(key, size);
            stop_if_asked(self.observer)
        })?;
        let mut wanted = Vec::new();
        self.source.list("packs", &mut |Entry { key, size, .. }| {
            let missing = there.get(&key) != Some(&size);
            wanted.extend(key.pack_id().filter(|_| missing).map(|id| PackRef { id, size, toc_len: 0 }));
            stop_if_asked(self.observer)
        })?;
        let wishes = ThawOptions { dry_run: self.options.dry_run, ..self.options.thaw };
        self.report().thaw = make_readable(self.source, &wanted, ("mirror", &wishes), self.observer)?;
        Ok(())
    }

    fn run(&self) -> Result<()> {
        self.thaw()?;
        self.small(&[Key::format()])?;
        for _ in 0..ROUNDS {
            let prunes = keys(self.source, "gc", self.observer)?;
            let logs = keys(self.source, "log", self.observer)?;
            self.compare(&logs, &prunes)?;
            let slots = keys(self.source, "keys", self.observer)?;
            self.small(&slots)?;
            self.large("packs")?;
            self.large("index")?;
            for folder in BESIDE {
                self.small(&keys(self.source, folder, self.observer)?)?;
            }
            if keys(self.source, "gc", self.observer)? != prunes {
                continue;
            }
            self.small(&prunes)?;
            if self.small(&logs)? > 0 {
                // A prune cut off the logs meanwhile: what stands for the records is in its plan.
                continue;
            }
            let there = keys(self.target, "keys", self.observer)?;
            let only = there.iter().filter(|key| slots.binary_search(key).is_err());
            self.report().only_there = only.map(ToString::to_string).collect();
            return Ok(());
        }
        Err(Error::new(ErrorKind::InUse, "mirror the repository: prunes of the source follow each other too closely")
            .with_hint("run the mirror again when they are done; it goes on from here"))
    }

    fn report(&self) -> std::sync::MutexGuard<'_, MirrorReport> {
        self.report.lock().expect("no code panics while it holds this lock")
    }

    /// Fails if a log of the target is not the beginning of the source's, or the other way round. A record has the hash
    /// of the one before it, so the last place that both have says it all. Where old records were cut off meanwhile there
    /// may be none; plans have such a hash too.
    fn compare(&self, logs: &[Key], prunes: &[Key]) -> Result<()> {
        let there: HashSet<Key> = keys(self.target, "log", self.observer)?.into_iter().collect();
        let mut common: BTreeMap<ClientId, &Key> = BTreeMap::new();
        // Names come in the order of places.
        common.extend(logs.iter().filter(|key| there.contains(key)).filter_map(|key| Some((key.log_seq()?.0, key))));
        let there: HashSet<Key> = keys(self.target, "gc", self.observer)?.into_iter().collect();
        let newest = prunes.iter().rfind(|key| there.contains(key));
        for key in common.into_values().chain(newest) {
            let bytes = match self.source.get(key, MAX_SMALL) {
                // Cut off just now.
                Err(error) if error.kind() == ErrorKind::Missing => continue,
                other => other?,
            };
            if bytes != self.target.get(key, MAX_SMALL)? {
                return Err(went_another_way(key));
            }
        }
        Ok(())
    }

    /// Copies objects whose names say nothing of their bytes, in order. Returns how many are gone by now.
    fn small(&self, keys: &[Key]) -> Result<u64> {
        let mut gone = 0;
        for key in keys {
            stop_if_asked(self.observer)?;
            let there = self.target.size(key)?;
            if there.is_some() && !self.options.verify && *key != Key::format() {
                self.report().present += 1;
                continue;
            }
            let bytes = match self.source.get(key, MAX_SMALL) {
                // A slot that was removed meanwhile, or a record that a prune made superfluous.
                Err(error) if error.kind() == ErrorKind::Missing && *key != Key::format() => {
                    gone += 1;
                    continue;
                }
                // Longer than it can be: whoever opens either copy is told, and the rest goes along.
                Err(error) if error.kind() == ErrorKind::Damaged && *key != Key::format() => {
                    self.report().damaged.push(key.to_string());
                    continue;
                }
                other => other?,
            };
            if there.is_some() {
                if self.target.get(key, MAX_SMALL)? != bytes {
                    return Err(went_another_way(key));
                }
                self.report().present += 1;
                continue;
            }
            if !self.options.dry_run && self.target.create(key, &bytes)? == Created::Exists {
                // Another mirror, or an answer that was lost.
                if self.target.get(key, MAX_SMALL)? != bytes {
                    return Err(went_another_way(key));
                }
            }
            self.count(bytes.len() as u64);
        }
        Ok(gone)
    }

    fn count(&self, bytes: u64) {
        self.progress.add_file(bytes);
        let mut report = self.report();
        report.copied += 1;
        report.bytes += bytes;
    }

    /// Copies objects whose names are the hashes of their bytes, several at once.
    fn large(&self, folder: &str) -> Result<()> {
        let mut there = HashMap::new();
        self.target.list(folder, &mut |Entry { key, size, .. }| {
            there.insert(key, size);
            stop_if_asked(self.observer)
        })?;
        let mut wanted = Vec::new();
        self.source.list(folder, &mut |Entry { key, size, .. }| {
            let same = there.get(&key) == Some(&size);
            if same && !self.options.verify {
                self.report().present += 1;
            } else {
                wanted.push((key.clone(), size, there.contains_key(&key)));
            }
            stop_if_asked(self.observer)
        })?;
        wanted.sort_unstable();
        self.progress.files_total.fetch_add(wanted.len() as u64, Ordering::Relaxed);
        self.progress.bytes_total.fetch_add(wanted.iter().map(|(_, size, _)| size).sum(), Ordering::Relaxed);
        let threads = match self.options.threads {
            0 => {
                let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                processors.max(self.source.width()).max(self.target.width())
            }
            threads => threads,
        };
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let mut buffer = vec![0; STEP];
            while let Some((key, size, is_there)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                stop_if_asked(self.observer)?;
                self.object(key, *size, *is_there, &mut buffer).inspect_err(|_| {
                    // The others stop at their next object.
                    next.store(wanted.len(), Ordering::Relaxed);
                })?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let started: Vec<_> = (0..threads.min(wanted.len()).max(1)).map(|_| scope.spawn(work)).collect();
            started
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Error::failed("mirror: a thread failed"))))
        })
    }

    fn object(&self, key: &Key, size: u64, is_there: bool, buffer: &mut [u8]) -> Result<()> {
        if is_there && self.is_whole(self.target, key, buffer)? {
            self.report().present += 1;
            self.progress.add_file(size);
            return Ok(());
        }
        if self.options.dry_run {
            if is_there {
                self.report().replaced.push(key.to_string());
            }
            self.count(size);
            return Ok(());
        }
        let staged = self.target.stage()?;
        let mut staged = Some(staged);
        let whole =
            self.hashed(self.source, key, buffer, &mut |bytes| staged.as_mut().expect("it is taken at the end").write(bytes));
        match whole {
            Ok(true) => {}
            Ok(false) => {
                self.report().damaged.push(key.to_string());
                return Ok(());
            }
            // A prune took it meanwhile; whether it may be missing is seen from the prunes.
            Err(error) if error.kind() == ErrorKind::Missing => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.report().damaged.push(key.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if is_there {
            // Its bytes are not what its name says, so nobody can want them.
            self.target.delete(key)?;
            self.report().replaced.push(key.to_string());
        }
        staged.take().expect("it is taken here only").finish(key)?;
        self.count(size);
        Ok(())
    }

    fn is_whole(&self, store: &AnyStore, key: &Key, buffer: &mut [u8]) -> Result<bool> {
        match self.hashed(store, key, buffer, &mut |_| Ok(())) {
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing) => Ok(false),
            other => other,
        }
    }

    /// Reads an object in steps; true if its name is the hash of its bytes.
    fn hashed(&self, store: &AnyStore, key: &Key, buffer: &mut [u8], each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let size = store.size(key)?.ok_or_else(|| Error::missing(format!("read the object {key}: it is gone")))?;
        if size > MAX_PACK {
            return Err(Error::damaged(format!("read the object {key}: {size} bytes are more than it can have")));
        }
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < size {
            stop_if_asked(self.observer)?;
            let step = usize::try_from((size - at).min(buffer.len() as u64)).expect("at most the buffer's length");
            store.read_at(key, at, &mut buffer[..step])?;
            hasher.update(&buffer[..step]);
            each(&buffer[..step])?;
            at += step as u64;
        }
        let name = key.as_str().rsplit('/').next().unwrap_or_default();
        Ok(hasher.finalize().to_hex().as_str() == name)
    }
}

/// The names in a folder, in order.
fn keys(store: &AnyStore, folder: &str, observer: &dyn Observer) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    store.list(folder, &mut |entry| {
        keys.push(entry.key);
        stop_if_asked(observer)
    })?;
    keys.sort_unstable();
    Ok(keys)
}

fn went_another_way(key: &Key) -> Error {
    let message = if *key == Key::format() {
        "mirror the repository: the target is another repository".to_owned()
    } else {
        format!("mirror the repository: the target has another {key}")
    };
    Error::new(ErrorKind::Refused, message).with_hint(
        "nothing is ever overwritten; give an empty place, or look which of the two is the right one \
         (`lifeboat copy` brings snapshots from one repository into another)",
    )
}
