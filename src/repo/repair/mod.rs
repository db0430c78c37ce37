//! Mending a repository: what can be done about what a check finds, and doing it.
//!
//! Only writes what is whole: objects under the names of damaged ones, and records that say what is lost. What takes the
//! place of a damaged object is durable under a second name before the damaged one is deleted, so that a crash at any
//! moment loses nothing that could be read before.

mod objects;
mod snapshots;
mod versions;

pub use snapshots::FoundSnapshot;
pub use versions::{Covered, uncover};

use crate::error::{Error, ErrorKind, Result};
use crate::format::log::{PackRef, RecordBody};
use crate::id::{ChunkPrefix, PackId};
use crate::repo::verify::{Depth, Lost, PackReport, Trouble};
use crate::repo::{Repository, cache};
use crate::store::{AnyStore, Key, Location, Version};
use serde::{Deserialize, Serialize};

/// Most chunks that one record says are lost: 1 MiB.
const MARKED: usize = 1 << 16;
/// Most packs that one record says are lost: 1 MiB as well.
pub const MOST_ALIKE: usize = 1 << 15;

/// One step of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mend {
    /// Puts a whole pack in the place of a damaged one, from parity.
    FromParity(PackRef),
    /// Puts a pack back from a version of it that was deleted or overwritten.
    FromVersion(PackRef, Box<Version>),
    /// Fetches an object by its name from another copy of the repository.
    Fetch(Key),
    /// Puts an object back from its duplicate.
    FromDuplicate(Key),
    /// Says in the log which chunks of a pack are gone, so that nobody relies on them, and the next backup stores again
    /// what is still there: so many as it seems, or without a number all of them.
    MarkLost(PackRef, Option<u64>),
    /// Makes the parity of a whole pack, with so much per mille.
    Parity(PackRef, u16),
    /// Makes the duplicates of the small objects on which much depends.
    Duplicate(Key),
    /// Commits a snapshot again whose record is gone.
    Snapshot(Box<FoundSnapshot>),
    /// Writes the index objects anew that are damaged, from the tables of contents.
    Shards,
    /// Reads this machine's index anew.
    Index,
}

impl Mend {
    /// True if it marks all of a pack as lost.
    #[must_use]
    pub fn is_of_whole_pack(&self) -> bool {
        matches!(self, Self::MarkLost(_, None))
    }
}

impl std::fmt::Display for Mend {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FromParity(pack) => write!(out, "mend pack {} from its parity", pack.id),
            Self::FromVersion(pack, version) => write!(out, "put pack {} back from its version {}", pack.id, version.id),
            Self::Fetch(key) => write!(out, "fetch {key} from the other copy"),
            Self::FromDuplicate(key) => write!(out, "put {key} back from its duplicate"),
            Self::MarkLost(pack, None) => write!(out, "mark all of pack {} as lost", pack.id),
            Self::MarkLost(pack, Some(1)) => write!(out, "mark one chunk of pack {} as lost", pack.id),
            Self::MarkLost(pack, Some(chunks)) => write!(out, "mark {chunks} chunks of pack {} as lost", pack.id),
            Self::Parity(pack, _) => write!(out, "make the parity of pack {}", pack.id),
            Self::Duplicate(key) => write!(out, "make a duplicate of {key}"),
            Self::Snapshot(found) => write!(out, "commit snapshot {} again", found.id),
            Self::Shards => write!(out, "write the damaged index objects anew"),
            Self::Index => write!(out, "read this machine's index anew"),
        }
    }
}

/// Plans and carries out repairs.
pub struct Repairer {
    repository: Repository,
    other: Option<AnyStore>,
}

