//! What still counts of records that a client wrote after its revocation: the packs that they list. Somebody else may
//! have relied on these before knowing of it.

use super::apply::note_pack;
use super::members::Member;
use crate::error::Result;
use crate::format::log::{Head, RecordBody};
use crate::repo::Repository;

impl Repository {
    /// Lists the packs of a record that is void for no other reason than that its client was revoked.
    pub(super) fn list_revoked(&self, member: &Member, head: Option<Head>, bytes: &[u8]) -> Result<()> {
        if member.counts(head.map_or(0, |head| head.seq + 1)) {
            return Ok(());
        }
        let record = self.open_record(bytes).and_then(|record| self.judge_record(member, head, record));
        let Ok(record) = record else { return Ok(()) };
        let packs = match record.body {
            RecordBody::Snapshot { packs, .. } | RecordBody::Claim { packs, .. } => packs,
            _ => return Ok(()),
        };
        self.in_transaction(|transaction| packs.iter().try_for_each(|pack| note_pack(transaction, pack, &member.id)))
    }
}
