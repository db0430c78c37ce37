//! What a check finds, and what is to be done about it.

use crate::error::{Error, ErrorKind, Result};
use crate::id::{PackId, SnapshotId};
use crate::ops::gathered::Gathered;
use crate::repo::{IndexProblem, LockReport, Member, PackProblem, RecordProblem, Trouble};
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is lost; something is left over or out of date.
    Notice,
    /// Bytes are lost or cannot be trusted.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object concerned, by its kind and name.
    pub object: String,
    /// What is wrong, in words.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
}

/// A snapshot that cannot be restored whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DamagedSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// How many files and directories are lost or damaged.
    pub count: u64,
    /// The first hundred of them; fewer where their names are very long.
    pub paths: Vec<Vec<u8>>,
}

/// What is not as it should be, in the order found.
#[derive(Debug, Default)]
pub struct Findings {
    all: Gathered<Finding>,
    damage: bool,
}

impl Findings {
    pub(in crate::ops) fn add(&mut self, finding: &Finding) -> Result<()> {
        self.damage |= finding.severity == Severity::Damage;
        self.all.push(finding)
    }

    pub(in crate::ops) fn extend(&mut self, mut findings: impl Iterator<Item = Finding>) -> Result<()> {
        findings.try_for_each(|finding| self.add(&finding))
    }

    /// True if one of them is damage.
    #[must_use]
    pub fn has_damage(&self) -> bool {
        self.damage
    }
}

impl std::ops::Deref for Findings {
    type Target = Gathered<Finding>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Finding {
    pub(in crate::ops) fn of_opening(error: &Error) -> Self {
        let hint = match error.kind() {
            ErrorKind::RolledBack => "see below which records are concerned",
            _ => "`lifeboat repair` says what can be mended, and `lifeboat repair --apply` mends it",
        };
        Self { severity: Severity::Damage, object: "repository".into(), problem: error.to_string(), hint: hint.into() }
    }

    pub(in crate::ops) fn of_record(problem: RecordProblem) -> Self {
        let hint = match (problem.harmless, problem.error.kind()) {
            (true, _) => "nothing needs to be done",
            (_, ErrorKind::Damaged | ErrorKind::RolledBack) => {
                "`lifeboat repair` says what can be mended, and `lifeboat repair --apply` mends it"
            }
            _ => problem.error.hint(),
        };
        let hint = hint.to_owned();
        let severity = if problem.harmless { Severity::Notice } else { Severity::Damage };
        Self { severity, object: problem.object, problem: problem.error.to_string(), hint }
    }

    pub(in crate::ops) fn of_pack(pack: &PackId, problem: &PackProblem) -> Self {
        let hint = match problem.trouble {
            Trouble::Damage => {
                "`lifeboat repair --from OTHER --apply` fetches it from a copy of the repository; without one, `lifeboat repair \
                 --apply` marks what is lost, and the next backup stores again what is still there"
            }
            Trouble::Unreadable => "the store failed to give it; look at the disk or the network, and check again",
            Trouble::Mendable => "nothing is lost: parity has it; `lifeboat repair --apply` mends the pack",
            Trouble::Parity => "the pack is whole; `lifeboat repair --apply` makes its parity anew",
            Trouble::Index => "nothing is lost: `lifeboat cache rebuild` reads this machine's index anew",
        };
        let severity = if problem.trouble == Trouble::Index { Severity::Notice } else { Severity::Damage };
        let problem = format!("{}{}", problem.error, more(problem.more));
        Self { severity, object: format!("pack {pack}"), problem, hint: hint.into() }
    }

    pub(in crate::ops) fn of_index(problem: &IndexProblem) -> Self {
        let (severity, hint) = match problem.needless {
            true => (Severity::Notice, "nothing needs it; `lifeboat prune` removes it"),
            false => {
                (Severity::Damage, "nothing is lost: the packs have it all; `lifeboat repair --apply` writes the index anew")
            }
        };
        let object = format!("object index/{}", problem.id);
        let problem = format!("{}{}", problem.error, more(problem.more));
        Self { severity, object, problem, hint: hint.into() }
    }

    /// What a tree needs could not be read, and then it could.
    pub(super) fn of_second_try() -> Self {
        let problem = "a part of a tree could not be read, and could be when it was read again".to_owned();
        let hint = "look at the disk or the network, and check again".into();
        Self { severity: Severity::Damage, object: "store".into(), problem, hint }
    }

    pub(super) fn of_store(lack: &str) -> Self {
        let hint = "use it from one machine at a time, and never prune while something else runs (docs/reference/stores.md)";
        Self { severity: Severity::Notice, object: "store".into(), problem: lack.into(), hint: hint.into() }
    }

    /// Of locks that are not there, or run out soon.
    pub(super) fn of_locks(locks: &LockReport) -> Self {
        let (some, all) = (locks.extended, locks.looked_at);
        let problem = format!("{some} of {all} objects are not locked, or for less than half of the days that the URL asks for");
        let hint = "`lifeboat prune` locks what snapshots need; until then it can be deleted".into();
        Self { severity: Severity::Notice, object: "store".into(), problem, hint }
    }

    /// Of a client whose identity several machines use at once.
    pub(super) fn of_clones(member: &Member, machines: u64) -> Self {
        let problem = format!("{machines} machines use its identity at once");
        let hint = "give each machine an identity of its own with `lifeboat key enrol`".into();
        Self { severity: Severity::Notice, object: format!("client {}", member.id), problem, hint }
    }

    pub(super) fn of_snapshot(damaged: &DamagedSnapshot) -> Self {
        let problem = match damaged.count {
            1 => "one file or directory cannot be restored".to_owned(),
            count => format!("{count} files or directories cannot be restored"),
        };
        let hint = "`lifeboat restore --salvage` brings back all that is left, with a list of what is missing";
        Self { severity: Severity::Damage, object: format!("snapshot {}", damaged.id), problem, hint: hint.into() }
    }
}

/// How many there are besides one that is told of.
fn more(more: u64) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} more like this)") }
}
