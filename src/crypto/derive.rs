//! Every key that is made from another one, with its context (docs/format.md#32-derivations).

use crate::id::{ChunkId, RepositoryId, SessionId, SlotId};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A 32-byte secret.
#[derive(Clone, Zeroize, ZeroizeOnDrop, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

const CHUNK_NAME: &str = "lifeboat v1 chunk name";
const CHUNKER_TABLE: &str = "lifeboat v1 chunker table";
const TREE_PAGE: &str = "lifeboat v1 tree page";
const SEALED_OBJECT: &str = "lifeboat v1 sealed object";
const SESSION: &str = "lifeboat v1 session";
const CLIENT_SEED: &str = "lifeboat v1 client signing seed";

fn derive(context: &str, parts: &[&[u8]], out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize_xof().fill(out);
    hasher.zeroize();
}

/// The keys that name chunks, one for each type code from 1 to 4.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NameKeys([[u8; 32]; 4]);

impl NameKeys {
    /// The name keys of a domain.
    #[must_use]
    pub fn derive(domain: &Secret) -> Self {
        let mut keys = [[0; 32]; 4];
        for (code, key) in (1u8..).zip(keys.iter_mut()) {
            derive(CHUNK_NAME, &[&domain.0, &[code]], key);
        }
        Self(keys)
    }

    /// Name keys as a bundle holds them.
    #[must_use]
    pub fn from_keys(keys: [[u8; 32]; 4]) -> Self {
        Self(keys)
    }

    /// The four keys, as a bundle holds them.
    #[must_use]
    pub fn keys(&self) -> [[u8; 32]; 4] {
        self.0
    }

    /// The id of a chunk of the type with this code.
    ///
    /// # Panics
    /// Never for the codes 1 to 4 of the format.
    #[must_use]
    pub fn name(&self, code: u8, bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.0[usize::from(code) - 1], bytes).as_bytes())
    }
}

/// The signing seed of the client that is enrolled with this slot: whoever holds the owner's seed can make it again, so
/// that its bundle can be sealed anew when keys are rotated.
#[must_use]
pub fn client_seed(owner: &Secret, repository: &RepositoryId, slot: &SlotId) -> Secret {
    let mut seed = Secret([0; 32]);
    derive(CLIENT_SEED, &[&owner.0, &repository.0, &slot.0], &mut seed.0);
    seed
}

/// The secret table of the chunker.
#[must_use]
pub fn chunker_table(domain: &Secret) -> Box<[u64; 256]> {
    let mut bytes = Zeroizing::new([0; 2048]);
    derive(CHUNKER_TABLE, &[&domain.0], &mut bytes[..]);
    let mut table = Box::new([0; 256]);
    for (word, bytes) in table.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("chunks of 8 bytes"));
    }
    table
}

/// The key that says where pages of a directory end.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PageKey([u8; 32]);

impl PageKey {
    /// The page key of a domain.
    #[must_use]
    pub fn derive(domain: &Secret) -> Self {
        let mut key = [0; 32];
        derive(TREE_PAGE, &[&domain.0], &mut key);
        Self(key)
    }

    /// Keyed hash of an entry's name.
    #[must_use]
    pub fn hash(&self, name: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, name).as_bytes()
    }
}

/// A key with the commitment that pins it: whoever opens with another key sees another commitment.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct CommittedKey {
    /// The key.
    pub key: [u8; 32],
    /// Its public commitment.
    #[zeroize(skip)]
    pub commit: [u8; 32],
}

fn committed(context: &str, parts: &[&[u8]]) -> CommittedKey {
    let mut both = Zeroizing::new([0; 64]);
    derive(context, parts, &mut both[..]);
    let (mut key, mut commit) = ([0; 32], [0; 32]);
    key.copy_from_slice(&both[..32]);
    commit.copy_from_slice(&both[32..]);
    CommittedKey { key, commit }
}

/// The key of one sealed object, made from the whole of its header.
#[must_use]
pub fn object_key(index_key: &Secret, repository: &RepositoryId, header: &[u8; 64]) -> CommittedKey {
    committed(SEALED_OBJECT, &[&index_key.0, &repository.0, header])
}

/// What a session's secret is mixed with.
pub struct SessionContext<'a> {
    /// The repository.
    pub repository: &'a RepositoryId,
    /// The session.
    pub session: &'a SessionId,
    /// Code of the class: 1 data, 2 meta.
    pub class: u8,
    /// Number of the key generation.
    pub generation: u32,
}

/// The key of a session.
#[must_use]
pub fn session_key(secret: &Secret, shared: &Secret, context: &SessionContext<'_>) -> CommittedKey {
    let generation = context.generation.to_le_bytes();
    let parts: [&[u8]; 6] = [&secret.0, &shared.0, &context.repository.0, &context.session.0, &[context.class], &generation];
    committed(SESSION, &parts)
}

/// What a block's key is made from besides the session's.
#[derive(Debug, Clone, Copy)]
pub struct BlockContext<'a> {
    /// Unique in the session and class.
    pub number: u64,
    /// Code of the codec.
    pub codec: u8,
    /// Code of the chunks' type.
    pub kind: u8,
    /// Length before compression.
    pub raw_len: u32,
    /// Length after compression, without padding.
    pub packed_len: u32,
    /// Hash of the chunk table.
    pub table: &'a [u8; 32],
}

/// The key of one block; it seals one message, so its nonce is zero.
#[must_use]
pub fn block_key(session: &[u8; 32], block: &BlockContext<'_>) -> Zeroizing<[u8; 32]> {
    let mut input = [0; 50];
    input[..8].copy_from_slice(&block.number.to_le_bytes());
    input[8] = block.codec;
    input[9] = block.kind;
    input[10..14].copy_from_slice(&block.raw_len.to_le_bytes());
    input[14..18].copy_from_slice(&block.packed_len.to_le_bytes());
    input[18..].copy_from_slice(block.table);
    Zeroizing::new(*blake3::keyed_hash(session, &input).as_bytes())
}
