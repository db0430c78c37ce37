//! What a reader refuses, field by field: what is left out when it is empty must not stand, nor what belongs to another kind.

mod support;

use lifeboat::format::cbor::{Decoder, Encoder};
use lifeboat::format::log::{Record, RecordBody, RecordRef};
use lifeboat::format::snapshot::Snapshot;
use lifeboat::format::tree::{ChunkRef, Content, ListPage, Node, NodeKind, decode_node, decode_page, encode_node};
use lifeboat::id::{ChunkId, ClientId, PackId, SlotId};
use std::collections::BTreeMap;
use support::counterfeit::leaf;

/// The fields of a map, encoded.
fn fields(map: &[u8]) -> BTreeMap<u64, Vec<u8>> {
    let mut decoder = Decoder::new(map, "a map");
    let mut entries = decoder.map().unwrap();
    let mut fields = BTreeMap::new();
    while let Some(key) = entries.key(&mut decoder).unwrap() {
        fields.insert(key, decoder.any().unwrap().to_vec());
    }
    fields
}

fn map(fields: &BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    assert!(fields.len() < 24);
    let mut out = vec![0xa0 | u8::try_from(fields.len()).unwrap()];
    for (key, value) in fields {
        let mut encoder = Encoder(&mut out);
        encoder.uint(*key);
        encoder.encoded(value);
    }
    out
}

/// The map with one field more, or with another value in it.
fn with(bytes: &[u8], key: u64, value: &[u8]) -> Vec<u8> {
    let mut changed = fields(bytes);
    changed.insert(key, value.to_vec());
    map(&changed)
}

fn without(bytes: &[u8], key: u64) -> Vec<u8> {
    let mut changed = fields(bytes);
    changed.remove(&key);
    map(&changed)
}

const ZERO: &[u8] = &[0x00];
const NO_BYTES: &[u8] = &[0x40];
const NO_TEXT: &[u8] = &[0x60];
const NO_ARRAY: &[u8] = &[0x80];
const FALSE: &[u8] = &[0xf4];

fn encoded(node: &Node) -> Vec<u8> {
    let mut out = Vec::new();
    encode_node(node, &mut out);
    out
}

fn plain(kind: NodeKind) -> Node {
    let node = Node::new(b"name".to_vec(), kind);
    match kind {
        NodeKind::Directory => Node { subtree: Some(ChunkId([1; 32])), ..node },
        NodeKind::Symlink => Node { target: b"there".to_vec(), ..node },
        NodeKind::CharDevice | NodeKind::BlockDevice => Node { device: Some((1, 2)), ..node },
        _ => node,
    }
}

#[test]
fn optional_fields_of_nodes_do_not_stand_when_they_are_empty() {
    let file = encoded(&plain(NodeKind::File));
    decode_node(&file).unwrap();
    let empty =
        [(5, NO_BYTES), (6, NO_BYTES), (11, ZERO), (13, NO_ARRAY), (15, NO_ARRAY), (20, NO_ARRAY), (21, ZERO), (22, FALSE)];
    for (key, value) in empty {
        assert!(decode_node(&with(&file, key, value)).is_err(), "key {key}");
    }
    // The lengths of one chunk are not said again.
    let chunk = ChunkRef { id: ChunkId([1; 32]), len: 5 };
    let one = encoded(&Node { size: 5, content: Content::Chunks(vec![chunk]), ..plain(NodeKind::File) });
    decode_node(&one).unwrap();
    assert!(decode_node(&with(&one, 13, &[0x81, 0x05])).is_err());
    assert!(decode_node(&with(&encoded(&plain(NodeKind::Symlink)), 16, NO_BYTES)).is_err());
}

