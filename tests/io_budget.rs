//! What each operation asks of the store and of the source: calls and bytes, counted, so that a change that costs more is
//! seen here and not on somebody's bill.

#[path = "parts/far_budget.rs"]
mod far_budget;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/servers.rs"]
mod servers;
mod support;

use lifeboat::event::Silent;
use lifeboat::ops::backup::{BackupOptions, BackupReport, backup};
use lifeboat::ops::check::{CheckOptions, CheckReport, ReadData, check};
use lifeboat::ops::prune::{PruneOptions, PruneReport, prune};
use lifeboat::ops::restore::{RestoreReport, restore};
use lifeboat::repo::Repository;
use lifeboat::store::ObjectClass::{Format, Index, Log, Other, Pack, Prune, Slot};
use lifeboat::store::Operation::{Create, Delete, Get, List, Put, Read};
use lifeboat::store::{AnyStore, Counts, Local, Measured, ObjectClass, Operation};
use std::sync::Arc;
use std::time::Duration;
use support::{Bench, noise};

type Calls<'a> = &'a [(Operation, ObjectClass, u64)];

/// Opening by a machine that has seen the repository as it is: the format, the slots until one opens, the last record
/// that is known and the place behind it, and the places of the two prune objects that may come next.
const OPENING: Calls<'_> = &[(Get, Format, 1), (Get, Slot, 1), (Get, Log, 2), (Get, Prune, 2), (List, Slot, 1)];

/// The look after a record was created: whether a plan cut its log off meanwhile.
const LOOK: (Operation, ObjectClass, u64) = (Get, Prune, 1);

const FILES: u64 = 300;
const LENGTH: u64 = 3000;

fn filled() -> Bench {
    let bench = Bench::in_memory();
    for number in 0..FILES {
        bench.write(&format!("d{}/f{number}", number % 7), noise(number, usize::try_from(LENGTH).unwrap()));
    }
    bench
}

/// Runs `run` on a machine; returns what it asked of the store, and what opening asked before.
fn counted<T>(bench: &Bench, machine: &str, run: impl FnOnce(&Repository) -> T) -> (T, Counts, Counts) {
    let measured = Measured::new(local(bench));
    let repository = bench.open_over(Arc::new(measured.clone()), machine).unwrap();
    let opening = measured.counts();
    let result = run(&repository);
    (result, measured.counts().since(&opening), opening)
}

/// The same on a machine that has seen the repository as it is, so that opening asks only what it must.
fn known<T>(bench: &Bench, run: impl FnOnce(&Repository) -> T) -> (T, Counts) {
    let (result, counts, opening) = counted(bench, "known", run);
    expect("opening", &opening, OPENING);
    (result, counts)
}

fn expect(what: &str, counts: &Counts, expected: Calls<'_>) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let found: Vec<_> = counts.iter().map(|(operation, class, count)| (operation, class, count.calls)).collect();
    assert_eq!(found, expected, "{what}");
}

/// One worker, so that blocks are the same in every run.
fn back_up(bench: &Bench) -> (BackupReport, Counts) {
    let options = BackupOptions { settle: Duration::ZERO, threads: 1, ..bench.backup_options() };
    known(bench, |repository| backup(repository, options, &Silent).unwrap())
}

/// A repository that this machine has seen with one backup in it.
fn backed_up() -> Bench {
    let bench = filled();
    counted(&bench, "known", |_| ());
    back_up(&bench);
    bench
}

#[test]
fn the_first_backup_puts_two_packs_and_one_record_and_reads_nothing() {
    let bench = filled();
    counted(&bench, "known", |_| ());
    let (report, counts) = back_up(&bench);
    // Contents and trees lie in packs of their own, so that a listing reads no contents.
    // The listing says whether packs have parity.
    expect("first", &counts, &[(Put, Pack, 2), (Create, Log, 1), LOOK, (List, Other, 1)]);
    let all = FILES * LENGTH;
    assert_eq!(report.snapshot.counts.bytes_read, all);
    let stored = counts.of(Put, Pack).bytes;
    assert!((all..all + all / 20).contains(&stored), "{stored} bytes for {all} that do not compress");
    assert!(counts.of(Create, Log).bytes < 2000);
}

#[test]
fn a_backup_of_what_has_not_changed_reads_no_pack_and_puts_one_object() {
    let bench = backed_up();
    // The directories above are everybody's: when another program made something there meanwhile, they are stored again.
    let quiet = (0..30).any(|_| {
        let (report, counts) = back_up(&bench);
        assert_eq!((report.snapshot.counts.bytes_read, report.snapshot.counts.unmodified), (0, FILES));
        assert_eq!(counts.of(Read, Pack).calls, 0);
        assert!(counts.of(Create, Log).bytes < 2000);
        counts.of(Put, Pack).calls == 0 && {
            expect("unchanged", &counts, &[(Create, Log, 1), LOOK]);
            true
        }
    });
    assert!(quiet);
}

