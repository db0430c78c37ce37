//! `lifeboat prune`.

use super::globals::Context;
use super::{INCOMPLETE, cost, text, thaw};
use crate::error::Result;
use crate::ops::cost::Estimate;
use crate::ops::prune::{CompactOptions, Decision, PruneOptions, PruneReport, Truncation, prune};
use crate::ops::thaw::{ThawOptions, ThawReport, Tier, thaw_time};
use crate::repo::Repository;
use std::time::Duration;

/// What can be written after `lifeboat prune`.
#[derive(clap::Args)]
#[command(
    after_help = "Backups may run meanwhile, on this machine and on others, and so may other prunes: nothing is locked. Where the\n\
    store does not create atomically, this is said first, and nothing else may run. A prune that is interrupted is gone on\n\
    with by the next one.\n\nExamples:\n  lifeboat prune --dry-run\n  lifeboat prune --max-unused 10% --max-duration 30m"
)]
pub(super) struct PruneArguments {
    /// Say what would be kept, repacked, and dropped, and why; change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Share of what is kept that may stay unused
    #[arg(long, value_name = "PERCENT", default_value = "3%", value_parser = percent)]
    max_unused: f64,
    /// Most bytes of packs to write anew
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    max_repack: Option<u64>,
    /// Join packs that are much smaller than they should be
    #[arg(long)]
    repack_small: bool,
    /// Write no more packs anew after this time, such as 90s, 30m, or 2h
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    max_duration: Option<Duration>,
    /// Leave packs of unfinished backups alone until the store has had them for this long
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = text::parse_duration)]
    grace: Duration,
    /// When old records of the logs go: auto is when 1,000 can go, or 100 that are half of all. Needs the owner's key
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"])]
    truncate_logs: String,
    #[command(flatten)]
    thaw: super::thaw::ThawArguments,
}

impl PruneArguments {
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }
}

pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("{text:?} is no share; write it like 5%"))?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(format!("{text:?} is not from 0% to 100%")) }
}

pub(super) fn run(context: &Context, arguments: &PruneArguments) -> Result<u8> {
    let repository = context.open()?;
    let several = arguments.dry_run || several_at_once(context, &repository)?;
    let options = PruneOptions {
        max_unused: arguments.max_unused,
        max_repack: arguments.max_repack,
        repack_small: arguments.repack_small,
        max_duration: arguments.max_duration,
        grace: arguments.grace,
        index: CompactOptions::default(),
        truncation: match arguments.truncate_logs.as_str() {
            "always" => Truncation::Always,
            "never" => Truncation::Never,
            _ => Truncation::Auto,
        },
        thaw: arguments.thaw.options(),
        dry_run: arguments.dry_run,
    };
    repository.begin_as_opened();
    let report = prune(&repository, &options, &context.watcher)?;
    let mut object = json(&report, arguments.dry_run);
    let thawing = (report.pruned.archived > 0).then(|| thawing(&repository, &report, &options.thaw));
    if let Some((found, estimate)) = &thawing {
        object["thaw"] = thaw::json_with(context, found, estimate);
    }
    let (location, _) = context.location()?;
    let estimate = (arguments.dry_run && location.is_billed())
        .then(|| Estimate::of_prune(&report, repository.cold_class().as_deref(), repository.now()));
    if let Some(estimate) = &estimate {
        object["cost"] = cost::json(context, estimate);
    }
    if !arguments.dry_run {
        object["several_at_once"] = several.into();
    }
    context.note(&object);
    if context.globals.json {
        println!("{object}");
    } else {
        print(context, &report, &options);
        estimate.iter().for_each(|estimate| cost::say(context, "cost", estimate));
        if let (Some((_, estimate)), true) = (&thawing, arguments.dry_run) {
            cost::say(context, "cost of thawing and writing anew", estimate);
        }
    }
    if let Some(unfinished) = report.unfinished {
        return Err(unfinished);
    }
    Ok(if report.pruned.locks.refused > 0 { INCOMPLETE } else { 0 })
}

/// What cannot be read now of what was to be written anew, and what that takes.
fn thawing(repository: &Repository, report: &PruneReport, options: &ThawOptions) -> (ThawReport, Estimate) {
    let how = (options.tier.unwrap_or(Tier::Bulk), options.days);
    let estimate = Estimate::of_thawing_to_prune(report, repository.cold_class().as_deref(), how, repository.now());
    let asked = report.thaw.as_ref().map_or(0, |thaw| thaw.asked);
    (ThawReport { plan: report.pruned.thaw.clone(), asked }, estimate)
}

/// True if others may work on the repository meanwhile; else it is said why not.
fn several_at_once(context: &Context, repository: &Repository) -> Result<bool> {
    let why = match repository.keeps_from_sharing()? {
        Some(lacks) if lacks.is_empty() => return Ok(true),
        Some(lacks) => lacks.join("; "),
        None => "these credentials may not find out whether it creates atomically".to_owned(),
    };
    let style = text::Style::of(&std::io::stderr());
    context.say_aside(&format!(
        "{}this store is for one machine at a time: {why}{}
hint: let nothing else run on this repository until this prune has ended",
        style.warn(),
        style.reset()
    ));
    Ok(false)
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Keep => "keep",
        Decision::Repack => "repack",
        Decision::Drop => "drop",
        Decision::Spare => "spare",
    }
}

