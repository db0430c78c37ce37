//! Where content is cut: FastCDC (Xia et al., USENIX ATC 2016, and its 2020 refinement) with a keyed table.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

/// Finds cut points; cheap to share between threads.
pub struct Chunker {
    gear: Box<[u64; 256]>,
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
        let shifted = Box::new(std::array::from_fn(|position| gear[position] << 1));
        Self {
            gear,
            shifted,
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
        cut_gear(
            bytes,
            self.minimum,
            self.average,
            self.maximum,
            self.strict,
            self.relaxed,
            self.strict << 1,
            self.relaxed << 1,
            &self.gear[..],
            &self.shifted[..],
        )
        .1
    }

    /// The longest chunk in bytes.
    #[must_use]
    pub fn maximum(&self) -> usize {
        self.maximum
    }
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
}
