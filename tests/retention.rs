//! What retention keeps, as tables: rules, times, and the reasons that come out.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use lifeboat::id::{ClientId, SnapshotId};
use lifeboat::plan::age::Age;
use lifeboat::plan::retention::{Every, GroupBy, Retention, Rule, Subject, parse_number};
use std::collections::BTreeSet;

fn id(number: usize) -> SnapshotId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    SnapshotId(id)
}

/// A time as RFC 3339 in UTC, or with an offset.
fn nanos(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_nanosecond().try_into().unwrap()
}

fn subject(number: usize, time: &str) -> Subject {
    Subject {
        id: id(number),
        client: ClientId([1; 16]),
        host: "host".into(),
        kind: "full".into(),
        paths: vec![b"/home".to_vec()],
        tags: Vec::new(),
        time: nanos(time),
        held: false,
        retained: None,
        incomplete: false,
    }
}

fn subjects(times: &[&str]) -> Vec<Subject> {
    times.iter().enumerate().map(|(number, time)| subject(number, time)).collect()
}

fn number(every: Every, number: &str) -> Rule {
    Rule::Number { every, number: parse_number(number).unwrap() }
}

fn within(every: Every, age: &str) -> Rule {
    Rule::Within { every, age: age.parse().unwrap() }
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// The reasons for each snapshot, joined; empty for one that goes.
fn reasons(rules: &[Rule], zone: TimeZone, subjects: &[Subject]) -> Vec<String> {
    let retention = Retention { rules: rules.to_vec(), zone, ..Retention::default() };
    let text =
        |kept_by: &[lifeboat::plan::retention::Reason]| kept_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    retention.judge(subjects).iter().map(|verdict| text(&verdict.kept_by)).collect()
}

fn utc(rules: &[Rule], times: &[&str]) -> Vec<String> {
    reasons(rules, TimeZone::UTC, &subjects(times))
}

#[test]
fn each_rule_keeps_the_newest_of_its_periods() {
    let times = [
        "2023-11-30T23:59:59Z",
        "2023-12-31T10:00:00Z",
        "2024-01-01T09:00:00Z",
        "2024-01-01T09:30:00Z",
        "2024-01-01T10:00:00Z",
        "2024-01-02T10:00:00Z",
    ];
    let table: &[(Rule, [&str; 6])] = &[
        (number(Every::Snapshot, "2"), ["", "", "", "", "last 2 of 2", "last 1 of 2"]),
        (number(Every::Hour, "3"), ["", "", "", "hourly 3 of 3", "hourly 2 of 3", "hourly 1 of 3"]),
        (number(Every::Day, "3"), ["", "daily 3 of 3", "", "", "daily 2 of 3", "daily 1 of 3"]),
        // 2023-12-31 is a Sunday: the last day of its week.
        (number(Every::Week, "2"), ["", "weekly 2 of 2", "", "", "", "weekly 1 of 2"]),
        (number(Every::Month, "9"), ["monthly 3 of 9", "monthly 2 of 9", "", "", "", "monthly 1 of 9"]),
        (number(Every::Quarter, "2"), ["", "quarterly 2 of 2", "", "", "", "quarterly 1 of 2"]),
        (number(Every::Year, "all"), ["", "yearly 2 of all", "", "", "", "yearly 1 of all"]),
        (within(Every::Snapshot, "1d"), ["", "", "", "", "within 1d", "within 1d"]),
        (within(Every::Hour, "1d1h"), ["", "", "", "hourly within 1d1h", "hourly within 1d1h", "hourly within 1d1h"]),
        (within(Every::Day, "1w"), ["", "daily within 1w", "", "", "daily within 1w", "daily within 1w"]),
        (within(Every::Month, "1m"), ["", "monthly within 1m", "", "", "", "monthly within 1m"]),
        (within(Every::Year, "P1Y"), ["", "yearly within 1y", "", "", "", "yearly within 1y"]),
    ];
    for (rule, expected) in table {
        assert_eq!(utc(std::slice::from_ref(rule), &times), expected, "{rule:?}");
    }
}

#[test]
fn rules_add_up_and_all_reasons_are_said() {
    let rules = [number(Every::Snapshot, "1"), number(Every::Day, "2"), within(Every::Snapshot, "2h")];
    let times = ["2024-05-01T12:00:00Z", "2024-05-02T11:00:00Z", "2024-05-02T12:00:00Z"];
    assert_eq!(utc(&rules, &times), ["daily 2 of 2", "within 2h", "last 1 of 1, daily 1 of 2, within 2h"]);
}

#[test]
fn nothing_is_judged_without_snapshots_and_nothing_kept_without_rules() {
    assert!(utc(&[number(Every::Day, "7")], &[]).is_empty());
    assert_eq!(utc(&[], &["2024-05-01T12:00:00Z"]), [""]);
}

#[test]
fn an_hour_that_a_clock_runs_through_twice_is_two_hours() {
    // Clocks in Berlin went from 03:00 back to 02:00 at 01:00 UTC.
    let times = ["2024-10-27T00:10:00Z", "2024-10-27T00:50:00Z", "2024-10-27T01:10:00Z", "2024-10-27T01:50:00Z"];
    let kept = reasons(&[number(Every::Hour, "9")], zone("Europe/Berlin"), &subjects(&times));
    assert_eq!(kept, ["", "hourly 2 of 9", "", "hourly 1 of 9"]);
}

#[test]
fn days_begin_where_the_zone_says_also_when_the_clock_changes() {
    // The last hour of 30 March, the short day, and the day after it.
    let times = ["2024-03-30T22:30:00Z", "2024-03-30T23:30:00Z", "2024-03-31T21:30:00Z", "2024-03-31T22:30:00Z"];
    let kept = reasons(&[number(Every::Day, "9")], zone("Europe/Berlin"), &subjects(&times));
    assert_eq!(kept, ["daily 3 of 9", "", "daily 2 of 9", "daily 1 of 9"]);
    assert_eq!(utc(&[number(Every::Day, "9")], &times), ["", "daily 2 of 9", "", "daily 1 of 9"]);
    // A day back over the change is a day by the calendar: 23 hours here.
    let times = ["2024-03-30T11:00:00Z", "2024-03-31T10:00:00Z"];
    assert_eq!(reasons(&[within(Every::Snapshot, "1d")], zone("Europe/Berlin"), &subjects(&times)), ["within 1d", "within 1d"]);
    assert_eq!(utc(&[within(Every::Snapshot, "1d")], &times), ["within 1d", "within 1d"]);
    assert_eq!(utc(&[within(Every::Snapshot, "22h")], &times), ["", "within 22h"]);
}

#[test]
fn a_clock_set_back_over_midnight_makes_no_second_day() {
    // St John's set its clocks back at 00:01, to 23:01 of the day before.
    let newfoundland = zone("America/St_Johns");
    let local = |text: &str| text.parse::<Zoned>().unwrap().timestamp().to_string();
    let times = [
        local("2010-11-06T23:30:00-02:30[America/St_Johns]"),
        local("2010-11-07T00:00:30-02:30[America/St_Johns]"),
        local("2010-11-06T23:40:00-03:30[America/St_Johns]"),
        local("2010-11-07T08:00:00-03:30[America/St_Johns]"),
    ];
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    let kept = reasons(&[number(Every::Day, "9")], newfoundland, &subjects(&times));
    assert_eq!(kept, ["", "", "daily 2 of 9", "daily 1 of 9"]);
}

#[test]
fn leap_days_and_short_months_are_as_long_as_they_are() {
    let times = ["2023-02-28T12:00:00Z", "2024-01-29T12:00:00Z", "2024-02-28T12:00:00Z", "2024-02-29T12:00:00Z"];
    assert_eq!(utc(&[within(Every::Snapshot, "1m")], &times), ["", "within 1m", "within 1m", "within 1m"]);
    // A year before 29 February is 28 February.
    assert_eq!(utc(&[within(Every::Snapshot, "1y")], &times), ["within 1y"; 4]);
    assert_eq!(utc(&[number(Every::Day, "2")], &times), ["", "", "daily 2 of 2", "daily 1 of 2"]);
    assert_eq!(utc(&[number(Every::Month, "2")], &times), ["", "monthly 2 of 2", "", "monthly 1 of 2"]);
}

#[test]
fn the_first_days_of_a_year_may_belong_to_the_last_week_of_the_one_before() {
    // 2021-01-03 is the Sunday of week 53 of 2020; 2024-12-30 the Monday of week 1 of 2025.
    let times = ["2020-12-28T12:00:00Z", "2021-01-03T12:00:00Z", "2021-01-04T12:00:00Z"];
    assert_eq!(utc(&[number(Every::Week, "5")], &times), ["", "weekly 2 of 5", "weekly 1 of 5"]);
    let times = ["2024-12-29T12:00:00Z", "2024-12-30T12:00:00Z", "2025-01-05T12:00:00Z"];
    assert_eq!(utc(&[number(Every::Week, "5")], &times), ["weekly 2 of 5", "", "weekly 1 of 5"]);
}

#[test]
fn of_equal_times_the_larger_id_is_newer_whatever_the_order() {
    let mut all = subjects(&["2024-05-01T12:00:00Z"; 3]);
    assert_eq!(reasons(&[number(Every::Snapshot, "2")], TimeZone::UTC, &all), ["", "last 2 of 2", "last 1 of 2"]);
    all.reverse();
    assert_eq!(reasons(&[number(Every::Snapshot, "2")], TimeZone::UTC, &all), ["last 1 of 2", "last 2 of 2", ""]);
    assert_eq!(reasons(&[number(Every::Day, "2")], TimeZone::UTC, &all), ["daily 1 of 2", "", ""]);
}

#[test]
fn times_at_the_ends_of_what_clocks_show_are_judged_like_others() {
    let times = ["1970-01-01T00:00:00Z", "2024-05-01T12:00:00Z", "2100-01-01T00:00:00Z"];
    assert_eq!(utc(&[number(Every::Year, "3")], &times), ["yearly 3 of 3", "yearly 2 of 3", "yearly 1 of 3"]);
    assert_eq!(utc(&[within(Every::Snapshot, "10y")], &times), ["", "", "within 10y"]);
    assert_eq!(utc(&[within(Every::Snapshot, "19000y")], &times), ["within 19000y"; 3], "before the calendar begins");
    for time in [i64::MIN, 0, i64::MAX] {
        let all = [Subject { time, ..subject(0, times[0]) }];
        for zone in [TimeZone::UTC, zone("Pacific/Kiritimati"), zone("America/St_Johns")] {
            let kept = reasons(&[within(Every::Week, "1w"), number(Every::Hour, "1")], zone, &all);
            assert_eq!(kept, ["weekly within 1w, hourly 1 of 1"], "{time}");
        }
    }
}

#[test]
fn a_clock_that_jumped_forward_and_back_moves_only_its_own_snapshots() {
    let times = ["2024-05-01T12:00:00Z", "2031-01-01T00:00:00Z", "2024-05-02T12:00:00Z", "2024-05-03T12:00:00Z"];
    let kept = utc(&[number(Every::Day, "3")], &times);
    assert_eq!(kept, ["", "daily 1 of 3", "daily 3 of 3", "daily 2 of 3"]);
}

#[test]
fn groups_are_judged_apart_and_clients_always() {
    let rules = [number(Every::Snapshot, "1")];
    let times = ["2024-05-01T12:00:00Z", "2024-05-02T12:00:00Z"];
    let judge = |group_by: &[GroupBy], change: &dyn Fn(&mut Subject)| {
        let mut all = subjects(&times);
        change(&mut all[0]);
        let group_by: BTreeSet<GroupBy> = group_by.iter().copied().collect();
        let retention = Retention { rules: rules.to_vec(), group_by, zone: TimeZone::UTC };
        retention.judge(&all)[0].is_kept()
    };
    let host = |s: &mut Subject| s.host = "other".into();
    let kind = |s: &mut Subject| s.kind = "config".into();
    let paths = |s: &mut Subject| s.paths.push(b"/etc".to_vec());
    let tags = |s: &mut Subject| s.tags.push("tag".into());
    let client = |s: &mut Subject| s.client = ClientId([2; 16]);
    assert!(judge(&[GroupBy::Host], &host) && !judge(&[GroupBy::Kind], &host));
    assert!(judge(&[GroupBy::Kind], &kind) && !judge(&[GroupBy::Paths], &kind));
    assert!(judge(&[GroupBy::Paths], &paths) && !judge(&[GroupBy::Tags], &paths));
    assert!(judge(&[GroupBy::Tags], &tags) && !judge(&[GroupBy::Host], &tags));
    assert!(judge(&[], &client), "grouping by nothing still keeps clients apart");
    assert!(!judge(&[], &|_| {}));
}

#[test]
fn the_order_of_paths_makes_no_other_group() {
    let mut all = subjects(&["2024-05-01T12:00:00Z", "2024-05-02T12:00:00Z"]);
    all[0].paths = vec![b"/a".to_vec(), b"/b".to_vec()];
    all[1].paths = vec![b"/b".to_vec(), b"/a".to_vec()];
    assert_eq!(reasons(&[number(Every::Snapshot, "1")], TimeZone::UTC, &all), ["", "last 1 of 1"]);
}

#[test]
fn tags_ids_and_holds_keep_whatever_the_time() {
    let mut all = subjects(&["2024-05-01T12:00:00Z", "2024-05-02T12:00:00Z", "2024-05-03T12:00:00Z", "2024-05-04T12:00:00Z"]);
    all[0].tags = vec!["first".into(), "year".into()];
    all[1].held = true;
    let rules = [Rule::Tag("year".into()), Rule::Id(id(2)), number(Every::Snapshot, "1")];
    assert_eq!(reasons(&rules, TimeZone::UTC, &all), ["tag year", "held", "id", "last 1 of 1"]);
}

#[test]
fn what_did_not_finish_pushes_nothing_out_and_goes_when_a_backup_finishes() {
    let mut all = subjects(&["2024-05-01T12:00:00Z", "2024-05-02T12:00:00Z", "2024-05-03T12:00:00Z", "2024-05-04T12:00:00Z"]);
    all[1].incomplete = true;
    all[3].incomplete = true;
    let rules = [number(Every::Snapshot, "2"), within(Every::Snapshot, "1d")];
    assert_eq!(reasons(&rules, TimeZone::UTC, &all), ["last 2 of 2", "", "last 1 of 2, within 1d", "unfinished"]);
    all.iter_mut().for_each(|subject| subject.incomplete = true);
    assert_eq!(reasons(&rules, TimeZone::UTC, &all), ["unfinished"; 4]);
}

#[test]
fn lengths_of_time_are_read_and_written() {
    for (text, written) in
        [("1y2m3w4d5h", "1y2m3w4d5h"), ("30d", "30d"), ("36h", "36h"), ("P1Y6M", "1y6m"), ("PT30M", "PT30M"), ("P2W", "2w")]
    {
        let age: Age = text.parse().unwrap();
        assert_eq!(age.to_string(), written);
        assert_eq!(written.parse::<Age>().unwrap(), age);
    }
    for wrong in
        ["", "0d", "d", "7", "-3d", "-P1D", "1h1d", "1d1d", "3 days", "99999999999999999999y", "20000y", "P", "1min", "é", "1é"]
    {
        let error = wrong.parse::<Age>().unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong:?}");
    }
}

#[test]
fn numbers_begin_at_one() {
    assert_eq!(parse_number("7").unwrap().get(), 7);
    assert_eq!(parse_number("all").unwrap().get(), u32::MAX);
    for wrong in ["0", "-1", "", "x", "1.5", "99999999999"] {
        assert_eq!(parse_number(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
    }
}
