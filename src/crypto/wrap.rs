//! age files: key slots and the sealed secrets of sessions (age-encryption.org/v1).

use crate::error::{Error, ErrorKind, Result};
use age::secrecy::{ExposeSecret, SecretString};
use std::io::{Read, Write};
use zeroize::Zeroizing;

/// Longest age file that is opened, in bytes.
pub const MAX_WRAPPED: usize = 1 << 21;
/// Work of a passphrase, as a power of two, beyond which a slot is taken to be hostile.
const MAX_WORK: u8 = 22;

/// Kinds of recipients that need no plugin.
const OWN_KINDS: [&str; 4] = ["X25519", "scrypt", "ssh-ed25519", "ssh-rsa"];

/// What opens age files.
pub enum Credential {
    /// X25519 identities and SSH keys, and those that plugins hold.
    Identities {
        /// Those that need no other program.
        own: Vec<Box<dyn age::Identity + Send + Sync>>,
        /// Those for which a plugin is run.
        plugins: Vec<Box<dyn age::Identity + Send + Sync>>,
    },
    /// A passphrase.
    Passphrase(Zeroizing<String>),
}

impl Credential {
    /// Reads the text of an identity file: lines of `AGE-SECRET-KEY-1…` or `AGE-PLUGIN-…` with comments, or an OpenSSH
    /// private key. Only what stands here has a plugin run, never what a repository says.
    ///
    /// # Errors
    /// `Usage` if it is neither, a key that is locked by a passphrase of its own, or one whose plugin is not there.
    pub fn from_identity_file(text: &[u8]) -> Result<Self> {
        if text.starts_with(b"age-encryption.org/") || text.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----") {
            return Err(Error::usage("read the identity: the file is itself encrypted with age")
                .with_hint("decrypt it with `age -d` to a file that only you can read, and give that one"));
        }
        if text.starts_with(b"-----BEGIN") {
            return Self::from_ssh_key(text);
        }
        let unreadable = || {
            Error::usage("read the identity: it holds no AGE-SECRET-KEY line and is no OpenSSH private key")
                .with_hint("an identity is made by `lifeboat init` or `age-keygen`; look at the file named by --identity")
        };
        let text = Zeroizing::new(String::from_utf8(text.to_vec()).map_err(|_| unreadable())?);
        let (mut rest, mut plugins) = (Zeroizing::new(String::with_capacity(text.len() + 1)), Vec::new());
        for line in text.lines() {
            match line.trim().parse::<age::plugin::Identity>() {
                Ok(identity) => plugins.push(plugin_identity(identity)?),
                Err(_) => [line, "\n"].iter().for_each(|part| rest.push_str(part)),
            }
        }
        let file = age::IdentityFile::from_buffer(rest.as_bytes()).map_err(|_| unreadable())?;
        let own = file.into_identities().map_err(|_| unreadable())?;
        if own.is_empty() && plugins.is_empty() {
            return Err(unreadable());
        }
        Ok(Self::Identities { own, plugins })
    }

    fn from_ssh_key(text: &[u8]) -> Result<Self> {
        let unusable = |why| Error::usage(format!("read the SSH key given as identity: {why}"));
        match age::ssh::Identity::from_buffer(text, None) {
            Ok(identity @ age::ssh::Identity::Unencrypted(_)) => Ok(Self::only(Box::new(identity))),
            Ok(age::ssh::Identity::Encrypted(_)) => Err(unusable("it is locked by a passphrase")
                .with_hint("unlock a copy with `ssh-keygen -p`, or add a slot for another identity with `lifeboat key add`")),
            _ => Err(unusable("its kind is not supported").with_hint("use an ed25519 or rsa key")),
        }
    }

    fn only(identity: Box<dyn age::Identity + Send + Sync>) -> Self {
        Self::Identities { own: vec![identity], plugins: Vec::new() }
    }
}

