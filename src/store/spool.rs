//! Bytes of an object whose name is not known yet.
//!
//! A pack is named by the hash of its bytes, so its name is known last, but remote stores want it first, and renaming
//! would need the right to delete. So the bytes, which are sealed already, wait here: up to [`IN_MEMORY`] in memory,
//! what is longer in an unnamed temporary file. That also means that an upload that was cut off can be repeated.

use crate::error::{Error, Result};
use bytes::Bytes;
use std::io::{Read, Seek, SeekFrom, Write};
use tempfile::SpooledTempFile;

/// Longest object that is kept in memory.
const IN_MEMORY: usize = 8 << 20;

/// Bytes in memory or in a temporary file.
pub(super) struct Spool {
    file: SpooledTempFile,
    length: u64,
}

impl Spool {
    pub(super) fn new() -> Self {
        Self { file: SpooledTempFile::new(IN_MEMORY), length: 0 }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| {
            Error::io("keep the pack for uploading in", "a temporary file", error)
                .with_hint("TMPDIR says where temporary files go; a few packs must have room there")
        })?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The bytes from `offset` on, at most `length`.
    pub(super) fn read(&mut self, offset: u64, length: usize) -> Result<Bytes> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|error| Error::io("read back the pack for uploading from", "a temporary file", error))?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_memory_and_beyond() {
        let mut spool = Spool::new();
        let piece: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
        for _ in 0..4 {
            spool.write(&piece).unwrap();
        }
        assert_eq!(spool.length(), 12 << 20);
        assert_eq!(&spool.read(3 << 20, 3 << 20).unwrap()[..], &piece[..]);
        assert_eq!(&spool.read((12 << 20) - 2, 100).unwrap()[..], &piece[piece.len() - 2..]);
        assert!(spool.read(13 << 20, 1).is_err() || spool.read(13 << 20, 1).unwrap().is_empty());
    }
}
