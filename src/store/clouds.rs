//! From a URL and the surroundings to a client of an object store: endpoints, regions, and credentials.

use super::address::{Address, Scheme};
use super::aws_files::Profile;
use super::far::Remote;
use super::object::{Bucket, fault};
use super::s3_api::S3Api;
use super::s3_extras::{Retention, S3Extras};
use super::settings::StoreSettings;
use super::wire::{Reach, Wire};
use crate::error::{Error, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use md5::{Digest, Md5};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, RetryConfig};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;

/// Variables of the environment that say where a machine in a cloud gets its credentials from.
const AWS_VARIABLES: &[(&str, AmazonS3ConfigKey)] = &[
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    ("AWS_METADATA_ENDPOINT", AmazonS3ConfigKey::MetadataEndpoint),
];

/// The same for Azure: variable, and what it sets.
const AZURE_VARIABLES: &[(&str, AzureConfigKey)] = &[
    ("AZURE_STORAGE_ACCOUNT_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
];

/// The client for an object store.
///
/// # Errors
/// `Usage` for what in the URL or in the credentials cannot be used.
pub(super) fn connect(address: &Address, settings: &StoreSettings, connections: usize) -> Result<Box<dyn Remote>> {
    let reach = Reach {
        authority: address.option("ca"),
        proxy: address.option("proxy"),
        timeout: address.number("timeout"),
        connections,
    };
    let wire = Wire::new(settings, &reach)?;
    Ok(Box::new(match address.scheme {
        Scheme::S3 | Scheme::B2 => s3(address, settings, &wire)?,
        Scheme::Gcs => google(address, settings, &wire)?,
        Scheme::Azure => azure(address, settings, &wire)?,
        Scheme::WebDav | Scheme::WebDavTls | Scheme::Sftp => unreachable!("these are no object stores"),
    }))
}

/// Retries are made by the store itself, in one place for all kinds.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn wrong(address: &Address, error: object_store::Error) -> Error {
    Error::usage(format!("open the store {address}: {}", fault(error)))
        .with_hint("docs/reference/stores.md says where credentials come from")
}

/// `name:value,name:value`.
fn pairs(text: Option<&str>) -> Vec<(String, String)> {
    let parts = text.into_iter().flat_map(|text| text.split(',')).filter_map(|part| part.split_once(':'));
    parts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn bucket(address: &Address, root: &str, cloud: Arc<dyn super::object::Cloud>) -> Bucket {
    Bucket {
        cloud,
        root: root.to_owned(),
        cold: address.option("class").map(str::to_uppercase),
        tags: pairs(address.option("tags")),
        metadata: pairs(address.option("metadata")),
        s3: None,
        lock_seen: AtomicBool::new(false),
        room: Semaphore::new(super::object::PARTS),
        bare_parts: address.scheme == Scheme::Azure,
    }
}

fn s3(address: &Address, settings: &StoreSettings, wire: &Wire) -> Result<Bucket> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&address.host)
        .with_http_connector(wire.clone())
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(once());
    let is_b2 = address.scheme == Scheme::B2;
    let (mut region, mut endpoint) = (address.option("region").map(str::to_owned), address.option("endpoint").map(str::to_owned));
    if is_b2 {
        let variable = |name: &str| settings.variable(name).map(str::to_owned);
        let (id, key) = (variable("B2_APPLICATION_KEY_ID"), variable("B2_APPLICATION_KEY"));
        let (Some(id), Some(key)) = (id, key) else {
            return Err(Error::usage(format!("open the store {address}: there are no credentials"))
                .with_hint("set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY"));
        };
        builder = builder.with_access_key_id(id).with_secret_access_key(key);
        let place = region.clone().or_else(|| variable("B2_REGION"));
        if endpoint.is_none() && place.is_none() {
            return Err(Error::usage(format!("open the store {address}: its region is not known"))
                .with_hint("add ?region=, as in the endpoint that Backblaze shows: s3.REGION.backblazeb2.com"));
        }
        region = place;
        endpoint = endpoint.or_else(|| region.as_ref().map(|region| format!("https://s3.{region}.backblazeb2.com")));
    } else {
        builder = aws_credentials(builder, address, settings, &mut region, &mut endpoint)?;
    }
    let virtual_style = match address.option("style") {
        Some(style) => style == "virtual",
        None => endpoint.is_none(),
    };
    let retention = retention(address)?;
    // Whoever names an endpoint has another server than Amazon's, and not all of these know checksums. Retention needs one.
    let checksum = address.option("checksum");
    if checksum == Some("sha256") || (checksum.is_none() && (endpoint.is_none() || retention.is_some())) {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let base = base(endpoint.as_deref(), &region, &address.host, virtual_style);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(hosted(&endpoint, &address.host, virtual_style));
    }
    builder = builder.with_region(&region).with_virtual_hosted_style_request(virtual_style);
    builder = encryption(builder, address, settings)?;
    let credentials = builder.clone().build().map_err(|error| wrong(address, error))?.credentials().clone();
    let s3 = Some(S3Api {
        wire: wire.clone(),
        credentials: credentials.clone(),
        region: region.clone(),
        base: base.clone(),
        retention: retention.clone(),
        customer: customer(address, settings)?,
    });
    let folder = folder(&base, &address.path);
    builder = builder.with_http_connector(wire.amended(Arc::new(S3Extras { credentials, region, retention, folder })));
    let cloud = builder.build().map_err(|error| wrong(address, error))?;
    Ok(Bucket { s3, ..bucket(address, &address.path, Arc::new(cloud)) })
}

