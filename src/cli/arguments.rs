//! What can be written on the command line.

use super::globals::THREADS;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

/// Encrypted, deduplicated backups, and recovery from them.
#[derive(Parser)]
#[command(name = "lifeboat", version, max_term_width = 110, propagate_version = false)]
#[command(after_help = "Begin with `lifeboat backup ~`: a repository and its key are made on first use.\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 done but incomplete, 10 no repository,\n\
    11 refused or in use, 12 wrong key, 13 damage found, 14 rollback noticed,\n\
    15 archived, 130 interrupted.")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) globals: Globals,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Options of every command.
#[derive(Args, Default)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct Globals {
    /// Place of the repository: a directory, or a URL (s3, b2, gs, az, webdav, webdavs, sftp)
    #[arg(long, short = 'r', global = true, env = "LIFEBOAT_REPOSITORY", value_name = "URL", hide_env_values = true)]
    pub(super) repo: Option<String>,
    /// File with the age identity or SSH key that opens it
    #[arg(long, short = 'i', global = true, env = "LIFEBOAT_IDENTITY", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) identity: Option<PathBuf>,
    /// Configuration file with defaults for these options
    #[arg(long, global = true, env = "LIFEBOAT_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
    /// Folder of the local cache
    #[arg(long, global = true, env = "LIFEBOAT_CACHE_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) cache_dir: Option<PathBuf>,
    /// Bytes of directories and index parts of a repository elsewhere that are kept there [default: 4 GiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub(super) cache_size: Option<u64>,
    /// Read the passphrase from the first line of a file
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) passphrase_file: Option<PathBuf>,
    /// Read the passphrase from what a command prints
    #[arg(long, global = true, value_name = "COMMAND", conflicts_with = "passphrase_file")]
    pub(super) passphrase_command: Option<String>,
    /// Fingerprint that the repository must have
    #[arg(long, global = true, env = "LIFEBOAT_FINGERPRINT", value_name = "HEX")]
    pub(super) fingerprint: Option<String>,
    /// Go on with a store that shows an older state than this machine has seen; says what is lost
    #[arg(long, global = true)]
    pub(super) accept_rollback: bool,
    /// Print the result as JSON, and events as JSON lines on standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print only what was asked for, and what went wrong
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more
    #[arg(long, short, global = true)]
    pub(super) verbose: bool,
    /// Show no progress
    #[arg(long, global = true)]
    pub(super) no_progress: bool,
    /// Worker threads; one for each processor by default
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(i64::from(*THREADS.start())..=i64::from(*THREADS.end())))]
    pub(super) threads: Option<u16>,
    /// Requests to a store elsewhere under way at once [default: 16]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) connections: Option<u16>,
    /// Bytes per second that may be sent to the store
    #[arg(long, global = true, value_name = "RATE", value_parser = super::text::parse_rate)]
    pub(super) limit_upload: Option<u64>,
    /// Bytes per second that may be fetched from the store
    #[arg(long, global = true, value_name = "RATE", value_parser = super::text::parse_rate)]
    pub(super) limit_download: Option<u64>,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Make a repository and the key that opens it
    Init(InitArguments),
    /// Back up files, a stream, or the output of a command
    Backup(Box<BackupArguments>),
    /// Write a snapshot, or a part of it, back
    Restore(RestoreArguments),
    /// List snapshots
    #[command(visible_alias = "list")]
    Snapshots(SnapshotsArguments),
    /// Show everything about one snapshot
    Show(ShowArguments),
    /// List the files of a snapshot
    Ls(LsArguments),
    /// Print a file of a snapshot
    Cat(OneArguments),
    /// Look for files by name, size, and time, in one snapshot or in all
    Find(FindArguments),
    /// Say what differs between two snapshots, or a snapshot and a directory
    Diff(DiffArguments),
    /// Write a part of a snapshot to standard output as a tar archive
    Dump(DumpArguments),
    /// Forget snapshots, by rules that say which are kept, or by their ids
    Forget(Box<super::forget::ForgetArguments>),
    /// Bring forgotten snapshots back, as long as no prune has run
    Unforget(super::forget::NamesArguments),
    /// Protect snapshots from being forgotten
    Hold(super::forget::HoldArguments),
    /// End the protection of snapshots
    Unhold(super::forget::NamesArguments),
    /// Say how much is stored, and how well
    Stats,
    /// Verify the repository; changes nothing
    Check(super::check::CheckArguments),
    /// Mend what is damaged, as far as that is possible; says what it would do unless told to do it
    Repair(super::repair::RepairArguments),
    /// Take back the space of what no snapshot needs
    Prune(super::prune::PruneArguments),
    /// Copy snapshots into other repositories, sealed with their keys
    Copy(super::copies::CopyArguments),
    /// Keep a second copy of the whole repository, object by object; needs no key
    Mirror(super::copies::MirrorArguments),
    /// Manage who may do what, and the key slots that open the repository
    Key {
        #[command(subcommand)]
        verb: KeyVerb,
    },
    /// List what this machine wrote, restored, and verified, and how it ended
    History(super::history::HistoryArguments),
    /// Make a page for the drawer with which a machine that has nothing can restore
    Kit(super::kit::KitArguments),
    /// Look at the local cache or throw it away
    Cache {
        #[command(subcommand)]
        verb: CacheVerb,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Folder to write to
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Say which version this is and what it can read
    Version,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  lifeboat init --repo /mnt/backup/repository\n  lifeboat init --recipient \"$(cat ~/.ssh/id_ed25519.pub)\"\n  lifeboat init --passphrase"
)]
pub(super) struct InitArguments {
    /// Seal the keys to this recipient: age1… or an SSH public key
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "passphrase")]
    pub(super) recipient: Option<String>,
    /// Seal the keys with a passphrase
    #[arg(long)]
    pub(super) passphrase: bool,
    /// Average length of chunks, a power of two from 4K to 1M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = super::text::parse_size)]
    pub(super) chunk_size: u64,
    /// Compression level of zstd, 1 to 19
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) level: i32,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  lifeboat backup ~/Documents /etc --exclude '*.tmp'\n  lifeboat backup --kind database --command shop.sql -- pg_dump shop\n  tar c . | lifeboat backup --stdin project.tar"
)]
pub(super) struct BackupArguments {
    /// Files and directories
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(super) paths: Vec<PathBuf>,
    /// Kind of the snapshot: full, incremental, state, config, logs, database, wal, or another word
    #[arg(long, default_value = "full", value_parser = NonEmptyStringValueParser::new())]
    pub(super) kind: String,
    /// Tag; may be given several times, or several with commas
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub(super) tag: Vec<String>,
    /// A remark
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) description: String,
    /// Name of this machine instead of its host name
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(super) host: Option<String>,
    /// Read the paths from a file, one on each line, or with NULs between; - for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) files_from: Option<PathBuf>,
    /// Back up standard input as a file of this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["paths", "files_from", "command"])]
    pub(super) stdin: Option<String>,
    /// Back up what the command after -- prints, as a file of this name; nothing is kept if it fails
    #[arg(long, value_name = "NAME", conflicts_with_all = ["paths", "files_from"])]
    pub(super) command: Option<String>,
    /// Forget it no sooner than this after now: 90d, 1y6m; `none` overrides a default from the configuration
    #[arg(long, value_name = "TIME")]
    pub(super) retain: Option<super::backup::Retain>,
    /// Keep access times
    #[arg(long)]
    pub(super) atime: bool,
    /// Read every file, even those that look unchanged
    #[arg(long)]
    pub(super) reread: bool,
    /// Read and count, store nothing
    #[arg(long, short = 'n')]
    pub(super) dry_run: bool,
    /// How often to write down what is done so far, so that it can be gone on with, and restored, after an interruption
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = super::text::parse_duration)]
    pub(super) checkpoint: std::time::Duration,
    /// Parity beside the packs, a share of their length such as 5%; later backups and prunes keep it up
    #[arg(long, value_name = "PERCENT", value_parser = super::repair::parity)]
    pub(super) parity: Option<u16>,
    #[command(flatten)]
    pub(super) copies: super::copies::AfterBackup,
    #[command(flatten)]
    pub(super) rules: RuleArguments,
    /// Stay on the file system of each path
    #[arg(long, short = 'x')]
    pub(super) one_file_system: bool,
    /// The command for --command and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(super) argv: Vec<std::ffi::OsString>,
}

