//! Rules of backup plans: when they are due, what reads all, and which backups stay.

use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn disk() -> Uuid {
    Uuid::from_u128(1)
}

fn terms() -> Value {
    json!({
        "disks": [disk()], "store": Uuid::from_u128(2),
        "times": {"hours": [2, 14], "minute": 30, "weekdays": [1, 3]},
        "keep": {"daily": 3}, "full_every": 3,
    })
}

fn send(state: &BackupPlan, verb: &str, body: Value, now: &str) -> Result<BackupPlan, Refusal> {
    let stamp = Stamp { now: time(now), actor: "test".into() };
    let command = serde_json::from_value(json!({"type": verb, "data": body})).unwrap();
    let events = state.decide(command, &stamp)?;
    Ok(events.into_iter().fold(state.clone(), BackupPlan::evolve))
}

fn defined() -> BackupPlan {
    let body = json!({"name": "nightly", "terms": terms()});
    // A Monday.
    send(&BackupPlan::default(), "define", body, "2026-03-02T12:00:00Z").unwrap()
}

#[test]
fn a_time_counts_once_and_what_was_missed_is_caught_up_with_once_and_said() {
    let plan = defined();
    assert_eq!(plan.due(time("2026-03-02T12:00:00Z")), None, "the one before it was defined");
    assert_eq!(plan.due(time("2026-03-02T14:29:59Z")), None);
    let due = time("2026-03-02T14:30:00Z");
    assert_eq!(plan.next, Some(due));
    assert_eq!(plan.due(time("2026-03-02T14:31:00Z")), Some(due));
    assert_eq!(plan.due(time("2026-03-03T23:00:00Z")), Some(due), "a Tuesday has none");
    // Nobody looked until Friday: Monday's and the first of Wednesday's were missed.
    let friday = "2026-03-06T00:00:00Z";
    let running = send(&plan, "run-due", json!({}), friday).unwrap();
    assert_eq!((running.status(), running.missed), ("running", 2));
    assert_eq!(running.due(time(friday)), None);
    assert_eq!(send(&running, "run-due", json!({}), friday).unwrap(), running, "once");
    assert_eq!(
        send(&running, "run", json!({}), friday).unwrap_err().code.code,
        "order-outstanding"
    );
    let body = json!({"number": 1, "results": []});
    let done = send(&running, "finish-run", body, "2026-03-06T00:00:01Z").unwrap();
    let last = done.last_run.clone().unwrap();
    assert_eq!((last.due, last.missed), (time("2026-03-04T14:30:00Z"), 2));
    assert_eq!(send(&done, "run-due", json!({}), friday).unwrap(), done, "another was first");
    assert_eq!(done.next, Some(time("2026-03-09T02:30:00Z")));
    // One that goes on while the next times come is followed by one run.
    let late = send(&done, "run-due", json!({}), "2026-03-09T03:00:00Z").unwrap();
    assert_eq!(late.missed, 0);
    let body = json!({"number": 2, "results": []});
    let late = send(&late, "finish-run", body, "2026-03-11T03:00:00Z").unwrap();
    assert_eq!(send(&late, "run-due", json!({}), "2026-03-11T03:00:00Z").unwrap().missed, 1);
}

#[test]
fn a_plan_that_is_paused_is_due_for_what_comes_after() {
    let paused = send(&defined(), "pause", json!({}), "2026-03-02T13:00:00Z").unwrap();
    assert_eq!((paused.due(time("2026-03-02T15:00:00Z")), paused.next), (None, None));
    send(&paused, "run", json!({}), "2026-03-02T15:00:00Z").unwrap();
    let on = send(&paused, "resume", json!({}), "2026-03-02T15:00:00Z").unwrap();
    assert_eq!(on.due(time("2026-03-02T16:00:00Z")), None);
    assert!(on.due(time("2026-03-04T03:00:00Z")).is_some());
    let retired = send(&on, "retire", json!({}), "2026-03-02T15:00:00Z").unwrap();
    assert_eq!(retired.due(time("2026-03-04T03:00:00Z")), None);
    let refused = send(&retired, "run", json!({}), "2026-03-04T03:00:00Z").unwrap_err();
    assert_eq!(refused.code.code, "wrong-state");
    let absent = send(&BackupPlan::default(), "run", json!({}), "2026-03-04T03:00:00Z");
    assert_eq!(absent.unwrap_err().code.code, "not-found");
}

