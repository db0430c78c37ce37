//! What this machine remembers of the logs it has seen, outside the cache: a store that shows less was rolled back.

use crate::error::{Error, Result};
use crate::format::log::Head;
use crate::id::{ClientId, ObjectHash};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Reads the remembered heads; a missing or damaged file remembers nothing.
pub(super) fn load(path: &Path) -> Vec<Head> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let Some((sum, body)) = text.split_once('\n') else { return Vec::new() };
    if blake3::hash(body.as_bytes()).to_hex().as_str() != sum {
        return Vec::new();
    }
    body.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Head> {
    let mut words = line.split(' ');
    let client = ClientId::from_hex(words.next()?).ok()?;
    let seq = words.next()?.parse().ok()?;
    Some(Head { client, seq, hash: ObjectHash::from_hex(words.next()?).ok()? })
}

/// Remembers `heads` besides what is remembered; of each log the later one. Nothing is written if all is known.
pub(super) fn remember(path: &Path, heads: &[Head]) -> Result<()> {
    let before = load(path);
    let mut all: BTreeMap<ClientId, Head> = BTreeMap::new();
    for head in before.iter().chain(heads) {
        let later = all.entry(head.client).or_insert(*head);
        if head.seq > later.seq {
            *later = *head;
        }
    }
    let all: Vec<Head> = all.into_values().collect();
    if all == before { Ok(()) } else { save(path, &all) }
}

/// Remembers a head that another client has seen, in place of what is remembered of its log.
pub(super) fn remember_told(path: &Path, head: &Head) -> Result<()> {
    let mut all: BTreeMap<ClientId, Head> = load(path).into_iter().map(|head| (head.client, head)).collect();
    all.insert(head.client, *head);
    save(path, &all.into_values().collect::<Vec<_>>())
}

/// Forgets everything.
pub(super) fn forget(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("forget the state of the repository in", path.display(), error))
        }
        _ => Ok(()),
    }
}

/// Written beside and renamed, so that either the old or the new memory is there.
fn save(path: &Path, heads: &[Head]) -> Result<()> {
    let failed = |error| Error::io("remember the state of the repository in", path.display(), error);
    let body: String = heads.iter().map(|head| format!("{} {} {}\n", head.client, head.seq, head.hash)).collect();
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    write!(file, "{}\n{body}", blake3::hash(body.as_bytes()).to_hex()).map_err(failed)?;
    file.as_file().sync_data().map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}
