//! Two things are wrong at once: the one never hides the other, and nothing whole goes because of it.

mod support;

use lifeboat::event::Silent;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, prune};
use lifeboat::ops::repair::{Outcome, RepairOptions, RepairReport, repair};
use lifeboat::repo::{Mend, MirrorOptions, Repository, mirror};
use lifeboat::store::{Key, Location};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::interposed::{Fate, Interposed, Verb};
use support::versions::copy_tree;
use support::{Bench, noise, tamper};

fn read_all(bench: &Bench) -> lifeboat::ops::check::CheckReport {
    check(&bench.open(), &CheckOptions::of_all_data(2), &Silent).unwrap()
}

/// Flips a bit of every thousandth byte of what lies in the middle.
fn spoil(path: &Path) {
    tamper(path, |bytes| {
        let (from, until) = (bytes.len() / 4, bytes.len() / 2);
        bytes[from..until].iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
    });
}

/// The pack that is longest.
fn largest(bench: &Bench) -> PathBuf {
    bench.objects("packs").into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

fn filled(seed: u64) -> Bench {
    let bench = Bench::new();
    (0..20).for_each(|file| bench.write(&format!("f{file}"), noise(seed + file, 30_000)));
    bench.backup();
    bench
}

#[test]
fn what_a_check_knows_of_chunks_is_not_forgotten_when_something_else_is_found() {
    let bench = filled(1);
    let pack = largest(&bench);
    spoil(&pack);
    let first = read_all(&bench);
    let lost = first.damaged.first(1).unwrap()[0].count;
    assert!(lost > 0);
    let marked = || bench.latest().damaged_files;
    assert_eq!(marked(), lost);
    // Something behind its end, which costs nothing; then a pack that cannot be had for a while, and is back.
    let whole = std::fs::read(&pack).unwrap();
    let structure = || check(&bench.open(), &CheckOptions::default(), &Silent).unwrap();
    tamper(&pack, |bytes| bytes.extend_from_slice(b"more"));
    let found = || structure().damaged.first(1).unwrap().first().map(|damaged| damaged.count);
    assert_eq!(found(), Some(lost), "it knows what it has read before");
    tamper(&pack, |bytes| *bytes = whole);
    assert_eq!(found(), Some(lost), "and goes on to know");
    let aside = bench.path("aside");
    std::fs::rename(&pack, &aside).unwrap();
    read_all(&bench);
    std::fs::rename(&aside, &pack).unwrap();
    assert_eq!(found(), Some(lost), "the pack is back, what it lost is not");
    assert_eq!(marked(), lost);
}

/// The same chunks in two packs: two machines stored them at the same time.
fn stored_twice() -> Bench {
    let bench = Bench::new();
    (0..20).for_each(|file| bench.write(&format!("f{file}"), noise(file, 30_000)));
    let (one, two) = (bench.open(), bench.open_over(bench.location().open().unwrap(), "two").unwrap());
    backup(&one, bench.backup_options(), &Silent).unwrap();
    // It has not read the log since.
    let how = bench.backup_options();
    backup(&two, how, &Silent).unwrap();
    bench
}

#[test]
fn a_prune_does_not_rely_on_chunks_that_a_check_could_not_read() {
    let bench = stored_twice();
    let mut data = bench.objects("packs");
    data.retain(|path| path.metadata().unwrap().len() > 500_000);
    assert_eq!(data.len(), 2, "both stored everything");
    for spoiled in 0..2 {
        let bench = stored_twice();
        let mut data = bench.objects("packs");
        data.retain(|path| path.metadata().unwrap().len() > 500_000);
        spoil(&data[spoiled]);
        let report = read_all(&bench);
        assert!(report.is_damaged() && report.damaged.is_empty(), "the other pack has it all");
        let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, ..PruneOptions::default() };
        let pruned = prune(&bench.open(), &options, &Silent).unwrap().pruned;
        assert!(pruned.deleted > 0, "one of the two is needed by nobody, or only for a part");
        for entry in bench.open().snapshots().unwrap() {
            let out = bench.path("out");
            bench.restore(&entry, &out);
            assert_eq!(support::contents(&out), support::contents(&bench.source()));
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
}

fn mirrored(bench: &Bench) -> Location {
    let there = Location::directory(&bench.path("mirror"));
    let progress = lifeboat::event::Progress::default();
    mirror(&bench.location(), &there, MirrorOptions::default(), &progress, &Silent).unwrap();
    there
}

fn mend_from(bench: &Bench, other: &Location) -> RepairReport {
    let options = RepairOptions { from: Some(other.clone()), apply: true, ..RepairOptions::default() };
    let opened = Repository::open_damaged(&bench.location(), &bench.access(), &bench.options(), &Silent).unwrap();
    repair(&opened, &options, &Silent).unwrap()
}

#[test]
fn a_damaged_duplicate_does_not_take_the_place_of_what_another_copy_has_whole() {
    let bench = filled(1);
    let parity = RepairOptions { parity: Some(100), apply: true, ..RepairOptions::default() };
    repair(&bench.open(), &parity, &Silent).unwrap();
    let other = mirrored(&bench);
    for folder in ["log", "packs"] {
        let object = match folder {
            "log" => bench.objects("log").pop().unwrap(),
            _ => largest(&bench),
        };
        let name = object.strip_prefix(bench.repository_dir()).unwrap().to_str().unwrap().to_owned();
        let spare = bench.repository_dir().join(Key::copy_of(&Key::new(&name).unwrap()).as_str());
        let whole = std::fs::read(&object).unwrap();
        // A repair that was cut off leaves the second copy of a pack behind.
        std::fs::create_dir_all(spare.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&spare);
        std::fs::write(&spare, &whole).unwrap();
        for path in [&object, &spare] {
            tamper(path, |bytes| bytes[200..].iter_mut().for_each(|byte| *byte ^= 1));
        }
        if folder == "packs" {
            bench.objects("parity").iter().for_each(|path| std::fs::remove_file(path).unwrap());
        }
        let report = mend_from(&bench, &other);
        let steps: Vec<_> =
            report.steps.iter().map(Result::unwrap).map(|step| (step.mend.to_string(), step.outcome, step.reason)).collect();
        assert!(
            report.steps.iter().map(Result::unwrap).any(|step| matches!(&step.mend, Mend::Fetch(key) if key.as_str() == name)),
            "{steps:?}"
        );
        assert!(report.steps.iter().map(Result::unwrap).all(|step| step.outcome != Outcome::Failed), "{steps:?}");
        assert!(std::fs::read(&object).unwrap() == whole, "{folder}");
    }
    assert!(!read_all(&bench).is_damaged());
}

#[test]
fn another_copy_that_cannot_be_read_in_one_place_helps_in_all_others_and_nothing_is_called_lost() {
    let bench = filled(1);
    (0..20).for_each(|file| bench.write(&format!("f{file}"), noise(100 + file, 30_000)));
    bench.backup();
    let other = mirrored(&bench);
    let mut data = bench.objects("packs");
    data.retain(|path| path.metadata().unwrap().len() > 500_000);
    assert_eq!(data.len(), 2);
    data.iter().for_each(|path| spoil(path));
    // In the other copy a directory stands where one of them should: to read it is an error, and no answer.
    let name = data[0].strip_prefix(bench.repository_dir()).unwrap();
    let blocked = bench.path("mirror").join(name);
    let kept = std::fs::read(&blocked).unwrap();
    std::fs::remove_file(&blocked).unwrap();
    std::os::unix::fs::symlink(blocked.file_name().unwrap(), &blocked).unwrap();
    let report = mend_from(&bench, &other);
    let steps: Vec<_> = report.steps.iter().map(Result::unwrap).map(|step| (step.mend.to_string(), step.outcome)).collect();
    assert!(report.steps.iter().map(Result::unwrap).all(|step| !matches!(step.mend, Mend::MarkLost(..))), "{steps:?}");
    let fetched = |step: &lifeboat::ops::repair::Step| matches!(step.mend, Mend::Fetch(_)) && step.outcome == Outcome::Done;
    assert_eq!(report.steps.iter().map(Result::unwrap).filter(|step| fetched(step)).count(), 1, "{steps:?}");
    assert!(
        report.findings.iter().map(Result::unwrap).any(|finding| finding.problem.contains("it is not known")),
        "{:?}",
        report.findings
    );
    std::fs::remove_file(&blocked).unwrap();
    std::fs::write(&blocked, kept).unwrap();
    mend_from(&bench, &other);
    assert!(!read_all(&bench).is_damaged());
}

#[test]
fn a_second_copy_that_decays_before_it_is_put_in_place_takes_no_place() {
    let bench = filled(1);
    let parity = RepairOptions { parity: Some(100), apply: true, ..RepairOptions::default() };
    repair(&bench.open(), &parity, &Silent).unwrap();
    let object = bench.objects("log").pop().unwrap();
    let name = Key::new(object.strip_prefix(bench.repository_dir()).unwrap().to_str().unwrap()).unwrap();
    let (key, spare) = (Key::copy_of(&name), bench.repository_dir().join(Key::copy_of(&name).as_str()));
    let whole = std::fs::read(&spare).unwrap();
    let hurt = |from: usize| whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at >= from)).collect::<Vec<u8>>();
    let (damaged, decayed) = (hurt(200), hurt(300));
    tamper(&object, |bytes| bytes.clone_from(&damaged));
    let saved = bench.path("saved");
    copy_tree(&bench.repository_dir(), &saved);
    let mut mended = 0;
    for moment in 1.. {
        std::fs::remove_dir_all(bench.repository_dir()).unwrap();
        copy_tree(&saved, &bench.repository_dir());
        let (reads, path, bytes) = (Arc::new(AtomicU64::new(0)), spare.clone(), decayed.clone());
        let (count, wanted) = (reads.clone(), key.to_string());
        // From some look at it on it is damaged as well.
        let store = Interposed::new(bench.location().open().unwrap(), move |_, verb, key| {
            if verb == Verb::Get && key == wanted && count.fetch_add(1, Ordering::Relaxed) + 1 == moment {
                tamper(&path, |there| there.clone_from(&bytes));
            }
            Fate::Pass
        });
        if let Ok(opened) = bench.open_over(store.store(), &format!("machine-{moment}")) {
            let options = RepairOptions { apply: true, ..RepairOptions::default() };
            let _ = repair(&opened, &options, &Silent);
        }
        let there = std::fs::read(&object).unwrap();
        assert!(there == damaged || there == whole, "at look {moment} what is damaged took its place");
        mended += u32::from(there == whole);
        if reads.load(Ordering::Relaxed) < moment {
            break;
        }
    }
    assert!(mended > 0);
}
