//! Records and prune objects that cannot be read: whose word is enough to stop everybody, and whose is not.
//!
//! Whoever may write to the store can put anything where a record belongs. Most of it is void. But what the owner or a
//! maintainer said and this version or these keys cannot read may be that something was deleted, so that stops.

use super::members::Member;
use crate::crypto::sign::{self, SIGNATURE_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::format::envelope::{Header, ObjectKind};
use crate::format::key::Role;
use crate::repo::sealed::open_object;
use crate::repo::{Repository, cache};

/// What follows from a record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// It says nothing.
    Void,
    /// Its client says something that this version does not know; nothing may be deleted before that is known.
    Unknown,
    /// Nothing can be done without knowing what it says.
    Stop,
}

impl Repository {
    pub(super) fn blame(&self, member: &Member, seq: u64, bytes: &[u8], error: &Error) -> Result<Blame> {
        match error.kind() {
            ErrorKind::Damaged => Ok(Blame::Void),
            ErrorKind::WrongKey => {
                if member.id != self.owner() {
                    self.follow_owner()?;
                }
                Ok(if self.is_announced(bytes)? { Blame::Stop } else { Blame::Void })
            }
            ErrorKind::Unsupported => {
                let Some(signer) = self.signer_of(sign::LOG_RECORD, ObjectKind::Log, bytes)? else { return Ok(Blame::Void) };
                Ok(match signer.role {
                    _ if !signer.counts(seq) => Blame::Void,
                    Role::Owner | Role::Maintainer => Blame::Stop,
                    _ if signer.id == member.id => Blame::Unknown,
                    _ => Blame::Void,
                })
            }
            // Nothing was learnt of the record: the cache or the store failed.
            _ => Ok(Blame::Stop),
        }
    }

    /// True if the owner announced the key generation that the object says it is sealed under; an object of any other
    /// generation is made up.
    pub(in crate::repo) fn is_announced(&self, bytes: &[u8]) -> Result<bool> {
        let Ok(header) = Header::decode(bytes) else { return Ok(false) };
        Ok((1..=cache::members::generation(&self.connection())?).contains(&header.generation))
    }

    /// Who signed the body of an object whose meaning is not known.
    pub(in crate::repo) fn signer_of(&self, context: &str, kind: ObjectKind, bytes: &[u8]) -> Result<Option<Member>> {
        let Ok(body) = open_object(self.keys(), kind, bytes) else { return Ok(None) };
        let Some((signature, map)) = body.split_first_chunk::<SIGNATURE_LEN>() else { return Ok(None) };
        let repository = &self.keys().repository;
        let signed = |member: &Member| sign::verify(&member.public, context, repository, map, signature).is_ok();
        Ok(self.members()?.into_iter().find(signed))
    }

    /// Fails if a client wrote something that this version does not know: it may be that something is needed.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(in crate::repo) fn verify_all_known(&self) -> Result<()> {
        for member in self.members()? {
            let unknown = cache::members::unknown(&self.connection(), &member.id)?;
            if let Some(seq) = unknown.filter(|seq| member.counts(*seq)) {
                let message = format!(
                    "delete what is not needed: record {seq} of the log of {} says something that this version does not know",
                    member.id
                );
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .with_hint("update lifeboat; if that client was broken into, `lifeboat key revoke` it"));
            }
        }
        Ok(())
    }
}
