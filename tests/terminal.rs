//! The program at a terminal: what is shown, what is asked, and what a key does.

mod support;

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use support::home::Home;
use support::noise;
use support::terminal::Terminal;

const ESCAPE: char = '\x1b';

/// A home with files that take some time to back up, `scale` times as long as the shortest.
fn large(scale: u64) -> Home {
    let home = Home::filled();
    for number in 0..40 * scale {
        std::fs::write(home.path(&format!("documents/file-{number:04}")), noise(100 + number, 4 << 20)).unwrap();
    }
    home
}

/// Starts a backup and waits for the progress bar to be as wanted. A machine may be too fast for that; then there is
/// more to do.
fn caught(columns: u16, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> (Home, Terminal) {
    for scale in [1, 4, 16] {
        let home = large(scale);
        let mut terminal = Terminal::start(&home, arguments, columns);
        if terminal.reaches(&wanted) {
            return (home, terminal);
        }
    }
    panic!("no progress was seen");
}

#[test]
fn progress_is_shown_on_a_terminal_and_leaves_nothing_behind() {
    let parts = |screen: &str| {
        ["backing up: ", "MiB", " files, ", "MiB/s", "file-"].iter().all(|part| screen.contains(part)).then_some(())
    };
    let (_home, terminal) = caught(120, &["backup", "documents"], |screen| parts(screen).is_some());
    let ended = terminal.end();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.screen.contains("backing up"), "{}", ended.screen);
    let lines: Vec<&str> = ended.screen.lines().collect();
    assert_eq!(lines.len(), 4, "nothing but the summary is left: {}", ended.screen);
    assert!(lines[0].starts_with("files: ") && lines[3].starts_with("snapshot: "), "{}", ended.screen);
}

#[test]
fn how_long_it_will_take_is_said_once_it_can_be_told() {
    for scale in [1, 4, 16] {
        let home = large(scale);
        home.ok(&["backup", "documents"]);
        let mut terminal = Terminal::start(&home, &["backup", "documents", "--reread", "--threads", "1"], 120);
        let begun = terminal.reaches(|screen| screen.contains("MiB of ") && screen.contains("file-"));
        terminal.pause(Duration::from_millis(1100));
        if begun && terminal.reaches(|screen| screen.contains(" left")) {
            assert_eq!(terminal.end().code, Some(0));
            return;
        }
    }
    panic!("no progress was seen");
}

#[test]
fn a_narrow_terminal_gets_one_line_that_fits() {
    for columns in [20, 46] {
        let (_home, mut terminal) = caught(columns, &["backup", "documents"], |screen| screen.contains("backing up: "));
        terminal.reaches(|screen| {
            assert!(screen.lines().filter(|line| !line.trim().is_empty()).count() <= 1 || screen.contains("files:"), "{screen}");
            screen.contains("files:")
        });
        let ended = terminal.end();
        assert!(ended.code == Some(0) && !ended.screen.contains("backing up"), "{}", ended.screen);
    }
}

