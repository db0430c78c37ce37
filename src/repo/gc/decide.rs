//! What to do with each pack: a pure rule over how much of it is needed.

use crate::error::Result;
use crate::id::PackId;
use crate::repo::cache::IndexReader;
use crate::repo::cache::marks::{Marks, Usage};
use crate::repo::{CompactOptions, Repository, ThawOptions};
use std::time::Duration;

/// When a prune lets a checkpoint stand for old records of the logs, so that they can go. Only the owner's does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Truncation {
    /// When 1,000 records can go, or 100 that are half of all.
    #[default]
    Auto,
    /// Whenever something can go.
    Always,
    /// Not now.
    Never,
}

/// How far a prune goes.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Share of what is kept that may stay unused, from 0 to 1.
    pub max_unused: f64,
    /// Most bytes of packs that are written anew.
    pub max_repack: Option<u64>,
    /// Join packs that are much smaller than they should be.
    pub repack_small: bool,
    /// No more packs are written anew after this time.
    pub max_duration: Option<Duration>,
    /// Packs of backups that have not finished are left alone until the store has had them for this long. That is
    /// politeness, not safety: a writer that meets a prune stores again what it took.
    pub grace: Duration,
    /// When the index in the store is put into order.
    pub index: CompactOptions,
    /// When old records of the logs go.
    pub truncation: Truncation,
    /// What to do about archived packs of which a part is not needed. The prune itself only finds out which they are.
    pub thaw: ThawOptions,
    /// Decide, and change nothing.
    pub dry_run: bool,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            max_unused: 0.03,
            max_repack: None,
            repack_small: false,
            max_duration: None,
            grace: Duration::from_hours(24),
            index: CompactOptions::default(),
            truncation: Truncation::Auto,
            thaw: ThawOptions::NONE,
            dry_run: false,
        }
    }
}

/// What becomes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It stays.
    Keep,
    /// Its needed chunks are written anew, then it goes.
    Repack,
    /// It goes.
    Drop,
    /// It stays for now: it may be of a backup that has not finished.
    Spare,
}

/// A pack and what becomes of it.
#[derive(Debug, Clone)]
pub struct PackDecision {
    /// Its name.
    pub id: PackId,
    /// Its length.
    pub size: u64,
    /// When the store got it, nanoseconds since 1970.
    pub modified: i64,
    /// Bytes of its chunks before compression, and those of them that are needed.
    pub total: u64,
    /// See `total`.
    pub used: u64,
    /// Until when what is needed of it is to be locked, nanoseconds since 1970; 0 where nothing is.
    pub lock_until: i64,
    /// What becomes of it.
    pub decision: Decision,
    /// Why, in words.
    pub reason: &'static str,
}

/// A pack to decide about.
pub(in crate::repo) struct Candidate {
    pub(in crate::repo) number: Option<u32>,
    pub(in crate::repo) id: PackId,
    pub(in crate::repo) size: u64,
    pub(in crate::repo) usage: Usage,
    /// It may be of a backup that has not finished.
    pub(in crate::repo) young: bool,
    /// Its bytes cannot be relied on for copying.
    pub(in crate::repo) broken: bool,
}

/// Bytes of a pack, by estimate, that nobody needs.
fn unused(candidate: &Candidate) -> u64 {
    let Usage { total, used, unused, .. } = candidate.usage;
    if total == 0 {
        return candidate.size;
    }
    let share = u128::from(candidate.size) * u128::from(total.saturating_sub(used)) / u128::from(total);
    unused.unwrap_or_else(|| u64::try_from(share).unwrap_or(u64::MAX))
}

/// Finds out how much nobody needs of packs of which some is needed: one block is compressed to a tenth, and another one
/// beside it not at all, so that the share of their bytes before that may be far from it.
pub(in crate::repo) fn weigh(repository: &Repository, marks: &Marks, candidates: &mut [Candidate]) -> Result<()> {
    let index = IndexReader::new(repository.cache().connect()?)?;
    for candidate in candidates {
        let Usage { total, used, .. } = candidate.usage;
        let Some(number) = candidate.number.filter(|_| (1..total).contains(&used)) else { continue };
        // Of one that is not known block by block, the share has to do.
        let Ok(pack) = index.pack(number) else { continue };
        let mut unused: u64 = pack.blocks.iter().map(|block| u64::from(block.row.packed_len)).sum();
        for (block, live) in marks.live_bytes(number)? {
            let Some(row) = pack.blocks.get(block as usize).map(|block| block.row) else { continue };
            let raw = u64::from(row.raw_len.max(1));
            unused = unused.saturating_sub(u64::from(row.packed_len) * live.min(raw) / raw);
        }
        candidate.usage.unused = Some(unused);
    }
    Ok(())
}

