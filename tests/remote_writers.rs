//! Twenty writers at once on a real S3 server, without a lock, while a maintainer forgets and prunes; what one backup of
//! each costs is counted where the requests pass, and printed for those who ask with `--no-capture`.
//!
//! `LIFEBOAT_ROUNDS` sets how many more rounds there are in which prunes have no grace.
#![expect(clippy::print_stdout, reason = "figures are printed for those who ask")]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/servers.rs"]
mod servers;
mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::format::key::Role;
use lifeboat::ops::backup::{BackupOptions, Input, backup};
use lifeboat::ops::check::{CheckOptions, ReadData, check};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::repo::{Access, Enrolment, NewSlot, OpenOptions, Repository, default_sizes, generate_identity};
use lifeboat::store::{AnyStore, Location};
use proxy::{Action, Proxy};
use servers::Server;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use support::{Bench, contents, noise};
use zeroize::Zeroizing;

const WRITERS: usize = 20;
const FILES: u64 = 50;

/// A machine with keys, a cache, and a connection of its own.
struct Machine {
    name: String,
    identity: Zeroizing<String>,
    place: Location,
}

/// The server, and where machines keep what is theirs.
struct Scene {
    bench: Bench,
    server: Server,
    line: Proxy,
}

impl Scene {
    fn place(&self, port: u16) -> Location {
        let answers = self.bench.path("answers");
        Location::parse(&self.server.url_at("repository", port)).unwrap().with_settings(self.server.settings(Some(&answers)))
    }

    fn owner(&self) -> Machine {
        let (identity, recipient) = generate_identity().unwrap();
        let owner = Machine { name: "owner".into(), identity, place: self.place(self.server.port) };
        let sizes = default_sizes(4096).unwrap();
        Repository::init(&owner.place, &NewSlot::Recipient(recipient), sizes, 3, &owner.options(self)).unwrap();
        owner
    }

    fn enrol(&self, owner: (&Repository, &Access), role: Role, name: &str, port: u16) -> Machine {
        let (identity, recipient) = generate_identity().unwrap();
        let enrolment = Enrolment { role, slot: NewSlot::Recipient(recipient), name: name.into(), trust: vec!["none".into()] };
        owner.0.enrol(owner.1, &enrolment).unwrap();
        std::fs::create_dir_all(self.bench.path(name)).unwrap();
        Machine { name: name.into(), identity, place: self.place(port) }
    }
}

impl Machine {
    fn options(&self, scene: &Scene) -> OpenOptions {
        scene.bench.options_of(&self.name)
    }

    fn access(&self) -> Access {
        Access { identity: Some(Zeroizing::new(self.identity.as_bytes().to_vec())), passphrase: None }
    }

    fn open(&self, scene: &Scene) -> Repository {
        let store: AnyStore = self.place.open().unwrap();
        Repository::open_store(store, &self.access(), &self.options(scene), &Silent).unwrap()
    }

    fn source(&self, scene: &Scene) -> PathBuf {
        scene.bench.path(&self.name)
    }

    /// Backs its folder up; how often a prune without grace was faster.
    fn back_up(&self, scene: &Scene) -> usize {
        let options = || BackupOptions {
            input: Input::Paths(vec![self.source(scene)]),
            host: self.name.clone(),
            threads: 1,
            ..scene.bench.backup_options()
        };
        let again = (0..30).find(|_| match backup(&self.open(scene), options(), &Silent) {
            Ok(report) => !report.incomplete(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InUse, "{}: {error}", self.name);
                false
            }
        });
        again.expect("no prune is faster that often")
    }
}

