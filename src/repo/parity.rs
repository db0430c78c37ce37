//! Parity of packs: writing sidecars, and making lost parts of packs anew from them.
//!
//! A sidecar is never believed: what it gives back is bytes of a pack, which are opened and hashed as any others.

use crate::error::{Error, ErrorKind, Result};
use crate::format::key::Role;
use crate::format::parity::{
    FIXED_LEN, GROUP_LEN, GROUP_SHARDS, ParityHead, SHARD_LEN, decode_lost, encode_recovery, groups, recovery_count, shards_in,
};
use crate::id::PackId;
use crate::repo::{Mend, Repository};
use crate::store::{AnyStore, Key, remove};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

/// Sidecars that are looked at to learn how much parity there is.
const LOOKED_AT: usize = 8;
/// Per mille of parity where nothing tells how much is wanted.
const USUAL_SHARE: u16 = 50;
/// Groups whose mended shards are kept: each has at most a group's share of parity.
const KEPT: usize = 8;
/// Shards that are read at once.
const RUN: usize = 16;

/// The names of the sidecars of a pack of this length; they go when the pack goes.
pub(in crate::repo) fn sidecars(pack: &PackId, size: u64) -> impl Iterator<Item = Key> {
    let pack = *pack;
    (0..groups(size)).map(move |group| Key::parity(&pack, group))
}

/// Gathers the bytes of a pack that is being written, and makes its sidecars.
pub(super) struct ParityWriter {
    share: u16,
    pending: Vec<u8>,
    groups: Vec<Group>,
}

struct Group {
    share: u16,
    data: Vec<[u8; 32]>,
    recovery: Vec<u8>,
}

/// Hash of a shard, filled up with zeros.
fn shard_hash(shard: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(shard);
    hasher.update(&[0; SHARD_LEN][shard.len()..]);
    *hasher.finalize().as_bytes()
}

impl Group {
    fn of(bytes: &[u8], share: u16) -> Result<Self> {
        let data: Vec<[u8; 32]> = bytes.chunks(SHARD_LEN).map(shard_hash).collect();
        let recovery = encode_recovery(bytes, recovery_count(data.len(), share))?;
        Ok(Self { share, data, recovery })
    }

    fn encode(&self, pack: PackId, pack_len: u64, group: usize) -> Vec<u8> {
        let group = u16::try_from(group).expect("a pack has at most seven groups");
        let recovery = self.recovery.chunks(SHARD_LEN).map(shard_hash).collect();
        let mut out = ParityHead { pack, pack_len, group, share: self.share, data: self.data.clone(), recovery }.encode();
        out.extend_from_slice(&self.recovery);
        out
    }
}

