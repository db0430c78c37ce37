//! What all fuzz targets share.

/// Fails if `again`, which decodes and encodes, takes bytes and gives others back.
pub fn comes_back(bytes: &[u8], again: impl FnOnce(&[u8]) -> lifeboat::error::Result<Vec<u8>>) {
    if let Ok(back) = again(bytes) {
        assert_eq!(back, bytes, "what was decoded does not encode back to the same bytes");
    }
}
