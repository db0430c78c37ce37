//! Who may do what: writers, maintainers, readers, and the owner, each with just the keys of its role.
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod support;

use lifeboat::event::Silent;
use lifeboat::ops::prune::{Decision, PruneOptions, prune};
use lifeboat::repo::{Access, OpenOptions, Repository};
use lifeboat::store::Local;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use support::home::Home;
use support::interposed::{Fate, Interposed};
use support::noise;
use support::team::Team;
use zeroize::Zeroizing;

#[test]
fn a_writer_backs_up_and_reads_nothing_back_not_even_its_own() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &[]);
    let first = writer.back_up("file", &noise(7, 500_000));
    assert!(first["bytes_stored"].as_u64().unwrap() > 500_000);
    let second = writer.back_up("other", b"small");
    assert!(second["bytes_stored"].as_u64().unwrap() < 50_000, "what is there is not stored again: {second}");
    let listed = writer.json(&["snapshots"]);
    assert_eq!(listed.as_array().unwrap().iter().filter(|entry| entry["sealed"] != true).count(), 2, "it remembers its own");
    for arguments in [
        &["restore", "latest", "--to", "out"][..],
        &["cat", "latest:data/file"],
        &["dump", "latest"],
        &["check", "--read-data"],
        &["forget", "--keep-last", "1"],
        &["prune"],
        &["key", "enrol", "--role", "writer", "--recipient", "age1x"],
        &["key", "rotate"],
    ] {
        let (code, said) = writer.fails(arguments);
        assert_eq!(code, 11, "{arguments:?}: {said}");
        assert!(said.contains("the key at hand is that of a writer"), "{arguments:?}: {said}");
    }
    // Without its cache it cannot say more of its own snapshots than that they are there.
    std::fs::remove_dir_all(writer.home.path(".cache")).unwrap();
    let listed = writer.json(&["snapshots"]);
    assert!(listed.as_array().unwrap().iter().all(|entry| entry["sealed"] == true), "{listed}");
    let third = writer.back_up("third", b"small too");
    assert!(third["bytes_stored"].as_u64().unwrap() < 50_000, "deduplication needs no reading: {third}");
    team.owner.ok(&["check", "--read-data"]);
    team.owner.ok(&["restore", "latest", "--to", "out", "--verify", "--host", listed_host(&team).as_str()]);
}

fn listed_host(team: &Team) -> String {
    team.owner.json(&["snapshots", "--json"])[0]["host"].as_str().unwrap().to_owned()
}

