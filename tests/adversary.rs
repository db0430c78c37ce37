//! What somebody gains who has broken into a machine that backs up: all that lies on its disk, and the whole store.

mod support;

use lifeboat::crypto::wrap;
use lifeboat::event::Silent;
use lifeboat::format::envelope::ObjectKind;
use lifeboat::format::key::Role;
use lifeboat::format::log::{MAX_RECORD, RecordBody, RecordRef};
use lifeboat::format::tree::ChunkType;
use lifeboat::id::{ClientId, SlotId};
use lifeboat::ops::check::{CheckOptions, check};
use lifeboat::repo::{Access, Depth, OpenOptions, Repository, Session};
use lifeboat::store::{Key, Location};
use std::path::Path;
use std::process::Command;
use support::forge::Thief;
use support::noise;
use support::team::{Machine, Team};
use zeroize::Zeroizing;

const CANARIES: [&str; 4] =
    ["canary-content-of-the-owner", "canary-name-of-the-owner", "canary-content-of-the-writer", "canary-gone"];

/// An owner and a writer with snapshots, whose contents and names can be looked for.
fn scene() -> (Team, Machine) {
    let team = Team::new();
    let secret = format!("{} {}", CANARIES[0], "x".repeat(3000));
    std::fs::write(team.owner.path("documents").join(CANARIES[1]), secret).unwrap();
    team.owner.ok(&["backup", "documents"]);
    let writer = team.enrol("writer", "laptop", &["--trust", "all"]);
    writer.back_up("file", format!("{} {}", CANARIES[2], "y".repeat(3000)).as_bytes());
    writer.back_up("gone", CANARIES[3].as_bytes());
    std::fs::remove_dir_all(writer.home.path("data")).unwrap();
    (team, writer)
}

fn files(dir: &Path, each: &mut dyn FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, each) } else { each(&path, &std::fs::read(&path).unwrap()) }
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn no_byte_of_a_snapshot_and_no_key_that_reads_lies_on_the_disk_of_a_writer_or_in_the_store() {
    let (team, writer) = scene();
    let owner = Thief::of(&Machine {
        home: support::home::Home::new(),
        repository: writer.repository.clone(),
        identity: team.owner.path(".config/lifeboat/identity.txt"),
    });
    let mut secrets: Vec<Vec<u8>> = CANARIES.iter().map(|canary| canary.as_bytes().to_vec()).collect();
    secrets.push(owner.bundle.signing_seed.unwrap().to_vec());
    for generation in &owner.bundle.generations {
        secrets.extend([&generation.identity_data, &generation.identity_meta].map(|key| key.clone().unwrap().into_bytes()));
        secrets.extend([generation.index, generation.shared_data.unwrap(), generation.shared_meta.unwrap()].map(Vec::from));
    }
    secrets.push(owner.bundle.domain.unwrap().to_vec());
    let mut looked_at = 0;
    for dir in [writer.home.dir.path(), team.repository().as_path()] {
        files(dir, &mut |path, bytes| {
            looked_at += 1;
            let found = secrets.iter().find(|secret| holds(bytes, secret));
            assert!(
                found.is_none(),
                "{}: {:?}",
                path.display(),
                found.map(|secret| String::from_utf8_lossy(secret).into_owned())
            );
        });
    }
    assert!(looked_at > 15);
}

/// Opens a copy of the store with the writer's keys in a slot that says they are those of `role`, as a program would
/// that was changed to obey no rules.
fn with_forged_role(team: &Team, writer: &Machine, role: Role) -> (tempfile::TempDir, lifeboat::error::Result<Repository>) {
    let mut thief = Thief::of(writer);
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    assert!(Command::new("cp").arg("-a").arg(team.repository()).arg(&copy).status().unwrap().success());
    thief.bundle.role = role;
    if role != Role::Maintainer {
        let _ = thief.bundle.domain.get_or_insert([8; 32]);
    }
    for generation in &mut thief.bundle.generations {
        // Keys of the thief's own in the place of those that are nowhere.
        let vault = || wrap::generate_identity().0.to_string();
        let _ = generation.identity_data.get_or_insert_with(vault);
        let _ = generation.identity_meta.get_or_insert_with(vault);
        let _ = generation.shared_data.get_or_insert([8; 32]);
        if generation.vault_data.is_empty() {
            generation.vault_data = wrap::generate_identity().1;
        }
    }
    let (identity, recipient) = wrap::generate_identity();
    let slot = wrap::wrap_to(&recipient, &thief.bundle.encode()).unwrap();
    std::fs::write(copy.join(Key::slot(&SlotId([1; 16])).as_str()), slot).unwrap();
    let access = Access { identity: Some(Zeroizing::new(identity.as_bytes().to_vec())), passphrase: None };
    let options = OpenOptions { cache_dir: dir.path().join("cache"), state_dir: dir.path().join("state"), fingerprint: None };
    let opened = Repository::open(&Location::directory(&copy), &access, &options, &Silent);
    (dir, opened)
}

