//! Verifying packs with several threads.

use super::select::{ReadData, select};
use super::{CheckOptions, CheckReport, Finding, Severity};
use crate::error::{Error, Result};
use crate::event::{Event, Observer, Progress, stop_if_asked};
use crate::format::log::PackRef;
use crate::id::PackId;
use crate::ops::gathered::Gathered;
use crate::ops::on_panic::OnPanic;
use crate::repo::{Depth, NEVER, PackList, PackProblem, PackReport, PackSet, Repository, Trouble, Unreadable};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// Packs in the store that nobody lists, of which so many are sorted before they are told.
const UNLISTED: usize = 10_000;

/// What to look at, and how deep.
pub(super) struct Chosen {
    packs: PackList,
    depth: Depth,
    /// Those that the store lists with the length that they should have.
    listed: PackSet,
    /// Places in `packs` of those to read whole, in that order.
    whole: Vec<u32>,
    deadline: Option<Instant>,
}

impl Chosen {
    /// Those of which every byte is read.
    pub(super) fn packs_to_read(&self) -> Result<Vec<PackRef>> {
        self.whole.iter().map(|at| self.packs.get(*at as usize)).collect()
    }

    /// What there is to do. Those that are read whole come first, in their order: time may run out.
    fn work(&self) -> impl Iterator<Item = (usize, Depth)> + Send {
        let mut read = PackSet::of(&self.packs);
        self.whole.iter().for_each(|at| read.add(*at as usize));
        let others = (0..self.packs.len()).filter(move |at| !read.has(*at)).map(|at| (at, self.depth));
        self.whole.iter().map(|at| (*at as usize, Depth::Data)).chain(others)
    }
}

/// Compares what the log lists with what is in the store, and chooses what is read.
pub(super) fn choose(
    repository: &Repository,
    depth: Depth,
    options: &CheckOptions,
    began: Instant,
    report: &mut CheckReport,
) -> Result<Chosen> {
    let packs = repository.packs()?;
    let mut unlisted: Vec<(PackId, u64)> = Vec::new();
    let mut tell = |unlisted: &mut Vec<(PackId, u64)>| {
        unlisted.sort_unstable();
        unlisted.drain(..).try_for_each(|(id, size)| {
            report.findings.add(&Finding {
                severity: Severity::Notice,
                object: format!("pack {id}"),
                problem: format!("no record of the log names it ({size} bytes); an interrupted backup may have left it"),
                hint: "the next backup may take it over, and `lifeboat prune` removes it".into(),
            })
        })
    };
    let listed = listed(repository, &packs, &mut |id, size| {
        unlisted.push((*id, size));
        if unlisted.len() == UNLISTED { tell(&mut unlisted) } else { Ok(()) }
    })?;
    tell(&mut unlisted)?;
    let wanted = options.read_data;
    let whole = match &wanted {
        Some(wanted) => select(&packs, &repository.packs_read(&packs)?, wanted, repository.now())?,
        None => Vec::new(),
    };
    let deadline = wanted.and_then(|ReadData { max_duration, .. }| max_duration).map(|duration| began + duration);
    Ok(Chosen { packs, depth, listed, whole, deadline })
}

/// Verifies what was chosen; returns what cannot be read.
pub(super) fn verify(
    repository: &Repository,
    chosen: &Chosen,
    (options, progress): (&CheckOptions, &Progress),
    observer: &dyn Observer,
    report: &mut CheckReport,
) -> Result<Unreadable> {
    let bytes = chosen.whole.iter().map(|at| Ok(chosen.packs.get(*at as usize)?.size)).sum::<Result<u64>>()?;
    progress.bytes_total.store(bytes, Ordering::Relaxed);
    let threads = repository.workers(options.threads);
    let (mut found_whole, mut findings) = (PackSet::of(&chosen.packs), PackFindings::default());
    each(repository, chosen, (threads, progress), observer, &mut |at, pack, depth, found| {
        note(repository, pack, depth, &found, report)?;
        if depth == Depth::Data && found.problems.is_empty() {
            found_whole.add(at);
        }
        findings.add(at, pack, &found)
    })?;
    let found_whole = chosen.packs.iter().enumerate().filter(|(at, _)| found_whole.has(*at));
    match repository.attest(found_whole.map(|(_, pack)| pack.map(|pack| pack.id))) {
        Ok(attested) => report.attested = attested,
        Err(error) => observer.observe(Event::Warning(&format!("what was checked cannot be vouched for: {error}"))),
    }
    if !findings.0.is_empty() && repository.met().is_none() {
        // What a prune has deleted since the packs were listed is not lost. What was in the way before is in the way still.
        repository.refresh(observer)?;
    }
    findings.each(&mut |at, finding, trouble| {
        if repository.is_gone(&chosen.packs.get(at)?.id)? {
            return Ok(());
        }
        report.own_index_differs |= trouble == Trouble::Index;
        report.findings.add(&finding)
    })?;
    report.packs = chosen.packs.len() as u64;
    report.oldest_read = repository.packs_read(&chosen.packs)?.into_iter().min().filter(|time| *time != NEVER);
    repository.known_unreadable()
}

/// What was found of packs, each with the place of the pack among all: threads come to their ends as they like. Where it is
/// much, it is told as it was found.
#[derive(Default)]
pub(in crate::ops) struct PackFindings(Gathered<(usize, Finding, Trouble)>);

