//! SFTP servers: one connection with many requests under way.
//!
//! An object is written to `tmp/`, synced if the server can, and linked to its name, which fails if that is taken. So
//! what is visible is whole, and creating is atomic, as in a directory.

use super::address::Address;
use super::far::{Body, Item, Page, Remote, Use};
use super::fault::{Fault, FaultKind, plain};
use super::settings::{Limits, StoreSettings};
use super::ssh::{Running, Ssh};
use super::throttle::pace;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::rawsession::{Limits as ServerLimits, RawSftpSession};
use russh_sftp::client::{Config, error};
use russh_sftp::protocol::{FileAttributes, FileType, OpenFlags, StatusCode};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

/// Bytes of one read or write.
const PIECE: usize = 32 << 10;
/// Reads and writes under way at once, over all objects: enough for a fast line, little enough that none waits too long.
const IN_FLIGHT: usize = 96;
/// Files that are kept open for ranged reads.
const OPEN_FILES: usize = 16;
/// Age in seconds at which what a writer left in `tmp/` has no writer any more.
const GRACE_SECS: u32 = 24 * 60 * 60;

/// A folder of a server.
pub(super) struct Sftp {
    ssh: Ssh,
    root: String,
    timeout: u64,
    limits: Limits,
    session: AsyncMutex<Option<Arc<Session>>>,
    files: Mutex<VecDeque<(String, Arc<OpenFile>)>>,
}

struct Session {
    raw: RawSftpSession,
    running: Mutex<Option<Running>>,
    pieces: Semaphore,
    can_link: bool,
    can_sync: bool,
}

/// A handle; closed when the last user drops it.
struct OpenFile {
    session: Arc<Session>,
    handle: String,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let (session, handle) = (self.session.clone(), std::mem::take(&mut self.handle));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { session.raw.close(handle).await });
        }
    }
}

impl Sftp {
    /// The folder of a URL; nothing is sent yet.
    pub(super) fn new(address: &Address, settings: &StoreSettings) -> Self {
        // `/~/` is how a URL says that a path is below the user's home directory.
        let root = address.path.strip_prefix("/~/").unwrap_or(&address.path).to_owned();
        let timeout = address.number("timeout").unwrap_or(60).into();
        let (ssh, limits) = (Ssh::new(address, settings), settings.limits());
        Self { ssh, root, timeout, limits, session: AsyncMutex::default(), files: Mutex::default() }
    }

    fn path(&self, name: &str) -> String {
        if name.is_empty() { self.root.clone() } else { format!("{}/{name}", self.root) }
    }

    /// The session, begun if there is none.
    async fn session(&self) -> Result<Arc<Session>, Fault> {
        let mut current = self.session.lock().await;
        if let Some(session) = &*current {
            return Ok(session.clone());
        }
        let (running, pipes) = self.ssh.start()?;
        let config = Config { request_timeout_secs: self.timeout, ..Config::default() };
        let mut raw = RawSftpSession::new_with_config(pipes, config);
        let version = match raw.init().await {
            Ok(version) => version,
            Err(_) => return Err(self.ssh.why(running).await),
        };
        let has = |name: &str| version.extensions.contains_key(name);
        let (can_link, can_sync) = (has("hardlink@openssh.com"), has("fsync@openssh.com"));
        if has("limits@openssh.com") {
            let limits = raw.limits().await.map_err(|error| fault(&error))?;
            raw.set_limits(ServerLimits { open_handles: None, ..ServerLimits::from(limits) });
        }
        let pieces = Semaphore::new(IN_FLIGHT);
        let session = Arc::new(Session { raw, running: Mutex::new(Some(running)), pieces, can_link, can_sync });
        *current = Some(session.clone());
        drop(current);
        self.remove_dead(&session).await;
        Ok(session)
    }

