//! The suite. A store that passes it may hold a repository.
//!
//! To run it on another kind of store, write a function that makes an empty [`Place`] and call
//! `conforms!(name, function)`.
#![expect(unreachable_pub, reason = "it is a module of a test program")]

use lifeboat::error::ErrorKind;
use lifeboat::id::{ClientId, IndexId, PackId, SlotId};
use lifeboat::store::{AnyStore, Created, Key};
use std::collections::BTreeMap;
use std::sync::Barrier;

/// Racers for one name.
const RACERS: usize = 16;
/// Races run one after the other.
const RACES: u64 = 10;

/// A place that is empty but for `format/1`, of which any number of handles may be had.
pub struct Place {
    open: Box<dyn Fn() -> AnyStore + Send + Sync>,
}

impl Place {
    pub fn new(open: impl Fn() -> AnyStore + Send + Sync + 'static) -> Self {
        Self { open: Box::new(open) }
    }

    /// Another handle, as another process would have one.
    pub fn open(&self) -> AnyStore {
        (self.open)()
    }
}

/// Makes a test of every function of the suite, for one kind of store.
#[macro_export]
macro_rules! conforms {
    ($name:ident, $place:ident) => {
        $crate::conforms!($name, $place,
            create_makes_an_object_once_and_never_replaces_it,
            of_many_who_create_a_name_at_once_exactly_one_wins,
            what_was_put_is_read_by_every_handle,
            putting_again_keeps_what_is_there,
            ranges_are_exact_and_never_go_past_the_end,
            what_is_missing_is_missing_and_nothing_else,
            an_object_longer_than_the_limit_is_not_read,
            an_empty_object_is_an_object,
            listings_are_complete_and_keep_to_their_folder,
            a_listing_ends_with_the_error_of_who_asked,
            a_listing_while_others_write_shows_what_was_there_before_and_only_whole_objects,
            the_time_of_writing_is_the_same_however_it_is_asked,
            to_delete_twice_is_to_delete_once,
            large_objects_go_in_by_steps,
            what_is_staged_and_dropped_leaves_nothing,
            a_staged_object_is_seen_when_it_is_finished_and_not_before,
            every_kind_of_key_has_its_own_object,
            whoever_sees_a_record_sees_what_was_put_before_it,
            many_threads_may_share_one_handle
        );
    };
    ($name:ident, $place:ident, $($test:ident),+) => {
        mod $name {
            $(#[test] fn $test() { $crate::suite::$test(&super::$place()); })+
        }
    };
}

/// A function of the suite.
pub type Demand = fn(&Place);

/// All of them by name, for stores of which one server is asked everything.
pub const ALL: &[(&str, Demand)] = &[
    ("create_makes_an_object_once_and_never_replaces_it", create_makes_an_object_once_and_never_replaces_it),
    ("of_many_who_create_a_name_at_once_exactly_one_wins", of_many_who_create_a_name_at_once_exactly_one_wins),
    ("what_was_put_is_read_by_every_handle", what_was_put_is_read_by_every_handle),
    ("putting_again_keeps_what_is_there", putting_again_keeps_what_is_there),
    ("ranges_are_exact_and_never_go_past_the_end", ranges_are_exact_and_never_go_past_the_end),
    ("what_is_missing_is_missing_and_nothing_else", what_is_missing_is_missing_and_nothing_else),
    ("an_object_longer_than_the_limit_is_not_read", an_object_longer_than_the_limit_is_not_read),
    ("an_empty_object_is_an_object", an_empty_object_is_an_object),
    ("listings_are_complete_and_keep_to_their_folder", listings_are_complete_and_keep_to_their_folder),
    ("a_listing_ends_with_the_error_of_who_asked", a_listing_ends_with_the_error_of_who_asked),
    (
        "a_listing_while_others_write_shows_what_was_there_before_and_only_whole_objects",
        a_listing_while_others_write_shows_what_was_there_before_and_only_whole_objects,
    ),
    ("the_time_of_writing_is_the_same_however_it_is_asked", the_time_of_writing_is_the_same_however_it_is_asked),
    ("to_delete_twice_is_to_delete_once", to_delete_twice_is_to_delete_once),
    ("large_objects_go_in_by_steps", large_objects_go_in_by_steps),
    ("what_is_staged_and_dropped_leaves_nothing", what_is_staged_and_dropped_leaves_nothing),
    ("a_staged_object_is_seen_when_it_is_finished_and_not_before", a_staged_object_is_seen_when_it_is_finished_and_not_before),
    ("every_kind_of_key_has_its_own_object", every_kind_of_key_has_its_own_object),
    ("whoever_sees_a_record_sees_what_was_put_before_it", whoever_sees_a_record_sees_what_was_put_before_it),
    ("many_threads_may_share_one_handle", many_threads_may_share_one_handle),
];

pub fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn record(seq: u64) -> Key {
    Key::log(&ClientId([7; 16]), seq)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn pack_of(bytes: &[u8]) -> Key {
    Key::pack(&PackId(*blake3::hash(bytes).as_bytes()))
}

fn listed(store: &AnyStore, prefix: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut twice = Vec::new();
    let take = &mut |entry: lifeboat::store::Entry| {
        if found.insert(entry.key.to_string(), entry.size).is_some() {
            twice.push(entry.key.to_string());
        }
        Ok(())
    };
    store.list(prefix, take).unwrap();
    assert!(twice.is_empty(), "listed twice: {twice:?}");
    found
}

pub fn create_makes_an_object_once_and_never_replaces_it(place: &Place) {
    let store = place.open();
    assert_eq!(store.create(&record(0), b"first").unwrap(), Created::New);
    assert_eq!(store.create(&record(0), b"second").unwrap(), Created::Exists);
    assert_eq!(place.open().create(&record(0), b"first").unwrap(), Created::Exists, "with the same bytes as well");
    assert_eq!(place.open().get(&record(0), 100).unwrap(), b"first");
    assert_eq!(store.create(&record(1), b"next").unwrap(), Created::New);
}

pub fn of_many_who_create_a_name_at_once_exactly_one_wins(place: &Place) {
    for race in 0..RACES {
        let start = Barrier::new(RACERS);
        let run = |racer: usize| {
            let (store, bytes) = (place.open(), noise(race * 1000 + racer as u64, 2000 + racer));
            start.wait();
            (store.create(&record(race), &bytes).unwrap(), bytes)
        };
        let results: Vec<(Created, Vec<u8>)> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || run(racer))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winners: Vec<_> = results.iter().filter(|(created, _)| *created == Created::New).collect();
        assert_eq!(winners.len(), 1, "race {race}");
        assert!(place.open().get(&record(race), 10_000).unwrap() == winners[0].1, "race {race}: the winner's bytes stay");
    }
}

pub fn what_was_put_is_read_by_every_handle(place: &Place) {
    let (writer, reader) = (place.open(), place.open());
    for len in [1, 2, 63, 64, 4095, 4096, 4097, 65_536, 100_000, 1 << 20] {
        let bytes = noise(len, usize::try_from(len).unwrap());
        let key = pack_of(&bytes);
        assert_eq!(reader.size(&key).unwrap(), None);
        writer.put(&key, &bytes).unwrap();
        assert!(writer.get(&key, len).unwrap() == bytes && reader.get(&key, len).unwrap() == bytes, "{len} bytes");
        assert_eq!((writer.size(&key).unwrap(), reader.size(&key).unwrap()), (Some(len), Some(len)));
    }
}

pub fn putting_again_keeps_what_is_there(place: &Place) {
    let store = place.open();
    let key = pack_of(b"bytes");
    store.put(&key, b"bytes").unwrap();
    store.put(&key, b"bytes").unwrap();
    let mut staged = store.stage().unwrap();
    staged.write(b"bytes").unwrap();
    staged.finish(&key).unwrap();
    assert_eq!(store.get(&key, 5).unwrap(), b"bytes");
    assert_eq!(listed(&store, "packs").len(), 1);
}

pub fn ranges_are_exact_and_never_go_past_the_end(place: &Place) {
    let bytes = noise(1, 300_000);
    let key = pack_of(&bytes);
    place.open().put(&key, &bytes).unwrap();
    let store = place.open();
    let read = |offset: usize, len: usize| {
        let mut buffer = vec![0xee; len];
        store.read_at(&key, offset as u64, &mut buffer).map(|()| buffer)
    };
    for (offset, len) in [(0, 1), (0, 64), (1, 1), (100, 5000), (65_535, 2), (299_999, 1), (299_000, 1000), (0, 300_000)] {
        assert!(read(offset, len).unwrap() == bytes[offset..offset + len], "{len} bytes from {offset} on");
    }
    assert!(read(0, 0).unwrap().is_empty() && read(1000, 0).unwrap().is_empty());
    for (offset, len) in [(299_999, 2), (300_000, 1), (0, 300_001), (400_000, 10), (1 << 40, 10)] {
        let error = read(offset, len).expect_err("a read past the end fails");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{len} bytes from {offset} on: {error}");
    }
}

pub fn what_is_missing_is_missing_and_nothing_else(place: &Place) {
    let store = place.open();
    for key in [record(5), pack_of(b"nothing"), key("keys/00.age"), key("gc/0000000000000001.plan")] {
        assert_eq!(store.get(&key, 100).unwrap_err().kind(), ErrorKind::Missing, "{key}");
        assert_eq!(store.read_at(&key, 0, &mut [0; 4]).unwrap_err().kind(), ErrorKind::Missing, "{key}");
        assert_eq!(store.size(&key).unwrap(), None, "{key}");
    }
    assert!(listed(&store, "packs").is_empty() && listed(&store, "parity").is_empty());
}

pub fn an_object_longer_than_the_limit_is_not_read(place: &Place) {
    let store = place.open();
    let key = pack_of(b"eleven more");
    store.put(&key, b"eleven more").unwrap();
    assert_eq!(store.get(&key, 10).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(store.get(&key, 11).unwrap().len(), 11);
}

pub fn an_empty_object_is_an_object(place: &Place) {
    let store = place.open();
    assert_eq!(store.create(&record(0), b"").unwrap(), Created::New);
    assert_eq!(store.create(&record(0), b"more").unwrap(), Created::Exists);
    assert_eq!((store.get(&record(0), 10).unwrap().len(), store.size(&record(0)).unwrap()), (0, Some(0)));
    assert_eq!(store.read_at(&record(0), 0, &mut [0; 1]).unwrap_err().kind(), ErrorKind::Damaged);
}

pub fn listings_are_complete_and_keep_to_their_folder(place: &Place) {
    let store = place.open();
    let mut expected = BTreeMap::new();
    // More than one page of any protocol's listing.
    for number in 0..1200u64 {
        let bytes = number.to_le_bytes()[..1 + usize::try_from(number % 7).unwrap()].to_vec();
        let key = Key::pack(&PackId(*blake3::hash(&number.to_le_bytes()).as_bytes()));
        store.put(&key, &bytes).unwrap();
        expected.insert(key.to_string(), bytes.len() as u64);
    }
    store.create(&record(0), b"record").unwrap();
    store.put(&key("keys/aa.age"), b"slot").unwrap();
    assert_eq!(listed(&place.open(), "packs"), expected);
    assert_eq!(listed(&store, "log"), BTreeMap::from([(record(0).to_string(), 6)]));
    assert!(listed(&store, "pack").is_empty() && listed(&store, "key").is_empty(), "a folder is more than a beginning");
    let one = expected.keys().next().unwrap().rsplit_once('/').unwrap().0.to_owned();
    let below: Vec<_> = expected.keys().filter(|key| key.starts_with(&format!("{one}/"))).cloned().collect();
    assert_eq!(listed(&store, &one).into_keys().collect::<Vec<_>>(), below);
    let all = listed(&store, "");
    // A racer of the probe may come late, after what the others left was removed.
    let ours = all.keys().filter(|key| !key.starts_with("format/") && !key.starts_with("probe/"));
    assert_eq!(ours.count(), 1202);
}

pub fn a_listing_ends_with_the_error_of_who_asked(place: &Place) {
    let store = place.open();
    for seq in 0..5 {
        assert_eq!(store.create(&record(seq), b"x").unwrap(), Created::New);
    }
    let mut seen = 0;
    let result = store.list("log", &mut |_| {
        seen += 1;
        Err(lifeboat::error::Error::new(ErrorKind::Interrupted, "enough"))
    });
    assert_eq!((result.unwrap_err().kind(), seen), (ErrorKind::Interrupted, 1));
}

pub fn a_listing_while_others_write_shows_what_was_there_before_and_only_whole_objects(place: &Place) {
    let store = place.open();
    let put = |store: &AnyStore, number: u64| {
        let bytes = noise(number, 3000);
        store.put(&pack_of(&bytes), &bytes).unwrap();
    };
    (0..40).for_each(|number| put(&store, number));
    let before = listed(&store, "packs");
    std::thread::scope(|scope| {
        for writer in 1..4 {
            let store = place.open();
            scope.spawn(move || (0..60).for_each(|number| put(&store, writer * 1000 + number)));
        }
        for _ in 0..10 {
            let now = listed(&store, "packs");
            assert!(before.keys().all(|key| now.contains_key(key)), "what was there before is in every listing");
            assert!(now.values().all(|size| *size == 3000), "only whole objects have names");
        }
    });
    assert_eq!(listed(&store, "packs").len(), 40 + 180);
}

pub fn the_time_of_writing_is_the_same_however_it_is_asked(place: &Place) {
    let store = place.open();
    assert_eq!(store.modified(&record(0)).unwrap(), None);
    assert_eq!(store.create(&record(0), b"x").unwrap(), Created::New);
    let time = store.modified(&record(0)).unwrap().unwrap();
    let mut listed = None;
    let taken = place.open().list("log", &mut |entry| {
        listed = Some(entry.modified);
        Ok(())
    });
    taken.unwrap();
    assert_eq!(listed, Some(time));
    let (year_2020, year_2200) = (1_577_836_800_000_000_000, 7_258_118_400_000_000_000);
    assert!(time == 0 || (year_2020..year_2200).contains(&time), "nanoseconds since 1970, or nothing: {time}");
}

pub fn to_delete_twice_is_to_delete_once(place: &Place) {
    let store = place.open();
    let (gone, kept) = (pack_of(b"gone"), pack_of(b"kept"));
    store.put(&gone, b"gone").unwrap();
    store.put(&kept, b"kept").unwrap();
    store.delete(&gone).unwrap();
    place.open().delete(&gone).unwrap();
    store.delete(&pack_of(b"never there")).unwrap();
    let reader = place.open();
    assert_eq!((reader.size(&gone).unwrap(), reader.get(&gone, 9).unwrap_err().kind()), (None, ErrorKind::Missing));
    assert_eq!(listed(&reader, "packs").into_keys().collect::<Vec<_>>(), [kept.to_string()]);
    // A name that is free again may be taken again.
    assert_eq!(store.create(&gone, b"again").unwrap(), Created::New);
}

pub fn large_objects_go_in_by_steps(place: &Place) {
    let store = place.open();
    // Longer than a part of any upload, and no multiple of one; steps of very different lengths.
    let bytes = noise(3, (33 << 20) + 4321);
    let key = pack_of(&bytes);
    let mut staged = store.stage().unwrap();
    let mut rest = bytes.as_slice();
    for step in [0, 1, 70_000, 9 << 20, 5, 1 << 20, 12 << 20].into_iter().chain(std::iter::repeat(3 << 20)) {
        let (now, after) = rest.split_at(step.min(rest.len()));
        staged.write(now).unwrap();
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(store.size(&key).unwrap(), None);
    staged.finish(&key).unwrap();
    let reader = place.open();
    assert_eq!(reader.size(&key).unwrap(), Some(bytes.len() as u64));
    let mut tail = [0; 5000];
    reader.read_at(&key, bytes.len() as u64 - 5000, &mut tail).unwrap();
    assert!(tail[..] == bytes[bytes.len() - 5000..] && reader.get(&key, 64 << 20).unwrap() == bytes);
}

pub fn what_is_staged_and_dropped_leaves_nothing(place: &Place) {
    let store = place.open();
    let before = listed(&store, "");
    for len in [0, 10, 9 << 20] {
        let mut staged = store.stage().unwrap();
        staged.write(&noise(4, len)).unwrap();
        drop(staged);
    }
    assert_eq!(listed(&place.open(), ""), before);
}

pub fn a_staged_object_is_seen_when_it_is_finished_and_not_before(place: &Place) {
    let (store, reader) = (place.open(), place.open());
    let bytes = noise(5, 200_000);
    let key = pack_of(&bytes);
    let mut staged = store.stage().unwrap();
    for piece in bytes.chunks(30_000) {
        staged.write(piece).unwrap();
        assert_eq!(reader.size(&key).unwrap(), None);
        assert!(listed(&reader, "packs").is_empty());
    }
    staged.finish(&key).unwrap();
    assert!(reader.get(&key, 200_000).unwrap() == bytes);
}

pub fn every_kind_of_key_has_its_own_object(place: &Place) {
    let store = place.open();
    let keys = [
        Key::slot(&SlotId([1; 16])),
        Key::pack(&PackId([0xab; 32])),
        Key::pack(&PackId([0xac; 32])),
        Key::index(&IndexId([0xab; 32])),
        record(0),
        record(u64::MAX),
        Key::log(&ClientId([8; 16]), 0),
        Key::condemn(1),
        Key::plan(1),
        key("parity/00ff.0"),
    ];
    for key in &keys {
        store.put(key, key.as_str().as_bytes()).unwrap();
    }
    let reader = place.open();
    for key in &keys {
        assert_eq!(reader.get(key, 200).unwrap(), key.as_str().as_bytes());
        assert_eq!(reader.size(key).unwrap(), Some(key.as_str().len() as u64));
    }
    assert_eq!(listed(&reader, "log").len(), 3);
    assert_eq!(listed(&reader, "gc").len(), 2);
    assert!(!reader.describe().is_empty());
}

pub fn whoever_sees_a_record_sees_what_was_put_before_it(place: &Place) {
    let rounds = 40;
    std::thread::scope(|scope| {
        let (writer, reader) = (place.open(), place.open());
        scope.spawn(move || {
            for seq in 0..rounds {
                let bytes = noise(seq, 5000);
                writer.put(&pack_of(&bytes), &bytes).unwrap();
                writer.create(&record(seq), b"committed").unwrap();
            }
        });
        for seq in 0..rounds {
            while reader.size(&record(seq)).unwrap().is_none() {
                std::thread::yield_now();
            }
            assert_eq!(reader.get(&record(seq), 100).unwrap(), b"committed");
            let bytes = noise(seq, 5000);
            assert!(reader.get(&pack_of(&bytes), 5000).unwrap() == bytes, "record {seq}");
        }
    });
}

pub fn many_threads_may_share_one_handle(place: &Place) {
    let store = place.open();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for number in 0..10 {
                    let bytes = noise(thread * 100 + number, 10_000);
                    let key = pack_of(&bytes);
                    store.put(&key, &bytes).unwrap();
                    let mut middle = [0; 100];
                    store.read_at(&key, 5000, &mut middle).unwrap();
                    assert!(middle[..] == bytes[5000..5100] && store.get(&key, 10_000).unwrap() == bytes);
                }
            });
        }
    });
    assert_eq!(listed(&store, "packs").len(), 80);
}
