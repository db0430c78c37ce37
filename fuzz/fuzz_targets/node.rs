#![no_main]

use lifeboat::format::tree::{decode_node, encode_node};

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| {
    let (node, length) = decode_node(bytes)?;
    let mut out = Vec::new();
    encode_node(&node, &mut out);
    out.extend_from_slice(&bytes[length..]);
    Ok(out)
}));
