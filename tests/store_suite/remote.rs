//! The suite asked of stores on real servers.

use super::servers::{self, Server};
use super::suite::{ALL, Place, key};
use lifeboat::error::ErrorKind;
use lifeboat::store::{AnyStore, Created, Location};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Handles of a place, as of so many processes.
const HANDLES: usize = 3;

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

/// Runs the whole suite, but for what is named in `without`, on one server.
fn conforms(server: Option<Server>, without: &[&str]) {
    let Some(server) = server else { return };
    for (name, test) in ALL.iter().filter(|(name, _)| !without.contains(name)) {
        let place = place(&server, name);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&place)));
        assert!(passed.is_ok(), "{name}");
    }
}

#[test]
fn an_sftp_server_conforms() {
    conforms(servers::sshd(), &[]);
}

#[test]
fn an_s3_server_with_conditions_conforms() {
    conforms(servers::moto(), &[]);
}

#[test]
fn an_s3_server_that_ignores_conditions_conforms_for_one_writer() {
    conforms(servers::rclone_s3(), &["of_many_who_create_a_name_at_once_exactly_one_wins"]);
}

#[test]
fn a_webdav_server_conforms() {
    conforms(servers::rclone_webdav(), &["of_many_who_create_a_name_at_once_exactly_one_wins"]);
}

#[test]
fn what_a_server_keeps_is_found_out_and_told() {
    let probed = |server: &Server| {
        let location = server.location("probed");
        location.create().unwrap();
        let promises = location.promises().unwrap();
        assert!(promises.read_after_write && promises.list_after_write && promises.delete, "{promises:?}");
        promises
    };
    if let Some(server) = servers::moto() {
        let promises = probed(&server);
        assert!(promises.many_writers() && promises.lacks().is_empty(), "{promises:?}");
    }
    if let Some(server) = servers::rclone_s3() {
        let promises = probed(&server);
        assert!(!promises.create_once && !promises.many_writers(), "{promises:?}");
        assert!(promises.lacks()[0].contains("replaces"));
    }
    if let Some(server) = servers::sshd() {
        assert!(probed(&server).many_writers());
    }
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