#[test]
fn fields_of_another_kind_of_node_do_not_stand() {
    let id = [&[0x58, 0x20][..], &[1; 32]].concat();
    let fields: [(u64, Vec<u8>, &[NodeKind]); 8] = [
        (11, vec![0x05], &[NodeKind::File]),
        (12, NO_BYTES.to_vec(), &[NodeKind::File]),
        (14, [&[0x83, 0x00][..], &id, &[0x00]].concat(), &[]),
        (15, vec![0x82, 0x00, 0x01], &[]),
        (16, vec![0x41, b'x'], &[NodeKind::Symlink]),
        (17, id, &[NodeKind::Directory]),
        (18, vec![0x82, 0x01, 0x02], &[NodeKind::CharDevice, NodeKind::BlockDevice]),
        (
            19,
            vec![0x82, 0x01, 0x02],
            &[NodeKind::File, NodeKind::Symlink, NodeKind::Fifo, NodeKind::Socket, NodeKind::CharDevice, NodeKind::BlockDevice],
        ),
    ];
    let kinds =
        [NodeKind::Directory, NodeKind::Symlink, NodeKind::Fifo, NodeKind::Socket, NodeKind::CharDevice, NodeKind::BlockDevice];
    for kind in kinds {
        let bytes = encoded(&plain(kind));
        decode_node(&bytes).unwrap();
        for (key, value, fitting) in &fields {
            assert_eq!(decode_node(&with(&bytes, *key, value)).is_ok(), fitting.contains(&kind), "{kind:?} with key {key}");
        }
    }
    for (kind, key) in [(NodeKind::File, 12), (NodeKind::Directory, 17), (NodeKind::Symlink, 16), (NodeKind::BlockDevice, 18)] {
        assert!(decode_node(&without(&encoded(&plain(kind)), key)).is_err(), "{kind:?} without key {key}");
    }
}

#[test]
fn optional_fields_of_pages_and_snapshots_do_not_stand_when_they_are_empty() {
    let page = leaf(&[]);
    decode_page(&page).unwrap();
    assert!(decode_page(&with(&page, 0, ZERO)).is_err());
    let mut list = Vec::new();
    ListPage { depth: 0, refs: vec![ChunkRef { id: ChunkId([1; 32]), len: 5 }] }.encode(&mut list);
    ListPage::decode(&list).unwrap();
    assert!(ListPage::decode(&with(&list, 0, ZERO)).is_err());
    assert!(ListPage::decode(&with(&list, 2, &[0x81, 0x00])).is_err(), "no chunk is empty");
    let snapshot = Snapshot::empty().encode();
    Snapshot::decode(&snapshot).unwrap();
    for (key, value) in [(5, NO_ARRAY), (6, NO_TEXT), (10, NO_ARRAY), (11, ZERO), (13, NO_TEXT), (14, FALSE), (15, NO_ARRAY)] {
        assert!(Snapshot::decode(&with(&snapshot, key, value)).is_err(), "key {key}");
    }
}

#[test]
fn optional_fields_of_records_do_not_stand_when_they_are_empty() {
    let client = ClientId([1; 16]);
    let record = |body| {
        let heads = Vec::new();
        Record { client, seq: 0, previous: None, time: 1, heads, base: 0, body, author: None, extra: Vec::new() }.encode()
    };
    let fence = record(RecordBody::Fence { generation: 1 });
    Record::decode(&fence).unwrap();
    for (key, value) in [(2, NO_BYTES), (4, NO_ARRAY), (5, ZERO), (8, NO_BYTES)] {
        assert!(Record::decode(&with(&fence, key, value)).is_err(), "key {key}");
    }
    let records = vec![RecordRef { client, seq: 1 }];
    let (text, slot) = (String::new, SlotId([1; 16]));
    let enrol = RecordBody::Enrol {
        public: [1; 32],
        role: lifeboat::format::key::Role::Writer,
        name: "name".into(),
        trusted: Vec::new(),
        slot: None,
    };
    let bodies = [
        (RecordBody::Hold { records, reason: text() }, 1, NO_TEXT),
        (enrol, 3, NO_ARRAY),
        (RecordBody::Slot { id: slot, added: true, label: text(), recipient: text() }, 2, NO_TEXT),
        (RecordBody::Slot { id: slot, added: true, label: text(), recipient: text() }, 3, NO_TEXT),
        (RecordBody::Slot { id: slot, added: false, label: text(), recipient: text() }, 1, FALSE),
        (RecordBody::Attest { packs: vec![PackId([1; 32])] }, 1, NO_ARRAY),
    ];
    for (body, key, value) in bodies {
        let whole = record(body);
        Record::decode(&whole).unwrap();
        let changed = with(&fields(&whole)[&7], key, value);
        assert!(Record::decode(&with(&whole, 7, &changed)).is_err(), "{:?} with key {key}", fields(&whole)[&6]);
    }
}
