//! Retention: which snapshots are kept, and by which rule.
//!
//! Snapshots are judged in groups, and a group never holds snapshots of two clients: what one client adds cannot push out
//! what another made. There is no clock: ages are counted back from the newest snapshot of the group, so that nothing
//! expires only because backups have stopped.

use super::age::Age;
use crate::error::{Error, Result};
use crate::id::{ClientId, SnapshotId};
use crate::ops::forget::{Candidate, Decision, Survey, Times};
use crate::ops::select::{self, SnapshotFilter};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// How often one is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Every {
    /// Every snapshot.
    Snapshot,
    /// The newest one of each hour that has any.
    Hour,
    /// The newest one of each day.
    Day,
    /// The newest one of each week, which begins on Monday (ISO 8601).
    Week,
    /// The newest one of each month.
    Month,
    /// The newest one of each quarter.
    Quarter,
    /// The newest one of each year.
    Year,
}

/// One rule; a snapshot that any rule keeps is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// One for each of the newest `number` periods that have any.
    Number {
        /// The period.
        every: Every,
        /// How many of them.
        number: NonZeroU32,
    },
    /// One for each period that lies no further back than `age` from the newest snapshot of the group.
    Within {
        /// The period.
        every: Every,
        /// How far back.
        age: Age,
    },
    /// Those with this tag.
    Tag(String),
    /// This one.
    Id(SnapshotId),
}

/// What the snapshots of a group have in common, besides their client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupBy {
    /// The name of the machine.
    Host,
    /// The kind of backup.
    Kind,
    /// What was asked for, in any order.
    Paths,
    /// All tags.
    Tags,
}

/// Rules, and what they are applied to at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The rules.
    pub rules: Vec<Rule>,
    /// What makes a group.
    pub group_by: BTreeSet<GroupBy>,
    /// Where hours and days begin.
    pub zone: TimeZone,
}

/// What a rule can know of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its id; of two that ended at the same time the one with the larger id counts as newer.
    pub id: SnapshotId,
    /// Who made it.
    pub client: ClientId,
    /// Name of the machine.
    pub host: String,
    /// Kind of backup.
    pub kind: String,
    /// What was asked for.
    pub paths: Vec<Vec<u8>>,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it ended, nanoseconds since 1970.
    pub time: i64,
    /// True if a hold protects it.
    pub held: bool,
    /// Until when its own retention keeps it, nanoseconds since 1970, if that has not ended.
    pub retained: Option<i64>,
    /// True if it is a checkpoint of a backup that did not finish.
    pub incomplete: bool,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is the newest one of one of the periods of a rule.
    Number {
        /// The period.
        every: Every,
        /// Which one, from 1 for the newest.
        place: u32,
        /// How many the rule keeps.
        number: NonZeroU32,
    },
    /// It is young enough.
    Within {
        /// The period.
        every: Every,
        /// How far back the rule goes.
        age: Age,
    },
    /// It has this tag.
    Tag(String),
    /// A rule names it.
    Id,
    /// A hold protects it.
    Held,
    /// Its own retention ends then, nanoseconds since 1970.
    Retained(i64),
    /// It is a checkpoint of a backup that did not finish, and no finished one is newer.
    Unfinished,
}

/// What the rules say of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Number of its group.
    pub group: usize,
    /// All reasons for which it is kept; if there are none, it goes.
    pub kept_by: Vec<Reason>,
}

impl Verdict {
    /// The verdict in words; `hold` is why the snapshot is held, empty if nobody said so.
    fn decision(&self, hold: &str) -> Decision {
        let word = |reason: &Reason| match reason {
            Reason::Held if !hold.is_empty() => format!("held ({hold})"),
            reason => reason.to_string(),
        };
        Decision { group: self.group, kept_by: self.kept_by.iter().map(word).collect() }
    }

    /// True if it is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        !self.kept_by.is_empty()
    }
}

impl Default for Retention {
    /// No rule; groups by host, kind, and paths; in UTC.
    fn default() -> Self {
        Self { rules: Vec::new(), group_by: [GroupBy::Host, GroupBy::Kind, GroupBy::Paths].into(), zone: TimeZone::UTC }
    }
}

/// What the snapshots of a group have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey<'a> {
    client: ClientId,
    host: Option<&'a str>,
    kind: Option<&'a str>,
    paths: Option<BTreeSet<&'a [u8]>>,
    tags: Option<BTreeSet<&'a str>>,
}

