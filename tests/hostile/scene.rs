//! A repository to which somebody adds what no program of this version writes, and every command that reads it.

use super::support::counterfeit::Counterfeiter;
use super::support::home::Home;
use std::path::Path;
use std::process::{Command, Stdio};

/// Most resident memory of a command in KiB: what a backup of a large tree may take.
const LIMIT: u64 = 256 << 10;

/// Runs a program, and leaves in a file how much memory it had.
const MEASURE: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code if code >= 0 else 99)";

/// What became of a command.
pub(super) struct Outcome {
    pub(super) code: i32,
    pub(super) said: String,
    /// Most resident memory in KiB, if it was measured.
    pub(super) resident: Option<u64>,
}

/// A home with an honest snapshot, and somebody who has its key.
pub(super) struct Scene {
    pub(super) home: Home,
    pub(super) forger: Counterfeiter,
    first: String,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Trees that are deeper than a stack: the library that removes a temporary directory goes down by calling itself.
        let _ = Command::new("rm").arg("-rf").arg(self.home.path("out")).status();
    }
}

impl Scene {
    pub(super) fn new() -> Self {
        let home = Home::filled_in_memory();
        let first = home.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
        let forger = Counterfeiter::of(&home);
        Self { home, forger, first }
    }

    /// Runs the program; fails if it panics or takes too much memory.
    pub(super) fn run(&self, arguments: &[&str]) -> Outcome {
        let measure = Command::new("python3").arg("--version").output().is_ok();
        if !measure {
            println!("skipped: how much memory hostile objects take is measured by python3, which is not here");
        }
        let resident = self.home.path("resident");
        let mut command = if measure { Command::new("python3") } else { self.home.command(arguments) };
        if measure {
            command.args(["-c", MEASURE]).arg(&resident).arg(env!("CARGO_BIN_EXE_lifeboat")).args(arguments).env_clear();
            command.env("HOME", self.home.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
            command.current_dir(self.home.dir.path());
        }
        // What others print may be as long as what somebody stored says it is.
        let brief = matches!(arguments[0], "check" | "repair");
        let stdout = if brief { Stdio::piped() } else { Stdio::null() };
        let began = std::time::Instant::now();
        let output = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let code = output.status.code().unwrap();
        let brief: String = said.chars().take(2000).collect();
        assert!(!said.contains("panicked") && code < 99, "{arguments:?}: {code}: {brief}");
        let resident: Option<u64> = measure.then(|| std::fs::read_to_string(resident).unwrap().parse().unwrap());
        if let Some(resident) = resident {
            println!("{arguments:?}: exit code {code}, {resident} KiB resident, {:?}", began.elapsed());
            assert!(resident < LIMIT, "{arguments:?}: {resident} KiB were resident");
        }
        Outcome { code, said, resident }
    }

    /// Runs everything that reads a repository, and compares the exit codes of all.
    pub(super) fn expect(&self, codes: &[(&str, &[i32])]) {
        if !self.home.path("other").exists() {
            self.home.ok(&["init", "--repo", "other"]);
        }
        let all: [(&str, &[&str]); 13] = [
            ("restore", &["restore", "latest", "--to", "out/restored", "--verify"]),
            ("salvage", &["restore", "latest", "--to", "out/salvaged", "--salvage"]),
            ("ls", &["ls", "-R", "latest"]),
            ("cat", &["cat", "latest:victim"]),
            ("dump", &["dump", "latest"]),
            ("diff", &["diff", &self.first, "latest"]),
            ("find", &["find", "no such name"]),
            ("check", &["check"]),
            ("data", &["check", "--read-data"]),
            ("copy", &["copy", "--to", "other"]),
            ("mirror", &["mirror", "--to", "mirrored"]),
            ("prune", &["prune", "--grace", "0s", "--max-unused", "0"]),
            ("repair", &["repair", "--apply"]),
        ];
        for (name, expected) in codes {
            let (_, arguments) = all.iter().find(|(known, _)| known == name).unwrap();
            let Outcome { code, said, .. } = self.run(arguments);
            let brief: String = said.chars().take(2000).collect();
            assert!(expected.contains(&code), "{name}: exit code {code} instead of {expected:?}: {brief}");
            let named = ["pack", "chunk", "page", "directory "].iter().any(|object| said.contains(object));
            assert!(code != 13 || named || said.contains("nested too deeply"), "{name}: {brief}");
        }
        assert_nothing_outside(self.home.dir.path());
        // The honest snapshot is as it was.
        self.home.ok(&["restore", &self.first, "--to", "honest", "--verify", "--overwrite", "always"]);
    }
}

/// Whatever was written is where it was asked to be.
fn assert_nothing_outside(home: &Path) {
    let known = [".config", ".local", ".cache", "documents", "out", "other", "mirrored", "resident", "honest"];
    for entry in std::fs::read_dir(home).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(known.contains(&name.as_str()), "{name} was written outside the target");
    }
}

/// Where every command succeeds but those that need what is hostile.
pub(super) const REFUSED: &[(&str, &[i32])] = &[
    ("restore", &[13]),
    ("salvage", &[13]),
    ("ls", &[13]),
    ("dump", &[13]),
    ("diff", &[13]),
    ("find", &[13]),
    ("check", &[13]),
    ("data", &[13]),
    ("copy", &[3, 13]),
    ("mirror", &[0]),
];
