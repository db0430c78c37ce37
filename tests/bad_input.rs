//! Bad input: each kind has its own message, hint, and exit code, as docs/reference/errors.md lists them, and changes nothing.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::home::Home;
use support::{contents, plant, tamper};

/// A row of the page.
struct Row {
    situation: String,
    message: String,
    hint: String,
    code: i32,
}

fn rows() -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/errors.md");
    let text = std::fs::read_to_string(page).unwrap();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = cells.map(|line| line.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    rows.filter_map(|row| match row[..] {
        [ref situation, ref message, ref hint, ref code] => {
            let (situation, message, hint) = (situation.clone(), message.clone(), hint.clone());
            code.parse().ok().map(|code| Row { situation, message, hint, code })
        }
        _ => panic!("not a row: {row:?}"),
    })
    .collect()
}

/// True if the text is as the pattern says, in which `…` stands for anything.
fn fits(text: &str, pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('…').collect();
    let [first, middle @ .., last] = &parts[..] else { return text == pattern };
    let Some(mut rest) = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    middle.iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => part.is_empty(),
    })
}

/// What has to be seen: the row's message and hint, and nothing else; and a repository that is as it was.
fn judge(row: &Row, home: &Home, what: &str, run: impl FnOnce() -> Output) {
    let repositories = || ["repository", "broken", "disk/repository"].map(|name| contents_if_there(&home.path(name)));
    let before = repositories();
    let output = run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let what = format!("{} ({what}): {:?}: {said}", row.situation, output.status.code());
    assert_eq!(output.status.code(), Some(row.code), "{what}");
    let lines: Vec<&str> = said.lines().collect();
    let [first, second] = lines[..] else { panic!("not two lines: {what}") };
    let message = first.strip_prefix("lifeboat: ").unwrap_or_else(|| panic!("{what}"));
    let hint = second.strip_prefix("hint: ").unwrap_or_else(|| panic!("{what}"));
    assert!(fits(message, &row.message), "the message is not {:?}: {what}", row.message);
    assert!(fits(hint, &row.hint), "the hint is not {:?}: {what}", row.hint);
    assert!(repositories() == before, "the repository has changed: {what}");
    assert!(!home.path("new").exists(), "something was restored: {what}");
}

fn contents_if_there(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    if path.exists() { contents(path) } else { Vec::new() }
}

/// Runs of every kind that reads or writes the repository.
const RUNS: [&[&str]; 9] = [
    &["snapshots"],
    &["backup", "documents"],
    &["restore", "latest", "--to", "new"],
    &["ls", "latest"],
    &["check"],
    &["forget", "--keep-last", "1"],
    &["prune", "--grace", "0s"],
    &["stats"],
    &["key", "list"],
];

/// A home with a repository of two snapshots in `repository`.
fn home() -> Home {
    let home = Home::documents();
    home.ok(&["--repo", "repository", "init"]);
    for _ in 0..2 {
        home.ok(&["--repo", "repository", "backup", "documents", "--quiet"]);
    }
    home
}

/// Every run meets the row when the repository in `broken`, a copy that `change` changed, is used with these arguments.
fn each_run(row: &Row, change: impl FnOnce(&Home), arguments: &[&str]) {
    let home = home();
    let copied = Command::new("cp").arg("-a").arg(home.path("repository")).arg(home.path("broken")).status().unwrap();
    assert!(copied.success());
    change(&home);
    for run in RUNS {
        let all = [&["--repo", "broken"], arguments, run].concat();
        judge(row, &home, &all.join(" "), || home.run(&all));
    }
}

fn first(home: &Home, folder: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = contents(&home.path("broken").join(folder)).into_iter().map(|(path, _)| path).collect();
    found.retain(|path| home.path("broken").join(folder).join(path).is_file());
    home.path("broken").join(folder).join(found.remove(0))
}

fn cut(path: &Path, len: usize) {
    tamper(path, |bytes| bytes.truncate(len));
}

/// The newest log record, which this machine has seen.
fn newest_record(home: &Home) -> PathBuf {
    let logs = home.path("broken/log");
    let records = contents(&logs).into_iter().filter(|(_, content)| content.is_some());
    logs.join(records.max().unwrap().0)
}

