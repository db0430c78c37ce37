//! Where things are: command line, then environment, then configuration, then the places of the XDG specification.

use super::arguments::Globals;
use super::backup::Retain;
use super::observer::Watcher;
use super::{prompt, rollback};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::id::Fingerprint;
use crate::ops::kit::Pins;
use crate::plan::prices::Prices;
use crate::repo::{Access, OpenOptions, Repository, Rollback};
use crate::store::{Location, StoreSettings};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use zeroize::Zeroizing;

/// Longest identity file.
const MAX_IDENTITY: u64 = 64 << 10;
/// What is kept of each repository elsewhere, unless told otherwise.
const CACHE_SIZE: u64 = 4 << 30;
/// How often a new passphrase is asked for.
const TRIES: u32 = 3;
/// How many worker threads may be asked for: more than any machine makes use of, fewer than what brings it down.
pub(super) const THREADS: std::ops::RangeInclusive<u16> = 1..=512;
/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Defaults from lifeboat.toml.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Configuration {
    repository: Option<String>,
    identity: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    cache_size: Option<String>,
    threads: Option<u16>,
    connections: Option<u16>,
    limit_upload: Option<String>,
    limit_download: Option<String>,
    retain: Option<String>,
    #[serde(default)]
    copy_to: Vec<String>,
    copy_identity: Option<PathBuf>,
    #[serde(default)]
    prices: Prices,
}

/// What every command has at hand.
pub(super) struct Context {
    pub(super) globals: Globals,
    pub(super) watcher: Watcher,
    configuration: Configuration,
    /// The figures of the run, for the history.
    figures: Mutex<Option<serde_json::Value>>,
    warned: Once,
}

fn home() -> Result<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).ok_or_else(|| {
        Error::usage("find the home directory: HOME is not set")
            .with_hint("set HOME, or give --repo, --identity, and --cache-dir")
    })
}

fn xdg(variable: &str, below_home: &str) -> Result<PathBuf> {
    match std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(path) => Ok(path.join("lifeboat")),
        None => Ok(home()?.join(below_home).join("lifeboat")),
    }
}

impl Context {
    pub(super) fn new(globals: Globals) -> Result<Self> {
        let configuration = configuration(globals.config.as_deref())?;
        let watcher = Watcher::new(&globals)?;
        Ok(Self { globals, watcher, configuration, figures: Mutex::default(), warned: Once::new() })
    }

    pub(super) fn threads(&self) -> usize {
        self.globals.threads.or(self.configuration.threads).unwrap_or(0).into()
    }

    pub(super) fn prices(&self) -> &Prices {
        &self.configuration.prices
    }

    /// The repository's place, and whether it was said or is the default.
    pub(super) fn location(&self) -> Result<(Location, bool)> {
        match self.globals.repo.as_ref().or(self.configuration.repository.as_ref()) {
            Some(text) => Ok((self.place(text)?, true)),
            None => Ok((Location::directory(&xdg("XDG_DATA_HOME", ".local/share")?.join("repository")), false)),
        }
    }

    /// The own retention that snapshots get unless told otherwise.
    pub(super) fn retain(&self) -> Result<Option<Retain>> {
        let text = self.configuration.retain.as_deref();
        text.map(str::parse).transpose().map_err(|error: Error| error.while_doing("read the configuration"))
    }

    /// Where backups are to be copied to afterwards, and with which identity.
    pub(super) fn copies(&self) -> (&[String], Option<&Path>) {
        (&self.configuration.copy_to, self.configuration.copy_identity.as_deref())
    }

    /// A place as the user writes it, to be reached with the settings at hand.
    pub(super) fn place(&self, text: &str) -> Result<Location> {
        Ok(Location::parse(text)?.with_settings(self.store_settings()?))
    }

    /// What stores elsewhere need: credentials of the environment, the home directory, and limits.
    fn store_settings(&self) -> Result<StoreSettings> {
        let limit = |said: Option<u64>, configured: &Option<String>| match (said, configured) {
            (None, Some(text)) => {
                let parsed = super::text::parse_size(text);
                parsed.map(Some).map_err(|why| Error::usage(format!("read the configuration: {why}")))
            }
            (said, _) => Ok(said),
        };
        let connections = self.globals.connections.or(self.configuration.connections);
        Ok(StoreSettings {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            home: home().ok(),
            answers: xdg("XDG_STATE_HOME", ".local/state").ok().map(|state| state.join("stores")),
            connections: connections.map(usize::from),
            keep: limit(self.globals.cache_size, &self.configuration.cache_size)?.or(Some(CACHE_SIZE)),
            limit_upload: limit(self.globals.limit_upload, &self.configuration.limit_upload)?,
            limit_download: limit(self.globals.limit_download, &self.configuration.limit_download)?,
            line: self.watcher.line().clone(),
        })
    }

