//! What happens in a world hangs on its seed alone. `LIFEBOAT_REPEATED` says how many worlds happen twice.

use super::{ground, number, simulate};

/// Worlds that happen twice. They are none of those that happen once: two tests may run at once, and a world has its
/// place in the working directory.
const FIRST: u64 = 1 << 40;
const WORLDS: u64 = 12;

#[test]
fn a_seed_decides_every_call_of_the_store_and_every_byte_in_it() {
    let _ground = ground();
    let mut calls = 0;
    let mut met = Vec::new();
    for seed in FIRST..FIRST + number("LIFEBOAT_REPEATED", WORLDS) {
        let ((first, _), (second, _)) = (simulate(seed), simulate(seed));
        for (number, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "LIFEBOAT_SEED={seed}: the entries {number} of the journals differ");
        }
        assert_eq!(first.len(), second.len(), "LIFEBOAT_SEED={seed}: one world went on for longer");
        calls += first.len();
        met.extend(first);
    }
    // It would be easy to repeat worlds in which nothing happens.
    for what in ["create", "put", "delete", "list", ": Crash:", ": Fail:", ": LostAnswer:", ": Later:", "a late put", " of 3: "] {
        assert!(met.iter().any(|line| line.contains(what)), "{what} is in none of {calls} entries");
    }
    assert_ne!(simulate(FIRST).0, simulate(FIRST + 1).0);
}
