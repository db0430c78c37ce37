//! A store that is set back to an older state, as those meet it who have seen more.

mod support;

use lifeboat::error::{Error, ErrorKind};
use lifeboat::event::Silent;
use lifeboat::repo::{Access, OpenOptions, Repository};
use lifeboat::store::Location;
use std::path::Path;
use std::process::{Command, Output};
use support::home::Home;
use support::team::Team;

/// A machine that uses the repository of another one with the same identity.
struct Second {
    home: Home,
    repository: String,
    identity: String,
}

impl Second {
    fn of(first: &Home) -> Self {
        let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        let identity = text(first.path(".config/lifeboat/identity.txt"));
        Self { home: Home::new(), repository: text(first.repository_dir()), identity }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.home.run(&[arguments, &["--repo", &self.repository, "--identity", &self.identity]].concat())
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A home whose store was set back from two snapshots to one; with the id of the lost one.
fn set_back() -> (Home, String) {
    let home = Home::filled();
    copy(&home.repository_dir(), &home.path("old"));
    std::fs::write(home.path("documents/note"), "second").unwrap();
    home.ok(&["backup", "documents", "--tag", "second"]);
    let lost = home.json(&["snapshots", "--tag", "second", "--json"])[0]["id"].as_str().unwrap().to_owned();
    copy(&home.path("old"), &home.repository_dir());
    (home, lost)
}

#[test]
fn who_has_seen_more_notices_and_who_has_not_does_not() {
    let home = Home::filled();
    let (seen_less, seen_more) = (Second::of(&home), Second::of(&home));
    assert!(seen_less.run(&["snapshots"]).status.success());
    copy(&home.repository_dir(), &home.path("old"));
    home.ok(&["backup", "documents"]);
    assert!(seen_more.run(&["snapshots"]).status.success());
    std::fs::create_dir(seen_more.home.path("documents")).unwrap();
    copy(&home.path("old"), &home.repository_dir());
    for arguments in [&["snapshots"][..], &["backup", "documents"], &["check"], &["forget", "--keep-last", "1"], &["prune"]] {
        for output in [home.run(arguments), seen_more.run(arguments)] {
            assert_eq!(output.status.code(), Some(14), "{arguments:?}: {}", said(&output));
            assert!(said(&output).contains("is gone") && said(&output).contains("--accept-rollback"), "{}", said(&output));
        }
    }
    assert!(seen_less.run(&["snapshots"]).status.success());
    assert!(Second::of(&home).run(&["snapshots"]).status.success(), "a machine that has seen nothing cannot know");
}

#[test]
fn without_its_cache_a_machine_remembers_too() {
    let (home, _) = set_back();
    std::fs::remove_dir_all(home.path(".cache")).unwrap();
    assert_eq!(home.code(&["snapshots"]), 14);
    assert_eq!(home.code(&["cache", "rebuild"]), 14);
    std::fs::remove_dir_all(home.path(".local/state")).unwrap();
    home.ok(&["snapshots"]);
}

#[test]
fn the_cache_remembers_what_the_state_folder_lost() {
    let (home, _) = set_back();
    std::fs::remove_dir_all(home.path(".local/state")).unwrap();
    assert_eq!(home.code(&["snapshots"]), 14);
}

#[test]
fn accepting_says_what_is_lost_and_then_goes_on() {
    let (home, lost) = set_back();
    let output = home.run(&["snapshots", "--accept-rollback", "--quiet"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("it was seen up to") && said(&output).contains(&format!("snapshot {}, full of", &lost[..8])));
    assert_eq!(home.json(&["snapshots", "--json"]).as_array().unwrap().len(), 1, "once accepted it is as it is");
    assert_eq!(said(&home.run(&["snapshots", "--accept-rollback"])), "", "nothing is lost any more");
    home.ok(&["backup", "documents", "--tag", "again"]);
    home.ok(&["check", "--read-data"]);
    home.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert_eq!(std::fs::read(home.path("out/documents/note")).unwrap(), b"second");
}

#[test]
fn events_name_what_is_lost_for_programs() {
    let (home, lost) = set_back();
    let output = home.run(&["snapshots", "--accept-rollback", "--json"]);
    let events: Vec<serde_json::Value> = said(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["event"] == "rollback"));
    assert!(events[0]["seen"].as_u64() > events[0]["left"].as_u64());
    assert_eq!(events[1]["snapshot"], lost);
}

#[test]
fn a_history_that_went_on_differently_is_noticed_by_those_who_saw_the_other_one() {
    let (home, lost) = set_back();
    let other = Second::of(&home);
    std::fs::write(other.home.path("file"), "other").unwrap();
    assert!(other.run(&["backup", "file"]).status.success());
    let output = home.run(&["snapshots"]);
    assert_eq!(output.status.code(), Some(14));
    assert!(said(&output).contains("is another one"), "{}", said(&output));
    let output = home.run(&["snapshots", "--accept-rollback"]);
    assert!(output.status.success());
    assert!(said(&output).contains("another one is there now") && said(&output).contains(&lost[..8]), "{}", said(&output));
    assert_eq!(home.json(&["snapshots", "--json"]).as_array().unwrap().len(), 2);
    home.ok(&["backup", "documents"]);
    home.ok(&["check", "--read-data"]);
}

#[test]
fn one_damaged_copy_of_the_memory_is_said_and_the_other_still_notices() {
    let (home, _) = set_back();
    let state = home.path(".local/state/lifeboat");
    let copies = || -> Vec<std::path::PathBuf> {
        let all = std::fs::read_dir(&state).unwrap().flatten().map(|entry| entry.path());
        all.filter(|path| path.to_string_lossy().contains(".heads")).collect()
    };
    assert_eq!(copies().len(), 2);
    for damaged in copies() {
        // The cache knows the heads as well.
        std::fs::remove_dir_all(home.path(".cache")).unwrap();
        let whole = std::fs::read(&damaged).unwrap();
        std::fs::write(&damaged, [&whole[..20], b"x", &whole[21..]].concat()).unwrap();
        let output = home.run(&["snapshots"]);
        assert_eq!(output.status.code(), Some(14));
        assert!(said(&output).contains("remembers of the repository is damaged"), "{}", said(&output));
        std::fs::write(&damaged, whole).unwrap();
    }
    std::fs::remove_dir_all(home.path(".cache")).unwrap();
    copies().iter().for_each(|path| std::fs::write(path, "nothing").unwrap());
    let output = home.run(&["snapshots"]);
    assert!(output.status.success() && said(&output).contains("remembers of the repository is damaged"));
    assert_eq!(said(&home.run(&["snapshots"])), "", "it is said once: both copies are written anew");
}

#[test]
fn what_could_not_be_told_is_not_accepted() {
    let (home, _) = set_back();
    let options =
        OpenOptions { cache_dir: home.path(".cache/lifeboat"), state_dir: home.path(".local/state/lifeboat"), fingerprint: None };
    let identity = std::fs::read(home.path(".config/lifeboat/identity.txt")).unwrap();
    let access = Access { identity: Some(identity.into()), passphrase: None };
    let mut logs = 0;
    let tell = &mut |rollback: &lifeboat::repo::Rollback| {
        logs = rollback.logs.len();
        Err(Error::new(ErrorKind::Failed, "nobody reads this"))
    };
    let location = Location::directory(&home.repository_dir());
    let error = Repository::open_rolled_back(&location, &access, &options, &Silent, tell).err().unwrap();
    assert_eq!((error.kind(), logs), (ErrorKind::Failed, 1));
    assert_eq!(home.code(&["snapshots"]), 14, "it is as it was");
}

/// A record names how far its author has read all logs. The word of somebody who may prune is enough to stop; with that of a
/// writer anybody who stole its key could stop everybody.
#[test]
fn a_repair_writes_nothing_behind_a_hole_in_a_log() {
    let (home, lost) = set_back();
    let before = home.records();
    let repair = home.run(&["repair", "--apply"]);
    assert!(!repair.status.success() && said(&repair).contains("--accept-rollback"), "{}", said(&repair));
    assert!(!String::from_utf8_lossy(&repair.stdout).contains("done: "), "{repair:?}");
    assert_eq!(home.records(), before);
    assert_eq!(home.code(&["snapshots"]), 14, "it is still noticed");
    let check = home.run(&["check", "--read-data"]);
    assert_eq!(check.status.code(), Some(14));
    let found = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(found.contains("it is gone") && found.contains("checked "), "it looks all the same: {found}");
    assert_eq!((home.records(), home.code(&["backup", "documents"])), (before, 14));
    // Once somebody has decided, it goes on, and a new machine sees what comes then, and not what is lost.
    home.ok(&["repair", "--apply", "--accept-rollback"]);
    home.ok(&["backup", "documents", "--tag", "third"]);
    let seen = Second::of(&home).run(&["snapshots", "--json"]);
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.contains("third") && !seen.contains(&lost), "{seen}");
}

#[test]
fn what_others_have_seen_is_missed_by_a_machine_that_has_seen_nothing() {
    for (role, code) in [("maintainer", 14), ("writer", 0)] {
        let team = Team::new();
        let log = team.objects("log").remove(0).parent().unwrap().to_owned();
        let other = team.enrol(role, "other", &[]);
        team.owner.ok(&["backup", "documents"]);
        let newest = std::fs::read_dir(&log).unwrap().flatten().map(|entry| entry.path()).max().unwrap();
        match role {
            "maintainer" => {
                let first = other.json(&["snapshots"])[0]["id"].as_str().unwrap().to_owned();
                other.ok(&["hold", &first]);
            }
            _ => drop(other.back_up("file", b"content")),
        }
        std::fs::remove_file(newest).unwrap();
        let fresh = Second::of(&team.owner);
        let output = fresh.run(&["snapshots"]);
        assert_eq!(output.status.code(), Some(code), "{role}: {}", said(&output));
        assert!(said(&output).contains("which another client has seen, is gone"), "{role}: {}", said(&output));
        assert_eq!(fresh.run(&["snapshots"]).status.code(), Some(code), "{role}: and it stays so");
        assert!(fresh.run(&["snapshots", "--accept-rollback"]).status.success());
        assert!(fresh.run(&["snapshots"]).status.success());
    }
}
