//! Where the data of a sparse file lies.

use super::Hole;

/// Maps offsets in the data of a file, its holes left out, to offsets in the file.
#[derive(Debug, Clone, Default)]
pub struct DataMap {
    /// Data offset and file offset at which each stretch of data begins, ascending.
    stretches: Vec<(u64, u64)>,
}

impl DataMap {
    /// The map of a file with these holes, which ascend and do not touch.
    #[must_use]
    pub fn new(holes: &[Hole]) -> Self {
        let mut stretches = Vec::with_capacity(holes.len() + 1);
        if holes.first().is_none_or(|hole| hole.offset > 0) {
            stretches.push((0, 0));
        }
        let mut skipped = 0u64;
        for hole in holes {
            stretches.push((hole.offset.saturating_sub(skipped), hole.offset.saturating_add(hole.len)));
            skipped = skipped.saturating_add(hole.len);
        }
        Self { stretches }
    }

    /// Offset in the file of the data at `at`, and how many bytes of data follow it before a hole.
    #[must_use]
    pub fn place(&self, at: u64) -> (u64, u64) {
        let next = self.stretches.partition_point(|(data, _)| *data <= at);
        let (data, offset) = next.checked_sub(1).map_or((0, 0), |position| self.stretches[position]);
        let run = self.stretches.get(next).map_or(u64::MAX, |(data, _)| data - at);
        (offset.saturating_add(at - data), run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_offsets_skip_the_holes() {
        let map = DataMap::new(&[Hole { offset: 0, len: 10 }, Hole { offset: 30, len: 5 }]);
        assert_eq!(map.place(0), (10, 20));
        assert_eq!(map.place(19), (29, 1));
        assert_eq!(map.place(20), (35, u64::MAX));
        assert_eq!(DataMap::new(&[]).place(7), (7, u64::MAX));
        assert_eq!(DataMap::new(&[Hole { offset: 4, len: 4 }]).place(3), (3, 1));
    }
}
