//! Given facts, when a command, then facts or a refusal, of networks of our own.

use chrono::TimeDelta;

use super::*;

const SEGMENT: Uuid = Uuid::from_u128(7);
const ID: Uuid = Uuid::from_u128(8);

fn subnet(net: &str) -> Subnet {
    serde_json::from_value(json!({"net": net, "step": "up", "cooldown_s": 60})).unwrap()
}

fn definition(v4: Option<&str>, v6: Option<&str>) -> Definition {
    Definition {
        id: Some(ID),
        name: "blue".into(),
        project: None,
        segment: SEGMENT,
        v4: v4.map(subnet),
        v6: v6.map(subnet),
        dns_servers: vec![address("10.0.0.2")],
        domain: "blue.example.com".into(),
        dhcp: true,
        lease_s: None,
    }
}

/// A network of 10.0.0.0/29, which has six addresses, and of 2001:db8::/64.
fn defined() -> Event {
    Event::Defined(definition(Some("10.0.0.0/29"), Some("2001:db8::/64")))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|one| address(one)).collect()
}

fn holder(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn given(number: u128, all: &[&str]) -> Event {
    Event::Given { holder: holder(number), addresses: addresses(all), mac: None }
}

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(1)
}

fn released(number: u128, all: &[&str]) -> Event {
    Event::Released { holder: holder(number), addresses: addresses(all), at: now() }
}

fn give(number: u128, v4: Option<Want>, v6: Option<Want>) -> Command {
    Command::Give { holder: holder(number), v4, v6, mac: None, chance: None }
}

const ANY: Option<Want> = Some(Want::Any {});

fn named(text: &str) -> Want {
    Want::Named { address: address(text), reserved: false }
}

fn range(first: &str, last: &str) -> Range {
    Range { first: address(first), last: address(last) }
}

fn state(given: &[Event]) -> Network {
    given.iter().cloned().fold(Network::default(), Decider::evolve)
}

fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
    let stamp = Stamp { now: now(), actor: "test".into() };
    let got = state(given).decide(when, &stamp);
    assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
}

#[test]
fn a_network_has_subnets_of_the_right_family_and_names_that_read() {
    let single = definition(None, Some("2001:db8::/126"));
    check(&[], Command::Define(single.clone()), Ok(&[Event::Defined(single)]));
    check(
        &[defined()],
        Command::Define(definition(Some("10.0.0.0/24"), None)),
        Err("already-exists"),
    );
    for odd in [
        definition(None, None),
        definition(Some("2001:db8::/64"), None),
        definition(None, Some("2001:db8::/127")),
        definition(None, Some("2001:db8::/47")),
        Definition { id: None, ..definition(Some("10.0.0.0/24"), None) },
        Definition { domain: "-a.example".into(), ..definition(Some("10.0.0.0/24"), None) },
        Definition { lease_s: Some(119), ..definition(Some("10.0.0.0/24"), None) },
        Definition { domain: "a.".into(), ..definition(Some("10.0.0.0/24"), None) },
        Definition {
            dns_servers: addresses(&["224.0.0.1"]),
            ..definition(Some("10.0.0.0/24"), None)
        },
        Definition {
            dns_servers: vec![address("10.0.0.2"); 9],
            ..definition(Some("10.0.0.0/24"), None)
        },
    ] {
        check(&[], Command::Define(odd), Err("invalid-field"));
    }
}

#[test]
fn its_segment_hears_of_its_subnets_and_of_its_end() {
    let attach = |nets: &[&str]| {
        let body = json!({"network": ID, "nets": nets});
        Companion { kind: "segment", id: SEGMENT, verb: "attach", body }
    };
    let said = |given: &[Event], event: Event| state(given).companions(&[event]);
    let both = ["10.0.0.0/29", "2001:db8::/64"];
    assert_eq!(said(&[], defined()), [attach(&both)]);
    let change = |change: Change| Event::Changed(change);
    let wider = Change { v4: Some(subnet("10.0.0.0/28")), ..Change::default() };
    assert_eq!(said(&[defined()], change(wider)), [attach(&["10.0.0.0/28", both[1]])]);
    let name = Change { name: Some("green".into()), ..Change::default() };
    assert_eq!(said(&[defined()], change(name)), []);
    let detach = json!({"network": ID});
    let detach = Companion { kind: "segment", id: SEGMENT, verb: "detach", body: detach };
    assert_eq!(said(&[defined()], Event::Retired {}), [detach]);
}