#[test]
fn every_third_backup_reads_all_whatever_is_left_of_those_before() {
    let mut plan = defined();
    let mut full = Vec::new();
    for (number, problem) in [None, None, Some("away"), None, None, None].into_iter().enumerate() {
        plan = send(&plan, "run", json!({}), "2026-03-02T13:00:00Z").unwrap();
        let reads_all = plan.wants_full(disk());
        full.push(reads_all);
        let ran = json!({"subject": disk(), "full": reads_all, "problem": problem});
        let body = json!({"number": number + 1, "results": [ran]});
        plan = send(&plan, "finish-run", body, "2026-03-02T13:00:00Z").unwrap();
        assert_eq!(plan.status(), if problem.is_some() { "failing" } else { "active" });
    }
    assert_eq!(full, [true, false, false, false, true, false], "one that failed does not count");
}

#[test]
fn terms_that_cannot_be_are_refused_with_the_field() {
    let many: Vec<Uuid> = (0..101).map(Uuid::from_u128).collect();
    for (path, value, field) in [
        ("/disks", json!([]), "terms: disks and servers"),
        ("/disks", json!(many), "terms: disks and servers"),
        ("/times/hours", json!([]), "terms.times.hours"),
        ("/times/hours", json!([24]), "terms.times.hours"),
        ("/times/minute", json!(60), "terms.times.minute"),
        ("/times/weekdays", json!([0]), "terms.times.weekdays"),
        ("/times/weekdays", json!([8]), "terms.times.weekdays"),
        ("/times", json!({"hours": [1], "every_days": 0}), "terms.times.every_days"),
        ("/times", json!({"hours": [1], "every_days": 367}), "terms.times.every_days"),
        (
            "/times",
            json!({"hours": [1], "weekdays": [1], "every_days": 2}),
            "terms.times.every_days",
        ),
        ("/times", json!({"hours": [1], "every_days": 2}), "terms.times.first_day"),
        ("/keep", json!({}), "terms.keep"),
        ("/keep/daily", json!(367), "terms.keep"),
        ("/keep", json!({"days": 3_661}), "terms.keep.days"),
        ("/full_every", json!(0), "terms.full_every"),
        ("/full_every", json!(367), "terms.full_every"),
    ] {
        let mut terms = terms();
        *terms.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        let body = json!({"name": "nightly", "terms": terms});
        let no = send(&BackupPlan::default(), "define", body, "2026-03-02T12:00:00Z").unwrap_err();
        assert_eq!(no.code.code, "invalid-field");
        assert!(no.detail.starts_with(field), "{}", no.detail);
    }
    let body = json!({"project": Uuid::from_u128(3), "terms": terms()});
    let moved = send(&defined(), "define", body, "2026-03-02T12:00:00Z").unwrap_err();
    assert!(moved.detail.contains("stays whose it is"));
}

/// Two backups a day, the newest on a Sunday at the end of a month.
fn days(count: u128) -> Vec<(Uuid, DateTime<Utc>)> {
    let newest = time("2026-05-31T14:00:00Z");
    let at = |step: u128| newest - TimeDelta::hours(12 * i64::try_from(step).unwrap());
    (0..count * 2).map(|step| (Uuid::from_u128(step), at(step))).collect()
}

