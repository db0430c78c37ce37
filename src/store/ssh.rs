//! A connection to an SFTP server through the system's own `ssh`.
//!
//! That program knows the user's agent, keys, hardware tokens, configuration, and jump hosts, checks the host's key
//! against `known_hosts`, and is mended by the system when it has to be. It is told to ask nothing and to trust nobody
//! whom it does not know.

use super::address::Address;
use super::fault::{Fault, plain};
use super::settings::StoreSettings;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, BufReader, Join};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// Lines of what `ssh` said that are kept.
const KEPT_LINES: usize = 8;

/// How to call `ssh`.
#[derive(Debug, Clone)]
pub(super) struct Ssh {
    program: String,
    arguments: Vec<String>,
    host: String,
    port: Option<u16>,
}

/// A running `ssh`; it ends when this is dropped.
pub(super) struct Running {
    child: Child,
    said: Arc<Mutex<Said>>,
    listener: Option<JoinHandle<()>>,
}

/// What `ssh` said that matters.
#[derive(Debug, Default)]
struct Said {
    host_key: Option<String>,
    lines: Vec<String>,
}

impl Ssh {
    /// For the host of a URL.
    pub(super) fn new(address: &Address, settings: &StoreSettings) -> Self {
        let seconds = address.number("timeout").unwrap_or(20).min(60);
        let mut arguments: Vec<String> = ["-v", "-x", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
            .into_iter()
            .chain(["-o", "UpdateHostKeys=no", "-o", "EscapeChar=none", "-o", "PermitLocalCommand=no", "-o", "Compression=no"])
            .chain(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", "-o"])
            .map(Into::into)
            .collect();
        arguments.push(format!("ConnectTimeout={seconds}"));
        let file = |name: &str| address.option(name).map(|text| settings.path(text).display().to_string());
        if let Some(known) = file("known-hosts") {
            // Quoted, because ssh splits the value at spaces.
            arguments.extend(["-o".into(), format!("UserKnownHostsFile=\"{known}\""), "-o".into()]);
            arguments.push("GlobalKnownHostsFile=/dev/null".into());
        }
        if let Some(key) = file("key") {
            arguments.extend(["-i".into(), key, "-o".into(), "IdentitiesOnly=yes".into()]);
        }
        if let Some(port) = address.port {
            arguments.extend(["-p".into(), port.to_string()]);
        }
        if let Some(user) = &address.user {
            arguments.extend(["-l".into(), user.clone()]);
        }
        arguments.extend(["-s".into(), "--".into(), address.host.clone(), "sftp".into()]);
        let program = settings.variable("LIFEBOAT_SSH").unwrap_or("ssh").to_owned();
        Self { program, arguments, host: address.host.clone(), port: address.port }
    }

    /// Starts it. Whether it reaches anybody shows when something is read.
    pub(super) fn start(&self) -> Result<(Running, Join<ChildStdout, ChildStdin>), Fault> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // What interrupts this program must not cut the line before the last record is written.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| {
            Fault::lasting(format!("start {}: {}", self.program, plain(&error.to_string())))
                .hint("install the OpenSSH client (package openssh-client or openssh)")
        })?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = (input, output, errors) else {
            return Err(Fault::lasting(format!("start {}: it has no pipes", self.program)));
        };
        let said: Arc<Mutex<Said>> = Arc::default();
        let for_listener = said.clone();
        let listener = tokio::spawn(async move {
            let mut lines = BufReader::new(errors).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                for_listener.lock().expect("no code panics while it holds this lock").hear(&line);
            }
        });
        Ok((Running { child, said, listener: Some(listener) }, tokio::io::join(output, input)))
    }

    /// Why it ended, from what it said.
    pub(super) async fn why(&self, mut running: Running) -> Fault {
        // A process that closed its output is about to end; one that does not is of no use any more.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), running.child.wait()).await;
        let _ = running.child.start_kill();
        if let Some(listener) = running.listener.take() {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), listener).await;
        }
        let said = running.said.lock().expect("no code panics while it holds this lock");
        self.meaning(&said)
    }

    fn meaning(&self, said: &Said) -> Fault {
        let has = |text: &str| said.lines.iter().any(|line| line.contains(text));
        let name = match self.port {
            Some(port) if port != 22 => format!("[{}]:{port}", self.host),
            _ => self.host.clone(),
        };
        let key = said.host_key.as_deref().unwrap_or("a key that it did not show");
        if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            return Fault::lasting(format!("the host's key is not the one that is known: it shows {key}")).hint(format!(
                "either the server was set up anew, or somebody else answers; if that is its fingerprint, run ssh-keygen -R '{name}' and add it"
            ));
        }
        if has("Host key verification failed") || has("host key is known for") {
            let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
            return Fault::lasting(format!("the host's key is not known: it shows {key}")).hint(format!(
                "if the server's administrator confirms that fingerprint, connect once with `ssh {port}{}`, or add it to known_hosts",
                self.host
            ));
        }
        if has("Permission denied") || has("Too many authentication failures") {
            return Fault::lasting("the server accepts none of the keys that were offered").hint(
                "load the key into the agent with ssh-add, or name its file with ?key=FILE; passphrases are not asked for",
            );
        }
        if has("subsystem request failed") {
            return Fault::lasting("the server offers no SFTP").hint("enable `Subsystem sftp internal-sftp` in its sshd_config");
        }
        if has("Could not resolve hostname") {
            return Fault::lasting(said.last()).hint("check the name of the host in the URL");
        }
        Fault::of_line(said.last())
    }
}

