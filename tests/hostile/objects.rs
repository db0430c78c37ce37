//! Blocks, tables of contents, and objects that are not what they say.

use super::scene::{Outcome, REFUSED, Scene};
use super::support::counterfeit::{Forged, file, leaf};
use lifeboat::format::log::{PackRef, RecordBody};
use lifeboat::format::pack::{Codec, TableEntry};
use lifeboat::format::tree::{ChunkRef, ChunkType};
use lifeboat::id::{ChunkId, IndexId, PackId};
use lifeboat::store::Key;

const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Frames that say or do what no writer's does; each should expand to a thousand times `x`.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let honest = zstd::bulk::compress(&[b'x'; 1000], 3).unwrap();
    let short = zstd::bulk::compress(&[b'x'; 10], 3).unwrap();
    let mut unsized_frame = Vec::new();
    zstd::stream::copy_encode(&[b'x'; 1000][..], &mut unsized_frame, 3).unwrap();
    let mut checked = zstd::bulk::Compressor::new(3).unwrap();
    checked.include_checksum(true).unwrap();
    // Blocks of one byte that is repeated, as many as there is room for; each expands to 128 KiB.
    let bomb = |size: &[u8], descriptor: u8| {
        let mut bytes = [&FRAME[..], &[descriptor], size].concat();
        (0..4000).for_each(|_| bytes.extend_from_slice(&[0x02, 0x00, 0x10, b'x']));
        bytes.extend_from_slice(&[0x03, 0x00, 0x10, b'x']);
        bytes
    };
    // A window of 2 GiB, the content's length in 4 bytes, and one last block of a byte that is repeated a thousand times.
    let wide = [&FRAME[..], &[0x80, 0xa8, 0xe8, 0x03, 0, 0, 0x43, 0x1f, 0, b'x']].concat();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4], &honest[..]].concat();
    vec![
        ("a terabyte", bomb(&(1u64 << 40).to_le_bytes(), 0xe0)),
        ("half a gigabyte under the length of its block", bomb(&1000u32.to_le_bytes(), 0xa0)),
        ("shorter than it says", short.clone()),
        ("no length", unsized_frame),
        ("a window of two gigabytes", wide),
        ("many frames", short.repeat(100)),
        ("a frame to be skipped", skippable),
        ("a checksum", checked.compress(&[b'x'; 1000]).unwrap()),
        ("garbage behind it", [&honest[..], b"xx"].concat()),
        ("nothing", Vec::new()),
    ]
}

#[test]
fn blocks_that_expand_to_what_they_should_not_are_damage() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let (mut blocks, mut nodes, mut good) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (_, packed)) in frames().into_iter().enumerate() {
        // Names differ by a file's content only, so each block claims a chunk of its own.
        let id = ChunkId([u8::try_from(number).unwrap() + 1; 32]);
        blocks.push(Forged::zstd(ChunkType::Data, &id, 1000, packed));
        nodes.push(file(&format!("file{number}"), &[ChunkRef { id, len: 1000 }]));
    }
    // One that claims the true name, so that nothing but the frame is wrong.
    let id = forger.name(ChunkType::Data, &[b'x'; 1000]);
    blocks.push(Forged::zstd(ChunkType::Data, &id, 1000, frames().swap_remove(1).1));
    nodes.push(file("victim", &[ChunkRef { id, len: 1000 }]));
    let page = leaf(&nodes);
    let root = forger.name(ChunkType::Tree, &page);
    good.push(Forged::raw(ChunkType::Tree, &root, &page));
    let packs = vec![forger.pack(&blocks), forger.pack(&good)];
    forger.commit(root, 11, packs);
    scene.expect(&[
        ("restore", &[13]),
        ("salvage", &[13]),
        ("ls", &[0]),
        ("cat", &[13]),
        ("dump", &[13]),
        ("diff", &[0]),
        ("find", &[0]),
        ("data", &[13]),
        ("copy", &[3, 13]),
        ("mirror", &[0]),
        ("prune", &[0]),
        ("repair", &[13]),
    ]);
    assert!(!scene.home.path("out/restored/victim").exists());
}

