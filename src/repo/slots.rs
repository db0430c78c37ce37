//! Key slots: making a repository, opening one, and adding and removing ways in.

use crate::crypto::derive::Secret;
use crate::crypto::sign::{ClientKey, client_id};
use crate::crypto::wrap::{self, Credential};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key::{Bundle, Generation, Role};
use crate::format::log::RecordBody;
use crate::format::repository::{ChunkSizes, RepositoryFormat};
use crate::id::{Fingerprint, ObjectHash, RepositoryId, SlotId};
use crate::repo::duplicates::Duplicates;
use crate::repo::roles::Act;
use crate::repo::surroundings::Surroundings;
use crate::repo::{Repository, cache, slot_memory};
use crate::store::{AnyStore, Key, Location, Next};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest slot that is read.
pub(super) const MAX_SLOT: u64 = 1 << 20;
/// Raw bytes at which a block is closed.
const BLOCK_TARGET: u32 = 3 << 19;
/// Stored bytes at which a pack is closed.
const PACK_TARGET: u32 = 32 << 20;

/// What the user has to open a repository with.
#[derive(Default)]
pub struct Access {
    /// Text of an identity file.
    pub identity: Option<Zeroizing<Vec<u8>>>,
    /// A passphrase.
    pub passphrase: Option<Zeroizing<String>>,
}

/// Where this machine keeps what it knows of a repository.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Folder of caches, which may be deleted.
    pub cache_dir: PathBuf,
    /// Folder of remembered heads, which should stay.
    pub state_dir: PathBuf,
    /// The fingerprint that the repository must have.
    pub fingerprint: Option<Fingerprint>,
}

/// To whom a new slot is sealed.
pub enum NewSlot {
    /// A recipient: `age1…` or an SSH public key.
    Recipient(String),
    /// A passphrase.
    Passphrase(Zeroizing<String>),
}

/// A slot as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its name.
    pub id: SlotId,
    /// Kinds of recipients in its header, such as `X25519`.
    pub kinds: Vec<String>,
    /// What it was called.
    pub label: String,
    /// To whom it is sealed, if the log says.
    pub recipient: String,
    /// When it was added, nanoseconds since 1970, if the log says.
    pub added: Option<i64>,
    /// True if it is the one that was opened with the access at hand.
    pub current: bool,
}

/// Makes a new identity: the text of an identity file and its recipient.
///
/// # Errors
/// Never today; the system may refuse random bytes.
pub fn generate_identity() -> Result<(Zeroizing<String>, String)> {
    Ok(wrap::generate_identity())
}

/// The recipients of the identities in the text of an identity file.
///
/// # Errors
/// `Usage` if there is none in it.
pub fn recipients_of(text: &[u8]) -> Result<Vec<String>> {
    wrap::recipients_of(text)
}

/// Chunk sizes around an average.
///
/// # Errors
/// `Usage` if the average is not a power of two between 4 KiB and 1 MiB.
pub fn default_sizes(average: u32) -> Result<ChunkSizes> {
    if !average.is_power_of_two() || !(4 << 10..=1 << 20).contains(&average) {
        return Err(Error::usage(format!("use chunks of {average} bytes: not a power of two from 4K to 1M")));
    }
    Ok(ChunkSizes { minimum: average / 4, average, maximum: average * 4, normalisation: 3 })
}

pub(super) fn credentials(access: &Access) -> Result<Vec<Credential>> {
    let mut credentials = Vec::new();
    if let Some(text) = &access.identity {
        credentials.push(Credential::from_identity_file(text)?);
    }
    if let Some(passphrase) = &access.passphrase {
        credentials.push(Credential::Passphrase(passphrase.clone()));
    }
    if credentials.is_empty() {
        return Err(Error::new(ErrorKind::WrongKey, "open the repository: no identity and no passphrase was given")
            .with_hint("give --identity FILE, or set LIFEBOAT_IDENTITY or LIFEBOAT_PASSPHRASE"));
    }
    Ok(credentials)
}

