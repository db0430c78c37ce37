#![no_main]

use lifeboat::format::pack::{decode_head, encode_head};

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| {
    let (header, seals) = decode_head(bytes)?;
    let mut out = encode_head(&header, &seals);
    out.extend_from_slice(&bytes[out.len()..]);
    Ok(out)
}));
