//! `lifeboat forget`, `unforget`, `hold`, and `unhold`.

use super::arguments::FilterArguments;
use super::globals::Context;
use super::{prompt, show, text};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::ops::forget::{self, Allow, Candidate, Decision, ForgetPlan, Survey, Times};
use crate::ops::select::{self, SnapshotFilter};
use crate::ops::{hold, unforget};
use crate::plan::age::Age;
use crate::plan::retention::{Every, GroupBy, Retention, Rule, parse_number};
use crate::repo::{Repository, SnapshotEntry, StoredTime};
use clap::Args;
use std::num::NonZeroU32;

#[derive(Args)]
#[command(
    after_help = "A snapshot that any rule keeps is kept. Rules look at the snapshots of one client, host, kind, and set of paths \
    at a time, and go back from the newest of them. Until a prune frees the space, `lifeboat unforget` brings snapshots \
    back.\n\nExamples:\n  \
    lifeboat forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run\n  \
    lifeboat forget --host mail --keep-last 3 --keep-within 30d --keep-tag release\n  \
    lifeboat forget 3fa8c2d1 77b0e5aa"
)]
pub(super) struct ForgetArguments {
    /// Snapshots that go: the beginnings of their ids
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArguments,
    /// Which times rules go by
    #[arg(long, value_name = "WHICH", default_value = "checked")]
    times: WhichTimes,
    /// Even if more than half of a client's snapshots go
    #[arg(long)]
    allow_most: bool,
    /// Even if nothing is left of a client or of a group
    #[arg(long)]
    allow_all: bool,
    /// Even if a snapshot's own retention has not ended
    #[arg(long)]
    despite_retention: bool,
    /// Say what would be done
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Do not ask on a terminal
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    rules: RetentionArguments,
}

impl ForgetArguments {
    /// True if nothing is changed.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }
}

/// What is kept.
#[derive(Args, Default)]
#[command(next_help_heading = "What is kept")]
pub(super) struct RetentionArguments {
    /// The newest N snapshots; a number, or `all`
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_last: Option<NonZeroU32>,
    /// The newest snapshot of each of the newest N hours that have any
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_hourly: Option<NonZeroU32>,
    /// The same for days
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_daily: Option<NonZeroU32>,
    /// The same for weeks, which begin on Monday
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_weekly: Option<NonZeroU32>,
    /// The same for months
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_monthly: Option<NonZeroU32>,
    /// The same for quarters
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_quarterly: Option<NonZeroU32>,
    /// The same for years
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_yearly: Option<NonZeroU32>,
    /// All that are no older than this against the newest: 30d, 1y6m, 36h
    #[arg(long, value_name = "TIME")]
    keep_within: Option<Age>,
    /// The newest of each hour that is no older than this against the newest
    #[arg(long, value_name = "TIME")]
    keep_within_hourly: Option<Age>,
    /// The same for days
    #[arg(long, value_name = "TIME")]
    keep_within_daily: Option<Age>,
    /// The same for weeks
    #[arg(long, value_name = "TIME")]
    keep_within_weekly: Option<Age>,
    /// The same for months
    #[arg(long, value_name = "TIME")]
    keep_within_monthly: Option<Age>,
    /// The same for quarters
    #[arg(long, value_name = "TIME")]
    keep_within_quarterly: Option<Age>,
    /// The same for years
    #[arg(long, value_name = "TIME")]
    keep_within_yearly: Option<Age>,
    /// Those with this tag; may be given several times, or several with commas
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    keep_tag: Vec<String>,
    /// This one: the beginning of its id
    #[arg(long, value_name = "SNAPSHOT")]
    keep_id: Vec<String>,
    /// What makes a group besides the client: host, kind, paths, tags, or none
    #[arg(long, value_name = "PARTS", value_delimiter = ',', default_value = "host,kind,paths")]
    group_by: Vec<String>,
    /// Where hours and days begin, such as Europe/Berlin; as on this machine by default
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum WhichTimes {
    /// What clients claim, and nothing goes where the store's time is more than a day from it
    Checked,
    /// What clients claim
    Claimed,
    /// When the store says that the record was written
    Stored,
}

#[derive(Args)]
pub(super) struct NamesArguments {
    /// The beginnings of the ids of snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  lifeboat hold 3fa8c2d1 --reason 'audit 2031'")]
pub(super) struct HoldArguments {
    #[command(flatten)]
    names: NamesArguments,
    /// Why; shown where the snapshot would have gone
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

impl RetentionArguments {
    /// The rules, with ids looked up among `kept`.
    fn retention(&self, kept: &[SnapshotEntry]) -> Result<Retention> {
        let numbers = [
            (Every::Snapshot, self.keep_last),
            (Every::Hour, self.keep_hourly),
            (Every::Day, self.keep_daily),
            (Every::Week, self.keep_weekly),
            (Every::Month, self.keep_monthly),
            (Every::Quarter, self.keep_quarterly),
            (Every::Year, self.keep_yearly),
        ];
        let ages = [
            (Every::Snapshot, self.keep_within),
            (Every::Hour, self.keep_within_hourly),
            (Every::Day, self.keep_within_daily),
            (Every::Week, self.keep_within_weekly),
            (Every::Month, self.keep_within_monthly),
            (Every::Quarter, self.keep_within_quarterly),
            (Every::Year, self.keep_within_yearly),
        ];
        let mut rules = Vec::new();
        rules.extend(numbers.iter().filter_map(|(every, number)| Some(Rule::Number { every: *every, number: (*number)? })));
        rules.extend(ages.iter().filter_map(|(every, age)| Some(Rule::Within { every: *every, age: (*age)? })));
        rules.extend(self.keep_tag.iter().cloned().map(Rule::Tag));
        for name in &self.keep_id {
            rules.extend(select::named(kept, name)?.first().map(|entry| Rule::Id(entry.id)));
        }
        let group_by = match self.group_by.as_slice() {
            [none] if none == "none" => Vec::new(),
            parts => parts.iter().map(|part| part.parse::<GroupBy>()).collect::<Result<_>>()?,
        };
        Ok(Retention { rules, group_by: group_by.into_iter().collect(), zone: self.zone()? })
    }

