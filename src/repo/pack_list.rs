//! All packs of a repository, of which there may be more than fit into memory: they lie in a temporary file, and for each
//! one twelve bytes in memory say where it is.

use super::Repository;
use super::cache::{self, IndexReader};
use crate::error::{Error, Result};
use crate::format::log::PackRef;
use crate::id::PackId;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, MutexGuard};
use tempfile::SpooledTempFile;

/// Length of a pack in the file.
const ROW: usize = 32 + 8 + 4;
/// Packs that are read at a time.
const RUN: usize = 1 << 12;
/// Bytes that stay in memory; where there are more, all of them lie in an unnamed temporary file.
const IN_MEMORY: usize = 4 << 20;
/// Stands for the time of a pack that was never read whole.
pub const NEVER: i64 = i64::MIN;

/// Packs, each with its place among all.
pub struct PackList {
    file: Mutex<SpooledTempFile>,
    count: usize,
    bytes: u64,
    /// For each pack a hash of its name and its place, ascending. The hash is one that nobody can foresee.
    places: Vec<[u8; 12]>,
    hasher: RandomState,
}

fn failed(error: std::io::Error) -> Error {
    Error::io("list the packs in", "a temporary file", error).with_hint("TMPDIR says where temporary files go")
}

fn encode(pack: &PackRef) -> [u8; ROW] {
    let mut row = [0; ROW];
    row[..32].copy_from_slice(&pack.id.0);
    row[32..40].copy_from_slice(&pack.size.to_le_bytes());
    row[40..].copy_from_slice(&pack.toc_len.to_le_bytes());
    row
}

fn decode(row: &[u8; ROW]) -> PackRef {
    let part = |from: usize| row[from..].first_chunk().expect("rows have a fixed length");
    let (size, toc_len) = (part(32), row[40..].first_chunk().expect("rows have a fixed length"));
    let id = PackId(*row.first_chunk().expect("rows have a fixed length"));
    PackRef { id, size: u64::from_le_bytes(*size), toc_len: u32::from_le_bytes(*toc_len) }
}

impl PackList {
    /// The packs that `fill` hands over, in that order.
    ///
    /// # Errors
    /// Those of `fill`; `Full` or `Failed` if a temporary file cannot take them.
    pub fn of(fill: impl FnOnce(&mut dyn FnMut(&PackRef) -> Result<()>) -> Result<()>) -> Result<Self> {
        let (mut file, mut rows) = (SpooledTempFile::new(IN_MEMORY), Vec::with_capacity(RUN * ROW));
        let (mut count, mut bytes) = (0, 0u64);
        fill(&mut |pack| {
            rows.extend_from_slice(&encode(pack));
            count += 1;
            bytes = bytes.saturating_add(pack.size);
            if rows.len() >= RUN * ROW {
                file.write_all(&rows).map_err(failed)?;
                rows.clear();
            }
            Ok(())
        })?;
        file.write_all(&rows).map_err(failed)?;
        let mut list = Self { file: Mutex::new(file), count, bytes, places: Vec::new(), hasher: RandomState::new() };
        list.places = list.sorted()?;
        Ok(list)
    }

    fn sorted(&self) -> Result<Vec<[u8; 12]>> {
        let mut places = Vec::with_capacity(self.count);
        for (pack, at) in self.iter().zip(0u32..) {
            places.push(self.hash(&pack?.id, at));
        }
        if places.len() < self.count {
            return Err(Error::failed("list the packs: there are more than can be counted"));
        }
        places.sort_unstable();
        Ok(places)
    }

    fn hash(&self, id: &PackId, at: u32) -> [u8; 12] {
        let mut entry = [0; 12];
        entry[..8].copy_from_slice(&self.hasher.hash_one(id.0).to_be_bytes());
        entry[8..].copy_from_slice(&at.to_be_bytes());
        entry
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their lengths together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn file(&self) -> MutexGuard<'_, SpooledTempFile> {
        self.file.lock().expect("no code panics while it holds this lock")
    }

    fn rows(&self, from: usize, count: usize) -> Result<Vec<u8>> {
        let mut rows = vec![0; count * ROW];
        let mut file = self.file();
        file.seek(SeekFrom::Start((from * ROW) as u64)).and_then(|_| file.read_exact(&mut rows)).map_err(failed)?;
        Ok(rows)
    }