#[test]
fn what_stays_is_what_any_rule_keeps() {
    let now = time("2026-05-31T15:00:00Z");
    let kept = |keep: Value| -> Vec<u128> {
        let keep: Keep = serde_json::from_value(keep).unwrap();
        keep.of(&days(60), now).iter().map(Uuid::as_u128).collect()
    };
    assert_eq!(kept(json!({"last": 3})), [0, 1, 2]);
    assert_eq!(kept(json!({"days": 1})), [0, 1], "23 hours and no more than a day");
    assert_eq!(kept(json!({"daily": 3})), [0, 2, 4], "the newest of each day");
    assert_eq!(kept(json!({"weekly": 2})), [0, 14], "and the Sunday before");
    assert_eq!(kept(json!({"monthly": 2})), [0, 62], "and the last of April");
    assert_eq!(kept(json!({"last": 1, "daily": 2, "weekly": 2, "monthly": 2})), [0, 2, 14, 62]);
    let old = Keep { days: 1, ..Keep::default() };
    let newest = old.of(&days(60), now + TimeDelta::days(90));
    assert_eq!(newest, [Uuid::from_u128(0)].into(), "the newest stays whatever its age");
    assert!(old.of(&[], now).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn the_newest_stays_and_no_rule_keeps_more_than_it_says(
        hours in proptest::collection::vec(0_i64..3_000, 0..60),
        (last, days, daily, weekly, monthly) in (0_u32..5, 0_u32..5, 0_u32..5, 0_u32..5, 0_u32..5),
    ) {
        let now = time("2026-05-31T14:00:00Z");
        let backups: Vec<_> = hours
            .iter()
            .zip(0_u128..)
            .map(|(hours, at)| (Uuid::from_u128(at), now - TimeDelta::hours(*hours)))
            .collect();
        let keep = Keep { last, days, daily, weekly, monthly };
        let kept = keep.of(&backups, now);
        let newest = backups.iter().max_by_key(|(id, at)| (*at, *id));
        prop_assert!(newest.is_none_or(|(id, _)| kept.contains(id)));
        let recent = backups.iter().filter(|(_, at)| days > 0 && *at >= now - TimeDelta::days(days.into()));
        let most = recent.clone().count() + (last.max(1) + daily + weekly + monthly) as usize;
        prop_assert!(kept.len() <= most);
        prop_assert!(recent.map(|(id, _)| id).all(|id| kept.contains(id)));
        // What was kept once is kept again when only it is left: rules do not eat into each other.
        let left: Vec<_> = backups.iter().filter(|(id, _)| kept.contains(id)).copied().collect();
        prop_assert_eq!(keep.of(&left, now), kept);
    }

    #[test]
    fn the_next_time_is_the_first_after_and_the_last_is_none_later(
        hours in proptest::collection::btree_set(0_u8..24, 1..4),
        weekdays in proptest::collection::btree_set(1_u8..8, 0..3),
        (minute, at) in (0_u8..60, 0_i64..1_000_000),
    ) {
        let times = Times { hours, minute, weekdays, every_days: 1, first_day: None };
        let now = time("2026-03-02T00:00:00Z") + TimeDelta::seconds(at);
        let (last, next) = (times.last(now).unwrap(), times.next(now).unwrap());
        prop_assert!(last <= now && now < next);
        prop_assert_eq!(times.next(last), Some(next), "none is between them");
        prop_assert_eq!(times.last(next), Some(next));
        prop_assert_eq!(times.between(last, next), 0);
        let after = times.next(next).unwrap();
        prop_assert_eq!(times.between(last, after), 1);
    }

    #[test]
    fn every_so_many_days_is_counted_from_the_first_across_months_and_years(
        hours in proptest::collection::btree_set(0_u8..24, 1..4),
        (minute, every_days) in (0_u8..60, 1_u16..=366),
        (first, at) in (-1_000_i64..1_000, 0_i64..100_000_000),
    ) {
        let begin = time("2026-03-02T00:00:00Z");
        let first_day = (begin + TimeDelta::days(first)).date_naive();
        let count = hours.len();
        let times =
            Times { hours, minute, weekdays: [].into(), every_days, first_day: Some(first_day) };
        let now = begin + TimeDelta::seconds(at);
        let next = times.next(now).unwrap();
        prop_assert!(next > now);
        let since = |time: DateTime<Utc>| (time.date_naive() - first_day).num_days();
        prop_assert!(since(next) >= 0 && since(next) % i64::from(every_days) == 0);
        match times.last(now) {
            Some(last) => {
                prop_assert!(last <= now && since(last) % i64::from(every_days) == 0);
                prop_assert_eq!(times.next(last), Some(next), "none is between them");
            }
            None => prop_assert_eq!(since(next), 0, "nothing is before the first"),
        }
        // As many as there are hours later it is as many days later.
        let mut later = next;
        for _ in 0..count {
            later = times.next(later).unwrap();
        }
        prop_assert_eq!(later - next, TimeDelta::days(every_days.into()));
    }
}

#[test]
fn times_that_were_written_before_count_every_day() {
    let old = json!({"hours": [2], "minute": 30});
    let times: Times = serde_json::from_value(old.clone()).unwrap();
    assert_eq!((times.every_days, times.first_day), (1, None));
    assert_eq!(json!(times), old);
}
