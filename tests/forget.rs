//! `lifeboat forget` and its opposites, as a user meets them.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use lifeboat::event::Silent;
use lifeboat::id::SnapshotId;
use lifeboat::ops::forget::{Allow, Survey, forget};
use serde_json::Value;
use std::process::{Command, Stdio};
use support::home::Home;
use support::plant::{claim, plant};

/// A home with one snapshot of now and one of each of the first `days` of May 2024, all of the same paths.
fn may(days: usize) -> (Home, Vec<String>) {
    let home = Home::filled();
    let repository = home.open();
    let dir = home.repository_dir();
    let ids = (1..=days).map(|day| {
        plant(&repository, &dir, &format!("2024-05-{day:02}T12:00:00Z"), |snapshot| {
            if day == 1 {
                snapshot.tags = vec!["release".into()];
            }
        })
    });
    let ids = ids.map(|id: SnapshotId| id.to_string()).collect();
    (home, ids)
}

fn kept(home: &Home) -> usize {
    home.json(&["snapshots", "--json"]).as_array().unwrap().len()
}

/// The error of a run that must fail with this code.
fn fails(home: &Home, arguments: &[&str], code: i32) -> String {
    let output = home.run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

fn reasons(result: &Value) -> Vec<String> {
    let words = |snapshot: &Value| {
        let reasons: Vec<_> =
            snapshot["kept_by"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        assert_eq!(snapshot["goes"], reasons.is_empty());
        reasons.join(", ")
    };
    result["snapshots"].as_array().unwrap().iter().map(words).collect()
}

#[test]
fn the_table_says_for_each_snapshot_which_rule_keeps_it_or_that_it_goes() {
    let (home, ids) = may(5);
    let rules = ["forget", "--keep-daily", "3", "--keep-last", "1", "--keep-tag", "release", "--time-zone", "UTC"];
    let table = home.ok(&[&rules[..], &["--dry-run"]].concat());
    for (id, word) in [(0, "tag release"), (1, "goes"), (2, "goes"), (3, "daily 3 of 3"), (4, "daily 2 of 3")] {
        let line = table.lines().find(|line| line.contains(&ids[id][..8])).unwrap();
        assert!(line.trim_end().ends_with(word), "{table}");
    }
    assert!(table.contains("last 1 of 1, daily 1 of 3") && table.contains("would forget 2 of 6 snapshots"), "{table}");
    assert_eq!(kept(&home), 6, "a dry run forgets nothing");
    let result = home.json(&[&rules[..], &["--json"]].concat());
    assert_eq!(reasons(&result), ["tag release", "", "", "daily 3 of 3", "daily 2 of 3", "last 1 of 1, daily 1 of 3"]);
    assert_eq!((&result["done"], result["going"].as_array().unwrap().len()), (&true.into(), 2));
    assert_eq!(kept(&home), 4);
    assert_eq!(home.json(&[&rules[..], &["--json"]].concat())["going"], serde_json::json!([]), "doing it again changes nothing");
}

#[test]
fn what_was_forgotten_is_listed_apart_and_comes_back() {
    let (home, ids) = may(3);
    home.ok(&["forget", &ids[1][..10]]);
    assert_eq!(kept(&home), 3);
    let forgotten = home.json(&["snapshots", "--forgotten", "--json"]);
    assert_eq!(
        (forgotten[0]["id"].as_str().unwrap(), &forgotten[0]["marks"]),
        (ids[1].as_str(), &serde_json::json!(["forgotten"]))
    );
    let said = fails(&home, &["restore", &ids[1], "--to", "out"], 1);
    assert!(said.contains("was forgotten") && said.contains("unforget"), "{said}");
    assert!(fails(&home, &["forget", &ids[1]], 1).contains("was forgotten"));
    assert!(fails(&home, &["unforget", &ids[0]], 1).contains("no forgotten snapshot"));
    home.ok(&["cache", "rebuild"]);
    assert_eq!(kept(&home), 3, "the repository says it, not the cache");
    home.ok(&["unforget", &ids[1][..8], &ids[1]]);
    assert_eq!(kept(&home), 4);
    home.ok(&["restore", &ids[1], "--to", "out", "--verify"]);
    home.ok(&["forget", &ids[1]]);
    assert_eq!(kept(&home), 3, "and it can be forgotten again");
}

#[test]
fn what_a_prune_has_taken_cannot_come_back() {
    let (home, ids) = may(3);
    std::fs::write(home.path("documents/only-once"), support::noise(9, 400_000)).unwrap();
    home.ok(&["backup", "documents", "--tag", "once"]);
    std::fs::remove_file(home.path("documents/only-once")).unwrap();
    let once = home.json(&["snapshots", "--tag", "once", "--json"])[0]["id"].as_str().unwrap().to_owned();
    home.ok(&["forget", &once]);
    home.ok(&["unforget", &once]);
    home.ok(&["prune"]);
    home.ok(&["restore", &once, "--to", "first", "--verify"]);
    home.ok(&["forget", &once]);
    assert!(home.json(&["prune", "--json"]).is_object());
    assert!(home.json(&["snapshots", "--forgotten", "--json"]).as_array().unwrap().is_empty());
    assert!(fails(&home, &["unforget", &once], 1).contains("no forgotten snapshot"));
    home.ok(&["cache", "rebuild"]);
    assert!(fails(&home, &["unforget", &once], 1).contains("no forgotten snapshot"));
    home.ok(&["check", "--read-data"]);
    home.ok(&["restore", &ids[1], "--to", "second", "--verify"]);
}

#[test]
fn what_is_held_stays_until_the_hold_ends() {
    let (home, ids) = may(5);
    home.ok(&["hold", &ids[0][..8], &ids[1], "--reason", "audit"]);
    let said = fails(&home, &["forget", &ids[0]], 11);
    assert!(said.contains("audit") && said.contains("unhold"), "{said}");
    let result = home.json(&["forget", "--keep-last", "2", "--allow-most", "--json"]);
    assert_eq!(reasons(&result), ["held (audit)", "held (audit)", "", "", "last 2 of 2", "last 1 of 2"]);
    assert!(home.ok(&["snapshots"]).lines().any(|line| line.contains(&ids[0][..8]) && line.trim_end().ends_with("held")));
    assert!(home.ok(&["show", &ids[0]]).contains("held (audit)"));
    home.ok(&["unhold", &ids[0]]);
    assert!(fails(&home, &["unhold", &ids[0]], 1).contains("not held"));
    home.ok(&["forget", &ids[0]]);
    assert_eq!(kept(&home), 3);
}

#[test]
fn more_than_half_or_all_of_a_client_is_refused_until_it_is_said() {
    let (home, ids) = may(5);
    let said = fails(&home, &["forget", "--keep-last", "2"], 11);
    assert!(said.contains("4 of the 6 snapshots") && said.contains("--allow-most"), "{said}");
    assert!(home.run(&["forget", "--keep-last", "2"]).stdout.len() > 100, "the table is shown even so");
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert!(fails(&home, &[&["forget"], &names[..4]].concat(), 11).contains("--allow-most"));
    fails(&home, &["forget", "--keep-last", "2", "--dry-run"], 11);
    assert_eq!(kept(&home), 6);
    home.ok(&[&["forget"], &names[..3]].concat());
    assert_eq!(kept(&home), 3, "half is not more than half");
    let rest = home.json(&["snapshots", "--json"]);
    let rest: Vec<&str> = rest.as_array().unwrap().iter().map(|snapshot| snapshot["id"].as_str().unwrap()).collect();
    let all = [&["forget"], &rest[..]].concat();
    assert!(fails(&home, &all, 11).contains("--allow-all"));
    assert!(fails(&home, &[&all[..], &["--allow-most"]].concat(), 11).contains("--allow-all"));
    home.ok(&[&all[..], &["--allow-all"]].concat());
    assert_eq!(kept(&home), 0);
    assert!(fails(&home, &["forget", "--keep-last", "1"], 1).contains("none fits"));
}

#[test]
fn rules_that_keep_nothing_of_a_group_or_at_all_are_refused() {
    let (home, ids) = may(3);
    let repository = home.open();
    for day in 1..=2 {
        plant(&repository, &home.repository_dir(), &format!("2024-06-0{day}T12:00:00Z"), |snapshot| {
            snapshot.host = "other".into()
        });
    }
    let said = fails(&home, &["forget", "--keep-tag", "release"], 11);
    assert!(said.contains("nothing would be left of other full") && said.contains("--allow-all"), "{said}");
    let said = fails(&home, &["forget", "--host", "other", "--keep-tag", "release", "--allow-all"], 11);
    assert!(said.contains("keep nothing"), "a tag of other snapshots keeps none of these: {said}");
    home.ok(&["hold", &ids[1]]);
    let result = home.json(&["forget", "--host", "other", "--keep-last", "1", "--json"]);
    assert_eq!(reasons(&result), ["", "last 1 of 1"]);
}

#[test]
fn unknown_names_are_errors_and_never_an_empty_selection() {
    let (home, ids) = may(4);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--keep-last", "1", "--host", "typo"], 1, "the host \"typo\""),
        (&["--keep-last", "1", "--kind", "typo"], 1, "the kind \"typo\""),
        (&["--keep-last", "1", "--tag", "typo"], 1, "the tag \"typo\""),
        (&["--keep-last", "1", "--path", "/typo"], 1, "the path \"/typo\""),
        (&["--keep-last", "1", "--tag", "release,first"], 1, "none fits"),
        (&["--keep-tag", "typo", "--allow-all"], 1, "the tag \"typo\""),
        (&["--keep-id", "ffffffff", "--keep-last", "1"], 1, "no id begins like that"),
        (&["ffffffff"], 1, "no id begins like that"),
        (&["latest"], 1, "digits of an id"),
        (&["fff"], 1, "digits of an id"),
        (&[], 2, "no rule"),
        (&["--host", "typo"], 1, "typo"),
        (&["--keep-last", "0"], 2, "--keep-last"),
        (&["--keep-within", "30"], 2, "--keep-within"),
        (&["--keep-last", "1", "--group-by", "colour"], 2, "colour"),
        (&["--keep-last", "1", "--time-zone", "Mars/Base"], 2, "Mars/Base"),
        (&[&ids[0], "--keep-last", "1"], 2, "both"),
        (&[&ids[0], "--host", "test"], 2, "both"),
    ];
    for (arguments, code, word) in cases {
        let said = fails(&home, &[&["forget"], *arguments].concat(), *code);
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    assert!(fails(&home, &["ls", "latest", "--host", "typo"], 1).contains("the host \"typo\""));
    assert!(fails(&home, &["ls", "latest", "--tag", "release,first"], 1).contains("none fits"));
    assert!(fails(&home, &["ls", "newest"], 1).contains("neither `latest` nor"));
    assert_eq!(kept(&home), 5);
    assert!(home.json(&["snapshots", "--forgotten", "--json"]).as_array().unwrap().is_empty());
}

#[test]
fn a_beginning_that_several_ids_have_names_none() {
    let (home, _) = may(1);
    let repository = home.open();
    let mut firsts = std::collections::HashMap::new();
    // 65,536 beginnings: some two of a thousand ids share one.
    let twice = (0..1000).find_map(|number| {
        let id = claim(&repository, "2024-05-01T12:00:00Z", |snapshot| snapshot.description = number.to_string()).to_string();
        firsts.insert(id[..4].to_owned(), ()).map(|()| id[..4].to_owned())
    });
    let Some(twice) = twice else { return println!("skipped: no two ids of a thousand begin alike") };
    let before = kept(&home);
    assert!(fails(&home, &["forget", &twice], 2).contains("several ids"));
    assert_eq!(kept(&home), before);
}

#[test]
fn snapshots_from_the_future_push_no_good_ones_out() {
    let (home, _) = may(6);
    let repository = home.open();
    for number in 0..100 {
        let end = format!("2100-01-{:02}T{:02}:00:00Z", 1 + number / 24, number % 24);
        claim(&repository, &end, |_| ());
    }
    let rules = ["forget", "--keep-daily", "3", "--keep-last", "3", "--allow-all"];
    let said = fails(&home, &rules, 11);
    assert!(said.contains("claims to be of 2100-01-01") && said.contains("99 more"), "{said}");
    assert!(said.contains("--times stored") && said.contains("--times claimed"), "{said}");
    assert_eq!(kept(&home), 107);
    // By the store's times all of them are of today, and the days before keep theirs.
    let zone = ["--time-zone", "UTC", "--json"];
    let result = home.json(&[&rules[..], &["--times", "stored", "--dry-run"], &zone[..]].concat());
    assert_eq!(result["going"].as_array().unwrap().len(), 107 - 5, "{:?}", reasons(&result));
    let result = home.json(&[&rules[..], &["--times", "claimed", "--dry-run"], &zone[..]].concat());
    assert!(reasons(&result)[..6].iter().all(String::is_empty), "who believes the claims loses the others");
}

#[test]
fn a_record_that_is_gone_cannot_be_newer_than_all_others() {
    let (home, ids) = may(4);
    let repository = home.open();
    let late = claim(&repository, "2100-01-01T00:00:00Z", |_| ());
    let entries = repository.snapshots().unwrap();
    plant(&repository, &home.repository_dir(), "2024-06-01T12:00:00Z", |_| ());
    let removed = entries.iter().filter(|entry| entry.id == late || entry.id.to_string() == ids[0]);
    for entry in removed {
        std::fs::remove_file(home.repository_dir().join(format!("log/{}/{:016x}", entry.client, entry.seq))).unwrap();
    }
    let said = fails(&home, &["forget", "--keep-last", "3"], 11);
    assert!(said.contains("2100-01-01") && said.contains("since before"), "{said}");
    home.ok(&["forget", &late.to_string()]);
    home.ok(&["forget", "--keep-last", "3", "--allow-most", "--json"]);
}

#[test]
fn a_wrong_time_matters_only_where_something_goes() {
    let (home, _) = may(3);
    let repository = home.open();
    claim(&repository, "1970-01-01T00:00:00Z", |snapshot| snapshot.kind = "config".into());
    home.ok(&["forget", "--keep-last", "3"]);
    claim(&repository, "1970-01-02T00:00:00Z", |snapshot| snapshot.kind = "config".into());
    let said = fails(&home, &["forget", "--keep-last", "1", "--allow-most"], 11);
    assert!(said.contains("1970-01-01"), "{said}");
    home.ok(&["forget", "--keep-last", "1", "--allow-most", "--times", "stored"]);
}

#[test]
fn what_did_not_finish_is_marked_and_is_never_the_latest() {
    let (home, _) = may(3);
    let repository = home.open();
    let unfinished = plant(&repository, &home.repository_dir(), "2030-01-01T12:00:00Z", |snapshot| {
        snapshot.incomplete = true;
        snapshot.kind = "state".into();
    });
    let short = unfinished.short();
    assert!(home.ok(&["snapshots"]).lines().any(|line| line.contains(&short) && line.contains("unfinished")));
    assert_eq!(home.json(&["show", "latest", "--json"])["tags"][0], "first");
    assert!(fails(&home, &["restore", "latest", "--kind", "state", "--to", "out"], 1).contains(&short));
    assert!(fails(&home, &["restore", &short, "--to", "out", "--delete"], 11).contains("did not finish"));
    let output = home.run(&["restore", &short, "--to", "out"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("did not finish"));
    let result = home.json(&["forget", "--keep-last", "1", "--kind", "state", "--json"]);
    assert_eq!(reasons(&result), ["unfinished"]);
    plant(&repository, &home.repository_dir(), "2031-01-01T12:00:00Z", |snapshot| snapshot.kind = "state".into());
    let result = home.json(&["forget", "--keep-last", "1", "--kind", "state", "--json"]);
    assert_eq!(reasons(&result), ["", "last 1 of 1"]);
}

#[test]
fn checkpoints_of_backups_that_did_not_finish_replace_none_that_did() {
    let (home, ids) = may(2);
    let repository = home.open();
    for day in 3..7 {
        plant(&repository, &home.repository_dir(), &format!("2024-05-{day:02}T12:00:00Z"), |snapshot| snapshot.incomplete = true);
    }
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let said = fails(&home, &[&["forget"], &names[..]].concat(), 11);
    assert!(said.contains("2 of the 3 snapshots") && said.contains("--allow-most"), "{said}");
}

#[test]
fn groups_can_be_made_by_other_parts_or_by_none() {
    let (home, _) = may(3);
    let repository = home.open();
    for kind in ["config", "logs"] {
        plant(&repository, &home.repository_dir(), "2024-04-01T12:00:00Z", |snapshot| snapshot.kind = kind.into());
    }
    let going = |arguments: &[&str]| {
        let result = home.run(&[&["forget", "--keep-last", "2", "-n", "--json"], arguments].concat());
        serde_json::from_slice::<Value>(&result.stdout).unwrap()["going"].as_array().unwrap().len()
    };
    assert_eq!(going(&[]), 2);
    assert_eq!(going(&["--group-by", "host,paths"]), 4);
    assert_eq!(going(&["--group-by", "none"]), 4);
    assert_eq!(going(&["--group-by", "tags,kind"]), 0);
    assert_eq!(going(&["--kind", "logs", "--kind", "config"]), 0);
}

#[test]
fn on_a_terminal_it_asks_first() {
    let (home, ids) = may(3);
    let program = env!("CARGO_BIN_EXE_lifeboat");
    let run = |answer: &str, more: &str| {
        let command = format!("printf '{answer}\\n' | script -qec '{program} forget {} {more}' /dev/null", ids[0]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).env("HOME", home.dir.path()).current_dir(home.dir.path());
        shell.stdin(Stdio::null()).output().unwrap()
    };
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return println!("skipped: there is no `script` to make a terminal with");
    }
    let refused = run("n", "");
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("forget 1 snapshot? [y/N]") && said.contains("not confirmed"), "{said}");
    assert_eq!((refused.status.code(), kept(&home)), (Some(11), 4));
    assert_eq!((run("y", "").status.code(), kept(&home)), (Some(0), 3));
    home.ok(&["unforget", &ids[0]]);
    let silent = run("n", "--yes");
    assert!(!String::from_utf8_lossy(&silent.stdout).contains("[y/N]"));
    assert_eq!(kept(&home), 3);
}

