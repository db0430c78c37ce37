//! Every codec gives back what it took, and takes nothing that it would not give back.

#[path = "parts/checkpoint.rs"]
mod checkpoint;

use lifeboat::error::Result;
use lifeboat::format::cbor::{Decoder, Encoder};
use lifeboat::format::envelope::{Header, ObjectKind, pad_body, padme, unpad_body};
use lifeboat::format::gc::PruneObject;
use lifeboat::format::index::{IndexEntry, IndexObject};
use lifeboat::format::key::{Bundle, Generation, Role};
use lifeboat::format::log::{Head, PackRef, Record, RecordBody, RecordRef, SealedSnapshot};
use lifeboat::format::pack::{
    BlockEntry, BlockRow, Codec, Footer, SealEntry, TableEntry, Toc, decode_head, encode_head, padded_pack_len,
};
use lifeboat::format::repository::{ChunkSizes, RepositoryFormat};
use lifeboat::format::snapshot::{Counts, Failure, Snapshot};
use lifeboat::format::tree::{
    ChunkRef, ChunkType, Class, Content, Hole, ListPage, Node, NodeKind, Page, PageRef, Time, Xattr, decode_node, decode_page,
    encode_inner, encode_leaf, encode_node,
};
use lifeboat::id::{ChunkId, ClientId, Fingerprint, IndexId, ObjectHash, PackId, RepositoryId, SessionId, SlotId, SnapshotId};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// What bytes become when they are decoded and encoded again, for each structure.
fn again(which: usize, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match which {
        0 => out = Header::decode(bytes)?.encode().to_vec(),
        1 => {
            let (node, length) = decode_node(bytes)?;
            encode_node(&node, &mut out);
            out.extend_from_slice(&bytes[length..]);
        }
        2 => match decode_page(bytes)? {
            Page::Leaf(nodes) => {
                let mut joined = Vec::new();
                nodes.iter().for_each(|node| encode_node(node, &mut joined));
                encode_leaf(&joined, nodes.len(), &mut out);
            }
            Page::Inner { depth, pages } => encode_inner(depth, &pages, &mut out),
        },
        3 => ListPage::decode(bytes)?.encode(&mut out),
        4 => out = Snapshot::decode(bytes)?.encode(),
        5 => out = Record::decode(bytes)?.encode(),
        6 => out = Bundle::decode(bytes)?.encode().to_vec(),
        7 => out = Toc::decode(bytes, 3)?.encode(),
        8 => {
            let (header, seals) = decode_head(bytes)?;
            out = encode_head(&header, &seals);
            out.extend_from_slice(&bytes[out.len()..]);
        }
        9 => out = Footer::decode(bytes)?.encode().to_vec(),
        10 => out = IndexObject::decode(bytes)?.encode(),
        11 => out = PruneObject::decode(ObjectKind::Condemn, bytes)?.encode(),
        12 => out = pad_body(unpad_body(bytes)?),
        _ => {
            let format = RepositoryFormat::decode(bytes)?;
            out = if format.read_only { bytes.to_vec() } else { format.encode() };
        }
    }
    Ok(out)
}

const CODECS: usize = 14;

/// Encoded bytes survive; damaged ones never panic, and are refused or mean just themselves.
fn holds(which: usize, bytes: &[u8], damage: &[(usize, u8)]) {
    assert_eq!(again(which, bytes).unwrap(), bytes);
    let mut damaged = bytes.to_vec();
    for (at, value) in damage {
        let at = at % bytes.len();
        damaged[at] ^= value;
        let trailing = if which == 0 { 64 } else { damaged.len() };
        if let Ok(back) = again(which, &damaged) {
            assert_eq!(back, damaged[..trailing.min(damaged.len())]);
        }
        if which != 1 && which != 8 && which != 0 {
            assert!(again(which, &bytes[..at]).is_err(), "cut at {at}");
        }
    }
}

fn damage() -> impl Strategy<Value = Vec<(usize, u8)>> {
    vec((any::<usize>(), 1u8..), 1..20)
}

fn id() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn text() -> impl Strategy<Value = String> {
    "[ -~é]{0,12}"
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..40)
        .prop_filter("a name", |name| name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, 0 | b'/')))
}

fn time() -> impl Strategy<Value = Time> {
    let secs = prop_oneof![any::<i64>(), -2_000_000_000..4_000_000_000i64, select(vec![i64::MIN, i64::MAX, 0])];
    (secs, 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time { secs, nanos })
}

