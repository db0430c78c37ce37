//! Logs that are cut off: a checkpoint stands for old records, and every reader sees what it saw before.
#![expect(clippy::print_stdout, reason = "figures are printed for those who ask with --no-capture")]

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::{Progress, Silent};
use lifeboat::format::log::{Checkpoint, Head, RecordBody};
use lifeboat::ops::backup::{BackupOptions, backup};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::prune::{PruneOptions, Truncation, prune};
use lifeboat::ops::repair::{RepairOptions, repair};
use lifeboat::repo::{MirrorOptions, Repository, Rollback, mirror};
use lifeboat::store::{Key, Location};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use support::ahead::Ahead;
use support::forge::Thief;
use support::history::{History, cut, local, machine, pruning};
use support::home::Home;
use support::interposed::{Fate, Interposed, Verb};
use support::team::{Machine, Team};
use support::{contents, noise};

#[test]
fn old_records_go_and_everybody_sees_what_was_seen_before() {
    let mut history = History::new();
    history.back_up(0..30);
    let stale = machine(&history.bench, "stale");
    history.back_up(30..40);
    history.thin_out(4);
    let owner = history.bench.open();
    let all = owner.snapshots().unwrap();
    owner.hold(&[all[1].record()], "for the tax office").unwrap();
    let before = history.records();
    let report = cut(&owner);
    let expected = History::seen_by(&owner);
    assert_eq!(expected.len(), 10);
    assert!(before > 40 && history.records() < 10, "{before} records before, {} after", history.records());
    assert_eq!(report.pruned.records_deleted as usize + history.records(), before + 2, "a fence and the checkpoint came");
    history.healthy(&owner, &expected);
    stale.refresh(&Silent).unwrap();
    history.healthy(&stale, &expected);
    history.healthy(&machine(&history.bench, "fresh"), &expected);
    history.healthy(&machine(&history.bench, "stale"), &expected);
    // And so it goes on.
    for round in 0..3 {
        history.back_up(40 + 3 * round..43 + 3 * round);
        let owner = history.bench.open();
        let newest = owner.snapshots().unwrap().pop().unwrap();
        owner.forget(&[newest.record()]).unwrap();
        cut(&owner);
        let expected = History::seen_by(&owner);
        assert_eq!(expected.len(), 12 + 2 * usize::try_from(round).unwrap());
        assert!(history.records() < 12, "{} records", history.records());
        for name in ["stale", "fresh", &format!("new-{round}")] {
            history.healthy(&machine(&history.bench, name), &expected);
        }
    }
    // A hold ends as if its record were still there.
    let fresh = machine(&history.bench, "fresh");
    let held = fresh.snapshots().unwrap().into_iter().find(|entry| entry.is_held()).unwrap();
    assert_eq!(fresh.forget(&[held.record()]).unwrap_err().kind(), ErrorKind::Refused);
    fresh.unhold(&[held.record()]).unwrap();
    fresh.forget(&[held.record()]).unwrap();
    cut(&fresh);
    let left = History::seen_by(&history.bench.open());
    assert!(left.iter().all(|(description, ..)| *description != held.snapshot.description));
}