impl Said {
    fn hear(&mut self, line: &str) {
        if let Some(key) = line.strip_prefix("debug1: Server host key: ") {
            self.host_key = Some(plain(key));
        }
        if line.starts_with("debug") || line.trim().is_empty() || line.starts_with("OpenSSH_") {
            return;
        }
        if self.lines.len() >= KEPT_LINES {
            // The first lines say what is wrong, the last one how it ended.
            self.lines.remove(KEPT_LINES / 2);
        }
        self.lines.push(plain(line));
    }

    fn last(&self) -> String {
        let telling = self.lines.iter().rfind(|line| !line.starts_with("Transferred:") && !line.starts_with("Bytes per second"));
        telling.cloned().unwrap_or_else(|| "the connection ended".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(url: &str) -> Ssh {
        Ssh::new(&Address::parse(url).unwrap().unwrap(), &StoreSettings::default())
    }

    fn meaning(lines: &[&str]) -> Fault {
        let mut said = Said::default();
        lines.iter().for_each(|line| said.hear(line));
        ssh("sftp://me@host:2222/srv").meaning(&said)
    }

    #[test]
    fn nobody_is_trusted_silently_whatever_the_users_configuration_says() {
        let ssh = ssh("sftp://me@host:2222/srv?key=/k/id&known-hosts=/k/known");
        let all = ssh.arguments.join(" ");
        for part in
            ["StrictHostKeyChecking=yes", "BatchMode=yes", "-p 2222", "-l me", "-i /k/id", "-s -- host sftp", "\"/k/known\""]
        {
            assert!(all.contains(part), "{part}: {all}");
        }
    }

    #[test]
    fn what_ssh_says_becomes_a_message_and_a_hint() {
        let key = "debug1: Server host key: ssh-ed25519 SHA256:abcdef";
        let unknown = meaning(&[
            key,
            "No ED25519 host key is known for host and you have requested strict checking.",
            "Host key verification failed.",
        ]);
        assert!(unknown.to_string().contains("ssh-ed25519 SHA256:abcdef") && !unknown.is_passing(), "{unknown}");
        let changed = meaning(&[key, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "Host key verification failed."]);
        assert!(changed.to_string().contains("is not the one that is known"), "{changed}");
        assert!(!meaning(&["me@host: Permission denied (publickey)."]).is_passing());
        assert!(meaning(&["kex_exchange_identification: Connection closed by remote host"]).is_passing());
        assert!(meaning(&["ssh: connect to host host port 2222: Connection refused"]).is_passing());
        assert_eq!(meaning(&[]).to_string(), "the connection ended");
    }
}
