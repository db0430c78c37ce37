//! `copy`: snapshots into another repository, sealed with its keys and deduplicated against what it has.
//!
//! For each snapshot two walks: the first finds the chunks that the target does not have, and workers read and store
//! them; the second builds the trees with the target's names. Which chunk is called what there is remembered, so that
//! the next copy, also of another snapshot or after an interruption, reads only what is new.

mod chunks;
mod trees;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, Silent, Stage, stop_if_asked};
use crate::format::log::PackRef;
use crate::format::snapshot::Snapshot;
use crate::id::SnapshotId;
use crate::ops::thaw::{ThawOptions, ThawReport};
use crate::repo::{Act, CopyMap, Repository, Session, SessionCounts, SnapshotEntry};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Name of the metadata that says of which snapshot of which repository a snapshot is a copy.
const ORIGIN: &str = "copy-of";

/// How often a snapshot is copied again because a prune of the target was faster.
const ATTEMPTS: usize = 5;

/// How to copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Only say what would be copied.
    pub dry_run: bool,
    /// What to do about packs of the source that must be thawed first.
    pub thaw: ThawOptions,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
}

/// What became of one snapshot.
#[derive(Debug)]
pub struct CopiedSnapshot {
    /// Its id where it came from.
    pub from: SnapshotId,
    /// Its id in the target; absent in a dry run.
    pub to: Option<SnapshotId>,
    /// Bytes of its files that the target did not have by name, and that were read.
    pub bytes_read: u64,
    /// What the target grew by.
    pub added: SessionCounts,
}

/// What a copy did.
#[derive(Debug, Default)]
pub struct CopyReport {
    /// Snapshots that were copied, or with `dry_run` would be.
    pub copied: Vec<CopiedSnapshot>,
    /// Snapshots that the target has already.
    pub present: Vec<SnapshotId>,
    /// Snapshots of which something could not be read; the observer was told what.
    pub failed: Vec<SnapshotId>,
    /// Packs that the target stores for this, about: each is one request of a remote store.
    pub packs: u64,
    /// What had to be thawed; absent where nothing can be archived.
    pub thaw: Option<ThawReport>,
    /// How long it took.
    pub elapsed: Duration,
}

impl CopyReport {
    /// True if a snapshot that was asked for could not be copied.
    #[must_use]
    pub fn incomplete(&self) -> bool {
        !self.failed.is_empty()
    }
}

/// Copies `snapshots` of `source` into `target`; those that it has already are left alone.
///
/// # Errors
/// `Archived` if packs must be thawed first; `Usage` if both are one repository, `Refused` if the keys at hand cannot read
/// the one or write the other, `Interrupted`, `Full`. Snapshots that were finished before stay. Damage in the source fails only the snapshots that
/// have it.
pub fn copy(
    source: &Repository,
    target: &Repository,
    snapshots: &[SnapshotEntry],
    options: CopyOptions,
    observer: &dyn Observer,
) -> Result<CopyReport> {
    source.permit(Act::Read)?;
    target.permit(Act::BackUp)?;
    if source.format().id == target.format().id {
        return Err(Error::usage("copy snapshots: source and target are one repository, or a mirror of it")
            .with_hint("`lifeboat mirror` brings a second copy of the same repository up to date"));
    }
    let copy = || attempt(source, target, snapshots, options, observer);
    let whole = |report: &CopyReport| !report.incomplete();
    source.reading(observer, &[], whole, || target.with_sound_cache(observer, |_| true, copy))
}

fn attempt(
    source: &Repository,
    target: &Repository,
    snapshots: &[SnapshotEntry],
    options: CopyOptions,
    observer: &dyn Observer,
) -> Result<CopyReport> {
    let began = Instant::now();
    let mut thawed = None;
    if source.may_be_archived(&options.thaw) {
        let packs = needed(source, target, snapshots, options)?;
        let wishes = ThawOptions { dry_run: options.dry_run, ..options.thaw };
        thawed = source.make_readable(&packs, ("copy", &wishes), observer)?;
    }
    let mut copying = Copying::new(source, target, options, observer)?;
    observer.observe(Event::Started(Stage::Copying, &copying.progress));
    let result = copying.all(snapshots);
    observer.observe(Event::Finished(Stage::Copying));
    result?;
    let mut report = copying.report;
    report.thaw = thawed;
    let stored: u64 = report.copied.iter().map(|copied| copied.added.bytes_stored.max(copied.bytes_read)).sum();
    report.packs = stored.div_ceil(u64::from(target.format().pack_target));
    report.elapsed = began.elapsed();
    Ok(report)
}

/// The packs of the source from which a copy would read.
fn needed(source: &Repository, target: &Repository, snapshots: &[SnapshotEntry], options: CopyOptions) -> Result<Vec<PackRef>> {
    let options = CopyOptions { dry_run: true, ..options };
    let mut copying = Copying::new(source, target, options, &Silent)?;
    copying.needed = Some(Mutex::default());
    copying.all(snapshots)?;
    let needed = copying.needed.take().unwrap_or_default().into_inner();
    let reader = source.reader()?;
    needed.expect("no code panics while it holds this lock").into_iter().map(|number| reader.pack_ref(number)).collect()
}

/// The snapshots of a repository by where they were made: repository and id there.
fn origins(repository: &Repository) -> Result<HashMap<String, SnapshotId>> {
    // Of a writer's key, those that this machine made.
    let (mut kept, _) = repository.known_snapshots()?;
    kept.retain(SnapshotEntry::is_kept);
    Ok(kept.iter().map(|entry| (origin(repository, entry), entry.id)).collect())
}

