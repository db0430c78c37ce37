//! Restoring over what is there: nothing that the snapshot does not know of is lost.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use std::path::Path;
use support::home::Home;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("{error}"))
}

/// A home of which two folders are backed up by their absolute paths, with something beside them and the repository.
fn home() -> Home {
    let home = Home::new();
    for folder in ["work/deep", "letters", "beside"] {
        std::fs::create_dir_all(home.path(folder)).unwrap();
    }
    for (file, text) in [("work/a", "one"), ("work/deep/b", "two"), ("letters/c", "three"), ("beside/d", "four")] {
        std::fs::write(home.path(file), text).unwrap();
    }
    let (work, letters) = (home.path("work"), home.path("letters"));
    home.ok(&["backup", work.to_str().unwrap(), letters.to_str().unwrap()]);
    home
}

#[test]
fn changed_and_lost_files_come_back_and_everything_else_stays() {
    let home = home();
    std::fs::write(home.path("work/a"), "changed").unwrap();
    std::fs::remove_dir_all(home.path("work/deep")).unwrap();
    std::fs::write(home.path("work/new"), "new").unwrap();
    let dry = home.json(&["restore", "latest", "--in-place", "--dry-run", "--delete", "--json"]);
    let figures: Vec<_> = ["files", "unchanged", "deleted"].map(|key| dry[key].as_u64().unwrap()).to_vec();
    assert_eq!(figures, [2, 1, 1], "what would be written, what is equal, what would be removed: {dry}");
    assert_eq!((read(&home.path("work/a")), read(&home.path("work/new"))), ("changed".into(), "new".into()));
    assert!(!home.path("work/deep").exists());

    home.ok(&["restore", "latest", "--in-place"]);
    for (file, text) in [("work/a", "one"), ("work/deep/b", "two"), ("work/new", "new"), ("beside/d", "four")] {
        assert_eq!(read(&home.path(file)), text, "{file}");
    }
}

#[test]
fn delete_keeps_to_the_paths_that_were_backed_up() {
    let home = home();
    std::fs::write(home.path("work/deep/new"), "new").unwrap();
    std::fs::create_dir_all(home.path("letters/other/below")).unwrap();
    let report = home.json(&["restore", "latest", "--in-place", "--delete", "--json"]);
    assert_eq!(report["deleted"], 2, "{report}");
    assert!(!home.path("work/deep/new").exists() && !home.path("letters/other").exists());
    assert_eq!(read(&home.path("beside/d")), "four", "what lies beside the paths is not the snapshot's to remove");
    assert!(Path::new("/usr/bin").exists());
    home.ok(&["check", "--read-data"]);

    home.ok(&["restore", "latest", "--to", "out"]);
    std::fs::write(home.path("out/mine"), "mine").unwrap();
    let inside = home.path("out").join(home.path("work").strip_prefix("/").unwrap());
    std::fs::write(inside.join("new"), "new").unwrap();
    home.ok(&["restore", "latest", "--to", "out", "--delete"]);
    assert!(home.path("out/mine").exists() && !inside.join("new").exists());
}

#[test]
fn a_home_is_backed_up_without_the_repository_in_it_and_delete_leaves_that_alone() {
    let home = home();
    let whole = home.dir.path().to_str().unwrap().to_owned();
    home.ok(&["backup", &whole, "--tag", "whole"]);
    let list = home.ok(&["ls", "-R", "latest", "--tag", "whole"]);
    assert!(list.contains("beside/d") && list.contains("identity.txt"), "{list}");
    assert!(!list.contains("repository/") && !list.contains("sqlite") && !list.contains(".heads"), "{list}");
    let again = home.json(&["backup", &whole, "--tag", "whole", "--json"]);
    // The folder of all homes is another one as soon as another test runs.
    assert!(again["new"] == 0 && again["bytes_added"].as_u64().unwrap() < 1000, "{again}");

    std::fs::write(home.path("extra"), "x").unwrap();
    home.ok(&["restore", "latest", "--tag", "whole", "--in-place", "--delete"]);
    assert!(!home.path("extra").exists());
    home.ok(&["check", "--read-data"]);
    let repository = home.repository_dir();
    assert_eq!(home.code(&["backup", repository.to_str().unwrap()]), 2, "a repository cannot hold itself");
    assert_eq!(home.code(&["backup", repository.join("packs").to_str().unwrap()]), 2);
}

