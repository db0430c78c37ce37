//! Looking at directories and reading files while others change them.

use super::{is_root, shell};
use lifeboat::error::ErrorKind;
use lifeboat::format::tree::NodeKind;
use lifeboat::source::files::{Directory, Owners, ReadOptions, SourceFile, Target, WriteOptions, differences};
use std::io::Write;

#[test]
fn a_directory_of_100_000_entries_is_listed_in_order() {
    let place = tempfile::tempdir_in(if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "." }).unwrap();
    let target = Target::open(place.path(), false, WriteOptions::default()).unwrap();
    let name = |index: u32| format!("{:08x}{}", index.wrapping_mul(2_654_435_761), "x".repeat((index % 7) as usize));
    for index in 0..100_000 {
        let fd = rustix::fs::openat(
            target.directory(),
            name(index),
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
            rustix::fs::Mode::RUSR,
        );
        drop(fd.unwrap());
    }
    let names = target.directory().names().unwrap();
    assert_eq!(names.len(), 100_000);
    assert!(names.iter().zip(names.iter().skip(1)).all(|(left, right)| left < right), "not ascending");
    for index in [0, 1, 77_777, 99_999] {
        let at = names.find(name(index).as_bytes()).unwrap();
        assert_eq!(names.get(at), name(index).as_bytes());
        assert!(matches!(names.kind(at), Some(NodeKind::File) | None));
    }
    assert_eq!(names.find(b"not there"), None);
    assert_eq!(target.directory().names().unwrap().len(), 100_000, "a second listing sees the same");
}

#[test]
fn names_that_differ_late_or_in_length_only_are_in_byte_order() {
    let place = tempfile::tempdir().unwrap();
    let mut expected =
        ["a", "aa", "aaaaaaaa", "aaaaaaaaa", "aaaaaaaab", "aaaaaaab", "b", "\u{7f}", "\u{80}", "B"].map(str::to_owned);
    for name in &expected {
        std::fs::write(place.path().join(name), "").unwrap();
    }
    expected.sort_by(|left, right| left.as_bytes().cmp(right.as_bytes()));
    let names = Directory::open_root(place.path()).unwrap().names().unwrap();
    assert!(names.iter().eq(expected.iter().map(String::as_bytes)));
}

#[test]
fn a_path_longer_than_any_path_may_be_is_walked() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("a"), place.path().join("b"));
    let name = vec![b'd'; 250];
    let mut target = Target::open(&from, true, WriteOptions::default()).unwrap();
    for _ in 0..40 {
        target = target.child(&name).unwrap();
    }
    let file = target.create_file(b"bottom").unwrap();
    file.write_at(0, b"10,000 bytes down").unwrap();
    file.finish(&lifeboat::format::tree::Node::new(b"bottom".to_vec(), NodeKind::File), b"bottom").unwrap();
    rustix::fs::fsetxattr(target.directory(), "user.note", b"deep", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::symlinkat("x", target.directory(), "link").unwrap();
    super::copy::tree(&from, &to, WriteOptions::default()).unwrap();

    let mut copied = Directory::open_root(&to).unwrap();
    for _ in 0..40 {
        copied = copied.open_child(&name).unwrap();
    }
    let (mut owners, options) = (Owners::new(), ReadOptions::default());
    for entry in [&b"bottom"[..], b"link"] {
        let read = |at: &Directory, owners: &mut Owners| at.node(entry, &at.stat(entry).unwrap(), owners, &options).unwrap().0;
        let (left, right) = (read(target.directory(), &mut owners), read(&copied, &mut owners));
        assert!(differences(&left, &right).is_empty(), "{:?}", differences(&left, &right));
    }
    let (node, problems) = copied.node_self(b"d", &copied.stat_self().unwrap(), &mut owners, &options);
    assert!(problems.is_empty() && node.xattrs[0].value == b"deep");
    let top = Target::open(place.path(), false, WriteOptions::default()).unwrap();
    top.remove_all(b"a").unwrap();
    top.remove_all(b"b").unwrap();
    assert!(top.directory().names().unwrap().is_empty(), "nothing is left of a tree deeper than any path");
}

#[test]
fn a_tree_deeper_than_the_usual_limit_of_open_files_is_copied() {
    let place = tempfile::tempdir().unwrap();
    let mut target = Target::open(&place.path().join("a"), true, WriteOptions::default()).unwrap();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!(limit.current, limit.maximum);
    if limit.maximum.is_some_and(|most| most < 6000) {
        eprintln!("skipped: only {:?} open files are permitted", limit.maximum);
        return;
    }
    for _ in 0..1500 {
        target = target.child(b"d").unwrap();
    }
    let (from, to) = (place.path().join("a"), place.path().join("b"));
    // The copy of these tests calls itself for each directory.
    let copy = move || super::copy::tree(&from, &to, WriteOptions::default()).unwrap();
    std::thread::Builder::new().stack_size(64 << 20).spawn(copy).unwrap().join().unwrap();
    let copied = Target::open(&place.path().join("b"), false, WriteOptions::default()).unwrap();
    copied.open_path("d/".repeat(1500).as_bytes()).unwrap();
    let top = Target::open(place.path(), false, WriteOptions::default()).unwrap();
    top.remove_all(b"a").unwrap();
    top.remove_all(b"b").unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("f");
    std::fs::write(&path, "before").unwrap();
    let directory = Directory::open_root(place.path()).unwrap();
    let stat = directory.stat(b"f").unwrap();
    let mut file = SourceFile::open(&directory, b"f", &stat).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(file.read(&mut buffer).unwrap(), 6);
    assert!(!file.changed().unwrap());
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b", after").unwrap();
    assert!(file.changed().unwrap());
    assert_eq!(file.read(&mut buffer).unwrap(), 7, "what was appended is read on");
    assert_eq!(file.read(&mut buffer).unwrap(), 0);
}