/// For how long what is put is to be locked, and how far locks may be lengthened.
fn retention(address: &Address) -> Result<Option<Retention>> {
    let (days, limit) = (address.number("lock-days"), address.number("lock-limit"));
    if let Some(limit) = limit.filter(|limit| days.is_none_or(|days| *limit < days)) {
        return Err(Error::usage(format!(
            "open the store {address}: lock-limit={limit} goes with lock-days of no more than that"
        )));
    }
    let mode = if address.option("lock-mode") == Some("compliance") { "COMPLIANCE" } else { "GOVERNANCE" };
    Ok(days.map(|days| Retention { days, limit: limit.unwrap_or(days), mode }))
}

/// Beginning of the paths of objects below `root` in the bucket at `base`.
fn folder(base: &str, root: &str) -> String {
    let path = base.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let parts: Vec<&str> = [path.trim_matches('/'), root].into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "/".to_owned() } else { format!("/{}/", parts.join("/")) }
}

/// URL of the bucket.
fn base(endpoint: Option<&str>, region: &str, host: &str, virtual_style: bool) -> String {
    match (endpoint, virtual_style) {
        (Some(endpoint), true) => hosted(endpoint, host, true),
        (Some(endpoint), false) => format!("{}/{host}", endpoint.trim_end_matches('/')),
        (None, true) => format!("https://{host}.s3.{region}.amazonaws.com"),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{host}"),
    }
}

/// Credentials and places from the environment, then from a profile; else the machine is asked who it is.
fn aws_credentials(
    mut builder: AmazonS3Builder,
    address: &Address,
    settings: &StoreSettings,
    region: &mut Option<String>,
    endpoint: &mut Option<String>,
) -> Result<AmazonS3Builder> {
    let variable = |name: &str| settings.variable(name).map(str::to_owned);
    *region = region.take().or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    *endpoint = endpoint.take().or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"));
    let named = address.option("profile");
    let of_environment = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    if let ((Some(id), Some(secret)), None) = (of_environment, named) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        return Ok(match variable("AWS_SESSION_TOKEN") {
            Some(token) => builder.with_token(token),
            None => builder,
        });
    }
    let profile = Profile::load(settings, named)?;
    *region = region.take().or(profile.region);
    *endpoint = endpoint.take().or(profile.endpoint);
    if let (Some(id), Some(secret)) = (profile.key_id, profile.secret) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret.as_str());
        return Ok(match profile.token {
            Some(token) => builder.with_token(token.as_str()),
            None => builder,
        });
    }
    for (name, key) in AWS_VARIABLES {
        if let Some(value) = variable(name) {
            builder = builder.with_config(*key, value);
        }
    }
    Ok(builder)
}

