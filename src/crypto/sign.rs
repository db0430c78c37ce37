//! Ed25519 signatures of log records and prune objects.

use crate::error::{Error, Result};
use crate::id::{ClientId, RepositoryId};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Length of a signature.
pub const SIGNATURE_LEN: usize = 64;
/// Context under which log records are signed.
pub const LOG_RECORD: &str = "lifeboat v1 log record";
/// Context under which prune objects are signed.
pub const PRUNE_OBJECT: &str = "lifeboat v1 prune object";

fn digest(context: &str, repository: &RepositoryId, message: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    blake3::Hasher::new_derive_key(context).update(&repository.0).update(message).finalize_xof().fill(&mut out);
    out
}

/// A client's signing key.
pub struct ClientKey(SigningKey);

impl ClientKey {
    /// The key of a seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `message` of `repository` in `context`.
    #[must_use]
    pub fn sign(&self, context: &str, repository: &RepositoryId, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&digest(context, repository, message)).to_bytes()
    }
}

/// Verifies a signature, strictly: no small-order keys, no second form of a signature.
///
/// # Errors
/// `Damaged`.
pub fn verify(
    public: &[u8; 32],
    context: &str,
    repository: &RepositoryId,
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<()> {
    let wrong = |_| Error::damaged("verify a signature: it was not made by this client's key");
    let key = VerifyingKey::from_bytes(public).map_err(wrong)?;
    key.verify_strict(&digest(context, repository, message), &Signature::from_bytes(signature)).map_err(wrong)
}

/// The id of the client with this public key.
#[must_use]
pub fn client_id(public: &[u8; 32]) -> ClientId {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(public).as_bytes()[..16]);
    ClientId(id)
}
