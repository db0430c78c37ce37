#![no_main]

use lifeboat::format::repository::RepositoryFormat;

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifeboat_fuzz::comes_back(data, |bytes| {
    let format = RepositoryFormat::decode(bytes)?;
    // Features that only writers must know are not kept; such a repository is never written.
    Ok(if format.read_only { bytes.to_vec() } else { format.encode() })
}));
