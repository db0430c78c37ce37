//! A cache that is damaged, or has no room, is no reason to fail: it is made anew, or left for a copy, and what was being
//! done begins again.
//!
//! Only what is safe to do twice is done so: what reads, and what says by an error that nothing was committed.

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::format::log::PackRef;
use crate::format::tree::ChunkType;
use crate::id::ChunkId;
use crate::id::{PackId, SnapshotId};
use crate::repo::cache::elsewhere::{self, is_full};
use crate::repo::cache::sums::{Extent, verify};
use crate::repo::cache::{self, Opened, failed, remake};
use crate::repo::{Repository, SnapshotEntry};
use rusqlite::params;
use std::path::Path;

/// How often work that reads is done, at most, because prunes moved what it was reading.
const ATTEMPTS: usize = 5;

/// Errors that a damaged cache may have caused.
fn is_suspicious(error: &Error) -> bool {
    // Without the store nothing can be made anew.
    let elsewhere = error.io_kind().is_some() || error.is_unreachable();
    !elsewhere && matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Failed | ErrorKind::InUse)
}

impl Repository {
    /// Does `work`. If it fails, or gives what `is_whole` says may be less than there is, and the local cache turns out to
    /// be damaged, the cache is made anew and `work` is done once more; so it is where the cache has no room, with another one.
    ///
    /// `work` must have committed nothing where it fails.
    ///
    /// # Errors
    /// What `work` returns.
    pub fn with_sound_cache<T>(
        &self,
        observer: &dyn Observer,
        is_whole: impl Fn(&T) -> bool,
        mut work: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let first = match work() {
            Err(error) if is_full(&error) => {
                self.leave_full_cache(error, observer)?;
                work()
            }
            first => first,
        };
        let suspicious = match &first {
            Ok(value) => !is_whole(value),
            Err(error) => is_suspicious(error),
        };
        let corrupt = first.as_ref().is_err_and(cache::is_corrupt);
        if !suspicious || !(corrupt || self.is_cache_damaged(Extent::All)) {
            return first;
        }
        self.remake_cache(observer)?;
        work()
    }

    /// The same for work that reads `snapshots`: also what a prune has deleted meanwhile is no damage. If there was one, what
    /// it wrote and deleted is read, and `work` is done once more.
    ///
    /// # Errors
    /// What `work` returns; `Missing` if the prune took one of `snapshots`.
    pub fn reading<T>(
        &self,
        observer: &dyn Observer,
        snapshots: &[&SnapshotEntry],
        is_whole: impl Fn(&T) -> bool,
        mut work: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        for _ in 1..ATTEMPTS {
            let before = self.newest_plan()?;
            let done = self.with_sound_cache(observer, &is_whole, &mut work);
            let suspicious = match &done {
                Ok(value) => !is_whole(value),
                Err(error) => is_suspicious(error),
            };
            if !suspicious || self.refresh(observer).is_err() || self.newest_plan()? == before {
                return done;
            }
            for entry in snapshots {
                if !self.is_live(&entry.id)? {
                    let message =
                        format!("read the snapshot {}: it was forgotten, and a prune took it meanwhile", entry.id.short());
                    return Err(Error::missing(message));
                }
            }
            // Sees what is there now, whatever the last attempt had asked for.
            self.load_index(observer)?;
        }
        work()
    }

    /// Gives back `outcome`; if it is an error that a damaged cache may have caused, the cache is made anew where it is
    /// damaged, so that the same work can be asked for again.
    ///
    /// # Errors
    /// That of `outcome`.
    pub fn mend_cache_after<T>(&self, outcome: Result<T>, observer: &dyn Observer) -> Result<T> {
        let Err(error) = outcome else { return outcome };
        if !is_suspicious(&error) || !(cache::is_corrupt(&error) || self.is_cache_damaged(Extent::All)) {
            return Err(error);
        }
        match self.remake_cache(observer) {
            Ok(()) => Err(error.with_hint("the cache is made anew: run the same command again")),
            Err(_) => Err(error),
        }
    }