/// Decides about every pack. `target` is the length of a full pack.
pub(in crate::repo) fn decide(candidates: &[Candidate], options: &PruneOptions, target: u64) -> Vec<Decision> {
    let mut decisions: Vec<Decision> = candidates
        .iter()
        .map(|candidate| match (candidate.usage.used_chunks, candidate.young) {
            (0, true) => Decision::Spare,
            (0, false) => Decision::Drop,
            _ => Decision::Keep,
        })
        .collect();
    let kept = |decisions: &[Decision], at: usize| decisions[at] == Decision::Keep;
    let mut order: Vec<usize> = (0..candidates.len()).filter(|at| kept(&decisions, *at) && !candidates[*at].broken).collect();
    // Those of which least is needed cost least and give most.
    order.sort_by_key(|at| {
        let candidate = &candidates[*at];
        let per_mille = u128::from(unused(candidate)) * 1000 / u128::from(candidate.size.max(1));
        (std::cmp::Reverse(per_mille), candidate.id)
    });
    let needed: u64 = (0..candidates.len())
        .filter(|at| kept(&decisions, *at))
        .map(|at| candidates[at].size - unused(&candidates[at]).min(candidates[at].size))
        .sum();
    let mut left: u64 = order.iter().map(|at| unused(&candidates[*at])).sum();
    let allowed = (needed as f64 * options.max_unused.clamp(0.0, 1.0)) as u64;
    let mut budget = options.max_repack.unwrap_or(u64::MAX);
    let small: Vec<usize> = order.iter().copied().filter(|at| candidates[*at].size < target / 4).collect();
    let joins = options.repack_small && small.len() > 1;
    for at in order {
        let candidate = &candidates[at];
        let wasteful = left > allowed && unused(candidate) > 0;
        if !(wasteful || joins && small.contains(&at)) || candidate.size > budget {
            continue;
        }
        budget -= candidate.size;
        left -= unused(candidate).min(left);
        decisions[at] = Decision::Repack;
    }
    decisions
}

/// The reason for which a pack stays that would have been written anew.
pub(in crate::repo) const ARCHIVED: &str = "part of it is not needed, but it is archived";

/// The reason in words.
pub(in crate::repo) fn reason(candidate: &Candidate, decision: Decision) -> &'static str {
    match decision {
        Decision::Spare => "of a backup that may still be running",
        Decision::Drop if candidate.number.is_none() => "no log lists it",
        Decision::Drop => "no snapshot needs it",
        Decision::Repack if unused(candidate) > 0 => "part of it is not needed",
        Decision::Repack => "it is small",
        Decision::Keep if candidate.broken => "it is damaged: run check",
        Decision::Keep if unused(candidate) > 0 => "little of it is not needed",
        Decision::Keep => "all of it is needed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u8, size: u64, used: u64) -> Candidate {
        let usage = Usage { total: 100, used, used_chunks: u64::from(used > 0), lock_until: 0, unused: None };
        Candidate { number: Some(u32::from(id)), id: PackId([id; 32]), size, usage, young: false, broken: false }
    }

    #[test]
    fn what_nobody_needs_goes_and_what_is_young_stays() {
        let young = Candidate { young: true, ..candidate(2, 1000, 0) };
        let decisions = decide(&[candidate(1, 1000, 0), young, candidate(3, 1000, 100)], &PruneOptions::default(), 1000);
        assert_eq!(decisions, [Decision::Drop, Decision::Spare, Decision::Keep]);
    }

    #[test]
    fn the_emptiest_packs_are_repacked_until_little_enough_is_unused() {
        let packs = [candidate(1, 1000, 99), candidate(2, 1000, 10), candidate(3, 1000, 60)];
        let options = PruneOptions { max_unused: 0.25, ..PruneOptions::default() };
        assert_eq!(decide(&packs, &options, 1000), [Decision::Keep, Decision::Repack, Decision::Keep]);
        let options = PruneOptions { max_unused: 0.0, ..PruneOptions::default() };
        assert_eq!(decide(&packs, &options, 1000), [Decision::Repack; 3]);
        let options = PruneOptions { max_unused: 0.0, max_repack: Some(1500), ..PruneOptions::default() };
        assert_eq!(decide(&packs, &options, 1000), [Decision::Keep, Decision::Repack, Decision::Keep]);
    }

    #[test]
    fn what_is_known_of_blocks_counts_for_more_than_the_share() {
        let mut packs = [candidate(1, 1000, 99), candidate(2, 1000, 90)];
        packs[0].usage.unused = Some(800);
        let options = PruneOptions { max_unused: 0.25, ..PruneOptions::default() };
        assert_eq!(decide(&packs, &options, 1000), [Decision::Repack, Decision::Keep]);
    }

    #[test]
    fn small_packs_are_joined_on_request_and_a_single_one_is_not() {
        let options = PruneOptions { repack_small: true, ..PruneOptions::default() };
        let small = [candidate(1, 100, 100), candidate(2, 100, 100), candidate(3, 1000, 100)];
        assert_eq!(decide(&small, &options, 1000), [Decision::Repack, Decision::Repack, Decision::Keep]);
        assert_eq!(decide(&small[1..], &options, 1000), [Decision::Keep; 2]);
    }

    #[test]
    fn a_damaged_pack_is_never_copied_from() {
        let options = PruneOptions { max_unused: 0.0, ..PruneOptions::default() };
        let broken = Candidate { broken: true, ..candidate(1, 1000, 10) };
        assert_eq!(decide(&[broken], &options, 1000), [Decision::Keep]);
    }
}
