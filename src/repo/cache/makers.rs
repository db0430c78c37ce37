//! Who made each pack: asked once for all clients, so that what is kept does not grow with packs times clients.

use super::failed;
use super::index::decode_seals;
use crate::error::Result;
use crate::id::ClientId;
use rusqlite::Connection;
use std::collections::HashMap;

/// Who answers for a pack: who lists it, or, of each session in it, one who made it.
#[derive(PartialEq, Eq, Hash)]
struct Makers {
    lister: ClientId,
    sessions: Vec<Vec<ClientId>>,
}

/// The makers of all packs that are listed.
pub(in crate::repo) struct PackMakers {
    makers: Vec<Makers>,
    /// By the number of a pack, its place among `makers` plus one; 0 if everybody relies on it.
    places: Vec<u32>,
}

impl PackMakers {
    /// Those of all packs in the index that no reader has vouched for.
    pub(in crate::repo) fn load(connection: &Connection) -> Result<Self> {
        let sql = "SELECT no, client, seals FROM pack
                   WHERE client IS NOT NULL AND NOT EXISTS(SELECT 1 FROM attested WHERE pack = id)";
        let mut statement = connection.prepare(sql).map_err(failed)?;
        let mut maker = connection.prepare_cached("SELECT client FROM session WHERE id = ?").map_err(failed)?;
        let client = |bytes: Vec<u8>| ClientId::from_slice(&bytes).unwrap_or(ClientId([0; 16]));
        let (mut known, mut makers, mut places): (HashMap<_, u32>, _, _) = (HashMap::new(), 0, Vec::new());
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let (number, lister): (u32, Vec<u8>) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
            let number = number as usize;
            let seals: Vec<u8> = row.get(2).map_err(failed)?;
            let mut sessions = Vec::new();
            for seal in decode_seals(&seals)? {
                let made = maker.query_map([&seal.session.0[..]], |row| row.get(0)).map_err(failed)?;
                sessions.push(made.map(|made| made.map(client)).collect::<Result<Vec<_>, _>>().map_err(failed)?);
            }
            let place = known.entry(Makers { lister: client(lister), sessions }).or_insert_with(|| {
                makers += 1;
                makers
            });
            places.resize(places.len().max(number + 1), 0);
            places[number] = *place;
        }
        let mut makers: Vec<_> = known.into_iter().collect();
        makers.sort_unstable_by_key(|(_, place)| *place);
        Ok(Self { makers: makers.into_iter().map(|(makers, _)| makers).collect(), places })
    }

    /// True if somebody who trusts those for whom `trusts` is true relies on the pack.
    pub(in crate::repo) fn may_rely(&self, pack: u32, trusts: impl Fn(&ClientId) -> bool) -> bool {
        let place = self.places.get(pack as usize).copied().unwrap_or(0);
        let Some(makers) = place.checked_sub(1).and_then(|place| self.makers.get(place as usize)) else { return true };
        trusts(&makers.lister) || makers.sessions.iter().all(|made| made.iter().any(&trusts))
    }
}
