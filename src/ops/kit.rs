//! `kit`: what must be on paper so that a machine that has nothing can restore, and a rehearsal with nothing else.

use super::restore::{Overwrite, RestoreOptions, restore};
use super::select::{SnapshotFilter, find};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
use crate::format::tree::{Node, NodeKind};
use crate::id::{Fingerprint, SnapshotId};
use crate::repo::{PinnedHead, Reader, Repository, join_shares, parse_identity};
use crate::source::files::RuleOptions;
use std::path::Path;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// What the text of a kit begins with.
const TITLE: &str = "lifeboat kit 1";

/// The secret on a page.
pub enum KitSecret {
    /// None: the key is kept elsewhere.
    Elsewhere,
    /// The whole identity.
    Identity(Zeroizing<String>),
    /// One share of it.
    Share(Zeroizing<String>),
}

/// What a page says, for people and for programs.
pub struct Kit {
    /// Place of the repository.
    pub repository: String,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// How far its logs went: an older state is noticed by them.
    pub heads: Vec<PinnedHead>,
    /// What opens it.
    pub secret: KitSecret,
}

impl Kit {
    /// The lines that are enough, as they are typed or scanned.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, Zeroizing<String>)> {
        let mut lines = vec![
            ("repository", Zeroizing::new(self.repository.clone())),
            ("fingerprint", Zeroizing::new(self.fingerprint.to_string())),
        ];
        lines.extend(self.heads.iter().map(|head| ("head", Zeroizing::new(head.to_string()))));
        match &self.secret {
            KitSecret::Elsewhere => {}
            KitSecret::Identity(text) => lines.push(("identity", text.clone())),
            KitSecret::Share(text) => lines.push(("share", text.clone())),
        }
        lines
    }

    /// The same as one text, for a square to be scanned.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(format!("{TITLE}\n"));
        for (name, value) in self.lines() {
            [name, ": ", &value, "\n"].iter().for_each(|part| text.push_str(part));
        }
        text
    }
}

/// What was read from one or more pages.
pub struct Scanned {
    /// Place of the repository, if a page says it.
    pub repository: Option<String>,
    /// Its fingerprint, if a page says it.
    pub fingerprint: Option<Fingerprint>,
    /// Heads of its logs, as far as the pages say them.
    pub heads: Vec<PinnedHead>,
    /// The identity, if the pages hold one, or enough shares of one.
    pub identity: Option<Zeroizing<String>>,
}

/// Takes out of texts, typed, scanned, or whole pages, what the lines of a kit say; everything else is passed over.
///
/// # Errors
/// `Usage` if a line is mistyped, if shares are missing, or if the pages are of different repositories.
pub fn scan(texts: &[Zeroizing<String>]) -> Result<Scanned> {
    let (mut repository, mut fingerprint, mut identity, mut shares) = (None, None, None, Vec::new());
    let mut heads: Vec<PinnedHead> = Vec::new();
    let different = || Error::usage("read the pages: they are of different repositories").with_hint("take those of one kit");
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        match name.trim().to_ascii_lowercase().as_str() {
            "repository" if *repository.get_or_insert_with(|| value.to_owned()) != value => return Err(different()),
            "fingerprint" => {
                let digits: String = value.split_whitespace().collect::<String>().to_ascii_lowercase();
                let said = Fingerprint::from_hex(&digits)?;
                if *fingerprint.get_or_insert(said) != said {
                    return Err(different());
                }
            }
            "head" => {
                let head = value.parse()?;
                if !heads.contains(&head) {
                    heads.push(head);
                }
            }
            "identity" => identity = Some(parse_identity(value)?),
            "share" => shares.push(Zeroizing::new(value.to_owned())),
            _ => {}
        }
    }
    if identity.is_none() && !shares.is_empty() {
        identity = Some(join_shares(&shares)?);
    }
    if repository.is_none() && fingerprint.is_none() && identity.is_none() {
        return Err(Error::usage("read the page: it has none of the lines of a kit")
            .with_hint("those that begin with repository, fingerprint, and identity or share are needed"));
    }
    Ok(Scanned { repository, fingerprint, heads, identity })
}

/// What the beginning of a comment in an identity file says of the repository that it is for.
const PINS: [&str; 2] = ["# fingerprint: ", "# head: "];

impl Scanned {
    /// The identity as a file, with what the page says of the repository: whoever opens one with it is held to that.
    ///
    /// # Errors
    /// `Usage` if the pages hold no identity.
    pub fn identity_file(&self) -> Result<Zeroizing<String>> {
        let identity = self.identity.as_ref().ok_or_else(|| {
            Error::usage("write the identity: there is none on the page").with_hint("the page says where it is kept")
        })?;
        let mut text = Zeroizing::new(String::with_capacity(1024));
        self.fingerprint.iter().for_each(|fingerprint| text.push_str(&format!("{}{fingerprint}\n", PINS[0])));
        self.heads.iter().for_each(|head| text.push_str(&format!("{}{head}\n", PINS[1])));
        text.push_str(identity);
        text.push('\n');
        Ok(text)
    }
}

