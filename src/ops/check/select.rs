//! Which packs are read whole: a pure rule over what was last read when.

use crate::error::Result;
use crate::repo::{NEVER, PackList};
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

/// The places in `packs` of those to read, the one that was not read for the longest time first. `read` says of each when
/// that was; a time that lies ahead of `now` was noted by a wrong clock, and says nothing.
///
/// # Errors
/// `Failed` if the list cannot be read.
pub(super) fn select(packs: &PackList, read: &[i64], wanted: &ReadData, now: i64) -> Result<Vec<u32>> {
    let when = |at: &u32| read.get(*at as usize).copied().filter(|time| *time <= now).unwrap_or(NEVER);
    let oldest = wanted.max_age.map(|age| now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)));
    let is_due = |at: &u32| oldest.is_none_or(|oldest| when(at) < oldest);
    let mut due = Vec::with_capacity(packs.len());
    due.extend((0u32..).take(packs.len()).filter(is_due));
    due.sort_unstable_by_key(|at| (when(at), *at));
    if wanted.share >= 1.0 {
        return Ok(due);
    }
    let budget = (packs.bytes() as f64 * wanted.share.clamp(0.0, 1.0)).ceil() as u64;
    let (mut taken, mut count) = (0u64, 0);
    for at in &due {
        if taken >= budget {
            break;
        }
        taken = taken.saturating_add(packs.get(*at as usize)?.size);
        count += 1;
    }
    due.truncate(count);
    Ok(due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::log::PackRef;
    use crate::id::PackId;

    const DAY: i64 = 86_400_000_000_000;

    fn packs(count: u8) -> PackList {
        let pack = |id| PackRef { id: PackId([id; 32]), size: 100, toc_len: 10 };
        PackList::of(|add| (0..count).try_for_each(|id| add(&pack(id)))).unwrap()
    }

    fn read(times: &[(usize, i64)]) -> Vec<i64> {
        let mut read = vec![NEVER; 10];
        times.iter().for_each(|(at, time)| read[*at] = *time);
        read
    }

    #[test]
    fn all_packs_are_read_unless_less_was_asked_for() {
        assert_eq!(select(&packs(10), &read(&[]), &ReadData::default(), DAY).unwrap().len(), 10);
    }

    #[test]
    fn a_share_takes_the_packs_that_were_not_read_for_the_longest_time() {
        let some = ReadData { share: 0.3, ..ReadData::default() };
        let times: Vec<(usize, i64)> = (0..10i64).map(|at| (at as usize, at * DAY)).collect();
        assert_eq!(select(&packs(10), &read(&times), &some, 20 * DAY).unwrap(), [0, 1, 2]);
        assert_eq!(select(&packs(10), &read(&times[..9]), &some, 20 * DAY).unwrap(), [9, 0, 1]);
    }

    #[test]
    fn repeated_shares_come_to_every_pack() {
        let (mut times, mut now) = (read(&[]), DAY);
        for _ in 0..4 {
            let chosen = select(&packs(10), &times, &ReadData { share: 0.25, ..ReadData::default() }, now).unwrap();
            chosen.iter().for_each(|at| times[*at as usize] = now);
            now += DAY;
        }
        assert!(!times.contains(&NEVER));
    }

    #[test]
    fn an_age_leaves_out_what_was_read_lately_but_not_what_a_wrong_clock_noted() {
        let old = ReadData { max_age: Some(Duration::from_hours(48)), ..ReadData::default() };
        let times = read(&[(0, 9 * DAY), (1, 7 * DAY), (2, 99 * DAY)]);
        assert_eq!(select(&packs(3), &times, &old, 10 * DAY).unwrap(), [2, 1]);
    }
}
