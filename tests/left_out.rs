//! What a backup has is what was there, but for what it was told to leave out: the listing of a walk of the test's own beside
//! that of the snapshot, for each option and for two of them at once, and for each way to say what to back up.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use std::collections::BTreeSet;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use support::home::Home;
use support::{contents, noise};

/// An option, and what it leaves out: of a path below `documents` and what lies at it.
type Choice = (&'static str, fn(&Entry) -> bool);

struct Entry {
    path: String,
    name: String,
    size: u64,
    is_file: bool,
    /// Files beside it, in its directory.
    beside: BTreeSet<String>,
}

const CHOICES: [Choice; 9] = [
    ("--exclude *.tmp", |entry| entry.name.ends_with(".tmp")),
    ("--exclude /deep/down", |_| false),
    ("--exclude **/down/below", |entry| entry.path.ends_with("deep/down/below")),
    ("--iexclude *.BAK", |entry| entry.name.to_lowercase().ends_with(".bak")),
    ("--exclude-larger-than 100k", |entry| entry.is_file && entry.size > 100 << 10),
    ("--exclude-caches", |entry| entry.beside.contains("CACHEDIR.TAG") && entry.name != "CACHEDIR.TAG"),
    ("--exclude-if-present .nobackup", |entry| entry.beside.contains(".nobackup") && entry.name != ".nobackup"),
    ("--one-file-system", |_| false),
    ("--exclude-file globs", |entry| entry.name.starts_with("odd ")),
];

/// What changes how files are read, and never which.
const WAYS: [&str; 4] = ["", "--reread", "--threads 1 --checkpoint 1ms", "--atime --reread"];

fn fill(home: &Home) {
    let top = home.path("documents");
    for folder in ["deep/down/below", "cache/in", "marked/in", "empty", ".hidden", "odd \u{fc}/x", "way.tmp/inside"] {
        std::fs::create_dir_all(top.join(folder)).unwrap();
        std::fs::write(top.join(folder).join("file"), noise(folder.len() as u64, 5000)).unwrap();
        std::fs::write(top.join(folder).join("some.tmp"), b"x").unwrap();
        std::fs::write(top.join(folder).join("Some.Bak"), b"").unwrap();
    }
    std::fs::remove_file(top.join("empty/file")).unwrap();
    std::fs::write(top.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    std::fs::write(top.join("marked/.nobackup"), "").unwrap();
    std::fs::write(top.join("deep/large"), noise(9, 300_000)).unwrap();
    std::fs::write(top.join("deep/just"), noise(9, 100 << 10)).unwrap();
    for name in [&b"odd \n line"[..], b"odd \xff\xfe bytes", b"-dash", b" ", b"a\\b", b"[x]*?", b"#hash", b"!not"] {
        std::fs::write(top.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    std::os::unix::fs::symlink("deep", top.join("link to folder")).unwrap();
    std::os::unix::fs::symlink("nowhere", top.join("dangling")).unwrap();
    std::fs::hard_link(top.join("deep/large"), top.join("same as large")).unwrap();
    std::process::Command::new("mkfifo").arg(top.join("pipe")).status().unwrap();
    std::fs::write(home.path("globs"), "# what is odd\nodd *\n").unwrap();
}

/// Paths below `documents` as hexadecimal, which are those that `left_out` does not name, nor anything above them.
fn there(dir: &Path, above: &str, left_out: &dyn Fn(&Entry) -> bool, found: &mut BTreeSet<String>) {
    let entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
    let shown = |name: std::ffi::OsString| String::from_utf8_lossy(name.as_bytes()).into_owned();
    let beside: BTreeSet<String> = entries.iter().map(|entry| shown(entry.file_name())).collect();
    for entry in entries {
        let (kind, name) = (entry.file_type().unwrap(), entry.file_name());
        let path = format!("{above}/{}", shown(name.clone()));
        let size = entry.metadata().unwrap().len();
        let what = Entry { path: path.clone(), name: shown(name), size, is_file: kind.is_file(), beside: beside.clone() };
        if left_out(&what) {
            continue;
        }
        found.insert(hexadecimal(entry.path().into_os_string().into_vec()));
        if kind.is_dir() {
            there(&entry.path(), &path, left_out, found);
        }
    }
}

fn hexadecimal(bytes: Vec<u8>) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the latest snapshot lists below the folder, with the folder before it.
fn listed(home: &Home, within: &str) -> BTreeSet<String> {
    let lines = home.ok(&["ls", "-R", "--json", &format!("latest:{within}")]);
    let top = hexadecimal(home.dir.path().to_path_buf().into_os_string().into_vec());
    let paths = lines.lines().map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let bytes = entry["path_bytes"].as_str().map(str::to_owned);
        bytes.unwrap_or_else(|| hexadecimal(entry["path"].as_str().unwrap().as_bytes().to_vec()))
    });
    let inner = hexadecimal(within.strip_suffix("documents").unwrap_or_default().as_bytes().to_vec());
    paths.map(|path| format!("{top}2f{}", path.strip_prefix(&inner).unwrap())).collect()
}

fn compared(home: &Home, options: &str, left_out: &dyn Fn(&Entry) -> bool) {
    let report = home.json(&[&["backup", "documents", "--json"][..], &options.split(' ').collect::<Vec<_>>()].concat());
    let mut expected = BTreeSet::new();
    there(&home.path("documents"), "", left_out, &mut expected);
    let found = listed(home, "documents");
    assert!(found == expected, "{options}: {:?}", found.symmetric_difference(&expected).collect::<Vec<_>>());
    let count = |field: &str| report[field].as_u64().unwrap();
    // With the folder itself, which is not below itself.
    assert_eq!(count("files") + count("directories") + count("others"), expected.len() as u64 + 1, "{options}: {report}");
    assert_eq!(count("failure_count"), 0, "{options}");
}

#[test]
fn what_a_snapshot_lists_is_what_was_there_whatever_is_left_out() {
    let home = Home { dir: support::dir_in_memory() };
    fill(&home);
    let mut way = WAYS.iter().cycle();
    compared(&home, "--threads 2", &|_| false);
    for (first, leaves) in CHOICES {
        compared(&home, format!("{first} {}", way.next().unwrap()).trim_end(), &|entry| leaves(entry));
    }
    for (number, (first, leaves)) in CHOICES.iter().enumerate() {
        for (second, too) in &CHOICES[number + 1..] {
            let options = format!("{first} {second} {}", way.next().unwrap());
            compared(&home, options.trim_end(), &|entry| leaves(entry) || too(entry));
        }
    }
    // What was left out before is there again, with its bytes.
    compared(&home, "--threads 3", &|_| false);
    std::fs::remove_file(home.path("documents/pipe")).unwrap();
    home.ok(&["backup", "documents"]);
    home.ok(&["restore", "latest:documents", "--to", "out", "--verify"]);
    std::fs::remove_file(home.path("documents/dangling")).unwrap();
    std::fs::remove_file(home.path("out/dangling")).unwrap();
    assert!(contents(&home.path("out")) == contents(&home.path("documents")));
}

#[test]
fn however_a_folder_is_named_the_same_is_kept_of_it() {
    let home = Home { dir: support::dir_in_memory() };
    fill(&home);
    std::fs::write(home.path("list"), "documents/deep\ndocuments\n").unwrap();
    std::os::unix::fs::symlink("documents", home.path("linked")).unwrap();
    let whole = home.path("documents");
    let whole = whole.to_str().unwrap();
    let mut expected = BTreeSet::new();
    there(&home.path("documents"), "", &|_| false, &mut expected);
    let inner = whole.trim_start_matches('/');
    for (number, (arguments, within)) in [
        (vec!["documents"], "documents"),
        (vec!["documents/"], "documents"),
        (vec!["./documents/."], "documents"),
        (vec!["documents/../documents"], "documents"),
        (vec![whole], inner),
        (vec!["documents", "documents"], "documents"),
        (vec!["documents/deep", "documents"], "documents"),
        (vec!["documents", "documents/deep/down", "documents/note that is new"], "documents"),
        (vec!["--files-from", "list"], "documents"),
    ]
    .into_iter()
    .enumerate()
    {
        if arguments.len() == 3 {
            std::fs::write(home.path("documents/note that is new"), "new").unwrap();
            expected.insert(hexadecimal(home.path("documents/note that is new").into_os_string().into_vec()));
        }
        home.ok(&[&["backup"][..], &arguments].concat());
        let within = if home.run(&["ls", &format!("latest:{within}")]).status.success() { within } else { inner };
        let found = listed(&home, within);
        assert!(found == expected, "{number} {arguments:?}: {:?}", found.symmetric_difference(&expected).collect::<Vec<_>>());
    }
}

#[test]
fn each_path_that_was_asked_for_stays_on_its_own_file_system() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can mount");
    }
    let home = Home { dir: support::dir_in_memory() };
    std::fs::create_dir_all(home.path("tree/above/disk")).unwrap();
    std::fs::create_dir_all(home.path("tree/other")).unwrap();
    std::fs::write(home.path("tree/file"), "file").unwrap();
    home.ok(&["init"]);
    let script = "set -e; mount -t tmpfs none tree/above/disk; mkdir -p tree/above/disk/part/deeper tree/above/disk/rest
        echo in > tree/above/disk/part/in; mount -t tmpfs none tree/above/disk/part/deeper; echo no > tree/above/disk/part/deeper/no
        mount -t tmpfs none tree/other; echo no > tree/other/no
        for paths in tree/above/disk tree/above/disk/part; do
            \"$0\" backup -q -x tree $paths; \"$0\" ls -R latest; echo --
            \"$0\" backup -q -x $paths \"$PWD/tree\"; \"$0\" ls -R \"latest:$PWD\"; echo --
        done";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_lifeboat")]).current_dir(home.dir.path());
    command.env_clear().env("HOME", home.dir.path()).env("PATH", std::env::var_os("PATH").unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || said.contains("mount:") {
        return println!("skipped: nothing can be mounted here");
    }
    assert!(output.status.success(), "{said}");
    let whole = "tree/ tree/above/ tree/above/disk/ tree/above/disk/part/ tree/above/disk/part/deeper/ tree/above/disk/part/in \
                 tree/above/disk/rest/ tree/file tree/other/";
    let part = whole.replace(" tree/above/disk/rest/", "");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let listed: Vec<_> = listed.split("--\n").map(|list| list.split('\n').collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(listed.len(), 5);
    let inner = format!("{}/", home.dir.path().to_str().unwrap().trim_start_matches('/'));
    for (list, expected) in listed.iter().zip([whole, whole, &part, &part]) {
        assert_eq!(list.replace(&inner, "").trim(), expected);
    }
}
