//! The command line: parses, calls one operation, prints what it reports. Nobody else prints or reads the environment.

/// As that of the standard library, but a reader that has gone, such as `head`, is no reason to panic.
macro_rules! println {
    () => { $crate::cli::text::print(format_args!("")) };
    ($($text:tt)*) => { $crate::cli::text::print(format_args!($($text)*)) };
}

/// The same for standard error.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::cli::text::complain(format_args!("{}\n", format_args!($($text)*))) };
}

mod arguments;
mod backup;
mod check;
mod copies;
mod cost;
mod document;
mod ending;
mod forget;
mod globals;
mod history;
mod keys;
mod kit;
mod observer;
mod policy;
mod prompt;
mod prune;
mod repair;
mod restore;
mod roles;
mod rollback;
mod search;
mod show;
mod text;
mod thaw;
mod tools;

use crate::error::{Error, Result};
use arguments::{Arguments, Verb};
use clap::{CommandFactory, Parser};
use globals::Context;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;

/// Exit code of work that was done but is not complete.
const INCOMPLETE: u8 = 3;
/// Exit code of a check that found damage, or a restore that met it.
const DAMAGED: u8 = 13;

/// Stack of the thread that walks trees: directories within directories take some of it each.
const STACK: usize = 1 << 30;

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    ending::end_on_panic(asks_for_json());
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            if !error.use_stderr() {
                return show_help(&error);
            }
            if asks_for_json() {
                report(&mistake(&error), true);
            } else {
                let _ = error.print();
                if let Some(hint) = hint_of(&error) {
                    eprintln!("hint: {hint}");
                }
            }
            return ExitCode::from(2);
        }
    };
    // The first thread is the one that a signal wakes. Where it is the one that reads a pipe, Ctrl-C is noticed before
    // the end of what it stopped at the other end is; another thread might have committed by then.
    if matches!(&arguments.verb, Verb::Backup(backup) if backup.stdin.is_some()) {
        return work(arguments);
    }
    let waiting = Mutex::new(Some(arguments));
    let begin = || {
        let arguments = waiting.lock().expect("no code panics while it holds this lock").take();
        arguments.map_or(ExitCode::FAILURE, work)
    };
    std::thread::scope(|scope| {
        match std::thread::Builder::new().name("main".into()).stack_size(STACK).spawn_scoped(scope, begin) {
            Ok(thread) => thread.join().unwrap_or(ExitCode::FAILURE),
            // A machine that cannot reserve so much address space walks shallower trees.
            Err(_) => begin(),
        }
    })
}

/// Also a command line that cannot be read as a whole says in which way to answer.
fn asks_for_json() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

fn work(arguments: Arguments) -> ExitCode {
    start_tracing();
    raise_file_limit();
    let json = arguments.globals.json;
    let only_writes_out = ending::only_writes_out(&arguments.verb);
    let outcome = Context::new(arguments.globals).and_then(|context| {
        let noted = history::begin(&context, &arguments.verb);
        let outcome = run(&context, arguments.verb);
        history::end(&context, noted, &outcome);
        outcome
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) if only_writes_out && ending::has_seen_enough(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, json);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(context: &Context, verb: Verb) -> Result<u8> {
    match verb {
        Verb::Init(arguments) => keys::init(context, &arguments),
        Verb::Backup(arguments) => backup::run(context, *arguments),
        Verb::Restore(arguments) => restore::run(context, &arguments),
        Verb::Snapshots(arguments) => show::snapshots(context, &arguments),
        Verb::Show(arguments) => show::show(context, &arguments),
        Verb::Ls(arguments) => show::ls(context, &arguments),
        Verb::Cat(arguments) => show::cat(context, &arguments),
        Verb::Find(arguments) => search::run_find(context, &arguments),
        Verb::Diff(arguments) => search::run_diff(context, &arguments),
        Verb::Dump(arguments) => search::run_dump(context, &arguments),
        Verb::Forget(arguments) => forget::run(context, &arguments),
        Verb::Unforget(arguments) => forget::run_unforget(context, &arguments),
        Verb::Hold(arguments) => forget::run_hold(context, &arguments),
        Verb::Unhold(arguments) => forget::run_unhold(context, &arguments),
        Verb::Stats => show::run_stats(context),
        Verb::Check(arguments) => check::run(context, &arguments),
        Verb::Repair(arguments) => repair::run(context, &arguments),
        Verb::Prune(arguments) => prune::run(context, &arguments),
        Verb::Copy(arguments) => copies::run_copy(context, &arguments),
        Verb::Mirror(arguments) => copies::run_mirror(context, &arguments),
        Verb::Key { verb } => keys::run(context, &verb),
        Verb::History(arguments) => history::show(context, &arguments),
        Verb::Kit(arguments) => kit::run(context, &arguments),
        Verb::Cache { verb } => tools::cache(context, &verb),
        Verb::Completions { shell } => tools::completions(shell, &mut Arguments::command()),
        Verb::Man { dir } => tools::man(dir.as_deref(), &Arguments::command()),
        Verb::Version => tools::version(context),
    }
}

/// Prints what was asked for instead of a run.
fn show_help(help: &clap::Error) -> ExitCode {
    use std::io::Write;
    match help.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            report(&Error::io("write", "to standard output", error), false);
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// What is wrong with the command line, in one line.
fn mistake(error: &clap::Error) -> Error {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if matches!(error.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
        return Error::usage("read the command line: no command was given");
    }
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let said = lines.collect::<Vec<_>>().join(" ");
    let mistake = Error::usage(format!("read the command line: {}", said.strip_prefix("error: ").unwrap_or(&said)));
    match hint_of(error) {
        Some(hint) => mistake.with_hint(hint),
        None => mistake,
    }
}

/// What whoever read a value would have it written like.
fn hint_of(error: &clap::Error) -> Option<String> {
    let cause = std::error::Error::source(error)?.downcast_ref::<Error>()?;
    Some(cause.hint().to_owned())
}

fn report(error: &Error, json: bool) {
    if json {
        let object = serde_json::json!({
            "event": "error",
            "message": error.to_string(),
            "hint": error.hint(),
            "exit_code": error.exit_code(),
        });
        eprintln!("{object}");
        return;
    }
    let style = text::Style::of(&std::io::stderr());
    eprintln!("{}lifeboat: {}{}", style.bad(), text::legible(&error.to_string()), style.reset());
    eprintln!("hint: {}", text::legible(error.hint()));
}

/// Restores keep a descriptor for each directory that is being filled, so the soft limit is raised as far as allowed.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where that is not allowed, the limit stays as it was.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn start_tracing() {
    if std::env::var_os("LIFEBOAT_LOG").is_none() {
        return;
    }
    let filter = tracing_subscriber::EnvFilter::from_env("LIFEBOAT_LOG");
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).init();
}
