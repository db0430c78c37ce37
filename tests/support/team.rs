//! A repository with an owner and machines that were enrolled, each with a home directory of its own.

use super::home::Home;
use lifeboat::repo::generate_identity;
use std::path::{Path, PathBuf};
use std::process::Output;

/// The owner's home, in which the repository is.
pub struct Team {
    pub owner: Home,
}

/// A machine with an identity in a file, and the repository of the team.
pub struct Machine {
    pub home: Home,
    pub repository: String,
    pub identity: PathBuf,
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

impl Team {
    pub fn new() -> Self {
        Self { owner: Home::filled() }
    }

    pub fn repository(&self) -> PathBuf {
        self.owner.repository_dir()
    }

    /// A machine that is nobody yet; returns its recipient as well.
    pub fn stranger(&self) -> (Machine, String) {
        let home = Home::new();
        let (identity, recipient) = generate_identity().unwrap();
        let path = home.path("identity.txt");
        std::fs::write(&path, format!("{}\n", *identity)).unwrap();
        (Machine { home, repository: text(&self.repository()), identity: path }, recipient)
    }

    /// A machine that was enrolled.
    pub fn enrol(&self, role: &str, name: &str, more: &[&str]) -> Machine {
        let (machine, recipient) = self.stranger();
        self.owner.ok(&[&["key", "enrol", "--role", role, "--recipient", &recipient, "--name", name], more].concat());
        machine
    }

    /// The client of that name as `key list` tells it.
    pub fn client(&self, name: &str) -> serde_json::Value {
        let list = self.owner.json(&["key", "list", "--json"]);
        let mut clients = list["clients"].as_array().unwrap().iter();
        clients.find(|client| client["name"] == name).unwrap().clone()
    }

    /// Objects of the repository below a folder.
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
            }
        }
        let mut found = Vec::new();
        walk(&self.repository().join(folder), &mut found);
        found.sort();
        found
    }
}

impl Machine {
    /// The same identity on another machine.
    pub fn cloned(&self) -> Self {
        Self { home: Home::new(), repository: self.repository.clone(), identity: self.identity.clone() }
    }

    fn with_keys<'a>(&'a self, arguments: &[&'a str], identity: &'a str) -> Vec<&'a str> {
        let cut = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let (before, after) = arguments.split_at(cut);
        [before, &["--repo", &self.repository, "--identity", identity], after].concat()
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let identity = text(&self.identity);
        self.home.run(&self.with_keys(arguments, &identity))
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let identity = text(&self.identity);
        self.home.ok(&self.with_keys(arguments, &identity))
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// The exit code and what was said.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Writes a file in the folder `data` and backs that folder up.
    pub fn back_up(&self, name: &str, bytes: &[u8]) -> serde_json::Value {
        std::fs::create_dir_all(self.home.path("data")).unwrap();
        std::fs::write(self.home.path("data").join(name), bytes).unwrap();
        self.json(&["backup", "data"])
    }
}