#[test]
fn several_at_once_come_to_the_same_end() {
    let (home, ids) = may(12);
    let rules = ["forget", "--keep-last", "4", "--allow-most", "--quiet"];
    let mut running: Vec<_> = (0..4).map(|_| home.command(&rules).spawn().unwrap()).collect();
    running.extend((0..2).map(|_| home.command(&["hold", &ids[0], "--quiet"]).spawn().unwrap()));
    let codes: Vec<_> = running.into_iter().map(|mut child| child.wait().unwrap().code().unwrap()).collect();
    // A hold that came after the forgets finds the snapshot forgotten and says so; one that came between the plan of a
    // forget and its record is respected.
    assert!(codes[..4].iter().all(|code| matches!(code, 0 | 11)), "{codes:?}");
    assert!(codes[4..].iter().all(|code| matches!(code, 0 | 1)), "{codes:?}");
    home.ok(&rules);
    let held = codes[4..].contains(&0);
    assert_eq!(kept(&home), 4 + usize::from(held));
    let standing = home.json(&["snapshots", "--json"]);
    home.ok(&["cache", "rebuild"]);
    assert_eq!(home.json(&["snapshots", "--json"]), standing, "whoever reads the logs anew comes to the same end");
    home.ok(&["prune"]);
    home.ok(&["check", "--read-data"]);
}

