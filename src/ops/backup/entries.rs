//! How a directory's entries are packed into a row of the stat cache.
//!
//! A row is the root page of the directory (32 bytes, zeros if not known) in part 0, then entries:
//! LE32 length of the rest · flags · inode · size · mtime · ctime · LE16 length of the name · name · encoded node.

use crate::format::tree::{NodeKind, Time};
use crate::id::ChunkId;
use crate::source::files::Stat;

/// Entries after which a directory gets another row.
pub(super) const ROW_ENTRIES: usize = 4096;
const FIXED: usize = 1 + 8 + 8 + 12 + 12 + 2;
const RACY: u8 = 1;

/// A node that is ready for its page, with what the stat cache keeps of it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The packed entry without its length.
    packed: Vec<u8>,
}

impl Entry {
    /// Packs an encoded node with the state of its file. `racy`: the file may change again without a visible sign.
    pub(super) fn new(name: &[u8], stat: &Stat, racy: bool, node: &[u8]) -> Self {
        let mut packed = Vec::with_capacity(FIXED + name.len() + node.len());
        packed.push(if racy { RACY } else { 0 });
        packed.extend_from_slice(&stat.ino.to_le_bytes());
        packed.extend_from_slice(&stat.size.to_le_bytes());
        for time in [stat.mtime, stat.ctime] {
            packed.extend_from_slice(&time.secs.to_le_bytes());
            packed.extend_from_slice(&time.nanos.to_le_bytes());
        }
        packed.extend_from_slice(&u16::try_from(name.len()).expect("names are at most 65,535 bytes").to_le_bytes());
        packed.extend_from_slice(name);
        packed.extend_from_slice(node);
        Self { packed }
    }

    pub(super) fn name(&self) -> &[u8] {
        Packed(&self.packed).name()
    }

    pub(super) fn node(&self) -> &[u8] {
        Packed(&self.packed).node()
    }

    /// Appends the entry to a row.
    pub(super) fn append_to(&self, row: &mut Vec<u8>) {
        row.extend_from_slice(&u32::try_from(self.packed.len()).expect("an entry is at most 1 MiB").to_le_bytes());
        row.extend_from_slice(&self.packed);
    }
}

/// A packed entry in a row.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    fn word<const LEN: usize>(self, at: usize) -> [u8; LEN] {
        self.0[at..at + LEN].try_into().expect("as many bytes as were asked for")
    }

    fn time(self, at: usize) -> Time {
        Time { secs: i64::from_le_bytes(self.word(at)), nanos: u32::from_le_bytes(self.word(at + 8)) }
    }

    fn name_len(self) -> usize {
        usize::from(u16::from_le_bytes(self.word(FIXED - 2)))
    }

    pub(super) fn name(self) -> &'a [u8] {
        &self.0[FIXED..FIXED + self.name_len()]
    }

    pub(super) fn node(self) -> &'a [u8] {
        &self.0[FIXED + self.name_len()..]
    }

    /// True if the file is surely as it was.
    pub(super) fn is_unchanged(self, stat: &Stat) -> bool {
        self.same_content(stat) && self.time(29) == stat.ctime
    }

    /// True if size, modification time, and inode are as they were.
    pub(super) fn same_content(self, stat: &Stat) -> bool {
        self.0[0] & RACY == 0
            && u64::from_le_bytes(self.word(1)) == stat.ino
            && u64::from_le_bytes(self.word(9)) == stat.size
            && self.time(17) == stat.mtime
            && stat.kind == NodeKind::File
    }

    pub(super) fn to_entry(self) -> Entry {
        Entry { packed: self.0.to_vec() }
    }
}

/// What is remembered of a directory.
#[derive(Default)]
pub(super) struct Remembered {
    rows: Vec<Vec<u8>>,
    entries: Vec<(u32, u32, u32)>,
    root: Option<ChunkId>,
}

impl Remembered {
    /// Reads rows; anything odd in them means that nothing is remembered.
    pub(super) fn parse(rows: Vec<Vec<u8>>) -> Self {
        let mut remembered = Self { rows, ..Self::default() };
        remembered.index().map_or_else(Self::default, |()| remembered)
    }

    fn index(&mut self) -> Option<()> {
        for (number, row) in self.rows.iter().enumerate() {
            let mut at = 0;
            if number == 0 {
                let root = ChunkId::from_slice(row.get(..32)?)?;
                self.root = (root.0 != [0; 32]).then_some(root);
                at = 32;
            }
            while at < row.len() {
                let length = u32::from_le_bytes(row.get(at..at + 4)?.try_into().ok()?) as usize;
                let packed = row.get(at + 4..)?.get(..length)?;
                if length < FIXED || FIXED + Packed(packed).name_len() > length {
                    return None;
                }
                self.entries.push((u32::try_from(number).ok()?, u32::try_from(at + 4).ok()?, u32::try_from(length).ok()?));
                at += 4 + length;
            }
        }
        Some(())
    }

    fn at(&self, position: usize) -> Packed<'_> {
        let (row, at, length) = self.entries[position];
        Packed(&self.rows[row as usize][at as usize..(at + length) as usize])
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The root page that the directory had.
    pub(super) fn root(&self) -> Option<ChunkId> {
        self.root
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<Packed<'_>> {
        let position = self.entries.partition_point(|(row, at, length)| {
            Packed(&self.rows[*row as usize][*at as usize..(*at + *length) as usize]).name() < name
        });
        (position < self.entries.len()).then(|| self.at(position)).filter(|packed| packed.name() == name)
    }
}
