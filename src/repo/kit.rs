//! What a recovery kit holds of secrets: an identity, or shares of one, as text that people can type.

use crate::crypto::{share, wrap};
use crate::error::{Error, Result};
use bech32::{Bech32, Hrp};
use zeroize::Zeroizing;

/// What the identities of age begin with.
const IDENTITY: &str = "age-secret-key-";
/// What shares begin with.
const SHARE: &str = "lifeboat-share-";
/// Context of the hash by which shares know their identity.
const MARK_CONTEXT: &str = "lifeboat v1 kit share";
/// First byte of a share.
const VERSION: u8 = 1;
/// Bytes that say to which identity a share belongs.
const MARK: usize = 4;
/// Version, number of shares that are needed, mark.
const HEAD: usize = 2 + MARK;
/// Bytes of an identity.
const SECRET: usize = 32;

fn unreadable(what: &str) -> Error {
    Error::usage(format!("read the {what}: there is a letter too many, too few, or wrong"))
        .with_hint("compare it with the page, or scan the square on it instead")
}

fn hrp(text: &str) -> Hrp {
    Hrp::parse(text).expect("these are letters and a dash")
}

/// The bytes behind a text that must begin with `begin`.
fn decoded(text: &str, begin: &str, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let checked = bech32::primitives::decode::CheckedHrpstring::new::<Bech32>(text).map_err(|_| unreadable(what))?;
    if checked.hrp() != hrp(begin) {
        return Err(unreadable(what));
    }
    Ok(Zeroizing::new(checked.byte_iter().collect()))
}

fn encoded(begin: &str, bytes: &[u8]) -> Zeroizing<String> {
    let text = bech32::encode_upper::<Bech32>(hrp(begin), bytes).expect("it is shorter than the longest that there may be");
    Zeroizing::new(text)
}

/// Which identity it is: nothing secret, but not another one's by chance.
fn mark(identity: &str) -> Result<[u8; MARK]> {
    let recipient = wrap::recipients_of(identity.as_bytes())?.remove(0);
    let hash = blake3::derive_key(MARK_CONTEXT, recipient.as_bytes());
    Ok([hash[0], hash[1], hash[2], hash[3]])
}

/// The age identity in the text of an identity file.
///
/// # Errors
/// `Usage` if there is none, or several.
pub fn identity_in(text: &[u8]) -> Result<Zeroizing<String>> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut found = text.lines().map(str::trim).filter(|line| line.to_ascii_lowercase().starts_with("age-secret-key-1"));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(Zeroizing::new(one.to_ascii_uppercase())),
        (None, _) => Err(Error::usage("put the identity on a page: it is no identity of age")
            .with_hint("--new-identity makes one for the kit alone, which can be removed by itself")),
        _ => Err(Error::usage("put the identity on a page: the file holds several")
            .with_hint("give one by itself with --identity, or make one for the kit with --new-identity")),
    }
}

/// An identity as people type it: in any case, with spaces.
///
/// # Errors
/// `Usage` if a letter is wrong.
pub fn parse_identity(text: &str) -> Result<Zeroizing<String>> {
    let plain = plain(text);
    if decoded(&plain, IDENTITY, "identity")?.len() != SECRET {
        return Err(unreadable("identity"));
    }
    Ok(plain)
}

fn plain(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.split_whitespace().collect::<String>().to_ascii_uppercase())
}

/// Splits an identity into shares, of which any `needed` give it back.
///
/// # Errors
/// `Usage` if it is no age identity, or the numbers make no sense.
pub fn split_identity(identity: &str, needed: u8, parts: u8) -> Result<Vec<Zeroizing<String>>> {
    let secret = decoded(identity, IDENTITY, "identity")?;
    let head = [&[VERSION, needed][..], &mark(identity)?].concat();
    let shares = share::split(&secret, needed, parts)?;
    Ok(shares.iter().map(|share| encoded(SHARE, &Zeroizing::new([&head[..], share].concat()))).collect())
}

/// The identity of which these are shares, as people type them.
///
/// # Errors
/// `Usage` if a letter is wrong, if there are too few, or if they are of different identities.
pub fn join_shares(texts: &[Zeroizing<String>]) -> Result<Zeroizing<String>> {
    let mut head: Option<Vec<u8>> = None;
    let mut parts = Vec::new();
    for text in texts {
        let bytes = decoded(&plain(text), SHARE, "share")?;
        if bytes.len() != HEAD + 1 + SECRET || bytes[0] != VERSION {
            return Err(unreadable("share"));
        }
        if *head.get_or_insert_with(|| bytes[..HEAD].to_vec()) != bytes[..HEAD] {
            return Err(strangers());
        }
        parts.push(Zeroizing::new(bytes[HEAD..].to_vec()));
    }
    let head = head.ok_or_else(|| Error::usage("put shares together: there is none"))?;
    let identity = encoded(IDENTITY, &share::join(head[1], &parts)?);
    if mark(&identity)? != head[2..] {
        return Err(strangers());
    }
    Ok(identity)
}

fn strangers() -> Error {
    Error::usage("put shares together: they do not belong together")
        .with_hint("all must be of one `lifeboat kit`, made on one day; look at what stands on the pages")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_typed_in_any_case_and_with_spaces_and_mistakes_are_noticed() {
        let (identity, _) = wrap::generate_identity();
        let shares = split_identity(&identity, 2, 3).unwrap();
        let typed: String = shares[2].to_lowercase().chars().flat_map(|letter| [letter, ' ']).collect();
        let joined = join_shares(&[shares[0].clone(), Zeroizing::new(typed)]).unwrap();
        assert_eq!(*joined, *identity);
        assert!(join_shares(&shares[..1]).is_err());
        assert!(join_shares(&[shares[0].clone(), shares[0].clone()]).is_err());
        let last = if shares[1].ends_with('Q') { "P" } else { "Q" };
        let wrong = Zeroizing::new(format!("{}{last}", &shares[1][..shares[1].len() - 1]));
        assert!(join_shares(&[shares[0].clone(), wrong]).is_err());
        // Another split of the same identity, and a split of another one.
        let again = split_identity(&identity, 2, 3).unwrap();
        assert!(join_shares(&[shares[0].clone(), again[1].clone()]).is_err());
        let other = split_identity(&wrap::generate_identity().0, 2, 3).unwrap();
        assert!(join_shares(&[shares[0].clone(), other[1].clone()]).is_err());
        assert_eq!(*parse_identity(&format!(" {} ", identity.to_lowercase())).unwrap(), *identity);
        assert!(parse_identity(&identity[..60]).is_err());
    }
}