impl ParityWriter {
    pub(super) fn new(share: u16) -> Self {
        Self { share, pending: Vec::new(), groups: Vec::new() }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        let full = GROUP_SHARDS * SHARD_LEN;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(full - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = rest;
            if self.pending.len() == full {
                self.groups.push(Group::of(&self.pending, self.share)?);
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// Puts the sidecars of the pack, which is durable by now: without it they would be of no use.
    pub(super) fn finish(mut self, store: &AnyStore, pack: PackId, pack_len: u64) -> Result<()> {
        if !self.pending.is_empty() {
            self.groups.push(Group::of(&self.pending, self.share)?);
        }
        let put = |(number, (group, key)): (usize, (&Group, Key))| store.put(&key, &group.encode(pack, pack_len, number));
        let mut groups = self.groups.iter().zip(sidecars(&pack, pack_len)).enumerate();
        if store.width() <= 1 {
            return groups.try_for_each(put);
        }
        // Each waits for answers of its own; there are seven at most.
        std::thread::scope(|scope| {
            let put = &put;
            let threads: Vec<_> = groups.map(|group| scope.spawn(move || put(group))).collect();
            let failed = |_| Err(Error::panicked("store parity"));
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(failed))
        })
    }
}

/// The shards of a group that were lost, made anew, by their place in the pack.
#[derive(Default)]
pub(super) struct Mended {
    shards: BTreeMap<u64, Vec<u8>>,
}

/// Groups that were looked at; what could not be mended is remembered too, or every block would try again.
type Looked = VecDeque<((PackId, u64), std::result::Result<Arc<Mended>, String>)>;

/// What was mended lately. Only one group is mended at a time, so that the memory for it is needed once.
#[derive(Default)]
pub(super) struct Mender {
    looked: Mutex<Looked>,
}

impl Mender {
    fn mended(&self, store: &AnyStore, pack: (&PackId, u64), group: u64) -> Result<Arc<Mended>> {
        let mut looked = self.looked.lock().map_err(|_| Error::panicked("mend a pack"))?;
        let key = (*pack.0, group);
        let found = looked.iter().find(|(known, _)| *known == key).map(|(_, result)| result.clone());
        let result = found.unwrap_or_else(|| {
            let result = mend(store, pack.0, pack.1, group).map(Arc::new).map_err(|error| error.to_string());
            if looked.len() >= KEPT {
                looked.pop_front();
            }
            looked.push_back((key, result.clone()));
            result
        });
        result.map_err(Error::damaged)
    }

    /// Forgets what was seen: somebody changed the objects.
    pub(in crate::repo) fn forget(&self) {
        if let Ok(mut looked) = self.looked.lock() {
            looked.clear();
        }
    }
}

/// A sidecar that was opened.
pub(super) struct Sidecar {
    key: Key,
    head: ParityHead,
    head_len: u64,
}

impl Sidecar {
    /// Opens the sidecar of a group; `None` if there is none.
    pub(super) fn open(store: &AnyStore, pack: &PackId, size: u64, group: u64) -> Result<Option<Self>> {
        let key = Key::parity(pack, group);
        if store.size(&key)?.is_none() {
            return Ok(None);
        }
        let inside = |error: Error| error.while_doing(format!("read {key}"));
        let mut fixed = [0; FIXED_LEN];
        store.read_at(&key, 0, &mut fixed)?;
        let length = ParityHead::length(&fixed).map_err(inside)?;
        let mut bytes = vec![0; length];
        store.read_at(&key, 0, &mut bytes)?;
        let head = ParityHead::decode(&bytes).map_err(inside)?;
        if head.pack != *pack || head.pack_len != size || u64::from(head.group) != group {
            return Err(inside(Error::damaged("it belongs to something else")));
        }
        Ok(Some(Self { key, head, head_len: length as u64 }))
    }

    /// A recovery shard, if it is what it was.
    fn recovery(&self, store: &AnyStore, number: usize) -> Result<Option<Vec<u8>>> {
        let mut shard = vec![0; SHARD_LEN];
        let offset = self.head_len + (number * SHARD_LEN) as u64;
        match store.read_at(&self.key, offset, &mut shard) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(_) => Ok(None),
            Ok(()) => Ok((self.head.recovery.get(number) == Some(&shard_hash(&shard))).then_some(shard)),
        }
    }

    /// Fails unless every shard of it is what it was.
    pub(super) fn verify(&self, store: &AnyStore) -> Result<()> {
        for number in 0..self.head.recovery.len() {
            if self.recovery(store, number)?.is_none() {
                return Err(Error::damaged(format!("read {}: recovery shard {number} is not what it was", self.key)));
            }
        }
        Ok(())
    }
}

/// Reads a shard into `buffer`, filled up with zeros; false if it cannot be read or is not what it was.
fn read_shard(store: &AnyStore, key: &Key, at: (u64, u64), hash: &[u8; 32], buffer: &mut [u8]) -> Result<bool> {
    let (offset, size) = at;
    let length = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(SHARD_LEN);
    buffer[length..].fill(0);
    match store.read_at(key, offset, &mut buffer[..length]) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
        Err(_) => Ok(false),
        Ok(()) => Ok(blake3::hash(buffer).as_bytes() == hash),
    }
}

