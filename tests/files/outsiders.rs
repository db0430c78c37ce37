//! What other programs say about two trees that should be alike.

use super::{has, run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Fails unless every program that is installed finds no difference.
pub(crate) fn agree(left: &Path, right: &Path) {
    rsync_finds_nothing_to_do(left, right);
    same(left, right, "bsdtar", mtree);
    same(left, right, "getfattr", |at| blocks(at, "getfattr", &["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."]));
    same(left, right, "getfacl", |at| blocks(at, "getfacl", &["-R", "-P", "-n", "."]));
    same(left, right, "lsattr", |at| lines(&run(at, "lsattr", &["-R", "-a", "."]).0));
    assert_eq!(hole_maps(left), hole_maps(right), "holes");
}

fn rsync_finds_nothing_to_do(left: &Path, right: &Path) {
    if !has("rsync") {
        return;
    }
    let from = format!("{}/", left.display());
    let to = format!("{}/", right.display());
    let flags = ["-aHAXn", "--delete", "--checksum", "--itemize-changes", "--modify-window=-1", "--numeric-ids"];
    let (found, fine) = run(left, "rsync", &[&flags[..], &[&from, &to]].concat());
    assert!(fine, "rsync failed");
    assert_eq!(String::from_utf8_lossy(&found), "", "rsync would change these");
}

fn same(left: &Path, right: &Path, program: &str, look: impl Fn(&Path) -> Vec<String>) {
    if !has(program) {
        return;
    }
    let (left, right) = (look(left), look(right));
    assert!(!left.is_empty() || program == "getfattr", "{program} says nothing");
    for (one, other) in left.iter().zip(&right) {
        assert_eq!(one, other, "{program}");
    }
    assert_eq!(left.len(), right.len(), "{program}");
}

/// One line for each entry, without what no copy can have: the numbers of inode and device.
fn mtree(at: &Path) -> Vec<String> {
    let (text, _) = run(at, "bsdtar", &["--format=mtree", "--options=mtree:all", "-cf", "-", "."]);
    let without = |line: String| {
        let kept = line.split(' ').filter(|word| !word.starts_with("inode=") && !word.starts_with("resdevice="));
        kept.collect::<Vec<_>>().join(" ")
    };
    lines(&text).into_iter().map(without).collect()
}

fn blocks(at: &Path, program: &str, arguments: &[&str]) -> Vec<String> {
    let (text, _) = run(at, program, arguments);
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut blocks: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
    blocks.sort();
    blocks
}

fn lines(text: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = text.split(|&byte| byte == b'\n').map(|line| line.escape_ascii().to_string()).collect();
    lines.sort();
    lines
}

/// Where each regular file has data, asked of the system without the code under test.
fn hole_maps(top: &Path) -> BTreeMap<PathBuf, Vec<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let mut maps = BTreeMap::new();
    let mut pending = vec![top.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                pending.push(entry.path());
            }
            if !kind.is_file() {
                continue;
            }
            let file = std::fs::File::open(entry.path()).unwrap();
            let (mut map, mut at) = (Vec::new(), 0);
            while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
                at = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
                map.push((start, at));
            }
            maps.insert(entry.path().strip_prefix(top).unwrap().to_path_buf(), map);
        }
    }
    maps
}
