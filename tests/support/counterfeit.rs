//! Packs, trees, and snapshots that no program of this version writes, sealed and signed with true keys: what somebody can
//! put into a repository who has broken into a machine that backs up.

use super::forge::Thief;
use super::home::Home;
use lifeboat::crypto::derive::{
    BlockContext, CommittedKey, NameKeys, Secret, SessionContext, block_key, object_key, session_key,
};
use lifeboat::crypto::seal::{seal_in_place, seal_pieces};
use lifeboat::crypto::wrap::wrap_to;
use lifeboat::format::envelope::{Header, ObjectKind};
use lifeboat::format::log::{PackRef, RecordBody, SealedSnapshot};
use lifeboat::format::pack::{BlockEntry, BlockRow, Codec, Footer, SealEntry, TableEntry, Toc, encode_head, encode_table};
use lifeboat::format::snapshot::{Counts, Snapshot};
use lifeboat::format::tree::{ChunkRef, ChunkType, Class, Content, Node, NodeKind, encode_leaf, encode_node};
use lifeboat::id::{ChunkId, PackId, SessionId, SnapshotId};
use lifeboat::store::Key;

/// A block that was not packed by the program.
pub struct Forged {
    pub kind: ChunkType,
    pub codec: Codec,
    pub raw_len: u32,
    pub packed: Vec<u8>,
    pub chunks: Vec<TableEntry>,
}

impl Forged {
    /// One chunk as it is.
    pub fn raw(kind: ChunkType, id: &ChunkId, bytes: &[u8]) -> Self {
        let raw_len = u32::try_from(bytes.len()).unwrap();
        Self { kind, codec: Codec::Raw, raw_len, packed: bytes.to_vec(), chunks: vec![entry(id, bytes.len())] }
    }

    /// One chunk that is said to be what `packed` expands to.
    pub fn zstd(kind: ChunkType, id: &ChunkId, raw_len: usize, packed: Vec<u8>) -> Self {
        let chunks = vec![entry(id, raw_len)];
        Self { kind, codec: Codec::Zstd, raw_len: u32::try_from(raw_len).unwrap(), packed, chunks }
    }
}

fn entry(id: &ChunkId, len: usize) -> TableEntry {
    TableEntry { len: u32::try_from(len).unwrap(), prefix: id.prefix() }
}

/// Somebody with the keys of a home's repository.
pub struct Counterfeiter {
    pub thief: Thief,
    names: NameKeys,
    made: std::cell::Cell<u8>,
}

impl Counterfeiter {
    pub fn of(home: &Home) -> Self {
        let thief = Thief::with(home.repository_dir(), &home.path(".config/lifeboat/identity.txt"));
        let names = NameKeys::derive(&Secret(thief.bundle.domain.unwrap()));
        Self { thief, names, made: std::cell::Cell::new(0) }
    }

    /// The true name of a chunk.
    pub fn name(&self, kind: ChunkType, bytes: &[u8]) -> ChunkId {
        self.names.name(kind.code(), bytes)
    }

    fn session(&self, class: Class) -> (SealEntry, CommittedKey) {
        self.made.set(self.made.get() + 1);
        let keys = self.thief.bundle.generations.last().unwrap();
        let (shared, vault) = match class {
            Class::Data => (keys.shared_data, &keys.vault_data),
            Class::Meta => (keys.shared_meta, &keys.vault_meta),
        };
        let (secret, session) = ([self.made.get(); 32], SessionId([self.made.get(); 16]));
        let (repository, code) = (&self.thief.bundle.repository, class.code());
        let context = SessionContext { repository, session: &session, class: code, generation: keys.number };
        let key = session_key(&Secret(secret), &Secret(shared.unwrap()), &context);
        let wrapped = wrap_to(vault, &secret).unwrap();
        (SealEntry { session, class, generation: keys.number, commit: key.commit, wrapped }, key)
    }

    fn seal(&self, session: &CommittedKey, number: u64, block: &Forged) -> (BlockRow, Vec<u8>) {
        let packed_len = u32::try_from(block.packed.len()).unwrap();
        let Forged { kind, codec, raw_len, .. } = *block;
        let row = BlockRow { seal: 0, number, kind, codec, raw_len, packed_len };
        let mut table = Vec::new();
        encode_table(&block.chunks, &mut table);
        let digest = *blake3::hash(&table).as_bytes();
        let (codec, kind) = (codec.code(), kind.code());
        let key = block_key(&session.key, &BlockContext { number, codec, kind, raw_len, packed_len, table: &digest });
        let mut sealed = block.packed.clone();
        sealed.resize(row.padded_len() as usize, 0);
        seal_in_place(&key, &[0; 12], &self.thief.bundle.repository.0, &mut sealed, 0);
        (row, sealed)
    }

