//! Rotation: a new generation of keys for everybody who takes part.
//!
//! First the owner's log says that there is a new generation, then slots that hold it replace the old ones, the owner's
//! own first. Whoever is interrupted in between runs it again: that makes one more generation, and loses none.

use crate::crypto::sign::ClientKey;
use crate::crypto::wrap;
use crate::error::{Error, ErrorKind, Result};
use crate::format::key::Bundle;
use crate::format::log::RecordBody;
use crate::id::{ObjectHash, SlotId};
use crate::repo::log::Member;
use crate::repo::roles::{Act, bundle_for};
use crate::repo::slots::{MAX_SLOT, credentials, find_slot, list_slots, new_generation, open_slot};
use crate::repo::{Access, NewSlot, Repository, cache};
use crate::store::Key;
use std::collections::HashMap;
use zeroize::Zeroizing;

/// How keys are rotated.
#[derive(Default)]
pub struct RotateOptions {
    /// Passphrases of slots that are sealed with one.
    pub passphrases: Vec<Zeroizing<String>>,
    /// Run the plugins that recipients in the log name.
    pub run_plugins: bool,
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
}

/// What becomes of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotFate {
    /// It is replaced by this one, which holds the new generation.
    Renewed(SlotId),
    /// It is deleted: its client was revoked.
    Removed,
    /// It stays without the new generation, for this reason.
    Kept(&'static str),
}

/// What a rotation did to one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedSlot {
    /// The slot.
    pub id: SlotId,
    /// Whose it is: a client's name or label, empty for the owner's.
    pub name: String,
    /// What became of it.
    pub fate: SlotFate,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateReport {
    /// Number of the new generation.
    pub generation: u32,
    /// Every slot.
    pub slots: Vec<RotatedSlot>,
}

/// A slot and what is to be done about it.
struct Planned {
    id: SlotId,
    label: String,
    member: Option<Member>,
    action: Result<Option<NewSlot>, &'static str>,
}

impl Repository {
    /// Starts a new generation of keys. The domain stays, so that everything is still deduplicated, and old objects stay
    /// readable.
    ///
    /// # Errors
    /// `Refused` if the keys at hand are not the owner's.
    pub fn rotate(&self, access: &Access, options: &RotateOptions) -> Result<RotateReport> {
        let dry_run = options.dry_run;
        self.permit(Act::ManageKeys)?;
        let (current, mut owner) = find_slot(self.store(), access, self.fingerprint())?;
        let held = owner.generations.last().map_or(0, |generation| generation.number);
        let number = held.max(self.announced_generation()?).checked_add(1);
        let number = number.ok_or_else(|| Error::failed("rotate the keys: there were too many generations"))?;
        let members = self.members()?;
        let slots_of = |member: &Member| [member.first_slot, member.slot].into_iter().flatten();
        let holders: HashMap<SlotId, &Member> =
            members.iter().rev().flat_map(|member| slots_of(member).map(move |slot| (slot, member))).collect();
        let mut planned = Vec::new();
        for id in list_slots(self.store())? {
            let holder = holders.get(&id).copied().cloned();
            planned.push(self.plan_slot(&id, holder, id == current, (access, options))?);
        }
        planned.sort_by_key(|slot| (slot.id != current, slot.member.is_some(), slot.id));
        let mut report = RotateReport { generation: number, slots: Vec::new() };
        if !dry_run {
            owner.generations.push(new_generation(number, &self.keys().surroundings)?);
            let heads = cache::log::heads(&self.connection())?;
            let mut base: Vec<ObjectHash> = heads.iter().map(|head| head.hash).collect();
            base.sort_unstable();
            self.append(RecordBody::Generation { number, base })?;
        }
        for slot in planned {
            let fate = if dry_run { preview(&slot) } else { self.replace(&owner, &slot)? };
            let name = slot.member.map_or(slot.label, |member| member.name);
            report.slots.push(RotatedSlot { id: slot.id, name, fate });
        }
        Ok(report)
    }

    /// The newest generation that the owner's log tells of.
    pub(super) fn announced_generation(&self) -> Result<u32> {
        cache::members::generation(&self.connection())
    }

