//! Verifying packs with several threads.

use super::select::{ReadData, select};
use super::{CheckOptions, CheckReport, Finding, Severity};
use crate::error::{Error, Result};
use crate::event::{Event, Observer, Progress, stop_if_asked};
use crate::format::log::PackRef;
use crate::id::PackId;
use crate::ops::gathered::Gathered;
use crate::ops::on_panic::OnPanic;
use crate::repo::{Depth, PackProblem, PackReport, Repository, Trouble, Unreadable};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// What to look at, and how deep.
pub(super) struct Chosen {
    packs: Vec<PackRef>,
    depth: Depth,
    /// What the store lists, by name.
    listed: Vec<(PackId, u64)>,
    /// Places in `packs` of those to read whole, in that order.
    whole: Vec<usize>,
    deadline: Option<Instant>,
}

impl Chosen {
    /// Length of the pack, if the store lists it.
    fn listed(&self, pack: &PackId) -> Option<u64> {
        self.listed.binary_search_by_key(pack, |(id, _)| *id).ok().map(|at| self.listed[at].1)
    }

    /// Those of which every byte is read.
    pub(super) fn packs_to_read(&self) -> Vec<PackRef> {
        self.whole.iter().map(|at| self.packs[*at]).collect()
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
    let listed = listed(repository)?;
    let known: HashSet<PackId> = packs.iter().map(|pack| pack.id).collect();
    for (id, size) in listed.iter().filter(|(id, _)| !known.contains(id)) {
        report.findings.add(&Finding {
            severity: Severity::Notice,
            object: format!("pack {id}"),
            problem: format!("no record of the log names it ({size} bytes); an interrupted backup may have left it"),
            hint: "the next backup may take it over, and `lifeboat prune` removes it".into(),
        })?;
    }
    drop(known);
    let read = repository.packs_read()?;
    let wanted = options.read_data;
    let whole = wanted.map_or_else(Vec::new, |wanted| select(&packs, &read, &wanted, repository.now()));
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
    let gone = repository.known_gone()?;
    let whole: HashSet<usize> = chosen.whole.iter().copied().collect();
    // Those that are read whole come first, in their order: time may run out.
    let others = (0..chosen.packs.len()).filter(|at| !whole.contains(at)).map(|at| (at, chosen.depth));
    let work: Vec<(usize, Depth)> = chosen.whole.iter().map(|at| (*at, Depth::Data)).chain(others).collect();
    drop(whole);
    progress.files_total.store(work.len() as u64, Ordering::Relaxed);
    progress.bytes_total.store(chosen.whole.iter().map(|at| chosen.packs[*at].size).sum(), Ordering::Relaxed);
    let threads = repository.workers(options.threads);
    let (mut found_whole, mut findings) = (Vec::new(), PackFindings::default());
    each(repository, chosen, (&work, threads, progress), observer, &mut |at, depth, found| {
        let pack = &chosen.packs[at];
        note(repository, pack, (depth, gone.contains(&pack.id)), &found, report)?;
        if depth == Depth::Data && found.problems.is_empty() {
            found_whole.push(pack.id);
        }
        findings.add(at, pack, &found)
    })?;
    match repository.attest(found_whole.into_iter()) {
        Ok(attested) => report.attested = attested,
        Err(error) => observer.observe(Event::Warning(&format!("what was checked cannot be vouched for: {error}"))),
    }
    if !findings.0.is_empty() {
        // What a prune has deleted since the packs were listed is not lost.
        repository.refresh(observer)?;
    }
    findings.each(&mut |at, finding, trouble| {
        if repository.is_gone(&chosen.packs[at].id)? {
            return Ok(());
        }
        report.own_index_differs |= trouble == Trouble::Index;
        report.findings.add(&finding)
    })?;
    report.packs = chosen.packs.len() as u64;
    let read = repository.packs_read()?;
    let times: Option<Vec<i64>> = chosen.packs.iter().map(|pack| read.get(&pack.id).copied()).collect();
    report.oldest_read = times.and_then(|times| times.into_iter().min());
    repository.known_unreadable()
}

/// What was found of packs, each with the place of the pack among all: threads come to their ends as they like.
#[derive(Default)]
pub(in crate::ops) struct PackFindings(Gathered<(usize, Finding, Trouble)>);

impl PackFindings {
    /// So many are told in the order of the packs, and more of them as they were found.
    const IN_ORDER: u64 = 10_000;

    pub(in crate::ops) fn add(&mut self, at: usize, pack: &PackRef, found: &PackReport) -> Result<()> {
        let mut problems = found.problems.iter();
        problems.try_for_each(|problem| self.push(at, Finding::of_pack(&pack.id, problem), problem.trouble))
    }

