//! Watches the work: a progress bar on terminals, a line now and then elsewhere, JSON lines for programs.

use super::arguments::Globals;
use super::text;
use crate::error::{Error, Result};
use crate::event::{Event, Observer, Progress, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks at the counters.
const REDRAW: Duration = Duration::from_millis(100);
/// Time between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(10);
/// Failures that are printed one by one; the rest are counted.
const PRINTED_FAILURES: u64 = 100;

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
    shown: Mutex<Option<Shown>>,
    failures: Mutex<u64>,
}

struct Shown {
    stop: Arc<(Mutex<bool>, Condvar)>,
    bar: Option<ProgressBar>,
    thread: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn new(globals: &Globals) -> Result<Self> {
        let terminal = std::io::stderr().is_terminal();
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
            interrupted,
            shown: Mutex::default(),
            failures: Mutex::default(),
        })
    }

    fn print(&self, line: &str) {
        let shown = self.shown.lock().expect("no code panics while it holds this lock");
        match shown.as_ref().and_then(|shown| shown.bar.as_ref()) {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn start(&self, stage: Stage, progress: &Arc<Progress>) {
        if self.manner == Manner::Nothing {
            return;
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let bar = (self.manner == Manner::Bar).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is a constant");
            bar.set_style(style);
            bar
        });
        let (progress, for_thread, for_bar, manner) = (progress.clone(), stop.clone(), bar.clone(), self.manner);
        let thread = std::thread::spawn(move || watch(stage, &progress, &for_thread, for_bar.as_ref(), manner));
        *self.shown.lock().expect("no code panics while it holds this lock") = Some(Shown { stop, bar, thread });
    }

    fn stop(&self) {
        let shown = self.shown.lock().expect("no code panics while it holds this lock").take();
        if let Some(Shown { stop, bar, thread }) = shown {
            *stop.0.lock().expect("no code panics while it holds this lock") = true;
            stop.1.notify_all();
            let _ = thread.join();
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        }
    }
}

fn watch(stage: Stage, progress: &Progress, stop: &(Mutex<bool>, Condvar), bar: Option<&ProgressBar>, manner: Manner) {
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
        match (manner, bar) {
            (Manner::Bar, Some(bar)) => {
                bar.set_message(line(stage, progress, elapsed, true));
                bar.tick();
            }
            (Manner::Lines, _) if elapsed - last >= LINE => {
                last = elapsed;
                eprintln!("{}", line(stage, progress, elapsed, false));
            }
            (Manner::Json, _) if elapsed - last >= Duration::from_secs(1) => {
                last = elapsed;
                eprintln!("{}", json(stage, progress, elapsed));
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
        Stage::Restoring => "restoring",
        Stage::Checking => "checking",
        Stage::Verifying => "verifying",
        Stage::Marking => "marking",
        Stage::Repacking => "repacking",
        Stage::Deleting => "deleting",
        #[expect(unreachable_patterns, reason = "stages may be added")]
        _ => "working",
    }
}

/// Remaining time, as far as the past and the expected total tell.
fn remaining(done: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    let left = total.checked_sub(done).filter(|_| done > 0 && elapsed > Duration::from_secs(1))?;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / done as f64).ok()
}

fn line(stage: Stage, progress: &Progress, elapsed: Duration, current: bool) -> String {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (files, bytes) = (load(&progress.files), load(&progress.bytes));
    let (files_total, bytes_total) = (load(&progress.files_total), load(&progress.bytes_total));
    let mut line = format!("{}: {}", name(stage), text::count(files));
    if files_total >= files && files_total > 0 {
        line += &format!(" of {}", text::count(files_total));
    }
    line += &format!(" files, {}", text::size(bytes));
    if bytes_total >= bytes && bytes_total > 0 {
        line += &format!(" of {}", text::size(bytes_total));
    }
    line += &format!(", {}", text::rate(bytes, elapsed));
    if let Some(left) = remaining(bytes, bytes_total, elapsed) {
        line += &format!(", {} left", text::duration(left));
    }
    if current {
        let path = text::printable(&progress.current());
        let tail: Vec<char> = path.chars().rev().take(40).collect();
        line += &format!("  {}", tail.into_iter().rev().collect::<String>());
    }
    line
}

fn json(stage: Stage, progress: &Progress, elapsed: Duration) -> serde_json::Value {
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
    object.insert("seconds_left".into(), remaining(bytes, total, elapsed).map(|left| left.as_secs_f64()).into());
    object.into()
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
                    let message = text::printable(error.to_string().as_bytes());
                    self.print(&format!("{}failed: {}: {message}{}", style.bad(), text::printable(path), style.reset()));
                }
            }
            Event::Warning(message) if self.json => {
                self.print(&serde_json::json!({"event": "warning", "message": message}).to_string());
            }
            Event::Warning(message) if !self.quiet => {
                let message = text::printable(message.as_bytes());
                self.print(&format!("{}warning: {message}{}", style.warn(), style.reset()));
            }
            Event::Note(message) if self.verbose => self.print(&text::printable(message.as_bytes())),
            _ => {}
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}
