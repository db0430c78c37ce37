//! How a session becomes visible: what it stored is durable, what it borrowed is still there, then one record says so.

use crate::error::{Error, ErrorKind, Result};
use crate::format::log::{Head, PackRef, RecordBody, SealedSnapshot};
use crate::format::snapshot::Snapshot;
use crate::format::tree::{ChunkType, Class};
use crate::id::{PackId, SnapshotId};
use crate::repo::cache;
use crate::repo::packer::ToPack;
use crate::repo::session::{ChunkWriter, Session, SessionCounts, over};
use std::cell::Cell;
use std::sync::mpsc::sync_channel;

impl Session {
    /// Commits `snapshot`: all packs are durable, then the record makes it visible. All other writers must be flushed
    /// and gone. `complete` is asked for the final snapshot once the counts are known.
    ///
    /// `None` if a prune condemned something that the session relied on: then nothing was committed, and what the session
    /// stored stays known, so that doing it all again stores only what is missing.
    ///
    /// # Errors
    /// Whatever kept data from being stored; then nothing is committed.
    pub fn commit(
        mut self,
        mut writer: ChunkWriter,
        complete: impl FnOnce(SessionCounts) -> Snapshot,
    ) -> Result<Option<(SnapshotId, Snapshot)>> {
        let prepared = self.prepare(&mut writer, complete);
        drop(writer);
        // What the threads met is nearer to the cause than what the writer saw of it.
        let mut packs = self.finish()?;
        let (id, snapshot, sealed) = prepared?;
        packs.extend(self.adopted(&packs)?);
        packs.sort_unstable();
        packs.dedup();
        let sessions = self.shared.begun().map(|(_, session)| session).collect();
        let body = RecordBody::Snapshot { id, snapshot: sealed, packs: packs.clone(), indexes: Vec::new(), sessions };
        let Some(head) = self.append_unless_outrun(body, &packs)? else { return Ok(None) };
        // A writer could not open it again; this machine knows it anyway. Committed is committed, even if it cannot note that.
        let _ = self.repository.remember_body(&head, &snapshot.encode());
        Ok(Some((id, snapshot)))
    }

    /// Seals everything that is open, and the snapshot.
    fn prepare(
        &self,
        writer: &mut ChunkWriter,
        complete: impl FnOnce(SessionCounts) -> Snapshot,
    ) -> Result<(SnapshotId, Snapshot, SealedSnapshot)> {
        writer.flush()?;
        let snapshot = complete(self.counts());
        let bytes = snapshot.encode();
        let id = self.shared.keys.name(ChunkType::Snapshot, &bytes)?;
        if self.shared.begun().any(|(class, _)| class == Class::Meta) {
            // Some meta pack is being written anyway: with the snapshot in it, the log can be rebuilt from packs.
            writer.put(ChunkType::Snapshot, &bytes)?;
            writer.flush()?;
        }
        let sealed = writer.seal_snapshot(&id, &bytes)?;
        Ok((SnapshotId::from(id), snapshot, sealed))
    }

    /// True if everything that the session stored or relied on is there, and no prune that is known condemned it.
    fn is_valid(&self, packs: &[PackRef]) -> Result<bool> {
        let connection = self.repository.connection();
        let borrowed = self.shared.borrowed.lock().expect("no code panics while it holds this lock");
        let same_cache = cache::index::incarnation(&connection)? == self.incarnation;
        let unchanged = same_cache && cache::index::epoch(&connection)? == self.epoch;
        if (borrowed.everything && !unchanged) || (!borrowed.packs.is_empty() && !same_cache) {
            return Ok(false);
        }
        let barred = cache::index::unborrowable(&connection, &self.trusting)?;
        let numbers: Vec<u32> = borrowed.packs.iter().copied().collect();
        let trusted = numbers.iter().all(|number| !barred.contains(number));
        Ok(trusted && cache::index::all_borrowable(&connection, &numbers, packs)?)
    }

    /// Appends a claim: what the session stored so far, and `snapshot` as a checkpoint of it. Other writers must have been
    /// flushed since what it names was put. False if a prune condemned something of it: then there is no claim.
    ///
    /// # Errors
    /// Whatever kept data from being stored; the session may go on.
    pub fn claim(&self, mut writer: ChunkWriter, snapshot: &Snapshot) -> Result<bool> {
        let bytes = snapshot.encode();
        let id = self.shared.keys.name(ChunkType::Snapshot, &bytes)?;
        writer.flush()?;
        let sealed = writer.seal_snapshot(&id, &bytes)?;
        let (reply, answer) = sync_channel(1);
        self.blocks.as_ref().ok_or_else(over)?.send(ToPack::Barrier(reply)).map_err(|_| self.shared.over())?;
        let mut packs = answer.recv().map_err(|_| self.shared.over())?;
        packs.extend(self.adopted(&packs)?);
        packs.sort_unstable();
        let all = packs.clone();
        let mut claimed = self.claimed.lock().expect("no code panics while it holds this lock");
        packs.retain(|pack| !claimed.contains(&pack.id));
        let new: Vec<PackId> = packs.iter().map(|pack| pack.id).collect();
        let body = RecordBody::Claim { packs, checkpoint: Some((SnapshotId::from(id), sealed)) };
        let Some(head) = self.append_unless_outrun(body, &all)? else { return Ok(false) };
        let _ = self.repository.remember_body(&head, &bytes);
        claimed.extend(new);
        Ok(true)
    }