/// What to leave out.
#[derive(Args, Default)]
#[command(next_help_heading = "What to leave out")]
pub(super) struct RuleArguments {
    /// Leave out what matches, as in .gitignore
    #[arg(long, short, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
    /// The same, upper and lower case alike
    #[arg(long, value_name = "GLOB")]
    pub(super) iexclude: Vec<String>,
    /// Read globs from a file, one on each line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) exclude_file: Vec<PathBuf>,
    /// Leave out what is in directories that hold this file (NAME or NAME:CONTENT)
    #[arg(long, value_name = "NAME")]
    pub(super) exclude_if_present: Vec<String>,
    /// Leave out what is in directories with a CACHEDIR.TAG
    #[arg(long)]
    pub(super) exclude_caches: bool,
    /// Leave out larger files
    #[arg(long, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub(super) exclude_larger_than: Option<u64>,
}

/// Which snapshots are meant.
#[derive(Args, Default)]
pub(super) struct FilterArguments {
    /// Only snapshots of this machine
    #[arg(long, value_name = "HOST")]
    pub(super) host: Vec<String>,
    /// Only snapshots of this kind
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Vec<String>,
    /// Only snapshots with this tag
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub(super) tag: Vec<String>,
    /// Only snapshots of this path
    #[arg(long, value_name = "PATH")]
    pub(super) path: Vec<PathBuf>,
}

