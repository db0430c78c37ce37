//! What was backed up comes back.

mod support;

use lifeboat::event::Silent;
use lifeboat::format::snapshot::Snapshot;
use lifeboat::format::tree::{ChunkType, encode_leaf};
use lifeboat::ops::backup::{Input, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::restore::{Overwrite, restore};
use lifeboat::repo::{NewSlot, Repository, Session, default_sizes, recipients_of};
use lifeboat::store::{AnyStore, Memory};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;
use support::home::Home;
use support::{Bench, contents, noise};

fn files() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let content = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (any::<u64>(), 0usize..200_000).prop_map(|(seed, len)| noise(seed, len)),
        1 => (any::<u8>(), 0usize..100_000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    prop::collection::btree_map("[a-d]{1,2}(/[e-h]{1,2}){0,3}/[i-z .']{1,8}x", content, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn restoring_a_backup_gives_what_was_there(files in files(), later in files()) {
        let bench = Bench::new();
        for (name, content) in &files {
            bench.write(name, content);
        }
        bench.backup();
        let first = contents(&bench.source());
        let entry = bench.latest();
        for (name, content) in &later {
            bench.write(name, content);
        }
        let second = contents(&bench.source());
        bench.backup();
        bench.restore(&entry, &bench.path("one"));
        bench.restore(&bench.latest(), &bench.path("two"));
        prop_assert_eq!(contents(&bench.path("one")), first);
        prop_assert_eq!(contents(&bench.path("two")), second);
    }
}

#[test]
fn large_files_cut_in_parallel_come_back_and_deduplicate_after_an_insertion() {
    let bench = Bench::new();
    let mut content = noise(1, 21 << 20);
    bench.write("large", &content);
    let first = bench.backup();
    content.splice(5_000_000..5_000_000, *b"a few bytes more");
    bench.write("large", &content);
    let second = bench.backup();
    assert!(first.snapshot.counts.bytes_added > 20 << 20);
    assert!(second.snapshot.counts.bytes_added < 1 << 20, "{:?}", second.snapshot.counts);
    bench.restore(&bench.latest(), &bench.path("out"));
    assert!(std::fs::read(bench.path("out/large")).unwrap() == content);
}

#[test]
fn the_cuts_of_a_file_do_not_depend_on_the_number_of_workers() {
    let bench = Bench::new();
    bench.write("large", noise(7, 30 << 20));
    let mut one = bench.backup_options();
    one.threads = 1;
    backup(&bench.open(), one, &Silent).unwrap();
    let mut eight = bench.backup_options();
    (eight.threads, eight.reread) = (8, true);
    let report = backup(&bench.open(), eight, &Silent).unwrap();
    assert!(report.snapshot.counts.bytes_added < 4096, "only directories above the source may have changed");
}

#[test]
fn an_unchanged_tree_reads_nothing_and_puts_one_object() {
    let bench = Bench::new();
    for number in 0..300 {
        bench.write(&format!("{}/{number}", number % 7), noise(number, 3000));
    }
    bench.settled_backup();
    let counts = || ["packs", "log", "keys", "index"].map(|folder| bench.objects(folder).len());
    // The directory above is everybody's: when another program made something there meanwhile, it is stored again.
    let quiet = (0..20).any(|_| {
        let before = counts();
        let report = bench.backup();
        assert_eq!((report.snapshot.counts.bytes_read, report.snapshot.counts.unmodified), (0, 300));
        counts() == [before[0], before[1] + 1, before[2], before[3]]
    });
    assert!(quiet);
}

#[test]
fn a_change_of_mode_is_kept_without_reading_the_content() {
    let bench = Bench::new();
    bench.write("file", noise(3, 50_000));
    bench.settled_backup();
    std::fs::set_permissions(bench.source().join("file"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let report = bench.backup();
    assert_eq!((report.snapshot.counts.bytes_read, report.snapshot.counts.changed), (0, 1));
    bench.restore(&bench.latest(), &bench.path("out"));
    assert_eq!(std::fs::metadata(bench.path("out/file")).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn a_change_with_the_same_size_and_a_reset_mtime_is_read() {
    let bench = Bench::new();
    bench.write("container", noise(4, 10_000));
    bench.settled_backup();
    let path = bench.source().join("container");
    let mtime = std::fs::metadata(&path).unwrap().modified().unwrap();
    let other = noise(5, 10_000);
    std::fs::write(&path, &other).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    bench.backup();
    bench.restore(&bench.latest(), &bench.path("out"));
    assert!(std::fs::read(bench.path("out/container")).unwrap() == other);
}

#[test]
fn a_change_within_the_same_tick_is_seen() {
    let bench = Bench::new();
    bench.write("file", b"first.");
    bench.backup();
    bench.write("file", b"second");
    bench.backup();
    bench.restore(&bench.latest(), &bench.path("out"));
    assert_eq!(std::fs::read(bench.path("out/file")).unwrap(), b"second");
}

#[test]
fn sparse_files_keep_their_holes_and_empty_ones_stay_empty() {
    let bench = Bench::new();
    let file = std::fs::File::create(bench.source().join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&noise(9, 100_000), 20 << 20).unwrap();
    bench.write("empty", b"");
    bench.write("zeros", vec![0; 300_000]);
    std::fs::create_dir(bench.source().join("nothing")).unwrap();
    bench.backup();
    bench.restore(&bench.latest(), &bench.path("out"));
    let (from, to) = (bench.source().join("sparse"), bench.path("out/sparse"));
    assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
    assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
    assert_eq!(contents(&bench.source()).len(), contents(&bench.path("out")).len());
}

#[test]
fn hard_links_stay_links() {
    let bench = Bench::new();
    bench.write("a", noise(1, 5000));
    std::fs::hard_link(bench.source().join("a"), bench.source().join("b")).unwrap();
    bench.backup();
    bench.restore(&bench.latest(), &bench.path("out"));
    let inode = |name: &str| std::fs::metadata(bench.path(name)).unwrap().ino();
    assert_eq!(inode("out/a"), inode("out/b"));
}

#[test]
fn a_stream_comes_back_and_a_failed_one_commits_nothing() {
    let bench = Bench::new();
    let content = noise(11, 9 << 20);
    let mut options = bench.backup_options();
    let reader = Box::new(std::io::Cursor::new(content.clone()));
    options.input = Input::Stream { name: b"dumps/shop.sql".to_vec(), reader, finish: Box::new(|| Ok(())) };
    backup(&bench.open(), options, &Silent).unwrap();
    let mut to = bench.restore_options(&bench.path("out"));
    to.subpath = Vec::new();
    restore(&bench.open(), &bench.latest(), &to, &Silent).unwrap();
    assert!(std::fs::read(bench.path("out/dumps/shop.sql")).unwrap() == content);

    let mut options = bench.backup_options();
    let reader = Box::new(std::io::Cursor::new(content));
    let finish = Box::new(|| Err(lifeboat::error::Error::failed("pg_dump ended with 1")));
    options.input = Input::Stream { name: b"dumps/shop.sql".to_vec(), reader, finish };
    backup(&bench.open(), options, &Silent).unwrap_err();
    assert_eq!(bench.open().snapshots().unwrap().len(), 1);
}

#[test]
fn restore_refuses_a_full_target_writes_only_what_differs_and_removes_on_request() {
    let bench = Bench::new();
    bench.write("same", noise(1, 5000));
    bench.write("other", b"from the snapshot");
    bench.backup();
    let target = bench.path("out");
    bench.restore(&bench.latest(), &target);
    std::fs::write(target.join("other"), b"changed meanwhile").unwrap();
    std::fs::write(target.join("extra"), b"not in the snapshot").unwrap();
    let mut options = bench.restore_options(&target);
    let refused = restore(&bench.open(), &bench.latest(), &options, &Silent).unwrap_err();
    assert_eq!(refused.exit_code(), 11);
    options.overwrite = Overwrite::Never;
    assert_eq!(restore(&bench.open(), &bench.latest(), &options, &Silent).unwrap().skipped, 2);
    (options.overwrite, options.delete, options.verify) = (Overwrite::Always, true, true);
    let report = restore(&bench.open(), &bench.latest(), &options, &Silent).unwrap();
    assert_eq!((report.deleted, report.unchanged, report.bytes_written, report.verified), (1, 1, 17, 2));
    assert_eq!(contents(&target), contents(&bench.source()));
}

#[test]
fn directories_of_many_entries_and_included_parts_come_back() {
    let bench = Bench::new();
    for number in 0..5000 {
        bench.write(&format!("many/{number:05}"), number.to_string());
    }
    bench.write("other/file.conf", b"x");
    bench.backup();
    bench.write("many/02500a", b"one more");
    let report = bench.backup();
    assert!(report.snapshot.counts.bytes_added < 100_000, "one page and its spine are new, not {:?}", report.snapshot.counts);
    let mut options = bench.restore_options(&bench.path("out"));
    options.include = vec!["*.conf".into(), "many/0250*".into()];
    restore(&bench.open(), &bench.latest(), &options, &Silent).unwrap();
    assert_eq!(contents(&bench.path("out")).len(), 2 + 1 + 11);
    bench.restore(&bench.latest(), &bench.path("all"));
    assert_eq!(contents(&bench.path("all")), contents(&bench.source()));
}

/// So many chunks of eight bytes that their tables of contents are longer than they are.
#[test]
fn chunks_that_are_smaller_than_their_entries_fill_no_table_of_contents() {
    let bench = Bench::in_memory();
    let repository = bench.open();
    let session = Session::start(&repository, false).unwrap();
    let mut writer = session.writer().unwrap();
    for number in 0u64..600_000 {
        writer.put(ChunkType::Data, &number.to_le_bytes()).unwrap();
    }
    let mut page = Vec::new();
    encode_leaf(&[], 0, &mut page);
    let root = writer.put(ChunkType::Tree, &page).unwrap().id;
    session.commit(writer, |_| Snapshot { root, ..Snapshot::empty() }).unwrap().unwrap();
    let packs: Vec<_> = repository.packs().unwrap().iter().map(Result::unwrap).collect();
    assert!(packs.len() > 2, "{packs:?}");
    assert!(packs.iter().all(|pack| pack.toc_len < 10 << 20), "{packs:?}");
    // What compacts them keeps to it as well.
    let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, repack_small: true, ..PruneOptions::default() };
    prune(&repository, &options, &Silent).unwrap();
    assert!(repository.packs().unwrap().iter().all(|pack| pack.unwrap().toc_len < 10 << 20));
}

/// One block holds them all, and each is written to a file of its own.
#[test]
fn more_files_in_a_block_than_may_be_open_are_restored() {
    let home = Home::filled_in_memory();
    for number in 0..3000 {
        std::fs::write(home.path(&format!("documents/{number}")), format!("{number:050}")).unwrap();
    }
    home.ok(&["backup", "documents"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 256; exec \"$0\" restore latest:documents --to out --verify"]);
    command.arg(env!("CARGO_BIN_EXE_lifeboat")).env_clear().env("HOME", home.dir.path()).current_dir(home.dir.path());
    let output = command.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(contents(&home.path("out")) == contents(&home.path("documents")));
}

/// Chunks that compressors have stumbled over: runs, short periods, matches from far away, lengths around powers of two,
/// literals without any match, and what is almost noise.
fn nasty() -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> =
        (0..18).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]).map(|len| vec![0; len]).collect();
    chunks.extend([1, 2, 3, 7, 31, 255, 256, 257].map(|period| (0..40_000_usize).map(|at| (at % period) as u8).collect()));
    let far = noise(1, 120_000);
    chunks.extend([far.clone(), far.iter().rev().copied().collect(), far]);
    chunks.extend([2, 16, 200].map(|values| noise(values, 60_000).iter().map(|byte| byte % values as u8).collect()));
    let mut almost = noise(9, 100_000);
    almost.chunks_mut(997).for_each(|part| part[0] = 0);
    chunks.push(almost);
    let sums = (0..20_000_u32).map(|number| number.wrapping_mul(number));
    chunks.push(sums.flat_map(u32::to_le_bytes).collect());
    chunks.push("so ein Text, der sich beinahe wiederholt, \n".repeat(2500).replace("ei", "ie").into_bytes());
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

/// Every level that can be chosen, for each block as it is sealed; and it was compressed.
#[test]
fn every_level_gives_back_what_compressors_stumble_over() {
    let bench = Bench::in_memory();
    let recipient = recipients_of(bench.identity.as_bytes()).unwrap().remove(0);
    let chunks = nasty();
    let raw: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    for level in 1..=19 {
        let store: AnyStore = Arc::new(Memory::default());
        let (made, machine) = (store.clone(), format!("level-{level}"));
        let (slot, sizes) = (NewSlot::Recipient(recipient.clone()), default_sizes(1 << 20).unwrap());
        let repository = Repository::init_store(|| Ok(made), &slot, sizes, level, &bench.options_of(&machine)).unwrap();
        let session = Session::start(&repository, false).unwrap();
        let mut writer = session.writer().unwrap();
        let ids: Vec<_> = chunks.iter().map(|chunk| writer.put(ChunkType::Data, chunk).unwrap().id).collect();
        let mut page = Vec::new();
        encode_leaf(&[], 0, &mut page);
        let root = writer.put(ChunkType::Tree, &page).unwrap().id;
        session.commit(writer, |_| Snapshot { root, ..Snapshot::empty() }).unwrap().unwrap();
        let stored: u64 = repository.packs().unwrap().bytes();
        assert!(stored < raw * 2 / 3, "level {level}: {stored} bytes are stored for {raw}");
        let other = bench.open_over(store, &format!("reader-{level}")).unwrap();
        let reader = other.reader().unwrap();
        for (number, (id, chunk)) in ids.iter().zip(&chunks).enumerate() {
            assert!(reader.chunk(ChunkType::Data, id).unwrap() == *chunk, "level {level}: chunk {number}");
        }
        assert!(!check(&other, &CheckOptions::of_all_data(1), &Silent).unwrap().is_damaged(), "level {level}");
    }
}

/// Writes `pieces` of noise one after the other, and leaves holes of `gap` bytes before, between, and behind them.
fn with_holes(bench: &Bench, name: &str, gap: u64, pieces: u64, length: usize) {
    let file = std::fs::File::create(bench.source().join(name)).unwrap();
    let step = gap + length as u64;
    (0..pieces).for_each(|piece| file.write_all_at(&noise(piece, length), gap + piece * step).unwrap());
    file.set_len(gap + pieces * step).unwrap();
}

/// Where runs of one byte and holes end just before, at, and behind the ends of chunks and of the parts in which large
/// files are read.
#[test]
fn runs_of_one_byte_and_holes_that_end_beside_the_ends_of_chunks_come_back() {
    const PART: usize = 4 << 20;
    let bench = Bench::in_memory();
    let sizes = default_sizes(4096).unwrap();
    let borders = [sizes.minimum, sizes.average, sizes.maximum, 2 * sizes.maximum, 64, 1].map(|border| border as usize);
    for border in borders {
        for length in [border - 1, border, border + 1] {
            for byte in [0, 0xff] {
                bench.write(&format!("runs/{length}-{byte}"), vec![byte; length]);
                bench.write(&format!("between/{length}-{byte}"), [noise(1, 9000), vec![byte; length], noise(2, 9000)].concat());
            }
        }
    }
    for length in [PART - 1, PART, PART + 1, 2 * PART + 1] {
        bench.write(&format!("large/zeros-{length}"), vec![0; length]);
        bench.write(&format!("large/across-{length}"), [noise(3, length - 3000), vec![0; 6000], noise(4, 5000)].concat());
    }
    for gap in [4096, u64::from(sizes.maximum), PART as u64 - 4096, PART as u64] {
        with_holes(&bench, &format!("holes-{gap}"), gap, 5, 4096);
        with_holes(&bench, &format!("longer-{gap}"), gap, 3, PART);
        with_holes(&bench, &format!("only-{gap}"), gap, 0, 0);
    }
    bench.backup();
    bench.restore(&bench.latest(), &bench.path("out"));
    let (before, after) = (contents(&bench.source()), contents(&bench.path("out")));
    assert!(before.len() > 80 && before.len() == after.len());
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is, "{} is {} and not {}", was.0.display(), is.0.display(), "what it was");
    }
    let blocks = |name: &str| std::fs::metadata(bench.path("out").join(name)).unwrap().blocks();
    assert_eq!((blocks("only-4096"), blocks(&format!("only-{PART}"))), (0, 0), "holes stay holes");
    assert!(!check(&bench.open(), &CheckOptions::of_all_data(2), &Silent).unwrap().is_damaged());
}

/// Files that share chunks and blocks with each other, one after the other by themselves: none gets pieces of another one.
#[test]
fn each_file_taken_alone_is_what_it_is_in_the_whole() {
    let bench = Bench::in_memory();
    for file in 0..60_u64 {
        let length = usize::try_from(file * 1300 + 1).unwrap();
        let parts = [noise(file % 5, 20_000), noise(1000 + file, length), noise(file % 3, 20_000), vec![0; length]];
        bench.write(&format!("d{}/f{file}", file % 4), parts[..1 + usize::try_from(file % 4).unwrap()].concat());
    }
    bench.backup();
    let (repository, entry) = (bench.open(), bench.latest());
    let mut taken = 0;
    for (path, bytes) in contents(&bench.source()) {
        let Some(bytes) = bytes else { continue };
        let name = path.to_str().unwrap().to_owned();
        let mut printed = Vec::new();
        let whole = [bench.subpath(), b"/".to_vec(), name.clone().into_bytes()].concat();
        lifeboat::ops::cat::cat(&repository, &entry, &whole, &mut printed, &Silent).unwrap();
        assert!(printed == bytes, "{name} is printed otherwise");
        let target = bench.path("out");
        let mut options = bench.restore_options(&target);
        options.include = vec![name.clone()];
        restore(&repository, &entry, &options, &Silent).unwrap();
        let files: Vec<_> = contents(&target).into_iter().filter(|(_, bytes)| bytes.is_some()).collect();
        assert!(files == [(path, Some(bytes))], "{name} is restored otherwise");
        std::fs::remove_dir_all(&target).unwrap();
        taken += 1;
    }
    assert_eq!(taken, 60);
}
