//! More that cannot be read than fits into memory.

use super::scene::Scene;
use super::support::counterfeit::{Forged, file, leaf};
use lifeboat::format::log::PackRef;
use lifeboat::format::pack::{Codec, TableEntry};
use lifeboat::format::tree::ChunkType;

/// A pack with so many blocks of so many chunks of no length; each has a name of its own, and none is what its name says.
fn lies(scene: &Scene, blocks: u32, chunks: u32) -> PackRef {
    let entry = |number: u32| TableEntry { len: 0, prefix: u128::from(number).to_be_bytes() };
    let block = |number: u32| {
        let chunks = (number * chunks..(number + 1) * chunks).map(entry).collect();
        Forged { kind: ChunkType::Tree, codec: Codec::Raw, raw_len: 0, packed: Vec::new(), chunks }
    };
    scene.forger.pack(&(0..blocks).map(block).collect::<Vec<_>>())
}

/// With `LIFEBOAT_ALL` in tables of contents as long as one can be, and repaired as well.
#[test]
fn what_cannot_be_read_is_not_held_in_memory_however_much_it_is() {
    let all = std::env::var_os("LIFEBOAT_ALL").is_some();
    for (blocks, chunks) in if all { [(1, 3_900_000), (1 << 18, 13)] } else { [(1, 1_000_000), (50_000, 1)] } {
        let scene = Scene::new();
        let pack = lies(&scene, blocks, chunks);
        let page = leaf(&[file("victim", &[])]);
        let root = scene.forger.name(ChunkType::Tree, &page);
        let tree = scene.forger.pack(&[Forged::raw(ChunkType::Tree, &root, &page)]);
        scene.forger.commit(root, 1, vec![pack, tree]);
        let found = scene.run(&["check", "--read-data"]);
        assert_eq!(found.code, 13, "{}", found.said);
        assert!(found.said.lines().count() < 1000, "what is alike is told together");
        if all {
            scene.expect(&[("data", &[13]), ("repair", &[13])]);
            // Everything is marked by now, and stays so.
            scene.expect(&[("data", &[13]), ("repair", &[13]), ("prune", &[0])]);
        } else {
            assert!(found.resident.is_none_or(|resident| resident < 124 << 10), "{:?} KiB were resident", found.resident);
        }
    }
}
