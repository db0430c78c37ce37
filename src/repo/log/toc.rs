//! Tables of contents: putting packs that the log lists into the index.

use crate::crypto::derive::object_key;
use crate::crypto::seal;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::format::envelope::HEADER_LEN;
use crate::format::log::PackRef;
use crate::format::pack::{FOOTER_LEN, Footer, MAX_PACK, SealEntry, Toc, decode_head};
use crate::id::ClientId;
use crate::repo::Repository;
use crate::repo::cache;
use crate::store::Key;

impl Repository {
    /// Puts a pack that `client` lists in its log into the index, unless a prune has removed it.
    pub(super) fn index_pack(&self, pack: &PackRef, client: &ClientId) -> Result<()> {
        {
            let connection = self.connection();
            let known = cache::index::list_pack(&connection, &pack.id, client)?;
            if known || cache::prune::is_gone(&connection, &pack.id)? {
                return Ok(());
            }
        }
        let (seals, toc) = self.load_toc(pack)?;
        cache::index::insert_pack(&mut self.connection(), pack, Some(client), &seals, &toc)
    }

    /// Tries again what could not be read when its record was; by now a prune may be known that removed it.
    pub(super) fn index_unread(&self, observer: &dyn Observer) -> Result<()> {
        let unread = cache::index::unread(&self.connection())?;
        for (pack, client) in unread {
            match self.index_pack(&pack, &client) {
                Ok(()) => cache::index::remove_unread(&self.connection(), &pack.id)?,
                Err(error) => observer.observe(Event::Warning(&format!("pack {} cannot be indexed: {error}", pack.id))),
            }
        }
        Ok(())
    }

    /// Reads and opens the table of contents of a pack.
    pub(in crate::repo) fn load_toc(&self, pack: &PackRef) -> Result<(Vec<SealEntry>, Toc)> {
        let key = Key::pack(&pack.id);
        let tail_len = u64::from(pack.toc_len) + FOOTER_LEN as u64;
        if pack.size > MAX_PACK || pack.size < tail_len + HEADER_LEN as u64 {
            return Err(Error::damaged(format!("read the pack {}: its listed length cannot be", pack.id)));
        }
        let mut tail = vec![0; usize::try_from(tail_len).expect("at most 64 MiB")];
        self.store().read_at(&key, pack.size - tail_len, &mut tail)?;
        let mut front = vec![0; usize::try_from(pack.size.min(1 << 10)).expect("at most 1 KiB")];
        self.store().read_at(&key, 0, &mut front)?;
        let (header, seals) = match decode_head(&front) {
            Err(_) if pack.size > front.len() as u64 => {
                front.resize(usize::try_from(pack.size.min(1 << 20)).expect("at most 1 MiB"), 0);
                self.store().read_at(&key, 0, &mut front)?;
                decode_head(&front)?
            }
            other => other?,
        };
        let (sealed, footer) = tail.split_at(pack.toc_len as usize);
        let footer = Footer::decode(footer)?;
        let repository = &self.inner.format.id;
        let object = object_key(self.keys().index_key(header.generation)?, repository, &header.encode());
        if footer.commit != object.commit || footer.toc_len != pack.toc_len {
            return Err(Error::damaged(format!("read the pack {}: its footer does not fit", pack.id)));
        }
        let toc = Toc::decode(&seal::open_pieces(&object.key, sealed)?, seals.len())?;
        let stored: u64 = toc.blocks.iter().map(|block| u64::from(block.row.stored_len())).sum();
        if u64::from(toc.first_block) + stored + u64::from(toc.padding) + tail_len != pack.size {
            return Err(Error::damaged(format!("read the pack {}: its parts do not add up to its length", pack.id)));
        }
        Ok((seals, toc))
    }
}
