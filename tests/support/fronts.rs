//! What stands between a client and a server: a front that speaks TLS, a proxy that forwards.

use super::{Running, free_port, installed, start_with};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An authority for certificates, as a company has one of its own.
pub struct Authority {
    pub dir: tempfile::TempDir,
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Authority {
    /// `None` where there is no program that makes certificates.
    pub fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            return super::skipped("openssl is not here");
        }
        let authority = Self { dir: tempfile::tempdir().unwrap() };
        let (key, certificate) = (authority.file("ca.key"), authority.certificate());
        let subject = ["-subj", "/CN=Authority of the tests", "-days", "2"];
        let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        openssl(&[&made[..], &subject, &["-keyout", text(&key), "-out", text(&certificate)]].concat());
        Some(authority)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The certificate of the authority itself.
    pub fn certificate(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A certificate for this machine, and its key.
    fn issue(&self) -> (PathBuf, PathBuf) {
        let (key, request, certificate) = (self.file("server.key"), self.file("server.csr"), self.file("server.pem"));
        let made = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=127.0.0.1"];
        openssl(&[&made[..], &["-keyout", text(&key), "-out", text(&request)]].concat());
        std::fs::write(self.file("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
        let (names, ca_key, ca) = (self.file("names"), self.file("ca.key"), self.certificate());
        let signed = ["x509", "-req", "-days", "2", "-CAcreateserial", "-extfile", text(&names), "-in", text(&request)];
        openssl(&[&signed[..], &["-CA", text(&ca), "-CAkey", text(&ca_key), "-out", text(&certificate)]].concat());
        (certificate, key)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn port_at_end(line: &str) -> u16 {
    line.trim_end().rsplit([' ', ':']).next().unwrap().parse().unwrap()
}

/// Speaks TLS in front of a port, with a certificate of the authority; the port that it listens on.
pub fn tls_front(authority: &Authority, upstream: u16) -> Option<(Running, u16)> {
    let (certificate, key) = authority.issue();
    let mut command = installed("tls-front");
    command.arg(certificate).arg(key).arg(upstream.to_string());
    let (running, line) = start_with(&mut command, "Listening on port")?;
    let port = port_at_end(&line);
    Some((running, port))
}

/// A proxy that forwards, for a user and a password if they are given; the port that it listens on.
pub fn forward_proxy(user: Option<(&str, &str)>) -> Option<(Running, u16)> {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let login = user.map(|(name, password)| format!("BasicAuth {name} {password}\n")).unwrap_or_default();
    let configuration = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nLogLevel Info\n{login}");
    std::fs::write(dir.path().join("configuration"), configuration).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "command -v tinyproxy >/dev/null || exit 77; exec tinyproxy -d -c configuration >&2"]);
    // It has read its configuration when it says so.
    let running = start_with(command.current_dir(dir.path()), "Accepting connections")?.0;
    Some((running, port))
}
