//! `lifeboat copy` and `lifeboat mirror`.

use super::arguments::FilterArguments;
use super::globals::Context;
use super::thaw::ThawArguments;
use super::{DAMAGED, INCOMPLETE, cost, show, text, thaw};
use crate::error::{ErrorKind, Result};
use crate::ops::copy::{CopyOptions, CopyReport, copy};
use crate::ops::cost::Estimate;
use crate::ops::mirror::{MirrorOptions, MirrorReport, mirror};
use crate::ops::select::{self, SnapshotFilter};
use crate::ops::thaw::{ThawOptions, ThawReport};
use crate::repo::{Repository, SnapshotEntry};
use clap::ValueHint;
use serde_json::Value;
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
    #[command(flatten)]
    thaw: ThawArguments,
}

/// Where a backup is copied to once it is done.
#[derive(clap::Args)]
pub(super) struct AfterBackup {
    /// Copy this machine's snapshots into that repository afterwards, those that are not there yet; may be given several times
    #[arg(long, value_name = "URL", conflicts_with = "no_copy")]
    copy_to: Vec<String>,
    /// File with the identity that opens these repositories, if it is another one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    copy_identity: Option<PathBuf>,
    /// Copy nowhere, whatever the configuration says
    #[arg(long)]
    no_copy: bool,
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
    #[command(flatten)]
    thaw: ThawArguments,
}

impl MirrorArguments {
    /// True if nothing is changed.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }
}

impl AfterBackup {
    /// The places to copy to.
    pub(super) fn places<'a>(&'a self, context: &'a Context) -> &'a [String] {
        match (self.no_copy, self.copy_to.is_empty()) {
            (true, _) => &[],
            (false, true) => context.copies().0,
            (false, false) => &self.copy_to,
        }
    }

    /// Copies what this machine has in `source` and the others do not have yet. What goes wrong is told, and keeps no other
    /// copy from being made, unless somebody wants all to end; returns what is to be said of each, and the exit code.
    pub(super) fn run(&self, context: &Context, source: &Repository, host: &str) -> (Vec<Value>, u8) {
        let (mut said, mut code) = (Vec::new(), 0);
        for to in self.places(context) {
            match self.copy(context, (source, host), to) {
                Ok(report) => {
                    if !context.globals.json {
                        say_copied(context, to, &report, false);
                    }
                    code = code.max(if report.incomplete() { INCOMPLETE } else { 0 });
                    said.push(copy_json(to, &report, false));
                }
                Err(error) => {
                    let is_interrupt = error.kind() == ErrorKind::Interrupted;
                    code = if is_interrupt { error.exit_code() } else { INCOMPLETE };
                    let error = error.while_doing(format!("the backup is done, its copy in {to} is not"));
                    super::report(&error, context.globals.json);
                    said.push(serde_json::json!({"target": to, "error": error.to_string()}));
                    if is_interrupt {
                        break;
                    }
                }
            }
        }
        (said, code)
    }

    fn copy(&self, context: &Context, (source, host): (&Repository, &str), to: &str) -> Result<CopyReport> {
        let target = context.open_other(to, self.copy_identity.as_deref().or(context.copies().1), None)?;
        let filter = SnapshotFilter { hosts: vec![host.to_owned()], ..SnapshotFilter::default() };
        let mut chosen = select::list(source, &filter, select::Which::Kept)?;
        chosen.retain(|entry| !entry.snapshot.incomplete);
        let options = CopyOptions { dry_run: false, thaw: ThawOptions::NONE, threads: context.threads() };
        copy(source, &target, &chosen, options, &context.watcher)
    }
}

pub(super) fn run_copy(context: &Context, arguments: &CopyArguments) -> Result<u8> {
    let source = context.open()?;
    let filter = show::filter(&arguments.filter);
    let mut chosen: Vec<SnapshotEntry> = Vec::new();
    for name in &arguments.snapshots {
        let found = select::find(&source, name, &filter, &context.watcher)?;
        if !chosen.iter().any(|chosen| chosen.record() == found.record()) {
            chosen.push(found);
        }
    }
    if arguments.snapshots.is_empty() {
        chosen = select::list(&source, &filter, select::Which::Kept)?;
        if chosen.is_empty() && filter != SnapshotFilter::default() {
            return Err(select::nothing_fits(&source.snapshots()?, &filter));
        }
        chosen.retain(|entry| !entry.snapshot.incomplete);
    }
    let options = CopyOptions { dry_run: arguments.dry_run, thaw: arguments.thaw.options(), threads: context.threads() };
    let (mut said, mut incomplete) = (Vec::new(), false);
    let mut noted = (0, 0);
    // All are opened before anything is copied: a wrong key of the last one is seen at once.
    let targets = (arguments.to.iter())
        .map(|place| context.open_other(place, arguments.to_identity.as_deref(), arguments.to_passphrase_file.as_deref()))
        .collect::<Result<Vec<_>>>()?;
    let (place, _) = context.location()?;
    for (target, to) in targets.iter().zip(&arguments.to) {
        let report = copy(&source, target, &chosen, options, &context.watcher)?;
        let (copied, present) = (report.copied.len() as u64 + noted.0, report.present.len() as u64 + noted.1);
        noted = (copied, present);
        context.note(&serde_json::json!({"copied": copied, "present": present}));
        let mut costs = Vec::new();
        if arguments.dry_run {
            let (from, into) = Estimate::of_copy(&report, source.cold_class().as_deref(), target.cold_class().as_deref());
            costs.extend(place.is_billed().then(|| ("source", with_thaw(from, report.thaw.as_ref(), &options.thaw))));
            costs.extend(context.place(to)?.is_billed().then_some(("target", into)));
        }
        if context.globals.json {
            let mut json = copy_json(&target.describe(), &report, arguments.dry_run);
            add_costs(context, &mut json, &costs);
            said.push(json);
        } else {
            say_copied(context, &target.describe(), &report, arguments.dry_run);
            report.thaw.iter().for_each(|thawed| thaw::say(context, thawed, (&options.thaw, false)));
            costs.iter().for_each(|(whose, estimate)| cost::say(context, &format!("cost at the {whose}"), estimate));
        }
        incomplete |= report.incomplete();
    }
    if context.globals.json {
        println!("{}", Value::Array(said));
    }
    Ok(if incomplete { INCOMPLETE } else { 0 })
}

