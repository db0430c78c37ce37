//! How near a backup comes to what its parts can do.
//!
//! The ceiling: the same bytes, already in memory, are cut, hashed, gathered into blocks, compressed, and sealed by one
//! thread for each processor, with the crates that the program uses and nothing else: no files are read, nothing is
//! looked up, verified, packed, or stored. The pipeline: a first backup of the same bytes by the library, from files
//! into a new repository. Both run in turn, the best round of each counts, and their ratio is what this prints.
//!
//!     cargo bench --bench pipeline [-- PATH]
//!
//! PATH is a file or a directory to back up; without it text that compresses about fourfold is made up. Files and
//! repository lie in memory where there is a /dev/shm. Without `--bench`, which cargo gives, it only shows that it runs.

#![expect(clippy::print_stdout, reason = "what it measured is what it is for")]

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use lifeboat::event::Silent;
use lifeboat::ops::backup::{BackupOptions, CheckpointOptions, Input, SETTLE, backup};
use lifeboat::repo::{Access, NewSlot, OpenOptions, Repository, default_sizes, generate_identity};
use lifeboat::source::files::RuleOptions;
use lifeboat::store::Location;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const LEVEL: i32 = 3;
const AVERAGE: u32 = 64 << 10;
const BLOCK: usize = 3 << 19;
/// What one thread takes on at a time.
const SEGMENT: usize = 4 << 20;
/// Length of the files that are made up.
const FILE: usize = 32 << 20;
/// Bytes of a tree that are held in memory for the ceiling.
const MOST: usize = 2 << 30;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|argument| argument == "--bench");
    let path = arguments.iter().find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let work = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let (source, data) = match path {
        Some(path) => {
            let mut data = Vec::new();
            read_tree(&path, &mut data)?;
            (path.canonicalize()?, data)
        }
        None => made_up(work.path(), if full { 512 << 20 } else { 8 << 20 })?,
    };
    let threads = std::thread::available_parallelism()?.get();
    let (mut ceiling, mut pipeline, mut stored) = (Duration::MAX, Duration::MAX, 0);
    for round in 0..if full { 5 } else { 1 } {
        ceiling = ceiling.min(in_memory(&data, threads)?);
        let (time, size) = back_up(&source, &work.path().join(format!("round-{round}")))?;
        (pipeline, stored) = (pipeline.min(time), size);
    }
    let rate = |time: Duration| data.len() as f64 / time.as_secs_f64() / 1e6;
    println!("{} MiB, {threads} threads, zstd level {LEVEL}, stored as {} MiB", data.len() >> 20, stored >> 20);
    println!("ceiling   {:7.0} MB/s", rate(ceiling));
    println!("pipeline  {:7.0} MB/s", rate(pipeline));
    println!("ratio     {:7.2}", ceiling.as_secs_f64() / pipeline.as_secs_f64());
    Ok(())
}

/// The content of all files at or below `path`, in order, until there is enough.
fn read_tree(path: &Path, data: &mut Vec<u8>) -> Outcome<()> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        let mut entries = std::fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        entries.iter().try_for_each(|entry| read_tree(&entry.path(), data))?;
    } else if kind.is_file() {
        data.append(&mut std::fs::read(path)?);
    }
    if data.len() > MOST { Err("this tree is too large to be held in memory: name a part of it".into()) } else { Ok(()) }
}

/// Text of words, some of them much more frequent than others, in which lines return; in files of `FILE` bytes.
fn made_up(work: &Path, length: usize) -> Outcome<(PathBuf, Vec<u8>)> {
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut words: Vec<String> = Vec::new();
    for _ in 0..8192 {
        let letters = 2 + random(9);
        words.push((0..letters).map(|_| char::from(b'a' + random(26) as u8)).collect());
    }
    let mut data = Vec::with_capacity(length + 4096);
    while data.len() < length {
        if data.len() > 1 << 16 && random(3) == 0 {
            let from = data.len() - 1 - random(1 << 16);
            let until = data.len().min(from + 40 + random(400));
            data.extend_from_within(from..until);
        }
        for _ in 0..3 + random(12) {
            let below = 1 + random(words.len());
            data.extend_from_slice(words[random(below)].as_bytes());
            data.push(b' ');
        }
        data.push(b'\n');
    }
    data.truncate(length);
    let source = work.join("source");
    std::fs::create_dir(&source)?;
    for (number, part) in data.chunks(FILE).enumerate() {
        std::fs::write(source.join(format!("{number:04}")), part)?;
    }
    Ok((source, data))
}

