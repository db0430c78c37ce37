//! Which of several snapshots is the latest, and which claim a time that cannot be.
//!
//! Clocks of other machines are wrong now and then, the order of records in a client's log never is: what a client
//! committed later is later, whatever it claims. Only between clients do claims decide, and those of a day to come
//! last.

use crate::format::log::RecordRef;
use crate::id::ClientId;
use crate::repo::SnapshotEntry;
use std::collections::{BTreeMap, BTreeSet};

/// A day in nanoseconds.
const DAY: i64 = 86_400_000_000_000;
/// By how much a claim must contradict the log to be overruled; and how long a client may take between the end of a
/// backup and its record. A copy, or a snapshot that a repair commits again, takes longer or differs by less, and goes by
/// what it claims.
const TOLERANCE: i64 = DAY / 24;

/// The latest of some snapshots, and why that may be doubted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Latest<'a> {
    /// The latest.
    pub(super) entry: &'a SnapshotEntry,
    /// One that claims to be later, and was passed over.
    pub(super) passed_over: Option<&'a SnapshotEntry>,
}

impl Latest<'_> {
    /// Why somebody may take another one for the latest.
    pub(super) fn doubt(&self, now: i64) -> Option<String> {
        let id = self.entry.id.short();
        if let Some(other) = self.passed_over {
            let why = match is_to_come(other.snapshot.end, now) {
                true => "a day to come, which cannot be",
                false => "a later time, but its client committed it before",
            };
            return Some(format!("snapshot {id} is taken for the latest; {} claims {why}: a clock was wrong", other.id.short()));
        }
        is_to_come(self.entry.snapshot.end, now).then(|| {
            format!("snapshot {id} claims to be of a day to come: its clock or that of this machine is wrong, and another one may be the latest")
        })
    }
}

/// The last of a client's log so far.
struct Last<'a> {
    entry: &'a SnapshotEntry,
    /// The time that it may have: at least that of what came before it.
    time: i64,
}

fn is_to_come(time: i64, now: i64) -> bool {
    time > now.saturating_add(DAY)
}

/// True if the record was written right after the backup ended, by the same clock.
fn is_of_its_record(entry: &SnapshotEntry) -> bool {
    let later = entry.recorded.saturating_sub(entry.snapshot.end);
    (0..=TOLERANCE).contains(&later)
}

/// Goes through the logs; tells of each snapshot whose claim the log overrules, or that claims a day to come.
fn follow<'a>(
    all: impl IntoIterator<Item = &'a SnapshotEntry>,
    now: i64,
    mut doubt: impl FnMut(&'a SnapshotEntry),
) -> BTreeMap<ClientId, Last<'a>> {
    let mut sorted: Vec<&SnapshotEntry> = all.into_iter().collect();
    sorted.sort_by_key(|entry| entry.record());
    let mut lasts: BTreeMap<ClientId, Last<'a>> = BTreeMap::new();
    for entry in sorted {
        let end = entry.snapshot.end;
        if is_to_come(end, now) {
            doubt(entry);
        }
        let Some(last) = lasts.get_mut(&entry.client) else {
            lasts.insert(entry.client, Last { entry, time: end });
            continue;
        };
        let overruled = end.saturating_add(TOLERANCE) < last.time;
        if !overruled {
            let overrules = last.entry.snapshot.end < last.time && is_of_its_record(entry);
            if end >= last.time || overrules {
                *last = Last { entry, time: end.max(last.time) };
            }
        } else if is_of_its_record(entry) {
            // What a day to come is followed by shows that it never was.
            let time = if is_to_come(last.time, now) { end } else { last.time };
            if time != end {
                doubt(entry);
            }
            *last = Last { entry, time };
        }
    }
    lasts
}

/// The latest of `all`, as seen at `now`; `None` if there is none.
pub(super) fn latest<'a>(all: impl IntoIterator<Item = &'a SnapshotEntry> + Clone, now: i64) -> Option<Latest<'a>> {
    let lasts = follow(all.clone(), now, |_| ());
    let key = |last: &Last<'a>| (!is_to_come(last.time, now), last.time, last.entry.snapshot.end, last.entry.id);
    let entry = lasts.into_values().max_by_key(key)?.entry;
    let claims_most = all.into_iter().max_by_key(|entry| entry.snapshot.end);
    let passed_over = claims_most.filter(|other| other.snapshot.end > entry.snapshot.end);
    Some(Latest { entry, passed_over })
}

