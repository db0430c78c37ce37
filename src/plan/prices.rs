//! What providers of object stores take: a small table, to be replaced by one's own, and what an estimate comes to.
//!
//! The defaults are the list prices of Amazon S3 in us-east-1, as they were in 2025, without taxes, free tiers, and
//! discounts. They are an assumption and nothing more.

use crate::ops::cost::Estimate;
use crate::ops::thaw::Tier;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Days of a month, for prices by the month.
const MONTH: f64 = 30.0;

/// Prices; requests by the thousand, bytes by the GiB.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Prices {
    /// What the numbers are in.
    pub currency: String,
    /// Requests that put something.
    pub put: f64,
    /// Requests that read something.
    pub get: f64,
    /// Listings.
    pub list: f64,
    /// Bytes that leave the provider.
    pub out_gib: f64,
    /// Storing in the usual class for a month: thawed copies lie there.
    pub month_gib: f64,
    /// What differs in other classes of storage.
    pub classes: BTreeMap<String, ClassPrices>,
}

/// Prices of one class of storage.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ClassPrices {
    /// Requests that put something.
    pub put: f64,
    /// Bytes that are read, where that needs no thawing.
    pub read_gib: f64,
    /// Bytes that are thawed, slowly.
    pub bulk_gib: f64,
    /// Requests to thaw slowly.
    pub bulk: f64,
    /// The same, within hours.
    pub standard_gib: f64,
    /// The same, within hours.
    pub standard: f64,
    /// The same, within minutes.
    pub expedited_gib: f64,
    /// The same, within minutes.
    pub expedited: f64,
    /// Storing for a month.
    pub month_gib: f64,
    /// Days that are billed even if the object goes before.
    pub least_days: u32,
}

impl Default for Prices {
    fn default() -> Self {
        let instant =
            |put, read_gib, month_gib, least_days| ClassPrices { put, read_gib, month_gib, least_days, ..ClassPrices::default() };
        let glacier = ClassPrices {
            put: 0.03,
            standard_gib: 0.01,
            standard: 0.05,
            expedited_gib: 0.03,
            expedited: 10.0,
            month_gib: 0.0036,
            least_days: 90,
            ..ClassPrices::default()
        };
        let deep = ClassPrices {
            put: 0.05,
            bulk_gib: 0.0025,
            bulk: 0.025,
            standard_gib: 0.02,
            standard: 0.10,
            month_gib: 0.00099,
            least_days: 180,
            ..ClassPrices::default()
        };
        let classes = [
            ("STANDARD_IA", instant(0.01, 0.01, 0.0125, 30)),
            ("ONEZONE_IA", instant(0.01, 0.01, 0.01, 30)),
            ("GLACIER_IR", instant(0.02, 0.03, 0.004, 90)),
            ("GLACIER", glacier),
            ("DEEP_ARCHIVE", deep),
        ];
        Self {
            currency: "USD".into(),
            put: 0.005,
            get: 0.0004,
            list: 0.005,
            out_gib: 0.09,
            month_gib: 0.023,
            classes: classes.into_iter().map(|(name, prices)| (name.to_owned(), prices)).collect(),
        }
    }
}

/// What an estimate comes to, by what it is for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Requests of all kinds, but for those to thaw.
    pub requests: f64,
    /// Bytes that leave the provider.
    pub transfer: f64,
    /// Thawing, the thawed copies, and reading from classes that bill it.
    pub retrieval: f64,
    /// What goes before the least time of its class.
    pub early_deletion: f64,
}

impl Cost {
    /// All together.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.requests + self.transfer + self.retrieval + self.early_deletion
    }
}