const SLOT_DAMAGED: &str =
    "put the slot back from a copy of the repository, or open another one with its own identity or passphrase";

/// The slot that this machine opened the last time.
pub(super) fn last_opened(memory: &Path) -> Option<SlotId> {
    slot_memory::load(memory).first().copied()
}

/// Opens the best slot. The file `memory` remembers which one it was and which others there were, so that a machine among
/// thousands need not try the slots of all of them each time.
pub(super) fn open_bundle(
    (store, duplicates): (&AnyStore, &Duplicates),
    access: &Access,
    fingerprint: Fingerprint,
    memory: &Path,
) -> Result<Bundle> {
    let slots = list_slots(store)?;
    let remembered = slot_memory::load(memory);
    // With two credentials a slot may have been passed over only because the other one was not given then.
    let only_one = access.identity.is_none() || access.passphrase.is_none();
    let last = remembered.first().filter(|last| only_one && slots.contains(last));
    if let Some(last) = last
        && let Ok(known) = choose(store, access, fingerprint, &[*last])
    {
        let seen: HashSet<&SlotId> = remembered.iter().collect();
        let new: Vec<SlotId> = slots.iter().filter(|slot| !seen.contains(slot)).copied().collect();
        let better = if new.is_empty() { None } else { choose(store, access, fingerprint, &new).ok() };
        let best = better.filter(|(_, bundle)| rank(bundle) > rank(&known.1)).unwrap_or(known);
        slot_memory::save(memory, &best.0, &slots, &remembered);
        return Ok(best.1);
    }
    let (best, bundle) = choose(store, access, fingerprint, &slots)
        .or_else(|error| choose_duplicate((store, duplicates), access, fingerprint).ok_or(error))?;
    slot_memory::save(memory, &best, &slots, &remembered);
    Ok(bundle)
}

/// Tries every slot with every credential.
pub(super) fn find_slot(store: &AnyStore, access: &Access, fingerprint: Fingerprint) -> Result<(SlotId, Bundle)> {
    choose(store, access, fingerprint, &list_slots(store)?)
}

/// Slots that allow more are better, and of those that allow the same, the one with the newest keys.
fn rank(bundle: &Bundle) -> (u8, Option<u32>) {
    (bundle.role.code(), bundle.generations.last().map(|generation| generation.number))
}

/// The best of the slots that open.
fn choose(store: &AnyStore, access: &Access, fingerprint: Fingerprint, slots: &[SlotId]) -> Result<(SlotId, Bundle)> {
    let credentials = credentials(access)?;
    if slots.is_empty() {
        return Err(Error::damaged("open the repository: all its key slots are gone").with_hint(
            "the store is not complete: put back the files of `keys/`, any copy of one of them opens the repository",
        ));
    }
    let mut found: Option<(SlotId, Bundle)> = None;
    let mut damaged = None;
    for slot in slots {
        let opened = store.get(&Key::slot(slot), MAX_SLOT).and_then(|wrapped| open_slot(&wrapped, &credentials));
        match opened {
            Ok(bundle) if bundle.fingerprint == fingerprint => {
                if found.as_ref().is_none_or(|(_, best)| rank(best) < rank(&bundle)) {
                    found = Some((*slot, bundle));
                }
            }
            Ok(_) => {
                damaged = Some(
                    Error::new(ErrorKind::WrongKey, format!("open key slot {slot}: it belongs to another repository"))
                        .with_hint("somebody exchanged slots or format/1; compare the fingerprint with your kit"),
                );
            }
            Err(error) if error.kind() == ErrorKind::WrongKey => {}
            Err(error) => {
                let error = error.while_doing(format!("open the repository: key slot {slot}"));
                let is_damage = error.kind() == ErrorKind::Damaged;
                damaged = Some(if is_damage { error.with_hint(SLOT_DAMAGED) } else { error });
            }
        }
    }
    if let Some(found) = found {
        return Ok(found);
    }
    let message = format!("open the repository: no key slot opens with what was given ({} tried)", slots.len());
    let wrong = Error::new(ErrorKind::WrongKey, message)
        .with_hint("check --identity or the passphrase; another identity or the paper kit may open it");
    Err(damaged.unwrap_or(wrong))
}

