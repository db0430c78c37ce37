//! Ports for servers that cannot choose one themselves.
#![expect(unreachable_pub, reason = "it is a module of each test program")]

use std::fs::File;
use std::net::TcpListener;
use std::sync::Mutex;

/// Below those that systems give to whoever connects, or asks for any: nobody comes upon one of these by chance.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// A port at which nobody listens, and which no other test takes for as long as this process runs.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<(u16, Option<File>)>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("lifeboat-ports");
    let _ = std::fs::create_dir_all(&folder);
    let mut taken = TAKEN.lock().unwrap();
    let first = usize::try_from(std::process::id()).unwrap() * 31;
    for port in RANGE.cycle().skip(first % RANGE.len()).take(RANGE.len()) {
        // Where another user has made the folder, only those of this process are told apart.
        let lock = File::create(folder.join(port.to_string())).ok();
        let is_locked = lock.as_ref().is_some_and(|file| file.try_lock().is_err());
        if !is_locked && taken.iter().all(|(other, _)| *other != port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.push((port, lock));
            return port;
        }
    }
    panic!("no port is free");
}
