//! What counts and what does not of clients that were revoked, for those who had taken it in before as well.

mod support;

use lifeboat::crypto::sign::LOG_RECORD;
use lifeboat::format::envelope::ObjectKind;
use lifeboat::format::key::Role;
use lifeboat::format::log::{Record, RecordBody};
use lifeboat::id::ObjectHash;
use lifeboat::store::Key;
use support::forge::Thief;
use support::home::Home;
use support::noise;
use support::team::{Machine, Team};

fn owner_elsewhere(team: &Team, writer: &Machine) -> Machine {
    let identity = team.owner.path(".config/lifeboat/identity.txt");
    Machine { home: Home::new(), repository: writer.repository.clone(), identity }
}

#[test]
fn packs_that_a_revoked_client_listed_too_late_stay_for_those_who_rely_on_them() {
    let team = Team::new();
    let (one, two) = (team.enrol("writer", "one", &[]), team.enrol("writer", "two", &["--trust", "all"]));
    one.back_up("early", b"early");
    let last = team.client("one")["last_record"].as_u64().unwrap();
    let content = noise(4, 300_000);
    let late = one.back_up("late", &content);
    let borrowed = two.back_up("copy", &content);
    assert!(borrowed["bytes_stored"].as_u64().unwrap() < 50_000, "it relies on what the other one stored");
    team.owner.ok(&["key", "revoke", "one", "--last", &last.to_string()]);
    for round in 0..2 {
        let listed = team.owner.ok(&["snapshots", "--json"]);
        assert!(!listed.contains(late["id"].as_str().unwrap()) && listed.contains(borrowed["id"].as_str().unwrap()));
        team.owner.ok(&["prune", "--grace", "0s", "--max-unused", "0"]);
        team.owner.ok(&["check", "--read-data"]);
        let out = format!("out{round}");
        team.owner.ok(&["restore", borrowed["id"].as_str().unwrap(), "--to", &out, "--verify"]);
        assert!(std::fs::read(team.owner.path(&out).join("data/copy")).unwrap() == content);
        // The same for somebody who has seen nothing before.
        std::fs::remove_dir_all(team.owner.path(".cache")).unwrap();
    }
    assert!(two.back_up("again", &content)["bytes_stored"].as_u64().unwrap() > 0);
    team.owner.ok(&["check", "--read-data"]);
}

#[test]
fn a_revocation_does_not_reach_below_what_a_prune_relied_on() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &[]);
    let first = writer.back_up("file", &noise(1, 200_000));
    writer.back_up("file", &noise(2, 200_000));
    team.owner.ok(&["forget", first["id"].as_str().unwrap(), "--allow-most"]);
    team.owner.ok(&["prune", "--grace", "0s"]);
    let output = team.owner.run(&["key", "revoke", "laptop", "--last", "0"]);
    assert_eq!(output.status.code(), Some(11));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a prune relied on its records"));
    team.owner.ok(&["key", "revoke", "laptop"]);
    team.owner.ok(&["check", "--read-data"]);
}

/// A maintainer condemns everything and fences a log for a prune that never was; it is revoked by somebody who has
/// not seen that.
#[test]
fn what_a_revoked_maintainer_condemned_and_fenced_is_void_for_everybody() {
    let team = Team::new();
    let (writer, maintainer) = (team.enrol("writer", "laptop", &[]), team.enrol("maintainer", "server", &[]));
    let other = owner_elsewhere(&team, &writer);
    let kept = writer.back_up("file", &noise(1, 200_000));
    let thief = Thief::of(&maintainer);
    thief.prune_object(ObjectKind::Condemn, thief.client(), 1, thief.packs());
    thief.record(Thief::of(&writer).client(), 0, Some(thief.client()), RecordBody::Fence { generation: 1 << 40 });
    // These two take it in while it counts.
    other.ok(&["snapshots"]);
    writer.ok(&["snapshots"]);
    let condemn = team.repository().join(Key::condemn(1).as_str());
    let hidden = team.owner.path("hidden");
    std::fs::rename(&condemn, &hidden).unwrap();
    team.owner.ok(&["key", "revoke", "server"]);
    std::fs::rename(&hidden, &condemn).unwrap();
    writer.back_up("second", b"it goes on");
    other.ok(&["forget", kept["id"].as_str().unwrap(), "--allow-most"]);
    // The trees of both may have a chunk in common: then the pack is not without any use, and is repacked.
    other.ok(&["prune", "--grace", "0s", "--max-unused", "0"]);
    assert!(team.repository().join(Key::condemn(2).as_str()).exists(), "the first generation was nothing");
    assert!(!team.repository().join(Key::plan(1).as_str()).exists());
    for machine in [&other, &owner_elsewhere(&team, &writer)] {
        machine.ok(&["check", "--read-data"]);
        for (number, entry) in machine.json(&["snapshots"]).as_array().unwrap().iter().enumerate() {
            machine.ok(&["restore", entry["id"].as_str().unwrap(), "--to", &format!("out{number}"), "--verify"]);
        }
    }
}

#[test]
fn a_maintainer_is_not_revoked_while_its_prune_is_open_and_can_be_afterwards() {
    let team = Team::new();
    let maintainer = team.enrol("maintainer", "server", &[]);
    let thief = Thief::of(&maintainer);
    thief.prune_object(ObjectKind::Condemn, thief.client(), 1, thief.packs());
    let output = team.owner.run(&["key", "revoke", "server"]);
    assert_eq!(output.status.code(), Some(11), "{}", String::from_utf8_lossy(&output.stderr));
    team.owner.ok(&["prune"]);
    team.owner.ok(&["key", "revoke", "server"]);
    team.owner.ok(&["check", "--read-data"]);
    team.owner.ok(&["restore", "latest", "--to", "out", "--verify"]);
}

