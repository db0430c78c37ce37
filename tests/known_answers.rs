//! Every derivation and every encoding gives what docs/format.md#12-known-answers says.

use lifeboat::crypto::derive::{
    BlockContext, NameKeys, PageKey, Secret, SessionContext, block_key, chunker_table, object_key, session_key,
};
use lifeboat::crypto::seal::{open_in_place, open_pieces, seal_in_place, seal_pieces};
use lifeboat::crypto::sign::{ClientKey, LOG_RECORD, PRUNE_OBJECT, client_id, verify};
use lifeboat::format::envelope::{Header, ObjectKind, pad_body, padme};
use lifeboat::format::gc::PruneObject;
use lifeboat::format::index::{IndexEntry, IndexObject};
use lifeboat::format::log::{Head, Record, RecordBody};
use lifeboat::format::pack::{BlockEntry, BlockRow, Codec, Footer, SealEntry, TableEntry, Toc, encode_table};
use lifeboat::format::repository::{ChunkSizes, RepositoryFormat};
use lifeboat::format::snapshot::{Counts, Snapshot};
use lifeboat::format::tree::{
    ChunkRef, ChunkType, Class, Content, Hole, ListPage, Node, NodeKind, PageRef, Time, encode_inner, encode_leaf, encode_node,
};
use lifeboat::id::{ChunkId, ObjectHash, PackId, RepositoryId, SessionId};

const REPOSITORY: RepositoryId = RepositoryId(*b"repository id 16");
const SECOND: i64 = 1_000_000_000;

type Answers = Vec<(&'static str, String)>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn domain() -> Secret {
    Secret(std::array::from_fn(|position| u8::try_from(position).unwrap()))
}

fn derivations(answers: &mut Answers) {
    let names = NameKeys::derive(&domain());
    for (code, label) in [(1, "id of data"), (2, "id of tree"), (3, "id of list"), (4, "id of snapshot")] {
        answers.push((label, hex(&names.name(code, b"lifeboat").0)));
    }
    let table = chunker_table(&domain());
    let bytes: Vec<u8> = table.iter().flat_map(|word| word.to_le_bytes()).collect();
    answers.push(("chunker table begins", hex(&bytes[..16])));
    answers.push(("H(chunker table)", hex(blake3::hash(&bytes).as_bytes())));
    answers.push(("KH(page key, name)", hex(&PageKey::derive(&domain()).hash(b"lifeboat"))));
    let context = SessionContext { repository: &REPOSITORY, session: &SessionId([0x44; 16]), class: 1, generation: 1 };
    let session = session_key(&Secret([0x33; 32]), &Secret([0x22; 32]), &context);
    answers.push(("K_sess", hex(&session.key)));
    answers.push(("commit of the session", hex(&session.commit)));
    let chunks =
        [&b"hello"[..], b" world"].map(|chunk| TableEntry { len: chunk.len() as u32, prefix: names.name(1, chunk).prefix() });
    let mut encoded = Vec::new();
    encode_table(&chunks, &mut encoded);
    let table = *blake3::hash(&encoded).as_bytes();
    answers.push(("table digest", hex(&table)));
    let block = BlockContext { number: 7, codec: 0, kind: 1, raw_len: 11, packed_len: 11, table: &table };
    let key = block_key(&session.key, &block);
    answers.push(("block key", hex(&key[..])));
    let mut sealed = b"hello world".to_vec();
    sealed.resize(64, 0);
    seal_in_place(&key, &[0; 12], &REPOSITORY.0, &mut sealed, 0);
    answers.push(("block", hex(&sealed)));
    assert_eq!(&open_in_place(&key, &[0; 12], &REPOSITORY.0, &mut sealed).unwrap()[..11], b"hello world");
}

