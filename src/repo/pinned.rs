//! Heads of logs as they stand on a kit: short enough for a page, and enough to notice that a store was set back.
//!
//! A record is signed and chained, so nobody but its client can put another one in its place; eight bytes of its hash, and
//! as many digits of the client's id, tell it from all others.

use super::{Repository, cache};
use crate::error::{Error, ErrorKind, Result};
use crate::format::log::{Head, MAX_RECORD};
use crate::repo::log::object_hash;
use crate::store::Key;
use std::fmt;
use std::str::FromStr;

/// Digits of a client's id.
const CLIENT: usize = 8;
/// Digits of a record's hash.
const HASH: usize = 16;
/// Most logs whose heads are noted: the owner's, and those that are longest.
const MOST: usize = 6;

/// The head of a log, shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedHead {
    client: String,
    seq: u64,
    hash: String,
}

impl PinnedHead {
    fn of(head: &Head) -> Self {
        let cut = |text: String, length: usize| text[..length].to_owned();
        Self { client: cut(head.client.to_string(), CLIENT), seq: head.seq, hash: cut(head.hash.to_string(), HASH) }
    }
}

impl fmt::Display for PinnedHead {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.client, self.seq, self.hash)
    }
}

impl FromStr for PinnedHead {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("read the head {text:?}: it is no client, number, and hash"))
                .with_hint("compare it with the page, or leave the line out: then an older state is not noticed")
        };
        let text = text.to_ascii_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        let [client, seq, hash] = words[..] else { return Err(wrong()) };
        let digits = |word: &str, length| word.len() == length && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits(client, CLIENT) || !digits(hash, HASH) {
            return Err(wrong());
        }
        Ok(Self { client: client.to_owned(), seq: seq.parse().map_err(|_| wrong())?, hash: hash.to_owned() })
    }
}

impl Repository {
    /// The heads that go on a kit: the owner's, and those of the longest logs.
    ///
    /// # Errors
    /// `Failed` if the cache cannot be read.
    pub fn pinned_heads(&self) -> Result<Vec<PinnedHead>> {
        let mut heads = cache::log::heads(&self.connection())?;
        let owner = self.owner();
        heads.sort_by_key(|head| (head.client != owner, std::cmp::Reverse(head.seq)));
        heads.truncate(MOST);
        Ok(heads.iter().map(PinnedHead::of).collect())
    }

    /// Fails if a log does not have the record that was its head when `heads` were noted.
    ///
    /// # Errors
    /// `RolledBack`; what the store says.
    pub fn check_pinned(&self, heads: &[PinnedHead]) -> Result<()> {
        if heads.is_empty() {
            return Ok(());
        }
        let members = self.members()?;
        for head in heads {
            let behind = |why: &str| {
                let message = format!("compare the repository with the kit: record {} of client {} {why}", head.seq, head.client);
                Error::new(ErrorKind::RolledBack, message).with_hint(
                    "the store was set back to an older state than the kit's, or tampered with: find the newer state, or say \
                     --accept-rollback if the older one is to count",
                )
            };
            let client = members.iter().map(|member| member.id).find(|id| id.to_string().starts_with(&head.client));
            let client = client.ok_or_else(|| behind("is gone with its whole log"))?;
            let floor = cache::checkpoint::floor(&self.connection(), &client)?;
            if floor.is_some_and(|floor| head.seq < floor.seq) {
                // A checkpoint stands for it.
                continue;
            }
            let key = Key::log(&client, head.seq);
            let is_it = |bytes: &[u8]| object_hash(bytes).to_string().starts_with(&head.hash);
            // A record that was lost or damaged, and of which there is a duplicate, is no older state.
            match self.store().get(&key, MAX_RECORD) {
                Ok(bytes) if is_it(&bytes) || self.duplicate_of(&key, &is_it).is_some() => {}
                Ok(_) => return Err(behind("is another one")),
                Err(error) if error.kind() == ErrorKind::Missing => {
                    if self.duplicate_of_missing(&key, &is_it).is_none() {
                        return Err(behind("is gone"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written_in_any_case_and_nothing_else_is() {
        let head = PinnedHead { client: "4f2a91c0".into(), seq: 17, hash: "9c1e22d0a1b2c3d4".into() };
        assert_eq!(head.to_string(), "4f2a91c0 17 9c1e22d0a1b2c3d4");
        assert_eq!(" 4F2A91C0  17 9c1e22d0A1b2c3d4 ".parse::<PinnedHead>().unwrap(), head);
        for wrong in
            ["", "4f2a91c0 17", "4f2a91c0 x 9c1e22d0a1b2c3d4", "4f2a91c 17 9c1e22d0a1b2c3d4", "4f2a91c0 17 9c1e22d0a1b2c3dg"]
        {
            assert!(wrong.parse::<PinnedHead>().is_err(), "{wrong:?}");
        }
    }
}
