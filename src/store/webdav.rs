//! WebDAV servers: six verbs of HTTP.
//!
//! An object is put under a temporary name and moved to its own with `Overwrite: F`, so that what is visible is whole,
//! and a name that is taken stays as it is.

use super::address::{Address, Scheme};
use super::far::{Body, Item, Page, Remote, Use};
use super::fault::{Fault, FaultKind};
use super::settings::StoreSettings;
use super::wire::{Reach, Wire, text};
use crate::error::{Error, Result};
use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse};
use quick_xml::events::Event;
use std::collections::HashSet;
use std::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

/// Longest listing of one folder.
const LISTING: usize = 256 << 20;

/// A folder of a server.
pub(super) struct WebDav {
    wire: Wire,
    /// Ends with a slash.
    base: Url,
    authorization: Option<HeaderValue>,
    /// Folders that are known to be there.
    made: Mutex<HashSet<String>>,
}

impl WebDav {
    /// The folder of a URL; nothing is sent yet.
    ///
    /// # Errors
    /// `Usage` for a password file that cannot be read, and what [`Wire::new`] finds.
    pub(super) fn connect(address: &Address, settings: &StoreSettings, connections: usize) -> Result<Self> {
        let (authority, proxy) = (address.option("ca"), address.option("proxy"));
        let wire = Wire::new(settings, &Reach { authority, proxy, timeout: address.number("timeout"), connections })?;
        let scheme = if address.scheme == Scheme::WebDavTls { "https" } else { "http" };
        let port = address.port.map(|port| format!(":{port}")).unwrap_or_default();
        let base = Url::parse(&format!("{scheme}://{}{port}/", address.host));
        let mut base = base.map_err(|error| Error::usage(format!("open the store {address}: {error}")))?;
        let path = if address.path.is_empty() { "/".into() } else { format!("/{}/", address.path) };
        base.set_path(&path);
        let password = match address.option("password-file") {
            Some(file) => {
                let file = settings.path(file);
                let text = std::fs::read_to_string(&file).map(Zeroizing::new);
                let text = text.map_err(|error| Error::io("read the password in", file.display(), error))?;
                Some(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
            }
            None => settings.variable("LIFEBOAT_WEBDAV_PASSWORD").map(|text| Zeroizing::new(text.to_owned())),
        };
        let authorization = address.user.as_ref().map(|user| {
            let pair = Zeroizing::new(format!("{user}:{}", password.as_ref().map_or("", |text| text.as_str())));
            let encoded = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
            let mut value = HeaderValue::from_str(&encoded).expect("base64 has no characters that a header cannot have");
            value.set_sensitive(true);
            value
        });
        Ok(Self { wire, base, authorization, made: Mutex::default() })
    }

    fn url(&self, name: &str) -> Result<String, Fault> {
        let url = self.base.join(name).map_err(|error| Fault::lasting(format!("its name cannot be used: {error}")))?;
        Ok(url.to_string())
    }

    async fn send(
        &self,
        method: &[u8],
        name: &str,
        headers: &[(HeaderName, &str)],
        body: impl Into<HttpRequestBody>,
    ) -> Result<HttpResponse, Fault> {
        let method = Method::from_bytes(method).expect("the verbs of WebDAV are words");
        let mut request = HttpRequest::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() =
            self.url(name)?.parse().map_err(|error| Fault::lasting(format!("its name cannot be used: {error}")))?;
        for (header, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|_| Fault::lasting("its name cannot be used"))?;
            request.headers_mut().insert(header, value);
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        self.wire.send(request).await
    }

    /// Makes the folders above `name` that are not known to be there.
    async fn make_folders(&self, name: &str) -> Result<(), Fault> {
        let folders: Vec<String> = std::iter::once(String::new())
            .chain(name.match_indices('/').map(|(end, _)| name[..=end].to_owned()))
            .filter(|folder| !self.made.lock().expect("no code panics while it holds this lock").contains(folder))
            .collect();
        for folder in folders {
            let answer = self.send(b"MKCOL", &folder, &[], HttpRequestBody::empty()).await?;
            match answer.status() {
                // It was there already, or it is the top of what the server shows.
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::CONFLICT | StatusCode::FORBIDDEN => {}
                status if status.is_success() => {}
                _ => return Err(failed(answer).await),
            }
            self.made.lock().expect("no code panics while it holds this lock").insert(folder);
        }
        Ok(())
    }

    async fn put(&self, name: &str, bytes: &Bytes, headers: &[(HeaderName, &str)]) -> Result<StatusCode, Fault> {
        let headers = [headers, &[(CONTENT_TYPE, "application/octet-stream")]].concat();
        let answer = self.send(b"PUT", name, &headers, bytes.clone()).await?;
        match answer.status() {
            status if status.is_success() || status == StatusCode::PRECONDITION_FAILED => Ok(status),
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
                // Somebody took a folder away that was there before.
                self.made.lock().expect("no code panics while it holds this lock").clear();
                Err(Fault::passing("its folder is not there"))
            }
            _ => Err(failed(answer).await),
        }
    }
}

