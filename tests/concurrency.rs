//! Several runs of the program at once, on one repository and with one cache, and a cache that somebody takes away.

mod support;

use std::path::Path;
use std::process::{Child, Output, Stdio};
use support::home::Home;
use support::{contents, noise};

/// Starts all at once and waits for them.
fn at_once(home: &Home, runs: &[Vec<String>]) -> Vec<Output> {
    let start = |run: &Vec<String>| -> Child {
        let arguments: Vec<&str> = run.iter().map(String::as_str).collect();
        home.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<Child> = runs.iter().map(start).collect();
    running.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn words(run: &str) -> Vec<String> {
    run.split(' ').map(str::to_owned).collect()
}

fn said(run: &[String], output: &Output) -> String {
    format!("{run:?}: {:?}: {}", output.status.code(), String::from_utf8_lossy(&output.stderr))
}

/// A folder that is backed up once and never changes; much of it is in all others too.
fn folder(home: &Home, name: &str, seed: u64) {
    let path = home.path(name);
    std::fs::create_dir_all(path.join("deep")).unwrap();
    for file in 0..24_u64 {
        let bytes = noise(if file % 3 == 0 { file } else { seed * 1000 + file }, 20_000);
        let place = if file % 2 == 0 { path.join(format!("f{file}")) } else { path.join(format!("deep/f{file}")) };
        std::fs::write(place, bytes).unwrap();
    }
}

/// Every snapshot that is there has what its folder has.
fn all_are_whole(home: &Home) -> usize {
    home.ok(&["check", "--read-data"]);
    let all = home.json(&["snapshots", "--json"]);
    let all = all.as_array().unwrap();
    for snapshot in all {
        let path = snapshot["paths"][0].as_str().unwrap();
        home.ok(&["restore", &format!("{}:{path}", snapshot["id"].as_str().unwrap()), "--to", "whole"]);
        assert!(contents(&home.path("whole")) == contents(&home.path(path)), "the snapshot of {path}");
        std::fs::remove_dir_all(home.path("whole")).unwrap();
    }
    all.len()
}

#[test]
fn backups_forgets_prunes_and_readers_at_once_lose_nothing() {
    let home = Home::filled_in_memory();
    for round in 0..5 {
        let names = [format!("r{round}a"), format!("r{round}b")];
        names.iter().zip(1..).for_each(|(name, number)| folder(&home, name, round * 10 + number));
        let mut runs: Vec<Vec<String>> = names.iter().map(|name| words(&format!("backup {name}"))).collect();
        let others = [
            "forget --group-by host --keep-last 3 --allow-most",
            "prune --grace 0s --max-unused 0%",
            "prune --grace 0s --max-unused 0%",
            "snapshots",
            "check",
            "check --read-data",
            "ls -R latest",
            "stats",
        ];
        runs.extend(others.map(words));
        for (run, output) in runs.iter().zip(at_once(&home, &runs)) {
            // A check beside a prune may look for packs that have just gone; the one at the end is alone.
            let allowed: &[i32] = if run[0] == "check" { &[0, 13] } else { &[0] };
            assert!(allowed.contains(&output.status.code().unwrap()), "round {round}: {}", said(run, &output));
        }
        assert!(all_are_whole(&home) >= 2, "both backups of the round are there");
    }
}

/// Codes that each of two runs at once may end with, besides 0: the second one may find it done, or in the way.
const TWICE: [(&str, &[i32]); 22] = [
    ("backup documents", &[]),
    ("backup documents --reread", &[]),
    ("snapshots", &[]),
    ("show latest", &[]),
    ("ls -lR latest", &[]),
    ("cat latest:documents/note", &[]),
    ("find note", &[]),
    ("dump latest", &[]),
    ("stats", &[]),
    ("restore latest --to twice", &[11]),
    ("hold ID", &[]),
    ("unhold ID", &[1]),
    ("forget --keep-last 2 --allow-most", &[]),
    ("unforget ID", &[1]),
    ("prune --grace 0s --max-unused 0%", &[]),
    ("check", &[]),
    ("check --read-data", &[]),
    ("key list", &[]),
    ("cache rebuild", &[1, 11]),
    ("cache clear", &[1, 11]),
    ("version", &[]),
    ("init --repo another", &[11]),
];

#[test]
fn two_runs_of_every_command_at_once_end_as_one_after_the_other_would() {
    let home = Home::filled_in_memory();
    for _ in 0..4 {
        home.ok(&["backup", "documents"]);
    }
    let first = home.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    for (run, codes) in TWICE {
        let run = words(&run.replace("ID", &first));
        let both = at_once(&home, &[run.clone(), run.clone()]);
        for output in &both {
            let code = output.status.code().unwrap();
            assert!(code == 0 || codes.contains(&code), "{}", said(&run, output));
            if code != 0 {
                let said = said(&run, output);
                assert!(said.contains("lifeboat: ") && said.contains("\nhint: "), "{said}");
            }
        }
        assert!(both.iter().any(|output| output.status.success()), "one of the two comes to its end: {run:?}");
        if Path::new(&home.path("twice")).exists() {
            std::fs::remove_dir_all(home.path("twice")).unwrap();
        }
        assert!(all_are_whole(&home) >= 2, "after {run:?}");
    }
}

/// Two machines that take each other for themselves: the same keys, the same name, and copies of one cache and one memory.
#[test]
fn two_maintainers_that_are_copies_of_each_other_lose_nothing() {
    let home = Home::filled_in_memory();
    folder(&home, "kept", 7);
    home.ok(&["backup", "kept"]);
    for round in 0..4 {
        for name in ["gone", "new"] {
            folder(&home, &format!("{name}{round}"), round * 10 + u64::from(name == "new"));
        }
        home.ok(&["backup", &format!("gone{round}")]);
        let mut copies = Vec::new();
        for copy in ["one", "two"] {
            for (what, from) in [("cache", ".cache/lifeboat"), ("state", ".local/state/lifeboat")] {
                let to = home.path(copy).join(what).join("lifeboat");
                let _ = std::fs::remove_dir_all(&to);
                support::versions::copy_tree(&home.path(from), &to);
            }
            copies.push((home.path(copy).join("cache"), home.path(copy).join("state")));
        }
        let gone = home.json(&["snapshots", "--json"]).as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
        let verbs = [format!("forget {gone}"), "prune --grace 0s --max-unused 0%".into(), format!("backup new{round}")];
        let mut running = Vec::new();
        for verb in verbs.iter().chain(["prune --grace 0s --max-unused 0%".to_owned()].iter()) {
            for (cache, state) in &copies {
                let arguments: Vec<&str> = verb.split(' ').collect();
                let mut command = home.command(&arguments);
                command.env("XDG_CACHE_HOME", cache).env("XDG_STATE_HOME", state);
                running.push((verb.clone(), command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
            }
        }
        for (verb, child) in running {
            let output = child.wait_with_output().unwrap();
            let text = said(&words(&verb), &output);
            // The second forget finds it forgotten, or pruned already.
            let allowed: &[i32] = if verb.starts_with("forget") { &[0, 1] } else { &[0] };
            assert!(allowed.contains(&output.status.code().unwrap()), "round {round}: {text}");
        }
        let left = home.json(&["snapshots", "--json"]).to_string();
        assert!(!left.contains(&format!("gone{round}\"")) && left.matches(&format!("new{round}\"")).count() == 2, "{left}");
        assert!(left.contains("\"kept\""), "{left}");
        all_are_whole(&home);
    }
}

#[test]
fn a_cache_that_is_deleted_during_use_costs_time_and_no_data() {
    let home = Home::filled_in_memory();
    for round in 0..18_u64 {
        let name = format!("c{round}");
        folder(&home, &name, 500 + round);
        let verbs = [words(&format!("backup {name}")), words("prune --grace 0s"), words("check")];
        let running: Vec<(&Vec<String>, Child)> = verbs
            .iter()
            .map(|verb| {
                let arguments: Vec<&str> = verb.iter().map(String::as_str).collect();
                let child = home.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
                (verb, child.unwrap())
            })
            .collect();
        // When it hits is not known; the spread is that of the runs.
        let moment = u64::from_le_bytes(noise(round, 8).try_into().unwrap()) % (1 << (10 + round % 7));
        std::thread::sleep(std::time::Duration::from_micros(moment));
        let _ = std::fs::remove_dir_all(home.path(".cache/lifeboat"));
        for (verb, child) in running {
            let output = child.wait_with_output().unwrap();
            let text = said(verb, &output);
            // A run whose index went away under it may take that for damage; it then changes nothing.
            assert!(matches!(output.status.code(), Some(0 | 1 | 11 | 13)), "round {round}: {text}");
            assert!(!text.contains("panicked"), "round {round}: {text}");
            if matches!(output.status.code(), Some(1 | 11)) {
                assert!(text.contains("lifeboat: ") && text.contains("\nhint: "), "round {round}: {text}");
            }
        }
        home.ok(&["backup", &name]);
        if round % 6 == 5 {
            all_are_whole(&home);
        }
    }
    all_are_whole(&home);
}