fn objects(answers: &mut Answers) {
    let header = Header { kind: ObjectKind::Log, generation: 1, salt: [0x66; 32] }.encode();
    answers.push(("header", hex(&header)));
    let object = object_key(&Secret([0x11; 32]), &REPOSITORY, &header);
    answers.push(("key of the object", hex(&object.key)));
    answers.push(("commit of the object", hex(&object.commit)));
    let sealed = seal_pieces(&object.key, &pad_body(b"lifeboat"));
    answers.push(("seal of a body", hex(&sealed)));
    assert_eq!(open_pieces(&object.key, &sealed).unwrap()[4..12], *b"lifeboat");
    answers.push(("H(seal of 65,537 zeros)", hex(blake3::hash(&seal_pieces(&object.key, &[0; 65_537])).as_bytes())));
    answers.push(("seal of nothing", hex(&seal_pieces(&object.key, b""))));
    let lengths = [2, 9, 100, 1000, 65_537, 1_000_000, 33_554_433];
    answers.push(("Padmé lengths", lengths.map(|length| padme(length).to_string()).join(" ")));
    let key = ClientKey::from_seed(&[0x55; 32]);
    answers.push(("client public key", hex(&key.public())));
    answers.push(("client id", client_id(&key.public()).to_string()));
    let record = Record {
        client: client_id(&key.public()),
        seq: 1,
        previous: Some(ObjectHash([0x77; 32])),
        time: 1_700_000_000 * SECOND,
        heads: Vec::new(),
        base: 0,
        body: RecordBody::Fence { generation: 5 },
        author: None,
        extra: Vec::new(),
    }
    .encode();
    answers.push(("record", hex(&record)));
    let signature = key.sign(LOG_RECORD, &REPOSITORY, &record);
    answers.push(("signature of the record", hex(&signature)));
    verify(&key.public(), LOG_RECORD, &REPOSITORY, &record, &signature).unwrap();
    let prune = PruneObject {
        client: client_id(&key.public()),
        generation: 5,
        packs: vec![PackId([1; 32])],
        heads: vec![Head { client: client_id(&key.public()), seq: 1, hash: ObjectHash([0x77; 32]) }],
        time: 0,
        previous: None,
        checkpoint: None,
    }
    .encode();
    answers.push(("condemn object", hex(&prune)));
    answers.push(("signature of the condemn object", hex(&key.sign(PRUNE_OBJECT, &REPOSITORY, &prune))));
    let chunks = ChunkSizes { minimum: 16 << 10, average: 64 << 10, maximum: 256 << 10, normalisation: 3 };
    let format = RepositoryFormat {
        id: REPOSITORY,
        owner: key.public(),
        chunks,
        block_target: 1 << 20,
        pack_target: 32 << 20,
        level: 3,
        created: 1_700_000_000 * SECOND,
        read_only: false,
    };
    answers.push(("format/1", hex(&format.encode())));
    answers.push(("fingerprint", format.fingerprint(&format.encode()).to_string()));
}

fn packs(answers: &mut Answers) {
    let seal = SealEntry {
        session: SessionId([0x44; 16]),
        class: Class::Data,
        generation: 1,
        commit: [0x88; 32],
        wrapped: b"age".to_vec(),
    };
    let mut encoded = Vec::new();
    seal.encode(&mut encoded);
    answers.push(("seal entry", hex(&encoded)));
    let row = BlockRow { seal: 0, number: 7, kind: ChunkType::Data, codec: Codec::Zstd, raw_len: 305, packed_len: 100 };
    let chunks = vec![TableEntry { len: 300, prefix: [1; 16] }, TableEntry { len: 5, prefix: [2; 16] }];
    let toc = Toc { first_block: 300, padding: 9, blocks: vec![BlockEntry { row, chunks: chunks.into() }] };
    answers.push(("TOC", hex(&toc.encode())));
    answers.push(("footer", hex(&Footer { commit: [0x88; 32], toc_len: 126 }.encode())));
    let entries = vec![IndexEntry { prefix: [1; 16], pack: 0, block: 0, chunk: 0 }];
    let index = IndexObject { level: 0, packs: vec![PackId([1; 32])], range: ([1; 16], [2; 16]), entries };
    answers.push(("index", hex(&index.encode())));
}

