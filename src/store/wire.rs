//! The one HTTP client of all stores that speak HTTP: certificates, proxies, timeouts, limits of speed, and answers
//! that are no success made into faults.

use super::fault::{Fault, plain};
use super::promises::is_racing;
use super::settings::{Limits, StoreSettings};
use super::throttle::{Bucket, PIECE};
use crate::error::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_RANGE, RANGE, USER_AGENT};
use http::{HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Longest body of an error that is looked at.
const ERROR_BODY: usize = 64 << 10;
/// Bytes per second below which an upload counts as stuck.
const SLOWEST: u64 = 8 << 10;
/// Seconds without a byte after which a request has failed, unless told otherwise.
const TIMEOUT: u32 = 60;

/// How long the service that tells a machine in a cloud who it is may take: it is near, or there is none.
const MACHINE: Duration = Duration::from_secs(3);

/// Looks at a request before it is sent, and may add to it.
#[async_trait]
pub(super) trait Amend: fmt::Debug + Send + Sync {
    /// Adds what belongs to it, and signs it anew if need be.
    async fn amend(&self, request: &mut HttpRequest) -> Result<(), Fault>;
}

/// How to reach servers.
#[derive(Clone)]
pub(super) struct Wire {
    client: reqwest::Client,
    limits: Limits,
    timeout: Duration,
    amend: Option<Arc<dyn Amend>>,
    /// One permit for each request that may be under way, from its first byte to the last one of the answer.
    connections: Arc<Semaphore>,
}

/// What the URL of a store says about reaching it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reach<'a> {
    /// File with certificates of authorities that are trusted as well.
    pub(super) authority: Option<&'a str>,
    pub(super) proxy: Option<&'a str>,
    /// Seconds.
    pub(super) timeout: Option<u32>,
    pub(super) connections: usize,
}

impl fmt::Debug for Wire {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Wire").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Wire {
    /// A client for one store.
    ///
    /// # Errors
    /// `Usage` for a certificate file or a proxy that cannot be used.
    pub(super) fn new(settings: &StoreSettings, reach: &Reach<'_>) -> Result<Self> {
        let timeout = Duration::from_secs(reach.timeout.unwrap_or(TIMEOUT).into());
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(settings, reach.authority)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeout.min(Duration::from_secs(20)))
            .tcp_keepalive(Duration::from_secs(30))
            .pool_max_idle_per_host(reach.connections)
            .no_proxy();
        for proxy in proxies(settings, reach.proxy)? {
            builder = builder.proxy(proxy);
        }
        let failed = |error: reqwest::Error| Error::failed(format!("prepare connections: {}", error.without_url()));
        let connections = Arc::new(Semaphore::new(reach.connections.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { client: builder.build().map_err(failed)?, limits: settings.limits(), timeout, amend: None, connections })
    }

    /// The same, with something that amends each request.
    pub(super) fn amended(&self, amend: Arc<dyn Amend>) -> Self {
        Self { amend: Some(amend), ..self.clone() }
    }

    /// Sends a request; whatever a server answers is an answer.
    pub(super) async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, Fault> {
        if let Some(amend) = &self.amend {
            amend.amend(&mut request).await?;
        }
        let asks_range = request.headers().contains_key(RANGE);
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(concat!("lifeboat/", env!("CARGO_PKG_VERSION"))));
        let url = parts.uri.to_string().parse().map_err(|error| Fault::lasting(format!("the URL is wrong: {error}")))?;
        let mut sent = reqwest::Request::new(parts.method, url);
        *sent.headers_mut() = parts.headers;
        let length = body.content_length() as u64;
        if length > 0 || matches!(*sent.method(), Method::PUT | Method::POST) {
            *sent.body_mut() = Some(reqwest::Body::wrap(Flow::new(body, self.limits.upload.clone(), None, None)));
        }
        // An upload may take as long as it needs, as long as it moves.
        let slowest = self.limits.upload.as_ref().map_or(SLOWEST, |bucket| bucket.rate().min(SLOWEST));
        let mut patience = self.timeout + Duration::from_secs(length / slowest.max(1));
        let asks_machine = sent.url().host_str().is_some_and(is_machine);
        if asks_machine {
            patience = MACHINE;
        }
        // After amending, which may ask the machine for credentials over this very wire.
        let connection = match asks_machine || is_racing() {
            true => None,
            false => Some(self.connections.clone().acquire_owned().await.expect("nobody closes it")),
        };
        // Without the query, which may hold a token.
        let (told, began) = (format!("{} {}", sent.method(), sent.url().path()), std::time::Instant::now());
        let answered = tokio::time::timeout(patience, self.client.execute(sent)).await;
        tracing::debug!("{told}: {} ms", began.elapsed().as_millis());
        if asks_machine && !matches!(answered, Ok(Ok(_))) {
            return Err(no_credentials());
        }
        let answered = answered.map_err(|_| Fault::of_line(format!("no answer within {} s", patience.as_secs())))?;
        let answer: http::Response<reqwest::Body> = answered.map_err(|error| Fault::of_transport(&error.without_url()))?.into();
        let (mut parts, body) = answer.into_parts();
        if asks_range && parts.status == StatusCode::OK && parts.headers.contains_key(CONTENT_RANGE) {
            // Some servers send the part that was asked for, and call it the whole.
            parts.status = StatusCode::PARTIAL_CONTENT;
        }
        let flow = Flow::new(body, self.limits.download.clone(), Some(self.timeout), connection);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(flow)))
    }

    /// Sends a request and makes every answer that is no success a fault, but for those that `object_store` has to see.
    async fn send_or_fault(&self, request: HttpRequest) -> Result<HttpResponse, Fault> {
        let taken_is_412 = !request.headers().contains_key("x-ms-version");
        let answer = self.send(request).await?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let text = text(body).await;
        let fault = Fault::of_status(status, &text);
        let seen = match status {
            StatusCode::NOT_FOUND => fault.kind == super::fault::FaultKind::Missing,
            StatusCode::PRECONDITION_FAILED => true,
            StatusCode::CONFLICT => !taken_is_412 && text.contains("AlreadyExists"),
            _ => false,
        };
        if seen { Ok(HttpResponse::from_parts(parts, text.into())) } else { Err(fault) }
    }
}