#[test]
fn a_maintainer_forgets_and_prunes_and_reads_no_file() {
    let team = Team::new();
    let (writer, maintainer) = (team.enrol("writer", "laptop", &[]), team.enrol("maintainer", "server", &[]));
    writer.back_up("file", &noise(1, 300_000));
    std::fs::remove_file(writer.home.path("data/file")).unwrap();
    let last = writer.back_up("kept", &noise(2, 300_000));
    let listed = maintainer.json(&["snapshots"]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert!(maintainer.ok(&["ls", "-R", last["id"].as_str().unwrap()]).contains("kept"), "names are not hidden from it");
    for arguments in [&["cat", "latest:data/kept"][..], &["restore", "latest", "--to", "out"], &["check", "--read-data"]] {
        let (code, said) = maintainer.fails(arguments);
        assert_eq!(code, 11, "{arguments:?}: {said}");
    }
    assert_eq!(maintainer.fails(&["backup", "."]).0, 11);
    maintainer.ok(&["forget", "--keep-last", "1", "--allow-most"]);
    let before = team.objects("packs").len();
    maintainer.ok(&["prune", "--grace", "0s"]);
    assert!(team.objects("packs").len() < before);
    maintainer.ok(&["check"]);
    team.owner.ok(&["check", "--read-data"]);
    team.owner.ok(&["restore", last["id"].as_str().unwrap(), "--to", "out", "--verify"]);
    assert!(std::fs::read(team.owner.path("out/data/kept")).unwrap() == noise(2, 300_000));
}

#[test]
fn a_maintainer_writes_packs_anew_that_it_cannot_open_also_where_answers_take_long() {
    let team = Team::new();
    let (writer, maintainer) = (team.enrol("writer", "laptop", &[]), team.enrol("maintainer", "server", &[]));
    // Packs of some backups, in each of them something that the last one needs and something that it does not.
    for version in 0..4 {
        writer.back_up(&format!("stays{version}"), &noise(version, 300_000));
        writer.back_up("goes", &noise(100 + version, 300_000));
    }
    maintainer.ok(&["forget", "--keep-last", "1", "--allow-most"]);
    let far = Interposed::new(Arc::new(Local::open(&team.repository()).unwrap()), |_, _, _| Fate::Pass).wide(8).store();
    let identity = Some(Zeroizing::new(std::fs::read(&maintainer.identity).unwrap()));
    let place = |name: &str| maintainer.home.path(name);
    let options = OpenOptions { cache_dir: place("far-cache"), state_dir: place("far-state"), fingerprint: None };
    let repository = Repository::open_store(far, &Access { identity, passphrase: None }, &options, &Silent).unwrap();
    let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, repack_small: true, ..PruneOptions::default() };
    let report = prune(&repository, &options, &Silent).unwrap();
    assert!(report.pruned.written >= 1 && report.sum(Decision::Repack).packs >= 4, "{report:?}");
    assert!(report.pruned.deleted >= 4, "{report:?}");
    team.owner.ok(&["check", "--read-data"]);
    team.owner.ok(&["restore", "latest", "--to", "out", "--verify", "--host", listed_host(&team).as_str()]);
}

#[test]
fn a_reader_restores_and_changes_nothing() {
    let team = Team::new();
    let reader = team.enrol("reader", "drill", &[]);
    reader.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert_eq!(std::fs::read(reader.home.path("out/documents/note")).unwrap(), b"hello");
    reader.ok(&["check", "--read-data"]);
    for arguments in
        [&["backup", "out"][..], &["forget", "--keep-last", "1"], &["prune"], &["key", "add", "--recipient", "age1x"]]
    {
        assert_eq!(reader.fails(arguments).0, 11, "{arguments:?}");
    }
}

#[test]
fn what_a_reader_has_read_others_rely_on_who_trust_nobody() {
    let team = Team::new();
    let (one, two) = (team.enrol("writer", "one", &[]), team.enrol("writer", "two", &[]));
    let (third, reader) = (team.enrol("writer", "three", &["--trust", "one"]), team.enrol("reader", "drill", &[]));
    let content = noise(3, 400_000);
    one.back_up("file", &content);
    let stored = |report: serde_json::Value| report["bytes_stored"].as_u64().unwrap();
    assert!(stored(two.back_up("file", &content)) > 400_000, "a stranger's word is not enough");
    assert!(stored(third.back_up("file", &content)) < 50_000, "a trusted one's is");
    assert!(reader.json(&["check", "--read-data"])["attested"].as_u64().unwrap() > 0);
    let fourth = team.enrol("writer", "four", &[]);
    assert!(stored(fourth.back_up("file", &content)) < 50_000, "a reader has hashed it");
    team.owner.ok(&["check", "--read-data"]);
}

#[test]
fn who_is_revoked_counts_no_more_and_what_it_made_before_stays() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &[]);
    let kept = writer.back_up("file", &noise(1, 100_000));
    let slots = team.objects("keys").len();
    team.owner.ok(&["key", "revoke", "laptop"]);
    assert_eq!(team.objects("keys").len(), slots - 1, "its slot is gone");
    assert_eq!(writer.fails(&["snapshots"]).0, 12);
    assert!(team.client("laptop")["revoked_after"].is_number());
    team.owner.ok(&["restore", kept["id"].as_str().unwrap(), "--to", "out", "--verify"]);
    let output = team.owner.run(&["key", "revoke", "laptop"]);
    assert_eq!(output.status.code(), Some(11), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(team.owner.code(&["key", "revoke", "nobody"]), 1);
    // The name is free again.
    team.enrol("writer", "laptop", &[]).back_up("file", b"again");
    team.owner.ok(&["check", "--read-data"]);
}

