//! URLs of remote stores: which parts they have, and that no secret is among them.

use crate::error::{Error, Result};
use crate::id::Fingerprint;
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// What kind of server a store is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    B2,
    Gcs,
    Azure,
    WebDav,
    WebDavTls,
    Sftp,
}

/// A URL that was taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    pub(super) user: Option<String>,
    /// Host, bucket, or account.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Without slashes at its ends, but for SFTP, whose paths begin with one.
    pub(super) path: String,
    pub(super) options: BTreeMap<String, String>,
    text: String,
}

/// Options of all remote stores, and those of each.
const COMMON: &[&str] = &["connections", "retries", "timeout", "fingerprint"];
const HTTP: &[&str] = &["ca", "proxy"];
const S3: &[&str] = &[
    "endpoint",
    "region",
    "style",
    "profile",
    "class",
    "checksum",
    "sse",
    "sse-key",
    "tags",
    "metadata",
    "lock-days",
    "lock-limit",
    "lock-mode",
];

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "s3" => Self::S3,
            "b2" => Self::B2,
            "gs" => Self::Gcs,
            "az" => Self::Azure,
            "webdav" => Self::WebDav,
            "webdavs" => Self::WebDavTls,
            "sftp" => Self::Sftp,
            _ => return None,
        })
    }

    fn options(self) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Self::S3 => S3,
            Self::B2 => &["region", "endpoint", "style"],
            Self::Gcs => &["endpoint", "credentials", "class"],
            Self::Azure => &["endpoint", "class"],
            Self::WebDav | Self::WebDavTls => &["password-file"],
            Self::Sftp => &["key", "known-hosts"],
        };
        let http = if self == Self::Sftp { &[] } else { HTTP };
        [COMMON, http, own].concat()
    }
}

impl Address {
    /// Takes a URL apart; `None` if its scheme is none of a remote store.
    ///
    /// # Errors
    /// `Usage` for a secret in it, an unknown option, or a part that is missing.
    pub(super) fn parse(text: &str) -> Result<Option<Self>> {
        let Some(scheme) = text.split_once("://").and_then(|(scheme, _)| Scheme::parse(scheme)) else { return Ok(None) };
        let shown = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let wrong = |why: &str| {
            Error::usage(format!("read the URL {shown}://…: {why}"))
                .with_hint("docs/reference/stores.md says how each kind is written, and which options it has")
        };
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if url.password().is_some() {
            let hint = "URLs are printed and logged; docs/reference/stores.md says where each store takes its secret from";
            return Err(wrong("it has a password in it").with_hint(hint));
        }
        if url.fragment().is_some() {
            return Err(wrong("it has a '#' in it"));
        }
        let options = options(scheme, &url, &wrong)?;
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(decoded);
        let user_fits = matches!(scheme, Scheme::Sftp | Scheme::WebDav | Scheme::WebDavTls);
        if user.is_some() && !user_fits {
            return Err(wrong("it has a user in it").with_hint("credentials come from the environment or from files"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).map(decoded);
        let host = host.ok_or_else(|| wrong("it names no host or bucket"))?;
        let path = decoded(url.path());
        let path = match scheme {
            Scheme::Sftp => path.trim_end_matches('/').to_owned(),
            _ => path.trim_matches('/').to_owned(),
        };
        if path.is_empty() && matches!(scheme, Scheme::Azure | Scheme::Sftp) {
            return Err(wrong(if scheme == Scheme::Azure { "it names no container" } else { "it names no directory" }));
        }
        Ok(Some(Self { scheme, user, host, port: url.port(), path, options, text: text.to_owned() }))
    }

    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// An option that is a number; it was checked when the URL was read.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.option(name)?.parse().ok()
    }
}

fn options(scheme: Scheme, url: &Url, wrong: &dyn Fn(&str) -> Error) -> Result<BTreeMap<String, String>> {
    let known = scheme.options();
    let mut options = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        if !known.contains(&name.as_ref()) {
            // The value is not shown: it may be a secret.
            let hint = format!("options here are {}; secrets come from the environment or from files", known.join(", "));
            return Err(wrong(&format!("there is no option {name:?}")).with_hint(hint));
        }
        if name == "fingerprint" {
            Fingerprint::from_hex(&value)?;
        }
        let numeric = matches!(name.as_ref(), "connections" | "retries" | "timeout" | "lock-days" | "lock-limit");
        let fits = !numeric || value.parse::<u32>().is_ok_and(|number| name == "retries" || (1..=100_000).contains(&number));
        let choices: &[&str] = match name.as_ref() {
            "style" => &["path", "virtual"],
            "checksum" => &["sha256", "none"],
            "sse" => &["aes256", "kms", "customer"],
            "lock-mode" => &["governance", "compliance"],
            _ => &[],
        };
        if !fits || value.is_empty() || !(choices.is_empty() || choices.contains(&value.as_ref())) {
            let wrong = wrong(&format!("the option {name:?} cannot be {value:?}"));
            return Err(match (choices, numeric) {
                ([], false) => wrong,
                ([], true) => wrong.with_hint("it takes a number"),
                _ => wrong.with_hint(format!("it can be {}", choices.join(" or "))),
            });
        }
        if matches!(name.as_ref(), "endpoint" | "proxy") {
            let inner = Url::parse(&value).map_err(|error| wrong(&format!("the option {name:?} is no URL: {error}")))?;
            if inner.password().is_some() {
                return Err(wrong(&format!("the option {name:?} has a password in it"))
                    .with_hint("URLs are printed and logged; a proxy that wants a password is given by HTTPS_PROXY"));
            }
        }
        options.insert(name.into_owned(), value.into_owned());
    }
    Ok(options)
}

