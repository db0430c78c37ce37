//! Verifying packs, for check: everything that their bytes say against everything that is known of them.

use crate::error::{Error, ErrorKind, Result};
use crate::format::log::PackRef;
use crate::format::pack::{BlockEntry, MAX_PACK, SealEntry, Toc};
use crate::id::{ChunkPrefix, PackId};
use crate::repo::block::{Opener, table_digest};
use crate::repo::cache::{IndexReader, Place};
use crate::repo::{Repository, cache};
use crate::store::Key;

/// Bytes that are read at a time where no block begins.
const STEP: usize = 1 << 20;
/// Block bytes that are read in one call; a longer block is read alone.
const RUN: u64 = 4 << 20;

/// How deep to look into a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// That it is there, with the length that it should have.
    Exists,
    /// Its table of contents too, and what the local index says of it.
    Contents,
    /// Every byte, block, and chunk.
    Data,
}

/// What cannot be read because of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// Nothing: it is no data, or parity has it.
    Nothing,
    /// All chunks of the pack.
    Everything,
    /// Chunks, by their prefixes.
    Chunks(Vec<ChunkPrefix>),
}

impl Lost {
    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Everything, _) | (_, Self::Nothing) => {}
            (Self::Chunks(all), Self::Chunks(more)) => all.extend(more),
            (_, other) => *self = other,
        }
    }
}

/// What kind of problem it is, and so what mends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Trouble {
    /// Bytes are lost or changed, and nothing at hand gives them back.
    Damage,
    /// The store failed to give the bytes; they may be whole.
    Unreadable,
    /// Bytes are lost or changed, and parity gives them back.
    Mendable,
    /// The parity beside the pack is damaged; the pack is not.
    Parity,
    /// Only this machine's index is wrong.
    Index,
}

/// Problems of one kind that are told of each pack one by one: somebody may have made a million blocks of nothing.
const TOLD: usize = 100;

/// Something wrong with a pack.
#[derive(Debug)]
pub struct PackProblem {
    /// What is wrong.
    pub error: Error,
    /// How many more there are like it, after as many as are worth telling one by one; `lost` is what all of these lose.
    pub more: u64,
    /// What is to be done about it.
    pub trouble: Trouble,
    /// What cannot be read because of it.
    pub lost: Lost,
}

impl PackProblem {
    /// True if data is lost, unless parity has it.
    #[must_use]
    pub fn concerns_data(&self) -> bool {
        matches!(self.trouble, Trouble::Damage | Trouble::Unreadable)
    }
}

/// What was seen of one pack.
#[derive(Debug, Default)]
pub struct PackReport {
    /// Everything that is wrong with it.
    pub problems: Vec<PackProblem>,
    /// Bytes read from the store.
    pub bytes_read: u64,
}

/// Verifies packs; each thread has one of its own.
pub struct PackVerifier {
    repository: Repository,
    opener: Opener,
    bytes: Vec<u8>,
    hasher: blake3::Hasher,
    index: IndexReader,
}

impl Repository {
    /// Bytes of the chunks in the index before compression, each counted once.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn chunk_bytes(&self) -> Result<u64> {
        cache::IndexReader::new(self.cache().connect()?)?.bytes()
    }

    /// Chunks in the index.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn chunk_count(&self) -> Result<u64> {
        cache::IndexReader::new(self.cache().connect()?)?.count()
    }

    /// A verifier for the calling thread.
    ///
    /// # Errors
    /// `Failed`.
    pub fn verifier(&self) -> Result<PackVerifier> {
        let (opener, hasher) = (Opener::new()?, blake3::Hasher::new());
        let index = IndexReader::new(self.cache().connect()?)?;
        Ok(PackVerifier { repository: self.clone(), opener, bytes: Vec::new(), hasher, index })
    }

    /// Throws the local cache away; the next opening rebuilds it.
    ///
    /// # Errors
    /// `Failed`.
    pub fn clear_cache(&self) -> Result<()> {
        self.cache().remove()
    }
}

/// Whether an error speaks of the bytes, or of what kept them from being looked at.
fn is_finding(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::InUse | ErrorKind::Full)
}

impl PackVerifier {
    /// Verifies a pack as deep as said; `listed` is its length if a listing of the store had it.
    ///
    /// # Errors
    /// Only what kept the pack from being looked at.
    pub fn verify(&mut self, pack: &PackRef, listed: Option<u64>, depth: Depth) -> Result<PackReport> {
        let mut report = PackReport::default();
        match self.look(pack, listed, depth, &mut report) {
            Err(error) if is_finding(&error) => damaged(&mut report, error, Lost::Everything),
            other => other?,
        }
        if report.problems.iter().any(PackProblem::concerns_data) {
            self.look_at_parity(pack, &mut report)?;
        }
        if depth == Depth::Data && self.repository.parity()? > 0 {
            self.verify_parity(pack, &mut report)?;
        }
        Ok(report)
    }