/// What an identity file of a kit says of its repository; nothing, if it is of no kit.
#[derive(Debug, Default)]
pub struct Pins {
    /// The fingerprint that it must have.
    pub fingerprint: Option<Fingerprint>,
    /// Heads that its logs must have, or go beyond.
    pub heads: Vec<PinnedHead>,
}

impl Pins {
    /// Reads them from the text of an identity file.
    ///
    /// # Errors
    /// `Usage` if such a line is broken.
    pub fn of(identity: &[u8]) -> Result<Self> {
        let mut pins = Self::default();
        for line in std::str::from_utf8(identity).unwrap_or_default().lines() {
            if let Some(text) = line.strip_prefix(PINS[0]) {
                pins.fingerprint = Some(Fingerprint::from_hex(text.trim())?);
            } else if let Some(text) = line.strip_prefix(PINS[1]) {
                pins.heads.push(text.parse()?);
            }
        }
        Ok(pins)
    }
}

/// What a rehearsal showed.
#[derive(Debug)]
pub struct KitReport {
    /// The snapshot that was restored from.
    pub snapshot: SnapshotId,
    /// When it was made, nanoseconds since 1970.
    pub time: i64,
    /// The file.
    pub path: Vec<u8>,
    /// Its size.
    pub bytes: u64,
    /// How long restoring it took.
    pub elapsed: Duration,
}

/// Restores one file of the latest snapshot into `scratch`, the one at `path` or some small one, and compares it.
///
/// # Errors
/// `Missing` if there is no snapshot or no file, `Damaged` if it is not what was backed up, and as restoring.
pub fn rehearse(repository: &Repository, path: Option<&[u8]>, scratch: &Path, observer: &dyn Observer) -> Result<KitReport> {
    let began = Instant::now();
    let entry = find(repository, "latest", &SnapshotFilter::default(), observer)?;
    let reader = repository.reader()?;
    let (path, node) = match path {
        Some(path) => (path.to_vec(), reader.resolve(&entry.snapshot.root, path)?),
        None => {
            let top = reader.resolve(&entry.snapshot.root, b"")?;
            let found = small_file(&reader, top)?;
            found.ok_or_else(|| Error::missing("rehearse a restore: the latest snapshot has no file"))?
        }
    };
    if node.kind != NodeKind::File {
        return Err(Error::usage(format!("rehearse a restore: {:?} is no regular file", String::from_utf8_lossy(&path))));
    }
    let options = RestoreOptions {
        target: scratch.to_owned(),
        subpath: path.clone(),
        include: Vec::new(),
        exclude: RuleOptions::default(),
        overwrite: Overwrite::Refuse,
        delete: false,
        dry_run: false,
        verify: true,
        numeric_ids: false,
        no_owner: true,
        thaw: super::thaw::ThawOptions::default(),
        threads: 1,
        salvage: false,
    };
    let report = restore(repository, &entry, &options, observer)?;
    if report.files != 1 || report.verified != 1 || report.failure_count > 0 {
        let reason = report.failures.first().map_or("it is not there", |failure| failure.reason.as_str());
        let kind = if report.damaged { ErrorKind::Damaged } else { ErrorKind::Failed };
        return Err(Error::new(kind, format!("restore {}: {reason}", String::from_utf8_lossy(&path))));
    }
    Ok(KitReport { snapshot: entry.id, time: entry.snapshot.start, path, bytes: node.size, elapsed: began.elapsed() })
}

/// Largest file that is taken if there is a choice.
const SMALL: u64 = 16 << 20;

/// The first file that is neither empty nor large; one that is, if there is no other.
fn small_file(reader: &Reader, top: Node) -> Result<Option<(Vec<u8>, Node)>> {
    let mut open = vec![(Vec::new(), top)];
    let mut other = None;
    while let Some((path, directory)) = open.pop() {
        let Some(subtree) = directory.subtree else { continue };
        for node in reader.nodes(&subtree)? {
            let node = node?;
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let inner = [&path, separator, &node.name].concat();
            match node.kind {
                NodeKind::Directory => open.push((inner, node)),
                NodeKind::File if (1..=SMALL).contains(&node.size) => return Ok(Some((inner, node))),
                NodeKind::File if other.is_none() => other = Some((inner, node)),
                _ => {}
            }
        }
    }
    Ok(other)
}