fn extra() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let value = any::<i64>().prop_map(|value| {
        let mut out = Vec::new();
        Encoder(&mut out).int(value);
        out
    });
    btree_map(65u64.., value, 0..3).prop_map(|map| map.into_iter().collect())
}

fn holes() -> impl Strategy<Value = Vec<Hole>> {
    vec((1u64..1 << 30, 1u64..1 << 30), 0..4).prop_map(|gaps| {
        let mut at = 0;
        let hole = |(gap, len)| {
            let hole = Hole { offset: at + gap, len };
            at = hole.offset + len;
            hole
        };
        gaps.into_iter().map(hole).collect()
    })
}

fn content() -> impl Strategy<Value = Content> {
    let reference = || (id(), 1u64..1 << 40).prop_map(|(id, len)| ChunkRef { id: ChunkId(id), len });
    prop_oneof![
        vec(reference(), 0..=16).prop_map(Content::Chunks),
        (0u8..=8, reference()).prop_map(|(depth, root)| Content::List { depth, root }),
    ]
}

prop_compose! {
    fn node()(
        name in name(), code in 1u8..=7, mode in 0u32..=0o7777, owner in any::<(u32, u32)>(), names in (vec(any::<u8>(), 0..9), vec(any::<u8>(), 0..9)),
        times in (time(), of(time()), of(time()), of(time())), content in content(), mut holes in holes(),
        (page, target, device, link) in (id(), vec(1u8.., 1..99), any::<(u32, u32)>(), of(any::<(u64, u64)>())),
        (xattrs, flags, unstable, extra) in (btree_map(vec(1u8.., 1..9), vec(any::<u8>(), 0..99), 0..3), any::<u32>(), any::<bool>(), extra()),
    ) -> Node {
        let kind = NodeKind::from_code(code).unwrap();
        let file = kind == NodeKind::File;
        let data = match &content {
            Content::Chunks(chunks) => chunks.iter().map(|chunk| chunk.len).sum::<u64>(),
            Content::List { root, .. } => root.len,
        };
        let end = holes.last().map_or(0, |hole| hole.offset + hole.len);
        let outside = end - holes.iter().map(|hole| hole.len).sum::<u64>();
        if outside > data || !file {
            holes.clear();
        }
        let size = if file { data + holes.iter().map(|hole| hole.len).sum::<u64>() } else { 0 };
        Node {
            name, kind, mode, uid: owner.0, gid: owner.1, user: names.0, group: names.1,
            mtime: times.0, ctime: times.1, btime: times.2, atime: times.3, size,
            content: if file { content } else { Content::default() },
            holes,
            target: if kind == NodeKind::Symlink { target } else { Vec::new() },
            subtree: (kind == NodeKind::Directory).then_some(ChunkId(page)),
            device: matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice).then_some(device),
            link: link.filter(|_| kind != NodeKind::Directory),
            xattrs: xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect(),
            flags, unstable, extra,
        }
    }
}

fn seal() -> impl Strategy<Value = SealEntry> {
    (any::<[u8; 16]>(), any::<bool>(), any::<u32>(), id(), vec(any::<u8>(), 0..300)).prop_map(
        |(session, data, generation, commit, wrapped)| SealEntry {
            session: SessionId(session),
            class: if data { Class::Data } else { Class::Meta },
            generation,
            commit,
            wrapped,
        },
    )
}

fn block(class: Class) -> impl Strategy<Value = BlockEntry> {
    let chunks = vec((0u32..100_000, any::<[u8; 16]>()), 1..9);
    (0u16..3, any::<u64>(), 2u8..=4, any::<bool>(), chunks).prop_map(move |(seal, number, code, raw, chunks)| {
        let kind = if class == Class::Data { ChunkType::Data } else { ChunkType::from_code(code).unwrap() };
        let raw_len: u32 = chunks.iter().map(|chunk| chunk.0).sum();
        let (codec, packed_len) = if raw { (Codec::Raw, raw_len) } else { (Codec::Zstd, raw_len / 3) };
        let chunks: Vec<TableEntry> = chunks.into_iter().map(|(len, prefix)| TableEntry { len, prefix }).collect();
        BlockEntry { row: BlockRow { seal, number, kind, codec, raw_len, packed_len }, chunks: chunks.into() }
    })
}

fn sealed_snapshot() -> impl Strategy<Value = SealedSnapshot> {
    (vec(any::<u8>(), 0..99), any::<u64>(), 0u8..2, any::<(u32, u32)>(), vec(any::<u8>(), 0..99)).prop_map(
        |(seal, number, codec, lengths, sealed)| SealedSnapshot {
            seal,
            number,
            codec,
            raw_len: lengths.0,
            packed_len: lengths.1,
            sealed,
        },
    )
}

