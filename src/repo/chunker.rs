//! Where content is cut: FastCDC (Xia et al., USENIX ATC 2016, and its 2020 refinement) with a keyed table.
//!
//! The rolling hash at a position depends on the 64 bytes up to it alone: older ones have been shifted out. So a
//! stretch is searched in two halves at once, the second one begun 64 bytes early; each step waits for the one before,
//! and two chains of steps fill the processor where one leaves it idle. Two steps are made of three operations instead of
//! four: what the first byte adds is shifted already, and the hash between them is looked at as it is, shifted by one.

use fastcdc::v2020::{Normalization, select_masks};
use std::ops::Range;

/// Bytes on which the hash at a position depends.
const MEMORY: usize = 64;
/// Bytes that are searched in two halves at once: few enough that what is searched in vain behind a cut is little.
const STRIDE: usize = 4096;

/// Finds cut points; cheap to share between threads.
pub struct Chunker {
    gear: Box<[u64; 256]>,
    /// The table, shifted by one.
    shifted: Box<[u64; 256]>,
    minimum: usize,
    average: usize,
    maximum: usize,
    strict: u64,
    relaxed: u64,
}

impl Chunker {
    /// A chunker with the secret `gear` table and the sizes of the repository.
    #[must_use]
    pub(super) fn new(gear: Box<[u64; 256]>, sizes: &crate::format::repository::ChunkSizes) -> Self {
        let level = match sizes.normalisation {
            0 => Normalization::Level0,
            1 => Normalization::Level1,
            2 => Normalization::Level2,
            _ => Normalization::Level3,
        };
        let (strict, relaxed) = select_masks(sizes.average as usize, level);
        Self {
            shifted: Box::new(gear.map(|word| word << 1)),
            gear,
            minimum: sizes.minimum as usize,
            average: sizes.average as usize,
            maximum: sizes.maximum as usize,
            strict,
            relaxed,
        }
    }

    /// Length of the first chunk of `bytes`. Right only if `bytes` reaches to the end of the content or is at
    /// least [`Chunker::maximum`] long.
    #[must_use]
    pub fn cut(&self, bytes: &[u8]) -> usize {
        if bytes.len() <= self.minimum {
            return bytes.len();
        }
        let view = &bytes[..bytes.len().min(self.maximum)];
        // Bytes are taken in pairs, so an odd last one is not tried.
        let end = view.len() & !1;
        let middle = self.average.min(end);
        let (cut, hash) = self.search(view, self.minimum..middle, self.strict, 0);
        let cut = cut.or_else(|| self.search(view, middle..end, self.relaxed, hash).0);
        cut.unwrap_or(view.len())
    }

    /// The longest chunk in bytes.
    #[must_use]
    pub fn maximum(&self) -> usize {
        self.maximum
    }

    /// The first position in `range` at which the hash, which is `hash` before it, has no bit of `mask`; and the hash
    /// at the end of the range.
    fn search(&self, view: &[u8], range: Range<usize>, mask: u64, mut hash: u64) -> (Option<usize>, u64) {
        let Range { mut start, end } = range;
        while end - start >= STRIDE {
            let (near, far) = view[start..start + STRIDE].split_at(STRIDE / 2);
            let ahead = near[near.len() - MEMORY..].iter().fold(0, |hash, byte| step(&self.gear, hash, *byte));
            let (cut, after) = self.both(near, far, mask, (hash, ahead));
            if let Some(cut) = cut {
                return (Some(start + cut), 0);
            }
            hash = after;
            start += STRIDE;
        }
        let (cut, hash) = one(&self.gear, &view[start..end], mask, hash);
        (cut.map(|cut| start + cut), hash)
    }

    /// As [`one`] for `near` and `far` behind it, two halves of the same, even length, with the hashes before each.
    #[inline(never)] // Within the search there are too few registers for it.
    fn both(&self, near: &[u8], far: &[u8], mask: u64, before: (u64, u64)) -> (Option<usize>, u64) {
        let between = mask << 1;
        let (mut hash, mut ahead) = before;
        let mut pairs = near.as_chunks::<2>().0.iter().zip(far.as_chunks::<2>().0);
        let found = pairs.position(|(first, second)| {
            let (odd, odd_ahead) = (self.first_of_two(hash, first), self.first_of_two(ahead, second));
            let (even, even_ahead) = (self.second_of_two(odd, first), self.second_of_two(odd_ahead, second));
            if odd & between == 0 || odd_ahead & between == 0 || even & mask == 0 || even_ahead & mask == 0 {
                return true;
            }
            (hash, ahead) = (even, even_ahead);
            false
        });
        let Some(pair) = found else { return (None, ahead) };
        // If it was in the second half, the rest of the first one may still have a cut.
        let (cut, last) = one(&self.gear, &near[2 * pair..], mask, hash);
        if let Some(cut) = cut {
            return (Some(2 * pair + cut), last);
        }
        let (cut, last) = one(&self.gear, &far[2 * pair..], mask, ahead);
        (cut.map(|cut| near.len() + 2 * pair + cut), last)
    }

    /// The hash behind the first byte of a pair, shifted by one.
    fn first_of_two(&self, hash: u64, pair: &[u8; 2]) -> u64 {
        (hash << 2).wrapping_add(self.shifted[usize::from(pair[0])])
    }

    /// The hash behind the second byte of a pair.
    fn second_of_two(&self, shifted: u64, pair: &[u8; 2]) -> u64 {
        shifted.wrapping_add(self.gear[usize::from(pair[1])])
    }
}

fn step(gear: &[u64; 256], hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(gear[usize::from(byte)])
}

