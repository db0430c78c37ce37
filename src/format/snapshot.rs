//! A snapshot: one finished backup (docs/format.md#75-snapshots).

use crate::error::Result;
use crate::format::cbor::{Decoder, MapEncoder, unknown};
use crate::id::{ChunkId, SnapshotId};

/// Most failures that are kept in a snapshot; all are counted.
pub const MAX_FAILURES: usize = 1000;

/// Key of a snapshot's own retention: readers of before there was one keep it and pass over it.
const RETAIN_UNTIL: u64 = 64;

/// What a backup counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, fifos, sockets, devices.
    pub others: u64,
    /// Bytes of all files, holes left out.
    pub bytes: u64,
    /// Files that the parent did not have.
    pub new: u64,
    /// Files that differ from the parent's.
    pub changed: u64,
    /// Files that are as in the parent.
    pub unmodified: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes of chunks that the repository did not have, before compression.
    pub bytes_added: u64,
    /// Bytes that the store grew by.
    pub bytes_stored: u64,
}

impl Counts {
    /// Adds what another worker counted.
    pub fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.others += other.others;
        self.bytes += other.bytes;
        self.new += other.new;
        self.changed += other.changed;
        self.unmodified += other.unmodified;
        self.bytes_read += other.bytes_read;
        self.bytes_added += other.bytes_added;
        self.bytes_stored += other.bytes_stored;
    }
}

/// A path that is missing from a snapshot, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The path.
    pub path: Vec<u8>,
    /// The reason in words.
    pub reason: String,
}

/// One finished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Root page of the tree.
    pub root: ChunkId,
    /// What kind of backup it is: `full`, `incremental`, `state`, `config`, `logs`, `database`, `wal`, or another word.
    pub kind: String,
    /// The snapshot it was compared with.
    pub parent: Option<SnapshotId>,
    /// Name of the machine.
    pub host: String,
    /// What was asked for, as given.
    pub paths: Vec<Vec<u8>>,
    /// Tags, ascending.
    pub tags: Vec<String>,
    /// A remark of the user's, empty if none.
    pub description: String,
    /// Start, nanoseconds since 1970.
    pub start: i64,
    /// End, nanoseconds since 1970.
    pub end: i64,
    /// What was counted.
    pub counts: Counts,
    /// The first 1,000 failures.
    pub failures: Vec<Failure>,
    /// All failures.
    pub failure_count: u64,
    /// Program version.
    pub version: String,
    /// Who ran it, empty if unknown.
    pub user: String,
    /// A checkpoint of a backup that did not finish.
    pub incomplete: bool,
    /// Application metadata by name, ascending.
    pub metadata: Vec<(String, String)>,
    /// Until when it is to be kept at least, nanoseconds since 1970; its own retention, if whoever made it gave it one.
    pub retain_until: Option<i64>,
    /// Fields of later versions, kept as they are: key and encoded value.
    pub extra: Vec<(u64, Vec<u8>)>,
}

impl Counts {
    /// How many entries a walk of the tree may meet before it is taken to be hostile: twice what was counted, and a hundred thousand.
    #[must_use]
    pub fn most_entries(&self) -> u64 {
        let counted = self.files.saturating_add(self.directories).saturating_add(self.others);
        counted.saturating_mul(2).saturating_add(100_000)
    }

    fn to_array(self) -> [u64; 10] {
        [
            self.files,
            self.directories,
            self.others,
            self.bytes,
            self.new,
            self.changed,
            self.unmodified,
            self.bytes_read,
            self.bytes_added,
            self.bytes_stored,
        ]
    }

    fn from_array(array: [u64; 10]) -> Self {
        let [files, directories, others, bytes, new, changed, unmodified, bytes_read, bytes_added, bytes_stored] = array;
        Self { files, directories, others, bytes, new, changed, unmodified, bytes_read, bytes_added, bytes_stored }
    }
}

