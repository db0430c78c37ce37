//! Who takes part: the owner, and the clients that the owner's log enrolled.

use crate::crypto::sign::client_id;
use crate::error::Result;
use crate::format::key::Role;
use crate::format::log::{Record, RecordBody};
use crate::id::ClientId;
use crate::repo::Repository;
use crate::repo::cache;

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
    /// Clients whose packs it takes as known, besides its own, ascending.
    pub trusted: Vec<ClientId>,
    /// Once it was revoked: its last record that counts.
    pub last: Option<u64>,
    /// Records of its log must know at least this prune generation: the one that its enrolment knew.
    pub base: u64,
}

impl Member {
    /// True if the record at `seq` of its log counts.
    #[must_use]
    pub fn counts(&self, seq: u64) -> bool {
        self.last.is_none_or(|last| seq <= last)
    }
}

impl Repository {
    /// Everybody who has a log: the owner first, then in the order of enrolment.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn members(&self) -> Result<Vec<Member>> {
        let public = self.inner.format.owner;
        let owner = Member {
            id: client_id(&public),
            public,
            role: Role::Owner,
            name: String::new(),
            trusted: Vec::new(),
            last: None,
            base: 0,
        };
        let mut members = vec![owner];
        members.extend(cache::members::all(&self.connection())?);
        Ok(members)
    }

    /// Clients whose packs this one takes as known.
    pub(in crate::repo) fn trusting(&self) -> Result<Vec<ClientId>> {
        self.trusted_by(&self.keys().client()?)
    }

    /// Clients on whose packs `client` relies: itself, those that it was enrolled to trust, and the owner, who has all
    /// keys anyway and verifies what a prune rewrites.
    pub(in crate::repo) fn trusted_by(&self, client: &ClientId) -> Result<Vec<ClientId>> {
        let member = self.members()?.into_iter().find(|member| member.id == *client);
        let trusted = member.map(|member| member.trusted).unwrap_or_default();
        Ok(trusted.into_iter().chain([*client, self.owner()]).collect())
    }
}

/// True if a client of this role may write such a record.
pub(super) fn may_write(role: Role, record: &Record) -> bool {
    match record.body {
        RecordBody::Genesis { .. }
        | RecordBody::Enrol { .. }
        | RecordBody::Revoke { .. }
        | RecordBody::Generation { .. }
        | RecordBody::Slot { .. } => role == Role::Owner,
        RecordBody::Fence { .. }
        | RecordBody::Forget { .. }
        | RecordBody::Unforget { .. }
        | RecordBody::Unhold { .. }
        | RecordBody::Checkpoint { .. }
        | RecordBody::Index { .. } => matches!(role, Role::Owner | Role::Maintainer),
        RecordBody::Attest { .. } => matches!(role, Role::Owner | Role::Reader),
        RecordBody::Lost { .. } => role != Role::Writer,
        RecordBody::Snapshot { .. } | RecordBody::Claim { .. } | RecordBody::Hold { .. } => true,
    }
}
