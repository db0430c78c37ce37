//! What each verb asks of an S3 server: requests, and how many of them lie one behind the other, which is what it costs where
//! an answer takes long.
//!
//! Every answer is held back for a while, and a request counts as behind another if it came after that one was answered. So
//! what must wait is always counted, and on a machine that is busy something that need not may be counted as well: the least of
//! some runs is what the program asks for.

use crate::proxy::{Action, Proxy};
use crate::servers;
use crate::support::home::Home;
use crate::support::noise;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long each answer is held back in the first run; in each of the next ones, for longer.
const HELD: Duration = Duration::from_millis(60);
/// Runs, at most.
const RUNS: usize = 6;

/// Verb, requests, and how many lie one behind the other.
type Budget = (&'static str, usize, usize);

const BUDGETS: [Budget; 15] = [
    // 60 of them race for five names, three times twelve or twenty-four at once.
    ("init", 92, 18),
    ("first backup", 16, 8),
    ("unchanged backup", 10, 4),
    ("backup of a change", 15, 7),
    ("snapshots", 7, 2),
    ("ls of a directory", 8, 3),
    ("ls of it again", 7, 2),
    // 12 of them race: what the store keeps was found out before.
    ("check", 54, 8),
    ("restore of one file", 9, 4),
    ("restore of everything", 13, 4),
    ("forget", 15, 7),
    ("prune", 45, 18),
    ("prune of nothing", 14, 4),
    ("snapshots on a new machine", 34, 7),
    ("copy", 30, 16),
];

/// A machine whose repository is behind a slow line.
struct Scene {
    home: Home,
    proxy: Proxy,
    variables: BTreeMap<String, String>,
    urls: [String; 2],
    found: Vec<Budget>,
}

impl Scene {
    fn new(server: &servers::Server, number: usize) -> Self {
        let held = HELD * u32::try_from(number + 1).unwrap();
        let proxy = Proxy::new(server.port, move |_| Action::Hold(usize::MAX, held));
        let urls = ["one", "two"].map(|name| server.url_at(&format!("{name}{number}"), proxy.port));
        let home = Home::new();
        for directory in 0..5 {
            std::fs::create_dir_all(home.path(&format!("documents/d{directory}"))).unwrap();
            (0..10).for_each(|file| write(&home, directory, file, 1));
        }
        Self { home, proxy, variables: server.variables().clone(), urls, found: Vec::new() }
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = self.home.command(&[&["--repo", &self.urls[0]], arguments].concat());
        let output = command.envs(&self.variables).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn counted(&mut self, what: &'static str, arguments: &[&str]) {
        self.proxy.take_trace();
        self.run(arguments);
        let trace = self.proxy.take_trace();
        tell(what, &trace);
        self.found.push((what, trace.len(), trace.iter().map(|request| request.depth).max().unwrap_or(0)));
    }
}

fn write(home: &Home, directory: u64, file: u64, version: u64) {
    let bytes = noise(version * 1000 + directory * 10 + file, 5000);
    std::fs::write(home.path(&format!("documents/d{directory}/f{file}")), bytes).unwrap();
}

/// Every request with its depth, for whoever wants to know what waits for what.
#[expect(clippy::print_stdout, reason = "it is asked for")]
fn tell(what: &str, trace: &[crate::proxy::Request]) {
    if std::env::var_os("LIFEBOAT_TRACE").is_some() {
        println!("{what}");
        trace.iter().for_each(|request| println!("{:4} {:6} {}", request.depth, request.method, request.path));
    }
}

/// All verbs in turn.
fn all(server: &servers::Server, number: usize) -> Vec<Budget> {
    let mut scene = Scene::new(server, number);
    let target = scene.urls[1].clone();
    scene.counted("init", &["init"]);
    scene.counted("first backup", &["backup", "documents"]);
    scene.counted("unchanged backup", &["backup", "documents"]);
    (0..4).for_each(|directory| (0..5).for_each(|file| write(&scene.home, directory, file, 2)));
    scene.counted("backup of a change", &["backup", "documents"]);
    scene.counted("snapshots", &["snapshots"]);
    scene.counted("ls of a directory", &["ls", "latest:documents/d1"]);
    scene.counted("ls of it again", &["ls", "latest:documents/d1"]);
    scene.counted("check", &["check"]);
    scene.counted("restore of one file", &["restore", "latest:documents/d4/f1", "--to", "one"]);
    scene.counted("restore of everything", &["restore", "latest", "--to", "all"]);
    scene.counted("forget", &["forget", "--keep-last", "1", "--yes", "--allow-most"]);
    scene.counted("prune", &["prune", "--grace", "0s"]);
    scene.counted("prune of nothing", &["prune", "--grace", "0s"]);
    for folder in [".cache", ".local/state"] {
        std::fs::remove_dir_all(scene.home.path(folder)).unwrap();
    }
    scene.counted("snapshots on a new machine", &["snapshots"]);
    scene.run(&["init", "--repo", &target]);
    scene.counted("copy", &["copy", "--to", &target]);
    scene.found
}

#[test]
fn each_verb_asks_a_server_for_no_more_than_it_must_and_waits_for_as_few_answers_as_it_can() {
    let Some(server) = servers::moto() else { return };
    let over = |least: &[Budget]| -> Vec<(Budget, Budget)> {
        let pairs = least.iter().copied().zip(BUDGETS);
        pairs.filter(|(found, budget)| found.0 != budget.0 || found.1 > budget.1 || found.2 > budget.2).collect()
    };
    let mut least = all(&server, 0);
    for number in 1..RUNS {
        if over(&least).is_empty() {
            return;
        }
        for (least, (_, requests, depth)) in least.iter_mut().zip(all(&server, number)) {
            *least = (least.0, least.1.min(requests), least.2.min(depth));
        }
    }
    assert_eq!(over(&least), [], "found, and allowed");
}
