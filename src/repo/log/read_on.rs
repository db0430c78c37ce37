//! Reading records of a log one after the other, and some ahead where an answer takes long.

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
        self.read_on(id, seq).map(Some)
    }

    /// The records of a log from a place on, some at a time.
    pub(super) fn read_on(&self, id: &ClientId, seq: u64) -> Result<Found> {
        let (mut records, mut length) = (Vec::new(), 0);
        while records.len() < AHEAD && length < AHEAD_BYTES {
            // Records are read ahead where an answer takes long, twice as many each time: most often there is none that is new,
            // unless nothing of the log was read before.
            let least = match (seq, *id == self.owner()) {
                (0, true) => AHEAD,
                (0, false) if !cache::log::was_empty(&self.connection(), id)? => FIRST,
                _ => 1,
            };
            let ahead = records.len().max(least).min(self.width());
            let seqs: Vec<u64> = (seq + records.len() as u64..).take(ahead).collect();
            for bytes in self.side_by_side(&seqs, |seq| self.front_of(&Key::log(id, *seq), MAX_RECORD)) {
                match bytes? {
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
