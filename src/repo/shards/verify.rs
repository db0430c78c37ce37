//! Verifying index objects against the tables of contents, for check, and writing them anew, for repair.

use super::compact::Merging;
use super::merge::{SetStream, Stream, cached};
use super::read::Shard;
use super::{CompactOptions, MAX_OBJECT};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Observer, stop_if_asked};
use crate::format::index::IndexEntry;
use crate::format::key::Role;
use crate::id::{ChunkPrefix, IndexId, PackId};
use crate::repo::Repository;
use crate::repo::cache;
use crate::repo::cache::shards::{self, ShardSet};
use crate::store::Key;
use std::collections::{BTreeMap, HashSet};

/// Bytes that are hashed at a time.
const STEP: usize = 1 << 20;

/// Something wrong with an index object.
#[derive(Debug)]
pub struct IndexProblem {
    /// The object.
    pub id: IndexId,
    /// What is wrong.
    pub error: Error,
    /// How many more objects of the same record are like it, after as many as are worth telling one by one.
    pub more: u64,
    /// True if nobody needs the object: another one covers what it does, or no record names it.
    pub needless: bool,
}

/// Objects of one set that are told of one by one: a record may name as many that there are not as it has room for.
const TOLD: usize = 100;

/// What is wrong with the objects of a set.
#[derive(Default)]
struct Problems {
    told: Vec<(IndexId, Error)>,
    more: u64,
}

impl Problems {
    fn add(&mut self, id: IndexId, error: Error) {
        match self.told.len() {
            TOLD => self.more += 1,
            _ => self.told.push((id, error)),
        }
    }

    fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

/// A set of which something is wrong.
struct Bad {
    set: ShardSet,
    problems: Problems,
}

impl Repository {
    /// Verifies the index objects that count: that they are there, are what their names say, and say what the tables of
    /// contents say. With `quick`, only that they are there. Packs whose tables cannot be read are left out. Hands over what is
    /// wrong.
    ///
    /// # Errors
    /// Only what kept them from being looked at; those of `take`.
    pub fn verify_index_objects(
        &self,
        quick: bool,
        observer: &dyn Observer,
        take: &mut dyn FnMut(&IndexProblem) -> Result<()>,
    ) -> Result<()> {
        let (bad, good) = self.judge_sets(quick, observer)?;
        let good: Vec<&ShardSet> = good.iter().collect();
        for Bad { set, problems: Problems { told, more } } in bad {
            let needless = shards::is_covered(&self.connection(), &set, &good, &HashSet::new())?;
            let last = told.len().saturating_sub(1);
            for (position, (id, error)) in told.into_iter().enumerate() {
                take(&IndexProblem { id, error, more: if position == last { more } else { 0 }, needless })?;
            }
        }
        // Those that there are, less those that are named: a record may name many that there are not.
        let mut unnamed: BTreeMap<IndexId, u64> = self.listed_shards()?.into_iter().map(|(id, size, _)| (id, size)).collect();
        for id in shards::sets(&self.connection())?.into_iter().flat_map(|set| set.shards) {
            unnamed.remove(&id);
        }
        for (id, size) in unnamed {
            if !cache::prune::is_gone(&self.connection(), &PackId(id.0))? {
                let error = Error::failed(format!("no record of the log names it ({size} bytes)"));
                take(&IndexProblem { id, error, more: 0, needless: true })?;
            }
        }
        Ok(())
    }

    fn judge_sets(&self, quick: bool, observer: &dyn Observer) -> Result<(Vec<Bad>, Vec<ShardSet>)> {
        let sets = shards::sets(&self.connection())?;
        let (mut bad, mut good) = (Vec::new(), Vec::new());
        for set in sets.into_iter().filter(ShardSet::is_good) {
            stop_if_asked(observer)?;
            let problems = self.judge_set(&set, quick, observer)?;
            if problems.is_empty() { good.push(set) } else { bad.push(Bad { set, problems }) }
        }
        Ok((bad, good))
    }

    fn judge_set(&self, set: &ShardSet, quick: bool, observer: &dyn Observer) -> Result<Problems> {
        let mut problems = Problems::default();
        for id in &set.shards {
            stop_if_asked(observer)?;
            if let Err(error) = self.verify_shard(id, quick) {
                problems.add(*id, finding(error)?);
            }
        }
        if quick || !problems.is_empty() {
            return Ok(problems);
        }
        let ranges = self.ranges(set)?;
        let mut next = Some([0; 16]);
        for (id, (first, last)) in &ranges {
            if next != Some(*first) {
                problems.add(*id, Error::damaged("its range does not begin where the one before ends"));
            }
            next = u128::from_be_bytes(*last).checked_add(1).map(u128::to_be_bytes);
        }
        if next.is_some() || !problems.is_empty() {
            if let Some((id, _)) = ranges.last().filter(|_| next.is_some()) {
                problems.add(*id, Error::damaged("nothing follows it"));
            }
            return Ok(problems);
        }
        let packs = self.read_packs(set)?;
        let expected = cached(self, &packs)?;
        let found: Stream<'_> = Box::new(SetStream::new(self, &packs, set.shards.clone()));
        let owner = |prefix: &ChunkPrefix| ranges[ranges.partition_point(|(_, (_, last))| last < prefix).min(ranges.len() - 1)].0;
        match differences(expected, found, &owner, observer) {
            Ok(differing) => differing.into_iter().for_each(|(id, error)| problems.add(id, error)),
            Err(error) => problems.add(set.shards[0], finding(error)?),
        }
        Ok(problems)
    }

