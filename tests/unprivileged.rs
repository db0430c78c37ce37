//! Restores by somebody who is not root, directories with very many entries, and the memory that very many files take.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use support::home::Home;

#[test]
fn nobody_gets_the_files_back_and_is_told_what_could_not_be_set() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can become another user");
    }
    let home = Home::filled();
    std::fs::write(home.path("documents/tool"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(home.path("documents/tool"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::hard_link(home.path("documents/note"), home.path("documents/deep/second-name")).unwrap();
    let made = std::process::Command::new("mknod").args(["device", "c", "1", "3"]).current_dir(home.path("documents")).status();
    let device = made.is_ok_and(|status| status.success());
    home.ok(&["backup", "documents"]);

    let output = home.as_nobody(&["restore", "latest", "--to", "out", "--verify", "--verbose", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // A device is content that nobody but root can make; owners are not.
    let (code, failures) = if device { (3, 1) } else { (0, 0) };
    assert_eq!((output.status.code(), &report["failure_count"]), (Some(code), &failures.into()), "{said}");
    assert!(report["warnings"].as_u64().unwrap() > 0 && said.contains("set the owner"), "owners could not be set: {report}");
    assert_eq!(said.contains("make the device"), device, "{said}");
    assert_eq!(std::fs::read_to_string(home.path("out/documents/note")).unwrap(), "hello");
    let tool = std::fs::metadata(home.path("out/documents/tool")).unwrap();
    assert_eq!((tool.uid(), tool.mode() & 0o7777), (65_534, 0o755), "a program must not run as whoever restored it");
    let inode = |name: &str| std::fs::metadata(home.path("out/documents").join(name)).unwrap().ino();
    assert_eq!(inode("note"), inode("deep/second-name"));

    // What is in the way and closed is opened, changed, and closed again.
    let note = home.path("out/documents/deep/data");
    std::fs::write(&note, "changed").unwrap();
    std::fs::set_permissions(&note, std::fs::Permissions::from_mode(0o400)).unwrap();
    let again = home.as_nobody(&["restore", "latest", "--to", "out", "--overwrite", "always", "--json"]).output().unwrap();
    assert_eq!(again.status.code(), output.status.code(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(std::fs::metadata(&note).unwrap().len(), 300_000);
    let refused = home.as_nobody(&["restore", "latest", "--to", "/proc/lifeboat"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn what_could_not_be_read_for_a_snapshot_is_not_removed_by_its_restore() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can become another user");
    }
    let home = Home::new();
    std::fs::create_dir_all(home.path("documents/closed/below")).unwrap();
    for file in ["documents/note", "documents/secret", "documents/closed/below/file"] {
        std::fs::write(home.path(file), file).unwrap();
    }
    let mode = |name: &str, mode| std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    mode("documents/closed", 0);
    mode("documents/secret", 0);
    assert_eq!(home.as_nobody(&["backup", "documents"]).output().unwrap().status.code(), Some(3));
    std::fs::write(home.path("documents/later"), "later").unwrap();
    for dry_run in [&["--dry-run"][..], &[]] {
        let output = home.run(&[&["restore", "latest", "--to", ".", "--delete"], dry_run].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("removed: 1\n"), "{said}");
        assert!(said.contains("nothing is removed of what could not be read"), "{said}");
    }
    assert!(!home.path("documents/later").exists());
    for file in ["documents/note", "documents/secret", "documents/closed/below/file"] {
        assert_eq!(std::fs::read_to_string(home.path(file)).unwrap(), file);
    }
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_unstable();
    names
}

/// As many entries as a mail folder, or with `./test --all` a million.
#[test]
fn a_directory_with_very_many_entries_comes_back() {
    let all = std::env::var_os("LIFEBOAT_ALL").is_some();
    let entries = if all { 1_000_000 } else { 30_000 };
    let home = Home::new();
    std::fs::create_dir(home.path("many")).unwrap();
    for number in 0..entries {
        let path = home.path("many").join(format!("entry-{number:07}"));
        std::fs::write(path, if number % 100 == 0 { number.to_string() } else { String::new() }).unwrap();
    }
    let first = home.json(&["backup", "many", "--json"]);
    assert_eq!(first["files"], entries);
    std::fs::write(home.path("many/entry-0012345"), "changed").unwrap();
    let second = home.json(&["backup", "many", "--json"]);
    assert!(
        second["bytes_added"].as_u64().unwrap() < first["bytes_added"].as_u64().unwrap() / 2,
        "one page changed, and its spine"
    );
    let report = home.json(&["restore", "latest", "--to", "out", "--json"]);
    assert_eq!((&report["files"], &report["failure_count"]), (&entries.into(), &0.into()));
    assert!(names(&home.path("many")) == names(&home.path("out/many")));
    assert_eq!(std::fs::read_to_string(home.path("out/many/entry-0012300")).unwrap(), "12300");
    assert_eq!(std::fs::read_to_string(home.path("out/many/entry-0012345")).unwrap(), "changed");
    if !all {
        println!("skipped: a million entries, which `./test --all` makes; it were {entries}");
    }
}

/// Runs a program, and says how much memory it had at most, in KiB.
const MEASURE: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)";

/// Most resident memory in KiB of a verb; nothing where python3 is not there.
fn resident(home: &Home, arguments: &[&str]) -> Option<u64> {
    let mut command = std::process::Command::new("python3");
    command.args(["-c", MEASURE]).arg(env!("CARGO_BIN_EXE_lifeboat")).args(arguments).env_clear();
    command.env("HOME", home.dir.path()).env("PATH", std::env::var_os("PATH").unwrap()).current_dir(home.dir.path());
    let output = command.output().ok()?;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap())
}

/// 30,000 files here, a million with `./test --all`: what is in memory is bounded by blocks and workers, and not by files.
#[test]
fn very_many_tiny_files_take_no_more_memory_than_blocks_and_workers_do() {
    let all = std::env::var_os("LIFEBOAT_ALL").is_some();
    let (files, ceiling) = if all { (1_000_000, 256 << 10) } else { (30_000, 72 << 10) };
    let home = if all { Home::new() } else { Home { dir: support::dir_in_memory() } };
    for folder in 0..files / 500 {
        let path = home.path(&format!("many/{}/{folder}", folder % 37));
        std::fs::create_dir_all(&path).unwrap();
        (0..500).for_each(|file| std::fs::write(path.join(file.to_string()), support::noise(folder * 500 + file, 100)).unwrap());
    }
    let verbs: [&[&str]; 4] = [
        &["backup", "many", "--threads", "2"],
        &["check", "--read-data", "--threads", "2"],
        &["prune", "--grace", "0s", "--threads", "2"],
        &["restore", "latest", "--to", "out", "--threads", "2"],
    ];
    for verb in verbs {
        let Some(peak) = resident(&home, verb) else {
            return println!("skipped: how much memory a program takes is measured by python3, which is not here");
        };
        println!("{files} files: {verb:?} had {} MiB", peak >> 10);
        assert!(peak < ceiling, "{files} files: {verb:?} had {peak} KiB");
    }
}
