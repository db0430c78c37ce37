//! The program as a user meets it.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use std::path::Path;
use std::process::Command;
use support::home::Home;
use support::noise;

#[test]
fn the_first_backup_makes_repository_and_key_and_says_where_they_are() {
    let home = Home::new();
    std::fs::write(home.path("file"), "x").unwrap();
    let said = home.ok(&["backup", "file"]);
    assert!(said.contains("identity.txt") && said.contains("fingerprint") && said.contains("Keep a copy"), "{said}");
    use std::os::unix::fs::MetadataExt;
    let identity = std::fs::metadata(home.path(".config/lifeboat/identity.txt")).unwrap();
    assert_eq!(identity.mode() & 0o777, 0o600);
    assert!(home.path(".local/share/lifeboat/repository/format/1").exists());
    assert!(home.path(".cache/lifeboat").exists());
    assert!(!home.ok(&["backup", "file"]).contains("identity.txt"), "said once only");
}

#[test]
fn what_was_backed_up_is_listed_printed_and_restored() {
    let home = Home::filled();
    let all = home.json(&["snapshots", "--json"]);
    let snapshot = &all[0];
    assert_eq!(snapshot["id"].as_str().unwrap().len(), 64);
    assert_eq!((&snapshot["kind"], &snapshot["files"], &snapshot["tags"][0]), (&"full".into(), &2.into(), &"first".into()));
    for field in ["time", "host", "paths", "bytes"] {
        assert!(!snapshot[field].is_null(), "{field}");
    }
    assert_eq!(home.ok(&["cat", "latest:documents/note"]), "hello");
    assert!(home.ok(&["ls", "-lR", "latest"]).contains("documents/deep/data"));
    assert!(home.ok(&["show", "latest"]).contains("documents"));
    home.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert!(std::fs::read(home.path("out/documents/deep/data")).unwrap() == noise(1, 300_000));
    home.ok(&["restore", "latest:documents/deep", "--to", "part"]);
    assert!(home.path("part/data").exists());
    home.ok(&["check", "--read-data"]);
    assert!(home.json(&["stats", "--json"])["bytes_stored"].as_u64().unwrap() > 300_000);
    home.ok(&["cache", "rebuild"]);
    assert_eq!(home.ok(&["cat", "latest:documents/note"]), "hello");
}

