//! Choosing snapshots: by id, by unique prefix, or the latest that fits a filter.

use super::latest;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::format::snapshot::Snapshot;
use crate::id::SnapshotId;
use crate::repo::{Repository, SealedEntry, SnapshotEntry, Standing};
use std::collections::BTreeSet;

/// Which snapshots are meant; empty fields fit everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Any of these hosts.
    pub hosts: Vec<String>,
    /// Any of these kinds.
    pub kinds: Vec<String>,
    /// All of these tags.
    pub tags: Vec<String>,
    /// Any of these paths, as given to the backup.
    pub paths: Vec<Vec<u8>>,
}

/// Fewest digits of a prefix.
const LEAST_DIGITS: usize = 4;

const HINT: &str = "`lifeboat snapshots` lists them";

impl SnapshotFilter {
    /// True if the snapshot is one of those that are meant.
    #[must_use]
    pub fn fits(&self, snapshot: &Snapshot) -> bool {
        let any = |wanted: &[String], have: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == have);
        any(&self.hosts, &snapshot.host)
            && any(&self.kinds, &snapshot.kind)
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && (self.paths.is_empty() || self.paths.iter().any(|path| has_path(snapshot, path)))
    }
}

/// True if the snapshot is of this path; a slash at the end makes it no other one.
fn has_path(snapshot: &Snapshot, path: &[u8]) -> bool {
    snapshot.paths.iter().any(|has| plain(has) == plain(path))
}

fn plain(mut path: &[u8]) -> &[u8] {
    while let [above @ .., b'/'] = path
        && !above.is_empty()
    {
        path = above;
    }
    path
}

/// Which side of forgetting is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Snapshots that are kept.
    Kept,
    /// Those that were forgotten and not yet pruned.
    Forgotten,
}

/// All snapshots that fit, oldest first.
///
/// # Errors
/// As [`Repository::all_snapshots`].
pub fn list(repository: &Repository, filter: &SnapshotFilter, which: Which) -> Result<Vec<SnapshotEntry>> {
    let mut all = repository.all_snapshots()?;
    all.retain(|entry| entry.is_kept() == (which == Which::Kept) && filter.fits(&entry.snapshot));
    all.sort_by_key(|entry| (entry.snapshot.start, entry.id));
    Ok(all)
}

/// The same as far as the keys at hand can tell; and, unless the filter asks for what they cannot tell, those of which
/// they can only tell that they are there.
///
/// # Errors
/// `Failed` if the cache cannot be read.
pub fn known(repository: &Repository, filter: &SnapshotFilter, which: Which) -> Result<(Vec<SnapshotEntry>, Vec<SealedEntry>)> {
    let (mut known, mut sealed) = repository.known_snapshots()?;
    known.retain(|entry| entry.is_kept() == (which == Which::Kept) && filter.fits(&entry.snapshot));
    known.sort_by_key(|entry| (entry.snapshot.start, entry.id));
    let is_kept = |entry: &SealedEntry| matches!(entry.standing, Standing::Live | Standing::Held);
    sealed.retain(|entry| is_kept(entry) == (which == Which::Kept) && *filter == SnapshotFilter::default());
    Ok((known, sealed))
}

/// The snapshot that `text` names: `latest`, which is the finished one that was committed last as far as logs and claims can
/// tell, an id, or the beginning of one. Whoever asks for the latest is told if it may be doubted.
///
/// # Errors
/// `Missing` if there is none, `Usage` if several begin like that.
pub fn find(repository: &Repository, text: &str, filter: &SnapshotFilter, observer: &dyn Observer) -> Result<SnapshotEntry> {
    if text == "latest" {
        return find_latest(repository, filter, observer);
    }
    if !is_prefix(text) {
        let message = format!("find the snapshot {text:?}: neither `latest` nor {LEAST_DIGITS} or more digits of an id");
        let hint = match text.split_once('/') {
            Some((snapshot, path)) => format!("a path in it comes after a colon: {snapshot}:{path}"),
            None => HINT.to_owned(),
        };
        return Err(Error::missing(message).with_hint(hint));
    }
    all_named(repository, &[text.to_owned()]).map(|mut found| found.remove(0))
}

fn find_latest(repository: &Repository, filter: &SnapshotFilter, observer: &dyn Observer) -> Result<SnapshotEntry> {
    let fitting = list(repository, filter, Which::Kept)?;
    // What did not finish is no state that anybody wanted; whoever wants it all the same knows its id.
    let finished = fitting.iter().filter(|entry| !entry.snapshot.incomplete);
    match (latest::latest(finished, repository.now()), fitting.last()) {
        (Some(found), _) => {
            if let Some(doubt) = found.doubt(repository.now()) {
                observer.observe(Event::Warning(&doubt));
            }
            Ok(found.entry.clone())
        }
        (None, Some(unfinished)) => Err(Error::missing("find the latest snapshot: no backup that fits has finished").with_hint(
            format!("what there is of an unfinished one is in snapshot {}; name it by this id", unfinished.id.short()),
        )),
        (None, None) => Err(nothing_fits(&repository.snapshots()?, filter)),
    }
}

