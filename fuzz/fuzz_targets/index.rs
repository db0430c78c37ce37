#![no_main]

use lifeboat::format::index::IndexObject;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| Ok(IndexObject::decode(bytes)?.encode())));
