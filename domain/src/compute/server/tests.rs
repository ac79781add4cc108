//! Given facts, when a command, then facts or a refusal.

use chrono::DateTime;
use serde_json::json;

use super::*;
use crate::finops::amount::Amount;

fn machine(power: Power) -> Machine {
    let json = json!({"name": "web-1", "power": power, "shape": "s2.small", "tags": {"a": "1"}});
    serde_json::from_value(json).unwrap()
}

fn origin() -> Origin {
    Origin {
        provider: "sim".into(),
        account: Uuid::from_u128(1),
        region: Some("north".into()),
        external_id: "i-1".into(),
    }
}

fn found(power: Power) -> Event {
    Event::Discovered { origin: origin(), project: None, seen: machine(power) }
}

fn observe(power: Power) -> Command {
    Command::Observe { origin: origin(), project: None, seen: machine(power), actor: None }
}

fn tag(name: &str, value: Option<&str>) -> Command {
    Command::Tag { tags: [(name.to_owned(), value.map(str::to_owned))].into() }
}

fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
    let state = given.iter().cloned().fold(Server::default(), Decider::evolve);
    let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
    let got = state.decide(when, &stamp);
    assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
}

fn status(given: &[Event]) -> &'static str {
    given.iter().cloned().fold(Server::default(), Decider::evolve).status()
}

#[test]
fn a_server_is_discovered_once_and_then_only_news_is_a_fact() {
    check(&[], observe(Power::Running), Ok(&[found(Power::Running)]));
    check(&[found(Power::Running)], observe(Power::Running), Ok(&[]));
    let fields = vec!["power".to_owned()];
    let news = Event::Observed { seen: machine(Power::Stopped), fields, actor: None };
    check(&[found(Power::Running)], observe(Power::Stopped), Ok(&[news]));
}

#[test]
fn only_what_would_change_something_is_ordered() {
    check(&[found(Power::Stopped)], Command::Start {}, Ok(&[Event::StartOrdered {}]));
    check(&[found(Power::Running)], Command::Start {}, Ok(&[]));
    check(&[found(Power::Running)], Command::Stop {}, Ok(&[Event::StopOrdered {}]));
    check(&[found(Power::Stopped)], Command::Stop {}, Ok(&[]));
    check(&[found(Power::Running)], Command::Reboot {}, Ok(&[Event::RebootOrdered {}]));
    check(&[found(Power::Stopped)], Command::Reboot {}, Err("wrong-state"));
    check(&[], Command::Start {}, Err("wrong-state"));
}

#[test]
fn one_order_at_a_time() {
    let busy = [found(Power::Running), Event::StopOrdered {}];
    check(&busy, Command::Start {}, Err("order-outstanding"));
    check(&busy, tag("b", Some("2")), Err("order-outstanding"));
    assert_eq!(status(&busy), "stopping");
    let seen = machine(Power::Stopped);
    let confirmed = Event::Confirmed { number: 1, seen: seen.clone() };
    check(&busy, Command::Confirm { number: 1, seen: seen.clone() }, Ok(&[confirmed.clone()]));
    // A late report about an order that is settled says nothing new.
    let done = [found(Power::Running), Event::StopOrdered {}, confirmed];
    check(&done, Command::Confirm { number: 1, seen }, Ok(&[]));
    assert_eq!(status(&done), "stopped");
}

#[test]
fn a_parked_order_waits_for_a_person() {
    let park = || Command::Park { number: 1, reason: "quota".into() };
    let parked = Event::Parked { number: 1, reason: "quota".into() };
    let busy = [found(Power::Running), Event::StopOrdered {}];
    check(&busy, park(), Ok(&[parked.clone()]));
    let stuck = [found(Power::Running), Event::StopOrdered {}, parked];
    check(&stuck, park(), Ok(&[]));
    assert_eq!(status(&stuck), "parked");
    check(&stuck, Command::Start {}, Err("order-parked"));
    check(&stuck, Command::Retry {}, Ok(&[Event::RetryOrdered {}]));
    check(&stuck, Command::Abandon {}, Ok(&[Event::Abandoned {}]));
    check(&busy, Command::Abandon {}, Err("nothing-parked"));
}

#[test]
fn tags_are_checked_and_set_only_where_they_differ() {
    let there = [found(Power::Running)];
    check(&there, tag("a", Some("1")), Ok(&[]));
    check(&there, tag("b", None), Ok(&[]));
    let tags = [("a".to_owned(), None)].into();
    check(&there, tag("a", None), Ok(&[Event::TagsOrdered { tags }]));
    for wrong in ["", "skyledger:id", &"n".repeat(129)] {
        check(&there, tag(wrong, Some("1")), Err("invalid-field"));
    }
    check(&there, tag("a", Some(&"v".repeat(257))), Err("invalid-field"));
    check(&there, Command::Tag { tags: BTreeMap::new() }, Err("invalid-field"));
}

fn used(day: u32, samples: u32, p95: i128) -> Utilisation {
    Utilisation {
        day: chrono::NaiveDate::from_ymd_opt(1969, 12, day).unwrap(),
        vcpus: 2,
        cpu_mean_percent: Amount(p95 / 2),
        cpu_p95_percent: Amount(p95),
        cpu_peak_percent: Amount(p95 * 2),
        memory_peak_percent: None,
        network_in_bytes: None,
        network_out_bytes: Some(1),
        samples,
        step_s: 300,
        source: "test".into(),
    }
}

