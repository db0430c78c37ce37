//! A blocked Bloom filter in front of the index: most chunks of new data are unknown, and it says so
//! without asking SQLite.
//!
//! One cache line a key (Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007).
//! Keys are prefixes of chunk ids, which are hashes already, so their own bits choose line and positions.

use crate::id::ChunkPrefix;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS_PER_LINE: usize = 8;
const PROBES: u32 = 6;
const BITS_PER_KEY: usize = 12;
/// Most memory that a filter takes; beyond it answers get less sharp, never wrong.
const MAX_BYTES: usize = 64 << 20;

/// Says "surely not" or "maybe" of a key; keys can be added by several threads at once.
pub(super) struct Filter {
    words: Vec<AtomicU64>,
    lines: u64,
}

impl Filter {
    /// A filter that stays sharp up to about `keys` keys.
    pub(super) fn for_keys(keys: usize) -> Self {
        let bytes = (keys.max(1 << 16) * BITS_PER_KEY / 8).min(MAX_BYTES);
        let lines = (bytes / (WORDS_PER_LINE * 8)).max(1);
        let words = (0..lines * WORDS_PER_LINE).map(|_| AtomicU64::new(0)).collect();
        Self { words, lines: lines as u64 }
    }

    fn place(&self, key: &ChunkPrefix) -> (usize, u64) {
        let (line, bits) = key.split_at(8);
        let line = u64::from_le_bytes(line.try_into().expect("half of a prefix is 8 bytes"));
        let bits = u64::from_le_bytes(bits.try_into().expect("half of a prefix is 8 bytes"));
        let line = (u128::from(line) * u128::from(self.lines)) >> 64;
        (usize::try_from(line).expect("fewer lines than addresses") * WORDS_PER_LINE, bits)
    }

    fn probe(bits: u64, turn: u32) -> (usize, u64) {
        let position = bits >> (turn * 9) & 0x1ff;
        ((position >> 6) as usize, 1 << (position & 63))
    }

    /// Adds a key.
    pub(super) fn insert(&self, key: &ChunkPrefix) {
        let (line, bits) = self.place(key);
        for turn in 0..PROBES {
            let (word, bit) = Self::probe(bits, turn);
            self.words[line + word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// False if the key was surely never added.
    pub(super) fn may_contain(&self, key: &ChunkPrefix) -> bool {
        let (line, bits) = self.place(key);
        (0..PROBES).all(|turn| {
            let (word, bit) = Self::probe(bits, turn);
            self.words[line + word].load(Ordering::Relaxed) & bit != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> ChunkPrefix {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
        key
    }

    #[test]
    fn every_key_added_is_found_and_few_others_are() {
        let filter = Filter::for_keys(100_000);
        (0..100_000).for_each(|number| filter.insert(&key(number)));
        assert!((0..100_000).all(|number| filter.may_contain(&key(number))));
        let wrong = (100_000..200_000).filter(|number| filter.may_contain(&key(*number))).count();
        assert!(wrong < 2_000, "{wrong} of 100,000 strangers were let through");
    }
}
