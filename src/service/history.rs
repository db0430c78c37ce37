//! What ran on this machine, when, and how it ended: a small database beside the memory of heads.
//!
//! It cannot be rebuilt from a repository, so it is no part of the cache and stays when that is cleared. Nothing depends
//! on it: if it cannot be read or written, work goes on without it.

use crate::error::{Error, Result};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs that are kept, the newest.
pub const KEPT: u32 = 2_000;
/// Longest figures and messages that are kept, in bytes.
const MAX_TEXT: usize = 4 << 10;
/// Changes with every change of the table.
const VERSION: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE run(no INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, repository TEXT NOT NULL, start INTEGER NOT NULL,
                     end INTEGER, exit_code INTEGER, message TEXT NOT NULL DEFAULT '', figures TEXT NOT NULL DEFAULT '');
";

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// What was run, such as `backup`.
    pub verb: String,
    /// The place of the repository.
    pub repository: String,
    /// When it began, nanoseconds since 1970.
    pub start: i64,
    /// When it ended; absent while it runs, and if it was cut off.
    pub end: Option<i64>,
    /// How it ended.
    pub exit_code: Option<u8>,
    /// What went wrong.
    pub message: String,
    /// The figures of its report, as JSON; empty if there are none.
    pub figures: String,
}

/// The history of one machine.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
}

/// A run that has begun.
#[derive(Debug)]
pub struct Run {
    history: History,
    no: i64,
}

fn failed(error: rusqlite::Error) -> Error {
    Error::failed(format!("use the history of runs: {error}")).with_hint("it can be removed; nothing depends on it")
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default()
}

/// As much of the text as is kept.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

fn remove(path: &Path) {
    ["", "-wal", "-shm"].iter().for_each(|suffix| drop(std::fs::remove_file(with_suffix(path, suffix))));
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<HistoryEntry> {
    Ok(HistoryEntry {
        verb: row.get(0)?,
        repository: row.get(1)?,
        start: row.get(2)?,
        end: row.get(3)?,
        exit_code: row.get(4)?,
        message: row.get(5)?,
        figures: row.get(6)?,
    })
}

/// Copies the runs that can be read: from the oldest to what is damaged, and from the newest back to it.
fn carry_over(old: &Connection, anew: &Connection) -> rusqlite::Result<()> {
    let insert = "INSERT OR IGNORE INTO run(verb, repository, start, end, exit_code, message, figures, no)
                  VALUES(?, ?, ?, ?, ?, ?, ?, ?)";
    let moment = anew.unchecked_transaction()?;
    for order in ["ASC", "DESC"] {
        let select = format!("SELECT verb, repository, start, end, exit_code, message, figures, no FROM run ORDER BY no {order}");
        let Ok(mut statement) = old.prepare(&select) else { break };
        let Ok(mut rows) = statement.query([]) else { break };
        while let Ok(Some(row)) = rows.next() {
            let (Ok(run), Ok(no)) = (entry(row), row.get::<_, i64>(7)) else { continue };
            let values = params![run.verb, run.repository, run.start, run.end, run.exit_code, run.message, run.figures, no];
            moment.execute(insert, values)?;
        }
    }
    moment.commit()
}

impl History {
    /// The one in this folder, where what a machine remembers of repositories is.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { path: state.join("history.sqlite") }
    }

    fn connect(&self) -> Result<Connection> {
        let connection = Connection::open(&self.path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if version == VERSION {
            return Ok(connection);
        }
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; DROP TABLE IF EXISTS run; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            ))
            .map_err(failed)?;
        Ok(connection)
    }

    /// Opens it; one that is damaged is begun anew with what can be read of it.
    fn open(&self) -> Result<Connection> {
        if let Some(folder) = self.path.parent() {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(folder).map_err(|error| Error::io("make the folder", folder.display(), error))?;
        }
        self.connect().or_else(|_| self.begin_anew())
    }

    /// Does `work`; where the history turns out to be damaged, once more with one that is begun anew.
    fn with<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        let connection = self.open()?;
        match work(&connection) {
            Err(error) if !matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | DiskFull)) => {}
            other => return other.map_err(failed),
        }
        drop(connection);
        work(&self.begin_anew()?).map_err(failed)
    }

    fn begin_anew(&self) -> Result<Connection> {
        let aside = self.path.with_extension("damaged");
        remove(&aside);
        for suffix in ["-wal", "-shm", ""] {
            let _ = std::fs::rename(with_suffix(&self.path, suffix), with_suffix(&aside, suffix));
        }
        let anew = self.connect()?;
        // What cannot be read is lost; what is there must not be.
        let _ = Connection::open(&aside).map(|old| carry_over(&old, &anew));
        remove(&aside);
        Ok(anew)
    }

    /// Notes that a run begins.
    ///
    /// # Errors
    /// `Failed` if it cannot be noted.
    pub fn start(&self, verb: &str, repository: &str) -> Result<Run> {
        let no = self.with(|connection| {
            let insert = "INSERT INTO run(verb, repository, start) VALUES(?, ?, ?)";
            connection.execute(insert, params![verb, short(repository), now()])?;
            let no = connection.last_insert_rowid();
            connection.execute("DELETE FROM run WHERE no <= ?", [no - i64::from(KEPT)]).map(|_| no)
        })?;
        Ok(Run { history: self.clone(), no })
    }

    /// The newest runs, newest first.
    ///
    /// # Errors
    /// `Failed` if they cannot be read.
    pub fn list(&self, most: u32) -> Result<Vec<HistoryEntry>> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        self.with(|connection| {
            let select = "SELECT verb, repository, start, end, exit_code, message, figures FROM run ORDER BY no DESC LIMIT ?";
            connection.prepare(select)?.query_map([most], entry)?.collect()
        })
    }

    /// The newest run of a verb that ended with this exit code.
    ///
    /// # Errors
    /// `Failed` if they cannot be read.
    pub fn newest(&self, verb: &str, exit_code: u8) -> Result<Option<i64>> {
        let select = "SELECT end FROM run WHERE verb = ? AND exit_code = ? ORDER BY no DESC LIMIT 1";
        self.with(|connection| connection.query_row(select, params![verb, exit_code], |row| row.get(0)).optional())
    }
}