#[test]
fn what_cannot_be_opened_says_why() {
    for row in rows() {
        let nothing = |_: &Home| ();
        let gone = |home: &Home| std::fs::remove_dir_all(home.path("broken")).unwrap();
        match row.situation.as_str() {
            "another identity than that of any slot" => {
                let other = |home: &Home| drop(home.ok(&["--repo", "other", "--identity", "other.txt", "init"]));
                each_run(&row, other, &["--identity", "other.txt"]);
            }
            "the identity file is missing" => each_run(&row, nothing, &["--identity", "missing.txt"]),
            "the identity file is something else" => each_run(&row, nothing, &["--identity", "documents/note"]),
            "another fingerprint than the one expected" => {
                each_run(&row, nothing, &["--fingerprint", "00112233445566778899aabbccddeeff"]);
            }
            "there is no repository at the place" => each_run(&row, gone, &[]),
            "a directory of something else" => {
                let other = |home: &Home| {
                    gone(home);
                    std::fs::create_dir(home.path("broken")).unwrap();
                    std::fs::write(home.path("broken/letter"), "dear").unwrap();
                };
                each_run(&row, other, &[]);
            }
            "the object `format/1` is of something else" => {
                each_run(&row, |home| tamper(&home.path("broken/format/1"), |bytes| bytes[0] ^= 1), &[]);
            }
            "the object `format/1` is gone" => {
                each_run(&row, |home| std::fs::remove_file(home.path("broken/format/1")).unwrap(), &[]);
            }
            "the repository has a newer format" => {
                let newer = |bytes: &mut Vec<u8>| *bytes = b"lifeboat repository format 2\nnobody knows".to_vec();
                each_run(&row, |home| tamper(&home.path("broken/format/1"), newer), &[]);
            }
            "the object `format/1` is half written" => each_run(&row, |home| cut(&home.path("broken/format/1"), 20), &[]),
            "a key slot is half written" => each_run(&row, |home| cut(&first(home, "keys"), 100), &[]),
            "all key slots are gone" => {
                each_run(&row, |home| std::fs::remove_file(first(home, "keys")).unwrap(), &[]);
            }
            "a record that this machine has seen is half written" => each_run(&row, |home| cut(&newest_record(home), 100), &[]),
            "a record that this machine has seen is gone" => {
                each_run(&row, |home| std::fs::remove_file(newest_record(home)).unwrap(), &[]);
            }
            _ => continue,
        }
    }
}

#[test]
fn what_cannot_be_done_says_why() {
    let home = home();
    let backup = ["--repo", "repository", "backup", "documents"];
    for row in rows() {
        let run = |arguments: &[&str]| {
            let all = [&["--repo", "repository"], arguments].concat();
            judge(&row, &home, &all.join(" "), || home.run(&all));
        };
        match row.situation.as_str() {
            "a second `init` at the same place" => run(&["init"]),
            "a restore into a directory with files" => run(&["restore", "latest", "--to", "documents"]),
            "a snapshot that is not there" => {
                for verb in [&["restore", "ffffffff", "--to", "new"][..], &["show", "ffffffff"], &["forget", "ffffffff"]] {
                    run(verb);
                }
            }
            "a path that is not in the snapshot" => {
                for verb in [&["restore", "latest:nowhere", "--to", "new"][..], &["cat", "latest:nowhere"]] {
                    run(verb);
                }
            }
            "a path to back up that is not there" => run(&["backup", "nowhere"]),
            "two restores into one directory at once" => {
                use rustix::fs::{FlockOperation, flock};
                std::fs::create_dir(home.path("target")).unwrap();
                // As the other restore does, from its beginning to its end.
                let held = std::fs::File::open(home.path("target")).unwrap();
                flock(&held, FlockOperation::LockExclusive).unwrap();
                run(&["restore", "latest", "--to", "target"]);
                drop(held);
                home.ok(&["--repo", "repository", "restore", "latest", "--to", "target"]);
            }
            "the user may not write to the store" => {
                if !rustix::process::geteuid().is_root() {
                    println!("skipped: only root can become another user");
                    continue;
                }
                std::fs::write(home.path("documents/new"), "something to store").unwrap();
                let closed = Command::new("chmod").args(["-R", "a-w"]).arg(home.path("repository")).status().unwrap();
                assert!(closed.success());
                judge(&row, &home, "backup", || home.as_nobody(&backup).output().unwrap());
                let opened = Command::new("chmod").args(["-R", "u+w"]).arg(home.path("repository")).status().unwrap();
                assert!(opened.success());
            }
            _ => continue,
        }
    }
}