impl Repository {
    /// A repairer; `other` is where another copy of this repository is.
    ///
    /// # Errors
    /// `NoRepository`; `Refused` if another repository is there.
    pub fn repairer(&self, other: Option<&Location>) -> Result<Repairer> {
        let none = |error: Error| match error.kind() {
            ErrorKind::NoRepository => error.with_hint("--from names a copy of the same repository, such as a mirror of it"),
            _ => error,
        };
        let other = other.map(|other| other.open().map_err(none)).transpose()?;
        if let Some(other) = &other {
            let theirs = other.get(&Key::format(), crate::format::repository::MAX_FORMAT)?;
            if theirs != self.inner.format.encode() {
                let message = format!("repair from {}: another repository is there", other.describe());
                return Err(Error::new(ErrorKind::Refused, message).with_hint("--from names a copy of the same repository"));
            }
        }
        Ok(Repairer { repository: self.clone(), other })
    }
}

impl Repairer {
    /// What can be done about what was found of a pack; nothing if there is nothing to do, or if it was done before.
    ///
    /// # Errors
    /// What kept the other copy from being looked at.
    pub fn plan_pack(&self, pack: &PackRef, found: PackReport) -> Result<Vec<Mend>> {
        let has = |trouble| found.problems.iter().any(|problem| problem.trouble == trouble);
        let [damage, unreadable, mendable, parity, index] =
            [Trouble::Damage, Trouble::Unreadable, Trouble::Mendable, Trouble::Parity, Trouble::Index].map(has);
        let mut mends = Vec::new();
        let spare = Key::copy_of(&Key::pack(&pack.id));
        let is_needed = damage || unreadable || mendable;
        if is_needed && self.is_pack(self.repository.store(), &spare, pack)? {
            // An earlier repair was cut off between deleting and putting.
            mends.push(Mend::FromDuplicate(Key::pack(&pack.id)));
        } else if is_needed && let Some(mend) = self.version_of(pack)? {
            mends.push(mend);
        } else if mendable {
            mends.push(Mend::FromParity(*pack));
        } else if is_needed && self.other_has(pack)? {
            mends.push(Mend::Fetch(Key::pack(&pack.id)));
        } else if damage && self.repository.refuse_set_back().is_ok() {
            match self.lost_of(pack, found)? {
                Lost::Nothing => {}
                Lost::Everything => mends.push(Mend::MarkLost(*pack, None)),
                Lost::Chunks(chunks) => mends.push(Mend::MarkLost(*pack, Some(chunks.len() as u64))),
            }
        }
        // Of a pack that is whole, or was made whole by the step before.
        let whole = match mends.last() {
            None => !(damage || unreadable),
            Some(mend) => !matches!(mend, Mend::MarkLost(..)),
        };
        if parity && whole {
            mends.push(Mend::Parity(*pack, self.repository.parity()?.max(1)));
        }
        if index {
            mends.push(Mend::Index);
        }
        Ok(mends)
    }

    fn other_has(&self, pack: &PackRef) -> Result<bool> {
        self.other.as_ref().map_or(Ok(false), |other| self.is_pack(other, &Key::pack(&pack.id), pack))
    }

    /// True if the object at `key` is the whole pack.
    fn is_pack(&self, store: &AnyStore, key: &Key, pack: &PackRef) -> Result<bool> {
        Ok(store.size(key)? == Some(pack.size) && self.hash_of(store, key, pack.size)? == pack.id.0)
    }

    /// What is lost of a pack by what was found of it, and not said in the log yet. There may be millions of chunks.
    fn lost_of(&self, pack: &PackRef, found: PackReport) -> Result<Lost> {
        let connection = self.repository.connection();
        let mut chunks: Vec<ChunkPrefix> = Vec::new();
        for problem in found.problems.into_iter().filter(|problem| problem.trouble == Trouble::Damage) {
            match problem.lost {
                Lost::Nothing => {}
                Lost::Chunks(lost) if chunks.is_empty() => chunks = lost,
                Lost::Chunks(lost) => chunks.extend(lost),
                Lost::Everything if cache::damage::is_told(&connection, &pack.id, None)? => return Ok(Lost::Nothing),
                Lost::Everything => return Ok(Lost::Everything),
            }
        }
        chunks.sort_unstable();
        chunks.dedup();
        let mut failure = None;
        chunks.retain(|chunk| match cache::damage::is_told(&connection, &pack.id, Some(chunk)) {
            Ok(told) => !told,
            Err(error) => {
                failure = Some(error);
                true
            }
        });
        failure.map_or(Ok(()), Err)?;
        Ok(if chunks.is_empty() { Lost::Nothing } else { Lost::Chunks(chunks) })
    }

