//! Watches the work: a progress bar on terminals, a line now and then elsewhere, JSON lines for programs.

use super::arguments::Globals;
use super::text;
use crate::error::{Error, Result};
use crate::event::{Event, Observer, Progress, Stage};
use crate::store::Line;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use unicode_width::UnicodeWidthChar;

/// Time between two looks at the counters.
const REDRAW: Duration = Duration::from_millis(100);
/// Trouble that lasts for less is not worth a word.
const TOLD: Duration = Duration::from_secs(2);
/// Time between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(10);
/// Failures that are printed one by one; the rest are counted.
const PRINTED_FAILURES: u64 = 100;

/// Columns without which a path says nothing.
const LEAST_PATH: usize = 10;
/// Columns that a path may take.
const MOST_PATH: usize = 60;

/// Clears the line that the cursor is in, and goes to its beginning.
const CLEAR: &str = "\r\x1b[K";
/// Clears what is behind the cursor.
const CLEAR_REST: &str = "\x1b[K";

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Nothing,
    Bar,
    Lines,
    Json,
}

/// The observer of the command line.
pub(super) struct Watcher {
    manner: Manner,
    json: bool,
    quiet: bool,
    verbose: bool,
    interrupted: Arc<AtomicBool>,
    line: Line,
    shown: Mutex<Option<Shown>>,
    failures: Mutex<u64>,
}

struct Shown {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn new(globals: &Globals) -> Result<Self> {
        let terminal = std::io::stderr().is_terminal() && text::can_move_cursor();
        let manner = match () {
            () if globals.no_progress || globals.quiet => Manner::Nothing,
            () if globals.json => Manner::Json,
            () if terminal => Manner::Bar,
            () => Manner::Lines,
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            let failed = |error| Error::io("wait for", "signals", error);
            // The second signal ends the process at once; what was committed is safe at any moment.
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone()).map_err(failed)?;
            signal_hook::flag::register(signal, interrupted.clone()).map_err(failed)?;
        }
        Ok(Self {
            manner,
            json: globals.json,
            quiet: globals.quiet,
            verbose: globals.verbose,
            line: Line::new(interrupted.clone(), tell_of(manner, globals)),
            interrupted,
            shown: Mutex::default(),
            failures: Mutex::default(),
        })
    }

    fn print(&self, line: &str) {
        let shown = self.shown.lock().expect("no code panics while it holds this lock");
        let clear = if self.manner == Manner::Bar && shown.is_some() { CLEAR } else { "" };
        // In one piece, so that the line that is drawn meanwhile is before or after it.
        text::complain(format_args!("{clear}{line}\n"));
    }

    /// The line to the stores of this command.
    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    fn start(&self, stage: Stage, progress: &Arc<Progress>) {
        if self.manner == Manner::Nothing {
            return;
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (progress, for_thread, manner, way) = (progress.clone(), stop.clone(), self.manner, self.line.clone());
        let thread = std::thread::spawn(move || watch((stage, &progress), &way, &for_thread, manner));
        *self.shown.lock().expect("no code panics while it holds this lock") = Some(Shown { stop, thread });
    }

    fn stop(&self) {
        let shown = self.shown.lock().expect("no code panics while it holds this lock").take();
        if let Some(Shown { stop, thread }) = shown {
            *stop.0.lock().expect("no code panics while it holds this lock") = true;
            stop.1.notify_all();
            let _ = thread.join();
            if self.manner == Manner::Bar {
                text::complain(format_args!("{CLEAR}"));
            }
        }
    }
}

fn watch((stage, progress): (Stage, &Progress), way: &Line, stop: &(Mutex<bool>, Condvar), manner: Manner) {
    let began = Instant::now();
    let mut last = Duration::ZERO;
    let mut stopped = stop.0.lock().expect("no code panics while it holds this lock");
    loop {
        let waited = stop.1.wait_timeout_while(stopped, REDRAW, |stopped| !*stopped);
        stopped = waited.expect("no code panics while it holds this lock").0;
        if *stopped {
            return;
        }
        let elapsed = began.elapsed();
        match manner {
            Manner::Bar => {
                let line = waiting(way, Some(width())).unwrap_or_else(|| line(stage, progress, elapsed, Some(width())));
                text::complain(format_args!("\r{line}{CLEAR_REST}"));
            }
            Manner::Lines if elapsed - last >= LINE => {
                last = elapsed;
                eprintln!("{}", waiting(way, None).unwrap_or_else(|| line(stage, progress, elapsed, None)));
            }
            Manner::Json if elapsed - last >= Duration::from_secs(1) => {
                last = elapsed;
                eprintln!("{}", json(stage, progress, elapsed, way));
            }
            _ => {}
        }
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Opening => "opening",
        Stage::Scanning => "scanning",
        Stage::BackingUp => "backing up",
        Stage::Copying => "copying",
        Stage::Restoring => "restoring",
        Stage::Checking => "checking",
        Stage::Verifying => "verifying",
        Stage::Marking => "marking",
        Stage::Repacking => "repacking",
        Stage::Compacting => "compacting the index",
        Stage::Deleting => "deleting",
        Stage::Repairing => "repairing",
        Stage::Thawing => "thawing",
        #[expect(unreachable_patterns, reason = "stages may be added")]
        _ => "working",
    }
}