/// The estimate with what is to be thawed.
fn with_thaw(mut estimate: Estimate, thawed: Option<&ThawReport>, options: &ThawOptions) -> Estimate {
    if let Some(report) = thawed {
        let reading = thaw::estimate(report, options);
        (estimate.thawed, estimate.thaw) = (reading.thawed, reading.thaw);
    }
    estimate
}

fn add_costs(context: &Context, json: &mut Value, costs: &[(&str, Estimate)]) {
    for (whose, estimate) in costs {
        json[format!("cost_at_{whose}")] = cost::json(context, estimate);
    }
}

fn copy_json(place: &str, report: &CopyReport, dry_run: bool) -> Value {
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

fn was(count: u64) -> &'static str {
    if count == 1 { "was" } else { "were" }
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
    let new = text::number(report.copied.len() as u64, "snapshot", "snapshots");
    let (there, present) = (report.present.len() as u64, text::count(report.present.len() as u64));
    if dry_run {
        let packs = text::number(report.packs, "pack", "packs");
        context.say(&format!("{place}: {new} to copy in {packs} at most, {present} there already; nothing was changed"));
    } else {
        let took = text::duration(report.elapsed);
        context.say(&format!("{place}: copied {new} in {took}, {present} {} there already", was(there)));
    }
    if report.incomplete() {
        let failed = text::number(report.failed.len() as u64, "snapshot", "snapshots");
        eprintln!("{failed} could not be copied; `lifeboat check` says what they lost");
    }
}

pub(super) fn run_mirror(context: &Context, arguments: &MirrorArguments) -> Result<u8> {
    let began = std::time::Instant::now();
    let (source, _) = context.location()?;
    let target = context.place(&arguments.to)?;
    let thaw = arguments.thaw.options();
    let options = MirrorOptions { dry_run: arguments.dry_run, verify: arguments.verify, thaw, threads: context.threads() };
    let report = mirror(&source, &target, options, &context.watcher)?;
    context.note(&mirror_json(&report, arguments.dry_run));
    let mut costs = Vec::new();
    if arguments.dry_run {
        let (from, into) = Estimate::of_mirror(&report);
        costs.extend(source.is_billed().then(|| ("source", with_thaw(from, report.thaw.as_ref(), &options.thaw))));
        costs.extend(target.is_billed().then_some(("target", into)));
    }
    if context.globals.json {
        let mut json = mirror_json(&report, arguments.dry_run);
        json["seconds"] = began.elapsed().as_secs_f64().into();
        add_costs(context, &mut json, &costs);
        println!("{json}");
    } else {
        say_mirrored(context, &report, arguments.dry_run, began.elapsed());
        report.thaw.iter().for_each(|thawed| thaw::say(context, thawed, (&options.thaw, false)));
        costs.iter().for_each(|(whose, estimate)| cost::say(context, &format!("cost at the {whose}"), estimate));
    }
    Ok(if report.damaged.is_empty() { 0 } else { DAMAGED })
}

fn mirror_json(report: &MirrorReport, dry_run: bool) -> Value {
    serde_json::json!({
        "dry_run": dry_run, "copied": report.copied, "bytes": report.bytes, "present": report.present,
        "replaced": report.replaced, "damaged": report.damaged, "only_there": report.only_there,
    })
}

fn say_mirrored(context: &Context, report: &MirrorReport, dry_run: bool, took: std::time::Duration) {
    let (copied, size, present) =
        (text::number(report.copied, "object", "objects"), text::size(report.bytes), text::count(report.present));
    if dry_run {
        context.say(&format!("{copied} ({size}) to copy, {present} there already; nothing was changed"));
    } else {
        context.say(&format!(
            "copied {copied} ({size}) in {}, {present} {} there already",
            text::duration(took),
            was(report.present)
        ));
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
