//! Where a repository is, as the user writes it.

use super::address::{Address, Scheme};
use super::far::{Far, Remote};
use super::promises::{Answers, FOLDER};
use super::retry::Retry;
use super::settings::{CONNECTIONS, StoreSettings};
use super::sftp::Sftp;
use super::throttle::Throttled;
use super::webdav::WebDav;
use super::{AnyStore, Key, Local, Next, Promises, Store, clouds};
use crate::error::{Error, ErrorKind, Result};
use crate::id::Fingerprint;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Longest `format/1` that is looked at.
const LONGEST_FORMAT: u64 = 64 << 10;

/// The place of a repository.
#[derive(Clone)]
pub struct Location {
    place: Place,
    settings: Arc<StoreSettings>,
    /// The remote store, once somebody opened it: clones share its connections.
    opened: Arc<OnceLock<AnyStore>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    Remote(Box<Address>),
}

impl Location {
    /// The schemes of the URLs that can be read, but for `file`, which is a path.
    pub const SCHEMES: &[&str] = &["s3", "b2", "gs", "az", "webdav", "webdavs", "sftp"];

    /// Reads a path or a URL: `file`, `s3`, `b2`, `gs`, `az`, `webdav`, `webdavs`, `sftp`.
    ///
    /// # Errors
    /// `Unsupported` for kinds of stores that this version does not have, `Usage` for an empty text, and for a URL
    /// with a secret in it or an option that there is not.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::usage("read the place of the repository: it is empty"));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(Self::directory(Path::new(path)));
        }
        if let Some(address) = Address::parse(text)? {
            return Ok(Self::at(Place::Remote(Box::new(address))));
        }
        match text.split_once("://") {
            Some((scheme, _)) => {
                let message = format!("open the repository {scheme}://…: there is no such kind of store");
                let hint = "give a path, or a URL: file, s3, b2, gs, az, webdav, webdavs, sftp (docs/reference/stores.md)";
                Err(Error::usage(message).with_hint(hint))
            }
            None => Ok(Self::directory(Path::new(text))),
        }
    }

    /// The directory at `path`.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        Self::at(Place::Directory(path.to_owned()))
    }

    fn at(place: Place) -> Self {
        Self { place, settings: Arc::default(), opened: Arc::default() }
    }

    /// The same place, reached with these settings.
    #[must_use]
    pub fn with_settings(self, settings: StoreSettings) -> Self {
        Self { place: self.place, settings: Arc::new(settings), opened: Arc::default() }
    }

    /// True if it is on another machine, or may be.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::Remote(_))
    }

    /// The fingerprint that the repository must have, if the URL says it.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let Place::Remote(address) = &self.place else { return None };
        Fingerprint::from_hex(address.option("fingerprint")?).ok()
    }

    /// True if what it is asked for is billed: requests, bytes, and what is thawed.
    #[must_use]
    pub fn is_billed(&self) -> bool {
        let billed = |address: &Address| matches!(address.scheme, Scheme::S3 | Scheme::B2 | Scheme::Gcs | Scheme::Azure);
        matches!(&self.place, Place::Remote(address) if billed(address))
    }

    /// How many bytes of a repository's objects this machine shall keep; `None` for one in a directory, which is as near.
    #[must_use]
    pub fn keeps(&self) -> Option<u64> {
        self.settings.keep.filter(|limit| self.is_remote() && *limit > 0)
    }

    /// What a probe found of the store, if it was opened and somebody probed it.
    #[must_use]
    pub fn promises(&self) -> Option<Promises> {
        self.opened.get().and_then(|store| store.promises())
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn local_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory(path) => Some(path),
            Place::Remote(_) => None,
        }
    }

    /// Opens the store that is there.
    ///
    /// # Errors
    /// `NoRepository` if there is none.
    pub fn open(&self) -> Result<AnyStore> {
        self.open_expecting(&Next::default())
    }

    /// The same where it is known what is read next.
    ///
    /// # Errors
    /// As [`Location::open`].
    pub fn open_expecting(&self, next: &Next) -> Result<AnyStore> {
        let address = match &self.place {
            Place::Directory(path) => return Ok(self.throttled(Arc::new(Local::open(path)?))),
            Place::Remote(address) => address,
        };
        if let Some(store) = self.opened.get() {
            store.expect(next);
            return Ok(store.clone());
        }
        let store = self.connect(address)?;
        store.expect(next);
        match store.get(&Key::format(), LONGEST_FORMAT) {
            Ok(format) => {
                // Whoever opens the repository reads it next.
                store.hold(&Key::format(), format);
                Ok(self.opened.get_or_init(|| Arc::new(store)).clone())
            }
            Err(error) if error.kind() == ErrorKind::Missing => {
                if was_deleted(&store) {
                    let message = format!("open the repository {address}: its format was deleted");
                    return Err(Error::damaged(message).with_hint(
                        "the bucket still has an older version: `lifeboat repair --apply` puts it back; find out who deleted it",
                    ));
                }
                let message = format!("open the repository {address}: there is none");
                Err(Error::new(ErrorKind::NoRepository, message)
                    .with_hint(format!("make one with `lifeboat init --repo '{address}'`, or check --repo")))
            }
            Err(error) => Err(error.while_doing(format!("open the repository {address}"))),
        }
    }

    /// Opens the store without looking whether it holds a repository: the format may be what is to be mended.
    ///
    /// # Errors
    /// `NoRepository` for a directory that is none.
    pub fn open_unseen(&self) -> Result<AnyStore> {
        match &self.place {
            Place::Directory(_) => self.open(),
            Place::Remote(address) => Ok(Arc::new(self.connect(address)?)),
        }
    }

    /// Fails if a repository cannot be made here because something is here already; changes nothing.
    ///
    /// # Errors
    /// As [`Location::create`].
    pub fn verify_vacant(&self) -> Result<()> {
        match &self.place {
            Place::Directory(path) => Local::verify_vacant(path),
            Place::Remote(address) => verify_vacant(&self.connect(address)?, address),
        }
    }

    /// True if both are surely one and the same place.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Place::Directory(one), Place::Directory(other)) => {
                let real = |path: &Path| path.canonicalize().ok();
                real(one).is_some_and(|one| Some(one) == real(other))
            }
            (one, other) => one == other,
        }
    }

    /// Makes the store, which may be there already if it is empty. What a remote one keeps of its promises is probed.
    ///
    /// # Errors
    /// `Refused` if the place holds something else.
    pub fn create(&self) -> Result<AnyStore> {
        let address = match &self.place {
            Place::Directory(path) => return Ok(self.throttled(Arc::new(Local::create(path)?))),
            Place::Remote(address) => address,
        };
        let store = self.connect(address)?;
        verify_vacant(&store, address)?;
        store.probe()?;
        Ok(self.opened.get_or_init(|| Arc::new(store)).clone())
    }

    fn connect(&self, address: &Address) -> Result<Far> {
        let wished = address.number("connections").and_then(|number| usize::try_from(number).ok());
        let width = wished.or(self.settings.connections).unwrap_or(CONNECTIONS).max(1);
        let remote: Box<dyn Remote> = match address.scheme {
            Scheme::Sftp => Box::new(Sftp::new(address, &self.settings)),
            Scheme::WebDav | Scheme::WebDavTls => Box::new(WebDav::connect(address, &self.settings, width)?),
            Scheme::S3 | Scheme::B2 | Scheme::Gcs | Scheme::Azure => clouds::connect(address, &self.settings, width)?,
        };
        let place = address.to_string();
        let answers = Answers::load(self.settings.answers.as_ref(), &place);
        Ok(Far::new(remote, place, (Retry::of(address), self.settings.line.clone()), width, answers))
    }

    fn throttled(&self, store: AnyStore) -> AnyStore {
        match self.settings.limits() {
            limits if limits.is_empty() => store,
            limits => Arc::new(Throttled { store, limits }),
        }
    }
}

