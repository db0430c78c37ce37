//! Making the cache say what records say.

use super::judge::Deed;
use super::members::Member;
use super::open_snapshot;
use crate::crypto::sign::client_id;
use crate::error::Result;
use crate::format::log::{Head, PackRef, Record, RecordBody, RecordRef, SealedSnapshot};
use crate::format::pack::SealEntry;
use crate::id::{ClientId, SessionId};
use crate::repo::Repository;
use crate::repo::cache::{self, CachedSnapshot};
use rusqlite::Transaction;

impl Repository {
    /// Changes the cache if it is at `head` with this log, and only then: what lies behind another place may follow what
    /// the cache no longer says. `change` is told of the newest fence there; false if nothing was done.
    pub(super) fn go_on(
        &self,
        member: &Member,
        head: Option<Head>,
        change: &mut dyn FnMut(&Transaction<'_>, u64) -> Result<()>,
    ) -> Result<bool> {
        let mut is_there = false;
        self.in_transaction(|transaction| {
            let (known, fence) =
                cache::log::head(transaction, &member.id)?.map_or((None, member.base), |(at, fence)| (Some(at), fence));
            is_there = known == head;
            if is_there { change(transaction, fence) } else { Ok(()) }
        })?;
        Ok(is_there)
    }

    /// Makes the cache say what a verified record says that lies at `place`; false if it is no longer at `before`.
    pub(super) fn apply(&self, member: &Member, record: &Record, before: Option<Head>, place: &Head) -> Result<bool> {
        let snapshot = self.snapshot_of(record)?;
        self.go_on(member, before, &mut |transaction, fence| {
            let fence = match record.body {
                RecordBody::Fence { generation } => fence.max(generation),
                _ => fence,
            };
            apply_record(transaction, record, place, snapshot.as_ref())?;
            cache::log::set_head(transaction, place, fence, Some(record.time))
        })
    }

    /// The snapshot, or the checkpoint of one, that a record carries.
    pub(super) fn snapshot_of(&self, record: &Record) -> Result<Option<CachedSnapshot>> {
        let (id, sealed, session) = match &record.body {
            RecordBody::Snapshot { id, snapshot, .. } => (id, snapshot, None),
            RecordBody::Claim { checkpoint: Some((id, sealed)), .. } => (id, sealed, Some(session_of(sealed)?)),
            _ => return Ok(None),
        };
        let body = open_snapshot(self.keys(), id, sealed).ok();
        let sealed = record.encode();
        Ok(Some(CachedSnapshot { id: *id, client: record.client, seq: record.seq, session, sealed, body, time: record.time }))
    }
}

/// Notes that `client` lists a pack, unless a prune has removed it.
pub(super) fn note_pack(transaction: &Transaction<'_>, pack: &PackRef, client: &ClientId) -> Result<()> {
    if cache::index::list_pack(transaction, &pack.id, client)? || cache::prune::is_gone(transaction, &pack.id)? {
        return Ok(());
    }
    cache::unread::add(transaction, pack, client)
}

fn session_of(sealed: &SealedSnapshot) -> Result<SessionId> {
    SealEntry::decode(&sealed.seal).map(|(entry, _)| entry.session)
}

/// Makes the cache say what a verified record says, but for how far its log was read. `snapshot` is what it carries.
pub(super) fn apply_record(
    transaction: &Transaction<'_>,
    record: &Record,
    place: &Head,
    snapshot: Option<&CachedSnapshot>,
) -> Result<()> {
    if let Some(snapshot) = snapshot {
        if let Some(session) = &snapshot.session {
            cache::log::supersede(transaction, &record.client, session, record.seq)?;
        }
        cache::log::add_snapshot(transaction, snapshot)?;
    }
    let packs = match &record.body {
        RecordBody::Snapshot { packs, .. } | RecordBody::Claim { packs, .. } => packs.as_slice(),
        _ => &[][..],
    };
    // Their tables of contents are read at the end of the refresh, or when one of their chunks is looked for.
    packs.iter().try_for_each(|pack| note_pack(transaction, pack, &record.client))?;
    apply_body(transaction, record)?;
    if record.body.is_lasting() {
        cache::checkpoint::note_lasting(transaction, place, record.body.code())?;
    }
    match super::instance::of(record) {
        Some(instance) => cache::members::add_instance(transaction, &record.client, &instance, record.seq),
        None => Ok(()),
    }
}

fn apply_body(transaction: &Transaction<'_>, record: &Record) -> Result<()> {
    let place = RecordRef { client: record.client, seq: record.seq };
    let judge = |deed: Deed, records: &[RecordRef], reason: &str| {
        cache::log::add_judgements(transaction, (place, deed), &record.heads, records, reason)
    };
    match &record.body {
        RecordBody::Snapshot { sessions, packs, .. } => {
            packs.iter().try_for_each(|pack| cache::index::commit_pack(transaction, &pack.id))?;
            sessions.iter().try_for_each(|session| {
                cache::log::supersede(transaction, &record.client, session, record.seq)?;
                cache::log::add_session(transaction, &record.client, session)
            })
        }
        RecordBody::Slot { id, added, label, recipient } => {
            cache::log::set_slot(transaction, id, *added, (label, recipient), record.time)
        }
        RecordBody::Forget { records } => judge(Deed::Forget, records, ""),
        RecordBody::Unforget { records } => judge(Deed::Unforget, records, ""),
        RecordBody::Hold { records, reason } => judge(Deed::Hold, records, reason),
        RecordBody::Unhold { records } => judge(Deed::Unhold, records, ""),
        RecordBody::Enrol { public, role, name, trusted, slot } => {
            let id: ClientId = client_id(public);
            let (name, trusted, base) = (name.clone(), trusted.clone(), record.base);
            let (public, role, slot) = (*public, *role, *slot);
            let member = Member { id, public, role, name, trusted, last: None, ended: None, base, first_slot: slot, slot };
            cache::members::enrol(transaction, &member, record.seq)
        }
        RecordBody::Revoke { client, last } => cache::members::revoke(transaction, client, *last, record.base),
        RecordBody::Generation { number, .. } => cache::members::set_generation(transaction, *number),
        RecordBody::Fence { generation } => {
            cache::members::note_fence(transaction, &record.author.unwrap_or(record.client), *generation)
        }
        RecordBody::Index { indexes, packs } => cache::shards::add_set(transaction, place, indexes, packs),
        RecordBody::Attest { packs } => packs.iter().try_for_each(|pack| cache::log::add_attested(transaction, pack, &place)),
        RecordBody::Lost { packs, chunks } => cache::damage::tell_lost(transaction, packs, chunks),
        _ => Ok(()),
    }
}
