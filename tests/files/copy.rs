//! A backup and a restore without a repository: everything read out is put back at once.

use lifeboat::error::{Error, Result};
use lifeboat::format::tree::{Hole, Node, NodeKind};
use lifeboat::source::files::{Directory, Owners, ReadOptions, SourceFile, Target, TargetDir, TargetFile, WriteOptions};
use std::collections::HashMap;
use std::path::Path;

/// Copies everything below `from` to `to`, with the metadata of `from` itself; returns what could not be kept.
pub(crate) fn tree(from: &Path, to: &Path, options: WriteOptions) -> Result<Vec<Error>> {
    let source = Directory::open_root(from)?;
    let target = Target::open(to, true, options)?;
    let read = ReadOptions { atime: false, ..ReadOptions::default() };
    let mut copy = Copy { owners: Owners::new(), read, links: HashMap::new(), problems: Vec::new() };
    copy.contents(&source, &target)?;
    let (node, problems) = source.node_self(b"top", &source.stat_self()?, &mut copy.owners, &copy.read);
    copy.problems.extend(problems);
    copy.problems.extend(target.finish(&node));
    Ok(copy.problems)
}

struct Copy {
    owners: Owners,
    read: ReadOptions,
    links: HashMap<(u64, u64), (TargetDir, Vec<u8>)>,
    problems: Vec<Error>,
}

impl Copy {
    fn contents(&mut self, source: &Directory, target: &TargetDir) -> Result<()> {
        let names = source.names()?;
        for name in names.iter() {
            let stat = source.stat(name)?;
            if stat.nlink > 1
                && stat.kind != NodeKind::Directory
                && let Some((original, original_name)) = self.links.get(&(stat.dev, stat.ino))
            {
                target.link(name, original, original_name)?;
                continue;
            }
            let node = match stat.kind {
                NodeKind::Directory => {
                    let (below, made) = (source.open_child(name)?, target.child(name)?);
                    let (node, problems) = below.node_self(name, &below.stat_self()?, &mut self.owners, &self.read);
                    self.problems.extend(problems);
                    self.contents(&below, &made)?;
                    self.problems.extend(made.finish(&node));
                    node
                }
                NodeKind::File => self.file(SourceFile::open(source, name, &stat)?, target, name)?,
                _ => {
                    let (node, problems) = source.node(name, &stat, &mut self.owners, &self.read)?;
                    self.problems.extend(problems);
                    self.problems.extend(target.create_special(&node, name)?);
                    node
                }
            };
            if let Some(link) = node.link {
                self.links.insert(link, (target.clone(), name.to_vec()));
            }
        }
        Ok(())
    }

    fn file(&mut self, source: SourceFile, target: &TargetDir, name: &[u8]) -> Result<Node> {
        let (mut node, problems) = source.node(name, &mut self.owners, &self.read);
        self.problems.extend(problems);
        if source.opened().may_have_holes() {
            node.holes = source.data_extents(node.size)?;
        }
        let file = target.create_file(&TargetDir::temporary_name())?;
        file.prepare(&node);
        content(&source, &file, &node)?;
        self.problems.extend(file.finish(&node, name)?);
        Ok(node)
    }
}

fn content(source: &SourceFile, target: &TargetFile, node: &Node) -> Result<()> {
    let mut offset = 0;
    let mut buffer = vec![0; 1 << 20];
    for hole in node.holes.iter().copied().chain([Hole { offset: node.size, len: 0 }]) {
        while offset < hole.offset {
            let step = usize::try_from(hole.offset - offset).unwrap().min(buffer.len());
            let count = source.read_at(&mut buffer[..step], offset)?;
            assert_eq!(count, step, "the file became shorter");
            target.write_at(offset, &buffer[..count])?;
            offset += count as u64;
        }
        offset = hole.offset + hole.len;
    }
    if node.holes.last().is_some_and(|hole| hole.offset + hole.len == node.size) {
        target.set_len(node.size)?;
    }
    Ok(())
}
