//! What each action does.

use super::actions::{Action, unneeded};
use super::judge::{View, fence_before};
use super::repository::{
    Checkpoint, Chunks, Heads, LOGS, LatePut, OWNER, PLACES, Packs, Place, Plan, Record, Repository, Runner, Step, Wish,
};
use super::rules::{Bounds, Rules};

/// The repository after an action; `None` if a log has no room left.
pub fn step(bounds: &Bounds, rules: &Rules, before: &Repository, action: Action) -> Option<Repository> {
    let mut after = *before;
    // Fences always find room.
    let full = |log: usize| PLACES - usize::from(before.logs[log].len) <= usize::from(bounds.generations);
    match action {
        Action::Store { writer, chunk } => store(&mut after, writer, chunk),
        Action::Revalidate { writer, record } => {
            let at = after.logs[writer].len;
            after.writers[writer].step = Step::Trying { at, record };
        }
        Action::Create { writer } | Action::Commit { writer, .. } if full(writer) => return None,
        Action::Create { writer } => create(bounds, rules, &mut after, writer),
        Action::Commit { writer, record } => {
            after.writers[writer].step = Step::Trying { at: after.logs[writer].len, record };
            create(bounds, rules, &mut after, writer);
        }
        // S1 forgets a name that is deleted, so this succeeds; nobody reads the record there (T4).
        Action::TakeDeletedPlace { writer } if rules.look_at_floor => {
            after.writers[writer].step = Step::Looking { at: 0, retaken: true, claim: false };
        }
        Action::TakeDeletedPlace { writer } => report(&mut after, writer, false),
        Action::LoseAnswer { writer, record } => {
            let place = Place { log: if writer == 0 { 0 } else { 1 }, at: after.logs[writer].len };
            after.late = Some(LatePut { place, record });
            after.late_puts += 1;
        }
        Action::LatePut if before.late.is_some_and(|late| full(usize::from(late.place.log))) => return None,
        Action::LatePut => {
            let late = after.late.take()?;
            after.append(late.place.log, late.record);
            after.writers[usize::from(late.place.log)].stored &= !late.record.packs();
        }
        Action::LookAtFloor { writer } => look_at_floor(&mut after, writer),
        Action::CutOff { writer } => cut_off(&mut after, writer),
        Action::Condemn { packs } => after.condemned[usize::from(before.newest())] = Some(packs),
        Action::Fence { log } => drop(after.append(u8::try_from(log).ok()?, Record::Fence { generation: before.newest() })),
        Action::MarkAgain { runner, plan } => {
            after.runners[runner] = Runner::Marked { generation: before.open_generation()?, plan };
        }
        Action::Publish { runner } => {
            let Runner::Marked { generation, plan } = after.runners[runner] else { return None };
            after.runners[runner] = Runner::Idle;
            publish(rules, &mut after, generation, &plan);
        }
        Action::MarkAndPublish { plan } => publish(rules, &mut after, before.open_generation()?, &plan),
        Action::Stop { runner } => after.runners[runner] = Runner::Idle,
        Action::Truncate { log } => after.logs[log].freed = after.checkpoint.floor[log] - 1,
        Action::DeleteOwn { runner } => {
            let Runner::Marked { plan, .. } = std::mem::replace(&mut after.runners[runner], Runner::Idle) else { return None };
            after.gone |= plan.packs;
        }
        Action::TruncateOwn { heads } => {
            (0..OWNER).for_each(|log| after.logs[log].freed = heads[log].saturating_sub(1).max(after.logs[log].freed));
        }
        Action::TimePasses => after.old = after.stored,
        Action::DeleteOld => after.gone |= unneeded(before, rules) & before.old,
        Action::Forget { .. } | Action::Unforget { .. } | Action::Enrol { .. } if full(OWNER) => return None,
        Action::Hold { log, .. } if full(log) => return None,
        deed => people(rules, &mut after, deed)?,
    }
    forget_bases(rules, &mut after, before);
    (after != *before).then_some(after)
}

/// All that the base of a record decides is whether it is less than the fences before it (V1), which never changes once
/// the record is there. So states that differ in nothing else are made one.
fn forget_bases(rules: &Rules, after: &mut Repository, before: &Repository) {
    for log in 0..LOGS {
        for at in before.logs[log].len..after.logs[log].len {
            let fence = fence_before(after, rules, log, at);
            if let Some(base) = after.logs[log].records[usize::from(at)].as_mut().and_then(Record::base_mut) {
                *base = (*base).min(fence);
            }
        }
    }
}

fn store(after: &mut Repository, writer: usize, chunk: Chunks) {
    let pack = 1 << after.stored.trailing_ones();
    after.stored |= pack;
    if chunk == 2 {
        after.second |= pack;
    }
    after.writers[writer].stored |= pack;
}

