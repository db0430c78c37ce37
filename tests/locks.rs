//! Object lock and versions: what is put cannot be deleted for a time, and what was deleted or overwritten comes back.

mod support;

#[path = "support/away.rs"]
mod away;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/servers.rs"]
mod servers;

use away::Away;
use lifeboat::store::{Key, Location};
use proxy::{Action, Proxy, Request};
use servers::Server;
use support::home::Home;
use support::noise;

impl Away {
    fn new(server: Option<Server>, options: &str) -> Option<Self> {
        let server = server?;
        let url = server.url_with("repository", options);
        let home = Home::new();
        std::fs::create_dir_all(home.path("documents")).unwrap();
        std::fs::write(home.path("documents/data"), noise(1, 300_000)).unwrap();
        Some(Self { home, server, url })
    }

    /// The bucket itself, as somebody with its credentials sees it.
    fn location(&self) -> Location {
        Location::parse(&self.url).unwrap().with_settings(self.server.settings(None))
    }

    fn keys(&self, folder: &str) -> Vec<Key> {
        let mut keys = Vec::new();
        let store = self.location().open_unseen().unwrap();
        store
            .list(folder, &mut |entry| {
                keys.push(entry.key);
                Ok(())
            })
            .unwrap();
        keys.sort_unstable();
        keys
    }

    /// One backup, and a second one after the file was replaced.
    fn fill(&self) {
        self.ok(&["init"]);
        self.ok(&["backup", "documents"]);
        std::fs::write(self.home.path("documents/data"), noise(2, 300_000)).unwrap();
        self.ok(&["backup", "documents"]);
    }
}

fn made(requests: &[Request]) -> impl Iterator<Item = &Request> {
    requests.iter().filter(|request| request.method == "PUT" && !request.path.contains('?'))
}

/// Servers that lock: one that is quick to start, and one that means it.
const LOCKING: [fn() -> Option<Server>; 2] = [servers::moto_with_locks, servers::ceph_with_locks];

#[test]
fn retention_goes_with_everything_that_snapshots_need_and_is_read_back() {
    LOCKING.iter().for_each(|server| goes_with_everything(server()));
}

fn goes_with_everything(server: Option<Server>) {
    let Some(mut away) = Away::new(server, "lock-days=30&lock-mode=compliance") else { return };
    // Through a proxy, which a server that checks signatures notices; so the requests are seen with one that does not.
    let proxy = Proxy::new(away.server.port, |_| Action::Pass);
    let port = if away.url.contains("//bucket/") { proxy.port } else { away.server.port };
    away.url = away.url.replace(&away.server.port.to_string(), &port.to_string());
    away.fill();
    let requests = proxy.take_requests();
    for request in made(&requests).filter(|request| !request.path.contains("/probe/")) {
        assert_eq!(request.headers.get("x-amz-object-lock-mode").map(String::as_str), Some("COMPLIANCE"), "{request:?}");
        assert!(request.headers.contains_key("x-amz-object-lock-retain-until-date"), "{request:?}");
        assert!(request.headers.contains_key("x-amz-checksum-sha256"), "retention wants a checksum: {request:?}");
    }
    let store = away.location().open().unwrap();
    let extras = store.extras().unwrap();
    for folder in ["format", "keys", "log", "packs"] {
        for key in away.keys(folder) {
            assert!(extras.state(&key).unwrap().unwrap().locked_until.is_some(), "{key}");
            // Not even the owner of the bucket gets rid of it.
            let mut versions = Vec::new();
            let mut collect = |version| {
                versions.push(version);
                Ok(())
            };
            extras.versions(key.as_str(), &mut collect).unwrap();
            assert!(versions.iter().all(|version| extras.delete_version(version).is_err()), "{key}");
        }
    }
    away.ok(&["check", "--read-data"]);
}

#[test]
fn a_server_that_drops_retention_is_found_out_before_anything_is_claimed() {
    let dropped = |away: &Away| {
        let said = away.fails(&["init"], 11);
        assert!(said.contains("dropped its lock") && said.contains("lock-days"), "{said}");
        assert!(away.keys("format").is_empty(), "no repository that claims more than it has");
    };
    // This one knows nothing of locks, and says nothing.
    if let Some(mut away) = Away::new(servers::rclone_s3(), "lock-days=30") {
        // It answers some of the racers of a probe with an error.
        away.url = away.url.replace("retries=0", "retries=5");
        dropped(&away);
    }
    let Some(mut away) = Away::new(servers::moto(), "lock-days=30") else { return };
    let refused = away.run(&["init"]);
    assert!(!refused.status.success(), "a bucket without locks");
    let proxy = Proxy::new(away.server.port, |request| match request.method.as_str() {
        "PUT" => Action::WithoutHeader("x-amz-object-lock"),
        _ => Action::Pass,
    });
    away.url = away.url.replace(&away.server.port.to_string(), &proxy.port.to_string());
    dropped(&away);
}

