//! What a store on another machine keeps of what a repository needs, found out by asking and not by believing.
//!
//! Servers answer that they know a condition and ignore it, or refuse a second object and still let two racers win. So
//! objects are written twice, raced for, and read back, below `probe/`, when a repository is made and when it is
//! checked. The answer is remembered on this machine; without one, a store is treated as one that keeps nothing.

use super::far::{Body, Remote, Use};
use super::fault::Fault;
use crate::error::{Error, Result};
use bytes::Bytes;
use futures_util::future::{join, join_all, join4};
use std::path::PathBuf;
use std::sync::Mutex;

/// Racers for one name, and races. A server whose check and whose write are two steps lets one win alone now and then, the more
/// often the less there is to write between them.
const RACERS: usize = 12;
const RACES: usize = 5;
/// Races at the same time.
const AT_ONCE: usize = 2;
/// Bytes of an object that is raced for.
const RACED: usize = 24 << 10;
/// Folder of what a probe writes.
pub(super) const FOLDER: &str = "probe";

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Promises {
    /// A second object of the same name is refused.
    pub create_once: bool,
    /// Of many that create one name at the same time, exactly one wins.
    pub create_atomic: bool,
    /// What was written is read back at once, and what was deleted is gone at once.
    pub read_after_write: bool,
    /// A listing shows at once what was written.
    pub list_after_write: bool,
    /// Parts of an object can be read.
    pub ranges: bool,
    /// These credentials may delete.
    pub delete: bool,
}

impl Promises {
    /// True if several clients and maintainers may work at once.
    #[must_use]
    pub fn many_writers(&self) -> bool {
        self.create_atomic && self.read_after_write
    }

    /// What is missing, in words for the user; empty if nothing is.
    #[must_use]
    pub fn lacks(&self) -> Vec<&'static str> {
        let lack = |kept: bool, text: &'static str| (!kept).then_some(text);
        [
            lack(self.create_once, "it replaces an object although it is told to create one only if there is none"),
            lack(self.create_atomic || !self.create_once, "of several that create one name at once, more than one may win"),
            lack(self.read_after_write, "what was written or deleted does not show at once"),
            lack(self.list_after_write, "a listing does not show at once what was written"),
            lack(self.ranges, "it sends whole objects when a part is asked for"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The answers about one store, in memory and in a file.
#[derive(Debug, Default)]
pub(super) struct Answers {
    file: Option<PathBuf>,
    known: Mutex<Option<Promises>>,
}

impl Answers {
    /// What was remembered in `folder` of the store at `place`.
    pub(super) fn load(folder: Option<&PathBuf>, place: &str) -> Self {
        let name = format!("{}.json", &blake3::hash(place.as_bytes()).to_hex()[..32]);
        let file = folder.map(|folder| folder.join(name));
        // A file that cannot be read is as good as none: the store is then treated as one that keeps nothing.
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let known = text.and_then(|text| serde_json::from_str(&text).ok());
        Self { file, known: Mutex::new(known) }
    }

    pub(super) fn get(&self) -> Option<Promises> {
        *self.known.lock().expect("no code panics while it holds this lock")
    }

    /// True if creating is known to be atomic.
    pub(super) fn atomic(&self) -> bool {
        self.get().is_some_and(|promises| promises.many_writers())
    }

    /// What was found, but that a server which once let several win is not believed to have changed because they did not
    /// meet this time.
    pub(super) fn with_memory(&self, found: Promises) -> Promises {
        let raced = self.get().is_some_and(|before| before.create_once && !before.create_atomic);
        Promises { create_atomic: found.create_atomic && !raced, ..found }
    }

    /// Remembers; that it cannot be written to a file only costs a few requests later.
    pub(super) fn set(&self, promises: &Promises) {
        *self.known.lock().expect("no code panics while it holds this lock") = Some(*promises);
        let Some(file) = &self.file else { return };
        let Some(folder) = file.parent() else { return };
        let text = serde_json::to_string(promises).expect("it is made of truth values");
        let write = || {
            std::fs::create_dir_all(folder)?;
            let new = tempfile::NamedTempFile::new_in(folder)?;
            std::fs::write(new.path(), text)?;
            new.persist(file).map_err(|error| error.error).map(drop)
        };
        if let Err(error) = write() {
            tracing::debug!("remember what the store keeps: {error}");
        }
    }
}

tokio::task_local! {
    /// There while requests race: how many are under way at once is then what is asked about.
    static RACING: ();
}

/// True if the request that is being sent is one of a race.
pub(super) fn is_racing() -> bool {
    RACING.try_with(|()| ()).is_ok()
}

/// Races that are worth while, where this was found before: one that is known to let several win is believed to do so for good,
/// and of one that was not seen to, another race now and then is enough, and none where few requests are wanted at once.
fn races(known: Option<Promises>, width: usize) -> usize {
    match known {
        Some(known) if known.create_once => usize::from(known.create_atomic && width >= RACERS),
        _ => RACES,
    }
}

/// Asks a server, by writing, racing, reading, listing, and deleting below `probe/`; `known` is what was found before, and `width`
/// how many requests there may be at once, but for a race.
pub(super) async fn probe(remote: &dyn Remote, known: Option<Promises>, width: usize) -> Result<Promises, Fault> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Fault::lasting(format!("no random name: {error}")))?;
    let base = format!("{FOLDER}/{:016x}", u64::from_le_bytes(random));
    let (first, quiet) = (format!("{base}.a"), format!("{base}.b"));
    let names: Vec<String> = (0..races(known, width)).map(|race| format!("{base}.r{race}")).collect();
    let (one, still) = (noise(&first, 0, 1024), noise(&quiet, 0, 1024));
    let bodies = (Body::Bytes(one.clone()), Body::Bytes(still.clone()));
    let made = join(remote.create(&first, &bodies.0, Use::Hot), remote.create(&quiet, &bodies.1, Use::Hot)).await;
    made.0.and(made.1)?;
    let again = Body::Bytes(noise(&first, 1, 1024));
    // A server that replaces an object may show anything of it while it does: nobody writes to the one that is read.
    let asked = (remote.get(&quiet, 4096), remote.read(&quiet, 100, 50), remote.list(FOLDER, None));
    let (got, read, listed, again) = join4(asked.0, asked.1, asked.2, remote.create(&first, &again, Use::Hot)).await;
    let read_after_write = answered(got)?.is_some_and(|bytes| bytes == still);
    let ranges = answered(read)?.is_some_and(|bytes| bytes == still.slice(100..150));
    let listed = listed?;
    let list_after_write = listed.items.iter().any(|item| item.name == quiet) || listed.next.is_some();
    let refused = answered(again)? == Some(false);
    // Where nothing is refused, nothing is raced for: some servers answer with errors, and show for a while what is gone.
    let races: &[String] = if refused && !remote.never_atomic() { &names } else { &[] };
    let (kept, raced) = join(remote.get(&first, 4096), RACING.scope((), race(remote, races))).await;
    let create_once = refused && answered(kept)?.is_some_and(|bytes| bytes == one);
    let was_atomic = names.is_empty() && known.is_some_and(|known| known.create_atomic);
    let create_atomic = (raced? || was_atomic) && create_once;
    let made = races.iter().chain([&first, &quiet]);
    let deleted = join_all(made.map(|name| remote.delete(name))).await;
    let deleted: Vec<_> = deleted.into_iter().map(answered).collect::<Result<_, _>>()?;
    let delete = deleted.iter().all(Option::is_some);
    let seen = join_all([&first, &quiet].map(|name| remote.look(name))).await;
    let seen: Vec<_> = seen.into_iter().map(answered).collect::<Result<_, _>>()?;
    let gone = !delete || seen.iter().all(|seen| matches!(seen, Some(None)));
    let read_after_write = read_after_write && gone;
    Ok(Promises { create_once, create_atomic, read_after_write, list_after_write, ranges, delete })
}

/// True if exactly one wins each race, and its bytes are what is there in the end; false if there is none.
async fn race(remote: &dyn Remote, names: &[String]) -> Result<bool, Fault> {
    let mut won = Vec::new();
    for some in names.chunks(AT_ONCE) {
        let raced = join_all(some.iter().map(|name| race_for(remote, name))).await;
        for (name, raced) in some.iter().zip(raced) {
            match raced? {
                Some(bytes) => won.push((name, bytes)),
                None => return Ok(false),
            }
        }
    }
    let kept = join_all(won.iter().map(|(name, _)| remote.get(name, RACED as u64))).await.into_iter().map(answered);
    let kept = kept.collect::<Result<Vec<_>, Fault>>()?;
    Ok(!won.is_empty() && kept.iter().zip(&won).all(|(kept, (_, bytes))| kept.as_ref() == Some(bytes)))
}

/// What the server answered, `None` for a refusal. A line that breaks says nothing about the server, so the probe is made
/// again.
fn answered<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Err(fault) if fault.is_passing() => Err(fault),
        other => Ok(other.ok()),
    }
}

