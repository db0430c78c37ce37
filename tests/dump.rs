//! Archives of `dump`, judged by the programs that people have.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use std::path::Path;
use std::process::{Command, Output};
use support::home::Home;

const TREE: &str = "set -e; umask 022; mkdir -p tree/deep/empty tree/$(printf 'n%.0s' $(seq 180))
    printf hello > tree/note; : > tree/nothing; head -c 300000 /dev/zero | tr '\\0' x > tree/deep/data
    ln tree/note tree/deep/second-name; ln -s ../note tree/deep/link; ln -s $(printf 'far/%.0s' $(seq 40)) tree/far
    mkfifo tree/pipe; printf q > \"tree/odd name \\\"'*\\\\\"; printf r > \"tree/$(printf 'gr\\303\\274\\303\\237e \\377')\"
    chmod 4755 tree/note; chmod 1777 tree/deep/empty; chmod 600 tree/nothing
    touch -h -d '2002-03-04 05:06:07.25' tree/far; touch -d '2001-02-03 04:05:06.789' tree/deep/data tree/deep";

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn shell(home: &Home, script: &str) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_lifeboat")]).current_dir(home.dir.path());
    command.env_clear().env("HOME", home.dir.path()).env("PATH", path).env("LC_ALL", "C").output().unwrap()
}

fn ok(home: &Home, script: &str) -> String {
    let output = shell(home, script);
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A home with a tree that was backed up; attributes, where the file system has them.
fn home() -> Home {
    let home = Home::new();
    ok(&home, TREE);
    shell(&home, "setfattr -n user.note -v 'two words' tree/note && setfattr -n user.colour -v red tree/deep");
    home.ok(&["backup", "tree"]);
    home
}

/// Compares with rsync, and attributes by themselves.
fn same(home: &Home, out: &str) {
    if has("rsync") {
        let script = format!("rsync -aHAXn --delete --checksum --itemize-changes tree/ {out}/");
        assert_eq!(ok(home, &script), "", "{out}");
    } else {
        println!("skipped: rsync is not installed");
    }
    let times = |place: &str| ok(home, &format!("cd {place} && find . -printf '%P %T@ %m %s %y %l\\n' | LC_ALL=C sort"));
    assert_eq!(times("tree").replace("\n ", "\n"), times(out).replace("\n ", "\n"));
    if has("getfattr") {
        let attributes = |place: &str| ok(home, &format!("cd {place} && getfattr -R -h -d -m - . 2>/dev/null | LC_ALL=C sort"));
        assert_eq!(attributes("tree"), attributes(out));
    }
}

#[test]
fn gnu_tar_extracts_what_was_backed_up() {
    if !Command::new("tar").arg("--version").output().is_ok_and(|output| output.stdout.starts_with(b"tar (GNU tar)")) {
        return println!("skipped: tar is not that of GNU");
    }
    let home = home();
    ok(&home, "mkdir out && \"$0\" dump latest:tree | tar xpf - --xattrs --xattrs-include='*' -C out");
    same(&home, "out/tree");
}

#[test]
fn bsdtar_extracts_what_was_backed_up() {
    if !has("bsdtar") {
        return println!("skipped: bsdtar is not installed");
    }
    let home = home();
    ok(&home, "mkdir out && \"$0\" dump latest:tree | bsdtar -xpf - -C out");
    same(&home, "out/tree");
}

#[test]
fn an_archive_is_named_by_the_path_that_was_asked_for() {
    let home = home();
    let listed = |what: &str| ok(&home, &format!("\"$0\" dump {what} | tar tf - | LC_ALL=C sort"));
    assert_eq!(
        listed("latest:tree/deep"),
        "tree/deep/\ntree/deep/data\ntree/deep/empty/\ntree/deep/link\ntree/deep/second-name\n"
    );
    assert_eq!(listed("latest:tree/note"), "tree/note\n");
    assert!(listed("latest").starts_with("tree/\n"));
    let whole = std::fs::read(Path::new(&home.path("tree/deep/data"))).unwrap();
    let output = shell(&home, "\"$0\" dump latest:tree/deep/data | tar xOf -");
    assert!(output.stdout == whole);
}