impl Snapshot {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let mut map = MapEncoder::new(&mut out);
        map.key(0).bytes(&self.root.0);
        map.key(1).text(&self.kind);
        if let Some(parent) = &self.parent {
            map.key(2).bytes(&parent.0);
        }
        map.key(3).text(&self.host);
        let mut paths = map.key(4);
        paths.array(self.paths.len());
        self.paths.iter().for_each(|path| paths.bytes(path));
        if !self.tags.is_empty() {
            let mut tags = map.key(5);
            tags.array(self.tags.len());
            self.tags.iter().for_each(|tag| tags.text(tag));
        }
        if !self.description.is_empty() {
            map.key(6).text(&self.description);
        }
        map.key(7).int(self.start);
        map.key(8).int(self.end);
        let mut counts = map.key(9);
        counts.array(10);
        self.counts.to_array().into_iter().for_each(|count| counts.uint(count));
        self.encode_failures(&mut map);
        map.key(12).text(&self.version);
        if !self.user.is_empty() {
            map.key(13).text(&self.user);
        }
        if self.incomplete {
            map.key(14).boolean(true);
        }
        if !self.metadata.is_empty() {
            let mut metadata = map.key(15);
            metadata.array(self.metadata.len() * 2);
            for (name, value) in &self.metadata {
                metadata.text(name);
                metadata.text(value);
            }
        }
        if let Some(until) = self.retain_until {
            map.key(RETAIN_UNTIL).int(until);
        }
        map.finish(&self.extra);
        out
    }

    fn encode_failures(&self, map: &mut MapEncoder<'_>) {
        if !self.failures.is_empty() {
            let mut failures = map.key(10);
            failures.array(self.failures.len());
            for failure in &self.failures {
                failures.array(2);
                failures.bytes(&failure.path);
                failures.text(&failure.reason);
            }
        }
        if self.failure_count > 0 {
            map.key(11).uint(self.failure_count);
        }
    }

    /// Decodes a snapshot.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes, "a snapshot");
        let decoder = &mut decoder;
        let mut map = decoder.map()?;
        let mut snapshot = Self::empty();
        let mut seen = 0u64;
        while let Some(key) = map.key(decoder)? {
            seen |= 1 << key.min(63);
            match key {
                0 => snapshot.root = ChunkId(decoder.fixed()?),
                1 => snapshot.kind = decoder.text()?.to_owned(),
                2 => snapshot.parent = Some(SnapshotId(decoder.fixed()?)),
                3 => snapshot.host = decoder.text()?.to_owned(),
                4 => snapshot.paths = (0..decoder.array()?).map(|_| Ok(decoder.bytes()?.to_vec())).collect::<Result<_>>()?,
                5 => snapshot.tags = tags(decoder)?,
                6 => snapshot.description = non_empty(decoder)?,
                7 => snapshot.start = decoder.int()?,
                8 => snapshot.end = decoder.int()?,
                9 => snapshot.counts = counts(decoder)?,
                10 => snapshot.failures = failures(decoder)?,
                11 => snapshot.failure_count = decoder.uint()?,
                12 => snapshot.version = decoder.text()?.to_owned(),
                13 => snapshot.user = non_empty(decoder)?,
                14 => snapshot.incomplete = decoder.flag()?,
                15 => snapshot.metadata = metadata(decoder)?,
                RETAIN_UNTIL => snapshot.retain_until = Some(retention(decoder)?),
                _ => unknown(key, decoder, &mut snapshot.extra)?,
            }
        }
        decoder.end()?;
        let zero_written = seen & 1 << 11 != 0 && snapshot.failure_count == 0;
        if seen & 0x139b != 0x139b || zero_written || snapshot.failure_count < snapshot.failures.len() as u64 {
            return Err(decoder.wrong("fields that are missing or contradict each other"));
        }
        Ok(snapshot)
    }

    /// A snapshot with nothing in it, to be filled in.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            root: ChunkId([0; 32]),
            kind: String::new(),
            parent: None,
            host: String::new(),
            paths: Vec::new(),
            tags: Vec::new(),
            description: String::new(),
            start: 0,
            end: 0,
            counts: Counts::default(),
            failures: Vec::new(),
            failure_count: 0,
            version: String::new(),
            user: String::new(),
            incomplete: false,
            metadata: Vec::new(),
            retain_until: None,
            extra: Vec::new(),
        }
    }
}

fn non_empty(decoder: &mut Decoder<'_>) -> Result<String> {
    match decoder.text()? {
        "" => Err(decoder.wrong("an empty text that should have been left out")),
        text => Ok(text.to_owned()),
    }
}

fn retention(decoder: &mut Decoder<'_>) -> Result<i64> {
    match decoder.int()? {
        until if until > 0 => Ok(until),
        _ => Err(decoder.wrong("a retention that ends before 1970")),
    }
}

fn tags(decoder: &mut Decoder<'_>) -> Result<Vec<String>> {
    let tags: Vec<String> = (0..decoder.array()?).map(|_| Ok(decoder.text()?.to_owned())).collect::<Result<_>>()?;
    if tags.is_empty() || !tags.is_sorted_by(|a, b| a < b) {
        return Err(decoder.wrong("tags that do not ascend"));
    }
    Ok(tags)
}

fn counts(decoder: &mut Decoder<'_>) -> Result<Counts> {
    if decoder.array()? != 10 {
        return Err(decoder.wrong("counts that are not ten"));
    }
    let mut array = [0; 10];
    for count in &mut array {
        *count = decoder.uint()?;
    }
    Ok(Counts::from_array(array))
}

fn failures(decoder: &mut Decoder<'_>) -> Result<Vec<Failure>> {
    let count = decoder.array()?;
    if count == 0 || count > MAX_FAILURES {
        return Err(decoder.wrong("too many failures, or none"));
    }
    let mut failures = Vec::with_capacity(count);
    for _ in 0..count {
        if decoder.array()? != 2 {
            return Err(decoder.wrong("a failure that is not a pair"));
        }
        failures.push(Failure { path: decoder.bytes()?.to_vec(), reason: decoder.text()?.to_owned() });
    }
    Ok(failures)
}

fn metadata(decoder: &mut Decoder<'_>) -> Result<Vec<(String, String)>> {
    let count = decoder.array()?;
    let mut pairs = Vec::with_capacity(count / 2);
    for _ in 0..count / 2 {
        pairs.push((decoder.text()?.to_owned(), decoder.text()?.to_owned()));
    }
    if pairs.is_empty() || count % 2 != 0 || !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(decoder.wrong("metadata that does not ascend"));
    }
    Ok(pairs)
}
