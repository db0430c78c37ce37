//! A distributed store of which nodes fail: with a quorum everything goes on, without one nothing is committed.

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::process::Output;
use support::home::Home;
use support::noise;

#[test]
fn with_one_node_lost_backups_go_on_and_with_two_nothing_is_committed() {
    let Some(mut cluster) = servers::garage() else { return };
    let home = Home::new();
    std::fs::create_dir(home.path("documents")).unwrap();
    let server = cluster.server(0);
    let run = |more: &str, arguments: &[&str]| -> Output {
        let url = format!("{}{more}", server.url("repository"));
        home.command(&[&["--repo", &url], arguments].concat()).envs(server.variables()).output().unwrap()
    };
    let ok = |arguments: &[&str]| {
        let output = run("", arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let snapshots = || serde_json::from_str::<Vec<serde_json::Value>>(&ok(&["snapshots", "--json"])).unwrap().len();
    let change = |seed: u64| std::fs::write(home.path("documents/data"), noise(seed, 3_000_000)).unwrap();
    change(1);
    assert!(ok(&["init"]).contains("one machine at a time"));
    ok(&["backup", "documents"]);
    cluster.kill(2);
    change(2);
    ok(&["backup", "documents"]);
    ok(&["restore", "latest", "--to", "with-two", "--verify"]);
    assert!(std::fs::read(home.path("with-two/documents/data")).unwrap() == noise(2, 3_000_000));
    cluster.kill(1);
    change(3);
    let output = run("&retries=1&timeout=20", &["backup", "documents"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("hint: ") && (said.contains("quorum") || said.contains("503")), "{said}");
    assert!(cluster.start(1) && cluster.start(2));
    // Nodes lose sight of each other a few times before they are a cluster again; as the hint says, the command is run again.
    let in_the_end = |arguments: &[&str]| assert!((0..60).any(|_| run("", arguments).status.success()), "{arguments:?}");
    in_the_end(&["snapshots"]);
    in_the_end(&["check"]);
    assert_eq!(snapshots(), 2, "what could not be put was not committed");
    in_the_end(&["backup", "documents"]);
    ok(&["check", "--read-data"]);
    ok(&["forget", "--keep-last", "1", "--yes", "--allow-most"]);
    ok(&["prune", "--grace", "0s"]);
    ok(&["restore", "latest", "--to", "whole", "--verify"]);
    assert!(std::fs::read(home.path("whole/documents/data")).unwrap() == noise(3, 3_000_000));
}
