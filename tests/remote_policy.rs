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

#[test]
fn a_writer_on_ceph_backs_up_and_deletes_nothing_and_creates_no_name_twice() {
    let Some(server) = servers::ceph() else { return };
    let bucket = server.url("")["s3://".len()..].split('/').next().unwrap().to_owned();
    let of_owner =
        |what: &str, body: &str| signed_request(server.port, KEY_ID, ("PUT", &format!("/{bucket}?{what}=")), &[], body);
    let (owner, writer) = (Home::documents(), Home::documents());
    std::fs::write(writer.path("documents/deep/data"), noise(7, 300_000)).unwrap();
    ok(&owner, (&server, KEY_ID), &["init"]);
    ok(&owner, (&server, KEY_ID), &["backup", "documents"]);
    let (identity, recipient) = generate_identity().unwrap();
    std::fs::create_dir_all(writer.path(".config/lifeboat")).unwrap();
    std::fs::write(writer.path(".config/lifeboat/identity.txt"), format!("{}\n", *identity)).unwrap();
    ok(&owner, (&server, KEY_ID), &["key", "enrol", "--role", "writer", "--recipient", &recipient, "--name", "w"]);
    let principal = "arn:aws:iam:::user/writer";
    let asked =
        ["key", "policy", "--role", "writer", "--s3", "--bucket", &bucket, "--prefix", "repository", "--principal", principal];
    let (status, said) = of_owner("policy", &owner.ok(&asked));
    assert!((200..300).contains(&status), "{said}");

    ok(&writer, (&server, WRITER), &["backup", "documents"]);
    let store = server.location("repository").open().unwrap();
    let mut names = Vec::new();
    let listed = store.list("", &mut |entry| {
        names.push(entry.key.to_string());
        Ok(())
    });
    listed.unwrap();
    let of_writer = |method: &str, name: &str, headers: &[(&str, &str)]| {
        signed_request(
            server.port,
            WRITER,
            (method, &format!("/{bucket}/repository/{name}")),
            headers,
            if method == "PUT" { "evil" } else { "" },
        )
        .0
    };
    for name in &names {
        assert_eq!(of_writer("DELETE", name, &[]), 403, "{name}");
        assert!([403, 412].contains(&of_writer("PUT", name, &[("if-none-match", "*")])), "{name}");
    }
    // What a user of this server creates is his: the policy of the bucket lets him read it, and nobody else unless it says so.
    ok(&owner, (&server, WRITER), &["check", "--read-data"]);
    ok(&owner, (&server, WRITER), &["restore", "latest", "--to", "out", "--verify"]);
}