/// Cuts, hashes, compresses, and seals with all threads.
fn in_memory(data: &[u8], threads: usize) -> Outcome<Duration> {
    let segments: Vec<&[u8]> = data.chunks(SEGMENT).collect();
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(|| one_thread(&segments, &next))).collect();
        handles.into_iter().try_for_each(|handle| handle.join().unwrap_or_else(|_| Err("a thread failed".into())))
    })?;
    Ok(began.elapsed())
}

fn one_thread(segments: &[&[u8]], next: &AtomicUsize) -> Outcome<()> {
    let sizes = default_sizes(AVERAGE)?;
    let [minimum, average, maximum] = [sizes.minimum, sizes.average, sizes.maximum].map(|size| size as usize);
    let mut words = [0; 2048];
    blake3::Hasher::new_derive_key("lifeboat benchmark table").finalize_xof().fill(&mut words);
    let gear: Vec<u64> = words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let shifted: Vec<u64> = gear.iter().map(|word| word << 1).collect();
    let (strict, relaxed) = fastcdc::v2020::select_masks(average, fastcdc::v2020::Normalization::Level3);
    let cipher = chacha20poly1305::ChaCha20Poly1305::new(&[7; 32].into());
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let (mut block, mut packed) = (Vec::with_capacity(2 * BLOCK), Vec::with_capacity(3 * BLOCK));
    let mut seal = |block: &mut Vec<u8>| -> Outcome<()> {
        packed.clear();
        compressor.compress_to_buffer(&block[..], &mut packed)?;
        let sealed = cipher.encrypt_inout_detached(&[0; 12].into(), b"", packed.as_mut_slice().into());
        std::hint::black_box(sealed.map_err(|_| "a block could not be sealed")?);
        block.clear();
        Ok(())
    };
    while let Some(mut rest) = segments.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
        while !rest.is_empty() {
            let (strict_shifted, relaxed_shifted) = (strict << 1, relaxed << 1);
            let masks = (strict, relaxed, strict_shifted, relaxed_shifted);
            let (_, length) =
                fastcdc::v2020::cut_gear(rest, minimum, average, maximum, masks.0, masks.1, masks.2, masks.3, &gear, &shifted);
            let (chunk, after) = rest.split_at(length);
            std::hint::black_box(blake3::keyed_hash(&[9; 32], chunk));
            block.extend_from_slice(chunk);
            rest = after;
            if block.len() >= BLOCK {
                seal(&mut block)?;
            }
        }
    }
    if block.is_empty() { Ok(()) } else { seal(&mut block) }
}

/// A first backup into a new repository: the time, and the bytes stored.
fn back_up(source: &Path, place: &Path) -> Outcome<(Duration, u64)> {
    std::fs::create_dir(place)?;
    let (identity, recipient) = generate_identity()?;
    let location = Location::directory(&place.join("repository"));
    let options = OpenOptions { cache_dir: place.join("cache"), state_dir: place.join("state"), fingerprint: None };
    let slot = NewSlot::Recipient(recipient);
    Repository::init(&location, &slot, default_sizes(AVERAGE)?, LEVEL, &options)?;
    let access = Access { identity: Some(identity.as_bytes().to_vec().into()), passphrase: None };
    let repository = Repository::open(&location, &access, &options, &Silent)?;
    let began = Instant::now();
    let report = backup(
        &repository,
        BackupOptions {
            input: Input::Paths(vec![source.to_owned()]),
            kind: "full".into(),
            tags: Vec::new(),
            description: String::new(),
            host: "bench".into(),
            user: String::new(),
            rules: RuleOptions::default(),
            atime: false,
            reread: false,
            settle: SETTLE,
            dry_run: false,
            threads: 0,
            metadata: Vec::new(),
            retain_until: None,
            checkpoint: CheckpointOptions::default(),
        },
        &Silent,
    )?;
    let time = began.elapsed();
    std::fs::remove_dir_all(place)?;
    Ok((time, report.snapshot.counts.bytes_stored))
}
