//! Verifying packs with several threads.

use super::select::{ReadData, select};
use super::{CheckOptions, CheckReport, Finding, Severity};
use crate::error::{Error, Result};
use crate::event::{Event, Observer, Progress, stop_if_asked};
use crate::format::log::PackRef;
use crate::id::PackId;
use crate::repo::{Depth, Lost, PackProblem, PackReport, Repository, Trouble, Unreadable};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// What to look at, and how deep.
pub(super) struct Chosen {
    packs: Vec<PackRef>,
    depth: Depth,
    listed: HashMap<PackId, u64>,
    /// Places in `packs` of those to read whole, in that order.
    whole: Vec<usize>,
    deadline: Option<Instant>,
}

impl Chosen {
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
    let listed: HashMap<PackId, u64> = repository.listed_packs()?.into_iter().collect();
    let known: HashSet<PackId> = packs.iter().map(|pack| pack.id).collect();
    let mut unknown: Vec<_> = listed.iter().filter(|(id, _)| !known.contains(id)).collect();
    unknown.sort_unstable();
    for (id, size) in unknown {
        report.findings.push(Finding {
            severity: Severity::Notice,
            object: format!("pack {id}"),
            problem: format!("no record of the log names it ({size} bytes); an interrupted backup may have left it"),
            hint: "the next backup may take it over, and `lifeboat prune` removes it".into(),
        });
    }
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
    progress.files_total.store(work.len() as u64, Ordering::Relaxed);
    progress.bytes_total.store(chosen.whole.iter().map(|at| chosen.packs[*at].size).sum(), Ordering::Relaxed);
    let threads = repository.workers(options.threads);
    let taken = each(repository, chosen, (&work, threads, progress), observer, &mut |pack, depth, found| {
        note(repository, pack, (depth, gone.contains(&pack.id)), found, report)
    })?;
    let whole = whole.iter().filter(|at| taken[**at].0 == Depth::Data && taken[**at].1.problems.is_empty());
    match repository.attest(whole.map(|at| chosen.packs[*at].id)) {
        Ok(attested) => report.attested = attested,
        Err(error) => observer.observe(Event::Warning(&format!("what was checked cannot be vouched for: {error}"))),
    }
    if taken.iter().any(|(_, found)| !found.problems.is_empty()) {
        // What a prune has deleted since the packs were listed is not lost.
        repository.refresh(observer)?;
    }
    for (pack, (_, found)) in chosen.packs.iter().zip(taken) {
        if !found.problems.is_empty() && repository.is_gone(&pack.id)? {
            continue;
        }
        report.own_index_differs |= found.problems.iter().any(|problem| problem.trouble == Trouble::Index);
        report.findings.extend(found.problems.iter().map(|problem| Finding::of_pack(&pack.id, problem)));
    }
    report.packs = chosen.packs.len() as u64;
    let read = repository.packs_read()?;
    let times: Option<Vec<i64>> = chosen.packs.iter().map(|pack| read.get(&pack.id).copied()).collect();
    report.oldest_read = times.and_then(|times| times.into_iter().min());
    repository.known_unreadable()
}

/// Reads every byte of all packs, and hands over what is found of each; returns what came of it, in the order of the packs.
pub(in crate::ops) fn each_pack<T>(
    repository: &Repository,
    threads: usize,
    progress: &Progress,
    observer: &dyn Observer,
    take: &mut dyn FnMut(&PackRef, PackReport) -> Result<T>,
) -> Result<Vec<T>> {
    let packs = repository.packs()?;
    let listed = repository.listed_packs()?.into_iter().collect();
    let work: Vec<(usize, Depth)> = (0..packs.len()).map(|at| (at, Depth::Data)).collect();
    progress.files_total.store(work.len() as u64, Ordering::Relaxed);
    progress.bytes_total.store(packs.iter().map(|pack| pack.size).sum(), Ordering::Relaxed);
    let chosen = Chosen { packs, depth: Depth::Data, listed, whole: Vec::new(), deadline: None };
    let taken = each(repository, &chosen, (&work, processors(threads), progress), observer, &mut |pack, depth, found| {
        repository.note_read(&pack.id, depth, &found)?;
        take(pack, found)
    })?;
    Ok(taken.into_iter().map(|(_, taken)| taken).collect())
}

fn processors(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(4, std::num::NonZero::get),
        threads => threads,
    }
}

/// Hands over what is found of one pack; what it gives back is kept, and so may not be long.
type Take<'a, T> = &'a mut dyn FnMut(&PackRef, Depth, PackReport) -> Result<T>;

/// Verifies all packs; returns how deep each was looked at, and what was found.
fn each<T>(
    repository: &Repository,
    chosen: &Chosen,
    (work, threads, progress): (&[(usize, Depth)], usize, &Progress),
    observer: &dyn Observer,
    take: Take<'_, T>,
) -> Result<Vec<(Depth, T)>> {
    let next = AtomicUsize::new(0);
    let mut taken: Vec<Option<(Depth, T)>> = Vec::new();
    taken.resize_with(chosen.packs.len(), || None);
    let mut failure = None;
    std::thread::scope(|scope| {
        let (found, reports) = sync_channel(threads * 4);
        for _ in 0..threads.min(work.len()) {
            let (found, next) = (found.clone(), &next);
            scope.spawn(move || {
                let mut verifier = repository.verifier();
                while let Some((at, depth)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let late = chosen.deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    let depth = if late { chosen.depth } else { *depth };
                    let pack = &chosen.packs[*at];
                    progress.at(pack.id.to_string().as_bytes());
                    let listed = chosen.listed.get(&pack.id).copied();
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
            match result.and_then(|found| take(&chosen.packs[at], depth, found)) {
                Ok(found) => taken[at] = Some((depth, found)),
                Err(error) => {
                    next.store(usize::MAX / 2, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => taken.into_iter().collect::<Option<_>>().ok_or_else(|| Error::failed("check: a thread failed")),
    }
}

/// Counts what was found of one pack, and writes down when it was read, and what of it cannot be.
fn note(
    repository: &Repository,
    pack: &PackRef,
    (depth, was_gone): (Depth, bool),
    mut found: PackReport,
    report: &mut CheckReport,
) -> Result<PackReport> {
    report.bytes_read += found.bytes_read;
    if depth == Depth::Data {
        report.packs_read += 1;
    }
    if depth == Depth::Data || found.problems.iter().any(PackProblem::concerns_data) {
        repository.note_read(&pack.id, depth, &found)?;
    } else if depth == Depth::Contents && was_gone {
        repository.note_back(&pack.id)?;
    }
    for problem in &mut found.problems {
        // Only the message is needed from here on, and there may be many.
        problem.lost = Lost::Nothing;
    }
    Ok(found)
}