/// The best of the duplicates of slots that open, where no slot does.
fn choose_duplicate(
    (store, duplicates): (&AnyStore, &Duplicates),
    access: &Access,
    fingerprint: Fingerprint,
) -> Option<(SlotId, Bundle)> {
    let credentials = credentials(access).ok()?;
    let mut best: Option<(SlotId, Bundle)> = None;
    let listed = store.list("copies/keys", &mut |entry| {
        let Some(slot) = entry.key.original().and_then(|key| key.slot_id()) else { return Ok(()) };
        let opened = store.get(&entry.key, MAX_SLOT).and_then(|wrapped| open_slot(&wrapped, &credentials));
        if let Ok(bundle) = opened
            && bundle.fingerprint == fingerprint
            && best.as_ref().is_none_or(|(_, best)| rank(best) < rank(&bundle))
        {
            best = Some((slot, bundle));
        }
        Ok(())
    });
    let (slot, bundle) = best.filter(|_| listed.is_ok())?;
    duplicates.note(Key::slot(&slot));
    Some((slot, bundle))
}

/// The names of all slots, ascending.
pub(super) fn list_slots(store: &AnyStore) -> Result<Vec<SlotId>> {
    let mut slots = Vec::new();
    store.list("keys", &mut |entry| {
        slots.extend(entry.key.slot_id());
        Ok(())
    })?;
    slots.sort_unstable();
    Ok(slots)
}

