//! Requests to S3 that the library does not know: what state an object is in, thawing, retention, and versions.

use super::extras::{Asked, Availability, ObjectState, Tier};
use super::fault::{Fault, FaultKind, plain};
use super::s3_extras::{Retention, unhex};
use super::wire::{Wire, text};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpRequest, HttpResponse};
use quick_xml::events::Event;

/// Longest answer to a question about versions.
const MAX_LISTING: usize = 8 << 20;
/// Longest object: of a server that sends the whole where a part was asked for, no more is taken.
const MAX_WHOLE: usize = 256 << 20;
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// What is known of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// With the folder of the repository in front.
    pub(super) name: String,
    pub(super) id: String,
    pub(super) size: u64,
    pub(super) modified: i64,
    pub(super) latest: bool,
    pub(super) deleted: bool,
}

/// A part of a list of versions.
#[derive(Debug, Default)]
pub(super) struct Versions {
    pub(super) versions: Vec<Listed>,
    /// Name and version from which it goes on.
    pub(super) next: Option<(String, String)>,
}

/// One bucket.
pub(super) struct S3Api {
    pub(super) wire: Wire,
    pub(super) credentials: AwsCredentialProvider,
    pub(super) region: String,
    /// URL of the bucket, without a slash at its end.
    pub(super) base: String,
    pub(super) retention: Option<Retention>,
    /// Without these nothing can be read, or asked about, that the server encrypted with a key of the customer's.
    pub(super) customer: HeaderMap,
}

