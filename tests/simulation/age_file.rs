//! An age file whose random bytes are given: age itself takes none but the system's, and adds a stanza of random length.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

use age_core::primitives::{aead_encrypt, hkdf};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bech32::primitives::decode::CheckedHrpstring;
use hmac::{Hmac, Mac};
use lifeboat::crypto::seal::seal_in_place;
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

/// Seals `plain`, which is short, to an X25519 recipient (age-encryption.org/v1).
pub fn wrap(recipient: &str, plain: &[u8], random: &[u8; 64]) -> Vec<u8> {
    let ephemeral: [u8; 32] = random[..32].try_into().unwrap();
    let (file_key, nonce) = (&random[32..48], &random[48..]);
    let recipient: Vec<u8> = CheckedHrpstring::new::<bech32::Bech32>(recipient).unwrap().byte_iter().collect();
    let share = x25519(ephemeral, X25519_BASEPOINT_BYTES);
    let secret = x25519(ephemeral, recipient.as_slice().try_into().unwrap());
    let key = hkdf(&[&share[..], &recipient].concat(), b"age-encryption.org/v1/X25519", &secret);
    let (share, body) = (encoded(&share), encoded(&aead_encrypt(&key, file_key)));
    let header = format!("age-encryption.org/v1\n-> X25519 {share}\n{body}\n---");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&hkdf(b"", b"header", file_key)).unwrap();
    mac.update(header.as_bytes());
    let mut file = format!("{header} {}\n", encoded(&mac.finalize().into_bytes())).into_bytes();
    file.extend_from_slice(nonce);
    assert!(plain.len() <= 1 << 16, "the payload is one chunk, which is the last one");
    let mut payload = plain.to_vec();
    seal_in_place(&hkdf(nonce, b"payload", file_key), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], b"", &mut payload, 0);
    file.extend_from_slice(&payload);
    file
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_STANDARD_NO_PAD.encode(bytes)
}

#[test]
fn age_opens_what_the_simulation_seals() {
    let secret = [7; 32];
    let (line, recipient) = lifeboat::crypto::wrap::identity_of(&secret).unwrap();
    let credential = lifeboat::crypto::wrap::credential_of(&line).unwrap();
    for length in [0, 32, 4000] {
        let wrapped = wrap(&recipient, &vec![1; length], &[9; 64]);
        assert_eq!(lifeboat::crypto::wrap::unwrap(&wrapped, &credential).unwrap().as_slice(), vec![1; length]);
        assert_eq!(wrapped, wrap(&recipient, &vec![1; length], &[9; 64]));
    }
}