/// Clones of a machine that slept while its log was cut off find their next place free: it was taken before.
#[test]
fn a_writer_that_slept_while_its_log_was_cut_off_starts_again() {
    let mut history = History::new();
    history.back_up(0..3);
    drop(machine(&history.bench, "sleeper"));
    let slept = Arc::new(AtomicBool::new(false));
    let awake = Arc::new(Mutex::new(history));
    let (flag, other) = (slept.clone(), awake.clone());
    let inner = local(&awake.lock().unwrap().bench);
    let created = Arc::new(Mutex::new(Vec::new()));
    let names = created.clone();
    let store = Interposed::new(inner, move |_, verb, key| {
        if verb == Verb::Create && key.starts_with("log/") {
            names.lock().unwrap().push(key.to_owned());
            if !flag.swap(true, Ordering::SeqCst) {
                let mut history = other.lock().unwrap();
                history.back_up(3..6);
                history.thin_out(2);
                assert!(cut(&history.bench.open()).pruned.records_deleted > 3);
                // What the sleeper was reading, should it have to read it again.
                history.fill(2);
            }
        }
        Fate::Pass
    });
    let (sleeper, how) = {
        let mut history = awake.lock().unwrap();
        history.bench.write("slept", noise(77, 9000));
        let tree = contents(&history.bench.source());
        history.trees.insert("slept".into(), tree);
        let how = BackupOptions { description: "slept".into(), ..history.bench.backup_options() };
        (history.bench.open_over(store.store(), "sleeper").unwrap(), how)
    };
    backup(&sleeper, how, &Silent).unwrap();
    let history = awake.lock().unwrap();
    assert!(slept.load(Ordering::SeqCst));
    let created = created.lock().unwrap();
    assert!(created.len() > 1, "the first place was free, and counted no more: {created:?}");
    let expected = History::seen_by(&history.bench.open());
    assert!(expected.iter().any(|(description, ..)| description == "slept"));
    for name in ["sleeper", "fresh"] {
        history.healthy(&machine(&history.bench, name), &expected);
    }
    // What it relies on stays, and what it left in the freed place goes.
    cut(&history.bench.open());
    let first = history.bench.repository_dir().join(&created[0]);
    assert!(!first.exists());
    for name in ["sleeper", "fresh", "another"] {
        history.healthy(&machine(&history.bench, name), &expected);
    }
}

/// A place that is taken when a record is created there, and free again when the writer looks at who has it.
#[test]
fn a_writer_whose_rival_is_cut_off_while_it_looks_goes_on_behind_the_checkpoint() {
    let mut history = History::new();
    history.back_up(0..3);
    drop(machine(&history.bench, "slow"));
    let rival = Arc::new(Mutex::new(None::<String>));
    let stepped = Arc::new(AtomicBool::new(false));
    let shared = Arc::new(Mutex::new(history));
    let inner = local(&shared.lock().unwrap().bench);
    let (place, done, other) = (rival.clone(), stepped.clone(), shared.clone());
    let store = Interposed::new(inner, move |_, verb, key| {
        let mut taken = place.lock().unwrap();
        if verb == Verb::Create && key.starts_with("log/") && taken.is_none() {
            *taken = Some(key.to_owned());
            other.lock().unwrap().back_up(3..4);
        } else if verb == Verb::Get && taken.as_deref() == Some(key) && !done.swap(true, Ordering::SeqCst) {
            let mut history = other.lock().unwrap();
            history.back_up(4..7);
            history.thin_out(2);
            assert!(cut(&history.bench.open()).pruned.records_deleted > 3);
            assert!(!history.bench.repository_dir().join(key).exists());
            history.fill(2);
        }
        Fate::Pass
    });
    let (slow, how) = {
        let mut history = shared.lock().unwrap();
        history.bench.write("slow", noise(78, 9000));
        let tree = contents(&history.bench.source());
        history.trees.insert("slow".into(), tree);
        let how = BackupOptions { description: "slow".into(), ..history.bench.backup_options() };
        (history.bench.open_over(store.store(), "slow").unwrap(), how)
    };
    backup(&slow, how, &Silent).unwrap();
    assert!(stepped.load(Ordering::SeqCst));
    let history = shared.lock().unwrap();
    let expected = History::seen_by(&history.bench.open());
    assert!(expected.iter().any(|(description, ..)| description == "slow"));
    for name in ["slow", "fresh"] {
        history.healthy(&machine(&history.bench, name), &expected);
    }
}

