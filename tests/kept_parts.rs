//! What a machine keeps of a repository elsewhere: nothing is fetched twice to look at it, and it can be looked at while the
//! store cannot be reached.

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
use lifeboat::event::Silent;
use lifeboat::ops::ls::{LsOptions, ls};
use lifeboat::repo::Repository;
use lifeboat::store::{Local, Measured, ObjectClass, Operation};
use std::path::PathBuf;
use std::sync::Arc;
use support::home::Home;
use support::{Bench, noise};

const LIMIT: u64 = 1 << 30;

fn filled() -> Bench {
    let bench = Bench::in_memory();
    for number in 0..200u64 {
        bench.write(&format!("{}/{number}", number % 20), noise(number, 500));
    }
    bench.backup();
    bench
}

/// Lists the newest snapshot; returns what was listed, and how often packs were read.
fn listed(bench: &Bench, machine: &str) -> (Vec<Vec<u8>>, u64) {
    let measured = Measured::new(Arc::new(Local::open(&bench.repository_dir()).unwrap()));
    let repository = bench.open_over(Arc::new(measured.clone()), machine).unwrap();
    repository.keep_parts(LIMIT);
    let before = measured.counts();
    let paths = list(&repository);
    let counts = measured.counts().since(&before);
    (paths, counts.of(Operation::Read, ObjectClass::Pack).calls + counts.of(Operation::Get, ObjectClass::Pack).calls)
}

fn list(repository: &Repository) -> Vec<Vec<u8>> {
    let latest = repository.snapshots().unwrap().pop().unwrap();
    let mut paths = Vec::new();
    let options = LsOptions { path: Vec::new(), recursive: true };
    ls(repository, &latest, &options, &Silent, &mut |path, _| {
        paths.push(path.to_vec());
        Ok(())
    })
    .unwrap();
    paths
}

