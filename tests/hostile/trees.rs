//! Trees, lists, and nodes that no writer makes.

use super::scene::{Outcome, REFUSED, Scene};
use super::support::counterfeit::{Forged, directory, file, leaf};
use lifeboat::format::pack::TableEntry;
use lifeboat::format::tree::{ChunkRef, ChunkType, Content, Hole, ListPage, Node, NodeKind, PageRef, Xattr, encode_inner};
use lifeboat::id::ChunkId;

/// Chunks under names that are not theirs, so that pages seem to hold themselves or each other.
#[test]
fn pages_that_hold_themselves_or_each_other_are_damage() {
    for rounds in [1usize, 2, 3] {
        let scene = Scene::new();
        let forger = &scene.forger;
        let ids: Vec<ChunkId> = (0..rounds).map(|at| ChunkId([u8::try_from(at).unwrap() + 1; 32])).collect();
        let blocks: Vec<Forged> = (0..rounds)
            .map(|at| {
                let next = &ids[(at + 1) % rounds];
                Forged::raw(ChunkType::Tree, &ids[at], &leaf(&[directory("again", *next)]))
            })
            .collect();
        let packs = vec![forger.pack(&blocks)];
        forger.commit(ids[0], 1, packs);
        scene.expect(REFUSED);
    }
}

#[test]
fn page_references_that_repeat_a_page_are_damage() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let page = leaf(&[file("a", &[])]);
    let id = forger.name(ChunkType::Tree, &page);
    let mut inner = Vec::new();
    // The second reference says another first name than the page has.
    let refs = ["a", "b"].map(|name| PageRef { id, first: name.into(), count: u64::MAX });
    encode_inner(1, &refs, &mut inner);
    let root = forger.name(ChunkType::Tree, &inner);
    let packs = vec![forger.pack(&[Forged::raw(ChunkType::Tree, &id, &page), Forged::raw(ChunkType::Tree, &root, &inner)])];
    forger.commit(root, 1, packs);
    scene.expect(REFUSED);
}

/// Two entries in each directory, both the same one below: a trillion paths and forty pages.
#[test]
fn a_tree_that_has_more_paths_than_anybody_counts_ends() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let mut page = leaf(&[file("end", &[])]);
    let mut blocks = Vec::new();
    for _ in 0..40 {
        let id = forger.name(ChunkType::Tree, &page);
        blocks.push(Forged::raw(ChunkType::Tree, &id, &page));
        page = leaf(&[directory("one", id), directory("two", id)]);
    }
    let root = forger.name(ChunkType::Tree, &page);
    blocks.push(Forged::raw(ChunkType::Tree, &root, &page));
    let packs = vec![forger.pack(&blocks)];
    forger.commit(root, 1, packs);
    scene.expect(&[
        ("ls", &[13]),
        ("dump", &[13]),
        ("diff", &[13]),
        ("find", &[13]),
        // Each page is looked at once, and nothing is missing.
        ("check", &[0]),
        ("data", &[0]),
        ("copy", &[0]),
        ("mirror", &[0]),
        ("prune", &[0]),
    ]);
    let Outcome { code, said, .. } = scene.run(&["restore", "latest", "--to", "out/dry", "--dry-run"]);
    assert_eq!(code, 13, "{said}");
}

/// Directories within each other, each with so large an attribute that the pages of all of them fill no memory.
#[test]
fn a_tree_that_is_deeper_than_memory_is_walked_all_the_same() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let mut page = leaf(&[file("end", &[])]);
    let mut blocks = Vec::new();
    for _ in 0..400 {
        let id = forger.name(ChunkType::Tree, &page);
        blocks.push(Forged::zstd(ChunkType::Tree, &id, page.len(), zstd::bulk::compress(&page, 1).unwrap()));
        let value = vec![0; 1_000_000];
        let node = Node { xattrs: vec![Xattr { name: b"user.long".to_vec(), value }], ..directory("d", id) };
        page = leaf(&[node, file("e", &[])]);
    }
    let root = forger.name(ChunkType::Tree, &page);
    blocks.push(Forged::zstd(ChunkType::Tree, &root, page.len(), zstd::bulk::compress(&page, 1).unwrap()));
    let packs = vec![forger.pack(&blocks)];
    forger.commit(root, 1000, packs);
    scene.expect(&[
        ("restore", &[0, 3]),
        ("ls", &[0]),
        ("diff", &[0]),
        ("find", &[0]),
        ("check", &[0]),
        ("data", &[0]),
        ("copy", &[0]),
        ("prune", &[0]),
    ]);
    let deepest = "d/".repeat(400);
    assert!(scene.home.path("out/restored").join(deepest).join("end").exists());
}