impl Run {
    /// Notes how it ended.
    ///
    /// # Errors
    /// `Failed` if it cannot be noted.
    pub fn finish(self, exit_code: u8, message: &str, figures: &str) -> Result<()> {
        // Half of a JSON text is none.
        let figures = if figures.len() <= MAX_TEXT { figures } else { "" };
        let update = "UPDATE run SET end = ?, exit_code = ?, message = ?, figures = ? WHERE no = ?";
        let values = params![now(), exit_code, short(message), figures, self.no];
        self.history.with(|connection| connection.execute(update, values)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_listed_newest_first_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::new(folder.path());
        assert!(history.list(10).unwrap().is_empty());
        history.start("check", "/r").unwrap();
        for number in 0..KEPT {
            let run = history.start("backup", "/r").unwrap();
            run.finish(u8::from(number % 2 == 1), "", "{}").unwrap();
        }
        let all = history.list(KEPT + 10).unwrap();
        assert_eq!(all.len(), KEPT as usize);
        assert!(all.iter().all(|entry| entry.verb == "backup"), "the check was the oldest");
        assert_eq!((all[0].exit_code, all[1].exit_code), (Some(1), Some(0)));
        assert_eq!(history.newest("backup", 0).unwrap(), all[1].end);
    }

    #[test]
    fn of_a_damaged_history_what_can_be_read_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::new(folder.path());
        for _ in 0..120 {
            history.start("backup", "/r").unwrap().finish(0, &"long".repeat(100), "{}").unwrap();
        }
        let path = folder.path().join("history.sqlite");
        Connection::open(&path).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0);
        std::fs::write(&path, bytes).unwrap();
        history.start("check", "/r").unwrap().finish(0, "", "").unwrap();
        let all = history.list(KEPT).unwrap();
        assert!(all.len() > 100 && all.len() < 121, "{}", all.len());
        assert_eq!((all[0].verb.as_str(), all[0].exit_code), ("check", Some(0)));
    }

    #[test]
    fn a_damaged_history_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::new(folder.path());
        std::fs::write(folder.path().join("history.sqlite"), [7; 5000]).unwrap();
        history.start("backup", "/r").unwrap().finish(13, &"long".repeat(5000), &"9".repeat(9000)).unwrap();
        let all = history.list(10).unwrap();
        assert_eq!((all.len(), all[0].exit_code, all[0].message.len(), all[0].figures.len()), (1, Some(13), MAX_TEXT, 0));
    }
}