/// The fault of an answer that is no success.
async fn failed(answer: HttpResponse) -> Fault {
    let status = answer.status();
    Fault::of_status(status, &text(answer.into_body()).await)
}

async fn whole(answer: HttpResponse, limit: usize) -> Result<Bytes, Fault> {
    let said = length(answer.headers());
    let body = Limited::new(answer.into_body(), limit).collect().await;
    let bytes = body.map_err(|error| {
        let below = error.source().and_then(|error| error.downcast_ref::<Fault>());
        below.cloned().unwrap_or_else(|| Fault::of_body(&*error))
    })?;
    let bytes = bytes.to_bytes();
    if said.is_some_and(|said| said != bytes.len() as u64) {
        return Err(Fault::of_line("the connection ended early"));
    }
    Ok(bytes)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Nanoseconds since 1970, of a date as HTTP writes it.
fn date(text: &str) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    i64::try_from(parsed.as_nanosecond()).ok()
}

#[async_trait]
impl Remote for WebDav {
    async fn create(&self, name: &str, body: &Body, _: Use) -> Result<bool, Fault> {
        let bytes = body.read(0, usize::try_from(body.len()).unwrap_or(usize::MAX))?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Fault::lasting(format!("no random name: {error}")))?;
        let temporary = format!("tmp/{:016x}", u64::from_le_bytes(random));
        self.make_folders(&temporary).await?;
        self.make_folders(name).await?;
        self.put(&temporary, &bytes, &[]).await?;
        let target = self.url(name)?;
        let headers = [(HeaderName::from_static("destination"), target.as_str()), (HeaderName::from_static("overwrite"), "F")];
        let moved = self.send(b"MOVE", &temporary, &headers, HttpRequestBody::empty()).await?;
        let result = match moved.status() {
            status if status.is_success() => return Ok(true),
            StatusCode::PRECONDITION_FAILED => Ok(false),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                self.put(name, &bytes, &[(IF_NONE_MATCH, "*")]).await.map(|status| status.is_success())
            }
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
                self.made.lock().expect("no code panics while it holds this lock").clear();
                Err(Fault::passing("its folder is not there"))
            }
            _ => Err(failed(moved).await),
        };
        let _ = self.send(b"DELETE", &temporary, &[], HttpRequestBody::empty()).await;
        result
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, Fault> {
        let answer = self.send(b"GET", name, &[], HttpRequestBody::empty()).await?;
        if !answer.status().is_success() {
            return Err(failed(answer).await);
        }
        if length(answer.headers()).is_some_and(|length| length > limit) {
            return Err(Fault::new(FaultKind::Damaged, "it is longer than it can be"));
        }
        whole(answer, usize::try_from(limit).unwrap_or(usize::MAX)).await
    }

    async fn read(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, Fault> {
        let cut_off = || Fault::new(FaultKind::Damaged, "it is cut off");
        let end = offset.checked_add(length as u64).ok_or_else(cut_off)?;
        let range = format!("bytes={offset}-{}", end - 1);
        let answer = self.send(b"GET", name, &[(RANGE, &range)], HttpRequestBody::empty()).await?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let bytes = whole(answer, length).await?;
                // A whole answer that is too short is an object that is too short.
                if bytes.len() == length { Ok(bytes) } else { Err(cut_off()) }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(cut_off()),
            StatusCode::OK => {
                let bytes = whole(answer, usize::MAX).await?;
                let start = usize::try_from(offset).map_err(|_| cut_off())?;
                bytes.get(start..start + length).map(|part| bytes.slice_ref(part)).ok_or_else(cut_off)
            }
            _ => Err(failed(answer).await),
        }
    }

    async fn look(&self, name: &str) -> Result<Option<Item>, Fault> {
        let answer = self.send(b"HEAD", name, &[], HttpRequestBody::empty()).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let size = length(answer.headers()).ok_or_else(|| Fault::lasting("the server does not say how long it is"))?;
                let modified = answer.headers().get(LAST_MODIFIED).and_then(|value| date(value.to_str().ok()?)).unwrap_or(0);
                Ok(Some(Item { name: name.to_owned(), size, modified }))
            }
            _ => Err(failed(answer).await),
        }
    }

    async fn list(&self, folder: &str, _: Option<String>) -> Result<Page, Fault> {
        let name = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let depth = HeaderName::from_static("depth");
        let answer = self.send(b"PROPFIND", &name, &[(depth, "1")], HttpRequestBody::empty()).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(Page::default()),
            StatusCode::MULTI_STATUS => {
                let bytes = whole(answer, LISTING).await?;
                listed(&bytes, &self.base, &name)
            }
            _ => Err(failed(answer).await),
        }
    }

    fn never_atomic(&self) -> bool {
        // Servers look for the name and then move, and the rules of WebDAV allow that.
        true
    }

    async fn delete(&self, name: &str) -> Result<(), Fault> {
        let answer = self.send(b"DELETE", name, &[], HttpRequestBody::empty()).await?;
        match answer.status() {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            _ => Err(failed(answer).await),
        }
    }
}