#[test]
fn a_day_is_measured_once_and_again_when_more_of_it_is_known() {
    let measure = |of: &Utilisation| Command::Measure { utilisation: of.clone() };
    let (half, full) = (used(30, 144, 10), used(30, 288, 20));
    let measured = Event::Measured { utilisation: half.clone() };
    let more = Event::Remeasured { utilisation: full.clone() };
    check(&[], measure(&half), Err("wrong-state"));
    let there = found(Power::Running);
    check(&[there.clone()], measure(&half), Ok(&[measured.clone()]));
    let known = [there.clone(), measured.clone()];
    check(&known, measure(&half), Ok(&[]));
    check(&known, measure(&full), Ok(&[more.clone()]));
    let corrected = [there.clone(), measured, more];
    check(&corrected, measure(&half), Ok(&[]));
    check(&corrected, measure(&full), Ok(&[]));
    let state = corrected.iter().cloned().fold(Server::default(), Decider::evolve);
    assert_eq!(state.utilisation.last, Some(full));
    // An order that is out does not stand in the way, nor that it is gone.
    let earlier = used(29, 288, 5);
    let told = [Event::Measured { utilisation: earlier.clone() }];
    let gone = Event::Vanished { evidence: Evidence::NotFoundById };
    for more in [Event::StopOrdered {}, gone] {
        let given = [&corrected[..], &[more]].concat();
        check(&given, measure(&earlier), Ok(&told));
    }
    let state = told.iter().cloned().fold(state, Decider::evolve);
    assert_eq!(state.utilisation.last.unwrap().day, used(30, 1, 0).day, "the newest day");
}

#[test]
fn numbers_that_cannot_be_true_and_days_long_ago_are_refused() {
    let there = [found(Power::Running)];
    let refused = |of: Utilisation, code: &str, given: &[Event]| {
        check(given, Command::Measure { utilisation: of }, Err(code));
    };
    let good = used(30, 288, 10);
    refused(Utilisation { vcpus: 0, ..good.clone() }, "invalid-field", &there);
    refused(Utilisation { samples: 0, ..good.clone() }, "invalid-field", &there);
    refused(Utilisation { source: String::new(), ..good.clone() }, "invalid-field", &there);
    let above = Amount(101 * 10_i128.pow(12));
    refused(
        Utilisation { memory_peak_percent: Some(above), ..good.clone() },
        "invalid-field",
        &there,
    );
    refused(Utilisation { cpu_peak_percent: Amount(9), ..good.clone() }, "invalid-field", &there);
    let tomorrow = chrono::NaiveDate::from_ymd_opt(1970, 1, 2).unwrap();
    refused(Utilisation { day: tomorrow, ..good.clone() }, "invalid-field", &there);
    // 31 days are open: of December the first.
    let newest = Event::Measured { utilisation: used(31, 288, 1) };
    let given = [there[0].clone(), newest];
    let first = used(1, 288, 1);
    let told = [Event::Measured { utilisation: first.clone() }];
    check(&given, Command::Measure { utilisation: first.clone() }, Ok(&told));
    let before = first.day - chrono::Days::new(1);
    refused(Utilisation { day: before, ..first }, "day-settled", &given);
}

#[test]
fn what_vanished_waits_for_nothing_and_comes_back_with_its_id() {
    let gone = Event::Vanished { evidence: Evidence::NotFoundById };
    let vanish = || Command::Vanish { evidence: Evidence::NotFoundById };
    check(&[found(Power::Running), Event::StopOrdered {}], vanish(), Ok(&[gone.clone()]));
    let past = [found(Power::Running), Event::StopOrdered {}, gone];
    assert_eq!(status(&past), "gone");
    check(&past, vanish(), Ok(&[]));
    check(&past, Command::Start {}, Err("wrong-state"));
    let back = Event::Reappeared { seen: machine(Power::Running) };
    check(&past, observe(Power::Running), Ok(&[back]));
}

#[test]
fn what_its_host_notices_counts_between_orders_and_for_the_last_one_alone() {
    let sample = include_str!("../../../tests/events/server.launched.json");
    let sample: serde_json::Value = serde_json::from_str(sample).unwrap();
    let launched =
        Event::Launched { launch: serde_json::from_value(sample["launch"].clone()).unwrap() };
    let confirmed = Event::Confirmed { number: 1, seen: machine(Power::Running) };
    let notice = |number, power| Command::Notice { number, power };
    let news = |power| Event::Observed {
        seen: machine(power),
        fields: vec!["power".to_owned()],
        actor: None,
    };
    // Nothing is there yet, and its report is to come.
    check(&[launched.clone()], notice(1, Power::Running), Ok(&[]));
    let runs = [launched.clone(), confirmed.clone()];
    check(&runs, notice(1, Power::Running), Ok(&[]));
    check(&runs, notice(1, Power::Stopped), Ok(&[news(Power::Stopped)]));
    // Seen before the order that came since.
    check(&runs, notice(0, Power::Stopped), Ok(&[]));
    let stops = [launched.clone(), confirmed.clone(), Event::StopOrdered {}];
    check(&stops, notice(2, Power::Stopped), Ok(&[]));
    let parked = Event::Parked { number: 2, reason: "no".into() };
    let parked = [&stops[..], &[parked]].concat();
    check(&parked, notice(2, Power::Stopped), Ok(&[news(Power::Stopped)]));
    let stopped = Event::Confirmed { number: 2, seen: machine(Power::Stopped) };
    let stopped = [&stops[..], &[stopped]].concat();
    check(&stopped, notice(1, Power::Running), Ok(&[]));
    check(&stopped, notice(2, Power::Running), Ok(&[news(Power::Running)]));
    let binned = [&stopped[..], &[Event::Deleted { until: DateTime::UNIX_EPOCH }]].concat();
    check(&binned, notice(2, Power::Running), Ok(&[]));
    // One of a cloud is the observer's.
    check(&[found(Power::Running)], notice(0, Power::Stopped), Ok(&[]));
}
