//! Which machine writes: a random number that each machine keeps beside its remembered heads and puts into its records.
//!
//! Two machines with one identity, such as a virtual machine and its copy, harm nobody: every record takes the next place
//! of the one log. But the second one is not known to whoever reads the list of clients, so it is reported.

use super::members::Member;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::format::log::Record;
use crate::id::InstanceId;
use crate::repo::surroundings::Surroundings;
use crate::repo::{Repository, cache};
use std::io::Write;
use std::path::Path;

/// Key of the record's map under which the machine is named; whoever does not know it ignores it.
pub(super) const KEY: u64 = 64;
/// CBOR of what comes before the 16 bytes.
const BYTES_16: u8 = 0x50;

/// Reads the number, or draws it the first time.
pub(in crate::repo) fn load(path: &Path, surroundings: &Surroundings) -> Result<InstanceId> {
    let failed = |error| Error::io("remember this machine's number in", path.display(), error);
    let read = || std::fs::read_to_string(path).ok().and_then(|text| InstanceId::from_hex(text.trim_end()).ok());
    if let Some(id) = read() {
        return Ok(id);
    }
    let id = InstanceId(surroundings.random()?);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    writeln!(file, "{id}").map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(id),
        // Another process was faster; or what is there is no number, and is replaced.
        Err(error) => match read() {
            Some(id) => Ok(id),
            None => error.file.persist(path).map(|_| id).map_err(|error| failed(error.error)),
        },
    }
}

/// The field of a record that names this machine.
pub(super) fn field(id: &InstanceId) -> (u64, Vec<u8>) {
    (KEY, [&[BYTES_16][..], &id.0].concat())
}

/// The machine that wrote a record; of a fence in somebody else's log, nobody's.
pub(super) fn of(record: &Record) -> Option<InstanceId> {
    let (_, value) = record.extra.iter().find(|(key, _)| *key == KEY && record.author.is_none())?;
    let (first, id) = value.split_first()?;
    InstanceId::from_slice(id).filter(|_| *first == BYTES_16)
}

impl Repository {
    /// Clients whose identity several machines use at once, each with the number of machines.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn cloned(&self) -> Result<Vec<(Member, u64)>> {
        let members = self.members()?.into_iter().filter(|member| member.last.is_none());
        let mut cloned = Vec::new();
        for member in members {
            let machines = cache::members::machines(&self.connection(), &member.id)?;
            if machines > 1 {
                cloned.push((member, machines));
            }
        }
        Ok(cloned)
    }

    /// Warns if another machine writes with this one's identity, once for each time that it did.
    pub(super) fn tell_of_clones(&self, observer: &dyn Observer) -> Result<()> {
        let Ok(me) = self.keys().client() else { return Ok(()) };
        let news = cache::members::news_of_others(&self.connection(), &me, &self.inner.instance)?;
        if let Some(seq) = news {
            observer.observe(Event::Warning(&format!(
                "another machine, or another user of this one, writes with the same identity (record {seq} of client {me}): \
                 nothing is lost by it, but give each its own with `lifeboat key enrol`"
            )));
            cache::members::note_told(&self.connection(), seq)?;
        }
        Ok(())
    }
}