/// One `response` element of a listing.
#[derive(Default)]
struct Response {
    href: String,
    length: String,
    modified: String,
    folder: bool,
}

/// Reads a listing of the folder `name` (empty, or with a slash at its end) below `base`.
fn listed(xml: &[u8], base: &Url, name: &str) -> Result<Page, Fault> {
    let wrong = |why: &dyn std::fmt::Display| Fault::lasting(format!("the listing cannot be read: {why}"));
    let mut reader = quick_xml::Reader::from_reader(xml);
    let (mut page, mut response, mut element) = (Page::default(), Response::default(), Vec::new());
    loop {
        match reader.read_event().map_err(|error| wrong(&error))? {
            Event::Eof => return Ok(page),
            Event::Start(start) => {
                element = start.local_name().as_ref().to_ascii_lowercase();
                match element.as_slice() {
                    b"response" => response = Response::default(),
                    b"collection" => response.folder = true,
                    _ => {}
                }
            }
            Event::Empty(empty) => response.folder |= empty.local_name().as_ref().eq_ignore_ascii_case(b"collection"),
            Event::Text(text) => {
                let text = text.decode().map_err(|error| wrong(&error))?;
                match element.as_slice() {
                    b"href" => response.href.push_str(text.trim()),
                    b"getcontentlength" => response.length.push_str(text.trim()),
                    b"getlastmodified" => response.modified.push_str(&text),
                    _ => {}
                }
            }
            Event::End(end) => {
                element.clear();
                if end.local_name().as_ref().eq_ignore_ascii_case(b"response") {
                    take(std::mem::take(&mut response), base, name, &mut page);
                }
            }
            _ => {}
        }
    }
}

/// Notes an object or a folder that lies directly in the folder `name`; names that no object has are left out.
fn take(response: Response, base: &Url, name: &str, page: &mut Page) {
    let Ok(url) = base.join(&response.href) else { return };
    let Some(below) = url.path().strip_prefix(base.path()) else { return };
    let Some(own) = below.strip_prefix(name).map(|own| own.trim_end_matches('/')) else { return };
    if own.is_empty() || own.contains('/') {
        return;
    }
    let full = format!("{name}{own}");
    if response.folder {
        if full != "tmp" && super::Key::new(full.as_str()).is_ok() {
            page.folders.push(full);
        }
    } else if let Ok(size) = response.length.parse() {
        page.items.push(Item { name: full, size, modified: date(&response.modified).unwrap_or(0) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_whatever_its_prefixes_are_called() {
        let xml = br#"<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">
            <D:response><D:href>/dav/my%20folder/packs/</D:href><D:propstat><D:prop><D:resourcetype><D:collection xmlns:D="DAV:"/></D:resourcetype></D:prop></D:propstat></D:response>
            <D:response><D:href>/dav/my%20folder/packs/ab/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop></D:propstat></D:response>
            <D:response><D:href>http://host/dav/my%20folder/packs/cd</D:href><D:propstat><D:prop><D:getcontentlength>12</D:getcontentlength>
            <D:getlastmodified>Sat, 21 Nov 2026 07:52:24 GMT</D:getlastmodified><D:resourcetype/></D:prop></D:propstat></D:response>
            <D:response><D:href>/dav/my%20folder/packs/Thumbs%20db/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop></D:propstat></D:response>
            <D:response><D:href>/elsewhere/x</D:href></D:response></D:multistatus>"#;
        let base = Url::parse("http://host/dav/my%20folder/").unwrap();
        let page = listed(xml, &base, "packs/").unwrap();
        assert_eq!(page.folders, ["packs/ab"]);
        let item = &page.items[0];
        assert_eq!((item.name.as_str(), item.size, item.modified), ("packs/cd", 12, 1_795_247_544_000_000_000));
        assert_eq!(page.items.len(), 1);
        assert!(listed(b"<a><b></a>", &base, "").is_err());
    }
}