    /// The pack at a place that there is.
    ///
    /// # Errors
    /// `Failed` if it cannot be read back.
    pub fn get(&self, at: usize) -> Result<PackRef> {
        self.rows(at, 1).map(|row| decode(row.first_chunk().expect("one row was read")))
    }

    /// The place of a pack.
    ///
    /// # Errors
    /// As [`PackList::get`].
    pub fn find(&self, id: &PackId) -> Result<Option<usize>> {
        let first = self.hash(id, 0);
        let from = self.places.partition_point(|entry| *entry < first);
        for entry in self.places[from..].iter().take_while(|entry| entry[..8] == first[..8]) {
            let at = u32::from_be_bytes(*entry[8..].first_chunk().expect("four bytes are left")) as usize;
            if self.get(at)?.id == *id {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// All packs, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<PackRef>> {
        (0..self.count).step_by(RUN).flat_map(|from| match self.rows(from, RUN.min(self.count - from)) {
            Ok(rows) => rows.as_chunks().0.iter().map(|row| Ok(decode(row))).collect(),
            Err(error) => vec![Err(error)],
        })
    }
}

/// Some packs of a [`PackList`], by their places: one bit for each.
#[derive(Debug, Default, Clone)]
pub struct PackSet {
    bits: Vec<u64>,
}

impl PackSet {
    /// None of the packs of a list.
    #[must_use]
    pub fn of(packs: &PackList) -> Self {
        Self { bits: vec![0; packs.len().div_ceil(64)] }
    }

    /// Takes in the pack at a place that the list has.
    pub fn add(&mut self, at: usize) {
        self.bits[at / 64] |= 1 << (at % 64);
    }

    /// True if the pack at that place is among them.
    #[must_use]
    pub fn has(&self, at: usize) -> bool {
        self.bits.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 == 1)
    }
}

impl Repository {
    /// All packs of the index, and those that records list and that could not be read.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read; `Full` if a temporary file cannot take them.
    pub fn packs(&self) -> Result<PackList> {
        let reader = IndexReader::new(self.cache().connect()?)?;
        PackList::of(|add| reader.each_pack(add))
    }

    /// Hands over the packs in the store, by listing it, with their lengths.
    ///
    /// # Errors
    /// `Failed` if it cannot be listed; those of `each`.
    pub fn each_listed_pack(&self, each: &mut dyn FnMut(&PackId, u64) -> Result<()>) -> Result<()> {
        self.store().list("packs", &mut |entry| match entry.key.pack_id() {
            Some(id) => each(&id, entry.size),
            None => Ok(()),
        })
    }

    /// When each of these packs was last found whole in every byte, nanoseconds since 1970 by this machine's clock, or
    /// [`NEVER`].
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn packs_read(&self, packs: &PackList) -> Result<Vec<i64>> {
        let mut times = vec![NEVER; packs.len()];
        cache::damage::each_verified(&self.connection(), &mut |pack, time| {
            if let Some(at) = packs.find(pack)? {
                times[at] = time;
            }
            Ok(())
        })?;
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(number: u32) -> PackRef {
        PackRef { id: PackId(*blake3::hash(&number.to_le_bytes()).as_bytes()), size: u64::from(number) << 32, toc_len: number }
    }

    #[test]
    fn many_packs_are_found_by_name_and_by_place_and_few_bytes_of_each_are_in_memory() {
        let count = 200_000;
        let list = PackList::of(|add| (0..count).try_for_each(|number| add(&pack(number)))).unwrap();
        assert_eq!(list.len(), count as usize);
        assert!(list.file().is_rolled() && list.places.capacity() == list.len());
        assert!(list.iter().map(Result::unwrap).eq((0..count).map(pack)));
        for number in (0..count).step_by(997) {
            assert_eq!(list.get(number as usize).unwrap(), pack(number));
            assert_eq!(list.find(&pack(number).id).unwrap(), Some(number as usize));
        }
        assert_eq!(list.find(&pack(count).id).unwrap(), None);
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let list = PackList::of(|add| (0..130).try_for_each(|number| add(&pack(number)))).unwrap();
        let mut set = PackSet::of(&list);
        [0, 63, 64, 129].into_iter().for_each(|at| set.add(at));
        assert!((0..200).filter(|at| set.has(*at)).eq([0, 63, 64, 129]));
    }
}
