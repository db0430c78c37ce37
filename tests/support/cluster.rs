//! A Garage cluster of three nodes, each of which keeps everything: two of them are a quorum.

use super::{Running, Server, free_port, installed, start, variables};
use std::fmt::Write;
use std::path::PathBuf;

const KEY: &str = "GK0123456789abcdef01234567";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NODES: usize = 3;

/// A cluster that runs until this is dropped.
pub struct Garage {
    dir: tempfile::TempDir,
    nodes: Vec<Option<Running>>,
    ports: Vec<u16>,
}

impl Garage {
    fn configuration(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("{node}.toml"))
    }

    fn configure(&self, node: usize, rpc: u16) {
        let (dir, port) = (self.dir.path().display(), self.ports[node]);
        let mut text = String::new();
        write!(
            text,
            "metadata_dir = \"{dir}/meta{node}\"\ndata_dir = \"{dir}/data{node}\"\ndb_engine = \"sqlite\"\nreplication_factor = 3\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{SECRET}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{port}\"\nroot_domain = \".s3.test\"\n"
        )
        .unwrap();
        std::fs::write(self.configuration(node), text).unwrap();
    }

    /// Runs the program's own command, told to the first node.
    fn tell(&self, node: usize, arguments: &[&str]) -> String {
        let mut command = installed("garage");
        let output = command.arg("-c").arg(self.configuration(node)).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a node, anew or again.
    pub fn start(&mut self, node: usize) -> bool {
        let mut command = installed("garage");
        command.arg("-c").arg(self.configuration(node)).arg("server").env("RUST_LOG", "garage=info,garage_api_common=info");
        self.nodes[node] = start(command, "S3 API server listening");
        self.nodes[node].is_some()
    }

    /// Ends a node without a warning.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    fn assemble(&self) {
        let ids: Vec<String> = (0..NODES).map(|node| self.tell(node, &["node", "id", "-q"]).trim().to_owned()).collect();
        for id in &ids[1..] {
            self.tell(0, &["node", "connect", id]);
        }
        for id in &ids {
            self.tell(0, &["layout", "assign", "-z", "here", "-c", "1G", id.split('@').next().unwrap()]);
        }
        self.tell(0, &["layout", "apply", "--version", "1"]);
        self.tell(0, &["key", "import", "--yes", KEY, SECRET, "-n", "lifeboat"]);
        self.tell(0, &["bucket", "create", "bucket"]);
        self.tell(0, &["bucket", "allow", "--read", "--write", "--owner", "bucket", "--key", KEY]);
    }

    /// What a store on one of the nodes is reached with.
    pub fn server(&self, node: usize) -> Server {
        let port = self.ports[node];
        let url = format!("s3://bucket/FOLDER?endpoint=http://127.0.0.1:{port}&region=garage");
        let variables = variables(&[("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
        Server { running: None, dir: tempfile::tempdir().unwrap(), port, url, variables }
    }
}

/// A cluster with one bucket, which ignores conditions.
pub fn garage() -> Option<Garage> {
    let dir = tempfile::tempdir().unwrap();
    let ports = (0..NODES).map(|_| free_port()).collect();
    let mut cluster = Garage { dir, nodes: (0..NODES).map(|_| None).collect(), ports };
    for node in 0..NODES {
        cluster.configure(node, free_port());
        if !cluster.start(node) {
            return None;
        }
    }
    cluster.assemble();
    Some(cluster)
}
