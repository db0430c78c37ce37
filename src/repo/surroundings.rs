//! What an engine takes from outside that is different in each run: random bytes, and the time.
//!
//! All of it comes through here. It is the system's, always: only a simulation of `tests` hands in another one, so that a
//! seed decides every byte that its store sees (docs/security.md#how-it-is-done).

use crate::crypto::derive::Secret;
use crate::crypto::{self, wrap};
use crate::error::Result;
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// Seals a plaintext to a recipient as an age file, with these random bytes: age takes none but its own.
type Wrap = fn(recipient: &str, plain: &[u8], random: &[u8; 64]) -> Vec<u8>;

/// One of several things that are done beside each other.
#[doc(hidden)]
pub type Lane<'a> = Box<dyn FnMut() + Send + 'a>;
/// Does all of them, whoever comes first; a simulation says who goes on at each call of its store.
#[doc(hidden)]
pub type SideBySide = Arc<dyn Fn(&mut [Lane<'_>]) + Send + Sync>;

/// The system's random bytes and clock, or those of a simulation.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Surroundings {
    simulated: Option<Arc<Simulated>>,
}

struct Simulated {
    stream: Mutex<blake3::OutputReader>,
    now: Arc<dyn Fn() -> i64 + Send + Sync>,
    wrap: Wrap,
    side_by_side: SideBySide,
}

impl Surroundings {
    /// Those of a simulation: nothing that is sealed in them is a secret. Nothing but a test calls this
    /// (`tests/architecture.rs`).
    #[must_use]
    pub fn simulated(seed: [u8; 32], now: Arc<dyn Fn() -> i64 + Send + Sync>, wrap: Wrap, side_by_side: SideBySide) -> Self {
        let stream = Mutex::new(blake3::Hasher::new_keyed(&seed).finalize_xof());
        Self { simulated: Some(Arc::new(Simulated { stream, now, wrap, side_by_side })) }
    }

    /// The same for another thread: in a simulation, what it draws does not hang on when it draws it.
    pub(super) fn branch(&self) -> Result<Self> {
        let Some(simulated) = &self.simulated else { return Ok(Self::default()) };
        Ok(Self::simulated(self.random()?, simulated.now.clone(), simulated.wrap, simulated.side_by_side.clone()))
    }

    /// Fills `bytes` with random ones.
    pub(super) fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let Some(simulated) = &self.simulated else { return crypto::fill_random(bytes) };
        simulated.stream.lock().expect("no code panics while it holds this lock").fill(bytes);
        Ok(())
    }

    /// A new array of random bytes.
    pub(super) fn random<const LEN: usize>(&self) -> Result<[u8; LEN]> {
        let mut bytes = [0; LEN];
        self.fill(&mut bytes).map(|()| bytes)
    }

    /// A new random secret.
    pub(super) fn secret(&self) -> Result<Secret> {
        self.random().map(Secret)
    }

    /// A new X25519 identity: its secret line and its recipient.
    pub(super) fn identity(&self) -> Result<(Zeroizing<String>, String)> {
        let secret = Zeroizing::new(self.random()?);
        wrap::identity_of(&secret)
    }

    /// Seals `plain` to one recipient as an age file.
    pub(super) fn wrap_to(&self, recipient: &str, plain: &[u8]) -> Result<Vec<u8>> {
        match &self.simulated {
            None => wrap::wrap_to(recipient, plain),
            Some(simulated) => Ok((simulated.wrap)(recipient, plain, &self.random()?)),
        }
    }

    /// The clock, nanoseconds since 1970: told to people, and never relied on.
    pub(super) fn now(&self) -> i64 {
        match &self.simulated {
            None => i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
            Some(simulated) => (simulated.now)(),
        }
    }

    /// Who does what is done beside each other; `None` for threads of the system.
    pub(super) fn side_by_side(&self) -> Option<&SideBySide> {
        self.simulated.as_ref().map(|simulated| &simulated.side_by_side)
    }

    /// True in a simulation: threads then must not race for the order of their calls, and nothing is taken over that only
    /// the system sets.
    pub(super) fn is_simulated(&self) -> bool {
        self.simulated.is_some()
    }
}
