//! The program with a repository on another machine.

#[path = "support/away.rs"]
mod away;
#[path = "support/servers.rs"]
mod servers;
mod support;

use away::Away;
use servers::Server;
use std::path::Path;
use support::home::Home;
use support::noise;

impl Away {
    /// Files in a home directory whose repository will be in a folder of the server.
    fn new(server: Option<Server>) -> Option<Self> {
        let server = server?;
        let (home, url) = (Home::new(), server.url("repository"));
        std::fs::create_dir_all(home.path("documents/deep")).unwrap();
        std::fs::write(home.path("documents/note"), "hello").unwrap();
        std::fs::write(home.path("documents/deep/data"), noise(1, 3_000_000)).unwrap();
        Some(Self { home, server, url })
    }
}

/// A whole life of a repository.
fn lives(away: &Away) {
    let made = away.ok(&["init"]);
    assert!(made.contains(&away.url), "{made}");
    away.ok(&["backup", "documents", "--tag", "first"]);
    std::fs::write(away.home.path("documents/note"), "hello again").unwrap();
    std::fs::write(away.home.path("documents/deep/data"), noise(2, 3_000_000)).unwrap();
    away.ok(&["backup", "documents"]);
    away.ok(&["check", "--read-data"]);
    away.ok(&["restore", "latest", "--to", "out", "--verify"]);
    assert_eq!(std::fs::read(away.home.path("out/documents/note")).unwrap(), b"hello again");
    assert!(std::fs::read(away.home.path("out/documents/deep/data")).unwrap() == noise(2, 3_000_000));
    // A machine that knows nothing of it.
    away.forget_all();
    assert_eq!(away.ok(&["cat", "latest:documents/note"]), "hello again");
    away.ok(&["forget", "--keep-last", "1", "--yes"]);
    away.ok(&["prune", "--grace", "0s"]);
    away.ok(&["check", "--read-data"]);
    let stored: serde_json::Value = serde_json::from_str(&away.ok(&["stats", "--json"])).unwrap();
    assert!(stored["bytes_stored"].as_u64().unwrap() < 4_500_000, "{stored}");
    assert!(away.fails(&["init"], 11).contains("not empty"));
}

