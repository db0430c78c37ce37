//! Counts what is asked of a store: calls and bytes, by operation and by kind of object.

use super::{AnyStore, Created, Entry, Extras, Key, Next, Promises, Staged, Store};
use crate::error::Result;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is asked of a store. An object that is put in steps counts once, when it gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Putting an object whose name is its hash, at once or in steps.
    Put,
    /// Creating an object if there is none.
    Create,
    /// Reading a whole object.
    Get,
    /// Reading a range of an object.
    Read,
    /// Asking for a size or for the time of writing.
    Size,
    /// Listing a folder; its bytes are the number of objects listed.
    List,
    /// Deleting.
    Delete,
}

/// What an object is, as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectClass {
    /// `format/1`.
    Format,
    /// Key slots.
    Slot,
    /// Packs.
    Pack,
    /// Index objects.
    Index,
    /// Log records.
    Log,
    /// Condemn objects and plans of prunes.
    Prune,
    /// Everything else, and listings of everything.
    Other,
}

const OPERATIONS: [Operation; 7] =
    [Operation::Put, Operation::Create, Operation::Get, Operation::Read, Operation::Size, Operation::List, Operation::Delete];

const CLASSES: [ObjectClass; 7] = [
    ObjectClass::Format,
    ObjectClass::Slot,
    ObjectClass::Pack,
    ObjectClass::Index,
    ObjectClass::Log,
    ObjectClass::Prune,
    ObjectClass::Other,
];

impl ObjectClass {
    /// What a key, or a folder, names.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name.split('/').next().unwrap_or_default() {
            "format" => Self::Format,
            "keys" => Self::Slot,
            "packs" => Self::Pack,
            "index" => Self::Index,
            "log" => Self::Log,
            "gc" => Self::Prune,
            _ => Self::Other,
        }
    }
}

/// How often something was asked, and what it moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls, failed ones among them.
    pub calls: u64,
    /// Calls that failed. That a name is taken, or that there is no object, is an answer when `Create` or `Size` gives
    /// it, and a failure of `Get` and `Read`.
    pub failures: u64,
    /// Bytes of objects that went there or came back; nothing for calls that failed.
    pub bytes: u64,
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, failures: self.failures + other.failures, bytes: self.bytes + other.bytes }
    }
}

/// All counts at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    counts: BTreeMap<(Operation, ObjectClass), Count>,
}

impl Counts {
    /// One operation on one class of objects.
    #[must_use]
    pub fn of(&self, operation: Operation, class: ObjectClass) -> Count {
        self.counts.get(&(operation, class)).copied().unwrap_or_default()
    }

    /// One operation on everything.
    #[must_use]
    pub fn all(&self, operation: Operation) -> Count {
        CLASSES.iter().fold(Count::default(), |sum, class| sum + self.of(operation, *class))
    }

    /// Every operation on everything.
    #[must_use]
    pub fn total(&self) -> Count {
        self.counts.values().fold(Count::default(), |sum, count| sum + *count)
    }

    /// What is not zero.
    pub fn iter(&self) -> impl Iterator<Item = (Operation, ObjectClass, Count)> + '_ {
        self.counts.iter().map(|((operation, class), count)| (*operation, *class, *count))
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |(operation, class, count): (Operation, ObjectClass, Count)| {
            let before = earlier.of(operation, class);
            let calls = count.calls.saturating_sub(before.calls);
            let failures = count.failures.saturating_sub(before.failures);
            let bytes = count.bytes.saturating_sub(before.bytes);
            ((operation, class), Count { calls, failures, bytes })
        };
        Self { counts: self.iter().map(less).filter(|(_, count)| count.calls > 0).collect() }
    }
}

#[derive(Default)]
struct Cell {
    calls: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Cells([[Cell; CLASSES.len()]; OPERATIONS.len()]);

impl Cells {
    fn note<T>(&self, operation: Operation, name: &str, result: &Result<T>, bytes: u64) {
        let cell = &self.0[operation as usize][ObjectClass::of(name) as usize];
        cell.calls.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(_) => cell.bytes.fetch_add(bytes, Ordering::Relaxed),
            Err(_) => cell.failures.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// A store that counts what is asked of the store below it. Clones count together, and the counts may be read at any
/// time.
#[derive(Clone)]
pub struct Measured {
    below: AnyStore,
    cells: Arc<Cells>,
}

impl Measured {
    /// Counts what is asked of `below`.
    #[must_use]
    pub fn new(below: AnyStore) -> Self {
        Self { below, cells: Arc::default() }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = BTreeMap::new();
        for operation in OPERATIONS {
            for class in CLASSES {
                let cell = &self.cells.0[operation as usize][class as usize];
                let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                let count = Count { calls: load(&cell.calls), failures: load(&cell.failures), bytes: load(&cell.bytes) };
                if count.calls > 0 {
                    counts.insert((operation, class), count);
                }
            }
        }
        Counts { counts }
    }
}

struct MeasuredStaged {
    below: Box<dyn Staged>,
    cells: Arc<Cells>,
    written: u64,
}

impl Staged for MeasuredStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.below.write(bytes)
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        let result = self.below.finish(key);
        self.cells.note(Operation::Put, key.as_str(), &result, self.written);
        result
    }
}

impl Store for Measured {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let result = self.below.put(key, bytes);
        self.cells.note(Operation::Put, key.as_str(), &result, bytes.len() as u64);
        result
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        let result = self.below.create(key, bytes);
        self.cells.note(Operation::Create, key.as_str(), &result, bytes.len() as u64);
        result
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        let below = self.below.stage()?;
        Ok(Box::new(MeasuredStaged { below, cells: self.cells.clone(), written: 0 }))
    }

