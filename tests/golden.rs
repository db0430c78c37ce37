//! Golden repositories, one for each version of the format, never changed: what was stored once stays readable, by this
//! program and by the decoder in Python, which shares no code with it.
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A line for each entry below `folder`: everything about it that a backup keeps. Owners only where they can be set.
fn describe(root: &Path, folder: &Path, links: &mut BTreeMap<u64, usize>, lines: &mut Vec<String>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let stat = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii();
        let mut line = format!("{name} {:o} {}.{:09}", stat.mode(), stat.mtime(), stat.mtime_nsec());
        let owner = if is_root() { (stat.uid(), stat.gid()) } else { (0, 0) };
        write!(line, " {}:{}", owner.0, owner.1).unwrap();
        if stat.is_file() {
            write!(line, " {} {}", stat.len(), blake3::hash(&fs::read(&path).unwrap())).unwrap();
            if stat.nlink() > 1 {
                let group = links.len();
                write!(line, " link {}", links.entry(stat.ino()).or_insert(group)).unwrap();
            }
            let mut value = [0; 64];
            if let Ok(length) = rustix::fs::lgetxattr(&path, "user.note", &mut value) {
                write!(line, " user.note={}", value[..length].escape_ascii()).unwrap();
            }
        } else if stat.is_symlink() {
            write!(line, " to {}", fs::read_link(&path).unwrap().as_os_str().as_bytes().escape_ascii()).unwrap();
        }
        lines.push(line);
        if stat.is_dir() {
            describe(root, &path, links, lines);
        }
    }
}

fn manifest(root: &Path) -> String {
    let mut lines = Vec::new();
    describe(root, root, &mut BTreeMap::new(), &mut lines);
    lines.join("\n") + "\n"
}

fn expected(snapshot: &str) -> String {
    let text = fs::read_to_string(golden().join(format!("{snapshot}.txt"))).unwrap();
    if is_root() { text } else { text.replace(" 1234:99", " 0:0") }
}

fn assert_same(root: &Path, snapshot: &str) {
    let (found, wanted) = (manifest(root), expected(snapshot));
    let missing: Vec<&str> = wanted.lines().filter(|line| !found.lines().any(|other| other == *line)).collect();
    let surplus: Vec<&str> = found.lines().filter(|line| !wanted.lines().any(|other| other == *line)).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "wanted {missing:#?}\nfound {surplus:#?}");
}

const SNAPSHOTS: [&str; 2] = ["729db98b", "a58cd9ca"];

#[test]
fn the_python_decoder_restores_the_golden_repository() {
    for snapshot in SNAPSHOTS {
        let out = tempfile::tempdir().unwrap();
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decoder/run");
        let mut command = Command::new(run);
        command.arg(golden().join("repository")).arg(golden().join("identity.txt")).arg(snapshot).arg("--to").arg(out.path());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(77) && std::env::var_os("LIFEBOAT_NEED_DECODER").is_none() {
            println!("skipped: {said}");
            return;
        }
        assert!(output.status.success(), "{said}");
        assert_same(out.path(), snapshot);
    }
}

#[test]
fn this_version_restores_the_golden_repository() {
    for snapshot in SNAPSHOTS {
        let out = tempfile::tempdir().unwrap();
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("HOME", home.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("restore").arg(snapshot).arg("--to").arg(out.path().join("out"));
        command.arg("--repo").arg(golden().join("repository")).arg("--identity").arg(golden().join("identity.txt"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_same(&out.path().join("out"), snapshot);
    }
}
