//! ChaCha20-Poly1305 (RFC 8439) over buffers in place.

use crate::error::{Error, Result};
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Tag};

/// Length of the tag behind every sealed message.
pub const TAG_LEN: usize = 16;
/// Length of the pieces of a long message.
pub const PIECE_LEN: usize = 65_536;

/// Seals the bytes of `buffer` from `start` on in place and appends the tag.
pub fn seal_in_place(key: &[u8; 32], nonce: &[u8; 12], bound: &[u8], buffer: &mut Vec<u8>, start: usize) {
    let tag = ChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(&(*nonce).into(), bound, (&mut buffer[start..]).into())
        .expect("messages here are far below the 256 GiB that the cipher can seal");
    buffer.extend_from_slice(&tag);
}

/// Opens `buffer`, a sealed message with its tag, in place; the plaintext is what the result borrows.
///
/// # Errors
/// `Damaged` if it was not sealed with this key, nonce, and bound data.
pub fn open_in_place<'a>(key: &[u8; 32], nonce: &[u8; 12], bound: &[u8], buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let broken = || Error::damaged("open a sealed message: its tag does not fit");
    let length = buffer.len().checked_sub(TAG_LEN).ok_or_else(broken)?;
    let (message, tag) = buffer.split_at_mut(length);
    let tag = Tag::try_from(&*tag).map_err(|_| broken())?;
    ChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(&(*nonce).into(), bound, (&mut *message).into(), &tag)
        .map_err(|_| broken())?;
    Ok(message)
}

/// Opens `sealed`, a message with its tag, and leaves it as it is: the plaintext is written over the front of `plain`,
/// which grows if it must; its length is returned. Saves the pass of a copy that is then opened in place.
///
/// # Errors
/// `Damaged` if it was not sealed with this key, nonce, and bound data.
pub fn open_into(key: &[u8; 32], nonce: &[u8; 12], bound: &[u8], sealed: &[u8], plain: &mut Vec<u8>) -> Result<usize> {
    let broken = || Error::damaged("open a sealed message: its tag does not fit");
    let length = sealed.len().checked_sub(TAG_LEN).ok_or_else(broken)?;
    let (message, tag) = sealed.split_at(length);
    let tag = Tag::try_from(tag).map_err(|_| broken())?;
    plain.resize(plain.len().max(length), 0);
    let both = InOutBuf::new(message, &mut plain[..length]).expect("both are as long as the message");
    ChaCha20Poly1305::new(key.into()).decrypt_inout_detached(&(*nonce).into(), bound, both, &tag).map_err(|_| broken())?;
    Ok(length)
}

fn piece_nonce(number: usize, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
    nonce[11] = u8::from(last);
    nonce
}

/// Length of `plain` bytes once sealed in pieces.
#[must_use]
pub fn sealed_len(plain: usize) -> usize {
    plain + plain.div_ceil(PIECE_LEN).max(1) * TAG_LEN
}

/// Seals a message of any length in pieces of 64 KiB; dropping, swapping, or cutting pieces is noticed.
#[must_use]
pub fn seal_pieces(key: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    let count = plain.len().div_ceil(PIECE_LEN).max(1);
    let mut out = Vec::with_capacity(sealed_len(plain.len()));
    for number in 0..count {
        let start = out.len();
        let end = plain.len().min((number + 1) * PIECE_LEN);
        out.extend_from_slice(&plain[number * PIECE_LEN..end]);
        seal_piece(key, number, number + 1 == count, &mut out, start);
    }
    out
}

/// Seals one piece of a long message, the bytes of `buffer` from `start` on, and appends its tag.
pub fn seal_piece(key: &[u8; 32], number: usize, last: bool, buffer: &mut Vec<u8>, start: usize) {
    seal_in_place(key, &piece_nonce(number, last), b"", buffer, start);
}

/// Opens one piece of a long message in place.
///
/// # Errors
/// `Damaged` if it is not the piece of this number, or is the last one where it should not be, or the other way round.
pub fn open_piece<'a>(key: &[u8; 32], number: usize, last: bool, piece: &'a mut [u8]) -> Result<&'a [u8]> {
    open_in_place(key, &piece_nonce(number, last), b"", piece)
}

/// Opens what [`seal_pieces`] made.
///
/// # Errors
/// `Damaged`.
pub fn open_pieces(key: &[u8; 32], sealed: &[u8]) -> Result<Vec<u8>> {
    let mut pieces = sealed.chunks(PIECE_LEN + TAG_LEN).enumerate().peekable();
    if pieces.peek().is_none() {
        return Err(Error::damaged("open a sealed message: it is empty"));
    }
    let mut out = Vec::with_capacity(sealed.len());
    while let Some((number, piece)) = pieces.next() {
        let start = out.len();
        out.extend_from_slice(piece);
        let opened = open_piece(key, number, pieces.peek().is_none(), &mut out[start..])?.len();
        if opened == 0 && number > 0 {
            return Err(Error::damaged("open a sealed message: an empty last piece"));
        }
        out.truncate(start + opened);
    }
    Ok(out)
}
