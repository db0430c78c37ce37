//! What speaks against forgetting: mistakes and lies that would take good snapshots away.

use super::{Candidate, Decision, Times};
use crate::error::{Error, ErrorKind};
use crate::id::{ClientId, SnapshotId};
use crate::repo::{SnapshotEntry, StoredTime};
use std::collections::{BTreeMap, BTreeSet};

/// How far a claimed time may be from the store's: a day in nanoseconds.
const DAY: u64 = 86_400_000_000_000;

/// How much may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allow {
    /// At most half of what a client has.
    #[default]
    Half,
    /// More than half of what a client has, but not everything.
    Most,
    /// Everything of a client, or of a group.
    Everything,
}

/// One thing that speaks against a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// The rules keep nothing of what was chosen.
    NothingKept,
    /// Times by which rules go cannot be right.
    Times {
        /// One of the snapshots.
        id: SnapshotId,
        /// When its client says that it ended, nanoseconds since 1970.
        claimed: i64,
        /// When the store says that its record was written, or before which it was.
        stored: StoredTime,
        /// How many there are like it, itself included.
        count: usize,
    },
    /// A snapshot's own retention has not ended.
    Retained {
        /// One of them.
        id: SnapshotId,
        /// When it ends, nanoseconds since 1970.
        until: i64,
        /// How many there are like it, itself included.
        count: usize,
    },
    /// Nothing of a group would be left.
    Group {
        /// In words: host, kind, paths.
        name: String,
    },
    /// Nothing of what a client backed up would be left.
    Client {
        /// The client.
        client: ClientId,
        /// Its host.
        host: String,
        /// How many snapshots it has.
        count: usize,
    },
    /// More than half of what a client backed up would go.
    Most {
        /// The client.
        client: ClientId,
        /// Its host.
        host: String,
        /// How many go.
        going: usize,
        /// How many it has.
        count: usize,
    },
}

type Fates = [(Candidate, Decision)];

fn goes(decision: &Decision) -> bool {
    decision.kept_by.is_empty()
}

/// What speaks against a choice that rules made.
pub(super) fn to_rules(fates: &Fates, times: Times) -> Vec<Objection> {
    let mut objections = Vec::new();
    if fates.iter().all(|(_, decision)| goes(decision)) {
        objections.push(Objection::NothingKept);
    }
    let losing: BTreeSet<usize> = fates.iter().filter(|(_, decision)| goes(decision)).map(|(_, d)| d.group).collect();
    // A time that is wrong does harm in its own group only, and only if something goes from it.
    let wrong: Vec<&Candidate> = (fates.iter())
        .filter(|(candidate, decision)| losing.contains(&decision.group) && is_doubtful(candidate))
        .map(|(candidate, _)| candidate)
        .collect();
    if let (Times::Checked, Some(Candidate { entry, stored: Some(stored), .. })) = (times, wrong.first()) {
        objections.push(Objection::Times { id: entry.id, claimed: entry.snapshot.end, stored: *stored, count: wrong.len() });
    }
    let keeping: BTreeSet<usize> = fates.iter().filter(|(_, decision)| !goes(decision)).map(|(_, d)| d.group).collect();
    for group in losing.difference(&keeping) {
        let member = fates.iter().find(|(_, decision)| decision.group == *group);
        objections.extend(member.map(|(candidate, _)| Objection::Group { name: group_name(&candidate.entry) }));
    }
    objections
}

/// True if what the client claims is more than a day from what the store says.
fn is_doubtful(candidate: &Candidate) -> bool {
    let claimed = candidate.entry.snapshot.end;
    match candidate.stored {
        Some(StoredTime::At(stored)) => stored.abs_diff(claimed) > DAY,
        Some(StoredTime::NotAfter(stored)) => claimed > stored && stored.abs_diff(claimed) > DAY,
        None => false,
    }
}

fn group_name(entry: &SnapshotEntry) -> String {
    let snapshot = &entry.snapshot;
    let paths: Vec<_> = snapshot.paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
    format!("{} {} {}", snapshot.host, snapshot.kind, paths.join(" "))
}

