//! Looking at a repository whose store cannot be reached: what is needed to open it is kept beside the cache, sealed as it is
//! in the store, and the cache says the rest as of the last time that it was brought up to the logs.

use crate::error::{Error, Result};
use crate::format::repository::RepositoryFormat;
use crate::repo::slots::MAX_SLOT;
use crate::repo::{Access, OpenOptions, Repository, news, slot_memory};
use crate::store::{Key, Location, Next, Offline};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file that says when the store was last reached.
const SEEN: &str = "seen";

fn folder_of(location: &Location, options: &OpenOptions) -> PathBuf {
    let name = blake3::hash(location.to_string().as_bytes()).to_hex();
    options.cache_dir.join("places").join(&name[..32])
}

/// Writes beside and renames, so that either the old or the new file is there.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(folder.join(name)).map(drop).map_err(|error| error.error)
}

/// What opening the repository at `location` will read, as far as this machine can tell.
pub(super) fn expected(location: &Location, options: &OpenOptions) -> Next {
    // In a directory answers come at once.
    if !location.is_remote() {
        return Next::default();
    }
    let format = std::fs::read(folder_of(location, options).join(Offline::file_of(&Key::format())));
    let format = format.ok().and_then(|format| RepositoryFormat::decode(&format).ok());
    news::of_place(format, options)
}

impl Repository {
    /// Keeps what opening takes, of a repository that was opened just now. What cannot be kept is not kept.
    pub(super) fn remember_place(&self, location: &Location, options: &OpenOptions) {
        let remember = || -> Result<()> {
            let folder = folder_of(location, options);
            let failed = |error| Error::io("remember the place in", folder.display(), error);
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(&folder).map_err(failed)?;
            let format = Offline::file_of(&Key::format());
            if !folder.join(&format).exists() {
                write(&folder, &format, &self.format().encode()).map_err(failed)?;
            }
            let memory = options.state_dir.join(format!("{}.slots", self.format().id));
            if let Some(slot) = slot_memory::load(&memory).first() {
                let key = Key::slot(slot);
                let name = Offline::file_of(&key);
                if !folder.join(&name).exists() {
                    write(&folder, &name, &self.store().get(&key, MAX_SLOT)?).map_err(failed)?;
                }
            }
            Ok(())
        };
        let _ = remember();
    }

    /// Notes that the store was reached, and the cache brought up to it.
    pub(super) fn remember_seen(&self, location: &Location, options: &OpenOptions) {
        let _ = write(&folder_of(location, options), SEEN, self.now().to_string().as_bytes());
    }

    /// Opens what this machine knows of a repository that cannot be reached, with the time of which that is, nanoseconds since
    /// 1970; `None` if it knows nothing. Nothing can be written to it, and what is not kept cannot be read.
    ///
    /// # Errors
    /// `WrongKey`; `Failed` if the cache is damaged.
    pub fn open_offline(location: &Location, access: &Access, options: &OpenOptions) -> Result<Option<(Self, i64)>> {
        let folder = folder_of(location, options);
        let seen = std::fs::read_to_string(folder.join(SEEN)).ok().and_then(|text| text.parse().ok());
        let Some(seen) = seen else { return Ok(None) };
        let repository = Self::assemble(Offline::open(folder, location.to_string()), access, options)?;
        repository.keep_parts(location.keeps().unwrap_or_default());
        // An empty cache is no answer, and one that was made anew just now is empty.
        let empty = crate::repo::cache::log::heads(&repository.connection())?.is_empty();
        Ok((!empty).then_some((repository, seen)))
    }
}
