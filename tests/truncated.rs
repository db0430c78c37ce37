//! What else stands on logs that were cut off: checkpoints in several parts, copies, kits, and what was done to snapshots.
#![expect(clippy::print_stdout, reason = "a test says what it skips")]

mod support;

use lifeboat::error::ErrorKind;
use lifeboat::event::{Progress, Silent};
use lifeboat::format::key::Role;
use lifeboat::format::log::{RecordBody, RecordRef};
use lifeboat::id::ClientId;
use lifeboat::ops::backup::backup;
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::ops::copy::{CopyOptions, CopyReport, copy};
use lifeboat::ops::prune::{Truncation, prune};
use lifeboat::ops::repair::{RepairOptions, repair};
use lifeboat::ops::thaw::ThawOptions;
use lifeboat::repo::{Access, Enrolment, MirrorOptions, NewSlot, OpenOptions, Repository, generate_identity, mirror};
use lifeboat::store::{AnyStore, Key, Location};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use support::forge::Thief;
use support::history::{History, cut, local, machine, pruning};
use support::home::Home;
use support::interposed::{Fate, Interposed, Verb};
use support::team::Team;
use support::versions::copy_tree;
use support::{Recorder, contents, noise, tamper};

/// A record that is as long as those of parts are, and as no other is.
const LONG: u64 = 3 << 20;

/// Snapshots with so much to say that the checkpoint of their records needs parts of its own.
fn talkative() -> History {
    let mut history = History::new();
    let repository = history.bench.open();
    for version in 0..20 {
        let words: String = noise(1000 + version, 450_000).iter().map(|byte| format!("{byte:02x}")).collect();
        history.back_up_as(&repository, version, format!("version {version}: {words}"));
    }
    history
}

fn parts(history: &History) -> Vec<PathBuf> {
    let mut parts = history.bench.objects("log");
    parts.retain(|path| path.metadata().unwrap().len() > LONG);
    parts
}

fn mirrored(history: &History) -> Location {
    let there = Location::directory(&history.bench.path("mirror"));
    mirror(&history.bench.location(), &there, MirrorOptions::default(), &Progress::default(), &Silent).unwrap();
    there
}

/// Restores the snapshot with the decoder that shares no code with the program; false where it cannot be run.
fn decoded(history: &History, snapshot: &str, out: &Path) -> bool {
    std::fs::write(history.bench.path("identity"), history.bench.identity.as_bytes()).unwrap();
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decoder/run"));
    command.arg(history.bench.repository_dir()).arg(history.bench.path("identity")).arg(snapshot).arg("--to").arg(out);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) && std::env::var_os("LIFEBOAT_NEED_DECODER").is_none() {
        println!("skipped: {said}");
        return false;
    }
    assert!(output.status.success(), "{said}");
    true
}

