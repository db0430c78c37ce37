#![no_main]

use lifeboat::format::log::Record;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| Ok(Record::decode(bytes)?.encode())));
