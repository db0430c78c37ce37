//! `lifeboat check`.

use super::document::{self, list};
use super::globals::Context;
use super::{DAMAGED, text};
use crate::error::{ErrorKind, Result};
use crate::ops::check::{CheckOptions, CheckReport, DamagedSnapshot, Finding, Findings, ReadData, Severity, check};
use std::time::Duration;

/// Exit code of a check that finds an older state of the store than was seen before.
const ROLLED_BACK: u8 = 14;

#[derive(clap::Args)]
#[command(
    after_help = "Without options, the logs, the tables of contents, and the trees of all snapshots are verified. This machine\n\
    remembers which packs it has read whole and when, so that a part of the data can be read each day.\n\n\
    Examples:\n  lifeboat check --read-data\n  lifeboat check --read-data=10%\n  lifeboat check --max-age 30d --max-duration 1h"
)]
pub(super) struct CheckArguments {
    /// Only the chain of the logs, and that all objects are there with their lengths
    #[arg(long, conflicts_with_all = ["read_data", "max_age", "max_duration"])]
    quick: bool,
    /// Read, open, and hash everything that is stored, or the share of it that was not read for the longest time
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100%", value_parser = super::prune::percent)]
    read_data: Option<f64>,
    /// Read what was not read for this long, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    max_age: Option<Duration>,
    /// Begin to read no more after this time, such as 90s, 30m, or 2h; the next check goes on from there
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    max_duration: Option<Duration>,
    #[command(flatten)]
    thaw: super::thaw::ThawArguments,
}

pub(super) fn run(context: &Context, arguments: &CheckArguments) -> Result<u8> {
    let repository = context.open_damaged()?;
    let rolled_back = repository.met().is_some_and(|error| error.kind() == ErrorKind::RolledBack);
    let reads = arguments.read_data.is_some() || arguments.max_age.is_some() || arguments.max_duration.is_some();
    let read_data = reads.then(|| ReadData {
        share: arguments.read_data.unwrap_or(1.0),
        max_age: arguments.max_age,
        max_duration: arguments.max_duration,
    });
    let options = CheckOptions { quick: arguments.quick, read_data, thaw: arguments.thaw.options(), threads: context.threads() };
    let report = check(&repository, &options, &context.watcher)?;
    let figures = figures(&report);
    context.note(&figures);
    if context.globals.json {
        let lists =
            vec![list("findings", &report.findings, finding_json), list("snapshots_damaged", &report.damaged, damaged_json)];
        document::print(lists, &figures)?;
    } else {
        print(context, &report)?;
    }
    match repository.met() {
        Some(met) => super::report(met, context.globals.json),
        None if report.is_damaged() && !context.globals.json => {
            let style = text::Style::of(&std::io::stderr());
            eprintln!("{}damaged{}: what is not named above is whole", style.bad(), style.reset());
        }
        None => {}
    }
    Ok(match report.is_damaged() {
        true if rolled_back => ROLLED_BACK,
        true => DAMAGED,
        false => 0,
    })
}

pub(super) fn finding_json(finding: &Finding) -> serde_json::Value {
    serde_json::json!(finding)
}

fn damaged_json(damaged: &DamagedSnapshot) -> serde_json::Value {
    let paths: Vec<_> = damaged.paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
    serde_json::json!({"id": damaged.id, "count": damaged.count, "paths": paths})
}

fn figures(report: &CheckReport) -> serde_json::Value {
    serde_json::json!({
        "damaged": report.is_damaged(), "snapshots": report.snapshots, "records": report.records, "packs": report.packs,
        "packs_read": report.packs_read, "chunks": report.chunks, "bytes_read": report.bytes_read,
        "oldest_read": report.oldest_read.map(text::json_time), "attested": report.attested,
        "seconds": report.elapsed.as_secs_f64(),
    })
}

/// Says each finding, and what to do once for all findings that need the same.
pub(super) fn print_findings(context: &Context, findings: &Findings) -> Result<()> {
    let style = text::Style::of(&std::io::stdout());
    let mut before = String::new();
    for finding in findings.iter() {
        let finding = finding?;
        let (colour, word) = match finding.severity {
            Severity::Damage => (style.bad(), "damage"),
            Severity::Notice => (style.warn(), "notice"),
        };
        if !before.is_empty() && before != finding.hint {
            context.say(&format!("  hint: {before}"));
        }
        context.say(&format!("{colour}{word}{}: {}: {}", style.reset(), finding.object, finding.problem));
        before = finding.hint;
    }
    if !before.is_empty() {
        context.say(&format!("  hint: {before}"));
    }
    Ok(())
}

fn print(context: &Context, report: &CheckReport) -> Result<()> {
    let style = text::Style::of(&std::io::stdout());
    print_findings(context, &report.findings)?;
    for damaged in report.damaged.iter() {
        let damaged = damaged?;
        context.say(&format!("snapshot {} cannot be restored whole:", damaged.id.short()));
        damaged.paths.iter().take(20).for_each(|path| context.say(&format!("  {}", text::printable(path))));
        if damaged.count > 20 {
            context.say(&format!("  and {} more", text::count(damaged.count - 20)));
        }
    }
    context.say(&format!(
        "checked {}, {}, {}, {}; {} read whole, {} in {}",
        text::number(report.snapshots, "snapshot", "snapshots"),
        text::number(report.records, "record", "records"),
        text::number(report.packs, "pack", "packs"),
        text::number(report.chunks, "chunk", "chunks"),
        text::number(report.packs_read, "pack", "packs"),
        text::size(report.bytes_read),
        text::duration(report.elapsed)
    ));
    if report.attested > 0 {
        context.say(&format!("{} of other clients may be relied on from now on", text::number(report.attested, "pack", "packs")));
    }
    if let Some(oldest) = report.oldest_read.filter(|_| report.packs > 0) {
        context.say(&format!("all data was read whole since {}", text::time(oldest)));
    }
    if !report.is_damaged() {
        context.say(&format!("{}no damage found{}", style.good(), style.reset()));
    }
    Ok(())
}