#[test]
fn a_checkpoint_in_several_parts_is_written_and_read_by_machines_that_know_nothing_and_by_the_decoder() {
    let mut history = talkative();
    drop(machine(&history.bench, "old"));
    let owner = history.bench.open();
    assert!(cut(&owner).pruned.records_deleted >= 19);
    assert_eq!(parts(&history).len(), 2, "what is said is longer than two parts");
    let expected = History::seen_by(&owner);
    assert_eq!(expected.len(), 20);
    assert_eq!(History::seen_by(&machine(&history.bench, "old")), expected);
    history.healthy(&machine(&history.bench, "fresh"), &expected);
    for entry in [0, 10, 19].map(|at| owner.snapshots().unwrap().swap_remove(at)) {
        let out = history.bench.path("decoded");
        if decoded(&history, &entry.id.to_string(), &out) {
            let below = out.join(std::str::from_utf8(&history.bench.subpath()).unwrap());
            assert!(contents(&below) == history.trees[&entry.snapshot.description]);
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
    // The next one takes the place of all of it.
    let before = parts(&history);
    history.back_up(20..22);
    cut(&history.bench.open());
    assert!(before.iter().all(|part| !part.exists()) && parts(&history).len() == 2);
    let expected = History::seen_by(&history.bench.open());
    for name in ["old", "newer"] {
        let repository = machine(&history.bench, name);
        assert_eq!(History::seen_by(&repository), expected);
        assert!(!check(&repository, &CheckOptions::default(), &Silent).unwrap().is_damaged());
    }
}

#[test]
fn a_part_of_a_checkpoint_that_is_lost_or_changed_is_named_and_comes_back_from_a_mirror() {
    let history = talkative();
    drop(machine(&history.bench, "old"));
    cut(&history.bench.open());
    let expected = History::seen_by(&history.bench.open());
    let mirror = mirrored(&history);
    for (number, part) in parts(&history).iter().enumerate() {
        for damage in ["gone", "changed"] {
            let whole = std::fs::read(part).unwrap();
            match damage {
                "gone" => std::fs::remove_file(part).unwrap(),
                _ => tamper(part, |bytes| bytes[2 << 20] ^= 1),
            }
            let name = part.file_name().unwrap().to_string_lossy().into_owned();
            // Who has to begin with the checkpoint cannot; who has read what it stands for can.
            let nobody = format!("nobody-{number}-{damage}");
            let error = history.bench.open_over(local(&history.bench), &nobody).err().unwrap();
            assert!(error.kind() == ErrorKind::Damaged && error.hint().contains("repair --from"), "{error}: {}", error.hint());
            assert_eq!(History::seen_by(&machine(&history.bench, "old")), expected);
            let options = (history.bench.access(), history.bench.options());
            let place = history.bench.location();
            let repository = Repository::open_damaged(&place, &options.0, &options.1, &Silent).unwrap();
            let report = check(&repository, &CheckOptions::default(), &Silent).unwrap();
            let found = report
                .findings
                .iter()
                .map(Result::unwrap)
                .any(|finding| finding.object.contains(&name) || finding.problem.contains(&name));
            assert!(report.is_damaged() && found, "{damage}: {:?}", report.findings);
            let mend = RepairOptions { from: Some(mirror.clone()), apply: true, ..RepairOptions::default() };
            repair(&repository, &mend, &Silent).unwrap();
            assert!(std::fs::read(part).unwrap() == whole, "{damage}");
            assert_eq!(History::seen_by(&machine(&history.bench, &nobody)), expected);
        }
    }
    let report = check(&machine(&history.bench, "fresh"), &CheckOptions::default(), &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

#[test]
fn where_nothing_was_deleted_yet_a_lost_part_costs_a_warning() {
    let history = talkative();
    let kept = |_, verb, key: &str| {
        if verb == Verb::Delete && key.starts_with("log/") { Fate::Fail(ErrorKind::Failed) } else { Fate::Pass }
    };
    let store = Interposed::new(local(&history.bench), kept);
    let stopped = history.bench.open_over(store.store(), "stopped").unwrap();
    assert!(prune(&stopped, &pruning(Truncation::Always), &Silent).is_err(), "it could not delete");
    std::fs::remove_file(parts(&history).pop().unwrap()).unwrap();
    let told = Recorder::default();
    let options = history.bench.options_of("fresh");
    let fresh = Repository::open_store(local(&history.bench), &history.bench.access(), &options, &told).unwrap();
    assert_eq!(fresh.snapshots().unwrap().len(), 20);
    assert!(told.warnings.lock().unwrap().iter().any(|told| told.contains("read the checkpoint")), "{:?}", told.warnings);
    // Nobody deletes by a checkpoint that nobody can read, and the next one is whole.
    let before = history.records();
    prune(&fresh, &pruning(Truncation::Never), &Silent).unwrap();
    assert!(history.records() >= before);
    assert!(cut(&fresh).pruned.records_deleted > 19);
    assert_eq!(History::seen_by(&machine(&history.bench, "after")), History::seen_by(&fresh));
}

#[test]
fn a_prune_by_somebody_who_may_not_cut_logs_off_says_when_the_owner_should() {
    let team = Team::new();
    let maintainer = team.enrol("maintainer", "server", &[]);
    let said = || {
        let output = maintainer.run(&["prune", "--grace", "0s"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(!said().contains("old records"));
    let keys = Thief::of(&maintainer);
    let claim = || RecordBody::Claim { packs: Vec::new(), checkpoint: None };
    (0..110).for_each(|_| keys.record(keys.client(), 0, None, claim()));
    let long = said();
    assert!(long.contains("old records can go") && long.contains("the owner"), "{long}");
    assert!(team.owner.ok(&["prune"]).contains("old records deleted"));
    assert!(!said().contains("old records"));
}

const COPY: CopyOptions = CopyOptions { dry_run: false, thaw: ThawOptions::NONE, threads: 2 };

fn copied(from: &Repository, to: &Repository) -> (usize, usize) {
    let CopyReport { copied, present, failed, .. } = copy(from, to, &from.snapshots().unwrap(), COPY, &Silent).unwrap();
    assert!(failed.is_empty());
    (copied.len(), present.len())
}

#[test]
fn snapshots_are_copied_from_and_to_repositories_whose_logs_were_cut_off_and_none_twice() {
    let (mut source, target) = (History::new(), History::new());
    source.back_up(0..6);
    source.thin_out(2);
    cut(&source.bench.open());
    assert_eq!(copied(&machine(&source.bench, "fresh"), &target.bench.open()), (3, 0));
    assert!(cut(&target.bench.open()).pruned.records_deleted > 0);
    // Neither side remembers anything: what was copied is known by the records that the checkpoint carries.
    assert_eq!(copied(&machine(&source.bench, "another"), &machine(&target.bench, "another")), (0, 3));
    source.back_up(6..8);
    cut(&source.bench.open());
    assert_eq!(copied(&source.bench.open(), &machine(&target.bench, "another")), (2, 3));
    cut(&target.bench.open());
    assert_eq!(copied(&source.bench.open(), &target.bench.open()), (0, 5));
    for place in [&source.bench, &target.bench] {
        let report = check(&machine(place, "last"), &CheckOptions::of_all_data(2), &Silent).unwrap();
        assert!(!report.is_damaged(), "{:?}", report.findings);
    }
    let restored = target.bench.path("out");
    let how =
        lifeboat::ops::restore::RestoreOptions { subpath: source.bench.subpath(), ..target.bench.restore_options(&restored) };
    for entry in target.bench.open().snapshots().unwrap() {
        lifeboat::ops::restore::restore(&target.bench.open(), &entry, &how, &Silent).unwrap();
        assert!(contents(&restored) == source.trees[&entry.snapshot.description]);
        std::fs::remove_dir_all(&restored).unwrap();
    }
}

/// Stops everything while records are deleted.
fn cut_off_half_way(store: AnyStore, history: &History) {
    let deleted = std::sync::atomic::AtomicU64::new(0);
    let store = Interposed::new(store, move |_, verb, key| {
        let stop =
            verb == Verb::Delete && key.starts_with("log/") && deleted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 2;
        if stop { Fate::Fail(ErrorKind::Failed) } else { Fate::Pass }
    });
    let repository = history.bench.open_over(store.store(), "half-way").unwrap();
    assert!(prune(&repository, &pruning(Truncation::Always), &Silent).is_err());
}

#[test]
fn a_mirror_that_is_made_while_logs_are_cut_off_is_whole() {
    let mut history = History::new();
    history.back_up(0..6);
    history.thin_out(2);
    cut_off_half_way(local(&history.bench), &history);
    let mirror = mirrored(&history);
    let there = |name: &str| history.bench.open_over(mirror.open().unwrap(), name).unwrap();
    let expected = History::seen_by(&there("first"));
    history.healthy(&there("first"), &expected);
    cut(&history.bench.open());
    mirrored(&history);
    let expected = History::seen_by(&history.bench.open());
    for name in ["first", "second"] {
        history.healthy(&there(name), &expected);
    }
}

#[test]
fn who_may_delete_packs_and_no_records_prunes_where_a_truncation_was_interrupted() {
    let mut history = History::new();
    history.back_up(0..6);
    history.thin_out(2);
    cut_off_half_way(local(&history.bench), &history);
    let records = history.bench.objects("log").len();
    let refused = Interposed::new(local(&history.bench), |_, verb, key| match verb {
        Verb::Delete if key.starts_with("log/") || key.starts_with("copies/") => Fate::Fail(ErrorKind::Refused),
        _ => Fate::Pass,
    });
    let repository = history.bench.open_over(refused.store(), "maintainer").unwrap();
    let report = prune(&repository, &pruning(Truncation::Never), &Silent).unwrap();
    assert!(report.pruned.deleted > 0, "the plan of the prune that was interrupted is carried out");
    assert_eq!((report.pruned.records_deleted, history.bench.objects("log").len()), (0, records));
    assert!(cut(&history.bench.open()).pruned.records_deleted > 0, "the owner's next prune deletes them");
    let expected = History::seen_by(&history.bench.open());
    history.healthy(&machine(&history.bench, "fresh"), &expected);
}

#[test]
fn what_was_done_to_snapshots_before_logs_were_cut_off_stands_and_can_be_undone_or_not_as_before() {
    let mut history = History::new();
    history.back_up(0..8);
    let owner = history.bench.open();
    let records: Vec<_> = owner.snapshots().unwrap().iter().map(|entry| entry.record()).collect();
    owner.hold(&records[..2], "for ever").unwrap();
    owner.forget(&records[2..4]).unwrap();
    owner.forget(&records[4..5]).unwrap();
    owner.unforget(&records[4..5]).unwrap();
    let stale = machine(&history.bench, "stale");
    cut(&owner);
    // Two machines that know all that was said, and one that knows the checkpoint alone.
    for (turn, name) in ["stale", "fresh"].into_iter().enumerate() {
        let repository = if turn == 0 { stale.clone() } else { machine(&history.bench, name) };
        repository.refresh(&Silent).unwrap();
        let error = repository.unforget(&records[2..3]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing, "{name}: {error}");
        assert_eq!(repository.hold(&records[3..4], "too late").unwrap_err().kind(), ErrorKind::Missing, "{name}");
        assert_eq!(repository.forget(&records[turn..=turn]).unwrap_err().kind(), ErrorKind::Refused, "{name}: it is held");
        // What was forgotten and brought back stands; forgotten behind the checkpoint, it can be brought back again.
        repository.forget(&records[4..5]).unwrap();
        assert_eq!(repository.snapshots().unwrap().len(), 5);
        repository.unforget(&records[4..5]).unwrap();
        repository.unhold(&records[turn..=turn]).unwrap();
        repository.forget(&records[turn..=turn]).unwrap();
        repository.unforget(&records[turn..=turn]).unwrap();
        repository.hold(&records[5 + turn..6 + turn], "from now on").unwrap();
        let expected = History::seen_by(&repository);
        assert_eq!(expected.len(), 6, "{name}: {expected:?}");
        owner.refresh(&Silent).unwrap();
        assert_eq!(History::seen_by(&owner), expected);
    }
    cut(&owner);
    let expected = History::seen_by(&owner);
    assert_eq!(expected.iter().filter(|(_, _, _, reason)| reason == "from now on").count(), 2);
    assert!(expected.iter().all(|(_, _, _, reason)| reason != "for ever"));
    for name in ["stale", "fresh", "other"] {
        history.healthy(&machine(&history.bench, name), &expected);
    }
}

#[test]
fn a_kit_from_before_logs_were_cut_off_restores_and_older_states_than_its_own_are_noticed() {
    let home = Home::filled();
    let set_aside = |name: &str| {
        let copied = Command::new("cp").arg("-a").arg(home.repository_dir()).arg(home.path(name)).status().unwrap();
        assert!(copied.success());
    };
    set_aside("older");
    home.ok(&["backup", "documents"]);
    home.ok(&["kit", "--with-identity", "--output", "kit.txt"]);
    set_aside("same");
    for version in ["one", "two", "three"] {
        std::fs::write(home.path("documents/note"), version).unwrap();
        home.ok(&["backup", "documents"]);
    }
    home.ok(&["forget", "--keep-last", "2", "--allow-most", "--yes"]);
    home.ok(&["prune", "--grace", "0s", "--truncate-logs", "always"]);
    home.ok(&["kit", "--with-identity", "--output", "newer.txt"]);
    let repository = home.repository_dir().to_str().unwrap().to_owned();
    // The code of a test of the page, and of a restore with what is on it, on a machine that has nothing.
    let run = |page: &str| {
        let fresh = Home::new();
        std::fs::copy(home.path(page), fresh.path("kit.txt")).unwrap();
        fresh.ok(&["kit", "join", "kit.txt", "--output", "identity.txt"]);
        let restore = ["--repo", &repository, "--identity", "identity.txt", "restore", "latest:documents", "--to", "out"];
        let codes = (fresh.code(&["kit", "test", "kit.txt"]), fresh.code(&restore));
        (codes, std::fs::read_to_string(fresh.path("out/note")).ok())
    };
    let three = Some("three".to_owned());
    assert_eq!(run("kit.txt"), ((0, 0), three.clone()), "the head on the page lies below the floor");
    assert_eq!(run("newer.txt"), ((0, 0), three));
    let now = |name: &str| {
        std::fs::rename(home.repository_dir(), home.path("aside")).unwrap();
        std::fs::rename(home.path(name), home.repository_dir()).unwrap();
    };
    // Set back to before the logs were cut off: the older page fits that, the newer one does not.
    now("same");
    assert_eq!(run("kit.txt"), ((0, 0), Some("hello".into())));
    assert_eq!(run("newer.txt"), ((14, 14), None));
    std::fs::rename(home.path("aside"), home.path("newest")).unwrap();
    now("older");
    assert_eq!((run("kit.txt").0, run("newer.txt").0), ((14, 14), (14, 14)));
}

/// A client with keys of its own, and what opens the repository as that client on a machine of this name.
fn enrolled(history: &History, role: Role, name: &str) -> impl Fn(&str) -> Repository + use<> {
    let (identity, recipient) = generate_identity().unwrap();
    let slot = NewSlot::Recipient(recipient);
    let enrolment = Enrolment { role, slot, name: name.into(), trust: vec!["all".into()] };
    history.bench.open().enrol(&history.bench.access(), &enrolment).unwrap();
    let (location, options) = (history.bench.location(), history.bench.dir.path().to_owned());
    move |machine| {
        let access = Access { identity: Some(identity.as_bytes().to_vec().into()), passphrase: None };
        let [cache_dir, state_dir] = ["cache", "state"].map(|what| options.join(format!("{what}-{machine}")));
        let options = OpenOptions { cache_dir, state_dir, fingerprint: None };
        Repository::open(&location, &access, &options, &Silent).unwrap()
    }
}

/// The two records behind `seq` that a machine would have written that saw no more, and their packs: a backup of what is in
/// the source, and a hold.
fn late_objects(history: &History, late: &Repository, held: RecordRef, (client, seq): (ClientId, u64)) -> Vec<(Key, Vec<u8>)> {
    let (there, saved) = (history.bench.repository_dir(), history.bench.path("as it was"));
    copy_tree(&there, &saved);
    backup(late, history.bench.backup_options(), &Silent).unwrap();
    late.hold(&[held], "").unwrap();
    let mut objects = Vec::new();
    late_paths(history, &saved).for_each(|path| {
        let key = Key::new(path.strip_prefix(&there).unwrap().to_str().unwrap()).unwrap();
        objects.push((key, std::fs::read(path).unwrap()));
    });
    let places = [seq + 1, seq + 2].map(|seq| Key::log(&client, seq));
    assert!(places.iter().all(|place| objects.iter().any(|(key, _)| key == place)) && objects.len() > 2);
    std::fs::remove_dir_all(&there).unwrap();
    copy_tree(&saved, &there);
    objects
}

/// Packs and records that were not there before.
fn late_paths(history: &History, saved: &Path) -> impl Iterator<Item = PathBuf> {
    let (there, saved) = (history.bench.repository_dir(), saved.to_owned());
    let all = history.bench.objects("packs").into_iter().chain(history.bench.objects("log"));
    all.filter(move |path| !saved.join(path.strip_prefix(&there).unwrap()).exists())
}

/// Somebody is told of records, and goes for them after the last look at prunes. In between their log is cut off, and two late
/// records come into the freed places: of what was read so nobody is sure, and it is read anew.
#[test]
fn what_is_read_after_the_last_look_at_prunes_is_not_believed_for_long() {
    let mut history = History::new();
    history.back_up(0..3);
    let writers = enrolled(&history, Role::Writer, "writer");
    let (writer, maintainer) = (writers("writer"), enrolled(&history, Role::Maintainer, "maintainer")("maintainer"));
    let owner = history.bench.open();
    let held = owner.snapshots().unwrap()[0].record();
    [&writer, &maintainer].iter().for_each(|client| client.hold(&[held], "").unwrap());
    owner.refresh(&Silent).unwrap();
    let clients: Vec<ClientId> = owner.members().unwrap().iter().map(|member| member.id).collect();
    history.fill(77);
    let late = late_objects(&history, &writers("late"), held, (clients[1], 0));
    history.fill(2);
    let (told, next) = (Key::log(&clients[2], 1).to_string(), Key::log(&clients[1], 1).to_string());
    let (moment, there) = (Arc::new(AtomicU64::new(0)), history.bench.repository_dir());
    let (begins, hows) = (moment.clone(), Mutex::new([0, 1].map(|_| history.bench.backup_options()).into_iter()));
    let store = Interposed::new(local(&history.bench), move |_, verb, key| {
        let is_at = |wanted: u64| verb == Verb::Get && moment.load(Ordering::SeqCst) == wanted;
        if is_at(1) && key == told {
            hows.lock().unwrap().by_ref().for_each(|how| drop(backup(&writer, how, &Silent).unwrap()));
            maintainer.refresh(&Silent).unwrap();
            maintainer.unhold(&[held]).unwrap();
            moment.store(2, Ordering::SeqCst);
        } else if is_at(2) && key.starts_with("gc/") {
            moment.store(3, Ordering::SeqCst);
        } else if is_at(3) && key == next {
            assert!(cut(&owner).pruned.records_deleted > 3);
            // This one names how far all logs go.
            writer.refresh(&Silent).unwrap();
            writer.hold(&[held], "").unwrap();
            for (key, bytes) in &late {
                std::fs::create_dir_all(there.join(key.as_str()).parent().unwrap()).unwrap();
                std::fs::write(there.join(key.as_str()), bytes).unwrap();
            }
            moment.store(4, Ordering::SeqCst);
        }
        Fate::Pass
    });
    let reader = history.bench.open_over(store.store(), "reader").unwrap();
    begins.store(1, Ordering::SeqCst);
    reader.refresh(&Silent).unwrap();
    assert_eq!(begins.load(Ordering::SeqCst), 4, "all of it happened");
    reader.refresh(&Silent).unwrap();
    let expected = History::seen_by(&machine(&history.bench, "fresh"));
    assert_eq!(expected.len(), 5);
    assert_eq!(History::seen_by(&reader), expected);
    // Nor is anything borrowed that only such a record lists: the next prune takes it.
    history.back_up_over(&reader, 77);
    cut(&machine(&history.bench, "fresh"));
    assert!(!check(&machine(&history.bench, "another"), &CheckOptions::of_all_data(1), &Silent).unwrap().is_damaged());
}

/// Two processes have one cache. One forgets when the other has marked, and before that one says what the logs came to.
#[test]
fn a_checkpoint_is_made_of_what_its_prune_has_seen_and_of_nothing_else() {
    let mut history = History::new();
    history.back_up(0..6);
    let other = machine(&history.bench, "shared");
    let last = other.snapshots().unwrap().pop().unwrap().record();
    let moment = AtomicU64::new(0);
    let store = Interposed::new(local(&history.bench), move |_, verb, key| {
        let begins = verb == Verb::Create && key.starts_with("gc/");
        let marked = verb == Verb::List && key == "packs" && moment.load(Ordering::SeqCst) == 1;
        if begins || marked {
            moment.fetch_add(1, Ordering::SeqCst);
        }
        if marked {
            other.forget(&[last]).unwrap();
        }
        Fate::Pass
    });
    let runner = history.bench.open_over(store.store(), "shared").unwrap();
    prune(&runner, &pruning(Truncation::Always), &Silent).unwrap();
    let fresh = machine(&history.bench, "fresh");
    assert_eq!(fresh.snapshots().unwrap().len(), 5);
    fresh.unforget(&[last]).unwrap();
    let expected = History::seen_by(&fresh);
    assert_eq!(expected.len(), 6);
    history.healthy(&machine(&history.bench, "another"), &expected);
}
