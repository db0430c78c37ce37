//! A faulty HTTP proxy in front of a real server: what a line, a load balancer, or a bad server does to requests.
#![expect(unreachable_pub, reason = "it is a module of each test program")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A request as the proxy sees it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How many came before.
    pub number: usize,
    /// How many lie one behind the other, this one as the last: each came after the one before was answered.
    pub depth: usize,
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Action {
    Pass,
    /// An answer of the proxy's own, with a body; the server never hears of the request.
    Answer(u16, String),
    /// The connection ends before there is an answer; the server never hears of it.
    Cut,
    /// The server does it, and nobody hears the answer.
    LoseAnswer,
    /// The answer's body ends in the middle.
    CutBody,
    /// The answer's body ends in the middle, and its head says that this is all.
    Shorten,
    /// A byte in the middle of the answer's body is another one.
    Corrupt,
    /// The connection ends in the middle of the request's body; the server never hears of it.
    CutUpload,
    /// What the server answered to the same request when it was first replayed, however long ago.
    Replay,
    /// The answer has this header, instead of the server's own of that name.
    Header(&'static str, String),
    /// The server never hears of the headers of the request that begin like this.
    WithoutHeader(&'static str),
    /// The answer comes when so many requests wait for one, or after so much time.
    Hold(usize, Duration),
}

impl Action {
    /// An answer as S3 gives it.
    pub fn refuse(status: u16, code: &str) -> Self {
        Self::Answer(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as told</Message></Error>"))
    }
}

type Rule = Box<dyn Fn(&Request) -> Action + Send + Sync>;

struct Shared {
    upstream: u16,
    rule: Mutex<Arc<Rule>>,
    requests: Mutex<Vec<Request>>,
    /// Answers that are given again, by method and path.
    replayed: Mutex<BTreeMap<String, Vec<u8>>>,
    waiting: Mutex<usize>,
    changed: Condvar,
    most: AtomicUsize,
    /// The greatest depth of a request that was answered.
    answered: AtomicUsize,
    ended: AtomicBool,
}

/// A proxy that runs until this is dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Proxy {
    /// In front of the server at a port of this machine.
    pub fn new(upstream: u16, rule: impl Fn(&Request) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream,
            rule: Mutex::new(Arc::new(Box::new(rule))),
            requests: Mutex::default(),
            replayed: Mutex::default(),
            waiting: Mutex::default(),
            changed: Condvar::new(),
            most: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let for_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_thread.ended.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(stream), shared) = (stream, for_thread.clone()) else { continue };
                // A line that breaks is what this is for.
                std::thread::spawn(move || drop(serve(&shared, stream)));
            }
        });
        Self { port, shared }
    }

    /// From now on, something else becomes of requests.
    pub fn rule(&self, rule: impl Fn(&Request) -> Action + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Arc::new(Box::new(rule));
    }

    /// What was asked since this was asked the last time.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    /// The same, for whoever wants to know how deep they lay: the next one is the first.
    pub fn take_trace(&self) -> Vec<Request> {
        let requests = self.take_requests();
        self.shared.answered.store(0, Ordering::SeqCst);
        requests
    }

    /// Most requests that waited for an answer at once, since this was asked the last time.
    pub fn take_most(&self) -> usize {
        self.shared.most.swap(0, Ordering::SeqCst)
    }
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(Vec::new());
        }
        match line.trim_end() {
            "" => return Ok(lines),
            text => lines.push(text.to_owned()),
        }
    }
}

