//! What can go wrong with a request to a server, whether to try again, and what the user can do.

use crate::error::{Error, ErrorKind};
use http::StatusCode;
use http_body_util::LengthLimitError;
use std::fmt;

/// Longest text of a server that is repeated to the user.
const LONGEST_TEXT: usize = 200;

/// Where it is written what each store needs.
const PAGE: &str = "docs/reference/stores.md says what each store needs";

/// What a fault means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// Trying again may help.
    Passing,
    /// There is no such object.
    Missing,
    /// These credentials may not do this.
    Denied,
    /// No room.
    Full,
    /// What came back cannot be what was stored.
    Damaged,
    /// It must be thawed before it can be read.
    Archived,
    /// Nobody wants the answer any more.
    Stopped,
    /// Trying again does not help.
    Lasting,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// No answer came: whatever the server is like, the line is broken.
    pub(super) of_line: bool,
    why: String,
    hint: Option<String>,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, why: impl Into<String>) -> Self {
        Self { kind, of_line: false, why: why.into(), hint: None }
    }

    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self::new(FaultKind::Passing, why)
    }

    /// The line broke, or nothing comes through it.
    pub(super) fn of_line(why: impl Into<String>) -> Self {
        Self { of_line: true, ..Self::passing(why) }
    }

    /// The same, to be repeated no more often than a fault of the server.
    pub(super) fn counted(self) -> Self {
        Self { of_line: false, ..self }
    }

    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self::new(FaultKind::Lasting, why)
    }

    pub(super) fn missing() -> Self {
        Self::new(FaultKind::Missing, "there is none")
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The hint, if nothing better than a page to read is known.
    pub(super) fn or_hint(self, hint: &str) -> Self {
        let vague = self.hint.as_deref().is_none_or(|known| known == PAGE);
        if vague { self.hint(hint) } else { self }
    }

    pub(super) fn is_passing(&self) -> bool {
        self.kind == FaultKind::Passing
    }

    /// The error for the user; `tries` is how often it was attempted.
    pub(super) fn into_error(self, doing: &str, what: impl fmt::Display, tries: u32) -> Error {
        let kind = match self.kind {
            FaultKind::Missing => ErrorKind::Missing,
            FaultKind::Denied => ErrorKind::Refused,
            FaultKind::Full => ErrorKind::Full,
            FaultKind::Damaged => ErrorKind::Damaged,
            FaultKind::Archived => ErrorKind::Archived,
            FaultKind::Stopped => ErrorKind::Interrupted,
            FaultKind::Passing | FaultKind::Lasting => ErrorKind::Failed,
        };
        let again = if tries > 1 { format!(" (tried {tries} times)") } else { String::new() };
        let error = Error::new(kind, format!("{doing} {what}: {}{again}", self.why));
        let error = if self.is_passing() { error.unreachable() } else { error };
        match (self.hint, self.kind) {
            (Some(hint), _) => error.with_hint(hint),
            (None, FaultKind::Passing) => {
                error.with_hint("the server or the line to it has trouble; run the command again, it goes on where it was")
            }
            (None, _) => error,
        }
    }

    /// What an answer of an HTTP server means that is not a success.
    pub(super) fn of_status(status: StatusCode, body: &str) -> Self {
        let code = between(body, "Code").unwrap_or_default();
        let text = between(body, "Message").map(|text| format!(": {}", plain(&text))).unwrap_or_default();
        let why = match code.as_str() {
            "" => format!("the server answers {status}"),
            code => format!("the server answers {} {}{text}", status.as_u16(), plain(code)),
        };
        let (kind, hint) = meaning(status, &code);
        let why = if kind == FaultKind::Damaged { "it is cut off".to_owned() } else { why };
        Self { kind, of_line: false, why, hint: hint.map(Into::into) }
    }

    /// What an error in the midst of an answer means.
    pub(super) fn of_body(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Self {
        match error.is::<LengthLimitError>() {
            true => Self::passing("more came than was asked for"),
            false => Self::of_line(format!("the connection ended early: {}", plain(&error.to_string()))),
        }
    }

    /// What an error on the way to the server or back means.
    pub(super) fn of_transport(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(rustls::Error::InvalidCertificate(reason)) = below_io(error).downcast_ref() {
                let hint = "if the server's certificate comes from an authority of your own, name its file with ?ca=FILE";
                return Self::lasting(format!("its certificate is not trusted: {reason:?}")).hint(hint);
            }
            let text = error.to_string();
            if !why.contains(&text) {
                why = format!("{why}: {text}");
            }
            cause = error.source();
        }
        Self::of_line(plain(&why))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.why)
    }
}

impl std::error::Error for Fault {}

/// The error that an I/O error is made of: it names that one's causes as its own, and not that one.
fn below_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => below_io(inner),
        None => error,
    }
}