    /// The identity's file, and whether it was said or is the default.
    pub(super) fn identity_path(&self) -> Result<(PathBuf, bool)> {
        match self.globals.identity.as_ref().or(self.configuration.identity.as_ref()) {
            Some(path) => Ok((path.clone(), true)),
            None => Ok((xdg("XDG_CONFIG_HOME", ".config")?.join("identity.txt"), false)),
        }
    }

    pub(super) fn open_options(&self) -> Result<OpenOptions> {
        let cache_dir = match self.globals.cache_dir.as_ref().or(self.configuration.cache_dir.as_ref()) {
            Some(path) => path.clone(),
            None => xdg("XDG_CACHE_HOME", ".cache")?,
        };
        let said = self.globals.fingerprint.as_deref().map(Fingerprint::from_hex).transpose()?;
        let (location, _) = self.location()?;
        let fingerprint = said.or(location.fingerprint());
        Ok(OpenOptions { cache_dir, state_dir: xdg("XDG_STATE_HOME", ".local/state")?, fingerprint })
    }

    /// Directories that hold the repository, or what this machine keeps of repositories.
    pub(super) fn own_places(&self) -> Result<Vec<PathBuf>> {
        let (location, _) = self.location()?;
        let options = self.open_options()?;
        Ok(location.local_path().map(Path::to_owned).into_iter().chain([options.cache_dir, options.state_dir]).collect())
    }

    /// Identity and passphrase, as far as they were given.
    pub(super) fn access(&self) -> Result<Access> {
        let passphrase = self.passphrase()?;
        let (path, said) = self.identity_path()?;
        let identity = match read_limited(&path) {
            Ok(text) => {
                if holds_key(&text) {
                    self.warn_of_readers(&path);
                }
                Some(text)
            }
            Err(error) if error.kind() == ErrorKind::Missing && (passphrase.is_some() || !said) => None,
            Err(error) => {
                let absent = matches!(error.io_kind(), Some(io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied));
                let error = error.while_doing("read the identity");
                return Err(if absent { error.as_kind(ErrorKind::WrongKey) } else { error });
            }
        };
        let passphrase = match passphrase {
            None if identity.is_none() && prompt::can_ask() => Some(prompt::secret("Passphrase: ", &self.watcher)?),
            other => other,
        };
        Ok(Access { identity, passphrase })
    }

