//! What somebody can do who has all that lies on a machine, and may write to the store: records and prune objects under
//! any name, sealed with the keys of the machine's bundle and signed with its own.

use super::team::Machine;
use lifeboat::crypto::derive::{Secret, object_key};
use lifeboat::crypto::seal::seal_pieces;
use lifeboat::crypto::sign::{ClientKey, LOG_RECORD, PRUNE_OBJECT, client_id};
use lifeboat::crypto::wrap::{Credential, unwrap};
use lifeboat::format::envelope::{Header, ObjectKind, pad_body};
use lifeboat::format::gc::PruneObject;
use lifeboat::format::key::Bundle;
use lifeboat::format::log::{Head, Record, RecordBody};
use lifeboat::id::{ClientId, ObjectHash, PackId};
use lifeboat::store::Key;
use std::path::{Path, PathBuf};

/// Somebody who has copied a machine's disk.
pub struct Thief {
    pub bundle: Bundle,
    root: PathBuf,
}

impl Thief {
    pub fn of(machine: &Machine) -> Self {
        Self::with(PathBuf::from(&machine.repository), &machine.identity)
    }

    /// Somebody who has the identity in a file, and the repository in a directory.
    pub fn with(root: PathBuf, identity: &Path) -> Self {
        let identity = std::fs::read(identity).unwrap();
        let credential = Credential::from_identity_file(&identity).unwrap();
        let slots = std::fs::read_dir(root.join("keys")).unwrap();
        let mut opened = slots.filter_map(|slot| unwrap(&std::fs::read(slot.unwrap().path()).unwrap(), &credential).ok());
        let bundle = Bundle::decode(&opened.next().unwrap()).unwrap();
        Self { bundle, root }
    }

    pub fn signer(&self) -> ClientKey {
        ClientKey::from_seed(&self.bundle.signing_seed.unwrap())
    }

    pub fn client(&self) -> ClientId {
        client_id(&self.signer().public())
    }

    /// The owner's id, which is no secret.
    pub fn owner(&self) -> ClientId {
        let format = std::fs::read(self.root.join("format/1")).unwrap();
        client_id(&lifeboat::format::repository::RepositoryFormat::decode(&format).unwrap().owner)
    }

    /// Creates an object; false if there is one.
    pub fn create(&self, key: &Key, bytes: &[u8]) -> bool {
        let path = self.root.join(key.as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        !path.exists() && std::fs::write(path, bytes).is_ok()
    }

    /// Signs and seals what stands in an object.
    pub fn seal(&self, kind: ObjectKind, context: &str, map: &[u8]) -> Vec<u8> {
        let keys = self.bundle.generations.last().unwrap();
        let mut body = self.signer().sign(context, &self.bundle.repository, map).to_vec();
        body.extend_from_slice(map);
        let header = Header { kind, generation: keys.number, salt: [7; 32] }.encode();
        let key = object_key(&Secret(keys.index), &self.bundle.repository, &header);
        [&header[..], &key.commit, &seal_pieces(&key.key, &pad_body(&body))].concat()
    }

    /// The next free place of a log, and the hash of what lies before it.
    pub fn next(&self, log: &ClientId) -> (u64, Option<ObjectHash>) {
        let path = |seq| self.root.join(Key::log(log, seq).as_str());
        let seq = (0..).find(|seq| !path(*seq).exists()).unwrap();
        let before = seq.checked_sub(1).map(|seq| std::fs::read(path(seq)).unwrap());
        (seq, before.map(|bytes| ObjectHash(*blake3::hash(&bytes).as_bytes())))
    }

    /// Puts a record into a log; with `author` it says who signed it instead of the log's own client.
    pub fn record(&self, log: ClientId, base: u64, author: Option<ClientId>, body: RecordBody) {
        let (seq, previous) = self.next(&log);
        let record = Record { client: log, seq, previous, time: 1, heads: Vec::new(), base, body, author, extra: Vec::new() };
        assert!(self.create(&Key::log(&log, seq), &self.seal(ObjectKind::Log, LOG_RECORD, &record.encode())));
    }

    /// Puts a prune object in its place.
    pub fn prune_object(&self, kind: ObjectKind, client: ClientId, generation: u64, packs: Vec<PackId>) -> ObjectHash {
        let key = if kind == ObjectKind::Plan { Key::plan(generation) } else { Key::condemn(generation) };
        let before = match kind {
            ObjectKind::Plan => Some(Key::condemn(generation)),
            _ => generation.checked_sub(1).filter(|before| *before > 0).map(Key::plan),
        };
        let bytes = before.and_then(|key| std::fs::read(self.root.join(key.as_str())).ok());
        let previous = bytes.map(|bytes| ObjectHash(*blake3::hash(&bytes).as_bytes()));
        let object = PruneObject { client, generation, packs, heads: Vec::new(), time: 1, previous, checkpoint: None };
        let sealed = self.seal(kind, PRUNE_OBJECT, &object.encode());
        assert!(self.create(&key, &sealed));
        ObjectHash(*blake3::hash(&sealed).as_bytes())
    }

    /// Publishes a plan that deletes nothing and names a checkpoint, after an empty condemn object; `heads` is what it says
    /// that it has seen.
    pub fn plan_with(&self, generation: u64, heads: Vec<Head>, checkpoint: (u64, ObjectHash)) {
        let client = self.client();
        let previous = Some(self.prune_object(ObjectKind::Condemn, client, generation, Vec::new()));
        let checkpoint = Some(checkpoint);
        let object = PruneObject { client, generation, packs: Vec::new(), heads, time: 1, previous, checkpoint };
        assert!(self.create(&Key::plan(generation), &self.seal(ObjectKind::Plan, PRUNE_OBJECT, &object.encode())));
    }

    /// The newest record of a log.
    pub fn head(&self, log: &ClientId) -> Head {
        let (next, hash) = self.next(log);
        Head { client: *log, seq: next - 1, hash: hash.unwrap() }
    }

    /// All packs of the store, in the order of names.
    pub fn packs(&self) -> Vec<PackId> {
        let mut packs = Vec::new();
        for folder in std::fs::read_dir(self.root.join("packs")).unwrap() {
            for pack in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                packs.push(PackId::from_hex(pack.unwrap().file_name().to_str().unwrap()).unwrap());
            }
        }
        packs.sort_unstable();
        packs
    }
}
