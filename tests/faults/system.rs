//! Calls of the operating system that fail, one after the other, while the program runs as a user runs it.

use crate::disks::Home;
use crate::support::noise;
use std::process::{Command, Output, Stdio};

/// A call and how it fails.
type Fault = (&'static str, &'static str);

const WRITING: [Fault; 10] = [
    ("write", "ENOSPC"),
    ("write", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("fsync", "EIO"),
    ("fdatasync", "EIO"),
    ("linkat", "EIO"),
    ("renameat,renameat2,rename", "EIO"),
    ("mkdir,mkdirat", "ENOSPC"),
    ("unlink,unlinkat", "EIO"),
    ("ftruncate", "EIO"),
];

const READING: [Fault; 6] = [
    ("openat,open", "EIO"),
    ("openat,open", "EMFILE"),
    ("read", "EIO"),
    ("pread64", "EIO"),
    ("statx,newfstatat,fstat", "EIO"),
    ("getdents64", "EIO"),
];

pub(crate) fn has_strace() -> bool {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let has = tried.is_ok_and(|status| status.success());
    if !has {
        println!("skipped: calls cannot be made to fail here (needs strace, and the right to trace)");
    }
    has
}

/// Runs the program with call number `at` of each thread made to fail; nothing if there is no such call.
fn with_fault(home: &Home, arguments: &[&str], (calls, errno): Fault, at: usize) -> Option<Output> {
    let log = home.path("calls");
    let mut outer = Command::new("strace");
    outer.args(["-f", "-qq", "--seccomp-bpf", "-o"]).arg(&log);
    outer.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error={errno}:when={at}")]);
    let output = home.command_within(outer, arguments).output().unwrap();
    std::fs::read_to_string(log).unwrap().contains("(INJECTED)").then_some(output)
}

/// The exit code; and what was said is what a user should see.
fn judged(output: &Output, what: &str) -> i32 {
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().unwrap_or_else(|| panic!("{what}: {}: {said}", output.status));
    assert!(!said.contains("panicked"), "{what}: {said}");
    // The loader of the system, before the program begins.
    if code == 127 && said.contains("error while loading") {
        return code;
    }
    assert!([0, 1, 3, 10, 11, 13].contains(&code), "{what}: exit code {code}: {said}");
    if ![0, 3, 13].contains(&code) {
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("warning: ")).collect();
        let proper = match lines[..] {
            [.., first, second] => first.starts_with("lifeboat: ") && second.starts_with("hint: "),
            // Messages are written too.
            [only] => what.contains("\"write\"") && (only.starts_with("lifeboat: ") || only.starts_with("hint: ")),
            [] => false,
        };
        assert!(proper, "{what}: exit code {code}: {said}");
    }
    code
}

/// Every call at first, then some of those that follow.
fn moments() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |at| Some(at + 1 + at / 8))
}

/// Runs `each` with every fault at every moment, until the run has no more such calls.
fn every_fault(faults: &[Fault], mut each: impl FnMut(Fault, usize, &str) -> bool) {
    for fault in faults {
        let met = moments().take_while(|at| each(*fault, *at, &format!("{fault:?} at call {at}"))).count();
        println!("{fault:?}: {met} faults");
    }
}

fn filled() -> Home {
    let home = Home::new();
    (0..6).for_each(|number| home.write(&format!("file {number}"), noise(number, 30_000)));
    home.ok(&["init"]);
    home.ok(&["backup", "source"]);
    home
}