/// The secret of the server's credentials is in no file of the home directory.
fn keeps_the_secret(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            keeps_the_secret(&path);
        } else if let Ok(bytes) = std::fs::read(&path) {
            let found = bytes.windows(servers::SECRET.len()).any(|window| window == servers::SECRET.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[test]
fn a_repository_lives_on_an_sftp_server() {
    let Some(away) = Away::new(servers::sshd()) else { return };
    lives(&away);
}

#[test]
fn a_repository_lives_on_an_s3_server() {
    let Some(away) = Away::new(servers::moto()) else { return };
    lives(&away);
    keeps_the_secret(away.home.dir.path());
}

#[test]
fn a_fingerprint_in_the_url_is_held_against_the_repository() {
    let Some(mut away) = Away::new(servers::sshd()) else { return };
    let made = away.ok(&["init"]);
    let fingerprint = made.lines().find_map(|line| line.strip_prefix("fingerprint")).unwrap().trim().to_owned();
    let url = away.url.clone();
    away.url = format!("{url}&fingerprint={fingerprint}");
    away.ok(&["snapshots"]);
    away.url = format!("{url}&fingerprint=00112233445566778899aabbccddeeff");
    assert!(away.fails(&["snapshots"], 12).contains("not the one expected"));
    away.url = format!("{url}&fingerprint=0011");
    away.fails(&["snapshots"], 2);
}

#[test]
fn a_repository_lives_on_ceph() {
    let Some(away) = Away::new(servers::ceph()) else { return };
    lives(&away);
    keeps_the_secret(away.home.dir.path());
}

#[test]
fn a_repository_lives_in_azures_emulator() {
    let Some(away) = Away::new(servers::azurite()) else { return };
    lives(&away);
    keeps_the_secret(away.home.dir.path());
}

#[test]
fn a_repository_lives_behind_the_s3_interface_of_b2() {
    let Some(away) = Away::new(servers::b2()) else { return };
    lives(&away);
    keeps_the_secret(away.home.dir.path());
}

#[test]
fn a_store_that_does_not_create_atomically_says_so_and_works_for_one() {
    for (server, why) in [
        (servers::rclone_s3(), "it replaces an object"),
        (servers::rclone_webdav(), "more than one may win"),
        (servers::s3s_fs(), "more than one may win"),
    ] {
        let Some(away) = Away::new(server) else { continue };
        let made = away.ok(&["init"]);
        assert!(made.contains(why) && made.contains("one machine at a time"), "{made}");
        away.ok(&["backup", "documents"]);
        assert_eq!(away.ok(&["cat", "latest:documents/note"]), "hello");
        let said = |arguments: &[&str]| String::from_utf8(away.run(arguments).stderr).unwrap();
        let checked = away.ok(&["check"]);
        assert!(checked.contains(why), "{why}: {checked}");
        // A machine that knows the answer, and one that has to ask.
        for _ in 0..2 {
            let told = said(&["prune"]);
            assert!(told.contains(why) && told.contains("one machine at a time") && told.contains("nothing else run"), "{told}");
            std::fs::remove_dir_all(away.home.path(".local/state/lifeboat/stores")).unwrap();
        }
        let report: serde_json::Value = serde_json::from_str(&away.ok(&["prune", "--json"])).unwrap();
        assert_eq!(report["several_at_once"], false);
        assert!(!said(&["prune", "--dry-run"]).contains("one machine at a time"));
        keeps_the_secret(away.home.dir.path());
    }
}

#[test]
fn a_store_that_creates_atomically_is_pruned_without_a_word_about_it() {
    // Not moto, which looks and then writes: now and then it is seen to let several win.
    for server in [servers::ceph(), servers::sshd()] {
        let Some(away) = Away::new(server) else { continue };
        away.ok(&["init"]);
        away.ok(&["backup", "documents"]);
        std::fs::remove_dir_all(away.home.path(".local/state/lifeboat/stores")).unwrap();
        let output = away.run(&["prune", "--json"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("one machine"), "{said}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["several_at_once"], true, "{}: {report}", away.url);
    }
}

#[test]
fn wrong_credentials_are_named_and_nothing_of_them_is_shown() {
    let Some(mut away) = Away::new(servers::rclone_s3()) else { return };
    away.ok(&["init"]);
    let url = away.url.clone();
    let mut wrong = away.home.command(&["--repo", &url, "snapshots"]);
    wrong.envs(away.server.variables()).env("AWS_SECRET_ACCESS_KEY", "a-wrong-secret");
    let said = String::from_utf8(wrong.output().unwrap().stderr).unwrap();
    assert!(said.contains("credentials") && !said.contains("a-wrong-secret"), "{said}");
    // The profile of a file, without anything in the environment.
    let profile = format!("[offsite]\naws_access_key_id = {}\naws_secret_access_key = {}\n", servers::KEY_ID, servers::SECRET);
    std::fs::create_dir(away.home.path(".aws")).unwrap();
    std::fs::write(away.home.path(".aws/credentials"), profile).unwrap();
    let named = away.server.url_with("repository", "profile=offsite");
    assert!(away.home.command(&["--repo", &named, "snapshots"]).output().unwrap().status.success());
    away.url = away.server.url_with("repository", "profile=nobody");
    assert!(away.fails(&["snapshots"], 2).contains("nobody"));
}

#[test]
fn a_bucket_that_is_not_there_is_named_with_what_to_do() {
    let Some(mut away) = Away::new(servers::moto()) else { return };
    away.url = away.url.replace("s3://bucket/", "s3://no-such-bucket/");
    for verb in [&["init"][..], &["snapshots"], &["backup", "documents"]] {
        let said = away.fails(verb, 1);
        assert!(said.contains("NoSuchBucket") && said.contains("make the bucket"), "{said}");
    }
}

#[test]
fn an_unknown_or_changed_host_is_refused_with_its_fingerprint() {
    let Some(mut away) = Away::new(servers::sshd()) else { return };
    let dir = away.server.dir.path().to_owned();
    let fingerprint = std::process::Command::new("ssh-keygen").arg("-lf").arg(dir.join("host.pub")).output().unwrap();
    let fingerprint = String::from_utf8(fingerprint.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let known = std::fs::read_to_string(dir.join("known")).unwrap();
    std::fs::write(dir.join("known"), "").unwrap();
    let said = away.fails(&["init"], 1);
    assert!(said.contains("not known") && said.contains(&fingerprint), "{said}");
    assert_eq!(std::fs::read_to_string(dir.join("known")).unwrap(), "", "nobody is added");
    let other = std::fs::read_to_string(dir.join("other.pub")).unwrap();
    std::fs::write(dir.join("known"), format!("[127.0.0.1]:{} {other}", away.server.port)).unwrap();
    let said = away.fails(&["init"], 1);
    assert!(said.contains("is not the one that is known") && said.contains(&fingerprint), "{said}");
    std::fs::write(dir.join("known"), known).unwrap();
    away.url = away.url.replace("/id&", "/other&");
    assert!(away.fails(&["init"], 1).contains("none of the keys"));
}

#[test]
fn a_server_that_is_not_there_and_a_missing_ssh_are_named() {
    let home = Home::new();
    std::fs::write(home.path("known"), "").unwrap();
    let url = format!("sftp://me@127.0.0.1:1/srv?retries=0&known-hosts={}", home.path("known").display());
    let said = String::from_utf8(home.run(&["--repo", &url, "snapshots"]).stderr).unwrap();
    assert!(said.contains("refused") || said.contains("ssh"), "{said}");
    let said = home.command(&["--repo", &url, "snapshots"]).env("LIFEBOAT_SSH", "/no/such/ssh").output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("install the OpenSSH client"), "{said}");
    let said = home.run(&["--repo", "s3://bucket/x?endpoint=http://127.0.0.1:1&retries=0", "snapshots"]);
    assert!(String::from_utf8(said.stderr).unwrap().contains("hint: "));
}
