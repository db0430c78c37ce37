//! Real servers on this machine, started by a test and ended with it.
#![expect(unreachable_pub, reason = "it is a module of each test program")]
#![allow(dead_code, unused_imports, clippy::allow_attributes, reason = "each test program uses a part of it")]

#[path = "clouds.rs"]
mod clouds;
#[path = "cluster.rs"]
mod cluster;
#[path = "fronts.rs"]
mod fronts;
#[path = "ports.rs"]
mod ports;
#[path = "signed.rs"]
mod signed;

pub use clouds::{azurite, b2, ceph, ceph_with_locks, gcs, s3s_fs};
pub use cluster::{Garage, garage};
pub use fronts::{Authority, forward_proxy, tls_front};
pub use ports::free_port;
pub use signed::signed_request;

use lifeboat::store::{Location, StoreSettings};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Credentials of all servers here.
pub const KEY_ID: &str = "AKIALIFEBOAT00000001";
pub const SECRET: &str = "a-secret-of-the-tests-that-must-not-be-seen";

/// A process that runs until this is dropped.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        match self.0.stdin.take() {
            // Whoever started others ends them when nobody can speak to it any more, however this process ended.
            Some(stdin) => drop(stdin),
            None => drop(self.0.kill()),
        }
        let _ = self.0.wait();
    }
}

/// A server that runs until this is dropped, or a part of one that runs for longer.
pub struct Server {
    running: Option<Running>,
    pub dir: tempfile::TempDir,
    pub port: u16,
    url: String,
    variables: BTreeMap<String, String>,
}

impl Server {
    /// The URL of a folder of its own.
    pub fn url(&self, folder: &str) -> String {
        self.url.replace("FOLDER", folder)
    }

    /// The same with options, `name=value`.
    pub fn url_with(&self, folder: &str, options: &str) -> String {
        let url = self.url(folder);
        format!("{url}{}{options}", if url.contains('?') { '&' } else { '?' })
    }

    /// The same through something that listens on another port.
    pub fn url_at(&self, folder: &str, port: u16) -> String {
        self.url(folder).replace(&format!(":{}", self.port), &format!(":{port}"))
    }

    /// The environment that it wants.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// What a store on it is opened with; `answers` is where a machine remembers what it found out.
    pub fn settings(&self, answers: Option<&Path>) -> StoreSettings {
        let variables = self.variables.clone();
        StoreSettings { variables, answers: answers.map(Into::into), ..StoreSettings::default() }
    }

    pub fn location(&self, folder: &str) -> Location {
        Location::parse(&self.url(folder)).unwrap().with_settings(self.settings(None))
    }
}

/// Starts a program, and waits until a line on its standard error has `ready` in it. `None`, with a line that says so,
/// if it cannot be had here.
fn start(mut command: Command, ready: &str) -> Option<Running> {
    start_with(&mut command, ready).map(|(running, _)| running)
}

/// The same; returns the line as well.
fn start_with(command: &mut Command, ready: &str) -> Option<(Running, String)> {
    start_held(command.stdin(Stdio::null()), ready)
}

/// The same with the standard input that was chosen.
fn start_held(command: &mut Command, ready: &str) -> Option<(Running, String)> {
    let name = format!("{:?}", command.get_program());
    let spawned = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return skipped(&format!("{name}: {error}")),
    };
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let (mut all, mut line) = (String::new(), Vec::new());
    let found = loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).unwrap() == 0 {
            let status = child.wait().unwrap();
            assert_eq!(status.code(), Some(77), "{name} ended: {all}");
            return skipped(all.trim());
        }
        let text = String::from_utf8_lossy(&line);
        all.push_str(&text);
        if text.contains(ready) {
            break text.into_owned();
        }
    };
    // Whoever does not read what a server says stops it one day.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    Some((Running(child), found))
}

#[expect(clippy::print_stdout, reason = "a test says what it skips")]
pub fn skipped<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("LIFEBOAT_NEED_SERVERS").is_none(), "{why}");
    println!("skipped: {}", why.lines().last().unwrap_or("no reason"));
    None
}

