//! What is in the store, and what each of those who work on it has in its head.

/// Logs: the two writers' and the owner's.
pub const LOGS: usize = 3;
/// The owner's.
pub const OWNER: usize = 2;
/// Most records of a log.
pub const PLACES: usize = 10;
/// Most prune generations.
pub const GENERATIONS: usize = 3;
/// Most runners.
pub const RUNNERS: usize = 2;

/// A set of packs, one bit for each.
pub type Packs = u8;
/// A set of chunks, one bit for each.
pub type Chunks = u8;
/// A set of places in a log, one bit for each.
pub type Places = u16;
/// How far each log was read.
pub type Heads = [u8; LOGS];

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub log: u8,
    pub at: u8,
}

/// A record of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    /// A snapshot that needs chunks, and the packs that its session stored.
    Snapshot {
        base: u8,
        session: u8,
        needs: Chunks,
        packs: Packs,
    },
    /// A claim; its checkpoint snapshot needs chunks, or there is none.
    Claim {
        base: u8,
        session: u8,
        needs: Chunks,
        packs: Packs,
    },
    Fence {
        generation: u8,
    },
    Forget {
        base: u8,
        snapshot: Place,
    },
    Unforget {
        base: u8,
        snapshot: Place,
    },
    Hold {
        base: u8,
        snapshot: Place,
    },
    /// The second writer takes part from here on.
    Enrol {
        base: u8,
    },
}

impl Record {
    /// What it knew; fences are exempt.
    pub fn base(&self) -> Option<u8> {
        match *self {
            Self::Fence { .. } => None,
            Self::Snapshot { base, .. }
            | Self::Claim { base, .. }
            | Self::Forget { base, .. }
            | Self::Unforget { base, .. }
            | Self::Hold { base, .. }
            | Self::Enrol { base } => Some(base),
        }
    }

    /// The base, where nothing but V1 depends on it.
    pub fn base_mut(&mut self) -> Option<&mut u8> {
        match self {
            Self::Fence { .. } | Self::Enrol { .. } => None,
            Self::Snapshot { base, .. }
            | Self::Claim { base, .. }
            | Self::Forget { base, .. }
            | Self::Unforget { base, .. }
            | Self::Hold { base, .. } => Some(base),
        }
    }

    /// The packs that it lists.
    pub fn packs(&self) -> Packs {
        match *self {
            Self::Snapshot { packs, .. } | Self::Claim { packs, .. } => packs,
            _ => 0,
        }
    }

    pub fn packs_mut(&mut self) -> Option<&mut Packs> {
        match self {
            Self::Snapshot { packs, .. } | Self::Claim { packs, .. } => Some(packs),
            _ => None,
        }
    }
}

/// The records of one log, in order and without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Log {
    pub records: [Option<Record>; PLACES],
    pub len: u8,
    /// Names below this were deleted, so that they can be taken again.
    pub freed: u8,
}

/// What a runner publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Plan {
    pub packs: Packs,
    /// Snapshots that it has seen as forgotten, which is all that J1 asks of its heads.
    pub pruned: [Places; LOGS],
    /// How far each log was read, if it puts a checkpoint in force.
    pub heads: Option<Heads>,
}

/// The checkpoint in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Checkpoint {
    /// Records below say nothing, unless the checkpoint lists them.
    pub floor: Heads,
    pub snapshots: [Places; LOGS],
    pub packs: Packs,
}

/// What a writer is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// It reads and stores.
    Working,
    /// It has revalidated (C3) and is about to create this record at this place.
    Trying { at: u8, record: Record },
    /// It has created, and has not yet looked at the floor (C6). `retaken` if the name was one that had been deleted.
    Looking { at: u8, retaken: bool, claim: bool },
}

/// A writer, with its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writer {
    /// Backups that have ended.
    pub session: u8,
    /// Packs that it stored and that no record lists, those of sessions that were cut off among them.
    pub stored: Packs,
    pub claimed: bool,
    pub step: Step,
}

/// A runner of a prune. All that it knows before the second mark it can read again, so only what follows is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runner {
    Idle,
    /// It has marked again (P4) and is about to publish this plan.
    Marked {
        generation: u8,
        plan: Plan,
    },
}