#[test]
fn who_is_revoked_while_it_has_its_bundle_is_told_so_and_commits_nothing() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &[]);
    writer.back_up("file", b"before");
    let slots = team.objects("keys");
    let saved: Vec<_> = slots.iter().map(|slot| (slot.clone(), std::fs::read(slot).unwrap())).collect();
    team.owner.ok(&["key", "revoke", "laptop"]);
    saved.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    std::fs::write(writer.home.path("data/file"), "after").unwrap();
    let (code, said) = writer.fails(&["backup", "data"]);
    assert_eq!(code, 11, "{said}");
    assert!(said.contains("revoked"), "{said}");
}

#[test]
fn rotation_keeps_deduplication_and_everybody_who_was_not_revoked() {
    let team = Team::new();
    let (writer, gone) = (team.enrol("writer", "laptop", &[]), team.enrol("writer", "gone", &[]));
    let (maintainer, reader) = (team.enrol("maintainer", "server", &[]), team.enrol("reader", "drill", &[]));
    let content = noise(9, 400_000);
    writer.back_up("file", &content);
    gone.back_up("file", b"x");
    std::fs::write(team.owner.path("pass"), "correct horse\n").unwrap();
    team.owner.ok(&["key", "add", "--new-passphrase-file", "pass", "--label", "paper"]);
    team.owner.ok(&["key", "revoke", "gone"]);
    let dry = team.owner.json(&["key", "rotate", "--dry-run", "--json"]);
    assert_eq!((dry["generation"].as_u64(), dry["dry_run"].as_bool()), (Some(2), Some(true)));
    let before = team.objects("keys");
    let kept: Vec<_> = dry["slots"].as_array().unwrap().iter().filter(|slot| slot["fate"] == "kept").collect();
    assert_eq!(kept.len(), 1, "the passphrase was not given: {dry}");
    assert_eq!(team.objects("keys"), before);
    team.owner.ok(&["key", "rotate", "--slot-passphrase-file", "pass"]);
    assert!(team.objects("keys").iter().all(|slot| !before.contains(slot)), "every slot is a new one");
    let again = writer.back_up("other", b"new");
    assert!(again["bytes_stored"].as_u64().unwrap() < 50_000, "deduplication is kept: {again}");
    team.owner.ok(&["check", "--read-data"]);
    team.owner.ok(&["--passphrase-file", "pass", "-i", "none.txt", "snapshots"]);
    reader.ok(&["restore", again["id"].as_str().unwrap(), "--to", "out", "--verify"]);
    assert!(std::fs::read(reader.home.path("out/data/file")).unwrap() == content);
    maintainer.ok(&["forget", "--keep-last", "1", "--allow-most"]);
    maintainer.ok(&["prune", "--grace", "0s"]);
    team.owner.ok(&["check", "--read-data"]);
    team.owner.ok(&["key", "rotate"]);
    writer.back_up("third", b"third");
    assert_eq!(team.client("laptop")["last_record"].as_u64().map(|seq| seq > 2), Some(true), "the client stays the same");
}

