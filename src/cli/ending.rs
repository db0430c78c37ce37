//! How the program ends when something does that it cannot go on from: a reader that has gone, or a fault of its own.

use super::arguments::Verb;
use crate::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Makes a panic in any thread the end of the program: other threads may wait for the one that had it, for ever. What is
/// committed is whole at every moment, so nothing has to be tidied up.
pub(super) fn end_on_panic(json: bool) {
    const HARMLESS: &str = "no snapshot that was there is harmed; run the command again, and report";
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |fault| {
        let message = "a fault of the program itself ended it";
        let error = if json {
            let fault = fault.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Error::failed(format!("{message}: {fault}")).with_hint(format!("{HARMLESS} this message"))
        } else {
            usual(fault);
            Error::failed(message).with_hint(format!("{HARMLESS} the lines above"))
        };
        super::report(&error, json);
        std::process::exit(error.exit_code().into());
    }));
}

/// Whether a verb writes what it finds to standard output, and does nothing else.
pub(super) fn only_writes_out(verb: &Verb) -> bool {
    let is_help = matches!(verb, Verb::Man { .. } | Verb::Completions { .. });
    is_help || matches!(verb, Verb::Ls(_) | Verb::Cat(_) | Verb::Find(_) | Verb::Diff(_) | Verb::Dump(_))
}

/// A reader such as `head` that has seen enough is no failure. Pipes to other programs break too, such as one to a server:
/// so standard output is asked.
pub(super) fn has_seen_enough(error: &Error) -> bool {
    error.io_kind() == Some(std::io::ErrorKind::BrokenPipe) && has_no_reader(&std::io::stdout())
}

fn has_no_reader(out: &impl std::os::fd::AsFd) -> bool {
    let mut polled = [PollFd::new(out, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const CHILD: &str = "LIFEBOAT_TEST_PANICS";

    #[test]
    fn a_panic_ends_the_program_although_other_threads_wait() {
        if let Some(manner) = std::env::var_os(CHILD) {
            end_on_panic(manner == "json");
            std::thread::scope(|scope| {
                let (send, receive) = std::sync::mpsc::channel::<()>();
                scope.spawn(move || receive.recv());
                let _kept = send;
                panic!("as an invariant that does not hold");
            });
        }
        let name = "cli::ending::tests::a_panic_ends_the_program_although_other_threads_wait";
        for manner in ["text", "json"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, manner).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("an invariant") && said.contains("the program itself"), "{said}");
            if manner == "text" {
                assert!(said.contains("\nhint: "), "{said}");
            } else {
                let told: serde_json::Value = serde_json::from_str(&said).unwrap();
                assert_eq!((&told["event"], &told["exit_code"]), (&"error".into(), &1.into()), "{said}");
            }
        }
    }

    #[test]
    fn only_a_pipe_that_nobody_reads_any_more_has_no_reader() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!has_no_reader(&writer));
        drop(reader);
        assert!(has_no_reader(&writer));
        assert!(!has_no_reader(&std::fs::File::options().write(true).open("/dev/null").unwrap()));
    }
}
