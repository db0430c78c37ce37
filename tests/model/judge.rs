//! How every reader judges records and snapshots: V1, J1, J2, K1, T4, and what a mark finds needed.

use super::repository::{Chunks, Heads, LOGS, OWNER, Packs, Place, Places, Record, Repository};
use super::rules::Rules;

/// A snapshot, or the checkpoint snapshot of a claim.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    pub place: Place,
    pub needs: Chunks,
}

/// The repository as judged by all records below some heads.
pub struct View<'a> {
    repository: &'a Repository,
    /// Places of records that count.
    counted: [Places; LOGS],
}

/// The base of the record that enrolled a log's client.
fn enrolled(repository: &Repository, log: usize) -> u8 {
    let owner = &repository.logs[OWNER];
    let base = owner.records.iter().flatten().find_map(|record| match record {
        Record::Enrol { base } => Some(*base),
        _ => None,
    });
    if log == 1 { base.unwrap_or(0) } else { 0 }
}

/// The newest fence before a place.
pub fn fence_before(repository: &Repository, rules: &Rules, log: usize, at: u8) -> u8 {
    let first = if rules.enrol_base { enrolled(repository, log) } else { 0 };
    let fences = repository.logs[log].records[..usize::from(at)].iter().flatten().filter_map(|record| match record {
        Record::Fence { generation } => Some(*generation),
        _ => None,
    });
    fences.fold(first, u8::max)
}

/// V1, for all records of a log below `head`.
fn valid(repository: &Repository, rules: &Rules, log: usize, head: u8) -> Places {
    let mut fence = if rules.enrol_base { enrolled(repository, log) } else { 0 };
    let mut places = 0;
    for (at, record) in repository.logs[log].records[..usize::from(head)].iter().enumerate() {
        match record {
            Some(Record::Fence { generation }) => fence = fence.max(*generation),
            Some(record) if record.base().is_some_and(|base| base >= fence) => places |= 1 << at,
            _ => {}
        }
    }
    places
}

impl<'a> View<'a> {
    pub fn new(repository: &'a Repository, rules: &Rules, heads: Heads) -> Self {
        let counted = std::array::from_fn(|log| valid(repository, rules, log, heads[log]));
        Self { repository, counted }
    }

    /// The first place of a log that is read: what lies below is in the checkpoint in force, or deleted.
    fn first_read(&self, log: usize) -> u8 {
        self.repository.checkpoint.floor[log].max(self.repository.logs[log].freed)
    }

    fn is_valid(&self, place: Place) -> bool {
        self.counted[usize::from(place.log)] & (1 << place.at) != 0
    }

    /// V1 and T4.
    pub fn counts(&self, place: Place) -> bool {
        let log = usize::from(place.log);
        let checkpoint = &self.repository.checkpoint;
        let kept = place.at >= self.first_read(log) || checkpoint.snapshots[log] & (1 << place.at) != 0;
        kept && self.is_valid(place)
    }

    /// Valid records below the heads. What a checkpoint replaced is read here too, where it comes to the same.
    fn records(&self) -> impl Iterator<Item = (Place, Record)> + '_ {
        self.repository.places().filter(|(place, _)| self.is_valid(*place))
    }

    /// Packs that records that count list (C2), whatever became of them.
    pub fn listed(&self) -> Packs {
        let listing = self.records().filter(|(place, _)| place.at >= self.first_read(usize::from(place.log)));
        listing.fold(self.repository.checkpoint.packs, |packs, (_, record)| packs | record.packs())
    }

    /// A forget stands and no hold does, by the records below the heads.
    pub fn forgotten(&self, snapshot: Place) -> bool {
        let mut forgotten = false;
        for (_, record) in self.records() {
            match record {
                Record::Hold { snapshot: held, .. } if held == snapshot => return false,
                // Both are in the owner's log, so an unforget has seen the forgets before it.
                Record::Forget { snapshot: named, .. } if named == snapshot => forgotten = true,
                Record::Unforget { snapshot: named, .. } if named == snapshot => forgotten = false,
                _ => {}
            }
        }
        forgotten
    }

    /// K1: a later record that counts names the same session.
    fn superseded(&self, place: Place, session: u8) -> bool {
        self.records().any(|(later, record)| match record {
            Record::Snapshot { session: of, .. } | Record::Claim { session: of, .. } => {
                later.log == place.log && later.at > place.at && of == session
            }
            _ => false,
        })
    }

    /// All snapshots that count, forgotten or not.
    pub fn snapshots(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.repository.places().filter(|(place, _)| self.counts(*place)).filter_map(|(place, record)| match record {
            Record::Snapshot { needs, .. } => Some(Snapshot { place, needs }),
            Record::Claim { needs, session, .. } if needs != 0 && !self.superseded(place, session) => {
                Some(Snapshot { place, needs })
            }
            _ => None,
        })
    }

    /// J1: a published plan saw it as forgotten.
    pub fn pruned(&self, snapshot: Place) -> bool {
        self.repository.pruned[usize::from(snapshot.log)] & (1 << snapshot.at) != 0
    }

    /// J2: snapshots that are neither forgotten nor pruned.
    pub fn standing(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.snapshots().filter(|snapshot| !self.forgotten(snapshot.place) && !self.pruned(snapshot.place))
    }

    /// Chunks that snapshots that stand need.
    pub fn needed(&self) -> Chunks {
        self.standing().fold(0, |chunks, snapshot| chunks | snapshot.needs)
    }

    /// Every chunk that it needs is in a pack that is listed and there.
    pub fn is_whole(&self, needs: Chunks) -> bool {
        let there = self.listed() & !self.repository.gone;
        [1, 2].into_iter().all(|chunk| needs & chunk == 0 || there & self.repository.with_chunk(chunk) != 0)
    }

    /// P4: what may be deleted of what is condemned, if of several condemned packs that hold a needed chunk one is spared,
    /// whichever it is. Nothing is relied on in its stead that is condemned or gone.
    pub fn plans(&self, condemned: Packs) -> Vec<Packs> {
        let listed = self.listed() & !self.repository.gone;
        let needed = self.needed();
        let mut plans = vec![condemned];
        for chunk in [1, 2] {
            let holders = listed & self.repository.with_chunk(chunk);
            if needed & chunk == 0 || holders & !condemned != 0 {
                continue;
            }
            plans = bits(holders).flat_map(|spared| plans.iter().map(move |plan| plan & !spared)).collect();
        }
        plans
    }

    /// Snapshots that are forgotten in this view, as sets of places.
    pub fn all_forgotten(&self) -> [Places; LOGS] {
        let mut places = [0; LOGS];
        for snapshot in self.snapshots().filter(|snapshot| self.forgotten(snapshot.place)) {
            places[usize::from(snapshot.place.log)] |= 1 << snapshot.place.at;
        }
        places
    }
}

/// Each member of a set, as a set of one.
pub fn bits(set: Packs) -> impl Iterator<Item = Packs> {
    (0..8).map(|bit| 1 << bit).filter(move |bit| set & bit != 0)
}
