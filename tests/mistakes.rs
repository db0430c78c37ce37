//! Mistakes that people make at the command line: each is said, and nothing is lost, made, or left out in silence.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
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
fn a_value_that_cannot_be_is_answered_with_how_it_is_written() {
    let home = Home::filled();
    let s3 = |option: &str| format!("s3://bucket/folder?endpoint=http://127.0.0.1:1&{option}");
    let (mode, number, name) = (s3("lock-mode=foo"), s3("timeout=x"), s3("sse=aes256&region="));
    for (arguments, hint) in [
        (&["forget", "--keep-within", "5x"][..], "write it like 30d"),
        (&["forget", "--keep-last", "0"], "a rule that keeps none is left out"),
        (&["forget", "--keep-last", "1", "--group-by", "foo"], "`none`"),
        (&["snapshots", "--limit-download", "0"], "leave it out"),
        (&["snapshots", "--limit-upload", "0.5"], "leave it out"),
        (&["snapshots", "--repo", &mode], "governance or compliance"),
        (&["snapshots", "--repo", &number], "a number"),
        (&["snapshots", "--repo", &name], "docs/reference/stores.md"),
        (&["key", "policy", "--role", "writer"], "--s3|--ssh"),
        (&["key", "enrol", "--role", "writer"], "--new-passphrase-file"),
    ] {
        let output = home.run(arguments);
        assert!(output.status.code() == Some(2) && said(&output).contains(hint), "{arguments:?}: {}", said(&output));
        let json = home.run(&[arguments, &["--json"]].concat());
        let error: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
        let told = ["hint", "message"].iter().any(|part| error[part].as_str().unwrap().contains(hint));
        assert!(told, "{arguments:?}: {error}");
    }
    std::fs::write(home.path("slow.toml"), "limit-upload = \"0\"\n").unwrap();
    let output = home.run(&["snapshots", "--config", "slow.toml"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("limit-upload"), "{}", said(&output));
}

#[test]
fn another_copy_that_is_not_there_is_not_to_be_made() {
    let home = Home::filled();
    let output = home.run(&["repair", "--from", "nowhere"]);
    let said = said(&output);
    assert!(output.status.code() == Some(10) && said.contains("a mirror of it") && !said.contains("init"), "{said}");
}

#[test]
fn to_hold_once_more_without_a_word_keeps_the_reason() {
    let home = Home::filled();
    let id = home.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    home.ok(&["hold", &id, "--reason", "the audit"]);
    home.ok(&["hold", &id]);
    assert!(home.ok(&["show", &id]).contains("held (the audit)"));
    home.ok(&["hold", &id, "--reason", "another one"]);
    assert!(home.ok(&["show", &id]).contains("held (another one)"));
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
fn what_was_backed_up_last_is_the_latest_whatever_the_clock_said() {
    let home = Home::documents();
    if !std::process::Command::new("faketime").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return println!("skipped: faketime is not installed");
    }
    let back_up = |date: Option<&str>, text: &str| {
        std::fs::write(home.path("documents/note"), text).unwrap();
        let mut command = home.command(&["backup", "documents"]);
        if let Some(date) = date {
            command = std::process::Command::new("faketime");
            command.args([date, env!("CARGO_BIN_EXE_lifeboat"), "backup", "documents"]);
            command.env_clear().env("HOME", home.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
            command.current_dir(home.dir.path());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    let latest = || {
        let output = home.run(&["cat", "latest:documents/note"]);
        assert!(output.status.success(), "{}", said(&output));
        (String::from_utf8(output.stdout.clone()).unwrap(), said(&output))
    };
    back_up(Some("2100-01-02"), "of a day to come");
    let (text, doubt) = latest();
    assert!(text == "of a day to come" && doubt.contains("claims to be of a day to come"), "the only one: {doubt}");
    back_up(None, "of today");
    let (text, doubt) = latest();
    assert!(text == "of today" && doubt.contains("claims a day to come"), "{text}: {doubt}");
    back_up(Some("1970-01-02"), "of a machine that has just been switched on");
    let (text, doubt) = latest();
    assert!(text == "of a machine that has just been switched on" && doubt.contains("a clock was wrong"), "{text}: {doubt}");
    let listed = home.json(&["snapshots", "--json"]);
    let misdated = |entry: &serde_json::Value| entry["marks"].as_array().unwrap().contains(&"misdated".into());
    let marked: Vec<_> = listed.as_array().unwrap().iter().map(misdated).collect();
    assert_eq!(marked, [true, false, true], "of 1970, of today, of 2100: {listed}");
    // Whoever restores it is told as well.
    let output = home.run(&["restore", "latest", "--to", "new"]);
    assert!(output.status.success() && said(&output).contains("is taken for the latest"), "{}", said(&output));
}

#[test]
fn a_pattern_that_matches_nothing_is_no_restore() {
    let home = Home::filled();
    let output = home.run(&["restore", "latest", "--to", "none", "--include", "no-such-name"]);
    assert!(output.status.code() == Some(1) && said(&output).contains("nothing in the snapshot matches"), "{}", said(&output));
    let output = home.run(&["restore", "latest", "--to", "one", "--include", "note", "--include", "*.typo"]);
    assert!(output.status.success() && said(&output).contains("--include \"*.typo\""), "{}", said(&output));
    assert!(home.path("one/documents/note").exists() && !home.path("one/documents/deep").exists());
    let report = home.json(&["restore", "latest", "--to", "two", "--include", "documents/deep", "--include", "x", "--json"]);
    assert_eq!((&report["files"], &report["unmatched"]), (&1.into(), &serde_json::json!(["x"])), "{report}");
}

#[test]
fn what_is_removed_because_it_is_in_the_way_is_said() {
    let home = Home::filled();
    home.ok(&["restore", "latest", "--to", "out"]);
    let lay_in_the_way = || {
        let note = home.path("out/documents/note");
        if !note.is_dir() {
            std::fs::remove_file(&note).unwrap();
            std::fs::create_dir(&note).unwrap();
        }
        std::fs::write(note.join("precious"), "not in the snapshot").unwrap();
    };
    lay_in_the_way();
    for more in [&["--overwrite", "always", "--dry-run"][..], &["--overwrite", "always"]] {
        let output = home.run(&[&["restore", "latest", "--to", "out"], more].concat());
        assert!(output.status.code() == Some(3) && said(&output).contains("a directory that is not empty"), "{}", said(&output));
    }
    for more in [&["--delete", "--dry-run", "--json"][..], &["--delete", "--json"]] {
        assert_eq!(home.json(&[&["restore", "latest", "--to", "out"], more].concat())["deleted"], 1, "{more:?}");
    }
    assert_eq!(std::fs::read_to_string(home.path("out/documents/note")).unwrap(), "hello");

    // A link in the place of a directory is not followed, and not replaced without a word.
    std::fs::create_dir(home.path("elsewhere")).unwrap();
    std::fs::remove_dir_all(home.path("out/documents")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", home.path("out/documents")).unwrap();
    let output = home.run(&["restore", "latest", "--to", "out", "--overwrite", "never"]);
    assert!(output.status.code() == Some(3) && said(&output).contains("something of another kind"), "{}", said(&output));
    let output = home.run(&["restore", "latest", "--to", "out", "--overwrite", "always"]);
    assert!(output.status.success() && said(&output).contains("which led to ../elsewhere"), "{}", said(&output));
    assert!(home.path("out/documents/deep/data").exists());
    assert_eq!(std::fs::read_dir(home.path("elsewhere")).unwrap().count(), 0, "nothing was written through the link");
}

#[test]
#[cfg(target_os = "linux")]
fn a_device_that_cannot_be_made_is_missing_from_the_restore() {
    let home = Home::documents();
    let made = std::process::Command::new("mknod").arg(home.path("documents/null")).args(["c", "1", "3"]).output();
    if !made.is_ok_and(|output| output.status.success()) {
        return println!("skipped: devices cannot be made here (needs root)");
    }
    home.ok(&["backup", "documents"]);
    let output = home.as_nobody(&["restore", "latest", "--to", "out"]).output().unwrap();
    assert!(output.status.code() == Some(3) && said(&output).contains("make the device null"), "{}", said(&output));
    assert!(home.path("out/documents/note").exists());
    let output = home.as_nobody(&["restore", "latest", "--to", "rest", "--exclude", "null"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn ids_may_be_written_in_upper_case() {
    let home = Home::filled();
    let id = home.json(&["show", "latest", "--json"])["id"].as_str().unwrap().to_uppercase();
    assert_eq!(home.ok(&["cat", &format!("{}:documents/note", &id[..8])]), "hello");
    home.ok(&["hold", &id]);
    let slot = home.json(&["key", "list", "--json"])["slots"][0]["id"].as_str().unwrap().to_uppercase();
    assert!(!said(&home.run(&["key", "remove", &slot[..8]])).contains("none begins"), "it is found");
}

#[test]
fn paths_of_the_configuration_begin_in_its_folder() {
    let home = Home::filled();
    let folder = home.path("settings");
    std::fs::create_dir(&folder).unwrap();
    let text = "repository = \"../.local/share/lifeboat/repository\"\nidentity = \"identity.txt\"\ncache-dir = \"cache\"\n";
    std::fs::write(folder.join("lifeboat.toml"), text).unwrap();
    std::fs::rename(home.path(".config/lifeboat/identity.txt"), folder.join("identity.txt")).unwrap();
    for (from, config) in [("", "settings/lifeboat.toml"), ("documents/deep", "../../settings/lifeboat.toml")] {
        let mut command = home.command(&["snapshots", "--json", "--config", config]);
        let output = command.current_dir(home.path(from)).output().unwrap();
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        assert_eq!(listed.as_array().unwrap().len(), 1, "{from}");
    }
    assert!(folder.join("cache").is_dir() && !home.path("documents/deep/cache").exists());
}

#[test]
fn a_quiet_listing_is_still_a_listing() {
    let home = Home::filled();
    for arguments in
        [&["snapshots", "-q"][..], &["show", "latest", "-q"], &["stats", "-q"], &["history", "-q"], &["key", "list", "-q"]]
    {
        assert!(!home.ok(arguments).is_empty(), "{arguments:?}");
    }
    assert!(!home.ok(&["snapshots", "-q"]).contains("1 snapshot"));
    assert!(home.ok(&["backup", "documents", "-q"]).is_empty());
}

#[test]
fn rules_that_leave_every_file_out_are_doubted() {
    let home = Home::documents();
    let output = home.run(&["backup", "documents", "--exclude", "*"]);
    assert!(output.status.success() && said(&output).contains("the snapshot holds no file"), "{}", said(&output));
    assert!(!said(&home.run(&["backup", "documents", "--exclude", "deep"])).contains("holds no file"));
}

#[test]
fn a_list_of_paths_from_another_system_gets_the_hint_that_fits() {
    let home = Home::filled();
    std::fs::write(home.path("list"), "documents/note\r\ndocuments/deep\r\n").unwrap();
    let output = home.run(&["backup", "--files-from", "list"]);
    assert!(output.status.code() == Some(1) && said(&output).contains("carriage return"), "{}", said(&output));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_standard_output_is_named() {
    let home = Home::filled();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&["cat", "latest:documents/deep/data"][..], &["ls", "latest"], &["dump", "latest"], &["--help"], &["man"]] {
        let output = home.command(arguments).stdout(full()).output().unwrap();
        let text = said(&output);
        assert!(output.status.code() == Some(1) && text.contains("no space left on device"), "{arguments:?}: {text}");
        assert!(text.contains("output") && text.contains("\nhint: "), "{arguments:?}: {text}");
    }
}

#[test]
fn a_path_in_a_snapshot_may_have_any_bytes() {
    let home = Home::new();
    std::fs::create_dir(home.path("old")).unwrap();
    let named = |text: &[u8]| OsStr::from_bytes(text).to_owned();
    std::fs::write(home.path("old").join(named(b"caf\xe9")), "from latin-1").unwrap();
    home.ok(&["backup", "old"]);
    let run = |arguments: &[OsString]| home.command(&[]).args(arguments).output().unwrap();
    let output = run(&["cat".into(), named(b"latest:old//caf\xe9")]);
    assert_eq!(output.stdout, b"from latin-1", "{}", said(&output));
    let output = run(&["restore".into(), named(b"latest:old/caf\xe9"), "--to".into(), "out".into()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(std::fs::read(home.path("out").join(named(b"caf\xe9"))).unwrap(), b"from latin-1");
    let output = run(&["ls".into(), named(b"latest:caf\xe9")]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

#[test]
fn what_was_asked_for_and_is_not_done_is_not_passed_over() {
    let home = Home::filled();
    home.ok(&["backup", "documents"]);
    let output = home.run(&["show", "latest:documents"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("ls -l"), "{}", said(&output));
    assert_eq!(home.run(&["help", "restore"]).stdout, home.run(&["restore", "--help"]).stdout);
    let output = home.run(&["--repo", "ftp://host/there", "snapshots"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("sftp"), "{}", said(&output));
    let output = home.run(&["key", "add"]);
    assert!(said(&output).contains("--recipient") && said(&output).contains("--new-passphrase-file"), "{}", said(&output));
}

#[test]
fn devices_of_both_kinds_are_found_and_further_names_are_counted_as_what_they_are() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can make devices");
    }
    let home = Home::new();
    std::fs::create_dir(home.path("nodes")).unwrap();
    for (name, of, numbers) in [("character", "c", "3"), ("block", "b", "7")] {
        let made = std::process::Command::new("mknod").arg(home.path("nodes").join(name)).args([of, "1", numbers]).status();
        if !made.is_ok_and(|status| status.success()) {
            return println!("skipped: no device can be made here");
        }
    }
    std::fs::hard_link(home.path("nodes/character"), home.path("nodes/other name")).unwrap();
    home.ok(&["backup", "nodes"]);
    assert_eq!(home.ok(&["find", "--type", "device"]).lines().count(), 3);
    assert!(home.ok(&["ls", "-l", "latest:nodes"]).contains(" 1, 7 "), "{}", home.ok(&["ls", "-l", "latest:nodes"]));
    let listed = home.ok(&["ls", "latest:nodes", "--json"]);
    assert!(listed.contains(r#""device":{"major":1,"minor":7}"#), "{listed}");
    let report = home.json(&["restore", "latest", "--to", "out", "--json"]);
    assert_eq!((&report["files"], &report["others"]), (&0.into(), &3.into()), "{report}");
}

#[test]
fn names_that_look_alike_are_told_apart() {
    let home = Home::documents();
    std::fs::write(home.path("documents/a\nb"), "one").unwrap();
    std::fs::write(home.path("documents/a\\nb"), "two").unwrap();
    home.ok(&["backup", "documents"]);
    let listed = home.ok(&["ls", "latest:documents"]);
    assert!(listed.contains("a\\nb\n") && listed.contains("a\\\\nb\n"), "{listed}");
}

#[test]
fn what_is_stored_is_counted_whatever_was_forgotten() {
    let home = Home::filled();
    home.ok(&["backup", "documents"]);
    let before = home.json(&["stats", "--json"])["bytes_deduplicated"].as_u64().unwrap();
    assert!((300_005..310_000).contains(&before), "{before}");
    home.ok(&["forget", "--keep-last", "1"]);
    assert!(home.json(&["stats", "--json"])["bytes_deduplicated"].as_u64().unwrap() >= before);
}