    pub(in crate::ops) fn push(&mut self, at: usize, finding: Finding, trouble: Trouble) -> Result<()> {
        self.0.push(&(at, finding, trouble))
    }

    pub(in crate::ops) fn each(self, take: &mut dyn FnMut(usize, Finding, Trouble) -> Result<()>) -> Result<()> {
        if self.0.len() > Self::IN_ORDER {
            return self.0.iter().try_for_each(|found| found.and_then(|(at, finding, trouble)| take(at, finding, trouble)));
        }
        let mut found: Vec<_> = self.0.iter().collect::<Result<_>>()?;
        found.sort_by_key(|(at, ..)| *at);
        found.into_iter().try_for_each(|(at, finding, trouble)| take(at, finding, trouble))
    }
}

/// Reads every byte of all packs, and hands over what is found of each, with its place among all.
pub(in crate::ops) fn each_pack(
    repository: &Repository,
    threads: usize,
    progress: &Progress,
    observer: &dyn Observer,
    take: &mut dyn FnMut(usize, &PackRef, PackReport) -> Result<()>,
) -> Result<()> {
    let packs = repository.packs()?;
    let listed = listed(repository)?;
    let work: Vec<(usize, Depth)> = (0..packs.len()).map(|at| (at, Depth::Data)).collect();
    progress.files_total.store(work.len() as u64, Ordering::Relaxed);
    progress.bytes_total.store(packs.iter().map(|pack| pack.size).sum(), Ordering::Relaxed);
    let chosen = Chosen { packs, depth: Depth::Data, listed, whole: Vec::new(), deadline: None };
    each(repository, &chosen, (&work, processors(threads), progress), observer, &mut |at, depth, found| {
        let pack = &chosen.packs[at];
        repository.note_read(&pack.id, depth, &found)?;
        take(at, pack, found)
    })
}

/// What the store lists, by name.
fn listed(repository: &Repository) -> Result<Vec<(PackId, u64)>> {
    let mut listed = repository.listed_packs()?;
    listed.sort_unstable();
    Ok(listed)
}

fn processors(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(4, std::num::NonZero::get),
        threads => threads,
    }
}

/// Takes what was found of one pack, by its place among all, and how deep it was looked at. What it keeps may not be long.
type Take<'a> = &'a mut dyn FnMut(usize, Depth, PackReport) -> Result<()>;

/// Verifies all packs.
fn each(
    repository: &Repository,
    chosen: &Chosen,
    (work, threads, progress): (&[(usize, Depth)], usize, &Progress),
    observer: &dyn Observer,
    take: Take<'_>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let (mut taken, mut failure) = (0, None);
    std::thread::scope(|scope| {
        let (found, reports) = sync_channel(threads * 4);
        for _ in 0..threads.min(work.len()) {
            let (found, next) = (found.clone(), &next);
            scope.spawn(move || {
                let _end = OnPanic(|| next.store(usize::MAX / 2, Ordering::Relaxed));
                let mut verifier = repository.verifier();
                while let Some((at, depth)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let late = chosen.deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    let depth = if late { chosen.depth } else { *depth };
                    let pack = &chosen.packs[*at];
                    progress.at(pack.id.to_string().as_bytes());
                    let listed = chosen.listed(&pack.id);
                    let turn = (depth > Depth::Exists).then(|| repository.turn_for(pack));
                    let result = stop_if_asked(observer).and_then(|()| match &mut verifier {
                        Ok(verifier) => verifier.verify(pack, listed, depth),
                        Err(error) => Err(Error::new(error.kind(), error.to_string())),
                    });
                    progress.add_file(if depth == Depth::Data { pack.size } else { 0 });
                    let stop = result.is_err();
                    // What is lost of a pack may be as long as its table of contents, so the turn goes with it.
                    if found.send((*at, depth, result, turn)).is_err() || stop {
                        break;
                    }
                }
            });
        }
        drop(found);
        for (at, depth, result, _turn) in reports {
            match result.and_then(|found| take(at, depth, found)) {
                Ok(()) => taken += 1,
                Err(error) => {
                    next.store(usize::MAX / 2, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None if taken < work.len() => Err(Error::panicked("check packs")),
        None => Ok(()),
    }
}

/// Counts what was found of one pack, and writes down when it was read, and what of it cannot be.
fn note(
    repository: &Repository,
    pack: &PackRef,
    (depth, was_gone): (Depth, bool),
    found: &PackReport,
    report: &mut CheckReport,
) -> Result<()> {
    report.bytes_read += found.bytes_read;
    if depth == Depth::Data {
        report.packs_read += 1;
    }
    if depth == Depth::Data || found.problems.iter().any(PackProblem::concerns_data) {
        repository.note_read(&pack.id, depth, found)?;
    } else if depth == Depth::Contents && was_gone {
        repository.note_back(&pack.id)?;
    }
    Ok(())
}