/// The records of the snapshots among `all` whose time cannot be: of a day to come, or long before what the same client
/// committed earlier.
#[must_use]
pub fn misdated(all: &[SnapshotEntry], now: i64) -> BTreeSet<RecordRef> {
    let mut found = BTreeSet::new();
    follow(all, now, |entry| {
        let _ = found.insert(entry.record());
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::Snapshot;
    use crate::id::SnapshotId;
    use crate::repo::Standing;

    const NOW: i64 = 20_000 * DAY;
    const MINUTE: i64 = DAY / 1440;

    /// What a client says: in whose log, the end of the backup, and when the record was written.
    type Said = (u8, i64, i64);

    fn snapshot(end: i64) -> Snapshot {
        Snapshot { kind: "full".into(), host: "machine".into(), start: end, end, ..Snapshot::empty() }
    }

    /// Snapshots in the order in which they were committed.
    fn history(said: &[Said]) -> Vec<SnapshotEntry> {
        let entry = |(seq, (client, end, recorded)): (u64, &Said)| SnapshotEntry {
            id: SnapshotId([u8::try_from(seq).unwrap(); 32]),
            snapshot: snapshot(*end),
            client: ClientId([*client; 16]),
            seq,
            recorded: *recorded,
            standing: Standing::Live,
            reason: String::new(),
            damaged_files: 0,
        };
        (0..).zip(said).map(entry).collect()
    }

    /// A backup, recorded as soon as it ended.
    fn at(client: u8, end: i64) -> Said {
        (client, end, end + MINUTE)
    }

    /// Which is the latest, which claims to be later, and which are misdated; by their places.
    fn judged(said: &[Said]) -> (Option<u64>, Option<u64>, Vec<u64>) {
        let all = history(said);
        let found = latest(&all, NOW);
        let misdated = misdated(&all, NOW).into_iter().map(|record| record.seq).collect();
        (found.map(|found| found.entry.seq), found.and_then(|found| found.passed_over).map(|other| other.seq), misdated)
    }

    #[test]
    fn of_clocks_that_are_right_the_latest_claim_is_the_latest() {
        assert_eq!(judged(&[]), (None, None, vec![]));
        assert_eq!(judged(&[at(1, NOW - 3 * DAY), at(2, NOW - DAY), at(1, NOW - 2 * DAY)]), (Some(1), None, vec![]));
        assert_eq!(judged(&[at(1, NOW - 5 * MINUTE), at(1, NOW - 9 * MINUTE)]), (Some(0), None, vec![]), "within an hour");
    }

    #[test]
    fn what_a_client_committed_last_is_its_latest_whatever_its_clock_said() {
        assert_eq!(judged(&[at(1, NOW - DAY), at(1, 0)]), (Some(1), Some(0), vec![1]), "1970");
        assert_eq!(judged(&[at(1, NOW - DAY), at(1, 9 * DAY), at(1, DAY)]), (Some(2), Some(0), vec![1, 2]), "1970, twice");
        assert_eq!(judged(&[at(1, NOW - DAY), at(1, 0), at(1, NOW)]), (Some(2), None, vec![1]), "set right again");
        assert_eq!(judged(&[at(1, NOW), at(1, 0), at(1, NOW - MINUTE)]), (Some(2), Some(0), vec![1]), "nearly right");
        assert_eq!(judged(&[at(1, 3 * NOW), at(1, NOW)]), (Some(1), Some(0), vec![0]), "a day to come");
        assert_eq!(judged(&[at(1, 3 * NOW), at(1, 0), at(1, NOW)]), (Some(2), Some(0), vec![0]), "both");
        assert_eq!(judged(&[at(1, 3 * NOW)]), (Some(0), None, vec![0]), "the only one");
    }

    #[test]
    fn another_client_with_a_wrong_clock_is_not_taken_for_the_latest() {
        assert_eq!(judged(&[at(2, NOW), at(1, 3 * NOW)]), (Some(0), Some(1), vec![1]));
        assert_eq!(judged(&[at(1, NOW - DAY), at(2, NOW), at(1, 0)]), (Some(1), None, vec![2]), "it comes after the first");
        assert_eq!(judged(&[at(2, NOW - DAY), at(1, NOW), at(1, 0)]), (Some(2), Some(1), vec![2]));
    }

    #[test]
    fn what_was_copied_or_committed_again_is_as_old_as_it_claims() {
        let copied = (1, NOW - 9 * DAY, NOW);
        assert_eq!(judged(&[at(1, NOW - DAY), copied]), (Some(0), None, vec![]));
        assert_eq!(judged(&[at(1, NOW - DAY), at(1, 0), copied]), (Some(1), Some(0), vec![1]));
        let soon_after = (1, NOW - 30 * MINUTE, NOW - MINUTE);
        assert_eq!(judged(&[at(1, NOW - 10 * MINUTE), soon_after]), (Some(0), None, vec![]));
    }
}
