//! Walks what is to be backed up: directories are tasks of a work-stealing pool, each worker deep in its own corner, so
//! that files that lie together end in the same block.

use super::content::{LargeFile, Read, SEGMENT, read_small};
use super::directory::{Dir, Done, Listing, stat_key};
use super::entries::{Packed, Remembered};
use super::run::{Linked, Run, Worker};
use super::tops::Tops;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::format::tree::{ChunkRef, ChunkType, Content, ListPage, Node, NodeKind, decode_node};
use crate::source::files::{Directory, SourceFile, Stat};
use rayon::Scope;
use std::sync::Arc;

/// Entries of one directory that one task takes on.
const TASK_ENTRIES: usize = 256;

/// Opens the directory at `position` of `above` and begins with its entries. `tops` are the paths below it that were
/// asked for, if it is above them or one of them.
pub(super) fn directory<'s>(scope: &Scope<'s>, run: &'s Run<'s>, above: (Arc<Dir>, usize), stat: Stat, tops: Option<Tops>) {
    if run.stopped() {
        return;
    }
    let (parent, position) = above;
    let mut worker = run.worker();
    let name = parent.listing.name(position).to_vec();
    let path = parent.child_path(&name);
    let origin = parent.origin.or(tops.as_ref().and_then(|tops| tops.origin));
    let remembered = match origin {
        Some(origin) if !run.trust.reread => worker.stat[origin].load(&stat_key(&path)),
        _ => Ok(Vec::new()),
    };
    let remembered = match remembered {
        Ok(rows) => Remembered::parse(rows),
        // It is the cache that cannot be read, and not the directory.
        Err(error) => return run.give_up(error),
    };
    let opened = open(run, &mut worker, (&parent, position, origin), &name, (stat, remembered), tops.as_ref());
    let begun = match opened {
        Ok(dir) => {
            let dir = Arc::new(dir);
            drop(worker);
            return begin(scope, run, dir, tops);
        }
        Err(error) => {
            // The directory stays in the snapshot, empty, so that its own metadata is not lost.
            run.fail(&path, &error);
            unreadable(run, &mut worker, &parent, position, &name, &stat)
        }
    };
    settle(run, &mut worker, &parent, position, begun);
}

fn unreadable(run: &Run<'_>, worker: &mut Worker, parent: &Dir, _: usize, name: &[u8], stat: &Stat) -> Result<Done> {
    let options = crate::source::files::ReadOptions { xattrs: false, flags: false, ..run.read };
    let (mut node, _) = parent.directory.node(name, stat, &mut worker.owners, &options)?;
    let empty = super::pages::PageBuilder::default().finish(&mut worker.writer)?;
    node.subtree = Some(empty);
    Ok(Done::node(worker, parent, &node, stat, false))
}

fn open(
    run: &Run<'_>,
    worker: &mut Worker,
    above: (&Arc<Dir>, usize, Option<usize>),
    name: &[u8],
    state: (Stat, Remembered),
    tops: Option<&Tops>,
) -> Result<Dir> {
    let ((parent, position, origin), (stat, remembered)) = (above, state);
    let path = parent.child_path(name);
    let directory = parent.directory.open_child(name)?;
    // Each path that was asked for has a file system of its own, also one below another.
    let is_top = tops.is_some_and(|tops| parent.origin.is_none() || tops.origin.is_some());
    let top = if is_top { stat } else { parent.top };
    let (node, problems) = directory.node_self(name, &stat, &mut worker.owners, &run.read);
    problems.iter().for_each(|problem| run.fail(&path, problem));
    run.progress.at(&path);
    let listing = match origin {
        Some(_) if !run.rules.leaves_file_system(&top, &stat) => match run.rules.marker(&directory) {
            Some(marker) => Listing::Chosen(vec![marker.to_vec()]),
            None => Listing::All(directory.names()?),
        },
        _ => Listing::Chosen(tops.map(Tops::names).unwrap_or_default()),
    };
    worker.counts.directories += 1;
    Ok(Dir::new((Some((parent.clone(), position)), origin, path), (directory, stat, top), listing, remembered, node))
}

/// Begins with the entries of an opened directory.
pub(super) fn begin<'s>(scope: &Scope<'s>, run: &'s Run<'s>, dir: Arc<Dir>, tops: Option<Tops>) {
    run.opened(&dir);
    if run.stopped() {
        return;
    }
    if dir.listing.len() == 0 {
        let mut worker = run.worker();
        if let Err(error) = dir.finish(run, &mut worker) {
            run.give_up(error);
        }
        return;
    }
    let below = tops.filter(|tops| !tops.below.is_empty()).map(Arc::new);
    entries(scope, run, dir, 0, below);
}

