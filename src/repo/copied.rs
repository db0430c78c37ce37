//! What chunks of another repository are called in this one, so that a copy reads each of them once in its life.
//!
//! Names are keyed hashes with keys of each repository, so nobody can tell the one from the other without the chunk.
//! The map is a file of its own beside the cache: it may vanish at any time, and is made anew if it is damaged.

use super::cache::{Cache, failed};
use crate::error::Result;
use crate::id::{ChunkId, RepositoryId};
use crate::repo::Repository;
use rusqlite::{Connection, OptionalExtension, params};

/// Bytes of the checksum of a row: a wrong name would be a wrong copy.
const CHECK: usize = 8;

const SCHEMA: &str = "
    PRAGMA temp_store=FILE;
    CREATE TABLE IF NOT EXISTS copied(source BLOB PRIMARY KEY, name BLOB NOT NULL) WITHOUT ROWID;
    CREATE TEMP TABLE directory(source BLOB PRIMARY KEY, name BLOB NOT NULL) WITHOUT ROWID;";

/// Names of chunks in one repository by their names in another.
pub struct CopyMap {
    connection: Connection,
}

impl CopyMap {
    /// The map of what was copied from the repository `source` to `target`.
    ///
    /// # Errors
    /// `Failed`, `Full`, or `InUse` if the cache's folder cannot be used.
    pub fn open(target: &Repository, source: &RepositoryId) -> Result<Self> {
        let path = target.cache_path();
        let folder = path.parent().expect("a cache lies in a folder");
        let cache = Cache::beside(folder, &format!("copied.{source}.sqlite"));
        let open = || -> Result<Self> {
            let connection = cache.connect()?;
            connection.execute_batch(SCHEMA).map_err(failed)?;
            Ok(Self { connection })
        };
        match open() {
            Err(error) if error.kind() == crate::error::ErrorKind::Failed => {
                cache.remove()?;
                open()
            }
            other => other,
        }
    }

    /// What a chunk is called here, if it was ever copied; it need not be here any more.
    ///
    /// # Errors
    /// `Failed` if the map cannot be read.
    pub fn chunk(&self, source: &ChunkId) -> Result<Option<ChunkId>> {
        let mut statement = self.connection.prepare_cached("SELECT name FROM copied WHERE source = ?").map_err(failed)?;
        let row = statement.query_row([&source.0[..16]], |row| row.get::<_, Vec<u8>>(0)).optional().map_err(failed)?;
        let name = row.and_then(|row| {
            let (name, check) = row.split_first_chunk::<32>()?;
            (check == checksum(source, name)).then_some(ChunkId(*name))
        });
        Ok(name)
    }

    /// Notes what chunks are called here: pairs of their name there and here.
    ///
    /// # Errors
    /// `Failed`, `Full`.
    pub fn add_chunks(&mut self, names: &[(ChunkId, ChunkId)]) -> Result<()> {
        let transaction = self.connection.transaction().map_err(failed)?;
        {
            let sql = "INSERT OR REPLACE INTO copied(source, name) VALUES(?, ?)";
            let mut insert = transaction.prepare_cached(sql).map_err(failed)?;
            for (source, name) in names {
                let row = [&name.0[..], &checksum(source, &name.0)].concat();
                insert.execute(params![&source.0[..16], row]).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)
    }

    /// What the directory with this root page is called here, if it was copied whole since the last
    /// [`CopyMap::forget_directories`].
    ///
    /// # Errors
    /// `Failed` if the map cannot be read.
    pub fn directory(&self, source: &ChunkId) -> Result<Option<ChunkId>> {
        let sql = "SELECT name FROM temp.directory WHERE source = ?";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let row = statement.query_row([&source.0[..]], |row| row.get::<_, Vec<u8>>(0)).optional().map_err(failed)?;
        Ok(row.and_then(|row| ChunkId::from_slice(&row)))
    }

    /// Notes that a directory is here, with all that is below it.
    ///
    /// # Errors
    /// `Failed`, `Full`.
    pub fn add_directory(&self, source: &ChunkId, name: &ChunkId) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO temp.directory(source, name) VALUES(?, ?)";
        let mut insert = self.connection.prepare_cached(sql).map_err(failed)?;
        insert.execute(params![&source.0[..], &name.0[..]]).map(drop).map_err(failed)
    }

    /// Forgets which directories are here: a prune may have taken something that is below them.
    ///
    /// # Errors
    /// `Failed` if the map cannot be written.
    pub fn forget_directories(&self) -> Result<()> {
        self.connection.execute("DELETE FROM temp.directory", []).map(drop).map_err(failed)
    }
}

fn checksum(source: &ChunkId, name: &[u8; 32]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&source.0).update(name);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}
