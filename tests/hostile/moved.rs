//! Objects that somebody made or moved: each is an error that names it, never a panic, and nothing is believed.

use super::support::{Bench, contents, noise, tamper};
use lifeboat::event::Silent;
use lifeboat::format::parity::{ParityHead, groups, shards_in};
use lifeboat::id::PackId;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::restore::restore;
use std::path::PathBuf;

fn filled(seed: u64, parity: u16) -> Bench {
    let bench = Bench::new();
    for number in 0..20 {
        bench.write(&format!("{}/{number}", number % 3), noise(seed + number, 30_000));
    }
    let repository = bench.open();
    repository.set_parity(parity);
    backup(&repository, bench.backup_options(), &Silent).unwrap();
    bench
}

fn packs(bench: &Bench) -> Vec<PathBuf> {
    let mut packs = bench.objects("packs");
    packs.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    packs
}

/// Whatever comes back is what was backed up, and a check names the objects at `paths`.
fn nothing_is_believed(bench: &Bench, paths: &[PathBuf], name: &str) {
    let report = check(&bench.open(), &CheckOptions::of_all_data(2), &Silent).unwrap();
    for path in paths {
        let object = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            report.findings.iter().map(Result::unwrap).any(|finding| finding.object.contains(&object)),
            "{name}: {:?}",
            report.findings
        );
    }
    let target = bench.path("out");
    let _ = restore(&bench.open(), &bench.latest(), &bench.restore_options(&target), &Silent);
    if !target.exists() {
        return;
    }
    let original = contents(&bench.source());
    for (path, bytes) in contents(&target) {
        if bytes.is_some() && !path.to_string_lossy().contains(".lifeboat") {
            assert!(original.contains(&(path.clone(), bytes)), "{name}: {}", path.display());
        }
    }
}

#[test]
fn packs_that_were_exchanged_are_named() {
    let bench = filled(1, 0);
    let packs = packs(&bench);
    let (one, two) = (std::fs::read(&packs[0]).unwrap(), std::fs::read(&packs[1]).unwrap());
    tamper(&packs[0], |bytes| *bytes = two);
    tamper(&packs[1], |bytes| *bytes = one);
    nothing_is_believed(&bench, &packs, "exchanged");
}

#[test]
fn a_pack_of_another_repository_is_named() {
    let (bench, other) = (filled(1, 0), filled(1, 0));
    let pack = packs(&bench).pop().unwrap();
    let theirs = std::fs::read(packs(&other).pop().unwrap()).unwrap();
    tamper(&pack, |bytes| *bytes = theirs);
    nothing_is_believed(&bench, &[pack], "of another repository");
}

#[test]
fn lengths_that_cannot_be_ask_for_no_memory() {
    for (name, at) in [("length of the table of contents", 8), ("commit", 40)] {
        let bench = filled(1, 0);
        let pack = packs(&bench).pop().unwrap();
        tamper(&pack, |bytes| {
            let end = bytes.len();
            bytes[end - at..end - at + 4].fill(0xff);
        });
        nothing_is_believed(&bench, &[pack], name);
    }
}

#[test]
fn parity_that_lies_is_never_believed() {
    let bench = filled(1, 200);
    for pack in packs(&bench) {
        tamper(&pack, |bytes| {
            let until = bytes.len().min(9000);
            bytes[3000..until].fill(1);
        });
    }
    // Sidecars whose own hashes are right, and whose recovery shards are not what was stored.
    for sidecar in bench.objects("parity") {
        tamper(&sidecar, |bytes| {
            let length = ParityHead::length(bytes).unwrap();
            let mut head = ParityHead::decode(&bytes[..length]).unwrap();
            bytes[length..].fill(7);
            head.recovery.fill(*blake3::hash(&[7; 64 << 10]).as_bytes());
            bytes.splice(..length, head.encode());
        });
    }
    nothing_is_believed(&bench, &packs(&bench), "parity that lies");
}

#[test]
fn heads_of_sidecars_with_counts_that_cannot_be_are_refused() {
    let size = 200_000;
    let head = ParityHead {
        pack: PackId([1; 32]),
        pack_len: size,
        group: 0,
        share: 50,
        data: vec![[2; 32]; shards_in(size, 0)],
        recovery: vec![[3; 32]; 1],
    };
    let whole = head.encode();
    assert_eq!(ParityHead::decode(&whole).unwrap(), head);
    assert_eq!(groups(size), 1);
    for at in 0..64 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let body = bytes.len() - 32;
            let hash = *blake3::hash(&bytes[..body]).as_bytes();
            bytes[body..].copy_from_slice(&hash);
            if let Ok(decoded) = ParityHead::decode(&bytes) {
                assert_eq!(decoded.encode(), bytes, "byte {at}");
            }
        }
    }
    for length in 0..whole.len() {
        assert!(ParityHead::decode(&whole[..length]).is_err(), "length {length}");
    }
}
