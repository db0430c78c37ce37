//! Reading what is new in all logs, and verifying it.

use super::heads;
use super::members::{self, Member};
use super::read_on::Found;
use super::unreadable::Blame;
use crate::crypto::sign::{self, LOG_RECORD, SIGNATURE_LEN, client_id};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Silent};
use crate::format::envelope::ObjectKind;
use crate::format::key::Role;
use crate::format::log::{Head, MAX_RECORD, Record, RecordBody};
use crate::id::{ClientId, ObjectHash};
use crate::repo::Repository;
use crate::repo::cache::{self, failed};
use crate::repo::sealed::{may_be_damage, open_object};
use crate::store::Key;
use rusqlite::Transaction;
use std::collections::{BTreeSet, HashSet};

/// A head that a record names, and whether its word is enough to stop.
#[derive(Clone)]
pub(super) struct Told {
    head: Head,
    believed: bool,
}

/// Hash of an object.
pub(in crate::repo) fn object_hash(bytes: &[u8]) -> ObjectHash {
    ObjectHash(*blake3::hash(bytes).as_bytes())
}

impl Repository {
    /// Reads what is new in all logs and prunes.
    ///
    /// # Errors
    /// `RolledBack` if the store shows less than was seen before, `Failed` if it cannot be read.
    pub fn refresh(&self, observer: &dyn Observer) -> Result<()> {
        // From here on only what is there now counts.
        self.store().expect_nothing();
        self.refresh_opened(observer)
    }

    /// The same where everything that was asked for ahead was asked for since the repository was opened.
    pub(in crate::repo) fn refresh_opened(&self, observer: &dyn Observer) -> Result<()> {
        self.expect_news()?;
        self.tell_notices(observer);
        if heads::load(&self.inner.state).damaged {
            observer.observe(Event::Warning(
                "what this machine remembers of the repository is damaged: that the store was set back to an older state is \
                 noticed only as far as a second copy or the cache tell",
            ));
        }
        self.verify_all_remembered()?;
        self.refresh_told(observer, true)
    }

    fn tell_notices(&self, observer: &dyn Observer) {
        let notices = std::mem::take(&mut *self.inner.notices.lock().expect("no code panics while it holds this lock"));
        notices.iter().for_each(|notice| observer.observe(Event::Warning(notice)));
    }

    /// The same without a look at what was seen before; `believing` makes what others have seen count.
    pub(super) fn refresh_told(&self, observer: &dyn Observer, believing: bool) -> Result<()> {
        let mut told = Vec::new();
        loop {
            if cache::members::must_read_anew(&self.connection())? {
                self.in_transaction(cache::members::read_anew)?;
            }
            // What plans removed is known before the records that list it are read, and what they cut off before records
            // are missed.
            let before = cache::prune::newest(&self.connection())?;
            self.follow_prunes()?;
            if cache::prune::newest(&self.connection())? != before {
                // What was asked for beside it may be older.
                self.store().expect_nothing();
            }
            // Whoever else uses the cache may learn of a plan at any time: one that came after this was not begun from.
            let plans = self.newest_plan()?;
            self.adopt(observer)?;
            self.follow_all(&mut told, observer)?;
            // The prunes are read once more, after the logs.
            self.store().expect_nothing();
            if cache::members::must_read_anew(&self.connection())? {
                continue;
            }
            let read = cache::log::heads(&self.connection())?;
            self.follow_prunes()?;
            // A plan may have seen more of the logs than was read just now, and may have cut them off.
            if self.newest_plan()? != plans {
                continue;
            }
            self.verify_floors()?;
            match self.verify_told(told.clone(), observer, believing) {
                Err(error) if error.kind() == ErrorKind::RolledBack => {
                    self.follow_prunes()?;
                    if self.newest_plan()? == plans {
                        return Err(error);
                    }
                }
                other => {
                    other?;
                    // What was told of was read after the prunes were.
                    cache::checkpoint::confirm(&self.connection(), &read)?;
                    break;
                }
            }
        }
        self.index_uncovered(observer)?;
        self.take_in_kept()?;
        self.tell_of_clones(observer)?;
        self.tell_of_duplicates(observer);
        self.remember_heads()
    }

