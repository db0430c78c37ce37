//! Appending: the one step that commits.

use super::follow::object_hash;
use super::members::{Member, may_write};
use crate::crypto::sign::LOG_RECORD;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Silent;
use crate::format::envelope::ObjectKind;
use crate::format::log::{Head, MAX_RECORD, Record, RecordBody};
use crate::id::ClientId;
use crate::repo::Repository;
use crate::repo::cache;
use crate::repo::gc::{MAX_PRUNE, next_prune};
use crate::repo::sealed::{not_allowed, seal_object};
use crate::store::{Created, Key, Next};

impl Repository {
    /// Appends a record that refers to no pack to this client's log.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot write it, `Full`, `Failed`.
    pub(in crate::repo) fn append(&self, body: RecordBody) -> Result<Head> {
        self.append_if(body, &|| Ok(()))
    }

    /// Appends a record to this client's log: the commit point. Whoever takes the place first wins; the other goes on
    /// to the next. `still_valid` is asked before each attempt, after everything that lies before was taken in: the
    /// record then names as its base all prunes that the answer took into account.
    ///
    /// # Errors
    /// `Refused` if the keys at hand cannot write it, `Full`, `Failed`, or what `still_valid` returns.
    pub(in crate::repo) fn append_if(&self, body: RecordBody, still_valid: &dyn Fn() -> Result<()>) -> Result<Head> {
        let client = self.keys().client()?;
        let member = self.member(&client)?;
        let record = self.draft(client, body, None);
        if !may_write(self.role(), &record) {
            return Err(not_allowed("write to the log", self.role().name()));
        }
        self.append_to(&member, record, still_valid)
    }

    /// Says in a member's log that everything after it must know prune `generation`. A fence that is there already is
    /// enough.
    pub(in crate::repo) fn fence(&self, member: &Member, generation: u64) -> Result<()> {
        let me = self.keys().client()?;
        let author = (me != member.id).then_some(me);
        let record = self.draft(member.id, RecordBody::Fence { generation }, author);
        let is_fenced = || -> Result<bool> {
            let known = cache::log::head(&self.connection(), &member.id)?;
            Ok(known.is_some_and(|(_, fence)| fence >= generation))
        };
        let missing = || match is_fenced()? {
            true => Err(Error::new(ErrorKind::InUse, "fence a log: somebody else did it")),
            false => Ok(()),
        };
        match self.append_to(member, record, &missing) {
            Err(_) if is_fenced()? => Ok(()),
            other => other.map(drop),
        }
    }

    fn draft(&self, client: ClientId, body: RecordBody, author: Option<ClientId>) -> Record {
        let extra = vec![super::instance::field(&self.inner.instance)];
        Record { client, seq: 0, previous: None, time: self.now(), heads: Vec::new(), base: 0, body, author, extra }
    }

    fn member(&self, client: &ClientId) -> Result<Member> {
        let member = self.find_member(client)?.ok_or_else(|| {
            Error::new(ErrorKind::Refused, "write to the log: this client was never enrolled")
                .with_hint("the owner's log does not name it; ask the owner for `lifeboat key enrol`")
        })?;
        if member.last.is_some() {
            return Err(Error::new(ErrorKind::Refused, "write to the log: this client was revoked")
                .with_hint("ask the owner for new keys; what it backed up before can still be restored"));
        }
        Ok(member)
    }

