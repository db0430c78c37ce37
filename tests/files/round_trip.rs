//! Trees with everything in them, read out and put back.

use super::{copy, has, is_root, outsiders, shell};
use lifeboat::source::files::WriteOptions;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Copies `tree/a` to `tree/b` without a problem, and asks the others.
fn copies_exactly(top: &Path) {
    let (from, to) = (top.join("a"), top.join("b"));
    let problems = copy::tree(&from, &to, WriteOptions::default()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    outsiders::agree(&from, &to);
}

fn trees() -> Vec<tempfile::TempDir> {
    let mut places = vec![tempfile::tempdir().unwrap()];
    if Path::new("/dev/shm").is_dir() {
        places.push(tempfile::tempdir_in("/dev/shm").unwrap());
    }
    for place in &places {
        std::fs::create_dir(place.path().join("a")).unwrap();
    }
    places
}

#[test]
fn names_of_any_bytes_come_back() {
    for place in trees() {
        let top = place.path().join("a");
        let names: [&[u8]; 8] = [
            b"plain",
            b"new\nline",
            b"\xff\xfe not UTF-8",
            b" ",
            b"-rf",
            b"\x01\x1b[31m",
            "\u{e9}\u{301}".as_bytes(),
            &[b'n'; 255],
        ];
        for name in names {
            std::fs::write(top.join(OsStr::from_bytes(name)), name).unwrap();
        }
        std::fs::create_dir(top.join(OsStr::from_bytes(b"dir\xf0\n"))).unwrap();
        std::fs::write(top.join(OsStr::from_bytes(b"dir\xf0\n/\\")), b"").unwrap();
        copies_exactly(place.path());
    }
}

#[test]
fn modes_and_owners_come_back() {
    if !is_root() {
        return;
    }
    for place in trees() {
        let top = place.path().join("a");
        for mode in [0, 0o400, 0o644, 0o777, 0o1777, 0o2755, 0o4755, 0o6711, 0o7000] {
            assert!(shell(&top, &format!("echo x > f{mode:o}; mkdir d{mode:o}; echo y > d{mode:o}/x")));
            assert!(shell(&top, &format!("chown 1234:{mode} f{mode:o} d{mode:o}; chmod {mode:04o} f{mode:o} d{mode:o}")));
        }
        assert!(shell(&top, "touch daemons; chown daemon:daemon daemons; chmod 2750 ."));
        copies_exactly(place.path());
    }
}

#[test]
fn times_of_any_age_come_back_to_the_nanosecond() {
    for place in trees() {
        let top = place.path().join("a");
        let times = ["1901-12-14 00:00:00.000000001", "1969-12-31 23:59:59.999999999", "1970-01-01", "2400-02-29 12:00:00.5"];
        for (index, time) in times.iter().enumerate() {
            assert!(shell(&top, &format!("touch -d '{time} UTC' file{index}; mkdir dir{index}; ln -s nowhere link{index}")));
            assert!(shell(&top, &format!("echo content > dir{index}/inner; touch -h -d '{time} UTC' link{index} dir{index}")));
        }
        copies_exactly(place.path());
    }
}

#[test]
fn links_of_all_kinds_come_back() {
    for place in trees() {
        let top = place.path().join("a");
        symlink("/nowhere/at/all", top.join("dangling")).unwrap();
        symlink("x".repeat(4095), top.join("long")).unwrap();
        symlink(OsStr::from_bytes(b"\xff\n"), top.join("odd")).unwrap();
        std::fs::create_dir(top.join("below")).unwrap();
        std::fs::write(top.join("file"), "one file").unwrap();
        std::fs::hard_link(top.join("file"), top.join("below/again")).unwrap();
        std::fs::hard_link(top.join("file"), top.join("zzz")).unwrap();
        std::fs::hard_link(top.join("dangling"), top.join("below/dangling too")).unwrap();
        copies_exactly(place.path());
    }
}

#[test]
fn fifos_sockets_and_devices_come_back() {
    if !is_root() {
        return;
    }
    for place in trees() {
        let top = place.path().join("a");
        assert!(shell(
            &top,
            "mkfifo -m 0612 fifo; mknod null c 1 3; mknod big b 4095 1048575; chown 5:6 null fifo; chmod 0777 big"
        ));
        drop(UnixListener::bind(top.join("socket")).unwrap());
        assert!(shell(&top, "chmod 0750 socket; chown 7:8 socket; touch -d 1999-01-01 socket fifo null"));
        copies_exactly(place.path());
    }
}

#[test]
fn attributes_acls_and_capabilities_come_back() {
    if !is_root() || !has("setfattr") || !has("setfacl") || !has("setcap") {
        return;
    }
    let place = &trees()[0];
    let top = place.path().join("a");
    assert!(shell(&top, "echo x > f; mkdir d; ln -s f l; mkfifo p; echo y > d/inner; cp /bin/true program"));
    assert!(shell(&top, "setfattr -n user.empty f; setfattr -n user.note -v 'a\\012b' f d; setfattr -n trusted.x -v 1 f d p"));
    assert!(shell(&top, "setfattr -h -n trusted.link -v on-the-link l; setfattr -n security.test -v s f"));
    assert!(shell(&top, "head -c 3000 /dev/urandom | base64 -w0 > big; setfattr -n user.big -v \"$(head -c 3000 big)\" big"));
    assert!(shell(&top, "setfacl -m u:1234:rwx,g:77:r f p; setfacl -m d:u:1234:rwx,u:daemon:x d; chmod 4750 program"));
    assert!(shell(&top, "setcap cap_net_raw,cap_chown+ep program; chmod 0000 f"));
    copies_exactly(place.path());
}

#[test]
fn a_value_of_64_kib_comes_back() {
    let Some(place) = trees().pop() else { return };
    let top = place.path().join("a");
    std::fs::write(top.join("f"), "").unwrap();
    let file = std::fs::File::open(top.join("f")).unwrap();
    let value: Vec<u8> = (0..65_536_u32).map(|index| index.to_le_bytes()[0]).collect();
    if rustix::fs::fsetxattr(&file, "user.large", &value, rustix::fs::XattrFlags::empty()).is_err() {
        eprintln!("skipped: no file system here takes such values");
        return;
    }
    for index in 0..100 {
        rustix::fs::fsetxattr(&file, format!("user.number {index}"), b"x", rustix::fs::XattrFlags::empty()).unwrap();
    }
    copies_exactly(place.path());
}

#[test]
fn an_acl_that_the_target_would_give_is_not_kept() {
    if !has("setfacl") {
        return;
    }
    let place = &trees()[0];
    let (from, to) = (place.path().join("a"), place.path().join("b"));
    assert!(shell(&from, "echo x > f; mkdir d; mkfifo p; chmod 0640 f; mkdir ../b; setfacl -d -m u:1234:rwx ../b"));
    assert!(copy::tree(&from, &to, WriteOptions::default()).unwrap().is_empty());
    outsiders::agree(&from, &to);
}

#[test]
fn inode_flags_come_back_even_those_that_forbid_it() {
    if !is_root() || !has("chattr") || !has("lsattr") {
        return;
    }
    for place in trees() {
        let top = place.path().join("a");
        assert!(shell(&top, "echo x > f; ln f zz; mkdir -p d e/deep; echo y > d/inner; echo z > e/deep/log"));
        if !shell(&top, "chattr +d f && chattr +A d") {
            eprintln!("skipped: no inode flags on this file system");
            continue;
        }
        assert!(shell(&top, "chattr +i f; chattr +a e/deep/log; chattr +i d"));
        copies_exactly(place.path());
        assert!(shell(place.path(), "chattr -R -i -a a b"));
    }
}

#[test]
fn sparse_files_come_back_with_their_exact_holes() {
    for place in trees() {
        let top = place.path().join("a");
        assert!(shell(&top, "truncate -s 40M all-hole; truncate -s 5000 tail; printf x | dd of=tail conv=notrunc status=none"));
        assert!(shell(
            &top,
            "truncate -s 64M mixed; for at in 0 3 700 16383; do printf data | dd of=mixed bs=4096 seek=$at conv=notrunc status=none; done"
        ));
        assert!(shell(
            &top,
            "head -c 20000 /dev/zero > zeros; : > empty; mkdir empty-directory; printf end | dd of=head bs=1M seek=9 status=none"
        ));
        copies_exactly(place.path());
    }
}

#[test]
fn a_hole_of_terabytes_takes_no_time() {
    let Some(place) = trees().pop() else { return };
    if !shell(&place.path().join("a"), "truncate -s 7T huge; printf end >> huge") {
        eprintln!("skipped: no file this large here");
        return;
    }
    copy::tree(&place.path().join("a"), &place.path().join("b"), WriteOptions::default()).unwrap();
    let seen = |tree: &str| std::fs::metadata(place.path().join(tree).join("huge")).unwrap();
    assert_eq!((seen("a").len(), seen("a").blocks()), (seen("b").len(), seen("b").blocks()));
}