    /// Puts a pack of these blocks into the store; `change` may do what it likes with the bytes of its table of contents.
    pub fn pack_with(&self, blocks: &[Forged], change: impl FnOnce(&mut Vec<u8>)) -> PackRef {
        let class = blocks.first().map_or(Class::Meta, |block| block.kind.class());
        let (seal, session) = self.session(class);
        let keys = self.thief.bundle.generations.last().unwrap();
        let header = Header { kind: ObjectKind::Pack, generation: keys.number, salt: [self.made.get(); 32] };
        let mut bytes = encode_head(&header, &[seal]);
        let first_block = u32::try_from(bytes.len()).unwrap();
        let mut toc = Toc { first_block, padding: 0, blocks: Vec::new() };
        for (block, number) in blocks.iter().zip(0..) {
            let (row, sealed) = self.seal(&session, number, block);
            bytes.extend_from_slice(&sealed);
            toc.blocks.push(BlockEntry { row, chunks: block.chunks.clone().into() });
        }
        let mut table = toc.encode();
        change(&mut table);
        let key = object_key(&Secret(keys.index), &self.thief.bundle.repository, &header.encode());
        let sealed = seal_pieces(&key.key, &table);
        let toc_len = u32::try_from(sealed.len()).unwrap();
        bytes.extend_from_slice(&sealed);
        bytes.extend_from_slice(&Footer { commit: key.commit, toc_len }.encode());
        let id = PackId(*blake3::hash(&bytes).as_bytes());
        assert!(self.thief.create(&Key::pack(&id), &bytes));
        PackRef { id, size: bytes.len() as u64, toc_len }
    }

    pub fn pack(&self, blocks: &[Forged]) -> PackRef {
        self.pack_with(blocks, |_| {})
    }

    /// Commits a snapshot of the tree at `root`, which says that it has `files` files.
    pub fn commit(&self, root: ChunkId, files: u64, mut packs: Vec<PackRef>) -> SnapshotId {
        let counts = Counts { files, ..Counts::default() };
        let (kind, host, version) = ("full".into(), "hostile".into(), "0".into());
        // Later than whatever was backed up before.
        let (start, paths) = (4_000_000_000_000_000_000, vec![b"/".to_vec()]);
        let snapshot = Snapshot { root, kind, host, version, paths, start, end: start, counts, ..Snapshot::empty() };
        let bytes = snapshot.encode();
        let id = self.name(ChunkType::Snapshot, &bytes);
        let (seal, session) = self.session(Class::Meta);
        let block = Forged::raw(ChunkType::Snapshot, &id, &bytes);
        let (row, sealed) = self.seal(&session, 0, &block);
        let mut entry = Vec::new();
        seal.encode(&mut entry);
        let (number, codec, raw_len, packed_len) = (row.number, row.codec.code(), row.raw_len, row.packed_len);
        let snapshot = SealedSnapshot { seal: entry, number, codec, raw_len, packed_len, sealed };
        packs.sort_unstable_by_key(|pack| pack.id);
        let sessions = vec![seal.session];
        let id = SnapshotId::from(id);
        let body = RecordBody::Snapshot { id, snapshot, packs, indexes: Vec::new(), sessions };
        self.thief.record(self.thief.client(), 0, None, body);
        id
    }
}

/// A page with these nodes.
pub fn leaf(nodes: &[Node]) -> Vec<u8> {
    let (mut joined, mut page) = (Vec::new(), Vec::new());
    nodes.iter().for_each(|node| encode_node(node, &mut joined));
    encode_leaf(&joined, nodes.len(), &mut page);
    page
}

pub fn directory(name: &str, page: ChunkId) -> Node {
    let node = Node::new(name.as_bytes().to_vec(), NodeKind::Directory);
    Node { mode: 0o755, subtree: Some(page), ..node }
}

/// A file whose data are these chunks.
pub fn file(name: &str, chunks: &[ChunkRef]) -> Node {
    let node = Node::new(name.as_bytes().to_vec(), NodeKind::File);
    let size = chunks.iter().map(|chunk| chunk.len).sum();
    Node { mode: 0o644, size, content: Content::Chunks(chunks.to_vec()), ..node }
}
