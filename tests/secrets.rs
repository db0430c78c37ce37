//! Secrets cannot be printed: this file does not compile if one of them gets `Debug` or `Display`. And what is backed up is
//! readable nowhere but where it was, whatever is run.

mod support;

use std::fmt::{Debug, Display};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::home::Home;
use support::noise;

struct Printable;

trait Unprintable<A> {
    fn holds() {}
}

impl<T> Unprintable<()> for T {}
impl<T: Debug> Unprintable<Printable> for T {}

trait Undisplayable<A> {
    fn holds() {}
}

impl<T> Undisplayable<()> for T {}
impl<T: Display> Undisplayable<Printable> for T {}

macro_rules! unprintable {
    ($($secret:ty),+) => {
        $(
            // Ambiguous, and so an error, if the type can be printed.
            <$secret as Unprintable<_>>::holds();
            <$secret as Undisplayable<_>>::holds();
        )+
    };
}

#[test]
fn no_secret_can_be_printed() {
    unprintable!(
        lifeboat::format::key::Bundle,
        lifeboat::format::key::Generation,
        lifeboat::crypto::derive::Secret,
        lifeboat::crypto::derive::NameKeys,
        lifeboat::crypto::derive::PageKey,
        lifeboat::crypto::derive::CommittedKey,
        lifeboat::crypto::sign::ClientKey,
        lifeboat::crypto::wrap::Credential
    );
}

/// Contents that can be looked for: text, and bytes that no compressor changes.
const TEXT: &str = "canary-of-contents-Qm7x2";
const STREAM: &str = "canary-of-a-stream-Wk4v9";
/// Names, and what a user says of a snapshot or a key.
const NAMES: [&str; 8] = [
    "canary-file-name",
    "canary-folder-name",
    "canary-link-target",
    "canary-stream-name",
    "canary-tag",
    "canary-description",
    "canary-host",
    "canary-reason",
];

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// A pattern for any of these.
fn any_of(parts: impl IntoIterator<Item = Vec<u8>>) -> regex::bytes::Regex {
    let parts: Vec<String> = parts.into_iter().map(|part| hexadecimal(&part)).collect();
    regex::bytes::Regex::new(&format!("(?-u)(?:{})", parts.join("|"))).unwrap()
}

fn contents_to_find() -> impl Iterator<Item = Vec<u8>> {
    // Any 24 bytes of the noise, wherever it was cut.
    let pieces = (0..4000).step_by(97).map(|at| noise(77, 4096)[at..at + 24].to_vec());
    [TEXT, STREAM].into_iter().map(|text| text.as_bytes().to_vec()).chain(pieces)
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() { files(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

/// Fails if a file below any of the places holds what must not be found, or has it in its path; returns how many there are.
fn none_holds(home: &Home, places: &[&str], what: &regex::bytes::Regex, after: &str) -> usize {
    let mut all = Vec::new();
    places.iter().for_each(|place| files(&home.path(place), &mut all));
    for path in &all {
        let name = path.strip_prefix(home.dir.path()).unwrap().display().to_string();
        // What is temporary may go at any time.
        let bytes = std::fs::read(path).unwrap_or_default();
        let found = what.find(&bytes).or_else(|| what.find(name.as_bytes()));
        assert!(
            found.is_none(),
            "after {after}: {name} holds {:?}",
            found.map(|found| String::from_utf8_lossy(found.as_bytes()))
        );
    }
    all.len()
}

fn fill(home: &Home, version: u64) {
    let folder = home.path("documents/canary-folder-name");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("canary-file-name"), TEXT).unwrap();
    std::fs::write(folder.join("long"), [noise(77, 4096), noise(version, 200_000), noise(77, 4096)].concat()).unwrap();
    std::fs::write(folder.join(format!("only {version}")), [&noise(78 + version, 9000)[..], TEXT.as_bytes()].concat()).unwrap();
    let _ = std::os::unix::fs::symlink("canary-link-target", folder.join("link"));
    let _ = std::fs::hard_link(folder.join("long"), folder.join("other name"));
}

/// Every verb that writes, and what it is run with; `other` and `mirror` are further repositories.
const VERBS: [&str; 31] = [
    "backup documents --tag canary-tag --description canary-description --host canary-host --checkpoint 1ms",
    "backup documents --reread --kind incremental --retain 1d --atime",
    "backup --command canary-stream-name -- cat documents/canary-folder-name/canary-file-name",
    "backup documents --parity 10%",
    "repair --parity 20% --apply",
    "check --read-data",
    "snapshots",
    "ls -lR latest",
    "cat latest:documents/canary-folder-name/canary-file-name",
    "find canary-file-name",
    "diff FIRST latest",
    "dump latest",
    "stats",
    "hold FIRST --reason canary-reason",
    "unhold FIRST",
    "restore latest --to out --verify",
    "init --repo other",
    "copy --to other",
    "mirror --to mirror",
    "key enrol --role reader --recipient RECIPIENT --name canary-host",
    "key rotate",
    "backup documents --reread",
    "forget FIRST --despite-retention",
    "unforget FIRST",
    "forget --keep-last 1 --allow-most --yes --despite-retention",
    "prune --grace 0s --max-unused 0% --repack-small --truncate-logs always",
    "mirror --to mirror",
    "cache rebuild",
    "repair --from mirror --apply",
    "history",
    "key list",
];

#[test]
fn no_verb_leaves_names_or_contents_where_others_can_read_them() {
    let home = Home { dir: support::dir_in_memory() };
    let contents = any_of(contents_to_find());
    let everything = any_of(contents_to_find().chain(NAMES.map(|name| name.as_bytes().to_vec())));
    fill(&home, 1);
    assert!(contents.is_match(&std::fs::read(home.path("documents/canary-folder-name/long")).unwrap()));
    home.ok(&["backup", "documents"]);
    let (_, recipient) = lifeboat::repo::generate_identity().unwrap();
    let first = home.json(&["snapshots", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let mut stream = home.command(&["backup", "--stdin", "canary-stream-name"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut stream.stdin.take().unwrap(), STREAM.as_bytes()).unwrap();
    assert!(stream.wait().unwrap().success());
    let repositories = [".local/share/lifeboat", "other", "mirror"];
    let mut objects = 0;
    for (number, verb) in VERBS.iter().enumerate() {
        let words = verb.replace("FIRST", &first).replace("RECIPIENT", &recipient);
        if verb.starts_with("backup") {
            fill(&home, 2 + number as u64);
        }
        let arguments: Vec<&str> = words.split(' ').collect();
        let output = home.run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0)), "{verb}: {:?}: {said}", output.status.code());
        objects = none_holds(&home, &repositories, &everything, verb);
        // Names that were typed or are listed may be in the cache, which is as private as the files; contents never are.
        none_holds(&home, &[".local/state", ".config"], &everything, verb);
        none_holds(&home, &[".cache"], &contents, verb);
    }
    assert!(objects > 40, "{objects} objects");
}