    fn look(&mut self, pack: &PackRef, listed: Option<u64>, depth: Depth, report: &mut PackReport) -> Result<()> {
        let key = Key::pack(&pack.id);
        // A listing may lag behind, so only what it shows as it should be is believed.
        let size = match listed.filter(|size| *size == pack.size) {
            Some(size) => Some(size),
            None => self.repository.store().size(&key)?,
        };
        let size = size.ok_or_else(|| Error::damaged(format!("read the pack {}: it is gone", pack.id)))?;
        if size > MAX_PACK {
            return Err(Error::damaged(format!("read the pack {}: {size} bytes are more than a pack can have", pack.id)));
        }
        if size < pack.size || (size != pack.size && depth == Depth::Exists) {
            let message = format!("read the pack {}: {size} bytes instead of {}", pack.id, pack.size);
            if depth == Depth::Exists {
                return Err(Error::damaged(message));
            }
            damaged(report, Error::damaged(message), Lost::Nothing);
        } else if size > pack.size {
            let message = format!("read the pack {}: something was added behind its end", pack.id);
            damaged(report, Error::damaged(message), Lost::Nothing);
        }
        if depth == Depth::Exists {
            return Ok(());
        }
        let toc = self.repository.load_stored_toc(pack);
        report.bytes_read += u64::from(pack.toc_len);
        // The index may know what was in it when the table of contents is lost.
        let (seals, toc) = match toc {
            Err(error) if is_finding(&error) => {
                let Ok(mended) = self.repository.load_toc(pack) else { return Err(error) };
                self.repository.take_rescued();
                damaged(report, error, Lost::Nothing);
                mended
            }
            other => other?,
        };
        let differs = !self.index_has(&pack.id, &toc)?;
        // Another pack's table of contents is as whole as its own: only all the bytes say whether the index or the pack is
        // wrong.
        if depth == Depth::Data || differs {
            let misplaced = if differs { Lost::Everything } else { Lost::Nothing };
            self.read_all(pack, (&seals, &toc), misplaced, report)?;
        }
        if differs && report.problems.is_empty() {
            let message = format!("compare the index with the pack {}: this machine's index differs", pack.id);
            let (error, lost) = (Error::failed(message), Lost::Nothing);
            report.problems.push(PackProblem { error, more: 0, trouble: Trouble::Index, lost });
        }
        Ok(())
    }

    /// True if every chunk of the table of contents is in this machine's index.
    fn index_has(&self, pack: &PackId, toc: &Toc) -> Result<bool> {
        let Some(number) = self.index.number(pack)? else { return Ok(false) };
        for (block, position) in toc.blocks.iter().zip(0..) {
            let mut start = 0;
            for chunk in &block.chunks {
                if !self.index.has(&chunk.prefix, &Place { pack: number, block: position, start, len: chunk.len })? {
                    return Ok(false);
                }
                start += chunk.len;
            }
        }
        Ok(true)
    }

    /// Reads the pack once from end to end, and everything in it. `misplaced` is lost if all of it can be opened and its
    /// name is not that of the bytes.
    fn read_all(
        &mut self,
        pack: &PackRef,
        (seals, toc): (&[SealEntry], &Toc),
        misplaced: Lost,
        report: &mut PackReport,
    ) -> Result<()> {
        self.hasher.reset();
        let mut at = 0;
        self.pass(pack, &mut at, u64::from(toc.first_block), report)?;
        let mut rest = toc.blocks.iter().enumerate().peekable();
        while rest.peek().is_some() {
            let (from, mut length, mut run) = (at, 0, Vec::new());
            while let Some((position, block)) =
                rest.next_if(|(_, block)| length == 0 || length + u64::from(block.row.stored_len()) <= RUN)
            {
                length += u64::from(block.row.stored_len());
                run.push((position, block));
            }
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.resize(usize::try_from(length).expect("a block is at most 16 MiB"), 0);
            let read = self.repository.store().read_at(&Key::pack(&pack.id), from, &mut bytes);
            at = from + length;
            match read {
                Ok(()) => {
                    report.bytes_read += length;
                    self.hasher.update(&bytes);
                    self.blocks(pack, seals, (&run, &mut bytes), report);
                }
                Err(error) if is_finding(&error) => {
                    let lost = run.iter().flat_map(|(_, block)| block.chunks.iter().map(|chunk| chunk.prefix)).collect();
                    damaged(report, error, Lost::Chunks(lost));
                }
                Err(error) => return Err(error),
            }
            self.bytes = bytes;
        }
        self.pass(pack, &mut at, pack.size, report)?;
        if *self.hasher.finalize().as_bytes() != pack.id.0 && report.problems.is_empty() {
            let error = Error::damaged(format!("read the pack {}: its bytes are not what its name says", pack.id));
            damaged(report, error, misplaced);
        }
        Ok(())
    }

