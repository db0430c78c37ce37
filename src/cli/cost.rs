//! Estimates of what object stores bill, in words and in JSON.

use super::globals::Context;
use super::text;
use crate::ops::cost::Estimate;

/// An amount that is never shown as nothing if it is something.
fn amount(value: f64) -> String {
    match value {
        value if value <= 0.0 => "0".into(),
        value if value < 0.01 => "less than 0.01".into(),
        value => format!("about {value:.2}"),
    }
}

pub(super) fn json(context: &Context, estimate: &Estimate) -> serde_json::Value {
    let prices = context.prices();
    let cost = prices.cost(estimate);
    let thawed: u64 = estimate.thawed.values().map(|(objects, _)| objects).sum();
    let thawed_bytes: u64 = estimate.thawed.values().map(|(_, bytes)| bytes).sum();
    let class_puts: u64 = estimate.class_puts.values().sum();
    serde_json::json!({
        "put_requests": estimate.puts + class_puts, "get_requests": estimate.gets, "list_requests": estimate.lists,
        "delete_requests": estimate.deletes, "thaw_requests": thawed, "bytes_in": estimate.bytes_in,
        "bytes_out": estimate.bytes_out, "bytes_thawed": thawed_bytes, "currency": prices.currency,
        "requests_cost": cost.requests, "transfer_cost": cost.transfer, "retrieval_cost": cost.retrieval,
        "early_deletion_cost": cost.early_deletion, "total_cost": cost.total(),
    })
}

/// One or two lines; `what` is what it is the cost of.
pub(super) fn say(context: &Context, what: &str, estimate: &Estimate) {
    let prices = context.prices();
    let cost = prices.cost(estimate);
    let puts = estimate.puts + estimate.class_puts.values().sum::<u64>();
    let thawed: u64 = estimate.thawed.values().map(|(objects, _)| objects).sum();
    let thaws = if thawed > 0 { format!(", {} thawing", text::count(thawed)) } else { String::new() };
    context.say(&format!(
        "{what}: {} {} by the prices at hand; requests: {} put, {} get, {} list{thaws}; {} in, {} out",
        amount(cost.total()),
        prices.currency,
        text::count(puts),
        text::count(estimate.gets),
        text::count(estimate.lists),
        text::size(estimate.bytes_in),
        text::size(estimate.bytes_out)
    ));
    if cost.early_deletion > 0.0 {
        context.say(&format!(
            "  of that {} {} for what goes before the least time of its class of storage",
            amount(cost.early_deletion),
            prices.currency
        ));
    }
}
