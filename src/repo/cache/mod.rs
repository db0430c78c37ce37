//! The local cache: a SQLite database that can be deleted at any time and is rebuilt from the store.
//!
//! It holds the index (which chunk is where), what was read of the log, and the stat cache (what each file looked
//! like when it was last read). It holds no key. Anything wrong with it, damage or another version, throws it away; what
//! cannot be had from the store is carried over first ([`remake`]). What is wrong is noticed by sums ([`sums`]).

pub(super) mod checkpoint;
pub(super) mod damage;
pub(super) mod elsewhere;
pub(super) mod index;
pub(super) mod log;
pub(super) mod makers;
pub(super) mod marks;
pub(super) mod members;
pub(super) mod prune;
pub(super) mod remake;
pub(super) mod shards;
pub(super) mod stat;
pub(super) mod sums;
pub(super) mod unread;

pub(super) use index::{IndexReader, Place, StoredBlock, StoredPack};
pub(super) use log::CachedSnapshot;
pub use stat::StatRow;

use crate::error::{Error, ErrorKind, Result};
use crate::format::log::Head;
use crate::id::ClientId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Changes with every change of the tables; another number means another version, and the cache is made anew.
const VERSION: i32 = 11;

/// `directory` has rowids: its rows are long, and in a table without them each step of a search reads a whole row.
const SCHEMA: &str = "
    CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE pack(no INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
                      toc_len INTEGER NOT NULL, client BLOB, committed INTEGER NOT NULL DEFAULT 0,
                      condemned INTEGER NOT NULL DEFAULT 0, chunks INTEGER NOT NULL,
                      body_sum INTEGER NOT NULL, seals BLOB NOT NULL, blocks BLOB NOT NULL);
    CREATE TABLE chunk(id BLOB NOT NULL, pack INTEGER NOT NULL, block INTEGER NOT NULL, start INTEGER NOT NULL,
                       len INTEGER NOT NULL, nth INTEGER NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY(id, pack)) WITHOUT ROWID;
    CREATE TABLE shard_set(no INTEGER PRIMARY KEY, client BLOB NOT NULL, seq INTEGER NOT NULL, packs INTEGER NOT NULL,
                           UNIQUE(client, seq));
    CREATE TABLE shard(no INTEGER NOT NULL, position INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY(no, position)) WITHOUT ROWID;
    CREATE TABLE shard_pack(pack BLOB NOT NULL, no INTEGER NOT NULL, PRIMARY KEY(pack, no)) WITHOUT ROWID;
    CREATE TABLE unread(pack BLOB PRIMARY KEY, size INTEGER NOT NULL, toc_len INTEGER NOT NULL,
                        client BLOB NOT NULL, committed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
    CREATE TABLE head(client BLOB PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL, fence INTEGER NOT NULL,
                      void INTEGER NOT NULL DEFAULT 0, unknown INTEGER, time INTEGER NOT NULL DEFAULT 0,
                      sure INTEGER NOT NULL DEFAULT -1) WITHOUT ROWID;
    CREATE TABLE client(id BLOB PRIMARY KEY, public BLOB NOT NULL, role INTEGER NOT NULL, name TEXT NOT NULL,
                        trusted BLOB NOT NULL, last INTEGER, ended INTEGER, base INTEGER NOT NULL, seq INTEGER NOT NULL,
                        first_slot BLOB, slot BLOB) WITHOUT ROWID;
    CREATE TABLE instance(client BLOB, id BLOB, first INTEGER NOT NULL, last INTEGER NOT NULL,
                          PRIMARY KEY(client, id)) WITHOUT ROWID;
    CREATE TABLE snapshot(id BLOB NOT NULL, client BLOB NOT NULL, seq INTEGER NOT NULL, time INTEGER NOT NULL,
                          session BLOB, sealed BLOB NOT NULL, body BLOB, PRIMARY KEY(client, seq)) WITHOUT ROWID;
    CREATE TABLE session(id BLOB, client BLOB, PRIMARY KEY(id, client)) WITHOUT ROWID;
    CREATE TABLE attested(pack BLOB, client BLOB, seq INTEGER NOT NULL, PRIMARY KEY(pack, client)) WITHOUT ROWID;
    CREATE TABLE judgement(snapshot_client BLOB, snapshot_seq INTEGER, client BLOB, seq INTEGER, deed INTEGER NOT NULL,
                           heads BLOB NOT NULL, reason TEXT NOT NULL,
                           PRIMARY KEY(snapshot_client, snapshot_seq, client, seq)) WITHOUT ROWID;
    CREATE TABLE prune(generation INTEGER PRIMARY KEY, condemn BLOB, client BLOB, plan BLOB, planner BLOB, heads BLOB,
                       checkpoint_seq INTEGER, checkpoint BLOB);
    CREATE TABLE floor(generation INTEGER, client BLOB, seq INTEGER NOT NULL, hash BLOB NOT NULL,
                       PRIMARY KEY(generation, client)) WITHOUT ROWID;
    CREATE TABLE lasting(client BLOB, seq INTEGER, hash BLOB NOT NULL, kind INTEGER NOT NULL, PRIMARY KEY(client, seq)) WITHOUT ROWID;
    CREATE TABLE pruned(id BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE fenced(client BLOB PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE condemned(pack BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE gone(pack BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE slot(id BLOB PRIMARY KEY, label TEXT NOT NULL, recipient TEXT NOT NULL, time INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE origin(no INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, snapshot BLOB NOT NULL, epoch INTEGER NOT NULL);
    CREATE TABLE directory(origin INTEGER NOT NULL, path BLOB NOT NULL, part INTEGER NOT NULL, entries BLOB NOT NULL,
                           PRIMARY KEY(origin, path, part));
    CREATE TABLE told_lost(pack BLOB, chunk BLOB, PRIMARY KEY(pack, chunk)) WITHOUT ROWID;
    CREATE TABLE lost(pack INTEGER, chunk BLOB, PRIMARY KEY(pack, chunk)) WITHOUT ROWID;
    CREATE TABLE verified(pack BLOB PRIMARY KEY, time INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE bad(pack BLOB, chunk BLOB, PRIMARY KEY(pack, chunk)) WITHOUT ROWID;
    CREATE TABLE damaged(snapshot BLOB PRIMARY KEY, files INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE kept_pack(id BLOB PRIMARY KEY, size INTEGER NOT NULL, toc_len INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE kept_body(id BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
";

/// What can be done where the folder of the cache cannot be written.
const ELSEWHERE: &str = "give a folder that can be written with --cache-dir; it can be deleted at any time";

/// Errors of SQLite in the words of this program.
pub(super) fn failed(error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::Full,
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => ErrorKind::InUse,
        _ => ErrorKind::Failed,
    };
    let hint = match kind {
        ErrorKind::Full => "free some space where the cache is, or give another folder with --cache-dir",
        _ => "the cache can be thrown away without loss: `lifeboat cache clear`; --cache-dir gives another folder",
    };
    Error::new(kind, format!("{}: {error}", elsewhere::DOING)).with_hint(hint).with_source(error)
}

/// What the cache says is not what was written to it.
#[derive(Debug)]
struct Corrupt;

impl std::fmt::Display for Corrupt {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("the cache is damaged")
    }
}

impl std::error::Error for Corrupt {}

/// The error of a cache that does not hold what was written to it.
pub(super) fn damaged(what: &str) -> Error {
    let error = Error::failed(format!("{}: {what}", elsewhere::DOING));
    error.with_hint("the cache can be thrown away without loss: `lifeboat cache clear`").with_source(Corrupt)
}

/// True if the error says that what is in the cache is no cache any more, or no longer the one that was opened.
pub(super) fn is_corrupt(error: &Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let Some(source) = std::error::Error::source(error) else { return false };
    if source.is::<Corrupt>() {
        return true;
    }
    let Some(error) = source.downcast_ref::<rusqlite::Error>() else { return false };
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => true,
        error => matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)),
    }
}

/// Makes the folder, if it is not there. Names of files are in the cache, so nobody else may read it.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let made = builder.recursive(true).create(folder);
    made.map_err(|error| Error::io("make the cache folder", folder.display(), error).with_hint(ELSEWHERE))
}

/// How far the cache in `folder` has read the logs and the prunes, as far as that can be told without changing anything.
pub(super) fn peek(folder: &Path) -> Option<(Vec<Head>, Vec<ClientId>, Option<prune::PruneRow>)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join("cache.sqlite"), flags).ok()?;
    Some((log::heads(&connection).ok()?, log::all_empty(&connection).ok()?, prune::newest(&connection).ok()?))
}

/// What a cache is called, and its file.
type Name = (Vec<u8>, remake::Identity);

/// The cache of one repository; opens connections for whoever needs one.
#[derive(Clone)]
pub(super) struct Cache {
    path: PathBuf,
    /// Which cache it is, by its name and its file: another process may put another one in its place, with other numbers
    /// for its packs.
    opened: Arc<Mutex<Option<Name>>>,
}

/// A cache that was opened, and what there is to say about it.
pub(super) struct Opened {
    pub(super) cache: Cache,
    pub(super) connection: Connection,
    pub(super) notice: Option<String>,
}

impl Cache {
    /// Opens the cache in `folder`, or makes it anew if it is missing, damaged, or of another version.
    pub(super) fn open(folder: &Path) -> Result<Opened> {
        make_folder(folder)?;
        let cache = Self::beside(folder, "cache.sqlite");
        let seen = remake::identity(&cache.path);
        match cache.open_sound() {
            Ok(connection) => Ok(Opened { cache, connection, notice: None }),
            Err(error) if matches!(error.kind(), ErrorKind::InUse | ErrorKind::Full) => Err(error),
            Err(error) => {
                let connection = cache.remake(seen)?;
                let notice = (error.kind() != ErrorKind::Unsupported).then(|| remake::NOTICE.to_owned());
                Ok(Opened { cache, connection, notice })
            }
        }
    }

    /// Opens what is there, and makes sure that it is what was written.
    fn open_sound(&self) -> Result<Connection> {
        let connection = self.connect_any().and_then(|connection| self.prepare(connection))?;
        sums::verify(&connection, sums::Extent::Logs)?;
        let opened = (index::incarnation(&connection)?, remake::identity(&self.path));
        *self.opened.lock().expect("no code panics while it holds this lock") = Some(opened);
        Ok(connection)
    }

    fn opened(&self) -> Option<Name> {
        self.opened.lock().expect("no code panics while it holds this lock").clone()
    }

    /// Puts a cache in the place of the one that was opened.
    pub(super) fn replace(&self) -> Result<Connection> {
        self.remake(self.opened().and_then(|(_, identity)| identity))
    }

    /// A file of its own in the same folder, for what is no part of the cache proper; nothing is in it yet.
    pub(super) fn beside(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(name), opened: Arc::default() }
    }

    /// Another connection to the cache that was opened.
    pub(super) fn connect(&self) -> Result<Connection> {
        let connection = self.connect_any()?;
        if self.opened().is_some_and(|(name, _)| !index::incarnation(&connection).is_ok_and(|found| found == name)) {
            return Err(damaged("another one has taken its place, or it is damaged"));
        }
        Ok(connection)
    }

    fn connect_any(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(60)).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-4096; PRAGMA temp_store=MEMORY;",
            )
            .map_err(failed)?;
        // Else each value that is compared with one makes SQLite plan the query anew, in case that another plan were better: a
        // fifth of an unchanged backup.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
        sums::enable(&connection)?;
        Ok(connection)
    }

    fn prepare(&self, mut connection: Connection) -> Result<Connection> {
        let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if version == VERSION {
            return Ok(connection);
        }
        if version != 0 {
            return Err(Error::new(ErrorKind::Unsupported, "open the local cache: it was written by another version"));
        }
        // Two processes may come here at once; the second finds the work done.
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
        let version: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if version == 0 {
            transaction.execute_batch(SCHEMA).map_err(failed)?;
            sums::make(&transaction)?;
            let sql = "INSERT INTO meta(key, value) VALUES('incarnation', randomblob(16))";
            transaction.execute(sql, []).map_err(failed)?;
            let definitions = sums::definitions(&transaction)?;
            transaction.pragma_update(None, "application_id", definitions).map_err(failed)?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        Ok(connection)
    }

    /// Throws the cache away.
    pub(super) fn remove(&self) -> Result<()> {
        remake::remove(&self.path)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
