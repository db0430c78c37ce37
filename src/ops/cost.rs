//! What a verb asks of an object store, by what providers bill: requests by class, bytes out, and bytes out of archives.

use super::copy::CopyReport;
use super::mirror::MirrorReport;
use super::prune::{Decision, PackDecision, PruneReport};
use crate::id::PackId;
use crate::repo::{RotateReport, SlotFate, ThawPlan, Tier};
use std::collections::{BTreeMap, HashSet};

/// Bytes that come with one request, about.
const SPAN: u64 = 4 << 20;
/// Objects above this are put in parts, each of which is a request, and two more.
const SINGLE: u64 = 16 << 20;
/// Bytes of a part.
const PART: u64 = 9 << 20;
/// Objects in one part of a listing.
const PAGE: u64 = 1000;
/// Seconds of a day, in nanoseconds.
const DAY: i64 = 86_400_000_000_000;

/// What is asked for of one store. All numbers are estimates, and none too low on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Requests that put something, into the store's usual class.
    pub puts: u64,
    /// Requests that put something into a class of its own, by class.
    pub class_puts: BTreeMap<String, u64>,
    /// Requests that read something or ask about it.
    pub gets: u64,
    /// Listings.
    pub lists: u64,
    /// Deletions; nobody bills them.
    pub deletes: u64,
    /// Bytes sent there.
    pub bytes_in: u64,
    /// Bytes that come from there.
    pub bytes_out: u64,
    /// Objects and bytes to be thawed, by class of storage.
    pub thawed: BTreeMap<String, (u64, u64)>,
    /// How fast, and for how many days they stay.
    pub thaw: Option<(Tier, u32)>,
    /// Bytes read from a class that can be read at once, but bills reading.
    pub class_bytes: BTreeMap<String, u64>,
    /// What goes from a class before its least time: bytes times days since it was put, and bytes.
    pub deleted: BTreeMap<String, Vec<(u64, u64)>>,
}

/// Requests that read so many bytes in so many objects.
fn reads(bytes: u64, objects: u64) -> u64 {
    bytes.div_ceil(SPAN).max(objects)
}

/// Requests that put an object of so many bytes.
fn writes(bytes: u64) -> u64 {
    if bytes > SINGLE { bytes.div_ceil(PART) + 2 } else { 1 }
}

/// Bytes of a pack that are needed, about.
fn needed_of(pack: &PackDecision) -> u64 {
    let needed = u128::from(pack.size) * u128::from(pack.used) / u128::from(pack.total.max(1));
    u64::try_from(needed).unwrap_or(u64::MAX)
}

impl Estimate {
    fn read(&mut self, class: Option<&str>, bytes: u64, objects: u64) {
        self.gets += reads(bytes, objects);
        self.bytes_out += bytes;
        if let Some(class) = class {
            *self.class_bytes.entry(class.to_owned()).or_default() += bytes;
        }
    }

    fn write(&mut self, class: Option<&str>, bytes: u64, objects: u64) {
        let each = writes(bytes.checked_div(objects).unwrap_or(0));
        match class {
            Some(class) => *self.class_puts.entry(class.to_owned()).or_default() += each * objects,
            None => self.puts += each * objects,
        }
        // What was put is looked at.
        self.gets += objects;
        self.bytes_in += bytes;
    }

    fn delete(&mut self, class: Option<&str>, pack: &PackDecision, now: i64) {
        self.deletes += 1;
        if let Some(class) = class {
            let days = u64::try_from(now.saturating_sub(pack.modified).max(0) / DAY).unwrap_or(0);
            self.deleted.entry(class.to_owned()).or_default().push((pack.size, days));
        }
    }