/// Finds the lost shards of a group and makes them anew.
fn mend(store: &AnyStore, pack: &PackId, size: u64, group: u64) -> Result<Mended> {
    let key = Key::pack(pack);
    let sidecar = Sidecar::open(store, pack, size, group)?;
    let sidecar = sidecar.ok_or_else(|| Error::damaged(format!("mend {key}: it has no parity")))?;
    if store.size(&key)?.is_none() {
        return Err(Error::damaged(format!("mend {key}: all of it is gone")));
    }
    let first = group * GROUP_SHARDS as u64;
    let count = shards_in(size, group);
    let mut data = vec![0; count * SHARD_LEN];
    let mut lost = Vec::new();
    for (run, shards) in data.chunks_mut(RUN * SHARD_LEN).enumerate() {
        for (within, shard) in shards.chunks_mut(SHARD_LEN).enumerate() {
            let number = run * RUN + within;
            let offset = (first + number as u64) * SHARD_LEN as u64;
            if !read_shard(store, &key, (offset, size), &sidecar.head.data[number], shard)? {
                lost.push(number);
            }
        }
        if lost.len() > sidecar.head.recovery.len() {
            return Err(Error::damaged(format!("mend {key}: more of it is lost than there is parity for")));
        }
    }
    let mut recovery = Vec::new();
    for number in 0..sidecar.head.recovery.len() {
        if recovery.len() == lost.len() {
            break;
        }
        recovery.extend(sidecar.recovery(store, number)?.map(|shard| (number, shard)));
    }
    if !lost.is_empty() {
        let count = sidecar.head.recovery.len();
        decode_lost(&mut data, &lost, &recovery, count).map_err(|error| error.while_doing(format!("mend {key}")))?;
    }
    let mut mended = Mended::default();
    for number in lost {
        let shard = &data[number * SHARD_LEN..][..SHARD_LEN];
        if blake3::hash(shard).as_bytes() != &sidecar.head.data[number] {
            return Err(Error::damaged(format!("mend {key}: what its parity gives is not what it was")));
        }
        mended.shards.insert(first + number as u64, shard.to_vec());
    }
    Ok(mended)
}

impl Repository {
    /// Says how much parity packs get that are written from now on, in per mille of their length; 0 for none.
    pub fn set_parity(&self, share: u16) {
        *self.inner.parity.lock().expect("no code panics while it holds this lock") = Some(share.min(1000));
    }

    /// How much parity new packs get: what was said, or as much as some pack in the store has.
    pub(in crate::repo) fn parity(&self) -> Result<u16> {
        let mut known = self.inner.parity.lock().expect("no code panics while it holds this lock");
        if let Some(share) = *known {
            return Ok(share);
        }
        let share = self.share_of_others()?;
        *known = Some(share);
        Ok(share)
    }

    /// Asks for what tells whether packs have parity, if nobody has yet.
    pub(in crate::repo) fn expect_parity(&self) {
        if self.inner.parity.lock().expect("no code panics while it holds this lock").is_none() {
            self.expect_listings(&["parity"]);
        }
    }

    /// Puts a second copy of a new small object, if packs have parity and that is known already. Its absence is no fault.
    pub(in crate::repo) fn duplicate_new(&self, key: &Key, bytes: &[u8]) {
        let share = *self.inner.parity.lock().expect("no code panics while it holds this lock");
        if share.is_some_and(|share| share > 0) {
            let _ = self.store().put(&Key::copy_of(key), bytes);
        }
    }

