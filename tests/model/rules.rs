//! What a run of the model covers, and which rules of docs/protocol.md hold in it.

/// How large the small repositories are. Everything within these bounds is visited.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Backups that each of the two writers makes; one that is cut off counts.
    pub sessions: u8,
    /// Different chunks; each pack holds one.
    pub chunks: u8,
    /// Names of packs.
    pub packs: u8,
    /// Prunes.
    pub generations: u8,
    /// Every step of a writer's attempt (C3, then C4) and of a runner's (P4, then P5) is a step of its own. Else the two are
    /// one step, with everything that the actor could have known at any moment before: that comes to the same, because
    /// what was read does not change, and visits fewer states.
    pub slow: bool,
    /// Runners that may be between P4 and P5 at once, if these are steps of their own; else there are any number.
    pub runners: usize,
    /// Forget records.
    pub forgets: u8,
    /// Unforget or hold records.
    pub wishes: u8,
    /// Claims of each session.
    pub claims: bool,
    /// Puts of records that may take place after their writers gave up waiting.
    pub late_puts: u8,
    /// Plans may put a checkpoint of the logs in force.
    pub truncation: bool,
    /// The second writer is enrolled while the others are at work.
    pub enrolment: bool,
}

/// The rules, each of which a broken variant leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// P3: every log is fenced before the second mark.
    pub fence: bool,
    /// C3: a writer looks at every pack that its record relies on, before each attempt.
    pub revalidate: bool,
    /// P5: only what a published plan lists is deleted.
    pub published_plan: bool,
    /// C4: a writer has committed only if it finds its own bytes.
    pub look_after_create: bool,
    /// P4 decides, and not the age of a pack.
    pub no_clock: bool,
    /// C2: only what a record lists is borrowed.
    pub borrow_listed: bool,
    /// C5: no record is created whose base is less than a fence before it.
    pub never_behind: bool,
    /// C6: a writer looks for a new floor before it reports success.
    pub look_at_floor: bool,
    /// T2: logs are cut off only by the checkpoint that a published plan names.
    pub planned_checkpoint: bool,
    /// P2: a generation begins when the one before it is closed.
    pub closed_before_next: bool,
    /// J4: an unforget or a hold is reported only when no open generation can overlook it.
    pub settled: bool,
    /// E2: the base of its enrol record binds a client.
    pub enrol_base: bool,
    /// E3: the owner's log is fenced first and read again, so that nobody who is enrolled meanwhile is left out.
    pub owner_first: bool,
}

impl Rules {
    /// The protocol as it is written.
    pub const ALL: Self = Self {
        fence: true,
        revalidate: true,
        published_plan: true,
        look_after_create: true,
        no_clock: true,
        borrow_listed: true,
        never_behind: true,
        look_at_floor: true,
        planned_checkpoint: true,
        closed_before_next: true,
        settled: true,
        enrol_base: true,
        owner_first: true,
    };
}