#[test]
fn what_a_writer_cannot_read_is_for_lack_of_keys_and_not_of_good_will() {
    let (team, writer) = scene();
    let bundle = Thief::of(&writer).bundle;
    assert!(bundle.generations.iter().all(|keys| keys.identity_data.is_none() && keys.identity_meta.is_none()));
    let roots: Vec<_> = team.owner.open().snapshots().unwrap().into_iter().map(|entry| entry.snapshot.root).collect();
    for role in [Role::Reader, Role::Owner, Role::Maintainer] {
        let (_dir, opened) = with_forged_role(&team, &writer, role);
        let repository = opened.unwrap();
        assert_eq!(repository.role(), role, "{role:?}");
        assert!(repository.snapshots().is_err(), "{role:?}: it opens snapshots");
        let reader = repository.reader().unwrap();
        for root in &roots {
            assert!(reader.chunk(ChunkType::Tree, root).is_err(), "{role:?}: it opens trees");
        }
        let mut verifier = repository.verifier().unwrap();
        for pack in repository.packs().unwrap().iter().map(Result::unwrap) {
            assert!(!verifier.verify(&pack, None, Depth::Data).unwrap().problems.is_empty(), "{role:?}: it opens blocks");
        }
    }
}

#[test]
fn a_maintainer_opens_no_file_even_with_a_forged_role() {
    let (team, _) = scene();
    let maintainer = team.enrol("maintainer", "server", &[]);
    let bundle = Thief::of(&maintainer).bundle;
    assert!(bundle.generations.iter().all(|keys| keys.identity_data.is_none() && keys.shared_data.is_none()));
    assert!(bundle.domain.is_none());
    let (_dir, opened) = with_forged_role(&team, &maintainer, Role::Maintainer);
    let repository = opened.unwrap();
    let entry = repository.snapshots().unwrap().remove(0);
    let reader = repository.reader().unwrap();
    let node = reader.resolve(&entry.snapshot.root, b"documents/note").unwrap();
    let mut out = Vec::new();
    assert!(reader.write_file(&node, &mut out).is_err() && out.is_empty(), "it opens data");
}

/// Everything that only others may say, said by a writer in every place where it could count.
fn forgeries(thief: &Thief, places: &[(ClientId, Option<ClientId>)]) {
    let owner = thief.owner();
    let records: Vec<RecordRef> = (0..8).map(|seq| RecordRef { client: owner, seq }).collect();
    let me = thief.signer().public();
    for (log, author) in places {
        for body in [
            RecordBody::Forget { records: records.clone() },
            RecordBody::Unhold { records: records.clone() },
            RecordBody::Enrol { public: me, role: Role::Owner, name: "me".into(), trusted: Vec::new(), slot: None },
            RecordBody::Revoke { client: owner, last: 0 },
            RecordBody::Fence { generation: 1 << 40 },
            RecordBody::Generation { number: 99, base: Vec::new() },
            RecordBody::Slot { id: SlotId([3; 16]), added: true, label: "mine".into(), recipient: String::new() },
            RecordBody::Attest { packs: thief.packs() },
        ] {
            thief.record(*log, 0, *author, body);
        }
    }
}

#[test]
fn what_a_writer_forges_has_no_effect() {
    let (team, writer) = scene();
    let before = team.owner.json(&["snapshots", "--json"]);
    let thief = Thief::of(&writer);
    let (owner, me) = (thief.owner(), thief.client());
    forgeries(&thief, &[(me, None), (owner, None), (owner, Some(me)), (me, Some(owner))]);
    thief.prune_object(ObjectKind::Condemn, me, 1, thief.packs());
    thief.prune_object(ObjectKind::Plan, me, 1, thief.packs());
    thief.prune_object(ObjectKind::Condemn, owner, 2, thief.packs());
    assert!(thief.create(&Key::plan(2), b"nothing that means anything"));
    // In the owner's name, from the one to the other.
    thief.prune_object(ObjectKind::Condemn, owner, 3, thief.packs());
    thief.prune_object(ObjectKind::Plan, owner, 3, thief.packs());
    // A record that is longer than any, one that is cut off, and one for a log that nobody has.
    let next = |log: &ClientId| Key::log(log, thief.next(log).0);
    assert!(thief.create(&next(&owner), &vec![0; usize::try_from(MAX_RECORD).unwrap() + 1]));
    assert!(thief.create(&next(&owner), b""));
    assert!(thief.create(&next(&ClientId([9; 16])), b"x"));
    for _ in 0..2 {
        assert_eq!(team.owner.json(&["snapshots", "--json"]), before);
        let clients = team.owner.json(&["key", "list", "--json"])["clients"].clone();
        assert_eq!(clients.as_array().unwrap().len(), 2);
        assert!(clients[0]["revoked_after"].is_null() && clients[1]["role"] == "writer");
        assert!(clients[0]["void_records"].as_u64().unwrap() >= 16 && clients[1]["void_records"].as_u64().unwrap() >= 8);
        // The same for somebody who has seen nothing before.
        std::fs::remove_dir_all(team.owner.path(".cache")).unwrap();
    }
    team.owner.ok(&["backup", "documents", "--tag", "after"]);
    team.owner.ok(&["prune", "--grace", "0s", "--max-unused", "0"]);
    let report = check(&team.owner.open(), &CheckOptions::of_all_data(2), &Silent).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    for (number, entry) in before.as_array().unwrap().iter().enumerate() {
        team.owner.ok(&["restore", entry["id"].as_str().unwrap(), "--to", &format!("out{number}"), "--verify"]);
    }
    // The writer itself goes on, if it was not the thief.
    writer.back_up("file", b"once more");
}