fn installed(program: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/run"));
    command.arg(program);
    command
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// One request, unsigned; returns the status.
pub fn plain_request(port: u16, method: &str, path: &str) -> u16 {
    plain_request_with(port, method, path, "")
}

/// The same with more headers, each with its end of line.
pub fn plain_request_with(port: u16, method: &str, path: &str, headers: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let host = format!("Host: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n{headers}");
    write!(stream, "{method} {path} HTTP/1.1\r\n{host}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// An S3 server that knows conditions, storage classes, and locks. It believes every signature.
pub fn moto() -> Option<Server> {
    moto_with("")
}

/// The same with a bucket that keeps versions and locks them.
pub fn moto_with_locks() -> Option<Server> {
    moto_with("x-amz-bucket-object-lock-enabled: true\r\n")
}

fn moto_with(headers: &str) -> Option<Server> {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut command = installed("moto_server");
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("PYTHONUNBUFFERED", "1");
    let running = start(command, "Running on")?;
    assert_eq!(plain_request_with(port, "PUT", "/bucket", headers), 200);
    let url = format!("s3://bucket/FOLDER?endpoint=http://127.0.0.1:{port}&region=us-east-1");
    let variables = variables(&[("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    Some(Server { running: Some(running), dir, port, url, variables })
}

/// An S3 server that checks signatures, ignores conditions, and sends parts under the status of a whole.
pub fn rclone_s3() -> Option<Server> {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    fs::create_dir(dir.path().join("bucket")).unwrap();
    let mut command = installed("rclone");
    let address = format!("127.0.0.1:{port}");
    command.args([
        "serve",
        "s3",
        "--addr",
        &address,
        "--auth-key",
        &format!("{KEY_ID},{SECRET}"),
        "-v",
        "--vfs-cache-mode",
        "off",
    ]);
    command.args(["--config", "/dev/null"]).arg(dir.path());
    let running = start(command, "Starting s3 server on")?;
    let url = format!("s3://bucket/FOLDER?endpoint=http://127.0.0.1:{port}");
    let variables = variables(&[("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    Some(Server { running: Some(running), dir, port, url, variables })
}

/// A WebDAV server with a user and a password.
pub fn rclone_webdav() -> Option<Server> {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut command = installed("rclone");
    let address = format!("127.0.0.1:{port}");
    command.args(["serve", "webdav", "--addr", &address, "--user", "me", "--pass", SECRET, "-v", "--vfs-cache-mode", "off"]);
    command.args(["--config", "/dev/null"]).arg(dir.path());
    let running = start(command, "WebDav Server started on")?;
    let url = format!("webdav://me@127.0.0.1:{port}/FOLDER");
    Some(Server { running: Some(running), dir, port, url, variables: variables(&[("LIFEBOAT_WEBDAV_PASSWORD", SECRET)]) })
}

/// Where `sshd` is; it must be called by its full path.
fn sshd_path() -> Option<PathBuf> {
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"].iter().map(PathBuf::from).find(|path| path.exists())
}

fn ssh_key(path: &Path) -> String {
    let status = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(status.success());
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

/// An OpenSSH server whose host key is in `known`, and which lets the key in `id` in. `other` is a key it does not know.
pub fn sshd() -> Option<Server> {
    sshd_with("internal-sftp")
}

/// The same with another program, or other arguments, for the subsystem.
pub fn sshd_with(subsystem: &str) -> Option<Server> {
    let Some(program) = sshd_path() else { return skipped("there is no sshd here") };
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let path = |name: &str| dir.path().join(name);
    let user = Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap().trim().to_owned();
    if user == "root" {
        fs::create_dir_all("/run/sshd").unwrap();
    }
    let host_key = ssh_key(&path("host"));
    fs::write(path("allowed"), ssh_key(&path("id"))).unwrap();
    ssh_key(&path("other"));
    fs::write(path("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
    let configuration = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 200\nMaxSessions 50\n\
         LogLevel ERROR\nSubsystem sftp {subsystem}\n",
        path("host").display(),
        path("allowed").display()
    );
    fs::write(path("config"), configuration).unwrap();
    let mut command = Command::new(program);
    command.arg("-D").arg("-e").arg("-o").arg("LogLevel=INFO").arg("-f").arg(path("config"));
    let running = start(command, "Server listening on")?;
    let root = dir.path().display();
    let url = format!("sftp://{user}@127.0.0.1:{port}{root}/FOLDER?key={root}/id&known-hosts={root}/known");
    Some(Server { running: Some(running), dir, port, url, variables: BTreeMap::new() })
}
