//! States that differ only in names are one state: writers, runners, and packs may be renamed. So are states that differ
//! only in what nobody can ever look at again.

use super::judge::fence_before;
use super::repository::{LOGS, OWNER, Packs, Place, Record, Repository, Wish};
use super::rules::{Bounds, Rules};

/// The state that stands for all that do not differ from this one in anything that matters.
pub fn canonical(bounds: &Bounds, rules: &Rules, repository: &Repository) -> Repository {
    let mut first = *repository;
    if *rules == Rules::ALL {
        drop_inert(rules, &mut first);
    }
    rename_packs(&mut first);
    // The writers are alike unless one is there from the beginning and the other is not.
    if bounds.enrolment {
        return first;
    }
    let mut second = swapped(&first);
    rename_packs(&mut second);
    first.min(second)
}

/// Calls `each` with every set of packs, in a fixed order.
fn every_set(repository: &mut Repository, each: &mut impl FnMut(&mut Packs)) {
    each(&mut repository.stored);
    each(&mut repository.second);
    each(&mut repository.gone);
    each(&mut repository.old);
    each(&mut repository.checkpoint.packs);
    repository.condemned.iter_mut().flatten().for_each(&mut *each);
    repository.plans.iter_mut().flatten().for_each(&mut *each);
    for writer in &mut repository.writers {
        each(&mut writer.stored);
        if let super::repository::Step::Trying { record, .. } = &mut writer.step
            && let Some(packs) = record.packs_mut()
        {
            each(packs);
        }
    }
    for log in &mut repository.logs[..OWNER] {
        log.records.iter_mut().flatten().filter_map(Record::packs_mut).for_each(&mut *each);
    }
    if let Some(packs) = repository.late.as_mut().and_then(|late| late.record.packs_mut()) {
        each(packs);
    }
    for runner in &mut repository.runners {
        if let super::repository::Runner::Marked { plan, .. } = runner {
            each(&mut plan.packs);
        }
    }
}

/// Takes packs out of which nothing can come any more, so that their names can be used again. With all rules in force
/// these are:
///
/// - orphans of which no writer knows: nobody may borrow them (C2);
/// - packs in a plan that every log has a fence for: no record can have a base that would let its writer use them (C3, C5).
fn drop_inert(rules: &Rules, repository: &mut Repository) {
    let fenced = (0..LOGS).map(|log| fence_before(repository, rules, log, repository.logs[log].len)).min().unwrap_or(0);
    let planned = (1..=fenced).filter_map(|generation| repository.plan(generation)).fold(0, |packs, plan| packs | plan);
    let mut known = repository.checkpoint.packs | repository.late.map_or(0, |late| late.record.packs());
    known |= repository.places().fold(0, |packs, (_, record)| packs | record.packs());
    for writer in &repository.writers {
        known |= writer.stored;
        if let super::repository::Step::Trying { record, .. } = writer.step {
            known |= record.packs();
        }
    }
    let inert = repository.stored & (planned | !known);
    if inert != 0 {
        every_set(repository, &mut |set| *set &= !inert);
    }
    // Whoever must know the next generation need not ask what this one had condemned.
    for generation in 1..fenced {
        if repository.plan(generation).is_some() {
            repository.condemned[usize::from(generation) - 1] = repository.plan(generation);
        }
    }
}

/// A pack is known by the sets that it is in: those are its signature, and packs are named in the order of theirs.
fn rename_packs(repository: &mut Repository) {
    repository.runners.sort_unstable();
    let mut signatures = [0u128; 8];
    every_set(repository, &mut |set| {
        for (bit, signature) in signatures.iter_mut().enumerate() {
            *signature = *signature << 1 | u128::from(*set >> bit & 1);
        }
    });
    let mut order = [0usize, 1, 2, 3, 4, 5, 6, 7];
    order.sort_by_key(|bit| std::cmp::Reverse(signatures[*bit]));
    if order.is_sorted() {
        return;
    }
    every_set(repository, &mut |set| {
        let old = *set;
        *set = order.iter().enumerate().fold(0, |new, (to, from)| new | (old >> from & 1) << to);
    });
}

/// The two writers with each other's names.
fn swapped(repository: &Repository) -> Repository {
    let mut other = *repository;
    other.logs.swap(0, 1);
    other.writers.swap(0, 1);
    other.reported.swap(0, 1);
    other.checkpoint.floor.swap(0, 1);
    other.checkpoint.snapshots.swap(0, 1);
    let place = |place: &mut Place| {
        if usize::from(place.log) != OWNER {
            place.log = 1 - place.log;
        }
    };
    for log in &mut other.logs {
        for record in log.records.iter_mut().flatten() {
            if let Record::Forget { snapshot, .. } | Record::Unforget { snapshot, .. } | Record::Hold { snapshot, .. } = record {
                place(snapshot);
            }
        }
    }
    other.pruned.swap(0, 1);
    for runner in &mut other.runners {
        if let super::repository::Runner::Marked { plan, .. } = runner {
            plan.pruned.swap(0, 1);
            plan.heads.iter_mut().for_each(|heads| heads.swap(0, 1));
        }
    }
    if let Some(late) = &mut other.late {
        place(&mut late.place);
    }
    if let Wish::Waiting { snapshot, .. } | Wish::Reported { snapshot, .. } = &mut other.wish {
        place(snapshot);
    }
    other
}