    /// Reads what is no block.
    fn pass(&mut self, pack: &PackRef, at: &mut u64, until: u64, report: &mut PackReport) -> Result<()> {
        while *at < until {
            self.bytes.resize(usize::try_from(until - *at).unwrap_or(usize::MAX).min(STEP), 0);
            let read = self.repository.store().read_at(&Key::pack(&pack.id), *at, &mut self.bytes);
            *at += self.bytes.len() as u64;
            match read {
                Ok(()) => drop(self.hasher.update(&self.bytes)),
                Err(error) if is_finding(&error) => damaged(report, error, Lost::Nothing),
                Err(error) => return Err(error),
            }
            report.bytes_read += self.bytes.len() as u64;
        }
        Ok(())
    }

    fn blocks(
        &mut self,
        pack: &PackRef,
        seals: &[SealEntry],
        run: (&[(usize, &BlockEntry)], &mut [u8]),
        report: &mut PackReport,
    ) {
        let (blocks, mut bytes) = run;
        for (position, block) in blocks {
            let (stored, after) = bytes.split_at_mut(block.row.stored_len() as usize);
            bytes = after;
            let keys = self.repository.keys();
            let seal = seals.get(usize::from(block.row.seal)).ok_or_else(|| Error::damaged("its seal is not there"));
            let opened = seal.and_then(|seal| keys.open_session(seal)).and_then(|session| {
                self.opener.open(&keys.repository, &session, &block.row, &table_digest(&block.chunks), stored)
            });
            let inside = |error: Error| error.while_doing(format!("block {position} of the pack {}", pack.id));
            match opened {
                Err(error) => {
                    let lost = block.chunks.iter().map(|chunk| chunk.prefix).collect();
                    damaged(report, inside(error), Lost::Chunks(lost));
                }
                Ok(raw) => {
                    let mut rest = raw;
                    let mut lost = Vec::new();
                    for chunk in &block.chunks {
                        let (bytes, after) = rest.split_at(chunk.len as usize);
                        rest = after;
                        if !keys.name(block.row.kind, bytes).is_ok_and(|id| id.prefix() == chunk.prefix) {
                            lost.push(chunk.prefix);
                        }
                    }
                    if !lost.is_empty() {
                        let error = Error::damaged(format!("verify it: {} chunks are not what they say", lost.len()));
                        damaged(report, inside(error), Lost::Chunks(lost));
                    }
                }
            }
        }
    }

    /// If parity gives the whole pack back, nothing of it is lost.
    fn look_at_parity(&self, pack: &PackRef, report: &mut PackReport) -> Result<()> {
        match self.repository.hash_mended(&pack.id, pack.size) {
            Ok(hash) if hash == pack.id.0 => {
                for problem in report.problems.iter_mut().filter(|problem| problem.concerns_data()) {
                    (problem.trouble, problem.lost) = (Trouble::Mendable, Lost::Nothing);
                }
                Ok(())
            }
            Err(error) if !is_finding(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn verify_parity(&self, pack: &PackRef, report: &mut PackReport) -> Result<()> {
        match self.repository.verify_parity(&pack.id, pack.size) {
            Err(error) if is_finding(&error) => {
                report.problems.push(PackProblem { error, more: 0, trouble: Trouble::Parity, lost: Lost::Nothing });
                Ok(())
            }
            other => other,
        }
    }
}

fn damaged(report: &mut PackReport, error: Error, lost: Lost) {
    let (error, trouble) = match error.kind() {
        ErrorKind::Damaged => (error, Trouble::Damage),
        // A record lists it, so its absence is a loss.
        ErrorKind::Missing => (error.as_kind(ErrorKind::Damaged), Trouble::Damage),
        _ => (error, Trouble::Unreadable),
    };
    let mut alike = report.problems.iter_mut().filter(|problem| problem.trouble == trouble);
    match alike.nth(TOLD - 1) {
        None => report.problems.push(PackProblem { error, more: 0, trouble, lost }),
        Some(last) => {
            last.more += 1;
            last.lost.add(lost);
        }
    }
}
