//! `lifeboat history`, and what is noted there of each run that changes or verifies something.

use super::arguments::{KeyVerb, Verb};
use super::globals::Context;
use super::text;
use crate::error::Result;
use crate::event::{Event, Observer};
use crate::service::history::{History, HistoryEntry, KEPT, Run};
use serde_json::Value;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct HistoryArguments {
    /// How many of the newest runs
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(KEPT)))]
    last: u32,
    /// Only runs of this command
    #[arg(long, value_name = "COMMAND")]
    of: Option<String>,
}

/// What a run is called, if it is noted: dry runs and looking around are not.
fn noted(verb: &Verb) -> Option<&'static str> {
    match verb {
        Verb::Backup(arguments) if !arguments.dry_run => Some("backup"),
        Verb::Restore(arguments) if !arguments.dry_run => Some("restore"),
        Verb::Prune(arguments) if !arguments.is_dry() => Some("prune"),
        Verb::Check(_) => Some("check"),
        Verb::Init(_) => Some("init"),
        Verb::Forget(arguments) if !arguments.is_dry() => Some("forget"),
        Verb::Unforget(_) => Some("unforget"),
        Verb::Hold(_) => Some("hold"),
        Verb::Unhold(_) => Some("unhold"),
        Verb::Repair(arguments) if arguments.applies() => Some("repair"),
        Verb::Copy(arguments) if !arguments.is_dry() => Some("copy"),
        Verb::Mirror(arguments) if !arguments.is_dry() => Some("mirror"),
        Verb::Key { verb } => noted_key(verb),
        _ => None,
    }
}

fn noted_key(verb: &KeyVerb) -> Option<&'static str> {
    match verb {
        KeyVerb::List | KeyVerb::Policy(_) => None,
        KeyVerb::Enrol(_) => Some("key enrol"),
        KeyVerb::Revoke(_) => Some("key revoke"),
        KeyVerb::Rotate(arguments) => (!arguments.is_dry()).then_some("key rotate"),
        KeyVerb::Add { .. } => Some("key add"),
        KeyVerb::Remove { .. } => Some("key remove"),
    }
}

fn history(context: &Context) -> Result<History> {
    Ok(History::new(&context.open_options()?.state_dir))
}

/// Notes that a run begins. Work goes on if that fails.
pub(super) fn begin(context: &Context, verb: &Verb) -> Option<Run> {
    let verb = noted(verb)?;
    let begun = history(context).and_then(|history| {
        let (place, _) = context.location()?;
        history.start(verb, &place.to_string())
    });
    complain(context, begun)
}

/// Notes how it ended.
pub(super) fn end(context: &Context, run: Option<Run>, outcome: &Result<u8>) {
    let Some(run) = run else { return };
    let (code, message) = match outcome {
        Ok(code) => (*code, String::new()),
        Err(error) => (error.exit_code(), error.to_string()),
    };
    let figures = context.figures().map(|figures| figures.to_string()).unwrap_or_default();
    complain(context, run.finish(code, &message, &figures));
}

fn complain<T>(context: &Context, outcome: Result<T>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) => {
            context.watcher.observe(Event::Note(&format!("the run is not in the history: {error}")));
            None
        }
    }
}

pub(super) fn show(context: &Context, arguments: &HistoryArguments) -> Result<u8> {
    let mut entries = history(context)?.list(if arguments.of.is_some() { KEPT } else { arguments.last })?;
    entries.retain(|entry| arguments.of.as_ref().is_none_or(|verb| *verb == entry.verb));
    entries.truncate(arguments.last as usize);
    if context.globals.json {
        println!("{}", Value::Array(entries.iter().map(json).collect()));
        return Ok(0);
    }
    let mut table = text::table(vec!["began", "took", "command", "result", "figures", "repository"]);
    for entry in &entries {
        let took = entry.end.and_then(|end| u64::try_from(end - entry.start).ok()).map(Duration::from_nanos);
        table.add_row([
            text::time(entry.start),
            took.map(text::duration).unwrap_or_default(),
            text::printable(entry.verb.as_bytes()),
            result(entry),
            figures(entry),
            text::printable(entry.repository.as_bytes()),
        ]);
    }
    println!("{}", text::fitted(table));
    context.say(&text::number(entries.len() as u64, "run", "runs"));
    Ok(0)
}

fn result(entry: &HistoryEntry) -> String {
    match entry.exit_code {
        None => "cut off, or still running".into(),
        Some(0) => "done".into(),
        Some(3) => "incomplete".into(),
        Some(130) => "interrupted".into(),
        Some(code) if entry.message.is_empty() => format!("exit code {code}"),
        Some(code) => format!("exit code {code}: {}", text::legible(&entry.message)),
    }
}

/// The figures that tell most.
fn figures(entry: &HistoryEntry) -> String {
    let figures: Value = serde_json::from_str(&entry.figures).unwrap_or_default();
    let number = |key: &str| figures.get(key).and_then(Value::as_u64);
    let mut parts = Vec::new();
    parts.extend(number("files").map(|files| text::number(files, "file", "files")));
    parts.extend(number("bytes").map(text::size));
    parts.extend(number("bytes_added").map(|bytes| format!("{} new", text::size(bytes))));
    parts.extend(number("forgotten").map(|count| format!("{} forgotten", text::count(count))));
    parts.extend(number("copied").map(|count| format!("{} copied", text::count(count))));
    parts.extend(number("mended").map(|count| format!("{} mended", text::count(count))));
    parts.extend(number("packs").map(|packs| text::number(packs, "pack", "packs")));
    parts.extend(number("bytes_freed").map(|bytes| format!("{} freed", text::size(bytes))));
    parts.join(", ")
}

fn json(entry: &HistoryEntry) -> Value {
    serde_json::json!({
        "command": entry.verb, "repository": entry.repository, "start": text::json_time(entry.start),
        "end": entry.end.map(text::json_time), "exit_code": entry.exit_code, "message": entry.message,
        "figures": serde_json::from_str::<Value>(&entry.figures).unwrap_or_default(),
    })
}
