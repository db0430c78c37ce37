//! What a walk leaves out.

use super::directory::Directory;
use super::names::check_name;
use super::own::Own;
use super::read::SourceFile;
use super::stat::Stat;
use crate::error::{Error, Result};
use crate::format::tree::NodeKind;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Name of the file by which a program says that a directory is a cache.
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
/// What such a file begins with (Cache Directory Tagging Specification).
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// The longest prefix of a marker's content that can be asked for.
const LONGEST_PREFIX: usize = 4096;

/// What the user asked to leave out.
///
/// Globs are those of gitignore: one without a slash matches at any depth, one with a slash (but at its end) from
/// the top of the path as the snapshot has it, `**` spans directories, a slash at the end means directories only,
/// `!` brings back what an earlier glob left out. The last one that matches decides. Those from files come first,
/// then `exclude`, then `iexclude`. What lies below a directory that is left out cannot be brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleOptions {
    /// Globs.
    pub exclude: Vec<String>,
    /// Globs for which upper and lower case are the same.
    pub iexclude: Vec<String>,
    /// Files with one glob on each line, and comments after `#`.
    pub exclude_file: Vec<PathBuf>,
    /// `NAME` or `NAME:CONTENT`: directories that hold a file of that name, beginning with that content.
    pub exclude_if_present: Vec<String>,
    /// Directories that hold a valid `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Files of more bytes.
    pub exclude_larger_than: Option<u64>,
    /// Stay on the file system of each path asked for.
    pub one_file_system: bool,
    /// Directories of the program itself, such as the repository: passed over, and left alone when restoring.
    pub own: Vec<PathBuf>,
}

/// Rules ready to be asked; shared by all workers.
#[derive(Debug)]
pub struct Rules {
    globs: Option<Gitignore>,
    markers: Vec<Marker>,
    larger_than: u64,
    one_file_system: bool,
    own: Own,
}

#[derive(Debug)]
struct Marker {
    name: Vec<u8>,
    content: Vec<u8>,
}

impl Rules {
    /// Reads the globs and the files that hold some.
    ///
    /// # Errors
    /// `Usage` naming the glob, or the file and the line, that cannot be understood; what the system says of a
    /// file that cannot be read.
    pub fn new(options: &RuleOptions) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        for file in &options.exclude_file {
            add_file(&mut builder, file)?;
        }
        for glob in &options.exclude {
            add_argument(&mut builder, "--exclude", glob)?;
        }
        builder.case_insensitive(true).map_err(|error| Error::usage(format!("read the globs: {error}")))?;
        for glob in &options.iexclude {
            add_argument(&mut builder, "--iexclude", glob)?;
        }
        let globs = builder.build().map_err(|error| Error::usage(format!("read the globs: {error}")))?;
        let mut markers = Vec::new();
        for marker in &options.exclude_if_present {
            markers.push(parse_marker(marker)?);
        }
        if options.exclude_caches {
            markers.push(Marker { name: CACHE_TAG.to_vec(), content: CACHE_SIGNATURE.to_vec() });
        }
        Ok(Self {
            globs: (!globs.is_empty()).then_some(globs),
            markers,
            larger_than: options.exclude_larger_than.unwrap_or(u64::MAX),
            one_file_system: options.one_file_system,
            own: Own::new(&options.own),
        })
    }

    /// True if the globs leave out what is at `path`, written as the snapshot has it (a leading `/` does not matter).
    ///
    /// Directories above it are not looked at: a walk from the top never gets below one that is left out.
    #[must_use]
    pub fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        let Some(globs) = &self.globs else { return false };
        let from_top = path.iter().position(|&byte| byte != b'/').map_or(&b""[..], |start| &path[start..]);
        globs.matched(Path::new(OsStr::from_bytes(from_top)), is_dir).is_ignore()
    }

    /// True if [`Rules::excludes`] holds for the path or for any directory above it; for paths that no walk led to.
    #[must_use]
    pub fn excludes_below(&self, path: &[u8], is_dir: bool) -> bool {
        self.globs.is_some()
            && (self.excludes(path, is_dir)
                || path.iter().enumerate().any(|(at, &byte)| byte == b'/' && at > 0 && self.excludes(&path[..at], true)))
    }

    /// True if the contents of the directory are left out because a marker lies in it.
    ///
    /// The directory itself and the marker ([`Rules::marker`]) are kept.
    #[must_use]
    pub fn excludes_contents(&self, directory: &Directory) -> bool {
        self.marker(directory).is_some()
    }

    /// The name of the marker in the directory, if there is one: one system call for each rule of that sort.
    #[must_use]
    pub fn marker(&self, directory: &Directory) -> Option<&[u8]> {
        self.markers.iter().find(|marker| marker.is_in(directory)).map(|marker| marker.name.as_slice())
    }

    /// True if sizes matter, so that a file must be looked at before it is opened.
    #[must_use]
    pub fn limit_size(&self) -> bool {
        self.larger_than < u64::MAX
    }

    /// True if a file of `size` bytes is too large to be kept.
    #[must_use]
    pub fn too_large(&self, size: u64) -> bool {
        size > self.larger_than
    }

    /// True if this is a directory of the program itself.
    #[must_use]
    pub fn is_own(&self, seen: &Stat) -> bool {
        self.own.is(seen)
    }

    /// True if a directory of the program itself is here or somewhere below.
    #[must_use]
    pub fn holds_own(&self, seen: &Stat) -> bool {
        self.own.is_at_or_below(seen)
    }

    /// True if the path is in a directory of the program itself, or is one.
    #[must_use]
    pub fn is_within_own(&self, path: &Path) -> bool {
        self.own.holds(path)
    }

    /// True if an entry seen as `entry` lies on another file system than `top`, and the user asked to stay there.
    ///
    /// Such a directory is kept without its contents.
    #[must_use]
    pub fn leaves_file_system(&self, top: &Stat, entry: &Stat) -> bool {
        self.one_file_system && top.dev != entry.dev
    }
}