/// True for the addresses at which a cloud tells its machines their credentials.
fn is_machine(host: &str) -> bool {
    host.starts_with("169.254.") || host == "metadata.google.internal" || host == "[fd00:ec2::254]"
}

fn no_credentials() -> Fault {
    Fault::lasting("there are no credentials: none in the environment, none in a file, and this is no machine that has its own")
        .hint("docs/reference/stores.md names the variables and files of each kind of store")
}

/// The beginning of a body as text; what cannot be read of it does not matter.
pub(super) async fn text(body: HttpResponseBody) -> String {
    let bytes = Limited::new(body, ERROR_BODY).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.send_or_fault(request).await.map_err(|fault| HttpError::new(HttpErrorKind::Unknown, fault))
    }
}

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// The authorities of this system, and those in a file.
fn tls(settings: &StoreSettings, authority: Option<&str>) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let file = authority.map(|text| settings.path(text)).or_else(|| settings.variable("SSL_CERT_FILE").map(Into::into));
    let extra = file.map_or(Ok(Vec::new()), |file| certificates(&file))?;
    let failed = |error: rustls::Error| Error::failed(format!("prepare TLS: {error}"));
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra.clone(), provider);
    Ok(match verifier {
        Ok(verifier) => builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth(),
        // A system without any authority can still speak to servers whose authority is named.
        Err(_) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(extra);
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |why: String| Error::usage(format!("read the certificates in {}: {why}", file.display()));
    let found = CertificateDer::pem_file_iter(file).map_err(|error| wrong(plain(&error.to_string())))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| wrong(plain(&error.to_string())))?;
    if found.is_empty() { Err(wrong("there is none in it".into())) } else { Ok(found) }
}

/// The proxy of the URL, or those of the environment.
fn proxies(settings: &StoreSettings, named: Option<&str>) -> Result<Vec<reqwest::Proxy>> {
    let variable = |name: &str| settings.variable(name).or_else(|| settings.variable(&name.to_lowercase()));
    let wrong = |_| Error::usage("use the proxy: its URL is wrong").with_hint("http://HOST:PORT, or socks5h://HOST:PORT");
    if let Some(proxy) = named {
        return Ok(vec![reqwest::Proxy::all(proxy).map_err(wrong)?]);
    }
    let except = || variable("NO_PROXY").and_then(reqwest::NoProxy::from_string);
    let mut found = Vec::new();
    if let Some(proxy) = variable("HTTPS_PROXY") {
        found.push(reqwest::Proxy::https(proxy).map_err(wrong)?.no_proxy(except()));
    }
    // Upper-case HTTP_PROXY can be set by whoever calls a CGI program.
    if let Some(proxy) = settings.variable("http_proxy") {
        found.push(reqwest::Proxy::http(proxy).map_err(wrong)?.no_proxy(except()));
    }
    if let Some(proxy) = variable("ALL_PROXY") {
        found.push(reqwest::Proxy::all(proxy).map_err(wrong)?.no_proxy(except()));
    }
    Ok(found)
}

/// A body that flows no faster than a limit, and fails if nothing comes for too long.
struct Flow<B> {
    body: Pin<Box<B>>,
    bucket: Option<Arc<Bucket>>,
    /// What came and may not go on yet.
    waiting: Bytes,
    pause: Option<Pin<Box<Sleep>>>,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    /// Given back with the body, or at its end.
    connection: Option<OwnedSemaphorePermit>,
}

impl<B> Flow<B> {
    fn new(body: B, bucket: Option<Arc<Bucket>>, idle: Option<Duration>, connection: Option<OwnedSemaphorePermit>) -> Self {
        let idle = idle.map(|idle| (idle, Box::pin(tokio::time::sleep(idle))));
        Self { body: Box::pin(body), bucket, waiting: Bytes::new(), pause: None, idle, connection }
    }
}

/// An error of a body, as the client and `object_store` both want it.
fn broken(error: &(dyn std::error::Error + 'static)) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, Fault::of_transport(error))
}

impl<B> Body for Flow<B>
where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            if !self.waiting.is_empty() {
                let length = self.waiting.len().min(PIECE);
                let piece = self.waiting.split_to(length);
                let wait = self.bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.take(length));
                self.pause = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match self.body.as_mut().poll_frame(context) {
                Poll::Pending => {
                    let Some((idle, timer)) = &mut self.idle else { return Poll::Pending };
                    ready!(timer.as_mut().poll(context));
                    let fault = Fault::of_line(format!("nothing came for {} s", idle.as_secs()));
                    return Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Unknown, fault))));
                }
                Poll::Ready(None) => {
                    self.connection = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(broken(&error)))),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some((idle, timer)) = &mut self.idle {
                        timer.as_mut().reset(tokio::time::Instant::now() + *idle);
                    }
                    match frame.into_data() {
                        Ok(data) if self.bucket.is_some() => self.waiting = data,
                        Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Err(other) => return Poll::Ready(Some(Ok(other))),
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let below = self.body.size_hint();
        match below.exact() {
            Some(exact) => SizeHint::with_exact(exact + self.waiting.len() as u64),
            None => below,
        }
    }
}
