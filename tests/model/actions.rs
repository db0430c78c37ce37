//! What can happen next. Steps that only their own actor can see are part of the step that others see.

use super::judge::{View, bits, fence_before};
use super::repository::{Chunks, GENERATIONS, Heads, LOGS, OWNER, Packs, Place, Plan, Record, Repository, Runner, Step, Wish};
use super::rules::{Bounds, Rules};

/// One step, named as in docs/protocol.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// C1: a writer stores a pack, which is an orphan until a record lists it.
    Store {
        writer: usize,
        chunk: Chunks,
    },
    /// C3: a writer looks at the packs of this record and is about to create it.
    Revalidate {
        writer: usize,
        record: Record,
    },
    /// C4: a writer creates its record, or finds the name taken and starts again.
    Create {
        writer: usize,
    },
    /// C3 and C4 at once.
    Commit {
        writer: usize,
        record: Record,
    },
    /// C4: the answer is lost and nothing is there; the put may still take place.
    LoseAnswer {
        writer: usize,
        record: Record,
    },
    /// A put whose answer was lost takes place.
    LatePut,
    /// C6: a writer looks for a new floor, and reports success or starts again.
    LookAtFloor {
        writer: usize,
    },
    /// Truncation: a writer that slept creates its record under a name that was deleted meanwhile.
    TakeDeletedPlace {
        writer: usize,
    },
    /// A backup is cut off, and its machine remembers nothing. One that remembers what it stored only starts again at C3.
    CutOff {
        writer: usize,
    },
    /// P1 and P2: somebody condemns packs. Which ones does not matter for safety, so they may be any.
    Condemn {
        packs: Packs,
    },
    /// P3: some runner fences a log.
    Fence {
        log: usize,
    },
    /// P4: a runner marks again.
    MarkAgain {
        runner: usize,
        plan: Plan,
    },
    /// P5: a runner publishes its plan, or finds that there is one.
    Publish {
        runner: usize,
    },
    /// P4 and P5 at once.
    MarkAndPublish {
        plan: Plan,
    },
    /// A runner stops.
    Stop {
        runner: usize,
    },
    /// T3: records below the floor are deleted.
    Truncate {
        log: usize,
    },
    Forget {
        snapshot: Place,
    },
    Unforget {
        snapshot: Place,
        base: u8,
    },
    Hold {
        log: usize,
        snapshot: Place,
        base: u8,
    },
    /// J4: the unforget or hold is reported as done, or as too late.
    Settle,
    /// E1.
    Enrol {
        base: u8,
    },
    /// Without P5: a runner deletes what it has marked itself.
    DeleteOwn {
        runner: usize,
    },
    /// Without T2: a runner deletes records that its own view covers.
    TruncateOwn {
        heads: Heads,
    },
    /// With a clock: all packs have become old.
    TimePasses,
    /// With a clock: what nobody needs and what is old is deleted.
    DeleteOld,
}

/// Collects what can happen.
pub struct Chances<'a> {
    pub bounds: &'a Bounds,
    pub rules: &'a Rules,
    pub repository: &'a Repository,
    pub actions: &'a mut Vec<Action>,
}

