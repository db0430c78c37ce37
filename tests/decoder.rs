//! The independent decoder in Python restores what this library stores.
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use lifeboat::event::Silent;
use lifeboat::format::snapshot::Snapshot;
use lifeboat::format::tree::{
    ChunkRef, ChunkType, Content, Hole, ListPage, Node, NodeKind, PageRef, Time, Xattr, encode_inner, encode_leaf, encode_node,
};
use lifeboat::id::{ChunkId, SnapshotId};
use lifeboat::ops::prune::{PruneOptions, Truncation, prune};
use lifeboat::repo::{Access, ChunkWriter, NewSlot, OpenOptions, Repository, Session, default_sizes, generate_identity};
use lifeboat::store::Location;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use zeroize::Zeroizing;

struct Made {
    folder: tempfile::TempDir,
    identity: Zeroizing<String>,
}

impl Made {
    fn new() -> (Self, Repository) {
        let folder = tempfile::tempdir().unwrap();
        let (identity, recipient) = generate_identity().unwrap();
        fs::write(folder.path().join("identity"), identity.as_bytes()).unwrap();
        let made = Self { folder, identity };
        let sizes = default_sizes(64 << 10).unwrap();
        let location = Location::directory(&made.path("repository"));
        let repository = Repository::init(&location, &NewSlot::Recipient(recipient), sizes, 3, &made.options()).unwrap();
        (made, repository)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> OpenOptions {
        OpenOptions { cache_dir: self.path("cache"), state_dir: self.path("state"), fingerprint: None }
    }

    fn decode(&self, snapshot: &str) -> Option<Output> {
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decoder/run");
        let mut command = Command::new(run);
        command.arg(self.path("repository")).arg(self.path("identity")).arg(snapshot).arg("--to").arg(self.path("out"));
        let output = command.output().unwrap();
        if output.status.code() == Some(77) && std::env::var_os("LIFEBOAT_NEED_DECODER").is_none() {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(output)
    }
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_derive_key("lifeboat test noise").update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn node(name: &[u8], kind: NodeKind) -> Node {
    let owner = tempfile::tempfile().unwrap().metadata().unwrap();
    let mtime = Time { secs: 1_700_000_000, nanos: 123_456_789 };
    Node { mode: 0o640, uid: owner.uid(), gid: owner.gid(), mtime, ctime: Some(mtime), ..Node::new(name.to_vec(), kind) }
}

fn file(name: &[u8], data: &[u8], writer: &mut ChunkWriter) -> Node {
    let chunks = data.chunks(1000).map(|chunk| writer.put(ChunkType::Data, chunk).unwrap()).collect();
    Node { size: data.len() as u64, content: Content::Chunks(chunks), ..node(name, NodeKind::File) }
}

fn leaf(nodes: &[Node], writer: &mut ChunkWriter) -> ChunkId {
    let (mut joined, mut page) = (Vec::new(), Vec::new());
    nodes.iter().for_each(|node| encode_node(node, &mut joined));
    encode_leaf(&joined, nodes.len(), &mut page);
    writer.put(ChunkType::Tree, &page).unwrap().id
}

fn directory(name: &[u8], page: ChunkId) -> Node {
    Node { mode: 0o750, subtree: Some(page), ..node(name, NodeKind::Directory) }
}

/// A file of many chunks whose list has two levels.
fn large_file(data: &[u8], writer: &mut ChunkWriter) -> Node {
    let chunks: Vec<ChunkRef> = data.chunks(1000).map(|chunk| writer.put(ChunkType::Data, chunk).unwrap()).collect();
    let mut page = |depth, refs: &[ChunkRef]| {
        let page = ListPage { depth, refs: refs.to_vec() };
        let mut bytes = Vec::new();
        page.encode(&mut bytes);
        ChunkRef { id: writer.put(ChunkType::List, &bytes).unwrap().id, len: page.data_len() }
    };
    let pages: Vec<ChunkRef> = chunks.chunks(7).map(|refs| page(0, refs)).collect();
    let root = page(1, &pages);
    Node { size: root.len, content: Content::List { depth: 1, root }, ..node(b"large", NodeKind::File) }
}

fn commit(session: Session, writer: ChunkWriter, root: ChunkId) -> SnapshotId {
    let complete = |_| Snapshot {
        kind: "full".into(),
        host: "harbour".into(),
        paths: vec![b"/".to_vec()],
        version: "test".into(),
        root,
        tags: vec!["a".into(), "b".into()],
        metadata: vec![("k".into(), "v".into())],
        retain_until: Some(4_000_000_000_000_000_000),
        ..Snapshot::empty()
    };
    session.commit(writer, complete).unwrap().unwrap().0
}

fn sparse(writer: &mut ChunkWriter) -> Node {
    let mut sparse = file(b"sparse", &noise(9, 8192), writer);
    sparse.size = 65536 + 8192;
    sparse.holes = vec![Hole { offset: 0, len: 16384 }, Hole { offset: 20480, len: 49152 }];
    sparse
}

fn assert_restored(out: &Path) {
    let stat = |name: &str| fs::symlink_metadata(out.join(name)).unwrap();
    assert_eq!(fs::read(out.join("large")).unwrap(), noise(1, 60_000));
    assert_eq!(fs::read(out.join("small")).unwrap(), noise(2, 1500));
    assert_eq!(fs::read(out.join("empty")).unwrap(), b"");
    assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("small/../nowhere"));
    assert!(stat("fifo").file_type().is_fifo());
    assert!(stat("socket").file_type().is_socket());
    assert_eq!(stat("small").ino(), stat("twin").ino());
    assert_eq!(stat("small").mode() & 0o7777, 0o4711);
    let mut wanted = noise(9, 8192);
    let tail = wanted.split_off(4096);
    let wanted = [vec![0; 16384], wanted, vec![0; 49152], tail].concat();
    assert_eq!(fs::read(out.join("sparse")).unwrap(), wanted);
    for name in ["small", "empty", "link", "fifo", "many"] {
        assert_eq!((stat(name).mtime(), stat(name).mtime_nsec()), (1_700_000_000, 123_456_789), "{name}");
    }
    assert_eq!((stat("old").mtime(), stat("old").mtime_nsec()), (-2, 500_000_000));
    let names = fs::read_dir(out.join("many")).unwrap().count();
    assert_eq!(names, 300);
    assert_eq!(stat("many").mode() & 0o7777, 0o750);
}

#[test]
fn the_python_decoder_restores_a_repository_with_every_kind_of_node() {
    let (made, repository) = Made::new();
    let session = Session::start(&repository, false).unwrap();
    let mut writer = session.writer().unwrap();
    let small = Node { link: Some((1, 2)), mode: 0o4711, ..file(b"small", &noise(2, 1500), &mut writer) };
    let mut old = node(b"old", NodeKind::File);
    old.mtime = Time { secs: -2, nanos: 500_000_000 };
    old.ctime = Some(Time { secs: 1 << 40, nanos: 1 });
    old.xattrs = vec![Xattr { name: b"user.note".to_vec(), value: b"\0\xff".to_vec() }];
    let entries: Vec<Node> = (0..300).map(|number| node(format!("{number:04}").as_bytes(), NodeKind::File)).collect();
    let pages: Vec<PageRef> = entries
        .chunks(100)
        .map(|nodes| PageRef { id: leaf(nodes, &mut writer), first: nodes[0].name.clone(), count: 100 })
        .collect();
    let mut inner = Vec::new();
    encode_inner(1, &pages, &mut inner);
    let many = writer.put(ChunkType::Tree, &inner).unwrap().id;
    let mut nodes = vec![
        small.clone(),
        Node { name: b"twin".to_vec(), ..small },
        node(b"empty", NodeKind::File),
        large_file(&noise(1, 60_000), &mut writer),
        sparse(&mut writer),
        old,
        Node { target: b"small/../nowhere".to_vec(), ..node(b"link", NodeKind::Symlink) },
        node(b"fifo", NodeKind::Fifo),
        node(b"socket", NodeKind::Socket),
        directory(b"many", many),
        directory(b"nothing\xff", leaf(&[], &mut writer)),
    ];
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let root = leaf(&nodes, &mut writer);
    let id = commit(session, writer, root);
    let Some(output) = made.decode("latest") else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&id.to_string()));
    assert_restored(&made.path("out"));
}

