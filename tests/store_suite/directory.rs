//! What may be lying in the directory of a repository, and what dead writers leave there.

use super::suite::key;
use lifeboat::error::ErrorKind;
use lifeboat::store::{Created, Key, Local, Store};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn made() -> (tempfile::TempDir, PathBuf, Local) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = Local::create(&root).unwrap();
    store.create(&Key::format(), b"format").unwrap();
    (dir, root, store)
}

fn listed(store: &Local) -> Vec<String> {
    let mut found = Vec::new();
    let taken = store.list("", &mut |entry| {
        found.push(entry.key.to_string());
        Ok(())
    });
    taken.unwrap();
    found.sort();
    found
}

fn temporaries(root: &Path) -> usize {
    fs::read_dir(root.join("tmp")).unwrap().count()
}

#[test]
fn something_else_in_the_place_of_an_object_is_damage_and_is_left_alone() {
    let (dir, root, store) = made();
    let outside = dir.path().join("outside");
    fs::write(&outside, b"not ours").unwrap();
    let (folder, link, dangling) = (key("log/aa/1"), key("log/aa/2"), key("log/aa/3"));
    fs::create_dir_all(root.join(folder.as_str())).unwrap();
    symlink(&outside, root.join(link.as_str())).unwrap();
    symlink(dir.path().join("nothing"), root.join(dangling.as_str())).unwrap();
    for key in [&folder, &link, &dangling] {
        assert_eq!(store.get(key, 100).unwrap_err().kind(), ErrorKind::Damaged, "{key}");
        assert_eq!(store.read_at(key, 0, &mut [0; 4]).unwrap_err().kind(), ErrorKind::Damaged, "{key}");
        assert_eq!(store.size(key).unwrap_err().kind(), ErrorKind::Damaged, "{key}");
        assert_eq!(store.create(key, b"mine").unwrap(), Created::Exists, "{key}");
    }
    assert_eq!(listed(&store), ["format/1"]);
    assert_eq!(fs::read(&outside).unwrap(), b"not ours");
    assert!(!dir.path().join("nothing").exists(), "nothing is written through a link");
    store.delete(&link).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"not ours", "the link goes, not what it leads to");
}

#[test]
fn a_fifo_in_the_place_of_an_object_is_damage_and_nobody_waits_for_it() {
    let (_dir, root, store) = made();
    let fifo = key("packs/ab/cd");
    fs::create_dir_all(root.join("packs/ab")).unwrap();
    let path = root.join(fifo.as_str());
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert_eq!(store.get(&fifo, 100).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(listed(&store), ["format/1"]);
}

#[test]
fn names_that_no_object_has_are_not_listed_and_not_entered() {
    let (_dir, root, store) = made();
    for name in ["lost+found", "packs/.snapshot", "packs/UPPER", "keys/with space"] {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join("1"), b"x").unwrap();
    }
    fs::write(root.join("packs/Thumbs.db"), b"x").unwrap();
    fs::write(root.join("README.txt"), b"x").unwrap();
    assert_eq!(listed(&store), ["format/1"]);
}

#[test]
fn objects_and_folders_are_for_their_owner_alone() {
    let (_dir, root, store) = made();
    store.put(&key("packs/ab/cd"), b"bytes").unwrap();
    let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("."), mode("packs"), mode("packs/ab"), mode("tmp")), (0o700, 0o700, 0o700, 0o700));
    assert_eq!((mode("packs/ab/cd"), mode("format/1")), (0o400, 0o400));
    // Whoever made them more open does not keep the store from working.
    fs::set_permissions(root.join("packs/ab"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(root.join("packs/ab/cd"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(store.get(&key("packs/ab/cd"), 9).unwrap(), b"bytes");
    store.put(&key("packs/ab/ce"), b"more").unwrap();
}

#[test]
fn folders_that_were_lost_are_made_again() {
    let (_dir, root, store) = made();
    for folder in ["tmp", "log", "packs", "gc"] {
        fs::remove_dir_all(root.join(folder)).unwrap();
    }
    store.put(&key("packs/ab/cd"), b"bytes").unwrap();
    assert_eq!(store.create(&key("log/aa/0"), b"record").unwrap(), Created::New);
    assert_eq!(listed(&store), ["format/1", "log/aa/0", "packs/ab/cd"]);
}

#[test]
fn a_place_that_holds_something_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let cases = ["photo.jpg", "packs/ab/cd", "format/1", "index/aa", "gc/1.plan", ".hidden/x"];
    for (number, name) in cases.iter().enumerate() {
        let root = dir.path().join(number.to_string());
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"here before").unwrap();
        assert_eq!(Local::create(&root).err().unwrap().kind(), ErrorKind::Refused, "{name}");
        assert_eq!(fs::read(&path).unwrap(), b"here before");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "{name}: nothing was added");
    }
    fs::create_dir_all(dir.path().join("mounted/lost+found")).unwrap();
    Local::create(&dir.path().join("mounted")).unwrap();
}

#[test]
fn what_an_interrupted_init_left_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let store = Local::create(dir.path()).unwrap();
    store.put(&key("keys/aa.age"), b"slot").unwrap();
    store.create(&key("log/aa/0"), b"genesis").unwrap();
    let again = Local::create(dir.path()).unwrap();
    assert_eq!(again.create(&Key::format(), b"format").unwrap(), Created::New);
    assert_eq!(Local::create(dir.path()).err().unwrap().kind(), ErrorKind::Refused);
}

#[test]
fn what_dead_writers_left_goes_with_the_first_write_and_no_reader_touches_it() {
    let (_dir, root, store) = made();
    let alive = store.stage().unwrap();
    assert_eq!(temporaries(&root), 1);
    let name = fs::read_dir(root.join("tmp")).unwrap().next().unwrap().unwrap().file_name();
    let (system, _) = name.to_str().unwrap().split_once('.').unwrap();
    let dead = root.join("tmp").join(format!("{system}.4194303.7.00112233445566ff"));
    fs::write(&dead, vec![1; 100_000]).unwrap();
    let reader = Local::open(&root).unwrap();
    reader.get(&Key::format(), 100).unwrap();
    listed(&reader);
    assert!(dead.exists(), "reading changes nothing");
    let writer = Local::open(&root).unwrap();
    writer.put(&key("packs/ab/cd"), b"bytes").unwrap();
    assert!(!dead.exists());
    assert_eq!(temporaries(&root), 1, "the one whose writer lives stays");
    alive.finish(&key("packs/ab/ce")).unwrap();
    assert_eq!((temporaries(&root), writer.size(&key("packs/ab/ce")).unwrap()), (0, Some(0)));
}

#[test]
fn an_object_whose_writer_died_before_it_removed_the_other_name_stays() {
    let (_dir, root, store) = made();
    let staged = store.stage().unwrap();
    let name = fs::read_dir(root.join("tmp")).unwrap().next().unwrap().unwrap().path();
    drop(staged);
    store.put(&key("packs/ab/cd"), b"bytes").unwrap();
    // As if the process had ended between giving the name and removing the temporary one.
    fs::hard_link(root.join("packs/ab/cd"), &name).unwrap();
    Local::open(&root).unwrap().put(&key("packs/ab/ce"), b"more").unwrap();
    assert!(!name.exists());
    assert_eq!(store.get(&key("packs/ab/cd"), 9).unwrap(), b"bytes");
}