/// The bytes of the one that wins of many that create `name` at once; nothing if not exactly one does.
async fn race_for(remote: &dyn Remote, name: &str) -> Result<Option<Bytes>, Fault> {
    let run = |racer: usize| async move {
        let bytes = noise(name, racer, RACED);
        let created = remote.create(name, &Body::Bytes(bytes.clone()), Use::Hot).await;
        (created, bytes)
    };
    let results = join_all((0..RACERS).map(run)).await;
    let mut winners = results.iter().filter(|(created, _)| matches!(created, Ok(true)));
    match (winners.next(), winners.next()) {
        (Some((_, bytes)), None) => Ok(Some(bytes.clone())),
        (Some(_), Some(_)) => Ok(None),
        // Whoever was told to come back may have won, and not have heard of it.
        (None, _) => {
            let unheard = results.into_iter().find_map(|(created, _)| created.err().filter(Fault::is_passing));
            unheard.map_or(Ok(None), Err)
        }
    }
}

/// Bytes that no two racers share.
fn noise(name: &str, racer: usize, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(name.as_bytes()).update(&(racer as u64).to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// The error for a store that cannot hold a repository at all.
pub(super) fn unfit(place: &str, promises: &Promises) -> Option<Error> {
    if promises.read_after_write {
        return None;
    }
    let message = format!("use the store {place}: what was written or deleted does not show at once");
    Some(Error::new(crate::error::ErrorKind::Refused, message).with_hint("choose a store that keeps what it is given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_and_a_broken_file_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("stores");
        let promises = Promises {
            create_once: true,
            create_atomic: false,
            read_after_write: true,
            list_after_write: true,
            ranges: true,
            delete: false,
        };
        let answers = Answers::load(Some(&folder), "s3://bucket/x");
        assert_eq!((answers.get(), answers.atomic()), (None, false));
        answers.set(&promises);
        let again = Answers::load(Some(&folder), "s3://bucket/x");
        assert_eq!(again.get(), Some(promises));
        assert!(!again.atomic() && again.get().unwrap().lacks().len() == 1);
        let lucky = Promises { create_atomic: true, ..promises };
        assert!(!again.with_memory(lucky).create_atomic, "several won once");
        assert!(Answers::default().with_memory(lucky).create_atomic);
        assert_eq!(Answers::load(Some(&folder), "s3://bucket/y").get(), None);
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&file, "{\"create-once\":").unwrap();
        assert_eq!(Answers::load(Some(&folder), "s3://bucket/x").get(), None);
    }
}
