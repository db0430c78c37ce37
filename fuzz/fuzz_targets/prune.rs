#![no_main]

use lifeboat::format::envelope::ObjectKind;
use lifeboat::format::gc::PruneObject;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| Ok(PruneObject::decode(
    ObjectKind::Condemn,
    bytes
)?
.encode())));
