//! Commands that look: `snapshots`, `show`, `ls`, `cat`, `stats`.

use super::arguments::{FilterArguments, LsArguments, OneArguments, ShowArguments, SnapshotsArguments};
use super::globals::Context;
use super::text;
use crate::error::{Error, Result};
use crate::format::log::RecordRef;
use crate::format::snapshot::{Failure, Snapshot};
use crate::format::tree::{Node, NodeKind};
use crate::id::{ClientId, SnapshotId};
use crate::ops::cat::cat as print;
use crate::ops::latest;
use crate::ops::ls::{LsOptions, ls as list};
use crate::ops::select::{self, SnapshotFilter};
use crate::ops::stats::{StatsReport, Sum, stats};
use crate::repo::{Act, Member, Repository, SealedEntry, SnapshotEntry};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub(super) fn filter(arguments: &FilterArguments) -> SnapshotFilter {
    SnapshotFilter {
        hosts: arguments.host.clone(),
        kinds: arguments.kind.clone(),
        tags: arguments.tag.clone(),
        paths: arguments.path.iter().map(|path| path.clone().into_os_string().into_vec()).collect(),
    }
}

/// The snapshot and the path in `SNAPSHOT[:PATH]`.
pub(super) fn find(
    context: &Context,
    repository: &Repository,
    text: &OsStr,
    arguments: &FilterArguments,
) -> Result<(SnapshotEntry, Vec<u8>)> {
    let mut parts = text.as_bytes().splitn(2, |byte| *byte == b':');
    let snapshot = String::from_utf8_lossy(parts.next().unwrap_or_default());
    // Names need not be text.
    let names = parts.next().unwrap_or_default().split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let path = names.collect::<Vec<_>>().join(&b'/');
    Ok((select::find(repository, &snapshot, &filter(arguments), &context.watcher)?, path))
}

/// Where what is at `subpath` came from, if that can be told.
pub(super) fn original_place(snapshot: &Snapshot, subpath: &[u8]) -> Result<PathBuf> {
    let absolute = snapshot.paths.iter().all(|path| path.starts_with(b"/"));
    if !absolute {
        return Err(Error::usage("restore in place: the snapshot was made of relative paths")
            .with_hint("say where they belong with --to DIR"));
    }
    Ok(Path::new("/").join(OsStr::from_bytes(subpath)))
}

pub(super) fn failure_json(failure: &Failure) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    text::json_path(&mut object, &failure.path);
    object.insert("reason".into(), failure.reason.clone().into());
    object.into()
}

/// A snapshot in JSON.
pub(super) fn snapshot_json(id: Option<&SnapshotId>, snapshot: &Snapshot) -> serde_json::Map<String, serde_json::Value> {
    let counts = &snapshot.counts;
    let paths: Vec<_> = snapshot.paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    let value = serde_json::json!({
        "id": id.map(ToString::to_string), "kind": snapshot.kind, "time": text::json_time(snapshot.start),
        "end": text::json_time(snapshot.end), "host": snapshot.host, "user": snapshot.user, "paths": paths,
        "tags": snapshot.tags, "description": snapshot.description,
        "parent": snapshot.parent.map(|parent| parent.to_string()), "root": snapshot.root.to_string(),
        "version": snapshot.version, "incomplete": snapshot.incomplete || snapshot.failure_count > 0,
        "files": counts.files, "directories": counts.directories, "others": counts.others, "bytes": counts.bytes,
        "new": counts.new, "changed": counts.changed, "unmodified": counts.unmodified,
        "bytes_read": counts.bytes_read, "bytes_added": counts.bytes_added, "bytes_stored": counts.bytes_stored,
        "failures": snapshot.failures.iter().map(failure_json).collect::<Vec<_>>(),
        "failure_count": snapshot.failure_count, "retain_until": snapshot.retain_until.map(text::json_time),
    });
    match value {
        serde_json::Value::Object(object) => object,
        _ => serde_json::Map::new(),
    }
}

pub(super) fn paths(snapshot: &Snapshot) -> String {
    snapshot.paths.iter().map(|path| text::printable(path)).collect::<Vec<_>>().join(" ")
}