    /// Appends a record that relies on what the session stored and borrowed; `None` if a prune outran it.
    fn append_unless_outrun(&self, body: RecordBody, packs: &[PackRef]) -> Result<Option<Head>> {
        let outrun = Cell::new(false);
        let still_valid = || {
            outrun.set(!self.is_valid(packs)?);
            if outrun.get() { Err(Error::new(ErrorKind::InUse, "append a record: a prune was faster")) } else { Ok(()) }
        };
        match self.repository.append_if(body, &still_valid) {
            Ok(head) => Ok(Some(head)),
            Err(_) if outrun.get() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Packs that an earlier, interrupted session left: their chunks may have been taken as known.
    fn adopted(&self, own: &[PackRef]) -> Result<Vec<PackRef>> {
        let connection = self.repository.connection();
        let unlogged = cache::index::unlogged_packs(&connection)?;
        Ok(unlogged.into_iter().filter(|pack| !own.contains(pack)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;
    use crate::repo::{Access, NewSlot, OpenOptions, Repository, default_sizes, generate_identity};
    use crate::store::{Created, Entry, Key, Memory, Staged, Store};
    use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use zeroize::Zeroizing;

    /// A store in memory that begins no pack: it says that it was asked to, waits until it may go on, and fails or panics.
    struct Gate {
        inner: Memory,
        reached: SyncSender<()>,
        opened: Mutex<Receiver<()>>,
        panics: bool,
    }

    impl Store for Gate {
        fn stage(&self) -> Result<Box<dyn Staged>> {
            let _ = self.reached.send(());
            let _ = self.opened.lock().unwrap().recv();
            match self.panics {
                true => std::panic::resume_unwind(Box::new("as the test wants")),
                false => Err(Error::new(ErrorKind::Full, "begin a pack: the disk is full")),
            }
        }

        fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
            self.inner.put(key, bytes)
        }

        fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
            self.inner.create(key, bytes)
        }

        fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
            self.inner.get(key, limit)
        }

        fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.inner.read_at(key, offset, buffer)
        }

        fn size(&self, key: &Key) -> Result<Option<u64>> {
            self.inner.size(key)
        }

        fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
            self.inner.list(prefix, each)
        }

        fn delete(&self, key: &Key) -> Result<()> {
            self.inner.delete(key)
        }

        fn describe(&self) -> String {
            self.inner.describe()
        }
    }

    #[test]
    fn whoever_waits_for_a_checkpoint_hears_of_a_packer_that_has_ended_before_it_came_to_it() {
        for panics in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name);
            let options = OpenOptions { cache_dir: path("cache"), state_dir: path("state"), fingerprint: None };
            let (identity, recipient) = generate_identity().unwrap();
            let (memory, sizes) = (Memory::default(), default_sizes(4096).unwrap());
            let slot = NewSlot::Recipient(recipient);
            Repository::init_store(|| Ok(Arc::new(memory.clone())), &slot, sizes, 3, &options).unwrap();
            let access = Access { identity: Some(Zeroizing::new(identity.as_bytes().to_vec())), passphrase: None };
            let ((reached, is_reached), (open, opened)) = (sync_channel(1), sync_channel(1));
            let store = Gate { inner: memory, reached, opened: Mutex::new(opened), panics };
            let repository = Repository::open_store(Arc::new(store), &access, &options, &Silent).unwrap();

            let mut session = Session::start(&repository, false).unwrap();
            let mut writer = session.writer().unwrap();
            writer.put(ChunkType::Data, b"something").unwrap();
            writer.flush().unwrap();
            is_reached.recv_timeout(Duration::from_secs(120)).unwrap();
            let (reply, answer) = sync_channel(1);
            session.blocks.as_ref().unwrap().send(ToPack::Barrier(reply)).unwrap();
            open.send(()).unwrap();
            // There is still somebody who could send more, as there is in a backup.
            assert_eq!(answer.recv_timeout(Duration::from_secs(120)).unwrap_err(), RecvTimeoutError::Disconnected);
            drop(writer);
            let error = session.finish().unwrap_err();
            assert_eq!(error.kind() == ErrorKind::Full, !panics, "{error}");
        }
    }
}
