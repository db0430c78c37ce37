//! What need not be looked at again, in bounded memory.

use std::collections::HashSet;
use std::hash::Hash;

/// Members of each half; beyond that some are looked at again, which costs time and no memory.
const HALF: usize = 250_000;

/// A set that remembers what was added or asked for last.
pub(super) struct Seen<T> {
    young: HashSet<T>,
    old: HashSet<T>,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self { young: HashSet::new(), old: HashSet::new() }
    }
}

impl<T: Copy + Eq + Hash> Seen<T> {
    pub(super) fn has(&mut self, member: &T) -> bool {
        if self.young.contains(member) {
            return true;
        }
        let known = self.old.contains(member);
        if known {
            self.add(*member);
        }
        known
    }

    /// True if it was not there.
    pub(super) fn add(&mut self, member: T) -> bool {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(member) && !self.old.contains(&member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_met_last_is_remembered_and_the_rest_takes_no_memory() {
        let mut seen = Seen::default();
        assert!(seen.add(0) && !seen.add(0));
        for number in 1..HALF * 3 {
            assert!(seen.has(&0), "it is asked for all the time");
            assert!(seen.add(number));
            assert!(seen.young.len() + seen.old.len() <= 2 * HALF);
        }
        assert!(!seen.has(&1));
    }
}