/// What clients are called; empty if there is only one.
pub(super) fn client_names(repository: &Repository) -> Result<HashMap<ClientId, String>> {
    let members = repository.members()?;
    let name = |member: &Member| if member.name.is_empty() { member.role.name().to_owned() } else { member.name.clone() };
    Ok(if members.len() < 2 { HashMap::new() } else { members.iter().map(|member| (member.id, name(member))).collect() })
}

pub(super) fn client_name(names: &HashMap<ClientId, String>, client: &ClientId) -> String {
    names.get(client).map(|name| text::printable(name.as_bytes())).unwrap_or_default()
}

/// True as long as its own retention lasts.
fn is_retained(entry: &SnapshotEntry) -> bool {
    entry.snapshot.retain_until.is_some_and(|until| i128::from(until) > jiff::Timestamp::now().as_nanosecond())
}

/// The records of snapshots whose time cannot be.
type Misdated = BTreeSet<RecordRef>;

/// Those among all that are known, whichever of them are shown: what came before tells.
fn misdated(repository: &Repository) -> Result<Misdated> {
    let (all, _) = repository.known_snapshots()?;
    Ok(latest::misdated(&all, repository.now()))
}

/// What is to be known of a snapshot at a glance, in words.
fn marks(entry: &SnapshotEntry, misdated: &Misdated) -> Vec<&'static str> {
    let snapshot = &entry.snapshot;
    let marks = [
        (misdated.contains(&entry.record()), "misdated"),
        (entry.damaged_files > 0, "damaged"),
        (entry.is_held(), "held"),
        (is_retained(entry), "retained"),
        (!entry.is_kept(), "forgotten"),
        (snapshot.incomplete, "unfinished"),
        (!snapshot.incomplete && snapshot.failure_count > 0, "incomplete"),
    ];
    marks.into_iter().filter(|(applies, _)| *applies).map(|(_, mark)| mark).collect()
}

/// The marks, and until when it is retained.
fn standing_words(entry: &SnapshotEntry, misdated: &Misdated) -> Vec<String> {
    let until = entry.snapshot.retain_until.map(text::time).unwrap_or_default();
    let word = |mark: &str| if mark == "retained" { format!("retained until {until}") } else { mark.to_owned() };
    marks(entry, misdated).into_iter().map(word).collect()
}

fn entry_json(entry: &SnapshotEntry, misdated: &Misdated) -> serde_json::Value {
    let mut object = snapshot_json(Some(&entry.id), &entry.snapshot);
    object.insert("client".into(), entry.client.to_string().into());
    object.insert("held".into(), entry.is_held().then_some(&entry.reason).map(String::as_str).into());
    object.insert("damaged_files".into(), entry.damaged_files.into());
    object.insert("marks".into(), marks(entry, misdated).into());
    object.into()
}

fn sealed_json(entry: &SealedEntry) -> serde_json::Value {
    serde_json::json!({
        "id": entry.id.to_string(), "client": entry.client.to_string(), "time": text::json_time(entry.time), "sealed": true,
    })
}

pub(super) fn snapshots(context: &Context, arguments: &SnapshotsArguments) -> Result<u8> {
    let repository = context.open_to_look()?;
    let which = if arguments.forgotten { select::Which::Forgotten } else { select::Which::Kept };
    let (all, sealed) = select::known(&repository, &filter(&arguments.filter), which)?;
    let misdated = misdated(&repository)?;
    if context.globals.json {
        println!(
            "{}",
            serde_json::Value::Array(
                all.iter().map(|entry| entry_json(entry, &misdated)).chain(sealed.iter().map(sealed_json)).collect()
            )
        );
        return Ok(0);
    }
    let names = client_names(&repository)?;
    let mut header = vec!["id", "time", "host", "kind", "files", "size", "added", "tags", "paths", "marks"];
    if !names.is_empty() {
        header.insert(2, "client");
    }
    let mut table = text::table(header);
    for entry in &all {
        let snapshot = &entry.snapshot;
        let mut row = vec![
            entry.id.short(),
            text::time(snapshot.start),
            text::printable(snapshot.host.as_bytes()),
            text::printable(snapshot.kind.as_bytes()),
            text::count(snapshot.counts.files),
            text::size(snapshot.counts.bytes),
            text::size(snapshot.counts.bytes_stored),
            text::printable(snapshot.tags.join(",").as_bytes()),
            paths(snapshot),
            standing_words(entry, &misdated).join(", "),
        ];
        if !names.is_empty() {
            row.insert(2, client_name(&names, &entry.client));
        }
        table.add_row(row);
    }
    println!("{}", text::fitted(table));
    context.say(&snapshot_count(all.len() as u64));
    super::roles::tell_of_clones(context, &repository)?;
    if !sealed.is_empty() {
        context.say(&format!(
            "{} more that this writer's key cannot open; `lifeboat snapshots` with a reader's or maintainer's key lists them",
            sealed.len()
        ));
    }
    Ok(0)
}

