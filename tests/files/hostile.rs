//! Nothing that a snapshot or another process does leads outside the target.

use super::{is_root, shell};
use lifeboat::error::ErrorKind;
use lifeboat::format::tree::{Node, NodeKind, Time, Xattr};
use lifeboat::source::files::{Target, TargetDir, WriteOptions};
use rustix::fs::RenameFlags;
use std::sync::atomic::{AtomicBool, Ordering};

const HOSTILE: [&[u8]; 8] = [b"", b".", b"..", b"/", b"/etc/passwd", b"../outside", b"a/b", b"nul\0byte"];

#[test]
fn hostile_names_are_refused_by_every_call() {
    let place = tempfile::tempdir().unwrap();
    let target = Target::open(place.path(), false, WriteOptions { replace: true, ..WriteOptions::default() }).unwrap();
    let refused = |result: lifeboat::error::Result<()>, what: &str| {
        assert_eq!(result.expect_err(what).kind(), ErrorKind::Refused, "{what}");
    };
    for name in HOSTILE {
        refused(target.child(name).map(drop), "child");
        refused(target.open_child(name).map(drop), "open_child");
        refused(target.create_file(name).map(drop), "create_file");
        refused(target.open_file(name).map(drop), "open_file");
        refused(target.create_special(&Node::new(name.to_vec(), NodeKind::Fifo), name).map(drop), "create_special");
        refused(target.link(name, &target, b"x"), "link");
        refused(target.link(b"x", &target, name), "link");
        refused(target.remove_all(name), "remove_all");
        let file = target.create_file(b"temporary").unwrap();
        refused(file.finish(&Node::new(name.to_vec(), NodeKind::File), name).map(drop), "finish");
    }
    assert!(target.directory().names().unwrap().is_empty());
}

#[test]
fn metadata_that_no_system_takes_are_a_warning() {
    let place = tempfile::tempdir().unwrap();
    let target = Target::open(place.path(), false, WriteOptions::default()).unwrap();
    let mut node = Node::new(b"f".to_vec(), NodeKind::File);
    node.mode = 0xffff_ffff;
    (node.uid, node.gid) = (u32::MAX, 0);
    node.mtime = Time { secs: i64::MIN, nanos: 0x3fff_ffff };
    node.flags = u32::MAX;
    node.xattrs = vec![
        Xattr { name: b"no namespace".to_vec(), value: vec![] },
        Xattr { name: b"user.a\0b".to_vec(), value: vec![] },
        Xattr { name: vec![b'x'; 300], value: vec![0; 70_000] },
        Xattr { name: b"system.posix_acl_access".to_vec(), value: b"garbage".to_vec() },
    ];
    let file = target.create_file(b"t").unwrap();
    file.write_at(0, b"content").unwrap();
    let problems = file.finish(&node, b"f").unwrap();
    assert!(problems.len() >= 4, "{problems:?}");
    assert_eq!(std::fs::read(place.path().join("f")).unwrap(), b"content");
    target.remove_all(b"f").unwrap();
}

#[test]
fn a_link_in_place_of_a_directory_is_not_followed() {
    let place = tempfile::tempdir().unwrap();
    assert!(shell(place.path(), "mkdir target outside; ln -s ../outside target/d"));
    let target = Target::open(&place.path().join("target"), false, WriteOptions::default()).unwrap();
    assert_eq!(target.child(b"d").unwrap_err().kind(), ErrorKind::Refused);
    assert!(target.open_child(b"d").is_err());
    assert!(target.open_file(b"d").is_err());
    let held = {
        let options = WriteOptions { replace: true, ..WriteOptions::default() };
        Target::open(&place.path().join("target"), false, options).unwrap().child(b"d").unwrap()
    };
    assert!(shell(&place.path().join("target"), "mv d elsewhere; ln -s ../outside d"));
    held.create_file(b"t").unwrap().finish(&Node::new(b"f".to_vec(), NodeKind::File), b"f").unwrap();
    assert!(place.path().join("target/elsewhere/f").exists());
    assert_eq!(std::fs::read_dir(place.path().join("outside")).unwrap().count(), 0);
}

/// Another process swaps every name between a directory and a link to the outside as fast as it can.
#[test]
fn a_link_swapped_in_during_a_restore_never_leads_outside() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    assert!(shell(
        place.path(),
        "mkdir target outside; echo precious > outside/f; chmod 600 outside/f; mkdir target/d; ln -s ../outside target/swap"
    ));
    assert!(shell(place.path(), "ln -s ../outside/f target/link; mkfifo target/p"));
    let before = std::fs::read_dir(place.path().join("outside")).unwrap().count();
    let stop = AtomicBool::new(false);
    let path = place.path().join("target");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let target = rustix::fs::open(&path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(&target, "d", &target, "swap", RenameFlags::EXCHANGE);
                let _ = rustix::fs::renameat_with(&target, "p", &target, "link", RenameFlags::EXCHANGE);
            }
        });
        let target = Target::open(&path, false, WriteOptions::default()).unwrap();
        let mut reached = 0;
        for _ in 0..3000 {
            reached += u32::from(write_into(&target));
            let mut fifo = Node::new(b"p".to_vec(), NodeKind::Fifo);
            (fifo.mode, fifo.uid) = (0o777, 12);
            fifo.xattrs = vec![Xattr { name: b"trusted.x".to_vec(), value: b"1".to_vec() }];
            let _ = target.create_special(&fifo, b"p");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reached > 0, "the directory was there sometimes");
    });
    assert_eq!(std::fs::read_dir(place.path().join("outside")).unwrap().count(), before);
    assert!(shell(place.path(), "test \"$(stat -c %a:%u outside/f)\" = 600:0 && grep -q precious outside/f"));
}

fn write_into(target: &TargetDir) -> bool {
    let Ok(below) = target.child(b"d") else { return false };
    let mut node = Node::new(b"f".to_vec(), NodeKind::File);
    (node.mode, node.uid) = (0o777, 12);
    let Ok(file) = below.create_file(&TargetDir::temporary_name()) else { return false };
    let written = file.finish(&node, b"f").is_ok();
    below.finish(&Node { mode: 0o700, ..Node::new(b"d".to_vec(), NodeKind::Directory) });
    written
}
