//! What ran on this machine is noted, and noting it is never in the way.

mod support;

use support::home::Home;

#[test]
fn runs_are_listed_with_how_they_ended_and_their_figures() {
    let home = Home::filled();
    home.ok(&["check", "--read-data"]);
    home.ok(&["restore", "latest", "--to", "out"]);
    assert_eq!(home.code(&["restore", "latest", "--to", "out"]), 11);
    home.ok(&["prune"]);
    for quiet in [&["prune", "--dry-run"][..], &["backup", "documents", "--dry-run"], &["snapshots"], &["ls", "latest"]] {
        home.ok(quiet);
    }
    assert_eq!(home.code(&["backup", "missing"]), 1);
    let all = home.json(&["history", "--json"]);
    let seen: Vec<_> =
        all.as_array().unwrap().iter().map(|run| (run["command"].as_str().unwrap(), run["exit_code"].as_u64())).collect();
    let ended = [("backup", 1), ("prune", 0), ("restore", 11), ("restore", 0), ("check", 0), ("backup", 0)];
    assert_eq!(seen, ended.map(|(verb, code)| (verb, Some(code))));
    assert_eq!((&all[3]["figures"]["files"], &all[5]["figures"]["new"]), (&2.into(), &2.into()));
    assert!(all[2]["message"].as_str().unwrap().contains("not empty"));
    let id = home.json(&["snapshots", "--json"])[0]["id"].clone();
    assert_eq!(all[5]["figures"]["id"], id);
    assert!(all[5]["start"].as_str() <= all[5]["end"].as_str());
    let table = home.ok(&["history"]);
    assert!(table.contains("2 files") && table.contains("exit code 11: restore into out") && table.contains("6 runs"), "{table}");
    assert_eq!(home.json(&["history", "--of", "prune", "--json"]).as_array().unwrap().len(), 1);
    assert_eq!(home.json(&["history", "-n", "2", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn whatever_writes_is_noted() {
    let home = Home::new();
    home.ok(&["init"]);
    std::fs::create_dir(home.path("documents")).unwrap();
    (0..2).for_each(|_| drop(home.ok(&["backup", "documents"])));
    let id = home.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let (_, recipient) = lifeboat::repo::generate_identity().unwrap();
    let slot = ["key", "enrol", "--role", "writer", "--recipient", &recipient, "--name", "other"];
    home.ok(&slot);
    home.ok(&["hold", &id]);
    home.ok(&["unhold", &id]);
    home.ok(&["forget", "--keep-last", "1", "--dry-run"]);
    home.ok(&["forget", "--keep-last", "1", "--yes"]);
    home.ok(&["unforget", &id]);
    home.ok(&["repair"]);
    home.ok(&["repair", "--parity", "5%", "--apply"]);
    home.ok(&["mirror", "--to", "mirror"]);
    home.ok(&["init", "--repo", "copy"]);
    home.ok(&["copy", "--to", "copy"]);
    let all = home.json(&["history", "--json"]);
    let seen: Vec<_> = all.as_array().unwrap().iter().map(|run| run["command"].as_str().unwrap()).collect();
    let expected =
        ["copy", "init", "mirror", "repair", "unforget", "forget", "unhold", "hold", "key enrol", "backup", "backup", "init"];
    assert_eq!(seen, expected);
    assert_eq!((&all[0]["figures"]["copied"], &all[5]["figures"]["forgotten"]), (&2.into(), &1.into()));
    let table = home.ok(&["history"]);
    assert!(table.contains("2 copied") && table.contains("1 forgotten"), "{table}");
}

#[test]
fn it_stays_when_the_cache_goes_and_is_begun_anew_when_damaged() {
    let home = Home::filled();
    home.ok(&["cache", "clear"]);
    home.ok(&["cache", "rebuild"]);
    assert_eq!(home.json(&["history", "--json"]).as_array().unwrap().len(), 1);
    let path = home.path(".local/state/lifeboat/history.sqlite");
    std::fs::write(&path, [7; 10_000]).unwrap();
    home.ok(&["backup", "documents"]);
    assert_eq!(home.json(&["history", "--json"]).as_array().unwrap().len(), 1);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    home.ok(&["backup", "documents"]);
    assert_eq!(home.json(&["snapshots", "--json"]).as_array().unwrap().len(), 3);
}

#[test]
fn a_run_that_was_killed_has_no_end_and_several_at_once_are_all_noted() {
    let home = Home::filled();
    let mut command = home.command(&["backup", "--stdin", "never-ends"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    while home.json(&["history", "--json"]).as_array().unwrap().len() < 2 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let cut_off = &home.json(&["history", "--json"])[0];
    assert!(cut_off["end"].is_null() && cut_off["exit_code"].is_null());
    assert!(home.ok(&["history"]).contains("cut off, or still running"));
    let many: Vec<_> = (0..4).map(|_| home.command(&["check", "--quiet"]).spawn().unwrap()).collect();
    for mut child in many {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(home.json(&["history", "--of", "check", "--json"]).as_array().unwrap().len(), 4);
}
