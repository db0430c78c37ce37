//! `lifeboat copy` and `lifeboat mirror`.

use super::arguments::FilterArguments;
use super::globals::Context;
use super::{DAMAGED, INCOMPLETE, show, text};
use crate::error::Result;
use crate::ops::copy::{CopyOptions, CopyReport, copy};
use crate::ops::mirror::{MirrorOptions, MirrorReport, mirror};
use crate::ops::select;
use crate::repo::SnapshotEntry;
use clap::ValueHint;
use std::path::PathBuf;

/// What can be written after `lifeboat copy`.
#[derive(clap::Args)]
#[command(
    after_help = "What a target has already is not copied again, and a copy that is cut off goes on where it was. Snapshots keep\n\
    their times, hosts, and tags, and note where they come from.\n\nExamples:\n  \
    lifeboat copy --to /mnt/offsite/repository\n  \
    lifeboat copy latest --host mail --to /mnt/one --to /mnt/two --dry-run"
)]
pub(super) struct CopyArguments {
    /// Snapshots to copy: `latest` or the beginnings of their ids; all that are finished by default
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArguments,
    /// Place of the repository to copy to; may be given several times
    #[arg(long, value_name = "URL", required = true)]
    to: Vec<String>,
    /// File with the identity that opens the target, if it is another one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    to_identity: Option<PathBuf>,
    /// Read the target's passphrase from the first line of a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    to_passphrase_file: Option<PathBuf>,
    /// Say what would be copied, how many bytes at most, and in how many requests
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl CopyArguments {
    /// True if nothing is changed.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }
}

/// What can be written after `lifeboat mirror`.
#[derive(clap::Args)]
#[command(
    after_help = "Only what is missing is copied, and nothing is overwritten or deleted; `lifeboat prune` on the mirror carries out\n\
    the prunes that it has taken over. With the places exchanged, a mirror repairs what the first one lost.\n\nExamples:\n  \
    lifeboat mirror --to /mnt/second/repository\n  \
    lifeboat mirror --repo /mnt/second/repository --to /srv/repository --verify"
)]
pub(super) struct MirrorArguments {
    /// Place of the mirror; it is made if nothing is there
    #[arg(long, value_name = "URL")]
    to: String,
    /// Read what the mirror has already, and put whole objects in the place of damaged ones
    #[arg(long)]
    verify: bool,
    /// Say what would be copied
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl MirrorArguments {
    /// True if nothing is changed.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }
}

pub(super) fn run_copy(context: &Context, arguments: &CopyArguments) -> Result<u8> {
    let source = context.open()?;
    let filter = show::filter(&arguments.filter);
    let mut chosen: Vec<SnapshotEntry> = Vec::new();
    for name in &arguments.snapshots {
        let found = select::find(&source, name, &filter)?;
        if !chosen.iter().any(|chosen| chosen.record() == found.record()) {
            chosen.push(found);
        }
    }
    if arguments.snapshots.is_empty() {
        chosen = select::list(&source, &filter, select::Which::Kept)?;
        if chosen.is_empty() && filter != select::SnapshotFilter::default() {
            return Err(select::nothing_fits(&source.snapshots()?, &filter));
        }
        chosen.retain(|entry| !entry.snapshot.incomplete);
    }
    let options = CopyOptions { dry_run: arguments.dry_run, threads: context.threads() };
    let (mut reports, mut noted) = (Vec::new(), (0, 0));
    // All are opened before anything is copied: a wrong key of the last one is seen at once.
    let targets = (arguments.to.iter())
        .map(|place| context.open_other(place, arguments.to_identity.as_deref(), arguments.to_passphrase_file.as_deref()))
        .collect::<Result<Vec<_>>>()?;
    for target in &targets {
        let report = copy(&source, target, &chosen, options, &context.watcher)?;
        let (copied, present) = (report.copied.len() as u64 + noted.0, report.present.len() as u64 + noted.1);
        noted = (copied, present);
        context.note(&serde_json::json!({"copied": copied, "present": present}));
        if !context.globals.json {
            say_copied(context, &target.describe(), &report, arguments.dry_run);
        }
        reports.push((target.describe(), report));
    }
    if context.globals.json {
        let reports = reports.iter().map(|(place, report)| copy_json(place, report, arguments.dry_run)).collect();
        println!("{}", serde_json::Value::Array(reports));
    }
    Ok(if reports.iter().any(|(_, report)| report.incomplete()) { INCOMPLETE } else { 0 })
}

fn copy_json(place: &str, report: &CopyReport, dry_run: bool) -> serde_json::Value {
    let copied: Vec<_> = (report.copied.iter())
        .map(|copied| {
            serde_json::json!({
                "from": copied.from.to_string(), "to": copied.to.map(|to| to.to_string()), "bytes_read": copied.bytes_read,
                "bytes_added": copied.added.bytes_added, "bytes_stored": copied.added.bytes_stored,
            })
        })
        .collect();
    let ids = |ids: &[crate::id::SnapshotId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    serde_json::json!({
        "target": place, "dry_run": dry_run, "copied": copied, "present": ids(&report.present), "failed": ids(&report.failed),
        "packs": report.packs, "seconds": report.elapsed.as_secs_f64(),
    })
}

fn say_copied(context: &Context, place: &str, report: &CopyReport, dry_run: bool) {
    for copied in &report.copied {
        let line = match copied.to {
            Some(to) => {
                let (read, stored) = (text::size(copied.bytes_read), text::size(copied.added.bytes_stored));
                format!("snapshot {} is {} there: {read} read, {stored} stored", copied.from.short(), to.short())
            }
            None => format!("snapshot {}: {} to read at most", copied.from.short(), text::size(copied.bytes_read)),
        };
        context.say(&line);
    }
    let (new, present) = (text::count(report.copied.len() as u64), text::count(report.present.len() as u64));
    if dry_run {
        let packs = text::count(report.packs);
        context.say(&format!(
            "{place}: {new} snapshots to copy in {packs} packs at most, {present} there already; nothing was changed"
        ));
    } else {
        let took = text::duration(report.elapsed);
        context.say(&format!("{place}: copied {new} snapshots in {took}, {present} were there already"));
    }
    if report.incomplete() {
        let failed = text::count(report.failed.len() as u64);
        eprintln!("{failed} snapshots could not be copied; `lifeboat check` says what they lost");
    }
}

pub(super) fn run_mirror(context: &Context, arguments: &MirrorArguments) -> Result<u8> {
    let began = std::time::Instant::now();
    let (source, _) = context.location()?;
    let target = context.place(&arguments.to)?;
    let options = MirrorOptions { dry_run: arguments.dry_run, verify: arguments.verify, threads: context.threads() };
    let report = mirror(&source, &target, options, &context.watcher)?;
    context.note(&mirror_json(&report, arguments.dry_run));
    if context.globals.json {
        let mut json = mirror_json(&report, arguments.dry_run);
        json["seconds"] = began.elapsed().as_secs_f64().into();
        println!("{json}");
    } else {
        say_mirrored(context, &report, arguments.dry_run, began.elapsed());
    }
    Ok(if report.damaged.is_empty() { 0 } else { DAMAGED })
}

fn mirror_json(report: &MirrorReport, dry_run: bool) -> serde_json::Value {
    serde_json::json!({
        "dry_run": dry_run, "copied": report.copied, "bytes": report.bytes, "present": report.present,
        "replaced": report.replaced, "damaged": report.damaged, "only_there": report.only_there,
    })
}

fn say_mirrored(context: &Context, report: &MirrorReport, dry_run: bool, took: std::time::Duration) {
    let (copied, size, present) = (text::count(report.copied), text::size(report.bytes), text::count(report.present));
    if dry_run {
        context.say(&format!("{copied} objects ({size}) to copy, {present} there already; nothing was changed"));
    } else {
        context.say(&format!("copied {copied} objects ({size}) in {}, {present} were there already", text::duration(took)));
    }
    for object in &report.replaced {
        let what = if dry_run { "is damaged in the mirror" } else { "was damaged in the mirror, and is whole now" };
        context.say(&format!("{object} {what}"));
    }
    for slot in &report.only_there {
        eprintln!("{slot} is in the mirror only: if it was removed, remove it there too (`lifeboat key remove`)");
    }
    for object in &report.damaged {
        eprintln!("{object} is damaged in the source, and was not copied: `lifeboat check` says what it means");
    }
}