#[test]
fn a_folder_that_came_later_and_holds_the_repository_is_not_removed() {
    let home = home();
    std::fs::create_dir(home.path("work/disk")).unwrap();
    home.ok(&["backup", home.path("letters").to_str().unwrap(), "--tag", "letters"]);
    let first = home.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    std::fs::rename(home.repository_dir(), home.path("work/disk/moved")).unwrap();
    let report = home.json(&["--repo", "work/disk/moved", "restore", &first, "--in-place", "--delete", "--json"]);
    assert_eq!(report["deleted"], 0, "{report}");
    home.ok(&["--repo", "work/disk/moved", "check", "--read-data"]);
}

#[test]
fn what_is_mounted_is_not_removed() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can mount");
    }
    let home = home();
    std::fs::create_dir_all(home.path("work/mounted")).unwrap();
    home.ok(&["backup", home.path("work").to_str().unwrap(), "--tag", "mounts"]);
    std::fs::create_dir_all(home.path("work/later/mounted")).unwrap();
    let script =
        "set -e; for place in work/mounted work/later/mounted; do mount -t tmpfs none $place; echo kept > $place/file; done
        status=0; \"$0\" restore latest --tag mounts --in-place --delete || status=$?
        cat work/mounted/file work/later/mounted/file; exit $status";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_lifeboat")]).current_dir(home.dir.path());
    command.env_clear().env("HOME", home.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("unshare failed") || said.contains("mount:") {
        return println!("skipped: nothing can be mounted here");
    }
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("kept\nkept\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(3), "it is said: {said}");
    assert!(said.contains("another file system is mounted there"), "{said}");
}

#[test]
fn each_way_to_overwrite_does_what_it_says() {
    let home = home();
    let file = home.path("work/a");
    let mut touched = [std::time::Duration::ZERO; 2];
    touched[1] = std::time::Duration::from_secs(86_400);
    for (way, later, expected) in [
        ("always", false, "one"),
        ("always", true, "one"),
        ("if-changed", false, "one"),
        ("if-changed", true, "one"),
        ("if-newer", false, "one"),
        ("if-newer", true, "mine"),
        ("never", false, "mine"),
        ("never", true, "mine"),
    ] {
        std::fs::write(&file, "mine").unwrap();
        let backed_up = std::fs::metadata(home.path("letters/c")).unwrap().modified().unwrap();
        let time = if later { backed_up + touched[1] } else { backed_up - touched[1] };
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        home.ok(&["restore", "latest", "--in-place", "--overwrite", way]);
        assert_eq!(read(&file), expected, "{way}, later: {later}");
    }
    assert_eq!(home.code(&["restore", "latest", "--to", "work"]), 11, "without a word about it nothing is overwritten");
}

#[test]
fn in_place_needs_to_know_the_place() {
    let home = Home::filled();
    let output = home.run(&["restore", "latest", "--in-place"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--to DIR"));
    let mut here = home.command(&["backup", "."]);
    assert!(here.current_dir(home.path("documents")).status().unwrap().success());
    std::fs::remove_file(home.path("documents/note")).unwrap();
    home.ok(&["restore", "latest", "--in-place"]);
    assert_eq!(read(&home.path("documents/note")), "hello");
}

#[test]
fn a_directory_in_the_way_of_a_file_is_emptied_only_by_whoever_asked_for_that() {
    let home = home();
    std::fs::remove_file(home.path("work/a")).unwrap();
    std::fs::create_dir(home.path("work/a")).unwrap();
    std::fs::write(home.path("work/a/mine"), "mine").unwrap();
    let output = home.run(&["restore", "latest", "--in-place"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("a directory that is not empty is there"), "{said}");
    assert_eq!(read(&home.path("work/a/mine")), "mine");

    home.ok(&["restore", "latest", "--in-place", "--delete"]);
    assert_eq!(read(&home.path("work/a")), "one");

    std::fs::remove_file(home.path("work/a")).unwrap();
    std::fs::create_dir(home.path("work/a")).unwrap();
    home.ok(&["restore", "latest", "--in-place"]);
    assert_eq!(read(&home.path("work/a")), "one", "an empty one holds nothing that could be lost");
}

#[test]
fn a_directory_in_the_way_that_holds_the_repository_stays_whatever_was_asked_for() {
    let home = home();
    let first = home.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    std::fs::remove_file(home.path("work/a")).unwrap();
    std::fs::create_dir(home.path("work/a")).unwrap();
    std::fs::rename(home.repository_dir(), home.path("work/a/moved")).unwrap();
    for more in [&["--dry-run"][..], &[]] {
        let arguments = [&["--repo", "work/a/moved", "restore", &first, "--in-place", "--delete"], more].concat();
        let output = home.run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && said.contains("belongs to lifeboat"), "{more:?}: {said}");
    }
    home.ok(&["--repo", "work/a/moved", "check", "--read-data"]);
}
