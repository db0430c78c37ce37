#![no_main]

use lifeboat::format::snapshot::Snapshot;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| Ok(Snapshot::decode(bytes)?.encode())));
