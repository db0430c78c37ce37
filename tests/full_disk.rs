//! Pruning on a disk that is filled to the last byte; backing up and restoring with a cache on one.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::Silent;
use lifeboat::ops::backup::{BackupOptions, Input, backup};
use lifeboat::ops::prune::prune;
use lifeboat::repo::Repository;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::versions::{self, forget_first, prune_all};
use support::{Bench, Recorder, contents, noise};

/// A small disk over the directory of the repository; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn over(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size},mode=0755");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        println!("skipped: a disk of its own cannot be mounted here (needs root)");
        None
    }

    /// Fills it, in smaller and smaller steps, until not one byte fits.
    fn fill(&self) {
        let mut file = std::fs::File::options().create(true).append(true).open(self.0.join("lost+found")).unwrap();
        for step in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; step]).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A bench whose repository moved to a disk of its own.
fn on_disk(size: &str) -> Option<(Bench, Disk)> {
    let bench = Bench::new();
    let aside = bench.path("aside");
    std::fs::rename(bench.repository_dir(), &aside).unwrap();
    let disk = Disk::over(&bench.repository_dir(), size)?;
    let copied = Command::new("cp").arg("-a").arg(format!("{}/.", aside.display())).arg(bench.repository_dir()).status();
    assert!(copied.unwrap().success());
    Some((bench, disk))
}

fn fill(bench: &Bench, version: u64) {
    versions::fill(bench, version, 12, 4, |_| 500_000);
}

fn whole(bench: &Bench) {
    versions::undamaged(bench);
    let target = bench.path("out");
    bench.restore(&bench.latest(), &target);
    assert!(contents(&target) == contents(&bench.source()));
    std::fs::remove_dir_all(&target).unwrap();
}

#[test]
fn a_prune_frees_space_where_no_byte_can_be_written() {
    let Some((bench, disk)) = on_disk("24m") else { return };
    // A version of its own whose packs nobody else needs, and two that share.
    bench.write("alone", noise(77, 2_000_000));
    bench.backup();
    std::fs::remove_file(bench.source().join("alone")).unwrap();
    fill(&bench, 1);
    bench.backup();
    fill(&bench, 2);
    bench.backup();
    forget_first(&bench.open());
    forget_first(&bench.open());
    disk.fill();
    let before = bench.objects("packs").len();
    let report = prune(&bench.open(), &prune_all(), &Silent).unwrap();
    assert!(report.pruned.deleted > 0 && bench.objects("packs").len() < before, "{:?}", report.pruned);
    assert!(bench.repository_dir().join(".reserve").exists(), "the reserve is there for the next time");
    whole(&bench);
    // What needs room could be done after that: all that is left is needed.
    assert!(report.pruned.bytes_deleted > 5_000_000, "{:?}", report.pruned);
    assert_eq!(prune(&bench.open(), &prune_all(), &Silent).unwrap().pruned.deleted, 0);
}

/// A disk without room for anything more, with two backups of which nothing can go.
fn with_two_backups_and_full() -> Option<(Bench, Disk)> {
    let (bench, disk) = on_disk("16m")?;
    for version in [1, 2] {
        fill(&bench, version);
        bench.backup();
    }
    disk.fill();
    Some((bench, disk))
}

#[test]
fn a_full_disk_on_which_nothing_can_go_is_left_as_it_is() {
    let Some((bench, _disk)) = with_two_backups_and_full() else { return };
    let before = bench.objects("");
    assert_eq!(prune(&bench.open(), &prune_all(), &Silent).unwrap().pruned.generation, None);
    assert_eq!(bench.objects(""), before);
    whole(&bench);
}

#[test]
fn on_a_full_disk_snapshots_can_be_forgotten_and_then_pruned() {
    let Some((bench, _disk)) = with_two_backups_and_full() else { return };
    backup(&bench.open(), bench.backup_options(), &Silent).unwrap_err();
    forget_first(&bench.open());
    let report = prune(&bench.open(), &prune_all(), &Silent);
    // The only packs share what the other snapshot needs, and there is no room to write that anew.
    assert_eq!(report.unwrap_err().kind(), ErrorKind::Full);
    whole(&bench);
    std::fs::remove_file(bench.repository_dir().join("lost+found")).unwrap();
    assert!(prune(&bench.open(), &prune_all(), &Silent).unwrap().pruned.deleted > 0);
    whole(&bench);
}

#[test]
fn whoever_meets_the_full_disk_first_it_is_named() {
    let Some((bench, _disk)) = on_disk("8m") else { return };
    bench.write("large", noise(9, 30_000_000));
    for round in 0..3u64 {
        let input = match round {
            0 => Input::Paths(vec![bench.source()]),
            // What does not fit is met while the stream is read, or when its directories are stored.
            _ => Input::Stream {
                name: b"a/b/stream".to_vec(),
                reader: Box::new(std::io::Cursor::new(noise(round, if round == 1 { 30_000_000 } else { 8_000_000 }))),
                finish: Box::new(|| Ok(())),
            },
        };
        let options = BackupOptions { input, ..bench.backup_options() };
        let error = backup(&bench.open(), options, &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(!error.to_string().contains("session") && error.hint().contains("free some space"), "{error}");
    }
}

/// Each size is met somewhere else: before there is a cache, while its index grows, when the files are noted.
#[test]
fn a_full_disk_of_the_cache_keeps_nobody_from_backing_up_and_restoring() {
    for size in ["16k", "200k", "400k", "600k"] {
        let bench = Bench::new();
        for number in 0..600 {
            bench.write(&format!("{}/file-{number}", number % 7), noise(number, 300));
        }
        let cache = bench.options().cache_dir;
        let _ = std::fs::remove_dir_all(&cache);
        let Some(disk) = Disk::over(&cache, size) else { return };
        let observer = Recorder::default();
        let warned = |observer: &Recorder| observer.warnings.lock().unwrap().iter().any(|text| text.contains("--cache-dir"));
        let open =
            |observer: &Recorder| Repository::open(&bench.location(), &bench.access(), &bench.options(), observer).unwrap();
        backup(&open(&observer), bench.backup_options(), &observer).unwrap();
        disk.fill();
        bench.write("later", "later");
        let report = backup(&open(&observer), bench.backup_options(), &observer).unwrap();
        assert!(warned(&observer), "{size}: {:?}", observer.warnings.lock().unwrap());
        let counts = report.snapshot.counts;
        assert!(counts.files == 601 && counts.bytes_added < 20_000, "{size}: what was stored is known: {report:?}");
        whole(&bench);
        drop(disk);
        // With room again nothing is left over, and everything is as it should be.
        whole(&bench);
        assert_eq!(bench.open().snapshots().unwrap().len(), 2);
    }
}
