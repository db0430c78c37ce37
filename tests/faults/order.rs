//! What is durable before what: the calls of the program, as the system sees them. A disk that keeps its promises by chance
//! shows nothing of this.

use crate::disks::Home;
use crate::support::noise;
use crate::system::has_strace;
use regex::Regex;
use std::collections::{HashMap, HashSet};
use std::process::Command;

/// A call that has ended, with the paths in the repository that it was about.
struct Call {
    began: usize,
    ended: usize,
    name: String,
    paths: Vec<String>,
    result: String,
}

impl Call {
    fn succeeded(&self) -> bool {
        self.result == "0"
    }

    fn is_link(&self) -> bool {
        self.name == "linkat" && self.paths.len() == 2
    }

    /// The name that a link gives, or had been given.
    fn named(&self) -> Option<&str> {
        let there = self.is_link() && (self.succeeded() || self.result.contains("EEXIST"));
        there.then(|| self.paths[1].as_str())
    }

    /// Commits something, or lets something go.
    fn counts(&self) -> bool {
        self.is_link() && (self.paths[1].starts_with("log/") || self.paths[1].starts_with("gc/"))
    }

    fn syncs(&self, path: &str) -> bool {
        (self.name == "fsync" || self.name == "fdatasync") && self.succeeded() && self.paths == [path]
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Runs the program; returns its calls in the order in which they ended, those of all threads.
fn traced(home: &Home, arguments: &[&str], more: &[&str]) -> Vec<Call> {
    let log = home.path("calls");
    let mut outer = Command::new("strace");
    outer.args(["-f", "-qq", "-y", "-o"]).arg(&log).args(["-e", "trace=linkat,mkdir,mkdirat,fsync,fdatasync,unlink,unlinkat"]);
    outer.args(more);
    let output = home.command_within(outer, arguments).output().unwrap();
    assert!(output.status.success() || !more.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let path = Regex::new(r#"["</]repository(?:/([^">]*))?[">]"#).unwrap();
    let text = std::fs::read_to_string(log).unwrap();
    let (mut open, mut calls): (HashMap<&str, (usize, String)>, Vec<Call>) = (HashMap::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let Some((thread, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(first) = line.strip_suffix("<unfinished ...>") {
            open.insert(thread, (at, first.to_owned()));
            continue;
        }
        let (began, whole) = match line.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, rest)) => open.remove(thread).map_or_else(Default::default, |(began, first)| (began, first + rest)),
            None => (at, line.to_owned()),
        };
        let Some(((name, about), result)) =
            whole.rsplit_once(" = ").and_then(|(call, result)| Some((call.split_once('(')?, result)))
        else {
            continue;
        };
        let paths = path.captures_iter(about).map(|found| found.get(1).map_or("", |path| path.as_str()).to_owned()).collect();
        calls.push(Call { began, ended: at, name: name.to_owned(), paths, result: result.to_owned() });
    }
    calls
}

/// Fails unless `path` was synced after `from`, and before whatever counts next.
fn synced_in_time(calls: &[Call], path: &str, from: usize, what: &str) {
    let synced = calls.iter().filter(|call| call.began > from && call.syncs(path)).map(|call| call.ended).min();
    let synced = synced.unwrap_or_else(|| panic!("{what}: {path:?} is not synced at all"));
    let next = calls.iter().filter(|call| call.counts() && call.began > from).map(|call| call.began).min();
    assert!(next.is_none_or(|next| synced < next), "{what}: {path:?} is synced too late");
}

/// Contents are synced before they get a name, names and folders before anything that counts, and nothing is deleted
/// before its plan is.
fn in_order(calls: &[Call]) {
    for call in calls.iter().filter(|call| call.succeeded() && call.is_link()) {
        let written = calls.iter().any(|sync| sync.ended < call.began && sync.syncs(&call.paths[0]));
        assert!(written, "{} gets its name before its content is synced", call.paths[1]);
    }
    for call in calls {
        if let Some(name) = call.named() {
            synced_in_time(calls, folder_of(name), call.ended, name);
        }
        if call.name.starts_with("mkdir") && call.succeeded() && call.paths.len() == 1 && call.paths[0].contains('/') {
            synced_in_time(calls, folder_of(&call.paths[0]), call.ended, &call.paths[0]);
        }
        if call.name.starts_with("unlink") && call.paths.iter().any(|path| path.starts_with("packs/")) {
            let plan = |plan: &&Call| plan.named().is_some_and(|name| name.ends_with(".plan"));
            let plan = calls.iter().filter(plan).map(|plan| plan.ended).max().expect("there is a plan");
            let durable = calls.iter().any(|sync| sync.began > plan && sync.ended < call.began && sync.syncs("gc"));
            assert!(durable, "{:?} is deleted before the plan is durable", call.paths);
        }
    }
}

#[test]
fn nothing_counts_before_what_it_names_is_synced_with_its_name_and_its_folders() {
    if !has_strace() {
        return;
    }
    let home = Home::new();
    let mut made = Vec::new();
    let prune = ["prune", "--grace", "0s", "--max-unused", "0%"];
    for (round, arguments) in
        [&["init"][..], &["backup", "source"], &["backup", "source"], &["forget", "--keep-last", "1"], &prune]
            .into_iter()
            .enumerate()
    {
        (0..6).for_each(|file| home.write(&format!("file {file}"), noise(10 * round as u64 + file, 30_000)));
        let calls = traced(&home, arguments, &[]);
        in_order(&calls);
        made.extend(calls.into_iter().filter(|call| call.succeeded()));
    }
    let named = |folder: &str| made.iter().filter(|call| call.named().is_some_and(|name| name.starts_with(folder))).count();
    assert!(named("packs/") > 3 && named("log/") > 3 && named("gc/") == 2, "what was made is not what is looked for");
    assert!(made.iter().any(|call| call.name.starts_with("mkdir")) && made.iter().any(|call| call.name.starts_with("unlink")));
    home.ok(&["backup", "source"]);
    home.is_whole();
}

#[test]
fn a_name_that_somebody_else_took_is_synced_by_those_who_go_on_behind_it() {
    if !has_strace() {
        return;
    }
    let home = Home::new();
    home.write("file", noise(1, 30_000));
    home.ok(&["init"]);
    home.ok(&["backup", "source"]);
    // Nothing is new, so the record is the only object; the system says that its name is taken.
    let calls = traced(&home, &["backup", "source"], &["-e", "inject=linkat:error=EEXIST:when=1"]);
    let taken = calls.iter().find(|call| call.is_link() && call.result.contains("EEXIST")).expect("a record was to be created");
    assert!(taken.paths[1].starts_with("log/"));
    synced_in_time(&calls, folder_of(&taken.paths[1]), taken.ended, "a name that is taken");
    home.ok(&["backup", "source"]);
    home.is_whole();
}

/// Whoever made a folder may die before its name is durable, or come to that too late for those who use it.
#[test]
fn a_folder_that_somebody_else_made_is_synced_by_those_who_put_something_into_it() {
    if !has_strace() {
        return;
    }
    let home = Home::new();
    home.write("file", noise(1, 30_000));
    home.ok(&["init"]);
    (0..256).for_each(|number| std::fs::create_dir_all(home.path(&format!("repository/packs/{number:02x}"))).unwrap());
    let calls = traced(&home, &["backup", "source"], &[]);
    let folders: HashSet<&str> = calls.iter().filter_map(Call::named).map(folder_of).collect();
    assert!(folders.iter().any(|folder| folder.starts_with("packs/")), "no pack was put");
    for folder in folders {
        synced_in_time(&calls, folder_of(folder), 0, folder);
    }
    home.is_whole();
}