/// What a client's enrolment knew binds its first record, and every one after that.
#[test]
fn a_record_that_knows_less_than_the_enrolment_of_its_client_is_void_wherever_it_lies() {
    let team = Team::new();
    let old = team.owner.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    std::fs::write(team.owner.path("documents/deep/data"), noise(2, 100_000)).unwrap();
    team.owner.ok(&["backup", "documents"]);
    team.owner.ok(&["forget", &old, "--allow-most"]);
    team.owner.ok(&["prune", "--grace", "0s", "--max-unused", "0"]);
    assert!(team.repository().join(Key::plan(1).as_str()).exists());
    let [writer, other] = ["laptop", "desk"].map(|name| Thief::of(&team.enrol("writer", name, &[])));
    let claim = || RecordBody::Claim { packs: Vec::new(), checkpoint: None };
    other.record(other.client(), 0, None, claim());
    assert_eq!(team.client("desk")["void_records"], 1, "the very first one");
    writer.record(writer.client(), 1, None, claim());
    assert_eq!(team.client("laptop")["void_records"], 0);
    writer.record(writer.client(), 0, None, claim());
    assert_eq!(team.client("laptop")["void_records"], 1, "it does not know the prune before its enrolment");
}

/// A fence binds every record behind it in the same log, on machines that read both and on those that read the fence before.
#[test]
fn a_record_that_knows_less_than_a_fence_before_it_is_void_wherever_it_is_read() {
    let team = Team::new();
    let writer = Thief::of(&team.enrol("writer", "laptop", &[]));
    let old = team.owner.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    std::fs::write(team.owner.path("documents/deep/data"), noise(2, 100_000)).unwrap();
    team.owner.ok(&["backup", "documents"]);
    team.owner.ok(&["forget", &old, "--allow-most"]);
    let claim = || RecordBody::Claim { packs: Vec::new(), checkpoint: None };
    writer.record(writer.client(), 0, None, claim());
    team.owner.ok(&["prune", "--grace", "0s", "--max-unused", "0"]);
    assert!(team.repository().join(Key::plan(1).as_str()).exists());
    assert_eq!(team.client("laptop")["void_records"], 0);
    writer.record(writer.client(), 0, None, claim());
    writer.record(writer.client(), 1, None, claim());
    assert_eq!(team.client("laptop")["void_records"], 1, "the first one does not know the prune before it");
    team.owner.ok(&["cache", "rebuild"]);
    assert_eq!(team.client("laptop")["void_records"], 1, "and so it is for those who read all of it at once");
}

/// Signed and sealed as it should be, and yet not where it should be.
#[test]
fn a_record_that_follows_another_one_or_is_of_another_place_is_void() {
    let team = Team::new();
    let writer = Thief::of(&team.enrol("writer", "laptop", &[]));
    let log = writer.client();
    writer.record(log, 0, None, RecordBody::Claim { packs: Vec::new(), checkpoint: None });
    assert_eq!(team.client("laptop")["void_records"], 0);
    let (seq, previous) = writer.next(&log);
    for (void, seq, previous) in [(1, seq, Some(ObjectHash([9; 32]))), (2, seq + 1, None), (3, seq, previous)] {
        let body = RecordBody::Claim { packs: Vec::new(), checkpoint: None };
        let record =
            Record { client: log, seq, previous, time: 1, heads: Vec::new(), base: 0, body, author: None, extra: Vec::new() };
        let sealed = writer.seal(ObjectKind::Log, LOG_RECORD, &record.encode());
        assert!(writer.create(&Key::log(&log, writer.next(&log).0), &sealed));
        assert_eq!(team.client("laptop")["void_records"], void);
    }
}

#[test]
fn a_client_keeps_the_role_with_which_it_was_enrolled() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &[]);
    let owner = Thief::of(&owner_elsewhere(&team, &writer));
    let public = Thief::of(&writer).signer().public();
    let enrol = RecordBody::Enrol { public, role: Role::Maintainer, name: "laptop".into(), trusted: Vec::new(), slot: None };
    owner.record(owner.client(), 0, None, enrol);
    assert_eq!(team.client("laptop")["role"], "writer");
    assert!(owner_elsewhere(&team, &writer).json(&["key", "list"]).to_string().contains("\"writer\""));
    assert_eq!(writer.fails(&["prune"]).0, 11, "what its keys say it may do is what it may do");
}

#[test]
fn nobody_borrows_from_whoever_was_revoked() {
    let team = Team::new();
    let [one, other] = ["one", "other"].map(|name| team.enrol("writer", name, &["--trust", "all"]));
    let content = noise(5, 200_000);
    let stored = |report: &serde_json::Value| report["bytes_stored"].as_u64().unwrap();
    assert!(stored(&one.back_up("file", &content)) > 200_000);
    assert!(stored(&other.back_up("file", &content)) < 100_000, "it relies on what is there");
    let content = noise(6, 200_000);
    assert!(stored(&one.back_up("file", &content)) > 200_000);
    team.owner.ok(&["key", "revoke", "one"]);
    assert!(stored(&other.back_up("file", &content)) > 200_000, "it stores the content itself");
}