#[test]
fn every_frame_that_no_writer_makes_is_refused() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let id = forger.name(ChunkType::Data, &[b'x'; 1000]);
    let page = leaf(&[file("victim", &[ChunkRef { id, len: 1000 }])]);
    let root = forger.name(ChunkType::Tree, &page);
    let tree = forger.pack(&[Forged::raw(ChunkType::Tree, &root, &page)]);
    // The frame of an honest writer is none of them.
    let honest = Forged::zstd(ChunkType::Data, &id, 1000, zstd::bulk::compress(&[b'x'; 1000], 3).unwrap());
    for (name, packed) in frames() {
        let scene = Scene::new();
        let forger = &scene.forger;
        let id = forger.name(ChunkType::Data, &[b'x'; 1000]);
        let page = leaf(&[file("victim", &[ChunkRef { id, len: 1000 }])]);
        let root = forger.name(ChunkType::Tree, &page);
        let tree = forger.pack(&[Forged::raw(ChunkType::Tree, &root, &page)]);
        let data = forger.pack(&[Forged::zstd(ChunkType::Data, &id, 1000, packed)]);
        forger.commit(root, 1, vec![tree, data]);
        let Outcome { code, said, .. } = scene.run(&["cat", "latest:victim"]);
        assert_eq!(code, 13, "{name}: {said}");
        assert!(said.contains(&data.id.to_string()), "{name}: {said}");
    }
    let data = forger.pack(&[honest]);
    forger.commit(root, 1, vec![tree, data]);
    assert_eq!(scene.home.run(&["cat", "latest:victim"]).stdout, [b'x'; 1000]);
}

#[test]
fn tables_of_contents_that_lie_are_damage() {
    for (name, change) in [
        ("more blocks than there can be", (|toc: &mut Vec<u8>| toc[8..12].fill(0xff)) as fn(&mut Vec<u8>)),
        ("more chunks than there can be", |toc| toc[32..36].fill(0xff)),
        ("a chunk of 2^60 bytes", |toc| {
            toc.splice(36..38, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
        }),
        ("a block of 4 GiB", |toc| toc[24..28].fill(0xff)),
        ("padding beyond the end", |toc| toc[4..8].fill(0xff)),
        ("a first block beyond the end", |toc| toc[..4].fill(0xff)),
        ("a seal that is not there", |toc| toc[12..14].fill(0xff)),
    ] {
        let scene = Scene::new();
        let forger = &scene.forger;
        let page = leaf(&[file("victim", &[])]);
        let root = forger.name(ChunkType::Tree, &page);
        let tree = forger.pack_with(&[Forged::raw(ChunkType::Tree, &root, &page)], change);
        forger.commit(root, 1, vec![tree]);
        let Outcome { code, said, .. } = scene.run(&["ls", "-R", "latest"]);
        assert!(code == 13 && said.contains(&root.to_string()), "{name}: {code}: {said}");
        let Outcome { code, said, .. } = scene.run(&["check"]);
        assert!(code == 13 && said.contains(&tree.id.to_string()), "{name}: {code}: {said}");
    }
}

#[test]
fn packs_of_lengths_that_cannot_be_are_no_reason_to_read_them() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let page = leaf(&[file("victim", &[])]);
    let root = forger.name(ChunkType::Tree, &page);
    let tree = forger.pack(&[Forged::raw(ChunkType::Tree, &root, &page)]);
    // Their sum has more than 64 bits; such a record says nothing.
    let endless = |byte| PackRef { id: PackId([byte; 32]), size: u64::MAX / 2 + 1, toc_len: u32::MAX };
    forger.commit(root, 1, vec![tree, endless(1), endless(2)]);
    let last = scene.home.json(&["snapshots", "--json"]).as_array().unwrap().len();
    assert_eq!(last, 1, "a record that cannot be says nothing");
    // One whose listed length could be, and whose table of contents is said to be all of it.
    let wide = |pack: PackRef| PackRef { size: 256 << 20, toc_len: 64 << 20, ..pack };
    forger.commit(root, 1, vec![wide(tree)]);
    scene.expect(REFUSED);
}

