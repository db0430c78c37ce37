//! Classes of storage, what goes to a server with an object, and packs that must be thawed before they can be read.

mod support;

#[path = "support/away.rs"]
mod away;
#[path = "support/behind.rs"]
mod behind;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/servers.rs"]
mod servers;

use behind::Behind;
use proxy::{Action, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::noise;

/// Exit code of what must be thawed first.
const ARCHIVED: i32 = 15;

/// Requests that make objects, with the kind of the object: the folder within the repository.
fn made(requests: &[Request]) -> Vec<(String, &Request)> {
    let makes = |request: &&Request| {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        request.method == "PUT" && query.is_empty() || request.method == "POST" && query.starts_with("uploads")
    };
    let kind = |request: &Request| request.path.split('/').nth(3).unwrap_or_default().to_owned();
    requests.iter().filter(makes).map(|request| (kind(request), request)).collect()
}

#[test]
fn every_object_carries_what_the_url_asks_for_and_only_file_contents_are_cold() {
    let Some(away) = Behind::new(
        "class=glacier_ir&tags=owner:me,plan:daily&metadata=team:ops&checksum=sha256&sse=kms&sse-key=a-key&retries=0",
    ) else {
        return;
    };
    // More than what goes up in one request.
    std::fs::write(away.home.path("documents/large"), noise(2, 40 << 20)).unwrap();
    away.ok(&["init"]);
    away.ok(&["backup", "documents"]);
    let requests = away.proxy.take_requests();
    let (mut cold, mut hot_packs) = (0, 0);
    for (kind, request) in made(&requests).into_iter().filter(|(kind, _)| kind != "probe") {
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        assert_eq!(header("x-amz-tagging"), Some("owner=me&plan=daily"), "{request:?}");
        assert_eq!(header("x-amz-server-side-encryption"), Some("aws:kms"), "{request:?}");
        assert_eq!(header("x-amz-server-side-encryption-aws-kms-key-id"), Some("a-key"), "{request:?}");
        assert_eq!(header("x-amz-meta-team"), Some("ops"), "{request:?}");
        assert_eq!(header("content-type"), Some("application/octet-stream"), "{request:?}");
        let signed = header("authorization").unwrap();
        assert!(signed.contains("x-amz-tagging") || signed.contains("x-amz-server-side-encryption"), "{signed}");
        match (kind.as_str(), header("x-amz-storage-class")) {
            ("packs", Some("GLACIER_IR")) => cold += 1,
            ("packs", None) => hot_packs += 1,
            (_, class) => assert_eq!(class, None, "{request:?}"),
        }
        if request.method == "PUT" {
            assert!(header("x-amz-checksum-sha256").is_some(), "{request:?}");
        }
    }
    assert!(cold >= 1 && hot_packs >= 1, "{cold} {hot_packs}");
    let parts: Vec<_> = requests.iter().filter(|request| request.path.contains("partNumber=")).collect();
    assert!(parts.len() >= 3, "{}", parts.len());
    assert!(parts.iter().all(|part| part.headers.contains_key("x-amz-checksum-sha256")), "{parts:?}");
    // What came there says the same.
    let large = made(&requests).into_iter().find(|(_, request)| request.path.contains("?uploads")).unwrap().1.path.clone();
    let large = large.split_once('?').unwrap().0;
    assert_eq!(servers::plain_request(away.server.port, "GET", &format!("{large}?tagging")), 200);
    away.ok(&["check", "--read-data"]);
}

#[test]
fn other_kinds_of_encryption_by_the_server_are_asked_for() {
    let Some(mut away) = Behind::new("sse=aes256&retries=0") else { return };
    away.ok(&["init"]);
    let requests = away.proxy.take_requests();
    let asked = |name: &str, value: &str, requests: &[Request]| {
        made(requests).iter().all(|(_, request)| request.headers.get(name).is_some_and(|found| found == value))
    };
    assert!(asked("x-amz-server-side-encryption", "AES256", &requests));
    away.away.url = away.url.replace("sse=aes256", "sse=customer").replace("/repository", "/other");
    let said = away.fails(&["init"], 2);
    assert!(said.contains("LIFEBOAT_SSE_CUSTOMER_KEY"), "{said}");
    let mut command = away.home.command(&["--repo", &away.url, "init"]);
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    command.envs(away.server.variables()).env("LIFEBOAT_SSE_CUSTOMER_KEY", key).output().unwrap();
    let requests = away.proxy.take_requests();
    assert!(asked("x-amz-server-side-encryption-customer-algorithm", "AES256", &requests));
    assert!(asked("x-amz-server-side-encryption-customer-key", key, &requests));
    let reads = requests.iter().filter(|request| request.method == "GET" && !request.path.contains("list-type"));
    assert!(reads.clone().count() > 0);
    assert!(reads.into_iter().all(|request| request.headers.contains_key("x-amz-server-side-encryption-customer-key")));
}

#[test]
fn a_key_of_the_customers_goes_along_wherever_an_object_is_looked_at_locked_or_thawed() {
    let Some(server) = servers::moto_with_locks() else { return };
    let proxy = proxy::Proxy::new(server.port, |_| Action::Pass);
    let home = support::home::Home::documents();
    let url =
        |days: u32| format!("{}&class=GLACIER&sse=customer&lock-days={days}&retries=0", server.url_at("repository", proxy.port));
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let ok = |days: u32, arguments: &[&str]| {
        let mut command = home.command(&[&["--repo", &url(days)], arguments].concat());
        let output = command.envs(server.variables()).env("LIFEBOAT_SSE_CUSTOMER_KEY", key).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    ok(10, &["init"]);
    ok(10, &["backup", "documents"]);
    let pruned: serde_json::Value = serde_json::from_str(&ok(90, &["prune", "--json"])).unwrap();
    assert!(pruned["locks_extended"].as_u64() > Some(4), "{pruned}");
    ok(90, &["restore", "latest", "--to", "out", "--thaw", "--verify"]);
    let requests = proxy.take_requests();
    let of = |name: &'static str| requests.iter().filter(move |request| request.path.contains(name));
    assert!(of("restore=").count() == 1 && of("retention=").count() > 4, "thawed, and locked for longer");
    let name = "x-amz-server-side-encryption-customer-key";
    let looks: Vec<&Request> = requests.iter().filter(|request| request.method == "HEAD").collect();
    assert!(looks.len() > 8);
    for look in looks {
        assert_eq!(look.headers.get(name).map(String::as_str), Some(key), "{look:?}");
        let sum = look.headers.get("x-amz-server-side-encryption-customer-key-md5").map(String::as_str);
        assert_eq!(sum, Some("KYvwGXoFFJ42a2u2GDWhwQ=="), "{look:?}");
    }
}

#[test]
fn archived_packs_are_refused_priced_asked_for_and_then_restored() {
    let Some(away) = Behind::new("class=DEEP_ARCHIVE&retries=0") else { return };
    away.ok(&["init"]);
    away.ok(&["backup", "documents"]);
    // A machine that has nothing reads the tables of contents of archived packs beside them.
    away.forget_all();
    assert!(away.ok(&["find", "note"]).contains("note"));
    away.ok(&["check"]);
    away.proxy.take_requests();
    let said = away.fails(&["restore", "latest", "--to", "out"], ARCHIVED);
    assert!(said.contains("1 of the 1 packs needed") && said.contains("DEEP_ARCHIVE") && said.contains("--thaw"), "{said}");
    assert!(!away.home.path("out").exists(), "nothing is written before everything can be read");
    for verb in [&["check", "--read-data"][..], &["repair"]] {
        assert!(away.fails(verb, ARCHIVED).contains("archived"));
    }
    let dry = away.json(&["restore", "latest", "--to", "out", "--thaw", "standard", "--dry-run"]);
    assert_eq!((dry["thaw"]["archived"].as_u64(), dry["thaw"]["cost"]["thaw_requests"].as_u64()), (Some(1), Some(1)));
    assert!(dry["thaw"]["cost"]["total_cost"].as_f64().unwrap() > 0.0, "{dry}");
    assert!(away.proxy.take_requests().iter().all(|request| !request.path.contains("restore=")));
    assert!(away.fails(&["restore", "latest", "--to", "out", "--thaw", "expedited"], 2).contains("DEEP_ARCHIVE"));
    // This server thaws at once.
    let report = away.json(&["restore", "latest", "--to", "out", "--thaw", "--thaw-days", "3"]);
    assert_eq!((report["files"].as_u64(), report["thaw"]["requests"].as_u64()), (Some(2), Some(1)), "{report}");
    let requests = away.proxy.take_requests();
    assert_eq!(requests.iter().filter(|request| request.path.contains("restore=")).count(), 1);
    let documents = away.home.path("out").join(away.home.path("documents").strip_prefix("/").unwrap());
    let restored = if documents.exists() { documents } else { away.home.path("out/documents") };
    assert!(std::fs::read(restored.join("deep/data")).unwrap() == noise(1, 300_000));
    away.ok(&["check", "--read-data"]);
}

#[test]
fn only_the_packs_that_are_needed_are_thawed() {
    let Some(away) = Behind::new("class=GLACIER&retries=0") else { return };
    away.ok(&["init"]);
    away.ok(&["backup", "documents"]);
    std::fs::write(away.home.path("documents/second"), noise(7, 300_000)).unwrap();
    away.ok(&["backup", "documents"]);
    let all = away.json(&["restore", "latest", "--to", "out", "--dry-run"]);
    assert_eq!(all["thaw"]["archived"].as_u64(), Some(2), "{all}");
    let one = away.json(&["restore", "latest", "--to", "out", "--dry-run", "--include", "second"]);
    assert_eq!((one["thaw"]["packs"].as_u64(), one["thaw"]["archived"].as_u64()), (Some(1), Some(1)), "{one}");
    away.ok(&["restore", "latest", "--to", "out", "--include", "second", "--thaw"]);
    // What is there already need not be thawed.
    let again = ["restore", "latest", "--to", "out", "--overwrite", "always", "--include", "second", "--dry-run"];
    assert_eq!(away.json(&again)["thaw"]["packs"].as_u64(), Some(0));
    // A prune does not read what it would have to thaw, and deletes what nobody needs.
    away.ok(&["forget", "--keep-last", "1", "--yes"]);
    std::fs::remove_file(away.home.path("documents/deep/data")).unwrap();
    away.ok(&["backup", "documents"]);
    away.ok(&["forget", "--keep-last", "1", "--yes"]);
    let dry = away.json(&["prune", "--dry-run", "--max-unused", "0%", "--grace", "0s"]);
    assert_eq!(dry["archived"].as_u64(), Some(1), "{dry}");
    let pruned = away.json(&["prune", "--max-unused", "0%", "--grace", "0s"]);
    assert!(pruned["archived"].as_u64() == Some(1) && pruned["missing_chunks"].as_u64() == Some(0), "{pruned}");
    away.ok(&["check"]);
    // What goes before the least time of its class is billed to the end of it.
    std::fs::write(away.home.path("documents/note"), "hello again").unwrap();
    away.ok(&["backup", "documents"]);
    away.ok(&["forget", "--keep-last", "1", "--yes"]);
    let dry = away.json(&["prune", "--dry-run", "--grace", "0s"]);
    assert!(dry["cost"]["early_deletion_cost"].as_f64().unwrap() > 0.0, "{dry}");
    assert!(away.ok(&["prune", "--dry-run", "--grace", "0s"]).contains("before the least time of its class"));
}

/// The server of this test thaws at once, so the time in between is played by the proxy: it answers that the thaw goes on.
#[test]
fn a_thaw_that_goes_on_is_told_and_waited_for() {
    let Some(away) = Behind::new("class=GLACIER&retries=0") else { return };
    away.ok(&["init"]);
    away.ok(&["backup", "documents"]);
    let is_pack = |request: &Request| request.path.contains("/packs/") && request.method == "HEAD";
    let going = Action::Header("x-amz-restore", "ongoing-request=\"true\"".into());
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, on) = (asked.clone(), going.clone());
    away.proxy.rule(move |request| {
        if request.path.contains("restore=") {
            return match count.fetch_add(1, Ordering::SeqCst) {
                0 => Action::Pass,
                _ => Action::refuse(409, "RestoreAlreadyInProgress"),
            };
        }
        if is_pack(request) && count.load(Ordering::SeqCst) > 0 { on.clone() } else { Action::Pass }
    });
    let restore = ["restore", "latest", "--to", "out"];
    let said = away.fails(&[&restore[..], &["--thaw", "bulk"]].concat(), ARCHIVED);
    assert!(said.contains("being thawed") && said.contains("within 5 to 12 hours") && said.contains("same command"), "{said}");
    let said = away.fails(&restore, ARCHIVED);
    assert!(said.contains("still being thawed"), "{said}");
    // Asking once more is fine, and so is asking for what is asked for.
    away.proxy.rule(move |request| match request {
        request if request.path.contains("restore=") => Action::refuse(409, "RestoreAlreadyInProgress"),
        request if is_pack(request) && request.number < 1 => Action::Pass,
        request if is_pack(request) => going.clone(),
        _ => Action::Pass,
    });
    away.fails(&[&restore[..], &["--thaw", "bulk"]].concat(), ARCHIVED);
    assert!(!away.home.path("out").exists());
    let looks = Arc::new(AtomicUsize::new(0));
    away.proxy.rule(move |request| {
        let is_early = is_pack(request) && looks.fetch_add(1, Ordering::SeqCst) < 3;
        if is_early { Action::Header("x-amz-restore", "ongoing-request=\"true\"".into()) } else { Action::Pass }
    });
    away.ok(&[&restore[..], &["--thaw", "bulk", "--wait"]].concat());
    assert!(away.home.path("out").exists());
}

/// A repository with an archived pack of which next to nothing is needed.
fn wasteful(options: &str) -> Option<Behind> {
    let away = Behind::new(options)?;
    away.ok(&["init"]);
    away.ok(&["backup", "documents"]);
    std::fs::remove_file(away.home.path("documents/deep/data")).unwrap();
    // Where pages end depends on keys that are random: one with this file alone would else be needed as it is, sometimes.
    let note = std::fs::File::options().write(true).open(away.home.path("documents/note")).unwrap();
    note.set_modified(std::time::UNIX_EPOCH).unwrap();
    away.ok(&["backup", "documents"]);
    away.ok(&["forget", "--keep-last", "1", "--yes"]);
    Some(away)
}

/// The server thaws at once; what the proxy says of packs is that this goes on, from the first request on.
fn thaws_slowly(away: &Behind, looks: usize) -> Arc<AtomicUsize> {
    let (asked, looked) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let count = asked.clone();
    away.proxy.rule(move |request| {
        if request.path.contains("restore=") {
            count.fetch_add(1, Ordering::SeqCst);
            return Action::Pass;
        }
        let is_look = request.path.contains("/packs/") && request.method == "HEAD" && count.load(Ordering::SeqCst) > 0;
        if is_look && looked.fetch_add(1, Ordering::SeqCst) < looks {
            return Action::Header("x-amz-restore", "ongoing-request=\"true\"".into());
        }
        Action::Pass
    });
    asked
}

const PRUNE: [&str; 5] = ["prune", "--max-unused", "0%", "--grace", "0s"];

#[test]
fn a_prune_prices_archived_packs_asks_for_them_and_the_same_command_goes_on_later() {
    let Some(away) = wasteful("class=GLACIER") else { return };
    away.proxy.take_requests();
    let dry = away.json(&[&PRUNE[..], &["--dry-run", "--thaw", "standard"]].concat());
    assert_eq!((dry["archived"].as_u64(), dry["thaw"]["archived"].as_u64()), (Some(1), Some(1)), "{dry}");
    assert_eq!(dry["thaw"]["cost"]["thaw_requests"].as_u64(), Some(1), "{dry}");
    let cost = |name: &str| dry["thaw"]["cost"][name].as_f64().unwrap();
    assert!(cost("retrieval_cost") > 0.0 && cost("early_deletion_cost") > 0.0, "{dry}");
    let said = away.ok(&[&PRUNE[..], &["--dry-run"]].concat());
    assert!(said.contains("--thaw bulk writes them anew, within 5 to 12 hours"), "{said}");
    assert!(said.contains("cost of thawing and writing anew: "), "{said}");
    assert!(away.proxy.take_requests().iter().all(|request| !request.path.contains("restore=")));
    let pruned = away.json(&PRUNE);
    assert_eq!((pruned["archived"].as_u64(), pruned["written"].as_u64()), (Some(1), Some(0)), "{pruned}");
    let kept = pruned["packs"].as_array().unwrap().iter().filter(|pack| pack["decision"] == "keep");
    let reasons: Vec<&str> = kept.map(|pack| pack["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"part of it is not needed, but it is archived"), "{pruned}");

    let asked = thaws_slowly(&away, usize::MAX);
    let output = away.run(&[&PRUNE[..], &["--thaw"]].concat());
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(ARCHIVED), "{said} {error}");
    assert!(error.contains("being thawed") && error.contains("run the same command again"), "{error}");
    assert!(said.contains("1 pack ") && asked.load(Ordering::SeqCst) == 1, "{said}");
    let again = away.run(&[&PRUNE[..], &["--thaw"]].concat());
    assert_eq!((again.status.code(), asked.load(Ordering::SeqCst)), (Some(ARCHIVED), 1), "nothing is asked for twice");
    away.proxy.rule(|_| Action::Pass);
    let pruned = away.json(&[&PRUNE[..], &["--thaw"]].concat());
    assert_eq!((pruned["archived"].as_u64(), pruned["written"].as_u64()), (Some(0), Some(1)), "{pruned}");
    assert_eq!((pruned["deleted"].as_u64(), pruned["missing_chunks"].as_u64()), (Some(1), Some(0)), "{pruned}");
    // What was written anew is archived again, with its table of contents beside it.
    away.forget_all();
    away.ok(&["check"]);
    away.fails(&["restore", "latest", "--to", "out"], ARCHIVED);
    away.ok(&["restore", "latest", "--to", "out", "--thaw", "--verify"]);
}

#[test]
fn a_prune_that_waits_for_archived_packs_writes_them_anew_by_itself() {
    let Some(away) = wasteful("class=DEEP_ARCHIVE") else { return };
    assert!(away.fails(&[&PRUNE[..], &["--thaw", "expedited"]].concat(), 2).contains("DEEP_ARCHIVE"));
    let asked = thaws_slowly(&away, 3);
    let pruned = away.json(&[&PRUNE[..], &["--thaw", "--wait"]].concat());
    assert_eq!((asked.load(Ordering::SeqCst), pruned["archived"].as_u64()), (1, Some(0)), "{pruned}");
    assert_eq!(
        (pruned["written"].as_u64(), pruned["deleted"].as_u64()),
        (Some(1), Some(2)),
        "what was in no archive, too: {pruned}"
    );
    // What is gone from there is stored again.
    std::fs::write(away.home.path("documents/deep/data"), noise(1, 400_000)).unwrap();
    away.ok(&["backup", "documents"]);
    away.ok(&["check", "--read-data", "--thaw"]);
}

#[test]
fn a_pack_that_is_archived_against_all_expectation_stops_the_restore_and_says_what_to_do() {
    let Some(mut away) = Behind::new("class=GLACIER&retries=0") else { return };
    away.ok(&["init"]);
    away.ok(&["backup", "documents"]);
    let known = away.url.clone();
    // A rule of the bucket may archive what was put as usual; here the URL does not say it.
    away.away.url = away.url.replace("&class=GLACIER", "");
    let said = away.fails(&["restore", "latest", "--to", "out"], ARCHIVED);
    assert!(said.contains("InvalidObjectState") && said.contains("--thaw"), "{said}");
    away.ok(&["restore", "latest", "--to", "out", "--thaw", "--overwrite", "always"]);
    away.away.url = known;
    let home = &away.home;
    let target = home.path("copy");
    let target = target.to_str().unwrap();
    home.ok(&["init", "--repo", target]);
    away.ok(&["copy", "--to", target]);
}

#[test]
fn copies_and_mirrors_of_archived_packs_are_priced_and_thawed_first() {
    let Some(away) = Behind::new("class=DEEP_ARCHIVE&retries=0") else { return };
    away.ok(&["init"]);
    away.ok(&["backup", "documents"]);
    let (copy, mirror) = (away.home.path("copy"), away.home.path("mirror"));
    let (copy, mirror) = (copy.to_str().unwrap(), mirror.to_str().unwrap());
    away.home.ok(&["init", "--repo", copy]);
    assert!(away.fails(&["copy", "--to", copy], ARCHIVED).contains("1 of the 1 packs needed"));
    assert!(away.fails(&["mirror", "--to", mirror], ARCHIVED).contains("archived"));
    let dry = away.json(&["copy", "--to", copy, "--dry-run"]);
    assert_eq!(dry[0]["cost_at_source"]["thaw_requests"].as_u64(), Some(1), "{dry}");
    assert!(dry[0]["cost_at_target"].is_null(), "nobody bills a directory: {dry}");
    let dry = away.json(&["mirror", "--to", mirror, "--dry-run"]);
    assert!(dry["cost_at_source"]["total_cost"].as_f64().unwrap() > 0.0, "{dry}");
    assert!(dry["cost_at_source"]["bytes_out"].as_u64().unwrap() > 300_000, "{dry}");
    away.ok(&["copy", "--to", copy, "--thaw", "standard"]);
    away.ok(&["mirror", "--to", mirror]);
    away.home.ok(&["check", "--read-data", "--repo", mirror]);
    let rotation = away.json(&["key", "rotate", "--dry-run"]);
    assert!(rotation["cost"]["put_requests"].as_u64().unwrap() >= 3, "{rotation}");
}

#[test]
fn prices_of_ones_own_replace_the_assumed_ones() {
    let Some(away) = Behind::new("class=GLACIER&retries=0") else { return };
    away.ok(&["init"]);
    away.ok(&["backup", "documents"]);
    std::fs::create_dir_all(away.home.path(".config/lifeboat")).unwrap();
    let prices = "[prices]\ncurrency = \"EUR\"\nget = 0\nout-gib = 0\nmonth-gib = 0\n\n[prices.classes.GLACIER]\nbulk = 1000\n";
    std::fs::write(away.home.path(".config/lifeboat/lifeboat.toml"), prices).unwrap();
    let dry = away.json(&["restore", "latest", "--to", "out", "--dry-run"]);
    let cost = &dry["thaw"]["cost"];
    assert_eq!((cost["currency"].as_str(), cost["total_cost"].as_f64()), (Some("EUR"), Some(1.0)), "{dry}");
    assert!(away.ok(&["restore", "latest", "--to", "out", "--dry-run"]).contains("about 1.00 EUR"));
}
