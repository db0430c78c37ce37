#![no_main]

use lifeboat::format::tree::{Page, decode_page, encode_inner, encode_leaf, encode_node};

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| {
    let mut out = Vec::new();
    match decode_page(bytes)? {
        Page::Leaf(nodes) => {
            let mut joined = Vec::new();
            nodes.iter().for_each(|node| encode_node(node, &mut joined));
            encode_leaf(&joined, nodes.len(), &mut out);
        }
        Page::Inner { depth, pages } => encode_inner(depth, &pages, &mut out),
    }
    Ok(out)
}));