/// Works on the entries from `start` on; the rest of a long directory is another task, for whoever is free.
fn entries<'s>(scope: &Scope<'s>, run: &'s Run<'s>, dir: Arc<Dir>, start: usize, tops: Option<Arc<Tops>>) {
    let end = dir.listing.len().min(start + TASK_ENTRIES);
    if end < dir.listing.len() {
        let (dir, tops) = (dir.clone(), tops.clone());
        scope.spawn(move |scope| entries(scope, run, dir, end, tops));
    }
    if run.stopped() {
        return;
    }
    let mut worker = run.worker();
    for position in start..end {
        if run.stopped() {
            return;
        }
        run.hand_over(&mut worker);
        let below = tops.as_ref().and_then(|tops| tops.below.get(dir.listing.name(position)));
        match entry(scope, run, &mut worker, &dir, position, below) {
            Ok(Some(done)) => settle(run, &mut worker, &dir, position, Ok(done)),
            Ok(None) => {}
            Err(error) => return run.give_up(error),
        }
        if worker.untold.is_much() {
            run.tell(&mut worker.untold);
        }
    }
    run.tell(&mut worker.untold);
}

fn settle(run: &Run<'_>, worker: &mut Worker, dir: &Arc<Dir>, position: usize, done: Result<Done>) {
    let ended = done.and_then(|done| dir.complete(run, worker, position, done));
    let ended = ended.and_then(|last| if last { dir.finish(run, worker) } else { Ok(()) });
    if let Err(error) = ended {
        run.give_up(error);
    }
}

/// One entry: what became of it, or nothing yet when a task of its own goes on with it. An error ends the backup;
/// what is only missing from the snapshot is reported as a failure.
fn entry<'s>(
    scope: &Scope<'s>,
    run: &'s Run<'s>,
    worker: &mut Worker,
    dir: &Arc<Dir>,
    position: usize,
    tops: Option<&Tops>,
) -> Result<Option<Done>> {
    let name = dir.listing.name(position);
    let path = dir.child_path(name);
    // What was asked for, and what is above it, is kept whatever the rules say; what belongs to it, as they say.
    let is_below = dir.origin.is_some();
    if is_below && dir.listing.is_file(position) && dir.remembered.find(name).is_none() && !run.rules.limit_size() {
        // Nothing is known to compare it with: that it is opened tells as much as a look at it by its name.
        if run.rules.excludes(&path, false) {
            return Ok(Some(Done::nothing()));
        }
        return file(scope, run, worker, (dir, position), None, path);
    }
    let stat = match dir.directory.stat(name) {
        Ok(stat) => stat,
        Err(error) if error.kind() == ErrorKind::Missing && is_below => return Ok(Some(vanished(run, &path))),
        Err(error) => {
            run.fail(&path, &error);
            return Ok(Some(Done::nothing()));
        }
    };
    let is_dir = stat.kind == NodeKind::Directory;
    if is_below && run.rules.excludes(&path, is_dir) {
        return Ok(Some(Done::nothing()));
    }
    if is_dir && run.rules.is_own(&stat) {
        let message = format!("{} is passed over: it belongs to the repository", String::from_utf8_lossy(&path));
        run.observer.observe(Event::Note(&message));
        return Ok(Some(Done::nothing()));
    }
    if is_dir {
        let (dir, tops) = (dir.clone(), tops.cloned());
        scope.spawn(move |scope| directory(scope, run, (dir, position), stat, tops));
        return Ok(None);
    }
    if stat.kind != NodeKind::File {
        return Ok(Some(other(run, worker, dir, name, &stat, &path)));
    }
    if run.rules.too_large(stat.size) {
        return Ok(Some(Done::nothing()));
    }
    if let Some(packed) = dir.remembered.find(name)
        && packed.is_unchanged(&stat)
        && is_kept(worker, dir, packed)?
    {
        worker.counts.files += 1;
        worker.counts.unmodified += 1;
        worker.counts.bytes += stat.size;
        worker.untold.files += 1;
        worker.untold.bytes += stat.size;
        return Ok(Some(Done::unchanged(packed.to_entry())));
    }
    file(scope, run, worker, (dir, position), Some(&stat), path)
}