#[test]
fn a_disk_that_cannot_be_written_says_why() {
    let rows = rows();
    let row = |situation: &str| rows.iter().find(|row| row.situation == situation).unwrap();
    let home = Home::documents();
    let mount = |options: &str| {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(home.path("disk")).output();
        mounted.is_ok_and(|output| output.status.success())
    };
    std::fs::create_dir(home.path("disk")).unwrap();
    if !mount("size=30m") {
        return println!("skipped: a disk of its own cannot be mounted here (needs root)");
    }
    let backup = ["--repo", "disk/repository", "backup", "documents"];
    let unmount = || drop(Command::new("umount").arg("--lazy").arg(home.path("disk")).status());
    let tested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        home.ok(&["--repo", "disk/repository", "init"]);
        (0..2).for_each(|_| drop(home.ok(&backup)));
        std::fs::write(home.path("documents/large"), support::noise(1, 60 << 20)).unwrap();
        judge(row("the disk of the store is full"), &home, "backup", || home.run(&backup));
        assert!(mount("remount,ro"));
        let read_only = row("the store is on a read-only disk");
        for verb in [&["backup", "documents"][..], &["forget", "--keep-last", "1"]] {
            let all = [&["--repo", "disk/repository"], verb].concat();
            judge(read_only, &home, &all.join(" "), || home.run(&all));
        }
    }));
    unmount();
    tested.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Snapshots of a machine whose clock was wrong: they are kept and restored like all others, and only rules that go by
/// their times ask first.
#[test]
fn a_clock_that_was_wrong_loses_nothing_and_rules_ask_first() {
    for row in rows() {
        let Some(year) = row.situation.strip_prefix("the clock was in ").and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        let home = Home::filled();
        home.ok(&["backup", "documents"]);
        plant::claim(&home.open(), &format!("{year}-01-02T00:00:00Z"), |_| ());
        let count = |home: &Home| home.json(&["snapshots", "--json"]).as_array().unwrap().len();
        for rule in [&["--keep-within", "7d"][..], &["--keep-daily", "3"], &["--keep-yearly", "1"]] {
            let all = [&["forget"], rule].concat();
            judge(&row, &home, &all.join(" "), || home.run(&[&all[..], &["--quiet"]].concat()));
            assert_eq!(count(&home), 3);
        }
        home.ok(&["backup", "documents"]);
        home.ok(&["prune"]);
        home.ok(&["check", "--read-data"]);
        assert_eq!(count(&home), 4);
        with_clock(&home, year);
    }
}

/// The same with the clock of the running program.
fn with_clock(home: &Home, year: &str) {
    let date = format!("{year}-01-02 00:00:00");
    let run = |arguments: &[&str]| {
        let inner = home.command(arguments);
        let mut outer = Command::new("faketime");
        outer.arg(&date).arg(inner.get_program()).args(inner.get_args()).current_dir(home.dir.path());
        outer.env_clear().env("HOME", home.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
        outer.output()
    };
    if run(&["version"]).is_err() {
        return println!("skipped: the clock of a program cannot be set here (needs faketime)");
    }
    for arguments in [&["backup", "documents"][..], &["prune"], &["check", "--read-data"], &["snapshots"], &["stats"]] {
        let output = run(arguments).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?} in {year}: {said}");
    }
    home.ok(&["check", "--read-data"]);
    let _ = std::fs::remove_dir_all(home.path("out"));
    for snapshot in home.json(&["snapshots", "--json"]).as_array().unwrap() {
        home.ok(&["restore", &format!("{}:documents", snapshot["id"].as_str().unwrap()), "--to", "out"]);
        assert!(contents(&home.path("out")) == contents(&home.path("documents")));
        std::fs::remove_dir_all(home.path("out")).unwrap();
    }
}

#[test]
fn every_row_is_met_by_a_test() {
    let test = include_str!("bad_input.rs");
    let rows = rows();
    assert!(rows.len() > 20);
    for row in rows {
        let named = format!("\"{}\"", row.situation);
        let clock = row.situation.starts_with("the clock was in ");
        assert!(clock || test.contains(&named), "no test meets: {}", row.situation);
        assert!([1, 2, 10, 11, 12, 13, 14].contains(&row.code));
    }
}
