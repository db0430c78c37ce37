//! `check`: verifies a repository; reports every finding and changes nothing.

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, Stage, stop_if_asked};
use crate::format::log::PackRef;
use crate::format::tree::{ChunkType, Node, NodeKind};
use crate::id::{ChunkId, ChunkPrefix, PackId, SnapshotId};
use crate::repo::{Act, PackReport, Reader, Repository};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How deep to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read, open, and hash all data, not only the structure.
    pub read_data: bool,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is lost; something is left over or out of date.
    Notice,
    /// Data of a snapshot is lost or cannot be trusted.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object concerned, by its name in the store.
    pub object: String,
    /// What is wrong, in words.
    pub problem: String,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Everything that is wrong, in the order found.
    pub findings: Vec<Finding>,
    /// Snapshots that cannot be restored whole, with the first paths concerned.
    pub damaged: Vec<(SnapshotId, Vec<Vec<u8>>)>,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Chunks known.
    pub chunks: u64,
    /// Bytes read from the store.
    pub bytes_read: u64,
    /// Packs of other clients that this check vouched for in the log.
    pub attested: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl CheckReport {
    /// True if data is lost.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }
}

/// Verifies the log's packs, the trees of all snapshots, and with `read_data` every byte that is stored.
///
/// # Errors
/// Only what keeps the check from going on; everything that is wrong with the repository is in the report.
pub fn check(repository: &Repository, options: &CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
    repository.permit(if options.read_data { Act::Read } else { Act::List })?;
    let began = Instant::now();
    let mut report = CheckReport::default();
    repository.load_index(observer)?;
    let packs = repository.packs()?;
    let progress = Arc::new(Progress::default());
    progress.files_total.store(packs.len() as u64, Ordering::Relaxed);
    if options.read_data {
        progress.bytes_total.store(packs.iter().map(|pack| pack.size).sum(), Ordering::Relaxed);
    }
    observer.observe(Event::Started(Stage::Checking, &progress));
    let checked = check_packs(repository, options, &packs, &progress, observer);
    let lost = checked.and_then(|found| {
        let whole = found.iter().filter(|(_, pack)| options.read_data && pack.problems.is_empty());
        match repository.attest(whole.map(|(number, _)| packs[*number].id)) {
            Ok(attested) => report.attested = attested,
            Err(error) => observer.observe(Event::Warning(&format!("what was checked cannot be vouched for: {error}"))),
        }
        let lost = take_packs(&mut report, found, &packs);
        unknown_packs(repository, &packs, &mut report)?;
        check_trees(repository, &lost, &mut report, observer)
    });
    observer.observe(Event::Finished(Stage::Checking));
    lost?;
    tell_of_clones(repository, &mut report)?;
    report.packs = packs.len() as u64;
    report.chunks = repository.chunk_count()?;
    report.elapsed = began.elapsed();
    Ok(report)
}

/// Names clients whose identity several machines use at once.
fn tell_of_clones(repository: &Repository, report: &mut CheckReport) -> Result<()> {
    for (member, machines) in repository.cloned()? {
        let problem = format!("{machines} machines use its identity at once; give each its own with `lifeboat key enrol`");
        let object = format!("client {}", member.id);
        report.findings.push(Finding { severity: Severity::Notice, object, problem });
    }
    Ok(())
}

/// Length of a path beyond which a tree is taken to be hostile.
const MAX_PATH: usize = 1 << 20;

type Found = Vec<(usize, PackReport)>;

fn check_packs(
    repository: &Repository,
    options: &CheckOptions,
    packs: &[PackRef],
    progress: &Progress,
    observer: &dyn Observer,
) -> Result<Found> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(4, std::num::NonZero::get),
        threads => threads,
    };
    let next = AtomicUsize::new(0);
    let work = || -> Result<Found> {
        let mut verifier = repository.verifier()?;
        let mut found = Vec::new();
        loop {
            stop_if_asked(observer)?;
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(pack) = packs.get(number) else { return Ok(found) };
            progress.at(pack.id.to_string().as_bytes());
            found.push((number, verifier.verify(pack, options.read_data)));
            progress.add_file(if options.read_data { pack.size } else { 0 });
        }
    };
    let results: Vec<Result<Found>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.min(packs.len().max(1))).map(|_| scope.spawn(work)).collect();
        let failed = |_| Err(Error::failed("check: a thread failed"));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(failed)).collect()
    });
    let mut all = Vec::new();
    for result in results {
        all.extend(result?);
    }
    all.sort_by_key(|(number, _)| *number);
    Ok(all)
}