#[test]
fn a_backup_with_one_changed_file_reads_it_and_puts_what_is_new() {
    let bench = backed_up();
    bench.write("d1/f1", noise(9999, usize::try_from(LENGTH).unwrap()));
    let (report, counts) = back_up(&bench);
    expect("one changed", &counts, &[(Put, Pack, 2), (Create, Log, 1), LOOK, (List, Other, 1)]);
    assert_eq!(report.snapshot.counts.bytes_read, LENGTH);
    assert!(counts.of(Put, Pack).bytes < LENGTH + 5000, "{} bytes", counts.of(Put, Pack).bytes);
}

#[test]
fn a_list_of_snapshots_asks_nothing_beyond_opening() {
    let bench = backed_up();
    let (snapshots, counts) = known(&bench, |repository| repository.snapshots().unwrap().len());
    assert_eq!(snapshots, 1);
    expect("snapshots", &counts, &[]);
    // A machine that knows nothing reads each record once, and of each pack its table of contents.
    let (_, counts, opening) = counted(&bench, "new", |repository| repository.snapshots().unwrap().len());
    expect("snapshots on a new machine", &counts, &[]);
    expect(
        "opening on a new machine",
        &opening,
        &[(Get, Format, 1), (Get, Slot, 1), (Get, Log, 4), (Get, Prune, 2), (List, Slot, 1), (List, Other, 1), (Read, Pack, 4)],
    );
    assert!(opening.of(Read, Pack).bytes < 20_000, "{} bytes", opening.of(Read, Pack).bytes);
}

#[test]
fn a_listing_of_a_directory_reads_one_block() {
    let bench = backed_up();
    let (_, counts) = known(&bench, |repository| {
        let entry = repository.snapshots().unwrap().pop().unwrap();
        let reader = repository.reader().unwrap();
        let node = reader.resolve(&entry.snapshot.root, &bench.subpath()).unwrap();
        assert_eq!(reader.nodes(&node.subtree.unwrap()).unwrap().count(), 7);
    });
    expect("ls", &counts, &[(Read, Pack, 1)]);
    assert!(counts.of(Read, Pack).bytes < 30_000);
}

fn restored(bench: &Bench, part: &[u8], target: &str) -> (RestoreReport, Counts) {
    let mut options = bench.restore_options(&bench.path(target));
    options.subpath.extend_from_slice(part);
    known(bench, |repository| {
        let entry = repository.snapshots().unwrap().pop().unwrap();
        restore(repository, &entry, &options, &Silent).unwrap()
    })
}

#[test]
fn a_restore_reads_only_the_blocks_that_it_needs_and_each_once() {
    let bench = backed_up();
    let (report, counts) = restored(&bench, b"/d1/f1", "one");
    assert_eq!((report.files, report.bytes_written), (1, LENGTH));
    // The block of the tree, and the block with the file.
    expect("restore of one file", &counts, &[(Read, Pack, 2)]);
    let (report, counts) = restored(&bench, b"", "all");
    assert_eq!(report.bytes_written, FILES * LENGTH);
    let bytes = counts.of(Read, Pack).bytes;
    assert!(bytes < FILES * LENGTH * 21 / 20, "{bytes} bytes are read for {}", FILES * LENGTH);
    assert_eq!((counts.total().calls, counts.of(Read, Pack).calls < 8), (counts.of(Read, Pack).calls, true));
}

#[test]
fn after_many_increments_that_touch_every_directory_a_restore_still_reads_each_block_once() {
    const MANY: u64 = 1500;
    const SIZE: u64 = 2000;
    const INCREMENTS: u64 = 10;
    let bench = Bench::in_memory();
    for increment in 0..INCREMENTS {
        for number in (0..MANY).filter(|number| increment == 0 || number % INCREMENTS == increment) {
            bench.write(
                &format!("d{}/f{number}", number / 50),
                noise(number * INCREMENTS + increment, usize::try_from(SIZE).unwrap()),
            );
        }
        let options = BackupOptions { threads: 1, ..bench.backup_options() };
        backup(&bench.open_over(local(&bench), "known").unwrap(), options, &Silent).unwrap();
    }
    let (report, counts) = restored(&bench, b"", "all");
    assert_eq!(report.bytes_written, MANY * SIZE);
    // All that was stored, trees left out.
    let stored = MANY * SIZE * (2 * INCREMENTS - 1) / INCREMENTS;
    let bytes = counts.of(Read, Pack).bytes;
    assert!(bytes < stored * 5 / 4, "{bytes} bytes are read of {stored}");
}

fn local(bench: &Bench) -> AnyStore {
    Arc::new(Local::open(&bench.repository_dir()).unwrap())
}

