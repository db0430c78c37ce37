//! Bundles: the keys of a role (docs/format.md#31-slots-and-bundles).

use super::cbor::{Decoder, MapEncoder, non_empty_text, unknown};
use crate::error::Result;
use crate::id::{Fingerprint, RepositoryId};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Backs up; reads nothing back.
    Writer,
    /// Lists, forgets, prunes; reads no file.
    Maintainer,
    /// Restores.
    Reader,
    /// Everything.
    Owner,
}

impl Role {
    const ALL: [Self; 4] = [Self::Writer, Self::Maintainer, Self::Reader, Self::Owner];

    /// Its code in the format.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Writer => 1,
            Self::Maintainer => 2,
            Self::Reader => 3,
            Self::Owner => 4,
        }
    }

    /// The role with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.code() == code)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Maintainer => "maintainer",
            Self::Reader => "reader",
            Self::Owner => "owner",
        }
    }
}

/// Keys of one generation; what a role does not hold is absent.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Generation {
    /// Its number, from 1.
    pub number: u32,
    /// Opens tables of contents, the log, and prune objects.
    pub index: [u8; 32],
    /// Mixed into sessions of data.
    pub shared_data: Option<[u8; 32]>,
    /// Mixed into sessions of meta.
    pub shared_meta: Option<[u8; 32]>,
    /// Recipient of the data vault.
    pub vault_data: String,
    /// Recipient of the meta vault.
    pub vault_meta: String,
    /// Identity of the data vault.
    pub identity_data: Option<String>,
    /// Identity of the meta vault.
    pub identity_meta: Option<String>,
    /// Fields of later versions, kept as they are: key and encoded value.
    pub extra: Vec<(u64, Vec<u8>)>,
}

/// The keys of a role.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Bundle {
    /// Whose keys they are.
    #[zeroize(skip)]
    pub role: Role,
    /// The repository.
    #[zeroize(skip)]
    pub repository: RepositoryId,
    /// The repository's fingerprint; a bundle is refused elsewhere.
    #[zeroize(skip)]
    pub fingerprint: Fingerprint,
    /// Seed of the signing key.
    pub signing_seed: Option<[u8; 32]>,
    /// The domain key D.
    pub domain: Option<[u8; 32]>,
    /// Name keys of the four types, where D is absent.
    pub names: Option<[[u8; 32]; 4]>,
    /// Key generations, ascending.
    pub generations: Vec<Generation>,
    /// Fields of later versions, kept as they are: key and encoded value.
    pub extra: Vec<(u64, Vec<u8>)>,
}

impl Bundle {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut generations = Zeroizing::new(Vec::with_capacity(4096));
        self.generations.iter().for_each(|generation| generation.encode(&mut generations));
        let mut out = Zeroizing::new(Vec::with_capacity(8192));
        let mut map = MapEncoder::new(&mut out);
        map.key(0).uint(self.role.code().into());
        map.key(1).bytes(&self.repository.0);
        map.key(2).bytes(&self.fingerprint.0);
        if let Some(seed) = &self.signing_seed {
            map.key(3).bytes(seed);
        }
        if let Some(domain) = &self.domain {
            map.key(4).bytes(domain);
        }
        if let Some(names) = &self.names {
            let mut array = map.key(5);
            array.array(4);
            names.iter().for_each(|name| array.bytes(name));
        }
        let mut array = map.key(6);
        array.array(self.generations.len());
        array.encoded(&generations);
        map.finish(&self.extra);
        out
    }

    /// Decodes a bundle.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes, "a key bundle");
        let decoder = &mut decoder;
        let mut map = decoder.map()?;
        let mut bundle = Self {
            role: Role::Writer,
            repository: RepositoryId([0; 16]),
            fingerprint: Fingerprint([0; 16]),
            signing_seed: None,
            domain: None,
            names: None,
            generations: Vec::new(),
            extra: Vec::new(),
        };
        let mut seen = 0u64;
        while let Some(key) = map.key(decoder)? {
            seen |= 1 << key.min(63);
            match key {
                0 => {
                    let code = decoder.uint8()?;
                    bundle.role = Role::from_code(code).ok_or_else(|| decoder.wrong("an unknown role"))?;
                }
                1 => bundle.repository = RepositoryId(decoder.fixed()?),
                2 => bundle.fingerprint = Fingerprint(decoder.fixed()?),
                3 => bundle.signing_seed = Some(decoder.fixed()?),
                4 => bundle.domain = Some(decoder.fixed()?),
                5 => {
                    if decoder.array()? != 4 {
                        return Err(decoder.wrong("name keys that are not four"));
                    }
                    bundle.names = Some([decoder.fixed()?, decoder.fixed()?, decoder.fixed()?, decoder.fixed()?]);
                }
                6 => {
                    bundle.generations = (0..decoder.array()?).map(|_| Generation::decode(decoder)).collect::<Result<_>>()?;
                }
                _ => unknown(key, decoder, &mut bundle.extra)?,
            }
        }
        decoder.end()?;
        let ascending = bundle.generations.is_sorted_by(|a, b| a.number < b.number);
        if seen & 0x47 != 0x47 || bundle.generations.is_empty() || !ascending {
            return Err(decoder.wrong("fields that are missing or contradict each other"));
        }
        Ok(bundle)
    }
}

impl Generation {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut map = MapEncoder::new(out);
        map.key(0).uint(self.number.into());
        map.key(1).bytes(&self.index);
        if let Some(shared) = &self.shared_data {
            map.key(2).bytes(shared);
        }
        if let Some(shared) = &self.shared_meta {
            map.key(3).bytes(shared);
        }
        for (key, text) in [(4, &self.vault_data), (5, &self.vault_meta)] {
            if !text.is_empty() {
                map.key(key).text(text);
            }
        }
        for (key, text) in [(6, &self.identity_data), (7, &self.identity_meta)] {
            if let Some(text) = text {
                map.key(key).text(text);
            }
        }
        map.finish(&self.extra);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let mut map = decoder.map()?;
        let mut generation = Self {
            number: 0,
            index: [0; 32],
            shared_data: None,
            shared_meta: None,
            vault_data: String::new(),
            vault_meta: String::new(),
            identity_data: None,
            identity_meta: None,
            extra: Vec::new(),
        };
        let mut seen = 0u64;
        while let Some(key) = map.key(decoder)? {
            seen |= 1 << key.min(63);
            match key {
                0 => generation.number = decoder.uint32()?,
                1 => generation.index = decoder.fixed()?,
                2 => generation.shared_data = Some(decoder.fixed()?),
                3 => generation.shared_meta = Some(decoder.fixed()?),
                4 => generation.vault_data = non_empty_text(decoder)?,
                5 => generation.vault_meta = non_empty_text(decoder)?,
                6 => generation.identity_data = Some(non_empty_text(decoder)?),
                7 => generation.identity_meta = Some(non_empty_text(decoder)?),
                _ => unknown(key, decoder, &mut generation.extra)?,
            }
        }
        if seen & 3 != 3 || generation.number == 0 {
            return Err(decoder.wrong("a generation without number or key"));
        }
        Ok(generation)
    }
}