impl Marker {
    fn is_in(&self, directory: &Directory) -> bool {
        let Ok(stat) = directory.stat(&self.name) else { return false };
        if self.content.is_empty() {
            return true;
        }
        if stat.kind != NodeKind::File || stat.size < self.content.len() as u64 {
            return false;
        }
        let mut start = vec![0; self.content.len()];
        let read = SourceFile::open(directory, &self.name, &stat).and_then(|file| file.read_at(&mut start, 0));
        matches!(read, Ok(count) if count == start.len()) && start == self.content
    }
}

fn parse_marker(text: &str) -> Result<Marker> {
    let (name, content) = text.split_once(':').unwrap_or((text, ""));
    check_name(name.as_bytes())
        .map_err(|_| Error::usage(format!("read --exclude-if-present {text:?}: {name:?} is not the name of a file")))?;
    if content.len() > LONGEST_PREFIX {
        return Err(Error::usage(format!("read --exclude-if-present {name}: more than {LONGEST_PREFIX} bytes of content")));
    }
    Ok(Marker { name: name.into(), content: content.into() })
}

fn add_argument(builder: &mut GitignoreBuilder, option: &str, glob: &str) -> Result<()> {
    if glob.trim().is_empty() {
        return Err(Error::usage(format!("read {option}: an empty glob")).with_hint("give the name or path to leave out"));
    }
    // Comments are for files: on the command line a glob that begins with # means just that.
    let escaped = if glob.starts_with('#') { format!("\\{glob}") } else { glob.to_owned() };
    match builder.add_line(None, &escaped) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::usage(format!("read {option}: {error}"))),
    }
}

fn add_file(builder: &mut GitignoreBuilder, path: &Path) -> Result<()> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| Error::io("read the globs in", path.display(), error))?;
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        let line = std::str::from_utf8(line).map_err(|_| Error::usage(format!("read {shown}, line {number}: not UTF-8")))?;
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if let Err(error) = builder.add_line(None, line) {
            return Err(Error::usage(format!("read {shown}, line {number}: {error}")));
        }
    }
    Ok(())
}