impl Chances<'_> {
    pub fn collect(&mut self) {
        for writer in 0..2 {
            self.writer(writer);
        }
        if self.repository.late.is_some() {
            self.actions.push(Action::LatePut);
        }
        if self.rules.no_clock {
            self.prune();
        } else {
            self.clock();
        }
        self.people();
        if self.bounds.enrolment && !self.is_enrolled() {
            let bases = self.bases(OWNER);
            self.actions.extend(bases.map(|base| Action::Enrol { base }));
        }
    }

    fn is_enrolled(&self) -> bool {
        self.repository.logs[OWNER].records.iter().flatten().any(|record| matches!(record, Record::Enrol { .. }))
    }

    /// What a record at the end of a log may have as its base: anything that its writer can have read, but (C5) no less
    /// than the fences before it.
    pub fn bases(&self, log: usize) -> std::ops::RangeInclusive<u8> {
        let least = if self.rules.never_behind {
            fence_before(self.repository, self.rules, log, self.repository.logs[log].len)
        } else {
            0
        };
        least..=self.repository.readable()
    }

    fn writer(&mut self, number: usize) {
        let writer = self.repository.writers[number];
        if writer.session >= self.bounds.sessions || (self.bounds.enrolment && number == 1 && !self.is_enrolled()) {
            return;
        }
        match writer.step {
            Step::Working => {
                self.store(number);
                self.attempts(number);
                if self.repository.logs[number].freed > 0 && !self.bounds.slow {
                    self.actions.push(Action::TakeDeletedPlace { writer: number });
                }
            }
            Step::Trying { .. } => self.actions.push(Action::Create { writer: number }),
            Step::Looking { .. } => self.actions.push(Action::LookAtFloor { writer: number }),
        }
        if self.bounds.slow || writer.stored != 0 || writer.claimed {
            self.actions.push(Action::CutOff { writer: number });
        }
    }

    /// A writer stores again what it has not stored, or cannot use any more.
    fn store(&mut self, number: usize) {
        let repository = self.repository;
        if repository.stored.count_ones() >= u32::from(self.bounds.packs) {
            return;
        }
        let open = repository.open_generation().map_or(0, |generation| repository.condemned(generation));
        let usable = repository.writers[number].stored & !repository.gone & !open;
        let missing = (0..self.bounds.chunks).map(|chunk| 1 << chunk).filter(|chunk| usable & repository.with_chunk(*chunk) == 0);
        self.actions.extend(missing.map(|chunk| Action::Store { writer: number, chunk }));
    }

    /// Packs that a writer does not use: those in plans up to `base`, and those condemned by `base` if it has not read its
    /// plan.
    fn refused(&self, base: u8, knows_plan: bool) -> Packs {
        let plans = |upto: u8| (1..=upto).filter_map(|g| self.repository.plan(g)).fold(0, |packs, plan| packs | plan);
        if knows_plan { plans(base) } else { plans(base.saturating_sub(1)) | self.repository.condemned(base) }
    }

    /// What a writer may try to commit.
    fn attempts(&mut self, writer: usize) {
        let may_be_late = self.repository.late_puts < self.bounds.late_puts && self.repository.late.is_none();
        for record in self.revalidated(writer) {
            let attempt =
                if self.bounds.slow { Action::Revalidate { writer, record } } else { Action::Commit { writer, record } };
            self.actions.push(attempt);
            if may_be_late {
                self.actions.push(Action::LoseAnswer { writer, record });
            }
        }
    }

    /// C3: records that a writer may create, by anything that it can have read.
    fn revalidated(&self, number: usize) -> Vec<Record> {
        let repository = self.repository;
        let writer = repository.writers[number];
        let listed = View::new(repository, self.rules, repository.heads()).listed();
        let from = if self.rules.borrow_listed { writer.stored | listed } else { repository.stored };
        let mut records: Vec<Record> = Vec::new();
        for base in self.bases(number) {
            for knows_plan in [true, false] {
                if knows_plan && base > 0 && repository.plan(base).is_none() {
                    continue;
                }
                let refused = match (self.rules.revalidate, self.rules.no_clock) {
                    (true, true) => self.refused(base, knows_plan),
                    (true, false) => repository.gone,
                    (false, _) => self.refused(base.saturating_sub(1), true),
                };
                let (usable, packs) = (from & !refused, writer.stored & !refused);
                let session = writer.session;
                let held = (0..self.bounds.chunks).map(|c| 1 << c).filter(|c| usable & repository.with_chunk(*c) != 0);
                let held: Chunks = held.sum();
                for needs in (0..1 << self.bounds.chunks).filter(|needs| needs & !held == 0) {
                    if needs != 0 {
                        records.push(Record::Snapshot { base, session, needs, packs });
                    }
                    if self.bounds.claims && !writer.claimed && needs | packs != 0 {
                        records.push(Record::Claim { base, session, needs, packs });
                    }
                }
            }
        }
        records.sort_unstable();
        records.dedup();
        records
    }

    pub fn prune(&mut self) {
        let repository = self.repository;
        let newest = repository.newest();
        let closed = repository.open_generation().is_none() || !self.rules.closed_before_next;
        if newest < self.bounds.generations && usize::from(newest) < GENERATIONS && closed {
            let there = repository.stored & !repository.gone;
            self.actions.extend((1..=there).filter(|packs| packs & !there == 0).map(|packs| Action::Condemn { packs }));
        }
        if let Some(open) = repository.open_generation() {
            self.fences(newest);
            if self.is_fenced(open) {
                self.marks(open);
            }
        }
        for (number, runner) in repository.runners.iter().enumerate() {
            if *runner == Runner::Idle {
                continue;
            }
            self.actions.push(Action::Stop { runner: number });
            self.actions.push(Action::Publish { runner: number });
            if !self.rules.published_plan {
                self.actions.push(Action::DeleteOwn { runner: number });
            }
        }
        for log in 0..OWNER {
            if repository.checkpoint.floor[log] > repository.logs[log].freed + 1 {
                self.actions.push(Action::Truncate { log });
            }
        }
    }

    /// The newest fence in a log.
    fn fence_in(&self, log: usize) -> u8 {
        fence_before(self.repository, self.rules, log, self.repository.logs[log].len)
    }

    /// P3: the owner's log first, then all that it names.
    fn fences(&mut self, generation: u8) {
        if !self.rules.fence {
            return;
        }
        if self.fence_in(OWNER) < generation {
            return self.actions.push(Action::Fence { log: OWNER });
        }
        for log in 0..OWNER {
            if self.is_named(log) && self.fence_in(log) < generation {
                self.actions.push(Action::Fence { log });
            }
        }
    }

    fn is_named(&self, log: usize) -> bool {
        log != 1 || !self.bounds.enrolment || (self.rules.owner_first && self.is_enrolled())
    }

    /// P3 has come to its end. Whoever is enrolled behind the fence in the owner's log knows the generation (E2).
    fn is_fenced(&self, generation: u8) -> bool {
        if !self.rules.fence {
            return true;
        }
        let owner = &self.repository.logs[OWNER].records;
        let position = |wanted: fn(&Record, u8) -> bool| owner.iter().flatten().position(|record| wanted(record, generation));
        let fence = position(|record, g| matches!(record, Record::Fence { generation } if *generation >= g));
        let enrolled = position(|record, _| matches!(record, Record::Enrol { .. }));
        let Some(fence) = fence else { return false };
        let needs_one = |log: usize| self.is_named(log) && (log == 0 || enrolled.is_none_or(|enrolled| enrolled < fence));
        (0..OWNER).all(|log| !needs_one(log) || self.fence_in(log) >= generation)
    }

    /// P4 by any runner that is free: any heads that it may have read, from the fences on.
    fn marks(&mut self, generation: u8) {
        let from: Heads = std::array::from_fn(|log| {
            let records = &self.repository.logs[log].records;
            let is_fence = |record: &Option<Record>| matches!(record, Some(Record::Fence { generation: g }) if *g >= generation);
            let fence = (0u8..).zip(records).find(|(_, record)| is_fence(record)).map(|(at, _)| at + 1);
            fence.unwrap_or(if self.rules.fence && self.bounds.enrolment { 0 } else { self.repository.logs[log].len })
        });
        let to = self.repository.heads();
        let condemned = self.repository.condemned(generation);
        let all = (from[0]..=to[0]).flat_map(|a| (from[1]..=to[1]).flat_map(move |b| (from[2]..=to[2]).map(move |c| [a, b, c])));
        let mut plans = Vec::new();
        for heads in all {
            let view = View::new(self.repository, self.rules, heads);
            let pruned = view.all_forgotten();
            for packs in view.plans(condemned) {
                plans.push(Plan { packs, pruned, heads: None });
                plans.extend(self.bounds.truncation.then_some(Plan { packs, pruned, heads: Some(heads) }));
            }
        }
        plans.sort_unstable();
        plans.dedup();
        plans.into_iter().for_each(|plan| self.marked(plan));
    }

    fn marked(&mut self, plan: Plan) {
        if let Some(heads) = plan.heads.filter(|_| !self.rules.planned_checkpoint) {
            self.actions.push(Action::TruncateOwn { heads });
        }
        if !self.bounds.slow {
            return self.actions.push(Action::MarkAndPublish { plan });
        }
        let busy = self.repository.runners.iter().filter(|runner| **runner != Runner::Idle).count();
        let free = self.repository.runners.iter().position(|runner| *runner == Runner::Idle);
        if let Some(runner) = free.filter(|_| busy < self.bounds.runners) {
            self.actions.push(Action::MarkAgain { runner, plan });
        }
    }

    /// What a tool that trusts the clock does: no fence, no second mark, no plan.
    fn clock(&mut self) {
        let repository = self.repository;
        if repository.old != repository.stored {
            self.actions.push(Action::TimePasses);
        }
        if repository.old & !repository.gone != 0 {
            self.actions.push(Action::DeleteOld);
        }
    }

    fn people(&mut self) {
        let repository = self.repository;
        let view = View::new(repository, self.rules, repository.heads());
        for snapshot in view.snapshots().map(|snapshot| snapshot.place) {
            let forgotten = view.forgotten(snapshot);
            if !forgotten && repository.forgets < self.bounds.forgets {
                self.actions.push(Action::Forget { snapshot });
            }
            if repository.wish != Wish::None || repository.wishes >= self.bounds.wishes {
                continue;
            }
            if forgotten {
                self.actions.extend(self.bases(OWNER).map(|base| Action::Unforget { snapshot, base }));
            }
            // E1: whoever is not enrolled says nothing.
            let enrolled = !self.bounds.enrolment || self.is_enrolled();
            for log in (0..LOGS).filter(|log| *log != 1 || enrolled) {
                self.actions.extend(self.bases(log).map(|base| Action::Hold { log, snapshot, base }));
            }
        }
        if let Wish::Waiting { base, .. } = repository.wish
            && (!self.rules.settled || base == 0 || repository.plan(base).is_some())
        {
            self.actions.push(Action::Settle);
        }
    }
}

/// The packs that nobody needs now.
pub fn unneeded(repository: &Repository, rules: &Rules) -> Packs {
    let view = View::new(repository, rules, repository.heads());
    let needed = view.needed();
    let kept =
        bits(view.listed()).filter(|pack| [1, 2].iter().any(|chunk| needed & chunk & repository_chunk(repository, *pack) != 0));
    repository.stored & !kept.fold(0, |kept, pack| kept | pack)
}

fn repository_chunk(repository: &Repository, pack: Packs) -> Chunks {
    if repository.second & pack == 0 { 1 } else { 2 }
}