fn serve(shared: &Shared, client: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let head = read_head(&mut reader)?;
    let Some(first) = head.first() else { return Ok(()) };
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    // Whoever takes this for a proxy of the usual kind names the host as well.
    let path = path.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path).to_owned();
    let split = head[1..].iter().filter_map(|line| line.split_once(':'));
    let headers: BTreeMap<String, String> = split.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let request = {
        let mut requests = shared.requests.lock().unwrap();
        let depth = shared.answered.load(Ordering::SeqCst) + 1;
        let request = Request { method, path, headers, number: requests.len(), depth };
        requests.push(request.clone());
        request
    };
    let rule = shared.rule.lock().unwrap().clone();
    let action = rule(&request);
    let heard = if matches!(action, Action::CutUpload) { length / 2 } else { length };
    let mut body = vec![0; heard];
    reader.read_exact(&mut body)?;
    if let Action::Hold(together, longest) = action {
        hold(shared, together, longest);
    }
    match &action {
        Action::Answer(status, text) => {
            let text = if request.method == "HEAD" { "" } else { text.as_str() };
            let mut client = client;
            return write!(
                client,
                "HTTP/1.1 {status} Told\r\nETag: \"0\"\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
        }
        Action::Cut | Action::CutUpload => return client.shutdown(Shutdown::Both),
        _ => {}
    }
    let mut head = head;
    if let Action::WithoutHeader(name) = action {
        head.retain(|line| !line.to_lowercase().starts_with(name));
    }
    let name = format!("{} {}", request.method, request.path);
    let before = shared.replayed.lock().unwrap().get(&name).cloned();
    let answer = match (&action, before) {
        (Action::Replay, Some(before)) => before,
        _ => forward(shared.upstream, (&request, &head), &body)?,
    };
    if matches!(action, Action::Replay) {
        shared.replayed.lock().unwrap().insert(name, answer.clone());
    }
    shared.answered.fetch_max(request.depth, Ordering::SeqCst);
    if matches!(action, Action::LoseAnswer) {
        return client.shutdown(Shutdown::Both);
    }
    answer_with(client, answer, &action)
}

/// Waits until enough others wait too.
fn hold(shared: &Shared, together: usize, longest: Duration) {
    let mut waiting = shared.waiting.lock().unwrap();
    *waiting += 1;
    shared.most.fetch_max(*waiting, Ordering::SeqCst);
    shared.changed.notify_all();
    let (mut waiting, _) = shared.changed.wait_timeout_while(waiting, longest, |waiting| *waiting < together).unwrap();
    *waiting -= 1;
}

fn forward(port: u16, (request, head): (&Request, &[String]), body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(("127.0.0.1", port))?;
    let mut sent = format!("{} {} HTTP/1.1\r\n", request.method, request.path);
    for line in head[1..].iter().filter(|line| !line.to_lowercase().starts_with("connection:")) {
        sent += line;
        sent += "\r\n";
    }
    sent += "Connection: close\r\n\r\n";
    upstream.write_all(sent.as_bytes())?;
    upstream.write_all(body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn answer_with(mut client: TcpStream, mut answer: Vec<u8>, action: &Action) -> std::io::Result<()> {
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let middle = body + (answer.len() - body) / 2;
    if let Action::Header(name, value) = action {
        let head = String::from_utf8_lossy(&answer[..body - 4]).into_owned();
        let others = head.split("\r\n").filter(|line| !line.to_lowercase().starts_with(&format!("{name}:")));
        let head = others.chain([format!("{name}: {value}").as_str()]).collect::<Vec<_>>().join("\r\n");
        answer.splice(..body - 4, head.into_bytes());
    }
    match action {
        Action::CutBody => answer.truncate(middle),
        Action::Shorten if middle < answer.len() => answer = shortened(&answer[..middle], body),
        Action::Corrupt if middle < answer.len() => answer[middle] ^= 0x55,
        _ => {}
    }
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Write)
}

/// An answer whose head says that its body, which begins at `body`, is no longer than it is.
fn shortened(answer: &[u8], body: usize) -> Vec<u8> {
    let head = String::from_utf8_lossy(&answer[..body]);
    let told = |line: &str| match line.to_lowercase().starts_with("content-length:") {
        true => format!("Content-Length: {}\r\n", answer.len() - body),
        false => format!("{line}\r\n"),
    };
    let head: String = head.trim_end().lines().map(told).collect();
    [head.as_bytes(), b"\r\n", &answer[body..]].concat()
}
