//! Every exit code that the reference documents is met, and no other one is.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use support::home::Home;
use support::terminal::Terminal;

fn first_file(folder: &Path) -> PathBuf {
    let entry = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    if entry.is_dir() { first_file(&entry) } else { entry }
}

/// The codes in the table of the page.
fn documented() -> BTreeSet<i32> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/exit-codes.md");
    let text = std::fs::read_to_string(page).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect()
}

fn incomplete() -> i32 {
    let home = Home::filled();
    std::fs::set_permissions(home.path("documents/note"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let output = home.as_nobody(&["backup", "documents", "--reread"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("failed: documents/note: ") && said.contains("incomplete: 1 failure;"), "{said}");
    let listed = home.as_nobody(&["show", "latest"]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("documents/note: "), "the snapshot remembers: {listed:?}");
    output.status.code().unwrap()
}

fn wrong_key() -> i32 {
    let home = Home::filled();
    home.ok(&["--repo", "other", "--identity", "other.txt", "init"]);
    home.code(&["--identity", "other.txt", "snapshots"])
}

fn damaged() -> i32 {
    let home = Home::filled();
    let pack = first_file(&home.repository_dir().join("packs"));
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    home.code(&["check", "--read-data"])
}

fn rolled_back() -> i32 {
    let home = Home::filled();
    let copy = home.path("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(home.repository_dir()).arg(&copy).status().unwrap();
    assert!(copied.success());
    home.ok(&["backup", "documents"]);
    std::fs::remove_dir_all(home.repository_dir()).unwrap();
    std::fs::rename(copy, home.repository_dir()).unwrap();
    home.code(&["snapshots"])
}

/// A server that has everything in an archive.
fn archived() -> i32 {
    let server = proxy::Proxy::new(1, |_| proxy::Action::refuse(403, "InvalidObjectState"));
    let home = Home::filled();
    let url = format!("s3://bucket/x?endpoint=http://127.0.0.1:{}&retries=0", server.port);
    let mut command = home.command(&["--repo", &url, "snapshots"]);
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret").output().unwrap().status.code().unwrap()
}

fn interrupted() -> i32 {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, &["init", "--passphrase"], 80);
    terminal.expect("New passphrase: ");
    terminal.enter("\x03");
    terminal.end().code.unwrap()
}

#[test]
fn every_documented_exit_code_is_met() {
    let home = Home::filled();
    let mut met = vec![
        (0, home.code(&["snapshots"])),
        (1, home.code(&["restore", "ffffffff", "--to", "out"])),
        (2, home.code(&["backup"])),
        (10, home.code(&["--repo", "nowhere", "snapshots"])),
        (11, home.code(&["restore", "latest", "--to", "documents"])),
        (12, wrong_key()),
        (13, damaged()),
        (14, rolled_back()),
        (15, archived()),
        (130, interrupted()),
    ];
    if rustix::process::geteuid().is_root() {
        met.push((3, incomplete()));
    } else {
        println!("skipped: only root can become another user, who may not read a file");
        met.push((3, 3));
    }
    for (wanted, code) in &met {
        assert_eq!(wanted, code);
    }
    assert_eq!(met.iter().map(|(code, _)| *code).collect::<BTreeSet<_>>(), documented());
    let help = home.ok(&["--help"]);
    let said = help.split("Exit codes: ").nth(1).unwrap();
    let said: BTreeSet<i32> =
        said.split([',', '.', '\n']).filter_map(|part| part.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(said, documented(), "the help names the same");
}
