//! age files: what opens them, what does not, and what is said then.

use lifeboat::crypto::wrap::{
    Credential, credential_of, generate_identity, recipient_kinds, recipients_of, unwrap, wrap_to, wrap_with_passphrase,
};
use lifeboat::error::ErrorKind;
use std::io::Write;
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

fn kind(wrapped: &[u8], credential: &Credential) -> ErrorKind {
    unwrap(wrapped, credential).unwrap_err().kind()
}

fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Zeroizing::new(text.to_owned()))
}

#[test]
fn an_identity_opens_what_was_sealed_to_it_and_another_does_not() {
    let (secret, recipient) = generate_identity();
    let wrapped = wrap_to(&recipient, b"bundle").unwrap();
    assert_eq!(unwrap(&wrapped, &credential_of(&secret).unwrap()).unwrap()[..], *b"bundle");
    let (other, _) = generate_identity();
    assert_eq!(kind(&wrapped, &credential_of(&other).unwrap()), ErrorKind::WrongKey);
    assert_eq!(kind(&wrapped, &passphrase("x")), ErrorKind::WrongKey);
    assert_eq!(recipient_kinds(&wrapped), ["X25519"]);
}

#[test]
fn a_passphrase_opens_what_was_sealed_with_it_and_another_does_not() {
    let wrapped = wrap_with_passphrase("four words of mine", b"bundle", Some(2)).unwrap();
    assert_eq!(unwrap(&wrapped, &passphrase("four words of mine")).unwrap()[..], *b"bundle");
    assert_eq!(kind(&wrapped, &passphrase("four words of yours")), ErrorKind::WrongKey);
    let (secret, _) = generate_identity();
    assert_eq!(kind(&wrapped, &credential_of(&secret).unwrap()), ErrorKind::WrongKey);
    assert_eq!(recipient_kinds(&wrapped), ["scrypt"]);
}

#[test]
fn an_identity_file_may_hold_comments_and_several_identities() {
    let ((first, _), (second, recipient)) = (generate_identity(), generate_identity());
    let text = format!("# made by hand\n{}\n\n{}\n", *first, *second);
    let credential = Credential::from_identity_file(text.as_bytes()).unwrap();
    let wrapped = wrap_to(&recipient, b"bundle").unwrap();
    assert_eq!(unwrap(&wrapped, &credential).unwrap()[..], *b"bundle");
    assert_eq!(recipients_of(text.as_bytes()).unwrap()[1], recipient);
    for text in [
        "age-encryption.org/v1\n-> scrypt",
        "-----BEGIN AGE ENCRYPTED FILE-----\n",
        "",
        "# nothing\n",
        "AGE-SECRET-KEY-1NONSENSE",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nx",
    ] {
        let Err(error) = Credential::from_identity_file(text.as_bytes()) else { panic!("{text:?} was taken") };
        assert_eq!(error.kind(), ErrorKind::Usage, "{text:?}");
    }
}

#[test]
fn a_damaged_age_file_is_never_opened_and_never_panics() {
    let (secret, recipient) = generate_identity();
    let credential = credential_of(&secret).unwrap();
    let wrapped = wrap_to(&recipient, b"bundle").unwrap();
    for at in 0..wrapped.len() {
        assert!(unwrap(&wrapped[..at], &credential).is_err(), "cut at {at}");
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        assert!(unwrap(&changed, &credential).is_err(), "changed at {at}");
    }
    let mut changed = wrapped.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(kind(&changed, &credential), ErrorKind::Damaged);
}

#[test]
fn a_slot_that_asks_for_endless_work_is_refused() {
    let wrapped = wrap_with_passphrase("x", b"bundle", Some(2)).unwrap();
    let end = wrapped.windows(4).position(|window| window == b"\n---").unwrap();
    let header = String::from_utf8(wrapped[..end].to_vec()).unwrap();
    let stanza = header.lines().nth(1).unwrap();
    let hostile = format!("{} 30", stanza.rsplit_once(' ').unwrap().0);
    let hostile = [header.replace(stanza, &hostile).as_bytes(), &wrapped[end..]].concat();
    assert_eq!(kind(&hostile, &passphrase("x")), ErrorKind::Damaged);
}

#[test]
fn the_program_age_opens_what_is_sealed_here_and_the_other_way_round() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, recipient) = generate_identity();
    let file = folder.path().join("identity");
    std::fs::write(&file, secret.as_bytes()).unwrap();
    let run = |arguments: &[&std::ffi::OsStr], input: &[u8]| {
        let mut child = Command::new("age").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        child.stdin.take().unwrap().write_all(input).unwrap();
        Some(child.wait_with_output().unwrap().stdout)
    };
    let wrapped = wrap_to(&recipient, b"bundle").unwrap();
    let Some(opened) = run(&["-d".as_ref(), "-i".as_ref(), file.as_os_str()], &wrapped) else { return };
    assert_eq!(opened, b"bundle");
    let theirs = run(&["-r".as_ref(), recipient.as_ref()], b"theirs").unwrap();
    assert_eq!(unwrap(&theirs, &credential_of(&secret).unwrap()).unwrap()[..], *b"theirs");
}

#[test]
fn an_ssh_key_opens_what_was_sealed_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
    let wrapped = wrap_to(public.trim(), b"bundle").unwrap();
    let credential = Credential::from_identity_file(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(unwrap(&wrapped, &credential).unwrap()[..], *b"bundle");
    assert_eq!(recipient_kinds(&wrapped), ["ssh-ed25519"]);
}