/// With percent signs for all that S3 wants to have them.
fn escaped(text: &str, slash: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || slash && byte == b'/';
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl S3Api {
    async fn send(&self, method: Method, name: &str, query: &str, body: Bytes) -> Result<HttpResponse, Fault> {
        self.send_with(method, name, query, (HeaderMap::new(), body)).await
    }

    /// Sends a signed request; every answer is an answer.
    async fn send_with(
        &self,
        method: Method,
        name: &str,
        query: &str,
        (headers, body): (HeaderMap, Bytes),
    ) -> Result<HttpResponse, Fault> {
        let mark = if query.is_empty() { "" } else { "?" };
        let uri = format!("{}/{}{mark}{query}", self.base, escaped(name, true));
        let has_body = !body.is_empty();
        let mut request = HttpRequest::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().map_err(|error| Fault::lasting(format!("the URL is wrong: {error}")))?;
        *request.headers_mut() = headers;
        self.sign(&mut request, None).await?;
        if has_body {
            // What changes retention must have a checksum, and so it is signed once more, with it.
            let digest = request.headers().get("x-amz-content-sha256").and_then(|value| unhex(value.to_str().ok()?));
            if let Some(digest) = &digest {
                let sum = HeaderValue::from_str(&BASE64_STANDARD.encode(digest)).expect("base64 has plain characters");
                request.headers_mut().insert(HeaderName::from_static("x-amz-checksum-sha256"), sum);
            }
            self.sign(&mut request, digest.as_deref()).await?;
        }
        self.wire.send(request).await
    }

    async fn sign(&self, request: &mut HttpRequest, digest: Option<&[u8]>) -> Result<(), Fault> {
        let credential = self.credentials.get_credential().await.map_err(super::object::fault)?;
        let signed = AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(request, digest);
        signed.map_err(|error| Fault::lasting(plain(&error.to_string())))
    }

    /// What there is of an object.
    pub(super) async fn state(&self, name: &str) -> Result<Option<ObjectState>, Fault> {
        let answer = self.send_with(Method::HEAD, name, "", (self.customer.clone(), Bytes::new())).await?;
        match answer.status() {
            status if status.is_success() => Ok(Some(state(answer.headers()))),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(Fault::of_status(status, "")),
        }
    }

    pub(super) async fn thaw(&self, name: &str, tier: Tier, days: Option<u32>) -> Result<Asked, Fault> {
        let tier = match tier {
            Tier::Bulk => "Bulk",
            Tier::Standard => "Standard",
            Tier::Expedited => "Expedited",
        };
        // What a provider archived by itself stays thawed, and must not be given days.
        let days = days.map(|days| format!("<Days>{days}</Days>")).unwrap_or_default();
        let body = format!(
            "<RestoreRequest xmlns=\"{NAMESPACE}\">{days}<GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
        );
        let answer = self.send(Method::POST, name, "restore=", body.into()).await?;
        match answer.status() {
            StatusCode::ACCEPTED => Ok(Asked::New),
            status if status.is_success() => Ok(Asked::Ready),
            status => {
                let said = text(answer.into_body()).await;
                if said.contains("RestoreAlreadyInProgress") {
                    return Ok(Asked::Before);
                }
                Err(Fault::of_status(status, &said))
            }
        }
    }

    /// Locks an object until then, seconds since 1970.
    pub(super) async fn lock_until(&self, name: &str, until: i64, is_strict: bool) -> Result<(), Fault> {
        let wanted = self.retention.as_ref().map_or("GOVERNANCE", |retention| retention.mode);
        let mode = if is_strict { "COMPLIANCE" } else { wanted };
        let date = Timestamp::from_second(until).map_err(|_| Fault::lasting("that date cannot be"))?;
        let date = date.strftime("%Y-%m-%dT%H:%M:%SZ");
        let body =
            format!("<Retention xmlns=\"{NAMESPACE}\"><Mode>{mode}</Mode><RetainUntilDate>{date}</RetainUntilDate></Retention>");
        let answer = self.send(Method::PUT, name, "retention=", body.into()).await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(Fault::of_status(status, &text(answer.into_body()).await)),
        }
    }

    /// Versions of what begins with `prefix`, the newest of each object first, from `next` on.
    pub(super) async fn versions(&self, prefix: &str, next: Option<(String, String)>) -> Result<Versions, Fault> {
        let mut query = format!("versions=&prefix={}", escaped(prefix, false));
        if let Some((key, version)) = next {
            query += &format!("&key-marker={}", escaped(&key, false));
            if !version.is_empty() {
                query += &format!("&version-id-marker={}", escaped(&version, false));
            }
        }
        let answer = self.send(Method::GET, "", &query, Bytes::new()).await?;
        match answer.status() {
            // A server that keeps no versions.
            StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => return Ok(Versions::default()),
            status if status.is_success() => {}
            status => return Err(Fault::of_status(status, &text(answer.into_body()).await)),
        }
        let body = Limited::new(answer.into_body(), MAX_LISTING).collect().await;
        let body = body.map_err(|error| Fault::of_body(&*error))?.to_bytes();
        listed(&body)
    }

    /// A part of a version.
    pub(super) async fn read(&self, name: &str, id: &str, offset: u64, length: usize) -> Result<Bytes, Fault> {
        let mut headers = self.customer.clone();
        let last = offset.saturating_add(length as u64).saturating_sub(1);
        headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={offset}-{last}")).expect("these are digits"));
        let query = format!("versionId={}", escaped(id, false));
        let answer = self.send_with(Method::GET, name, &query, (headers, Bytes::new())).await?;
        if !answer.status().is_success() {
            let status = answer.status();
            return Err(Fault::of_status(status, &text(answer.into_body()).await));
        }
        let whole = answer.status() == StatusCode::OK;
        let limit = if whole { MAX_WHOLE } else { length };
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body = body.map_err(|error| Fault::of_body(&*error))?.to_bytes();
        let start = if whole { usize::try_from(offset).unwrap_or(usize::MAX) } else { 0 };
        let part = start.checked_add(length).filter(|end| *end <= body.len()).map(|end| body.slice(start..end));
        part.ok_or_else(|| Fault::new(FaultKind::Damaged, "it is cut off"))
    }

    pub(super) async fn delete(&self, name: &str, id: &str) -> Result<(), Fault> {
        let answer = self.send(Method::DELETE, name, &format!("versionId={}", escaped(id, false)), Bytes::new()).await?;
        match answer.status() {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            status => Err(Fault::of_status(status, &text(answer.into_body()).await)),
        }
    }
}

fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// What the headers of an answer say of an object.
fn state(headers: &HeaderMap) -> ObjectState {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let archive = header("x-amz-archive-status");
    let class = archive.or_else(|| header("x-amz-storage-class")).unwrap_or("STANDARD").to_uppercase();
    let is_archive = archive.is_some() || super::extras::ARCHIVES.contains(&class.as_str());
    let restore = header("x-amz-restore").unwrap_or_default();
    let expiry = restore.split_once("expiry-date=\"").and_then(|(_, rest)| rest.split('"').next());
    let expiry = expiry.and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    let availability = match (restore.contains("ongoing-request=\"true\""), restore.contains("ongoing-request=\"false\"")) {
        (true, _) => Availability::Thawing,
        (_, true) => Availability::Thawed(expiry.map_or(i64::MAX, nanoseconds)),
        _ if is_archive => Availability::Archived,
        _ => Availability::Ready,
    };
    // Servers without versions, which locks stand on, have been seen to give the headers of the upload back.
    let is_version = header("x-amz-version-id").filter(|id| *id != "null");
    let locked = is_version.and(header("x-amz-object-lock-mode")).and(header("x-amz-object-lock-retain-until-date"));
    let locked_until = locked.and_then(|date| date.parse().ok()).map(nanoseconds);
    let size = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let is_strict = header("x-amz-object-lock-mode") == Some("COMPLIANCE");
    ObjectState { size, class, availability, locked_until, is_strict }
}

