//! `lifeboat check`.

use super::arguments::CheckArguments;
use super::globals::Context;
use super::{DAMAGED, text};
use crate::error::Result;
use crate::ops::check::{CheckOptions, CheckReport, Severity, check};

pub(super) fn run(context: &Context, arguments: &CheckArguments) -> Result<u8> {
    let repository = context.open()?;
    let options = CheckOptions { read_data: arguments.read_data, threads: context.threads() };
    let report = check(&repository, &options, &context.watcher)?;
    if context.globals.json {
        println!("{}", json(&report));
    } else {
        print(context, &report);
    }
    Ok(if report.is_damaged() { DAMAGED } else { 0 })
}

fn json(report: &CheckReport) -> serde_json::Value {
    let findings: Vec<_> = (report.findings.iter())
        .map(|finding| {
            let severity = if finding.severity == Severity::Damage { "damage" } else { "notice" };
            serde_json::json!({"severity": severity, "object": finding.object, "problem": finding.problem})
        })
        .collect();
    let damaged: Vec<_> = (report.damaged.iter())
        .map(|(id, paths)| {
            let paths: Vec<_> = paths.iter().map(|path| text::printable(path)).collect();
            serde_json::json!({"id": id.to_string(), "paths": paths})
        })
        .collect();
    serde_json::json!({
        "damaged": report.is_damaged(), "findings": findings, "snapshots_damaged": damaged,
        "snapshots": report.snapshots, "packs": report.packs, "chunks": report.chunks,
        "bytes_read": report.bytes_read, "attested": report.attested, "seconds": report.elapsed.as_secs_f64(),
    })
}

fn print(context: &Context, report: &CheckReport) {
    let style = text::Style::of(&std::io::stdout());
    for finding in &report.findings {
        let (colour, word) = match finding.severity {
            Severity::Damage => (style.bad(), "damage"),
            Severity::Notice => (style.warn(), "notice"),
        };
        context.say(&format!("{colour}{word}{}: {}: {}", style.reset(), finding.object, finding.problem));
    }
    for (id, paths) in &report.damaged {
        context.say(&format!("snapshot {} cannot be restored whole:", id.short()));
        paths.iter().take(20).for_each(|path| context.say(&format!("  {}", text::printable(path))));
    }
    context.say(&format!(
        "checked {} snapshots, {} packs, {} chunks; {} read in {}",
        text::count(report.snapshots),
        text::count(report.packs),
        text::count(report.chunks),
        text::size(report.bytes_read),
        text::duration(report.elapsed)
    ));
    if report.attested > 0 {
        context.say(&format!("{} packs of other clients may be relied on from now on", text::count(report.attested)));
    }
    match report.is_damaged() {
        true => {
            eprintln!("{}damaged{}: restore what is whole, and back up again what is still there", style.bad(), style.reset())
        }
        false => context.say(&format!("{}no damage found{}", style.good(), style.reset())),
    }
}
