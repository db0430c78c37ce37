//! How a backup uses the stat cache.

use crate::error::Result;
use crate::id::SnapshotId;
use crate::repo::{Repository, Session, cache};
use rusqlite::Connection;

/// The remembered state of one path that is backed up; each thread has one of its own.
pub struct StatCache {
    connection: Connection,
    origin: i64,
    trusted: bool,
    /// Rows that wait to be handed over, and their bytes.
    rows: Vec<cache::StatRow>,
    waiting: usize,
}

/// Bytes of rows that are handed over at once: the thread that keeps the cache is busy with a pack now and then, and
/// nobody should wait for it meanwhile.
const HAND_OVER: usize = 64 << 10;

impl Repository {
    /// Opens what is remembered of `path`, an absolute path.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be used.
    pub fn stat_cache(&self, path: &[u8]) -> Result<StatCache> {
        let name = *blake3::hash(path).as_bytes();
        let connection = self.cache().connect()?;
        let epoch = cache::index::epoch(&connection)?;
        if let Some((origin, snapshot, then)) = cache::stat::origin(&connection, &name)? {
            let trusted = then == epoch && self.is_live(&snapshot)?;
            return Ok(StatCache { connection, origin, trusted, rows: Vec::new(), waiting: 0 });
        }
        let origin = cache::stat::make_origin(&connection, &name)?;
        Ok(StatCache { connection, origin, trusted: false, rows: Vec::new(), waiting: 0 })
    }
}

impl StatCache {
    /// A second handle for another thread.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be opened.
    pub fn reopen(&self, repository: &Repository) -> Result<Self> {
        let connection = repository.cache().connect()?;
        connection.execute_batch("BEGIN").map_err(cache::failed)?;
        Ok(Self { connection, origin: self.origin, trusted: self.trusted, rows: Vec::new(), waiting: 0 })
    }

    /// Saves a row, at the latest when [`StatCache::hand_over`] is called.
    pub fn save(&mut self, session: &Session, row: cache::StatRow) {
        self.waiting += row.entries.len();
        self.rows.push(row);
        if self.waiting >= HAND_OVER {
            self.hand_over(session);
        }
    }

    /// Hands over what waits to be saved.
    pub fn hand_over(&mut self, session: &Session) {
        self.waiting = 0;
        if !self.rows.is_empty() {
            session.save_stat(self.origin, std::mem::take(&mut self.rows));
        }
    }

    /// True if every chunk that rows name is surely there; otherwise each must be looked up.
    #[must_use]
    pub fn trusted(&self) -> bool {
        self.trusted
    }

    /// The packed rows of a directory, in order of their parts.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn load(&self, path: &[u8; 16]) -> Result<Vec<Vec<u8>>> {
        cache::stat::load(&self.connection, self.origin, path)
    }

    /// After the commit of `snapshot`: drops rows of directories that are gone (`seen`, sorted, are those that are
    /// there), and says that the rest is what the snapshot holds.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be written.
    pub fn confirm(mut self, snapshot: &SnapshotId, seen: &[[u8; 16]]) -> Result<()> {
        let epoch = cache::index::epoch(&self.connection)?;
        cache::stat::retain(&mut self.connection, self.origin, seen)?;
        cache::stat::confirm_origin(&self.connection, self.origin, snapshot, epoch)
    }
}
