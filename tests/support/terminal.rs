//! A terminal with a screen, at which the program runs and somebody types.

use super::home::Home;
use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Lines of the screen.
const ROWS: NonZero<u16> = NonZero::new(24).unwrap();
/// Longest wait for anything; a program that says nothing for so long has hung.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Terminal {
    keyboard: Arc<Pty>,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    raw: Vec<u8>,
    pub child: Child,
}

/// How it ended.
pub struct Ended {
    pub code: Option<i32>,
    /// What is on the screen.
    pub screen: String,
    /// Everything that was sent to the terminal.
    pub raw: String,
}

impl Terminal {
    /// Runs the program in the home with its three streams at a terminal of this width.
    pub fn start(home: &Home, arguments: &[&str], columns: u16) -> Self {
        let mut command = home.bare_command(arguments);
        command.env("TERM", "xterm-256color");
        Self::start_command(command, columns)
    }

    pub fn start_command(command: std::process::Command, columns: u16) -> Self {
        let (pty, slave) = open().unwrap();
        pty.resize(Size::new(ROWS.get(), columns)).unwrap();
        let child = Command::from(command).spawn(slave).unwrap();
        let (keyboard, (sender, output)) = (Arc::new(pty), channel());
        let screen = keyboard.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails when the last process at the terminal has gone.
            while let Ok(read @ 1..) = (&*screen).read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { keyboard, output, screen: vt100::Parser::new(ROWS, NonZero::new(columns).unwrap(), 0), raw: Vec::new(), child }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.screen.process(bytes);
        self.raw.extend_from_slice(bytes);
    }

    /// What is on the screen now.
    pub fn screen(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits until the screen is as wanted; false if the program ended before it was.
    pub fn reaches(&mut self, wanted: impl Fn(&str) -> bool) -> bool {
        let began = Instant::now();
        loop {
            if wanted(&self.screen()) {
                return true;
            }
            match self.output.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("nothing more came; the screen:\n{}", self.screen()),
            }
        }
    }

    /// Waits until the text is on the screen.
    pub fn expect(&mut self, text: &str) {
        assert!(self.reaches(|screen| screen.contains(text)), "{text:?} did not come; the screen:\n{}", self.screen());
    }

    /// Types, as a user would.
    pub fn enter(&self, text: &str) {
        (&*self.keyboard).write_all(text.as_bytes()).unwrap();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// True while keys that are typed are shown.
    pub fn echoes(&self) -> bool {
        rustix::termios::tcgetattr(&*self.keyboard).unwrap().local_modes.contains(rustix::termios::LocalModes::ECHO)
    }

    /// Lets time pass for the program while it stands still.
    pub fn pause(&mut self, time: Duration) {
        self.signal(rustix::process::Signal::STOP);
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if let Ok(bytes) = self.output.recv_timeout(left) {
                self.take(&bytes);
            }
        }
        self.signal(rustix::process::Signal::CONT);
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        self.reaches(|_| false);
        let code = self.child.wait().unwrap().code();
        Ended { code, screen: self.screen(), raw: String::from_utf8_lossy(&self.raw).into_owned() }
    }
}
