#![no_main]

use lifeboat::format::tree::ListPage;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| {
    let mut out = Vec::new();
    ListPage::decode(bytes)?.encode(&mut out);
    Ok(out)
}));
