//! What holds for every set of rules and every list of snapshots.

use jiff::tz::TimeZone;
use lifeboat::id::{ClientId, SnapshotId};
use lifeboat::plan::retention::{Every, GroupBy, Retention, Rule, Subject};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::num::NonZeroU32;

const EVERY: [Every; 7] = [Every::Snapshot, Every::Hour, Every::Day, Every::Week, Every::Month, Every::Quarter, Every::Year];

/// Times that lie close together, far apart, and at the ends of what there is.
fn time() -> impl Strategy<Value = i64> {
    const DAY: i64 = 86_400_000_000_000;
    const SPRING: i64 = 1_711_846_800_000_000_000;
    prop_oneof![
        6 => (-72i64..72).prop_map(|half_hours| SPRING + half_hours * DAY / 48),
        4 => (-2000i64..2000).prop_map(|days| SPRING + days * DAY),
        1 => any::<i64>(),
        1 => Just(0),
    ]
}

fn subjects() -> impl Strategy<Value = Vec<Subject>> {
    let subject = (time(), 0u8..3, 0u8..2, 0u8..2, 0u8..3, prop::bool::weighted(0.05), prop::bool::weighted(0.1));
    vec(subject, 0..40).prop_map(|all| {
        let made = all.into_iter().enumerate().map(|(number, (time, client, host, kind, tag, held, incomplete))| {
            let mut id = [0; 32];
            id[31] = u8::try_from(number).unwrap();
            id[0] = id[31].wrapping_mul(77);
            Subject {
                id: SnapshotId(id),
                client: ClientId([client; 16]),
                host: format!("host{host}"),
                kind: format!("kind{kind}"),
                paths: vec![b"/".to_vec()],
                tags: if tag == 0 { vec!["tag".into()] } else { Vec::new() },
                time,
                held,
                retained: None,
                incomplete,
            }
        });
        made.collect()
    })
}

