//! Snapshots whose records are gone: most are in a meta pack as well, and can be committed again from there.

use super::{Mend, Repairer};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Observer, Progress, Silent, stop_if_asked};
use crate::format::log::{PackRef, RecordBody};
use crate::format::pack::{FOOTER_LEN, Footer};
use crate::format::snapshot::Snapshot;
use crate::format::tree::ChunkType;
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::repo::block::{Opener, table_digest};
use crate::repo::gc::{Kept, Marker, View};
use crate::repo::{PackList, Repository, Session, cache};
use crate::store::Key;
use std::collections::{BTreeMap, HashSet};

/// A snapshot in a pack, of which no log knows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FoundSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The pack that has it.
    pub pack: PackRef,
}

impl Repository {
    /// A pack in the store as a record would list it.
    fn pack_as_listed(&self, id: &PackId, size: u64) -> Result<PackRef> {
        let mut footer = [0; FOOTER_LEN];
        let at = size.checked_sub(FOOTER_LEN as u64);
        let at = at.ok_or_else(|| Error::damaged(format!("read the pack {id}: it is too short to be one")))?;
        self.store().read_at(&Key::pack(id), at, &mut footer)?;
        Ok(PackRef { id: *id, size, toc_len: Footer::decode(&footer)?.toc_len })
    }

    /// Hands over the snapshots in a pack: their ids and bytes.
    fn each_snapshot_in(&self, pack: &PackRef, each: &mut dyn FnMut(SnapshotId, &[u8])) -> Result<()> {
        let (seals, toc) = self.load_toc(pack)?;
        let mut offset = u64::from(toc.first_block);
        let mut opener = Opener::new()?;
        for block in &toc.blocks {
            let length = block.row.stored_len();
            if block.row.kind == ChunkType::Snapshot {
                let mut stored = vec![0; length as usize];
                self.store().read_at(&Key::pack(&pack.id), offset, &mut stored)?;
                let seal = seals.get(usize::from(block.row.seal)).ok_or_else(|| Error::damaged("its seal is not there"))?;
                let session = self.keys().open_session(seal)?;
                let table = table_digest(&block.chunks);
                let mut rest = opener.open(&self.keys().repository, &session, &block.row, &table, &mut stored)?;
                for chunk in &block.chunks {
                    let (bytes, after) = rest.split_at(chunk.len as usize);
                    rest = after;
                    let id = self.keys().name(ChunkType::Snapshot, bytes)?;
                    if id.prefix() == chunk.prefix && Snapshot::decode(bytes).is_ok() {
                        each(SnapshotId::from(id), bytes);
                    }
                }
            }
            offset += u64::from(length);
        }
        Ok(())
    }

    /// Packs in the store that no log lists, `packs` being those that some does, and that no plan names.
    fn orphans(&self, packs: &PackList) -> Result<Vec<PackRef>> {
        let mut unknown = Vec::new();
        self.each_listed_pack(&mut |id, size| {
            if packs.find(id)?.is_none() {
                unknown.push((*id, size));
            }
            Ok(())
        })?;
        let mut orphans = Vec::new();
        for (id, size) in unknown {
            if !self.is_gone(&id)? {
                orphans.extend(self.pack_as_listed(&id, size).ok());
            }
        }
        Ok(orphans)
    }
}

impl Repairer {
    /// The snapshots in `packs`, and in those that no log lists, that no record of `known` names, to be committed again.
    ///
    /// # Errors
    /// What kept the packs from being looked at.
    pub fn plan_snapshots(&self, known: &HashSet<SnapshotId>, packs: &PackList, observer: &dyn Observer) -> Result<Vec<Mend>> {
        let repository = &self.repository;
        if repository.refuse_set_back().is_err() {
            return Ok(Vec::new());
        }
        let orphans = repository.orphans(packs)?;
        let mut found: BTreeMap<SnapshotId, PackRef> = BTreeMap::new();
        for pack in packs.iter().chain(orphans.into_iter().map(Ok)) {
            let pack = pack?;
            stop_if_asked(observer)?;
            let looked = repository.each_snapshot_in(&pack, &mut |id, _| {
                if !known.contains(&id) {
                    found.entry(id).or_insert(pack);
                }
            });
            match looked {
                // What is wrong with the pack is a finding of its own.
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(found.into_iter().map(|(id, pack)| Mend::Snapshot(Box::new(FoundSnapshot { id, pack }))).collect())
    }

    /// Commits a snapshot anew, in the log of the client at hand; false if some log knows it by now.
    pub(super) fn commit_again(&self, found: &FoundSnapshot) -> Result<bool> {
        let repository = &self.repository;
        repository.refresh(&Silent)?;
        if repository.all_snapshots()?.iter().any(|entry| entry.id == found.id) {
            return Ok(false);
        }
        let mut packs = repository.orphans(&repository.packs()?)?;
        for pack in &packs {
            let (seals, toc) = repository.load_toc(pack)?;
            cache::index::insert_pack(&mut repository.connection(), pack, None, &seals, &toc)?;
        }
        packs.extend(cache::index::unlogged_packs(&repository.connection())?);
        packs.sort_unstable();
        packs.dedup();
        let epoch = cache::index::epoch(&repository.connection())?;
        let mut bytes = None;
        repository.each_snapshot_in(&found.pack, &mut |id, snapshot| {
            if id == found.id {
                bytes = Some(snapshot.to_vec());
            }
        })?;
        let gone = || Error::damaged(format!("commit the snapshot {} again: it is not in its pack any more", found.id));
        let bytes = bytes.ok_or_else(gone)?;
        self.verify_whole(found.id, &Snapshot::decode(&bytes)?)?;
        let id = ChunkId::from(found.id);
        let mut session = Session::start(repository, false)?;
        let mut writer = session.writer()?;
        let snapshot = writer.seal_snapshot(&id, &bytes)?;
        let sessions = session.shared.begun().map(|(_, session)| session).collect();
        drop(writer);
        session.finish()?;
        let body = RecordBody::Snapshot { id: found.id, snapshot, packs: packs.clone(), indexes: Vec::new(), sessions };
        let still_valid = || {
            let connection = repository.connection();
            let same = cache::index::epoch(&connection)? == epoch;
            if same && cache::index::all_borrowable(&connection, &[], &packs)? {
                return Ok(());
            }
            Err(Error::new(ErrorKind::InUse, format!("commit the snapshot {} again: a prune was faster", found.id))
                .with_hint("run the same command again"))
        };
        repository.append_if(body, &still_valid).map(|_| true)
    }

    /// Fails unless every chunk that the snapshot needs is in some pack: one that was pruned must not come back.
    fn verify_whole(&self, id: SnapshotId, snapshot: &Snapshot) -> Result<()> {
        let client = self.repository.keys().client()?;
        let kept = Kept { id, client, root: snapshot.root, lock_until: 0 };
        let view = View { heads: Vec::new(), snapshots: vec![kept] };
        let mut marker = Marker::new(&self.repository)?;
        marker.mark(&view, &Progress::default(), &Silent)?;
        match marker.marks.missing()? {
            0 => Ok(()),
            missing => Err(Error::damaged(format!("commit the snapshot {} again: {missing} of its chunks are gone", id))
                .with_hint("it may have been forgotten and pruned")),
        }
    }
}
