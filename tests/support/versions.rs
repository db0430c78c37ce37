//! Sources of several versions, repositories that hold them, and what has to be true of these afterwards.

use super::{Bench, contents, noise};
use lifeboat::event::Silent;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::PruneOptions;
use lifeboat::repo::Repository;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files and directories with their content.
pub type Tree = Vec<(PathBuf, Option<Vec<u8>>)>;

/// Makes the source one of its versions: each file has a length of its own, and one in `shared` is the same in all versions.
pub fn fill(bench: &Bench, version: u64, files: u64, shared: u64, length: impl Fn(u64) -> usize) -> Tree {
    for file in 0..files {
        let seed = if file % shared == 0 { file } else { version * 1000 + file };
        bench.write(&format!("d{}/f{file}", file % 5), noise(seed, length(file)));
    }
    bench.age_source();
    contents(&bench.source())
}

/// Takes whatever nobody needs, at once.
pub fn prune_all() -> PruneOptions {
    PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() }
}

pub fn forget_first(repository: &Repository) {
    repository.forget(&[repository.snapshots().unwrap()[0].record()]).unwrap();
}

/// Fails unless there are just these snapshots, oldest first, and each can be restored.
pub fn restores(bench: &Bench, expected: &[&Tree]) {
    let snapshots = bench.open().snapshots().unwrap();
    assert_eq!(snapshots.len(), expected.len());
    for (entry, expected) in snapshots.iter().zip(expected) {
        let target = bench.path("out");
        bench.restore(entry, &target);
        assert!(contents(&target) == **expected, "snapshot {}", entry.id);
        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// The same, and unless nothing is damaged.
pub fn whole(bench: &Bench, expected: &[&Tree]) {
    undamaged(bench);
    restores(bench, expected);
}

/// Fails if a check that reads everything finds damage.
pub fn undamaged(bench: &Bench) {
    let report = check(&bench.open(), &CheckOptions::of_all_data(2), &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

/// Copies a directory with everything in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.path() {
            path if path.is_dir() => copy_tree(&path, &target),
            path => assert!(std::fs::copy(path, target).is_ok()),
        }
    }
}
