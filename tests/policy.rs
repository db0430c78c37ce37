//! What `lifeboat key policy` prints: judged by the rules of the services, and by a real SSH server.
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

#[path = "support/ports.rs"]
mod ports;
mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::home::Home;

/// A request to an object store: what is asked, of which object, and the keys of its context.
struct Request<'a> {
    action: &'a str,
    key: &'a str,
    if_none_match: bool,
    /// False for the parts of an upload in parts.
    creates: bool,
    /// For so many days it is to be locked.
    days: u32,
}

fn values(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().map(|value| value.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((front, rest)) => text.strip_prefix(front).is_some_and(|text| (0..=text.len()).any(|at| fits(rest, &text[at..]))),
    }
}

fn meets(condition: &Value, request: &Request<'_>) -> bool {
    condition.as_object().into_iter().flatten().all(|(operator, keys)| {
        keys.as_object().unwrap().iter().all(|(key, wanted)| {
            let text = wanted.as_str().unwrap();
            let wanted = text == "true";
            match (operator.as_str(), key.as_str()) {
                ("Null", "s3:if-none-match") => wanted != request.if_none_match,
                ("Bool", "s3:ObjectCreationOperation") => wanted == request.creates,
                ("NumericLessThanEquals", "s3:object-lock-remaining-retention-days") => request.days <= text.parse().unwrap(),
                other => panic!("a condition that this test does not know: {other:?}"),
            }
        })
    })
}

/// As the service decides: what is denied anywhere is denied, and so is what is allowed nowhere.
fn allows(policy: &Value, request: &Request<'_>) -> bool {
    let resource =
        if request.action == "s3:ListBucket" { "arn:aws:s3:::b".to_owned() } else { format!("arn:aws:s3:::b/p/{}", request.key) };
    let speaking = policy["Statement"].as_array().unwrap().iter().filter(|statement| {
        assert_eq!(statement["Principal"]["AWS"], "arn:aws:iam::1:user/w");
        values(&statement["Action"]).contains(&request.action)
            && values(&statement["Resource"]).iter().any(|pattern| fits(pattern, &resource))
            && statement.get("Condition").is_none_or(|condition| meets(condition, request))
    });
    let effects: Vec<&str> = speaking.map(|statement| statement["Effect"].as_str().unwrap()).collect();
    effects.contains(&"Allow") && !effects.contains(&"Deny")
}

fn policy(role: &str) -> impl Fn(&str, &str, bool) -> bool {
    let arguments =
        ["key", "policy", "--role", role, "--s3", "--bucket", "b", "--prefix", "p", "--principal", "arn:aws:iam::1:user/w"];
    let policy: Value = serde_json::from_str(&Home::new().ok(&arguments)).unwrap();
    move |action, key, if_none_match| {
        allows(&policy, &Request { action: &format!("s3:{action}"), key, if_none_match, creates: true, days: 0 })
    }
}

const OBJECTS: [&str; 8] =
    ["packs/00/ab", "contents/ab", "index/ab", "log/ab/00", "parity/ab.0", "gc/01.plan", "keys/ab.age", "format/1"];
/// Folders in which a writer creates objects.
const WRITTEN: [&str; 5] = ["packs", "contents", "index", "log", "parity"];

#[test]
fn a_writer_creates_what_it_writes_and_deletes_and_replaces_nothing() {
    let may = policy("writer");
    assert!(may("ListBucket", "", false));
    for key in OBJECTS {
        let is_its = WRITTEN.contains(&key.split('/').next().unwrap());
        assert!(may("GetObject", key, false));
        assert_eq!(may("PutObject", key, true), is_its, "{key}");
        assert!(!may("PutObject", key, false), "{key}: it would replace");
        for action in
            ["DeleteObject", "DeleteObjectVersion", "PutObjectRetention", "BypassGovernanceRetention", "PutBucketPolicy"]
        {
            assert!(!may(action, key, false) && !may(action, key, true), "{action} {key}");
        }
    }
}

