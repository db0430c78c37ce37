//! What servers and lines do to requests: each fault is mended by trying again, or reported with what to do, and a backup
//! that could not put everything commits nothing.

#[path = "support/away.rs"]
mod away;
#[path = "support/behind.rs"]
mod behind;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/servers.rs"]
mod servers;
mod support;

use behind::Behind;
use proxy::{Action, Request};
use std::time::Duration;
use support::noise;

impl Behind {
    /// With a repository, as long as nothing goes wrong.
    fn with_repository() -> Option<Self> {
        let behind = Self::new("")?;
        std::fs::write(behind.home.path("documents/data"), noise(1, 2_000_000)).unwrap();
        behind.ok(&["init"]);
        Some(behind)
    }

    /// Snapshots that are there when nothing goes wrong.
    fn snapshots(&self) -> usize {
        self.proxy.rule(|_| Action::Pass);
        let listed: serde_json::Value = serde_json::from_str(&self.ok(&["snapshots", "--json"])).unwrap();
        listed.as_array().unwrap().len()
    }
}

fn puts_pack(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("/packs/")
}

#[test]
fn faults_that_pass_are_tried_again_until_they_have() {
    let Some(behind) = Behind::with_repository() else { return };
    behind.proxy.rule(|request| match request.number {
        number if number % 3 != 0 => Action::Pass,
        number => match (number / 3) % 9 {
            0 => Action::refuse(503, "SlowDown"),
            1 => Action::Cut,
            2 => Action::refuse(500, "InternalError"),
            3 => Action::CutBody,
            4 => Action::refuse(429, "TooManyRequests"),
            5 => Action::LoseAnswer,
            6 => Action::refuse(409, "OperationAborted"),
            7 => Action::refuse(400, "RequestTimeout"),
            _ => Action::Answer(504, String::new()),
        },
    });
    behind.ok(&["backup", "documents"]);
    std::fs::write(behind.home.path("documents/data"), noise(2, 2_000_000)).unwrap();
    behind.ok(&["backup", "documents"]);
    behind.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert!(std::fs::read(behind.home.path("out/documents/data")).unwrap() == noise(2, 2_000_000));
    behind.ok(&["check", "--read-data"]);
    behind.ok(&["forget", "--keep-last", "1", "--yes"]);
    behind.ok(&["prune", "--grace", "0s"]);
    assert!(behind.proxy.take_requests().len() > 60);
    assert_eq!(behind.snapshots(), 1);
    behind.ok(&["check", "--read-data"]);
}

#[test]
fn a_backup_that_could_not_put_everything_commits_nothing_and_the_next_one_goes_on() {
    let Some(behind) = Behind::with_repository() else { return };
    for action in
        [Action::refuse(503, "SlowDown"), Action::Cut, Action::refuse(403, "AccessDenied"), Action::refuse(400, "ExpiredToken")]
    {
        let told = action.clone();
        behind.proxy.rule(move |request| if puts_pack(request) { told.clone() } else { Action::Pass });
        let url = format!("{}&retries=1", behind.url);
        let mut command = behind.home.command(&["--repo", &url, "backup", "documents"]);
        let output = command.envs(behind.server.variables()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("packs/") && said.contains("hint: "), "{action:?}: {said}");
        assert_eq!(behind.snapshots(), 0, "{action:?}");
    }
    behind.ok(&["backup", "documents"]);
    behind.ok(&["check", "--read-data"]);
}

