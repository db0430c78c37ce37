//! Putting things back where something is already.

use super::{has, is_root, outsiders, shell};
use lifeboat::error::ErrorKind;
use lifeboat::format::tree::{Node, NodeKind, Time};
use lifeboat::source::files::{Target, TargetDir, WriteOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn node(kind: NodeKind) -> Node {
    let mut node = Node::new(b"n".to_vec(), kind);
    node.mode = 0o640;
    node.uid = rustix::process::geteuid().as_raw();
    node.gid = rustix::process::getegid().as_raw();
    node.mtime = Time { secs: 1_000_000_000, nanos: 5 };
    node
}

fn open(place: &Path, replace: bool) -> TargetDir {
    Target::open(place, false, WriteOptions { replace, ..WriteOptions::default() }).unwrap()
}

fn put(target: &TargetDir, name: &[u8]) -> lifeboat::error::Result<()> {
    let file = target.create_file(&TargetDir::temporary_name())?;
    file.write_at(0, b"restored")?;
    let problems = file.finish(&node(NodeKind::File), name)?;
    assert!(problems.is_empty(), "{problems:?}");
    Ok(())
}

#[test]
fn a_file_or_link_is_replaced_and_a_directory_only_on_request() {
    let place = tempfile::tempdir().unwrap();
    assert!(shell(
        place.path(),
        "echo old > file; echo outside > outside; ln -s outside link; mkdir -p dir/below; echo x > dir/below/x"
    ));
    let target = open(place.path(), false);
    put(&target, b"file").unwrap();
    put(&target, b"link").unwrap();
    assert_eq!(put(&target, b"dir").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(target.child(b"file").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(std::fs::read(place.path().join("outside")).unwrap(), b"outside\n");
    assert_eq!(std::fs::read(place.path().join("link")).unwrap(), b"restored");
    assert_eq!(target.directory().names().unwrap().len(), 4, "no temporary file is left");
    let target = open(place.path(), true);
    let error = put(&target, b"dir").unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.hint().contains("--delete"), "it holds something: {error}");
    assert!(place.path().join("dir/below/x").exists());
    let emptying = WriteOptions { replace: true, empty: true, ..WriteOptions::default() };
    let target = Target::open(place.path(), false, emptying).unwrap();
    put(&target, b"dir").unwrap();
    target.child(b"file").unwrap();
    assert!(place.path().join("file").is_dir() && place.path().join("dir").is_file());
}

#[test]
fn links_and_fifos_replace_what_is_there() {
    let place = tempfile::tempdir().unwrap();
    assert!(shell(place.path(), "echo a > a; echo b > b; ln a c; mkdir d"));
    let target = open(place.path(), false);
    let mut link = node(NodeKind::Symlink);
    link.target = b"to/nowhere".to_vec();
    assert!(target.create_special(&link, b"b").unwrap().is_empty());
    assert_eq!(std::fs::read_link(place.path().join("b")).unwrap(), Path::new("to/nowhere"));
    target.link(b"b", &target, b"a").unwrap();
    target.link(b"c", &target, b"a").unwrap();
    let inode = |name: &str| std::fs::symlink_metadata(place.path().join(name)).unwrap().ino();
    assert!(inode("a") == inode("b") && inode("a") == inode("c"));
    assert_eq!(target.create_special(&node(NodeKind::Fifo), b"d").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(target.link(b"d", &target, b"a").unwrap_err().kind(), ErrorKind::Refused);
    assert!(target.create_special(&node(NodeKind::Fifo), b"c").unwrap().is_empty());
    assert_eq!(std::fs::symlink_metadata(place.path().join("c")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(target.directory().names().unwrap().len(), 4, "no temporary name is left");
}

#[test]
fn an_unfinished_file_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let target = open(place.path(), false);
    let file = target.create_file(b"temporary").unwrap();
    file.write_at(0, b"half").unwrap();
    assert_eq!(std::fs::metadata(place.path().join("temporary")).unwrap().mode() & 0o7777, 0o600);
    drop(file);
    assert!(target.directory().names().unwrap().is_empty());
}

#[test]
fn a_file_changed_in_place_loses_what_the_node_does_not_have() {
    if !has("setfattr") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    assert!(shell(
        place.path(),
        "head -c 20000 /dev/urandom > f; setfattr -n user.old -v 1 f; chmod 444 f; echo x > g; ln g h; mkfifo p"
    ));
    let target = open(place.path(), false);
    let file = target.open_file(b"f").unwrap();
    file.write_at(4096, b"new").unwrap();
    file.punch(8192, 4096).unwrap();
    file.set_len(16_384).unwrap();
    assert!(file.finish(&node(NodeKind::File), b"f").unwrap().is_empty());
    let content = std::fs::read(place.path().join("f")).unwrap();
    assert!(content.len() == 16_384 && &content[4096..4099] == b"new" && content[8192..12_288].iter().all(|&byte| byte == 0));
    assert!(shell(place.path(), "test -z \"$(getfattr -d -m - f)\" && test \"$(stat -c %a f)\" = 640"));
    assert_eq!(target.open_file(b"h").unwrap_err().kind(), ErrorKind::Refused, "its other name may lie anywhere");
    assert_eq!(target.open_file(b"p").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(target.open_file(b"none").unwrap_err().kind(), ErrorKind::Missing);
}

#[test]
fn locked_files_and_directories_are_replaced_linked_and_removed() {
    if !is_root() || !has("chattr") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    if !shell(place.path(), "mkdir -p d/e; echo x > d/f; echo y > f; echo z > d/e/z; chattr +i f d/f d/e; chattr +a d") {
        return;
    }
    let target = open(place.path(), false);
    put(&target, b"f").unwrap();
    let below = target.child(b"d").unwrap();
    put(&below, b"f").unwrap();
    put(&below, b"new").unwrap();
    assert!(shell(place.path(), "chattr +i d/new"));
    target.link(b"other name", &below, b"new").unwrap();
    assert!(shell(place.path(), "lsattr d/new | grep -q '^....i' && chattr +i d/e d"));
    target.remove_all(b"other name").unwrap();
    target.remove_all(b"d").unwrap();
    assert_eq!(target.directory().names().unwrap().len(), 1);
}

#[test]
fn removing_never_follows_a_link_and_takes_any_depth() {
    let place = tempfile::tempdir().unwrap();
    assert!(shell(place.path(), "mkdir keep top; echo x > keep/x; ln -s ../keep top/link; ln -s keep l"));
    let target = open(place.path(), false);
    let mut below = target.child(b"top").unwrap();
    for _ in 0..300 {
        below = below.child(b"d").unwrap();
    }
    rustix::fs::symlinkat("/", below.directory(), "root").unwrap();
    target.remove_all(b"top").unwrap();
    target.remove_all(b"l").unwrap();
    target.remove_all(b"not there").unwrap();
    assert!(target.directory().names().unwrap().iter().eq([&b"keep"[..]]));
    assert_eq!(std::fs::read(place.path().join("keep/x")).unwrap(), b"x\n");
}

#[test]
fn a_place_is_found_again_by_its_path() {
    let place = tempfile::tempdir().unwrap();
    assert!(shell(place.path(), "mkdir -p a/b/c; ln -s a l"));
    let target = open(place.path(), false);
    let found = target.open_path(b"a/b/c").unwrap().directory().stat_self().unwrap();
    assert_eq!(found.ino, std::fs::metadata(place.path().join("a/b/c")).unwrap().ino());
    assert_eq!(target.open_path(b"").unwrap().directory().names().unwrap().len(), 2);
    assert_eq!(target.open_path(b"a/../a").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(target.open_path(b"a/x").unwrap_err().kind(), ErrorKind::Missing);
    assert!(target.open_path(b"l/b").is_err(), "a link is not followed");
}

#[test]
fn a_second_restore_over_the_first_changes_nothing() {
    if !is_root() || !has("setfacl") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("a"), place.path().join("b"));
    assert!(shell(
        place.path(),
        "mkdir -p a/d; echo x > a/d/f; ln a/d/f a/g; ln -s g a/l; mkfifo a/p; setfacl -m d:u:9:rwx,u:9:r a/d; chown 1:2 a/d/f"
    ));
    for _ in 0..3 {
        let options = WriteOptions { replace: true, ..WriteOptions::default() };
        assert!(super::copy::tree(&from, &to, options).unwrap().is_empty());
        outsiders::agree(&from, &to);
    }
}

#[test]
fn owners_go_by_name_by_number_or_not_at_all() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let owner = |options: WriteOptions, name: &str| {
        let target = Target::open(place.path(), false, options).unwrap();
        let mut file = node(NodeKind::File);
        (file.uid, file.gid, file.mode) = (54_321, 54_322, 0o6755);
        (file.user, file.group) = (b"daemon".to_vec(), b"no such group".to_vec());
        let problems = target.create_file(b"t").unwrap().finish(&file, name.as_bytes()).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let seen = std::fs::metadata(place.path().join(name)).unwrap();
        (seen.uid(), seen.gid(), seen.permissions().mode() & 0o7777)
    };
    let daemon = std::fs::read_to_string("/etc/passwd").unwrap();
    let daemon = daemon.lines().find_map(|line| line.strip_prefix("daemon:x:")?.split(':').next()?.parse().ok()).unwrap();
    assert_eq!(owner(WriteOptions::default(), "by name"), (daemon, 54_322, 0o6755));
    assert_eq!(owner(WriteOptions { numeric_ids: true, ..WriteOptions::default() }, "by number"), (54_321, 54_322, 0o6755));
    let (uid, _, mode) = owner(WriteOptions { no_owner: true, ..WriteOptions::default() }, "ours");
    assert_eq!((uid, mode), (0, 0o755), "a program must not run as another than its owner");
}