#[test]
fn locks_are_put_for_as_long_as_was_said_and_only_a_maintainer_lengthens_those_of_others() {
    for (role, everything) in [("writer", false), ("maintainer", true)] {
        let arguments = ["key", "policy", "--role", role, "--s3", "--bucket", "b", "--prefix", "p", "--lock-days", "30"];
        let arguments = [&arguments[..], &["--principal", "arn:aws:iam::1:user/w"]].concat();
        let policy: Value = serde_json::from_str(&Home::new().ok(&arguments)).unwrap();
        let may = |action, key, days| allows(&policy, &Request { action, key, if_none_match: false, creates: true, days });
        for key in OBJECTS {
            let folder = key.split('/').next().unwrap();
            let is_its = everything || WRITTEN.contains(&folder);
            assert_eq!(may("s3:PutObjectRetention", key, 30), is_its, "{role} {key}");
            assert!(!may("s3:PutObjectRetention", key, 31), "{role} {key}: for longer than was said");
            assert!(may("s3:GetObjectRetention", key, 0) && may("s3:GetObjectVersion", key, 0), "{role} {key}");
            assert!(!may("s3:BypassGovernanceRetention", key, 0) && !may("s3:PutObject", key, 0), "{role} {key}");
            let goes = everything && ["packs", "contents", "index", "parity"].contains(&folder);
            assert_eq!(may("s3:DeleteObjectVersion", key, 0), goes, "{role} {key}");
        }
    }
}

#[test]
fn uploads_in_parts_are_allowed_where_objects_are_and_nowhere_else() {
    let arguments =
        ["key", "policy", "--role", "writer", "--s3", "--bucket", "b", "--prefix", "/p/", "--principal", "arn:aws:iam::1:user/w"];
    let policy: Value = serde_json::from_str(&Home::new().ok(&arguments)).unwrap();
    let part = |key| allows(&policy, &Request { action: "s3:PutObject", key, if_none_match: false, creates: false, days: 0 });
    assert!(part("packs/00/ab"));
    assert!(!part("keys/ab.age") && !part("gc/01.plan") && !part("format/1"));
}

#[test]
fn a_maintainer_deletes_packs_and_never_what_says_who_may_do_what() {
    let may = policy("maintainer");
    for key in OBJECTS {
        let folder = key.split('/').next().unwrap();
        assert_eq!(may("DeleteObject", key, false), ["packs", "contents", "index", "parity"].contains(&folder), "{key}");
        assert!(!may("DeleteObjectVersion", key, false) && !may("PutObject", key, false), "{key}");
        assert_eq!(may("PutObject", key, true), !["keys", "format"].contains(&folder), "{key}");
    }
}

#[test]
fn a_reader_writes_its_log_alone() {
    let may = policy("reader");
    for key in OBJECTS {
        assert!(may("GetObject", key, false));
        assert_eq!(may("PutObject", key, true), key.starts_with("log/"), "{key}");
        assert!(!may("DeleteObject", key, false));
    }
}

#[test]
fn lines_of_authorized_keys_cannot_be_broken_out_of() {
    let home = Home::new();
    for directory in ["/srv/a\"b", "/srv/a'b", "/srv/a\nb", "/srv/a\\b", "/srv/a b", "srv"] {
        assert_eq!(home.code(&["key", "policy", "--role", "writer", "--ssh", "--directory", directory]), 2);
    }
    let two = "ssh-ed25519 A\nssh-ed25519 B";
    assert_eq!(home.code(&["key", "policy", "--role", "writer", "--ssh", "--public-key", two]), 2);
}