#[test]
fn a_server_that_says_that_it_has_an_object_and_loses_it_is_found_out() {
    let Some(behind) = Behind::with_repository() else { return };
    let url = format!("{}&retries=1", behind.url);
    for lost in ["/packs/", "/log/"] {
        behind.proxy.rule(move |request| match request.method == "PUT" && request.path.contains(lost) {
            true => Action::Answer(200, String::new()),
            false => Action::Pass,
        });
        let mut command = behind.home.command(&["--repo", &url, "backup", "documents"]);
        let output = command.envs(behind.server.variables()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{lost}: {said}");
        assert!(said.contains("said that it has it") && said.contains("loses objects"), "{lost}: {said}");
        assert_eq!(behind.snapshots(), 0, "{lost}");
    }
}

#[test]
fn bytes_that_were_hurt_on_the_way_are_fetched_again() {
    let Some(behind) = Behind::with_repository() else { return };
    behind.ok(&["backup", "documents"]);
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    behind.proxy.rule(move |request| {
        let range = request.headers.get("range").cloned().unwrap_or_default();
        let first = request.path.contains("/packs/") && seen.lock().unwrap().insert((request.path.clone(), range));
        if request.method == "GET" && first { Action::Corrupt } else { Action::Pass }
    });
    behind.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert!(std::fs::read(behind.home.path("out/documents/data")).unwrap() == noise(1, 2_000_000));
    // What is damaged every time is damage.
    behind.proxy.rule(|request| match request.method == "GET" && request.path.contains("/packs/") {
        true => Action::Corrupt,
        false => Action::Pass,
    });
    let output = behind.run(&["restore", "latest", "--to", "out2"]);
    assert!(!output.status.success());
}

#[test]
fn a_delete_that_is_not_allowed_is_reported_and_loses_nothing() {
    let Some(behind) = Behind::with_repository() else { return };
    behind.ok(&["backup", "documents"]);
    std::fs::write(behind.home.path("documents/data"), noise(2, 2_000_000)).unwrap();
    behind.ok(&["backup", "documents"]);
    behind.ok(&["forget", "--keep-last", "1", "--yes"]);
    behind.proxy.rule(|request| match request.method.as_str() {
        "DELETE" => Action::refuse(403, "AccessDenied"),
        "POST" if request.path.contains("?delete") => Action::refuse(403, "AccessDenied"),
        _ => Action::Pass,
    });
    let said = behind.fails(&["prune", "--grace", "0s"], 11);
    assert!(said.contains("AccessDenied"), "{said}");
    behind.proxy.rule(|_| Action::Pass);
    behind.ok(&["prune", "--grace", "0s"]);
    behind.ok(&["check", "--read-data"]);
    behind.ok(&["restore", "latest", "--to", "out", "--verify"]);
}

#[test]
fn a_listing_that_shows_nothing_loses_nothing() {
    let Some(behind) = Behind::with_repository() else { return };
    behind.ok(&["backup", "documents"]);
    behind.proxy.rule(|request| match request.path.contains("list-type=2") && !request.path.contains("keys") {
        true => Action::Answer(200, "<?xml version=\"1.0\"?><ListBucketResult><Name>bucket</Name></ListBucketResult>".into()),
        false => Action::Pass,
    });
    behind.ok(&["backup", "documents"]);
    let _ = behind.run(&["prune", "--grace", "0s"]);
    behind.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert_eq!(behind.snapshots(), 2);
    behind.ok(&["check", "--read-data"]);
}

#[test]
fn a_line_that_is_slow_is_kept_full() {
    let Some(behind) = Behind::with_repository() else { return };
    for number in 0..40 {
        std::fs::write(behind.home.path(&format!("documents/{number}")), noise(100 + number, 1_000_000)).unwrap();
    }
    let mut found = Vec::new();
    // On a machine that is busy requests come late: then answers do, too.
    for milliseconds in [60, 300, 1500, 5000] {
        behind.proxy.rule(move |request: &Request| match request.path.contains("/packs/") {
            true => Action::Hold(4, Duration::from_millis(milliseconds)),
            false => Action::Pass,
        });
        behind.ok(&["backup", "documents"]);
        let put = behind.proxy.take_most();
        behind.proxy.take_requests();
        behind.ok(&["restore", "latest", "--to", &format!("out{milliseconds}")]);
        let restored = behind.proxy.take_most();
        let gets = behind.proxy.take_requests().iter().filter(|request| request.path.contains("/packs/")).count();
        // 42 MB in blocks of one: those that lie side by side come together.
        assert!(gets < 30, "{gets} requests");
        behind.ok(&["check"]);
        let checked = behind.proxy.take_most();
        if put >= 2 && restored >= 4 && checked >= 2 {
            return;
        }
        found.push((put, restored, checked));
        for number in 0..40 {
            let seed = 1000 * milliseconds + number;
            std::fs::write(behind.home.path(&format!("documents/{number}")), noise(seed, 1_000_000)).unwrap();
        }
    }
    panic!("puts, gets, and those of a check that were under way at once: {found:?}");
}

#[test]
fn what_is_cut_in_the_middle_in_either_direction_is_sent_again() {
    let Some(behind) = Behind::with_repository() else { return };
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    behind.proxy.rule(move |request| {
        let range = request.headers.get("range").cloned().unwrap_or_default();
        let first = seen.lock().unwrap().insert((request.method.clone(), request.path.clone(), range));
        match request.method.as_str() {
            "PUT" if first => Action::CutUpload,
            // Its head says that this is all there is.
            "GET" if first && request.path.contains("/packs/") => Action::Shorten,
            "GET" if first => Action::CutBody,
            _ => Action::Pass,
        }
    });
    behind.ok(&["backup", "documents"]);
    let _ = std::fs::remove_dir_all(behind.home.path(".cache"));
    behind.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert!(std::fs::read(behind.home.path("out/documents/data")).unwrap() == noise(1, 2_000_000));
    behind.ok(&["check", "--read-data"]);
    assert_eq!(behind.snapshots(), 1);
}

#[test]
fn an_object_that_is_always_too_short_is_damage_and_never_content() {
    let Some(behind) = Behind::with_repository() else { return };
    behind.ok(&["backup", "documents"]);
    behind.proxy.rule(|request| match request.method == "GET" && request.path.contains("/packs/") {
        true => Action::Shorten,
        false => Action::Pass,
    });
    let _ = std::fs::remove_dir_all(behind.home.path(".cache"));
    let url = format!("{}&retries=1", behind.url);
    for arguments in [&["restore", "latest", "--to", "out"][..], &["check", "--read-data"]] {
        let mut command = behind.home.command(&[&["--repo", &url], arguments].concat());
        assert!(!command.envs(behind.server.variables()).output().unwrap().status.success(), "{arguments:?}");
    }
    assert!(!behind.home.path("out/documents/data").exists());
    behind.proxy.rule(|_| Action::Pass);
    behind.ok(&["check", "--read-data"]);
}

#[test]
fn a_server_that_always_says_that_a_name_is_taken_commits_nothing_and_is_not_asked_forever() {
    let Some(behind) = Behind::with_repository() else { return };
    for (seed, status, code) in [(2, 412, "PreconditionFailed"), (3, 409, "ConditionalRequestConflict")] {
        for taken in ["/packs/", "/log/"] {
            // What an attempt before has put would not be put again.
            std::fs::write(behind.home.path("documents/data"), noise(seed, 2_000_000)).unwrap();
            behind.proxy.rule(move |request| match request.method == "PUT" && request.path.contains(taken) {
                true => Action::refuse(status, code),
                false => Action::Pass,
            });
            behind.proxy.take_requests();
            let url = format!("{}&retries=1", behind.url);
            let mut command = behind.home.command(&["--repo", &url, "backup", "documents"]);
            let output = command.envs(behind.server.variables()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains("hint: "), "{status} {taken}: {said}");
            assert!(behind.proxy.take_requests().len() < 400, "{status} {taken}");
            assert_eq!(behind.snapshots(), 0, "{status} {taken}");
        }
    }
    behind.ok(&["backup", "documents"]);
    behind.ok(&["check", "--read-data"]);
}

#[test]
fn credentials_that_expire_in_the_middle_are_told_from_wrong_ones_and_the_next_run_goes_on() {
    let Some(behind) = Behind::with_repository() else { return };
    for (status, code, hint) in [
        (403, "ExpiredToken", "renew the credentials"),
        (403, "InvalidAccessKeyId", "check the credentials"),
        (403, "SignatureDoesNotMatch", "check the credentials"),
        (401, "Unauthorized", "check the credentials"),
        (403, "AccessDenied", "may not do this"),
        (404, "NoSuchBucket", "make the bucket"),
        (403, "RequestTimeTooSkewed", "clock"),
        (507, "InsufficientStorage", "free some space"),
    ] {
        behind.proxy.rule(move |request| match request.method == "PUT" && request.path.contains("/log/") {
            true => Action::refuse(status, code),
            false => Action::Pass,
        });
        let output = behind.run(&["backup", "documents"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(hint), "{code}: {said}");
        assert_eq!(behind.snapshots(), 0, "{code}");
    }
    behind.ok(&["backup", "documents"]);
    behind.ok(&["check", "--read-data"]);
}

#[test]
fn a_listing_that_lags_behind_makes_no_prune_delete_what_is_needed() {
    let Some(behind) = Behind::with_repository() else { return };
    behind.ok(&["backup", "documents"]);
    // From here on listings show what there was at this moment.
    behind.proxy.rule(|request| if request.path.contains("list-type=2") { Action::Replay } else { Action::Pass });
    behind.ok(&["prune", "--dry-run"]);
    for seed in 2..5 {
        std::fs::write(behind.home.path("documents/data"), noise(seed, 2_000_000)).unwrap();
        behind.ok(&["backup", "documents"]);
        behind.ok(&["forget", "--keep-last", "1", "--yes"]);
        let _ = behind.run(&["prune", "--grace", "0s"]);
        let _ = std::fs::remove_dir_all(behind.home.path("out"));
        behind.ok(&["restore", "latest", "--to", "out", "--verify"]);
        assert!(std::fs::read(behind.home.path("out/documents/data")).unwrap() == noise(seed, 2_000_000));
    }
    behind.proxy.rule(|_| Action::Pass);
    behind.ok(&["prune", "--grace", "0s"]);
    behind.ok(&["check", "--read-data"]);
    assert_eq!(behind.snapshots(), 1);
}

/// A backup of much that meets a line on which nothing passes any more, once the first pack is on its way.
fn meets_a_broken_line(behind: &Behind, broken: Action) -> (std::process::Child, std::io::BufReader<std::process::ChildStderr>) {
    behind.proxy.rule(move |request| match request.method == "PUT" && request.path.contains("/packs/") {
        true => broken.clone(),
        false => Action::Pass,
    });
    behind.proxy.take_requests();
    let mut command = behind.home.command(&["--repo", &behind.url, "--json", "backup", "documents"]);
    let mut child = command.envs(behind.server.variables()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let said = std::io::BufReader::new(child.stderr.take().unwrap());
    (child, said)
}

/// Reads what is said until it says that the store is waited for.
fn wait_for_word(said: &mut impl std::io::BufRead) {
    let mut all = String::new();
    while !all.lines().last().unwrap_or_default().contains(r#""event":"waiting""#) {
        assert!(said.read_line(&mut all).unwrap() > 0, "{all}");
    }
}

fn interrupt(child: &std::process::Child) {
    let process = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
}

#[test]
fn a_line_that_breaks_for_a_while_is_waited_for_and_this_is_said() {
    let Some(behind) = Behind::with_repository() else { return };
    let (mut child, mut said) = meets_a_broken_line(&behind, Action::Cut);
    wait_for_word(&mut said);
    behind.proxy.rule(|_| Action::Pass);
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    // The same in the middle of a restore.
    behind.proxy.rule(|request| match request.method == "GET" && request.path.contains("/packs/") {
        true => Action::CutBody,
        false => Action::Pass,
    });
    let arguments = ["--repo", &behind.url, "--json", "restore", "latest", "--to", "out"];
    let mut command = behind.home.command(&arguments);
    let mut child = command.envs(behind.server.variables()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    wait_for_word(&mut said);
    behind.proxy.rule(|_| Action::Pass);
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(std::fs::read(behind.home.path("out/documents/data")).unwrap() == noise(1, 2_000_000));
}

#[test]
fn whoever_waits_for_a_broken_line_is_stopped_by_one_signal() {
    let Some(behind) = Behind::with_repository() else { return };
    let (mut child, mut said) = meets_a_broken_line(&behind, Action::Cut);
    wait_for_word(&mut said);
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // A line on which nothing comes and nothing breaks.
    let (mut child, said) = meets_a_broken_line(&behind, Action::Hold(usize::MAX, Duration::from_secs(600)));
    while behind.proxy.take_most() == 0 {
        std::thread::yield_now();
    }
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(said);
    behind.proxy.rule(|_| Action::Pass);
    assert_eq!(behind.snapshots(), 0);
    behind.ok(&["backup", "documents"]);
    behind.ok(&["check", "--read-data"]);
}
