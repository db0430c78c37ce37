//! What tells whether there is anything new: asked for at once where an answer takes long.
//!
//! None of these answers is taken for more than what the store showed after somebody began to look: what was not there
//! then was not there before, so it does not matter in which order they were asked for. Once one of them is news, the others
//! are asked for anew.

use crate::format::log::Head;
use crate::format::repository::{MAX_FORMAT, RepositoryFormat};
use crate::id::ClientId;
use crate::repo::cache::prune::PruneRow;
use crate::repo::gc::next_prune;
use crate::repo::log::SHORT;
use crate::repo::{OpenOptions, Repository, cache, log, slots};
use crate::store::{Key, Next};
use std::collections::BTreeSet;

/// What is known of logs and prunes.
pub(super) struct Known {
    /// The last records that were seen.
    pub(super) seen: BTreeSet<Head>,
    /// The last records of which the cache knows what they say.
    pub(super) read: Vec<Head>,
    /// Logs in which there was nothing.
    pub(super) empty: Vec<ClientId>,
    pub(super) newest: Option<PruneRow>,
}

impl Known {
    /// The last record that is known of each of `most` logs and the place behind it, and the place of the next prune object. What
    /// is long is asked for once more when it is read: all of these are in memory at once.
    fn news(&self, owner: ClientId, most: usize) -> Vec<(Key, u64)> {
        let seen = self.seen.iter().map(|head| Key::log(&head.client, head.seq));
        let behind = self.read.iter().map(|head| Key::log(&head.client, head.seq + 1));
        let first = self.read.is_empty().then_some(&owner).into_iter().chain(&self.empty).map(|client| Key::log(client, 0));
        let records = seen.take(most).chain(behind.chain(first).take(most)).map(|key| (key, SHORT));
        records.chain([(next_prune(self.newest.as_ref()), SHORT)]).collect()
    }
}

/// What opening a repository of this format will read, besides the format, as far as this machine can tell.
pub(super) fn of_opening(format: &RepositoryFormat, options: &OpenOptions, width: usize) -> Next {
    let name = format.id.to_string();
    let slot = slots::last_opened(&options.state_dir.join(format!("{name}.slots")));
    let (read, empty, newest) = cache::peek(&options.cache_dir.join(&name)).unwrap_or_default();
    let mut seen = log::remembered(&options.state_dir.join(format!("{name}.heads")));
    seen.extend(read.iter().copied());
    // A machine that knows nothing looks for duplicates of what it does not find.
    let copies = read.is_empty().then_some("copies");
    let known = Known { seen, read, empty, newest };
    let owner = crate::crypto::sign::client_id(&format.owner);
    let mut objects = known.news(owner, width);
    objects.extend(slot.map(|slot| (Key::slot(&slot), slots::MAX_SLOT)));
    Next { objects, folders: ["keys"].into_iter().chain(copies).collect() }
}

/// Logs of which something is asked for ahead, at least.
const FIRST: usize = 16;

/// The same with the format, if it is remembered.
pub(super) fn of_place(format: Option<RepositoryFormat>, options: &OpenOptions) -> Next {
    let Some(format) = format else { return Next { objects: Vec::new(), folders: vec!["keys"] } };
    let mut next = of_opening(&format, options, FIRST);
    next.objects.push((Key::format(), MAX_FORMAT));
    next
}

impl Repository {
    /// Asks for what a refresh reads; a store that answers at once does not heed it.
    pub(super) fn expect_news(&self) -> crate::error::Result<()> {
        let (seen, read) = (self.seen_heads()?, cache::log::heads(&self.connection())?);
        let empty = cache::log::all_empty(&self.connection())?;
        let known = Known { seen, read, empty, newest: cache::prune::newest(&self.connection())? };
        self.store().expect(&Next { objects: known.news(self.owner(), self.width().max(FIRST)), folders: Vec::new() });
        Ok(())
    }

    /// Asks for listings that are read next.
    pub(super) fn expect_listings(&self, folders: &[&'static str]) {
        self.store().expect(&Next { objects: Vec::new(), folders: folders.to_vec() });
    }
}