/// One of those whom the prune beside them waits for, until this is dropped.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All writers at once, and a prune beside them that begins again until they are done.
fn round(scene: &Scene, writers: &[Machine], pruner: &Machine, grace: Duration) -> (usize, u64) {
    let (start, busy, deleted) = (Barrier::new(WRITERS + 1), AtomicUsize::new(WRITERS), AtomicU64::new(0));
    let again = std::thread::scope(|scope| {
        let (start, busy, deleted) = (&start, &busy, &deleted);
        scope.spawn(move || {
            let repository = pruner.open(scene);
            start.wait();
            while busy.load(Ordering::Relaxed) > 0 {
                let options = PruneOptions { grace, max_unused: 0.0, ..PruneOptions::default() };
                let report = prune(&repository, &options, &Silent).unwrap();
                deleted.fetch_add(report.pruned.deleted, Ordering::Relaxed);
            }
        });
        let run = |writer| {
            scope.spawn(move || {
                let _busy = Busy(busy);
                start.wait();
                Machine::back_up(writer, scene)
            })
        };
        let threads: Vec<_> = writers.iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    (again, deleted.into_inner())
}

/// What passed the line, for each of the writers.
fn tell(what: &str, line: &Proxy) -> f64 {
    let mut sums: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for request in line.take_requests() {
        if std::env::var_os("LIFEBOAT_TRACE").is_some() {
            println!("{:6} {}", request.method, request.path);
        }
        let length = request.headers.get("content-length").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let sum = sums.entry(request.method).or_default();
        *sum = (sum.0 + 1, sum.1 + length);
    }
    let mean = |sum: u64| sum as f64 / WRITERS as f64;
    let told = sums.iter().map(|(method, (count, bytes))| match bytes {
        0 => format!("{:.1} {method}", mean(*count as u64)),
        _ => format!("{:.1} {method} with {:.0} bytes", mean(*count as u64), mean(*bytes)),
    });
    println!("{what}: {}", told.collect::<Vec<_>>().join(", "));
    mean(sums.get("PUT").map_or(0, |(count, _)| *count as u64))
}

/// The latest snapshot of each writer gives what the writer has, and nothing is damaged.
fn verify(scene: &Scene, owner: &Machine, writers: &[Machine]) {
    let repository = owner.open(scene);
    let options = CheckOptions { read_data: Some(ReadData::default()), threads: 2, ..CheckOptions::default() };
    let report = check(&repository, &options, &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let snapshots = repository.snapshots().unwrap();
    let whole = |writer: &Machine| {
        let latest = snapshots.iter().rfind(|entry| entry.snapshot.host == writer.name).unwrap();
        let (target, source) = (scene.bench.path(&format!("out-{}", writer.name)), writer.source(scene));
        let subpath = source.canonicalize().unwrap().to_str().unwrap().trim_start_matches('/').as_bytes().to_vec();
        let options = RestoreOptions { subpath, ..scene.bench.restore_options(&target) };
        let report = restore(&repository, latest, &options, &Silent).unwrap();
        assert_eq!(report.failure_count, 0, "{}", writer.name);
        assert!(contents(&target) == contents(&source), "{}", writer.name);
    };
    std::thread::scope(|scope| writers.iter().for_each(|writer| drop(scope.spawn(|| whole(writer)))));
}

#[test]
fn twenty_writers_and_a_prune_at_once_lose_nothing_on_an_s3_server() {
    let Some(server) = servers::ceph().or_else(servers::moto) else { return };
    let line = Proxy::new(server.port, |_| Action::Pass);
    let scene = Scene { bench: Bench::in_memory(), server, line };
    let owner = scene.owner();
    let (repository, access) = (owner.open(&scene), owner.access());
    let known = (&repository, &access);
    let pruner = scene.enrol(known, Role::Maintainer, "pruner", scene.server.port);
    let writers: Vec<_> =
        (0..WRITERS).map(|at| scene.enrol(known, Role::Writer, &format!("writer{at}"), scene.line.port)).collect();
    for (at, writer) in (0u64..).zip(&writers) {
        let file = |number: u64| writer.source(&scene).join(format!("f{number}"));
        (0..FILES).for_each(|number| std::fs::write(file(number), noise(at * 1000 + number, 4000)).unwrap());
        // What a machine does once: finding out whose slot is its own.
        writer.open(&scene);
    }
    scene.line.take_requests();
    let hour = Duration::from_secs(3600);
    drop(repository);
    for what in ["first backup", "one file changed", "nothing changed"] {
        if what == "one file changed" {
            writers.iter().for_each(|writer| std::fs::write(writer.source(&scene).join("f0"), &writer.name).unwrap());
        }
        let (again, _) = round(&scene, &writers, &pruner, hour);
        let puts = tell(what, &scene.line);
        assert!(again == 0 && puts <= 4.0, "{what}: {puts} puts for a backup, {again} times once more");
    }
    // Now with prunes that spare nothing that no record names yet.
    let rounds = std::env::var("LIFEBOAT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1u64);
    for at in 0..rounds {
        for (number, writer) in (0u64..).zip(&writers) {
            std::fs::write(writer.source(&scene).join("f1"), noise(90_000 + at * 100 + number, 20_000)).unwrap();
        }
        let surplus: Vec<_> = owner.open(&scene).snapshots().unwrap().iter().map(|entry| entry.record()).collect();
        let (kept, going) = surplus.split_at(surplus.len() / 3);
        owner.open(&scene).forget(going).unwrap();
        let (again, deleted) = round(&scene, &writers, &pruner, Duration::ZERO);
        println!("without grace: {deleted} packs deleted, {again} backups made once more; {} snapshots kept", kept.len());
    }
    verify(&scene, &owner, &writers);
}
