//! Fuzzes the target that the environment variable `LIFEBOAT_FUZZ` names; `fuzz/run` builds and runs it.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("LIFEBOAT_FUZZ").unwrap_or_default();
    let found = lifeboat_fuzz::TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("LIFEBOAT_FUZZ names no target: {name:?}")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
