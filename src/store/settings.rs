//! What a store may have to know of the surroundings. The face looks it up, because nothing below it reads the environment.

use super::line::Line;
use super::throttle::Bucket;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Requests that a remote store has under way at once, unless told otherwise.
pub(super) const CONNECTIONS: usize = 16;

/// Surroundings and wishes that hold for every store.
#[derive(Clone, Default)]
pub struct StoreSettings {
    /// The environment: credentials and proxies are taken from it.
    pub variables: BTreeMap<String, String>,
    /// The home directory, for profile files, keys, and known hosts.
    pub home: Option<PathBuf>,
    /// Folder in which is remembered what probes found.
    pub answers: Option<PathBuf>,
    /// Requests under way at once.
    pub connections: Option<usize>,
    /// Bytes of parts of objects that this machine keeps of each repository elsewhere; none unless told otherwise.
    pub keep: Option<u64>,
    /// Bytes per second that may be sent.
    pub limit_upload: Option<u64>,
    /// Bytes per second that may be received.
    pub limit_download: Option<u64>,
    /// What is known of the line, and whether anybody still waits for it.
    pub line: Line,
}

// Neither secrets nor what might be one.
impl fmt::Debug for StoreSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        (out.debug_struct("StoreSettings").field("connections", &self.connections))
            .field("limit_upload", &self.limit_upload)
            .field("limit_download", &self.limit_download)
            .finish_non_exhaustive()
    }
}

impl StoreSettings {
    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A path of which the user may have written the home directory as `~`.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => text.into(),
        }
    }

    /// The limits, for both directions.
    pub(super) fn limits(&self) -> Limits {
        let bucket = |limit: Option<u64>| limit.map(|limit| Arc::new(Bucket::new(limit)));
        Limits { upload: bucket(self.limit_upload), download: bucket(self.limit_download) }
    }
}

/// How fast a store may send and receive.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    pub(super) upload: Option<Arc<Bucket>>,
    pub(super) download: Option<Arc<Bucket>>,
}

impl Limits {
    /// True if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.upload.is_none() && self.download.is_none()
    }
}
