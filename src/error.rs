//! The one error of the library: what was being done, to what, why it failed,
//! and what the caller can do about it.

use std::fmt;

/// What the caller can do next; each kind has a documented exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The work failed; the message says why.
    Failed,
    /// The request itself was wrong; mend the command line or the configuration.
    Usage,
    /// The named object, path, or snapshot does not exist.
    Missing,
    /// There is no repository at the place named.
    NoRepository,
    /// Refused to protect data: not empty, not confirmed, not allowed by the role.
    Refused,
    /// Another process or client holds what is needed, or won a race.
    InUse,
    /// No key slot opens with the identity or passphrase given.
    WrongKey,
    /// Stored bytes are not what they were when they were written.
    Damaged,
    /// What is needed lies in an archive and must be thawed first, or is being thawed.
    Archived,
    /// The store shows an older state than one seen before.
    RolledBack,
    /// Written by a newer version, or with a feature that this one lacks.
    Unsupported,
    /// The store or the target has no room left.
    Full,
    /// The user or the system asked to stop.
    Interrupted,
}

impl ErrorKind {
    /// What helps with most errors of this kind.
    fn advice(self) -> &'static str {
        match self {
            Self::Failed => {
                "nothing that was committed is lost; if running the command again does not help, mend the cause first"
            }
            Self::Usage => "`lifeboat --help` and `lifeboat VERB --help` say how",
            Self::Missing => "check the spelling; `lifeboat snapshots` and `lifeboat ls` show what there is",
            Self::NoRepository => "check --repo, or make a repository with `lifeboat init`",
            Self::Refused => "the keys at hand do not permit it, or it would lose data; use others, or say that it is meant",
            Self::InUse => "wait for the other run to end, then run the command again",
            Self::WrongKey => "check --identity and --passphrase-file; other slots may open with other keys",
            Self::Damaged => "`lifeboat check` finds what else is damaged; all the rest can still be restored",
            Self::Archived => {
                "`lifeboat restore` with --thaw bulk asks for what it needs, and so do copy, mirror, check, and repair"
            }
            Self::RolledBack => "find out who put an older state back before going on",
            Self::Unsupported => "use a newer version of lifeboat",
            Self::Full => "free some space there and run the command again",
            Self::Interrupted => "run the same command again; what was stored is not stored twice",
        }
    }
}

/// An error of the library: a kind, a message in one line, a hint, and the cause below it.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Nobody answers.
#[derive(Debug)]
struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the store cannot be reached")
    }
}

impl std::error::Error for Unreachable {}

/// An input or output error is never of the program's making.
const DEVICE_FAILED: &str =
    "the disk or the connection below it failed: look into the system's log; `lifeboat check` says what is still whole";

/// The result of everything in the library that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` is lower case and says what was being done, to what, and why it failed.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), hint: None, source: None }) }
    }

    /// A plain failure.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// A thread panicked, or is gone, while it was `doing` something for others: a fault of the program itself.
    #[must_use]
    pub fn panicked(doing: &str) -> Self {
        Self::failed(format!("{doing}: a fault of the program itself ended a thread"))
            .with_hint("no snapshot that was there is harmed; run the command again, and report what was said before this")
    }

    /// A wrong request.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Something named that is not there.
    #[must_use]
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Missing, message)
    }

    /// Bytes that are not what they were when they were written.
    #[must_use]
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// An operating system error met while `doing` something to `what` ("open", "/home/x").
    #[must_use]
    pub fn io(doing: &str, what: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::Missing,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::Full,
            Io::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Failed,
        };
        let hint = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => Some("free some space there and run the command again"),
            Io::NotADirectory => Some("a part of the path is a file; check its spelling"),
            Io::IsADirectory => Some("name a file; a directory is there"),
            Io::AlreadyExists => Some("something is there already: choose another name, or move it away"),
            Io::PermissionDenied => Some("run as a user who may do this, or change the permissions"),
            Io::ReadOnlyFilesystem => Some("the place is read-only; mount it writable or choose another"),
            _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Some(DEVICE_FAILED),
            _ => None,
        };
        let mut made = Self::new(kind, format!("{doing} {what}: {}", reason(&error)));
        made.inner.hint = hint.map(Into::into);
        made.inner.source = Some(Box::new(error));
        made
    }

    /// Adds what the user can do; shown on a line of its own.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.inner.source = Some(Box::new(source));
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn while_doing(mut self, doing: impl fmt::Display) -> Self {
        self.inner.message = format!("{doing}: {}", self.inner.message);
        self
    }

    /// The same error under another kind.
    #[must_use]
    pub fn as_kind(mut self, kind: ErrorKind) -> Self {
        self.inner.kind = kind;
        self
    }

    /// The same error, said to come from a store that cannot be reached.
    #[must_use]
    pub fn unreachable(self) -> Self {
        self.with_source(Unreachable)
    }

    /// True if a store could not be reached: once it answers, the same may work.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.inner.source.as_ref().is_some_and(|source| source.is::<Unreachable>())
    }

    /// The same error for somebody else who met it too, without what is below it.
    #[must_use]
    pub fn told_again(&self) -> Self {
        let (message, hint) = (self.inner.message.clone(), self.inner.hint.clone());
        Self { inner: Box::new(Inner { kind: self.inner.kind, message, hint, source: None }) }
    }

    /// What the caller can do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What the user can do: as precisely as is known here, or else what helps with errors of this kind.
    #[must_use]
    pub fn hint(&self) -> &str {
        let usual = || match (self.inner.kind, self.io_kind()) {
            (ErrorKind::Missing, Some(std::io::ErrorKind::NotFound)) => "check the spelling of the path; nothing is there",
            (kind, _) => kind.advice(),
        };
        self.inner.hint.as_deref().unwrap_or_else(usual)
    }

    /// The operating system error below this one, if that is what it was.
    #[must_use]
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        self.inner.source.as_ref()?.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    }

    /// The process exit code that stands for this error (docs/reference/exit-codes.md).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.inner.kind {
            ErrorKind::Failed | ErrorKind::Missing | ErrorKind::Full | ErrorKind::Unsupported => 1,
            ErrorKind::Usage => 2,
            ErrorKind::NoRepository => 10,
            ErrorKind::Refused | ErrorKind::InUse => 11,
            ErrorKind::WrongKey => 12,
            ErrorKind::Damaged => 13,
            ErrorKind::RolledBack => 14,
            ErrorKind::Archived => 15,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// The reason in words, without the "(os error 2)" that means nothing to a user.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.inner.kind, self.inner.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
