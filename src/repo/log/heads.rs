//! What this machine remembers of the logs it has seen, outside the cache: a store that shows less was rolled back.
//!
//! It is kept twice, each copy with its own sum, and what either remembers counts: a disk that loses one loses nothing.

use crate::error::{Error, Result};
use crate::format::log::Head;
use crate::id::{ClientId, ObjectHash};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The newest head of each log.
    pub(super) heads: Vec<Head>,
    /// True if a copy is there and cannot be read.
    pub(super) damaged: bool,
    /// True if a copy is not as it should be.
    stale: bool,
}

fn second(path: &Path) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push("2");
    path.into()
}

/// Reads the remembered heads; a missing or damaged copy remembers nothing.
pub(super) fn load(path: &Path) -> Memory {
    let copies = [load_copy(path), load_copy(&second(path))];
    let damaged = copies.iter().any(Result::is_err);
    let stale = damaged || copies[0].as_ref().ok() != copies[1].as_ref().ok();
    let mut all = BTreeMap::new();
    copies.into_iter().flatten().flatten().for_each(|head| keep_later(&mut all, head));
    Memory { heads: all.into_values().collect(), damaged, stale }
}

fn load_copy(path: &Path) -> Result<Vec<Head>, ()> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(drop)?,
    };
    let (sum, body) = text.split_once('\n').ok_or(())?;
    if blake3::hash(body.as_bytes()).to_hex().as_str() != sum {
        return Err(());
    }
    Ok(body.lines().filter_map(parse).collect())
}

fn keep_later(all: &mut BTreeMap<ClientId, Head>, head: Head) {
    let later = all.entry(head.client).or_insert(head);
    if head.seq > later.seq {
        *later = head;
    }
}

fn parse(line: &str) -> Option<Head> {
    let mut words = line.split(' ');
    let client = ClientId::from_hex(words.next()?).ok()?;
    let seq = words.next()?.parse().ok()?;
    Some(Head { client, seq, hash: ObjectHash::from_hex(words.next()?).ok()? })
}

/// The records that are remembered as the last ones.
pub(in crate::repo) fn remembered(path: &Path) -> BTreeSet<Head> {
    load(path).heads.into_iter().collect()
}

/// Remembers `heads` besides what is remembered; of each log the later one. Nothing is written if all is known.
pub(super) fn remember(path: &Path, heads: &[Head]) -> Result<()> {
    let before = load(path);
    let mut all = BTreeMap::new();
    before.heads.iter().chain(heads).for_each(|head| keep_later(&mut all, *head));
    let all: Vec<Head> = all.into_values().collect();
    if all == before.heads && !before.stale { Ok(()) } else { save(path, &all) }
}

/// Remembers a head that another client has seen, in place of what is remembered of its log.
pub(super) fn remember_told(path: &Path, head: &Head) -> Result<()> {
    let mut all: BTreeMap<ClientId, Head> = load(path).heads.into_iter().map(|head| (head.client, head)).collect();
    all.insert(head.client, *head);
    save(path, &all.into_values().collect::<Vec<_>>())
}

/// Forgets everything.
pub(super) fn forget(path: &Path) -> Result<()> {
    for path in [path.to_owned(), second(path)] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("forget the state of the repository in", path.display(), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn save(path: &Path, heads: &[Head]) -> Result<()> {
    save_copy(&second(path), heads).and_then(|()| save_copy(path, heads))
}

/// Written beside and renamed, so that either the old or the new memory is there.
fn save_copy(path: &Path, heads: &[Head]) -> Result<()> {
    let failed = |error| Error::io("remember the state of the repository in", path.display(), error);
    let body: String = heads.iter().map(|head| format!("{} {} {}\n", head.client, head.seq, head.hash)).collect();
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    write!(file, "{}\n{body}", blake3::hash(body.as_bytes()).to_hex()).map_err(failed)?;
    file.as_file().sync_data().map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}
