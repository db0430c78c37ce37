//! The program killed, stopped, and cut off from power at moments that it did not choose.
//!
//! `LIFEBOAT_KILLS` says how many kills there are (500 by default), `LIFEBOAT_SEED` begins the moments elsewhere.
#![expect(clippy::print_stdout, reason = "a test says what it skips, and how to repeat it")]

mod support;

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::home::Home;
use support::{contents, noise};

/// Numbers that are the same for the same seed.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let seed = std::env::var("LIFEBOAT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        println!("LIFEBOAT_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 += 1;
        let bytes = noise(self.0, 8);
        u64::from_le_bytes(bytes.try_into().unwrap()) % limit
    }
}

fn change(home: &Home, version: u64) {
    for file in 0..40 {
        let seed = if file % 4 == 0 { file } else { version * 100 + file };
        std::fs::create_dir_all(home.path(&format!("documents/d{}", file % 6))).unwrap();
        std::fs::write(home.path(&format!("documents/d{}/f{file}", file % 6)), noise(seed, 40_000)).unwrap();
    }
}

fn spawn(home: &Home, arguments: &[&str]) -> Child {
    home.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn whole(home: &Home) {
    let output = home.run(&["check", "--read-data"]);
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// The latest snapshot is what is in the directory.
fn current(home: &Home) {
    home.ok(&["restore", "latest:documents", "--to", "restored"]);
    assert!(contents(&home.path("restored")) == contents(&home.path("documents")));
    std::fs::remove_dir_all(home.path("restored")).unwrap();
}

#[test]
fn a_program_that_is_killed_at_any_moment_loses_nothing_that_was_committed() {
    let home = Home::filled();
    let mut moments = Moments::new();
    let rounds = std::env::var("LIFEBOAT_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(500);
    let verbs: [&[&str]; 4] = [
        &["backup", "documents", "--checkpoint", "1ms"],
        &["prune", "--grace", "0s", "--max-unused", "0%", "--truncate-logs", "always"],
        &["forget", "--keep-last", "3", "--allow-most", "--yes"],
        &["restore", "latest:documents", "--to", "into", "--overwrite", "always"],
    ];
    for round in 0..rounds {
        let verb = verbs[usize::try_from(moments.below(8)).unwrap().saturating_sub(4)];
        change(&home, round);
        // How long such a run takes whole is not known; a wide spread hits every part of it.
        let spread = 1 << (8 + moments.below(11));
        let time = Duration::from_micros(moments.below(spread));
        let mut child = spawn(&home, verb);
        std::thread::sleep(time);
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(home.code(&["snapshots"]), 0, "round {round}");
        if round % 10 == 9 {
            whole(&home);
            home.ok(&["backup", "documents"]);
            current(&home);
        }
    }
    home.ok(&["backup", "documents"]);
    home.ok(&["prune", "--grace", "0s"]);
    whole(&home);
    current(&home);
}

#[test]
fn a_copy_and_a_mirror_that_are_killed_at_any_moment_go_on_where_they_were() {
    let home = Home::filled();
    let mut moments = Moments::new();
    home.ok(&["init", "--repo", "copies"]);
    for round in 0..40 {
        change(&home, round);
        home.ok(&["backup", "documents"]);
        let verb: &[&str] = if moments.below(2) == 0 { &["copy", "--to", "copies"] } else { &["mirror", "--to", "mirror"] };
        let mut child = spawn(&home, verb);
        let spread = 1 << (8 + moments.below(9));
        std::thread::sleep(Duration::from_micros(moments.below(spread)));
        let _ = child.kill();
        child.wait().unwrap();
    }
    home.ok(&["copy", "--to", "copies"]);
    home.ok(&["mirror", "--to", "mirror"]);
    for place in ["copies", "mirror"] {
        home.ok(&["check", "--read-data", "--repo", place, "--cache-dir", place]);
        home.ok(&["restore", "latest:documents", "--to", "restored", "--repo", place]);
        assert!(contents(&home.path("restored")) == contents(&home.path("documents")));
        std::fs::remove_dir_all(home.path("restored")).unwrap();
    }
    assert_eq!(home.ok(&["copy", "--to", "copies", "--dry-run"]).matches("to read at most").count(), 0);
}

#[test]
fn a_backup_that_sleeps_through_a_whole_prune_commits_nothing_that_is_gone() {
    let mut moments = Moments::new();
    for round in 0..6 {
        let home = Home::filled();
        for version in [1, 2] {
            change(&home, version);
            home.ok(&["backup", "documents"]);
        }
        // The writer is about to borrow what only the first versions hold, and these are forgotten while it sleeps.
        change(&home, 1);
        let mut child = spawn(&home, &["backup", "documents", "--reread"]);
        std::thread::sleep(Duration::from_millis(5 + moments.below(40)));
        signal(&child, "STOP");
        // With another cache, as another machine has: the sleeper may hold the lock of its own.
        home.ok(&["forget", "--keep-last", "1", "--allow-most", "--yes", "--cache-dir", "other"]);
        home.ok(&["prune", "--grace", "0s", "--max-unused", "0%", "--truncate-logs", "always", "--cache-dir", "other"]);
        signal(&child, "CONT");
        let status = child.wait().unwrap();
        assert!(status.success(), "round {round}: {status}");
        whole(&home);
        current(&home);
    }
}

/// A stream whose writer certainly has begun and certainly has not committed while others forget and prune: it waits for the
/// rest. What it borrows until then is what the prune takes.
#[test]
fn a_stream_that_sleeps_through_a_whole_prune_is_whole() {
    let home = Home::filled();
    let content: Vec<u8> = (0..160).flat_map(|part| noise(part, 100_000)).collect();
    std::fs::write(home.path("documents/large"), &content).unwrap();
    home.ok(&["backup", "documents"]);
    std::fs::remove_file(home.path("documents/large")).unwrap();
    home.ok(&["backup", "documents"]);
    let mut command = home.command(&["backup", "--stdin", "stream", "--quiet"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut stream = child.stdin.take().unwrap();
    // More than pipe and window hold, so that half of it has been cut, looked up, and borrowed when this returns.
    stream.write_all(&content[..content.len() - 100_000]).unwrap();
    let records = home.records();
    signal(&child, "STOP");
    home.ok(&["forget", "--keep-last", "1", "--allow-most", "--yes", "--cache-dir", "other"]);
    let pruned = home.json(&["prune", "--grace", "0s", "--max-unused", "0%", "--cache-dir", "other", "--json"]);
    assert!(pruned["deleted"].as_u64().unwrap() > 0, "{pruned}");
    assert!(child.try_wait().unwrap().is_none() && home.records() > records, "it slept through all of that");
    signal(&child, "CONT");
    stream.write_all(&content[content.len() - 100_000..]).unwrap();
    drop(stream);
    let committed = child.wait().unwrap().success();
    whole(&home);
    let latest = home.run(&["cat", "latest:stream"]);
    // A stream cannot be read twice: it fails, or it is whole.
    assert_eq!(latest.status.success() && latest.stdout == content, committed);
    home.ok(&["backup", "documents"]);
    current(&home);
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
}

/// A file system on a file, mounted, that can lose its power; unmounted when dropped.
struct Disk {
    home: Home,
    mounted: std::path::PathBuf,
}

impl Disk {
    /// Nothing where that cannot be made: without root, or without loop devices.
    fn new(kind: &str) -> Option<Self> {
        let home = Home::filled();
        let (image, mounted) = (home.path("image"), home.path("disk"));
        std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        std::fs::create_dir(&mounted).unwrap();
        let made = run(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
        let disk = Self { home, mounted };
        (made && run("sh", &["-c", "command -v xfs_io"]) && disk.mount()).then_some(disk)
    }

    fn mount(&self) -> bool {
        run("mount", &["-o", "loop", self.home.path("image").to_str().unwrap(), self.mounted.to_str().unwrap()])
    }

    fn unmount(&self) -> bool {
        run("umount", &[self.mounted.to_str().unwrap()])
    }

    /// What was not made durable is lost.
    fn cut_power(&self) {
        assert!(run("xfs_io", &["-F", "-x", "-c", "shutdown", self.mounted.to_str().unwrap()]));
        let end = Instant::now() + Duration::from_secs(300);
        while !self.unmount() {
            assert!(Instant::now() < end, "the disk stays busy");
            std::thread::yield_now();
        }
        assert!(self.mount());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Set where this program runs among mounts of its own.
const ALONE: &str = "LIFEBOAT_KILLS_ALONE";

/// Runs one test of this program again, where nobody else sees what it mounts, and everybody else goes on copying all
/// mounts meanwhile: a disk that is in such a copy too stays in use when it is taken off here, and is mounted again as
/// it was, shut down. False where that is not allowed.
fn runs_alone(test: &str) -> bool {
    if !run("unshare", &["-m", "true"]) {
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let mut alone = Command::new("unshare");
    alone.arg("-m").arg(program).args(["--exact", test, "--nocapture"]).env(ALONE, "yes");
    let mut child = alone.spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{test}: {status}");
            return true;
        }
        assert!(run("unshare", &["-m", "sleep", "0.3"]));
    }
}

#[test]
fn a_disk_that_loses_power_keeps_every_snapshot_that_was_committed() {
    if std::env::var_os(ALONE).is_none() {
        if !runs_alone("a_disk_that_loses_power_keeps_every_snapshot_that_was_committed") {
            println!("skipped: disks of its own cannot be mounted here (needs root)");
        }
        return;
    }
    let mut moments = Moments::new();
    for kind in ["ext4", "xfs"] {
        let Some(disk) = Disk::new(kind) else {
            println!("skipped: a {kind} file system on a loop device cannot be made and shut down here");
            continue;
        };
        let home = &disk.home;
        let repository = disk.mounted.join("repository");
        let repository = repository.to_str().unwrap();
        let mut committed = Vec::new();
        home.ok(&["init", "--repo", repository]);
        for round in 0..8 {
            change(home, round);
            let mut child = spawn(home, &["backup", "documents", "--repo", repository, "--checkpoint", "1ms"]);
            let limit = Instant::now() + Duration::from_millis(2 + moments.below(400));
            let mut done = None;
            while done.is_none() && Instant::now() < limit {
                done = child.try_wait().unwrap();
            }
            if done.is_some_and(|status| status.success()) {
                committed.push(contents(&home.path("documents")));
            }
            let cut = std::thread::scope(|scope| {
                let cut = scope.spawn(|| disk.cut_power());
                let _ = child.kill();
                child.wait().unwrap();
                cut.join()
            });
            cut.unwrap();
            // The cache is on another disk, and may know of packs that are lost.
            let output = home.run(&["check", "--read-data", "--repo", repository]);
            assert!(output.status.success(), "{kind}, round {round}: {}", String::from_utf8_lossy(&output.stderr));
            let all = home.json(&["snapshots", "--json", "--repo", repository]);
            let whole: Vec<_> = all.as_array().unwrap().iter().filter(|snapshot| snapshot["incomplete"] != true).collect();
            assert!(whole.len() >= committed.len(), "{kind}, round {round}");
        }
        for tree in &committed {
            let all = home.json(&["snapshots", "--json", "--repo", repository]);
            let found = all.as_array().unwrap().iter().any(|snapshot| {
                let id = format!("{}:documents", snapshot["id"].as_str().unwrap());
                home.ok(&["restore", &id, "--to", "restored", "--repo", repository]);
                let same = contents(&home.path("restored")) == *tree;
                std::fs::remove_dir_all(home.path("restored")).unwrap();
                same
            });
            assert!(found, "{kind}: a committed tree is gone");
        }
    }
}