#[test]
fn bad_input_has_its_exit_code_one_line_and_a_hint() {
    let home = Home::filled();
    let cases: &[(&[&str], i32)] = &[
        (&["backup"], 2),
        (&["nonsense"], 2),
        (&["backup", "missing"], 1),
        (&["--repo", "nowhere", "snapshots"], 10),
        (&["--repo", "nowhere", "backup", "documents"], 10),
        (&["restore", "ffffffff", "--to", "x"], 1),
        (&["restore", "latest"], 2),
        (&["restore", "latest", "--to", "documents"], 11),
        (&["restore", "latest:missing", "--to", "x"], 1),
        (&["cat", "latest:documents"], 2),
        (&["init"], 11),
        (&["--identity", "documents/note", "snapshots"], 2),
        (&["--config", "missing.toml", "snapshots"], 2),
        (&["--repo", "ftp://host/folder", "snapshots"], 2),
        (&["--repo", "s3://bucket/x?secret=1", "snapshots"], 2),
        (&["--repo", "sftp://me:password@host/x", "snapshots"], 2),
        (&["key", "remove", "00000000"], 1),
    ];
    for (arguments, code) in cases {
        let output = home.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        if *code != 2 {
            assert!(said.starts_with("lifeboat: ") && said.lines().count() <= 2, "{arguments:?}: {said}");
        }
    }
    assert_eq!(home.json(&["snapshots", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn an_unreadable_file_is_reported_and_the_exit_code_says_so() {
    let home = Home::filled();
    if rustix::process::geteuid().is_root() {
        println!("skipped: root can read everything");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(home.path("documents/note"), std::fs::Permissions::from_mode(0o0)).unwrap();
    let output = home.run(&["backup", "documents", "--reread"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(home.ok(&["show", "latest"]).contains("note"));
}

#[test]
fn another_identity_does_not_open_and_a_second_slot_does() {
    let home = Home::filled();
    std::fs::rename(home.path(".config/lifeboat/identity.txt"), home.path("old.txt")).unwrap();
    home.ok(&["--repo", "other", "init"]);
    assert_eq!(home.code(&["snapshots"]), 12);
    std::fs::write(home.path("pass"), "correct horse\n").unwrap();
    home.ok(&["-i", "old.txt", "key", "add", "--new-passphrase-file", "pass", "--label", "paper"]);
    let slots = home.json(&["-i", "old.txt", "key", "list", "--json"])["slots"].clone();
    assert_eq!(slots.as_array().unwrap().len(), 2);
    home.ok(&["--passphrase-file", "pass", "-i", "none.txt", "snapshots"]);
    home.ok(&["--passphrase-command", "cat pass", "snapshots"]);
    let old = slots.as_array().unwrap().iter().find(|slot| slot["current"] == true).unwrap();
    let id = old["id"].as_str().unwrap();
    assert_eq!(home.code(&["-i", "old.txt", "key", "remove", id]), 11);
    home.ok(&["--passphrase-file", "pass", "-i", "none.txt", "key", "remove", &id[..8]]);
    assert_eq!(home.code(&["-i", "old.txt", "snapshots"]), 12);
}

#[test]
fn age_itself_opens_the_owners_bundle() {
    let home = Home::filled();
    let keys = home.path(".local/share/lifeboat/repository/keys");
    let slot = std::fs::read_dir(keys).unwrap().next().unwrap().unwrap().path();
    let identity = home.path(".config/lifeboat/identity.txt");
    match Command::new("age").arg("-d").arg("-i").arg(identity).arg(slot).output() {
        Ok(output) => assert!(output.status.success() && output.stdout.len() > 200),
        Err(_) => println!("skipped: age is not installed"),
    }
}

#[test]
fn the_output_of_a_command_is_kept_only_if_it_succeeds() {
    let home = Home::filled();
    home.ok(&["backup", "--kind", "database", "--command", "shop.sql", "--", "echo", "select 1"]);
    assert_eq!(home.ok(&["cat", "latest:shop.sql", "--kind", "database"]), "select 1\n");
    assert_eq!(home.code(&["backup", "--command", "shop.sql", "--", "sh", "-c", "echo half; exit 3"]), 1);
    assert_eq!(home.json(&["snapshots", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is() {
    let home = Home::filled();
    for arguments in [&["snapshots"][..], &["show", "latest"], &["ls", "-lR", "latest"], &["snapshots", "--json"], &["man"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.command(arguments).stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        return println!("skipped: there is no /dev/full");
    };
    for arguments in [&["snapshots"][..], &["ls", "latest"], &["cat", "latest:documents/note"], &["snapshots", "--json"]] {
        let output = home.command(arguments).stdout(full.try_clone().unwrap()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    }
}

#[test]
fn exclusions_and_dry_runs_do_what_they_say() {
    let home = Home::filled();
    let dry = home.json(&["backup", "documents", "-n", "--json"]);
    assert_eq!((dry["dry_run"].as_bool(), dry["files"].as_u64()), (Some(true), Some(2)));
    home.ok(&["backup", "documents", "--exclude", "deep/", "--tag", "small"]);
    let list = home.ok(&["ls", "-R", "latest", "--tag", "small"]);
    assert!(list.contains("note") && !list.contains("deep"), "{list}");
    assert_eq!(home.json(&["snapshots", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn completions_manuals_and_versions_are_printed() {
    let home = Home::new();
    assert!(home.ok(&["completions", "bash"]).contains("lifeboat"));
    assert!(home.ok(&["man"]).contains("lifeboat"));
    let version = home.json(&["version", "--json"]);
    assert_eq!((&version["format"], &version["stores"][0]), (&1.into(), &"directory".into()), "{version}");
    for scheme in version["stores"].as_array().unwrap().iter().skip(1) {
        let url = format!("{}://host:x", scheme.as_str().unwrap());
        assert_eq!(home.code(&["snapshots", "--repo", &url]), 2, "{url} is read as a URL");
    }
    home.ok(&["man", "--dir", "man"]);
    assert!(home.path("man/lifeboat-backup.1").exists());
}

#[test]
fn a_backup_that_is_killed_at_any_moment_loses_nothing_committed() {
    let home = Home::filled();
    for number in 0..400 {
        std::fs::write(home.path(&format!("documents/{number}")), noise(number, 60_000)).unwrap();
    }
    for round in 0..12u64 {
        let mut child = home.command(&["backup", "documents", "-q"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5 + round * 17));
        let _ = child.kill();
        child.wait().unwrap();
        home.ok(&["check", "--read-data", "-q"]);
    }
    home.ok(&["backup", "documents"]);
    home.ok(&["check", "--read-data"]);
    home.ok(&["restore", "latest", "--to", "out", "--verify"]);
    for number in 0..400 {
        assert!(std::fs::read(home.path(&format!("out/documents/{number}"))).unwrap() == noise(number, 60_000));
    }
}

#[test]
fn an_interrupt_stops_cleanly_with_its_exit_code() {
    let home = Home::filled();
    std::fs::write(home.path("documents/large"), noise(5, 200 << 20)).unwrap();
    let mut child = home.command(&["backup", "documents", "-q"]).spawn().unwrap();
    // One that has only begun does not listen yet.
    if home.wait_until_it_stores(&mut child) {
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(130 | 0)), "{:?}", output.status);
    home.ok(&["check", "--read-data"]);
}

#[test]
fn files_are_found_compared_and_dumped() {
    let home = Home::filled();
    std::fs::write(home.path("documents/note"), "hello again").unwrap();
    std::fs::remove_file(home.path("documents/deep/data")).unwrap();
    std::fs::write(home.path("documents/new"), "x").unwrap();
    home.ok(&["backup", "documents", "--tag", "second"]);
    assert_eq!(home.ok(&["find", "note"]).lines().count(), 2);
    assert_eq!(home.ok(&["find", "--regex", "deep/.*a$", "--larger", "100K"]).lines().count(), 1);
    assert_eq!(home.ok(&["find", "--history", "documents/note"]).lines().count(), 2);
    let all = home.json(&["snapshots", "--json"]);
    let first = all[0]["id"].as_str().unwrap();
    let changes = home.ok(&["diff", first, "latest"]);
    for line in ["M documents/note", "- documents/deep/data", "+ documents/new"] {
        assert!(changes.contains(line), "{line}: {changes}");
    }
    let live = home.ok(&["diff", "latest:documents", "./documents"]);
    assert!(live.contains("0 added, 0 removed, 0 changed"), "{live}");
    let archive = home.run(&["dump", &format!("{first}:documents")]).stdout;
    let mut names: Vec<_> = tar::Archive::new(&archive[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["documents/", "documents/deep/", "documents/deep/data", "documents/note"]);
}

/// The sections of the reference, written from what the program says; `LIFEBOAT_UPDATE=1` writes them into the page.
#[test]
fn the_reference_says_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/commands.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let mut said = written.split("\n## lifeboat").next().unwrap().to_owned();
    let home = Home::new();
    let mut open = vec![Vec::new()];
    let mut sections = 0;
    while let Some(verbs) = open.pop() {
        let words: Vec<&str> = verbs.iter().map(String::as_str).chain(["--help"]).collect();
        let output = home.command(&words).env("COLUMNS", "110").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let title: String = verbs.iter().map(|verb| format!(" {verb}")).collect();
        said += &format!("\n## lifeboat{title}\n\n```text\n{help}```\n");
        sections += 1;
        let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
        let named = listed.lines().filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        // Help on help is help on everything.
        let named = named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        let below: Vec<Vec<String>> = named.map(|name| verbs.iter().cloned().chain([name.to_owned()]).collect()).collect();
        open.extend(below.into_iter().rev());
    }
    assert!(sections > 20);
    if std::env::var_os("LIFEBOAT_UPDATE").is_some() {
        std::fs::write(&path, &said).unwrap();
    } else {
        assert_eq!(written, said, "LIFEBOAT_UPDATE=1 cargo test --test cli writes docs/reference/commands.md anew");
    }
}

/// A word of the configuration that means nothing here may have meant that something is kept, or sealed, or left out.
#[test]
fn a_word_of_the_configuration_that_is_not_known_stops_everything() {
    let home = Home::filled();
    let records = home.records();
    std::fs::create_dir_all(home.path(".config/lifeboat")).unwrap();
    for text in
        ["encryption = \"age\"", "cache_dir = \"x\"", "[prices]\nputs = 1", "retain = \"soon\"", "repository = 3", "threads"]
    {
        std::fs::write(home.path(".config/lifeboat/lifeboat.toml"), text).unwrap();
        let output = home.run(&["backup", "documents"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}: {said}");
        assert!(said.contains("configuration") && said.contains("\nhint: "), "{text}: {said}");
        assert_eq!(home.records(), records, "{text}");
    }
}