pub(super) fn show(context: &Context, arguments: &ShowArguments) -> Result<u8> {
    let repository = context.open_to_look()?;
    let (entry, path) = find(context, &repository, arguments.snapshot.as_ref(), &arguments.filter)?;
    if !path.is_empty() {
        return Err(Error::usage("show a snapshot: a path in it was given")
            .with_hint("`lifeboat ls -l SNAPSHOT:PATH` shows what is at that path"));
    }
    let misdated = misdated(&repository)?;
    let snapshot = &entry.snapshot;
    if context.globals.json {
        println!("{}", entry_json(&entry, &misdated));
        return Ok(0);
    }
    let counts = &snapshot.counts;
    for (name, value) in [
        ("id", entry.id.to_string()),
        ("kind", snapshot.kind.clone()),
        ("time", format!("{} to {}", text::time(snapshot.start), text::time(snapshot.end))),
        ("host", snapshot.host.clone()),
        ("user", snapshot.user.clone()),
        ("paths", paths(snapshot)),
        ("tags", snapshot.tags.join(", ")),
        ("description", snapshot.description.clone()),
        ("parent", snapshot.parent.map(|parent| parent.short()).unwrap_or_default()),
        ("files", format!("{} ({})", text::count(counts.files), text::size(counts.bytes))),
        ("directories", text::count(counts.directories)),
        ("others", text::count(counts.others)),
        ("changes", format!("{} new, {} changed, {} unmodified", counts.new, counts.changed, counts.unmodified)),
        ("added", format!("{}, stored as {}", text::size(counts.bytes_added), text::size(counts.bytes_stored))),
        ("program", snapshot.version.clone()),
        ("retained", snapshot.retain_until.map(|until| format!("until {}", text::time(until))).unwrap_or_default()),
        ("standing", standing(&entry, &misdated)),
        ("failures", text::count(snapshot.failure_count)),
    ] {
        println!("{name:<12} {}", text::legible(&value));
    }
    for failure in &snapshot.failures {
        println!("  {}: {}", text::printable(&failure.path), text::legible(&failure.reason));
    }
    Ok(0)
}

/// Its marks, and why it is held.
fn standing(entry: &SnapshotEntry, misdated: &Misdated) -> String {
    match (marks(entry, misdated).as_slice(), entry.reason.as_str()) {
        ([], _) => "kept".into(),
        (marks, reason) if entry.is_held() && !reason.is_empty() => format!("{} ({reason})", marks.join(", ")),
        (marks, _) => marks.join(", "),
    }
}

pub(super) fn ls(context: &Context, arguments: &LsArguments) -> Result<u8> {
    let repository = context.open_to_look()?;
    let (entry, path) = find(context, &repository, &arguments.snapshot, &arguments.filter)?;
    let failed = |error| Error::io("write", "to standard output", error);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    list(&repository, &entry, &LsOptions { path, recursive: arguments.recursive }, &context.watcher, &mut |path, node| {
        let line = if context.globals.json { node_json(node, path).to_string() } else { node_line(node, path, arguments.long) };
        writeln!(out, "{line}").map_err(failed)
    })?;
    out.flush().map_err(failed)?;
    Ok(0)
}

fn node_line(node: &Node, path: &[u8], long: bool) -> String {
    let path = text::printable(path);
    if !long {
        return if node.kind == NodeKind::Directory { path + "/" } else { path };
    }
    let target = match node.kind {
        NodeKind::Symlink => format!(" -> {}", text::printable(&node.target)),
        _ => String::new(),
    };
    let nanos = i64::try_from(node.mtime.total_nanos()).unwrap_or_default();
    let (user, group) = (owner(&node.user, node.uid), owner(&node.group, node.gid));
    let size = node.device.map_or_else(|| node.size.to_string(), |(major, minor)| format!("{major}, {minor}"));
    format!("{} {user:<8} {group:<8} {size:>12} {} {path}{target}", mode(node), text::time(nanos))
}

