//! A directory that is being backed up: its entries arrive in any order and leave, in order, as pages.

use super::checkpoint::push_node;
use super::entries::{Entry, ROW_ENTRIES, Remembered};
use super::pages::PageBuilder;
use super::run::{Run, Worker};
use crate::error::Result;
use crate::format::tree::{Node, NodeKind, encode_node};
use crate::id::ChunkId;
use crate::repo::{ChunkWriter, StatRow};
use crate::source::files::{Directory, Names, Stat};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Finished entries that may wait for one before them, in case the whole directory turns out to be unchanged.
const MAX_WAITING: usize = 16_384;

/// Which entries of a directory are backed up.
pub(super) enum Listing {
    /// All of them.
    All(Names),
    /// Those that lead to a path that was asked for, in order.
    Chosen(Vec<Vec<u8>>),
}

impl Listing {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::All(names) => names.len(),
            Self::Chosen(names) => names.len(),
        }
    }

    /// True if the directory itself says that the entry is a regular file.
    pub(super) fn is_file(&self, position: usize) -> bool {
        matches!(self, Self::All(names) if names.kind(position) == Some(NodeKind::File))
    }

    pub(super) fn name(&self, position: usize) -> &[u8] {
        match self {
            Self::All(names) => names.get(position),
            Self::Chosen(names) => &names[position],
        }
    }
}

/// A directory on its way into the snapshot.
pub(super) struct Dir {
    /// The directory above and the position there; none for the nameless top.
    pub(super) parent: Option<(Arc<Self>, usize)>,
    /// Number of the path asked for that it belongs to; none above these.
    pub(super) origin: Option<usize>,
    /// Its path in the snapshot.
    pub(super) path: Vec<u8>,
    pub(super) directory: Directory,
    pub(super) stat: Stat,
    /// The state of the path asked for, to stay on its file system.
    pub(super) top: Stat,
    pub(super) listing: Listing,
    pub(super) remembered: Remembered,
    state: Mutex<State>,
}

enum Slot {
    Waiting,
    Done(Option<Entry>),
}

struct State {
    slots: VecDeque<Slot>,
    base: usize,
    left: usize,
    node: Node,
    pages: PageBuilder,
    row: Vec<u8>,
    row_entries: usize,
    /// The first row, which is saved last.
    first_row: Option<Vec<u8>>,
    parts: u32,
    kept: usize,
    changed: bool,
    /// The tree is as it was, but what the stat cache keeps of it is not.
    stale: bool,
    /// Its root page is made.
    closed: bool,
}

/// Key of a directory in the stat cache.
pub(super) fn stat_key(path: &[u8]) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(path).as_bytes()[..16]);
    key
}

/// The directory above and the position there, the origin in the stat cache, and the path.
type Place = (Option<(Arc<Dir>, usize)>, Option<usize>, Vec<u8>);

impl Dir {
    pub(super) fn new(place: Place, open: (Directory, Stat, Stat), listing: Listing, remembered: Remembered, node: Node) -> Self {
        let (parent, origin, path) = place;
        let (directory, stat, top) = open;
        let count = listing.len();
        let state = State {
            slots: (0..count).map(|_| Slot::Waiting).collect(),
            base: 0,
            left: count,
            node,
            pages: PageBuilder::default(),
            row: vec![0; 32],
            row_entries: 0,
            first_row: None,
            parts: 0,
            kept: 0,
            changed: origin.is_none() || remembered.root().is_none(),
            stale: false,
            closed: false,
        };
        Self { parent, origin, path, directory, stat, top, listing, remembered, state: Mutex::new(state) }
    }