    /// Makes all duplicates of small objects that are missing: the owner of all of them, others of their own log. A store that is
    /// well set up lets them create no more, and replace nothing.
    ///
    /// # Errors
    /// `Full`, `Failed`.
    pub fn keep_duplicates(&self) -> Result<()> {
        let is_owner = self.role() == Role::Owner;
        let own = self.keys().client()?;
        let is_own = |key: &Key| key.log_seq().is_some_and(|(client, _)| client == own);
        let repairer = self.repairer(None)?;
        for mend in repairer.plan_duplicates()? {
            if !is_owner && !matches!(&mend, Mend::Duplicate(key) if is_own(key)) {
                continue;
            }
            match repairer.carry_out(&mend) {
                Err(error) if error.kind() == ErrorKind::Refused && !is_owner => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    /// The share of some sidecar in the store; 0 if there is none, or if the credentials at hand do not let it be seen.
    fn share_of_others(&self) -> Result<u16> {
        let mut found = Vec::new();
        let listed = self.store().list("parity", &mut |entry| {
            found.extend(entry.key.parity_of());
            if found.len() < LOOKED_AT { Ok(()) } else { Err(Error::failed("list parity: a few are enough")) }
        });
        if let Err(error) = listed
            && error.kind() == ErrorKind::Interrupted
        {
            return Err(error);
        }
        for (pack, group) in &found {
            let mut fixed = [0; FIXED_LEN];
            let read = self.store().read_at(&Key::parity(pack, *group), 0, &mut fixed);
            if let Ok(share) = read.and_then(|()| ParityHead::share(&fixed)) {
                return Ok(share);
            }
        }
        // There is parity, and what was looked at is damaged.
        Ok(if found.is_empty() { 0 } else { USUAL_SHARE })
    }

    /// Deletes the sidecars of packs that are gone for good.
    pub(in crate::repo) fn delete_parity_of(&self, gone: &HashSet<PackId>) -> Result<()> {
        let mut doomed = Vec::new();
        self.store().list("parity", &mut |entry| {
            doomed.extend(entry.key.parity_of().filter(|(pack, _)| gone.contains(pack)).map(|_| entry.key));
            Ok(())
        })?;
        self.store().list("contents", &mut |entry| {
            doomed.extend(entry.key.contents_of().filter(|pack| gone.contains(pack)).map(|_| entry.key));
            Ok(())
        })?;
        let removed = self.side_by_side(&doomed, |key| remove(&**self.store(), key, self.now()).map(drop));
        removed.into_iter().collect()
    }

    /// Reads a part of a pack as it was, with what is lost made anew from parity.
    pub(in crate::repo) fn read_mended(&self, pack: &PackId, size: u64, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > size {
            return Err(Error::damaged(format!("mend {}: a part behind its end", Key::pack(pack))));
        }
        let mut at = offset;
        while at < end {
            let shard = at / SHARD_LEN as u64;
            let until = end.min((shard + 1) * SHARD_LEN as u64);
            let place = |position: u64| usize::try_from(position - offset).expect("within the buffer");
            let part = &mut buffer[place(at)..place(until)];
            let mended = self.inner.mender.mended(self.store(), (pack, size), at / GROUP_LEN)?;
            match mended.shards.get(&shard) {
                Some(bytes) => {
                    let within = usize::try_from(at % SHARD_LEN as u64).expect("64 KiB");
                    part.copy_from_slice(&bytes[within..within + part.len()]);
                }
                None => self.store().read_at(&Key::pack(pack), at, part)?,
            }
            at = until;
        }
        Ok(())
    }

    /// Hash of the pack as parity gives it back.
    pub(in crate::repo) fn hash_mended(&self, pack: &PackId, size: u64) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        self.each_mended(pack, size, &mut |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(*hasher.finalize().as_bytes())
    }

    /// Hands the pack out, piece by piece, as parity gives it back.
    pub(in crate::repo) fn each_mended(&self, pack: &PackId, size: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // Of many packs that are gone and have no parity, none is worth a buffer.
        self.inner.mender.mended(self.store(), (pack, size), 0)?;
        let mut buffer = vec![0; RUN * SHARD_LEN];
        let mut at = 0;
        while at < size {
            let step = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
            self.read_mended(pack, size, at, &mut buffer[..step])?;
            each(&buffer[..step])?;
            at += step as u64;
        }
        Ok(())
    }

    /// Fails unless the sidecars of a pack, if it has any, are all there and what they were.
    pub(in crate::repo) fn verify_parity(&self, pack: &PackId, size: u64) -> Result<()> {
        let mut there = 0;
        for group in 0..groups(size) {
            if let Some(sidecar) = Sidecar::open(self.store(), pack, size, group)? {
                sidecar.verify(self.store())?;
                there += 1;
            }
        }
        if there > 0 && there < groups(size) {
            return Err(Error::damaged(format!("read the parity of the pack {pack}: a part of it is gone")));
        }
        Ok(())
    }

    /// Makes the sidecars of a pack that is whole, in place of those that are not; true if any were made.
    ///
    /// # Errors
    /// `Damaged` if the pack is not what its name says.
    pub(in crate::repo) fn add_parity_to(&self, pack: &PackId, size: u64, share: u16) -> Result<bool> {
        let whole = |group| match Sidecar::open(self.store(), pack, size, group) {
            Ok(Some(sidecar)) => sidecar.verify(self.store()).is_ok(),
            _ => false,
        };
        if (0..groups(size)).all(whole) {
            return Ok(false);
        }
        let mut writer = ParityWriter::new(share);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; RUN * SHARD_LEN];
        let mut at = 0;
        while at < size {
            let step = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
            self.store().read_at(&Key::pack(pack), at, &mut buffer[..step])?;
            hasher.update(&buffer[..step]);
            writer.push(&buffer[..step])?;
            at += step as u64;
        }
        if *hasher.finalize().as_bytes() != pack.0 {
            return Err(Error::damaged(format!("read the pack {pack}: its bytes are not what its name says"))
                .with_hint("`lifeboat repair` mends what can be mended"));
        }
        for key in sidecars(pack, size) {
            self.store().delete(&key)?;
        }
        writer.finish(self.store(), *pack, size)?;
        self.inner.mender.forget();
        Ok(true)
    }
}
