//! Writes sealed blocks into packs: one thread, one open pack for each class.

use crate::crypto::derive::{CommittedKey, object_key};
use crate::crypto::seal;
use crate::error::{Error, Result};
use crate::format::envelope::{Header, ObjectKind};
use crate::format::log::PackRef;
use crate::format::pack::{BlockEntry, FOOTER_LEN, Footer, SealEntry, TOC_TARGET, Toc, encode_head, padded_pack_len};
use crate::format::tree::Class;
use crate::id::PackId;
use crate::repo::Repository;
use crate::repo::block::SealedBlock;
use crate::repo::keys::Keys;
use crate::repo::parity::ParityWriter;
use crate::repo::surroundings::Surroundings;
use crate::repo::underway::Underway;
use crate::store::{AnyStore, Key, Staged, archive};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

/// A pack that is durable.
pub(super) struct FinishedPack {
    pub(super) pack: PackRef,
    pub(super) seals: Vec<SealEntry>,
    pub(super) toc: Toc,
}

/// A block with the seal of its session.
pub(super) struct PackedBlock {
    pub(super) seal: Arc<SealEntry>,
    pub(super) block: SealedBlock,
}

/// A pack that is being written.
pub(super) struct OpenPack {
    surroundings: Surroundings,
    key: CommittedKey,
    seals: Vec<SealEntry>,
    staged: Box<dyn Staged>,
    hasher: blake3::Hasher,
    length: u64,
    toc: Toc,
    toc_len: usize,
    parity: Option<(ParityWriter, AnyStore)>,
    /// Head and table of contents once more, for packs that cannot be read before they are thawed.
    contents: Option<(Vec<u8>, AnyStore)>,
}

impl OpenPack {
    /// Begins a pack whose blocks are sealed in the sessions of `seals`, with `parity` in per mille beside it.
    pub(super) fn start(
        keys: &Keys,
        surroundings: &Surroundings,
        store: &AnyStore,
        seals: Vec<SealEntry>,
        parity: u16,
    ) -> Result<Self> {
        let (generation, salt) = (keys.newest().number, surroundings.random()?);
        let header = Header { kind: ObjectKind::Pack, generation, salt };
        let key = object_key(keys.index_key(header.generation)?, &keys.repository, &header.encode());
        let head = encode_head(&header, &seals);
        let first_block = u32::try_from(head.len()).expect("a head is short");
        let toc = Toc { first_block, padding: 0, blocks: Vec::new() };
        // Contents of files are read for restores alone.
        let is_data = seals.iter().all(|seal| seal.class == Class::Data);
        let staged = if is_data { store.stage_cold()? } else { store.stage()? };
        let contents = (is_data && archive(&**store).is_some()).then(|| (head.clone(), store.clone()));
        let hasher = blake3::Hasher::new();
        let parity = (parity > 0).then(|| (ParityWriter::new(parity), store.clone()));
        let surroundings = surroundings.clone();
        let mut pack = Self { surroundings, key, seals, staged, hasher, length: 0, toc, toc_len: 0, parity, contents };
        pack.append(&head)?;
        Ok(pack)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        if let Some((parity, _)) = &mut self.parity {
            parity.push(bytes)?;
        }
        self.staged.write(bytes)
    }

    /// Appends a sealed block; its row says which of the pack's seals it is under.
    pub(super) fn push(&mut self, entry: BlockEntry, sealed: &[u8]) -> Result<()> {
        self.append(sealed)?;
        self.toc_len += entry.toc_len();
        self.toc.blocks.push(entry);
        Ok(())
    }

    /// True if it holds enough, or its table of contents does.
    pub(super) fn is_full(&self, target: u64) -> bool {
        self.length >= target || self.toc_len >= TOC_TARGET
    }