#[test]
fn without_a_terminal_or_without_progress_there_are_no_escape_sequences() {
    let home = large(1);
    let output = home.run(&["backup", "documents"]);
    assert!(output.status.success() && !output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
    let mut colours = home.bare_command(&["--no-progress", "backup", "documents", "--reread"]);
    colours.env("TERM", "xterm").env("NO_COLOR", "1");
    let ended = Terminal::start_command(colours, 80).end();
    assert!(ended.code == Some(0) && !ended.raw.contains(ESCAPE), "{:?}", ended.raw);
    let mut dumb = home.bare_command(&["backup", "documents", "--reread"]);
    dumb.env("TERM", "dumb");
    let ended = Terminal::start_command(dumb, 80).end();
    assert!(ended.code == Some(0) && !ended.raw.contains(ESCAPE), "{:?}", ended.raw);
    let ended = Terminal::start(&home, &["--no-progress", "backup", "documents", "--reread"], 80).end();
    assert!(ended.raw.contains("\x1b[32m") && !ended.raw.contains("backing up"), "colours, no progress: {:?}", ended.raw);
}

#[test]
fn errors_have_colours_only_where_they_are_wanted() {
    let home = Home::filled();
    let red = "\x1b[1;31m";
    let ended = Terminal::start(&home, &["restore", "ffffffff", "--to", "x"], 80).end();
    assert!(ended.code == Some(1) && ended.raw.contains(red), "{:?}", ended.raw);
    let mut plain = home.bare_command(&["restore", "ffffffff", "--to", "x"]);
    plain.env("TERM", "xterm").env("NO_COLOR", "1");
    let ended = Terminal::start_command(plain, 80).end();
    assert!(ended.raw.contains("lifeboat: find the snapshot") && !ended.raw.contains(ESCAPE), "{:?}", ended.raw);
}

#[test]
fn the_first_backup_asks_nothing() {
    let home = Home::new();
    std::fs::write(home.path("file"), "x").unwrap();
    let ended = Terminal::start(&home, &["backup", "file"], 100).end();
    assert!(ended.code == Some(0) && ended.screen.contains("made the repository"), "{}", ended.screen);
    assert!(!ended.screen.contains("assphrase:"), "{}", ended.screen);
}

#[test]
fn a_passphrase_is_asked_for_twice_and_never_shown() {
    let home = Home::new();
    std::fs::write(home.path("file"), "x").unwrap();
    let mut terminal = Terminal::start(&home, &["init", "--passphrase"], 100);
    for (first, second, then) in [
        ("correct horse", "correct house", "not the same"),
        ("", "", "protects nothing"),
        ("correct horse", "correct horse", "made the repository"),
    ] {
        terminal.reaches(|screen| screen.trim_end().ends_with("New passphrase:"));
        assert!(!terminal.echoes());
        terminal.enter(&format!("{first}\n"));
        if !first.is_empty() {
            terminal.reaches(|screen| screen.trim_end().ends_with("The same again:"));
            terminal.enter(&format!("{second}\n"));
        }
        terminal.expect(then);
    }
    let ended = terminal.end();
    assert!(ended.code == Some(0) && !ended.raw.contains("horse") && !ended.raw.contains("house"), "{}", ended.screen);

    for (typed, code) in [("correct horse", 0), ("wrong", 12)] {
        let mut terminal = Terminal::start(&home, &["key", "list"], 100);
        terminal.expect("Passphrase: ");
        assert!(!terminal.echoes());
        terminal.enter(&format!("{typed}\n"));
        let ended = terminal.end();
        assert_eq!(ended.code, Some(code), "{}", ended.screen);
        assert!(!ended.raw.contains(typed), "{}", ended.screen);
        assert_eq!(ended.screen.matches("Passphrase: ").count(), 1, "asked once: {}", ended.screen);
    }
}

#[test]
fn after_three_useless_passphrases_nothing_was_made() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, &["init", "--passphrase"], 100);
    for round in 1..=3 {
        terminal.reaches(|screen| screen.matches("New passphrase:").count() == round);
        terminal.enter("\n");
    }
    assert_eq!(terminal.end().code, Some(2));
    assert!(!home.repository_dir().exists());
}

