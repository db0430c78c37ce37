//! Verifying packs, for check: everything that their bytes say against everything that is known of them.

use crate::error::{Error, ErrorKind, Result};
use crate::format::log::PackRef;
use crate::format::pack::MAX_PACK;
use crate::format::tree::ChunkType;
use crate::id::{ChunkPrefix, PackId};
use crate::repo::block::{Opener, table_digest};
use crate::repo::{Reader, Repository, cache};
use crate::store::Key;
use std::collections::HashSet;

/// Something wrong with a pack.
#[derive(Debug)]
pub struct PackProblem {
    /// What is wrong.
    pub error: Error,
    /// Prefixes of the chunks that cannot be read because of it.
    pub lost: Vec<ChunkPrefix>,
}

/// What was seen of one pack.
#[derive(Debug, Default)]
pub struct PackReport {
    /// Everything that is wrong with it.
    pub problems: Vec<PackProblem>,
    /// Bytes read from the store.
    pub bytes_read: u64,
    /// Chunks verified.
    pub chunks: u64,
}

/// Verifies packs; each thread has one of its own.
pub struct PackVerifier {
    repository: Repository,
    opener: Opener,
    bytes: Vec<u8>,
}

impl Repository {
    /// All packs of the index.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn packs(&self) -> Result<Vec<PackRef>> {
        let reader = cache::IndexReader::new(self.cache().connect()?)?;
        Ok(reader.packs()?.into_iter().map(|(_, pack)| pack).collect())
    }

    /// Chunks in the index.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn chunk_count(&self) -> Result<u64> {
        cache::IndexReader::new(self.cache().connect()?)?.count()
    }

    /// Packs in the store, by listing it, with their lengths.
    ///
    /// # Errors
    /// `Failed` if it cannot be listed.
    pub fn listed_packs(&self) -> Result<Vec<(PackId, u64)>> {
        let mut packs = Vec::new();
        self.store().list("packs", &mut |entry| {
            packs.extend(entry.key.pack_id().map(|id| (id, entry.size)));
            Ok(())
        })?;
        Ok(packs)
    }

    /// A verifier for the calling thread.
    ///
    /// # Errors
    /// `Failed`.
    pub fn verifier(&self) -> Result<PackVerifier> {
        Ok(PackVerifier { repository: self.clone(), opener: Opener::new()?, bytes: Vec::new() })
    }

    /// Throws the local cache away; the next opening rebuilds it.
    ///
    /// # Errors
    /// `Failed`.
    pub fn clear_cache(&self) -> Result<()> {
        self.cache().remove()
    }
}

impl PackVerifier {
    /// Verifies the table of contents of a pack and, with `data`, its name and all its blocks and chunks.
    pub fn verify(&mut self, pack: &PackRef, data: bool) -> PackReport {
        let mut report = PackReport::default();
        if let Err(error) = self.verify_into(pack, data, &mut report) {
            let lost = self.chunks_of(pack);
            report.problems.push(PackProblem { error, lost });
        }
        report
    }

    /// What the cache knows to be in a pack that cannot be read.
    fn chunks_of(&self, pack: &PackRef) -> Vec<ChunkPrefix> {
        let connection = self.repository.connection();
        let sql = "SELECT id FROM chunk WHERE pack = (SELECT no FROM pack WHERE id = ?)";
        let Ok(mut statement) = connection.prepare_cached(sql) else { return Vec::new() };
        let rows = statement.query_map([&pack.id.0[..]], |row| row.get::<_, Vec<u8>>(0));
        let rows = rows.map(|rows| rows.filter_map(|row| row.ok()?.try_into().ok()).collect());
        rows.unwrap_or_default()
    }

    fn verify_into(&mut self, pack: &PackRef, data: bool, report: &mut PackReport) -> Result<()> {
        let key = Key::pack(&pack.id);
        let size = self.repository.store().size(&key)?;
        let size = size.ok_or_else(|| Error::damaged(format!("read the pack {}: it is gone", pack.id)))?;
        if size != pack.size || size > MAX_PACK {
            return Err(Error::damaged(format!("read the pack {}: {size} bytes instead of {}", pack.id, pack.size)));
        }
        let (seals, toc) = self.repository.load_toc(pack).map_err(|error| match error.kind() {
            ErrorKind::Failed => error,
            _ => error.as_kind(ErrorKind::Damaged),
        })?;
        report.bytes_read += u64::from(pack.toc_len);
        if !data {
            return Ok(());
        }
        self.bytes.resize(usize::try_from(size).expect("at most 256 MiB"), 0);
        self.repository.store().read_at(&key, 0, &mut self.bytes)?;
        report.bytes_read += size;
        if *blake3::hash(&self.bytes).as_bytes() != pack.id.0 {
            let error = Error::damaged(format!("read the pack {}: its bytes are not what its name says", pack.id));
            report.problems.push(PackProblem { error, lost: Vec::new() });
        }
        let mut offset = toc.first_block as usize;
        for (position, block) in toc.blocks.iter().enumerate() {
            let stored = &mut self.bytes[offset..offset + block.row.stored_len() as usize];
            offset += block.row.stored_len() as usize;
            let keys = self.repository.keys();
            let opened = keys.open_session(&seals[usize::from(block.row.seal)]).and_then(|session| {
                self.opener.open(&keys.repository, &session, &block.row, &table_digest(&block.chunks), stored)
            });
            let raw = match opened {
                Ok(raw) => raw,
                Err(error) => {
                    let error = error.while_doing(format!("block {position} of the pack {}", pack.id));
                    let lost = block.chunks.iter().map(|chunk| chunk.prefix).collect();
                    report.problems.push(PackProblem { error, lost });
                    continue;
                }
            };
            let mut rest = raw;
            for chunk in &block.chunks {
                let (bytes, after) = rest.split_at(chunk.len as usize);
                rest = after;
                report.chunks += 1;
                if keys.name(block.row.kind, bytes)?.prefix() != chunk.prefix {
                    let error =
                        Error::damaged(format!("a chunk of block {position} of the pack {} is not what it says", pack.id));
                    report.problems.push(PackProblem { error, lost: vec![chunk.prefix] });
                }
            }
        }
        Ok(())
    }
}

impl Reader {
    /// True if the index knows the chunk and `lost` does not name it.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn is_readable(&self, kind: ChunkType, id: &crate::id::ChunkId, lost: &HashSet<ChunkPrefix>) -> Result<bool> {
        debug_assert!(kind != ChunkType::Snapshot, "snapshots are in the log");
        match self.locate(id) {
            Ok(_) => Ok(!lost.contains(&id.prefix())),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(false),
            Err(error) => Err(error),
        }
    }
}
