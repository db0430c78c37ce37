//! Real disks that are full or read-only, with the program as a user meets it.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

use crate::support::noise;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A small disk of its own; gone when dropped.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts a disk of `size` (as mount says it) at `path`; nothing, and a line that says so, where that is not allowed.
    fn new(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size},mode=0755");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self { path: path.to_owned() });
        }
        println!("skipped: a disk of its own cannot be mounted here (needs root)");
        None
    }

    fn remount(&self, option: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.path).status();
        assert!(status.unwrap().success(), "remount {option}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(home.path("source")).unwrap();
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path("source").join(name), bytes).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("HOME", self.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
        command.args(["--repo", "disk/repository"]).args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// The program, run by `outer` as its last arguments say.
    pub fn command_within(&self, mut outer: Command, arguments: &[&str]) -> Command {
        let inner = self.command(arguments);
        outer.arg(inner.get_program()).args(inner.get_args()).current_dir(self.dir.path()).stdin(Stdio::null());
        outer.env_clear().env("HOME", self.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
        outer
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fails with `code`, one line, and a hint.
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        failed(&self.run(arguments), arguments, code)
    }

    pub fn snapshots(&self) -> usize {
        let all: serde_json::Value = serde_json::from_str(&self.ok(&["snapshots", "--json"])).unwrap();
        all.as_array().unwrap().len()
    }

    /// The newest snapshot comes back as the source is, and nothing is damaged.
    pub fn is_whole(&self) {
        self.ok(&["check", "--read-data"]);
        self.ok(&["restore", "latest:source", "--to", "whole"]);
        assert!(crate::support::contents(&self.path("whole")) == crate::support::contents(&self.path("source")));
        std::fs::remove_dir_all(self.path("whole")).unwrap();
    }

    fn temporaries(&self) -> usize {
        std::fs::read_dir(self.path("disk/repository/tmp")).unwrap().count()
    }
}

fn failed(output: &Output, arguments: &[&str], code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    let lines: Vec<&str> = said.lines().collect();
    let proper = matches!(lines[..], [first, second] if first.starts_with("lifeboat: ") && second.starts_with("hint: "));
    assert!(proper, "{arguments:?}: {said}");
    said
}

#[test]
fn a_disk_that_fills_up_during_a_backup_harms_nothing() {
    let home = Home::new();
    let Some(disk) = Disk::new(&home.path("disk"), "12m") else { return };
    home.write("small", noise(1, 100_000));
    home.ok(&["init"]);
    home.ok(&["backup", "source"]);
    home.write("large", noise(2, 40 << 20));
    let said = home.fails(&["backup", "source"], 1);
    assert!(said.contains("no space left") && said.contains("hint: free some space"), "{said}");
    assert_eq!((home.snapshots(), home.temporaries()), (1, 0), "nothing of what failed takes space");
    home.ok(&["check", "--read-data"]);
    home.ok(&["restore", "latest:source", "--to", "out"]);
    assert!(std::fs::read(home.path("out/small")).unwrap() == noise(1, 100_000));
    disk.remount("size=100m");
    home.ok(&["backup", "source"]);
    assert_eq!(home.snapshots(), 2);
    home.is_whole();
}

#[test]
fn a_disk_without_any_room_is_full_for_init_and_for_the_commit() {
    let home = Home::new();
    let Some(disk) = Disk::new(&home.path("disk"), "1m") else { return };
    home.write("small", noise(1, 1000));
    let ballast = home.path("disk/ballast");
    let fill = |len: usize| {
        // As much as goes in.
        let _ = std::fs::write(&ballast, vec![7; len]);
    };
    fill(2 << 20);
    home.fails(&["init"], 1);
    std::fs::remove_file(&ballast).unwrap();
    home.ok(&["init"]);
    home.ok(&["backup", "source"]);
    fill(2 << 20);
    // Nothing new is in the source, so all there is to write is the record.
    home.fails(&["backup", "source"], 1);
    assert_eq!((home.snapshots(), home.temporaries()), (1, 0));
    home.is_whole();
    std::fs::remove_file(&ballast).unwrap();
    home.ok(&["backup", "source"]);
    assert_eq!(home.snapshots(), 2);
    drop(disk);
}

#[test]
fn a_restore_onto_a_disk_that_fills_up_says_so_and_goes_on_when_there_is_room() {
    let home = Home::new();
    let Some(target) = Disk::new(&home.path("target"), "6m") else { return };
    (0..20).for_each(|number| home.write(&format!("file {number}"), noise(number, 1 << 20)));
    home.ok(&["init"]);
    home.ok(&["backup", "source"]);
    let said = home.fails(&["restore", "latest:source", "--to", "target"], 1);
    assert!(said.contains("no space left") && said.contains("free some space"), "{said}");
    for (path, content) in crate::support::contents(&home.path("target")) {
        let name = path.to_str().unwrap();
        let whole = std::fs::read(home.path("source").join(name)).ok();
        assert!(name.starts_with(".lifeboat-") || content == whole, "{name} has its name and is not whole");
    }
    target.remount("size=60m");
    home.ok(&["restore", "latest:source", "--to", "target"]);
    assert!(crate::support::contents(&home.path("target")) == crate::support::contents(&home.path("source")));
}

#[test]
fn a_repository_on_a_read_only_disk_is_read_and_backups_say_why_they_cannot_be_made() {
    let home = Home::new();
    let Some(disk) = Disk::new(&home.path("disk"), "50m") else { return };
    home.write("file", noise(1, 300_000));
    home.ok(&["init"]);
    home.ok(&["backup", "source"]);
    home.ok(&["backup", "source"]);
    disk.remount("ro");
    home.write("new", noise(2, 3 << 20));
    let all: serde_json::Value = serde_json::from_str(&home.ok(&["snapshots", "--json"])).unwrap();
    let id = all[0]["id"].as_str().unwrap();
    for verb in [&["backup", "source"][..], &["backup", "source/file"], &["forget", id], &["hold", id]] {
        let said = home.fails(verb, 1);
        assert!(said.contains("read-only") && said.contains("mount it writable"), "{said}");
    }
    // As a machine that has never seen it as well.
    for cache in [".cache/lifeboat", "another"] {
        for verb in [&["snapshots"][..], &["ls", "latest"], &["check", "--read-data"], &["stats"], &["key", "list"]] {
            home.ok(&[verb, &["--cache-dir", cache]].concat());
        }
        home.ok(&["restore", "latest", "--to", &format!("out {cache}").replace('/', "-"), "--cache-dir", cache]);
    }
    disk.remount("rw");
    home.ok(&["backup", "source"]);
    home.is_whole();
}

#[test]
fn a_repository_that_its_user_may_not_write_is_read() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let nobody = 65_534;
    let home = Home::new();
    home.write("file", noise(1, 300_000));
    home.ok(&["init"]);
    home.ok(&["backup", "source"]);
    // The program itself may lie where others cannot reach it.
    std::fs::copy(env!("CARGO_BIN_EXE_lifeboat"), home.path("program")).unwrap();
    let all = Command::new("chown").arg("-R").arg(format!("{nobody}:{nobody}")).arg(home.dir.path()).status();
    assert!(all.unwrap().success());
    let mut folders = vec![home.path("disk/repository")];
    while let Some(folder) = folders.pop() {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).unwrap();
        folders.extend(std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
    }
    chown(home.dir.path(), Some(nobody), Some(nobody)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        let mut other = Command::new(home.path("program"));
        other.args(command.get_args()).env_clear().env("HOME", home.dir.path()).current_dir(home.dir.path());
        command = other;
        command.uid(nobody).gid(nobody).stdin(Stdio::null()).output().unwrap()
    };
    std::fs::write(home.path("source/new"), noise(2, 3 << 20)).unwrap();
    let said = failed(&run(&["backup", "source"]), &["backup", "source"], 1);
    assert!(said.contains("permission denied") && said.contains("change the permissions"), "{said}");
    for verb in [&["snapshots"][..], &["ls", "latest"], &["check", "--read-data"], &["restore", "latest", "--to", "out"]] {
        let output = run(verb);
        assert!(output.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_named_and_another_one_helps() {
    let home = Home::new();
    let Some(disk) = Disk::new(&home.path("small"), "50m") else { return };
    home.write("file", noise(1, 300_000));
    home.ok(&["init"]);
    home.ok(&["backup", "source", "--cache-dir", "small/cache"]);
    disk.remount("ro");
    for cache in ["small/cache", "small/new"] {
        for verb in [&["backup", "source"][..], &["snapshots"], &["restore", "latest:source", "--to", "out"]] {
            let output = home.run(&[verb, &["--cache-dir", cache]].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("the cache in small/") && said.contains("--cache-dir"), "{said}");
        }
        std::fs::remove_dir_all(home.path("out")).unwrap();
    }
    home.ok(&["backup", "source", "--cache-dir", "elsewhere"]);
    home.is_whole();
}

#[test]
fn a_cache_whose_disk_fills_up_keeps_nobody_from_backing_up() {
    let home = Home::new();
    let Some(disk) = Disk::new(&home.path("small"), "400k") else { return };
    (0..300).for_each(|number| home.write(&format!("file {number}"), noise(number, 70_000)));
    home.ok(&["init"]);
    let mut full = 0;
    for size in ["100k", "200k", "300k", "400k", "600k", "800k"] {
        disk.remount(&format!("size={size}"));
        let before = home.snapshots();
        let output = home.run(&["backup", "source", "--cache-dir", "small/cache"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), home.snapshots()), (Some(0), before + 1), "{size}: {said}");
        if said.contains("small/cache") && said.contains("--cache-dir") {
            full += 1;
        }
    }
    assert!(full > 0, "the disk was never full");
    disk.remount("size=100m");
    home.ok(&["backup", "source", "--cache-dir", "small/cache"]);
    home.is_whole();
}
