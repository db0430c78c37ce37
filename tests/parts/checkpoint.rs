//! Checkpoints of logs that mean nothing.

use super::{heads, id, pack_refs};
use lifeboat::format::log::{Checkpoint, Head, ListedPacks, Machine, RecordRef, StandingDeed};
use lifeboat::id::{ClientId, InstanceId, ObjectHash, SessionId, SnapshotId};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

pub(super) fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let place = || any::<([u8; 16], u64)>().prop_map(|(client, seq)| RecordRef { client: ClientId(client), seq });
    let listed = (any::<[u8; 16]>(), any::<bool>(), pack_refs());
    let listed = listed.prop_map(|(client, committed, packs)| ListedPacks { client: ClientId(client), committed, packs });
    let staying = btree_map(place(), id(), 0..3).prop_map(|map| {
        map.into_iter().map(|(at, hash)| Head { client: at.client, seq: at.seq, hash: ObjectHash(hash) }).collect()
    });
    let ids = vec(any::<[u8; 16]>().prop_map(SessionId), 0..3);
    let sessions = btree_map(any::<[u8; 16]>(), ids, 0..3);
    let sessions = sessions.prop_map(|map| map.into_iter().map(|(client, ids)| (ClientId(client), ids)).collect());
    let deed = (place(), place(), any::<bool>(), "[a-z]{0,9}");
    let deed = deed.prop_map(|(snapshot, by, hold, reason)| StandingDeed { snapshot, by, hold, reason });
    let machine = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u64>(), any::<u64>())
        .prop_map(|(client, id, first, last)| Machine { client: ClientId(client), instance: InstanceId(id), first, last });
    let pruned = btree_set(id().prop_map(SnapshotId), 0..3).prop_map(|set| set.into_iter().collect());
    let parts = btree_map(any::<u64>(), id().prop_map(ObjectHash), 0..3).prop_map(|map| map.into_iter().collect());
    let records = vec(vec(any::<u8>(), 0..9), 0..3);
    let deeds = btree_set(deed, 0..3).prop_map(|set| set.into_iter().collect());
    let machines = btree_set(machine, 0..3).prop_map(|set| set.into_iter().collect());
    (records, vec(listed, 0..3), staying, heads(), sessions, deeds, machines, (pruned, parts)).prop_map(
        |(records, packs, staying, heads, sessions, deeds, machines, (pruned, parts))| Checkpoint {
            records,
            packs,
            staying,
            heads,
            sessions,
            deeds,
            machines,
            pruned,
            parts,
        },
    )
}
