//! What each role may do, and the keys that it gets for it (docs/format.md#31-slots-and-bundles).

use crate::crypto::derive::{NameKeys, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key::{Bundle, Generation, Role};
use crate::repo::Repository;

/// Something that not everybody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Store a snapshot.
    BackUp,
    /// See snapshots, directories, and names.
    List,
    /// Read contents of files.
    Read,
    /// Forget snapshots and take their space back.
    Forget,
    /// Enrol and revoke clients, and change keys.
    ManageKeys,
}

impl Act {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::BackUp => ("back up", "writers and owners"),
            Self::List => ("look into snapshots", "maintainers, readers, and owners"),
            Self::Read => ("read contents of files", "readers and owners"),
            Self::Forget => ("forget or prune", "maintainers and owners"),
            Self::ManageKeys => ("change who takes part", "owners"),
        }
    }

    fn is_for(self, role: Role) -> bool {
        match self {
            Self::BackUp => matches!(role, Role::Writer | Role::Owner),
            Self::List => role != Role::Writer,
            Self::Read => matches!(role, Role::Reader | Role::Owner),
            Self::Forget => matches!(role, Role::Maintainer | Role::Owner),
            Self::ManageKeys => role == Role::Owner,
        }
    }
}

impl Repository {
    /// Fails unless the key at hand allows this.
    ///
    /// # Errors
    /// `Refused`.
    pub fn permit(&self, act: Act) -> Result<()> {
        if act.is_for(self.role()) {
            return Ok(());
        }
        let (doing, those) = act.words();
        let message = format!("{doing}: the key at hand is that of a {}, and only {those} can", self.role().name());
        Err(Error::new(ErrorKind::Refused, message)
            .with_hint("use another identity with --identity; `lifeboat key list` shows who has which role"))
    }
}

/// What of the owner's keys a client of this role gets. `seed` signs for it; a reader that attests nothing needs none.
pub(super) fn bundle_for(owner: &Bundle, role: Role, seed: Option<Secret>) -> Bundle {
    let names = (owner.domain.as_ref()).map(|domain| NameKeys::derive(&Secret(*domain)).keys());
    Bundle {
        role,
        repository: owner.repository,
        fingerprint: owner.fingerprint,
        signing_seed: seed.map(|seed| seed.0),
        domain: owner.domain.filter(|_| role != Role::Maintainer),
        names: names.filter(|_| role == Role::Maintainer),
        generations: owner.generations.iter().map(|generation| generation_for(generation, role)).collect(),
        extra: Vec::new(),
    }
}

fn generation_for(full: &Generation, role: Role) -> Generation {
    let for_data = role != Role::Maintainer;
    let reads_data = matches!(role, Role::Reader | Role::Owner);
    let reads_meta = role != Role::Writer;
    Generation {
        number: full.number,
        index: full.index,
        shared_data: full.shared_data.filter(|_| for_data),
        shared_meta: full.shared_meta,
        vault_data: if for_data { full.vault_data.clone() } else { String::new() },
        vault_meta: full.vault_meta.clone(),
        identity_data: full.identity_data.clone().filter(|_| reads_data),
        identity_meta: full.identity_meta.clone().filter(|_| reads_meta),
        extra: Vec::new(),
    }
}
