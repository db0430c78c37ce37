//! What still counts of records that a client wrote after its revocation: the packs that they list. Somebody else may
//! have relied on these before knowing of it.

use super::members::Member;
use crate::error::Result;
use crate::format::log::{Head, RecordBody};
use crate::repo::{Repository, cache};

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
        let unread: Vec<_> = packs.iter().filter(|pack| self.index_pack(pack, &member.id).is_err()).collect();
        self.in_transaction(|transaction| {
            unread.iter().try_for_each(|pack| cache::index::add_unread(transaction, pack, &member.id))
        })
    }
}