/// C4: whoever takes the place first wins.
fn create(bounds: &Bounds, rules: &Rules, after: &mut Repository, writer: usize) {
    let Step::Trying { at, record } = after.writers[writer].step else { return };
    let log = after.logs[writer];
    let retaken = at < log.freed;
    after.writers[writer].step = Step::Working;
    if at == log.len {
        after.append(if writer == 0 { 0 } else { 1 }, record);
    } else if !retaken && rules.look_after_create {
        return;
    }
    after.writers[writer].stored &= !record.packs();
    let claim = matches!(record, Record::Claim { .. });
    if bounds.truncation && bounds.slow && rules.look_at_floor {
        after.writers[writer].step = Step::Looking { at, retaken, claim };
    } else {
        report(after, writer, claim);
    }
}

/// C6: a record that a checkpoint in force covers counts only if the checkpoint lists it.
fn look_at_floor(after: &mut Repository, writer: usize) {
    let Step::Looking { at, retaken, claim } = after.writers[writer].step else { return };
    let Checkpoint { floor, snapshots, .. } = after.checkpoint;
    let covered = at < floor[writer];
    if retaken || (covered && snapshots[writer] & (1 << at) == 0) {
        after.writers[writer].step = Step::Working;
    } else {
        report(after, writer, claim);
    }
}

/// Success is told.
fn report(after: &mut Repository, writer: usize, claim: bool) {
    if claim {
        after.writers[writer].claimed = true;
        after.writers[writer].step = Step::Working;
    } else {
        after.reported[writer] |= 1 << after.writers[writer].session;
        end_session(after, writer);
    }
}

/// What it stored is an orphan for good. A session that left a claim is over, another one does its work again.
fn cut_off(after: &mut Repository, writer: usize) {
    if after.writers[writer].claimed {
        end_session(after, writer);
    }
    after.writers[writer].stored = 0;
    after.writers[writer].step = Step::Working;
}

fn end_session(after: &mut Repository, writer: usize) {
    let writer = &mut after.writers[writer];
    writer.session += 1;
    writer.claimed = false;
    writer.step = Step::Working;
}

/// P5: the first plan counts, for everybody.
fn publish(rules: &Rules, after: &mut Repository, generation: u8, plan: &Plan) {
    let at = usize::from(generation) - 1;
    if after.plans[at].is_some() {
        return;
    }
    if let Some(heads) = plan.heads {
        after.checkpoint = checkpoint_of(rules, after, plan.packs, heads);
    }
    after.plans[at] = Some(plan.packs);
    (0..LOGS).for_each(|log| after.pruned[log] |= plan.pruned[log]);
    after.gone |= plan.packs;
    if rules.published_plan {
        // Nobody else can do anything with a plan for this generation but find the name taken.
        after.runners = after.runners.map(|other| match other {
            Runner::Marked { generation: of, .. } if of == generation => Runner::Idle,
            other => other,
        });
    }
}

/// T1: what the records below the heads of a plan come to.
fn checkpoint_of(rules: &Rules, repository: &Repository, planned: Packs, floor: Heads) -> Checkpoint {
    let view = View::new(repository, rules, floor);
    let mut snapshots = [0; LOGS];
    for snapshot in view.standing() {
        snapshots[usize::from(snapshot.place.log)] |= 1 << snapshot.place.at;
    }
    Checkpoint { floor, snapshots, packs: view.listed() & !repository.gone & !planned }
}

fn people(rules: &Rules, after: &mut Repository, deed: Action) -> Option<()> {
    let owner = u8::try_from(OWNER).ok()?;
    match deed {
        Action::Forget { snapshot } => {
            let base = after.readable();
            after.append(owner, Record::Forget { base, snapshot });
            after.forgets += 1;
            if matches!(after.wish, Wish::Reported { snapshot: wished, hold: false } | Wish::Waiting { snapshot: wished, hold: false, .. } if wished == snapshot)
            {
                after.wish = Wish::None;
            }
        }
        Action::Unforget { snapshot, base } => {
            after.append(owner, Record::Unforget { base, snapshot });
            after.wishes += 1;
            after.wish = Wish::Waiting { base, snapshot, hold: false };
        }
        Action::Hold { log, snapshot, base } => {
            after.append(u8::try_from(log).ok()?, Record::Hold { base, snapshot });
            after.wishes += 1;
            after.wish = Wish::Waiting { base, snapshot, hold: true };
        }
        Action::Settle => {
            let Wish::Waiting { snapshot, hold, .. } = after.wish else { return None };
            let view = View::new(after, rules, after.heads());
            after.wish = if view.pruned(snapshot) { Wish::None } else { Wish::Reported { snapshot, hold } };
        }
        Action::Enrol { base } => drop(after.append(owner, Record::Enrol { base })),
        _ => unreachable!("the other actions are no deeds of people"),
    }
    Some(())
}