    /// What an error means; a session that is over is forgotten, so that the next attempt begins another.
    async fn failed(&self, session: &Arc<Session>, error: SftpError) -> Fault {
        let meant = fault(&error);
        if matches!(error, SftpError::Status(_) | SftpError::Limited(_)) {
            return meant;
        }
        let mut current = self.session.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
            self.files.lock().expect("no code panics while it holds this lock").clear();
        }
        drop(current);
        let running = session.running.lock().expect("no code panics while it holds this lock").take();
        match running {
            // Whatever it said while it ended is a better reason than that it ended; and it may be mended by trying again.
            Some(running) => Fault::of_line(self.ssh.why(running).await.to_string()),
            None => meant,
        }
    }

    async fn make_folder(&self, session: &Session, path: &str) -> Result<(), SftpError> {
        let attributes = FileAttributes { permissions: Some(0o700), ..FileAttributes::default() };
        let mut end = path.len();
        let mut missing = Vec::new();
        // Upwards to the first folder that is there, then down again.
        loop {
            match session.raw.mkdir(&path[..end], attributes.clone()).await {
                Ok(_) => break,
                Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => missing.push(end),
                Err(error) => match session.raw.stat(&path[..end]).await {
                    Ok(found) if found.attrs.file_type() == FileType::Dir => break,
                    _ => return Err(error),
                },
            }
            match path[..end].rfind('/').filter(|slash| *slash > 0) {
                Some(slash) => end = slash,
                None => break,
            }
        }
        for end in missing.into_iter().rev() {
            match session.raw.mkdir(&path[..end], attributes.clone()).await {
                // Somebody else made it meanwhile; if not, what follows says so.
                Ok(_) | Err(SftpError::Status(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write(&self, session: &Arc<Session>, path: &str, body: &Body) -> Result<(), Fault> {
        let attributes = FileAttributes { permissions: Some(0o400), ..FileAttributes::default() };
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let opened = match session.raw.open(path, flags, attributes.clone()).await {
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let made = self.make_folder(session, folder).await;
                match made {
                    Ok(()) => session.raw.open(path, flags, attributes).await,
                    Err(error) => Err(error),
                }
            }
            other => other,
        };
        let handle = match opened {
            Ok(opened) => opened.handle,
            Err(error) => return Err(self.failed(session, error).await),
        };
        let send = async |offset: u64| {
            let _permit = session.pieces.acquire().await.expect("nobody closes it");
            let piece = body.read(offset, PIECE)?;
            pace(self.limits.upload.as_deref(), piece.len()).await;
            match session.raw.write(handle.clone(), offset, piece.into()).await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.full_or(session, error).await),
            }
        };
        let offsets = (0..body.len()).step_by(PIECE);
        let sent = futures_util::stream::iter(offsets.map(send)).buffer_unordered(IN_FLIGHT).try_collect::<()>().await;
        let synced = match (&sent, session.can_sync) {
            (Ok(()), true) => session.raw.fsync(handle.clone()).await.map(drop),
            _ => Ok(()),
        };
        let closed = session.raw.close(handle).await.map(drop);
        sent?;
        match synced.and(closed) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.full_or(session, error).await),
        }
    }

    /// A server says only "failure" when its disk is full; so it is asked how much room there is.
    async fn full_or(&self, session: &Arc<Session>, error: SftpError) -> Fault {
        let vague = matches!(&error, SftpError::Status(status) if status.status_code == StatusCode::Failure);
        if vague && session.raw.statvfs(self.root.as_str()).await.is_ok_and(|room| room.blocks_avail == 0) {
            return Fault::new(FaultKind::Full, "the server's disk is full")
                .hint("free some space there and run the command again");
        }
        self.failed(session, error).await
    }

    /// Gives a file its name; false if that is taken.
    async fn publish(&self, session: &Arc<Session>, from: &str, to: &str) -> Result<bool, Fault> {
        for attempt in 0..2 {
            let linked = match session.can_link {
                true => session.raw.hardlink(from, to).await,
                // The rename of this version of the protocol does not replace.
                false => session.raw.rename(from, to).await,
            };
            let error = match linked {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            let SftpError::Status(status) = &error else { return Err(self.failed(session, error).await) };
            if status.status_code == StatusCode::NoSuchFile && attempt == 0 {
                let folder = to.rsplit_once('/').map_or("", |(folder, _)| folder);
                match self.make_folder(session, folder).await {
                    Ok(()) => continue,
                    Err(error) => return Err(self.failed(session, error).await),
                }
            }
            match session.raw.lstat(to).await {
                Ok(_) => return Ok(false),
                Err(SftpError::Status(_)) => return Err(fault(&error)),
                Err(error) => return Err(self.failed(session, error).await),
            }
        }
        Err(Fault::passing("somebody takes its folder away"))
    }

    /// Removes what dead writers left; that it cannot be done only costs room.
    async fn remove_dead(&self, session: &Session) {
        let folder = self.path("tmp");
        let Ok(listed) = entries(session, &folder).await else { return };
        let newest = listed.iter().filter_map(|(_, attributes)| attributes.mtime).max().unwrap_or(0);
        for (name, attributes) in listed {
            // By the server's own clock, as far as its newest file shows it.
            if attributes.mtime.is_some_and(|time| newest.saturating_sub(time) > GRACE_SECS) {
                let _ = session.raw.remove(format!("{folder}/{name}")).await;
            }
        }
    }

    async fn open(&self, name: &str) -> Result<Arc<OpenFile>, Fault> {
        let kept =
            |files: &VecDeque<(String, Arc<OpenFile>)>| files.iter().find(|(kept, _)| kept == name).map(|(_, file)| file.clone());
        if let Some(file) = kept(&self.files.lock().expect("no code panics while it holds this lock")) {
            return Ok(file);
        }
        let session = self.session().await?;
        let opened = session.raw.open(self.path(name), OpenFlags::READ, FileAttributes::default()).await;
        let handle = match opened {
            Ok(opened) => opened.handle,
            Err(error) => return Err(self.failed(&session, error).await),
        };
        let file = Arc::new(OpenFile { session, handle });
        let mut files = self.files.lock().expect("no code panics while it holds this lock");
        if files.len() >= OPEN_FILES {
            files.pop_front();
        }
        files.push_back((name.to_owned(), file.clone()));
        Ok(file)
    }

    async fn read_piece(&self, file: &OpenFile, offset: u64, length: usize) -> Result<Bytes, Fault> {
        let mut bytes = BytesMut::with_capacity(length);
        while bytes.len() < length {
            let _permit = file.session.pieces.acquire().await.expect("nobody closes it");
            let wanted = u32::try_from(length - bytes.len()).expect("pieces are small");
            match file.session.raw.read(file.handle.clone(), offset + bytes.len() as u64, wanted).await {
                Ok(data) if data.data.is_empty() => return Err(cut_off()),
                Ok(data) => {
                    pace(self.limits.download.as_deref(), data.data.len()).await;
                    bytes.extend_from_slice(&data.data);
                }
                Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => return Err(cut_off()),
                Err(error) => return Err(self.failed(&file.session, error).await),
            }
        }
        if bytes.len() > length {
            return Err(Fault::lasting("the server sends more than was asked for"));
        }
        Ok(bytes.freeze())
    }

    async fn read_all(&self, file: &OpenFile, offset: u64, length: usize) -> Result<Bytes, Fault> {
        let starts = (0..length).step_by(PIECE);
        let read = async |start: usize| self.read_piece(file, offset + start as u64, PIECE.min(length - start)).await;
        let mut pieces = futures_util::stream::iter(starts.map(read)).buffered(IN_FLIGHT);
        let mut bytes = BytesMut::with_capacity(length);
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes.freeze())
    }
}