    /// What a prune leaves because it is archived: thawing it as `thaw` says, writing anew what is needed, and deleting it.
    #[must_use]
    pub fn of_thawing_to_prune(report: &PruneReport, class: Option<&str>, (tier, days): (Tier, u32), now: i64) -> Self {
        let found = &report.pruned.thaw;
        let waiting: HashSet<PackId> = found.unreadable().iter().map(|pack| pack.id).collect();
        let thawed = found.by_class().into_iter().map(|(class, sum)| (class.to_owned(), sum)).collect();
        let mut estimate = Self { thaw: Some((tier, days)), gets: found.waiting().0, thawed, ..Self::default() };
        for pack in report.pruned.packs.iter().filter(|pack| waiting.contains(&pack.id)) {
            estimate.read(None, needed_of(pack), 1);
            estimate.write(class, needed_of(pack), 1);
            estimate.delete(class, pack, now);
        }
        estimate
    }

    /// Reading the packs of `plan`, with those that are archived thawed as `thaw` says.
    #[must_use]
    pub fn of_reading(plan: &ThawPlan, thaw: (Tier, u32)) -> Self {
        let mut estimate = Self { thaw: Some(thaw), gets: plan.packs, ..Self::default() };
        estimate.read(None, plan.bytes, plan.packs);
        estimate.thawed = plan.by_class().into_iter().map(|(class, sum)| (class.to_owned(), sum)).collect();
        estimate
    }

    /// A copy: what the source gives, and what the target gets; each with the class of packs with file contents.
    #[must_use]
    pub fn of_copy(report: &CopyReport, source: Option<&str>, target: Option<&str>) -> (Self, Self) {
        let bytes = report.copied.iter().map(|copied| copied.added.bytes_stored.max(copied.bytes_read)).sum();
        let (mut from, mut to) = (Self::default(), Self::default());
        if bytes > 0 {
            from.read(source, bytes, report.packs);
            to.write(target, bytes, report.packs);
        }
        // One record for each snapshot, and a pack with its trees.
        to.write(None, 0, report.copied.len() as u64 * 2);
        (from, to)
    }

    /// A mirror: what the source gives, and what the target gets.
    #[must_use]
    pub fn of_mirror(report: &MirrorReport) -> (Self, Self) {
        let lists = (report.copied + report.present).div_ceil(PAGE) + 8;
        let (mut from, mut to) = (Self { lists, ..Self::default() }, Self { lists, ..Self::default() });
        from.read(None, report.bytes, report.copied);
        to.write(None, report.bytes, report.copied);
        (from, to)
    }

    /// A rotation of keys.
    #[must_use]
    pub fn of_rotation(report: &RotateReport) -> Self {
        let renewed = report.slots.iter().filter(|slot| matches!(slot.fate, SlotFate::Renewed(_))).count() as u64;
        let gone = report.slots.iter().filter(|slot| !matches!(slot.fate, SlotFate::Kept(_))).count() as u64;
        let mut estimate = Self { lists: 1, gets: report.slots.len() as u64, deletes: gone, ..Self::default() };
        // The record of the new generation, and one for each slot beside the slot itself.
        estimate.write(None, 0, 1 + renewed * 2);
        estimate
    }

    /// A prune; `class` is that of packs with file contents, and `now` the time.
    #[must_use]
    pub fn of_prune(report: &PruneReport, class: Option<&str>, now: i64) -> Self {
        let packs = &report.pruned.packs;
        let mut estimate = Self { lists: (packs.len() as u64).div_ceil(PAGE) + 3, ..Self::default() };
        let going = |decision| packs.iter().filter(move |pack| pack.decision == decision);
        for pack in going(Decision::Repack) {
            estimate.read(class, needed_of(pack), 1);
            estimate.write(class, needed_of(pack), 1);
        }
        for pack in going(Decision::Drop).chain(going(Decision::Repack)) {
            estimate.delete(class, pack, now);
        }
        // Records, fences, and the objects with which prunes agree.
        estimate.puts += 4;
        estimate.gets += report.pruned.locks.looked_at;
        estimate.puts += report.pruned.locks.extended;
        estimate
    }
}
