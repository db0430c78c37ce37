//! `lifeboat restore`.

use super::arguments::{RestoreArguments, When};
use super::document::{self, list};
use super::globals::Context;
use super::{DAMAGED, INCOMPLETE, show, text, thaw};
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::ops::restore::{Overwrite, RestoreOptions, RestoreReport, SalvagedFile, restore};
use crate::repo::Rescued;
use crate::source::files::RuleOptions;

pub(super) fn run(context: &Context, arguments: &RestoreArguments) -> Result<u8> {
    let repository = context.open()?;
    let (entry, subpath) = show::find(context, &repository, &arguments.snapshot, &arguments.filter)?;
    let overwrite = match (arguments.overwrite, arguments.in_place || arguments.delete) {
        (Some(When::Always), _) | (None, true) => Overwrite::Always,
        (Some(When::IfChanged), _) => Overwrite::IfChanged,
        (Some(When::IfNewer), _) => Overwrite::IfNewer,
        (Some(When::Never), _) => Overwrite::Never,
        (None, false) => Overwrite::Refuse,
    };
    let target = match &arguments.to {
        Some(target) => target.clone(),
        None => show::original_place(&entry.snapshot, &subpath)?,
    };
    let options = RestoreOptions {
        target,
        subpath,
        include: arguments.include.clone(),
        exclude: RuleOptions { exclude: arguments.exclude.clone(), own: context.own_places()?, ..RuleOptions::default() },
        overwrite,
        delete: arguments.delete,
        dry_run: arguments.dry_run,
        verify: arguments.verify,
        numeric_ids: arguments.numeric_ids,
        no_owner: arguments.no_owner,
        salvage: arguments.salvage,
        thaw: arguments.thaw.options(),
        threads: context.threads(),
    };
    let report = restore(&repository, &entry, &options, &context.watcher)?;
    let mut object = json(&report);
    if let Some(thawed) = &report.thaw {
        object["thaw"] = thaw::json(context, thawed, &options.thaw);
    }
    if context.globals.json {
        document::print(vec![list("salvaged", &report.salvaged, salvaged_json)], &object)?;
        context.note(&object);
    } else {
        context.note(&object);
        summary(context, &report, &options);
    }
    verify_matched(&report, &options, &context.watcher)?;
    Ok(match (report.failure_count, report.damaged) {
        (0, _) => 0,
        (_, true) => DAMAGED,
        _ => INCOMPLETE,
    })
}

/// Says which patterns matched nothing, and fails if none did: a mistyped name must not look like a restore that is done.
fn verify_matched(report: &RestoreReport, options: &RestoreOptions, observer: &dyn Observer) -> Result<()> {
    if report.failure_count > 0 || report.unmatched.is_empty() {
        return Ok(());
    }
    if report.unmatched.len() < options.include.len() {
        for pattern in &report.unmatched {
            observer.observe(Event::Warning(&format!("nothing in the snapshot matches --include {pattern:?}")));
        }
        return Ok(());
    }
    Err(Error::missing("restore: nothing in the snapshot matches --include, so nothing was restored")
        .with_hint("patterns are matched with names, or with whole paths as `lifeboat ls -R SNAPSHOT` shows them"))
}

fn salvaged_json(file: &SalvagedFile) -> serde_json::Value {
    let name = file.name.as_ref().map(|name| String::from_utf8_lossy(name));
    serde_json::json!({"path": String::from_utf8_lossy(&file.path), "name": name, "size": file.size, "holes": file.holes})
}

fn json(report: &RestoreReport) -> serde_json::Value {
    let failures: Vec<_> = report.failures.iter().map(show::failure_json).collect();
    let rescued: Vec<_> = report.rescued.packs.iter().map(ToString::to_string).collect();
    serde_json::json!({
        "files": report.files, "unchanged": report.unchanged, "skipped": report.skipped,
        "directories": report.directories, "others": report.others, "deleted": report.deleted,
        "bytes": report.bytes, "bytes_written": report.bytes_written, "verified": report.verified,
        "warnings": report.warnings, "failures": failures, "failure_count": report.failure_count,
        "damaged": report.damaged, "rescued": report.rescued.reads, "rescued_packs": rescued,
        "unmatched": report.unmatched, "seconds": report.elapsed.as_secs_f64(),
    })
}

/// What was read although it is damaged, in words.
fn rescued(rescued: &Rescued) -> String {
    let packs: Vec<_> = rescued.packs.iter().take(10).map(|pack| pack.short()).collect();
    let more = if rescued.packs.len() > packs.len() { ", …" } else { "" };
    format!(
        "{} rescued by parity or another pack; damaged: pack {}{more}; `lifeboat repair --apply` mends what can be mended",
        text::number(rescued.reads, "read was", "reads were"),
        packs.join(", pack ")
    )
}

fn summary(context: &Context, report: &RestoreReport, options: &RestoreOptions) {
    let (verb, removed) = if options.dry_run { ("would restore", "would be removed") } else { ("restored", "removed") };
    context.say(&format!(
        "{verb}: {}, {}, {}, {} to {}",
        text::number(report.files, "file", "files"),
        text::number(report.directories, "directory", "directories"),
        text::number(report.others, "other", "others"),
        text::size(report.bytes),
        text::printable(options.target.as_os_str().as_encoded_bytes())
    ));
    let (same, kept, gone) = (report.unchanged, report.skipped, report.deleted);
    if same + kept + gone > 0 {
        context.say(&format!(
            "already equal: {}, left alone: {}, {removed}: {}",
            text::count(same),
            text::count(kept),
            text::count(gone)
        ));
    }
    if let Some(thawed) = &report.thaw {
        thaw::say(context, thawed, (&options.thaw, options.dry_run));
    }
    if options.verify && !options.dry_run {
        context.say(&format!("verified: {} read back and compared", text::number(report.verified, "file", "files")));
    }
    match options.dry_run {
        true => context.say("dry run: nothing was changed"),
        false => context.say(&format!("time: {}, {}", text::duration(report.elapsed), text::rate(report.bytes, report.elapsed))),
    }
    if report.warnings > 0 {
        context.say(&format!(
            "{} could not be set; --verbose lists them",
            text::number(report.warnings, "owner, attribute, or flag", "owners, attributes, or flags")
        ));
    }
    if !report.salvaged.is_empty() {
        let count = report.salvaged.iter().filter(|file| file.as_ref().is_ok_and(|file| file.name.is_some())).count();
        let list = options.target.join(".lifeboat-holes.txt");
        context.say(&format!(
            "salvaged: parts of {} as NAME.damaged; {} lists what is missing",
            text::number(count as u64, "file", "files"),
            list.display()
        ));
    }
    if report.rescued.reads > 0 {
        context.say(&rescued(&report.rescued));
    }
    if report.failure_count > 0 {
        let style = text::Style::of(&std::io::stderr());
        let failures = text::number(report.failure_count, "entry", "entries");
        eprintln!("{}incomplete: {failures} could not be restored{}", style.bad(), style.reset());
        if report.damaged && !options.salvage {
            eprintln!("hint: run it again with --salvage to have what is left; `lifeboat repair` says what can be mended");
        }
    }
}
