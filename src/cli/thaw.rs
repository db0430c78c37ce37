//! What verbs that read archived packs have in common: options, and the words for what thawing takes.

use super::cost;
use super::globals::Context;
use super::text;
use crate::ops::cost::Estimate;
use crate::ops::thaw::{THAW_DAYS, ThawOptions, ThawReport, Tier, thaw_time};

#[derive(clap::Args)]
pub(super) struct ThawArguments {
    /// Ask for archived packs to be thawed; run the same command again once they can be read
    #[arg(long, value_name = "TIER", num_args = 0..=1, default_missing_value = "bulk")]
    pub(super) thaw: Option<Speed>,
    /// Days for which thawed packs stay readable
    #[arg(long, value_name = "N", default_value_t = THAW_DAYS, requires = "thaw", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(super) thaw_days: u32,
    /// Wait until archived packs can be read, then go on
    #[arg(long, requires = "thaw")]
    pub(super) wait: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Speed {
    /// Cheapest: within half a day, or two
    Bulk,
    /// Within hours
    Standard,
    /// Within minutes, and not from every class
    Expedited,
}

impl ThawArguments {
    pub(super) fn options(&self) -> ThawOptions {
        let tier = self.thaw.map(|speed| match speed {
            Speed::Bulk => Tier::Bulk,
            Speed::Standard => Tier::Standard,
            Speed::Expedited => Tier::Expedited,
        });
        ThawOptions { tier, days: self.thaw_days, wait: self.wait, dry_run: false }
    }
}

/// What reading the packs of the report takes.
pub(super) fn estimate(report: &ThawReport, options: &ThawOptions) -> Estimate {
    Estimate::of_reading(&report.plan, (options.tier.unwrap_or(Tier::Bulk), options.days))
}

pub(super) fn json(context: &Context, report: &ThawReport, options: &ThawOptions) -> serde_json::Value {
    json_with(context, report, &estimate(report, options))
}

/// The same with an estimate of all that thawing is for.
pub(super) fn json_with(context: &Context, report: &ThawReport, estimate: &Estimate) -> serde_json::Value {
    let plan = &report.plan;
    let sum = |packs: &[(_, String)]| packs.len();
    let (waiting, waiting_bytes) = plan.waiting();
    serde_json::json!({
        "packs": plan.packs, "bytes": plan.bytes, "archived": sum(&plan.archived), "thawing": sum(&plan.thawing),
        "thawed": sum(&plan.thawed), "not_readable": waiting, "not_readable_bytes": waiting_bytes, "requests": report.asked,
        "readable_until": plan.until.filter(|until| *until < i64::MAX).map(text::json_time),
        "cost": cost::json(context, estimate),
    })
}

/// Says what is archived, and in a dry run what it takes to read it.
pub(super) fn say(context: &Context, report: &ThawReport, (options, dry_run): (&ThawOptions, bool)) {
    let plan = &report.plan;
    let (waiting, bytes) = plan.waiting();
    let (packs, size) = (text::number(plan.packs, "pack", "packs"), text::size(plan.bytes));
    if waiting > 0 || !plan.thawed.is_empty() {
        context.say(&format!(
            "needs {packs} ({size}): {} archived, {} being thawed, {} thawed",
            text::count(plan.archived.len() as u64),
            text::count(plan.thawing.len() as u64),
            text::count(plan.thawed.len() as u64)
        ));
    }
    if report.asked > 0 {
        context.say(&format!("asked for {} to be thawed", text::number(report.asked, "pack", "packs")));
    }
    if !dry_run {
        return;
    }
    if !plan.archived.is_empty() {
        let tier = options.tier.unwrap_or(Tier::Bulk);
        context.say(&format!(
            "--thaw {tier} would ask for {} ({}), readable {} for {}",
            text::number(plan.archived.len() as u64, "pack", "packs"),
            text::size(bytes),
            thaw_time(plan.class(), tier),
            text::number(options.days.into(), "day", "days")
        ));
    }
    cost::say(context, "cost", &estimate(report, options));
}