    /// Makes sure that all of the local cache is what was written to it; one that is damaged is made anew.
    ///
    /// # Errors
    /// What keeps it from being made anew.
    pub fn ensure_sound_cache(&self, observer: &dyn Observer) -> Result<()> {
        if self.is_cache_damaged(Extent::All) { self.remake_cache(observer) } else { Ok(()) }
    }

    /// True if a published plan of a prune lists the pack, as far as prunes were followed.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn is_gone(&self, pack: &PackId) -> Result<bool> {
        cache::prune::is_gone(&self.connection(), pack)
    }

    fn is_cache_damaged(&self, extent: Extent) -> bool {
        // A connection of its own sees what other processes did to the file.
        let verified = self.cache().connect().and_then(|connection| verify(&connection, extent));
        verified.is_err_and(|error| !matches!(error.kind(), ErrorKind::InUse | ErrorKind::Full))
    }

    /// Fails if what says which packs may be relied on is not what was written.
    pub(super) fn verify_index(&self) -> Result<()> {
        verify(&self.connection(), Extent::Packs)
    }

    pub(super) fn remake_cache(&self, observer: &dyn Observer) -> Result<()> {
        observer.observe(Event::Warning(remake::NOTICE));
        *self.connection() = self.cache().replace()?;
        self.refresh(observer)
    }

    /// Goes on with a copy of the cache elsewhere, for as long as the repository is open: on a disk that is full nothing
    /// else would be lost but what can be had from the store.
    ///
    /// # Errors
    /// `error`, which says that there is no room, if a copy finds none either.
    pub(super) fn leave_full_cache(&self, error: Error, observer: &dyn Observer) -> Result<()> {
        let path = self.cache_path();
        let folder = path.parent().unwrap_or(Path::new("."));
        let (Opened { cache, connection, notice }, temporary) = elsewhere::copy(folder, error)?;
        *self.connection() = connection;
        *self.inner.cache.lock().expect("no code panics while it holds this lock") = cache;
        // Threads may still have the one before open.
        self.inner.temporary.lock().expect("no code panics while it holds this lock").push(temporary);
        if let Some(notice) = notice {
            observer.observe(Event::Warning(&notice));
        }
        self.refresh(observer)
    }

    /// Takes in what an earlier cache knew and the store does not tell: packs that no record lists yet, if they are still
    /// there and no prune took them, and what this machine's own snapshots say.
    pub(super) fn take_in_kept(&self) -> Result<()> {
        let (packs, bodies) = {
            let connection = self.connection();
            let mut statement = connection.prepare_cached("SELECT id, size, toc_len FROM kept_pack").map_err(failed)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(failed)?;
            let packs: Vec<(Vec<u8>, i64, u32)> = rows.flatten().collect();
            let mut statement = connection.prepare_cached("SELECT id, body FROM kept_body").map_err(failed)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
            (packs, rows.flatten().collect::<Vec<(Vec<u8>, Vec<u8>)>>())
        };
        if packs.is_empty() && bodies.is_empty() {
            return Ok(());
        }
        for (id, size, toc_len) in packs {
            let Some(id) = PackId::from_slice(&id) else { continue };
            let pack = PackRef { id, size: size.cast_unsigned(), toc_len };
            // What the store does not have whole is stored again when it is needed.
            if let Ok((seals, toc)) = self.load_stored_toc(&pack) {
                cache::index::insert_pack(&mut self.connection(), &pack, None, &seals, &toc)?;
            }
        }
        for (id, body) in bodies {
            let Some(id) = SnapshotId::from_slice(&id) else { continue };
            if self.keys().name(ChunkType::Snapshot, &body).is_ok_and(|name| name == ChunkId::from(id)) {
                let sql = "UPDATE snapshot SET body = ? WHERE id = ? AND body IS NULL";
                self.connection().execute(sql, params![body, &id.0[..]]).map_err(failed)?;
            }
        }
        self.connection().execute_batch("DELETE FROM kept_pack; DELETE FROM kept_body").map_err(failed)
    }
}
