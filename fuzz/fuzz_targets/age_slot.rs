#![no_main]

use lifeboat::crypto::wrap::{Credential, credential_of, recipient_kinds, unwrap};
use std::sync::LazyLock;

/// A key for these tests alone: the seeds are sealed to it.
const IDENTITY: &str = "AGE-SECRET-KEY-1CUQXJ0G0N85WERDLLFWYJR89ZM7S7F83LX6LMMJVM2XH2VZQ3MHS2TDKCJ";

static CREDENTIAL: LazyLock<Credential> = LazyLock::new(|| credential_of(IDENTITY).expect("a valid identity"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = recipient_kinds(data);
    let _ = unwrap(data, &CREDENTIAL);
    let _ = Credential::from_identity_file(data);
});
