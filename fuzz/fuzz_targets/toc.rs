#![no_main]

use lifeboat::format::pack::Toc;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| Ok(Toc::decode(bytes, 3)?.encode())));