fn thousands(count: u64) -> f64 {
    count as f64 / 1000.0
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

impl Prices {
    fn class(&self, name: &str) -> ClassPrices {
        let usual = ClassPrices { put: self.put, month_gib: self.month_gib, ..ClassPrices::default() };
        self.classes.get(name).copied().unwrap_or(usual)
    }

    /// What `estimate` comes to.
    #[must_use]
    pub fn cost(&self, estimate: &Estimate) -> Cost {
        let mut cost = Cost {
            requests: thousands(estimate.puts) * self.put
                + thousands(estimate.gets) * self.get
                + thousands(estimate.lists) * self.list,
            transfer: gib(estimate.bytes_out) * self.out_gib,
            ..Cost::default()
        };
        for (class, puts) in &estimate.class_puts {
            cost.requests += thousands(*puts) * self.class(class).put;
        }
        for (class, bytes) in &estimate.class_bytes {
            cost.retrieval += gib(*bytes) * self.class(class).read_gib;
        }
        if let Some((tier, days)) = estimate.thaw {
            for (class, (objects, bytes)) in &estimate.thawed {
                let prices = self.class(class);
                let (by_gib, by_request) = match tier {
                    Tier::Bulk => (prices.bulk_gib, prices.bulk),
                    Tier::Standard => (prices.standard_gib, prices.standard),
                    Tier::Expedited => (prices.expedited_gib, prices.expedited),
                };
                let copies = gib(*bytes) * self.month_gib * f64::from(days) / MONTH;
                cost.retrieval += gib(*bytes) * by_gib + thousands(*objects) * by_request + copies;
            }
        }
        for (class, gone) in &estimate.deleted {
            let prices = self.class(class);
            for (bytes, age) in gone {
                let left = u64::from(prices.least_days).saturating_sub(*age) as f64;
                cost.early_deletion += gib(*bytes) * prices.month_gib * left / MONTH;
            }
        }
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn an_estimate_is_added_up_by_the_table() {
        let prices = Prices::default();
        let mut estimate = Estimate { puts: 1000, gets: 10_000, lists: 1000, bytes_out: 10 << 30, ..Estimate::default() };
        estimate.class_puts.insert("DEEP_ARCHIVE".into(), 2000);
        let cost = prices.cost(&estimate);
        assert!(near(cost.requests, 0.005 + 0.004 + 0.005 + 0.1), "{cost:?}");
        assert!(near(cost.transfer, 0.9));
        assert!(near(cost.total(), cost.requests + cost.transfer));
    }

    #[test]
    fn thawing_is_billed_by_tier_and_the_copies_by_the_day() {
        let prices = Prices::default();
        let thawed = BTreeMap::from([("GLACIER".to_owned(), (1000, 10 << 30))]);
        let with =
            |tier| prices.cost(&Estimate { thawed: thawed.clone(), thaw: Some((tier, 30)), ..Estimate::default() }).retrieval;
        assert!(near(with(Tier::Bulk), 0.23));
        assert!(near(with(Tier::Standard), 0.23 + 0.1 + 0.05));
        assert!(near(with(Tier::Expedited), 0.23 + 0.3 + 10.0));
    }

    #[test]
    fn what_goes_early_is_billed_to_the_end_of_its_least_time() {
        let prices = Prices::default();
        let deleted = BTreeMap::from([("GLACIER".to_owned(), vec![(1 << 30, 60), (1 << 30, 100)])]);
        let cost = prices.cost(&Estimate { deleted, ..Estimate::default() });
        assert!(near(cost.early_deletion, 0.0036), "{cost:?}");
    }

    #[test]
    fn a_table_of_ones_own_replaces_what_it_names() {
        let prices: Prices = toml::from_str("currency = \"EUR\"\nget = 0\nout-gib = 0\n[classes.COLD]\nput = 1.5\n").unwrap();
        assert_eq!((prices.currency.as_str(), prices.get, prices.put), ("EUR", 0.0, 0.005));
        assert!(near(prices.class("COLD").put, 1.5) && near(prices.class("OTHER").put, 0.005));
        assert!(toml::from_str::<Prices>("gets = 1").is_err());
    }
}