/// A server of OpenSSH that ends with the value.
struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn key(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status().unwrap();
        assert!(made.success());
        path
    }

    /// Starts it with what the program prints as the one way in, for a user who is not root.
    fn start(role: &str, repository: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (host, login) = (Self::key(dir.path(), "host"), Self::key(dir.path(), "login"));
        let public = std::fs::read_to_string(login.with_extension("pub")).unwrap();
        let arguments =
            ["key", "policy", "--role", role, "--ssh", "--directory", repository.to_str().unwrap(), "--public-key", &public];
        std::fs::write(dir.path().join("authorized"), Home::new().ok(&arguments)).unwrap();
        let port = ports::free_port();
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\n",
            host.display(),
            dir.path().join("authorized").display()
        );
        std::fs::write(dir.path().join("config"), text).unwrap();
        std::fs::create_dir_all("/run/sshd").unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.arg("-D").arg("-e").arg("-f").arg(dir.path().join("config")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        Self { child, port, dir }
    }

    /// Runs one command of sftp; true if it succeeded.
    fn sftp(&self, line: &str) -> bool {
        std::fs::write(self.dir.path().join("batch"), format!("{line}\n")).unwrap();
        let mut command = Command::new("sftp");
        command.args(["-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        command.args(["-o", "ConnectionAttempts=30", "-o", "ConnectTimeout=5", "-F", "none", "-P", &self.port.to_string()]);
        command.arg("-i").arg(self.dir.path().join("login")).arg("-b").arg(self.dir.path().join("batch"));
        command.arg("nobody@127.0.0.1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }
}

#[test]
fn a_real_ssh_server_refuses_a_writer_what_destroys() {
    let usable = rustix::process::geteuid().is_root() && Path::new("/usr/sbin/sshd").exists();
    if !usable || Command::new("sftp").arg("-V").stderr(Stdio::null()).status().is_err() {
        println!("skipped: needs root, sshd, and sftp");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("repository");
    std::fs::create_dir_all(repository.join("packs/00")).unwrap();
    std::fs::write(repository.join("packs/00/old"), "old").unwrap();
    std::fs::set_permissions(repository.join("packs/00/old"), std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    std::fs::write(dir.path().join("new"), "new").unwrap();
    assert!(Command::new("chown").arg("-R").arg("nobody").arg(dir.path()).status().unwrap().success());
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let new = dir.path().join("new");
    for role in ["writer", "reader"] {
        let server = Server::start(role, &repository);
        let out = server.dir.path().join("out");
        assert!(server.sftp(&format!("get packs/00/old {}", out.display())), "{role}: what is there can be read");
        assert_eq!(server.sftp(&format!("put {} packs/00/{role}", new.display())), role == "writer");
        assert_eq!(server.sftp("mkdir packs/01"), role == "writer");
        for line in [
            "rm packs/00/old",
            "rename packs/00/old packs/00/moved",
            "chmod 600 packs/00/old",
            "rmdir packs/00",
            "symlink packs/00/old packs/00/link",
            "rename packs gone",
        ] {
            assert!(!server.sftp(line), "{role}: {line}");
        }
        assert!(!server.sftp(&format!("put {} packs/00/old", new.display())), "{role}: it replaces an object");
        let shell = Command::new("ssh")
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-F",
                "none",
                "-p",
                &server.port.to_string(),
            ])
            .arg("-i")
            .arg(server.dir.path().join("login"))
            .args(["nobody@127.0.0.1", "rm", repository.join("packs/00/old").to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(shell.is_ok(), "{role}: it runs, and what it is asked to run does not");
        assert_eq!(std::fs::read(repository.join("packs/00/old")).unwrap(), b"old");
    }
    let server = Server::start("maintainer", &repository);
    assert!(!server.sftp("rename packs/00/old packs/00/moved") && !server.sftp("chmod 600 packs/00/old"));
    assert!(server.sftp("rm packs/00/old"), "a maintainer deletes");
}

#[test]
fn duplicates_are_written_of_what_a_role_writes_and_of_nothing_else() {
    for (role, copied) in [("writer", &["log"][..]), ("reader", &["log"]), ("maintainer", &["log", "gc"])] {
        let may = policy(role);
        for key in OBJECTS {
            let is_its = copied.contains(&key.split('/').next().unwrap());
            let copy = format!("copies/{key}");
            assert_eq!(may("PutObject", &copy, true), is_its, "{role} {copy}");
            assert!(!may("PutObject", &copy, false) && !may("DeleteObject", &copy, false), "{role} {copy}");
        }
    }
}

#[test]
fn several_may_be_named_statements_can_be_joined_and_the_owner_of_a_bucket_keeps_what_others_put() {
    let home = Home::new();
    let mut names = std::collections::BTreeSet::new();
    let mut count = 0;
    for role in ["writer", "maintainer", "reader"] {
        let asked = ["key", "policy", "--role", role, "--s3", "--bucket", "b", "--lock-days", "9", "--owner", "arn:o"];
        let whom = ["--principal", "arn:one", "--principal", "arn:two"];
        let policy: Value = serde_json::from_str(&home.ok(&[&asked[..], &whom].concat())).unwrap();
        for statement in policy["Statement"].as_array().unwrap() {
            count += 1;
            names.insert(statement["Sid"].as_str().unwrap().to_owned());
            let owns = statement["Principal"]["AWS"] == "arn:o";
            assert!(owns || statement["Principal"]["AWS"] == serde_json::json!(["arn:one", "arn:two"]), "{statement}");
            assert!(!owns || statement["Action"] == serde_json::json!(["s3:*"]) && statement["Effect"] == "Allow", "{statement}");
        }
    }
    assert_eq!(names.len(), count, "a bucket has one policy, and no two statements of it one name");
    assert_eq!(home.code(&["key", "policy", "--role", "writer", "--ssh", "--owner", "arn:o"]), 2);
}
