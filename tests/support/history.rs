//! Many backups in one repository whose logs are cut off, and what everybody has to see of them.

use super::{Bench, contents, noise};
use lifeboat::event::Silent;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, PruneReport, Truncation, prune};
use lifeboat::ops::repair::{RepairOptions, repair};
use lifeboat::repo::{Repository, Standing};
use lifeboat::store::AnyStore;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

pub type Tree = Vec<(PathBuf, Option<Vec<u8>>)>;

pub fn pruning(truncation: Truncation) -> PruneOptions {
    PruneOptions { grace: Duration::ZERO, max_unused: 0.0, truncation, ..PruneOptions::default() }
}

pub fn cut(repository: &Repository) -> PruneReport {
    prune(repository, &pruning(Truncation::Always), &Silent).unwrap()
}

pub fn local(bench: &Bench) -> AnyStore {
    bench.location().open().unwrap()
}

pub fn machine(bench: &Bench, name: &str) -> Repository {
    bench.open_over(local(bench), name).unwrap()
}

/// What was backed up, by the description of its snapshot.
pub struct History {
    pub bench: Bench,
    pub trees: HashMap<String, Tree>,
}

impl History {
    pub fn new() -> Self {
        Self { bench: Bench::in_memory(), trees: HashMap::new() }
    }

    pub fn fill(&self, version: u64) {
        for file in 0..4 {
            let seed = if file % 2 == 0 { file } else { version * 100 + file };
            self.bench.write(&format!("f{file}"), noise(seed, 2000));
        }
    }

    pub fn back_up_over(&mut self, repository: &Repository, version: u64) {
        self.back_up_as(repository, version, format!("version {version}"));
    }

    pub fn back_up_as(&mut self, repository: &Repository, version: u64, description: String) {
        self.fill(version);
        let mut how = self.bench.backup_options();
        how.description = description;
        self.trees.insert(how.description.clone(), contents(&self.bench.source()));
        backup(repository, how, &Silent).unwrap();
    }

    pub fn back_up(&mut self, versions: std::ops::Range<u64>) {
        let repository = self.bench.open();
        versions.for_each(|version| self.back_up_over(&repository, version));
    }

    /// Forgets all but every `n`th.
    pub fn thin_out(&self, n: usize) {
        let repository = self.bench.open();
        let all = repository.snapshots().unwrap();
        let going: Vec<_> = all.iter().enumerate().filter(|(at, _)| at % n != 0).map(|(_, entry)| entry.record()).collect();
        repository.forget(&going).unwrap();
    }

    pub fn records(&self) -> usize {
        self.bench.objects("log").len()
    }

    /// Everything that somebody sees of the snapshots.
    pub fn seen_by(repository: &Repository) -> Vec<(String, u64, Standing, String)> {
        let all = repository.all_snapshots().unwrap().into_iter();
        all.map(|entry| (entry.snapshot.description.clone(), entry.seq, entry.standing, entry.reason)).collect()
    }

    /// The machine sees these snapshots, finds nothing wrong, and restores each as it was.
    pub fn healthy(&self, repository: &Repository, expected: &[(String, u64, Standing, String)]) {
        assert_eq!(Self::seen_by(repository), expected);
        let report = check(repository, &CheckOptions::of_all_data(2), &Silent).unwrap();
        assert!(!report.is_damaged(), "{:?}", report.findings);
        for entry in repository.snapshots().unwrap() {
            let target = self.bench.path("out");
            lifeboat::ops::restore::restore(repository, &entry, &self.bench.restore_options(&target), &Silent).unwrap();
            let description = &entry.snapshot.description;
            assert!(contents(&target) == self.trees[description], "{description} is another tree");
            std::fs::remove_dir_all(&target).unwrap();
        }
        let mended = repair(repository, &RepairOptions::default(), &Silent).unwrap();
        assert!(mended.steps.is_empty(), "{:?}", mended.steps);
    }
}
