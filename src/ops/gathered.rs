//! Lists in reports that may be longer than memory is: somebody may have damaged, or made up, millions of things.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::ser::{Error as _, SerializeSeq};
use serde::{Serialize, Serializer};
use std::fmt;
use std::io::{Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::sync::Mutex;
use tempfile::SpooledTempFile;

/// Bytes of items that are packed together.
const RUN: usize = 256 << 10;
/// Packed bytes that stay in memory; where there are more, all of them lie in an unnamed temporary file.
const IN_MEMORY: usize = 4 << 20;

/// So many items can be put into another order.
const IN_ORDER: u64 = 10_000;

/// Items in the order in which they were added. Few of them are in memory, however many there are.
pub struct Gathered<T> {
    /// The last items, each a line.
    lines: Vec<u8>,
    /// Where those before them lie: how long they are, packed and not.
    runs: Vec<(usize, usize)>,
    packed: Mutex<SpooledTempFile>,
    count: u64,
    kind: PhantomData<fn() -> T>,
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        let packed = Mutex::new(SpooledTempFile::new(IN_MEMORY));
        Self { lines: Vec::new(), runs: Vec::new(), packed, count: 0, kind: PhantomData }
    }
}

impl<T> Gathered<T> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<T: Serialize + DeserializeOwned> Gathered<T> {
    /// Adds an item at the end.
    ///
    /// # Errors
    /// `Full` or `Failed` if there are many, and a temporary file cannot take them.
    pub fn push(&mut self, item: &T) -> Result<()> {
        serde_json::to_writer(&mut self.lines, item).map_err(|error| Error::failed(format!("note what was found: {error}")))?;
        self.lines.push(b'\n');
        self.count += 1;
        if self.lines.len() >= RUN { self.pack() } else { Ok(()) }
    }

    fn pack(&mut self) -> Result<()> {
        let failed = |error| {
            Error::io("note what was found in", "a temporary file", error).with_hint("TMPDIR says where temporary files go")
        };
        let packed = zstd::bulk::compress(&self.lines, 1).map_err(failed)?;
        let file = self.packed.get_mut().expect("no code panics while it holds this lock");
        file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&packed)).map_err(failed)?;
        self.runs.push((packed.len(), self.lines.len()));
        self.lines.clear();
        Ok(())
    }

    fn unpack(&self, start: usize, (packed, length): (usize, usize)) -> Result<Vec<u8>> {
        let mut bytes = vec![0; packed];
        let mut file = self.packed.lock().expect("no code panics while it holds this lock");
        file.seek(SeekFrom::Start(start as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .and_then(|()| zstd::bulk::decompress(&bytes, length))
            .map_err(|error| Error::io("read back what was found from", "a temporary file", error))
    }

    /// All items, in order; an error if they cannot be read back.
    pub fn iter(&self) -> impl Iterator<Item = Result<T>> {
        let mut start = 0;
        let packed = self.runs.iter().map(move |run| {
            let unpacked = self.unpack(start, *run);
            start += run.0;
            unpacked
        });
        packed.chain([Ok(self.lines.clone())]).flat_map(|lines| match lines {
            Ok(lines) => items(&lines),
            Err(error) => vec![Err(error)],
        })
    }

    /// Hands all items over: ascending by `place` where there are few, else in the order in which they were added.
    ///
    /// # Errors
    /// `Failed` if they cannot be read back; those of `take`.
    pub fn each_by_place(&self, place: impl Fn(&T) -> usize, take: &mut dyn FnMut(T) -> Result<()>) -> Result<()> {
        if self.count > IN_ORDER {
            return self.iter().try_for_each(|item| item.and_then(&mut *take));
        }
        let mut items: Vec<T> = self.iter().collect::<Result<_>>()?;
        items.sort_by_key(place);
        items.into_iter().try_for_each(take)
    }

    /// The first items.
    ///
    /// # Errors
    /// `Failed` if they cannot be read back.
    pub fn first(&self, most: usize) -> Result<Vec<T>> {
        self.iter().take(most).collect()
    }
}

/// The items of some lines: JSON has no line break in a value.
fn items<T: DeserializeOwned>(lines: &[u8]) -> Vec<Result<T>> {
    let decode = |line| serde_json::from_slice(line).map_err(|error| Error::failed(format!("read what was found: {error}")));
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(decode).collect()
}

impl<T: Serialize + DeserializeOwned> Serialize for Gathered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for item in self.iter() {
            list.serialize_element(&item.map_err(S::Error::custom)?)?;
        }
        list.end()
    }
}

impl<T: Serialize + DeserializeOwned + fmt::Debug> fmt::Debug for Gathered<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TOLD: usize = 100;
        out.debug_list().entries(self.iter().take(TOLD)).finish()?;
        write!(out, " of {}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_items_come_back_in_order_and_few_are_in_memory() {
        let item = |number: u32| (number, format!("{}\n", blake3::hash(&number.to_le_bytes())));
        let mut gathered = Gathered::default();
        for number in 0..300_000 {
            gathered.push(&item(number)).unwrap();
        }
        let held = gathered.lines.capacity() + gathered.runs.capacity() * size_of::<(usize, usize)>();
        assert!(held < 4 * RUN && gathered.packed.get_mut().unwrap().is_rolled(), "{held}");
        assert!(gathered.iter().map(Result::unwrap).eq((0..300_000).map(item)));
        assert_eq!(gathered.first(2).unwrap(), [item(0), item(1)]);
    }

    #[test]
    fn as_json_they_are_a_list() {
        let mut gathered = Gathered::default();
        assert_eq!(serde_json::to_string(&gathered).unwrap(), "[]");
        (1u8..4).for_each(|number| gathered.push(&number).unwrap());
        assert_eq!((serde_json::to_string(&gathered).unwrap().as_str(), gathered.len()), ("[1,2,3]", 3));
    }
}
