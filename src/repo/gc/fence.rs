//! Fences: what tells every log of a prune (docs/protocol.md, P3).

use super::prune::Prune;
use crate::error::Result;
use crate::repo::log::Member;
use std::collections::HashSet;

impl Prune<'_> {
    /// Says in every log that what follows must know this prune, and reads them all after that. The owner's comes first:
    /// whoever is enrolled after it begins with a log that must know it too.
    pub(super) fn fence_all(&self, generation: u64) -> Result<()> {
        let mut fenced = HashSet::new();
        loop {
            let mut members = self.repository.members()?;
            members.retain(|member| member.last.is_none() && !fenced.contains(&member.id));
            if members.is_empty() {
                return Ok(());
            }
            let owner = self.repository.owner();
            // The others' fences need nothing of each other.
            let (first, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.id == owner);
            for members in [first, others] {
                let fence = |member: &Member| self.repository.fence(member, generation);
                self.repository.side_by_side(&members, fence).into_iter().collect::<Result<()>>()?;
                fenced.extend(members.iter().map(|member| member.id));
            }
            // Whoever was enrolled before the fence in the owner's log is known now. All other logs are read beside it: once
            // nobody is left, they were read at least up to their fences.
            self.repository.expect_listings(&["packs"]);
            self.repository.refresh(self.observer)?;
        }
    }
}