#[test]
fn the_python_decoder_opens_what_was_stored_in_two_sessions() {
    let (made, repository) = Made::new();
    let run = |seed| {
        let session = Session::start(&repository, false).unwrap();
        let mut writer = session.writer().unwrap();
        let shared = file(b"shared", &noise(1, 5000), &mut writer);
        let own = file(b"zzz", &noise(seed, 5000), &mut writer);
        let root = leaf(&[shared, own], &mut writer);
        commit(session, writer, root)
    };
    let (first, _second) = (run(10), run(11));
    let Some(output) = made.decode(&first.to_string()[..20]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(made.path("out/zzz")).unwrap(), noise(10, 5000));
    assert_eq!(fs::read(made.path("out/shared")).unwrap(), noise(1, 5000));
}

#[test]
fn the_python_decoder_refuses_a_pack_with_one_changed_bit() {
    let (made, repository) = Made::new();
    let session = Session::start(&repository, false).unwrap();
    let mut writer = session.writer().unwrap();
    let root = file(b"a", &noise(1, 5000), &mut writer);
    let root = leaf(&[root], &mut writer);
    commit(session, writer, root);
    let mut changed = 0;
    for pack in
        fs::read_dir(made.path("repository/packs")).unwrap().flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
    {
        let path = pack.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        changed += 1;
    }
    assert_eq!(changed, 2);
    let Some(output) = made.decode("latest") else { return };
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_repository_that_was_made_opens_with_its_identity() {
    let (made, repository) = Made::new();
    let fingerprint = repository.fingerprint();
    drop(repository);
    let access = Access { identity: Some(Zeroizing::new(made.identity.as_bytes().to_vec())), passphrase: None };
    let location = Location::directory(&made.path("repository"));
    let repository = Repository::open(&location, &access, &made.options(), &Silent).unwrap();
    assert_eq!(repository.fingerprint(), fingerprint);
}

/// Logs that the owner's prune cut off, twice, with a client of its own that goes on behind that.
#[test]
fn the_decoder_reads_logs_from_a_checkpoint_on() {
    let (made, repository) = Made::new();
    let small = |name: &[u8]| {
        let session = Session::start(&repository, false).unwrap();
        let mut writer = session.writer().unwrap();
        let file = file(name, &noise(name[0], 5000), &mut writer);
        let root = leaf(&[file], &mut writer);
        commit(session, writer, root)
    };
    let mut kept = Vec::new();
    for round in 0..2u8 {
        let ids: Vec<SnapshotId> = (0..4u8).map(|number| small(&[b'a' + 4 * round + number])).collect();
        kept.push(ids[1]);
        let going = repository.snapshots().unwrap().into_iter().filter(|entry| !kept.contains(&entry.id));
        repository.forget(&going.map(|entry| entry.record()).collect::<Vec<_>>()).unwrap();
        let truncation = Truncation::Always;
        let options = PruneOptions { grace: Duration::ZERO, max_unused: 0.0, truncation, ..PruneOptions::default() };
        assert!(prune(&repository, &options, &Silent).unwrap().pruned.records_deleted > 3);
    }
    kept.push(small(b"z"));
    for (id, name) in kept.iter().zip([b"b", b"f", b"z"]) {
        let Some(output) = made.decode(&id.to_string()) else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::read(made.path("out").join(std::str::from_utf8(name).unwrap())).unwrap() == noise(name[0], 5000));
        fs::remove_dir_all(made.path("out")).unwrap();
    }
}