fn json(report: &PruneReport, dry_run: bool) -> serde_json::Value {
    let pruned = &report.pruned;
    let packs: Vec<_> = (pruned.packs.iter())
        .map(|pack| {
            serde_json::json!({
                "id": pack.id.to_string(), "bytes": pack.size, "total": pack.total, "used": pack.used,
                "decision": word(pack.decision), "reason": pack.reason,
            })
        })
        .collect();
    serde_json::json!({
        "dry_run": dry_run, "packs": packs, "generation": pruned.generation, "written": pruned.written,
        "bytes_written": pruned.bytes_written, "put_off": pruned.put_off, "deleted": pruned.deleted, "bytes_deleted": pruned.bytes_deleted,
        "index_objects_written": pruned.compacted.shards, "index_objects_deleted": pruned.index_deleted,
        "spared": pruned.spared, "archived": pruned.archived, "locks_looked_at": pruned.locks.looked_at,
        "locks_extended": pruned.locks.extended, "locks_refused": pruned.locks.refused, "locked": pruned.locks.left,
        "locked_bytes": pruned.locks.left_bytes, "locked_until": pruned.locks.until.map(text::json_time), "missing_chunks": pruned.missing, "records_to_go": pruned.records_to_go,
        "records_for_owner": pruned.records_for_owner,
        "records_deleted": pruned.records_deleted, "seconds": report.elapsed.as_secs_f64(),
    })
}

/// What archives and locks made of it.
fn locks(context: &Context, pruned: &crate::repo::PruneReport, options: &PruneOptions) {
    let dry_run = options.dry_run;
    if pruned.archived > 0 {
        let (packs, (_, bytes)) = (text::number(pruned.archived, "pack stays", "packs stay"), pruned.thaw.waiting());
        let tier = options.thaw.tier.unwrap_or(Tier::Bulk);
        let how = format!("--thaw {tier} writes them anew, {} and for a price", thaw_time(pruned.thaw.class(), tier));
        let size = text::size(bytes);
        context.say(&format!("archived: {packs} ({size}) although not all in it is needed; {how}"));
    }
    let locks = &pruned.locks;
    if locks.extended > 0 {
        let verb = match (dry_run, locks.extended) {
            (true, _) => "would be",
            (false, 1) => "was",
            (false, _) => "were",
        };
        context.say(&format!("locks:   {} {verb} locked for longer", text::number(locks.extended, "object", "objects")));
    }
    if locks.refused > 0 {
        eprintln!(
            "{} could not be locked for longer: these credentials may not",
            text::number(locks.refused, "object", "objects")
        );
    }
    if locks.left > 0 {
        let until = locks.until.map_or_else(|| "an unknown time".into(), |until| format!("{} at the latest", text::time(until)));
        let (packs, size) = (text::number(locks.left, "pack", "packs"), text::size(locks.left_bytes));
        context.say(&format!("locked:  {packs} ({size}) until {until}, though nobody needs them; a later prune deletes them"));
    }
}

fn print(context: &Context, report: &PruneReport, options: &PruneOptions) {
    let (pruned, dry_run) = (&report.pruned, options.dry_run);
    if dry_run || context.globals.verbose {
        for pack in pruned.packs.iter().filter(|pack| pack.decision != Decision::Keep) {
            let (id, size) = (pack.id.short(), text::size(pack.size));
            context.say(&format!("{:7} pack {id}  {size:>10}  {}", word(pack.decision), pack.reason));
        }
    }
    for decision in [Decision::Keep, Decision::Repack, Decision::Drop, Decision::Spare] {
        let sum = report.sum(decision);
        if sum.packs > 0 || decision == Decision::Keep {
            context.say(&format!(
                "{:8} {}, {}",
                format!("{}:", word(decision)),
                text::number(sum.packs, "pack", "packs"),
                text::size(sum.bytes)
            ));
        }
    }
    locks(context, pruned, options);
    if pruned.missing > 0 {
        let style = text::Style::of(&std::io::stderr());
        eprintln!(
            "{}{} no pack{}: run `lifeboat check`",
            style.bad(),
            text::number(pruned.missing, "chunk that snapshots need is in", "chunks that snapshots need are in"),
            style.reset()
        );
    }
    if pruned.records_for_owner > 0 {
        let count = text::number(pruned.records_for_owner, "old record", "old records");
        context.say(&format!("logs:    {count} can go: the owner's `lifeboat prune` cuts them off"));
    }
    if dry_run {
        if pruned.records_to_go > 0 {
            context.say(&format!("logs:    {} would go", text::number(pruned.records_to_go, "old record", "old records")));
        }
        context.say("nothing was changed: this was a dry run");
        return;
    }
    if pruned.spared > 0 {
        context.say(&format!("spared:  {} that a backup began to need meanwhile", text::number(pruned.spared, "pack", "packs")));
    }
    if pruned.compacted.shards > 0 {
        let packs = text::number(pruned.compacted.packs, "pack", "packs");
        let shards = text::number(pruned.compacted.shards, "sorted object", "sorted objects");
        context.say(&format!("index:   {packs} in {shards} ({})", text::size(pruned.compacted.bytes)));
    }
    if pruned.records_deleted > 0 {
        context.say(&format!("logs:    {} deleted", text::number(pruned.records_deleted, "old record", "old records")));
    }
    if pruned.put_off > 0 {
        let packs = text::number(pruned.put_off, "pack was", "packs were");
        context.say(&format!("put off: time was up before {packs} written anew; the next prune goes on with that"));
    }
    let written = match pruned.written {
        0 => String::new(),
        packs => format!(", {} written anew ({})", text::count(packs), text::size(pruned.bytes_written)),
    };
    let freed = text::size(pruned.bytes_deleted.saturating_sub(pruned.bytes_written));
    context.say(&format!(
        "deleted {} ({}){written}: {freed} freed in {}",
        text::number(pruned.deleted, "pack", "packs"),
        text::size(pruned.bytes_deleted),
        text::duration(report.elapsed)
    ));
}