    /// Reads what is new in all logs that concern this client.
    fn follow_all(&self, told: &mut Vec<Told>, observer: &dyn Observer) -> Result<()> {
        let mut followed = HashSet::new();
        loop {
            // The owner's log comes first: it says who else there is, and so may others' enrolments that it brings.
            let concerning = self.concerning()?;
            let members = self.members()?.into_iter();
            let new: Vec<ClientId> =
                members.filter(|member| concerning(member) && followed.insert(member.id)).map(|member| member.id).collect();
            if new.is_empty() {
                return Ok(());
            }
            for some in new.chunks(self.width()) {
                let found = self.side_by_side(some, |id| self.next_of(id));
                for (id, found) in some.iter().zip(found) {
                    // What was read meanwhile may have changed who it is.
                    if let Some(member) = self.find_member(id)? {
                        self.follow_from(&member, found?, told, observer)?;
                    }
                }
            }
        }
    }

    /// The heads that are remembered outside the cache, and what the cache knows besides; ascending.
    pub(in crate::repo) fn seen_heads(&self) -> Result<BTreeSet<Head>> {
        let mut seen = BTreeSet::from_iter(heads::load(&self.inner.state).heads);
        seen.extend(cache::log::heads(&self.connection())?);
        Ok(seen)
    }

    /// Takes in the first record of a repository that this process is making, and that nobody else knows of.
    pub(in crate::repo) fn take_in_first(&self, bytes: &[u8]) -> Result<()> {
        self.take_in(&self.owner_member(), &mut None, bytes, &mut Vec::new(), &Silent).map(drop)
    }

    /// Reads what is new in the owner's log.
    pub(in crate::repo) fn follow_owner(&self) -> Result<()> {
        self.follow(&self.owner_member(), &mut Vec::new(), &Silent)
    }

    fn follow(&self, member: &Member, told: &mut Vec<Told>, observer: &dyn Observer) -> Result<()> {
        self.follow_from(member, None, told, observer)
    }

    /// The same, with what was read ahead of it. Others may have brought it further meanwhile; then that says nothing.
    fn follow_from(&self, member: &Member, found: Option<Found>, told: &mut Vec<Told>, observer: &dyn Observer) -> Result<()> {
        let mut head = cache::log::head(&self.connection(), &member.id)?.map(|(head, _)| head);
        // Who has read this log before knows how far it went; others ask for duplicates. Where that is another answer to wait for, a
        // log with nothing in it counts as read too, unless somebody has told of a record.
        let was_read = found.is_some() && cache::log::was_empty(&self.connection(), &member.id)?;
        let new = head.is_none() && !was_read;
        let behind = |head: Option<Head>| head.map_or(0, |head| head.seq + 1);
        let mut found = found.filter(|found| found.seq == behind(head));
        loop {
            let Found { records, ended, .. } = match found.take() {
                Some(found) => found,
                None => self.read_on(&member.id, behind(head))?,
            };
            let mut taken = true;
            for bytes in records {
                taken = taken && self.take_in(member, &mut head, &bytes, told, observer)?;
            }
            if !ended || !taken {
                continue;
            }
            let Some(bytes) = new.then(|| self.missing_record(member, head, behind(head))).flatten() else { break };
            self.take_in(member, &mut head, &bytes, told, observer)?;
        }
        match head {
            None if member.id == self.owner() => Err(Error::damaged("open the repository: the first record of its log is gone")
                .with_hint(
                    "the store is not complete; keep all that is left of it, and look for what was deleted or not copied",
                )),
            None if new && self.knows_duplicates() => cache::log::note_empty(&self.connection(), &member.id),
            _ => Ok(()),
        }
    }

    /// Remembers outside the cache how far every log was seen.
    pub(super) fn remember_heads(&self) -> Result<()> {
        let known = cache::log::heads(&self.connection())?;
        heads::remember(&self.inner.state, &known)
    }