/// Percent signs undone, as the URL crate does it for queries.
fn decoded(text: &str) -> String {
    let escaped = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(escaped.as_bytes()).next().map_or_else(String::new, |(text, _)| text.into_owned())
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn parse(text: &str) -> Address {
        Address::parse(text).unwrap().unwrap()
    }

    #[test]
    fn urls_are_taken_apart() {
        let address = parse("s3://bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu&style=virtual&connections=4");
        assert_eq!((address.scheme, address.host.as_str(), address.path.as_str()), (Scheme::S3, "bucket", "a/b"));
        assert_eq!(address.option("endpoint"), Some("http://127.0.0.1:9000"));
        assert_eq!(address.number("connections"), Some(4));
        let address = parse("sftp://me@host:2222/srv/back%20up+1/");
        assert_eq!((address.user.as_deref(), address.port, address.path.as_str()), (Some("me"), Some(2222), "/srv/back up+1"));
        let address = parse("az://account/container/folder");
        assert_eq!((address.host.as_str(), address.path.as_str()), ("account", "container/folder"));
        assert_eq!(parse("webdavs://me@host/dav").user.as_deref(), Some("me"));
        assert_eq!(Address::parse("file:///x").unwrap(), None);
        assert_eq!(Address::parse("/x").unwrap(), None);
    }

    #[test]
    fn secrets_in_urls_are_refused_and_not_repeated() {
        for text in [
            "sftp://me:hunter2@host/x",
            "webdavs://me:hunter2@host/x",
            "s3://bucket/x?secret_access_key=hunter2",
            "s3://bucket/x?endpoint=https://me:hunter2@host",
            "az://account/container?sig=hunter2",
            "s3://bucket/x#hunter2",
        ] {
            let error = Address::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(!format!("{error} {:?}", error.hint()).contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_a_url_cannot_be_is_said() {
        for (text, why) in [
            ("s3:///x", "host"),
            ("az://account", "container"),
            ("sftp://host", "directory"),
            ("s3://me@bucket/x", "user"),
            ("s3://bucket/x?style=odd", "cannot be"),
            ("s3://bucket/x?connections=0", "cannot be"),
            ("s3://bucket/x?endpoint=nowhere", "no URL"),
            ("gs://bucket/x?region=eu", "no option"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
