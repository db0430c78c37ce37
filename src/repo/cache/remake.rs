//! Making the cache anew in place of one that is damaged, without taking it away from other processes, and carrying over
//! what cannot be had from the store: what checks found and when, packs of interrupted backups, what a writer knows of its
//! own snapshots, and what the files looked like.

use super::damage::verified_sum;
use super::{Cache, ELSEWHERE, VERSION, failed, stat};
use crate::error::{Error, Result};
use rusqlite::{Connection, OpenFlags, Row, Transaction, params};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What there is to say.
pub(in crate::repo) const NOTICE: &str = "the local cache was damaged, or taken away in mid-run: it is made anew from the store";

/// Files that belong to a database; the log comes first, so that it is never found beside another database.
const SUFFIXES: [&str; 4] = ["-wal", "-shm", "-journal", ""];

/// Which file is at a path, if there is one.
pub(in crate::repo) type Identity = Option<(u64, u64)>;

pub(in crate::repo) fn identity(path: &Path) -> Identity {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

/// Removes a database.
pub(super) fn remove(path: &Path) -> Result<()> {
    for suffix in SUFFIXES {
        match std::fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove the cache", path.display(), error).with_hint(ELSEWHERE));
            }
            _ => {}
        }
    }
    Ok(())
}

impl Cache {
    /// Puts an empty cache in the place of the one that was `seen` there, and carries over what can be read. If another
    /// process has done so meanwhile, its cache is opened.
    pub(super) fn remake(&self, seen: Identity) -> Result<Connection> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // Somebody may have taken all of it away.
        super::make_folder(folder)?;
        let lock = std::fs::File::create(folder.join("cache.lock"));
        let _lock = lock.and_then(|file| file.lock().map(|()| file));
        let now = identity(&self.path);
        if now.is_some() && now != seen {
            return self.open_sound();
        }
        let aside = folder.join("damaged.sqlite");
        remove(&aside)?;
        for suffix in SUFFIXES {
            // Whoever has the old one open goes on with it, and may not commit by what it says.
            match std::fs::rename(with_suffix(&self.path, suffix), with_suffix(&aside, suffix)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("set the cache aside:", self.path.display(), error).with_hint(ELSEWHERE));
                }
                _ => {}
            }
        }
        let mut connection = self.open_sound()?;
        let carried = carry_over(&aside, &mut connection);
        remove(&aside)?;
        // What could not be carried over is missed by nobody but by the clock.
        carried.or_else(|error| if error.kind() == crate::error::ErrorKind::Full { Err(error) } else { Ok(()) })?;
        Ok(connection)
    }
}

/// Copies what the store does not have from the database at `path`, as far as that can be read.
fn carry_over(path: &Path, into: &mut Connection) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(path, flags).map_err(failed)?;
    from.pragma_update(None, "query_only", true).map_err(failed)?;
    let version: i32 = from.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let into = into.transaction().map_err(failed)?;
    verified(&from, &into, version)?;
    simple(&from, &into, "bad", "pack, chunk")?;
    simple(&from, &into, "damaged", "snapshot, files")?;
    if version == VERSION {
        let sql = "INSERT OR IGNORE INTO kept_pack(id, size, toc_len) VALUES(?, ?, ?)";
        each(&from, ("SELECT id, size, toc_len FROM pack WHERE client IS NULL ORDER BY no", ""), &mut |row| {
            copy(&into, sql, row, 3)
        })?;
        let sql = "INSERT OR IGNORE INTO kept_body(id, body) VALUES(?, ?)";
        each(&from, ("SELECT id, body FROM snapshot WHERE body IS NOT NULL ORDER BY client", ", seq"), &mut |row| {
            copy(&into, sql, row, 2)
        })?;
        files(&from, &into)?;
    }
    into.commit().map_err(failed)
}