fn pack_refs() -> impl Strategy<Value = Vec<PackRef>> {
    let pack = |(id, (size, toc_len))| PackRef { id: PackId(id), size, toc_len };
    btree_map(id(), (0u64..=256 << 20, 0u32..=64 << 20), 0..4).prop_map(move |map| map.into_iter().map(pack).collect())
}

fn pack_ids() -> impl Strategy<Value = Vec<PackId>> {
    btree_set(id(), 0..4).prop_map(|ids| ids.into_iter().map(PackId).collect())
}

fn indexes() -> impl Strategy<Value = Vec<IndexId>> {
    vec(id().prop_map(IndexId), 0..3)
}

fn heads() -> impl Strategy<Value = Vec<Head>> {
    let head = |(client, (seq, hash))| Head { client: ClientId(client), seq, hash: ObjectHash(hash) };
    btree_map(any::<[u8; 16]>(), any::<(u64, [u8; 32])>(), 0..4).prop_map(move |map| map.into_iter().map(head).collect())
}

fn records() -> impl Strategy<Value = Vec<RecordRef>> {
    let record = |(client, seq)| RecordRef { client: ClientId(client), seq };
    btree_set(any::<([u8; 16], u64)>(), 1..4).prop_map(move |set| set.into_iter().map(record).collect())
}

fn commits() -> impl Strategy<Value = RecordBody> {
    let snapshot = (id(), sealed_snapshot(), pack_refs(), indexes(), vec(any::<[u8; 16]>().prop_map(SessionId), 0..3)).prop_map(
        |(id, snapshot, packs, indexes, sessions)| RecordBody::Snapshot {
            id: SnapshotId(id),
            snapshot,
            packs,
            indexes,
            sessions,
        },
    );
    prop_oneof![
        snapshot,
        (pack_refs(), of((id().prop_map(SnapshotId), sealed_snapshot())))
            .prop_map(|(packs, checkpoint)| RecordBody::Claim { packs, checkpoint }),
        checkpoint::checkpoint().prop_map(RecordBody::Checkpoint),
    ]
}

fn body() -> impl Strategy<Value = RecordBody> {
    let clients = btree_set(any::<[u8; 16]>(), 0..3).prop_map(|ids| ids.into_iter().map(ClientId).collect());
    let hashes = btree_set(id(), 0..3).prop_map(|ids| ids.into_iter().map(ObjectHash).collect());
    let prefixes = btree_set(any::<[u8; 16]>(), 0..3).prop_map(|prefixes| prefixes.into_iter().collect());
    let role = select(vec![Role::Writer, Role::Maintainer, Role::Reader, Role::Owner]);
    prop_oneof![
        3 => commits(),
        1 => id().prop_map(|hash| RecordBody::Genesis { format: ObjectHash(hash) }),
        1 => any::<u64>().prop_map(|generation| RecordBody::Fence { generation }),
        1 => records().prop_map(|records| RecordBody::Forget { records }),
        1 => records().prop_map(|records| RecordBody::Unforget { records }),
        1 => (records(), text()).prop_map(|(records, reason)| RecordBody::Hold { records, reason }),
        1 => records().prop_map(|records| RecordBody::Unhold { records }),
        1 => (id(), role, text(), clients, of(any::<[u8; 16]>().prop_map(SlotId)))
            .prop_map(|(public, role, name, trusted, slot)| RecordBody::Enrol { public, role, name, trusted, slot }),
        1 => (any::<[u8; 16]>(), any::<u64>()).prop_map(|(id, last)| RecordBody::Revoke { client: ClientId(id), last }),
        1 => (any::<u32>(), hashes).prop_map(|(number, base)| RecordBody::Generation { number, base }),
        1 => pack_ids().prop_map(|packs| RecordBody::Attest { packs }),
        1 => (any::<[u8; 16]>(), any::<bool>(), text(), text())
            .prop_map(|(id, added, label, recipient)| RecordBody::Slot { id: SlotId(id), added, label, recipient }),
        1 => (indexes(), pack_ids()).prop_map(|(indexes, packs)| RecordBody::Index { indexes, packs }),
        1 => (pack_ids(), prefixes).prop_map(|(packs, chunks)| RecordBody::Lost { packs, chunks }),
    ]
}

