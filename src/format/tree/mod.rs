//! Nodes of a tree, the pages of a directory, and the lists of a file's chunks (docs/format.md#7).

mod holes;
mod list;
mod node;
mod page;

pub use holes::DataMap;
pub use list::{LIST_MAX_REFS, ListPage, list_ends};
pub use node::{decode_node, encode_node};
pub use page::{PAGE_MAX_BYTES, PAGE_MAX_ENTRIES, Page, PageRef, decode_page, encode_inner, encode_leaf, page_ends};

use crate::id::ChunkId;

/// Most chunk references that stand in a node itself.
pub const NODE_MAX_CHUNKS: usize = 16;
/// Longest page, in bytes.
pub const PAGE_LIMIT: usize = 1 << 20;
/// Longest file: offsets are signed numbers of 64 bits everywhere.
pub const MAX_FILE: u64 = i64::MAX.cast_unsigned();

/// What kind of chunk an id names; each kind has a name key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkType {
    /// Bytes of a file.
    Data,
    /// A page of a directory.
    Tree,
    /// A page of a list of references.
    List,
    /// A snapshot.
    Snapshot,
}

/// What a writer without a reader's key cannot open: data and meta are sealed to different vaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Contents of files.
    Data,
    /// Names, metadata, and structure.
    Meta,
}

impl Class {
    /// Its code in the format.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Meta => 2,
        }
    }

    /// The class with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Data, Self::Meta].into_iter().find(|class| class.code() == code)
    }
}

impl ChunkType {
    /// Its code in the format.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Tree => 2,
            Self::List => 3,
            Self::Snapshot => 4,
        }
    }

    /// The type with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Data, Self::Tree, Self::List, Self::Snapshot].into_iter().find(|kind| kind.code() == code)
    }

    /// The class it is sealed in.
    #[must_use]
    pub fn class(self) -> Class {
        if self == Self::Data { Class::Data } else { Class::Meta }
    }
}

/// A point in time as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// Nanoseconds since 1970, exact.
    #[must_use]
    pub fn total_nanos(self) -> i128 {
        i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos)
    }

    /// The time that is `nanos` nanoseconds after 1970, if seconds can hold it.
    #[must_use]
    pub fn from_total_nanos(nanos: i128) -> Option<Self> {
        let secs = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
        let nanos = u32::try_from(nanos.rem_euclid(1_000_000_000)).expect("a remainder below 10^9");
        Some(Self { secs, nanos })
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl NodeKind {
    /// Its code in the format.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Symlink => 3,
            Self::Fifo => 4,
            Self::Socket => 5,
            Self::CharDevice => 6,
            Self::BlockDevice => 7,
        }
    }

    /// The kind with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        let all = [Self::File, Self::Directory, Self::Symlink, Self::Fifo, Self::Socket, Self::CharDevice, Self::BlockDevice];
        all.into_iter().find(|kind| kind.code() == code)
    }
}

/// A reference to a chunk, or to a page of references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// The chunk's name.
    pub id: ChunkId,
    /// Bytes of file data below it.
    pub len: u64,
}

/// Where the data of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// At most 16 chunks, in order; empty for a file without data.
    Chunks(Vec<ChunkRef>),
    /// A tree of list pages.
    List {
        /// Levels of pages below the named one.
        depth: u8,
        /// The top page; its `len` is the length of all the data.
        root: ChunkRef,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Chunks(Vec::new())
    }
}

/// A stretch of a sparse file that reads as zeros and takes no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes, never zero.
    pub len: u64,
}

/// One extended attribute; ACLs and capabilities are such attributes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// The whole name with its namespace, such as `user.note`.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// One entry of a directory with all of its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name within its directory: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits: `st_mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Name of the owner, empty if unknown.
    pub user: Vec<u8>,
    /// Name of the group, empty if unknown.
    pub group: Vec<u8>,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the metadata.
    pub ctime: Option<Time>,
    /// Creation.
    pub btime: Option<Time>,
    /// Last reading, kept on request only.
    pub atime: Option<Time>,
    /// Size in bytes, holes included; zero for other than files.
    pub size: u64,
    /// Data of a file.
    pub content: Content,
    /// Holes of a sparse file, ascending, not touching.
    pub holes: Vec<Hole>,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Root page of a directory.
    pub subtree: Option<ChunkId>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Device and inode shared by the names of one file with several links.
    pub link: Option<(u64, u64)>,
    /// Extended attributes, ascending by name.
    pub xattrs: Vec<Xattr>,
    /// Inode flags that can be set (Linux `FS_IOC_GETFLAGS`).
    pub flags: u32,
    /// The file changed while it was read.
    pub unstable: bool,
    /// Fields of later versions, kept as they are: key and encoded value.
    pub extra: Vec<(u64, Vec<u8>)>,
}

impl Node {
    /// A node with the given name and kind, and nothing else.
    #[must_use]
    pub fn new(name: Vec<u8>, kind: NodeKind) -> Self {
        Self {
            name,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            user: Vec::new(),
            group: Vec::new(),
            mtime: Time::default(),
            ctime: None,
            btime: None,
            atime: None,
            size: 0,
            content: Content::default(),
            holes: Vec::new(),
            target: Vec::new(),
            subtree: None,
            device: None,
            link: None,
            xattrs: Vec::new(),
            flags: 0,
            unstable: false,
            extra: Vec::new(),
        }
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let chunks = match &self.content {
            Content::Chunks(chunks) => chunks.len(),
            Content::List { .. } => 0,
        };
        let xattrs: usize = self.xattrs.iter().map(|xattr| size_of::<Xattr>() + xattr.name.len() + xattr.value.len()).sum();
        let extra: usize = self.extra.iter().map(|(_, value)| 32 + value.len()).sum();
        let texts = self.name.len() + self.user.len() + self.group.len() + self.target.len();
        size_of::<Self>() + texts + chunks * size_of::<ChunkRef>() + self.holes.len() * size_of::<Hole>() + xattrs + extra
    }

    /// Bytes of data: the size without the holes.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.holes.iter().fold(self.size, |size, hole| size.saturating_sub(hole.len))
    }
}
