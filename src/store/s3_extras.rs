//! What S3 knows and the library does not send: a condition on the last step of an upload in parts, and retention.
//!
//! Headers of S3 are part of the signature, so a request that gets more of them is signed again.

use super::fault::{Fault, plain};
use super::wire::Amend;
use async_trait::async_trait;
use http::header::IF_NONE_MATCH;
use http::{HeaderName, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::HttpRequest;
use std::fmt;

/// For how long, and how strictly, objects are kept from being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retention {
    pub(super) days: u32,
    /// Days ahead up to which a lock may be lengthened.
    pub(super) limit: u32,
    /// `GOVERNANCE`, which some may lift, or `COMPLIANCE`, which nobody may.
    pub(super) mode: &'static str,
}

/// Amends requests to one bucket.
pub(super) struct S3Extras {
    pub(super) credentials: AwsCredentialProvider,
    pub(super) region: String,
    pub(super) retention: Option<Retention>,
    /// Beginning of the paths of all objects of the repository, with slashes at both ends.
    pub(super) folder: String,
}

impl fmt::Debug for S3Extras {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("S3Extras").field("region", &self.region).field("retention", &self.retention).finish_non_exhaustive()
    }
}

impl S3Extras {
    /// The headers that a request gets besides its own.
    fn additions(&self, request: &HttpRequest, now: Timestamp) -> Vec<(HeaderName, HeaderValue)> {
        let (method, query) = (request.method(), request.uri().query().unwrap_or_default());
        let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
        let mut found = Vec::new();
        if *method == Method::POST && has("uploadId") {
            found.push((IF_NONE_MATCH, HeaderValue::from_static("*")));
        }
        let makes_object = (*method == Method::PUT && query.is_empty()) || (*method == Method::POST && has("uploads"));
        let path = plain_path(request.uri().path());
        // What lies elsewhere than it should is rather locked than not.
        let name = path.strip_prefix(self.folder.as_bytes()).map(String::from_utf8_lossy);
        let kept = name.is_none_or(|name| is_kept(&name));
        if let (Some(retention), true, true) = (&self.retention, makes_object, kept) {
            let mode = HeaderName::from_static("x-amz-object-lock-mode");
            found.push((mode, HeaderValue::from_static(retention.mode)));
            let until = HeaderValue::from_str(&until(now, retention.days)).expect("a date has plain characters");
            found.push((HeaderName::from_static("x-amz-object-lock-retain-until-date"), until));
            if *method == Method::PUT {
                // Without this, a checksum that is there does not count for retention.
                found.push((HeaderName::from_static("x-amz-sdk-checksum-algorithm"), HeaderValue::from_static("SHA256")));
            }
        }
        found
    }
}

/// True for objects that get a retention, by their names below the repository's folder; probes and what is only there to
/// mend must be free to go.
pub(super) fn is_kept(name: &str) -> bool {
    const KEPT: [&str; 7] = ["packs", "index", "log", "keys", "format", "gc", "contents"];
    name.split('/').next().is_some_and(|folder| KEPT.contains(&folder))
}

/// With percent signs undone.
fn plain_path(path: &str) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let byte = || u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok();
        match (first, (*first == b'%').then(byte).flatten()) {
            (_, Some(byte)) => {
                plain.push(byte);
                rest = &after[2..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

/// The end of a retention that begins now, as S3 writes it.
fn until(now: Timestamp, days: u32) -> String {
    let end = now.checked_add(SignedDuration::from_hours(i64::from(days) * 24)).unwrap_or(Timestamp::MAX);
    end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[async_trait]
impl Amend for S3Extras {
    async fn amend(&self, request: &mut HttpRequest) -> Result<(), Fault> {
        let additions = self.additions(request, Timestamp::now());
        if additions.is_empty() {
            return Ok(());
        }
        request.headers_mut().extend(additions);
        // The hash of the body is there already, and need not be made twice.
        let digest = request.headers().get("x-amz-content-sha256").and_then(|value| unhex(value.to_str().ok()?));
        let credential = self.credentials.get_credential().await.map_err(super::object::fault)?;
        let signed = AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(request, digest.as_deref());
        signed.map_err(|error| Fault::lasting(plain(&error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::StaticCredentialProvider;
    use object_store::aws::AwsCredential;
    use std::sync::Arc;

    fn extras(retention: Option<Retention>) -> S3Extras {
        let credential = AwsCredential { key_id: "ID".into(), secret_key: "SECRET".into(), token: None };
        S3Extras {
            credentials: Arc::new(StaticCredentialProvider::new(credential)),
            region: "eu".into(),
            retention,
            folder: "/bucket/my packs/".into(),
        }
    }

    fn request(method: Method, uri: &str) -> HttpRequest {
        let mut request = HttpRequest::new("body".to_owned().into());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        request
    }

    #[test]
    fn retention_is_asked_for_what_snapshots_need_and_for_nothing_else() {
        let extras = extras(Some(Retention { days: 30, limit: 30, mode: "COMPLIANCE" }));
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let headers = |method, uri: &str| extras.additions(&request(method, uri), now);
        let kept = headers(Method::PUT, "http://h/bucket/my%20packs/packs/00/11");
        assert_eq!(kept[0].1, "COMPLIANCE");
        assert_eq!(kept[1].1, "2026-12-21T10:00:00Z");
        assert_eq!(headers(Method::POST, "http://h/bucket/my%20packs/packs/00/11?uploads").len(), 2);
        assert!(headers(Method::PUT, "http://h/bucket/my%20packs/packs/00/11?partNumber=1&uploadId=x").is_empty());
        assert_eq!(headers(Method::PUT, "http://h/bucket/my%20packs/gc/1.plan").len(), 3);
        assert_eq!(headers(Method::PUT, "http://h/bucket/my%20packs/copies/format/1").len(), 0);
        assert!(headers(Method::PUT, "http://h/bucket/my%20packs/parity/11.0").is_empty());
        assert!(headers(Method::PUT, "http://h/bucket/my%20packs/probe/11.a").is_empty());
        assert!(headers(Method::GET, "http://h/bucket/my%20packs/packs/00/11").is_empty());
        assert_eq!(headers(Method::POST, "http://h/bucket/my%20packs/packs/00/11?uploadId=x")[0].1, "*");
    }

    #[test]
    fn a_request_that_got_more_headers_is_signed_with_them() {
        let extras = extras(Some(Retention { days: 1, limit: 1, mode: "GOVERNANCE" }));
        let mut put = request(Method::PUT, "http://host/bucket/packs/00/11");
        crate::store::retry::runtime().block_on(extras.amend(&mut put)).unwrap();
        let signed = put.headers()["authorization"].to_str().unwrap();
        assert!(signed.contains("x-amz-object-lock-mode;x-amz-object-lock-retain-until-date"), "{signed}");
        assert!(!signed.contains("SECRET") && !format!("{extras:?}").contains("SECRET"));
        assert_eq!(unhex("00ff"), Some(vec![0, 255]));
    }
}
