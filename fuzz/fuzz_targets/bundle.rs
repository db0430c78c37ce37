#![no_main]

use lifeboat::format::key::Bundle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| Ok(Bundle::decode(bytes)?.encode().to_vec())));