fn timed() -> impl Strategy<Value = Rule> {
    let every = (0..EVERY.len()).prop_map(|place| EVERY[place]);
    prop_oneof![
        (every.clone(), 1u32..6).prop_map(|(every, number)| Rule::Number { every, number: NonZeroU32::new(number).unwrap() }),
        (every, 1u32..400, prop::sample::select(vec!["h", "d", "m", "y"]))
            .prop_map(|(every, number, unit)| Rule::Within { every, age: format!("{number}{unit}").parse().unwrap() }),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    prop_oneof![8 => timed(), 1 => Just(Rule::Tag("tag".into())), 1 => Just(Rule::Id(SnapshotId([0; 32])))]
}

fn retention() -> impl Strategy<Value = Retention> {
    let parts = vec![GroupBy::Host, GroupBy::Kind, GroupBy::Paths, GroupBy::Tags];
    let zones = vec!["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"];
    (vec(any_rule(), 0..4), btree_set(prop::sample::select(parts), 0..4), prop::sample::select(zones))
        .prop_map(|(rules, group_by, zone)| Retention { rules, group_by, zone: TimeZone::get(zone).unwrap() })
}

fn kept(retention: &Retention, subjects: &[Subject]) -> Vec<bool> {
    retention.judge(subjects).iter().map(|verdict| verdict.is_kept()).collect()
}

/// What a period is called, by the calendar's own names.
fn period(every: Every, time: i64, zone: &TimeZone, number: usize) -> String {
    let zoned = jiff::Timestamp::from_nanosecond(time.into()).unwrap().to_zoned(zone.clone());
    match every {
        Every::Snapshot => number.to_string(),
        Every::Hour => zoned.strftime("%Y-%m-%d %H %::z").to_string(),
        Every::Day => zoned.strftime("%Y-%m-%d").to_string(),
        Every::Week => zoned.strftime("%G-W%V").to_string(),
        Every::Month => zoned.strftime("%Y-%m").to_string(),
        Every::Quarter => zoned.strftime("%Y-Q%q").to_string(),
        Every::Year => zoned.strftime("%Y").to_string(),
    }
}

/// The rule in its plainest form: a snapshot is kept if it is the newest of its period, and fewer than `number` periods
/// have a newest one that is newer.
fn plainly_kept(subjects: &[Subject], every: Every, number: u32, zone: &TimeZone) -> Vec<bool> {
    let age = |at: usize| (subjects[at].time, subjects[at].id);
    let period = |at: usize| period(every, subjects[at].time, zone, at);
    let same = |one: usize, other: usize| subjects[one].client == subjects[other].client;
    let newest =
        |at: usize| (0..subjects.len()).all(|other| !same(at, other) || period(other) != period(at) || age(other) <= age(at));
    let newer =
        |at: usize| (0..subjects.len()).filter(|other| same(at, *other) && newest(*other) && age(*other) > age(at)).count();
    (0..subjects.len()).map(|at| newest(at) && newer(at) < number as usize).collect()
}

proptest! {
    #[test]
    fn rules_of_number_are_what_they_say(
        every in 0..EVERY.len(), number in 1u32..6, retention in retention(), subjects in subjects(),
    ) {
        let mut subjects = subjects;
        subjects.truncate(15);
        subjects.iter_mut().for_each(|subject| (subject.held, subject.incomplete) = (false, false));
        let (every, zone) = (EVERY[every], retention.zone.clone());
        let rules = vec![Rule::Number { every, number: NonZeroU32::new(number).unwrap() }];
        let retention = Retention { rules, group_by: [].into(), zone: zone.clone() };
        prop_assert_eq!(kept(&retention, &subjects), plainly_kept(&subjects, every, number, &zone));
    }

    #[test]
    fn one_more_rule_never_forgets_more(retention in retention(), rule in any_rule(), subjects in subjects()) {
        let mut more = retention.clone();
        more.rules.push(rule);
        for (before, after) in kept(&retention, &subjects).into_iter().zip(kept(&more, &subjects)) {
            prop_assert!(!before || after);
        }
    }

    #[test]
    fn a_larger_number_never_forgets_more(retention in retention(), subjects in subjects(), add in 1u32..5) {
        let mut more = retention.clone();
        for rule in &mut more.rules {
            if let Rule::Number { number, .. } = rule {
                *number = number.saturating_add(add);
            }
        }
        for (before, after) in kept(&retention, &subjects).into_iter().zip(kept(&more, &subjects)) {
            prop_assert!(!before || after);
        }
    }

    #[test]
    fn the_order_of_the_list_changes_nothing(retention in retention(), subjects in subjects(), seed in any::<u64>()) {
        let mut mixed: Vec<(usize, Subject)> = subjects.iter().cloned().enumerate().collect();
        mixed.sort_by_key(|(number, _)| blake3::hash(&[&seed.to_le_bytes()[..], &[u8::try_from(*number).unwrap()]].concat()).to_hex());
        let (numbers, mixed): (Vec<usize>, Vec<Subject>) = mixed.into_iter().unzip();
        let verdicts = retention.judge(&subjects);
        for (number, verdict) in numbers.into_iter().zip(retention.judge(&mixed)) {
            prop_assert_eq!(&verdicts[number], &verdict);
        }
    }

    #[test]
    fn the_newest_of_each_group_is_kept_by_every_rule_of_time(
        retention in retention(), rule in timed(), subjects in subjects(),
    ) {
        let retention = Retention { rules: vec![rule], ..retention };
        let verdicts = retention.judge(&subjects);
        for group in verdicts.iter().map(|verdict| verdict.group) {
            let members = subjects.iter().zip(&verdicts).filter(|(_, verdict)| verdict.group == group);
            let (_, newest) = members.max_by_key(|(subject, _)| (subject.time, subject.id)).unwrap();
            prop_assert!(newest.is_kept());
        }
    }

    #[test]
    fn judging_again_what_was_kept_keeps_all_of_it(retention in retention(), subjects in subjects()) {
        let kept_before = kept(&retention, &subjects);
        let rest: Vec<Subject> = subjects.into_iter().zip(kept_before).filter_map(|(s, kept)| kept.then_some(s)).collect();
        prop_assert!(kept(&retention, &rest).into_iter().all(|kept| kept));
    }

    #[test]
    fn no_client_changes_what_becomes_of_another(retention in retention(), subjects in subjects()) {
        let all = kept(&retention, &subjects);
        let own: Vec<Subject> = subjects.iter().filter(|subject| subject.client.0[0] == 0).cloned().collect();
        let among_others = subjects.iter().zip(all).filter_map(|(s, kept)| (s.client.0[0] == 0).then_some(kept));
        prop_assert_eq!(among_others.collect::<Vec<_>>(), kept(&retention, &own));
    }

    #[test]
    fn held_ones_are_always_kept_and_numbers_are_kept_to(retention in retention(), subjects in subjects()) {
        let verdicts = retention.judge(&subjects);
        prop_assert_eq!(verdicts.len(), subjects.len());
        for (subject, verdict) in subjects.iter().zip(&verdicts) {
            prop_assert!(!subject.held || verdict.is_kept());
        }
        let last = Retention { rules: vec![Rule::Number { every: Every::Snapshot, number: NonZeroU32::new(3).unwrap() }], ..retention };
        let verdicts = last.judge(&subjects);
        for group in verdicts.iter().map(|verdict| verdict.group) {
            let by_number = subjects.iter().zip(&verdicts).filter(|(s, v)| v.group == group && v.is_kept() && !s.held && !s.incomplete);
            prop_assert!(by_number.count() <= 3);
        }
    }
}