fn vanished(run: &Run<'_>, path: &[u8]) -> Done {
    run.observer.observe(Event::Note(&format!("{} vanished", String::from_utf8_lossy(path))));
    Done::nothing()
}

fn other(run: &Run<'_>, worker: &mut Worker, dir: &Dir, name: &[u8], stat: &Stat, path: &[u8]) -> Done {
    match dir.directory.node(name, stat, &mut worker.owners, &run.read) {
        Ok((node, problems)) => {
            problems.iter().for_each(|problem| run.fail(path, problem));
            worker.counts.others += 1;
            Done::node(worker, dir, &node, stat, false)
        }
        Err(error) => {
            run.fail(path, &error);
            Done::nothing()
        }
    }
}

/// True if every chunk of a remembered file is surely in the repository.
fn is_kept(worker: &mut Worker, dir: &Dir, packed: Packed<'_>) -> Result<bool> {
    if dir.origin.is_some_and(|origin| worker.stat[origin].trusted()) {
        return Ok(true);
    }
    let Ok((node, _)) = decode_node(packed.node()) else { return Ok(false) };
    let mut lists = match &node.content {
        Content::Chunks(chunks) => return all_stored(worker, chunks),
        Content::List { root, .. } => vec![root.id],
    };
    // Which chunks a long file has is said by lists, which not every key can read back.
    while let Some(id) = lists.pop() {
        if !worker.writer.is_stored(&id)? {
            return Ok(false);
        }
        let page = worker.lists.chunk(ChunkType::List, &id).and_then(|bytes| ListPage::decode(&bytes));
        let Ok(page) = page else { return Ok(false) };
        match page.depth {
            0 if !all_stored(worker, &page.refs)? => return Ok(false),
            0 => {}
            _ => lists.extend(page.refs.iter().map(|reference| reference.id)),
        }
    }
    Ok(true)
}