#[test]
fn prune_leaves_what_is_locked_and_a_later_one_finishes() {
    let Some(away) = Away::new(servers::moto_with_locks(), "lock-days=10") else { return };
    away.fill();
    away.ok(&["forget", "--keep-last", "1", "--yes"]);
    let before = away.keys("packs");
    let first = away.json(&["prune", "--grace", "0s"]);
    let locked = first["locked"].as_u64().unwrap();
    assert!(locked >= 1 && first["deleted"].as_u64() == Some(0) && first["locked_until"].is_string(), "{first}");
    assert_eq!(away.keys("packs"), before, "no mark hides what is still stored");
    assert!(away.ok(&["prune", "--grace", "0s"]).contains("though nobody needs"));
    // Its time runs out: this server lets it be shortened, which others never do.
    let store = away.location().open().unwrap();
    let extras = store.extras().unwrap();
    let soon = |seconds: i64| (jiff::Timestamp::now().as_second() + seconds) * 1_000_000_000;
    before.iter().for_each(|key| extras.lock_until(key, soon(1), false).unwrap());
    let mut deleted = 0;
    while deleted < locked {
        deleted += away.json(&["prune", "--grace", "0s"])["deleted"].as_u64().unwrap();
    }
    assert_eq!(away.keys("packs").len() as u64, before.len() as u64 - locked);
    let mut versions = 0;
    extras
        .versions("packs/", &mut |_| {
            versions += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(versions, before.len() as u64 - locked, "no version stays behind");
    away.ok(&["check", "--read-data"]);
}

#[test]
fn prune_locks_what_is_needed_for_longer_and_never_for_less() {
    LOCKING.iter().for_each(|server| locks_for_longer(server()));
}

fn locks_for_longer(server: Option<Server>) {
    let Some(mut away) = Away::new(server, "lock-days=10") else { return };
    away.fill();
    away.ok(&["forget", "--keep-last", "1", "--yes"]);
    assert_eq!(away.json(&["prune", "--grace", "0s"])["locks_extended"].as_u64(), Some(0), "more than half is left");
    let store = away.location().open().unwrap();
    let extras = store.extras().unwrap();
    let until = |key: &Key| extras.state(key).unwrap().unwrap().locked_until.unwrap();
    let all: Vec<Key> = ["format", "keys", "log", "gc", "packs"].iter().flat_map(|folder| away.keys(folder)).collect();
    let before: Vec<i64> = all.iter().map(until).collect();
    away.url = away.url.replace("lock-days=10", "lock-days=90");
    let said = away.ok(&["check"]);
    assert!(said.contains("are not locked, or for less than half of the days"), "{said}");
    let dry = away.json(&["prune", "--dry-run", "--grace", "0s"]);
    let would = dry["locks_extended"].as_u64().unwrap();
    assert_eq!(before, all.iter().map(until).collect::<Vec<_>>());
    assert!(dry["cost"]["put_requests"].as_u64().unwrap() >= would, "{dry}");
    let pruned = away.json(&["prune", "--grace", "0s"]);
    assert_eq!(pruned["locks_extended"].as_u64(), Some(would), "{pruned}");
    let after: Vec<i64> = all.iter().map(until).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| after >= before), "never shortened");
    let stays = all.iter().zip(before.iter().zip(&after)).filter(|(_, (before, after))| before == after);
    let stays: Vec<&Key> = stays.map(|(key, _)| key).collect();
    assert!(!stays.is_empty() && stays.iter().all(|key| key.as_str().starts_with("packs/")), "{stays:?}");
    assert_eq!(pruned["locked"].as_u64(), Some(stays.len() as u64), "only what nobody needs is left to run out");
    assert!(!away.ok(&["check"]).contains("are not locked"));
    away.url = away.url.replace("lock-days=90", "lock-days=10");
    assert_eq!(away.json(&["prune", "--grace", "0s"])["locks_extended"].as_u64(), Some(0));
    assert_eq!(after, all.iter().map(until).collect::<Vec<_>>());
}

const DAY: i64 = 86_400_000_000_000;

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

/// When the retention of the snapshot ends, as the program says it.
fn retained_until(snapshot: &serde_json::Value) -> i64 {
    let until: jiff::Timestamp = snapshot["retain_until"].as_str().unwrap().parse().unwrap();
    i64::try_from(until.as_nanosecond()).unwrap()
}