#[test]
fn a_record_of_a_kind_that_nobody_knows_stops_no_backup_and_every_prune() {
    let (team, writer) = scene();
    let thief = Thief::of(&writer);
    let last = thief.next(&thief.client()).0 - 1;
    let known = RecordBody::Fence { generation: 1 };
    let (seq, previous) = thief.next(&thief.client());
    let record = lifeboat::format::log::Record {
        client: thief.client(),
        seq,
        previous,
        time: 1,
        heads: Vec::new(),
        base: 0,
        body: known,
        author: None,
        extra: Vec::new(),
    };
    // Kind 3 becomes kind 23: the byte behind the key 6 of the map.
    let mut map = record.encode();
    let at = map.windows(3).rposition(|window| window == [6, 3, 7]).unwrap();
    map[at + 1] = 23;
    let sealed = thief.seal(ObjectKind::Log, lifeboat::crypto::sign::LOG_RECORD, &map);
    assert!(thief.create(&Key::log(&thief.client(), seq), &sealed));
    team.owner.ok(&["backup", "documents"]);
    team.owner.ok(&["check", "--read-data"]);
    let output = team.owner.run(&["prune"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not know") && said.contains("key revoke"), "{said}");
    team.owner.ok(&["key", "revoke", "laptop", "--last", &last.to_string()]);
    team.owner.ok(&["prune", "--grace", "0s"]);
}

#[test]
fn snapshots_from_the_future_push_nobody_elses_out() {
    let (team, writer) = scene();
    let all = team.owner.json(&["snapshots", "--json"]);
    let template = team.owner.open().snapshots().unwrap().pop().unwrap().snapshot;
    let identity = std::fs::read(&writer.identity).unwrap();
    let access = Access { identity: Some(Zeroizing::new(identity)), passphrase: None };
    let options = OpenOptions {
        cache_dir: writer.home.path(".cache/lifeboat"),
        state_dir: writer.home.path(".local/state/lifeboat"),
        fingerprint: None,
    };
    let repository = Repository::open(&Location::directory(&team.repository()), &access, &options, &Silent).unwrap();
    for day in 0..20 {
        let session = Session::start(&repository, false).unwrap();
        let sealed = session.writer().unwrap();
        let mut snapshot = template.clone();
        (snapshot.start, snapshot.end) = (4_102_444_800_000_000_000 + day, 4_102_444_800_000_000_000 + day);
        session.commit(sealed, |_| snapshot).unwrap().unwrap();
    }
    let maintainer = team.enrol("maintainer", "server", &[]);
    for more in [&[][..], &["--allow-most"], &["--times", "stored", "--allow-most"], &["--times", "claimed", "--allow-most"]] {
        let output = maintainer.run(&[&["forget", "--keep-last", "3", "--group-by", "host"], more].concat());
        assert!(matches!(output.status.code(), Some(0 | 11)));
    }
    maintainer.ok(&["prune", "--grace", "0s"]);
    let left = team.owner.json(&["snapshots", "--json"]);
    let owners: Vec<_> = all.as_array().unwrap().iter().filter(|entry| entry["client"] == all[0]["client"]).collect();
    for entry in owners {
        assert!(left.to_string().contains(entry["id"].as_str().unwrap()), "the owner's are all kept");
    }
    team.owner.ok(&["check", "--read-data"]);
}

#[test]
fn nobody_relies_on_what_a_thief_says_is_stored() {
    let (team, writer) = scene();
    let other = team.enrol("writer", "other", &[]);
    let content = noise(5, 200_000);
    writer.back_up("file", &content);
    // Garbage in the place of what the writer stored last.
    let newest = team.objects("packs").into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    support::tamper(&newest, |bytes| bytes[300..150_000].fill(0));
    let report = other.back_up("file", &content);
    assert!(report["bytes_stored"].as_u64().unwrap() > 200_000, "it stores the content itself");
    team.owner.ok(&["restore", report["id"].as_str().unwrap(), "--to", "out", "--verify"]);
    assert!(std::fs::read(team.owner.path("out/data/file")).unwrap() == content);
}
