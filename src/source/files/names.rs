//! Names of directory entries: which are safe, and how they are shown.

use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{Mode, RawMode};
use rustix::io::Errno;

/// Refuses what is not the name of one entry: empty, `.`, `..`, or with a `/` or a NUL in it.
///
/// # Errors
/// `Refused`.
pub fn check_name(name: &[u8]) -> Result<()> {
    let hostile = matches!(name, b"" | b"." | b"..") || name.iter().any(|&byte| byte == b'/' || byte == 0);
    if hostile {
        return Err(Error::new(ErrorKind::Refused, format!("use the name {}: it is not the name of a file", shown(name))));
    }
    Ok(())
}

/// Permission bits as the system takes them; their width differs by system.
pub(super) fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & 0o7777) as RawMode)
}

/// The name for people: control characters and bytes that are not UTF-8 are escaped.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() {
                text.extend(letter.escape_default());
            } else {
                text.push(letter);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The error of a system call made while `doing` something to the entry `name`.
pub(super) fn failed(doing: &str, name: &[u8], errno: Errno) -> Error {
    Error::io(doing, shown(name), errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused_and_odd_ones_are_not() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", b"../x"] {
            assert_eq!(check_name(name).unwrap_err().kind(), ErrorKind::Refused, "{name:?}");
        }
        for name in [&b"..."[..], b".a", b"a\nb", b"\xff\xfe", b" ", b"-rf"] {
            check_name(name).unwrap();
        }
    }

    #[test]
    fn a_shown_name_is_one_line_whatever_its_bytes() {
        assert_eq!(shown(b"a\nb\xff\xc3\xa9"), "a\\nb\\xff\u{e9}");
    }
}
