//! What `lifeboat key policy` prints for a writer, given to a real S3 server that knows users and policies.

#[path = "support/servers.rs"]
mod servers;
mod support;

use lifeboat::repo::generate_identity;
use servers::{KEY_ID, SECRET, Server, signed_request};
use support::home::Home;
use support::noise;

/// The user who may only what the bucket's policy lets him.
const WRITER: &str = "AKIALIFEBOAT00000002";

fn ok(home: &Home, (server, key_id): (&Server, &str), arguments: &[&str]) -> String {
    let url = server.url("repository");
    let mut command = home.command(&[&["--repo", &url], arguments].concat());
    let output = command.env("AWS_ACCESS_KEY_ID", key_id).env("AWS_SECRET_ACCESS_KEY", SECRET).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All that is there.
fn names(server: &Server) -> Vec<String> {
    let mut names = Vec::new();
    let store = server.location("repository").open_unseen().unwrap();
    let listed = store.list("", &mut |entry| {
        names.push(entry.key.to_string());
        Ok(())
    });
    listed.unwrap();
    names
}

/// Two users of the server, of whom one owns the bucket and the other may only what the policy lets it.
struct Users {
    server: Server,
    bucket: String,
    owner: Home,
    writer: Home,
}

impl Users {
    /// The repository has a backup of the owner's, and a writer is enrolled; `options` are those of `key policy`.
    fn new(server: Server, options: &[&str]) -> Self {
        let bucket = server.url("")["s3://".len()..].split('/').next().unwrap().to_owned();
        let (owner, writer) = (Home::documents(), Home::documents());
        std::fs::write(writer.path("documents/deep/data"), noise(7, 300_000)).unwrap();
        ok(&owner, (&server, KEY_ID), &["init"]);
        ok(&owner, (&server, KEY_ID), &["backup", "documents"]);
        let (identity, recipient) = generate_identity().unwrap();
        std::fs::create_dir_all(writer.path(".config/lifeboat")).unwrap();
        std::fs::write(writer.path(".config/lifeboat/identity.txt"), format!("{}\n", *identity)).unwrap();
        ok(&owner, (&server, KEY_ID), &["key", "enrol", "--role", "writer", "--recipient", &recipient, "--name", "w"]);
        let users = Self { server, bucket, owner, writer };
        let (principal, owns) = ("arn:aws:iam:::user/writer", "arn:aws:iam:::user/lifeboat");
        let asked = ["key", "policy", "--role", "writer", "--s3", "--bucket", &users.bucket, "--prefix", "repository"];
        let whom = ["--principal", principal, "--owner", owns];
        let policy = users.owner.ok(&[&asked[..], &whom, options].concat());
        let path = format!("/{}?policy=", users.bucket);
        let (status, said) = signed_request(users.server.port, KEY_ID, ("PUT", &path), &[], &policy);
        assert!((200..300).contains(&status), "{said}");
        users
    }

    fn owns(&self, arguments: &[&str]) -> String {
        ok(&self.owner, (&self.server, KEY_ID), arguments)
    }

    fn writes(&self, arguments: &[&str]) -> String {
        ok(&self.writer, (&self.server, WRITER), arguments)
    }

    /// With the writer's credential nothing that is there can be deleted or replaced.
    fn assert_safe(&self) {
        let of_writer = |method: &str, name: &str, headers: &[(&str, &str)]| {
            let path = format!("/{}/repository/{name}", self.bucket);
            let body = if method == "PUT" { "evil" } else { "" };
            signed_request(self.server.port, WRITER, (method, &path), headers, body).0
        };
        for name in names(&self.server) {
            assert_eq!(of_writer("DELETE", &name, &[]), 403, "{name}");
            let status = of_writer("PUT", &name, &[("if-none-match", "*")]);
            assert!([403, 412].contains(&status), "{name} {status}");
        }
    }
}

#[test]
fn a_writer_on_ceph_backs_up_and_deletes_nothing_and_creates_no_name_twice() {
    let Some(server) = servers::ceph() else { return };
    let users = Users::new(server, &[]);
    users.writes(&["backup", "documents"]);
    users.assert_safe();
    // What a user of this server creates is that user's; the policy lets the owner of the bucket have it.
    users.owns(&["check", "--read-data"]);
    users.owns(&["restore", "latest", "--to", "out", "--verify"]);
    users.owns(&["forget", "--keep-last", "1", "--allow-all", "--group-by", "none", "--yes"]);
}

#[test]
fn a_writer_on_ceph_stores_parity_and_the_owner_mends_with_it() {
    let Some(server) = servers::ceph() else { return };
    let users = Users::new(server, &[]);
    users.writes(&["backup", "documents", "--parity", "10%"]);
    std::fs::write(users.writer.path("documents/note"), "later").unwrap();
    users.writes(&["backup", "documents"]);
    users.assert_safe();
    let names = names(&users.server);
    let parity = names.iter().filter(|name| name.starts_with("parity/")).count();
    assert!(parity >= 4, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("copies/log/")), "{names:?}");
    assert!(names.iter().all(|name| !name.starts_with("copies/keys/") && !name.starts_with("copies/gc/")), "{names:?}");
    users.owns(&["check", "--read-data"]);
}

#[test]
fn a_writer_on_ceph_locks_what_it_puts_and_the_owner_lengthens_that() {
    let Some(server) = servers::ceph_with_locks() else { return };
    let users = Users::new(server, &["--lock-days", "30"]);
    let with = |days: u32| users.server.url_with("repository", &format!("lock-days={days}"));
    let run = |home: &Home, key_id: &str, url: &str, arguments: &[&str]| {
        let mut command = home.command(&[&["--repo", url], arguments].concat());
        command.env("AWS_ACCESS_KEY_ID", key_id).env("AWS_SECRET_ACCESS_KEY", SECRET).output().unwrap()
    };
    let backup = run(&users.writer, WRITER, &with(30), &["backup", "documents"]);
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    let packs: Vec<String> = names(&users.server).into_iter().filter(|name| name.starts_with("packs/")).collect();
    let evil = |method: &str, name: &str| {
        let path = format!("/{}/repository/{name}", users.bucket);
        signed_request(users.server.port, WRITER, (method, &path), &[], if method == "PUT" { "evil" } else { "" }).0
    };
    assert!(packs.iter().all(|name| evil("DELETE", name) == 403));
    // This server creates nothing atomically where versions are kept; but what was locked is still below.
    assert!(packs.iter().all(|name| evil("PUT", name) == 200));
    let repaired = run(&users.owner, KEY_ID, &with(30), &["repair", "--apply"]);
    assert_eq!(repaired.status.code(), Some(13), "damage was found, and mended: {repaired:?}");
    let checked = run(&users.owner, KEY_ID, &with(30), &["check", "--read-data"]);
    assert!(checked.status.success(), "{checked:?}");
    let pruned = run(&users.owner, KEY_ID, &with(90), &["prune", "--json"]);
    assert!(pruned.status.success(), "{}", String::from_utf8_lossy(&pruned.stderr));
    let pruned: serde_json::Value = serde_json::from_slice(&pruned.stdout).unwrap();
    assert!(pruned["locks_extended"].as_u64() > Some(6) && pruned["locks_refused"].as_u64() == Some(0), "{pruned}");
}