fn all_stored(worker: &mut Worker, chunks: &[ChunkRef]) -> Result<bool> {
    for chunk in chunks {
        if !worker.writer.is_stored(&chunk.id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True if a change of metadata that can be seen explains why the file's ctime moved, so that its content, with size,
/// inode, and mtime as they were, need not be read. Without such a sign it is read: some programs set mtime back.
fn explains(old: &Node, new: &Node) -> bool {
    old.mode != new.mode
        || (old.uid, old.gid) != (new.uid, new.gid)
        || old.xattrs != new.xattrs
        || old.flags != new.flags
        || old.link.is_some() != new.link.is_some()
}

fn file<'s>(
    scope: &Scope<'s>,
    run: &'s Run<'s>,
    worker: &mut Worker,
    place: (&Arc<Dir>, usize),
    stat: Option<&Stat>,
    path: Vec<u8>,
) -> Result<Option<Done>> {
    let (dir, position) = place;
    let name = dir.listing.name(position);
    if worker.untold.files == 0 {
        run.progress.at(&path);
    }
    let file = match SourceFile::open(&dir.directory, name, stat) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::Missing && stat.is_none() => return Ok(Some(vanished(run, &path))),
        Err(error) => {
            run.fail(&path, &error);
            return Ok(Some(Done::nothing()));
        }
    };
    let stat = *file.opened();
    let (mut node, problems) = file.node(name, &mut worker.owners, &run.read);
    problems.iter().for_each(|problem| run.fail(&path, problem));
    if let Some(known) = already_read(run, worker, dir, &node, &stat)? {
        node.content = known.content;
        node.holes = known.holes;
        node.size = known.size;
        return Ok(Some(done(run, worker, dir, &node, &stat)));
    }
    if stat.size > SEGMENT as u64 {
        large(scope, run, worker, LargeEntry { dir: dir.clone(), position, path, node }, file, &stat)?;
        return Ok(None);
    }
    let read = match read_small(run, worker, &file, &stat) {
        Ok(read) => read,
        Err(error) if error.io_kind().is_some() && !run.stopped() => {
            run.fail(&path, &error);
            return Ok(Some(Done::nothing()));
        }
        Err(error) => return Err(error),
    };
    worker.untold.bytes += read.size;
    Ok(Some(take(run, worker, dir, &mut node, &stat, (read, &path))))
}

/// Content that need not be read: only metadata changed, or another name of the file was read already.
fn already_read(run: &Run<'_>, worker: &mut Worker, dir: &Dir, node: &Node, stat: &Stat) -> Result<Option<Linked>> {
    if let Some(linked) = node.link.and_then(|link| run.linked(link)) {
        return Ok(Some(linked));
    }
    let Some(packed) = dir.remembered.find(&node.name) else { return Ok(None) };
    if !packed.same_content(stat) || !is_kept(worker, dir, packed)? {
        return Ok(None);
    }
    let Ok((old, _)) = decode_node(packed.node()) else { return Ok(None) };
    let reusable = explains(&old, node) && !old.unstable;
    Ok(reusable.then_some(Linked { content: old.content, holes: old.holes, size: old.size }))
}

/// Takes what was read into the node.
fn take(run: &Run<'_>, worker: &mut Worker, dir: &Dir, node: &mut Node, stat: &Stat, read: (Read, &[u8])) -> Done {
    let (read, path) = read;
    node.content = read.content;
    node.holes = read.holes;
    node.size = read.size;
    node.unstable = !read.stable;
    if !read.stable {
        let error = Error::failed("back up the file: it changed while it was read")
            .with_hint("stop what writes to it, or take a snapshot of the file system, and run the backup again");
        run.fail(path, &error);
    } else if let Some(link) = node.link {
        run.remember_link(link, Linked { content: node.content.clone(), holes: node.holes.clone(), size: node.size });
    }
    done(run, worker, dir, node, stat)
}

fn done(run: &Run<'_>, worker: &mut Worker, dir: &Dir, node: &Node, stat: &Stat) -> Done {
    let done = Done::node(worker, dir, node, stat, node.unstable || run.trust.is_racy(stat));
    let counts = &mut worker.counts;
    counts.files += 1;
    counts.bytes += node.size;
    match dir.remembered.find(&node.name) {
        None => counts.new += 1,
        Some(_) if done.changed => counts.changed += 1,
        // It was read all the same, and turned out to be what it was.
        Some(_) => counts.unmodified += 1,
    }
    worker.untold.files += 1;
    done
}

/// A large file's place in its directory.
struct LargeEntry {
    dir: Arc<Dir>,
    position: usize,
    path: Vec<u8>,
    node: Node,
}

fn large<'s>(
    scope: &Scope<'s>,
    run: &'s Run<'s>,
    worker: &mut Worker,
    entry: LargeEntry,
    file: SourceFile,
    stat: &Stat,
) -> Result<()> {
    run.progress.at(&entry.path);
    let large = Arc::new((LargeFile::new(run, file, stat)?, entry));
    let helpers = (run.workers.len() - 1).min(large.0.segments() - 1);
    for _ in 0..helpers {
        let large = large.clone();
        scope.spawn(move |_| {
            if !run.stopped() {
                work(run, &mut run.worker(), &large);
            }
        });
    }
    work(run, worker, &large);
    Ok(())
}

fn work(run: &Run<'_>, worker: &mut Worker, large: &(LargeFile, LargeEntry)) {
    let (file, entry) = large;
    // A backup that is being stopped leaves its files as they are: nothing is committed.
    if !file.work(run, worker) || run.stopped() {
        return;
    }
    let mut node = entry.node.clone();
    let done = match file.finish(worker) {
        Ok(read) => Ok(take(run, worker, &entry.dir, &mut node, file.stat(), (read, &entry.path))),
        Err(error) if error.io_kind().is_some() && !run.stopped() => {
            run.fail(&entry.path, &error);
            Ok(Done::nothing())
        }
        Err(error) => Err(error),
    };
    run.tell(&mut worker.untold);
    settle(run, worker, &entry.dir, entry.position, done);
}

/// The nameless directory above all paths.
pub(super) fn top(run: &Run<'_>, directory: Directory, tops: &Tops) -> Result<Arc<Dir>> {
    let stat = directory.stat_self()?;
    let node = Node::new(Vec::new(), NodeKind::Directory);
    let (listing, remembered) = match tops.origin {
        None => (Listing::Chosen(tops.names()), Remembered::default()),
        Some(origin) => {
            let mut worker = run.worker();
            worker.counts.directories += 1;
            let known = if run.trust.reread { Vec::new() } else { worker.stat[origin].load(&stat_key(b""))? };
            (Listing::All(directory.names()?), Remembered::parse(known))
        }
    };
    Ok(Arc::new(Dir::new((None, tops.origin, Vec::new()), (directory, stat, stat), listing, remembered, node)))
}