    /// Fails if the keys at hand are older than those that the owner announced: nothing new may be sealed with them.
    ///
    /// # Errors
    /// `WrongKey`.
    pub(super) fn verify_current_keys(&self) -> Result<()> {
        let (held, announced) = (self.keys().newest().number, self.announced_generation()?);
        if held >= announced {
            return Ok(());
        }
        let message =
            format!("back up: keys were rotated to generation {announced}, and the slot at hand holds only up to {held}");
        Err(Error::new(ErrorKind::WrongKey, message).with_hint(
            "ask the owner for a new slot: `lifeboat key rotate` renews those it can, `lifeboat key enrol` makes others",
        ))
    }

    fn plan_slot(
        &self,
        id: &SlotId,
        member: Option<Member>,
        is_current: bool,
        (access, options): (&Access, &RotateOptions),
    ) -> Result<Planned> {
        let said = cache::log::slot(&self.connection(), id)?;
        let (label, recipient) = said.map(|(label, recipient, _)| (label, recipient)).unwrap_or_default();
        let wrapped = self.store().get(&Key::slot(id), MAX_SLOT)?;
        let is_passphrase = wrap::recipient_kinds(&wrapped) == ["scrypt"];
        let opening = options.passphrases.iter().chain(&access.passphrase).find(|passphrase| {
            let access = Access { identity: None, passphrase: Some((*passphrase).clone()) };
            is_passphrase && credentials(&access).is_ok_and(|credentials| open_slot(&wrapped, &credentials).is_ok())
        });
        let action = match (&member, opening) {
            (Some(member), _) if member.last.is_some() => Ok(None),
            (_, Some(passphrase)) => Ok(Some(NewSlot::Passphrase(passphrase.clone()))),
            _ if is_passphrase => Err("its passphrase was not given"),
            _ if wrap::needs_plugin(&recipient) && !options.run_plugins => Err("a plugin would have to be run to seal it"),
            _ if !recipient.is_empty() => Ok(Some(NewSlot::Recipient(recipient))),
            _ if is_current => Err("the log does not say to whom it is sealed"),
            _ => Err("the log does not know it"),
        };
        Ok(Planned { id: *id, label, member, action })
    }

    fn replace(&self, owner: &Bundle, planned: &Planned) -> Result<SlotFate> {
        let slot = match &planned.action {
            Err(why) => return Ok(SlotFate::Kept(why)),
            Ok(None) => {
                self.drop_slot(&planned.id)?;
                return Ok(SlotFate::Removed);
            }
            Ok(Some(slot)) => slot,
        };
        let Some(member) = &planned.member else {
            let new = self.put_slot(owner, slot, &planned.label)?;
            self.drop_slot(&planned.id)?;
            return Ok(SlotFate::Renewed(new));
        };
        let first = member.first_slot.ok_or_else(|| Error::failed("renew a slot: the log does not say whose it is"))?;
        let seed = self.seed_of(owner, &first)?;
        if ClientKey::from_seed(&seed.0).public() != member.public {
            return Ok(SlotFate::Kept("its client made its signing key itself"));
        }
        let new = self.put_slot(&bundle_for(owner, member.role, Some(seed)), slot, &planned.label)?;
        let (name, trusted) = (member.name.clone(), member.trusted.clone());
        self.append(RecordBody::Enrol { public: member.public, role: member.role, name, trusted, slot: Some(new) })?;
        self.drop_slot(&planned.id)?;
        Ok(SlotFate::Renewed(new))
    }
}

fn preview(planned: &Planned) -> SlotFate {
    match &planned.action {
        Ok(Some(_)) => SlotFate::Renewed(planned.id),
        Ok(None) => SlotFate::Removed,
        Err(why) => SlotFate::Kept(why),
    }
}

/// The error for an object whose keys the slot at hand does not hold.
pub(super) fn too_old(number: u32) -> Error {
    let message = format!("open an object of key generation {number}: the slot at hand does not hold it");
    Error::new(ErrorKind::WrongKey, message).with_hint(
        "keys were rotated after this slot was made; `lifeboat key rotate` by the owner renews it, or ask for a new one",
    )
}