/// True if the format of a repository was there, and only a mark of deletion hides it.
fn was_deleted(store: &dyn Store) -> bool {
    let Some(extras) = store.extras() else { return false };
    let mut found = false;
    // Who may not look at versions sees none.
    let listed = extras.versions(Key::format().as_str(), &mut |version| {
        found |= version.key == Key::format() && !version.deleted;
        Ok(())
    });
    listed.is_ok() && found
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Location {}

impl fmt::Debug for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.place, out)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Directory(path) => write!(out, "{}", path.display()),
            Place::Remote(address) => write!(out, "{address}"),
        }
    }
}

/// Fails if the store holds anything but what was noted of it.
fn verify_vacant(store: &Far, address: &Address) -> Result<()> {
    let mut taken = None;
    let listed = store.list("", &mut |entry| {
        if entry.key.as_str().starts_with(FOLDER) {
            return Ok(());
        }
        taken = Some(entry.key);
        Err(Error::new(ErrorKind::Refused, "one is enough"))
    });
    if let Some(key) = taken {
        let message = format!("make the repository {address}: the place is not empty, it has {key}");
        let hint = "choose an empty place; if a repository is there already, use it without init";
        return Err(Error::new(ErrorKind::Refused, message).with_hint(hint));
    }
    listed.map_err(|error| error.while_doing(format!("make the repository {address}")))
}
