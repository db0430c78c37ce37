//! Clients: who takes part besides the owner, in which role, and until when.

use crate::crypto::derive::{Secret, client_seed};
use crate::crypto::sign::ClientKey;
use crate::crypto::wrap;
use crate::error::{Error, ErrorKind, Result};
use crate::format::key::{Bundle, Role};
use crate::format::log::RecordBody;
use crate::id::{ClientId, SlotId};
use crate::repo::log::{ATTESTED, EVERYBODY, Member};
use crate::repo::roles::{Act, bundle_for};
use crate::repo::slots::{MAX_SLOT, find_slot};
use crate::repo::{Access, NewSlot, Repository, cache};
use crate::store::Key;

/// A client to enrol.
pub struct Enrolment {
    /// What it may do.
    pub role: Role,
    /// To whom its keys are sealed.
    pub slot: NewSlot,
    /// What it is called; may be empty.
    pub name: String,
    /// Clients on whose packs it relies, by id or name; `all` stands for everybody, those too that come later, `attested`
    /// for everybody's packs that a reader has vouched for, `none` for nobody.
    pub trust: Vec<String>,
}

/// A client that was enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Its id.
    pub client: ClientId,
    /// Its key slot.
    pub slot: SlotId,
}

/// A client as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Who it is.
    pub member: Member,
    /// Its newest record and its time, nanoseconds since 1970 by its own clock.
    pub last_record: Option<(u64, i64)>,
    /// Records of its log that are void.
    pub void: u64,
    /// Machines that use its identity at the same time; more than one if it was cloned.
    pub machines: u64,
    /// Kind of the recipient to which its slot is sealed, such as `X25519`.
    pub kinds: Vec<String>,
    /// True if it is the one whose keys are at hand.
    pub current: bool,
}

impl Repository {
    /// Enrols a client: a slot with just the keys of its role, then the records that make it known.
    ///
    /// # Errors
    /// `Refused` if the keys at hand are not the owner's, `Usage` for a recipient or a name that cannot be used.
    pub fn enrol(&self, access: &Access, enrolment: &Enrolment) -> Result<Enrolled> {
        self.permit(Act::ManageKeys)?;
        if enrolment.role == Role::Owner {
            return Err(
                Error::usage("enrol a client: there is one owner").with_hint("`lifeboat key add` makes another way in for it")
            );
        }
        let (name, members) = (enrolment.name.trim(), self.members()?);
        let is_word = ["all", "attested", "none"].contains(&name);
        if is_word || members.iter().any(|member| !name.is_empty() && member.name == name && member.last.is_none()) {
            return Err(
                Error::usage(format!("enrol a client called {name:?}: the name is taken")).with_hint("choose another --name")
            );
        }
        let mut trusted = enrolment
            .trust
            .iter()
            .filter(|text| *text != "none")
            .map(|text| trusted(&members, text))
            .collect::<Result<Vec<_>>>()?;
        trusted.sort_unstable();
        trusted.dedup();
        let (_, owner) = find_slot(self.store(), access, self.fingerprint())?;
        let slot = SlotId(self.keys().surroundings.random()?);
        let seed = self.seed_of(&owner, &slot)?;
        let public = ClientKey::from_seed(&seed.0).public();
        let bundle = bundle_for(&owner, enrolment.role, Some(seed));
        self.put_slot_as(slot, &bundle, &enrolment.slot, name)?;
        let (role, name) = (enrolment.role, name.to_owned());
        self.append(RecordBody::Enrol { public, role, name, trusted, slot: Some(slot) })?;
        Ok(Enrolled { client: crate::crypto::sign::client_id(&public), slot })
    }

    /// The signing seed of the client that was enrolled with this slot.
    pub(super) fn seed_of(&self, owner: &Bundle, slot: &SlotId) -> Result<Secret> {
        let seed = owner.signing_seed.map(Secret);
        let seed = seed.ok_or_else(|| Error::damaged("read the owner's keys: the signing seed is missing"))?;
        Ok(client_seed(&seed, &owner.repository, slot))
    }