#[derive(Args)]
pub(super) struct SnapshotsArguments {
    #[command(flatten)]
    pub(super) filter: FilterArguments,
    /// Those that were forgotten and not yet pruned, instead of those that are kept
    #[arg(long)]
    pub(super) forgotten: bool,
}

#[derive(Args)]
pub(super) struct ShowArguments {
    /// A snapshot: `latest` or the beginning of its id
    pub(super) snapshot: String,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
}

#[derive(Args)]
pub(super) struct OneArguments {
    /// A snapshot: `latest` or the beginning of its id; with :PATH, what is at that path
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) snapshot: OsString,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
}

#[derive(Args)]
pub(super) struct LsArguments {
    /// A snapshot: `latest` or the beginning of its id; with :PATH, what is at that path
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) snapshot: OsString,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
    /// Show mode, owner, size, and time
    #[arg(long, short)]
    pub(super) long: bool,
    /// List what is in directories as well
    #[arg(long, short = 'R')]
    pub(super) recursive: bool,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  lifeboat restore latest --to /tmp/restored\n  lifeboat restore 3fa8c2d1:etc/nginx --to ./nginx\n  lifeboat restore latest --in-place --include '*.conf' --overwrite if-changed",
    group = clap::ArgGroup::new("target").required(true).args(["to", "in_place"])
)]
pub(super) struct RestoreArguments {
    /// A snapshot: `latest` or the beginning of its id; with :PATH, only what is at that path, put directly into DIR
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) snapshot: OsString,
    /// Directory to restore into; made if need be
    #[arg(long, short, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) to: Option<PathBuf>,
    /// Restore to where it was backed up from
    #[arg(long)]
    pub(super) in_place: bool,
    /// Restore only what matches; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub(super) include: Vec<String>,
    /// Restore nothing that matches
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
    /// What happens to files that are there already; by default a directory that holds any is refused, but `always` with
    /// --in-place or --delete
    #[arg(long, value_name = "WHEN")]
    pub(super) overwrite: Option<When>,
    /// Remove what the snapshot does not have, within the paths that were backed up
    #[arg(long)]
    pub(super) delete: bool,
    /// Say what would be written, left alone, and removed, by size and time of what is there
    #[arg(long, short = 'n')]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) thaw: super::thaw::ThawArguments,
    /// Read everything back and compare
    #[arg(long)]
    pub(super) verify: bool,
    /// Use the numbers of owners, not their names
    #[arg(long)]
    pub(super) numeric_ids: bool,
    /// Leave owners alone
    #[arg(long)]
    pub(super) no_owner: bool,
    /// Write what is left of damaged files too, as NAME.damaged, and list what is missing in .lifeboat-holes.txt
    #[arg(long)]
    pub(super) salvage: bool,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum When {
    /// Make them equal; only what differs is written
    Always,
    /// If size or modification time differ
    IfChanged,
    /// If the snapshot's is newer
    IfNewer,
    /// Keep them
    Never,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  lifeboat find '*.pdf' --larger 10M\n  lifeboat find --history home/ann/notes.txt")]
pub(super) struct FindArguments {
    /// Globs: one without a slash is matched with the name, others with the whole path
    #[arg(value_name = "GLOB")]
    pub(super) patterns: Vec<String>,
    /// Only in this snapshot: `latest` or the beginning of its id
    #[arg(long, value_name = "SNAPSHOT")]
    pub(super) snapshot: Option<String>,
    /// Only paths in which this regular expression is found
    #[arg(long, value_name = "REGEX")]
    pub(super) regex: Option<String>,
    /// Upper and lower case are the same
    #[arg(long)]
    pub(super) ignore_case: bool,
    /// Only files of at least this size
    #[arg(long, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub(super) larger: Option<u64>,
    /// Only files of at most this size
    #[arg(long, value_name = "SIZE", value_parser = super::text::parse_size)]
    pub(super) smaller: Option<u64>,
    /// Only what was modified at this time or later
    #[arg(long, value_name = "TIME")]
    pub(super) newer: Option<String>,
    /// Only what was modified before this time
    #[arg(long, value_name = "TIME")]
    pub(super) older: Option<String>,
    /// Only this kind
    #[arg(long, value_name = "KIND")]
    pub(super) r#type: Option<Kind>,
    /// Show each state of the files at these exact paths, and which snapshots hold it
    #[arg(long, requires = "patterns")]
    pub(super) history: bool,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Kind {
    /// Regular files
    File,
    /// Directories
    Directory,
    /// Symbolic links
    Symlink,
    /// Named pipes
    Fifo,
    /// Sockets
    Socket,
    /// Block and character devices
    Device,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  lifeboat diff 3fa8c2d1 latest\n  lifeboat diff latest:home/ann /home/ann")]
pub(super) struct DiffArguments {
    /// A snapshot, with :PATH a directory in it; what begins with / or . is a directory as it is now
    #[arg(value_name = "SNAPSHOT[:PATH]|DIR")]
    pub(super) first: OsString,
    /// The same, to compare it with
    #[arg(value_name = "SNAPSHOT[:PATH]|DIR")]
    pub(super) second: OsString,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
}

#[derive(Args)]
#[command(after_help = "Example:\n  lifeboat dump latest:etc | tar xf - -C /tmp/etc")]
pub(super) struct DumpArguments {
    /// A snapshot: `latest` or the beginning of its id; with :PATH, what is at that path
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub(super) snapshot: OsString,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
}

#[derive(Subcommand)]
pub(super) enum KeyVerb {
    /// List who takes part, and the slots
    List,
    /// Let another machine or person take part, with just the keys of its role
    Enrol(super::roles::EnrolArguments),
    /// End the part of a client; what it writes from now on counts no more
    Revoke(super::roles::RevokeArguments),
    /// Start a new generation of keys and renew the slots; deduplication is kept
    Rotate(super::roles::RotateArguments),
    /// Print what a store must be told so that a role can do what it may, and no more
    Policy(super::roles::PolicyArguments),
    /// Add another way in
    #[command(group = clap::ArgGroup::new("way").required(true).args(["recipient", "new_passphrase_file"]))]
    Add {
        /// Seal it to this recipient: age1… or an SSH public key
        #[arg(long, value_name = "RECIPIENT")]
        recipient: Option<String>,
        /// Seal it with the passphrase in the first line of this file; - asks for it
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
        /// What to call it
        #[arg(long, default_value = "")]
        label: String,
    },
    /// Remove a way in
    Remove {
        /// The beginning of the slot's id
        slot: String,
        /// Even if it is the one in use
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum CacheVerb {
    /// Say where it is and how large
    Info,
    /// Throw it away; nothing is lost, the next command rebuilds it
    Clear,
    /// Throw it away and read it anew from the repository
    Rebuild,
}