    fn append_to(&self, member: &Member, mut record: Record, still_valid: &dyn Fn() -> Result<()>) -> Result<Head> {
        if self.inner.format.read_only {
            return Err(Error::new(ErrorKind::Unsupported, "write to the repository: it needs a feature of a newer version")
                .with_hint("update lifeboat; reading works"));
        }
        self.refuse_set_back()?;
        loop {
            let (mut head, fence) = self.head_and_fence(member)?;
            if self.known_prune()? < fence {
                // The log was read after the prunes were.
                self.follow_prunes()?;
            }
            record.base = self.known_prune()?;
            still_valid()?;
            if record.base < fence && !matches!(record.body, RecordBody::Fence { .. }) {
                return Err(Error::new(ErrorKind::Failed, format!("write to the log: it names prune {fence}, which the store does not show"))
                    .with_hint("nothing was committed; run the same command again, and if this stays, `lifeboat check` tells what is missing"));
            }
            record.seq = head.map_or(0, |head| head.seq + 1);
            record.previous = head.map(|head| head.hash);
            // Fences go to every log; with the heads of all logs in each, they would grow with the square of the clients.
            if !matches!(record.body, RecordBody::Fence { .. }) {
                record.heads = cache::log::heads(&self.connection())?;
                record.heads.retain(|head| head.client != member.id);
            }
            let object = self.seal_record(&record)?;
            if object.len() as u64 > MAX_RECORD {
                // Nobody would read it, nor anything behind it.
                let message = format!("write to the log: {} bytes are more than a record can have", object.len());
                return Err(Error::new(ErrorKind::Failed, message).with_hint("nothing was committed"));
            }
            let key = Key::log(&member.id, record.seq);
            // Beside the look at the record: whether a plan cut its log off meanwhile.
            let after = next_prune(cache::prune::newest(&self.connection())?.as_ref());
            if self.created(&key, &object, &Next { objects: vec![(after, MAX_PRUNE)], folders: Vec::new() })? {
                let place = Head { client: member.id, seq: record.seq, hash: object_hash(&object) };
                if !self.counts_where_it_is(&place, &record)? {
                    // The place had been taken before, and was freed: nobody reads the record there.
                    self.refresh(&Silent)?;
                    continue;
                }
                // Committed is committed, even if this machine cannot note it (its disk may be full): whoever opens the
                // repository next reads the log again from where it was known.
                let confirm = || cache::checkpoint::confirm(&self.connection(), &[place]);
                let _ = self.apply(member, &record, head, &place).and_then(|_| confirm()).and_then(|()| self.remember_heads());
                self.duplicate_new(&key, &object);
                return Ok(place);
            }
            // Somebody was faster: another process with the same keys, or a fence.
            let Some(bytes) = self.front_of(&key, MAX_RECORD)? else {
                // A checkpoint stands for it by now, and it was deleted; then the log goes on behind the checkpoint.
                self.refresh(&Silent)?;
                if self.head_and_fence(member)?.0 == head {
                    return Err(Error::failed(format!("read the record {key}: it was there a moment ago")));
                }
                continue;
            };
            self.take_in(member, &mut head, &bytes, &mut Vec::new(), &Silent)?;
            // What `still_valid` looks at: generations first, then the decision.
            self.follow_prunes()?;
            if !self.floors_not_reached(true)?.is_empty() {
                // A plan cut the log off, so what was read may lie in a place that was freed and taken again.
                self.refresh(&Silent)?;
            }
        }
    }

    /// Creates an object; true if it is there with these bytes. When the answer was lost on the way, the store is asked
    /// what became of it.
    ///
    /// `next` is what is read after that.
    pub(in crate::repo) fn created(&self, key: &Key, object: &[u8], next: &Next) -> Result<bool> {
        self.fill_gaps()?;
        let created = self.store().create_then(key, object, next);
        if !matches!(created, Ok(Created::New)) {
            self.store().expect_nothing();
        }
        match created {
            Ok(Created::New) => Ok(true),
            // An answer that is lost here must not pass for another's record: this one would be appended twice.
            Ok(Created::Exists) => match self.store().get(key, object.len() as u64) {
                // Another's: longer, or deleted since.
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing) => Ok(false),
                other => Ok(other? == object),
            },
            Err(error) => match self.store().get(key, MAX_RECORD) {
                Ok(bytes) => Ok(bytes == object),
                Err(_) => Err(error),
            },
        }
    }

    fn seal_record(&self, record: &Record) -> Result<Vec<u8>> {
        let map = record.encode();
        let mut body = self.keys().signer()?.sign(LOG_RECORD, &self.inner.format.id, &map).to_vec();
        body.extend_from_slice(&map);
        seal_object(self.keys(), ObjectKind::Log, &body)
    }
}
