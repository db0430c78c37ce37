#![no_main]

use lifeboat::format::parity::ParityHead;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // What stands before the hashes is read first, and says how much is read then.
    if let Ok(length) = ParityHead::length(data) {
        assert!(length <= 64 + 1281 * 32, "a head is short");
    }
    let _ = ParityHead::share(data);
    lifeboat_fuzz::comes_back(data, |bytes| Ok(ParityHead::decode(bytes)?.encode()));
});