#[test]
fn locks_reach_to_the_end_of_a_snapshots_own_retention_and_no_further() {
    LOCKING.iter().for_each(|server| reaches_to_the_end(server()));
}

fn reaches_to_the_end(server: Option<Server>) {
    let Some(mut away) = Away::new(server, "lock-days=10") else { return };
    away.ok(&["init"]);
    // One that is retained, one that is retained for less than what is put is locked for, and one that just stands.
    let backup = |number: u64, retain: &[&str]| {
        std::fs::write(away.home.path("documents/data"), noise(number, 300_000)).unwrap();
        let before = away.keys("packs");
        let made = away.json(&[&["backup", "documents"], retain].concat());
        let packs: Vec<Key> = away.keys("packs").into_iter().filter(|key| !before.contains(key)).collect();
        assert!(packs.len() >= 2, "{packs:?}");
        (made, packs)
    };
    let (long, of_long) = backup(1, &["--retain", "30d"]);
    let (_, of_short) = backup(2, &["--retain", "1h"]);
    let (_, of_standing) = backup(3, &[]);
    let store = away.location().open().unwrap();
    let extras = store.extras().unwrap();
    let until = |key: &Key| extras.state(key).unwrap().unwrap().locked_until.unwrap();
    let put: Vec<i64> = of_short.iter().map(until).collect();
    away.url = away.url.replace("lock-days=10", "lock-days=90");
    assert!(away.ok(&["check"]).contains("are not locked"));
    away.ok(&["prune", "--grace", "0s"]);
    let end = retained_until(&long);
    assert!(of_long.iter().all(|key| (end..end + 1_000_000_000).contains(&until(key))), "to its end, in whole seconds");
    assert_eq!(of_short.iter().map(until).collect::<Vec<_>>(), put, "its end is before that of the lock that it was put with");
    let others = ["format", "keys", "log"].iter().flat_map(|folder| away.keys(folder));
    assert!(of_standing.iter().cloned().chain(others).all(|key| until(&key) > now() + 89 * DAY), "as long as it stands");
    assert!(!away.ok(&["check"]).contains("are not locked"));
    assert_eq!(away.json(&["prune", "--grace", "0s"])["locks_extended"].as_u64(), Some(0), "nothing more is to be done");
    // What is held is kept for as long as the hold lasts.
    away.ok(&["hold", &long["id"].as_str().unwrap()[..8]]);
    away.ok(&["prune", "--grace", "0s"]);
    assert!(of_long.iter().all(|key| until(key) > now() + 89 * DAY));
}

#[test]
fn a_retention_that_is_absurd_locks_no_further_ahead_than_whoever_prunes_has_said() {
    LOCKING.iter().for_each(|server| locks_no_further(server()));
}

fn locks_no_further(server: Option<Server>) {
    let Some(mut away) = Away::new(server, "lock-days=10") else { return };
    away.ok(&["init"]);
    let said = away.fails(&["backup", "documents", "--retain", "9000y"], 2);
    assert!(said.contains("2262"), "{said}");
    let made = away.json(&["backup", "documents", "--retain", "200y"]);
    let store = away.location().open().unwrap();
    let extras = store.extras().unwrap();
    let until = |key: &Key| extras.state(key).unwrap().unwrap().locked_until.unwrap();
    let all: Vec<Key> = ["format", "keys", "log", "packs"].iter().flat_map(|folder| away.keys(folder)).collect();
    let put: Vec<i64> = all.iter().map(until).collect();
    away.ok(&["prune", "--grace", "0s"]);
    assert_eq!(all.iter().map(until).collect::<Vec<_>>(), put, "more than half of its days are left");
    // Only who says so locks for longer than what is put.
    let url = away.url.clone();
    away.url = format!("{url}&lock-limit=60");
    away.ok(&["prune", "--grace", "0s"]);
    let reach = (now() + 59 * DAY)..(now() + 61 * DAY);
    assert!(all.iter().all(|key| reach.contains(&until(key))), "{made}");
    away.url = format!("{url}&lock-limit=5");
    assert!(away.fails(&["snapshots"], 2).contains("lock-limit=5 goes with lock-days of no more than that"));
    // Once the snapshot is forgotten, in spite of what it says, its locks run out.
    away.url = url.replace("lock-days=10", "lock-days=500");
    let id = &made["id"].as_str().unwrap()[..8];
    let said = away.fails(&["forget", id, "--allow-all", "--yes"], 11);
    assert!(said.contains("is retained until") && said.contains("--despite-retention"), "{said}");
    away.ok(&["forget", id, "--allow-all", "--yes", "--despite-retention"]);
    away.ok(&["prune", "--grace", "0s"]);
    let packs = all.iter().filter(|key| key.as_str().starts_with("packs/"));
    assert!(packs.clone().count() >= 2 && packs.into_iter().all(|key| reach.contains(&until(key))));
}

