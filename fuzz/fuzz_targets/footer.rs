#![no_main]

use lifeboat::format::pack::Footer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| Ok(Footer::decode(bytes)?.encode().to_vec())));