/// What speaks against forgetting snapshots that are to be kept for longer.
pub(super) fn to_retention(fates: &Fates) -> Option<Objection> {
    let going = fates.iter().filter(|(_, decision)| goes(decision));
    let retained: Vec<_> = going.filter_map(|(candidate, _)| Some((candidate.retained?, candidate.entry.id))).collect();
    let (until, id) = retained.iter().max()?;
    Some(Objection::Retained { id: *id, until: *until, count: retained.len() })
}

/// What speaks against losing that much, however it was chosen.
pub(super) fn to_loss(fates: &Fates, kept: &[SnapshotEntry]) -> Vec<Objection> {
    let going: BTreeSet<_> = fates.iter().filter(|(_, decision)| goes(decision)).map(|(c, _)| c.entry.record()).collect();
    let mut clients: BTreeMap<ClientId, Vec<&SnapshotEntry>> = BTreeMap::new();
    for entry in kept {
        clients.entry(entry.client).or_default().push(entry);
    }
    let mut objections = Vec::new();
    for (client, mut entries) in clients {
        // Checkpoints of backups that did not finish are no replacement for those that did.
        if entries.iter().any(|entry| !entry.snapshot.incomplete) {
            entries.retain(|entry| !entry.snapshot.incomplete);
        }
        let lost: Vec<_> = entries.iter().filter(|entry| going.contains(&entry.record())).collect();
        let Some(host) = lost.last().map(|entry| entry.snapshot.host.clone()) else { continue };
        let (going, count) = (lost.len(), entries.len());
        if going == count {
            objections.push(Objection::Client { client, host, count });
        } else if going > count / 2 {
            objections.push(Objection::Most { client, host, going, count });
        }
    }
    objections
}

impl Objection {
    /// True if it was said that this may happen.
    #[must_use]
    pub fn is_met_by(&self, allow: Allow) -> bool {
        match self {
            Self::NothingKept | Self::Times { .. } | Self::Retained { .. } => false,
            Self::Group { .. } | Self::Client { .. } => allow >= Allow::Everything,
            Self::Most { .. } => allow >= Allow::Most,
        }
    }

    pub(super) fn to_error(&self) -> Error {
        let time = |nanos: i64| jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default().strftime("%Y-%m-%d %H:%M");
        let (why, hint) = match self {
            Self::NothingKept => {
                ("the rules keep nothing of what was chosen".to_owned(), "name the snapshots by their ids if all shall go")
            }
            Self::Times { id, claimed, stored, count } => {
                let more = if *count > 1 { format!(", and {} more like it", count - 1) } else { String::new() };
                let (claimed, since) = match stored {
                    StoredTime::At(stored) => (time(*claimed), format!("since {}", time(*stored))),
                    StoredTime::NotAfter(stored) => (time(*claimed), format!("since before {}", time(*stored))),
                };
                let why = format!("snapshot {} claims to be of {claimed}, the store has it {since} (UTC){more}", id.short());
                (why, "--times stored goes by the store's times, --times claimed believes the clients' clocks")
            }
            Self::Retained { id, until, count } => {
                let more = if *count > 1 { format!(", and {} more for as long or less", count - 1) } else { String::new() };
                let why = format!("snapshot {} is retained until {} (UTC){more}", id.short(), time(*until));
                (why, "wait until then, or add --despite-retention if that is meant")
            }
            Self::Group { name } => (format!("nothing would be left of {name}"), "add --allow-all if that is meant"),
            Self::Client { client, host, count } => {
                let snapshots = if *count == 1 { "one snapshot".to_owned() } else { format!("{count} snapshots") };
                let why = format!("nothing would be left of the {snapshots} of client {} ({host})", client.short());
                (why, "add --allow-all if that is meant")
            }
            Self::Most { client, host, going, count } => {
                let why = format!("{going} of the {count} snapshots of client {} ({host}) would go", client.short());
                (why, "add --allow-most if that is meant")
            }
        };
        Error::new(ErrorKind::Refused, format!("forget: {why}")).with_hint(hint)
    }
}