prop_compose! {
    fn record()(
        client in any::<[u8; 16]>(), author in any::<[u8; 16]>(), seq in any::<u64>(), previous in id(), time in any::<i64>(),
        heads in heads(), base in any::<u64>(), body in body(), extra in extra(),
    ) -> Record {
        let previous = (seq > 0).then_some(ObjectHash(previous));
        let foreign = matches!(body, RecordBody::Fence { .. }) && author != client;
        let author = foreign.then_some(ClientId(author));
        Record { client: ClientId(client), seq, previous, time, heads, base, body, author, extra }
    }
}

type GenerationParts = ([u8; 32], Option<([u8; 32], [u8; 32])>, Vec<String>, bool, Vec<(u64, Vec<u8>)>);

fn generation() -> impl Strategy<Value = GenerationParts> {
    (id(), of(any::<([u8; 32], [u8; 32])>()), vec("[a-z0-9]{1,20}", 4), any::<bool>(), extra())
}

/// Secrets have no `Debug`, so a strategy cannot make them by itself.
fn make_generation(number: u32, (key, shared, texts, held, extra): GenerationParts) -> Generation {
    Generation {
        number,
        index: key,
        shared_data: shared.map(|shared| shared.0),
        shared_meta: shared.map(|shared| shared.1),
        vault_data: texts[0].clone(),
        vault_meta: texts[1].clone(),
        identity_data: held.then(|| texts[2].clone()),
        identity_meta: held.then(|| texts[3].clone()),
        extra,
    }
}