/// What a status means, with the code that S3, Azure, and Google put into the body.
fn meaning(status: StatusCode, code: &str) -> (FaultKind, Option<&'static str>) {
    use FaultKind::{Archived, Damaged, Denied, Full, Lasting, Missing, Passing};
    match code {
        "NoSuchBucket" | "ContainerNotFound" => {
            return (Lasting, Some("make the bucket first, or check its name, the region, and the endpoint in the URL"));
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthenticationFailed" | "InvalidToken" | "AuthFailure" => {
            let hint =
                "check the credentials (environment or profile), and the region; docs/reference/stores.md names the variables";
            return (Lasting, Some(hint));
        }
        "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" => {
            return (Lasting, Some("renew the credentials and run the command again; what was uploaded is used then"));
        }
        "RequestTimeTooSkewed" => return (Lasting, Some("set the clock of this machine")),
        "GlacierExpeditedRetrievalNotAvailable" => {
            return (Lasting, Some("nothing can be thawed that fast just now: take `--thaw standard`, or bulk"));
        }
        "InvalidObjectState" => return (Archived, None),
        "BlobArchived" | "BlobBeingRehydrated" => {
            return (Archived, Some("rehydrate it with the provider's own tools, then run the same command again"));
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            return (Lasting, Some("the bucket is in another region; name it with ?region="));
        }
        "QuotaExceeded" | "XMinioStorageFull" | "StorageFull" | "AccountLimitExceeded" => {
            return (Full, Some("raise the quota, or free some space with `lifeboat forget` and `lifeboat prune`"));
        }
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "IncompleteBody"
        | "RequestTimeout"
        | "OperationAborted"
        | "SlowDown"
        | "ConditionalRequestConflict" => return (Passing, None),
        _ => {}
    }
    match status.as_u16() {
        // An answer to a question about one object has no body, so what was wrong is not known.
        400 if code.is_empty() => (Passing, None),
        404 | 410 => (Missing, None),
        // A part was asked for that begins behind the end.
        416 => (Damaged, None),
        401 => (Lasting, Some("check the credentials; docs/reference/stores.md names the variables and files")),
        403 => (Denied, Some("these credentials may not do this; docs/reference/stores.md lists what each role must be allowed")),
        407 => (Lasting, Some("the proxy wants a user and a password; HTTPS_PROXY may hold them")),
        301 | 302 | 307 | 308 => (Lasting, Some("the bucket may be in another region; name it with ?region=")),
        507 => (Full, Some("free some space there and run the command again")),
        408 | 409 | 423 | 425 | 429 | 500 | 502 | 503 | 504 | 509 | 520..=530 => (Passing, None),
        _ => (Lasting, Some(PAGE)),
    }
}

/// The text of the first XML element `name`, which is all that is needed of an error's body.
fn between(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.to_owned())
}

/// A server's text in one short line without control characters.
pub(super) fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_TEXT).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, code: &str) -> Fault {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>some\u{7}text\nhere</Message></Error>");
        Fault::of_status(StatusCode::from_u16(status).unwrap(), if code.is_empty() { "" } else { &body })
    }

    #[test]
    fn an_answer_that_is_too_long_is_no_broken_line() {
        use http_body_util::{BodyExt, Full, Limited};
        let longer = Limited::new(Full::new(bytes::Bytes::from_static(b"more")), 2);
        let error = crate::store::retry::runtime().block_on(longer.collect()).unwrap_err();
        assert!(!Fault::of_body(&*error).of_line && Fault::of_body(&*error).is_passing());
        assert!(Fault::of_body(&std::io::Error::other("reset")).of_line);
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for (status, code) in
            [(503, "SlowDown"), (500, ""), (429, ""), (408, ""), (400, "RequestTimeout"), (409, "OperationAborted")]
        {
            assert!(of(status, code).is_passing(), "{status} {code}");
        }
        for (status, code) in [(403, ""), (404, "NoSuchBucket"), (405, ""), (501, "NotImplemented"), (403, "ExpiredToken")] {
            assert!(!of(status, code).is_passing(), "{status} {code}");
        }
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for (status, code, hint) in [
            (404, "NoSuchBucket", "make the bucket"),
            (403, "InvalidAccessKeyId", "check the credentials"),
            (400, "ExpiredToken", "renew"),
            (403, "AccessDenied", "may not do this"),
            (403, "InvalidObjectState", "--thaw"),
            (301, "PermanentRedirect", "region"),
            (507, "", "free some space"),
            (418, "", "docs/reference/stores.md"),
        ] {
            let error = of(status, code).into_error("store the object", "packs/00/11", 1);
            assert!(error.hint().contains(hint), "{status} {code}: {error} {:?}", error.hint());
        }
        let error = of(503, "SlowDown").into_error("read the object", "format/1", 9);
        assert_eq!(
            error.to_string(),
            "read the object format/1: the server answers 503 SlowDown: some text here (tried 9 times)"
        );
        assert!(error.hint().contains("run the command again"));
    }
}