    pub(super) fn child_path(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// Takes a finished entry, or the news that there is none. True if it was the last.
    pub(super) fn complete(&self, run: &Run<'_>, worker: &mut Worker, position: usize, done: Done) -> Result<bool> {
        let mut state = self.state.lock().expect("no code panics while it holds this lock");
        let state = &mut *state;
        state.changed |= done.changed;
        state.stale |= done.stale;
        state.slots[position - state.base] = Slot::Done(done.entry);
        state.left -= 1;
        if state.changed || state.slots.len() > MAX_WAITING {
            self.drain(run, worker, state)?;
        }
        Ok(state.left == 0)
    }

    /// Hands on the finished entries at the front.
    fn drain(&self, run: &Run<'_>, worker: &mut Worker, state: &mut State) -> Result<()> {
        while let Some(Slot::Done(_)) = state.slots.front() {
            let Some(Slot::Done(entry)) = state.slots.pop_front() else { break };
            state.base += 1;
            let Some(entry) = entry else { continue };
            state.kept += 1;
            state.pages.push(entry.name(), entry.node(), &mut worker.writer)?;
            if self.origin.is_some() {
                entry.append_to(&mut state.row);
                state.row_entries += 1;
                if state.row_entries >= ROW_ENTRIES {
                    self.close_row(run, worker, state);
                }
            }
        }
        Ok(())
    }

    fn close_row(&self, run: &Run<'_>, worker: &mut Worker, state: &mut State) {
        let entries = std::mem::take(&mut state.row);
        state.row_entries = 0;
        state.parts += 1;
        if state.parts == 1 {
            state.first_row = Some(entries);
        } else if let Some(origin) = self.origin {
            let row = StatRow { path: stat_key(&self.path), part: state.parts - 1, parts: 0, entries };
            worker.stat[origin].save(run.session, row);
        }
    }

    /// The root page, once all entries are complete.
    fn root(&self, run: &Run<'_>, worker: &mut Worker) -> Result<ChunkId> {
        let mut state = self.state.lock().expect("no code panics while it holds this lock");
        let state = &mut *state;
        state.closed = true;
        let present = state.kept + state.slots.iter().filter(|slot| matches!(slot, Slot::Done(Some(_)))).count();
        let same = !state.changed && present == self.remembered.len();
        let trusted = self.origin.is_some_and(|origin| worker.stat[origin].trusted());
        if let (true, true, false, Some(root)) = (same, trusted, state.stale, self.remembered.root()) {
            return Ok(root);
        }
        self.drain(run, worker, state)?;
        let root = std::mem::take(&mut state.pages).finish(&mut worker.writer)?;
        if let Some(origin) = self.origin {
            if !state.row.is_empty() || state.parts == 0 {
                self.close_row(run, worker, state);
            }
            let mut entries = state.first_row.take().unwrap_or_default();
            entries[..32].copy_from_slice(&root.0);
            let row = StatRow { path: stat_key(&self.path), part: 0, parts: state.parts, entries };
            worker.stat[origin].save(run.session, row);
        }
        Ok(root)
    }

    /// How many directories are above it.
    pub(super) fn depth(&self) -> usize {
        std::iter::successors(self.parent.as_ref(), |(parent, _)| parent.parent.as_ref()).count()
    }

    /// The directory with the entries that are finished, and with what `part` has of those at other positions; nothing
    /// once it is closed.
    pub(super) fn so_far<'n>(
        &self,
        part: &dyn Fn(usize) -> Option<&'n Node>,
        writer: &mut ChunkWriter,
    ) -> Result<Option<(Node, ChunkId)>> {
        let state = self.state.lock().expect("no code panics while it holds this lock");
        if state.closed {
            return Ok(None);
        }
        let mut pages = state.pages.clone();
        for (position, slot) in (state.base..).zip(&state.slots) {
            match (slot, part(position)) {
                (Slot::Done(Some(entry)), _) => pages.push(entry.name(), entry.node(), writer)?,
                (Slot::Waiting, Some(node)) => push_node(&mut pages, node, writer)?,
                _ => {}
            }
        }
        Ok(Some((state.node.clone(), pages.finish(writer)?)))
    }

    /// Ends the directory and tells the one above, which may end with it, up to the top.
    pub(super) fn finish(self: &Arc<Self>, run: &Run<'_>, worker: &mut Worker) -> Result<()> {
        let mut dir = self.clone();
        loop {
            let root = dir.root(run, worker)?;
            if let Some(origin) = dir.origin {
                worker.seen[origin].push(stat_key(&dir.path));
            }
            let Some((parent, position)) = dir.parent.clone() else {
                *run.root.lock().expect("no code panics while it holds this lock") = Some(root);
                return Ok(());
            };
            let mut node = {
                let mut state = dir.state.lock().expect("no code panics while it holds this lock");
                std::mem::replace(&mut state.node, Node::new(Vec::new(), NodeKind::Directory))
            };
            node.subtree = Some(root);
            let done = Done::node(worker, &parent, &node, &dir.stat, false);
            if !parent.complete(run, worker, position, done)? {
                return Ok(());
            }
            dir = parent;
        }
    }
}

/// A finished entry.
pub(super) struct Done {
    pub(super) entry: Option<Entry>,
    pub(super) changed: bool,
    pub(super) stale: bool,
}

impl Done {
    /// Nothing: left out, vanished, or unreadable.
    pub(super) fn nothing() -> Self {
        Self { entry: None, changed: false, stale: false }
    }

    /// An entry as it was.
    pub(super) fn unchanged(entry: Entry) -> Self {
        Self { entry: Some(entry), changed: false, stale: false }
    }

    /// An entry with this node; whether it changed is told by what is remembered.
    pub(super) fn node(worker: &mut Worker, dir: &Dir, node: &Node, stat: &Stat, racy: bool) -> Self {
        worker.node.clear();
        encode_node(node, &mut worker.node);
        let changed = dir.remembered.find(&node.name).is_none_or(|packed| packed.node() != worker.node);
        let entry = Entry::new(&node.name, stat, racy, &worker.node);
        let is_file = node.kind == NodeKind::File;
        Self { entry: Some(entry), changed, stale: is_file }
    }
}
