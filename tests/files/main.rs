//! Reading file systems out and putting them back, on real ones, judged by other programs.

#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod copy;
mod exclude;
mod hostile;
mod outsiders;
mod reading;
mod round_trip;
mod unprivileged;
mod writing;

use std::path::Path;
use std::process::Command;

/// True if these tests may change owners and make devices.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// True if the program is there; says so if not.
fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|directory| directory.join(program).is_file());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Runs a program in `directory`; its output, and whether it succeeded.
fn run(directory: &Path, program: &str, arguments: &[&str]) -> (Vec<u8>, bool) {
    let output = Command::new(program).args(arguments).current_dir(directory).env("LC_ALL", "C").output().unwrap();
    if !output.status.success() {
        eprintln!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    (output.stdout, output.status.success())
}

/// Runs a shell script in `directory`; false if a command in it failed.
fn shell(directory: &Path, script: &str) -> bool {
    run(directory, "sh", &["-e", "-c", script]).1
}