    /// Says, once, that others can read the identity.
    fn warn_of_readers(&self, path: &Path) {
        let open = std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o004 != 0);
        if open {
            let message = format!("everybody on this machine can read the identity {0}: chmod 600 {0}", path.display());
            self.warned.call_once(|| self.watcher.observe(Event::Warning(&message)));
        }
    }

    /// The passphrase, if one was given; nobody is asked for it.
    pub(super) fn passphrase(&self) -> Result<Option<Zeroizing<String>>> {
        if let Some(path) = &self.globals.passphrase_file {
            return first_line(&read_limited(path)?).map(Some);
        }
        if let Some(command) = &self.globals.passphrase_command {
            let doing = |error| Error::io("run", "the passphrase command", error);
            let mut shell = std::process::Command::new("sh");
            let output = shell.arg("-c").arg(command).stderr(std::process::Stdio::inherit()).output().map_err(doing)?;
            let text = Zeroizing::new(output.stdout);
            if !output.status.success() {
                return Err(Error::failed(format!("run the passphrase command: it ended with {}", output.status)));
            }
            return first_line(&text).map(Some);
        }
        match std::env::var("LIFEBOAT_PASSPHRASE") {
            Ok(text) if !text.is_empty() => Ok(Some(Zeroizing::new(text))),
            _ => Ok(None),
        }
    }

    /// A new passphrase: from where passphrases come from, or asked for twice.
    pub(super) fn new_passphrase(&self, file: Option<&Path>) -> Result<Zeroizing<String>> {
        if let Some(path) = file.filter(|path| *path != Path::new("-")) {
            return first_line(&read_limited(path)?);
        }
        if let (None, Some(passphrase)) = (file, self.passphrase()?) {
            return Ok(passphrase);
        }
        for _ in 0..TRIES {
            let first = prompt::secret("New passphrase: ", &self.watcher)?;
            if first.is_empty() {
                eprintln!("An empty passphrase protects nothing. Once more:");
            } else if prompt::secret("The same again: ", &self.watcher)? == first {
                return Ok(first);
            } else {
                eprintln!("The two were not the same. Once more:");
            }
        }
        Err(Error::usage(format!("read the new passphrase: {TRIES} times it was empty, or not the same twice"))
            .with_hint("nothing was made; run the command again"))
    }

    /// Opens the repository to look for damage; it remembers what is in the way of a usual opening.
    pub(super) fn open_damaged(&self) -> Result<Repository> {
        if self.globals.accept_rollback {
            return self.open();
        }
        let ((location, _), options) = (self.location()?, self.open_options()?);
        Repository::reach(&location, &options)?;
        Repository::open_damaged(&location, &self.access()?, &options, &self.watcher)
    }

    /// Opens the repository.
    pub(super) fn open(&self) -> Result<Repository> {
        self.open_with_access().map(|(repository, _)| repository)
    }

    /// Opens the repository to look at what it holds. If its store cannot be reached, what this machine knows of it has to do.
    pub(super) fn open_to_look(&self) -> Result<Repository> {
        let error = match self.open() {
            Err(error) if error.is_unreachable() && !self.globals.accept_rollback => error,
            other => return other,
        };
        let (location, _) = self.location()?;
        match Repository::open_offline(&location, &self.access()?, &self.open_options()?) {
            Ok(Some((repository, seen))) => {
                let seen = super::text::time(seen);
                self.watcher.observe(Event::Warning(&format!("offline: as of {seen}: {error}")));
                Ok(repository)
            }
            _ => Err(error),
        }
    }

    /// Opens the repository, and says with what.
    pub(super) fn open_with_access(&self) -> Result<(Repository, Access)> {
        let (location, said) = self.location()?;
        // Asking for a passphrase makes no sense before the repository is known to be there.
        let mut options = self.open_options()?;
        Repository::reach(&location, &options).map_err(|error| {
            if said {
                error
            } else {
                error.with_hint("make one with `lifeboat backup PATH` or `lifeboat init`, or name one with --repo")
            }
        })?;
        let access = self.access()?;
        let pins = access.identity.as_ref().map(|text| Pins::of(text)).transpose()?.unwrap_or_default();
        options.fingerprint = options.fingerprint.or(pins.fingerprint);
        let repository = if self.globals.accept_rollback {
            let mut tell = |rollback: &Rollback| rollback::tell(self.globals.json, rollback);
            Repository::open_rolled_back(&location, &access, &options, &self.watcher, &mut tell)?
        } else {
            let repository = Repository::open(&location, &access, &options, &self.watcher)?;
            repository.check_pinned(&pins.heads)?;
            repository
        };
        Ok((repository, access))
    }

    /// Opens another repository than the one that the command is about. The same identity and passphrase open it unless
    /// others are given.
    pub(super) fn open_other(&self, place: &str, identity: Option<&Path>, passphrase_file: Option<&Path>) -> Result<Repository> {
        let location = self.place(place)?;
        // The expected fingerprint is that of the other one.
        let options = OpenOptions { fingerprint: location.fingerprint(), ..self.open_options()? };
        Repository::reach(&location, &options)?;
        let mut access = if identity.is_some() || passphrase_file.is_some() {
            Access { identity: None, passphrase: None }
        } else {
            self.access()?
        };
        if let Some(path) = identity {
            let text = read_limited(path);
            access.identity = Some(text.map_err(|error| error.while_doing("read the identity").as_kind(ErrorKind::WrongKey))?);
        }
        if let Some(path) = passphrase_file {
            access.passphrase = Some(first_line(&read_limited(path)?)?);
        }
        Repository::open(&location, &access, &options, &self.watcher)
    }

    /// The place of the repository as it can be named from anywhere on this machine.
    pub(super) fn lasting_place(&self) -> Result<String> {
        let (location, _) = self.location()?;
        let path = location.local_path().map(Path::canonicalize);
        Ok(path.and_then(std::result::Result::ok).map_or_else(|| location.to_string(), |path| path.display().to_string()))
    }

    /// Notes the figures of the report for the history: numbers, and what is true or false.
    pub(super) fn note(&self, report: &serde_json::Value) {
        let telling = |(_, value): &(&String, &serde_json::Value)| value.is_number() || value.is_boolean();
        let figures = report.as_object().map(|object| {
            let mut kept: serde_json::Map<_, _> =
                object.iter().filter(telling).map(|(key, value)| (key.clone(), value.clone())).collect();
            kept.extend(object.get_key_value("id").map(|(key, value)| (key.clone(), value.clone())));
            serde_json::Value::Object(kept)
        });
        *self.figures.lock().expect("no code panics while it holds this lock") = figures;
    }

    pub(super) fn figures(&self) -> Option<serde_json::Value> {
        self.figures.lock().expect("no code panics while it holds this lock").take()
    }

    /// Says something that is no part of the result.
    pub(super) fn say_aside(&self, text: &str) {
        if !self.globals.quiet && !self.globals.json {
            eprintln!("{text}");
        }
    }

    /// Prints what a command was asked to show.
    pub(super) fn show(&self, text: &str) {
        if !self.globals.json {
            println!("{text}");
        }
    }

    /// Says what a command did.
    pub(super) fn say(&self, text: &str) {
        if !self.globals.quiet && !self.globals.json {
            println!("{text}");
        }
    }
}

