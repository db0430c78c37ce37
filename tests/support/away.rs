//! A home directory whose repository is on a server.
#![expect(unreachable_pub, reason = "it is a module of each test program")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part of it")]

use crate::servers::Server;
use crate::support::home::Home;
use std::process::Output;

/// A home directory, and the server on which its repository is or will be.
pub struct Away {
    pub home: Home,
    pub server: Server,
    pub url: String,
}

impl Away {
    /// Runs the program on the repository, with the server's credentials.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.home.command(&[&["--repo", &self.url], arguments].concat());
        command.envs(self.server.variables()).output().unwrap()
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Returns what is said of a failure. It has a hint, unless findings were listed, each with what to do.
    pub fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(matches!(code, 3 | 13) || said.contains("hint: "), "{arguments:?}: {said}");
        said
    }

    /// Makes it a machine that knows nothing of the repository, and still has the key.
    pub fn forget_all(&self) {
        for folder in [".cache", ".local"] {
            std::fs::remove_dir_all(self.home.path(folder)).unwrap();
        }
    }
}
