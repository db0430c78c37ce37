//! How a store elsewhere is reached: limits, connections, proxies, certificates, credentials, and names of hosts.

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/servers.rs"]
mod servers;
mod support;

use proxy::{Action, Proxy, Request};
use servers::{Authority, KEY_ID, SECRET, Server};
use std::process::Output;
use std::time::{Duration, Instant};
use support::home::Home;
use support::noise;

const LENGTH: usize = 2_000_000;

/// A home directory with something to back up, and a server.
struct Reach {
    home: Home,
    server: Server,
}

impl Reach {
    fn new(server: Option<Server>) -> Option<Self> {
        let (home, server) = (Home::new(), server?);
        std::fs::create_dir(home.path("documents")).unwrap();
        std::fs::write(home.path("documents/data"), noise(1, LENGTH)).unwrap();
        Some(Self { home, server })
    }

    /// Runs the program with the server's variables, but for those that are given, of which an empty one is none.
    fn run(&self, url: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = self.home.command(&[&["--repo", url], arguments].concat());
        command.envs(self.server.variables());
        for (name, value) in variables {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        command.output().unwrap()
    }

    fn ok(&self, url: &str, variables: &[(&str, &str)], arguments: &[&str]) -> String {
        let output = self.run(url, variables, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, url: &str, variables: &[(&str, &str)], arguments: &[&str]) -> String {
        let output = self.run(url, variables, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("hint: "), "{arguments:?}: {said}");
        assert!(!said.contains(SECRET), "{said}");
        said
    }

    /// A repository is made, filled, and restored from.
    fn lives(&self, url: &str, variables: &[(&str, &str)]) {
        self.ok(url, variables, &["init"]);
        self.ok(url, variables, &["backup", "documents"]);
        self.ok(url, variables, &["restore", "latest", "--to", "out", "--verify"]);
        assert!(std::fs::read(self.home.path("out/documents/data")).unwrap() == noise(1, LENGTH));
    }
}

/// Options of the URL that make a failure quick.
fn once(url: &str) -> String {
    format!("{url}&retries=0")
}

#[test]
fn no_more_bytes_flow_in_a_second_than_the_limits_say() {
    let Some(reach) = Reach::new(servers::moto()) else { return };
    let url = reach.server.url("repository");
    reach.ok(&url, &[], &["init"]);
    let took = |arguments: &[&str]| {
        let began = Instant::now();
        reach.ok(&url, &[], arguments);
        began.elapsed()
    };
    // What the data alone needs: a machine that is slow needs more.
    let least = Duration::from_secs_f64(LENGTH as f64 / f64::from(1 << 20)) - Duration::from_millis(200);
    assert!(took(&["--limit-upload", "1M", "backup", "documents"]) >= least);
    assert!(took(&["--limit-download", "1M", "restore", "latest", "--to", "out"]) >= least);
    assert!(std::fs::read(reach.home.path("out/documents/data")).unwrap() == noise(1, LENGTH));
}

#[test]
fn no_more_requests_are_under_way_than_there_may_be_connections() {
    let Some(reach) = Reach::new(servers::moto()) else { return };
    (0..20).for_each(|at| std::fs::write(reach.home.path(&format!("documents/{at}")), noise(100 + at, 1_000_000)).unwrap());
    let proxy = Proxy::new(reach.server.port, |_| Action::Pass);
    let url = reach.server.url_at("repository", proxy.port);
    reach.ok(&url, &[], &["init"]);
    let hold = |milliseconds| proxy.rule(move |_: &Request| Action::Hold(64, Duration::from_millis(milliseconds)));
    hold(40);
    proxy.take_most();
    let most = |connections: &str, arguments: &[&str]| {
        reach.ok(&url, &[], &[&["--connections", connections], arguments].concat());
        proxy.take_most()
    };
    assert!((1..=2).contains(&most("2", &["backup", "documents"])));
    assert!((1..=2).contains(&most("2", &["restore", "latest", "--to", "out"])));
    for (at, verb) in [&["backup", "documents"][..], &["check", "--read-data"], &["prune"]].into_iter().enumerate() {
        std::fs::write(reach.home.path(&format!("documents/more{at}")), noise(200 + at as u64, 20_000_000)).unwrap();
        assert_eq!(most("1", verb), 1, "{verb:?}");
    }
    // On a machine that is busy requests come late: then answers do, too.
    let many = [40, 200, 1000, 5000].into_iter().map(|milliseconds| {
        hold(milliseconds);
        most("8", &["restore", "latest", "--to", &format!("out2-{milliseconds}")])
    });
    let many = many.inspect(|many| assert!(*many <= 8, "{many}")).find(|many| *many >= 3);
    assert!(many.is_some(), "no more than two at once");
    hold(40);
    let of_url = format!("{url}&connections=2");
    reach.ok(&of_url, &[], &["restore", "latest", "--to", "out3"]);
    assert!((1..=2).contains(&proxy.take_most()));
}

/// Whoever creates one after the other wins each time, whatever the server keeps.
#[test]
fn requests_race_for_a_name_however_few_connections_there_may_be() {
    let Some(reach) = Reach::new(servers::moto()) else { return };
    let racers = |request: &Request| request.method == "PUT" && request.path.contains(".r");
    let together = move |request: &Request| match racers(request) {
        true => Action::Hold(64, Duration::from_millis(300)),
        false => Action::Pass,
    };
    let proxy = Proxy::new(reach.server.port, together);
    let url = format!("{}&connections=1", reach.server.url_at("repository", proxy.port));
    reach.ok(&url, &[], &["init"]);
    assert!(proxy.take_most() > 2);
    proxy.take_requests();
    // What was found then is not asked for again: this machine wants one request at a time.
    reach.ok(&url, &[], &["check"]);
    assert!(!proxy.take_requests().iter().any(racers));
}

/// A port at which nobody listens.
fn nobody() -> String {
    format!("http://127.0.0.1:{}", servers::free_port())
}

#[test]
fn requests_go_through_the_proxy_of_the_environment_or_of_the_url() {
    let (Some(reach), Some((_running, port))) = (Reach::new(servers::rclone_s3()), servers::forward_proxy(None)) else { return };
    let (url, proxy) = (reach.server.url("repository"), format!("http://127.0.0.1:{port}"));
    reach.lives(&url, &[("http_proxy", &proxy)]);
    reach.ok(&url, &[("ALL_PROXY", &proxy)], &["snapshots"]);
    reach.ok(&format!("{url}&proxy={proxy}"), &[], &["snapshots"]);
    for variable in ["http_proxy", "ALL_PROXY"] {
        // Had it not been used, this would have worked.
        reach.fails(&once(&url), &[(variable, &nobody())], &["snapshots"]);
        reach.ok(&url, &[(variable, &nobody()), ("NO_PROXY", "127.0.0.1")], &["snapshots"]);
        reach.ok(&url, &[(variable, &nobody()), ("no_proxy", "localhost,127.0.0.0/8")], &["snapshots"]);
        reach.fails(&once(&url), &[(variable, &nobody()), ("NO_PROXY", "example.org")], &["snapshots"]);
    }
    // What whoever calls a CGI program can set is not believed, and neither is a proxy for something else.
    reach.ok(&url, &[("HTTP_PROXY", &nobody())], &["snapshots"]);
    reach.ok(&url, &[("HTTPS_PROXY", &nobody())], &["snapshots"]);
}

#[test]
fn a_proxy_may_want_a_user_and_a_password() {
    let server = servers::rclone_s3();
    let (Some(reach), Some((_running, port))) = (Reach::new(server), servers::forward_proxy(Some(("me", "pass-of-the-proxy"))))
    else {
        return;
    };
    let url = reach.server.url("repository");
    reach.lives(&url, &[("http_proxy", &format!("http://me:pass-of-the-proxy@127.0.0.1:{port}"))]);
    let said = reach.fails(&url, &[("http_proxy", &format!("http://127.0.0.1:{port}"))], &["snapshots"]);
    assert!(said.contains("407") && said.contains("proxy wants a user"), "{said}");
    let said =
        reach.fails(&once(&url), &[("http_proxy", &format!("http://me:pass-that-is-wrong@127.0.0.1:{port}"))], &["snapshots"]);
    assert!(!said.contains("pass-that-is-wrong"), "{said}");
}

#[test]
fn a_server_with_a_certificate_of_an_authority_that_is_named_is_trusted_and_no_other() {
    let (Some(reach), Some(authority), Some(other)) = (Reach::new(servers::rclone_s3()), Authority::new(), Authority::new())
    else {
        return;
    };
    let Some((_front, port)) = servers::tls_front(&authority, reach.server.port) else { return };
    let url = reach.server.url_at("repository", port).replace("http://", "https://");
    let (file, wrong) = (authority.certificate(), other.certificate());
    let (file, wrong) = (file.to_str().unwrap(), wrong.to_str().unwrap());
    let named = format!("{url}&ca={file}");
    reach.lives(&named, &[]);
    reach.ok(&url, &[("SSL_CERT_FILE", file)], &["snapshots"]);
    for (url, variable) in [(url.clone(), ""), (format!("{url}&ca={wrong}"), ""), (url.clone(), wrong)] {
        let said = reach.fails(&url, &[("SSL_CERT_FILE", variable)], &["snapshots"]);
        assert!(said.contains("not trusted") && said.contains("?ca=FILE"), "{said}");
    }
    let said = String::from_utf8(reach.run(&format!("{url}&ca=/no/such/file"), &[], &["snapshots"]).stderr).unwrap();
    assert!(said.contains("/no/such/file"), "{said}");
    // Through a proxy, which sees only that there is a connection.
    let Some((_running, port)) = servers::forward_proxy(None) else { return };
    reach.ok(&named, &[("HTTPS_PROXY", &format!("http://127.0.0.1:{port}"))], &["snapshots"]);
    reach.ok(&named, &[("https_proxy", &format!("http://127.0.0.1:{port}"))], &["check"]);
    reach.fails(&once(&named), &[("HTTPS_PROXY", &nobody())], &["snapshots"]);
    reach.ok(&named, &[("http_proxy", &nobody())], &["snapshots"]);
}

#[test]
fn the_buckets_name_goes_into_the_host_or_into_the_path_and_the_region_into_the_signature() {
    let Some(reach) = Reach::new(servers::ceph()) else { return };
    let path_style = reach.server.url("repository");
    let bucket = path_style["s3://".len()..].split('/').next().unwrap().to_owned();
    let line = Proxy::new(reach.server.port, |_| Action::Pass);
    // Nobody resolves the name: what is called a proxy here brings each request to the server, which looks at the host.
    let virtual_style = format!(
        "s3://{bucket}/repository?endpoint=http://s3.test:{}&style=virtual&region=eu-west-7&proxy=http://127.0.0.1:{}",
        reach.server.port, line.port
    );
    reach.lives(&virtual_style, &[]);
    let requests = line.take_requests();
    for request in &requests {
        assert!(request.headers["host"].starts_with(&format!("{bucket}.s3.test")), "{:?}", request.headers);
        assert!(!request.path.contains(&bucket), "{}", request.path);
        assert!(request.headers["authorization"].contains("/eu-west-7/s3/aws4_request"), "{:?}", request.headers);
    }
    assert!(requests.len() > 20);
    // The same objects, asked for in the other way, with the region of the environment.
    let other = format!("s3://{bucket}/repository?endpoint=http://127.0.0.1:{}", line.port);
    reach.ok(&other, &[("AWS_REGION", "eu-north-2")], &["check", "--read-data"]);
    for request in line.take_requests() {
        assert!(request.path.starts_with(&format!("/{bucket}")), "{}", request.path);
        assert!(request.headers["authorization"].contains("/eu-north-2/s3/"), "{:?}", request.headers);
    }
}

/// The variables that the server's credentials are in, gone.
const NONE: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];

#[test]
fn credentials_come_from_the_environment_a_profile_or_the_machine_that_this_is() {
    let Some(reach) = Reach::new(servers::ceph()) else { return };
    let url = reach.server.url("repository");
    reach.lives(&url, &[]);
    // A mock of the service that tells a machine in a cloud who it is; what it tells, a real server judges.
    let machine = Proxy::new(reach.server.port, |request| match (request.method.as_str(), request.path.as_str()) {
        ("PUT", "/latest/api/token") => Action::Answer(200, "token-of-the-session".into()),
        _ if request.headers.get("x-aws-ec2-metadata-token").map(String::as_str) != Some("token-of-the-session") => {
            Action::Answer(401, String::new())
        }
        ("GET", "/latest/meta-data/iam/security-credentials/") => Action::Answer(200, "backup-role".into()),
        ("GET", "/latest/meta-data/iam/security-credentials/backup-role") => Action::Answer(
            200,
            format!(
                "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"AccessKeyId\":\"{KEY_ID}\",\"SecretAccessKey\":\"{SECRET}\",\
                 \"Token\":\"\",\"LastUpdated\":\"2026-01-01T00:00:00Z\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}"
            ),
        ),
        _ => Action::Answer(404, String::new()),
    });
    let endpoint = format!("http://127.0.0.1:{}", machine.port);
    let told = [&NONE[..], &[("AWS_METADATA_ENDPOINT", &endpoint)]].concat();
    reach.ok(&url, &told, &["check"]);
    assert_eq!(machine.take_requests().iter().filter(|request| request.path.ends_with("/backup-role")).count(), 1);
    // Of a profile, and the endpoint with it.
    let profile = format!(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n\n[offsite]\naws_access_key_id = {KEY_ID}\n\
         aws_secret_access_key = {SECRET}\n"
    );
    std::fs::create_dir(reach.home.path(".aws")).unwrap();
    std::fs::write(reach.home.path(".aws/credentials"), profile).unwrap();
    reach.ok(&format!("{url}&profile=offsite"), &NONE, &["snapshots"]);
    reach.ok(&url, &[&NONE[..], &[("AWS_PROFILE", "offsite")]].concat(), &["snapshots"]);
    let said = reach.fails(&url, &NONE, &["snapshots"]);
    assert!(said.contains("check the credentials"), "{said}");
}

#[test]
fn a_server_that_checks_signatures_refuses_wrong_credentials_and_the_message_says_which_to_check() {
    let Some(reach) = Reach::new(servers::ceph()) else { return };
    let url = reach.server.url("repository");
    reach.ok(&url, &[], &["init"]);
    for (variable, value, code) in [
        ("AWS_SECRET_ACCESS_KEY", "not-the-secret", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "AKIANOBODY0000000000", "InvalidAccessKeyId"),
    ] {
        for verb in [&["snapshots"][..], &["backup", "documents"], &["prune"]] {
            let said = reach.fails(&url, &[(variable, value)], verb);
            assert!(said.contains(code) && said.contains("check the credentials"), "{said}");
            assert!(!said.contains("not-the-secret"), "{said}");
        }
    }
    let elsewhere = url.replace("s3://b", "s3://no-such-bucket-");
    assert!(reach.fails(&elsewhere, &[], &["init"]).contains("make the bucket"));
}