    /// Fails if the store does not show what was seen before. What a checkpoint stands for need not be there.
    fn verify_all_remembered(&self) -> Result<()> {
        let mut lost = Vec::new();
        let seen: Vec<Head> = self.seen_heads()?.into_iter().collect();
        for (head, verified) in seen.iter().zip(self.side_by_side(&seen, |head| self.verify_remembered(head))) {
            match verified {
                Err(error) if error.kind() == ErrorKind::RolledBack => lost.push((*head, error)),
                other => other?,
            }
        }
        if !lost.is_empty() {
            // Prunes are read after what they may have deleted was missed.
            self.store().expect_nothing();
        }
        if !lost.is_empty() && self.follow_prunes().is_ok() {
            for at in (0..lost.len()).rev() {
                if self.is_cut_off(&lost[at].0)? {
                    lost.swap_remove(at);
                }
            }
        }
        lost.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    fn verify_remembered(&self, head: &Head) -> Result<()> {
        let key = Key::log(&head.client, head.seq);
        let is_it = |bytes: &[u8]| object_hash(bytes) == head.hash;
        let found = self.front_of(&key, MAX_RECORD)?;
        match found.map(|bytes| object_hash(&bytes)) {
            Some(hash) if hash == head.hash => Ok(()),
            Some(_) if self.duplicate_of(&key, &is_it).is_some() => Ok(()),
            None if self.duplicate_of_missing(&key, &is_it).is_some() => Ok(()),
            Some(_) => Err(self.rolled_back(head, "seen before, is another one")),
            None => Err(self.rolled_back(head, "seen before, is gone")),
        }
    }

    /// Fails if a record speaks of records of another log that the store does not show. Only the word of those who may
    /// prune is enough for that: a writer could stop everybody with a lie, so what it says is a warning.
    fn verify_told(&self, mut told: Vec<Told>, observer: &dyn Observer, believing: bool) -> Result<()> {
        while let Some(Told { head, believed }) = told.pop() {
            if self.knows(&head)? || !self.is_concerned(&head.client)? {
                continue;
            }
            // It may have been written after its log was read, and by somebody who was enrolled after that.
            self.follow_owner()?;
            if let Some(member) = self.find_member(&head.client)? {
                self.follow(&member, &mut told, observer)?;
            }
            if self.knows(&head)? {
                continue;
            }
            let error = self.rolled_back(&head, "which another client has seen, is gone or another one");
            if believed && believing {
                // The record that told of it is not read again, so the next refresh has to know.
                heads::remember_told(&self.inner.state, &head)?;
                return Err(error);
            }
            observer.observe(Event::Warning(&error.to_string()));
        }
        Ok(())
    }

    /// True if this head, or a later one of its log, was read.
    fn knows(&self, head: &Head) -> Result<bool> {
        let known = cache::log::head(&self.connection(), &head.client)?.map(|(known, _)| known);
        Ok(known.is_some_and(|known| known.seq > head.seq || known == *head))
    }

    fn rolled_back(&self, head: &Head, what: &str) -> Error {
        let message = format!("open the repository: record {} of the log of client {}, {what}", head.seq, head.client);
        Error::new(ErrorKind::RolledBack, message).with_hint(
            "the store was set back to an older state or tampered with; if you did it, --accept-rollback says what is lost and goes on",
        )
    }

    /// Takes the record behind `head` in; one that does not verify is void: it keeps its place in the chain and says nothing.
    /// False if the cache is no longer at `head`, because another process has brought it on, or began anew from a
    /// checkpoint: then nothing is taken in. `head` is where the cache is afterwards.
    pub(super) fn take_in(
        &self,
        member: &Member,
        place: &mut Option<Head>,
        bytes: &[u8],
        told: &mut Vec<Told>,
        observer: &dyn Observer,
    ) -> Result<bool> {
        let head = *place;
        let seq = head.map_or(0, |head| head.seq + 1);
        let next = Head { client: member.id, seq, hash: object_hash(bytes) };
        let judged = || {
            let record = self.judge_record(member, head, self.open_record(bytes)?)?;
            if member.counts(seq) { Ok(record) } else { Err(Error::damaged("its client was revoked before it")) }
        };
        let mut record = judged();
        if record.is_err() && member.id != self.owner() {
            // Its signer may have been enrolled a moment ago; the owner's log says, read to its end.
            self.follow_owner()?;
            record = judged();
        }
        let taken = match record {
            Ok(record) => {
                let believed = matches!(member.role, Role::Owner | Role::Maintainer);
                told.extend(record.heads.iter().map(|head| Told { head: *head, believed }));
                self.apply(member, &record, head, &next)?
            }
            Err(error) => {
                let fits = |bytes: &[u8]| self.fits(member, head, bytes);
                if may_be_damage(&error)
                    && let Some(duplicate) = self.duplicate_of(&Key::log(&member.id, seq), &fits)
                {
                    return self.take_in(member, place, &duplicate, told, observer);
                }
                self.list_revoked(member, head, bytes)?;
                let blame = self.blame(member, seq, bytes, &error)?;
                if blame == Blame::Stop {
                    return Err(error);
                }
                observer.observe(Event::Warning(&format!("record {seq} of the log of {} is void: {error}", member.id)));
                self.go_on(member, head, &mut |transaction, fence| {
                    cache::log::set_head(transaction, &next, fence, None)?;
                    if blame == Blame::Unknown { cache::members::note_unknown(transaction, &member.id, seq) } else { Ok(()) }
                })?
            }
        };
        *place = if taken { Some(next) } else { self.head_and_fence(member)?.0 };
        Ok(taken)
    }

    /// True if this is a valid record for the place behind `head`.
    fn fits(&self, member: &Member, head: Option<Head>, bytes: &[u8]) -> bool {
        let seq = head.map_or(0, |head| head.seq + 1);
        member.counts(seq) && self.open_record(bytes).and_then(|record| self.judge_record(member, head, record)).is_ok()
    }

    /// The duplicate of a record that is gone.
    fn missing_record(&self, member: &Member, head: Option<Head>, seq: u64) -> Option<Vec<u8>> {
        self.duplicate_of_missing(&Key::log(&member.id, seq), &|bytes| self.fits(member, head, bytes))
    }

    /// Opens a record and verifies its signature.
    pub(in crate::repo) fn open_record(&self, bytes: &[u8]) -> Result<Record> {
        self.open_record_by(bytes, &|author| Ok(self.find_member(author)?.map(|member| member.public)))
    }

    /// The same where `public_of` knows whose public key is which.
    pub(super) fn open_record_by(
        &self,
        bytes: &[u8],
        public_of: &dyn Fn(&ClientId) -> Result<Option<[u8; 32]>>,
    ) -> Result<Record> {
        let body = open_object(self.keys(), ObjectKind::Log, bytes)?;
        let (signature, map) =
            body.split_first_chunk::<SIGNATURE_LEN>().ok_or_else(|| Error::damaged("open a log record: it is cut off"))?;
        let record = Record::decode(map)?;
        let author = record.author.unwrap_or(record.client);
        let public = public_of(&author)?;
        let public = public.ok_or_else(|| Error::damaged("open a log record: its signer was not enrolled"))?;
        sign::verify(&public, LOG_RECORD, &self.keys().repository, map, signature)?;
        debug_assert_eq!(client_id(&public), author, "members are found by the id of their key");
        Ok(record)
    }

    /// Fails unless the record may be where it is and say what it says.
    pub(super) fn judge_record(&self, member: &Member, head: Option<Head>, record: Record) -> Result<Record> {
        let seq = head.map_or(0, |head| head.seq + 1);
        if record.client != member.id || record.seq != seq || record.previous != head.map(|head| head.hash) {
            return Err(Error::damaged("it does not follow the record before it"));
        }
        let signer = match record.author {
            None => Some(member.clone()),
            Some(author) => self.find_member(&author)?,
        };
        let may_write = signer.is_some_and(|signer| match record.body {
            RecordBody::Fence { generation } => signer.may_prune(generation),
            _ => members::may_write(signer.role, &record),
        });
        if !may_write {
            return Err(Error::damaged("its signer may not write such a record"));
        }
        if let RecordBody::Enrol { public, role, .. } = &record.body
            && self.find_member(&client_id(public))?.is_some_and(|known| known.role != *role)
        {
            // What it wrote was judged by its role, by everybody who has read it.
            return Err(Error::damaged("a client keeps the role with which it was enrolled"));
        }
        let (_, fence) = self.head_and_fence(member)?;
        if record.base < fence && !matches!(record.body, RecordBody::Fence { .. }) {
            return Err(Error::damaged(format!("it does not know prune {fence}, which lies before it")));
        }
        Ok(record)
    }

    pub(in crate::repo) fn in_transaction(&self, work: impl FnOnce(&Transaction<'_>) -> Result<()>) -> Result<()> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
        work(&transaction)?;
        transaction.commit().map_err(failed)
    }
}