/// Files of 10 GiB that take no room, in the place of small objects.
#[test]
fn objects_that_are_far_too_long_are_never_read() {
    let client = "{client}";
    let keys = [
        format!("log/{client}/0000000000000003"),
        Key::condemn(1).to_string(),
        Key::plan(1).to_string(),
        format!("keys/{}.age", "7".repeat(32)),
        format!("index/{}", "7".repeat(64)),
        format!("packs/77/{}", "7".repeat(64)),
        "format/1".to_owned(),
    ];
    for key in keys {
        let scene = Scene::new();
        let key = key.replace(client, &scene.forger.thief.client().to_string());
        let path = scene.home.repository_dir().join(&key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        std::fs::File::create(&path).unwrap().set_len(10 << 30).unwrap();
        for arguments in [
            &["ls", "latest"][..],
            &["check", "--read-data"],
            &["repair"],
            &["backup", "documents"],
            &["prune", "--grace", "0s"],
            &["mirror", "--to", "mirrored"],
        ] {
            let Outcome { code, said, .. } = scene.run(arguments);
            assert!([0, 1, 3, 11, 13].contains(&code), "{key}: {arguments:?}: {code}: {said}");
            assert!(code == 0 || said.contains(&key) || said.contains(&"7".repeat(32)), "{key}: {arguments:?}: {said}");
        }
    }
}

/// A pack whose table of contents is as long as one can be: many chunks of no length in one block, or many blocks.
fn largest_table(scene: &Scene, many_blocks: bool) -> PackRef {
    let entry = |number: u32| TableEntry { len: 0, prefix: u128::from(number % 2).to_le_bytes() };
    let block =
        |chunks: Vec<TableEntry>| Forged { kind: ChunkType::Tree, codec: Codec::Raw, raw_len: 0, packed: Vec::new(), chunks };
    let room = (64 << 20) - (64 << 20) / (64 << 10) * 17;
    let blocks: Vec<Forged> = match many_blocks {
        true => (0..1 << 18).map(|_| block((0..13).map(entry).collect())).collect(),
        false => vec![block((0..room / 17 - 10).map(entry).collect())],
    };
    let pack = scene.forger.pack(&blocks);
    assert!(pack.toc_len > 60 << 20 && pack.toc_len <= 64 << 20, "{}", pack.toc_len);
    pack
}

#[test]
fn tables_of_contents_of_the_largest_size_are_not_held_side_by_side() {
    for many_blocks in [false, true] {
        let scene = Scene::new();
        let packs: Vec<PackRef> = (0..4).map(|_| largest_table(&scene, many_blocks)).collect();
        // Packs of which nothing is to be said, so that several threads are worth while.
        let page = leaf(&[file("victim", &[])]);
        let root = scene.forger.name(ChunkType::Tree, &page);
        let tree = |_| scene.forger.pack(&[Forged::raw(ChunkType::Tree, &root, &page)]);
        let packs = packs.into_iter().chain((0..40).map(tree)).collect();
        scene.forger.commit(root, 1, packs);
        // These look for each of the many chunks, which takes long.
        if std::env::var_os("LIFEBOAT_ALL").is_some() {
            scene.expect(&[("check", &[0]), ("data", &[0, 13])]);
        }
        scene.expect(&[("ls", &[0]), ("prune", &[0])]);
    }
}

/// Three records as long as one can be, which list packs that there are not; by default a shorter one, which takes less time.
#[test]
fn records_of_the_largest_size_are_read_in_bounded_memory() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let (records, count): (u32, u32) = if std::env::var_os("LIFEBOAT_ALL").is_some() { (3, 300_000) } else { (1, 20_000) };
    for record in 0..records {
        let pack = |number: u32| {
            let id = PackId(*blake3::hash(&number.to_le_bytes()).as_bytes());
            PackRef { id, size: 256 << 20, toc_len: 64 << 20 }
        };
        let mut packs: Vec<PackRef> = (record * count..(record + 1) * count).map(pack).collect();
        packs.sort_unstable_by_key(|pack| pack.id);
        forger.thief.record(forger.thief.client(), 0, None, RecordBody::Claim { packs, checkpoint: None });
    }
    scene.expect(&[("ls", &[0]), ("restore", &[0]), ("check", &[13]), ("data", &[13]), ("repair", &[13])]);
}

