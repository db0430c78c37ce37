//! `lifeboat kit`: the page for the drawer, and rehearsals with nothing but the page.

mod page;

use super::globals::Context;
use super::text;
use crate::error::{Error, Result};
use crate::ops::kit::{Kit, KitSecret, Scanned, rehearse, scan};
use crate::ops::select::{SnapshotFilter, find};
use crate::repo::{Access, Act, NewSlot, OpenOptions, Repository, generate_identity, identity_in, split_identity};
use clap::{Args, Subcommand, ValueHint};
use page::{Format, Page};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest text of a page that is read.
const MAX_PAGE: u64 = 1 << 20;

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without --with-identity, --new-identity, or --shares there is nothing secret on the page.\n\n\
        Examples:\n  lifeboat kit --with-identity --output kit.html\n  lifeboat kit --shares 2/3 --new-identity --output share.html\n  lifeboat kit"
)]
pub(in crate::cli) struct KitArguments {
    #[command(flatten)]
    page: PageArguments,
    #[command(subcommand)]
    verb: Option<KitVerb>,
}

#[derive(Args)]
struct PageArguments {
    /// Put the identity that opens the repository on the page: whoever has the page can read the backups
    #[arg(long)]
    with_identity: bool,
    /// Make an identity for this kit alone and put it on the page; `key remove` ends it, and the one at hand stays
    #[arg(long, conflicts_with = "with_identity")]
    new_identity: bool,
    /// Make N pages with a share of the identity on each; any K of them open the repository, fewer say nothing
    #[arg(long, value_name = "K/N", value_parser = parse_shares)]
    shares: Option<(u8, u8)>,
    /// Write the page to a new file that only you can read; of several pages, FILE-1 and so on
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// What to write; without it, what the name of the file says, else text
    #[arg(long)]
    format: Option<Format>,
}

#[derive(Subcommand)]
enum KitVerb {
    /// Rehearse: restore one file with nothing but what is on the page
    Test {
        /// Files with what was typed or scanned, or with whole pages of text; standard input if there are none
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// The file to restore, as `lifeboat ls -R latest` shows it; some small one by default
        #[arg(long, value_name = "PATH")]
        path: Option<PathBuf>,
        /// Where the repository is now, if not where the page says
        #[arg(long, value_name = "URL")]
        at: Option<String>,
    },
    /// Write the identity that is on the page, or in enough shares, to a file for --identity
    Join {
        /// Files with what was typed or scanned, or with whole pages of text; standard input if there are none
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// A new file that only you can read
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,
    },
}

fn parse_shares(text: &str) -> std::result::Result<(u8, u8), String> {
    let numbers = text.split_once('/').and_then(|(needed, parts)| Some((needed.parse().ok()?, parts.parse().ok()?)));
    numbers.ok_or_else(|| format!("{text:?} is not like 2/3: two of three"))
}

pub(in crate::cli) fn run(context: &Context, arguments: &KitArguments) -> Result<u8> {
    match &arguments.verb {
        None => make(context, &arguments.page),
        Some(KitVerb::Test { files, path, at }) => test(context, files, path.as_deref(), at.as_deref()),
        Some(KitVerb::Join { files, output }) => {
            write_private(output, scanned(context, files)?.identity_file()?.as_bytes())?;
            context.say(&format!("wrote the identity to {}; use it with --identity", output.display()));
            Ok(0)
        }
    }
}

/// The identity that goes on the page, if one does.
fn secret(
    context: &Context,
    arguments: &PageArguments,
    repository: &Repository,
    access: &Access,
) -> Result<Option<Zeroizing<String>>> {
    if !(arguments.with_identity || arguments.new_identity || arguments.shares.is_some()) {
        return Ok(None);
    }
    // A kit that cannot restore is worse than none.
    repository.permit(Act::Read)?;
    if arguments.new_identity {
        let (identity, recipient) = generate_identity()?;
        let id = repository.add_slot(access, &NewSlot::Recipient(recipient), "kit")?;
        context.say_aside(&format!("added key slot {} for the kit; `lifeboat key remove {}` ends it", id.short(), id.short()));
        return Ok(Some(identity));
    }
    let none = || {
        Error::usage("put the identity on a page: the repository was opened without one")
            .with_hint("--new-identity makes one for the kit alone, which can be removed by itself")
    };
    identity_in(access.identity.as_ref().ok_or_else(none)?).map(Some)
}