impl Away {
    /// Five backups, of which the last one is kept.
    fn fill_log(&self) -> Vec<Key> {
        self.ok(&["init"]);
        for version in 0..5 {
            std::fs::write(self.home.path("documents/data"), noise(version, 100_000)).unwrap();
            self.ok(&["backup", "documents"]);
        }
        self.ok(&["forget", "--keep-last", "1", "--yes", "--allow-most"]);
        self.keys("log")
    }

    /// Objects below a folder of which any version is left, marks of deletion too.
    fn left(&self, folder: &str) -> Vec<Key> {
        let store = self.location().open_unseen().unwrap();
        let mut left = Vec::new();
        let mut note = |version: lifeboat::store::Version| {
            left.push(version.key);
            Ok(())
        };
        store.extras().unwrap().versions(folder, &mut note).unwrap();
        left.sort_unstable();
        left.dedup();
        left
    }
}

#[test]
fn of_a_record_that_was_cut_off_no_version_is_left_whoever_deleted_it_before() {
    LOCKING.iter().for_each(|server| leaves_no_version(server()));
}

fn leaves_no_version(server: Option<Server>) {
    let Some(away) = Away::new(server, "connections=8") else { return };
    let records = away.fill_log();
    // Somebody deletes a record that is about to be cut off, and another one after that was done.
    let store = away.location().open_unseen().unwrap();
    store.delete(&records[3]).unwrap();
    away.ok(&["prune", "--grace", "0s", "--truncate-logs", "always"]);
    let kept = away.keys("log");
    assert!(!kept.contains(&records[3]) && !kept.contains(&records[4]), "both were cut off: {kept:?}");
    assert_eq!(away.left("log/"), kept);
    store.put(&records[4], b"taken again").unwrap();
    store.delete(&records[4]).unwrap();
    assert!(away.left("log/").contains(&records[4]));
    away.ok(&["prune", "--grace", "0s"]);
    assert_eq!(away.left("log/"), kept);
    away.ok(&["check", "--read-data"]);
}

/// A deletion without a version only puts a mark over those that there are.
#[test]
fn where_versions_cannot_be_listed_for_once_nothing_counts_as_gone() {
    // One request at a time: this server answers 500 where versions are listed while another request deletes some.
    let Some(mut away) = Away::new(servers::moto_with_locks(), "retries=0&connections=1") else { return };
    away.fill_log();
    let proxy =
        Proxy::new(away.server.port, |request| match request.path.contains("?versions") && request.path.contains("%2F0") {
            true => Action::refuse(503, "SlowDown"),
            false => Action::Pass,
        });
    away.url = away.url.replace(&away.server.port.to_string(), &proxy.port.to_string());
    let prune = ["prune", "--grace", "0s", "--truncate-logs", "always"];
    assert!(away.fails(&prune, 1).contains("list the versions of"));
    let requests = proxy.take_requests();
    assert!(requests.iter().any(|request| request.path.contains("?versions")));
    let deleted = |request: &&Request| request.method == "DELETE" && request.path.contains("/log/");
    assert!(requests.iter().filter(deleted).all(|request| request.path.contains("versionId=")), "{requests:?}");
    proxy.rule(|_| Action::Pass);
    away.ok(&prune);
    assert_eq!(away.left("log/"), away.keys("log"));
    away.ok(&["check", "--read-data"]);
}

#[test]
fn locks_of_records_that_were_cut_off_run_out() {
    let Some(mut away) = Away::new(servers::moto_with_locks(), "lock-days=10") else { return };
    let records = away.fill_log();
    away.ok(&["prune", "--grace", "0s", "--truncate-logs", "always"]);
    assert!(records.iter().all(|record| away.keys("log").contains(record)), "all are locked");
    let store = away.location().open().unwrap();
    let extras = store.extras().unwrap();
    let until = |key: &Key| extras.state(key).unwrap().unwrap().locked_until.unwrap();
    let before: Vec<i64> = records.iter().map(until).collect();
    away.url = away.url.replace("lock-days=10", "lock-days=90");
    assert!(away.json(&["prune", "--grace", "0s"])["locks_extended"].as_u64().unwrap() > 0);
    let cut_off: Vec<&Key> =
        records.iter().zip(before).filter(|(record, before)| until(record) == *before).map(|(record, _)| record).collect();
    // The first records say who takes part: these stay, and so do their locks.
    assert_eq!(cut_off, records[2..].iter().collect::<Vec<_>>());
    let soon = (jiff::Timestamp::now().as_second() + 1) * 1_000_000_000;
    cut_off.iter().for_each(|key| extras.lock_until(key, soon, false).unwrap());
    while cut_off.iter().any(|record| away.left("log/").contains(record)) {
        away.ok(&["prune", "--grace", "0s"]);
    }
    away.ok(&["check", "--read-data"]);
}

