//! The suite asked of stores on real servers, after what a probe has to find of each.

use super::servers::{self, Server};
use super::suite::{ALL, Place, key};
use lifeboat::error::ErrorKind;
use lifeboat::store::{AnyStore, Created, Location};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Handles of a place, as of so many processes.
const HANDLES: usize = 3;
/// What only a store for several writers can keep.
const RACE: &str = "of_many_who_create_a_name_at_once_exactly_one_wins";

/// What a server makes of a condition to create only what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    /// One wins.
    Atomic,
    /// It is answered, and several win now and then, so seldom that it may not be noticed.
    Seldom,
    /// It is answered, and several win.
    Racy,
    /// It is not looked at.
    Ignored,
}

/// A repository's folder on a server, already probed, so that its answers are known.
fn place(server: &Server, folder: &str) -> Place {
    let answers = server.dir.path().join("answers");
    let open = |create: bool| -> AnyStore {
        let location = Location::parse(&server.url(folder)).unwrap().with_settings(server.settings(Some(&answers)));
        if create { location.create().unwrap() } else { location.open().unwrap() }
    };
    open(true).put(&key("format/1"), b"a store is opened by its format").unwrap();
    let handles: Vec<AnyStore> = (0..HANDLES).map(|_| open(false)).collect();
    let next = Arc::new(AtomicUsize::new(0));
    Place::new(move || handles[next.fetch_add(1, Ordering::Relaxed) % HANDLES].clone())
}

/// What a probe finds is what is known of the server.
fn probed(server: &Server, folder: &str, conditions: Conditions) {
    let location = server.location(folder);
    location.create().unwrap();
    let promises = location.promises().unwrap();
    assert!(promises.read_after_write && promises.list_after_write && promises.delete && promises.ranges, "{promises:?}");
    let found = match (promises.create_once, promises.create_atomic) {
        (true, true) => Conditions::Atomic,
        (true, false) => Conditions::Racy,
        _ => Conditions::Ignored,
    };
    let is_seldom = conditions == Conditions::Seldom && found != Conditions::Ignored;
    assert!(found == conditions || is_seldom, "{conditions:?}: {promises:?}");
    assert_eq!(promises.many_writers(), found == Conditions::Atomic);
    let lacks = promises.lacks().join("; ");
    match found {
        Conditions::Atomic => assert!(lacks.is_empty(), "{lacks}"),
        Conditions::Racy | Conditions::Seldom => assert!(lacks.contains("more than one may win"), "{lacks}"),
        Conditions::Ignored => assert!(lacks.contains("replaces"), "{lacks}"),
    }
}

/// However often it is asked by somebody who does not know it.
#[test]
fn a_racy_server_is_never_taken_for_an_atomic_one() {
    let Some(server) = servers::s3s_fs() else { return };
    for attempt in 0..30 {
        probed(&server, &format!("probed{attempt}"), Conditions::Racy);
    }
}

/// Runs the whole suite on one server, but for the race where it is known that nobody wins alone.
fn conforms(server: Option<Server>, conditions: Conditions) {
    let Some(server) = server else { return };
    probed(&server, "probed", conditions);
    for (name, test) in ALL.iter().filter(|(name, _)| conditions == Conditions::Atomic || *name != RACE) {
        let place = place(&server, name);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&place)));
        assert!(passed.is_ok(), "{name}");
    }
}

#[test]
fn an_sftp_server_conforms() {
    conforms(servers::sshd(), Conditions::Atomic);
}

#[test]
fn an_s3_server_in_memory_conforms() {
    // It looks, and then it writes.
    conforms(servers::moto(), Conditions::Seldom);
}

#[test]
fn ceph_conforms() {
    conforms(servers::ceph(), Conditions::Atomic);
}

#[test]
fn the_s3_interface_of_b2_conforms() {
    conforms(servers::b2(), Conditions::Atomic);
}

#[test]
fn azures_emulator_conforms() {
    conforms(servers::azurite(), Conditions::Atomic);
}

#[test]
fn googles_interface_without_its_conditions_conforms_for_one_writer() {
    conforms(servers::gcs(), Conditions::Ignored);
}

#[test]
fn an_s3_server_that_ignores_conditions_conforms_for_one_writer() {
    conforms(servers::rclone_s3(), Conditions::Ignored);
}

#[test]
fn a_webdav_server_conforms_for_one_writer() {
    // It refuses, and nothing in the protocol makes it refuse all but one.
    conforms(servers::rclone_webdav(), Conditions::Racy);
}

#[test]
fn a_garage_cluster_conforms_for_one_writer() {
    let Some(cluster) = servers::garage() else { return };
    conforms(Some(cluster.server(0)), Conditions::Ignored);
}

#[test]
fn an_s3_server_whose_conditions_race_is_found_out_and_conforms_for_one_writer() {
    conforms(servers::s3s_fs(), Conditions::Racy);
}

#[test]
fn a_place_elsewhere_that_holds_something_is_refused() {
    let Some(server) = servers::sshd() else { return };
    std::fs::create_dir_all(server.dir.path().join("taken/photos")).unwrap();
    std::fs::write(server.dir.path().join("taken/photos/1.jpg"), b"here before").unwrap();
    assert_eq!(server.location("taken").create().err().unwrap().kind(), ErrorKind::Refused);
    assert_eq!(server.location("nothing").open().err().unwrap().kind(), ErrorKind::NoRepository);
    let made = server.location("free").create().unwrap();
    assert_eq!(made.create(&key("format/1"), b"x").unwrap(), Created::New);
    assert_eq!(server.location("free").create().err().unwrap().kind(), ErrorKind::Refused);
}