/// What the server is to encrypt with; everything is sealed already, but some companies' rules ask for it.
fn encryption(builder: AmazonS3Builder, address: &Address, settings: &StoreSettings) -> Result<AmazonS3Builder> {
    use object_store::aws::AmazonS3ConfigKey as Config;
    let customer = settings.variable("LIFEBOAT_SSE_CUSTOMER_KEY");
    Ok(match (address.option("sse"), address.option("sse-key")) {
        (None, None) => builder,
        (Some("aes256"), None) => builder.with_config(sse("aws_server_side_encryption"), "AES256"),
        (Some("kms"), Some(key)) => builder.with_sse_kms_encryption(key),
        (Some("kms"), None) => builder.with_config(sse("aws_server_side_encryption"), "aws:kms"),
        (Some("customer"), None) => {
            let key = customer.ok_or_else(|| {
                Error::usage(format!("open the store {address}: sse=customer needs a key"))
                    .with_hint("set LIFEBOAT_SSE_CUSTOMER_KEY to 32 bytes in base64; without that key nothing can be read again")
            })?;
            builder.with_ssec_encryption(key).with_config(Config::DisableTagging, "false")
        }
        _ => return Err(Error::usage(format!("open the store {address}: sse-key goes with sse=kms alone"))),
    })
}

/// What a request says that reads an object, or asks about it, where the server encrypts with a key of the customer's.
fn customer(address: &Address, settings: &StoreSettings) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let key = settings.variable("LIFEBOAT_SSE_CUSTOMER_KEY").filter(|_| address.option("sse") == Some("customer"));
    let Some(key) = key else { return Ok(headers) };
    let raw = BASE64_STANDARD.decode(key).map_err(|_| {
        Error::usage(format!("open the store {address}: LIFEBOAT_SSE_CUSTOMER_KEY is not base64"))
            .with_hint("it is 32 bytes in base64")
    })?;
    let sum = BASE64_STANDARD.encode(Md5::digest(&raw));
    for (name, value) in [("-algorithm", "AES256"), ("-key", key), ("-key-md5", &sum)] {
        let name = format!("x-amz-server-side-encryption-customer{name}");
        let name = HeaderName::try_from(name).expect("a name of plain characters");
        let mut value = HeaderValue::from_str(value).expect("base64 has plain characters");
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn sse(name: &str) -> AmazonS3ConfigKey {
    name.parse().expect("the library knows its own names")
}

/// With the bucket in front of the host, if that is how the server wants it.
fn hosted(endpoint: &str, bucket: &str, virtual_style: bool) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, rest)) if virtual_style => format!("{scheme}://{bucket}.{rest}"),
        _ => endpoint.to_owned(),
    }
}

fn google(address: &Address, settings: &StoreSettings, wire: &Wire) -> Result<Bucket> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&address.host)
        .with_http_connector(wire.clone())
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(once());
    let file = address.option("credentials").or_else(|| settings.variable("GOOGLE_APPLICATION_CREDENTIALS"));
    match (file, settings.variable("GOOGLE_SERVICE_ACCOUNT_KEY")) {
        (Some(file), _) => builder = builder.with_application_credentials(settings.path(file).display().to_string()),
        (None, Some(key)) => builder = builder.with_service_account_key(key),
        (None, None) => {
            // The library would look into the process's own home directory.
            let known = settings.home.as_ref().map(|home| home.join(".config/gcloud/application_default_credentials.json"));
            if let Some(known) = known.filter(|known| known.exists()) {
                builder = builder.with_application_credentials(known.display().to_string());
            }
        }
    }
    if let Some(token) = settings.variable("GOOGLE_OAUTH_ACCESS_TOKEN") {
        builder = builder.with_bearer_token(token);
    }
    if let Some(endpoint) = address.option("endpoint") {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let cloud = builder.build().map_err(|error| wrong(address, error))?;
    Ok(bucket(address, &address.path, Arc::new(cloud)))
}

fn azure(address: &Address, settings: &StoreSettings, wire: &Wire) -> Result<Bucket> {
    let (container, root) = address.path.split_once('/').unwrap_or((&address.path, ""));
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&address.host)
        .with_container_name(container)
        .with_allow_http(true)
        .with_http_connector(wire.clone())
        .with_retry(once());
    for (name, key) in AZURE_VARIABLES {
        if let Some(value) = settings.variable(name) {
            builder = builder.with_config(*key, value);
        }
    }
    if let Some(endpoint) = address.option("endpoint") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let cloud = builder.build().map_err(|error| wrong(address, error))?;
    Ok(bucket(address, root, Arc::new(cloud)))
}