#[test]
fn control_c_at_a_question_ends_it_and_the_terminal_shows_keys_again() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, &["init", "--passphrase"], 100);
    terminal.expect("New passphrase: ");
    assert!(!terminal.echoes());
    terminal.enter("half a pass\x03");
    terminal.expect("stopped on request");
    assert!(terminal.echoes());
    let ended = terminal.end();
    assert!(ended.code == Some(130) && !ended.raw.contains("half"), "{}", ended.screen);

    let home = Home::filled();
    home.ok(&["backup", "documents"]);
    let id = home.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let mut terminal = Terminal::start(&home, &["forget", &id], 100);
    terminal.expect("[y/N]");
    terminal.enter("\x03");
    assert_eq!(terminal.end().code, Some(130));
    assert_eq!(home.json(&["snapshots", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn control_c_stops_a_backup_cleanly_and_the_next_one_goes_on() {
    let mut stopped = None;
    for scale in [1, 4, 16] {
        let home = large(scale);
        let before = home.json(&["snapshots", "--json"]);
        let mut terminal = Terminal::start(&home, &["backup", "documents"], 100);
        if terminal.reaches(|screen| screen.contains("file-")) {
            terminal.enter("\x03");
            let ended = terminal.end();
            // It may have come to its end before it heard of the key.
            if ended.code != Some(0) {
                stopped = Some((home, before, ended));
                break;
            }
        }
    }
    let (home, before, ended) = stopped.expect("no backup was still under way");
    assert_eq!(ended.code, Some(130), "{}", ended.screen);
    assert!(ended.screen.contains("stopped on request") && !ended.screen.contains("backing up:"), "{}", ended.screen);
    home.ok(&["check", "--read-data"]);
    let kept = |snapshots: &serde_json::Value| {
        let whole = snapshots.as_array().unwrap().iter().filter(|snapshot| snapshot["incomplete"] == false);
        whole.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kept(&before), kept(&home.json(&["snapshots", "--json"])), "the earlier snapshot is there, and no other");
    let again = home.json(&["backup", "documents", "--json"]);
    let whole = again["bytes"].as_u64().unwrap();
    assert!(whole > 100 << 20 && again["bytes_added"].as_u64().unwrap() <= whole);
    home.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert!(std::fs::read(home.path("out/documents/file-0007")).unwrap() == noise(107, 4 << 20));
}

#[test]
fn control_c_keeps_no_half_of_a_stream() {
    let home = Home::filled();
    // The writer at the other end of the pipe is stopped by the same key, which looks like the end of the stream.
    let line = "(printf half; exec sleep 100) | \"$0\" backup --stdin stream";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", line, env!("CARGO_BIN_EXE_lifeboat")]).current_dir(home.dir.path());
    command.env_clear().env("HOME", home.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
    let mut terminal = Terminal::start_command(command, 80);
    terminal.expect("backing up: ");
    terminal.enter("\x03");
    let ended = terminal.end();
    assert!(ended.screen.contains("stopped on request"), "{}", ended.screen);
    assert_eq!(home.json(&["snapshots", "--json"]).as_array().unwrap().len(), 1);
}

/// The lines that are JSON, as values.
fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().filter_map(|line| serde_json::from_str(line.trim()).ok()).collect()
}

#[test]
fn programs_get_json_lines_also_on_a_terminal() {
    for scale in [1, 4, 16] {
        let home = large(scale);
        let mut terminal = Terminal::start(&home, &["backup", "documents", "--json", "--threads", "1"], 2000);
        if home.wait_until_it_stores(&mut terminal.child) {
            terminal.pause(Duration::from_millis(1100));
        }
        let ended = terminal.end();
        assert!(ended.code == Some(0) && !ended.raw.contains(ESCAPE), "{:?}", ended.raw);
        let lines = json_lines(&ended.raw);
        assert_eq!(lines.len(), ended.raw.lines().count(), "nothing but JSON: {}", ended.raw);
        assert_eq!(lines.last().unwrap()["files"], 40 * scale + 2, "the last one is the result");
        if let [first, .., _] = &lines[..] {
            assert_eq!((&first["event"], &first["stage"]), (&"progress".into(), &"backing up".into()));
            assert!(first["bytes"].is_u64() && first["seconds"].as_f64().unwrap() > 1.0 && first["path"].is_string(), "{first}");
            return;
        }
    }
    panic!("no progress was seen");
}

#[test]
fn where_there_is_no_terminal_a_line_comes_now_and_then() {
    for scale in [1, 4, 16] {
        let home = large(scale);
        let mut command = home.command(&["backup", "documents", "--threads", "1"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let id = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        if !home.wait_until_it_stores(&mut child) {
            continue;
        }
        // It stands still for longer than the time between two lines.
        rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(10_100);
        while let Some(left) = until.checked_duration_since(std::time::Instant::now()) {
            std::thread::park_timeout(left);
        }
        rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !said.contains(ESCAPE) && !said.contains('\r'), "{said:?}");
        if !said.is_empty() {
            assert!(said.starts_with("backing up: ") && said.contains(" files, ") && said.ends_with('\n'), "{said:?}");
            return;
        }
    }
    panic!("no progress was seen");
}

#[test]
fn an_error_is_one_json_line_for_programs() {
    let home = Home::filled();
    let output = home.run(&["restore", "ffffffff", "--to", "out", "--json"]);
    let lines = json_lines(std::str::from_utf8(&output.stderr).unwrap());
    assert!(output.stdout.is_empty() && lines.len() == 1, "{output:?}");
    assert_eq!((&lines[0]["event"], &lines[0]["exit_code"]), (&"error".into(), &1.into()));
    assert!(lines[0]["message"].is_string() && lines[0]["hint"].is_string());
}

#[test]
fn quiet_says_nothing_but_what_went_wrong() {
    let home = large(1);
    for arguments in [
        &["backup", "documents", "--quiet"][..],
        &["restore", "latest", "--to", "out", "--quiet"],
        &["check", "--quiet"],
        &["prune", "--quiet"],
    ] {
        let ended = Terminal::start(&home, arguments, 80).end();
        assert!(ended.code == Some(0) && ended.raw.is_empty(), "{arguments:?}: {:?}", ended.raw);
    }
    let ended = Terminal::start(&home, &["restore", "latest", "--to", "out", "--quiet"], 200).end();
    assert!(ended.code == Some(11) && ended.screen.contains("not empty") && ended.screen.contains("hint: "), "{}", ended.screen);
}

#[test]
fn names_that_would_drive_the_terminal_are_written_out() {
    let home = Home::new();
    let name = std::ffi::OsStr::from_bytes(b"bell\x07 \x1b]0;title\x07 \x1b[2J \xc2\x9b31m \xe2\x80\xaetxt\n\xff");
    std::fs::create_dir(home.path("names")).unwrap();
    std::fs::write(home.path("names").join(name), "x").unwrap();
    std::os::unix::fs::symlink(name, home.path("names/link")).unwrap();
    let safe = |arguments: &[&str]| {
        let mut command = home.bare_command(arguments);
        command.env("TERM", "xterm").env("NO_COLOR", "1");
        let ended = Terminal::start_command(command, 200).end();
        let bad = ended.raw.chars().find(|c| (c.is_control() && !matches!(c, '\r' | '\n')) || *c == '\u{202e}');
        assert_eq!(bad, None, "{arguments:?}: {:?}", ended.raw);
        ended
    };
    assert_eq!(safe(&["--no-progress", "backup", "names", "--tag", "\x1b[31mred", "--description", "a\x1b[2Jb"]).code, Some(0));
    for arguments in [
        &["snapshots"][..],
        &["show", "latest"],
        &["ls", "-lR", "latest"],
        &["find", "*"],
        &["diff", "latest:names", "."],
        &["restore", "latest", "--to", "out", "--no-progress"],
        &["restore", "latest", "--to", "out", "--no-progress"],
        &["cat", "latest:names/\x1b[31m"],
        &["restore", "latest:names/\x1b[31m", "--to", "out"],
        &["--repo", "\x1b[31m", "snapshots"],
        &["backup", "\x1b[31m"],
        &["stats"],
        &["check", "--no-progress"],
    ] {
        safe(arguments);
    }
    assert!(safe(&["ls", "-R", "latest"]).raw.contains("bell\\u{7} \\u{1b}]0;title"));
}