fn make(context: &Context, arguments: &PageArguments) -> Result<u8> {
    if context.globals.json && arguments.output.is_none() {
        return Err(Error::usage("make the kit: with --json the page needs a file").with_hint("add --output FILE"));
    }
    let format = arguments.format.unwrap_or_else(|| Format::of(arguments.output.as_deref()));
    let (repository, access) = context.open_with_access()?;
    let identity = secret(context, arguments, &repository, &access)?;
    let secrets = match (identity, arguments.shares) {
        (None, _) => vec![KitSecret::Elsewhere],
        (Some(identity), None) => vec![KitSecret::Identity(identity)],
        (Some(identity), Some((needed, parts))) => {
            split_identity(&identity, needed, parts)?.into_iter().map(KitSecret::Share).collect()
        }
    };
    let newest = find(&repository, "latest", &SnapshotFilter::default(), &context.watcher).ok();
    let several = secrets.len() > 1;
    let mut written = Vec::new();
    for (number, secret) in (1..).zip(secrets) {
        let (place, fingerprint) = (context.lasting_place()?, repository.fingerprint());
        let kit = Kit { repository: place, fingerprint, heads: repository.pinned_heads()?, secret };
        let page = Page { kit, share: arguments.shares.map(|(needed, parts)| (number, needed, parts)), newest: newest.as_ref() };
        let bytes = page.write(format)?;
        match &arguments.output {
            None => print(&bytes)?,
            Some(path) => {
                let path = if several { numbered(path, number) } else { path.clone() };
                write_private(&path, &bytes)?;
                written.push(path.display().to_string());
            }
        }
    }
    if context.globals.json {
        println!("{}", serde_json::json!({"fingerprint": repository.fingerprint().to_string(), "pages": written}));
    } else if !written.is_empty() {
        context.say(&format!("wrote {}; print it, and try it with `lifeboat kit test`", written.join(", ")));
    }
    Ok(0)
}

fn print(page: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(page).and_then(|()| out.flush()).map_err(|error| Error::io("write", "the page", error))
}

/// `share.html` becomes `share-2.html`.
fn numbered(path: &Path, number: u8) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{number}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    path.with_file_name(name)
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| {
        let there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let error = Error::io("write", path.display(), error);
        if there { error.with_hint("nothing is overwritten; choose another name") } else { error }
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// What the files, or standard input, say.
fn scanned(context: &Context, files: &[PathBuf]) -> Result<Scanned> {
    let read = |input: &mut dyn Read, name: &str| {
        let mut text = Zeroizing::new(String::with_capacity(1 << 16));
        let read = input.take(MAX_PAGE).read_to_string(&mut text);
        read.map_err(|error| Error::io("read the page", name, error).with_hint("give the text that was typed or scanned"))?;
        Ok(if text.starts_with(page::HTML) { page::text_of(&text) } else { text })
    };
    if files.is_empty() || files == [PathBuf::from("-")] {
        if std::io::stdin().is_terminal() {
            context.say_aside(
                "Type, or paste, the lines of the page that begin with repository, fingerprint, and identity or share.",
            );
            context.say_aside("Then press Ctrl-D.");
        }
        return scan(&[read(&mut std::io::stdin().lock(), "standard input")?]);
    }
    let texts = files.iter().map(|path| {
        let failed = |error| Error::io("read the page", path.display(), error);
        read(&mut std::fs::File::open(path).map_err(failed)?, &path.display().to_string())
    });
    scan(&texts.collect::<Result<Vec<_>>>()?)
}

fn test(context: &Context, files: &[PathBuf], path: Option<&Path>, at: Option<&str>) -> Result<u8> {
    let scanned = scanned(context, files)?;
    let nowhere =
        || Error::usage("rehearse a restore: the page does not say where the repository is").with_hint("say it with --at URL");
    let location = context.place(at.or(scanned.repository.as_deref()).ok_or_else(nowhere)?)?;
    location.open()?;
    let access = match scanned.identity {
        Some(identity) => Access { identity: Some(Zeroizing::new(identity.as_bytes().to_vec())), passphrase: None },
        None => {
            context.say_aside("the page holds no key: the one that this machine uses is taken");
            context.access()?
        }
    };
    if scanned.fingerprint.is_none() {
        context.say_aside("the page has no fingerprint: whether this is the right repository is not known");
    }
    let scratch = tempfile::tempdir().map_err(|error| Error::io("make", "a scratch folder", error))?;
    let options = OpenOptions {
        cache_dir: scratch.path().join("cache"),
        state_dir: scratch.path().join("state"),
        fingerprint: scanned.fingerprint,
    };
    let repository = Repository::open(&location, &access, &options, &context.watcher)?;
    if !context.globals.accept_rollback {
        repository.check_pinned(&scanned.heads)?;
    }
    let path = path.map(|path| path.as_os_str().as_encoded_bytes());
    let report = rehearse(&repository, path, &scratch.path().join("restored"), &context.watcher)?;
    if context.globals.json {
        let mut object = serde_json::Map::new();
        text::json_path(&mut object, &report.path);
        object.insert("snapshot".into(), report.snapshot.to_string().into());
        object.insert("time".into(), text::json_time(report.time).into());
        object.insert("bytes".into(), report.bytes.into());
        object.insert("seconds".into(), report.elapsed.as_secs_f64().into());
        println!("{}", serde_json::Value::Object(object));
        return Ok(0);
    }
    let (file, size) = (text::printable(&report.path), text::size(report.bytes));
    context.say(&format!("restored {file} ({size}) and compared it, in {}", text::duration(report.elapsed)));
    context.say(&format!("from snapshot {} of {}", report.snapshot.short(), text::time(report.time)));
    context.say("the kit works");
    Ok(0)
}