impl PackFindings {
    pub(in crate::ops) fn add(&mut self, at: usize, pack: &PackRef, found: &PackReport) -> Result<()> {
        let mut problems = found.problems.iter();
        problems.try_for_each(|problem| self.push(at, Finding::of_pack(&pack.id, problem), problem.trouble))
    }

    pub(in crate::ops) fn push(&mut self, at: usize, finding: Finding, trouble: Trouble) -> Result<()> {
        self.0.push(&(at, finding, trouble))
    }

    pub(in crate::ops) fn each(self, take: &mut dyn FnMut(usize, Finding, Trouble) -> Result<()>) -> Result<()> {
        self.0.each_by_place(|(at, ..)| *at, &mut |(at, finding, trouble)| take(at, finding, trouble))
    }
}

/// Reads every byte of all packs, and hands over what is found of each, with its place among all.
pub(in crate::ops) fn each_pack(
    repository: &Repository,
    (packs, threads): (PackList, usize),
    progress: &Progress,
    observer: &dyn Observer,
    take: &mut dyn FnMut(usize, &PackRef, PackReport) -> Result<()>,
) -> Result<PackList> {
    let listed = listed(repository, &packs, &mut |_, _| Ok(()))?;
    progress.bytes_total.store(packs.bytes(), Ordering::Relaxed);
    let chosen = Chosen { packs, depth: Depth::Data, listed, whole: Vec::new(), deadline: None };
    each(repository, &chosen, (processors(threads), progress), observer, &mut |at, pack, depth, found| {
        repository.note_read(&pack.id, depth, &found)?;
        take(at, pack, found)
    })?;
    Ok(chosen.packs)
}

/// Those of the packs that the store lists with the length that they should have; others that it lists are handed over.
fn listed(repository: &Repository, packs: &PackList, other: &mut dyn FnMut(&PackId, u64) -> Result<()>) -> Result<PackSet> {
    let mut listed = PackSet::of(packs);
    repository.each_listed_pack(&mut |id, size| match packs.find(id)? {
        Some(at) if packs.get(at)?.size == size => {
            listed.add(at);
            Ok(())
        }
        Some(_) => Ok(()),
        None => other(id, size),
    })?;
    Ok(listed)
}

fn processors(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(4, std::num::NonZero::get),
        threads => threads,
    }
}

/// Takes what was found of one pack, with its place among all and how deep it was looked at. What it keeps may not be long.
type Take<'a> = &'a mut dyn FnMut(usize, &PackRef, Depth, PackReport) -> Result<()>;

/// Verifies all packs.
fn each(
    repository: &Repository,
    chosen: &Chosen,
    (threads, progress): (usize, &Progress),
    observer: &dyn Observer,
    take: Take<'_>,
) -> Result<()> {
    let (work, stopped) = (Mutex::new(chosen.work()), AtomicBool::new(false));
    let next = || work.lock().expect("no code panics while it holds this lock").next();
    let (mut taken, mut failure) = (0, None);
    progress.files_total.store(chosen.packs.len() as u64, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let (found, reports) = sync_channel(threads * 4);
        for _ in 0..threads.min(chosen.packs.len()) {
            let (found, next, stopped) = (found.clone(), &next, &stopped);
            scope.spawn(move || {
                let _end = OnPanic(|| stopped.store(true, Ordering::Relaxed));
                let mut verifier = repository.verifier();
                while let Some((at, depth)) = next().filter(|_| !stopped.load(Ordering::Relaxed)) {
                    let late = chosen.deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    let depth = if late { chosen.depth } else { depth };
                    let verified = chosen.packs.get(at).and_then(|pack| {
                        progress.at(pack.id.to_string().as_bytes());
                        // What is lost of a pack may be as long as its table of contents, so the turn goes with it.
                        let turn = (depth > Depth::Exists).then(|| repository.turn_for(&pack));
                        stop_if_asked(observer)?;
                        let report = match &mut verifier {
                            Ok(verifier) => verifier.verify(&pack, chosen.listed.has(at).then_some(pack.size), depth)?,
                            Err(error) => return Err(Error::new(error.kind(), error.to_string())),
                        };
                        progress.add_file(if depth == Depth::Data { pack.size } else { 0 });
                        Ok((pack, report, turn))
                    });
                    let stop = verified.is_err();
                    if found.send((at, depth, verified)).is_err() || stop {
                        break;
                    }
                }
            });
        }
        drop(found);
        for (at, depth, verified) in reports {
            match verified.and_then(|(pack, report, _turn)| take(at, &pack, depth, report)) {
                Ok(()) => taken += 1,
                Err(error) => {
                    stopped.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None if taken < chosen.packs.len() => Err(Error::panicked("check packs")),
        None => Ok(()),
    }
}

/// Counts what was found of one pack, and writes down when it was read, and what of it cannot be.
fn note(repository: &Repository, pack: &PackRef, depth: Depth, found: &PackReport, report: &mut CheckReport) -> Result<()> {
    report.bytes_read += found.bytes_read;
    if depth == Depth::Data {
        report.packs_read += 1;
    }
    if depth == Depth::Data || found.problems.iter().any(PackProblem::concerns_data) {
        repository.note_read(&pack.id, depth, found)?;
    } else if depth == Depth::Contents {
        repository.note_back(&pack.id)?;
    }
    Ok(())
}
