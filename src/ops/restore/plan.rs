//! Plans a restore: walks the tree, makes directories, decides for each file what is to be written, and hands the work
//! out in windows, so that memory is bounded while blocks are still read in the order in which they lie.

use super::compare::{Comparison, existing, looks_equal};
use super::execute::{File, Piece, Way, Workers};
use super::known::{Include, Known};
use super::levels::Levels;
use super::place::Place;
use super::window::{Waiting, Window};
use super::{Overwrite, RestoreOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::format::tree::{ChunkRef, Node, NodeKind};
use crate::id::ChunkId;
use crate::ops::walk::{MAX_DEPTH, MAX_PATH};
use crate::repo::Reader;
use crate::source::files::{Rules, Stat, TargetDir, check_name};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Files of at most this size are replaced whole; larger ones that are there already are patched.
pub(super) const REPLACE_LIMIT: u64 = 64 << 20;

/// Names of one file: device and inode, and what it is, so that none becomes a link of another kind.
type LinkGroup = ((u64, u64), NodeKind);

/// The plan as far as it has got.
pub(super) struct Planner<'a> {
    pub(super) reader: &'a Reader,
    pub(super) options: &'a RestoreOptions,
    rules: Rules,
    include: Option<Include>,
    pub(super) workers: &'a Workers<'a>,
    pub(super) levels: Levels,
    window: Window<'a>,
    /// The first name of each file with several: its directory's path, and the name there.
    links: HashMap<LinkGroup, (Arc<Vec<u8>>, Vec<u8>)>,
    buffer: Vec<u8>,
    pub(super) overwrite: Overwrite,
    /// Packs from which something would be read, if a dry run is to find them.
    pub(super) needed: Option<BTreeSet<u32>>,
    known: Known,
    resumed: bool,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        reader: &'a Reader,
        options: &'a RestoreOptions,
        workers: &'a Workers<'a>,
        (place, known): (&Place, Known),
    ) -> Result<Self> {
        Ok(Self {
            reader,
            options,
            rules: Rules::new(&options.exclude)?,
            include: Include::new(&options.include)?,
            workers,
            levels: Levels::default(),
            window: Window::new(workers, reader.block_target()),
            links: HashMap::new(),
            buffer: Vec::new(),
            overwrite: place.overwrite,
            needed: None,
            known,
            resumed: place.resumed,
        })
    }

    /// Restores the directory `top` into `target`; the target's own metadata is left alone.
    pub(super) fn run(&mut self, top: Node, target: Option<TargetDir>) -> Result<()> {
        if top.kind == NodeKind::Directory {
            let root = top.subtree.ok_or_else(|| Error::damaged("restore: a directory without a page"))?;
            self.levels.push_top(top, target);
            self.directory(&root)?;
        } else {
            self.levels.push_top(Node::new(Vec::new(), NodeKind::Directory), target);
            self.node(top)?;
        }
        // The top stays until the last window is done: links are made from there.
        self.flush(true)?;
        self.flush(true)?;
        let unmatched = self.include.as_ref().map(Include::unmatched).unwrap_or_default();
        self.workers.tally.count(|report| report.unmatched = unmatched);
        Ok(())
    }

    fn directory(&mut self, root: &ChunkId) -> Result<()> {
        let reader = self.reader;
        let mut kept = self.options.delete.then(Vec::new);
        let nodes = match reader.nodes(root) {
            Ok(nodes) => nodes,
            Err(error) => return self.lost(self.levels.here(), error),
        };
        for node in nodes {
            self.workers.tally.stop_if_needed()?;
            match node {
                Ok(node) => {
                    if let Some(kept) = &mut kept {
                        kept.push(node.name.clone());
                    }
                    self.node(node)?;
                }
                Err(error) => {
                    // What cannot be listed must not be deleted either.
                    kept = None;
                    self.lost(self.levels.here(), error)?;
                }
            }
        }
        match kept {
            Some(kept) => self.delete_others(&kept),
            None => Ok(()),
        }
    }

    /// Notes that a part of the tree cannot be read; the rest is restored all the same.
    fn lost(&self, path: &[u8], error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Damaged || error.kind() == ErrorKind::Missing {
            self.workers.tally.fail(path, &error);
            return Ok(());
        }
        Err(error)
    }

    fn node(&mut self, node: Node) -> Result<()> {
        let mut path = self.levels.here().to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&node.name);
        let is_dir = node.kind == NodeKind::Directory;
        if self.rules.excludes(&path, is_dir) {
            return Ok(());
        }
        let wanted = self.is_included(&path);
        if let Some(include) = self.include.as_mut().filter(|_| wanted) {
            include.note(&path);
        }
        if is_dir {
            let own = self.seen(&node.name)?.is_some_and(|found| self.rules.is_own(&found));
            return if own { Ok(()) } else { self.enter(node, path, wanted) };
        }
        if !wanted {
            return Ok(());
        }
        if let Err(error) = check_name(&node.name) {
            self.workers.tally.fail(&path, &error);
            return Ok(());
        }
        self.workers.tally.progress.at(&path);
        let result = if node.kind == NodeKind::File { self.file(node, &path) } else { self.other(&node, &path) };
        self.go_on_after(&path, result)
    }

    /// A failure of one entry is reported, and the restore goes on; a full disk or a stop ends it.
    fn go_on_after(&self, path: &[u8], result: Result<()>) -> Result<()> {
        match result {
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) if error.kind() == ErrorKind::Full => {
                self.workers.tally.fail(path, &error);
                self.workers.tally.stop_if_needed()
            }
            Err(error) => {
                self.workers.tally.fail(path, &error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn is_included(&self, path: &[u8]) -> bool {
        self.include.as_ref().is_none_or(|include| include.has(path))
    }

    fn enter(&mut self, node: Node, path: Vec<u8>, wanted: bool) -> Result<()> {
        let subtree = node.subtree;
        if self.levels.len() >= MAX_DEPTH || path.len() >= MAX_PATH {
            let error = Error::damaged("restore the directory: it is nested too deeply");
            return self.go_on_after(&path, Err(error));
        }
        self.levels.push(node, path);
        if self.options.dry_run {
            let opened = self.look();
            let level = self.levels.last_mut().expect("it was pushed above");
            level.target = opened;
        } else if wanted && let Err(error) = self.target() {
            let path = self.levels.here().to_vec();
            self.levels.pop();
            return self.go_on_after(&path, Err(error));
        }
        if wanted {
            self.workers.tally.count(|report| report.directories += 1);
        }
        if let Some(subtree) = subtree {
            self.directory(&subtree)?;
        }
        let path = self.levels.here().to_vec();
        let level = self.levels.pop();
        if let Some(target) = level.target.filter(|_| !self.options.dry_run) {
            let node = match self.levels.whole(self.reader, level.node, level.footprint) {
                Ok(node) => node,
                Err(error) => return self.go_on_after(&path, Err(error)),
            };
            self.window.leave((target, node, path));
            // A name of a file that has another one is looked for by its path, which may be closed once its directories end.
            let done = if self.links.is_empty() { self.window.take_done()? } else { Vec::new() };
            done.into_iter().for_each(|waiting| self.end(&waiting));
            self.flush_if_full()?;
        }
        Ok(())
    }

    /// Hands the window out if it holds enough.
    fn flush_if_full(&mut self) -> Result<()> {
        if self.window.is_full() { self.flush(false) } else { Ok(()) }
    }

    /// The directory that the walk is in, made with those above it if need be.
    fn target(&mut self) -> Result<TargetDir> {
        let first = self.levels.iter().rposition(|level| level.target.is_some());
        let first = first.ok_or_else(|| Error::failed("restore: there is no target"))?;
        let mut target = self.levels[first].target.clone().expect("it was found just now");
        for level in &mut self.levels[first + 1..] {
            let found = existing(&target, &level.node.name)?;
            if found.as_ref().is_some_and(|found| self.rules.is_own(found)) {
                return Err(Error::new(ErrorKind::Refused, "restore into the directory: it belongs to the repository"));
            }
            let link = match found {
                Some(found) if found.kind == NodeKind::Symlink => target.directory().read_link(&level.node.name).ok(),
                _ => None,
            };
            target = target.child(&level.node.name)?;
            if let Some(led_to) = link {
                let [name, led_to] = [&level.node.name, &led_to].map(|name| String::from_utf8_lossy(name).into_owned());
                let message = format!("a directory took the place of the symbolic link {name}, which led to {led_to}");
                self.workers.tally.observer.observe(Event::Warning(&message));
            }
            target.remove_leftovers()?;
            level.target = Some(target.clone());
        }
        Ok(target)
    }

    fn other(&mut self, node: &Node, path: &[u8]) -> Result<()> {
        if self.options.dry_run {
            let found = self.seen(&node.name)?;
            self.spare_own(found.as_ref())?;
            let spared = found.as_ref().is_some_and(|found| !self.may_replace(node, found));
            if !spared {
                self.would_clear(&node.name, found.as_ref())?;
            }
            self.workers.tally.count(|report| if spared { report.skipped += 1 } else { report.others += 1 });
            return Ok(());
        }
        let target = self.target()?;
        let found = existing(&target, &node.name)?;
        self.spare_own(found.as_ref())?;
        if found.as_ref().is_some_and(|found| !self.may_replace(node, found)) {
            self.workers.tally.count(|report| report.skipped += 1);
            return Ok(());
        }
        if self.link_of(&target, node, path) {
            return self.flush_if_full();
        }
        let problems = target.create_special(node, &node.name)?;
        self.workers.tally.warn(path, &problems);
        self.workers.tally.count(|report| report.others += 1);
        Ok(())
    }

    /// True if another name of the same file was restored before, so that this one becomes a link to it.
    fn link_of(&mut self, target: &TargetDir, node: &Node, path: &[u8]) -> bool {
        let Some(link) = node.link.map(|link| (link, node.kind)) else { return false };
        if self.links.contains_key(&link) {
            self.window.link((target.clone(), node.clone(), path.to_vec()));
            return true;
        }
        let dir = self.levels.kept_here();
        self.links.insert(link, (dir, node.name.clone()));
        false
    }

    /// Fails if what is in the way is a directory that holds one of the program itself, such as the repository.
    fn spare_own(&self, found: Option<&Stat>) -> Result<()> {
        if found.is_none_or(|found| found.kind != NodeKind::Directory || !self.rules.holds_own(found)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Refused, "restore over the directory that is there: it holds one that belongs to lifeboat")
            .with_hint("restore to another place, or move the repository, the cache, or the key first"))
    }

    fn may_replace(&self, node: &Node, found: &Stat) -> bool {
        match self.overwrite {
            Overwrite::Never => false,
            Overwrite::IfNewer => node.mtime > found.mtime,
            _ => true,
        }
    }

    fn file(&mut self, node: Node, path: &[u8]) -> Result<()> {
        if self.options.dry_run {
            let found = self.seen(&node.name)?;
            self.spare_own(found.as_ref())?;
            match found {
                Some(found) if !self.may_replace(&node, &found) => {
                    self.workers.tally.count(|report| report.skipped += 1);
                    return Ok(());
                }
                Some(found) if looks_equal(&found, &node) => self.workers.tally.count(|report| report.unchanged += 1),
                _ => {
                    self.would_clear(&node.name, found.as_ref())?;
                    self.workers.tally.file(node.size);
                }
            }
            return self.need(&node, found.as_ref());
        }
        let target = self.target()?;
        let found = existing(&target, &node.name)?;
        self.spare_own(found.as_ref())?;
        if let Some(found) = &found {
            if !self.may_replace(&node, found) {
                self.workers.tally.count(|report| report.skipped += 1);
                return Ok(());
            }
            // Flags are set when the file has its name already.
            let same = looks_equal(found, &node) && !(self.resumed && node.flags != 0);
            if same && self.overwrite == Overwrite::IfChanged {
                self.workers.tally.count(|report| report.unchanged += 1);
                if let Some(link) = node.link.map(|link| (link, node.kind)) {
                    let dir = self.levels.kept_here();
                    self.links.entry(link).or_insert((dir, node.name));
                }
                return Ok(());
            }
        }
        if self.link_of(&target, &node, path) {
            return self.flush_if_full();
        }
        let there = found.filter(|found| found.kind == NodeKind::File && found.nlink == 1 && found.size > 0);
        self.content(target, node, path, there.is_some())
    }

    fn content(&mut self, target: TargetDir, mut node: Node, path: &[u8], there: bool) -> Result<()> {
        let mut compare = match there {
            true => Comparison::new(&target, &node),
            false => None,
        };
        let whole = compare.as_mut().map(|compare| compare.is_equal(self.reader, &node, &mut self.buffer)).transpose()?;
        let patch = compare.is_some() && node.size > REPLACE_LIMIT;
        let way = match whole {
            Some(true) => Way::Keep,
            _ if patch => Way::Patch,
            _ => Way::Replace,
        };
        // A file waits without the list of its chunks, which are in its pieces.
        let content = std::mem::take(&mut node.content);
        let contents = if way == Way::Keep { None } else { Some(self.reader.contents(&content)?) };
        let file = Arc::new(File::new(target, node, path.to_vec(), way));
        let mut at = 0;
        for reference in contents.into_iter().flatten() {
            let added = reference.and_then(|reference| {
                let len = reference.len;
                let equal = patch && compare.as_ref().is_some_and(|c| c.same(self.reader, &reference, at, &mut self.buffer));
                if !equal {
                    self.piece(&file, &reference, at)?;
                }
                at += len;
                Ok(())
            });
            if let Err(error) = added {
                self.workers.tally.fail(path, &error);
                // Never released to zero, the file is dropped unfinished.
                file.left.fetch_add(1, Ordering::AcqRel);
                break;
            }
            if self.window.is_overfull() {
                self.flush_if_full()?;
            }
        }
        file.release(self.workers.tally);
        self.flush_if_full()
    }

    fn piece(&mut self, file: &Arc<File>, reference: &ChunkRef, at: u64) -> Result<()> {
        let (place, start, len) = self.reader.locate(&reference.id)?;
        if u64::from(len) != reference.len {
            return Err(Error::damaged(format!("find the chunk {}: its length is another one", reference.id)));
        }
        let is_first = file.left.fetch_add(1, Ordering::AcqRel) == 1;
        let held = if is_first { file.footprint() } else { 0 };
        let piece = Piece {
            file: file.clone(),
            id: reference.id,
            start,
            len,
            at,
            held,
            is_whole: reference.len == file.node.size,
            has_waited: false,
        };
        self.window.add(self.reader, place, piece)
    }

    /// Hands the planned window out, and ends what was waiting for those before it.
    fn flush(&mut self, last: bool) -> Result<()> {
        let ended = self.window.turn(last)?;
        ended.links.into_iter().for_each(|(target, node, path)| self.link(&target, &node, &path));
        ended.directories.iter().for_each(|waiting| self.end(waiting));
        Ok(())
    }

    fn end(&self, (target, node, path): &Waiting) {
        self.workers.tally.warn(path, &target.finish(node));
    }

    fn link(&self, target: &TargetDir, node: &Node, path: &[u8]) {
        let Some((original, name)) = node.link.and_then(|link| self.links.get(&(link, node.kind))) else { return };
        let top = self.levels.first().and_then(|level| level.target.clone());
        let original = top.ok_or_else(|| Error::failed("restore: there is no target")).and_then(|top| top.open_path(original));
        match original.and_then(|original| target.link(&node.name, &original, name)) {
            Ok(()) if node.kind == NodeKind::File => self.workers.tally.file(0),
            Ok(()) => self.workers.tally.count(|report| report.others += 1),
            Err(error) => self.workers.tally.fail(path, &error),
        }
    }

    /// True if what a directory has besides the snapshot's entries may go.
    fn may_delete_in(&self, path: &[u8], target: &TargetDir) -> Result<bool> {
        if !self.known.has(path) {
            return Ok(false);
        }
        let above = self.levels.iter().rev().nth(1).and_then(|level| level.target.as_ref());
        let Some(above) = above.filter(|_| !self.known.is_asked(path)) else { return Ok(true) };
        // What was mounted elsewhere, or not at all, when the snapshot was made is not in it.
        Ok(above.directory().stat_self()?.dev == target.directory().stat_self()?.dev)
    }

    /// Removes what the snapshot does not have.
    fn delete_others(&mut self, kept: &[Vec<u8>]) -> Result<()> {
        let level = self.levels.last().expect("the walk is in a directory");
        let Some(target) = level.target.clone().filter(TargetDir::existed) else { return Ok(()) };
        let path = self.levels.here().to_vec();
        if !self.may_delete_in(&path, &target)? {
            return Ok(());
        }
        for name in target.directory().names()?.iter() {
            let mut inner = path.clone();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(name);
            let spared = kept.binary_search_by(|kept| kept.as_slice().cmp(name)).is_ok()
                || name == super::place::MARKER
                || name.starts_with(b".lifeboat-")
                || self.known.was_missed(&inner)
                || !self.is_included(&inner)
                || self.rules.excludes_below(&inner, false);
            if spared || existing(&target, name)?.is_none_or(|found| self.rules.holds_own(&found)) {
                continue;
            }
            if !self.options.dry_run {
                let removed = target.remove_all(name);
                self.go_on_after(&inner, removed)?;
            }
            self.workers.tally.count(|report| report.deleted += 1);
        }
        Ok(())
    }
}