/// Calls `take` with every row of a query that can be read: from the beginning to what is damaged, and then from the end
/// to it. Of the query's last column the order is turned; `rest` are further ones, ascending either way.
fn each(from: &Connection, query: (&str, &str), take: &mut dyn FnMut(&Row<'_>) -> Result<bool>) -> Result<()> {
    for order in ["ASC", "DESC"] {
        let turned = query.1.trim_start_matches(", ");
        let rest = if turned.is_empty() { String::new() } else { format!(", {turned} {order}") };
        let Ok(mut statement) = from.prepare(&format!("{} {order}{rest}", query.0)) else { return Ok(()) };
        let Ok(mut rows) = statement.query([]) else { return Ok(()) };
        loop {
            match rows.next() {
                Ok(Some(row)) => drop(take(row)?),
                Ok(None) => return Ok(()),
                Err(_) => break,
            }
        }
    }
    Ok(())
}

/// Inserts a row as it is; one whose values have other types than they should is left out.
fn copy(into: &Transaction<'_>, sql: &str, row: &Row<'_>, columns: usize) -> Result<bool> {
    let values = (0..columns).map(|at| row.get::<_, rusqlite::types::Value>(at)).collect::<Result<Vec<_>, _>>();
    let Ok(values) = values else { return Ok(false) };
    let inserted = into.prepare_cached(sql).map_err(failed)?.execute(rusqlite::params_from_iter(values));
    inserted.map(|rows| rows > 0).map_err(failed)
}

fn simple(from: &Connection, into: &Transaction<'_>, table: &str, columns: &str) -> Result<()> {
    let (first, second) = columns.split_once(", ").expect("there are two");
    let sql = format!("INSERT OR IGNORE INTO {table}({columns}) VALUES(?, ?)");
    each(from, (&format!("SELECT {first}, {second} FROM {table} ORDER BY {first}"), ""), &mut |row| copy(into, &sql, row, 2))
}

/// When packs were last found whole. A row that is not as it was written could keep a pack from being read again.
fn verified(from: &Connection, into: &Transaction<'_>, version: i32) -> Result<()> {
    let sum = if version == VERSION { "sum" } else { "NULL" };
    let sql = "INSERT OR IGNORE INTO verified(pack, time, sum) VALUES(?, ?, ?)";
    each(from, (&format!("SELECT pack, time, {sum} FROM verified ORDER BY pack"), ""), &mut |row| {
        let (Ok(pack), Ok(time)) = (row.get::<_, Vec<u8>>(0), row.get::<_, i64>(1)) else { return Ok(false) };
        let found: Option<i64> = row.get(2).unwrap_or_default();
        let expected = verified_sum(&pack, time);
        if version == VERSION && found != Some(expected) {
            return Ok(false);
        }
        into.execute(sql, params![pack, time, expected]).map(|rows| rows > 0).map_err(failed)
    })
}

/// What the files looked like. No chunk is taken for stored on the word of it: each is looked up again.
fn files(from: &Connection, into: &Transaction<'_>) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO origin(no, path, snapshot, epoch) VALUES(?, ?, zeroblob(32), 0)";
    each(from, ("SELECT no, path FROM origin ORDER BY no", ""), &mut |row| copy(into, sql, row, 2))?;
    let sql = "INSERT OR IGNORE INTO directory(origin, path, part, entries) VALUES(?, ?, ?, ?)";
    each(from, ("SELECT origin, path, part, entries FROM directory ORDER BY rowid", ""), &mut |row| {
        let (Ok(origin), Ok(path), Ok(part)) = (row.get::<_, i64>(0), row.get::<_, Vec<u8>>(1), row.get::<_, i64>(2)) else {
            return Ok(false);
        };
        let Ok(mut entries) = row.get::<_, Vec<u8>>(3) else { return Ok(false) };
        match stat::is_sound(origin, &path, part, &mut entries) {
            true => copy(into, sql, row, 4),
            false => Ok(false),
        }
    })
}
