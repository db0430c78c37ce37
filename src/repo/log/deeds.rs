//! Forgetting snapshots, wanting them again, and holding them.

use super::judge::Standing;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Silent;
use crate::format::log::{RecordBody, RecordRef};
use crate::repo::Repository;
use std::collections::HashMap;

impl Repository {
    /// Forgets snapshots, named by their records. Their content stays until a prune takes it.
    ///
    /// # Errors
    /// `Refused` if one is held or the keys at hand may not forget, `Missing` if one is not there.
    pub fn forget(&self, records: &[RecordRef]) -> Result<()> {
        let refused = |why: &str| Error::new(ErrorKind::Refused, format!("forget a snapshot: {why}"));
        let Some(records) = self.sorted(records, |standing| match standing {
            Standing::Held => Err(refused("it is held").with_hint("`lifeboat unhold` ends the hold")),
            _ => Ok(()),
        })?
        else {
            return Ok(());
        };
        self.append_with_reserve(RecordBody::Forget { records }).map(drop)
    }

    /// Wants forgotten snapshots again.
    ///
    /// # Errors
    /// `Missing` if one is not there, or a prune was faster: then its content may be gone.
    pub fn unforget(&self, records: &[RecordRef]) -> Result<()> {
        let Some(records) = self.sorted(records, |_| Ok(()))? else { return Ok(()) };
        self.append(RecordBody::Unforget { records: records.clone() })?;
        self.settled(&records, "bring a snapshot back")
    }

    /// Holds snapshots: nobody forgets them until the hold ends.
    ///
    /// # Errors
    /// `Missing` if one is not there or was forgotten and pruned, `InUse` if a prune is under way that this client may not
    /// bring to its end.
    pub fn hold(&self, records: &[RecordRef], reason: &str) -> Result<()> {
        let Some(records) = self.sorted(records, |_| Ok(()))? else { return Ok(()) };
        self.append(RecordBody::Hold { records: records.clone(), reason: reason.to_owned() })?;
        self.settled(&records, "hold a snapshot")
    }

    /// Makes sure that the snapshots stand, whatever a prune that was under way had seen: a plan that was made without
    /// the record that brings them back outweighs it.
    fn settled(&self, records: &[RecordRef], doing: &str) -> Result<()> {
        self.settle(&Silent)?;
        self.refresh(&Silent)?;
        let standings = self.standings_of(records)?;
        if standings.iter().any(|standing| !matches!(standing, Some(Standing::Live | Standing::Held))) {
            return Err(Error::missing(format!("{doing}: a prune was faster, its content may be gone"))
                .with_hint("`lifeboat snapshots` shows what is there"));
        }
        Ok(())
    }

    /// Ends the holds of snapshots.
    ///
    /// # Errors
    /// `Refused` if the keys at hand may not, `Missing` if one is not there.
    pub fn unhold(&self, records: &[RecordRef]) -> Result<()> {
        let Some(records) = self.sorted(records, |_| Ok(()))? else { return Ok(()) };
        self.append(RecordBody::Unhold { records }).map(drop)
    }

    /// The records as a log record lists them; `None` if there are none.
    fn sorted(&self, records: &[RecordRef], check: impl Fn(Standing) -> Result<()>) -> Result<Option<Vec<RecordRef>>> {
        let mut records = records.to_vec();
        records.sort_unstable();
        records.dedup();
        for standing in self.standings_of(&records)? {
            let standing = standing.ok_or_else(|| {
                Error::missing("find a snapshot by its record: it is not there, or was pruned")
                    .with_hint("`lifeboat snapshots` shows what is there")
            })?;
            check(standing)?;
        }
        Ok((!records.is_empty()).then_some(records))
    }

    fn standings_of(&self, records: &[RecordRef]) -> Result<Vec<Option<Standing>>> {
        let all: HashMap<RecordRef, Standing> = self
            .standings()?
            .into_iter()
            .map(|(cached, standing, _)| (RecordRef { client: cached.client, seq: cached.seq }, standing))
            .collect();
        Ok(records.iter().map(|record| all.get(record).copied()).collect())
    }
}
