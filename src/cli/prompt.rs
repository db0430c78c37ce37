//! Asking on a terminal, so that Ctrl-C is heeded and the terminal is left as it was.

use crate::error::{Error, Result};
use crate::event::{Observer, stop_if_asked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{IsTerminal, Write};
use zeroize::Zeroizing;

/// Longest answer in bytes.
const MAX_ANSWER: usize = 4096;
/// How long it takes at most until a request to stop is noticed.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// True if somebody is there who could answer.
pub(super) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Puts the terminal back when it goes.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn start(terminal: &'a File) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // There is nobody to tell if this fails: the terminal is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Asks for a line that is not shown while it is typed.
pub(super) fn secret(prompt: &str, observer: &dyn Observer) -> Result<Zeroizing<String>> {
    if !can_ask() {
        return Err(Error::usage("ask for a passphrase: this is no terminal")
            .with_hint("use --passphrase-file, --passphrase-command, or LIFEBOAT_PASSPHRASE"));
    }
    let failed = |error| Error::io("ask for", "the passphrase", error);
    let terminal = open().map_err(failed)?;
    let quiet = Quiet::start(&terminal).map_err(|error| failed(error.into()))?;
    let line = line(&terminal, prompt, observer);
    drop(quiet);
    line
}

/// Asks a question; true if the answer is yes.
pub(super) fn confirm(question: &str, observer: &dyn Observer) -> Result<bool> {
    let terminal = open().map_err(|error| Error::io("ask on", "the terminal", error))?;
    let answer = line(&terminal, &format!("{question} [y/N] "), observer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn open() -> std::io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// One line. The terminal itself does the editing; what is left to do is to notice a request to stop.
fn line(mut terminal: &File, prompt: &str, observer: &dyn Observer) -> Result<Zeroizing<String>> {
    let failed = |error| Error::io("ask on", "the terminal", error);
    terminal.write_all(prompt.as_bytes()).map_err(failed)?;
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    let mut buffer = Zeroizing::new([0; 256]);
    while !line.ends_with(b"\n") {
        match poll(&mut [PollFd::new(&terminal, PollFlags::IN)], Some(&LOOK)) {
            Ok(0) | Err(Errno::INTR) => {
                // The terminal shows ^C; what follows begins on a line of its own.
                stop_if_asked(observer).inspect_err(|_| drop(terminal.write_all(b"\n")))?;
                continue;
            }
            other => other.map_err(|error| failed(error.into()))?,
        };
        let read = rustix::io::read(terminal, &mut buffer[..]).map_err(|error| failed(error.into()))?;
        // End of input, as by Ctrl-D, ends the line too.
        if read == 0 {
            break;
        }
        if line.len() + read > MAX_ANSWER {
            return Err(Error::usage(format!("read the answer: it is longer than {MAX_ANSWER} bytes")));
        }
        line.extend_from_slice(&buffer[..read]);
    }
    let text = std::str::from_utf8(&line).map_err(|_| Error::usage("read the answer: it is not UTF-8"))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}