    fn zone(&self) -> Result<jiff::tz::TimeZone> {
        let Some(name) = &self.time_zone else { return Ok(jiff::tz::TimeZone::system()) };
        jiff::tz::TimeZone::get(name).map_err(|_| {
            Error::usage(format!("use the time zone {name:?}: this machine knows none of that name"))
                .with_hint("write it like Europe/Berlin or UTC")
        })
    }
}

pub(super) fn run(context: &Context, arguments: &ForgetArguments) -> Result<u8> {
    let allow = match (arguments.allow_all, arguments.allow_most) {
        (true, _) => Allow::Everything,
        (_, true) => Allow::Most,
        _ => Allow::Half,
    };
    let repository = context.open()?;
    let plan = plan(&repository, arguments)?;
    let refusal = plan.refusal(allow);
    if !context.globals.json {
        print(context, &repository, &plan)?;
    }
    let act = refusal.is_none() && !arguments.dry_run;
    if act {
        confirm(context, arguments, &plan)?;
        let report = forget::forget(&repository, &plan, allow, &context.watcher)?;
        let gone = text::number(report.forgotten.len() as u64, "snapshot", "snapshots");
        let left = report.kept;
        context.note(&serde_json::json!({"forgotten": report.forgotten.len(), "kept": left}));
        match report.forgotten.len() {
            0 => context.say(&format!("forgot nothing, kept {left}")),
            _ => context.say(&format!("forgot {gone}, kept {left}; until a prune, `lifeboat unforget` brings them back")),
        }
    }
    let (going, all) = (plan.going().count(), plan.fates.len());
    if context.globals.json {
        println!("{}", json(&plan, act, refusal.as_ref()));
    } else if refusal.is_none() && !act {
        context.say(&format!("would forget {going} of {}", text::number(all as u64, "snapshot", "snapshots")));
    }
    refusal.map_or(Ok(0), Err)
}

fn plan(repository: &Repository, arguments: &ForgetArguments) -> Result<ForgetPlan> {
    let filter = show::filter(&arguments.filter);
    let heeded = |survey: Survey| if arguments.despite_retention { survey.despite_retention() } else { survey };
    if arguments.snapshots.is_empty() {
        let times = match arguments.times {
            WhichTimes::Checked => Times::Checked,
            WhichTimes::Claimed => Times::Claimed,
            WhichTimes::Stored => Times::Stored,
        };
        let survey = heeded(Survey::of_filter(repository, &filter)?);
        let decisions = arguments.rules.retention(survey.kept())?.decide(&survey, times)?;
        return Ok(survey.plan(decisions, times));
    }
    let survey = heeded(Survey::of_names(repository, &arguments.snapshots)?);
    if filter != SnapshotFilter::default() || !arguments.rules.retention(survey.kept())?.rules.is_empty() {
        return Err(Error::usage("forget: both snapshots and rules or filters were given")
            .with_hint("name the snapshots that go, or say which are kept"));
    }
    Ok(survey.plan_all())
}

/// Asks, where there is somebody to ask.
fn confirm(context: &Context, arguments: &ForgetArguments, plan: &ForgetPlan) -> Result<()> {
    let going = plan.going().count();
    if going == 0 || arguments.yes || context.globals.json || !prompt::can_ask() {
        return Ok(());
    }
    if prompt::confirm(&format!("forget {}?", text::number(going as u64, "snapshot", "snapshots")), &context.watcher)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, "forget: not confirmed; nothing was forgotten").with_hint("--yes does not ask"))
}

/// The candidates as they are shown: group by group, oldest first.
fn in_order(plan: &ForgetPlan) -> Vec<&(Candidate, Decision)> {
    let mut fates: Vec<_> = plan.fates.iter().collect();
    fates.sort_by_key(|(candidate, decision)| (decision.group, candidate.entry.snapshot.end, candidate.entry.id));
    fates
}

fn print(context: &Context, repository: &Repository, plan: &ForgetPlan) -> Result<()> {
    let style = text::Style::of(&std::io::stdout());
    let names = show::client_names(repository)?;
    let mut header = vec!["id", "time", "host", "kind", "tags", "paths", "why"];
    if !names.is_empty() {
        header.insert(2, "client");
    }
    let mut table = text::table(header);
    for (candidate, decision) in in_order(plan) {
        let (entry, snapshot) = (&candidate.entry, &candidate.entry.snapshot);
        let why = match decision.kept_by.as_slice() {
            [] => format!("{}goes{}", style.warn(), style.reset()),
            reasons => text::legible(&reasons.join(", ")),
        };
        let mut row = vec![
            entry.id.short(),
            text::time(snapshot.end),
            text::printable(snapshot.host.as_bytes()),
            text::printable(snapshot.kind.as_bytes()),
            text::printable(snapshot.tags.join(",").as_bytes()),
            show::paths(snapshot),
            why,
        ];
        if !names.is_empty() {
            row.insert(2, show::client_name(&names, &entry.client));
        }
        table.add_row(row);
    }
    context.say(&text::fitted(table));
    Ok(())
}

fn json(plan: &ForgetPlan, forgotten: bool, refusal: Option<&Error>) -> serde_json::Value {
    let snapshots: Vec<_> = (in_order(plan).into_iter())
        .map(|(candidate, decision)| {
            let entry = &candidate.entry;
            let mut object = show::snapshot_json(Some(&entry.id), &entry.snapshot);
            object.insert("client".into(), entry.client.to_string().into());
            let stored = candidate.stored.and_then(|stored| if let StoredTime::At(time) = stored { Some(time) } else { None });
            object.insert("stored".into(), stored.map(text::json_time).into());
            object.insert("group".into(), decision.group.into());
            object.insert("kept_by".into(), decision.kept_by.clone().into());
            object.insert("goes".into(), decision.kept_by.is_empty().into());
            serde_json::Value::Object(object)
        })
        .collect();
    let going: Vec<_> = plan.going().map(|candidate| candidate.entry.id.to_string()).collect();
    serde_json::json!({
        "going": going, "done": forgotten, "refused": refusal.map(ToString::to_string), "snapshots": snapshots,
    })
}

/// Says what was done to these snapshots.
fn done(context: &Context, word: &str, ids: &[SnapshotId]) -> Result<u8> {
    if context.globals.json {
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        println!("{}", serde_json::json!({ word: ids }));
    }
    ids.iter().for_each(|id| context.say(&format!("{word} {}", id.short())));
    Ok(0)
}

pub(super) fn run_unforget(context: &Context, arguments: &NamesArguments) -> Result<u8> {
    done(context, "unforgotten", &unforget::unforget(&context.open()?, &arguments.snapshots)?)
}

pub(super) fn run_hold(context: &Context, arguments: &HoldArguments) -> Result<u8> {
    done(context, "held", &hold::hold(&context.open()?, &arguments.names.snapshots, &arguments.reason)?)
}

pub(super) fn run_unhold(context: &Context, arguments: &NamesArguments) -> Result<u8> {
    done(context, "unheld", &hold::unhold(&context.open()?, &arguments.snapshots)?)
}