/// The first position at which the hash has no bit of `mask`, and the hash at the end.
fn one(gear: &[u64; 256], bytes: &[u8], mask: u64, mut hash: u64) -> (Option<usize>, u64) {
    let found = bytes.iter().position(|byte| {
        hash = step(gear, hash, *byte);
        hash & mask == 0
    });
    (found, hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::derive::{Secret, chunker_table};
    use crate::format::repository::ChunkSizes;

    #[test]
    fn the_known_cut_points_of_the_format_document_hold() {
        let domain: [u8; 32] = std::array::from_fn(|position| position as u8);
        let mut data = vec![0; 1 << 20];
        blake3::Hasher::new_derive_key("lifeboat test data").update(&domain).finalize_xof().fill(&mut data);
        let sizes = ChunkSizes { minimum: 16 << 10, average: 64 << 10, maximum: 256 << 10, normalisation: 3 };
        let chunker = Chunker::new(chunker_table(&Secret(domain)), &sizes);
        let (mut lengths, mut rest) = (Vec::new(), &data[..]);
        while !rest.is_empty() {
            let length = chunker.cut(rest);
            lengths.push(length.to_string());
            rest = &rest[length..];
        }
        let line = format!("cut points = {}", lengths.join(" "));
        assert!(include_str!("../../docs/format.md").lines().any(|known| known == line), "{line}");
    }

    /// What the reference implementation says.
    fn reference(chunker: &Chunker, bytes: &[u8]) -> usize {
        let shifted: Vec<u64> = chunker.gear.iter().map(|word| word << 1).collect();
        let Chunker { gear, minimum, average, maximum, strict, relaxed, .. } = chunker;
        let (strict_shifted, relaxed_shifted) = (strict << 1, relaxed << 1);
        let sizes = (*minimum, *average, *maximum);
        fastcdc::v2020::cut_gear(
            bytes,
            sizes.0,
            sizes.1,
            sizes.2,
            *strict,
            *relaxed,
            strict_shifted,
            relaxed_shifted,
            &gear[..],
            &shifted,
        )
        .1
    }

    #[test]
    fn cuts_are_those_of_the_reference_implementation() {
        let mut data = vec![0; 3 << 20];
        blake3::Hasher::new().update(b"cuts").finalize_xof().fill(&mut data);
        // A stretch that never cuts, and one in which a short pattern returns.
        data[1 << 20..(1 << 20) + (700 << 10)].fill(7);
        (0..200 << 10).for_each(|position| data[(2 << 20) + position] = (position % 97) as u8);
        for (minimum, average, maximum) in
            [(64, 256, 1024), (256, 256, 256), (1 << 10, 4 << 10, 64 << 10), (16 << 10, 64 << 10, 256 << 10)]
        {
            for normalisation in 0..=3 {
                let sizes = ChunkSizes { minimum, average, maximum, normalisation };
                let chunker = Chunker::new(chunker_table(&Secret([normalisation + 1; 32])), &sizes);
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let length = chunker.cut(rest);
                    assert_eq!(length, reference(&chunker, rest), "{sizes:?} with {} bytes left", rest.len());
                    rest = &rest[length..];
                }
                for length in (0..9_000).step_by(7).chain(60_000..60_040).chain(65_530..65_545) {
                    let view = &data[length..2 * length];
                    assert_eq!(chunker.cut(view), reference(&chunker, view), "{sizes:?} in {length} bytes");
                }
            }
        }
    }

    /// Cut points of `data` under a key.
    fn cuts(key: [u8; 32], data: &[u8]) -> std::collections::BTreeSet<usize> {
        let sizes = ChunkSizes { minimum: 64, average: 256, maximum: 1024, normalisation: 3 };
        let chunker = Chunker::new(chunker_table(&Secret(key)), &sizes);
        let (mut found, mut at) = (std::collections::BTreeSet::new(), 0);
        while at < data.len() {
            let length = chunker.cut(&data[at..]);
            at += length;
            // The longest ones end where they end under every key.
            if length < chunker.maximum() {
                found.insert(at);
            }
        }
        found
    }

    /// Cuts of the same content under two keys meet as often as chance has it, also where the content was chosen and the keys
    /// are alike: whoever knows all of one repository knows nothing of another one.
    #[test]
    fn cuts_under_one_key_say_nothing_of_those_under_another() {
        let mut data = vec![0; 1 << 20];
        blake3::Hasher::new().update(b"chosen").finalize_xof().fill(&mut data);
        // Half of it of few values, in which short patterns come again and again.
        data[1 << 19..].iter_mut().for_each(|byte| *byte &= 3);
        let mut keys: Vec<[u8; 32]> = (0..8).map(|key| [key; 32]).collect();
        // Each and one that differs in a single bit.
        keys.extend(keys.clone().into_iter().map(|mut key| {
            key[31] ^= 1 << (key[0] % 8);
            key
        }));
        let all: Vec<_> = keys.iter().map(|key| cuts(*key, &data)).collect();
        let (mut met, mut expected) = (0.0, 0.0);
        for (number, one) in all.iter().enumerate() {
            assert!(one.len() > 2500, "{} cuts", one.len());
            assert_eq!(*one, cuts(keys[number], &data), "the same under the same key");
            for other in &all[number + 1..] {
                let (both, chance) =
                    (one.intersection(other).count() as f64, (one.len() * other.len()) as f64 / data.len() as f64);
                assert!((both - chance).abs() < 6.0 * chance.sqrt(), "{both} cuts meet, {chance} do by chance");
                (met, expected) = (met + both, expected + chance);
            }
        }
        let spread: f64 = f64::sqrt(expected);
        assert!((met - expected).abs() < 6.0 * spread, "{met} cuts meet, {expected} do by chance");
    }
}
