//! `lifeboat find`, `diff`, and `dump`.

use super::arguments::{DiffArguments, DumpArguments, FindArguments, Kind};
use super::globals::Context;
use super::{show, text};
use crate::error::{Error, Result};
use crate::format::tree::NodeKind;
use crate::ops::diff::{Change, Side, diff};
use crate::ops::dump::dump;
use crate::ops::find::{FindOptions, find, history};
use crate::ops::select;
use crate::repo::Repository;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

fn failed(error: std::io::Error) -> Error {
    Error::io("write", "to standard output", error)
}

fn kinds(kind: Kind) -> Vec<NodeKind> {
    match kind {
        Kind::File => vec![NodeKind::File],
        Kind::Directory => vec![NodeKind::Directory],
        Kind::Symlink => vec![NodeKind::Symlink],
        Kind::Fifo => vec![NodeKind::Fifo],
        Kind::Socket => vec![NodeKind::Socket],
        Kind::Device => vec![NodeKind::BlockDevice, NodeKind::CharDevice],
    }
}

/// Reads `2026-11-02`, `2026-11-02 13:00:00` (local), or RFC 3339.
fn parse_time(text: &str) -> Result<i64> {
    let zone = jiff::tz::TimeZone::system();
    let stamp = text
        .parse::<jiff::Timestamp>()
        .or_else(|_| text.parse::<jiff::civil::DateTime>().and_then(|time| time.to_zoned(zone.clone())).map(|t| t.timestamp()))
        .or_else(|_| text.parse::<jiff::civil::Date>().and_then(|day| day.to_zoned(zone)).map(|t| t.timestamp()));
    let stamp =
        stamp.map_err(|_| Error::usage(format!("read the time {text:?}: write it like 2026-11-02 or 2026-11-02T13:00")))?;
    Ok(i64::try_from(stamp.as_nanosecond()).unwrap_or(i64::MAX))
}

pub(super) fn run_find(context: &Context, arguments: &FindArguments) -> Result<u8> {
    let repository = context.open_to_look()?;
    let snapshots = match &arguments.snapshot {
        Some(text) => vec![select::find(&repository, text, &show::filter(&arguments.filter), &context.watcher)?],
        None => select::list(&repository, &show::filter(&arguments.filter), select::Which::Kept)?,
    };
    if arguments.history {
        return run_history(context, &repository, &snapshots, arguments);
    }
    let options = FindOptions {
        globs: arguments.patterns.clone(),
        regex: arguments.regex.clone(),
        ignore_case: arguments.ignore_case,
        larger: arguments.larger,
        smaller: arguments.smaller,
        newer: arguments.newer.as_deref().map(parse_time).transpose()?,
        older: arguments.older.as_deref().map(parse_time).transpose()?,
        kinds: arguments.r#type.map(kinds).unwrap_or_default(),
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let json = context.globals.json;
    find(&repository, &snapshots, &options, &context.watcher, &mut |hit| {
        let line = if json {
            let mut object = show::node_json(hit.node, hit.path);
            object["snapshot"] = hit.snapshot.id.to_string().into();
            object.to_string()
        } else {
            let nanos = i64::try_from(hit.node.mtime.total_nanos()).unwrap_or_default();
            let (id, size) = (hit.snapshot.id.short(), hit.node.size);
            format!("{id}  {size:>12}  {}  {}", text::time(nanos), text::printable(hit.path))
        };
        writeln!(out, "{line}").map_err(failed)
    })?;
    out.flush().map_err(failed)?;
    Ok(0)
}

fn run_history(
    context: &Context,
    repository: &Repository,
    snapshots: &[crate::repo::SnapshotEntry],
    arguments: &FindArguments,
) -> Result<u8> {
    for path in &arguments.patterns {
        for version in history(repository, snapshots, path.trim_start_matches('/').as_bytes(), &context.watcher)? {
            let held: Vec<String> = version.snapshots.iter().map(|entry| entry.id.to_string()).collect();
            if context.globals.json {
                let mut object = show::node_json(&version.node, path.as_bytes());
                object["snapshots"] = held.into();
                println!("{object}");
                continue;
            }
            let nanos = i64::try_from(version.node.mtime.total_nanos()).unwrap_or_default();
            let held: Vec<&str> = held.iter().map(|id| &id[..8]).collect();
            context.show(&format!("{:>12}  {}  in {}", version.node.size, text::time(nanos), held.join(" ")));
        }
    }
    Ok(0)
}

/// A snapshot with a path, or with a leading `./` or `/`, a directory that is there now.
fn side(context: &Context, repository: &Repository, text: &OsStr, arguments: &DiffArguments) -> Result<Side> {
    if matches!(text.as_bytes(), [b'/' | b'.', ..]) {
        return Ok(Side::Live(text.into()));
    }
    let shown = text.to_string_lossy();
    let found = show::find(context, repository, text, &arguments.filter);
    let (entry, path) = found.map_err(|error| match std::path::Path::new(text).is_dir() {
        true => error.with_hint(format!("for the directory as it is now, write ./{shown}")),
        false => error,
    })?;
    let node = repository.reader()?.resolve(&entry.snapshot.root, &path)?;
    let root = node.subtree.ok_or_else(|| Error::usage(format!("compare {shown}: it is no directory")))?;
    Ok(Side::Snapshot(root, entry.snapshot.counts.most_entries()))
}

pub(super) fn run_diff(context: &Context, arguments: &DiffArguments) -> Result<u8> {
    let repository = context.open_to_look()?;
    let first = side(context, &repository, &arguments.first, arguments)?;
    let second = side(context, &repository, &arguments.second, arguments)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let json = context.globals.json;
    let report = diff(&repository, (&first, &second), &context.watcher, &mut |path, change| {
        let (sign, word, fields) = match change {
            Change::Added => ('+', "added", Vec::new()),
            Change::Removed => ('-', "removed", Vec::new()),
            Change::Changed(fields) => ('M', "changed", fields.clone()),
        };
        let line = if json {
            let mut object = serde_json::Map::new();
            text::json_path(&mut object, path);
            object.insert("change".into(), word.into());
            object.insert("fields".into(), fields.into());
            serde_json::Value::Object(object).to_string()
        } else {
            let fields = if fields.is_empty() { String::new() } else { format!("  ({})", fields.join(", ")) };
            format!("{sign} {}{fields}", text::printable(path))
        };
        writeln!(out, "{line}").map_err(failed)
    })?;
    out.flush().map_err(failed)?;
    drop(out);
    context.say(&format!("{} added, {} removed, {} changed", report.added, report.removed, report.changed));
    Ok(0)
}

pub(super) fn run_dump(context: &Context, arguments: &DumpArguments) -> Result<u8> {
    if std::io::stdout().is_terminal() {
        return Err(Error::usage("write a tar archive: standard output is a terminal").with_hint("add `| tar tv` or `> FILE`"));
    }
    let repository = context.open()?;
    let (entry, path) = show::find(context, &repository, &arguments.snapshot, &arguments.filter)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    dump(&repository, &entry, &path, &mut out, &context.watcher)?;
    out.flush().map_err(failed)?;
    Ok(0)
}