/// Somebody who wants a snapshot to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wish {
    None,
    /// The record is created; J4 holds the report back.
    Waiting {
        base: u8,
        snapshot: Place,
        hold: bool,
    },
    /// It was reported as done.
    Reported {
        snapshot: Place,
        hold: bool,
    },
}

/// A put whose answer was lost, and which takes place later or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LatePut {
    pub place: Place,
    pub record: Record,
}

/// Everything at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    pub logs: [Log; LOGS],
    /// `gc/<g>.condemn`, from generation 1 on.
    pub condemned: [Option<Packs>; GENERATIONS],
    /// Packs of `gc/<g>.plan`.
    pub plans: [Option<Packs>; GENERATIONS],
    /// J1: snapshots that some plan has seen as forgotten.
    pub pruned: [Places; LOGS],
    pub checkpoint: Checkpoint,
    /// Packs whose names were used.
    pub stored: Packs,
    /// Those of them that hold the second chunk; the others hold the first.
    pub second: Packs,
    /// Packs that were deleted, or may be at any moment.
    pub gone: Packs,
    /// Packs that the store has had for longer than any grace: only a rule that trusts the clock looks.
    pub old: Packs,
    pub writers: [Writer; 2],
    pub runners: [Runner; RUNNERS],
    pub wish: Wish,
    pub late: Option<LatePut>,
    /// Sessions that were reported as committed, for each writer.
    pub reported: [u8; 2],
    /// Counted against the bounds.
    pub forgets: u8,
    pub wishes: u8,
    pub late_puts: u8,
}

impl Repository {
    pub fn new() -> Self {
        let log = Log { records: [None; PLACES], len: 0, freed: 0 };
        let writer = Writer { session: 0, stored: 0, claimed: false, step: Step::Working };
        Self {
            logs: [log; LOGS],
            condemned: [None; GENERATIONS],
            plans: [None; GENERATIONS],
            pruned: [0; LOGS],
            checkpoint: Checkpoint::default(),
            stored: 0,
            second: 0,
            gone: 0,
            old: 0,
            writers: [writer; 2],
            runners: [Runner::Idle; RUNNERS],
            wish: Wish::None,
            late: None,
            reported: [0; 2],
            forgets: 0,
            wishes: 0,
            late_puts: 0,
        }
    }

    /// All places of records, log by log.
    pub fn places(&self) -> impl Iterator<Item = (Place, Record)> + '_ {
        (0u8..).zip(&self.logs).flat_map(|(number, log)| {
            (0u8..)
                .zip(&log.records[..usize::from(log.len)])
                .filter_map(move |(at, record)| record.map(|record| (Place { log: number, at }, record)))
        })
    }

    /// Creates a record at the end of a log.
    pub fn append(&mut self, log: u8, record: Record) -> Place {
        let place = Place { log, at: self.logs[usize::from(log)].len };
        let log = &mut self.logs[usize::from(log)];
        log.records[usize::from(place.at)] = Some(record);
        log.len += 1;
        if self.late.is_some_and(|late| late.place == place) {
            // S1: its name is taken.
            self.late = None;
        }
        place
    }

    /// Packs with this chunk, given as its bit.
    pub fn with_chunk(&self, chunk: Chunks) -> Packs {
        self.stored & if chunk == 1 { !self.second } else { self.second }
    }

    /// The newest generation that has a condemn object; 0 if there is none.
    pub fn newest(&self) -> u8 {
        (1u8..)
            .zip(&self.condemned)
            .filter(|(_, condemned)| condemned.is_some())
            .map(|(generation, _)| generation)
            .max()
            .unwrap_or(0)
    }

    pub fn condemned(&self, generation: u8) -> Packs {
        generation.checked_sub(1).and_then(|at| self.condemned[usize::from(at)]).unwrap_or(0)
    }

    pub fn plan(&self, generation: u8) -> Option<Packs> {
        generation.checked_sub(1).and_then(|at| self.plans[usize::from(at)])
    }

    /// The first generation that has a condemn object and no plan.
    pub fn open_generation(&self) -> Option<u8> {
        (1..=self.newest()).find(|generation| self.plan(*generation).is_none())
    }

    /// The newest generation that can be read, with all plans before it.
    pub fn readable(&self) -> u8 {
        self.open_generation().unwrap_or(self.newest())
    }

    /// The heads of all logs.
    pub fn heads(&self) -> Heads {
        self.logs.map(|log| log.len)
    }
}