impl Subject {
    /// What rules that go by `times` can know of a candidate.
    #[must_use]
    pub fn of(candidate: &Candidate, times: Times) -> Self {
        let (entry, snapshot) = (&candidate.entry, &candidate.entry.snapshot);
        Self {
            id: entry.id,
            client: entry.client,
            host: snapshot.host.clone(),
            kind: snapshot.kind.clone(),
            paths: snapshot.paths.clone(),
            tags: snapshot.tags.clone(),
            time: candidate.time(times),
            held: entry.is_held(),
            retained: candidate.retained,
            incomplete: snapshot.incomplete,
        }
    }
}

impl Retention {
    /// What the rules say of the candidates of a survey.
    ///
    /// # Errors
    /// `Usage` without any rule; `Missing` if a rule names a tag or an id that no snapshot has: mistyped, it would keep
    /// nothing where it should have kept something.
    pub fn decide(&self, survey: &Survey, times: Times) -> Result<Vec<Decision>> {
        if self.rules.is_empty() {
            return Err(Error::usage("forget by rules: no rule says what to keep")
                .with_hint("say so with --keep-daily 7 and the like, or name the snapshots that shall go"));
        }
        let tags = self.rules.iter().filter_map(|rule| if let Rule::Tag(tag) = rule { Some(tag.clone()) } else { None });
        select::verify_known(survey.kept(), &SnapshotFilter { tags: tags.collect(), ..SnapshotFilter::default() })?;
        for rule in &self.rules {
            if let Rule::Id(id) = rule {
                select::named(survey.kept(), &id.to_string())?;
            }
        }
        let subjects: Vec<Subject> = survey.candidates().iter().map(|candidate| Subject::of(candidate, times)).collect();
        let verdicts = self.judge(&subjects).into_iter().zip(survey.candidates());
        Ok(verdicts.map(|(verdict, candidate)| verdict.decision(&candidate.entry.reason)).collect())
    }

    /// What becomes of each of `subjects`, in their order. The order changes nothing but the order.
    #[must_use]
    pub fn judge(&self, subjects: &[Subject]) -> Vec<Verdict> {
        let mut groups: BTreeMap<GroupKey<'_>, Vec<usize>> = BTreeMap::new();
        for (number, subject) in subjects.iter().enumerate() {
            groups.entry(self.group_key(subject)).or_default().push(number);
        }
        let mut verdicts = vec![Verdict { group: 0, kept_by: Vec::new() }; subjects.len()];
        for (group, mut members) in groups.into_values().enumerate() {
            members.sort_by_key(|member| Reverse((subjects[*member].time, subjects[*member].id)));
            let members: Vec<Member<'_>> = members.into_iter().map(|number| self.member(number, &subjects[number])).collect();
            for (member, kept_by) in members.iter().zip(self.judge_group(&members)) {
                verdicts[member.number] = Verdict { group, kept_by };
            }
        }
        verdicts
    }

    fn group_key<'a>(&self, subject: &'a Subject) -> GroupKey<'a> {
        let by = |part| self.group_by.contains(&part);
        GroupKey {
            client: subject.client,
            host: by(GroupBy::Host).then_some(&subject.host),
            kind: by(GroupBy::Kind).then_some(&subject.kind),
            paths: by(GroupBy::Paths).then(|| subject.paths.iter().map(Vec::as_slice).collect()),
            tags: by(GroupBy::Tags).then(|| subject.tags.iter().map(String::as_str).collect()),
        }
    }

    fn member<'a>(&self, number: usize, subject: &'a Subject) -> Member<'a> {
        let timestamp = Timestamp::from_nanosecond(subject.time.into()).expect("64 bits of nanoseconds are within the calendar");
        Member { number, subject, time: timestamp.to_zoned(self.zone.clone()) }
    }

    /// The reasons for each of the members, which are ordered from new to old.
    fn judge_group(&self, members: &[Member<'_>]) -> Vec<Vec<Reason>> {
        let finished = members.iter().position(|member| !member.subject.incomplete).unwrap_or(members.len());
        let mut kept: Vec<Vec<Reason>> = vec![Vec::new(); members.len()];
        for (place, member) in members.iter().enumerate() {
            if member.subject.held {
                kept[place].push(Reason::Held);
            }
            kept[place].extend(member.subject.retained.map(Reason::Retained));
            // What did not finish is all there is of the newest state until a backup finishes.
            if place < finished {
                kept[place].push(Reason::Unfinished);
            }
        }
        for rule in &self.rules {
            match rule {
                Rule::Number { every, number } => keep_number(members, *every, *number, &mut kept),
                Rule::Within { every, age } => keep_within(members, finished, (*every, age), &mut kept),
                Rule::Tag(tag) => keep_those(members, &mut kept, &Reason::Tag(tag.clone()), |s| s.tags.contains(tag)),
                Rule::Id(id) => keep_those(members, &mut kept, &Reason::Id, |s| s.id == *id),
            }
        }
        kept
    }
}