#[test]
fn a_slot_that_could_not_be_renewed_reads_the_past_and_says_what_it_lacks() {
    let team = Team::new();
    std::fs::write(team.owner.path("pass"), "correct horse\n").unwrap();
    team.owner.ok(&["key", "add", "--new-passphrase-file", "pass", "--label", "paper"]);
    team.owner.ok(&["key", "rotate"]);
    let output = team.owner.run(&["--passphrase-file", "pass", "-i", "none.txt", "backup", "documents"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(12), "{said}");
    assert!(said.contains("generation"), "{said}");
}

#[test]
fn a_cloned_machine_stays_safe_and_is_reported() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &[]);
    writer.back_up("file", &noise(1, 200_000));
    let clone = writer.cloned();
    assert_eq!(team.client("laptop")["machines"], 1);
    let mut ids = Vec::new();
    for round in 0..3u8 {
        ids.push(clone.back_up("file", &noise(u64::from(round) + 10, 200_000)));
        ids.push(writer.back_up("file", &noise(u64::from(round) + 20, 200_000)));
    }
    let output = writer.run(&["backup", "data"]);
    assert!(output.status.success());
    assert_eq!(team.client("laptop")["machines"], 2);
    assert!(team.owner.ok(&["key", "list"]).contains("used from 2 machines at once"));
    assert!(team.owner.ok(&["snapshots"]).contains("client laptop is used from 2 machines at once"));
    let report = team.owner.json(&["check", "--read-data", "--json"]);
    assert_eq!(report["damaged"], false);
    assert!(report["findings"].to_string().contains("2 machines use its identity"), "{report}");
    for (number, report) in ids.iter().enumerate() {
        let to = format!("out{number}");
        team.owner.ok(&["restore", report["id"].as_str().unwrap(), "--to", &to, "--verify"]);
    }
    let clone = clone.run(&["snapshots"]);
    assert!(String::from_utf8_lossy(&clone.stderr).contains("writes with the same identity"));
}

#[test]
fn a_machine_that_was_installed_anew_is_no_clone() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &[]);
    writer.back_up("file", b"one");
    writer.back_up("file", b"two");
    let anew = writer.cloned();
    anew.back_up("file", b"three");
    anew.back_up("file", b"four");
    assert_eq!(team.client("laptop")["machines"], 1);
    assert!(!team.owner.ok(&["snapshots"]).contains("at once"));
}

#[test]
fn clones_that_write_at_once_both_commit() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &[]);
    let machines: Vec<_> = (0..3).map(|_| writer.cloned()).collect();
    std::thread::scope(|scope| {
        for (number, machine) in (0u64..).zip(&machines) {
            scope.spawn(move || (0..4).for_each(|round| drop(machine.back_up("file", &noise(number * 10 + round, 90_000)))));
        }
    });
    team.owner.ok(&["check", "--read-data"]);
    assert_eq!(team.owner.json(&["snapshots", "--json"]).as_array().unwrap().len(), 13);
}

#[test]
fn snapshots_are_copied_to_where_one_may_only_write() {
    let (here, there) = (Team::new(), Team::new());
    let writer = there.enrol("writer", "here", &[]);
    let key = writer.identity.to_str().unwrap();
    let copy = ["copy", "--to", &writer.repository, "--to-identity", key, "--json"];
    assert_eq!(here.owner.json(&copy)[0]["copied"].as_array().unwrap().len(), 1);
    assert_eq!(here.owner.json(&copy)[0]["present"].as_array().unwrap().len(), 1);
    there.owner.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert_eq!(std::fs::read(there.owner.path("out/documents/note")).unwrap(), b"hello");
    let output = here.owner.run(&["copy", "--repo", &writer.repository, "-i", key, "--to", here.repository().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(11), "and nothing is copied from there with that key");
}

#[test]
fn ssh_keys_and_passphrases_enrol_too() {
    let team = Team::new();
    let (mut machine, _) = team.stranger();
    let key = machine.home.path("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: ssh-keygen is not installed");
        return;
    }
    let public = std::fs::read_to_string(machine.home.path("key.pub")).unwrap();
    team.owner.ok(&["key", "enrol", "--role", "writer", "--recipient", public.trim(), "--name", "ssh"]);
    machine.identity = key;
    machine.back_up("file", b"by an SSH key");
    assert_eq!(team.client("ssh")["recipient_kinds"][0], "ssh-ed25519");
    std::fs::write(team.owner.path("pass"), "a long passphrase\n").unwrap();
    team.owner.ok(&["key", "enrol", "--role", "reader", "--new-passphrase-file", "pass", "--name", "paper"]);
    let pass = team.owner.path("pass");
    let arguments = ["--repo", &machine.repository, "--passphrase-file", pass.to_str().unwrap(), "cat", "latest:data/file"];
    assert_eq!(machine.home.ok(&arguments), "by an SSH key");
    assert!(team.owner.ok(&["key", "list"]).contains("weakest recipient: ssh-ed25519"));
}