fn backups(faults: &[Fault]) {
    if !has_strace() {
        return;
    }
    let home = filled();
    let (mut round, mut count, mut refused) = (100, 1, 0);
    every_fault(faults, |fault, at, what| {
        round += 1;
        home.write("file 1", noise(round, 30_000));
        let Some(output) = with_fault(&home, &["backup", "source", "--quiet"], fault, at) else {
            count = home.snapshots();
            return false;
        };
        let code = judged(&output, what);
        let now = home.snapshots();
        match code {
            0 | 3 => assert_eq!(now, count + 1, "{what}: it said that it was done"),
            _ => assert!((count..=count + 1).contains(&now), "{what}: {now} snapshots after {count}"),
        }
        refused += u32::from(code != 0);
        count = now;
        if round % 20 == 0 {
            home.ok(&["backup", "source"]);
            count += 1;
            home.is_whole();
        }
        true
    });
    assert!(refused > 10, "only {refused} backups met a fault that mattered");
    home.ok(&["backup", "source"]);
    home.is_whole();
}

#[test]
fn a_backup_whose_writing_calls_fail_commits_whole_or_not_at_all() {
    backups(&WRITING);
}

#[test]
fn a_backup_whose_reading_calls_fail_commits_whole_or_not_at_all() {
    backups(&READING);
}

#[test]
fn a_restore_whose_calls_fail_gives_no_wrong_file_its_name() {
    if !has_strace() {
        return;
    }
    let home = filled();
    let expected = crate::support::contents(&home.path("source"));
    let target = home.path("target");
    every_fault(&[&WRITING[..3], &WRITING[6..8], &READING].concat(), |fault, at, what| {
        let arguments = ["restore", "latest:source", "--to", "target", "--quiet"];
        let output = with_fault(&home, &arguments, fault, at);
        let Some(output) = output else {
            std::fs::remove_dir_all(&target).unwrap();
            return false;
        };
        let code = judged(&output, what);
        let found = if target.exists() { crate::support::contents(&target) } else { Vec::new() };
        let named = found.iter().filter(|(path, _)| !path.to_string_lossy().contains(".lifeboat-"));
        assert!(named.clone().all(|entry| expected.contains(entry)), "{what}: a wrong file has its name");
        assert!(code != 0 || found == expected, "{what}: it said that it was done");
        if code != 0 {
            home.ok(&arguments);
            assert!(crate::support::contents(&target) == expected, "{what}: afterwards");
        }
        std::fs::remove_dir_all(&target).unwrap();
        true
    });
}

#[test]
fn a_prune_whose_calls_fail_harms_nothing() {
    if !has_strace() {
        return;
    }
    let home = filled();
    let mut round = 1000;
    every_fault(&[&WRITING[..], &READING[2..]].concat(), |fault, at, what| {
        round += 1;
        home.write("file 1", noise(round, 30_000));
        home.ok(&["backup", "source"]);
        home.ok(&["forget", "--keep-last", "1"]);
        let arguments = ["prune", "--grace", "0s", "--max-unused", "0%", "--quiet"];
        let Some(output) = with_fault(&home, &arguments, fault, at) else { return false };
        judged(&output, what);
        assert_eq!(home.snapshots(), 1, "{what}");
        if round % 10 == 0 {
            home.is_whole();
        }
        true
    });
    home.ok(&["prune", "--grace", "0s", "--max-unused", "0%"]);
    home.is_whole();
}

/// The shell's limit makes the write that goes beyond it a short one, and the next one fail.
#[test]
fn a_backup_with_short_writes_commits_whole_or_not_at_all() {
    let home = filled();
    let mut refused = 0;
    for blocks in [0, 1, 2, 5, 9, 20, 40, 60, 100, 200, 400, 1000] {
        home.write("file 1", noise(5000 + blocks, 30_000));
        home.write("large", noise(6000 + blocks, 600_000));
        let before = home.snapshots();
        let mut outer = Command::new("sh");
        outer.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        let what = format!("files of at most {blocks} blocks");
        let code = judged(&home.command_within(outer, &["backup", "source", "--quiet"]).output().unwrap(), &what);
        refused += u32::from(code != 0);
        assert_eq!(home.snapshots(), before + usize::from(code == 0), "{what}");
        home.ok(&["backup", "source"]);
        home.is_whole();
    }
    assert!(refused > 4, "only {refused} backups met the limit");
}
