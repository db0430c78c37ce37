//! A secret in parts: so many of them give it back, one fewer says nothing about it (Shamir, "How to share a secret",
//! 1979; over GF(2^8), each byte by itself).

use crate::error::{Error, Result};
use blahaj::{Share, Sharks};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Splits a secret into `parts`, of which any `needed` give it back; each begins with its number.
///
/// # Errors
/// `Usage` if fewer than two are needed, or more than there are.
pub fn split(secret: &[u8], needed: u8, parts: u8) -> Result<Vec<Zeroizing<Vec<u8>>>> {
    if needed < 2 || parts < needed {
        return Err(Error::usage(format!("split a secret into {parts} shares of which {needed} are needed: that is none"))
            .with_hint("write it like 2/3: two of three; at least two are needed"));
    }
    let dealer = Sharks(needed).dealer(secret);
    Ok(dealer.take(usize::from(parts)).map(|share| Zeroizing::new(Vec::from(&share))).collect())
}

/// The secret of which these are parts. Nothing here tells whether they belong together: compare what comes out.
///
/// # Errors
/// `Usage` if there are too few different ones, or one is no part.
pub fn join(needed: u8, parts: &[Zeroizing<Vec<u8>>]) -> Result<Zeroizing<Vec<u8>>> {
    // One that is given twice must not count twice, and more than are needed are not needed.
    let different: BTreeMap<u8, &Zeroizing<Vec<u8>>> = parts.iter().filter_map(|part| Some((*part.first()?, part))).collect();
    if different.len() < usize::from(needed) {
        let message = format!("put shares together: {} of the {needed} that are needed are here", different.len());
        return Err(Error::usage(message).with_hint("get the pages of the others"));
    }
    let unusable = |_| Error::usage("put shares together: one of them is no share");
    let shares = different.into_values().take(usize::from(needed)).map(|part| Share::try_from(part.as_slice()));
    let shares = shares.collect::<std::result::Result<Vec<Share>, _>>().map_err(unusable)?;
    Sharks(needed).recover(&shares).map(Zeroizing::new).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_enough_parts_gives_the_secret() {
        let parts = split(b"secret", 3, 5).unwrap();
        for a in 0..5 {
            for b in 0..5 {
                for c in 0..5 {
                    let chosen = [parts[a].clone(), parts[b].clone(), parts[c].clone()];
                    let distinct = a != b && b != c && a != c;
                    assert_eq!(join(3, &chosen).ok().map(|secret| secret.to_vec()), distinct.then(|| b"secret".to_vec()));
                }
            }
        }
        assert_eq!(*join(3, &parts).unwrap(), b"secret");
        for (needed, count) in [(0, 3), (1, 3), (4, 3)] {
            assert!(split(b"secret", needed, count).is_err());
        }
    }

    #[test]
    fn one_part_of_a_known_secret_can_be_anything() {
        // With two needed, a part is the secret plus a random byte: each of the 256 must come up, zero among them.
        let mut seen = [false; 256];
        for _ in 0..40 {
            split(&[7; 256], 2, 2).unwrap()[0][1..].iter().for_each(|byte| seen[usize::from(*byte)] = true);
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
