//! What every store must do, asked of every store; and what only a directory can be asked.

mod directory;
mod remote;
#[path = "../support/servers.rs"]
mod servers;
mod suite;

use lifeboat::store::{AnyStore, Local, Measured, Memory, Store};
use std::sync::Arc;
use suite::Place;

fn directory() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    Local::create(&root).unwrap().put(&suite::key("format/1"), b"a store is opened by its format").unwrap();
    Place::new(move || {
        let _kept_until_the_end = &dir;
        Arc::new(Local::open(&root).unwrap())
    })
}

fn memory() -> Place {
    let memory = Memory::default();
    Place::new(move || Arc::new(memory.clone()))
}

fn measured() -> Place {
    let below: AnyStore = Arc::new(Memory::default());
    Place::new(move || Arc::new(Measured::new(below.clone())))
}

conforms!(a_directory, directory);
conforms!(memory_alone, memory);
conforms!(a_store_that_is_measured, measured);