prop_compose! {
    fn snapshot()(
        root in id(), words in vec(text(), 5), parent in of(id()), paths in vec(vec(any::<u8>(), 0..20), 0..3),
        tags in btree_set(text(), 0..3), times in any::<(i64, i64)>(), files in any::<u64>(),
        failures in vec((vec(any::<u8>(), 0..9), text()), 0..3), incomplete in any::<bool>(),
        metadata in btree_map(text(), text(), 0..3), retain_until in of(1i64..), extra in extra(),
    ) -> Snapshot {
        Snapshot {
            root: ChunkId(root), kind: words[0].clone(), parent: parent.map(SnapshotId), host: words[1].clone(), paths,
            tags: tags.into_iter().collect(), description: words[2].clone(), start: times.0, end: times.1,
            counts: Counts { files, bytes_stored: files / 3, ..Counts::default() },
            failure_count: failures.len() as u64 * 2,
            failures: failures.into_iter().map(|(path, reason)| Failure { path, reason }).collect(),
            version: words[3].clone(), user: words[4].clone(), incomplete, metadata: metadata.into_iter().collect(), retain_until, extra,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn nodes_and_leaves_come_back_as_they_were(nodes in vec(node(), 0..6), damage in damage()) {
        let mut sorted = nodes;
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        sorted.dedup_by(|a, b| a.name == b.name);
        let mut joined = Vec::new();
        for node in &sorted {
            let start = joined.len();
            encode_node(node, &mut joined);
            let (back, length) = decode_node(&joined[start..]).unwrap();
            prop_assert_eq!((&back, start + length), (node, joined.len()));
            holds(1, &joined[start..], &damage);
        }
        let mut page = Vec::new();
        encode_leaf(&joined, sorted.len(), &mut page);
        prop_assert_eq!(decode_page(&page).unwrap(), Page::Leaf(sorted));
        holds(2, &page, &damage);
    }

    #[test]
    fn pages_above_leaves_come_back_as_they_were(
        depth in 1u8..=8, refs in btree_map(vec(any::<u8>(), 0..30), (id(), any::<u64>()), 1..20), damage in damage()
    ) {
        let pages: Vec<PageRef> = refs.into_iter().map(|(first, (id, count))| PageRef { id: ChunkId(id), first, count }).collect();
        let mut bytes = Vec::new();
        encode_inner(depth, &pages, &mut bytes);
        prop_assert_eq!(decode_page(&bytes).unwrap(), Page::Inner { depth, pages });
        holds(2, &bytes, &damage);
    }

    #[test]
    fn list_pages_come_back_as_they_were(depth in 0u8..=8, refs in vec((id(), 1u64..1 << 57), 1..50), damage in damage()) {
        let refs = refs.into_iter().map(|(id, len)| ChunkRef { id: ChunkId(id), len }).collect();
        let page = ListPage { depth, refs };
        let mut bytes = Vec::new();
        page.encode(&mut bytes);
        prop_assert_eq!(ListPage::decode(&bytes).unwrap(), page);
        holds(3, &bytes, &damage);
    }

    #[test]
    fn snapshots_come_back_as_they_were(snapshot in snapshot(), damage in damage()) {
        prop_assert_eq!(&Snapshot::decode(&snapshot.encode()).unwrap(), &snapshot);
        holds(4, &snapshot.encode(), &damage);
    }

    #[test]
    fn records_come_back_as_they_were(record in record(), damage in damage()) {
        prop_assert_eq!(&Record::decode(&record.encode()).unwrap(), &record);
        holds(5, &record.encode(), &damage);
    }

    #[test]
    fn bundles_come_back_as_they_were(
        role in select(vec![Role::Writer, Role::Owner]), repository in any::<([u8; 16], [u8; 16])>(), seed in of(id()), domain in of(id()),
        names in of(any::<[[u8; 32]; 4]>()), generations in vec(generation(), 1..3), extra in extra(), damage in damage()
    ) {
        let generations = (1..).zip(generations).map(|(number, parts)| make_generation(number, parts)).collect();
        let (repository, fingerprint) = (RepositoryId(repository.0), Fingerprint(repository.1));
        let bundle = Bundle { role, repository, fingerprint, signing_seed: seed, domain, names, generations, extra };
        holds(6, &bundle.encode(), &damage);
    }

    #[test]
    fn tables_of_contents_come_back_as_they_were(
        data in any::<bool>(), place in any::<(u16, u32)>(), damage in damage(),
        (of_data, of_meta) in (vec(block(Class::Data), 0..6), vec(block(Class::Meta), 0..6)),
    ) {
        let toc = Toc { first_block: place.0.into(), padding: place.1, blocks: if data { of_data } else { of_meta } };
        prop_assert_eq!(&Toc::decode(&toc.encode(), 3).unwrap(), &toc);
        holds(7, &toc.encode(), &damage);
    }

    #[test]
    fn fronts_and_footers_of_packs_come_back_as_they_were(
        generation in any::<u32>(), salt in id(), seals in vec(seal(), 0..4), toc_len in 0u32..=64 << 20, damage in damage()
    ) {
        let header = Header { kind: ObjectKind::Pack, generation, salt };
        let bytes = encode_head(&header, &seals);
        prop_assert_eq!(decode_head(&bytes).unwrap(), (header.clone(), seals));
        holds(0, &header.encode(), &damage);
        holds(8, &bytes, &damage);
        holds(9, &Footer { commit: salt, toc_len }.encode(), &damage);
    }

    #[test]
    fn index_objects_come_back_as_they_were(
        level in 0u8..2, packs in btree_set(id(), 1..4), rows in btree_set(any::<([u8; 16], u32, u32)>(), 0..30), damage in damage()
    ) {
        let packs: Vec<PackId> = packs.into_iter().map(PackId).collect();
        let entries = rows.into_iter().map(|(prefix, block, chunk)| IndexEntry { prefix, pack: packs.len() as u32 - 1, block, chunk });
        let index = IndexObject { level, range: ([0; 16], [255; 16]), entries: entries.collect(), packs };
        prop_assert_eq!(&IndexObject::decode(&index.encode()).unwrap(), &index);
        holds(10, &index.encode(), &damage);
    }

    #[test]
    fn prune_objects_come_back_as_they_were(
        client in any::<[u8; 16]>(), generation in any::<u64>(), packs in pack_ids(), heads in heads(), time in any::<i64>(),
        previous in of(id()), place in of((any::<u64>(), id())), damage in damage()
    ) {
        let previous = previous.map(ObjectHash);
        let object = PruneObject { client: ClientId(client), generation, packs, heads, time, previous, checkpoint: None };
        prop_assert_eq!(&PruneObject::decode(ObjectKind::Condemn, &object.encode()).unwrap(), &object);
        let plan = PruneObject { checkpoint: place.map(|(seq, hash)| (seq, ObjectHash(hash))), ..object.clone() };
        prop_assert_eq!(PruneObject::decode(ObjectKind::Condemn, &plan.encode()).is_ok(), plan.checkpoint.is_none());
        prop_assert_eq!(PruneObject::decode(ObjectKind::Plan, &plan.encode()).ok(), plan.previous.map(|_| plan.clone()));
        prop_assert_eq!(PruneObject::decode(ObjectKind::Plan, &object.encode()).is_ok(), object.previous.is_some());
        holds(11, &object.encode(), &damage);
    }

    #[test]
    fn format_objects_come_back_as_they_were(
        ids in any::<([u8; 16], [u8; 32])>(), low in 8u32..14, normalisation in 0u8..=3, level in -7i32..=22,
        created in any::<i64>(), damage in damage()
    ) {
        let chunks = ChunkSizes { minimum: 1 << (low - 2), average: 1 << low, maximum: 1 << (low + 2), normalisation };
        let (id, owner) = (RepositoryId(ids.0), ids.1);
        let sizes = (1 << 20, 32 << 20);
        let format = RepositoryFormat { id, owner, chunks, block_target: sizes.0, pack_target: sizes.1, level, created, read_only: false };
        prop_assert_eq!(&RepositoryFormat::decode(&format.encode()).unwrap(), &format);
        holds(13, &format.encode(), &damage);
    }

    #[test]
    fn bodies_come_out_of_their_padding_as_they_were(body in vec(any::<u8>(), 0..2000), damage in damage()) {
        let padded = pad_body(&body);
        prop_assert_eq!(unpad_body(&padded).unwrap(), &body[..]);
        holds(12, &padded, &damage);
    }

    #[test]
    fn no_decoder_panics_or_takes_what_it_would_not_write(bytes in vec(any::<u8>(), 0..200), which in 1..CODECS) {
        if let Ok(back) = again(which, &bytes) {
            prop_assert_eq!(back, bytes);
        }
    }

    #[test]
    fn padded_lengths_are_never_shorter_and_at_most_an_eighth_longer(length in 2u64..1 << 50, target in 1u64 << 20..1 << 27) {
        prop_assert!((length..=length + length / 8).contains(&padme(length)), "{}", padme(length));
        prop_assert_eq!(padme(padme(length)), padme(length));
        prop_assert!(padded_pack_len(length, target) >= length);
    }

    #[test]
    fn integers_of_every_width_come_back_as_they_were(number in any::<i64>(), shift in 0u32..64) {
        let mut out = Vec::new();
        Encoder(&mut out).int(number >> shift);
        Encoder(&mut out).uint(number.cast_unsigned() >> shift);
        let mut decoder = Decoder::new(&out, "integers");
        prop_assert_eq!(decoder.int().unwrap(), number >> shift);
        prop_assert_eq!(decoder.uint().unwrap(), number.cast_unsigned() >> shift);
        prop_assert!(decoder.end().is_ok());
    }
}

#[test]
fn lengths_that_ask_for_more_than_there_is_are_refused_before_anything_is_allocated() {
    // An array, a map, a byte string, and a text that say they have 2^60 members.
    for first in [0x9b, 0xbb, 0x5b, 0x7b] {
        let bytes = [first, 0x10, 0, 0, 0, 0, 0, 0, 0];
        assert!(Decoder::new(&bytes, "a length").any().is_err());
    }
    let mut toc = vec![0; 8];
    toc.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(Toc::decode(&toc, 1).is_err());
}

#[test]
fn nesting_beyond_sixteen_levels_is_refused() {
    let nested = |depth: usize| [vec![0x81; depth], vec![0]].concat();
    assert!(Decoder::new(&nested(15), "arrays").any().is_ok());
    assert!(Decoder::new(&nested(16), "arrays").any().is_err());
    assert!(Decoder::new(&nested(100_000), "arrays").any().is_err());
}

#[test]
fn a_record_of_a_kind_of_a_later_version_says_to_update() {
    let record = Record {
        client: ClientId([1; 16]),
        seq: 0,
        previous: None,
        time: 0,
        heads: Vec::new(),
        base: 0,
        body: RecordBody::Fence { generation: 1 },
        author: None,
        extra: Vec::new(),
    };
    let mut bytes = record.encode();
    let kind = bytes.windows(2).position(|pair| pair == [6, 3]).unwrap();
    bytes[kind + 1] = 16;
    let error = Record::decode(&bytes).unwrap_err();
    assert_eq!(error.kind(), lifeboat::error::ErrorKind::Unsupported);
    assert!(error.hint().contains("update"), "{}", error.hint());
}

#[test]
fn a_format_object_with_chunks_of_no_size_is_refused() {
    let chunks = ChunkSizes { minimum: 0, average: 0, maximum: 0, normalisation: 0 };
    let (id, owner) = (RepositoryId([1; 16]), [2; 32]);
    let format = RepositoryFormat {
        id,
        owner,
        chunks,
        block_target: 1 << 20,
        pack_target: 32 << 20,
        level: 3,
        created: 0,
        read_only: false,
    };
    assert!(RepositoryFormat::decode(&format.encode()).is_err());
}
