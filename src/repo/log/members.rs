//! Who takes part: the owner, and the clients that the owner's log enrolled.

use crate::crypto::sign::client_id;
use crate::error::Result;
use crate::format::key::Role;
use crate::format::log::{Head, Record, RecordBody};
use crate::id::{ClientId, SlotId};
use crate::repo::Repository;
use crate::repo::cache;

/// Among trusted clients, stands for all of them: those too that are enrolled later.
pub const EVERYBODY: ClientId = ClientId([0; 16]);
/// Among trusted clients, stands for packs of all of them that a reader has vouched for.
pub const ATTESTED: ClientId = ClientId([0xff; 16]);

/// A client that has a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: ClientId,
    /// Its public key.
    pub public: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// What it is called; empty for the owner.
    pub name: String,
    /// Clients whose packs it takes as known, besides its own, ascending; [`EVERYBODY`] stands for all, [`ATTESTED`] for all
    /// that a reader has vouched for.
    pub trusted: Vec<ClientId>,
    /// Once it was revoked: its last record that counts.
    pub last: Option<u64>,
    /// Once it was revoked: the last prune generation that it may have had a part in.
    pub ended: Option<u64>,
    /// Records of its log must know at least this prune generation: the one that its enrolment knew.
    pub base: u64,
    /// The key slot with which it was enrolled first.
    pub first_slot: Option<SlotId>,
    /// Its key slot now.
    pub slot: Option<SlotId>,
}

impl Member {
    /// True if the record at `seq` of its log counts.
    #[must_use]
    pub fn counts(&self, seq: u64) -> bool {
        self.last.is_none_or(|last| seq <= last)
    }

    /// True if it may have a part in this prune generation.
    pub(in crate::repo) fn may_prune(&self, generation: u64) -> bool {
        matches!(self.role, Role::Owner | Role::Maintainer) && self.ended.is_none_or(|ended| generation <= ended)
    }
}

impl Repository {
    /// Everybody who has a log: the owner first, then in the order of enrolment.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn members(&self) -> Result<Vec<Member>> {
        let mut members = vec![self.owner_member()];
        members.extend(cache::members::all(&self.connection())?);
        Ok(members)
    }

    /// Whoever has the log of this id.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn find_member(&self, id: &ClientId) -> Result<Option<Member>> {
        if *id == self.owner() {
            return Ok(Some(self.owner_member()));
        }
        cache::members::find(&self.connection(), id)
    }

    pub(super) fn owner_member(&self) -> Member {
        let public = self.inner.format.owner;
        Member {
            id: client_id(&public),
            public,
            role: Role::Owner,
            name: String::new(),
            trusted: Vec::new(),
            last: None,
            ended: None,
            base: 0,
            first_slot: None,
            slot: None,
        }
    }

    /// How far a member's log was read, and its fence: the prune generation that whatever comes next in it must know. Before
    /// its first record that is what its enrolment knew.
    pub(super) fn head_and_fence(&self, member: &Member) -> Result<(Option<Head>, u64)> {
        let known = cache::log::head(&self.connection(), &member.id)?;
        Ok(known.map_or((None, member.base), |(head, fence)| (Some(head), fence)))
    }

    /// Whose logs this client needs to read. A writer needs its own, those of clients whose packs it may rely on, and those
    /// of others who can say something about its snapshots and packs; so what a backup costs need not grow with the number
    /// of writers. Everybody else reads all.
    pub(super) fn concerning(&self) -> Result<impl Fn(&Member) -> bool + use<>> {
        let me = self.keys().client().ok().filter(|_| self.role() == Role::Writer);
        let member = me.map(|me| self.find_member(&me)).transpose()?.flatten();
        Ok(self.concerning_as(member.as_ref()))
    }

    /// The same for a client whose enrolment is `member`.
    pub(super) fn concerning_as(&self, member: Option<&Member>) -> impl Fn(&Member) -> bool + use<> {
        let me = self.keys().client().ok().filter(|_| self.role() == Role::Writer);
        let trusted = member.map(|member| member.trusted.clone()).unwrap_or_default();
        move |member: &Member| {
            let is_trusted = || trusted.contains(&EVERYBODY) || trusted.contains(&ATTESTED) || trusted.contains(&member.id);
            me.is_none() || member.role != Role::Writer || Some(member.id) == me || is_trusted()
        }
    }

    /// True if this client reads the log of that one.
    pub(super) fn is_concerned(&self, client: &ClientId) -> Result<bool> {
        // One that is not known may have been enrolled a moment ago.
        Ok(self.find_member(client)?.as_ref().is_none_or(self.concerning()?))
    }

    /// Clients whose packs this one takes as known.
    pub(in crate::repo) fn trusting(&self) -> Result<Vec<ClientId>> {
        self.trusted_by(&self.keys().client()?)
    }

    /// Clients on whose packs `client` relies: itself, those that it was enrolled to trust and that were not revoked, and
    /// the owner, who has all keys anyway and verifies what a prune rewrites.
    pub(in crate::repo) fn trusted_by(&self, client: &ClientId) -> Result<Vec<ClientId>> {
        let members = self.members()?;
        let trusted = members.iter().find(|member| member.id == *client).map_or(&[][..], |member| &member.trusted);
        let others = members.iter().filter(|member| {
            member.last.is_none() && (trusted.contains(&EVERYBODY) || trusted.contains(&member.id)) && member.id != *client
        });
        let others: Vec<ClientId> = others.map(|member| member.id).filter(|id| *id != self.owner()).collect();
        Ok(others.into_iter().chain([*client, self.owner()]).collect())
    }
}

/// True if a client of this role may write such a record.
pub(super) fn may_write(role: Role, record: &Record) -> bool {
    match record.body {
        RecordBody::Genesis { .. }
        | RecordBody::Enrol { .. }
        | RecordBody::Revoke { .. }
        | RecordBody::Generation { .. }
        | RecordBody::Checkpoint(_)
        | RecordBody::Slot { .. } => role == Role::Owner,
        RecordBody::Fence { .. }
        | RecordBody::Forget { .. }
        | RecordBody::Unforget { .. }
        | RecordBody::Unhold { .. }
        | RecordBody::Index { .. } => matches!(role, Role::Owner | Role::Maintainer),
        RecordBody::Attest { .. } => matches!(role, Role::Owner | Role::Reader),
        RecordBody::Lost { .. } => role != Role::Writer,
        RecordBody::Snapshot { .. } => matches!(role, Role::Owner | Role::Writer),
        RecordBody::Claim { .. } => role != Role::Reader,
        RecordBody::Hold { .. } => true,
    }
}