#[test]
fn what_took_a_files_place_is_never_read() {
    let place = tempfile::tempdir().unwrap();
    assert!(shell(place.path(), "echo secret > other; echo mine > f; cp f f2; mkfifo pipe; mkdir d"));
    let directory = Directory::open_root(place.path()).unwrap();
    let stat = directory.stat(b"f").unwrap();
    for (swap, what) in [("cp other f", "file"), ("ln -s other f", "link"), ("mkfifo f", "fifo"), ("mkdir f", "directory")] {
        assert!(shell(place.path(), &format!("mv f held; {swap}")));
        let opened = SourceFile::open(&directory, b"f", &stat);
        assert!(opened.is_err(), "a {what} was opened");
        assert!(shell(place.path(), "rm -rf f; mv held f"));
    }
    SourceFile::open(&directory, b"f", &stat).unwrap();
    assert!(shell(place.path(), "rm f"));
    assert_eq!(SourceFile::open(&directory, b"f", &stat).unwrap_err().kind(), ErrorKind::Missing);
}

/// A file server holds leases on files that it serves; a backup has to wait until it gives one up.
#[test]
fn a_file_under_a_lease_is_read_once_its_holder_lets_go() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    if !cfg!(target_os = "linux") || !super::has("python3") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("f"), "leased").unwrap();
    let holder = "import fcntl, os, signal, sys
signal.signal(signal.SIGIO, lambda *_: fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK))
held = os.open('f', os.O_RDWR)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()";
    let mut command = Command::new("python3");
    command.args(["-c", holder]).current_dir(place.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line == "held\n" {
        let directory = Directory::open_root(place.path()).unwrap();
        let stat = directory.stat(b"f").unwrap();
        let mut buffer = [0; 10];
        assert_eq!(SourceFile::open(&directory, b"f", &stat).unwrap().read_at(&mut buffer, 0).unwrap(), 6);
    } else {
        eprintln!("skipped: no leases here");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn reading_leaves_the_access_time_alone() {
    let place = tempfile::tempdir().unwrap();
    assert!(shell(place.path(), "mkdir d; echo x > d/f; touch -a -d 2001-01-01 d/f d; touch -m -d 2002-01-01 d/f"));
    let directory = Directory::open_root(place.path()).unwrap();
    let below = directory.open_child(b"d").unwrap();
    below.names().unwrap();
    let stat = below.stat(b"f").unwrap();
    SourceFile::open(&below, b"f", &stat).unwrap().read_at(&mut [0; 10], 0).unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(below.stat(b"f").unwrap().atime, stat.atime);
        assert_eq!(directory.stat(b"d").unwrap().atime, below.stat_self().unwrap().atime);
        assert_eq!(stat.atime.secs, directory.stat(b"d").unwrap().atime.secs);
    }
}

#[test]
fn access_times_are_kept_on_request_only() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("f"), "x").unwrap();
    let directory = Directory::open_root(place.path()).unwrap();
    let stat = directory.stat(b"f").unwrap();
    let mut owners = Owners::new();
    let mut node = |options| directory.node(b"f", &stat, &mut owners, &options).unwrap().0;
    assert_eq!(node(ReadOptions::default()).atime, None);
    assert_eq!(node(ReadOptions { atime: true, ..ReadOptions::default() }).atime, Some(stat.atime));
}

#[test]
fn all_ways_to_a_node_agree() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    assert!(shell(place.path(), "echo x > f; ln f g; mkdir d; chown 1:2 f d"));
    for name in ["f", "d"] {
        let held = std::fs::File::open(place.path().join(name)).unwrap();
        rustix::fs::fsetxattr(&held, "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let directory = Directory::open_root(place.path()).unwrap();
    let (mut owners, options) = (Owners::new(), ReadOptions::default());
    let stat = directory.stat(b"f").unwrap();
    let (by_name, _) = directory.node(b"f", &stat, &mut owners, &options).unwrap();
    let by_file = SourceFile::open(&directory, b"f", &stat).unwrap().node(b"f", &mut owners, &options).0;
    let by_path = directory.node(b"f", &stat, &mut owners, &ReadOptions { flags: false, ..options }).unwrap().0;
    assert_eq!(by_name, by_file);
    assert_eq!(differences(&by_name, &by_path), Vec::<&str>::new());
    assert_eq!((by_name.link, by_name.xattrs.len()), (Some((stat.dev, stat.ino)), 1));
    let below = directory.open_child(b"d").unwrap();
    let stat = below.stat_self().unwrap();
    let by_name = directory.node(b"d", &stat, &mut owners, &options).unwrap().0;
    assert_eq!(by_name, below.node_self(b"d", &stat, &mut owners, &options).0);
    assert_eq!((by_name.user.as_slice(), by_name.link), (&b"daemon"[..], None));
}
