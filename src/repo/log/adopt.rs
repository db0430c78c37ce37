//! Starting from a checkpoint: what it says takes the place of records that were not read and may be gone.
//!
//! Whoever has read all logs as far as the checkpoint speaks of them, and before anything of them could have been deleted,
//! needs nothing of it.

use super::apply::{apply_record, note_pack};
use super::follow::object_hash;
use super::members::{Member, may_write};
use crate::crypto::sign::client_id;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::format::log::{Checkpoint, Head, Record, RecordBody, StandingDeed};
use crate::id::ClientId;
use crate::repo::cache::checkpoint::InForce;
use crate::repo::{Repository, cache};
use crate::store::Key;
use rusqlite::Transaction;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Who takes part, by id.
type Members = HashMap<ClientId, Member>;

impl Repository {
    /// Starts from the checkpoint in force, if some log was not read as far as it speaks of it.
    pub(super) fn adopt(&self, observer: &dyn Observer) -> Result<()> {
        loop {
            let Some(checkpoint) = cache::checkpoint::in_force(&self.connection())? else { return Ok(()) };
            if self.floors_not_reached(true)?.is_empty() {
                return Ok(());
            }
            match self.adopt_from(&checkpoint) {
                Ok(true) => return Ok(()),
                Ok(false) => cache::checkpoint::dismiss(&self.connection(), checkpoint.generation)?,
                Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => {
                    // The next truncation may have taken it; else it may be that nothing is gone yet of what it stands for.
                    self.follow_prunes()?;
                    if cache::checkpoint::in_force(&self.connection())?.as_ref() == Some(&checkpoint) {
                        observer.observe(Event::Warning(&error.to_string()));
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Floors of logs that concern this client and that it has not read as far.
    pub(super) fn floors_not_reached(&self, surely: bool) -> Result<Vec<Head>> {
        let mut floors = cache::checkpoint::not_reached(&self.connection(), surely)?;
        if !floors.is_empty() {
            let members: Members = self.members()?.into_iter().map(|member| (member.id, member)).collect();
            let concerning = self.concerning()?;
            floors.retain(|floor| members.get(&floor.client).is_none_or(&concerning));
        }
        Ok(floors)
    }

    /// Fails if a log ends before the floor that a plan gave it.
    pub(super) fn verify_floors(&self) -> Result<()> {
        match self.floors_not_reached(false)?.first() {
            None => Ok(()),
            Some(floor) => Err(Error::damaged(format!(
                "read the log of {}: it ends before record {}, and the checkpoint that stands for what is gone cannot be read",
                floor.client, floor.seq
            ))
            .with_hint("`lifeboat repair --from` fetches it from another copy of the repository")),
        }
    }

    /// Makes the cache say what a checkpoint says; false if it is not the one that its plan means.
    ///
    /// # Errors
    /// `Missing`, `Damaged`.
    pub(in crate::repo) fn adopt_from(&self, in_force: &InForce) -> Result<bool> {
        let Some(checkpoint) = self.load_checkpoint(in_force)? else { return Ok(false) };
        let (mut members, staying) = self.read_staying(&checkpoint.staying)?;
        let me = self.keys().client().ok();
        let concerning = self.concerning_as(me.and_then(|me| members.get(&me)));
        members.retain(|_, member| concerning(member));
        let public_of = |author: &ClientId| Ok(members.get(author).map(|member| member.public));
        let floors: Vec<Head> = in_force.heads.iter().filter(|head| members.contains_key(&head.client)).copied().collect();
        let mut reached = Vec::new();
        for (head, bytes) in floors.iter().zip(self.side_by_side(&floors, |head| self.staying_record(head))) {
            let time = self.open_record_by(&bytes?, &public_of).ok().map(|record| record.time);
            reached.push((*head, time));
        }
        // In one step: whoever else uses the cache sees what it was, or what it is to be.
        self.in_transaction(|transaction| {
            cache::checkpoint::begin_anew(transaction)?;
            for (head, record) in staying.iter().filter(|(head, _)| members.contains_key(&head.client)) {
                apply_record(transaction, record, head, None)?;
            }
            let mut deeds = Vec::new();
            self.each_part(checkpoint, &mut |part| {
                self.apply_part(transaction, part, &members, &mut deeds)?;
                Ok(ControlFlow::Continue(()))
            })?;
            cache::checkpoint::adopt(transaction, in_force.generation, &reached, &deeds)
        })?;
        Ok(true)
    }

    /// The records that stay, and who takes part by them. The owner's come first: they say who the others are.
    fn read_staying(&self, staying: &[Head]) -> Result<(Members, Vec<(Head, Record)>)> {
        let owner = self.owner_member();
        let (own, others): (Vec<Head>, Vec<Head>) = staying.iter().partition(|head| head.client == owner.id);
        let mut members = HashMap::from([(owner.id, owner)]);
        let mut read = Vec::new();
        for (heads, is_owners) in [(own, true), (others, false)] {
            for some in heads.chunks(64) {
                for (head, bytes) in some.iter().zip(self.side_by_side(some, |head| self.staying_record(head))) {
                    let public_of = |author: &ClientId| Ok(members.get(author).map(|member| member.public));
                    let record = self.open_record_by(&bytes?, &public_of)?;
                    let member = members.get(&record.client);
                    let fits = (record.client, record.seq) == (head.client, head.seq) && record.body.is_lasting();
                    if !fits || !member.is_some_and(|member| may_write(member.role, &record)) {
                        return Err(Error::damaged("adopt a checkpoint: a record that is to stay may not be what it is"));
                    }
                    if let (true, Some(member)) = (is_owners, enrolled(&record)) {
                        members.insert(member.id, member);
                    }
                    read.push((*head, record));
                }
            }
        }
        Ok((members, read))
    }

    /// A record that a checkpoint says is there.
    pub(super) fn staying_record(&self, head: &Head) -> Result<Vec<u8>> {
        let key = Key::log(&head.client, head.seq);
        let bytes = self.front_or_duplicate(&key, &head.hash)?;
        let what = || format!("read record {} of the log of {}, which a checkpoint says is there", head.seq, head.client);
        let bytes = bytes.ok_or_else(|| Error::missing(format!("{}: it is gone", what())))?;
        if object_hash(&bytes) == head.hash { Ok(bytes) } else { Err(Error::damaged(format!("{}: it is another one", what()))) }
    }

    fn apply_part(
        &self,
        transaction: &Transaction<'_>,
        part: Checkpoint,
        members: &Members,
        deeds: &mut Vec<StandingDeed>,
    ) -> Result<()> {
        for listed in part.packs.iter().filter(|listed| members.contains_key(&listed.client)) {
            for pack in &listed.packs {
                note_pack(transaction, pack, &listed.client)?;
                if listed.committed {
                    cache::index::commit_pack(transaction, &pack.id)?;
                }
            }
        }
        for (client, sessions) in &part.sessions {
            sessions.iter().try_for_each(|session| cache::log::add_session(transaction, client, session))?;
        }
        part.machines.iter().try_for_each(|machine| cache::checkpoint::add_machine(transaction, machine))?;
        part.pruned.iter().try_for_each(|id| cache::checkpoint::note_pruned(transaction, id))?;
        for bytes in &part.records {
            let record = Record::decode(bytes)?;
            if members.contains_key(&record.client) {
                let head = Head { client: record.client, seq: record.seq, hash: object_hash(bytes) };
                let snapshot = self.snapshot_of(&record)?;
                apply_record(transaction, &record, &head, snapshot.as_ref())?;
            }
        }
        deeds.extend(part.deeds);
        Ok(())
    }
}

/// The client that a record enrols, as far as it matters for who may say what.
fn enrolled(record: &Record) -> Option<Member> {
    let RecordBody::Enrol { public, role, name, trusted, slot } = &record.body else { return None };
    Some(Member {
        id: client_id(public),
        public: *public,
        role: *role,
        name: name.clone(),
        trusted: trusted.clone(),
        last: None,
        ended: None,
        base: record.base,
        first_slot: *slot,
        slot: *slot,
    })
}
