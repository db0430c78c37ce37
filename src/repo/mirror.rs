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
use crate::id::{ClientId, IndexId, PackId};
use crate::store::{AnyStore, Created, Entry, Key, Location, Memory, archive};
use std::collections::{BTreeMap, HashSet};
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
        let there = self.there("packs")?;
        let mut wanted = Vec::new();
        self.source.list("packs", &mut |Entry { key, size, .. }| {
            let id = key.pack_id().filter(|id| size_in(&there, &id.0) != Some(size));
            wanted.extend(id.map(|id| PackRef { id, size, toc_len: 0 }));
            stop_if_asked(self.observer)
        })?;
        drop(there);
        let wishes = ThawOptions { dry_run: self.options.dry_run, ..self.options.thaw };
        self.report().thaw = make_readable(self.source, &wanted, ("mirror", &wishes), self.observer)?;
        Ok(())
    }

    fn run(&self) -> Result<()> {
        self.thaw()?;
        self.small(&[Key::format()])?;
        for _ in 0..ROUNDS {
            let prunes = keys(self.source, "gc", self.observer)?;
            let logs = Records::of(self.source, self.observer)?;
            self.compare(&logs, &prunes)?;
            let slots = keys(self.source, "keys", self.observer)?;
            self.small(&slots)?;
            self.large("packs")?;
            self.large("index")?;
            for folder in BESIDE {
                // There may be one for each pack, so they are not gathered.
                self.source.list(folder, &mut |entry| self.one(&entry.key).map(drop))?;
            }
            if keys(self.source, "gc", self.observer)? != prunes {
                continue;
            }
            self.small(&prunes)?;
            if logs.keys().try_fold(false, |gone, key| Ok::<_, Error>(gone | !self.one(&key)?))? {
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
    fn compare(&self, logs: &Records, prunes: &[Key]) -> Result<()> {
        let mut common: BTreeMap<ClientId, u64> = BTreeMap::new();
        self.target.list("log", &mut |entry| {
            if let Some((client, seq)) = entry.key.log_seq().filter(|place| logs.places.binary_search(place).is_ok()) {
                let last = common.entry(client).or_insert(seq);
                *last = seq.max(*last);
            }
            stop_if_asked(self.observer)
        })?;
        let there: HashSet<Key> = keys(self.target, "gc", self.observer)?.into_iter().collect();
        let newest = prunes.iter().rfind(|key| there.contains(key)).cloned();
        for key in common.into_iter().map(|(client, seq)| Key::log(&client, seq)).chain(newest) {
            let key = &key;
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

    /// Copies objects whose names say nothing of their bytes, in order.
    fn small(&self, keys: &[Key]) -> Result<()> {
        keys.iter().try_for_each(|key| self.one(key).map(drop))
    }

    /// Copies an object whose name says nothing of its bytes; false if it is gone by now.
    fn one(&self, key: &Key) -> Result<bool> {
        stop_if_asked(self.observer)?;
        let there = self.target.size(key)?;
        if there.is_some() && !self.options.verify && *key != Key::format() {
            self.report().present += 1;
            return Ok(true);
        }
        let bytes = match self.source.get(key, MAX_SMALL) {
            // A slot that was removed meanwhile, or a record that a prune made superfluous.
            Err(error) if error.kind() == ErrorKind::Missing && *key != Key::format() => return Ok(false),
            // Longer than it can be: whoever opens either copy is told, and the rest goes along.
            Err(error) if error.kind() == ErrorKind::Damaged && *key != Key::format() => {
                self.report().damaged.push(key.to_string());
                return Ok(true);
            }
            other => other?,
        };
        if there.is_some() {
            if self.target.get(key, MAX_SMALL)? != bytes {
                return Err(went_another_way(key));
            }
            self.report().present += 1;
            return Ok(true);
        }
        if !self.options.dry_run && self.target.create(key, &bytes)? == Created::Exists {
            // Another mirror, or an answer that was lost.
            if self.target.get(key, MAX_SMALL)? != bytes {
                return Err(went_another_way(key));
            }
        }
        self.count(bytes.len() as u64);
        Ok(true)
    }

    fn count(&self, bytes: u64) {
        self.progress.add_file(bytes);
        let mut report = self.report();
        report.copied += 1;
        report.bytes += bytes;
    }

    /// Copies objects whose names are the hashes of their bytes, several at once.
    fn large(&self, folder: &str) -> Result<()> {
        let there = self.there(folder)?;
        let mut wanted = Vec::new();
        self.source.list(folder, &mut |Entry { key, size, .. }| {
            stop_if_asked(self.observer)?;
            let Some(hash) = hash_in(folder, &key) else {
                // Nothing that belongs there has such a name.
                self.report().damaged.push(key.to_string());
                return Ok(());
            };
            let known = size_in(&there, &hash);
            if known == Some(size) && !self.options.verify {
                self.report().present += 1;
            } else {
                wanted.push((hash, size, known.is_some()));
            }
            Ok(())
        })?;
        drop(there);
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
            while let Some((hash, size, is_there)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                stop_if_asked(self.observer)?;
                self.object(&named(folder, hash), *size, *is_there, &mut buffer).inspect_err(|_| {
                    // The others stop at their next object.
                    next.store(wanted.len(), Ordering::Relaxed);
                })?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let started: Vec<_> = (0..threads.min(wanted.len()).max(1)).map(|_| scope.spawn(work)).collect();
            started.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Error::panicked("mirror objects"))))
        })
    }

    /// The objects of a folder of the target that are named by the hashes of their bytes, by name, with their lengths.
    fn there(&self, folder: &str) -> Result<Vec<([u8; 32], u64)>> {
        let mut there = Vec::new();
        self.target.list(folder, &mut |Entry { key, size, .. }| {
            there.extend(hash_in(folder, &key).map(|hash| (hash, size)));
            stop_if_asked(self.observer)
        })?;
        there.sort_unstable();
        Ok(there)
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

/// The records of all logs.
struct Records {
    /// In the order of places.
    places: Vec<(ClientId, u64)>,
    /// What has another name.
    others: Vec<Key>,
}

impl Records {
    fn of(store: &AnyStore, observer: &dyn Observer) -> Result<Self> {
        let (mut places, mut others) = (Vec::new(), Vec::new());
        store.list("log", &mut |entry| {
            match entry.key.log_seq() {
                Some(place) => places.push(place),
                None => others.push(entry.key),
            }
            stop_if_asked(observer)
        })?;
        places.sort_unstable();
        others.sort_unstable();
        Ok(Self { places, others })
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        self.places.iter().map(|(client, seq)| Key::log(client, *seq)).chain(self.others.iter().cloned())
    }
}

/// The name in `folder` of an object with this hash.
fn named(folder: &str, hash: &[u8; 32]) -> Key {
    if folder == "packs" { Key::pack(&PackId(*hash)) } else { Key::index(&IndexId(*hash)) }
}

/// The hash that an object in `folder` is named by, if it is.
fn hash_in(folder: &str, key: &Key) -> Option<[u8; 32]> {
    let hash = PackId::from_hex(key.as_str().rsplit('/').next()?).ok()?.0;
    (named(folder, &hash) == *key).then_some(hash)
}

/// Length of the object with that hash, among some in the order of hashes.
fn size_in(objects: &[([u8; 32], u64)], hash: &[u8; 32]) -> Option<u64> {
    objects.binary_search_by_key(hash, |(known, _)| *known).ok().map(|at| objects[at].1)
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
