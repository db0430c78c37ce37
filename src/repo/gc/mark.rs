//! Marking: which chunks the snapshots that are kept need.

use super::view::View;
use crate::error::{Error, Result};
use crate::event::{Observer, Progress, stop_if_asked};
use crate::format::tree::{ChunkRef, ChunkType, Content, ListPage, Page, decode_page};
use crate::id::{ChunkId, ClientId, SnapshotId};
use crate::repo::cache::makers::PackMakers;
use crate::repo::cache::marks::{Marks, Trust};
use crate::repo::{Reader, Repository, cache};
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// Marks of snapshots, which grow as snapshots come and never shrink: what was forgotten meanwhile is kept this time.
pub(in crate::repo) struct Marker {
    pub(in crate::repo) marks: Marks,
    walked: HashSet<SnapshotId>,
    reader: Reader,
}

impl Marker {
    pub(in crate::repo) fn new(repository: &Repository) -> Result<Self> {
        let path = repository.cache_path();
        let folder = path.parent().unwrap_or(std::path::Path::new(".")).to_owned();
        Ok(Self { marks: Marks::new(&folder, &path)?, walked: HashSet::new(), reader: repository.reader()? })
    }

    /// Marks what the snapshots of the view need, those that were not walked before.
    pub(in crate::repo) fn mark(&mut self, view: &View, progress: &Progress, observer: &dyn Observer) -> Result<()> {
        self.reader.refresh()?;
        progress.files_total.store(view.snapshots.len() as u64, Ordering::Relaxed);
        // What is marked first stays marked so: the first snapshot that needs a chunk is the one that locks it for longest.
        let mut snapshots: Vec<_> = view.snapshots.iter().collect();
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.lock_until));
        for snapshot in snapshots {
            if self.walked.insert(snapshot.id) {
                let whose = (self.marks.client(&snapshot.client), snapshot.lock_until);
                // The record has the snapshot itself; a copy goes with the packs of a backup that had something to store.
                let copy = ChunkId::from(snapshot.id);
                if self.reader.locate(&copy).is_ok() {
                    self.marks.mark(&copy.prefix(), whose)?;
                }
                self.walk(&snapshot.root, whose, progress, observer)?;
            }
            progress.files.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Marks a tree; pages that were met before are not read again.
    fn walk(&self, root: &ChunkId, whose: (u32, i64), progress: &Progress, observer: &dyn Observer) -> Result<()> {
        // A stack of pages instead of recursion: trees may be deeper than any stack.
        let mut pages = vec![*root];
        while let Some(id) = pages.pop() {
            if !self.marks.mark(&id.prefix(), whose)? {
                continue;
            }
            stop_if_asked(observer)?;
            let bytes = self.reader.chunk(ChunkType::Tree, &id)?;
            progress.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            match decode_page(&bytes)? {
                Page::Inner { pages: inner, .. } => pages.extend(inner.iter().rev().map(|page| page.id)),
                Page::Leaf(nodes) => {
                    let mut named = HashSet::new();
                    for node in nodes.iter().rev() {
                        // Somebody may name one directory in every entry.
                        pages.extend(node.subtree.filter(|subtree| named.insert(*subtree)));
                        self.content(&node.content, whose)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn content(&self, content: &Content, whose: (u32, i64)) -> Result<()> {
        let mark = |chunks: &[ChunkRef]| chunks.iter().try_for_each(|chunk| self.marks.mark(&chunk.id.prefix(), whose).map(drop));
        let mut lists = match content {
            Content::Chunks(chunks) => return mark(chunks),
            Content::List { root, .. } => vec![root.id],
        };
        while let Some(id) = lists.pop() {
            if !self.marks.mark(&id.prefix(), whose)? {
                continue;
            }
            let page = ListPage::decode(&self.reader.chunk(ChunkType::List, &id)?)?;
            if page.depth == 0 {
                mark(&page.refs)?;
            } else {
                lists.extend(page.refs.iter().map(|page| page.id));
            }
        }
        Ok(())
    }
}

/// What seems to be nowhere may be in packs that could not be looked into: no reason to forget anything.
pub(super) fn not_looked_into(packs: u64) -> Error {
    Error::damaged(format!("mark what snapshots need: {packs} packs could not be looked into, so nothing is deleted"))
        .with_hint("run the same command again; if this stays, `lifeboat check` says what is wrong with them")
}

/// Which packs the clients of the marks may rely on.
pub(in crate::repo) struct Trusted {
    makers: PackMakers,
    /// For each client, whom it trusts.
    trusted: Vec<HashSet<ClientId>>,
    barred: HashSet<u32>,
}

impl Trusted {
    /// Asks the cache for every client of the marks. `broken` are packs that nobody should rely on; nor does anybody rely
    /// on packs that no log lists: whoever wrote them may never commit, and others do not know of them.
    pub(in crate::repo) fn of(repository: &Repository, marks: &Marks, broken: &HashSet<u32>) -> Result<Self> {
        let unlisted = cache::index::unlisted(&repository.connection())?;
        let trusted = marks.clients().iter().map(|client| Ok(repository.trusted_by(client)?.into_iter().collect()));
        let (trusted, barred) = (trusted.collect::<Result<_>>()?, broken.iter().copied().chain(unlisted).collect());
        Ok(Self { makers: PackMakers::load(&repository.connection())?, trusted, barred })
    }
}

impl Trust for Trusted {
    fn trusts(&self, client: u32, pack: u32) -> bool {
        let trusted = self.trusted.get(client as usize);
        trusted.is_none_or(|trusted| !self.barred.contains(&pack) && self.makers.may_rely(pack, |maker| trusted.contains(maker)))
    }
}
