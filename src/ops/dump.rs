//! `dump`: a part of a snapshot as a tar archive, in the pax format (POSIX.1-2001) with extended attributes.

use super::again::Once;
use super::walk::walk;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::format::tree::{Node, NodeKind};
use crate::repo::{Act, Reader, Repository, SnapshotEntry};
use std::collections::HashMap;
use std::io::Write;
use tar::{Builder, EntryType, Header};

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DumpReport {
    /// Entries of the archive.
    pub entries: u64,
    /// Sockets, which no archive can hold.
    pub skipped: u64,
}

/// Writes what is at `path` in the snapshot to `out` as a tar archive.
///
/// # Errors
/// `Missing`, `Damaged`, `Interrupted`, `Failed` if `out` fails; then the archive is cut off.
pub fn dump(
    repository: &Repository,
    entry: &SnapshotEntry,
    path: &[u8],
    out: &mut dyn Write,
    observer: &dyn Observer,
) -> Result<DumpReport> {
    repository.permit(Act::Read)?;
    let mut once = Once::new(out);
    repository.reading(
        observer,
        &[entry],
        |_| true,
        || {
            once.begin();
            write(repository, entry, path, &mut once, observer)
        },
    )
}

fn write(
    repository: &Repository,
    entry: &SnapshotEntry,
    path: &[u8],
    out: &mut dyn Write,
    observer: &dyn Observer,
) -> Result<DumpReport> {
    let reader = repository.reader()?;
    reader.limit_entries(entry.snapshot.counts.most_entries());
    let top = reader.resolve(&entry.snapshot.root, path)?;
    let mut builder = Builder::new(out);
    let mut report = DumpReport::default();
    let mut links = HashMap::new();
    walk(&reader, &top, path, observer, &mut |path, node| {
        if node.kind == NodeKind::Socket {
            report.skipped += 1;
            observer.observe(Event::Warning(&format!("{} is a socket, which tar cannot hold", String::from_utf8_lossy(path))));
            return Ok(());
        }
        report.entries += 1;
        append(&reader, &mut builder, path, node, &mut links)
    })?;
    builder.finish().map_err(failed)?;
    Ok(report)
}

fn failed(error: std::io::Error) -> Error {
    Error::io("write", "the archive to the output", error)
}

fn append(
    reader: &Reader,
    builder: &mut Builder<&mut dyn Write>,
    path: &[u8],
    node: &Node,
    links: &mut HashMap<((u64, u64), NodeKind), Vec<u8>>,
) -> Result<()> {
    let group = node.link.map(|link| (link, node.kind));
    let original = group.and_then(|group| links.get(&group).cloned());
    if let (Some(link), None) = (group, &original) {
        links.insert(link, path.to_vec());
    }
    let kind = match (&original, node.kind) {
        (Some(_), _) => EntryType::Link,
        (None, NodeKind::File) => EntryType::Regular,
        (None, NodeKind::Directory) => EntryType::Directory,
        (None, NodeKind::Symlink) => EntryType::Symlink,
        (None, NodeKind::CharDevice) => EntryType::Char,
        (None, NodeKind::BlockDevice) => EntryType::Block,
        (None, NodeKind::Fifo | NodeKind::Socket) => EntryType::Fifo,
    };
    let size = if kind == EntryType::Regular { node.size } else { 0 };
    let target = original.as_deref().unwrap_or(&node.target);
    let records = records(path, node, size, target);
    let records: Vec<(&str, &[u8])> = records.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    builder.append_pax_extensions(records).map_err(failed)?;
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(node.mode);
    header.set_uid(node.uid.into());
    header.set_gid(node.gid.into());
    header.set_mtime(u64::try_from(node.mtime.secs).unwrap_or(0));
    header.set_size(size);
    if let Some((major, minor)) = node.device {
        header.set_device_major(major).and_then(|()| header.set_device_minor(minor)).map_err(failed)?;
    }
    // The true names are in the records; these are for readers that do not know them.
    short(&mut header.as_old_mut().name, path);
    short(&mut header.as_old_mut().linkname, target);
    header.set_cksum();
    // Written past the builder, which would want the file whole or as a reader; the archive is only headers and blocks.
    let out = builder.get_mut();
    out.write_all(header.as_bytes()).map_err(failed)?;
    if size > 0 {
        reader.write_file(node, &mut **out)?;
        let padding = usize::try_from((512 - size % 512) % 512).expect("less than a block");
        out.write_all(&[0; 512][..padding]).map_err(failed)?;
    }
    Ok(())
}

fn short(field: &mut [u8; 100], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

fn records(path: &[u8], node: &Node, size: u64, target: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut name = path.to_vec();
    if node.kind == NodeKind::Directory {
        name.push(b'/');
    }
    let mut records = Vec::new();
    if !name.is_ascii() || !target.is_ascii() {
        // Names are bytes: no program shall translate them on the way, or refuse those that are no UTF-8.
        records.push(("hdrcharset".to_owned(), b"BINARY".to_vec()));
    }
    records.push(("path".to_owned(), name));
    if !target.is_empty() {
        records.push(("linkpath".to_owned(), target.to_vec()));
    }
    records.push(("mtime".to_owned(), decimal(node.mtime).into_bytes()));
    if let Some(atime) = node.atime {
        records.push(("atime".to_owned(), decimal(atime).into_bytes()));
    }
    if size > 0o77_777_777_777 {
        records.push(("size".to_owned(), size.to_string().into_bytes()));
    }
    for (key, id, most) in [("uid", node.uid, 0o7_777_777), ("gid", node.gid, 0o7_777_777)] {
        if id > most {
            records.push((key.to_owned(), id.to_string().into_bytes()));
        }
    }
    for (key, text) in [("uname", &node.user), ("gname", &node.group)] {
        if !text.is_empty() {
            records.push((key.to_owned(), text.clone()));
        }
    }
    for xattr in &node.xattrs {
        if let Ok(name) = std::str::from_utf8(&xattr.name) {
            records.push((format!("SCHILY.xattr.{name}"), xattr.value.clone()));
        }
    }
    records
}

fn decimal(time: crate::format::tree::Time) -> String {
    match (time.secs, time.nanos) {
        (secs, 0) => secs.to_string(),
        (secs, nanos) if secs >= 0 => format!("{secs}.{nanos:09}"),
        // Nanoseconds count upwards also before 1970, decimals do not.
        (secs, nanos) => format!("-{}.{:09}", -(i128::from(secs) + 1), 1_000_000_000 - nanos),
    }
}