fn plugin_identity(identity: age::plugin::Identity) -> Result<Box<dyn age::Identity + Send + Sync>> {
    let name = identity.plugin().to_owned();
    match age::plugin::IdentityPluginV1::new(&name, &[identity], age::NoCallbacks) {
        Ok(plugin) => Ok(Box::new(plugin)),
        Err(_) => Err(no_plugin("read the identity", &name)),
    }
}

fn no_plugin(doing: &str, name: &str) -> Error {
    Error::usage(format!("{doing}: age-plugin-{name} is not there"))
        .with_hint("install the plugin of age that made the key, where the PATH leads to it")
}

/// Makes a new X25519 identity: its secret line and its recipient.
#[must_use]
pub fn generate_identity() -> (Zeroizing<String>, String) {
    spelled(&age::x25519::Identity::generate())
}

fn spelled(identity: &age::x25519::Identity) -> (Zeroizing<String>, String) {
    (Zeroizing::new(identity.to_string().expose_secret().to_owned()), identity.to_public().to_string())
}

/// The X25519 identity whose secret these bytes are: its secret line and its recipient.
///
/// # Errors
/// `Failed` if the bytes cannot be spelled as one.
pub fn identity_of(secret: &[u8; 32]) -> Result<(Zeroizing<String>, String)> {
    let line = bech32::encode_upper::<bech32::Bech32>(bech32::Hrp::parse_unchecked("age-secret-key-"), secret);
    let line = Zeroizing::new(line.map_err(|error| Error::failed(format!("make an identity: {error}")))?);
    let identity = line.parse().map_err(|error| Error::failed(format!("make an identity: {error}")))?;
    Ok(spelled(&identity))
}

/// The recipients of the identities in the text of an identity file.
///
/// # Errors
/// `Usage` if there is no age identity in it.
pub fn recipients_of(text: &[u8]) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(text);
    let found: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim().parse::<age::x25519::Identity>().ok())
        .map(|identity| identity.to_public().to_string())
        .collect();
    if found.is_empty() {
        return Err(Error::usage("find the recipient of the identity: it holds no AGE-SECRET-KEY line")
            .with_hint("give the recipient with --recipient age1… or --recipient \"ssh-ed25519 …\""));
    }
    Ok(found)
}

/// True if a plugin must be run to seal to this recipient.
#[must_use]
pub fn needs_plugin(recipient: &str) -> bool {
    recipient.parse::<age::plugin::Recipient>().is_ok()
}

