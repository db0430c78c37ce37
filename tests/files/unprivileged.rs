//! Without root: what can be done is done, the rest is said.

use super::{copy, is_root, outsiders, run, shell};
use lifeboat::format::tree::{Node, NodeKind, Xattr};
use lifeboat::source::files::{Directory, Owners, ReadOptions, SourceFile, Target, WriteOptions};
use rustix::process::{Gid, Uid};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const NOBODY: u32 = 65_534;

/// Runs the closure in a thread that is user `nobody`, in a directory of his.
fn as_nobody(what: impl FnOnce(&Path) + Send) {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    assert!(shell(
        place.path(),
        "mkdir mine; echo secret > unreadable; chmod 600 unreadable; chmod 755 .; chown 65534:65534 mine"
    ));
    std::thread::scope(|scope| {
        let become_nobody = || {
            let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            what(place.path());
        };
        scope.spawn(become_nobody).join().unwrap();
    });
}

#[test]
fn what_belongs_to_us_comes_back_whole() {
    as_nobody(|place| {
        let mine = place.join("mine");
        assert!(shell(
            &mine,
            "mkdir -p a/closed; echo x > a/f; chmod 400 a/f; echo y > a/closed/y; chmod 500 a/closed; ln -s f a/l; mkfifo a/p"
        ));
        let held = std::fs::File::open(mine.join("a/f")).unwrap();
        std::fs::set_permissions(mine.join("a/f"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        rustix::fs::fsetxattr(&held, "user.note", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        std::fs::set_permissions(mine.join("a/f"), std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        for _ in 0..2 {
            let problems = copy::tree(&mine.join("a"), &mine.join("b"), WriteOptions::default()).unwrap();
            assert!(problems.is_empty(), "{problems:?}");
            outsiders::agree(&mine.join("a"), &mine.join("b"));
        }
    });
}

#[test]
fn what_cannot_be_set_is_a_warning_and_the_file_is_there() {
    as_nobody(|place| {
        let target = Target::open(&place.join("mine"), false, WriteOptions::default()).unwrap();
        let mut node = Node::new(b"f".to_vec(), NodeKind::File);
        (node.uid, node.gid, node.mode, node.flags) = (0, 0, 0o6755, 0x10);
        node.xattrs =
            ["security.capability", "trusted.x", "user.y"].map(|name| Xattr { name: name.into(), value: b"1".to_vec() }).to_vec();
        let file = target.create_file(b"t").unwrap();
        file.write_at(0, b"content").unwrap();
        let problems = file.finish(&node, b"f").unwrap();
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 4, "{said:?}");
        for (words, line) in ["owner", "security.capability", "trusted.x", "flags"].iter().zip(&said) {
            assert!(line.contains(words), "{line}");
        }
        let seen = std::fs::metadata(place.join("mine/f")).unwrap();
        assert_eq!((seen.uid(), seen.mode() & 0o7777), (NOBODY, 0o755), "not set-id for somebody else");
        let device = Node { device: Some((1, 3)), ..Node::new(b"null".to_vec(), NodeKind::CharDevice) };
        let error = target.create_special(&device, b"null").unwrap_err();
        assert!(error.to_string().contains("make the device null") && error.hint().contains("root"), "{error}");
    });
}

#[test]
fn files_of_others_are_read_where_permitted_and_named_where_not() {
    as_nobody(|place| {
        let directory = Directory::open_root(place).unwrap();
        let stat = directory.stat(b"unreadable").unwrap();
        let error = SourceFile::open(&directory, b"unreadable", &stat).unwrap_err();
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::PermissionDenied));
        let (node, _) = directory.node(b"unreadable", &stat, &mut Owners::new(), &ReadOptions::default()).unwrap();
        assert_eq!((node.mode, node.user.as_slice()), (0o600, &b"root"[..]));
        let etc = Directory::open_root("/etc".as_ref()).unwrap();
        let stat = etc.stat(b"passwd").unwrap();
        let file = SourceFile::open(&etc, b"passwd", &stat).unwrap();
        assert!(file.read_at(&mut [0; 5], 0).unwrap() == 5, "without O_NOATIME, which only the owner may use");
        assert!(run(place, "id", &["-u"]).1);
    });
}