/// The versions in an answer, and where the next part begins.
fn listed(xml: &[u8]) -> Result<Versions, Fault> {
    let wrong = || Fault::passing("the list of versions cannot be read");
    let mut reader = quick_xml::Reader::from_reader(xml);
    let (mut found, mut current, mut value) = (Versions::default(), None::<Listed>, String::new());
    let (mut key, mut version) = (None, String::new());
    loop {
        match reader.read_event().map_err(|_| wrong())? {
            Event::Start(start) => {
                value.clear();
                let deleted = start.local_name().as_ref() == b"DeleteMarker";
                if deleted || start.local_name().as_ref() == b"Version" {
                    current = Some(Listed { deleted, ..Listed::default() });
                }
            }
            Event::Text(text) => value.push_str(&String::from_utf8_lossy(&text)),
            Event::End(end) => {
                let name = String::from_utf8_lossy(end.local_name().as_ref()).into_owned();
                match (name.as_str(), &mut current) {
                    ("Version" | "DeleteMarker", _) => found.versions.extend(current.take()),
                    ("Key", Some(listed)) => listed.name.clone_from(&value),
                    ("VersionId", Some(listed)) => listed.id.clone_from(&value),
                    ("Size", Some(listed)) => listed.size = value.parse().map_err(|_| wrong())?,
                    ("IsLatest", Some(listed)) => listed.latest = value == "true",
                    ("LastModified", Some(listed)) => listed.modified = value.parse().map_or(0, nanoseconds),
                    ("NextKeyMarker", None) => key = Some(value.clone()),
                    ("NextVersionIdMarker", None) => version.clone_from(&value),
                    _ => {}
                }
                value.clear();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    found.next = key.filter(|key| !key.is_empty()).map(|key| (key, version));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_of(pairs: &[(&'static str, &str)]) -> ObjectState {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        state(&pairs.collect())
    }

    #[test]
    fn a_thaw_that_goes_on_and_one_that_is_done_are_told_apart() {
        let class = ("x-amz-storage-class", "GLACIER");
        assert_eq!(state_of(&[]).availability, Availability::Ready);
        assert_eq!(state_of(&[("x-amz-storage-class", "STANDARD_IA")]).availability, Availability::Ready);
        assert_eq!(state_of(&[class]).availability, Availability::Archived);
        let going = state_of(&[class, ("x-amz-restore", "ongoing-request=\"true\"")]);
        assert_eq!(going.availability, Availability::Thawing);
        let done = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"";
        let done = state_of(&[class, ("x-amz-restore", done)]);
        assert_eq!(done.availability, Availability::Thawed(1_356_048_000_000_000_000));
        assert_eq!(state_of(&[("x-amz-archive-status", "ARCHIVE_ACCESS")]).availability, Availability::Archived);
    }

    #[test]
    fn retention_counts_only_with_its_mode_and_a_version() {
        let until = ("x-amz-object-lock-retain-until-date", "2027-01-01T00:00:00.000Z");
        assert_eq!(state_of(&[until]).locked_until, None);
        let mode = ("x-amz-object-lock-mode", "COMPLIANCE");
        assert_eq!(state_of(&[until, mode]).locked_until, None);
        let locked = state_of(&[until, mode, ("x-amz-version-id", "a1")]);
        assert_eq!((locked.locked_until, locked.is_strict), (Some(1_798_761_600_000_000_000), true));
    }

    #[test]
    fn versions_and_marks_of_deletion_are_read_with_the_place_to_go_on() {
        let xml = br#"<?xml version="1.0"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
            <KeyMarker/><IsTruncated>true</IsTruncated><NextKeyMarker>x/log/1</NextKeyMarker><NextVersionIdMarker>v2</NextVersionIdMarker>
            <DeleteMarker><Key>x/log/0</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest><LastModified>2026-11-21T10:00:00.000Z</LastModified></DeleteMarker>
            <Version><Key>x/log/0</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest><LastModified>2026-11-21T09:00:00.000Z</LastModified><ETag>"e"</ETag><Size>12</Size></Version>
            </ListVersionsResult>"#;
        let found = listed(xml).unwrap();
        assert_eq!(found.next, Some(("x/log/1".into(), "v2".into())));
        let [mark, version] = &found.versions[..] else { panic!("{found:?}") };
        assert!(mark.deleted && mark.latest && mark.id == "v3");
        assert_eq!((version.name.as_str(), version.size, version.deleted), ("x/log/0", 12, false));
        assert!(listed(b"<a><b></a>").is_err());
    }
}