fn configuration(path: Option<&Path>) -> Result<Configuration> {
    let (path, said) = match path {
        Some(path) => (path.to_owned(), true),
        None => match xdg("XDG_CONFIG_HOME", ".config") {
            Ok(folder) => (folder.join("lifeboat.toml"), false),
            Err(_) => return Ok(Configuration::default()),
        },
    };
    match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !said => Ok(Configuration::default()),
        Err(error) => {
            use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
            // A disk that fails is no mistake of whoever named the file.
            let is_mistake = matches!(error.kind(), NotFound | IsADirectory | NotADirectory);
            let error = Error::io("read the configuration", path.display(), error);
            Err(if is_mistake { error.as_kind(ErrorKind::Usage) } else { error })
        }
        Ok(text) => Configuration::parse(&text, &folder_of(&path)).map_err(|why| {
            Error::usage(format!("read the configuration {}: {why}", path.display()))
                .with_hint("mend the file, or name another one with --config")
        }),
    }
}

/// The folder of a file, from the root on.
fn folder_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().map(Path::to_owned).unwrap_or_default()
}

impl Configuration {
    /// Reads the file, all of it: what is wrong with it is said by whatever run comes first, and not by one that needs it.
    /// Relative paths in it begin in `folder`: what a run does must not depend on where it was begun.
    fn parse(text: &[u8], folder: &Path) -> std::result::Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut read: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", error.message().lines().next().unwrap_or_default())
        })?;
        let size = read.cache_size.as_deref().map(super::text::parse_size).transpose();
        size.map_err(|why| format!("cache-size: {why}"))?;
        for (name, rate) in [("limit-upload", &read.limit_upload), ("limit-download", &read.limit_download)] {
            rate.as_deref().map(super::text::parse_rate).transpose().map_err(|why| format!("{name}: {why}"))?;
        }
        let retain = read.retain.as_deref().map(str::parse::<Retain>).transpose();
        retain.map_err(|error| format!("retain: {error}"))?;
        if let Some(threads) = read.threads.filter(|threads| !THREADS.contains(threads)) {
            return Err(format!("threads: {threads} is not from {} to {}", THREADS.start(), THREADS.end()));
        }
        // A shell would have put the home directory in its place.
        let placed = |place: String| match place.strip_prefix("~/") {
            Some(below) => home().map(|home| home.join(below).display().to_string()).unwrap_or(place),
            None if Location::parse(&place).is_ok_and(|location| location.local_path().is_some_and(Path::is_relative)) => {
                folder.join(place).display().to_string()
            }
            None => place,
        };
        read.repository = read.repository.map(placed);
        read.copy_to = read.copy_to.into_iter().map(placed).collect();
        for path in [&mut read.identity, &mut read.cache_dir, &mut read.copy_identity].into_iter().flatten() {
            if let (Ok(below), Ok(home)) = (path.strip_prefix("~"), home()) {
                *path = home.join(below);
            } else {
                *path = folder.join(&path);
            }
        }
        Ok(read)
    }
}

pub(super) fn read_limited(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let failed = |error| Error::io("read", path.display(), error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(Vec::with_capacity(8192));
    file.take(MAX_IDENTITY + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_IDENTITY {
        return Err(Error::usage(format!("read {}: it is too long", path.display())));
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        return Ok(Zeroizing::new(text[BYTE_ORDER_MARK.len()..].to_vec()));
    }
    Ok(text)
}

/// True if this is what nobody else must read.
fn holds_key(text: &[u8]) -> bool {
    [&b"AGE-SECRET-KEY-"[..], b"-----BEGIN"].into_iter().any(|begin| text.windows(begin.len()).any(|part| part == begin))
}

fn first_line(text: &[u8]) -> Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    let mut reader = text;
    let read = reader.read_line(&mut line);
    read.map_err(|_| Error::usage("read the passphrase: it is not UTF-8"))?;
    let kept = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(kept);
    if line.is_empty() {
        return Err(Error::usage("read the passphrase: it is empty"));
    }
    Ok(line)
}

/// Makes an identity file with mode 0600, never over one that is there; returns its recipient.
pub(super) fn make_identity(path: &Path) -> Result<String> {
    let failed = |error| Error::io("write the identity", path.display(), error);
    let (secret, recipient) = crate::repo::generate_identity()?;
    if let Some(folder) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder).map_err(failed)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let text = Zeroizing::new(format!(
        "# lifeboat identity; whoever has it can read the backups, without it nobody can\n# public key: {recipient}\n{}\n",
        *secret
    ));
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(recipient)
}
