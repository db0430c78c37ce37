//! Reading records of a log one after the other, and some ahead where an answer takes long.

use super::stored::SHORT;
use crate::error::Result;
use crate::format::log::MAX_RECORD;
use crate::id::ClientId;
use crate::repo::{Repository, cache};
use crate::store::Key;

/// What lay at a place of a log, and behind it, when it was asked for.
pub(super) struct Found {
    pub(super) seq: u64,
    pub(super) records: Vec<Vec<u8>>,
    /// There was nothing behind them.
    pub(super) ended: bool,
}

/// Records of a log that are in memory at once, and bytes of them after which no more are asked for: somebody may have made each
/// as long as can be.
const AHEAD: usize = 64;
const AHEAD_BYTES: usize = MAX_RECORD as usize;

/// Longest record that is asked for side by side with some of the same log and of others.
const SHORT_OF_MANY: u64 = 64 << 10;

/// Records of another log than the owner's that are asked for at first: few have less.
const FIRST: usize = 4;

impl Repository {
    /// What lies behind the last record of a log that was read; nothing where no time is saved by asking for several logs at
    /// once.
    pub(super) fn next_of(&self, id: &ClientId) -> Result<Option<Found>> {
        if self.width() == 1 {
            return Ok(None);
        }
        let seq = cache::log::head(&self.connection(), id)?.map_or(0, |(head, _)| head.seq + 1);
        self.read_within(id, seq, SHORT_OF_MANY).map(Some)
    }

    /// The records of a log from a place on, some at a time.
    pub(super) fn read_on(&self, id: &ClientId, seq: u64) -> Result<Found> {
        self.read_within(id, seq, SHORT)
    }

    /// The same; records up to that length are asked for side by side. For many logs at once no longer ones are, and no more bytes.
    fn read_within(&self, id: &ClientId, seq: u64, short: u64) -> Result<Found> {
        let (mut records, mut length) = (Vec::new(), 0);
        let most = if short == SHORT_OF_MANY { SHORT as usize } else { AHEAD_BYTES };
        while records.len() < AHEAD && length < most {
            // Records are read ahead where an answer takes long, twice as many each time: most often there is none that is new,
            // unless nothing of the log was read before.
            let least = match (seq, *id == self.owner()) {
                (0, true) => AHEAD,
                (0, false) if !cache::log::was_empty(&self.connection(), id)? => FIRST,
                _ => 1,
            };
            let ahead = records.len().max(least).min(self.width());
            let keys: Vec<Key> = (seq + records.len() as u64..).take(ahead).map(|seq| Key::log(id, seq)).collect();
            for (key, front) in keys.iter().zip(self.fronts_of(&keys, short)) {
                let front = match front {
                    None if short == SHORT_OF_MANY || length >= most => return Ok(Found { seq, records, ended: false }),
                    None => self.front_of(key, MAX_RECORD),
                    Some(front) => front,
                };
                match front? {
                    Some(bytes) => {
                        length += bytes.len();
                        records.push(bytes);
                    }
                    None => return Ok(Found { seq, records, ended: true }),
                }
            }
        }
        Ok(Found { seq, records, ended: false })
    }
}
