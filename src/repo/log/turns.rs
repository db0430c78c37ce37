//! Whose turn it is to hold a table of contents: one that somebody made as long as can be takes many times its length of
//! memory, and several threads read tables at once.

use crate::format::log::PackRef;
use crate::format::pack::TOC_TARGET;
use crate::repo::Repository;
use std::sync::{Condvar, Mutex};

/// Bytes of sealed tables that are held at once. Those that writers make are much shorter; a longer one is held alone.
pub(in crate::repo) const HELD: u64 = 2 * TOC_TARGET as u64;

/// What all threads hold.
#[derive(Default)]
pub(in crate::repo) struct Turns {
    held: Mutex<u64>,
    given_back: Condvar,
}

impl Turns {
    fn take(&self, length: u64) -> Turn<'_> {
        let held = self.held.lock().expect("no code panics while it holds this lock");
        let is_room = |held: &mut u64| *held > 0 && held.saturating_add(length) > HELD;
        let mut held = self.given_back.wait_while(held, is_room).expect("no code panics while it holds this lock");
        *held += length;
        Turn { turns: self, length }
    }
}

/// As long as this lives, a table of contents may be in memory.
pub struct Turn<'a> {
    turns: &'a Turns,
    length: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.turns.held.lock().expect("no code panics while it holds this lock") -= self.length;
        self.turns.given_back.notify_all();
    }
}

impl Repository {
    /// Waits until there is room for the table of contents of a pack. Whoever has a turn asks for no other.
    #[must_use]
    pub fn turn_for(&self, pack: &PackRef) -> Turn<'_> {
        self.inner.turns.take(u64::from(pack.toc_len))
    }
}

/// As many of these packs, from the first on, as may be held at once.
pub(in crate::repo) fn together<T>(packs: &[T], pack_of: impl Fn(&T) -> &PackRef) -> usize {
    let mut sum = 0;
    let fits = packs.iter().take_while(|pack| {
        sum += u64::from(pack_of(pack).toc_len);
        sum <= HELD
    });
    fits.count().max(packs.len().min(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PackId;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn what_is_held_at_once_is_bounded_and_what_is_longer_is_held_alone() {
        let (turns, held, most) = (Turns::default(), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (turns, held, most) = (&turns, &held, &most);
                scope.spawn(move || {
                    for round in 0..500 {
                        let length = if (thread + round) % 7 == 0 { 4 * HELD } else { HELD / 3 };
                        let turn = turns.take(length);
                        let now = held.fetch_add(length, Ordering::SeqCst) + length;
                        assert!(now <= HELD || now == length, "{now}");
                        most.fetch_max(now, Ordering::SeqCst);
                        held.fetch_sub(length, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 4 * HELD);
    }

    #[test]
    fn packs_are_taken_together_as_far_as_their_tables_fit_and_at_least_one_is() {
        let pack = |toc_len| PackRef { id: PackId([0; 32]), size: 1 << 20, toc_len };
        let (long, short) = (pack(64 << 20), pack(4 << 20));
        let count = |packs: &[PackRef]| together(packs, |pack| pack);
        assert_eq!([count(&[]), count(&[long, short]), count(&[short, long]), count(&[short; 9])], [0, 1, 1, 4]);
    }
}