#[test]
fn a_holder_has_at_most_one_address_of_each_family() {
    let one = [defined()];
    check(&one, give(1, ANY, ANY), Ok(&[given(1, &["10.0.0.1", "2001:db8::1"])]));
    check(&one, give(1, None, None), Err("invalid-field"));
    check(&one, give(1, Some(named("2001:db8::1")), None), Err("invalid-field"));
    let held = [defined(), given(1, &["10.0.0.1"])];
    check(&held, give(1, ANY, None), Ok(&[]));
    check(&held, give(1, Some(named("10.0.0.1")), None), Ok(&[]));
    check(&held, give(1, ANY, ANY), Ok(&[given(1, &["2001:db8::1"])]));
    check(&held, give(1, Some(named("10.0.0.2")), None), Err("invalid-field"));
    check(&held, give(2, Some(named("10.0.0.1")), None), Err("address-taken"));
    check(&held, give(2, ANY, None), Ok(&[given(2, &["10.0.0.2"])]));
    check(&held, give(2, Some(named("10.0.0.9")), None), Err("address-not-given"));
}

#[test]
fn who_has_an_address_gives_back_that_one_and_no_other() {
    let release = |number, all: &[&str]| Command::Release {
        holder: holder(number),
        addresses: addresses(all),
    };
    let held = [defined(), given(1, &["10.0.0.1", "2001:db8::1"]), given(2, &["10.0.0.2"])];
    check(&held, release(1, &[]), Ok(&[released(1, &["10.0.0.1", "2001:db8::1"])]));
    check(&held, release(1, &["2001:db8::1"]), Ok(&[released(1, &["2001:db8::1"])]));
    check(&held, release(1, &["10.0.0.2"]), Err("address-taken"));
    check(&held, release(3, &[]), Ok(&[]));
    check(&held, release(1, &["10.0.0.3"]), Ok(&[]));
}

#[test]
fn a_released_address_rests_while_there_are_others() {
    let mut facts = vec![defined()];
    facts.extend((1..=6).map(|n| given(n, &[format!("10.0.0.{n}").as_str()])));
    check(&facts, give(9, ANY, None), Err("no-address-free"));
    facts.push(released(2, &["10.0.0.2"]));
    facts.push(released(3, &["10.0.0.3"]));
    let own = state(&facts).own.unwrap();
    let counts = own.addresses.v4.unwrap().counts();
    assert_eq!((counts.usable, counts.free, counts.cooling, counts.taken), (6, 2, 2, 4));
    // Both rest; somebody who asks gets one all the same.
    check(&facts, give(9, ANY, None), Ok(&[given(9, &["10.0.0.2"])]));
}

#[test]
fn a_network_is_retired_when_nobody_has_an_address() {
    let held = [defined(), given(1, &["10.0.0.1"])];
    check(&held, Command::Retire {}, Err("in-use"));
    let free = [held[0].clone(), held[1].clone(), released(1, &["10.0.0.1"])];
    check(&free, Command::Retire {}, Ok(&[Event::Retired {}]));
    let retired = [defined(), Event::Retired {}];
    check(&retired, Command::Retire {}, Ok(&[]));
    check(&retired, give(1, ANY, None), Err("wrong-state"));
    check(&[], Command::Retire {}, Err("not-found"));
}

#[test]
fn a_subnet_grows_and_shrinks_around_what_is_taken() {
    let change = |net: &str| Change { v4: Some(subnet(net)), ..Change::default() };
    let held = [defined(), given(1, &["10.0.0.6"])];
    let wider = Event::Changed(change("10.0.0.0/28"));
    check(&held, Command::Change(change("10.0.0.0/28")), Ok(&[wider]));
    check(&held, Command::Change(change("10.0.0.0/29")), Ok(&[]));
    check(&held, Command::Change(change("10.0.0.0/30")), Err("invalid-field"));
    check(&held, Command::Change(change("2001:db8::/64")), Err("invalid-field"));
    // A second family may come later.
    let single = [Event::Defined(definition(Some("10.0.0.0/29"), None))];
    let v6 = Change { v6: Some(subnet("2001:db8::/64")), ..Change::default() };
    check(&single, Command::Change(v6.clone()), Ok(&[Event::Changed(v6)]));
}

#[test]
fn reserved_addresses_are_given_by_name_alone() {
    let some = range("10.0.0.1", "10.0.0.4");
    let reserve = |range, note: &str| Command::Reserve { range, note: note.into() };
    let reserved = Event::Reserved { range: some, note: "printers".into() };
    check(&[defined()], reserve(some, "printers"), Ok(std::slice::from_ref(&reserved)));
    let facts = [defined(), reserved];
    check(&facts, reserve(some, "printers"), Ok(&[]));
    check(&facts, reserve(range("10.0.0.4", "10.0.0.5"), ""), Err("invalid-field"));
    check(&facts, reserve(range("10.0.0.5", "10.0.0.9"), ""), Err("invalid-field"));
    check(&facts, reserve(range("10.0.0.5", "2001:db8::1"), ""), Err("invalid-field"));
    check(&facts, reserve(range("10.0.0.6", "10.0.0.5"), ""), Err("invalid-field"));
    check(&facts, give(1, ANY, None), Ok(&[given(1, &["10.0.0.5"])]));
    check(&facts, give(1, Some(named("10.0.0.1")), None), Err("address-not-given"));
    let want = Some(Want::Named { address: address("10.0.0.1"), reserved: true });
    check(&facts, give(1, want, None), Ok(&[given(1, &["10.0.0.1"])]));
    let unreserve = |range| Command::Unreserve { range };
    check(&facts, unreserve(some), Ok(&[Event::Unreserved { range: some }]));
    check(&facts, unreserve(range("10.0.0.1", "10.0.0.1")), Err("invalid-field"));
    check(&facts, unreserve(range("10.0.0.6", "10.0.0.6")), Ok(&[]));
    let after = state(&[facts[0].clone(), facts[1].clone(), Event::Unreserved { range: some }]);
    assert_eq!(after, state(&[defined()]));
}