#[test]
fn what_others_forget_while_somebody_looks_at_the_plan_counts_too() {
    let (home, ids) = may(7);
    let repository = home.open();
    let plan = |names: &[String]| Survey::of_names(&repository, names).unwrap().plan_all();
    let (first, second) = (plan(&ids[..4]), plan(&ids[3..7]));
    assert!(first.refusal(Allow::Half).is_none() && second.refusal(Allow::Half).is_none());
    home.ok(&["forget", &ids[0], &ids[1], &ids[2], &ids[3]]);
    let error = forget(&repository, &second, Allow::Half, &Silent).unwrap_err();
    assert!(error.exit_code() == 11 && error.to_string().contains("in the meantime"), "{error}");
    let report = forget(&repository, &second, Allow::Most, &Silent).unwrap();
    assert_eq!((report.forgotten.len(), report.kept), (3, 1), "one was forgotten already");
    assert_eq!(forget(&repository, &first, Allow::Half, &Silent).unwrap().forgotten.len(), 0);
}

#[test]
fn every_command_line_of_the_reference_runs() {
    let reference = include_str!("../docs/reference/retention.md");
    let (home, ids) = may(6);
    let bin = home.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lifeboat"), bin.join("lifeboat")).unwrap();
    std::fs::create_dir(home.path("Documents")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut lines = 0;
    for block in reference.split("```sh\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", line])
                .current_dir(home.dir.path())
                .env_clear()
                .env("HOME", home.dir.path())
                .env("PATH", &path)
                .env("SNAPSHOT", &ids[5][..8]);
            let output = shell.stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            lines += 1;
        }
    }
    assert_eq!(lines, 13);
}