/// Remaining time, as far as the past and the expected total tell.
fn remaining(done: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    let left = total.checked_sub(done).filter(|_| done > 0 && elapsed > Duration::from_secs(1))?;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / done as f64).ok()
}

/// Columns of the terminal that the line may fill: all but those of a `^C` that the terminal writes behind it, which
/// must not begin a new line.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map(|size| size.ws_col).ok().filter(|columns| *columns > 0).unwrap_or(80);
    usize::from(columns).saturating_sub(3)
}

/// Says that the store is waited for, whatever is being done.
fn tell_of(manner: Manner, globals: &Globals) -> impl Fn(Duration, &str) + Send + Sync + 'static {
    let (json, quiet) = (globals.json, globals.quiet);
    move |since, why| {
        let clear = if manner == Manner::Bar { CLEAR } else { "" };
        if json {
            let told = serde_json::json!({"event": "waiting", "message": why, "seconds": since.as_secs_f64()});
            text::complain(format_args!("{told}\n"));
        } else if !quiet {
            text::complain(format_args!("{clear}{}\n", waiting_for(since, why)));
        }
    }
}

fn waiting_for(since: Duration, why: &str) -> String {
    let since = text::duration(Duration::from_secs(since.as_secs()));
    format!("waiting for the store for {since}: {}", text::legible(why))
}

/// What is wrong with the line, once it is worth telling.
fn trouble(way: &Line) -> Option<(Duration, String)> {
    way.trouble().filter(|(since, _)| *since >= TOLD)
}

/// What is waited for, if the line to the store is broken. Given a width, as much of it as fits.
fn waiting(way: &Line, width: Option<usize>) -> Option<String> {
    let (since, why) = trouble(way)?;
    let mut line = waiting_for(since, &why);
    if let Some(width) = width {
        line = line.chars().filter(char::is_ascii).take(width).collect();
    }
    Some(line)
}

/// The counters in words. Given a width, as many of them as fit, the most telling first, and the current path.
fn line(stage: Stage, progress: &Progress, elapsed: Duration, width: Option<usize>) -> String {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (files, bytes) = (load(&progress.files), load(&progress.bytes));
    let (files_total, bytes_total) = (load(&progress.files_total), load(&progress.bytes_total));
    let known = |done: u64, total: u64| total >= done && total > 0;
    let mut parts = vec![text::size(bytes)];
    if known(bytes, bytes_total) {
        parts[0] += &format!(" of {}", text::size(bytes_total));
    }
    parts.push(match known(files, files_total) {
        true => format!("{} of {}", text::count(files), text::number(files_total, "file", "files")),
        false => text::number(files, "file", "files"),
    });
    parts.push(text::rate(bytes, elapsed));
    parts.extend(remaining(bytes, bytes_total, elapsed).map(|left| format!("{} left", text::duration(left))));
    let mut line = format!("{}: ", name(stage));
    for (position, part) in parts.iter().enumerate() {
        let part = if position == 0 { part.clone() } else { format!(", {part}") };
        // All of these are plain letters and digits, one column each.
        if position == 0 || width.is_none_or(|width| line.len() + part.len() <= width) {
            line += &part;
        }
    }
    let Some(width) = width else { return line };
    line.truncate(width);
    if let Some(room) = width.checked_sub(line.len() + 2).filter(|room| *room >= LEAST_PATH) {
        line += "  ";
        line += tail(&text::printable(&progress.current()), room.min(MOST_PATH));
    }
    line
}