/// A snapshot of a group, with its time where hours and days begin as they should.
struct Member<'a> {
    number: usize,
    subject: &'a Subject,
    time: Zoned,
}

/// Names a period; different ones have different names. An hour that a clock runs through twice is two hours.
fn period(every: Every, time: &Zoned) -> (i16, i16, i32) {
    let week = time.date().iso_week_date();
    match every {
        Every::Snapshot => (0, 0, 0),
        Every::Hour => (time.year(), time.day_of_year(), i32::from(time.hour()) * 1_000_000 + time.offset().seconds()),
        Every::Day => (time.year(), time.day_of_year(), 0),
        Every::Week => (week.year(), week.week().into(), 0),
        Every::Month => (time.year(), time.month().into(), 0),
        Every::Quarter => (time.year(), ((time.month() - 1) / 3).into(), 0),
        Every::Year => (time.year(), 0, 0),
    }
}

/// The newest finished member of each period, from new to old. One that did not finish stands for nothing: it would
/// push out one that did.
fn newest_of_each<'a>(members: &'a [Member<'_>], every: Every) -> impl Iterator<Item = usize> + 'a {
    let mut seen = BTreeSet::new();
    let finished = members.iter().enumerate().filter(|(_, member)| !member.subject.incomplete);
    let newest = finished.filter(move |(_, member)| every == Every::Snapshot || seen.insert(period(every, &member.time)));
    newest.map(|(place, _)| place)
}

fn keep_number(members: &[Member<'_>], every: Every, number: NonZeroU32, kept: &mut [Vec<Reason>]) {
    for (place, member) in (1..=number.get()).zip(newest_of_each(members, every)) {
        kept[member].push(Reason::Number { every, place, number });
    }
}

fn keep_within(members: &[Member<'_>], finished: usize, (every, age): (Every, &Age), kept: &mut [Vec<Reason>]) {
    let Some(newest) = members.get(finished) else { return };
    // An age that leads out of the calendar keeps everything.
    let oldest = age.before(&newest.time).map(|oldest| oldest.timestamp());
    let young = |member: &Member<'_>| oldest.is_none_or(|oldest| member.time.timestamp() >= oldest);
    for place in newest_of_each(members, every).filter(|place| young(&members[*place])) {
        kept[place].push(Reason::Within { every, age: *age });
    }
}

fn keep_those(members: &[Member<'_>], kept: &mut [Vec<Reason>], reason: &Reason, fits: impl Fn(&Subject) -> bool) {
    for (member, kept) in members.iter().zip(kept) {
        if fits(member.subject) {
            kept.push(reason.clone());
        }
    }
}

/// How many periods are kept: a number from 1 on, or `all`.
///
/// # Errors
/// `Usage` for anything else. Nothing is kept by 0, so a rule with it would only look like one.
pub fn parse_number(text: &str) -> Result<NonZeroU32> {
    let number = if text == "all" { Some(NonZeroU32::MAX) } else { text.parse().ok() };
    number.ok_or_else(|| {
        Error::usage(format!("read the number {text:?}: neither 1 or more nor `all`"))
            .with_hint("a rule that keeps none is left out")
    })
}

impl FromStr for GroupBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "host" => Ok(Self::Host),
            "kind" => Ok(Self::Kind),
            "paths" => Ok(Self::Paths),
            "tags" => Ok(Self::Tags),
            _ => Err(Error::usage(format!("group by {text:?}: not one of host, kind, paths, tags"))
                .with_hint("several go with commas between them, and `none`, alone, makes one group of all that a client has")),
        }
    }
}

impl Every {
    /// The word in the names of rules; empty for every snapshot.
    fn word(self) -> &'static str {
        match self {
            Self::Snapshot => "",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Quarter => "quarterly",
            Self::Year => "yearly",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { every, place, number } => {
                let word = if *every == Every::Snapshot { "last" } else { every.word() };
                write!(out, "{word} {place} of {}", if *number == NonZeroU32::MAX { "all".into() } else { number.to_string() })
            }
            Self::Within { every: Every::Snapshot, age } => write!(out, "within {age}"),
            Self::Within { every, age } => write!(out, "{} within {age}", every.word()),
            Self::Tag(tag) => write!(out, "tag {tag}"),
            Self::Id => out.write_str("id"),
            Self::Held => out.write_str("held"),
            Self::Retained(until) => {
                let until = Timestamp::from_nanosecond((*until).into()).unwrap_or_default();
                write!(out, "retained until {}", until.strftime("%Y-%m-%d %H:%M UTC"))
            }
            Self::Unfinished => out.write_str("unfinished"),
        }
    }
}