/// On its way to the end of a log that was cut off, a writer reads a place that was freed and taken again, and behind it a
/// record that is still there.
#[test]
fn a_writer_that_meets_a_freed_place_on_its_way_believes_nothing_of_it() {
    let mut history = History::new();
    history.back_up(0..3);
    let (slow, sleeper) = (machine(&history.bench, "slow"), machine(&history.bench, "sleeper"));
    let freed = history.records();
    history.back_up(3..6);
    let is_behind = move |key: &str| u64::from_str_radix(key.rsplit('/').next().unwrap(), 16).unwrap() > freed as u64;
    let store = Interposed::new(local(&history.bench), move |_, verb, key| match verb {
        Verb::Delete if key.starts_with("log/") && is_behind(key) => Fate::Fail(ErrorKind::Failed),
        _ => Fate::Pass,
    });
    let runner = history.bench.open_over(store.store(), "runner").unwrap();
    assert!(prune(&runner, &pruning(Truncation::Always), &Silent).is_err(), "it stops behind the first place that is free");
    history.back_up_over(&sleeper, 6);
    history.back_up_over(&slow, 7);
    let expected = History::seen_by(&machine(&history.bench, "fresh"));
    assert_eq!(expected.len(), 8);
    for name in ["slow", "sleeper", "runner"] {
        history.healthy(&machine(&history.bench, name), &expected);
    }
}

/// The owner's key in somebody's hands who keeps to the format and not to the protocol.
#[test]
fn a_checkpoint_counts_only_if_the_owners_plan_names_it_and_saw_the_same() {
    let team = Team::new();
    let maintainer = team.enrol("maintainer", "server", &[]);
    std::fs::write(team.owner.path("documents/note"), "changed").unwrap();
    team.owner.ok(&["backup", "documents"]);
    let identity = team.owner.path(".config/lifeboat/identity.txt");
    let repository = team.repository().to_str().unwrap().to_owned();
    let owner = Thief::of(&Machine { home: Home::new(), repository: repository.clone(), identity: identity.clone() });
    let owner_elsewhere = || Machine { home: Home::new(), repository: repository.clone(), identity: identity.clone() };
    let head = owner.head(&owner.client());
    let empty = |heads: Vec<Head>| RecordBody::Checkpoint(Checkpoint { heads, ..Checkpoint::default() });
    let base = |generation: u64| generation - 1;
    // Named by no plan; by a plan that saw something else; by a plan of somebody who is not the owner.
    owner.record(owner.client(), base(1), None, empty(vec![head]));
    let unnamed = owner.head(&owner.client());
    owner.plan_with(1, vec![Head { seq: head.seq - 1, ..head }], (unnamed.seq, unnamed.hash));
    let thief = Thief::of(&maintainer);
    thief.plan_with(2, vec![head], (unnamed.seq, unnamed.hash));
    let records = team.owner.records();
    for machine in [&owner_elsewhere(), &maintainer, &owner_elsewhere()] {
        assert_eq!(machine.json(&["snapshots"]).as_array().unwrap().len(), 2);
        machine.ok(&["prune", "--grace", "0s", "--truncate-logs", "never"]);
        assert_eq!(machine.json(&["snapshots"]).as_array().unwrap().len(), 2);
    }
    assert!(team.owner.records() >= records, "nothing was deleted");
    team.owner.ok(&["check", "--read-data"]);
    owner_elsewhere().ok(&["restore", "latest", "--to", "out", "--verify"]);
}