#[test]
fn a_snapshot_is_kept_until_its_own_retention_ends_unless_it_is_said_that_this_is_meant() {
    let home = Home::filled();
    let retained = home.json(&["backup", "documents", "--retain", "90d", "--json"]);
    home.ok(&["backup", "documents"]);
    home.ok(&["backup", "documents"]);
    let id = &retained["id"].as_str().unwrap()[..8];
    let until: jiff::Timestamp = retained["retain_until"].as_str().unwrap().parse().unwrap();
    let days = (until - jiff::Timestamp::now()).get_seconds() / 86_400;
    assert!((89..=90).contains(&days), "{retained}");
    // It is shown, and as a mark only where there is one.
    let entries = home.json(&["snapshots", "--json"]);
    let marks: Vec<_> = entries.as_array().unwrap().iter().map(|entry| entry["marks"].to_string()).collect();
    assert_eq!(marks, ["[]", "[\"retained\"]", "[]", "[]"]);
    assert!(entries[0]["retain_until"].is_null() && entries[1]["retain_until"].is_string());
    let (list, show) = (home.ok(&["snapshots"]), home.ok(&["show", id]));
    let date = until.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d").to_string();
    assert!(list.contains(&format!("retained until {date}")), "{list}");
    assert!(show.lines().any(|line| line.starts_with("retained ") && line.contains(&date)), "{show}");
    // Rules keep it, and by its name it does not go.
    let rules = ["forget", "--keep-last", "1", "--allow-most", "--json"];
    let forgot = home.json(&[&rules[..], &["--dry-run"]].concat());
    assert!(reasons(&forgot)[1].starts_with(&format!("retained until {date}")), "{forgot}");
    assert!(fails(&home, &["forget", id], 11).contains("is retained until"));
    home.json(&rules);
    assert_eq!(kept(&home), 2);
    // A hold outweighs what is said in spite of a retention.
    home.ok(&["hold", id]);
    assert!(fails(&home, &["forget", id, "--despite-retention"], 11).contains("held"));
    home.ok(&["unhold", id]);
    home.ok(&["forget", id, "--despite-retention"]);
    assert_eq!(kept(&home), 1);
}