fn owner(name: &[u8], id: u32) -> String {
    if name.is_empty() { id.to_string() } else { text::printable(name) }
}

fn mode(node: &Node) -> String {
    let letter = match node.kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
    };
    let mut out = String::from(letter);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = node.mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (node.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

pub(super) fn node_json(node: &Node, path: &[u8]) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    text::json_path(&mut object, path);
    let kind = match node.kind {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
        NodeKind::Symlink => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
        NodeKind::CharDevice => "character device",
        NodeKind::BlockDevice => "block device",
    };
    object.insert("kind".into(), kind.into());
    for (name, value) in [("mode", node.mode), ("uid", node.uid), ("gid", node.gid)] {
        object.insert(name.into(), value.into());
    }
    object.insert("size".into(), node.size.into());
    if let Some((major, minor)) = node.device {
        object.insert("device".into(), serde_json::json!({"major": major, "minor": minor}));
    }
    let nanos = i64::try_from(node.mtime.total_nanos()).unwrap_or_default();
    object.insert("mtime".into(), text::json_time(nanos).into());
    if node.kind == NodeKind::Symlink {
        object.insert("target".into(), String::from_utf8_lossy(&node.target).into());
    }
    object.into()
}

pub(super) fn cat(context: &Context, arguments: &OneArguments) -> Result<u8> {
    let repository = context.open()?;
    repository.permit(Act::Read)?;
    let (entry, path) = find(context, &repository, &arguments.snapshot, &arguments.filter)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    print(&repository, &entry, &path, &mut out, &context.watcher)?;
    out.flush().map_err(|error| Error::io("write", "to standard output", error))?;
    Ok(0)
}

pub(super) fn run_stats(context: &Context) -> Result<u8> {
    let repository = context.open()?;
    let report = stats(&repository, &jiff::tz::TimeZone::system())?;
    if context.globals.json {
        println!("{}", stats_json(&report));
        return Ok(0);
    }
    context.show(&format!("snapshots      {}", report.snapshots));
    context.show(&format!("raw            {} in all snapshots together", text::size(report.bytes_raw)));
    context.show(&format!("deduplicated   {}", text::size(report.bytes_deduplicated)));
    let stored = text::size(report.bytes_stored);
    match report.bytes_stored {
        0 => context.show(&format!("stored         {stored}")),
        some => context.show(&format!("stored         {stored} ({:.2}:1)", report.bytes_raw as f64 / some as f64)),
    }
    for (kind, sum) in &report.by_kind {
        let (kind, raw, stored) = (text::printable(kind.as_bytes()), text::size(sum.bytes_raw), text::size(sum.bytes_stored));
        context.show(&format!("  {kind:<12} {}, {raw} raw, {stored} stored", snapshot_count(sum.snapshots)));
    }
    for (day, sum) in report.by_day.iter().rev().take(14).rev() {
        context.show(&format!("  {day}   {}, {} stored", snapshot_count(sum.snapshots), text::size(sum.bytes_stored)));
    }
    Ok(0)
}

fn snapshot_count(number: u64) -> String {
    text::number(number, "snapshot", "snapshots")
}

fn stats_json(report: &StatsReport) -> serde_json::Value {
    let kind = |(kind, sum): (&String, &Sum)| serde_json::json!({"kind": kind, "snapshots": sum.snapshots, "bytes_raw": sum.bytes_raw, "bytes_stored": sum.bytes_stored});
    let day = |(day, sum): (&jiff::civil::Date, &Sum)| serde_json::json!({"day": day.to_string(), "snapshots": sum.snapshots, "bytes_stored": sum.bytes_stored});
    serde_json::json!({
        "snapshots": report.snapshots, "bytes_raw": report.bytes_raw, "bytes_deduplicated": report.bytes_deduplicated,
        "bytes_stored": report.bytes_stored, "chunks": report.chunks,
        "by_kind": report.by_kind.iter().map(kind).collect::<Vec<_>>(),
        "by_day": report.by_day.iter().map(day).collect::<Vec<_>>(),
        "objects": report.objects.iter().map(|(folder, (count, bytes))| serde_json::json!({
            "folder": folder, "objects": count, "bytes": bytes })).collect::<Vec<_>>(),
    })
}
