//! Which packs are read whole: a pure rule over what was last read when.

use crate::format::log::PackRef;
use crate::id::PackId;
use std::collections::HashMap;
use std::time::Duration;

/// What of the data to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadData {
    /// Share of all bytes, from 0 to 1.
    pub share: f64,
    /// Only packs that were not read whole for this long.
    pub max_age: Option<Duration>,
    /// No more packs are begun after this time.
    pub max_duration: Option<Duration>,
}

impl Default for ReadData {
    fn default() -> Self {
        Self { share: 1.0, max_age: None, max_duration: None }
    }
}

/// The places in `packs` of those to read, the one that was not read for the longest time first. A time that lies ahead
/// of `now` was noted by a wrong clock, and says nothing.
pub(super) fn select(packs: &[PackRef], read: &HashMap<PackId, i64>, wanted: &ReadData, now: i64) -> Vec<usize> {
    let when = |pack: &PackRef| read.get(&pack.id).copied().filter(|time| *time <= now);
    let oldest = wanted.max_age.map(|age| now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)));
    let is_due = |pack: &PackRef| match (when(pack), oldest) {
        (Some(time), Some(oldest)) => time < oldest,
        _ => true,
    };
    let mut due: Vec<usize> = (0..packs.len()).filter(|at| is_due(&packs[*at])).collect();
    due.sort_by_key(|at| (when(&packs[*at]), packs[*at].id));
    let all: u64 = packs.iter().map(|pack| pack.size).sum();
    let budget = (all as f64 * wanted.share.clamp(0.0, 1.0)).ceil() as u64;
    let mut taken = 0;
    let enough = |at: &usize| {
        let more = taken < budget;
        taken += packs[*at].size;
        more
    };
    due.into_iter().take_while(enough).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000_000;

    fn packs() -> Vec<PackRef> {
        (0..10).map(|id| PackRef { id: PackId([id; 32]), size: 100, toc_len: 10 }).collect()
    }

    fn read(times: &[(u8, i64)]) -> HashMap<PackId, i64> {
        times.iter().map(|(id, time)| (PackId([*id; 32]), *time)).collect()
    }

    #[test]
    fn all_packs_are_read_unless_less_was_asked_for() {
        assert_eq!(select(&packs(), &read(&[]), &ReadData::default(), DAY).len(), 10);
    }

    #[test]
    fn a_share_takes_the_packs_that_were_not_read_for_the_longest_time() {
        let some = ReadData { share: 0.3, ..ReadData::default() };
        let times: Vec<(u8, i64)> = (0..10).map(|id| (id, i64::from(id) * DAY)).collect();
        assert_eq!(select(&packs(), &read(&times), &some, 20 * DAY), [0, 1, 2]);
        assert_eq!(select(&packs(), &read(&times[..9]), &some, 20 * DAY), [9, 0, 1]);
    }

    #[test]
    fn repeated_shares_come_to_every_pack() {
        let (mut times, mut now) = (HashMap::new(), DAY);
        for _ in 0..4 {
            let chosen = select(&packs(), &times, &ReadData { share: 0.25, ..ReadData::default() }, now);
            times.extend(chosen.iter().map(|at| (packs()[*at].id, now)));
            now += DAY;
        }
        assert_eq!(times.len(), 10);
    }

    #[test]
    fn an_age_leaves_out_what_was_read_lately_but_not_what_a_wrong_clock_noted() {
        let old = ReadData { max_age: Some(Duration::from_hours(48)), ..ReadData::default() };
        let times = read(&[(0, 9 * DAY), (1, 7 * DAY), (2, 99 * DAY)]);
        let chosen = select(&packs()[..3], &times, &old, 10 * DAY);
        assert_eq!(chosen, [2, 1]);
    }
}