/// As much of the end of `text` as fits into so many columns.
fn tail(text: &str, columns: usize) -> &str {
    let mut left = columns;
    let fits = |character: &char| {
        let rest = left.checked_sub(character.width().unwrap_or(0));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let taken: usize = text.chars().rev().take_while(fits).map(char::len_utf8).sum();
    &text[text.len() - taken..]
}

fn json(stage: Stage, progress: &Progress, elapsed: Duration, way: &Line) -> serde_json::Value {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (bytes, total) = (load(&progress.bytes), load(&progress.bytes_total));
    let mut object = serde_json::Map::new();
    text::json_path(&mut object, &progress.current());
    for (key, value) in
        [("files", load(&progress.files)), ("files_total", load(&progress.files_total)), ("bytes", bytes), ("bytes_total", total)]
    {
        object.insert(key.into(), value.into());
    }
    object.insert("event".into(), "progress".into());
    object.insert("stage".into(), name(stage).into());
    object.insert("seconds".into(), elapsed.as_secs_f64().into());
    if let Some((since, why)) = trouble(way) {
        object.insert("waiting".into(), why.into());
        object.insert("waiting_seconds".into(), since.as_secs_f64().into());
    }
    object.insert("seconds_left".into(), remaining(bytes, total, elapsed).map(|left| left.as_secs_f64()).into());
    object.into()
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Work that failed may not have said that it ended; nothing must be left on the terminal.
        self.stop();
    }
}

impl Observer for Watcher {
    fn observe(&self, event: Event<'_>) {
        let style = text::Style::of(&std::io::stderr());
        match event {
            Event::Started(stage, progress) => self.start(stage, progress),
            Event::Finished(_) => self.stop(),
            Event::Failure { path, error } => {
                let mut failures = self.failures.lock().expect("no code panics while it holds this lock");
                *failures += 1;
                if self.json {
                    let mut object = serde_json::Map::new();
                    text::json_path(&mut object, path);
                    object.insert("event".into(), "failure".into());
                    object.insert("message".into(), error.to_string().into());
                    self.print(&serde_json::Value::Object(object).to_string());
                } else if *failures <= PRINTED_FAILURES {
                    let message = text::legible(&error.to_string());
                    self.print(&format!("{}failed: {}: {message}{}", style.bad(), text::printable(path), style.reset()));
                }
            }
            Event::Warning(message) if self.json => {
                self.print(&serde_json::json!({"event": "warning", "message": message}).to_string());
            }
            Event::Warning(message) if !self.quiet => {
                let message = text::legible(message);
                self.print(&format!("{}warning: {message}{}", style.warn(), style.reset()));
            }
            Event::Note(message) if self.verbose => self.print(&text::legible(message)),
            _ => {}
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let progress = Progress::default();
        for (counter, value) in
            [(&progress.files, 3), (&progress.files_total, 12), (&progress.bytes, 25 << 20), (&progress.bytes_total, 100 << 20)]
        {
            counter.store(value, Ordering::Relaxed);
        }
        progress.at(b"documents/\x1b[31mred\n");
        progress
    }

    #[test]
    fn a_line_has_bytes_files_rate_and_what_is_left() {
        let said = line(Stage::BackingUp, &progress(), Duration::from_secs(5), None);
        assert_eq!(said, "backing up: 25.0 MiB of 100 MiB, 3 of 12 files, 5.00 MiB/s, 15.0 s left");
    }

    #[test]
    fn on_a_terminal_the_line_ends_with_the_path_and_fits() {
        let said = line(Stage::BackingUp, &progress(), Duration::from_secs(5), Some(110));
        assert!(said.ends_with("15.0 s left  documents/\\u{1b}[31mred\\n"), "{said}");
        for width in 0..110 {
            let said = line(Stage::BackingUp, &progress(), Duration::from_secs(5), Some(width));
            assert!(said.len() <= width, "{width}: {said}");
            assert!(said.starts_with("backing up: 25.0 MiB of 100 MiB") || width < 31, "{said}");
        }
    }

    #[test]
    fn of_long_paths_the_end_is_shown_by_columns_not_characters() {
        assert_eq!(tail("documents/letter", 7), "/letter");
        assert_eq!(tail("文件/你好", 6), "/你好");
        assert_eq!(tail("ab", 7), "ab");
    }

    #[test]
    fn nothing_is_said_to_be_left_while_nobody_knows() {
        assert_eq!(remaining(0, 100, Duration::from_secs(9)), None);
        assert_eq!(remaining(10, 0, Duration::from_secs(9)), None);
        assert_eq!(remaining(10, 100, Duration::from_millis(900)), None);
        assert_eq!(remaining(10, 100, Duration::from_secs(2)), Some(Duration::from_secs(18)));
    }
}
