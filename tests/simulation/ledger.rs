//! What was done, and what must be there because of it.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

pub type Tree = Vec<(PathBuf, Option<Vec<u8>>)>;

/// Something that was done to a snapshot: from when to when, and whether it said that it succeeded.
struct Deed {
    from: u64,
    until: u64,
    succeeded: bool,
}

/// A backup, by its tag, which no other has.
struct Backup {
    tree: Tree,
    committed: bool,
    forgets: Vec<Deed>,
    unforgets: Vec<Deed>,
    held: bool,
}

#[derive(Default)]
pub struct Ledger {
    backups: Mutex<BTreeMap<String, Backup>>,
}

/// What can be done to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Forget,
    Unforget,
    Hold,
}

impl Ledger {
    pub fn begin(&self, tag: &str, tree: Tree) {
        let backup = Backup { tree, committed: false, forgets: Vec::new(), unforgets: Vec::new(), held: false };
        self.backups.lock().unwrap().insert(tag.to_owned(), backup);
    }

    pub fn committed(&self, tag: &str) {
        self.backups.lock().unwrap().get_mut(tag).unwrap().committed = true;
    }

    /// Something begins; until its end is noted it may take place at any time.
    pub fn attempt(&self, tag: &str, what: What, from: u64) {
        let mut backups = self.backups.lock().unwrap();
        let backup = backups.get_mut(tag).unwrap();
        let deed = Deed { from, until: u64::MAX, succeeded: false };
        match what {
            What::Forget => backup.forgets.push(deed),
            What::Unforget => backup.unforgets.push(deed),
            What::Hold => {}
        }
    }

    /// The end of what was attempted last, by whoever attempted it at `from`.
    pub fn done(&self, tag: &str, what: What, from: u64, until: u64) {
        let mut backups = self.backups.lock().unwrap();
        let backup = backups.get_mut(tag).unwrap();
        let deeds = match what {
            What::Forget => &mut backup.forgets,
            What::Unforget => &mut backup.unforgets,
            What::Hold => {
                backup.held = true;
                return;
            }
        };
        let deed = deeds.iter_mut().find(|deed| deed.from == from && deed.until == u64::MAX).unwrap();
        (deed.until, deed.succeeded) = (until, true);
    }

    /// Tags of the snapshots that must stand now, whatever went wrong.
    pub fn standing(&self) -> Vec<String> {
        let backups = self.backups.lock().unwrap();
        let stands = |backup: &Backup| {
            // A forget that failed may take place at any later time; one that came to its end lies before what came after.
            let outlived = |unforget: &Deed| {
                unforget.succeeded && backup.forgets.iter().all(|forget| forget.succeeded && forget.until < unforget.from)
            };
            backup.forgets.is_empty() || backup.held || backup.unforgets.iter().any(outlived)
        };
        backups.iter().filter(|(_, backup)| backup.committed && stands(backup)).map(|(tag, _)| tag.clone()).collect()
    }

    pub fn tree(&self, tag: &str) -> Tree {
        self.backups.lock().unwrap()[tag].tree.clone()
    }
}