/// Where a snapshot was made; a copy of a copy has the same origin as both.
fn origin(repository: &Repository, entry: &SnapshotEntry) -> String {
    let noted = entry.snapshot.metadata.iter().find(|(name, _)| name == ORIGIN);
    noted.map_or_else(|| format!("{}:{}", repository.format().id, entry.id), |(_, origin)| origin.clone())
}

struct Copying<'a> {
    source: &'a Repository,
    target: &'a Repository,
    options: CopyOptions,
    observer: &'a dyn Observer,
    progress: Arc<Progress>,
    map: Mutex<CopyMap>,
    /// The state of the target's index since which directories are noted in the map.
    state: Option<(Vec<u8>, i64)>,
    /// Packs from which something would be read, by their numbers in the source's index, if a dry run is to find them.
    needed: Option<Mutex<BTreeSet<u32>>>,
    report: CopyReport,
    /// Entries of the tree that is being copied, at most.
    most_entries: u64,
}

impl<'a> Copying<'a> {
    fn new(source: &'a Repository, target: &'a Repository, options: CopyOptions, observer: &'a dyn Observer) -> Result<Self> {
        let map = Mutex::new(CopyMap::open(target, &source.format().id)?);
        let (progress, report) = (Arc::default(), CopyReport::default());
        Ok(Self { source, target, options, observer, progress, map, state: None, needed: None, report, most_entries: 0 })
    }
}

impl Copying<'_> {
    fn all(&mut self, snapshots: &[SnapshotEntry]) -> Result<()> {
        let mut known = origins(self.target)?;
        for entry in snapshots {
            let origin = origin(self.source, entry);
            if known.contains_key(&origin) {
                self.report.present.push(entry.id);
                continue;
            }
            match self.snapshot(entry, &origin, &known) {
                Ok(to) => drop(known.insert(origin, to.unwrap_or(entry.id))),
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing) => {
                    let name = format!("snapshot {}", entry.id.short());
                    self.observer.observe(Event::Failure { path: name.as_bytes(), error: &error });
                    self.report.failed.push(entry.id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn map(&self) -> MutexGuard<'_, CopyMap> {
        self.map.lock().expect("no code panics while it holds this lock")
    }

    fn snapshot(
        &mut self,
        entry: &SnapshotEntry,
        origin: &str,
        known: &HashMap<String, SnapshotId>,
    ) -> Result<Option<SnapshotId>> {
        let mut snapshot = entry.snapshot.clone();
        let parent = snapshot.parent.map(|parent| format!("{}:{parent}", self.source.format().id));
        snapshot.parent = parent.and_then(|parent| known.get(&parent).copied());
        snapshot.metadata.retain(|(name, _)| name != ORIGIN);
        snapshot.metadata.push((ORIGIN.to_owned(), origin.to_owned()));
        snapshot.metadata.sort_unstable();
        for _ in 0..ATTEMPTS {
            if let Some(copied) = self.attempt(entry, &snapshot)? {
                let to = copied.to;
                self.report.copied.push(copied);
                return Ok(to);
            }
            let warning = "a prune of the target took what this copy relied on: storing it again";
            self.observer.observe(Event::Warning(warning));
            self.target.refresh(self.observer)?;
        }
        Err(Error::new(ErrorKind::InUse, format!("copy the snapshot {}: prunes of the target were faster", entry.id.short()))
            .with_hint("run the copy again; what was stored stays stored"))
    }

    /// Copies one snapshot; `None` if a prune of the target was faster.
    fn attempt(&mut self, entry: &SnapshotEntry, snapshot: &Snapshot) -> Result<Option<CopiedSnapshot>> {
        stop_if_asked(self.observer)?;
        let session = Session::start(self.target, self.options.dry_run)?;
        let state = Some(session.state_of_index());
        if self.state == state {
            // Directories that were copied since are taken over as they are.
            session.rely_on_index();
        } else {
            self.map().forget_directories()?;
            self.state = state;
        }
        let read_before = self.progress.bytes.load(Ordering::Relaxed);
        self.most_entries = entry.snapshot.counts.most_entries();
        let mut writer = session.writer()?;
        let copied = self.content(&session, &mut writer, &entry.snapshot.root);
        let bytes_read = self.progress.bytes.load(Ordering::Relaxed) - read_before;
        if self.options.dry_run || copied.is_err() {
            // What its threads met is nearer to the cause than what a worker saw of it.
            session.abandon(writer)?;
            copied?;
            let (from, added) = (entry.id, SessionCounts::default());
            return Ok(Some(CopiedSnapshot { from, to: None, bytes_read, added }));
        }
        let mut snapshot = snapshot.clone();
        snapshot.root = match self.tree(&entry.snapshot.root, &mut writer) {
            Ok(root) => root,
            Err(error) => {
                session.abandon(writer)?;
                return Err(error);
            }
        };
        let mut counts = SessionCounts::default();
        let committed = session.commit(writer, |added| {
            counts = added;
            snapshot.counts.bytes_added = added.bytes_added;
            snapshot.counts.bytes_stored = added.bytes_stored;
            snapshot
        })?;
        Ok(committed.map(|(to, _)| CopiedSnapshot { from: entry.id, to: Some(to), bytes_read, added: counts }))
    }
}
