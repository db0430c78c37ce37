//! The store as one actor sees it: each call waits for its turn, and becomes what its fate is.

use super::{Fate, Late, World};
use lifeboat::error::{Error, ErrorKind, Result};
use lifeboat::store::{Created, Entry, Key, Memory, Next, Staged, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Bytes in a journal: how many, and which.
pub(super) fn brief(bytes: &[u8]) -> String {
    format!("{} bytes {}", bytes.len(), blake3::hash(bytes).to_hex())
}

/// The store as one actor sees it.
pub(super) struct Seen {
    world: Arc<World>,
    actor: usize,
    width: usize,
    /// What was asked for ahead, as it was then: as old as an answer from far away can be.
    ahead: Mutex<BTreeMap<String, Result<Vec<u8>>>>,
}

fn broken(verb: &str, key: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("{verb} {key}: the simulation wants it to fail"))
}

impl Seen {
    pub(super) fn new(world: Arc<World>, actor: usize, width: usize) -> Self {
        Self { world, actor, width, ahead: Mutex::default() }
    }

    /// A call that changes nothing; `told` says what came of it.
    fn read<T>(
        &self,
        (verb, key): (&str, &str),
        call: impl FnOnce(&Memory) -> Result<T>,
        told: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        let fate = self.world.call(self.actor, verb);
        let result = if fate == Fate::Pass { call(&self.world.memory) } else { Err(broken(verb, key)) };
        let told = result.as_ref().map_or_else(|error| format!("{:?}", error.kind()), told);
        self.world.answer(self.actor, &format!("{verb} {key}"), fate, &told);
        result
    }

    fn write(&self, verb: &str, key: &Key, bytes: &[u8]) -> Result<Created> {
        let fate = self.world.call(self.actor, verb);
        let time = self.world.time();
        let result = match fate {
            Fate::Pass | Fate::LostAnswer => {
                let created = self.world.memory.create(key, bytes)?;
                if created == Created::New {
                    self.world.memory.set_modified(key, time);
                }
                if fate == Fate::Pass { Ok(created) } else { Err(broken(verb, key.as_str())) }
            }
            Fate::Later => {
                self.world.later(Late::Put(key.clone(), bytes.to_vec(), time));
                Err(broken(verb, key.as_str()))
            }
            Fate::Fail | Fate::Crash => Err(broken(verb, key.as_str())),
        };
        let told = result.as_ref().map_or_else(|error| format!("{:?}", error.kind()), |created| format!("{created:?}"));
        self.world.answer(self.actor, &format!("{verb} {key} of {}", brief(bytes)), fate, &told);
        result
    }
}

struct SeenStaged {
    seen: Seen,
    bytes: Vec<u8>,
}

impl Staged for SeenStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, key: &Key) -> Result<()> {
        self.seen.write("put", key, &self.bytes).map(drop)
    }
}

impl Store for Seen {
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.write("put", key, bytes).map(drop)
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created> {
        self.write("create", key, bytes)
    }

    fn stage(&self) -> Result<Box<dyn Staged>> {
        Ok(Box::new(SeenStaged { seen: Self::new(self.world.clone(), self.actor, self.width), bytes: Vec::new() }))
    }

    fn create_then(&self, key: &Key, bytes: &[u8], next: &Next) -> Result<Created> {
        let created = self.create(key, bytes)?;
        if created == Created::New {
            next.objects.iter().for_each(|(key, _)| drop(self.ahead.lock().unwrap().remove(key.as_str())));
            self.expect(next);
        }
        Ok(created)
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Vec<u8>> {
        let asked = self.ahead.lock().unwrap().remove(key.as_str());
        asked.unwrap_or_else(|| self.read(("get", key.as_str()), |memory| memory.get(key, limit), |bytes| brief(bytes)))
    }

    fn expect(&self, next: &Next) {
        for (key, limit) in &next.objects {
            if !self.ahead.lock().unwrap().contains_key(key.as_str()) {
                let found = self.read(("get", key.as_str()), |memory| memory.get(key, *limit), |bytes| brief(bytes));
                self.ahead.lock().unwrap().insert(key.to_string(), found);
            }
        }
    }

    fn expect_nothing(&self) {
        self.ahead.lock().unwrap().clear();
    }

    fn read_at(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let place = format!("{key} from {offset}");
        let read = |memory: &Memory| memory.read_at(key, offset, buffer).map(|()| brief(buffer));
        self.read(("read", &place), read, String::clone).map(drop)
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.read(("size", key.as_str()), |memory| memory.size(key), |size| format!("{size:?}"))
    }

    fn modified(&self, key: &Key) -> Result<Option<i64>> {
        self.read(("time", key.as_str()), |memory| memory.modified(key), |time| format!("{time:?}"))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let list = |memory: &Memory| {
            let mut entries = Vec::new();
            let entry = &mut |entry: Entry| {
                let mut state = self.world.state();
                let lag = state.odds.lag;
                // Which entries are left out.
                if !state.chance.permille(lag) {
                    entries.push(entry);
                }
                Ok(())
            };
            memory.list(prefix, entry).map(|()| entries)
        };
        let told = |entries: &Vec<Entry>| brief(format!("{entries:?}").as_bytes());
        self.read(("list", prefix), list, told)?.into_iter().try_for_each(each)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let fate = self.world.call(self.actor, "delete");
        let result = match fate {
            Fate::Pass => self.world.memory.delete(key),
            Fate::LostAnswer => self.world.memory.delete(key).and(Err(broken("delete", key.as_str()))),
            Fate::Later => {
                self.world.later(Late::Delete(key.clone()));
                Ok(())
            }
            Fate::Fail | Fate::Crash => Err(broken("delete", key.as_str())),
        };
        let told = result.as_ref().map_or_else(|error| format!("{:?}", error.kind()), |()| "done".to_owned());
        self.world.answer(self.actor, &format!("delete {key}"), fate, &told);
        result
    }

    fn width(&self) -> usize {
        self.width
    }

    fn describe(&self) -> String {
        format!("the store that actor {} sees", self.actor)
    }
}