#[test]
fn a_retention_that_has_ended_keeps_nothing() {
    let (home, _) = may(1);
    let plant_one = |day: u8, until: i64| {
        plant(&home.open(), &home.repository_dir(), &format!("2024-04-{day:02}T12:00:00Z"), |snapshot| {
            snapshot.retain_until = Some(until);
        })
    };
    let (ended, lasts) = (plant_one(1, 1_700_000_000_000_000_000), plant_one(2, i64::MAX));
    let marks = |id: SnapshotId| home.json(&["show", &id.to_string(), "--json"])["marks"].to_string();
    assert_eq!((marks(ended).as_str(), marks(lasts).as_str()), ("[]", "[\"retained\"]"));
    let result = home.json(&["forget", "--keep-last", "1", "--json"]);
    assert_eq!(reasons(&result)[1..3], ["retained until 2262-04-11 23:47 UTC".to_owned(), String::new()], "{result}");
    assert_eq!(reasons(&result)[0], "", "{result}");
}

#[test]
fn the_configuration_gives_every_backup_a_retention_that_the_command_line_overrides() {
    let home = Home::filled();
    let configure = |text: &str| std::fs::write(home.path(".config/lifeboat/lifeboat.toml"), text).unwrap();
    configure("retain = \"1w\"\n");
    let days = |arguments: &[&str]| {
        let made = home.json(&[&["backup", "documents", "--json"], arguments].concat());
        let until = made["retain_until"].as_str().map(|until| until.parse::<jiff::Timestamp>().unwrap());
        until.map(|until| (until - jiff::Timestamp::now()).get_seconds().div_euclid(86_400) + 1)
    };
    assert_eq!((days(&[]), days(&["--retain", "3d"]), days(&["--retain", "none"])), (Some(7), Some(3), None));
    configure("retain = \"soon\"\n");
    assert!(fails(&home, &["backup", "documents"], 2).contains("configuration"));
    assert_eq!(home.code(&["backup", "documents", "--retain", "0d"]), 2);
}