/// A hundred thousand directories within each other, a million with `LIFEBOAT_ALL=1`.
#[test]
fn a_tree_that_is_nested_too_deeply_is_damage() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let mut page = leaf(&[file("end", &[])]);
    let mut blocks = Vec::new();
    let mut open = (Vec::new(), Vec::new());
    let depth = if std::env::var_os("LIFEBOAT_ALL").is_some() { 1_000_000 } else { 100_000 };
    for _ in 0..depth {
        let id = forger.name(ChunkType::Tree, &page);
        open.0.extend_from_slice(&page);
        open.1.push((id, page.len()));
        if open.1.len() == 5000 {
            blocks.push(joined(&mut open));
        }
        page = leaf(&[directory("d", id)]);
    }
    let root = forger.name(ChunkType::Tree, &page);
    blocks.push(Forged::raw(ChunkType::Tree, &root, &page));
    let packs = vec![forger.pack(&blocks)];
    forger.commit(root, depth, packs);
    scene.expect(REFUSED);
    scene.expect(&[("cat", &[13, 11, 2, 1]), ("prune", &[0]), ("repair", &[0, 13])]);
}

/// A block of many chunks.
fn joined((bytes, chunks): &mut (Vec<u8>, Vec<(ChunkId, usize)>)) -> Forged {
    let mut block = Forged::raw(ChunkType::Tree, &ChunkId([0; 32]), &std::mem::take(bytes));
    block.chunks = chunks.drain(..).map(|(id, len)| TableEntry { len: len as u32, prefix: id.prefix() }).collect();
    block
}

/// A file whose list has the same page in every place, and says that it is 2^60 bytes long.
#[test]
fn a_list_that_repeats_itself_is_checked_once() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let data = [b'x'; 1 << 12];
    let id = forger.name(ChunkType::Data, &data);
    let pack = forger.pack(&[Forged::raw(ChunkType::Data, &id, &data)]);
    let mut reference = ChunkRef { id, len: data.len() as u64 };
    let mut blocks = Vec::new();
    for depth in 0..5 {
        let mut bytes = Vec::new();
        let list = ListPage { depth, refs: vec![reference; if depth < 4 { 1024 } else { 256 }] };
        list.encode(&mut bytes);
        reference = ChunkRef { id: forger.name(ChunkType::List, &bytes), len: list.data_len() };
        blocks.push(Forged::raw(ChunkType::List, &reference.id, &bytes));
    }
    assert_eq!(reference.len, 1 << 60);
    let victim = Node { size: reference.len, content: Content::List { depth: 4, root: reference }, ..file("victim", &[]) };
    let page = leaf(&[victim]);
    let root = forger.name(ChunkType::Tree, &page);
    blocks.push(Forged::raw(ChunkType::Tree, &root, &page));
    let lists = forger.pack(&blocks);
    forger.commit(root, 1, vec![pack, lists]);
    scene.expect(&[
        ("ls", &[0]),
        ("diff", &[0]),
        ("find", &[0]),
        ("check", &[0]),
        ("data", &[0]),
        ("mirror", &[0]),
        ("prune", &[0]),
        ("repair", &[0]),
    ]);
}

/// Lengths of lists and files that cannot be.
#[test]
fn lengths_that_no_file_has_are_damage() {
    let mut half = Vec::new();
    let refs = vec![ChunkRef { id: ChunkId([1; 32]), len: 1 << 62 }; 2];
    ListPage { depth: 0, refs }.encode(&mut half);
    let scene = Scene::new();
    let list = ChunkRef { id: scene.forger.name(ChunkType::List, &half), len: 1 << 63 };
    let listed = Node { size: 1 << 63, content: Content::List { depth: 0, root: list }, ..file("victim", &[]) };
    let hole = |len| Node { size: len, holes: vec![Hole { offset: 0, len }], ..file("victim", &[]) };
    let lying = file("victim", &[ChunkRef { id: ChunkId([1; 32]), len: u64::MAX / 4 }]);
    for (_, node, codes) in [
        ("a list of 2^63 bytes", listed, [13, 13, 13]),
        ("a file of 2^63 bytes", hole(1 << 63), [13, 13, 13]),
        ("a chunk of 2^62 bytes", lying, [13, 0, 13]),
    ] {
        let scene = Scene::new();
        let forger = &scene.forger;
        let page = leaf(&[node]);
        let root = forger.name(ChunkType::Tree, &page);
        let list = forger.name(ChunkType::List, &half);
        let blocks = [Forged::raw(ChunkType::Tree, &root, &page), Forged::raw(ChunkType::List, &list, &half)];
        let packs = vec![forger.pack(&blocks)];
        forger.commit(root, 1, packs);
        let [restore, ls, check] = codes;
        scene.expect(&[("restore", &[restore]), ("salvage", &[restore]), ("ls", &[ls]), ("check", &[check]), ("cat", &[13])]);
    }
}