#[test]
fn clients_of_all_roles_go_on_behind_a_checkpoint_on_new_machines_and_on_old_ones() {
    let team = Team::new();
    let writer = team.enrol("writer", "laptop", &["--trust", "none"]);
    let maintainer = team.enrol("maintainer", "server", &[]);
    let reader = team.enrol("reader", "desk", &[]);
    let gone = writer.back_up("file", &noise(1, 50_000));
    writer.back_up("file", &noise(2, 50_000));
    maintainer.ok(&["forget", gone["id"].as_str().unwrap(), "--allow-most"]);
    maintainer.ok(&["prune", "--grace", "0s", "--max-unused", "0"]);
    reader.ok(&["check", "--read-data"]);
    let ids = |machine: &Machine| -> Vec<String> {
        let listed = machine.json(&["snapshots"]);
        listed.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
    };
    let before = (team.owner.records(), ids(&reader));
    // Only the owner's prune cuts logs off.
    maintainer.ok(&["prune", "--truncate-logs", "always"]);
    assert!(team.owner.records() >= before.0);
    let said = team.owner.ok(&["prune", "--truncate-logs", "always"]);
    assert!(said.contains("old records deleted") && team.owner.records() < before.0, "{said}");
    for machine in [&writer, &writer.cloned()] {
        machine.back_up("file", &noise(3, 50_000));
        machine.back_up("other", b"more");
    }
    let after = ids(&reader);
    assert!(after.len() == before.1.len() + 4 && before.1.iter().all(|id| after.contains(id)));
    for machine in [&reader.cloned(), &maintainer.cloned(), &maintainer] {
        assert_eq!(ids(machine), after);
        machine.ok(&["check"]);
    }
    reader.cloned().ok(&["restore", &before.1[0], "--to", "out", "--verify"]);
    maintainer.cloned().ok(&["forget", &after[after.len() - 2], "--allow-most"]);
    maintainer.cloned().ok(&["prune", "--grace", "0s", "--max-unused", "0"]);
    team.owner.ok(&["prune", "--truncate-logs", "always"]);
    team.owner.ok(&["key", "revoke", "laptop"]);
    team.owner.ok(&["prune", "--truncate-logs", "always"]);
    assert_eq!(ids(&reader.cloned()).len(), after.len() - 1);
    for machine in [&reader, &reader.cloned()] {
        machine.ok(&["check", "--read-data"]);
    }
    assert!(!writer.run(&["backup", "data"]).status.success() && !writer.cloned().run(&["backup", "data"]).status.success());
}

#[test]
fn a_mirror_follows_and_what_is_lost_of_a_checkpoint_is_fetched_from_it() {
    let mut history = History::new();
    let mirrored = Location::directory(&history.bench.path("mirror"));
    let mirror_now = |history: &History| {
        mirror(&history.bench.location(), &mirrored, MirrorOptions::default(), &Progress::default(), &Silent).unwrap()
    };
    history.back_up(0..6);
    mirror_now(&history);
    for round in 0..2 {
        history.back_up(6 + round..9 + round);
        history.thin_out(3);
        cut(&history.bench.open());
        mirror_now(&history);
        let expected = History::seen_by(&history.bench.open());
        for name in ["mirror-old", &format!("mirror-{round}")] {
            history.healthy(&history.bench.open_over(mirrored.open().unwrap(), name).unwrap(), &expected);
        }
        assert_eq!(mirror_now(&history).copied, 0);
    }
    // The mirror has more records, and brings none of them back to life.
    let back = mirror(&mirrored, &history.bench.location(), MirrorOptions::default(), &Progress::default(), &Silent);
    assert!(back.unwrap().copied > 0);
    let expected = History::seen_by(&history.bench.open());
    history.healthy(&machine(&history.bench, "after"), &expected);
    cut(&history.bench.open());
    mirror_now(&history);
    let newest = |seq: &PathBuf| u64::from_str_radix(seq.file_name().unwrap().to_str().unwrap(), 16).unwrap();
    let checkpoint = history.bench.objects("log").into_iter().max_by_key(newest).unwrap();
    std::fs::remove_file(&checkpoint).unwrap();
    let error = history.bench.open_over(local(&history.bench), "nobody").err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::RolledBack) && error.hint().contains("--"), "{error}");
    let repository =
        Repository::open_damaged(&history.bench.location(), &history.bench.access(), &history.bench.options(), &Silent).unwrap();
    let report = check(&repository, &CheckOptions::of_all_data(2), &Silent).unwrap();
    assert!(report.is_damaged(), "the checkpoint is gone, and nobody says so");
    let mend = RepairOptions { from: Some(mirrored.clone()), apply: true, ..RepairOptions::default() };
    repair(&repository, &mend, &Silent).unwrap();
    assert!(checkpoint.exists());
    history.healthy(&machine(&history.bench, "mended"), &expected);
}