/// A plugin of age as others write them; what it seals it only makes unlike.
const PLUGIN: &str = r#"#!/usr/bin/env python3
import base64, os, sys
def read():
    words, body = sys.stdin.readline().split()[1:], ""
    while True:
        line = sys.stdin.readline().rstrip("\n")
        body += line
        if len(line) < 64:
            return words, base64.b64decode(body + "=" * (-len(body) % 4))
def write(words, body=b""):
    text = base64.b64encode(body).decode().rstrip("=")
    lines = [text[i:i + 64] for i in range(0, len(text), 64)]
    if len(text) % 64 == 0:
        lines.append("")
    print("->", *words)
    print(*lines, sep="\n")
    sys.stdout.flush()
open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "ran"), "a").write(sys.argv[1] + "\n")
flip = lambda body: bytes(byte ^ 0x5a for byte in body)
wrap = sys.argv[1] == "--age-plugin=recipient-v1"
while True:
    words, body = read()
    if words[0] == "wrap-file-key":
        key = body
    if words[0] == "recipient-stanza" and words[2] == "lifeboattest":
        key = flip(body)
    if words[0] == "done":
        break
if wrap:
    write(["recipient-stanza", "0", "lifeboattest"], flip(key))
elif "key" in globals():
    write(["file-key", "0"], key)
if wrap or "key" in globals():
    read()
write(["done"])
"#;

#[test]
fn a_plugin_of_age_runs_only_when_its_user_names_it() {
    if !Command::new("python3").arg("-V").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 is not installed");
        return;
    }
    let team = Team::new();
    let (mut machine, _) = team.stranger();
    let bin = machine.home.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let plugin = bin.join("age-plugin-lifeboattest");
    std::fs::write(&plugin, PLUGIN).unwrap();
    std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    machine.identity = machine.home.path("plugin.txt");
    std::fs::write(&machine.identity, "# a key in a token\nAGE-PLUGIN-LIFEBOATTEST-1W3JHXAQVA3VKC\n").unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |home: &Home, arguments: &[&str]| home.command(arguments).env("PATH", &path).output().unwrap();
    let enrol = ["key", "enrol", "--role", "reader", "--recipient", "age1lifeboattest1w3jhxaq79ypad", "--name", "token"];
    let (code, said) = {
        let output = team.owner.run(&enrol);
        (output.status.code(), output.stderr)
    };
    assert_eq!(code, Some(2), "without the plugin");
    assert!(String::from_utf8_lossy(&said).contains("age-plugin-lifeboattest"));
    assert!(run(&team.owner, &enrol).status.success());
    let identity = machine.identity.to_str().unwrap();
    let restore = ["restore", "latest", "--to", "out", "--repo", &machine.repository, "--identity", identity];
    let output = run(&machine.home, &restore);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ran = || std::fs::read_to_string(bin.join("ran")).unwrap().lines().count();
    let before = ran();
    for arguments in [&["snapshots"][..], &["key", "list"], &["key", "rotate", "--dry-run"], &["key", "rotate"]] {
        assert!(run(&team.owner, arguments).status.success());
    }
    assert_eq!(ran(), before, "the log names the plugin, and that is no reason to run it");
    assert!(run(&team.owner, &["key", "rotate", "--run-plugins"]).status.success());
    assert_eq!(ran(), before + 1);
}
