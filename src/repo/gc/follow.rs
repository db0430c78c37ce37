//! Reading condemn objects and plans, and making the cache say what they say.

use crate::crypto::sign::{self, PRUNE_OBJECT, SIGNATURE_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::format::envelope::ObjectKind;
use crate::format::gc::PruneObject;
use crate::id::ObjectHash;
use crate::repo::Repository;
use crate::repo::cache;
use crate::repo::cache::checkpoint::InForce;
use crate::repo::cache::prune::PruneRow;
use crate::repo::log::object_hash;
use crate::repo::sealed::{may_be_damage, open_object};
use crate::store::Key;
use std::borrow::Cow;

/// Longest condemn object or plan.
pub(in crate::repo) const MAX_PRUNE: u64 = 64 << 20;

/// Where the prune object is that comes after the newest one that is known: a generation begins only when the plan of the one
/// before is there.
pub(in crate::repo) fn next_prune(newest: Option<&PruneRow>) -> Key {
    match newest {
        Some(row) if row.plan.is_none() && row.condemn.is_some() => Key::plan(row.generation),
        row => Key::condemn(row.map_or(0, |row| row.generation) + 1),
    }
}

impl Repository {
    /// The newest prune generation that the cache knows of.
    pub(in crate::repo) fn known_prune(&self) -> Result<u64> {
        cache::prune::generation(&self.connection())
    }

    /// The newest generation whose plan the cache knows; 0 if there is none.
    pub(in crate::repo) fn newest_plan(&self) -> Result<u64> {
        let newest = cache::prune::newest(&self.connection())?;
        Ok(newest.map_or(0, |row| row.generation - u64::from(row.plan.is_none())))
    }

    /// Reads what is new of prunes. A generation begins only when the plan of the one before is there.
    pub(in crate::repo) fn follow_prunes(&self) -> Result<()> {
        loop {
            let newest = cache::prune::newest(&self.connection())?;
            let key = next_prune(newest.as_ref());
            match newest {
                Some(row) if row.plan.is_none() && row.condemn.is_some() => {
                    let Some(bytes) = self.prune_object(&key, ObjectKind::Plan, row.generation)? else { return Ok(()) };
                    self.take_in_plan(row.generation, row.condemn, &bytes)?;
                }
                row => {
                    let generation = row.map_or(0, |row| row.generation) + 1;
                    let Some(bytes) = self.prune_object(&key, ObjectKind::Condemn, generation)? else { return Ok(()) };
                    self.take_in_condemn(generation, &bytes)?;
                }
            }
        }
    }

    /// A machine that reads the repository for the first time asks for duplicates.
    fn prune_object(&self, key: &Key, kind: ObjectKind, generation: u64) -> Result<Option<Vec<u8>>> {
        let found = self.front_of(key, MAX_PRUNE)?;
        if found.is_some() || cache::log::head(&self.connection(), &self.owner())?.is_some() {
            return Ok(found);
        }
        Ok(self.duplicate_of_missing(key, &|bytes| self.open_settled(kind, generation, bytes).is_ok_and(|open| open.is_some())))
    }

    fn take_in_condemn(&self, generation: u64, bytes: &[u8]) -> Result<()> {
        // A void one condemns nothing, but its generation has been.
        let (object, bytes) = self.settled_object(&Key::condemn(generation), ObjectKind::Condemn, generation, bytes)?;
        let condemned = object.as_ref().map(|object| (object_hash(&bytes), object));
        self.in_transaction(|transaction| cache::prune::condemn(transaction, generation, condemned))
    }

    fn take_in_plan(&self, generation: u64, condemn: Option<ObjectHash>, bytes: &[u8]) -> Result<()> {
        let (object, bytes) = self.settled_object(&Key::plan(generation), ObjectKind::Plan, generation, bytes)?;
        // A void plan deletes nothing; so does one that belongs to another condemn object.
        let mut object = object.filter(|object| object.previous == condemn);
        if let Some(object) = object.as_mut().filter(|object| object.client != self.owner()) {
            // Who takes part, on which everything else rests, is taken from nobody but the owner.
            object.checkpoint = None;
        }
        let hash = object_hash(&bytes);
        self.in_transaction(|transaction| cache::prune::plan(transaction, generation, &hash, object.as_ref()))
    }

    /// The object with its bytes, from its duplicate if it is void, or cannot be judged, and that can.
    fn settled_object<'a>(
        &self,
        key: &Key,
        kind: ObjectKind,
        generation: u64,
        bytes: &'a [u8],
    ) -> Result<(Option<PruneObject>, Cow<'a, [u8]>)> {
        let opened = match self.open_settled(kind, generation, bytes) {
            Ok(Some(object)) => return Ok((Some(object), Cow::Borrowed(bytes))),
            Err(error) if !may_be_damage(&error) => return Err(error),
            other => other,
        };
        let is_right = |bytes: &[u8]| self.open_prune(kind, generation, bytes).is_ok();
        match self.duplicate_of(key, &is_right) {
            None => opened.map(|void| (void, Cow::Borrowed(bytes))),
            Some(bytes) => Ok((Some(self.open_prune(kind, generation, &bytes)?), Cow::Owned(bytes))),
        }
    }

    /// The object, or `None` if it is void. Somebody who may prune was enrolled before, so a log that is read after the
    /// object decides.
    fn open_settled(&self, kind: ObjectKind, generation: u64, bytes: &[u8]) -> Result<Option<PruneObject>> {
        if let Ok(object) = self.open_prune(kind, generation, bytes)
            && object.client == self.owner()
        {
            return Ok(Some(object));
        }
        self.follow_owner()?;
        let mut opened = self.open_prune(kind, generation, bytes);
        if opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::Damaged) && self.catch_up(kind, generation, bytes)? {
            opened = self.open_prune(kind, generation, bytes);
        }
        let error = match opened {
            Ok(object) => return Ok(Some(object)),
            Err(error) => error,
        };
        let void = match error.kind() {
            ErrorKind::Damaged => true,
            // Sealed with keys that this client does not hold: it could judge wrongly, so it does not judge.
            ErrorKind::WrongKey => !self.is_announced(bytes)?,
            ErrorKind::Unsupported => {
                let signer = self.signer_of(PRUNE_OBJECT, kind, bytes)?;
                !signer.is_some_and(|signer| signer.may_prune(generation))
            }
            _ => false,
        };
        if void { Ok(None) } else { Err(error) }
    }

    /// Reads from a checkpoint who takes part, if a prune object is signed by somebody who is not known and the owner's log
    /// was cut off; false if it was not.
    fn catch_up(&self, kind: ObjectKind, generation: u64, bytes: &[u8]) -> Result<bool> {
        let Ok(body) = open_object(self.keys(), kind, bytes) else { return Ok(false) };
        let signer = body.get(SIGNATURE_LEN..).and_then(|map| PruneObject::decode(kind, map).ok()).map(|object| object.client);
        let Some(signer) = signer else { return Ok(false) };
        if self.find_member(&signer)?.is_some() {
            return Ok(false);
        }
        let mut newest = None;
        for generation in generation.. {
            if let Some(bytes) = self.front_of(&Key::plan(generation), MAX_PRUNE)?
                && let Ok(plan) = self.open_prune(ObjectKind::Plan, generation, &bytes)
                && plan.client == self.owner()
            {
                newest = InForce::of(&plan).or(newest);
            }
            if self.front_of(&Key::condemn(generation + 1), MAX_PRUNE)?.is_none() {
                break;
            }
        }
        let Some(checkpoint) = newest else { return Ok(false) };
        self.adopt_from(&checkpoint)?;
        Ok(self.find_member(&signer)?.is_some())
    }

    /// Opens a prune object and verifies that somebody signed it who may prune.
    pub(in crate::repo) fn open_prune(&self, kind: ObjectKind, generation: u64, bytes: &[u8]) -> Result<PruneObject> {
        let body = open_object(self.keys(), kind, bytes)?;
        let (signature, map) =
            body.split_first_chunk::<SIGNATURE_LEN>().ok_or_else(|| Error::damaged("open a prune object: it is cut off"))?;
        let object = PruneObject::decode(kind, map)?;
        let member = self.find_member(&object.client)?;
        let member = member.filter(|member| member.may_prune(generation));
        let member = member.ok_or_else(|| Error::damaged("open a prune object: its signer may not prune"))?;
        sign::verify(&member.public, PRUNE_OBJECT, &self.keys().repository, map, signature)?;
        if object.generation != generation {
            return Err(Error::damaged("open a prune object: it is of another generation"));
        }
        Ok(object)
    }
}