    /// Closes the pack and makes it durable.
    pub(super) fn finish(mut self, target: u64) -> Result<FinishedPack> {
        let toc_len = seal::sealed_len(self.toc.encode().len());
        let bare = self.length + (toc_len + FOOTER_LEN) as u64;
        let padding = padded_pack_len(bare, target) - bare;
        self.toc.padding = u32::try_from(padding).expect("padding is a fraction of a pack");
        let mut random = [0; 4096];
        let mut left = usize::try_from(padding).expect("padding is a fraction of a pack");
        while left > 0 {
            let step = left.min(random.len());
            self.surroundings.fill(&mut random[..step])?;
            self.append(&random[..step])?;
            left -= step;
        }
        let sealed = seal::seal_pieces(&self.key.key, &self.toc.encode());
        let toc_len = u32::try_from(sealed.len()).expect("a table of contents is at most 64 MiB");
        self.append(&sealed)?;
        let footer = Footer { commit: self.key.commit, toc_len };
        let footer = footer.encode();
        self.append(&footer)?;
        let id = PackId(*self.hasher.finalize().as_bytes());
        if let Some((mut contents, store)) = self.contents {
            contents.extend_from_slice(&sealed);
            contents.extend_from_slice(&footer);
            // Before the pack: nobody ever finds one of which nothing can be known.
            store.put(&Key::contents(&id), &contents)?;
        }
        self.staged.finish(&Key::pack(&id))?;
        if let Some((parity, store)) = self.parity {
            parity.finish(&store, id, self.length)?;
        }
        let pack = PackRef { id, size: self.length, toc_len };
        Ok(FinishedPack { pack, seals: self.seals, toc: self.toc })
    }
}

/// What comes to the packer.
pub(super) enum ToPack {
    /// There is going to be a block.
    Soon,
    /// A block to store.
    Block(PackedBlock),
    /// Close the open packs, and say when all that came before is durable and in the index: with the packs so far.
    Barrier(SyncSender<Vec<PackRef>>),
}

/// What comes from the packer, in order.
pub(super) enum Packed {
    /// A pack that is durable.
    Pack(FinishedPack),
    /// Everything before the barrier is durable.
    Barrier(SyncSender<Vec<PackRef>>),
}

/// Where blocks come from and where finished packs and emptied buffers go.
pub(super) struct Packer {
    pub(super) keys: Arc<Keys>,
    /// Its own: it runs beside those who draw from the keys'.
    pub(super) surroundings: Surroundings,
    pub(super) store: AnyStore,
    pub(super) target: u64,
    pub(super) repository: Repository,
    pub(super) blocks: Receiver<ToPack>,
    pub(super) finished: SyncSender<Packed>,
    pub(super) buffers: crossbeam_channel::Sender<Vec<u8>>,
}

impl Packer {
    /// Packs until no more blocks can come, then finishes what is open: data first, because meta refers to it.
    pub(super) fn run(&self) -> Result<()> {
        let mut open: [Option<OpenPack>; 2] = [None, None];
        let mut uploads = Underway::to(&self.store, &self.surroundings);
        while let Ok(work) = self.blocks.recv() {
            let PackedBlock { seal, block } = match work {
                ToPack::Block(block) => block,
                ToPack::Soon => {
                    self.repository.expect_parity();
                    continue;
                }
                ToPack::Barrier(reply) => {
                    open.iter_mut().filter_map(Option::take).try_for_each(|pack| self.upload(pack, &mut uploads))?;
                    uploads.finish(&mut |finished| self.hand_over(finished))?;
                    let _ = self.finished.send(Packed::Barrier(reply));
                    continue;
                }
            };
            let slot = usize::from(seal.class == Class::Meta);
            let mut pack = match open[slot].take() {
                Some(pack) => pack,
                None => {
                    let (seals, parity) = (vec![(*seal).clone()], self.repository.parity()?);
                    OpenPack::start(&self.keys, &self.surroundings, &self.store, seals, parity)?
                }
            };
            pack.push(BlockEntry { row: block.row, chunks: block.chunks.into() }, &block.bytes)?;
            // A full pool only means that this buffer is freed.
            let _ = self.buffers.try_send(block.bytes);
            if pack.is_full(self.target) {
                self.upload(pack, &mut uploads)?;
            } else {
                open[slot] = Some(pack);
            }
        }
        open.into_iter().flatten().try_for_each(|pack| self.upload(pack, &mut uploads))?;
        uploads.finish(&mut |finished| self.hand_over(finished))
    }

    /// Finishes a pack: at once, or on its way beside others where an answer takes long.
    fn upload(&self, pack: OpenPack, uploads: &mut Underway<FinishedPack>) -> Result<()> {
        let target = self.target;
        uploads.begin(move || pack.finish(target), &mut |finished| self.hand_over(finished))
    }

    fn hand_over(&self, finished: FinishedPack) -> Result<()> {
        // The indexer ends early only on an error of its own, which the session reports; what comes after is in vain.
        self.finished.send(Packed::Pack(finished)).map_err(|_| Error::failed("store a pack: nobody notes what is in it"))
    }
}