pub(super) fn open_slot(wrapped: &[u8], credentials: &[Credential]) -> Result<Bundle> {
    let mut last = Error::new(ErrorKind::WrongKey, "open a key slot: nothing to open it with");
    for credential in credentials {
        match wrap::unwrap(wrapped, credential) {
            Ok(plain) => return Bundle::decode(&plain),
            Err(error) if error.kind() == ErrorKind::WrongKey => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn seal_bundle(bundle: &Bundle, slot: &NewSlot, surroundings: &Surroundings) -> Result<Vec<u8>> {
    match slot {
        NewSlot::Recipient(recipient) => surroundings.wrap_to(recipient, &bundle.encode()),
        NewSlot::Passphrase(passphrase) => wrap::wrap_with_passphrase(passphrase, &bundle.encode(), None),
    }
}

fn owner_bundle(
    repository: RepositoryId,
    fingerprint: Fingerprint,
    seed: &Secret,
    surroundings: &Surroundings,
) -> Result<Bundle> {
    Ok(Bundle {
        role: Role::Owner,
        repository,
        fingerprint,
        signing_seed: Some(seed.0),
        domain: Some(surroundings.random()?),
        names: None,
        generations: vec![new_generation(1, surroundings)?],
        extra: Vec::new(),
    })
}

impl NewSlot {
    /// To whom it is sealed, as the log says it: empty for a passphrase.
    pub(super) fn recipient(&self) -> String {
        match self {
            Self::Recipient(recipient) => recipient.clone(),
            Self::Passphrase(_) => String::new(),
        }
    }
}

/// A new generation of keys.
pub(super) fn new_generation(number: u32, surroundings: &Surroundings) -> Result<Generation> {
    let (identity_data, vault_data) = surroundings.identity()?;
    let (identity_meta, vault_meta) = surroundings.identity()?;
    Ok(Generation {
        number,
        index: surroundings.random()?,
        shared_data: Some(surroundings.random()?),
        shared_meta: Some(surroundings.random()?),
        vault_data,
        vault_meta,
        identity_data: Some(identity_data.to_string()),
        identity_meta: Some(identity_meta.to_string()),
        extra: Vec::new(),
    })
}

impl Repository {
    /// Makes a repository: owner's slot, the first records, and the format last, so that there is either a whole
    /// repository or none.
    ///
    /// # Errors
    /// `Refused` if something is there, `Usage` for a recipient that cannot be read.
    pub fn init(location: &Location, slot: &NewSlot, sizes: ChunkSizes, level: i32, options: &OpenOptions) -> Result<Self> {
        Self::init_store(|| location.create(), slot, sizes, level, options)
    }

    /// The same in a store that `create` makes, once everything else is known to be right.
    ///
    /// # Errors
    /// As [`Repository::init`].
    pub fn init_store(
        create: impl FnOnce() -> Result<AnyStore>,
        slot: &NewSlot,
        sizes: ChunkSizes,
        level: i32,
        options: &OpenOptions,
    ) -> Result<Self> {
        Self::init_in(&Surroundings::default(), create, slot, (sizes, level), options)
    }

    /// The same in these surroundings.
    #[doc(hidden)]
    pub fn init_in(
        surroundings: &Surroundings,
        create: impl FnOnce() -> Result<AnyStore>,
        slot: &NewSlot,
        (sizes, level): (ChunkSizes, i32),
        options: &OpenOptions,
    ) -> Result<Self> {
        let seed = surroundings.secret()?;
        let format = RepositoryFormat {
            id: RepositoryId(surroundings.random()?),
            owner: ClientKey::from_seed(&seed.0).public(),
            chunks: sizes,
            block_target: BLOCK_TARGET,
            pack_target: PACK_TARGET,
            level,
            created: surroundings.now(),
            read_only: false,
        };
        let encoded = format.encode();
        let fingerprint = format.fingerprint(&encoded);
        let bundle = owner_bundle(format.id, fingerprint, &seed, surroundings)?;
        let wrapped = seal_bundle(&bundle, slot, surroundings)?;
        let store = create()?;
        let id = SlotId(surroundings.random()?);
        let begun = Self::begin(&store, (&id, &wrapped, slot), (format, &bundle), options, surroundings);
        let taken_back = |error| {
            // Nobody refers to these; what stays where this fails too is no obstacle.
            let _ = store.delete(&Key::slot(&id));
            let owner = client_id(&ClientKey::from_seed(&seed.0).public());
            (0..2).for_each(|seq| drop(store.delete(&Key::log(&owner, seq))));
            Err(error)
        };
        let repository = match begun {
            Ok(repository) => repository,
            Err(error) => return taken_back(error),
        };
        // Only this makes a repository of it, and all else is there already.
        if !repository.created(&Key::format(), &encoded, &Next::default())? {
            let place = store.describe();
            return taken_back(Error::new(ErrorKind::InUse, format!("make the repository {place}: another init was faster")));
        }
        Ok(repository)
    }

    /// Puts everything but the format: slot, first record, and the record of the slot.
    fn begin(
        store: &AnyStore,
        (id, wrapped, slot): (&SlotId, &[u8], &NewSlot),
        made: (RepositoryFormat, &Bundle),
        options: &OpenOptions,
        surroundings: &Surroundings,
    ) -> Result<Self> {
        store.put(&Key::slot(id), wrapped)?;
        let repository = Self::genesis(store.clone(), made, options, surroundings)?;
        repository.append(RecordBody::Slot { id: *id, added: true, label: String::new(), recipient: slot.recipient() })?;
        Ok(repository)
    }

    fn genesis(
        store: AnyStore,
        (format, bundle): (RepositoryFormat, &Bundle),
        options: &OpenOptions,
        surroundings: &Surroundings,
    ) -> Result<Self> {
        let hash = ObjectHash(*blake3::hash(&format.encode()).as_bytes());
        let keys = super::keys::Keys::new(bundle, surroundings.clone());
        let record = crate::format::log::Record {
            client: client_id(&format.owner),
            seq: 0,
            previous: None,
            time: format.created,
            heads: Vec::new(),
            base: 0,
            body: RecordBody::Genesis { format: hash },
            author: None,
            extra: Vec::new(),
        };
        let map = record.encode();
        let mut body = keys.signer()?.sign(crate::crypto::sign::LOG_RECORD, &format.id, &map).to_vec();
        body.extend_from_slice(&map);
        let object = super::sealed::seal_object(&keys, crate::format::envelope::ObjectKind::Log, &body)?;
        store.create(&Key::log(&record.client, 0), &object)?;
        let repository =
            Self::with_bundle((store, Duplicates::default()), (format, bundle.fingerprint), bundle, options, surroundings)?;
        repository.take_in_first(&object)?;
        Ok(repository)
    }

    /// All slots.
    ///
    /// # Errors
    /// `Failed` if the store cannot be read.
    pub fn slots(&self, access: &Access) -> Result<Vec<SlotInfo>> {
        let current = find_slot(self.store(), access, self.fingerprint()).map(|(slot, _)| slot).ok();
        list_slots(self.store())?
            .into_iter()
            .map(|id| {
                let wrapped = self.store().get(&Key::slot(&id), MAX_SLOT)?;
                let said = cache::log::slot(&self.connection(), &id)?;
                let (label, recipient, added) =
                    said.map_or_else(Default::default, |(label, recipient, time)| (label, recipient, Some(time)));
                let kinds = wrap::recipient_kinds(&wrapped);
                Ok(SlotInfo { id, kinds, label, recipient, added, current: current == Some(id) })
            })
            .collect()
    }

    /// Adds a slot with the same keys as the one that `access` opens.
    ///
    /// # Errors
    /// `WrongKey`, `Usage` for a recipient that cannot be read.
    pub fn add_slot(&self, access: &Access, slot: &NewSlot, label: &str) -> Result<SlotId> {
        self.permit(Act::ManageKeys)?;
        let (_, bundle) = find_slot(self.store(), access, self.fingerprint())?;
        self.put_slot(&bundle, slot, label)
    }

    /// Seals a bundle into a new slot, and says so in the log.
    pub(super) fn put_slot(&self, bundle: &Bundle, slot: &NewSlot, label: &str) -> Result<SlotId> {
        let id = SlotId(self.keys().surroundings.random()?);
        self.put_slot_as(id, bundle, slot, label).map(|()| id)
    }

    /// The same under a name that was chosen before.
    pub(super) fn put_slot_as(&self, id: SlotId, bundle: &Bundle, slot: &NewSlot, label: &str) -> Result<()> {
        self.store().put(&Key::slot(&id), &seal_bundle(bundle, slot, &self.keys().surroundings)?)?;
        let recipient = slot.recipient();
        self.append(RecordBody::Slot { id, added: true, label: label.to_owned(), recipient }).map(drop)
    }

    /// Says in the log that a slot is gone, and deletes it.
    pub(super) fn drop_slot(&self, id: &SlotId) -> Result<()> {
        self.append(RecordBody::Slot { id: *id, added: false, label: String::new(), recipient: String::new() })?;
        // Its duplicate opens the repository too.
        self.store().delete(&Key::copy_of(&Key::slot(id)))?;
        self.store().delete(&Key::slot(id))
    }

    /// Removes a slot; never the last one, and the one in use only when told so.
    ///
    /// # Errors
    /// `Missing`, `Refused`.
    pub fn remove_slot(&self, access: &Access, id: &SlotId, even_current: bool) -> Result<()> {
        self.permit(Act::ManageKeys)?;
        let slots = self.slots(access)?;
        let slot = slots.iter().find(|slot| slot.id == *id);
        let slot = slot.ok_or_else(|| {
            Error::missing(format!("remove key slot {id}: there is none of that name"))
                .with_hint("`lifeboat key list` shows them")
        })?;
        let refused = |why: &str| Error::new(ErrorKind::Refused, format!("remove key slot {id}: {why}"));
        if slots.len() == 1 {
            return Err(refused("it is the last one, and without it the repository can never be opened again")
                .with_hint("add another slot first"));
        }
        if slot.current && !even_current {
            return Err(refused("it is the one in use").with_hint("open the repository with another slot, or add --force"));
        }
        self.drop_slot(id)
    }
}