    /// Says in the log what is lost of a pack. Which chunks those are is looked at once more: to remember them all since the
    /// plan was made would take more memory than there may be.
    fn mark_lost(&self, pack: &PackRef, all: bool) -> Result<bool> {
        let repository = &self.repository;
        let tell = |chunks: &[ChunkPrefix]| {
            repository.append(RecordBody::Lost { packs: vec![pack.id], chunks: chunks.to_vec() }).map(drop)
        };
        if all {
            return tell(&[]).map(|()| true);
        }
        let _turn = repository.turn_for(pack);
        let found = repository.verifier()?.verify(pack, None, Depth::Data)?;
        match self.lost_of(pack, found)? {
            Lost::Nothing => Ok(false),
            Lost::Everything => tell(&[]).map(|()| true),
            Lost::Chunks(chunks) => chunks.chunks(MARKED).try_for_each(tell).map(|()| true),
        }
    }

    /// What can be done about a small object that is gone or damaged, by its name; `None` if nothing can.
    ///
    /// # Errors
    /// What kept the copies from being looked at.
    pub fn plan_object(&self, name: &str) -> Result<Option<Mend>> {
        let Ok(key) = Key::new(name) else { return Ok(None) };
        if self.is_good(self.repository.store(), &Key::copy_of(&key), &key)? {
            return Ok(Some(Mend::FromDuplicate(key)));
        }
        if let Some(other) = &self.other
            && self.is_good(other, &key, &key)?
        {
            return Ok(Some(Mend::Fetch(key)));
        }
        Ok(None)
    }

    /// What can be done about damaged index objects.
    #[must_use]
    pub fn plan_index(&self) -> Option<Mend> {
        self.repository.may_write_index().then_some(Mend::Shards)
    }

    /// Carries one step out, or several that mark all of their packs as lost; false if it turned out that there was nothing to
    /// do.
    ///
    /// # Errors
    /// As [`Repairer::carry_out`].
    pub fn carry_out_alike(&self, mends: &[Mend]) -> Result<bool> {
        if let [mend] = mends {
            return self.carry_out(mend);
        }
        let lost = |mend: &Mend| if let Mend::MarkLost(pack, None) = mend { Some(pack.id) } else { None };
        let packs: Vec<PackId> = mends.iter().filter_map(lost).collect();
        for packs in packs.chunks(MOST_ALIKE) {
            self.repository.append(RecordBody::Lost { packs: packs.to_vec(), chunks: Vec::new() })?;
        }
        self.repository.inner.mender.forget();
        Ok(!packs.is_empty())
    }

    /// Carries a step out; false if it turned out that there was nothing to do.
    ///
    /// # Errors
    /// What kept it from being done; then what could be read before still can be.
    pub fn carry_out(&self, mend: &Mend) -> Result<bool> {
        let repository = &self.repository;
        let done = match mend {
            Mend::FromParity(pack) => self.put_mended(pack).map(|()| true),
            Mend::FromVersion(pack, version) => self.put_version(pack, version).map(|()| true),
            Mend::Fetch(key) => self.fetch(key).map(|()| true),
            Mend::FromDuplicate(key) => self.put_duplicate(key).map(|()| true),
            Mend::MarkLost(pack, chunks) => self.mark_lost(pack, chunks.is_none()),
            Mend::Parity(pack, share) => repository.add_parity_to(&pack.id, pack.size, *share),
            Mend::Duplicate(key) => self.duplicate(key),
            Mend::Snapshot(found) => self.commit_again(found),
            Mend::Shards => repository.rewrite_index(&crate::event::Silent),
            Mend::Index => repository.clear_cache().map(|()| true),
        };
        repository.inner.mender.forget();
        done
    }
}