fn trees(answers: &mut Answers) {
    let mtime = Time { secs: 1_700_000_000, nanos: 5 };
    let node = Node {
        mode: 0o644,
        uid: 1000,
        gid: 100,
        user: b"ann".to_vec(),
        mtime,
        ctime: Some(Time { nanos: 6, ..mtime }),
        size: 8192 + 11,
        content: Content::Chunks(vec![ChunkRef { id: ChunkId([1; 32]), len: 4096 }, ChunkRef { id: ChunkId([2; 32]), len: 11 }]),
        holes: vec![Hole { offset: 4096, len: 4096 }],
        ..Node::new(b"notes".to_vec(), NodeKind::File)
    };
    let (mut encoded, mut page) = (Vec::new(), Vec::new());
    encode_node(&node, &mut encoded);
    answers.push(("node", hex(&encoded)));
    let far = Node {
        mtime: Time { secs: 1 << 40, nanos: 1 },
        ctime: Some(mtime),
        target: b"to".to_vec(),
        ..Node::new(b"far".to_vec(), NodeKind::Symlink)
    };
    encoded.clear();
    encode_node(&far, &mut encoded);
    encode_leaf(&encoded, 1, &mut page);
    answers.push(("leaf", hex(&page)));
    page.clear();
    encode_inner(1, &[PageRef { id: ChunkId([3; 32]), first: b"a".to_vec(), count: 500 }], &mut page);
    answers.push(("page above leaves", hex(&page)));
    page.clear();
    ListPage { depth: 0, refs: vec![ChunkRef { id: ChunkId([1; 32]), len: 65_536 }] }.encode(&mut page);
    answers.push(("list page", hex(&page)));
    let snapshot = Snapshot {
        root: ChunkId([3; 32]),
        kind: "full".into(),
        host: "harbour".into(),
        paths: vec![b"/home/ann".to_vec()],
        tags: vec!["daily".into()],
        start: -1,
        end: SECOND,
        counts: Counts { files: 1, ..Counts::default() },
        version: "0.1.0".into(),
        ..Snapshot::empty()
    };
    answers.push(("snapshot", hex(&snapshot.encode())));
    let retained = Snapshot { retain_until: Some(2 * SECOND), ..snapshot };
    answers.push(("retained snapshot", hex(&retained.encode())));
}

#[test]
fn the_known_answers_of_the_format_document_hold() {
    let mut answers = Answers::new();
    derivations(&mut answers);
    objects(&mut answers);
    packs(&mut answers);
    trees(&mut answers);
    let document = include_str!("../docs/format.md");
    let (_, section) = document.split_once("## 12. Known answers").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let block: String = answers.iter().map(|(label, value)| format!("{label} = {value}\n")).collect();
    for line in block.lines() {
        assert!(section.lines().any(|known| known == line), "not in the document: {line}\n\nall of them:\n{block}");
    }
    let known = section.lines().filter(|line| line.contains(" = ")).count();
    assert_eq!(known, answers.len() + 1, "every answer of the document is tested, cut points by the chunker");
}

#[test]
fn a_maintainers_name_keys_name_chunks_as_the_domain_does() {
    let keys = [1u8, 2, 3, 4].map(|code| blake3::derive_key("lifeboat v1 chunk name", &[&domain().0[..], &[code]].concat()));
    let (own, derived) = (NameKeys::from_keys(keys), NameKeys::derive(&domain()));
    for code in 1..=4 {
        assert_eq!(own.name(code, b"x"), derived.name(code, b"x"));
    }
}

#[test]
fn a_signature_of_one_context_repository_or_message_is_none_of_another() {
    let key = ClientKey::from_seed(&[0x55; 32]);
    let signature = key.sign(LOG_RECORD, &REPOSITORY, b"message");
    let fails = |context, repository, message: &[u8]| verify(&key.public(), context, repository, message, &signature).is_err();
    assert!(fails(PRUNE_OBJECT, &REPOSITORY, b"message"));
    assert!(fails(LOG_RECORD, &RepositoryId([0; 16]), b"message"));
    assert!(fails(LOG_RECORD, &REPOSITORY, b"massage"));
}

#[test]
fn a_sealed_message_that_was_cut_swapped_or_changed_does_not_open() {
    let plain: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
    let sealed = seal_pieces(&[9; 32], &plain);
    assert_eq!(open_pieces(&[9; 32], &sealed).unwrap(), plain);
    let piece = 65_536 + 16;
    assert!(open_pieces(&[9; 32], &sealed[..piece]).is_err(), "cut after a whole piece");
    assert!(open_pieces(&[9; 32], &sealed[..sealed.len() - 1]).is_err(), "cut within a piece");
    assert!(open_pieces(&[9; 32], &sealed[piece..]).is_err(), "the first piece left out");
    let swapped = [&sealed[piece..2 * piece], &sealed[..piece], &sealed[2 * piece..]].concat();
    assert!(open_pieces(&[9; 32], &swapped).is_err(), "swapped");
    let mut changed = sealed.clone();
    changed[100_000] ^= 1;
    assert!(open_pieces(&[9; 32], &changed).is_err(), "changed");
    assert!(open_pieces(&[8; 32], &sealed).is_err(), "another key");
}
