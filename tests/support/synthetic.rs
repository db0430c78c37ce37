//! An index of any size without the data that it speaks of: what a large repository would have.

use super::Bench;
use lifeboat::crypto::derive::{Secret, object_key};
use lifeboat::crypto::seal::seal_pieces;
use lifeboat::crypto::sign::{ClientKey, LOG_RECORD, client_id};
use lifeboat::crypto::wrap::{credential_of, unwrap};
use lifeboat::format::envelope::{Header, ObjectKind, pad_body};
use lifeboat::format::index::{ENTRY_LEN, IndexEntry, IndexObject};
use lifeboat::format::key::Bundle;
use lifeboat::format::log::{PackRef, Record, RecordBody};
use lifeboat::id::{ChunkPrefix, IndexId, ObjectHash, PackId};
use lifeboat::store::{AnyStore, Key};

/// Entries of a planted shard.
const SHARD: u64 = 1 << 20;
/// Length of a pack that there is not.
pub const PACK_LEN: u64 = 32 << 20;

/// The owner's keys, to write what no program of this version would.
pub struct Owner {
    bundle: Bundle,
    store: AnyStore,
}

/// A chunk that there is not, and where it would be.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    pub prefix: ChunkPrefix,
    pub pack: PackId,
}

/// Numbers that look like chance and are the same every time (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Owner {
    pub fn of(bench: &Bench) -> Self {
        let slot = bench.objects("keys").pop().unwrap();
        let opened = unwrap(&std::fs::read(slot).unwrap(), &credential_of(&bench.identity).unwrap()).unwrap();
        Self { bundle: Bundle::decode(&opened).unwrap(), store: bench.location().open().unwrap() }
    }

    fn seal(&self, kind: ObjectKind, body: &[u8]) -> Vec<u8> {
        let generation = self.bundle.generations.last().unwrap();
        let header = Header { kind, generation: generation.number, salt: lifeboat::crypto::random().unwrap() };
        let key = object_key(&Secret(generation.index), &self.bundle.repository, &header.encode());
        let mut out = header.encode().to_vec();
        out.extend_from_slice(&key.commit);
        out.extend_from_slice(&seal_pieces(&key.key, &pad_body(body)));
        out
    }

    /// Appends a record to the owner's log.
    pub fn append(&self, body: RecordBody, base: u64) {
        let signer = ClientKey::from_seed(&self.bundle.signing_seed.unwrap());
        let client = client_id(&signer.public());
        let (mut seq, mut previous) = (0, None);
        while let Ok(bytes) = self.store.get(&Key::log(&client, seq), 16 << 20) {
            previous = Some(ObjectHash(*blake3::hash(&bytes).as_bytes()));
            seq += 1;
        }
        let record = Record { client, seq, previous, time: 0, heads: Vec::new(), base, body, author: None, extra: Vec::new() };
        let map = record.encode();
        let mut signed = signer.sign(LOG_RECORD, &self.bundle.repository, &map).to_vec();
        signed.extend_from_slice(&map);
        self.store.create(&Key::log(&client, seq), &self.seal(ObjectKind::Log, &signed)).unwrap();
    }

    /// Puts an index object with these entries into the store.
    pub fn shard(&self, packs: &[PackId], range: (ChunkPrefix, ChunkPrefix), rows: &[u8]) -> IndexId {
        let mut body = IndexObject::encode_head(1, packs, &range, rows.len());
        body.extend_from_slice(rows);
        let bytes = self.seal(ObjectKind::Index, &body);
        let id = IndexId(*blake3::hash(&bytes).as_bytes());
        self.store.put(&Key::index(&id), &bytes).unwrap();
        id
    }

    /// Plants a set of shards of `chunks` chunks in `packs` packs, none of which there is; returns some of them.
    pub fn plant(&self, seed: u64, chunks: u64, packs: u32) -> Vec<Planted> {
        let name = |pack: u32| PackId(*blake3::hash(&[seed.to_le_bytes(), u64::from(pack).to_le_bytes()].concat()).as_bytes());
        let mut names: Vec<PackId> = (0..packs).map(name).collect();
        names.sort_unstable();
        let listed = names.iter().map(|id| PackRef { id: *id, size: PACK_LEN, toc_len: 20_000 }).collect();
        self.append(RecordBody::Claim { packs: listed, checkpoint: None }, 0);
        let (mut dice, mut some, mut shards) = (Dice(seed), Vec::new(), Vec::new());
        let (mut rows, mut first) = (Vec::with_capacity((SHARD.min(chunks) as usize) * ENTRY_LEN), [0; 16]);
        // Gaps between hashes in order are exponential; a little is left over at the end.
        let (mean, mut at) = (2f64.powi(64) / chunks as f64 * 0.99, 0u64);
        for number in 0..chunks {
            let chance = (dice.roll() >> 11) as f64 / 2f64.powi(53);
            at = at.saturating_add((-(1.0 - chance).ln() * mean) as u64 + 1);
            let mut prefix = [0; 16];
            prefix[..8].copy_from_slice(&at.to_be_bytes());
            prefix[8..].copy_from_slice(&dice.roll().to_be_bytes());
            let place = dice.roll();
            let pack = u32::try_from(place % u64::from(packs)).unwrap();
            let (block, chunk) = (u32::try_from(place >> 32 & 31).unwrap(), u32::try_from(place >> 40 & 15).unwrap());
            IndexEntry { prefix, pack, block, chunk }.encode(&mut rows);
            if number % (chunks / 500).max(1) == 0 {
                some.push(Planted { prefix, pack: names[pack as usize] });
            }
            if (number + 1) % SHARD == 0 && number + 1 < chunks {
                shards.push(self.shard(&names, (first, prefix), &rows));
                first = (u128::from_be_bytes(prefix) + 1).to_be_bytes();
                rows.clear();
            }
        }
        shards.push(self.shard(&names, (first, [0xff; 16]), &rows));
        self.append(RecordBody::Index { indexes: shards, packs: names }, 0);
        some
    }
}