async fn entries(session: &Session, folder: &str) -> Result<Vec<(String, FileAttributes)>, SftpError> {
    let handle = session.raw.opendir(folder).await?.handle;
    let mut found = Vec::new();
    let ended = loop {
        match session.raw.readdir(handle.clone()).await {
            Ok(names) => found.extend(names.files.into_iter().map(|file| (file.filename, file.attrs))),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let _ = session.raw.close(handle).await;
    found.retain(|(name, _)| name != "." && name != "..");
    ended.map(|()| found)
}

fn cut_off() -> Fault {
    Fault::new(FaultKind::Damaged, "it is cut off")
}

fn fault(error: &error::Error) -> Fault {
    let SftpError::Status(status) = error else {
        return Fault::of_line(match error {
            SftpError::Timeout => "no answer in time".to_owned(),
            other => plain(&other.to_string()),
        });
    };
    match status.status_code {
        StatusCode::NoSuchFile => Fault::missing(),
        StatusCode::PermissionDenied => Fault::new(FaultKind::Denied, "the server's user may not do this")
            .hint("change the owner or the permissions of the folder on the server"),
        StatusCode::NoConnection | StatusCode::ConnectionLost => Fault::of_line("the connection ended"),
        _ => Fault::lasting(format!("the server answers: {}", plain(&status.error_message)))
            .hint("the server's log may say more; is the disk full, or read-only?"),
    }
}

fn item(name: String, attributes: &FileAttributes) -> Item {
    let modified = i64::from(attributes.mtime.unwrap_or(0)) * 1_000_000_000;
    Item { name, size: attributes.size.unwrap_or(0), modified }
}

#[async_trait]
impl Remote for Sftp {
    async fn create(&self, name: &str, body: &Body, _: Use) -> Result<bool, Fault> {
        let session = self.session().await?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Fault::lasting(format!("no random name: {error}")))?;
        let temporary = self.path(&format!("tmp/{:016x}", u64::from_le_bytes(random)));
        let written = self.write(&session, &temporary, body).await;
        let made = match written {
            Ok(()) => self.publish(&session, &temporary, &self.path(name)).await,
            Err(fault) => Err(fault),
        };
        if session.can_link || !matches!(made, Ok(true)) {
            let _ = session.raw.remove(temporary).await;
        }
        made
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, Fault> {
        let session = self.session().await?;
        let opened = session.raw.open(self.path(name), OpenFlags::READ, FileAttributes::default()).await;
        let handle = match opened {
            Ok(opened) => opened.handle,
            Err(error) => return Err(self.failed(&session, error).await),
        };
        let file = OpenFile { session, handle };
        let size = match file.session.raw.fstat(file.handle.clone()).await {
            Ok(found) => found.attrs.size.unwrap_or(0),
            Err(error) => return Err(self.failed(&file.session, error).await),
        };
        if size > limit {
            return Err(Fault::new(FaultKind::Damaged, format!("{size} bytes are more than it can have")));
        }
        self.read_all(&file, 0, usize::try_from(size).map_err(|_| cut_off())?).await
    }

    async fn read(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, Fault> {
        offset.checked_add(length as u64).filter(|end| *end < 1 << 62).ok_or_else(cut_off)?;
        let file = self.open(name).await?;
        self.read_all(&file, offset, length).await
    }

    async fn look(&self, name: &str) -> Result<Option<Item>, Fault> {
        let session = self.session().await?;
        match session.raw.lstat(self.path(name)).await {
            Ok(found) if found.attrs.file_type() == FileType::File => Ok(Some(item(name.to_owned(), &found.attrs))),
            Ok(_) => Err(Fault::new(FaultKind::Damaged, "it is no file")
                .hint("something else was put in its place in the directory of the repository; move that away")),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => Ok(None),
            Err(error) => Err(self.failed(&session, error).await),
        }
    }

    async fn list(&self, folder: &str, _: Option<String>) -> Result<Page, Fault> {
        let session = self.session().await?;
        let listed = match entries(&session, &self.path(folder)).await {
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => return Ok(Page::default()),
            Err(error) => return Err(self.failed(&session, error).await),
            Ok(listed) => listed,
        };
        let mut page = Page::default();
        for (own, attributes) in listed {
            let name = if folder.is_empty() { own } else { format!("{folder}/{own}") };
            if super::Key::new(name.as_str()).is_err() {
                continue;
            }
            match attributes.file_type() {
                FileType::File => page.items.push(item(name, &attributes)),
                FileType::Dir if name != "tmp" => page.folders.push(name),
                _ => {}
            }
        }
        Ok(page)
    }

    async fn delete(&self, name: &str) -> Result<(), Fault> {
        let session = self.session().await?;
        self.files.lock().expect("no code panics while it holds this lock").retain(|(kept, _)| kept != name);
        match session.raw.remove(self.path(name)).await {
            Ok(_) => Ok(()),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => Ok(()),
            Err(error) => Err(self.failed(&session, error).await),
        }
    }
}
