//! The keys of an opened repository, ready for use.

use crate::crypto::derive::{NameKeys, PageKey, Secret, SessionContext, chunker_table, session_key};
use crate::crypto::sign::{ClientKey, client_id};
use crate::crypto::wrap::{credential_of, unwrap};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key::{Bundle, Role};
use crate::format::pack::SealEntry;
use crate::format::tree::{ChunkType, Class};
use crate::id::{ChunkId, ClientId, RepositoryId, SessionId};
use crate::repo::sealed::not_allowed;
use crate::repo::surroundings::Surroundings;
use std::collections::HashMap;
use std::sync::Mutex;
use zeroize::Zeroizing;

/// Keys of one generation.
pub(super) struct GenerationKeys {
    pub(super) number: u32,
    index: Secret,
    shared: [Option<Secret>; 2],
    vault: [String; 2],
    identity: [Option<Zeroizing<String>>; 2],
}

/// Everything that an opened bundle allows.
pub(super) struct Keys {
    pub(super) repository: RepositoryId,
    pub(super) role: Role,
    pub(super) surroundings: Surroundings,
    signer: Option<ClientKey>,
    names: Option<NameKeys>,
    page: Option<PageKey>,
    domain: Option<Secret>,
    generations: Vec<GenerationKeys>,
    /// Keys of sessions that were unsealed, by their commitment.
    sessions: Mutex<HashMap<[u8; 32], Zeroizing<[u8; 32]>>>,
}

/// A writer's own session of one class.
pub(super) struct OwnSession {
    pub(super) entry: SealEntry,
    pub(super) key: Zeroizing<[u8; 32]>,
}

fn slot_of(class: Class) -> usize {
    usize::from(class == Class::Meta)
}

impl Keys {
    pub(super) fn new(bundle: &Bundle, surroundings: Surroundings) -> Self {
        let domain = bundle.domain.map(Secret);
        let names = match (&domain, bundle.names) {
            (Some(domain), _) => Some(NameKeys::derive(domain)),
            (None, names) => names.map(NameKeys::from_keys),
        };
        let generations = bundle.generations.iter().map(|generation| GenerationKeys {
            number: generation.number,
            index: Secret(generation.index),
            shared: [generation.shared_data.map(Secret), generation.shared_meta.map(Secret)],
            vault: [generation.vault_data.clone(), generation.vault_meta.clone()],
            identity: [
                generation.identity_data.clone().map(Zeroizing::new),
                generation.identity_meta.clone().map(Zeroizing::new),
            ],
        });
        Self {
            repository: bundle.repository,
            role: bundle.role,
            surroundings,
            signer: bundle.signing_seed.as_ref().map(ClientKey::from_seed),
            names,
            page: domain.as_ref().map(PageKey::derive),
            generations: generations.collect(),
            domain,
            sessions: Mutex::default(),
        }
    }

    pub(super) fn newest(&self) -> &GenerationKeys {
        self.generations.last().expect("a bundle without generations is not decoded")
    }

    fn generation(&self, number: u32) -> Result<&GenerationKeys> {
        let found = self.generations.iter().find(|generation| generation.number == number);
        found.ok_or_else(|| super::rotate::too_old(number))
    }

    pub(super) fn index_key(&self, generation: u32) -> Result<&Secret> {
        self.generation(generation).map(|generation| &generation.index)
    }

    pub(super) fn signer(&self) -> Result<&ClientKey> {
        self.signer.as_ref().ok_or_else(|| not_allowed("write to the log", self.role.name()))
    }

    pub(super) fn client(&self) -> Result<ClientId> {
        self.signer().map(|signer| client_id(&signer.public()))
    }

    pub(super) fn chunker_table(&self) -> Result<Box<[u64; 256]>> {
        let domain = self.domain.as_ref().ok_or_else(|| not_allowed("cut content", self.role.name()))?;
        Ok(chunker_table(domain))
    }

    pub(super) fn page_hash(&self, name: &[u8]) -> Result<[u8; 32]> {
        self.page.as_ref().map(|page| page.hash(name)).ok_or_else(|| not_allowed("write a tree", self.role.name()))
    }

    /// The id of a chunk.
    pub(super) fn name(&self, kind: ChunkType, bytes: &[u8]) -> Result<ChunkId> {
        let names = self.names.as_ref().ok_or_else(|| not_allowed("name a chunk", self.role.name()))?;
        Ok(names.name(kind.code(), bytes))
    }

    /// Begins a session of a class: a new secret, sealed to the vault.
    pub(super) fn start_session(&self, class: Class) -> Result<OwnSession> {
        let generation = self.newest();
        let shared = generation.shared[slot_of(class)].as_ref();
        let shared = shared.ok_or_else(|| not_allowed("back up", self.role.name()))?;
        let secret = self.surroundings.secret()?;
        let session = SessionId(self.surroundings.random()?);
        let context = SessionContext {
            repository: &self.repository,
            session: &session,
            class: class.code(),
            generation: generation.number,
        };
        let key = session_key(&secret, shared, &context);
        let wrapped = self.surroundings.wrap_to(&generation.vault[slot_of(class)], &secret.0)?;
        let entry = SealEntry { session, class, generation: generation.number, commit: key.commit, wrapped };
        Ok(OwnSession { entry, key: Zeroizing::new(key.key) })
    }

    /// The key of somebody's session.
    pub(super) fn open_session(&self, entry: &SealEntry) -> Result<Zeroizing<[u8; 32]>> {
        if let Some(key) = self.sessions().get(&entry.commit) {
            return Ok(key.clone());
        }
        let generation = self.generation(entry.generation)?;
        let slot = slot_of(entry.class);
        let (Some(identity), Some(shared)) = (&generation.identity[slot], &generation.shared[slot]) else {
            return Err(not_allowed("read stored content", self.role.name()));
        };
        let secret = unwrap(&entry.wrapped, &credential_of(identity)?).map_err(|error| error.as_kind(ErrorKind::Damaged))?;
        let secret: [u8; 32] =
            secret.as_slice().try_into().map_err(|_| Error::damaged("open a session: its secret has a wrong length"))?;
        let context = SessionContext {
            repository: &self.repository,
            session: &entry.session,
            class: entry.class.code(),
            generation: entry.generation,
        };
        let key = session_key(&Secret(secret), shared, &context);
        if key.commit != entry.commit {
            return Err(Error::damaged("open a session: its commitment does not fit"));
        }
        let key = Zeroizing::new(key.key);
        self.sessions().insert(entry.commit, key.clone());
        Ok(key)
    }

    /// Remembers the key of an own session, so that a writer can verify what it made.
    pub(super) fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Zeroizing<[u8; 32]>>> {
        self.sessions.lock().expect("no code panics while it holds this lock")
    }
}