/// By default logs are cut off when enough can go; `LIFEBOAT_BACKUPS=1000` measures more.
#[test]
fn many_backups_leave_a_short_log_by_themselves_and_a_dry_run_says_so() {
    let count = std::env::var("LIFEBOAT_BACKUPS").ok().and_then(|text| text.parse().ok()).unwrap_or(110);
    let mut history = History::new();
    history.back_up(0..20);
    let run = |history: &History, dry_run| {
        prune(&history.bench.open(), &PruneOptions { dry_run, ..pruning(Truncation::Auto) }, &Silent).unwrap().pruned
    };
    let early = run(&history, false);
    assert_eq!((early.records_to_go, early.records_deleted), (0, 0), "a short log is left alone");
    history.back_up(20..count);
    let repository = history.bench.open();
    let all = repository.snapshots().unwrap();
    let going: Vec<_> = all[..all.len() - 30].iter().map(|entry| entry.record()).collect();
    repository.forget(&going).unwrap();
    let bytes =
        |history: &History| -> u64 { history.bench.objects("log").iter().map(|path| path.metadata().unwrap().len()).sum() };
    let before = (history.records(), bytes(&history));
    let said = run(&history, true).records_to_go;
    assert_eq!(history.records(), before.0);
    assert!(said + 5 >= count, "{said} of {count}");
    let done = run(&history, false);
    let after = (history.records(), bytes(&history));
    println!("{count} backups: {} records, {} bytes; after a prune {}, {}", before.0, before.1, after.0, after.1);
    assert!(done.records_deleted >= said && after.0 < 12);
    assert_eq!(run(&history, true).records_to_go, 0);
    let expected = History::seen_by(&history.bench.open());
    assert_eq!(expected.len(), 30);
    history.healthy(&machine(&history.bench, "fresh"), &expected);
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_store_that_is_set_back_to_before_its_logs_were_cut_off_is_noticed() {
    let mut history = History::new();
    history.back_up(0..6);
    let (there, before) = (history.bench.repository_dir(), history.bench.path("before"));
    drop(machine(&history.bench, "old"));
    copy_dir(&there, &before);
    history.back_up(6..9);
    history.thin_out(3);
    cut(&history.bench.open());
    let expected = History::seen_by(&history.bench.open());
    // Who has seen less than was cut off sees no rollback, and who has seen the checkpoint does.
    for name in ["old", "new"] {
        history.healthy(&machine(&history.bench, name), &expected);
    }
    std::fs::rename(&there, history.bench.path("after")).unwrap();
    copy_dir(&before, &there);
    for name in ["old", "new"] {
        let error = history.bench.open_over(local(&history.bench), name).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::RolledBack, "{error}");
    }
    let mut lost = Vec::new();
    let accepted = Repository::open_rolled_back(
        &history.bench.location(),
        &history.bench.access(),
        &history.bench.options_of("old"),
        &Silent,
        &mut |rollback| {
            lost.extend(rollback.logs.clone());
            Ok(())
        },
    );
    assert_eq!(History::seen_by(&accepted.unwrap()).len(), 6);
    assert!(!lost.is_empty());
    // And back to what it was.
    std::fs::remove_dir_all(&there).unwrap();
    std::fs::rename(history.bench.path("after"), &there).unwrap();
    for name in ["new", "other"] {
        history.healthy(&machine(&history.bench, name), &expected);
    }
}