/// All kept snapshots that `names`, ids or the beginnings of them, name; each once.
///
/// # Errors
/// `Missing` if there is none or it was forgotten, `Usage` if different ids begin like that.
pub fn all_named(repository: &Repository, names: &[String]) -> Result<Vec<SnapshotEntry>> {
    let (kept, forgotten): (Vec<_>, Vec<_>) = repository.all_snapshots()?.into_iter().partition(SnapshotEntry::is_kept);
    let mut chosen: Vec<SnapshotEntry> = Vec::new();
    for name in names {
        let found = named(&kept, name).map_err(|error| match named(&forgotten, name) {
            Ok(found) if error.kind() == ErrorKind::Missing => {
                let id = found[0].id.short();
                Error::missing(format!("find the snapshot {name}: {id} was forgotten"))
                    .with_hint(format!("`lifeboat unforget {id}` brings it back, until a prune has run"))
            }
            _ => error,
        })?;
        for entry in found {
            if !chosen.iter().any(|chosen| chosen.record() == entry.record()) {
                chosen.push(entry);
            }
        }
    }
    Ok(chosen)
}

/// The snapshots among `all` that `text`, an id or the beginning of one, names. There are several only if they have the
/// same id.
///
/// # Errors
/// `Missing` if there is none, `Usage` if different ids begin like that.
pub fn named(all: &[SnapshotEntry], text: &str) -> Result<Vec<SnapshotEntry>> {
    if !is_prefix(text) {
        let message = format!("find the snapshot {text:?}: not {LEAST_DIGITS} or more digits of an id");
        return Err(Error::missing(message).with_hint(HINT));
    }
    let found: Vec<&SnapshotEntry> = all.iter().filter(|entry| begins_like(&entry.id, text)).collect();
    let ids: BTreeSet<SnapshotId> = found.iter().map(|entry| entry.id).collect();
    match ids.len() {
        0 => Err(Error::missing(format!("find the snapshot {text}: no id begins like that")).with_hint(HINT)),
        1 => Ok(found.into_iter().cloned().collect()),
        _ => {
            let ids: Vec<String> = ids.iter().map(|id| id.to_string()[..12].to_owned()).collect();
            Err(Error::usage(format!("find the snapshot {text}: several ids begin like that: {}", ids.join(", ")))
                .with_hint("give more digits"))
        }
    }
}

fn is_prefix(text: &str) -> bool {
    text.len() >= LEAST_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// True if the id, written in hexadecimal digits, begins with these; upper and lower case are the same.
fn begins_like(id: &SnapshotId, digits: &str) -> bool {
    let nibbles = id.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let mut nibbles = nibbles.map(|nibble| char::from_digit(nibble.into(), 16));
    digits.chars().all(|digit| nibbles.next() == Some(Some(digit.to_ascii_lowercase())))
}

/// Why no snapshot among `all` fits a filter: a name that nothing has, or names that nothing has together.
#[must_use]
pub fn nothing_fits(all: &[SnapshotEntry], filter: &SnapshotFilter) -> Error {
    verify_known(all, filter).err().unwrap_or_else(|| Error::missing("choose snapshots: none fits").with_hint(HINT))
}

/// Fails if the filter names a host, kind, tag, or path that no snapshot among `all` has: a mistyped name must never
/// look like an empty selection.
///
/// # Errors
/// `Missing`.
pub fn verify_known(all: &[SnapshotEntry], filter: &SnapshotFilter) -> Result<()> {
    let unknown = |what: &str, name: &str| {
        Error::missing(format!("choose snapshots: none has the {what} {name:?}"))
            .with_hint("`lifeboat snapshots` shows the names that there are")
    };
    let any = |fits: &dyn Fn(&Snapshot) -> bool| all.iter().any(|entry| fits(&entry.snapshot));
    if let Some(host) = filter.hosts.iter().find(|host| !any(&|snapshot| snapshot.host == **host)) {
        return Err(unknown("host", host));
    }
    if let Some(kind) = filter.kinds.iter().find(|kind| !any(&|snapshot| snapshot.kind == **kind)) {
        return Err(unknown("kind", kind));
    }
    if let Some(tag) = filter.tags.iter().find(|tag| !any(&|snapshot| snapshot.tags.contains(tag))) {
        return Err(unknown("tag", tag));
    }
    if let Some(path) = filter.paths.iter().find(|path| !any(&|snapshot| has_path(snapshot, path))) {
        return Err(unknown("path", &String::from_utf8_lossy(path)));
    }
    Ok(())
}