#[test]
fn a_sparse_file_of_any_length_takes_neither_memory_nor_room() {
    let scene = Scene::new();
    let forger = &scene.forger;
    let long = 1 << 62;
    let node = Node { size: long, holes: vec![Hole { offset: 0, len: long }], ..file("victim", &[]) };
    let page = leaf(&[node, file("zzz", &[])]);
    let root = forger.name(ChunkType::Tree, &page);
    let packs = vec![forger.pack(&[Forged::raw(ChunkType::Tree, &root, &page)])];
    forger.commit(root, 2, packs);
    // File systems differ in what they can hold.
    let Outcome { code, said, .. } = scene.run(&["restore", "latest", "--to", "out/restored"]);
    assert!(code == 0 || code == 3 && said.contains("victim"), "{code}: {said}");
    assert!(scene.home.path("out/restored/zzz").exists());
    scene.expect(&[("ls", &[0]), ("find", &[0]), ("check", &[0]), ("data", &[0]), ("copy", &[0]), ("prune", &[0])]);
}

/// Names of one group that are of other kinds, or of other content.
#[test]
fn groups_of_hard_links_lead_nowhere_else() {
    let scene = Scene::new();
    let forger = &scene.forger;
    std::fs::write(scene.home.path("documents/secret"), "secret").unwrap();
    let link = |name: &str, target: &[u8]| {
        let node = Node::new(name.as_bytes().to_vec(), NodeKind::Symlink);
        Node { link: Some((1, 2)), target: target.to_vec(), ..node }
    };
    let outside = scene.home.path("documents/secret").to_string_lossy().into_owned();
    let plain = Node { link: Some((1, 2)), ..file("b", &[]) };
    let below = leaf(&[Node { link: Some((1, 2)), ..file("deep", &[]) }]);
    let id = forger.name(ChunkType::Tree, &below);
    let nodes = [link("a", outside.as_bytes()), plain, directory("c", id), link("d", b"../../documents")];
    let page = leaf(&nodes);
    let root = forger.name(ChunkType::Tree, &page);
    let packs = vec![forger.pack(&[Forged::raw(ChunkType::Tree, &root, &page), Forged::raw(ChunkType::Tree, &id, &below)])];
    forger.commit(root, 4, packs);
    scene.expect(&[("restore", &[0, 3]), ("ls", &[0]), ("dump", &[0]), ("check", &[0]), ("copy", &[0]), ("prune", &[0])]);
    let restored = scene.home.path("out/restored");
    assert!(std::fs::symlink_metadata(restored.join("b")).unwrap().is_file());
    assert!(std::fs::symlink_metadata(restored.join("c/deep")).unwrap().is_file());
    assert_eq!(std::fs::read(scene.home.path("documents/secret")).unwrap(), b"secret");
}

/// Files of which nothing is there, a hundred in a place whose path is as long as can be, in each of several snapshots.
#[test]
fn damaged_files_with_the_longest_paths_are_named_in_bounded_memory() {
    let scene = Scene::new();
    let forger = &scene.forger;
    for snapshot in 0..4 {
        let lost = [ChunkRef { id: ChunkId([9; 32]), len: 1000 }];
        let mut names: Vec<String> = (0..100).map(|number| format!("{snapshot}-{number:03}")).collect();
        names.sort();
        let mut page = leaf(&names.iter().map(|name| file(name, &lost)).collect::<Vec<_>>());
        let mut blocks = Vec::new();
        for _ in 0..15 {
            let id = forger.name(ChunkType::Tree, &page);
            blocks.push(Forged::raw(ChunkType::Tree, &id, &page));
            page = leaf(&[directory(&"d".repeat(65_535), id)]);
        }
        let root = forger.name(ChunkType::Tree, &page);
        blocks.push(Forged::raw(ChunkType::Tree, &root, &page));
        let packs = vec![forger.pack(&blocks)];
        forger.commit(root, 100, packs);
    }
    scene.expect(&[("check", &[13])]);
}
