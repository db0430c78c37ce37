//! Objects sealed under the index key: log records and the rest that are not packs.

use crate::crypto::{derive::object_key, seal};
use crate::error::{Error, ErrorKind, Result};
use crate::format::envelope::{HEADER_LEN, Header, ObjectKind, pad_body, unpad_body};
use crate::repo::keys::Keys;

const COMMIT_LEN: usize = 32;

/// A new header with a fresh salt, under the newest generation.
pub(super) fn new_header(keys: &Keys, kind: ObjectKind) -> Result<Header> {
    Ok(Header { kind, generation: keys.newest().number, salt: keys.surroundings.random()? })
}

/// Seals `body` into a whole object.
pub(super) fn seal_object(keys: &Keys, kind: ObjectKind, body: &[u8]) -> Result<Vec<u8>> {
    let header = new_header(keys, kind)?;
    let bytes = header.encode();
    let key = object_key(keys.index_key(header.generation)?, &keys.repository, &bytes);
    let mut out = bytes.to_vec();
    out.extend_from_slice(&key.commit);
    out.extend_from_slice(&seal::seal_pieces(&key.key, &pad_body(body)));
    Ok(out)
}

/// Opens what [`seal_object`] made.
pub(super) fn open_object(keys: &Keys, kind: ObjectKind, bytes: &[u8]) -> Result<Vec<u8>> {
    let header = Header::decode(bytes)?;
    if header.kind != kind {
        return Err(Error::damaged("open an object: it is of another kind"));
    }
    let rest = &bytes[HEADER_LEN..];
    if rest.len() < COMMIT_LEN {
        return Err(Error::damaged("open an object: it is cut off"));
    }
    let (commit, sealed) = rest.split_at(COMMIT_LEN);
    let head: &[u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().expect("the header was decoded from as many bytes");
    let key = object_key(keys.index_key(header.generation)?, &keys.repository, head);
    if key.commit != commit {
        return Err(Error::damaged("open an object: it was sealed with another key, or changed"));
    }
    let padded = seal::open_pieces(&key.key, sealed)?;
    unpad_body(&padded).map(<[u8]>::to_vec)
}

/// True for what damage to the front of an object looks like. Version, suite, and generation stand before the seal: one wrong
/// bit there passes for an object of a later program, or for one under a key that is not at hand. Where there is a second way
/// to what it holds, that is tried; whatever comes of it is verified.
pub(super) fn may_be_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported | ErrorKind::WrongKey)
}

/// The error for an operation that the keys at hand cannot do.
pub(super) fn not_allowed(doing: &str, role: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("{doing}: the {role} key at hand cannot do this"))
        .with_hint("use an identity whose slot has the role that is needed; `lifeboat key list` shows them")
}
