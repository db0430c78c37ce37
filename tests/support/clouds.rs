//! Ceph, Azurite, the emulator of Google's service, and s3s-fs.

use super::{KEY_ID, Running, SECRET, Server, free_port, installed, signed_request, skipped, start, start_held, variables};
use base64::Engine;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::HttpRequest;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::OnceLock;

/// The gateway that `./test` started for all tests, or one of this process.
fn gateway() -> Option<u16> {
    static PORT: OnceLock<Option<(u16, Option<Running>)>> = OnceLock::new();
    let begin = || {
        if let Some(port) = std::env::var_os("LIFEBOAT_CEPH_PORT") {
            return Some((port.to_str()?.parse().ok()?, None));
        }
        let home = ["/dev/shm".into(), std::env::temp_dir()].into_iter().find(|path| path.is_dir())?;
        let mut command = installed("ceph");
        command.arg(home.join(format!("lifeboat-ceph-{}", std::process::id()))).stdin(Stdio::piped());
        let (running, line) = start_held(&mut command, "Ceph is ready at port")?;
        Some((line.split_whitespace().last()?.parse().ok()?, Some(running)))
    };
    match PORT.get_or_init(begin) {
        Some((port, _)) => Some(*port),
        None => skipped("Ceph cannot be had here"),
    }
}

/// The same with a bucket that keeps versions and locks them.
pub fn ceph_with_locks() -> Option<Server> {
    ceph_with(&[("x-amz-bucket-object-lock-enabled", "true")])
}

/// A bucket of a Ceph server, which checks signatures, creates atomically, and knows versions, locks, and policies.
pub fn ceph() -> Option<Server> {
    ceph_with(&[])
}

fn ceph_with(headers: &[(&str, &str)]) -> Option<Server> {
    let port = gateway()?;
    // By chance: ids of processes come again while one server is asked by all tests.
    let bucket = format!("b{:016x}", RandomState::new().build_hasher().finish());
    let (status, body) = signed_request(port, KEY_ID, ("PUT", &format!("/{bucket}")), headers, "");
    assert_eq!(status, 200, "{body}");
    let url = format!("s3://{bucket}/FOLDER?endpoint=http://127.0.0.1:{port}&region=us-east-1");
    let variables = variables(&[("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    Some(Server { running: None, dir: tempfile::tempdir().unwrap(), port, url, variables })
}

/// The S3 interface through which B2 is spoken to. There is no emulator of B2 itself; Ceph stands in.
pub fn b2() -> Option<Server> {
    let server = ceph()?;
    let url = server.url.replace("s3://", "b2://");
    let variables = variables(&[("B2_APPLICATION_KEY_ID", KEY_ID), ("B2_APPLICATION_KEY", SECRET)]);
    Some(Server { url, variables, ..server })
}

/// Makes a container, signed as Azure wants it.
fn make_container(port: u16, account: &str, key: &str) {
    let path = format!("/{account}/container?restype=container");
    let mut request = HttpRequest::new(String::new().into());
    *request.method_mut() = http::Method::PUT;
    *request.uri_mut() = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
    request.headers_mut().insert("content-length", "0".parse().unwrap());
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(key).unwrap());
    AzureAuthorizer::new(&credential, account).try_authorize(&mut request).unwrap();
    let mut text = format!("PUT {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// An emulator of Azure's blobs, which checks signatures.
pub fn azurite() -> Option<Server> {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let key = base64::engine::general_purpose::STANDARD.encode(SECRET);
    let mut command = installed("azurite-blob");
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--skipApiVersionCheck", "--disableTelemetry"]);
    command.arg("--location").arg(dir.path()).env("AZURITE_ACCOUNTS", format!("lifeboat:{key}"));
    let running = start(command, "successfully listen")?;
    make_container(port, "lifeboat", &key);
    let url = format!("az://lifeboat/container/FOLDER?endpoint=http://127.0.0.1:{port}/lifeboat");
    Some(Server { running: Some(running), dir, port, url, variables: variables(&[("AZURE_STORAGE_ACCOUNT_KEY", &key)]) })
}

/// An S3 server that answers 412 and lets several win all the same.
pub fn s3s_fs() -> Option<Server> {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    std::fs::create_dir(dir.path().join("bucket")).unwrap();
    let mut command = installed("s3s-fs");
    command.args(["--access-key", KEY_ID, "--secret-key", SECRET, "--host", "127.0.0.1", "--port", &port.to_string()]);
    command.arg(dir.path()).env("RUST_LOG", "info");
    let running = start(command, "server is running")?;
    let url = format!("s3://bucket/FOLDER?endpoint=http://127.0.0.1:{port}");
    let variables = variables(&[("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    Some(Server { running: Some(running), dir, port, url, variables })
}

/// What speaks the XML interface of Google's service, which is that of S3, and knows nothing of Google's own conditions. The
/// emulators of the service do not have that interface.
pub fn gcs() -> Option<Server> {
    let server = super::moto()?;
    let url = format!("gs://bucket/FOLDER?endpoint=http://127.0.0.1:{}", server.port);
    Some(Server { url, variables: variables(&[("GOOGLE_OAUTH_ACCESS_TOKEN", SECRET)]), ..server })
}
