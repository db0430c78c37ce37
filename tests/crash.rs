//! Power that fails: after any change that the store had made durable, every committed snapshot is whole.

mod support;

use lifeboat::event::Silent;
use lifeboat::ops::backup::{CheckpointOptions, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, Truncation, prune};
use lifeboat::ops::restore::restore;
use lifeboat::repo::{NewSlot, Repository, default_sizes, recipients_of};
use lifeboat::store::AnyStore;
use std::path::PathBuf;
use std::time::Duration;
use support::journal::Journal;
use support::{Bench, contents, noise};

type Tree = Vec<(PathBuf, Option<Vec<u8>>)>;

/// What is in the store from some change on: the tree of a snapshot.
struct Committed {
    from: usize,
    /// The change that forgot it.
    until: Option<usize>,
    tree: Tree,
}

fn fill(bench: &Bench, version: u64) -> Tree {
    for file in 0..24 {
        let seed = if file % 3 == 0 { file } else { version * 1000 + file };
        bench.write(&format!("d{}/f{file}", file % 4), noise(seed, 2000 + usize::try_from(file).unwrap() * 3000));
    }
    bench.age_source();
    contents(&bench.source())
}

/// Fails unless what was committed is there, whole, and nothing else is.
fn verify(bench: &Bench, store: AnyStore, expected: &[&Tree], place: &str) {
    let repository = bench.open_over(store, place).unwrap_or_else(|error| panic!("{place}: {error}"));
    let report = check(&repository, &CheckOptions::of_all_data(1), &Silent).unwrap();
    assert!(!report.is_damaged(), "{place}: {:?}", report.findings);
    let mut snapshots = repository.snapshots().unwrap();
    snapshots.retain(|entry| !entry.snapshot.incomplete);
    assert_eq!(snapshots.len(), expected.len(), "{place}");
    for (entry, expected) in snapshots.iter().zip(expected) {
        let target = bench.path("restored");
        restore(&repository, entry, &bench.restore_options(&target), &Silent).unwrap();
        assert!(contents(&target) == **expected, "{place}: another tree");
        std::fs::remove_dir_all(&target).unwrap();
    }
    for folder in ["cache", "state"] {
        let _ = std::fs::remove_dir_all(bench.path(&format!("{folder}-{place}")));
    }
}

#[test]
fn after_any_change_of_backups_forgets_and_prunes_every_committed_snapshot_is_whole() {
    let bench = Bench::new();
    let journal = Journal::default();
    let recipient = recipients_of(bench.identity.as_bytes()).unwrap().remove(0);
    let sizes = default_sizes(4096).unwrap();
    let machine = bench.options_of("journal");
    let repository = Repository::init_store(|| Ok(journal.store()), &NewSlot::Recipient(recipient), sizes, 3, &machine).unwrap();
    let made = journal.len();
    let mut committed: Vec<Committed> = Vec::new();
    let truncation = Truncation::Always;
    let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, truncation, ..PruneOptions::default() };
    for version in 0..4 {
        let tree = fill(&bench, version);
        let mut how = bench.backup_options();
        how.checkpoint = CheckpointOptions { every: Duration::from_millis(1), bytes: 1 };
        backup(&repository, how, &Silent).unwrap();
        committed.push(Committed { from: journal.len(), until: None, tree });
        if version > 0 {
            let oldest = repository.snapshots().unwrap()[0].record();
            repository.forget(&[oldest]).unwrap();
            let gone = committed.iter_mut().find(|snapshot| snapshot.until.is_none()).unwrap();
            gone.until = Some(journal.len());
            prune(&repository, &options, &Silent).unwrap();
        }
    }
    assert!(journal.len() > made + 20);
    for count in made..=journal.len() {
        let live = committed.iter().filter(|snapshot| snapshot.from <= count && snapshot.until.is_none_or(|until| until > count));
        let expected: Vec<&Tree> = live.map(|snapshot| &snapshot.tree).collect();
        verify(&bench, journal.after(count), &expected, &format!("change-{count}"));
    }
}
