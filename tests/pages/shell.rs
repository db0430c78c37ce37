//! A shell in a scratch home, in which the commands of a page are run one after the other.

use crate::plain::Plain;
use crate::support::home::Home;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Stands between the answers in what the shell writes.
const MARK: &str = "\u{1e}exit ";

pub(crate) struct Shell {
    pub(crate) home: Home,
    child: Child,
    input: ChildStdin,
    output: BufReader<PipeReader>,
    /// Words of the page, and what they stand for here.
    stands_for: Vec<(String, String)>,
    pub(crate) plain: Plain,
}

impl Shell {
    pub(crate) fn start(home: Home) -> Self {
        let programs = home.path("programs");
        std::fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lifeboat"), programs.join("lifeboat")).unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.env_clear().env("HOME", home.dir.path()).env("PATH", path).env("TZ", "UTC").env("USER", "ann").env("LC_ALL", "C");
        command.current_dir(home.dir.path()).stdin(Stdio::piped()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut child = command.spawn().unwrap();
        drop(command);
        let input = child.stdin.take().unwrap();
        let plain = Plain::new(home.dir.path());
        Self { home, child, input, output: BufReader::new(reader), stands_for: Vec::new(), plain }
    }

    /// A program of the scene, as a line of shell.
    pub(crate) fn program(&self, name: &str, line: &str) {
        let path = self.home.path("programs").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// From now on this word of a page stands for something else here.
    pub(crate) fn means(&mut self, word: &str, here: &str) {
        self.stands_for.push((word.to_owned(), here.to_owned()));
    }

    /// The command with what the words of the page stand for here; the longest word that fits is taken.
    fn here(&self, command: &str) -> String {
        let (mut left, mut here) = (command, String::new());
        while let Some(next) = left.chars().next() {
            let fits = self.stands_for.iter().filter(|(word, _)| left.starts_with(word.as_str()));
            if let Some((word, stands_for)) = fits.max_by_key(|(word, _)| word.len()) {
                here += stands_for;
                left = &left[word.len()..];
            } else {
                here.push(next);
                left = &left[next.len_utf8()..];
            }
        }
        here
    }

    /// Runs a command; its answer, and its exit code.
    pub(crate) fn run(&mut self, command: &str) -> (String, i32) {
        let command = self.here(&self.plain.filled(command));
        let line = format!("{{ {command}\n}} </dev/null\nprintf '\\n\\036exit %d\\n' $?\n");
        self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush()).unwrap();
        let mut answer = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the shell ended at {command:?}: {answer}");
            if let Some(code) = line.strip_prefix(MARK) {
                // The newline before the mark is not the command's.
                answer.pop();
                return (answer, code.trim().parse().unwrap());
            }
            answer += &line;
        }
    }

    /// Runs a command that must succeed.
    pub(crate) fn ok(&mut self, command: &str) -> String {
        let (answer, code) = self.run(command);
        assert_eq!(code, 0, "{command}: {answer}");
        answer
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