    /// Fails unless the object is there, and unless `quick`, its bytes are what its name says.
    fn verify_shard(&self, id: &IndexId, quick: bool) -> Result<()> {
        let key = Key::index(id);
        let size = self.store().size(&key)?.ok_or_else(|| Error::damaged("it is gone"))?;
        if size > MAX_OBJECT {
            return Err(Error::damaged(format!("{size} bytes are more than it can have")));
        }
        if quick {
            return Ok(());
        }
        let (mut hasher, mut at, mut buffer) = (blake3::Hasher::new(), 0, vec![0; STEP]);
        while at < size {
            let step = usize::try_from(size - at).unwrap_or(usize::MAX).min(STEP);
            self.store().read_at(&key, at, &mut buffer[..step])?;
            hasher.update(&buffer[..step]);
            at += step as u64;
        }
        if *hasher.finalize().as_bytes() == id.0 { Ok(()) } else { Err(Error::damaged("its bytes are not what its name says")) }
    }

    fn ranges(&self, set: &ShardSet) -> Result<Vec<(IndexId, (ChunkPrefix, ChunkPrefix))>> {
        set.shards.iter().map(|id| Ok((*id, Shard::open(self, id)?.range()))).collect()
    }

    /// The packs of a set whose tables of contents were read.
    fn read_packs(&self, set: &ShardSet) -> Result<Vec<PackId>> {
        shards::read_packs_of(&self.connection(), set.number)
    }

    /// Writes index objects for everything that damaged ones cover, and names them in the log; false if a prune was faster
    /// or nothing is damaged any more. What is damaged goes with the next prune.
    pub(in crate::repo) fn rewrite_index(&self, observer: &dyn Observer) -> Result<bool> {
        let (bad, _) = self.judge_sets(false, observer)?;
        let mut packs = Vec::new();
        for Bad { set, .. } in &bad {
            packs.extend(self.read_packs(set)?);
        }
        packs.sort_unstable();
        packs.dedup();
        if packs.is_empty() {
            return Ok(false);
        }
        self.compact(&Merging { sets: Vec::new(), packs }, &CompactOptions::default(), observer)
    }

    /// True if the key at hand may write index objects.
    pub(in crate::repo) fn may_write_index(&self) -> bool {
        matches!(self.role(), Role::Owner | Role::Maintainer)
    }
}

/// An error that speaks of the object; others end the check.
fn finding(error: Error) -> Result<Error> {
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::InUse | ErrorKind::Full => Err(error),
        _ => Ok(error),
    }
}

/// What the one stream has and the other does not, by chunk and pack, counted for each object.
fn differences<'a>(
    mut expected: Stream<'a>,
    mut found: Stream<'a>,
    owner: &dyn Fn(&ChunkPrefix) -> IndexId,
    observer: &dyn Observer,
) -> Result<Vec<(IndexId, Error)>> {
    let mut counts: BTreeMap<IndexId, (u64, u64)> = BTreeMap::new();
    let key = |entry: &IndexEntry| (entry.prefix, entry.pack);
    let (mut left, mut right) = (expected.next().transpose()?, found.next().transpose()?);
    let mut steps = 0u64;
    while let Some(first) = [&left, &right].into_iter().flatten().map(key).min() {
        let (in_left, in_right) = (left.as_ref().map(key) == Some(first), right.as_ref().map(key) == Some(first));
        if in_left != in_right {
            let count = counts.entry(owner(&first.0)).or_default();
            if in_left { count.0 += 1 } else { count.1 += 1 }
        }
        // The same chunk may be in several blocks of a pack.
        while left.as_ref().map(key) == Some(first) {
            left = expected.next().transpose()?;
        }
        while right.as_ref().map(key) == Some(first) {
            right = found.next().transpose()?;
        }
        steps += 1;
        if steps.is_multiple_of(65_536) {
            stop_if_asked(observer)?;
        }
    }
    let describe = |(id, (lacking, extra))| {
        let why = format!("it lacks {lacking} chunks that packs hold, and names {extra} that they do not");
        (id, Error::damaged(why))
    };
    Ok(counts.into_iter().map(describe).collect())
}
