#![no_main]

use lifeboat::format::cbor::Decoder;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| {
    let mut decoder = Decoder::new(bytes, "a value");
    let value = decoder.any()?;
    decoder.end()?;
    Ok(value.to_vec())
}));