/// Somebody with the credentials of a writer deletes and overwrites what a bucket lets him.
#[test]
fn what_was_deleted_or_overwritten_comes_back_from_older_versions() {
    LOCKING.iter().for_each(|server| comes_back(server()));
}

fn comes_back(server: Option<Server>) {
    let Some(away) = Away::new(server, "lock-days=10") else { return };
    away.fill();
    let store = away.location().open().unwrap();
    let packs = away.keys("packs");
    let (format, logs) = (Key::format(), away.keys("log"));
    // A pack and a record are deleted, another pack is replaced, and so is a record.
    store.delete(&packs[0]).unwrap();
    let bytes = store.get(&packs[1], 1 << 30).unwrap();
    store.delete(&packs[1]).unwrap();
    store.put(&packs[1], &bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).unwrap();
    let last = logs.last().unwrap();
    let record = store.get(last, 1 << 20).unwrap();
    store.delete(last).unwrap();
    store.create(last, b"nothing").unwrap();
    store.delete(&logs[1]).unwrap();
    store.delete(&format).unwrap();
    let said = away.fails(&["snapshots"], 13);
    assert!(said.contains("its format was deleted") && said.contains("repair --apply"), "{said}");
    let planned = away.run(&["repair"]);
    let planned = String::from_utf8(planned.stdout).unwrap();
    assert!(planned.contains("format/1 was deleted and would be put back"), "{planned}");
    assert!(store.get(&format, 1 << 20).is_err(), "nothing is changed without --apply");
    let repaired = away.run(&["repair", "--apply"]);
    let repaired = String::from_utf8(repaired.stdout).unwrap();
    assert!(repaired.contains("was overwritten and put back") && repaired.contains("from its version"), "{repaired}");
    assert_eq!(store.get(last, 1 << 20).unwrap(), record);
    away.ok(&["check", "--read-data"]);
    away.ok(&["restore", "latest", "--to", "out"]);
    assert!(away.ok(&["repair"]).contains("nothing is wrong"));
}

#[test]
fn when_all_slots_were_deleted_they_come_back_and_one_that_was_removed_does_not() {
    let Some(away) = Away::new(servers::moto_with_locks(), "lock-days=10") else { return };
    away.fill();
    let store = away.location().open().unwrap();
    std::fs::write(away.home.path("word"), "a passphrase\n").unwrap();
    away.ok(&["key", "add", "--new-passphrase-file", "word"]);
    let first = away.keys("keys").len();
    assert!(away.ok(&["repair"]).contains("nothing is wrong"));
    store.delete(&away.keys("keys")[0]).unwrap();
    assert_eq!(away.keys("keys").len(), first - 1);
    let _ = away.run(&["repair", "--apply"]);
    assert_eq!(away.keys("keys").len(), first - 1, "removing a slot is nothing to mend");
    away.keys("keys").iter().for_each(|key| store.delete(key).unwrap());
    away.fails(&["repair", "--apply"], 13);
    assert_eq!(away.keys("keys").len(), first);
    away.ok(&["snapshots"]);
}

#[test]
fn a_restore_reads_older_versions_of_packs_that_were_deleted_or_overwritten() {
    let Some(away) = Away::new(servers::moto_with_locks(), "lock-days=10") else { return };
    away.fill();
    let store = away.location().open().unwrap();
    for (number, pack) in away.keys("packs").iter().enumerate() {
        let bytes = store.get(pack, 1 << 30).unwrap();
        store.delete(pack).unwrap();
        if number % 2 == 0 {
            store.put(pack, &vec![7; bytes.len()]).unwrap();
        }
    }
    let known = away.json(&["restore", "latest", "--to", "known"]);
    assert!(known["rescued"].as_u64() > Some(0) && known["failure_count"].as_u64() == Some(0), "{known}");
    // A machine that has nothing finds the tables of contents there too.
    std::fs::remove_dir_all(away.home.path(".cache")).unwrap();
    away.ok(&["restore", "latest", "--to", "fresh", "--verify"]);
    away.fails(&["check"], 13);
    away.run(&["repair", "--apply"]);
    away.ok(&["check", "--read-data"]);
}