fn parts(bench: &Bench, machine: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![bench.path(&format!("cache-{machine}"))]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.to_string_lossy().contains("/parts/") => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_was_listed_once_is_listed_again_without_reading_a_pack() {
    let bench = filled();
    let (first, reads) = listed(&bench, "one");
    assert!(reads > 0 && first.len() > 220, "{reads} {}", first.len());
    assert_eq!(listed(&bench, "one"), (first.clone(), 0));
    // All of it may go at any time.
    std::fs::remove_dir_all(parts(&bench, "one")[0].parent().unwrap().parent().unwrap()).unwrap();
    assert_eq!(listed(&bench, "one"), (first, reads));
}

#[test]
fn no_part_is_believed_that_is_not_what_was_kept() {
    let bench = filled();
    let (first, reads) = listed(&bench, "one");
    let all = parts(&bench, "one");
    for path in &all {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(listed(&bench, "one"), (first.clone(), reads), "read anew");
    assert_eq!(listed(&bench, "one"), (first.clone(), 0), "and kept again");
    std::fs::write(&all[0], "short").unwrap();
    assert_eq!(listed(&bench, "one").0, first);
}

#[test]
fn a_check_looks_at_the_store_and_not_at_what_is_kept() {
    let bench = filled();
    listed(&bench, "one");
    let mut packs = bench.objects("packs");
    packs.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    support::tamper(&packs[0], |bytes| {
        let middle = bytes.len() / 3;
        bytes[middle..middle + 200].fill(7);
    });
    let repository = bench.open_over(bench.location().open().unwrap(), "one").unwrap();
    repository.keep_parts(LIMIT);
    assert_eq!(list(&repository).len(), listed(&bench, "one").0.len(), "what is kept can still be listed");
    let report = lifeboat::ops::check::check(&repository, &Default::default(), &Silent).unwrap();
    assert!(!report.damaged.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let home = Home::filled();
    for arguments in [&["ls", "latest"][..], &["backup", "documents"], &["restore", "latest", "--to", "out"], &["prune"]] {
        let output = home.run(&[arguments, &["--cache-dir", "documents/note/cache"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("not a directory") && said.contains("is not kept"), "{said}");
    }
}

impl Behind {
    fn backed_up() -> Option<Self> {
        let behind = Self::new("retries=0")?;
        behind.ok(&["init"]);
        behind.ok(&["backup", "documents"]);
        Some(behind)
    }

    /// Requests for packs since this was last asked.
    fn packs_read(&self) -> usize {
        let requests = self.proxy.take_requests();
        requests.iter().filter(|request| request.method == "GET" && request.path.contains("packs/")).count()
    }
}

#[test]
fn a_server_is_asked_once_for_what_is_listed() {
    let Some(away) = Behind::backed_up() else { return };
    away.packs_read();
    let first = away.ok(&["ls", "-R", "latest"]);
    assert!(away.packs_read() > 0);
    assert_eq!(away.ok(&["ls", "-R", "latest"]), first);
    assert_eq!(away.packs_read(), 0);
    let info: serde_json::Value = serde_json::from_str(&away.ok(&["cache", "info", "--json"])).unwrap();
    assert!(info["parts_bytes"].as_u64().unwrap() > 0);
    assert_eq!(away.ok(&["ls", "-R", "latest", "--cache-size", "0"]), first);
    assert!(away.packs_read() > 0, "nothing is kept");
    away.ok(&["cache", "clear"]);
    away.packs_read();
    assert_eq!(away.ok(&["ls", "-R", "latest"]), first);
    assert!(away.packs_read() > 0);
}

#[test]
fn what_was_looked_at_can_be_looked_at_while_the_store_cannot_be_reached() {
    let Some(away) = Behind::backed_up() else { return };
    std::fs::write(away.home.path("documents/note"), "second").unwrap();
    away.ok(&["backup", "documents"]);
    let listed: serde_json::Value = serde_json::from_str(&away.ok(&["snapshots", "--json"])).unwrap();
    let ids: Vec<String> =
        listed.as_array().unwrap().iter().map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect();
    let looks: [&[&str]; 6] = [
        &["snapshots", "--json"],
        &["show", &ids[0], "--json"],
        &["ls", "-R", &ids[0]],
        &["ls", "-R", "latest"],
        &["find", "*note*"],
        &["diff", &ids[0], &ids[1]],
    ];
    let before: Vec<String> = looks.iter().map(|look| away.ok(look)).collect();
    // The server is gone.
    let Behind { away, proxy } = away;
    drop(proxy);
    for (look, before) in looks.iter().zip(&before) {
        let output = away.run(look);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("offline: as of 2"), "{look:?}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), *before, "{look:?}");
    }
    assert!(away.run(&["history"]).status.success());
    for refused in [&["backup", "documents"][..], &["cat", "latest:documents/note"], &["check"], &["prune"]] {
        let output = away.run(refused);
        assert_eq!(output.status.code(), Some(1), "{refused:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // What was never looked at is not there, and a machine that knows nothing says what the server did.
    std::fs::remove_dir_all(away.home.path(".cache")).unwrap();
    let output = away.run(&["snapshots"]);
    assert!(output.status.code() == Some(1) && !String::from_utf8_lossy(&output.stderr).contains("offline"));
}

#[test]
fn a_writer_keeps_nothing_that_it_cannot_read() {
    let Some(away) = Behind::backed_up() else { return };
    let (identity, recipient) = lifeboat::repo::generate_identity().unwrap();
    let file = away.home.path("writer.txt");
    std::fs::write(&file, identity.as_bytes()).unwrap();
    away.ok(&["key", "enrol", "--role", "writer", "--recipient", &recipient, "--name", "writer"]);
    let as_writer = ["--identity", file.to_str().unwrap(), "--cache-dir", "writers", "--config", "/dev/null"];
    for verb in [&["backup", "documents"][..], &["snapshots"], &["backup", "documents"]] {
        away.ok(&[verb, &as_writer].concat());
    }
    let _ = away.run(&[&["ls", "latest"][..], &as_writer].concat());
    let folder =
        std::fs::read_dir(away.home.path("writers")).unwrap().flatten().find(|entry| entry.path().join("cache.sqlite").exists());
    assert!(!folder.unwrap().path().join("parts").exists());
}
