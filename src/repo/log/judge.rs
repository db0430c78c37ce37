//! What becomes of a snapshot that records forgot, wanted again, or hold: a pure rule, the same for every reader,
//! whatever the order in which the logs were read, and without any clock.
//!
//! A record takes back only what it has seen: an unforget ends the forgets that lie before it in its own log or below
//! the heads that it names, and no other; holds and unholds likewise. A hold that stands outweighs every forget. A
//! snapshot that a published plan saw as forgotten is gone, because its packs may be.

use crate::format::log::RecordRef;
use crate::id::ClientId;
use std::collections::BTreeMap;

/// How far each log had been read by somebody.
pub(in crate::repo) type Seen = BTreeMap<ClientId, u64>;

/// What a record does to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::repo) enum Deed {
    Forget,
    Unforget,
    Hold,
    Unhold,
}

impl Deed {
    pub(in crate::repo) fn code(self) -> u8 {
        match self {
            Self::Forget => 4,
            Self::Unforget => 5,
            Self::Hold => 6,
            Self::Unhold => 7,
        }
    }

    pub(in crate::repo) fn from_code(code: u8) -> Option<Self> {
        [Self::Forget, Self::Unforget, Self::Hold, Self::Unhold].into_iter().find(|deed| deed.code() == code)
    }
}

/// One record's deed to the snapshot in question.
#[derive(Debug, Clone)]
pub(in crate::repo) struct Judgement {
    pub(in crate::repo) by: RecordRef,
    pub(in crate::repo) deed: Deed,
    /// What the record had seen of other logs.
    pub(in crate::repo) seen: Seen,
}

impl Judgement {
    pub(in crate::repo) fn knew(&self, other: RecordRef) -> bool {
        if self.by.client == other.client {
            return self.by.seq > other.seq;
        }
        self.seen.get(&other.client).is_some_and(|upto| *upto >= other.seq)
    }
}

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is kept.
    Live,
    /// It is kept, and cannot be forgotten before its hold ends.
    Held,
    /// It was forgotten, and can be wanted again until a prune has run.
    Forgotten,
    /// It was forgotten and pruned: its content may be gone.
    Pruned,
}

fn stands(judgements: &[Judgement], deed: Deed, undone_by: Deed, view: impl Fn(RecordRef) -> bool + Copy) -> bool {
    let visible = |wanted: Deed| judgements.iter().filter(move |j| j.deed == wanted && view(j.by));
    visible(deed).any(|done| !visible(undone_by).any(|undo| undo.knew(done.by)))
}

fn forgotten(judgements: &[Judgement], view: impl Fn(RecordRef) -> bool + Copy) -> bool {
    stands(judgements, Deed::Forget, Deed::Unforget, view) && !stands(judgements, Deed::Hold, Deed::Unhold, view)
}

/// The standing of a snapshot to which `judgements` were done, after `plans` were published, each with what it saw.
pub(in crate::repo) fn standing(judgements: &[Judgement], plans: &[Seen]) -> Standing {
    let saw = |plan: &Seen, record: RecordRef| plan.get(&record.client).is_some_and(|upto| *upto >= record.seq);
    if plans.iter().any(|plan| forgotten(judgements, |record| saw(plan, record))) {
        return Standing::Pruned;
    }
    if stands(judgements, Deed::Hold, Deed::Unhold, |_| true) {
        return Standing::Held;
    }
    if forgotten(judgements, |_| true) { Standing::Forgotten } else { Standing::Live }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(client: u8, seq: u64) -> RecordRef {
        RecordRef { client: ClientId([client; 16]), seq }
    }

    fn judgement(client: u8, seq: u64, deed: Deed, seen: &[(u8, u64)]) -> Judgement {
        let seen = seen.iter().map(|(client, upto)| (ClientId([*client; 16]), *upto)).collect();
        Judgement { by: record(client, seq), deed, seen }
    }

    #[test]
    fn an_unforget_ends_only_the_forgets_that_it_has_seen() {
        let forget = judgement(1, 5, Deed::Forget, &[]);
        let later = judgement(2, 3, Deed::Unforget, &[(1, 5)]);
        let earlier = judgement(2, 3, Deed::Unforget, &[(1, 4)]);
        assert_eq!(standing(&[forget.clone(), later], &[]), Standing::Live);
        assert_eq!(standing(&[forget.clone(), earlier], &[]), Standing::Forgotten);
        assert_eq!(standing(&[judgement(1, 6, Deed::Unforget, &[]), forget], &[]), Standing::Live);
    }

    #[test]
    fn a_hold_outweighs_forgets_that_came_before_and_after() {
        let hold = judgement(2, 0, Deed::Hold, &[]);
        let forget = judgement(1, 5, Deed::Forget, &[(2, 0)]);
        assert_eq!(standing(&[forget.clone(), hold.clone()], &[]), Standing::Held);
        let plan = Seen::from([(ClientId([1; 16]), 5), (ClientId([2; 16]), 0)]);
        assert_eq!(standing(&[forget.clone(), hold.clone()], &[plan]), Standing::Held);
        assert_eq!(standing(&[hold, forget, judgement(2, 1, Deed::Unhold, &[])], &[]), Standing::Forgotten);
    }

    #[test]
    fn what_a_plan_saw_as_forgotten_cannot_come_back() {
        let forget = judgement(1, 5, Deed::Forget, &[]);
        let unforget = judgement(1, 6, Deed::Unforget, &[]);
        let both = [forget, unforget];
        let plan = |upto| vec![Seen::from([(ClientId([1; 16]), upto)])];
        assert_eq!(standing(&both, &plan(5)), Standing::Pruned);
        assert_eq!(standing(&both, &plan(6)), Standing::Live);
        assert_eq!(standing(&both, &plan(4)), Standing::Live);
    }

    #[test]
    fn the_order_in_which_records_are_read_changes_nothing() {
        let all = [
            judgement(1, 5, Deed::Forget, &[(2, 1)]),
            judgement(2, 2, Deed::Unforget, &[(1, 5)]),
            judgement(1, 7, Deed::Forget, &[(2, 2)]),
            judgement(3, 0, Deed::Hold, &[(1, 7)]),
        ];
        let mut reversed = all.to_vec();
        reversed.reverse();
        assert_eq!(standing(&all, &[]), standing(&reversed, &[]));
        assert_eq!(standing(&all[..3], &[]), Standing::Forgotten);
    }
}