fn parse_recipient(text: &str) -> Result<Box<dyn age::Recipient + Send>> {
    if let Ok(recipient) = text.parse::<age::x25519::Recipient>() {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = text.parse::<age::ssh::Recipient>() {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = text.parse::<age::plugin::Recipient>() {
        let name = recipient.plugin().to_owned();
        let plugin = age::plugin::RecipientPluginV1::new(&name, &[recipient], &[], age::NoCallbacks);
        return plugin.map(|plugin| Box::new(plugin) as _).map_err(|_| no_plugin("read the recipient", &name));
    }
    Err(Error::usage(format!("read the recipient {text:?}: neither age1… nor an ssh-ed25519 or ssh-rsa public key")))
}

fn write_wrapped(encryptor: age::Encryptor, plain: &[u8]) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::failed(format!("seal with age: {error}"));
    let mut out = Vec::with_capacity(plain.len() + 512);
    let mut writer = encryptor.wrap_output(&mut out).map_err(failed)?;
    writer.write_all(plain).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

/// Seals `plain` to one recipient.
///
/// # Errors
/// `Usage` if the recipient cannot be read.
pub fn wrap_to(recipient: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let recipient = parse_recipient(recipient)?;
    let recipients: [&dyn age::Recipient; 1] = [recipient.as_ref()];
    let encryptor = age::Encryptor::with_recipients(recipients.into_iter())
        .map_err(|error| Error::failed(format!("seal with age: {error}")))?;
    write_wrapped(encryptor, plain)
}

/// Seals `plain` with a passphrase; `work` is the power of two of scrypt's cost, by default about a second.
///
/// # Errors
/// `Failed`.
pub fn wrap_with_passphrase(passphrase: &str, plain: &[u8], work: Option<u8>) -> Result<Vec<u8>> {
    let mut recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    if let Some(work) = work {
        recipient.set_work_factor(work);
    }
    let recipients: [&dyn age::Recipient; 1] = [&recipient];
    let encryptor = age::Encryptor::with_recipients(recipients.into_iter())
        .map_err(|error| Error::failed(format!("seal with age: {error}")))?;
    write_wrapped(encryptor, plain)
}

/// Opens an age file.
///
/// # Errors
/// `WrongKey` if the credential does not fit it, `Damaged` if the file is not what was written.
pub fn unwrap(wrapped: &[u8], credential: &Credential) -> Result<Zeroizing<Vec<u8>>> {
    if wrapped.len() > MAX_WRAPPED {
        return Err(Error::damaged("open an age file: it is too long"));
    }
    let decryptor = age::Decryptor::new_buffered(wrapped).map_err(map_error)?;
    let reader = match credential {
        Credential::Identities { own, plugins } => {
            if decryptor.is_scrypt() {
                return Err(wrong_key("it is sealed with a passphrase"));
            }
            // A plugin may ask for a touch, so it is not run for what it cannot open.
            let foreign = recipient_kinds(wrapped).iter().any(|kind| !OWN_KINDS.contains(&kind.as_str()));
            let plugins = plugins.iter().filter(|_| foreign);
            decryptor.decrypt(own.iter().chain(plugins).map(|identity| identity.as_ref() as &dyn age::Identity))
        }
        Credential::Passphrase(passphrase) => {
            if !decryptor.is_scrypt() {
                return Err(wrong_key("it is sealed to an identity, not with a passphrase"));
            }
            let mut identity = age::scrypt::Identity::new(SecretString::from(passphrase.to_string()));
            identity.set_max_work_factor(MAX_WORK);
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
        }
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(wrapped.len()));
    reader
        .map_err(map_error)?
        .read_to_end(&mut plain)
        .map_err(|_| Error::damaged("open an age file: its content was changed"))?;
    Ok(plain)
}

/// The identity that one secret line stands for, as a credential.
///
/// # Errors
/// `Damaged` if the line is no identity.
pub fn credential_of(secret: &str) -> Result<Credential> {
    let identity = secret
        .parse::<age::x25519::Identity>()
        .map_err(|_| Error::damaged("read an identity of a bundle: not an AGE-SECRET-KEY"))?;
    Ok(Credential::only(Box::new(identity)))
}

/// The kinds of recipients in the header of an age file, such as `X25519` or `scrypt`.
#[must_use]
pub fn recipient_kinds(wrapped: &[u8]) -> Vec<String> {
    let header = &wrapped[..wrapped.len().min(4096)];
    let header = String::from_utf8_lossy(header);
    let lines = header.lines().take_while(|line| !line.starts_with("---"));
    lines
        .filter_map(|line| line.strip_prefix("-> "))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .filter(|kind| !kind.ends_with("-grease"))
        .collect()
}

fn wrong_key(why: &str) -> Error {
    Error::new(ErrorKind::WrongKey, format!("open a key slot: {why}"))
}

fn map_error(error: age::DecryptError) -> Error {
    use age::DecryptError as E;
    match error {
        E::NoMatchingKeys | E::DecryptionFailed | E::KeyDecryptionFailed => wrong_key("the key does not fit"),
        E::ExcessiveWork { required, .. } => {
            Error::damaged(format!("open a key slot: it asks for an excessive work factor of {required}"))
        }
        E::InvalidHeader | E::InvalidMac => Error::damaged("open an age file: its header was changed"),
        E::UnknownFormat => Error::new(ErrorKind::Unsupported, "open an age file: its version is not known"),
        _ => Error::damaged("open an age file: it is cut off or no age file"),
    }
}
