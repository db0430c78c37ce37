#![no_main]

use lifeboat::format::envelope::{pad_body, unpad_body};

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| Ok(pad_body(unpad_body(bytes)?))));