#[test]
fn nothing_of_what_was_cut_off_is_lost_when_a_rollback_is_accepted() {
    let mut history = History::new();
    history.back_up(0..3);
    drop(machine(&history.bench, "old"));
    history.back_up(3..9);
    cut(&history.bench.open());
    let expected = History::seen_by(&history.bench.open());
    let (bench, mut told) = (&history.bench, Vec::new());
    let tell = &mut |rollback: &Rollback| {
        told.push(rollback.clone());
        Ok(())
    };
    let opened = Repository::open_rolled_back(&bench.location(), &bench.access(), &bench.options_of("old"), &Silent, tell);
    assert_eq!(History::seen_by(&opened.unwrap()), expected);
    assert_eq!(told, [Rollback::default()]);
}

/// The place of the next prune is asked for before the last record that was seen, and the log is cut off in between.
#[test]
fn a_log_that_is_cut_off_between_two_answers_was_not_set_back() {
    let mut history = History::new();
    history.back_up(0..3);
    drop(machine(&history.bench, "old"));
    history.back_up(3..9);
    let (owner, was_cut) = (history.bench.open(), AtomicBool::new(false));
    let expected = History::seen_by(&owner);
    let store = Interposed::new(local(&history.bench), move |_, verb, key| {
        if verb == Verb::Get && key.starts_with("log/") && !was_cut.swap(true, Ordering::SeqCst) {
            assert!(cut(&owner).pruned.records_deleted > 5);
        }
        Fate::Pass
    });
    let opened = history.bench.open_over(Ahead::over(store.wide(4).store()), "old").unwrap();
    assert_eq!(History::seen_by(&opened), expected);
}

/// Of two processes that use one cache, one has read the log beyond a floor before the plan came, and reads on; the other
/// learns of the plan, begins anew from the checkpoint, and is stopped before it has read on from there.
#[test]
fn who_reads_on_while_another_process_begins_the_cache_anew_misses_nothing() {
    let mut history = History::new();
    history.back_up(0..2);
    drop(machine(&history.bench, "shared"));
    history.back_up(2..4);
    let client = history.bench.open().snapshots().unwrap()[0].record().client;
    let name = move |seq: usize| Key::log(&client, seq as u64).as_str().to_owned();
    // A prune has written its checkpoint, and stops on its way to the plan.
    let (at_plan, stopped) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let store = Interposed::new(local(&history.bench), move |_, verb, key| {
        if verb == Verb::Create && key.starts_with("gc/") && key.ends_with(".plan") {
            at_plan.send(()).unwrap();
            may_go.lock().unwrap().recv().unwrap();
        }
        // Nothing is deleted yet.
        if verb == Verb::Delete { Fate::Fail(ErrorKind::Failed) } else { Fate::Pass }
    });
    let runner = history.bench.open_over(store.store(), "runner").unwrap();
    let running = std::thread::spawn(move || prune(&runner, &pruning(Truncation::Always), &Silent).map(drop));
    stopped.recv().unwrap();
    let covered = history.records();
    // More than are read at once.
    history.back_up(4..80);
    let last = history.records() - 1;
    let slow = {
        let (bench, done) = (local(&history.bench), Mutex::new(Some((go, running))));
        let (options, access) = (history.bench.options_of("shared"), history.bench.access());
        let (inner, last_name) = (local(&history.bench), name(last));
        Interposed::new(bench, move |_, verb, key| {
            if verb == Verb::Get
                && key == last_name
                && let Some((go, running)) = done.lock().unwrap().take()
            {
                go.send(()).unwrap();
                drop(running.join().unwrap());
                // Above the floor, and below what the first one has read.
                let next = name(covered + 5);
                let other = Interposed::new(inner.clone(), move |_, verb, key| match verb {
                    Verb::Get if key == next => Fate::Fail(ErrorKind::Failed),
                    _ => Fate::Pass,
                });
                Repository::open_store(other.store(), &access, &options, &Silent).map(drop).unwrap_err();
            }
            Fate::Pass
        })
    };
    let slow = history.bench.open_over(slow.store(), "shared").unwrap();
    assert_eq!(History::seen_by(&slow), History::seen_by(&machine(&history.bench, "fresh")));
    drop(slow);
    assert_eq!(History::seen_by(&machine(&history.bench, "shared")).len(), 80);
}
