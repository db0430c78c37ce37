//! `lifeboat backup`.

use super::arguments::{BackupArguments, RuleArguments};
use super::globals::{Context, make_identity};
use super::{INCOMPLETE, keys, show, text};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::ops::backup::{BackupOptions, BackupReport, CheckpointOptions, Input, SETTLE, backup};
use crate::ops::init::{InitOptions, init};
use crate::plan::age::Age;
use crate::repo::{NewSlot, Repository};
use crate::source::files::RuleOptions;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The own retention of a snapshot.
#[derive(Clone)]
pub(super) enum Retain {
    /// It has none.
    None,
    /// It lasts so long.
    For(Age),
}

impl std::str::FromStr for Retain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::For) }
    }
}

pub(super) fn run(context: &Context, arguments: BackupArguments) -> Result<u8> {
    let input = input(&arguments)?;
    let repository = if arguments.dry_run { context.open().map_err(not_made)? } else { open_or_make(context)? };
    if let Some(share) = arguments.parity {
        repository.set_parity(share);
    }
    let mut rules = rule_options(arguments.rules);
    let has_rules = rules != RuleOptions::default();
    rules.one_file_system = arguments.one_file_system;
    rules.own = context.own_places()?;
    let copies = arguments.copies;
    for place in copies.places(context) {
        rules.own.extend(context.place(place)?.local_path().map(Path::to_owned));
    }
    let host = arguments.host.unwrap_or_else(host_name);
    let options = BackupOptions {
        input,
        kind: arguments.kind,
        tags: arguments.tag,
        description: arguments.description,
        host: host.clone(),
        user: std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default(),
        rules,
        atime: arguments.atime,
        reread: arguments.reread,
        settle: SETTLE,
        dry_run: arguments.dry_run,
        threads: context.threads(),
        metadata: Vec::new(),
        retain_until: retain_until(context, arguments.retain.as_ref())?,
        checkpoint: CheckpointOptions { every: arguments.checkpoint, ..CheckpointOptions::default() },
    };
    let report = backup(&repository, options, &context.watcher)?;
    if arguments.parity.is_some() && !arguments.dry_run {
        repository.keep_duplicates()?;
    }
    if report.snapshot.counts.files + report.snapshot.counts.others + report.snapshot.failure_count == 0 && has_rules {
        context.watcher.observe(Event::Warning("the snapshot holds no file: is more left out than was meant?"));
    }
    let mut object = json(&report);
    context.note(&object);
    if !context.globals.json {
        summary(context, &report);
    }
    let mut code = if report.incomplete() { INCOMPLETE } else { 0 };
    if !arguments.dry_run {
        let (copied, copies_code) = copies.run(context, &repository, &host);
        object["copies"] = copied.into();
        code = code.max(copies_code);
    }
    if context.globals.json {
        println!("{object}");
    }
    Ok(code)
}

/// When the retention ends that was asked for on the command line, or else in the configuration.
fn retain_until(context: &Context, said: Option<&Retain>) -> Result<Option<i64>> {
    let configured = context.retain()?;
    let Some(Retain::For(age)) = said.or(configured.as_ref()) else { return Ok(None) };
    let end = age.after(&jiff::Zoned::now()).and_then(|end| i64::try_from(end.timestamp().as_nanosecond()).ok());
    end.map(Some).ok_or_else(|| {
        Error::usage(format!("back up: a retention of {age} ends after the year 2262"))
            .with_hint("that is as far as it goes; what shall never be forgotten is held with `lifeboat hold`")
    })
}

fn json(report: &BackupReport) -> serde_json::Value {
    let mut object = show::snapshot_json(report.id.as_ref(), &report.snapshot);
    object.insert("seconds".into(), report.elapsed.as_secs_f64().into());
    object.insert("dry_run".into(), report.id.is_none().into());
    object.into()
}

fn summary(context: &Context, report: &BackupReport) {
    let counts = &report.snapshot.counts;
    let style = text::Style::of(&std::io::stdout());
    context.say(&format!(
        "files:     {} new, {} changed, {} unmodified; {}, {}",
        text::count(counts.new),
        text::count(counts.changed),
        text::count(counts.unmodified),
        text::number(counts.directories, "directory", "directories"),
        text::number(counts.others, "other", "others")
    ));
    // Of a few bytes, what is stored around them is more than they are.
    let ratio = match counts.bytes_stored {
        stored if 0 < stored && stored < counts.bytes_added => format!(" ({:.2}:1)", counts.bytes_added as f64 / stored as f64),
        _ => String::new(),
    };
    let stored = match report.id {
        Some(_) => format!(", stored as {}{ratio}", text::size(counts.bytes_stored)),
        None => String::new(),
    };
    context.say(&format!(
        "data:      {} in all, {} read, {} new{stored}",
        text::size(counts.bytes),
        text::size(counts.bytes_read),
        text::size(counts.bytes_added)
    ));
    let rate = text::rate(counts.bytes, report.elapsed);
    context.say(&format!("time:      {}, {rate}", text::duration(report.elapsed)));
    match &report.id {
        Some(id) => context.say(&format!("snapshot:  {}{}{}", style.good(), id.short(), style.reset())),
        None => context.say("dry run:   nothing was stored"),
    }
    if report.incomplete() {
        let failures = text::number(report.snapshot.failure_count, "failure", "failures");
        let listed = report.id.map(|id| format!("; `lifeboat show {}` lists them", id.short())).unwrap_or_default();
        let style = text::Style::of(&std::io::stderr());
        eprintln!("{}incomplete: {failures}{listed}{}", style.bad(), style.reset());
    }
}