#[test]
fn a_network_of_a_cloud_has_no_addresses_to_give() {
    let seen = json!({"name": "web", "vpc": "vpc-1", "cidrs": ["10.0.0.0/24"]});
    let seen: SeenNetwork = serde_json::from_value(seen).unwrap();
    let origin = Origin {
        provider: "sim".into(),
        account: Uuid::from_u128(1),
        region: None,
        external_id: "net-1".into(),
    };
    let found = [Event::Discovered { origin: origin.clone(), project: None, seen: seen.clone() }];
    check(&found, give(1, ANY, None), Err("unsupported"));
    check(&found, Command::Retire {}, Err("unsupported"));
    check(&found, Command::Define(definition(Some("10.0.0.0/24"), None)), Err("already-exists"));
    let observe = Command::Observe { origin, project: None, seen, actor: None };
    check(&found, observe.clone(), Ok(&[]));
    check(&[defined()], observe, Err("wrong-state"));
}

#[test]
fn a_state_shows_its_counts_and_one_of_a_cloud_reads_as_it_always_did() {
    let shown = serde_json::to_value(state(&[defined(), given(1, &["10.0.0.1"])])).unwrap();
    let counts = json!({"usable": 6, "free": 5, "cooling": 0, "taken": 1});
    assert_eq!(shown["own"]["addresses"]["v4"]["counts"], counts, "{shown}");
    let many = &shown["own"]["addresses"]["v6"]["counts"]["free"];
    assert_eq!(*many, 9_007_199_254_740_991_u64);
    let old = json!({
        "origin": null, "project": null, "gone": null,
        "seen": {"name": "web", "vpc": "v", "zone": null, "cidrs": ["10.0.0.0/24"], "tags": {}},
    });
    let read: Network = serde_json::from_value(old.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), old);
}

#[test]
fn a_hardware_address_is_one_holders_until_it_has_no_address() {
    let mac = Mac::of(holder(1));
    let give = |number, mac| Command::Give {
        holder: holder(number),
        v4: ANY,
        v6: None,
        mac: Some(mac),
        chance: None,
    };
    let first =
        Event::Given { holder: holder(1), addresses: addresses(&["10.0.0.1"]), mac: Some(mac) };
    let second = |mac| Event::Given {
        holder: holder(2),
        addresses: addresses(&["10.0.0.2"]),
        mac: Some(mac),
    };
    check(&[defined()], give(1, mac), Ok(std::slice::from_ref(&first)));
    check(&[defined(), first.clone()], give(2, mac), Err("address-taken"));
    let other = Mac::of(holder(2));
    check(&[defined(), first.clone()], give(2, other), Ok(&[second(other)]));
    let gone = [defined(), first, released(1, &["10.0.0.1"])];
    check(&gone, give(2, mac), Ok(&[second(mac)]));
}

#[test]
fn a_holder_s_addresses_are_replaced_once_by_what_another_has_for_it() {
    let replace =
        |holder_of: u128, by: u128| Command::Replace { holder: holder(holder_of), by: holder(by) };
    let both = [defined(), given(1, &["10.0.0.1", "2001:db8::1"]), given(2, &["10.0.0.2"])];
    let replaced = Event::Replaced {
        holder: holder(1),
        by: holder(2),
        addresses: addresses(&["10.0.0.2"]),
        released: addresses(&["10.0.0.1"]),
        at: now(),
    };
    check(&both, replace(1, 2), Ok(std::slice::from_ref(&replaced)));
    check(&both, replace(1, 3), Ok(&[]));
    check(&both, replace(1, 1), Ok(&[]));
    let after = [&both[..], &[replaced]].concat();
    check(&after, replace(1, 2), Ok(&[]));
    let own = state(&after).own.unwrap();
    assert_eq!(own.held(holder(1)), addresses(&["10.0.0.2", "2001:db8::1"]));
    assert!(own.held(holder(2)).is_empty());
    let counts = own.addresses.v4.unwrap().counts();
    assert_eq!((counts.taken, counts.cooling), (1, 1), "the old one rests");
}