    fn create_then(&self, key: &Key, bytes: &[u8], next: &Next) -> Result<Created> {
        let result = self.below.create_then(key, bytes, next);
        self.cells.note(Operation::Create, key.as_str(), &result, bytes.len() as u64);
        result
    }

    fn expect(&self, next: &Next) {
        self.below.expect(next);
    }

    fn expect_nothing(&self) {
        self.below.expect_nothing();
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        let result = self.below.get(key, limit);
        self.cells.note(Operation::Get, key.as_str(), &result, result.as_ref().map_or(0, |bytes| bytes.len() as u64));
        result
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let result = self.below.read_at(key, offset, buffer);
        self.cells.note(Operation::Read, key.as_str(), &result, buffer.len() as u64);
        result
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        let result = self.below.size(key);
        self.cells.note(Operation::Size, key.as_str(), &result, 0);
        result
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        let result = self.below.modified(key);
        self.cells.note(Operation::Size, key.as_str(), &result, 0);
        result
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut listed = 0;
        let result = self.below.list(prefix, &mut |entry| {
            listed += 1;
            each(entry)
        });
        self.cells.note(Operation::List, prefix, &result, listed);
        result
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let result = self.below.delete(key);
        self.cells.note(Operation::Delete, key.as_str(), &result, 0);
        result
    }

    fn release_reserve(&self, bytes: u64) -> Result<bool> {
        self.below.release_reserve(bytes)
    }

    fn keep_reserve(&self) -> Result<()> {
        self.below.keep_reserve()
    }

    fn describe(&self) -> String {
        self.below.describe()
    }

    fn stage_cold(&self) -> Result<Box<dyn Staged>> {
        let below = self.below.stage_cold()?;
        Ok(Box::new(MeasuredStaged { below, cells: self.cells.clone(), written: 0 }))
    }

    fn width(&self) -> usize {
        self.below.width()
    }

    fn promises(&self) -> Option<Promises> {
        self.below.promises()
    }

    fn extras(&self) -> Option<&dyn Extras> {
        self.below.extras()
    }

    fn probe(&self) -> Result<Option<Promises>> {
        self.below.probe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    #[test]
    fn calls_and_bytes_are_counted_by_operation_and_by_class() {
        let measured = Measured::new(Arc::new(Memory::default()));
        let (slot, pack) = (Key::new("keys/1.age").unwrap(), Key::new("packs/ab/cd").unwrap());
        measured.put(&slot, b"four").unwrap();
        let before = measured.counts();
        let mut staged = measured.stage().unwrap();
        staged.write(b"some").unwrap();
        staged.write(b" more").unwrap();
        assert_eq!(measured.counts(), before, "what has no name yet is not there");
        staged.finish(&pack).unwrap();
        measured.read_at(&pack, 2, &mut [0; 3]).unwrap();
        assert!(measured.read_at(&pack, 8, &mut [0; 3]).is_err());
        assert!(measured.get(&slot, 100).is_ok() && measured.size(&pack).is_ok());
        measured.list("packs", &mut |_| Ok(())).unwrap();
        let counts = measured.counts().since(&before);
        assert_eq!(counts.of(Operation::Put, ObjectClass::Pack), Count { calls: 1, failures: 0, bytes: 9 });
        assert_eq!(counts.of(Operation::Put, ObjectClass::Slot), Count::default());
        assert_eq!(counts.of(Operation::Read, ObjectClass::Pack), Count { calls: 2, failures: 1, bytes: 3 });
        assert_eq!(counts.of(Operation::List, ObjectClass::Pack).bytes, 1);
        assert_eq!(counts.total().calls, 6);
        assert_eq!(measured.counts().all(Operation::Put).calls, 2);
    }

    #[test]
    fn each_operation_and_each_class_has_its_own_place() {
        assert!(OPERATIONS.iter().enumerate().all(|(at, operation)| *operation as usize == at));
        assert!(CLASSES.iter().enumerate().all(|(at, class)| *class as usize == at));
    }
}