pub(super) fn rule_options(arguments: RuleArguments) -> RuleOptions {
    RuleOptions {
        exclude: arguments.exclude,
        iexclude: arguments.iexclude,
        exclude_file: arguments.exclude_file,
        exclude_if_present: arguments.exclude_if_present,
        exclude_caches: arguments.exclude_caches,
        exclude_larger_than: arguments.exclude_larger_than,
        ..RuleOptions::default()
    }
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn input(arguments: &BackupArguments) -> Result<Input> {
    if let Some(name) = &arguments.stdin {
        let reader = Box::new(std::io::stdin());
        return Ok(Input::Stream { name: name.clone().into_bytes(), reader, finish: Box::new(|| Ok(())) });
    }
    if let Some(name) = &arguments.command {
        return command(name, &arguments.argv);
    }
    if !arguments.argv.is_empty() {
        return Err(Error::usage("back up: a command after -- needs --command NAME to name its output"));
    }
    let mut paths = arguments.paths.clone();
    if let Some(file) = &arguments.files_from {
        paths.extend(read_paths(file)?);
    }
    if paths.is_empty() {
        return Err(Error::usage("back up: no path was given").with_hint("say what to back up, such as `lifeboat backup ~`"));
    }
    for path in &paths {
        path.symlink_metadata().map_err(|error| Error::io("back up", path.display(), error).with_hint(hint_of_missing(path)))?;
    }
    Ok(Input::Paths(paths))
}

fn hint_of_missing(path: &Path) -> &'static str {
    match path.as_os_str().as_bytes() {
        [.., b'\r'] => "its name ends with a carriage return: write the list with line feeds alone; nothing was stored",
        _ => "check the spelling; nothing was stored",
    }
}

fn command(name: &str, argv: &[std::ffi::OsString]) -> Result<Input> {
    let Some((program, rest)) = argv.split_first() else {
        return Err(Error::usage("back up the output of a command: no command was given").with_hint("put it after --"));
    };
    let shown = program.to_string_lossy().into_owned();
    let mut command = std::process::Command::new(program);
    let spawned = command.args(rest).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| Error::io("run", &shown, error))?;
    let output = child.stdout.take().ok_or_else(|| Error::failed(format!("run {shown}: it has no output")))?;
    let finish = move || {
        let status = child.wait().map_err(|error| Error::io("wait for", &shown, error))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::failed(format!("back up the output of {shown}: it ended with {status}"))
            .with_hint("nothing was committed; mend the command and run the backup again"))
    };
    Ok(Input::Stream { name: name.as_bytes().to_vec(), reader: Box::new(output), finish: Box::new(finish) })
}

fn read_paths(file: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("read the list of paths", file.display(), error);
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map_err(failed)?;
    } else {
        text = std::fs::read(file).map_err(failed)?;
    }
    let separator = if text.contains(&0) { 0 } else { b'\n' };
    let lines = text.split(|byte| *byte == separator).filter(|line| !line.is_empty());
    Ok(lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect())
}

/// The error of a dry run that would have to make what it compares with.
fn not_made(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NoRepository => {
            error.with_hint("a dry run makes none: make one with `lifeboat init`, or name one with --repo")
        }
        _ => error,
    }
}

/// Opens the repository; the default one is made, with its identity, when it is first used.
fn open_or_make(context: &Context) -> Result<Repository> {
    match context.open() {
        Err(error) if error.kind() == ErrorKind::NoRepository => {
            let (location, said) = context.location()?;
            let (identity, identity_said) = context.identity_path()?;
            if said {
                return Err(error);
            }
            let slot = match (context.passphrase()?, identity.exists()) {
                (Some(passphrase), false) if !identity_said => NewSlot::Passphrase(passphrase),
                (_, true) => NewSlot::Recipient(keys::recipient_of(&identity)?),
                _ => {
                    location.verify_vacant()?;
                    NewSlot::Recipient(make_identity(&identity)?)
                }
            };
            let report = init(&location, &slot, &InitOptions::default(), &context.open_options()?)?;
            if context.globals.json {
                let (place, fingerprint) = (location.to_string(), report.fingerprint.to_string());
                eprintln!("{}", serde_json::json!({"event": "made", "repository": place, "fingerprint": fingerprint}));
            } else if !context.globals.quiet {
                keys::explain(&location, &slot, &identity, &report);
            }
            context.open()
        }
        other => other,
    }
}
