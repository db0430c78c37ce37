//! Where things are: command line, then environment, then configuration, then the places of the XDG specification.

use super::arguments::Globals;
use super::observer::Watcher;
use super::rollback;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Fingerprint;
use crate::repo::{Access, OpenOptions, Repository, Rollback};
use crate::store::Location;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest identity file.
const MAX_IDENTITY: u64 = 64 << 10;

/// Defaults from lifeboat.toml.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Configuration {
    repository: Option<String>,
    identity: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    threads: Option<usize>,
}

/// What every command has at hand.
pub(super) struct Context {
    pub(super) globals: Globals,
    pub(super) watcher: Watcher,
    configuration: Configuration,
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
        Ok(Self { globals, watcher, configuration })
    }

    pub(super) fn threads(&self) -> usize {
        self.globals.threads.or(self.configuration.threads).unwrap_or(0)
    }

    /// The repository's place, and whether it was said or is the default.
    pub(super) fn location(&self) -> Result<(Location, bool)> {
        match self.globals.repo.as_ref().or(self.configuration.repository.as_ref()) {
            Some(text) => Ok((Location::parse(text)?, true)),
            None => Ok((Location::directory(&xdg("XDG_DATA_HOME", ".local/share")?.join("repository")), false)),
        }
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
        let fingerprint = self.globals.fingerprint.as_deref().map(Fingerprint::from_hex).transpose()?;
        Ok(OpenOptions { cache_dir, state_dir: xdg("XDG_STATE_HOME", ".local/state")?, fingerprint })
    }

    /// Identity and passphrase, as far as they were given.
    pub(super) fn access(&self) -> Result<Access> {
        let passphrase = self.passphrase()?;
        let (path, said) = self.identity_path()?;
        let identity = match read_limited(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::Missing && (passphrase.is_some() || !said) => None,
            Err(error) => return Err(error.while_doing("read the identity").as_kind(ErrorKind::WrongKey)),
        };
        let passphrase = match passphrase {
            None if identity.is_none() && can_ask() => Some(ask("Passphrase: ")?),
            other => other,
        };
        Ok(Access { identity, passphrase })
    }

    fn passphrase(&self) -> Result<Option<Zeroizing<String>>> {
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
        let first = ask("New passphrase: ")?;
        if ask("The same again: ")? != first {
            return Err(Error::usage("read the new passphrase: the two are not the same"));
        }
        if first.is_empty() {
            return Err(Error::usage("read the new passphrase: it is empty"));
        }
        Ok(first)
    }

    /// Opens the repository.
    pub(super) fn open(&self) -> Result<Repository> {
        let (location, said) = self.location()?;
        // Asking for a passphrase makes no sense before the repository is known to be there.
        location.open().map_err(|error| {
            if said {
                error
            } else {
                error.with_hint("make one with `lifeboat backup PATH` or `lifeboat init`, or name one with --repo")
            }
        })?;
        let (access, options) = (self.access()?, self.open_options()?);
        if self.globals.accept_rollback {
            let mut tell = |rollback: &Rollback| rollback::tell(self.globals.json, rollback);
            return Repository::open_rolled_back(&location, &access, &options, &self.watcher, &mut tell);
        }
        Repository::open(&location, &access, &options, &self.watcher)
    }

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
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !said => Ok(Configuration::default()),
        Err(error) => Err(Error::io("read the configuration", path.display(), error).as_kind(ErrorKind::Usage)),
        Ok(text) => toml::from_str(&text).map_err(|error| {
            let line = error.message().lines().next().unwrap_or_default().to_owned();
            Error::usage(format!("read the configuration {}: {line}", path.display()))
        }),
    }
}

fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    if !can_ask() {
        return Err(Error::usage("ask for a passphrase: this is no terminal")
            .with_hint("use --passphrase-file, --passphrase-command, or LIFEBOAT_PASSPHRASE"));
    }
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| Error::io("read", "the passphrase", error))
}

fn read_limited(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let failed = |error| Error::io("read", path.display(), error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(Vec::with_capacity(8192));
    file.take(MAX_IDENTITY + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_IDENTITY {
        return Err(Error::usage(format!("read {}: it is too long", path.display())));
    }
    Ok(text)
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
