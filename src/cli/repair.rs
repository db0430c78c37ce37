//! `lifeboat repair`.

use super::check::{finding_json, print_findings};
use super::document::{self, list};
use super::globals::Context;
use super::{DAMAGED, text};
use crate::error::Result;
use crate::ops::repair::{Outcome, RepairOptions, RepairReport, Step, repair};
use crate::repo::{Covered, Repository, uncover};

#[derive(clap::Args)]
#[command(
    after_help = "Everything is read. Without --apply nothing is changed, and with it nothing that can be restored is lost. What is\n\
    gone for good is marked, so that the next backup stores again what is still there;\n\
    `lifeboat restore --salvage` brings back what is left of damaged files.\n\n\
    Examples:\n  lifeboat repair\n  lifeboat repair --from /mnt/second/repository --apply\n  lifeboat repair --parity 5% --apply"
)]
pub(super) struct RepairArguments {
    /// Do what would be done
    #[arg(long)]
    apply: bool,
    /// Fetch what is damaged or gone from another copy of the repository
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Give parity to packs that have none, a share of their length, and duplicate the small objects on which much depends
    #[arg(long, value_name = "PERCENT", value_parser = parity)]
    parity: Option<u16>,
    #[command(flatten)]
    thaw: super::thaw::ThawArguments,
}

impl RepairArguments {
    /// True if something may be changed.
    pub(super) fn applies(&self) -> bool {
        self.apply
    }
}

/// A share of parity in per mille.
pub(super) fn parity(text: &str) -> Result<u16, String> {
    let share = super::prune::percent(text)?;
    let per_mille = (share * 1000.0).round();
    if (1.0..=1000.0).contains(&per_mille) { Ok(per_mille as u16) } else { Err(format!("{text:?} is not from 0.1% to 100%")) }
}

fn say_covered(context: &Context, covered: &Covered, apply: bool) {
    let what = if covered.deleted { "was deleted" } else { "was overwritten" };
    let end = if apply { "put back" } else { "would be put back" };
    context.say(&format!("{} {what} and {end} from its first version {}", covered.name(), covered.version.id));
}

/// Opens the repository, and puts back, or says, what was deleted or overwritten where the bucket has older versions. No
/// repository if it cannot be opened before that is done.
fn uncovered(context: &Context, apply: bool) -> Result<(Option<Repository>, Vec<Covered>)> {
    let (location, _) = context.location()?;
    let say = |found: &[Covered]| {
        if !context.globals.json {
            found.iter().for_each(|covered| say_covered(context, covered, apply));
        }
    };
    // What is needed to open the repository at all.
    let mut covered = uncover(&location, false, apply)?;
    say(&covered);
    if !apply && covered.iter().any(|covered| covered.name() == "format/1") {
        return Ok((None, covered));
    }
    let repository = match context.open_damaged() {
        Ok(repository) => repository,
        Err(error) => {
            let records = uncover(&location, true, apply)?;
            if records.is_empty() || !apply {
                say(&records);
                return Err(error);
            }
            say(&records);
            covered.extend(records);
            context.open_damaged()?
        }
    };
    let records = repository.uncover_records(apply)?;
    say(&records);
    let again = apply && !records.is_empty();
    covered.extend(records);
    let repository = if again { context.open_damaged()? } else { repository };
    Ok((Some(repository), covered))
}

pub(super) fn run(context: &Context, arguments: &RepairArguments) -> Result<u8> {
    let (repository, covered) = match uncovered(context, arguments.apply)? {
        (Some(repository), covered) => (repository, covered),
        (None, _) => return Ok(DAMAGED),
    };
    let from = arguments.from.as_deref().map(|place| context.place(place)).transpose()?;
    let options = RepairOptions {
        from,
        apply: arguments.apply,
        parity: arguments.parity,
        thaw: arguments.thaw.options(),
        threads: context.threads(),
    };
    let report = repair(&repository, &options, &context.watcher)?;
    let (findings, steps) = (report.findings.len(), report.steps.len());
    context.note(&serde_json::json!({"findings": findings, "steps": steps, "mended": report.done}));
    if context.globals.json {
        let covered: Vec<_> = covered.iter().map(Covered::name).collect();
        let rest = serde_json::json!({"applied": arguments.apply, "seconds": report.elapsed.as_secs_f64(), "put_back": covered});
        let lists = vec![list("findings", &report.findings, finding_json), list("steps", &report.steps, step_json)];
        document::print(lists, &rest)?;
    } else {
        print(context, &report, arguments.apply)?;
    }
    if let Some(met) = repository.met() {
        super::report(met, context.globals.json);
    }
    let damaged = report.findings.has_damage();
    // Whether all is well now is for a check to say.
    Ok(if report.has_failed() || damaged || !covered.is_empty() { DAMAGED } else { 0 })
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Planned => "would",
        Outcome::Done => "done",
        Outcome::Needless => "needless",
        Outcome::Failed => "failed",
    }
}

fn step_json(step: &Step) -> serde_json::Value {
    let outcome = if step.outcome == Outcome::Planned { "planned" } else { word(step.outcome) };
    serde_json::json!({"step": step.mend.to_string(), "outcome": outcome, "reason": step.reason})
}

fn print(context: &Context, report: &RepairReport, apply: bool) -> Result<()> {
    print_findings(context, &report.findings)?;
    let style = text::Style::of(&std::io::stdout());
    for step in report.steps.iter() {
        let step = step?;
        let colour = match step.outcome {
            Outcome::Failed => style.bad(),
            Outcome::Done => style.good(),
            _ => style.warn(),
        };
        let reason = if step.reason.is_empty() { String::new() } else { format!(": {}", step.reason) };
        context.say(&format!("{colour}{}{}: {}{reason}", word(step.outcome), style.reset(), step.mend));
    }
    let count = text::number(report.steps.len(), "step", "steps");
    match (report.steps.is_empty(), apply) {
        (true, _) if report.findings.is_empty() => context.say("nothing is wrong, and nothing was changed"),
        (true, _) => context.say("nothing of this can be mended with what is at hand; nothing was changed"),
        (false, false) => context.say(&format!("{count}; nothing was changed: --apply does it")),
        (false, true) => context.say(&format!("{count}; run `lifeboat check` to see what is left")),
    }
    Ok(())
}
