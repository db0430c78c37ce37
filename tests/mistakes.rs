//! Mistakes that people make at the command line: each is said, and nothing is lost, made, or left out in silence.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use std::process::Output;
use support::home::Home;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_mistyped_command_line_is_an_error_in_json_too() {
    let home = Home::filled();
    for (arguments, part) in [
        (&["snapshots", "--jsn", "--json"][..], "unexpected argument '--jsn'"),
        (&["restore", "latest", "--json"], "--to <DIR>"),
        (&["backup", "documents", "--threads", "100000", "--json"], "100000"),
        (&["backup", "documents", "--kind", "", "--json"], "--kind"),
        (&["backup", "documents", "--host", "", "--json"], "--host"),
        (&["--json"], "no command"),
    ] {
        let output = home.run(arguments);
        let (code, said) = (output.status.code(), said(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let error: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!((code, &error["event"], &error["exit_code"]), (Some(2), &"error".into(), &2.into()), "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    let output = home.run(&["backup", "documents", "--command", "x", "--", "echo", "--json"]);
    assert!(
        output.status.code() == Some(2) && said(&output).starts_with("error: "),
        "the paths would be left out: {}",
        said(&output)
    );
}

#[test]
fn what_is_refused_or_only_tried_makes_neither_repository_nor_key() {
    let home = Home::documents();
    let output = home.run(&["backup", "documents", "--dry-run"]);
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    assert!(!home.repository_dir().exists() && !home.path(".config").exists(), "a dry run makes nothing");

    for arguments in [&["--repo", "documents"][..], &["--repo", "new", "--level", "30"], &["--repo", "new", "--chunk-size", "5"]]
    {
        let arguments: Vec<&str> = [&["init", "--identity", "key.txt"], arguments].concat();
        assert!(!home.run(&arguments).status.success());
        assert!(!home.path("key.txt").exists() && !home.path("new").exists(), "{arguments:?}");
    }
}

#[test]
fn a_dry_run_says_nothing_of_what_it_did_not_store() {
    let home = Home::filled();
    std::fs::write(home.path("documents/more"), "more").unwrap();
    let summary = home.ok(&["backup", "documents", "--dry-run"]);
    assert!(!summary.contains("stored as") && summary.contains("nothing was stored"), "{summary}");
}

#[test]
fn the_place_of_a_key_is_said_only_if_it_is_the_key() {
    let home = Home::new();
    home.ok(&["--repo", "one", "--identity", "one.txt", "init"]);
    let text = std::fs::read_to_string(home.path("one.txt")).unwrap();
    let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let report = home.ok(&["--repo", "two", "--identity", "two.txt", "init", "--recipient", recipient]);
    assert!(!report.contains("two.txt"), "that file is not there: {report}");
    let report = home.ok(&["--repo", "three", "--identity", "one.txt", "init", "--recipient", recipient]);
    assert!(report.contains("one.txt"), "{report}");
}

#[test]
fn slashes_at_the_end_of_a_path_make_it_no_other_one() {
    let home = Home::filled();
    let report = home.json(&["backup", "documents/", "--json"]);
    assert_eq!((&report["paths"][0], &report["new"]), (&"documents".into(), &0.into()), "{report}");
    let report = home.json(&["backup", "documents//deep/", "--json"]);
    assert_eq!(report["paths"][0], "documents/deep", "{report}");
    assert_eq!(home.json(&["snapshots", "--path", "documents/", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_link_to_a_directory_is_followed_where_a_slash_asks_for_it_and_else_said() {
    let home = Home::filled();
    std::os::unix::fs::symlink("documents", home.path("link")).unwrap();
    let output = home.run(&["backup", "link"]);
    assert!(output.status.success() && said(&output).contains("write link/"), "{}", said(&output));
    for path in ["link/", "link/."] {
        let report = home.json(&["backup", path, "--json"]);
        assert_eq!(report["files"], 2, "{path}: {report}");
        assert!(report["paths"][0].as_str().unwrap().ends_with("/documents"), "{report}");
    }
    assert!(said(&home.run(&["backup", "link/"])).is_empty());
}

#[test]
fn the_whole_file_system_is_backed_up_if_it_is_only_one() {
    let home = Home::filled();
    let output = home.run(&["backup", "/"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("--one-file-system"), "{}", said(&output));
    // Of the machine itself only what is at the top.
    let top = ["backup", "/", "-x", "--exclude", "/*/*", "--json"];
    let output = home.run(&top);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["paths"][0], "/", "{report}");
    let listed = home.ok(&["ls", "latest"]);
    assert!(listed.lines().any(|line| line == "usr/") && listed.lines().any(|line| line == "proc/"), "{listed}");
    let again: serde_json::Value = serde_json::from_slice(&home.run(&top).stdout).unwrap();
    assert_eq!((&again["new"], &again["parent"]), (&0.into(), &report["id"]), "{again}");
    let planned = home.json(&["restore", "latest", "--in-place", "--dry-run", "--json"]);
    assert_eq!(planned["failure_count"], 0, "{planned}");
    home.ok(&["restore", "latest", "--to", "top"]);
    assert!(home.path("top/usr").exists());
}

#[test]
fn a_configuration_with_a_mistake_says_in_which_line() {
    let home = Home::filled();
    let file = home.path(".config/lifeboat/lifeboat.toml");
    for (text, part) in [
        (&b"\n\nrepositry = \"/x\""[..], "line 3: unknown field `repositry`"),
        (b"repository = /x", "line 1: "),
        (b"limit-upload = \"fast\"", "limit-upload: "),
        (b"retain = \"soon\"", "retain: "),
        (b"threads = 100000", "line 1: "),
        (b"threads = 0", "threads: 0 is not"),
        (b"\xff", "it is not UTF-8"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = home.run(&["snapshots"]);
        let said = said(&output);
        assert!(output.status.code() == Some(2) && said.contains(part) && said.contains("hint: mend the file"), "{said}");
    }
    std::fs::create_dir(home.path("elsewhere")).unwrap();
    std::fs::rename(home.repository_dir(), home.path("elsewhere/repository")).unwrap();
    std::fs::write(&file, "repository = \"~/elsewhere/repository\"").unwrap();
    assert!(home.ok(&["snapshots"]).contains("documents"));
}

#[test]
fn an_identity_from_an_editor_opens_and_one_that_all_can_read_is_said() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::filled();
    let identity = std::fs::read_to_string(home.path(".config/lifeboat/identity.txt")).unwrap();
    std::fs::write(home.path("edited.txt"), format!("\u{feff}{}", identity.replace('\n', "\r\n"))).unwrap();
    let readable = |mode| std::fs::set_permissions(home.path("edited.txt"), std::fs::Permissions::from_mode(mode)).unwrap();
    readable(0o600);
    let output = home.run(&["--identity", "edited.txt", "snapshots"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    readable(0o644);
    let output = home.run(&["--identity", "edited.txt", "snapshots"]);
    assert!(output.status.success() && said(&output).contains("chmod 600 edited.txt"), "{}", said(&output));
}

#[test]
fn a_mirror_of_a_repository_is_not_the_repository() {
    let home = Home::filled();
    let repository = home.repository_dir();
    std::os::unix::fs::symlink(&repository, home.path("elsewhere")).unwrap();
    for place in ["elsewhere", ".local/share/lifeboat/repository/"] {
        let output = home.run(&["mirror", "--to", place]);
        assert!(output.status.code() == Some(2) && said(&output).contains("the same place"), "{}", said(&output));
    }
}

#[test]
fn a_kit_in_html_can_be_tried() {
    let home = Home::filled();
    home.ok(&["kit", "--with-identity", "--output", "kit.html"]);
    assert!(home.ok(&["kit", "test", "kit.html"]).contains("the kit works"));
}

#[test]
fn a_repository_without_its_format_is_damaged_and_not_absent() {
    let home = Home::filled();
    std::fs::remove_file(home.repository_dir().join("format/1")).unwrap();
    for arguments in [&["snapshots"][..], &["backup", "documents"]] {
        let output = home.run(arguments);
        assert!(output.status.code() == Some(13) && said(&output).contains("format/1 is gone"), "{}", said(&output));
    }
}

#[test]
fn a_file_that_is_not_restored_is_not_missed_twice() {
    let home = Home::filled();
    let mut packs = support::contents(&home.repository_dir().join("packs"));
    packs.sort_by_key(|(_, bytes)| bytes.as_ref().map_or(0, Vec::len));
    let (path, bytes) = packs.pop().unwrap();
    let mut bytes = bytes.unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let path = home.repository_dir().join("packs").join(path);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let output = home.run(&["restore", "latest", "--to", "new", "--verify", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut paths: Vec<_> = report["failures"].as_array().unwrap().iter().map(|failure| failure["path"].to_string()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!((output.status.code(), report["failure_count"].as_u64()), (Some(13), Some(paths.len() as u64)), "{report}");
}

#[test]
fn a_snapshot_of_a_day_to_come_is_doubted() {
    let home = Home::documents();
    if !std::process::Command::new("faketime").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return println!("skipped: faketime is not installed");
    }
    home.ok(&["backup", "documents"]);
    let mut command = std::process::Command::new("faketime");
    command.args(["2100-01-02", env!("CARGO_BIN_EXE_lifeboat"), "backup", "documents"]);
    command.env_clear().env("HOME", home.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
    let output = command.current_dir(home.dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    std::fs::write(home.path("documents/note"), "later").unwrap();
    home.ok(&["backup", "documents"]);
    let output = home.run(&["restore", "latest", "--to", "new"]);
    assert!(output.status.success() && said(&output).contains("a day to come"), "{}", said(&output));
}