fn checked(bench: &Bench, read_data: bool) -> (CheckReport, Counts) {
    let options = CheckOptions { read_data: read_data.then(ReadData::default), threads: 1, ..CheckOptions::default() };
    known(bench, |repository| check(repository, &options, &Silent).unwrap())
}

#[test]
fn a_check_reads_tables_and_trees_and_with_data_everything_once() {
    let bench = backed_up();
    let (_, counts) = checked(&bench, false);
    let reads = counts.of(Read, Pack);
    assert!(reads.bytes < 40_000, "{} bytes of packs", reads.bytes);
    let small = [(Get, Format, 1), (Get, Slot, 1), (Get, Log, 3), (List, Slot, 1), (List, Pack, 1), (List, Index, 1)];
    expect("check", &counts, &[&small[..], &[(Read, Pack, reads.calls)]].concat());
    let stored: u64 = bench.objects("packs").iter().map(|path| path.metadata().unwrap().len()).sum();
    let (report, counts) = checked(&bench, true);
    assert!(report.findings.is_empty());
    let read = counts.of(Read, Pack).bytes;
    assert!((stored * 9 / 10..stored + 40_000).contains(&read), "{read} bytes are read of {stored}");
}

fn pruned(bench: &Bench) -> (PruneReport, Counts) {
    let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
    known(bench, |repository| prune(repository, &options, &Silent).unwrap())
}

#[test]
fn a_prune_reads_trees_but_no_contents_and_writes_four_records_and_what_it_repacks() {
    let bench = backed_up();
    let (report, counts) = pruned(&bench);
    assert_eq!(report.pruned.generation, None);
    assert_eq!([Put, Create, Delete].map(|operation| counts.all(operation).calls), [0; 3], "there is nothing to do");
    assert!(counts.of(Read, Pack).bytes < 30_000 && counts.of(List, Pack).calls == 1);
    bench.write("d1/f1", noise(9999, usize::try_from(LENGTH).unwrap()));
    back_up(&bench);
    known(&bench, |repository| repository.forget(&[repository.snapshots().unwrap()[0].record()]).unwrap());
    let (report, counts) = pruned(&bench);
    let written = report.pruned.written;
    assert_eq!(report.pruned.deleted, counts.of(Delete, Pack).calls);
    assert_eq!((counts.of(Put, Pack).calls, counts.of(Put, Pack).bytes), (written, report.pruned.bytes_written));
    // The condemnation and the plan; a fence in the only log, and before it a claim for what was repacked.
    assert_eq!((counts.of(Create, Prune).calls, counts.of(Create, Log).calls), (2, 1 + u64::from(written > 0)));
    assert!(counts.of(Read, Pack).bytes < 60_000 + 2 * report.pruned.bytes_written, "{} bytes", counts.of(Read, Pack).bytes);
    assert!(counts.of(List, Pack).calls <= 4 && counts.of(List, Index).calls <= 4);
    assert_eq!(counts.all(Get).calls, counts.of(Get, Log).calls + counts.of(Get, Prune).calls);
    assert!(counts.all(Get).calls < 30, "{} small objects are asked for", counts.all(Get).calls);
}

/// Which files below the source are opened, and which are read, while `run` runs.
#[cfg(target_os = "linux")]
fn touched(bench: &Bench, run: impl FnOnce()) -> (Vec<String>, Vec<String>) {
    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    let watch = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    for directory in 0..7 {
        add_watch(&watch, bench.source().join(format!("d{directory}")), WatchFlags::OPEN | WatchFlags::ACCESS).unwrap();
    }
    run();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64 << 10];
    let mut reader = Reader::new(watch, &mut buffer);
    let (mut opened, mut read) = (Vec::new(), Vec::new());
    while let Ok(event) = reader.next() {
        let Some(name) = event.file_name().filter(|_| !event.events().contains(ReadFlags::ISDIR)) else { continue };
        let list = if event.events().contains(ReadFlags::OPEN) { &mut opened } else { &mut read };
        list.push(name.to_str().unwrap().to_owned());
    }
    [&mut opened, &mut read].into_iter().for_each(|list| {
        list.sort();
        list.dedup();
    });
    (opened, read)
}

#[cfg(target_os = "linux")]
#[test]
fn files_that_have_not_changed_are_not_opened_and_those_with_new_metadata_are_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let bench = backed_up();
    let backup = || drop(back_up(&bench));
    assert_eq!(touched(&bench, backup), (Vec::new(), Vec::new()), "nothing has changed");
    std::fs::set_permissions(bench.source().join("d2/f2"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let (opened, read) = touched(&bench, backup);
    assert!(opened.iter().all(|name| name == "f2") && read.is_empty(), "{opened:?} {read:?}");
    bench.write("d1/f1", b"new");
    std::fs::rename(bench.source().join("d3/f3"), bench.source().join("d3/moved")).unwrap();
    let (opened, read) = touched(&bench, backup);
    assert_eq!(read, ["f1", "moved"]);
    assert_eq!(opened, read);
}