fn take_packs(report: &mut CheckReport, found: Found, packs: &[PackRef]) -> HashSet<ChunkPrefix> {
    let mut lost = HashSet::new();
    for (number, pack) in found {
        report.bytes_read += pack.bytes_read;
        for problem in pack.problems {
            report.findings.push(Finding {
                severity: Severity::Damage,
                object: format!("pack {}", packs[number].id),
                problem: problem.error.to_string(),
            });
            lost.extend(problem.lost);
        }
    }
    lost
}

/// Packs in the store that nothing knows of: left by a backup that was cut off, or put there by somebody.
fn unknown_packs(repository: &Repository, known: &[PackRef], report: &mut CheckReport) -> Result<()> {
    let known: HashSet<PackId> = known.iter().map(|pack| pack.id).collect();
    for (id, size) in repository.listed_packs()? {
        if !known.contains(&id) {
            let problem = format!("no record of the log names it ({size} bytes); an interrupted backup may have left it");
            report.findings.push(Finding { severity: Severity::Notice, object: format!("pack {id}"), problem });
        }
    }
    Ok(())
}

/// What was found of trees that several snapshots share.
struct Trees<'a> {
    reader: Reader,
    lost: &'a HashSet<ChunkPrefix>,
    /// Pages below which nothing is missing.
    whole: HashSet<ChunkPrefix>,
    observer: &'a dyn Observer,
}

fn check_trees(
    repository: &Repository,
    lost: &HashSet<ChunkPrefix>,
    report: &mut CheckReport,
    observer: &dyn Observer,
) -> Result<()> {
    let mut trees = Trees { reader: repository.reader()?, lost, whole: HashSet::new(), observer };
    for entry in repository.snapshots()? {
        report.snapshots += 1;
        let mut missing = Vec::new();
        trees.directory(&entry.snapshot.root, &mut Vec::new(), &mut missing)?;
        if !missing.is_empty() {
            let problem = format!("{} files or directories cannot be restored", missing.len());
            report.findings.push(Finding { severity: Severity::Damage, object: format!("snapshot {}", entry.id), problem });
            missing.truncate(100);
            report.damaged.push((entry.id, missing));
        }
    }
    Ok(())
}

impl Trees<'_> {
    /// Looks at a directory and all below it; true if it is whole.
    fn directory(&mut self, root: &ChunkId, path: &mut Vec<u8>, missing: &mut Vec<Vec<u8>>) -> Result<bool> {
        if self.whole.contains(&root.prefix()) {
            return Ok(true);
        }
        stop_if_asked(self.observer)?;
        let mut nodes = Vec::new();
        let mut whole = path.len() < MAX_PATH && self.pages(root, &mut nodes)?;
        if !whole {
            missing.push(if path.is_empty() { b"/".to_vec() } else { path.clone() });
        }
        for node in nodes {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&node.name);
            if let Some(subtree) = &node.subtree {
                whole &= self.directory(subtree, path, missing)?;
            } else if !self.content(&node)? {
                missing.push(path.clone());
                whole = false;
            }
            path.truncate(length);
        }
        if whole {
            self.whole.insert(root.prefix());
        }
        Ok(whole)
    }

    fn pages(&self, root: &ChunkId, nodes: &mut Vec<Node>) -> Result<bool> {
        let opened = self.reader.nodes(root);
        let Some(all) = readable(opened)? else { return Ok(false) };
        for node in all {
            match readable(node)? {
                Some(node) => nodes.push(node),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn content(&self, node: &Node) -> Result<bool> {
        if node.kind != NodeKind::File {
            return Ok(true);
        }
        let Some(contents) = readable(self.reader.contents(&node.content))? else { return Ok(false) };
        for reference in contents {
            let Some(reference) = readable(reference)? else { return Ok(false) };
            if !self.reader.is_readable(ChunkType::Data, &reference.id, self.lost)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Tells damage, which is a finding, from what keeps the check from going on.
fn readable<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}
