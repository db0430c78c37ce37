//! Ids of users and groups, and their names.

use std::collections::HashMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{PoisonError, RwLock};

/// Names of users and groups by id, asked of the system once each; one for each worker.
#[derive(Debug, Default)]
pub struct Owners {
    users: Cached,
    groups: Cached,
}

/// A cache that answers a repeated question without hashing: neighbours mostly have one owner.
#[derive(Debug, Default)]
struct Cached {
    last: Option<(u32, Vec<u8>)>,
    names: HashMap<u32, Vec<u8>>,
}

impl Owners {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Name of the user, empty if there is none.
    pub fn user(&mut self, uid: u32) -> &[u8] {
        self.users.get(uid, |id| uzers::get_user_by_uid(id).map(|user| user.name().as_bytes().to_vec()))
    }

    /// Name of the group, empty if there is none.
    pub fn group(&mut self, gid: u32) -> &[u8] {
        self.groups.get(gid, |id| uzers::get_group_by_gid(id).map(|group| group.name().as_bytes().to_vec()))
    }
}

impl Cached {
    fn get(&mut self, id: u32, look_up: impl Fn(u32) -> Option<Vec<u8>>) -> &[u8] {
        if self.last.as_ref().is_none_or(|(last, _)| *last != id) {
            let name = self.names.entry(id).or_insert_with(|| look_up(id).unwrap_or_default()).clone();
            self.last = Some((id, name));
        }
        self.last.as_ref().map_or(&[], |(_, name)| name)
    }
}

/// Ids by name on this machine, asked of the system once each; shared by all workers of a restore.
#[derive(Debug, Default)]
pub(super) struct LocalIds {
    users: RwLock<HashMap<Vec<u8>, Option<u32>>>,
    groups: RwLock<HashMap<Vec<u8>, Option<u32>>>,
}

impl LocalIds {
    /// The id here of the user that was called `name` and had `uid`.
    pub(super) fn user(&self, name: &[u8], uid: u32) -> u32 {
        local(&self.users, name, uid, |name| uzers::get_user_by_name(&name).map(|user| user.uid()))
    }

    /// The id here of the group that was called `name` and had `gid`.
    pub(super) fn group(&self, name: &[u8], gid: u32) -> u32 {
        local(&self.groups, name, gid, |name| uzers::get_group_by_name(&name).map(|group| group.gid()))
    }
}

type Cache = RwLock<HashMap<Vec<u8>, Option<u32>>>;

/// Id 0 is the same everywhere, and so is an id without a name.
fn local(cache: &Cache, name: &[u8], id: u32, look_up: impl Fn(std::ffi::OsString) -> Option<u32>) -> u32 {
    if id == 0 || name.is_empty() || name.contains(&0) {
        return id;
    }
    if let Some(found) = cache.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return found.unwrap_or(id);
    }
    let found = look_up(std::ffi::OsString::from_vec(name.to_vec()));
    cache.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_vec(), found);
    found.unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_are_found_in_both_directions() {
        let mut owners = Owners::new();
        assert_eq!(owners.user(0), b"root");
        assert_eq!(owners.user(4_000_000_001), b"");
        assert_eq!(owners.user(0), b"root");
        let ids = LocalIds::default();
        assert_eq!(ids.user(b"root", 12_345), 0);
        assert_eq!(ids.user(b"nobody here has this name", 12_345), 12_345);
        assert_eq!(ids.user(b"", 7), 7);
        assert_eq!(ids.group(b"\0", 7), 7);
    }

    #[test]
    fn id_zero_is_never_mapped_by_name() {
        assert_eq!(LocalIds::default().user(b"nobody", 0), 0);
    }
}
