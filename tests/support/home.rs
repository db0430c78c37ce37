//! A home directory in which the program is run as a user would.

use super::noise;
use lifeboat::event::Silent;
use lifeboat::repo::{Access, OpenOptions, Repository};
use lifeboat::store::Location;
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use zeroize::Zeroizing;

/// A home directory, and the program run in it with nothing else from the environment.
pub struct Home {
    pub dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, yet without streams of its own.
    pub fn bare_command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_lifeboat")), arguments)
    }

    fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", self.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
        command.current_dir(self.dir.path());
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare_command(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// The program run by the user nobody, who owns this home from now on. Only root, on Linux, can do this.
    pub fn as_nobody(&self, arguments: &[&str]) -> Command {
        const NOBODY: u32 = 65_534;
        let given = Command::new("chown").args(["-R", "-h", "65534:65534"]).arg(self.dir.path()).status().unwrap();
        assert!(given.success());
        // The folders above the program may be closed to others; what is open already can be run all the same. It stays
        // open until the test ends.
        let program = std::fs::File::open(env!("CARGO_BIN_EXE_lifeboat")).unwrap().into_raw_fd();
        let mut command = self.command_of(Path::new(&format!("/proc/self/fd/{program}")), arguments);
        command.stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).status.code().unwrap()
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    pub fn filled() -> Self {
        Self::new().fill()
    }

    /// On a disk in memory where there is one: for tests of many runs, and none of the disk.
    pub fn filled_in_memory() -> Self {
        Self { dir: super::dir_in_memory() }.fill()
    }

    /// Files, and no repository yet.
    pub fn documents() -> Self {
        Self::new().with_documents()
    }

    fn with_documents(self) -> Self {
        std::fs::create_dir_all(self.path("documents/deep")).unwrap();
        std::fs::write(self.path("documents/note"), "hello").unwrap();
        std::fs::write(self.path("documents/deep/data"), noise(1, 300_000)).unwrap();
        self
    }

    fn fill(self) -> Self {
        let home = self.with_documents();
        home.ok(&["backup", "documents", "--tag", "first"]);
        home
    }

    /// Where the program puts a repository by itself.
    pub fn repository_dir(&self) -> PathBuf {
        self.path(".local/share/lifeboat/repository")
    }

    /// Waits until the backup that this process makes has begun to write a pack; false if it ended before that was seen.
    pub fn wait_until_it_stores(&self, backup: &mut std::process::Child) -> bool {
        let folder = self.repository_dir().join("tmp");
        while !std::fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some()) {
            if backup.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        true
    }

    /// How many log records there are.
    pub fn records(&self) -> usize {
        let logs = std::fs::read_dir(self.repository_dir().join("log")).unwrap().flatten();
        logs.map(|log| std::fs::read_dir(log.path()).unwrap().count()).sum()
    }

    /// The same repository through the library.
    pub fn open(&self) -> Repository {
        let options = OpenOptions {
            cache_dir: self.path(".cache/lifeboat"),
            state_dir: self.path(".local/state/lifeboat"),
            fingerprint: None,
        };
        let identity = std::fs::read(self.path(".config/lifeboat/identity.txt")).unwrap();
        let access = Access { identity: Some(Zeroizing::new(identity)), passphrase: None };
        Repository::open(&Location::directory(&self.repository_dir()), &access, &options, &Silent).unwrap()
    }
}