#[test]
fn records_that_are_as_long_as_can_be_are_not_all_held_at_once() {
    let scene = Scene::new();
    let logs = std::fs::read_dir(scene.home.path(".local/share/lifeboat/repository/log")).unwrap();
    let log = logs.flatten().map(|entry| entry.path()).max_by_key(|log| std::fs::read_dir(log).unwrap().count()).unwrap();
    let head = std::fs::read_dir(&log).unwrap().count();
    for seq in head..head + 24 {
        let record = std::fs::File::create(log.join(format!("{seq:016x}"))).unwrap();
        // All zeros, so that they take no room.
        record.set_len(15 << 20).unwrap();
    }
    for _ in 0..2 {
        let Outcome { code, said, .. } = scene.run(&["snapshots"]);
        assert!(code == 0, "{code}: {said}");
        std::fs::remove_dir_all(scene.home.path(".cache")).unwrap();
    }
}

/// With `LIFEBOAT_ALL` three records that name as many as they have room for.
#[test]
fn index_objects_that_there_are_not_are_told_in_bounded_memory() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let (records, count): (u32, u32) = if std::env::var_os("LIFEBOAT_ALL").is_some() { (3, 400_000) } else { (1, 5_000) };
    for record in 0..records {
        let id = |number: u32| IndexId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let indexes = (record * count..(record + 1) * count).map(id).collect();
        forger.thief.record(forger.thief.client(), 0, None, RecordBody::Index { indexes, packs: forger.thief.packs() });
    }
    let Outcome { code, said, .. } = scene.run(&["check"]);
    assert_eq!(code, 13, "{said}");
    let more = format!("it is gone (and {} more like this)", count - 100);
    assert_eq!(said.matches(&more).count(), records as usize, "{said}");
    assert!(said.lines().count() < 1000, "what is alike is told together");
    let Outcome { code, said, .. } = scene.run(&["repair", "--apply"]);
    assert!(code == 13 && said.contains("write the damaged index objects anew"), "{code}: {said}");
    let Outcome { code, said, .. } = scene.run(&["check"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn each_record_that_is_none_is_told_as_it_is_found() {
    let scene = Scene::new();
    let log = scene.home.path(".local/share/lifeboat/repository/log");
    let log = std::fs::read_dir(log).unwrap().flatten().next().unwrap().path();
    let head = std::fs::read_dir(&log).unwrap().count();
    for seq in head..head + 300 {
        std::fs::write(log.join(format!("{seq:016x}")), [7; 100]).unwrap();
    }
    for arguments in [&["check"][..], &["repair"], &["check", "--json"]] {
        let Outcome { code, said, .. } = scene.run(arguments);
        assert_eq!((code, said.matches("it was void from the beginning").count()), (0, 300), "{said}");
    }
    // A snapshot that follows says nothing else of them.
    scene.home.ok(&["backup", "documents"]);
    let Outcome { code, said, .. } = scene.run(&["check"]);
    assert_eq!((code, said.matches("it was void from the beginning").count()), (0, 300), "{said}");
}