    /// Everybody who takes part, the owner first.
    ///
    /// # Errors
    /// `Failed` if the store or the cache cannot be read.
    pub fn clients(&self) -> Result<Vec<ClientInfo>> {
        let me = self.keys().client().ok();
        let members = self.members()?;
        let info = |member: Member| -> Result<ClientInfo> {
            let wrapped = match member.slot {
                Some(slot) if member.last.is_none() => self.store().get(&Key::slot(&slot), MAX_SLOT).ok(),
                _ => None,
            };
            let connection = self.connection();
            let head = cache::log::head(&connection, &member.id)?.map(|(head, _)| head.seq);
            let (time, void) = cache::members::last_record(&connection, &member.id)?.unwrap_or_default();
            Ok(ClientInfo {
                last_record: head.map(|seq| (seq, time)),
                void,
                machines: cache::members::machines(&connection, &member.id)?,
                kinds: wrapped.map(|wrapped| wrap::recipient_kinds(&wrapped)).unwrap_or_default(),
                current: me == Some(member.id),
                member,
            })
        };
        members.into_iter().map(info).collect()
    }

    /// Ends a client's part: what its log says after the record `last` counts no more, and its slot is deleted. `last` is
    /// the newest record that was seen, unless an earlier one is named: that is for a client that was broken into.
    ///
    /// # Errors
    /// `Missing` if there is no such client, `Refused` if it is the owner or the keys at hand are not the owner's,
    /// `InUse` while a prune that the client began is not finished.
    pub fn revoke(&self, name: &str, last: Option<u64>) -> Result<ClientId> {
        self.permit(Act::ManageKeys)?;
        let member = find_client(&self.members()?, name)?;
        let refused = |why: &str| Error::new(ErrorKind::Refused, format!("revoke the client {name}: {why}"));
        if member.id == self.owner() {
            return Err(refused("it is the owner").with_hint("without an owner nobody could ever be enrolled or revoked again"));
        }
        if member.last.is_some() && last.is_none() {
            return Err(refused("it was revoked before").with_hint("`lifeboat key list` shows it"));
        }
        let head = cache::log::head(&self.connection(), &member.id)?.map(|(head, _)| head.seq);
        if head.is_none() {
            // Of an empty log nothing counts, but a number must be said: this takes the place.
            self.fence(&member, self.known_prune()?)?;
        }
        let last = last.or(head).unwrap_or(0);
        let seen_by_prunes =
            cache::prune::plans(&self.connection(), 0)?.iter().filter_map(|plan| plan.get(&member.id).copied()).max();
        if let Some(floor) = seen_by_prunes.filter(|floor| last < *floor) {
            return Err(refused(&format!("a prune relied on its records up to {floor}"))
                .with_hint(format!("--last {floor} is the least; what it wrote before can be forgotten")));
        }
        let prunes = matches!(member.role, Role::Maintainer);
        let still_valid = || {
            self.follow_prunes()?;
            match cache::prune::newest(&self.connection())? {
                Some(row) if prunes && row.plan.is_none() && row.condemn.is_some() => {
                    Err(Error::new(ErrorKind::InUse, format!("revoke the client {name}: a prune is not finished"))
                        .with_hint("run `lifeboat prune` with another key first; it brings that one to its end"))
                }
                _ => Ok(()),
            }
        };
        self.append_if(RecordBody::Revoke { client: member.id, last }, &still_valid)?;
        if let Some(slot) = member.slot {
            self.drop_slot(&slot)?;
        }
        Ok(member.id)
    }
}

fn trusted(members: &[Member], text: &str) -> Result<ClientId> {
    match text {
        "all" => Ok(EVERYBODY),
        "attested" => Ok(ATTESTED),
        _ => find_client(members, text).map(|member| member.id),
    }
}

/// The client that is called `text`, or whose id begins with it.
fn find_client(members: &[Member], text: &str) -> Result<Member> {
    let hint = "`lifeboat key list` shows who takes part";
    if let Some(member) = members.iter().rfind(|member| !text.is_empty() && member.name == text && member.last.is_none()) {
        return Ok(member.clone());
    }
    let mut found = members
        .iter()
        .filter(|member| text.len() >= 4 && member.id.to_string().starts_with(text) || !text.is_empty() && member.name == text);
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member.clone()),
        (Some(_), Some(_)) => Err(Error::usage(format!("find the client {text}: several are meant")).with_hint(hint)),
        _ => Err(Error::missing(format!("find the client {text:?}: there is none of that name or id")).with_hint(hint)),
    }
}
