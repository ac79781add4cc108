//! A family of addresses against a naive set, and by example.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use domain::network::addresses::{Addresses, Family, IpAddr, Range, Ranges, Step, Subnet, Want};
use proptest::prelude::*;
use uuid::Uuid;

pub(crate) fn subnet(net: &str) -> Subnet {
    Subnet {
        net: net.parse().unwrap(),
        ranges: Vec::new(),
        gateway: None,
        reserved: Vec::new(),
        step: Step::Up,
        cooldown_s: 0,
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(first: &str, last: &str) -> Range {
    Range { first: ip(first), last: ip(last) }
}

pub(crate) fn second(number: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_800_000_000 + number)
}

fn next(family: &Family, now: i64, chance: u128) -> Result<IpAddr, &'static str> {
    family.choose(Want::Any {}, second(now), chance).map_err(|refusal| refusal.code.code)
}

fn named(family: &Family, address: &str, reserved: bool) -> Result<IpAddr, &'static str> {
    let want = Want::Named { address: ip(address), reserved };
    family.choose(want, second(0), 0).map_err(|refusal| refusal.code.code)
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Any { chance: u128 },
    Named { at: usize, reserved: bool },
    Release { at: usize },
    Wait { seconds: i64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => any::<u128>().prop_map(|chance| Act::Any { chance }),
        1 => (0_usize..16, any::<bool>()).prop_map(|(at, reserved)| Act::Named { at, reserved }),
        3 => (0_usize..16).prop_map(|at| Act::Release { at }),
        1 => (1_i64..40).prop_map(|seconds| Act::Wait { seconds }),
    ]
}

/// Subnets of 16 addresses with all sorts of ranges.
fn subnets() -> impl Strategy<Value = Subnet> {
    let step = prop_oneof![Just(Step::Up), Just(Step::Down), Just(Step::Random)];
    let ranges = || prop::collection::vec((0_usize..16, 0_usize..16), 0..3);
    let gateway = prop::option::of(1_usize..15);
    (any::<bool>(), step, ranges(), ranges(), gateway, prop_oneof![Just(0), 1_u32..60]).prop_map(
        |(v4, step, given, kept, gateway, cooldown_s)| {
            let all = all(v4);
            let range =
                |(a, b): (usize, usize)| Range { first: all[a.min(b)], last: all[a.max(b)] };
            Subnet {
                ranges: given.into_iter().map(range).collect(),
                reserved: kept.into_iter().map(range).collect(),
                gateway: gateway.map(|at| all[at]),
                step,
                cooldown_s,
                ..subnet(if v4 { "192.0.2.16/28" } else { "2001:db8::a0/124" })
            }
        },
    )
}

fn all(v4: bool) -> Vec<IpAddr> {
    let one = |at: u8| {
        if v4 {
            ip(&format!("192.0.2.{}", 16 + at))
        } else {
            ip(&format!("2001:db8::{:x}", 0xa0 + at))
        }
    };
    (0..16).map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_family_does_as_a_naive_set(subnet in subnets(), acts in prop::collection::vec(act(), 1..60)) {
        let v4 = subnet.is_v4();
        let all = all(v4);
        let of = |ranges: &[Range], at: &IpAddr| ranges.iter().any(|one| one.first <= *at && *at <= one.last);
        let own = |at: &IpAddr| *at == all[0] || (v4 && *at == all[15]) || subnet.gateway == Some(*at);
        let usable: BTreeSet<IpAddr> = all
            .iter()
            .filter(|at| subnet.ranges.is_empty() || of(&subnet.ranges, at))
            .filter(|at| !of(&subnet.reserved, at) && !own(at))
            .copied()
            .collect();
        let mut family = Family::new(subnet.clone()).unwrap();
        let (mut taken, mut released) = (BTreeMap::<IpAddr, Uuid>::new(), BTreeMap::<IpAddr, i64>::new());
        let (mut now, mut holder) = (0, 0_u128);
        for act in acts {
            match act {
                Act::Wait { seconds } => now += seconds,
                Act::Any { chance } => {
                    let open: BTreeSet<IpAddr> =
                        usable.iter().filter(|at| !taken.contains_key(*at)).copied().collect();
                    let cool = i64::from(subnet.cooldown_s);
                    let rests = |at: &&IpAddr| released.get(*at).is_some_and(|since| since + cool > now);
                    let good: BTreeSet<IpAddr> =
                        open.iter().filter(|at| !rests(at)).copied().collect();
                    let found = next(&family, now, chance);
                    let expected = match (subnet.step, good.first(), good.last()) {
                        (Step::Up, Some(first), _) => Some(*first),
                        (Step::Down, _, Some(last)) => Some(*last),
                        (Step::Random, Some(_), _) => {
                            let each: BTreeSet<_> = (0..good.len() as u128)
                                .map(|chance| next(&family, now, chance).unwrap())
                                .collect();
                            prop_assert_eq!(&each, &good, "each has the same chance");
                            found.ok()
                        }
                        _ => open.iter().min_by_key(|at| (released[*at], **at)).copied(),
                    };
                    prop_assert_eq!(found, expected.ok_or("no-address-free"));
                    if let Ok(address) = found {
                        holder += 1;
                        family.take(address, Uuid::from_u128(holder)).unwrap();
                        prop_assert!(taken.insert(address, Uuid::from_u128(holder)).is_none());
                        released.remove(&address);
                    }
                }
                Act::Named { at, reserved } => {
                    let at = all[at];
                    let kept = of(&subnet.reserved, &at) && !own(&at);
                    let expected = if taken.contains_key(&at) {
                        Err("address-taken")
                    } else if usable.contains(&at) || (kept && reserved) {
                        Ok(at)
                    } else {
                        Err("address-not-given")
                    };
                    prop_assert_eq!(named(&family, &at.to_string(), reserved), expected);
                    if expected.is_ok() {
                        holder += 1;
                        family.take(at, Uuid::from_u128(holder)).unwrap();
                        prop_assert!(family.take(at, Uuid::nil()).is_err(), "never twice");
                        taken.insert(at, Uuid::from_u128(holder));
                        released.remove(&at);
                    }
                }
                Act::Release { at } => {
                    let at = all[at];
                    let gone = family.release(at, second(now)).ok();
                    prop_assert_eq!(gone, taken.remove(&at));
                    if gone.is_some() && usable.contains(&at) {
                        released.insert(at, now);
                    }
                }
            }
            prop_assert!(family.taken().eq(taken.iter().map(|(at, holder)| (*at, *holder))));
            let counts = family.counts();
            let busy = taken.keys().filter(|at| usable.contains(at)).count();
            prop_assert_eq!(counts.usable, usable.len() as u128);
            prop_assert_eq!(counts.free, (usable.len() - busy) as u128);
            let text = serde_json::to_string(&family).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Family>(&text).unwrap(), &family);
        }
    }

    #[test]
    fn ranges_are_sets(acts in prop::collection::vec((any::<bool>(), 0_u128..40, 0_u128..12), 0..40)) {
        let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
        for (add, first, size) in acts {
            if add {
                ranges.insert(first, first + size);
                set.extend(first..=first + size);
            } else {
                ranges.remove(first, first + size);
                set.retain(|number| !(first..=first + size).contains(number));
            }
            prop_assert_eq!(ranges.count(), set.len() as u128);
            prop_assert!((0..60).all(|number| ranges.contains(number) == set.contains(&number)));
            prop_assert!((0..60).map(|at| ranges.nth(at)).eq(
                set.iter().map(|number| Some(*number)).chain(std::iter::repeat(None)).take(60)
            ));
            prop_assert!((0..60).all(|from| ranges.next(from) == set.range(from..).next().copied()));
            prop_assert_eq!((ranges.first(), ranges.last()), (set.first().copied(), set.last().copied()));
            let gaps = ranges.iter().collect::<Vec<_>>();
            prop_assert!(gaps.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "they do not touch");
        }
    }
}

#[test]
fn the_largest_subnet_costs_what_is_taken_of_it() {
    let mut family = Family::new(Subnet {
        step: Step::Random,
        gateway: Some(ip("2001:db8:7::1")),
        ..subnet("2001:db8:7::/48")
    })
    .unwrap();
    assert_eq!(family.counts().usable, (1 << 80) - 2, "without the routers' and the gateway");
    let mut chance = 0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0_u128;
    let mut seen = BTreeSet::new();
    for holder in 0..2_000 {
        chance = chance.wrapping_mul(0xDA94_2042_E4DD_58B5).rotate_left(47) ^ holder;
        let address = next(&family, 0, chance).unwrap();
        family.take(address, Uuid::from_u128(holder)).unwrap();
        assert!(seen.insert(address), "{address} twice");
    }
    assert_eq!(family.counts().free, (1 << 80) - 2 - 2_000);
    let text = serde_json::to_vec(&family).unwrap();
    assert!(text.len() < 300_000);
}

#[test]
fn both_ends_of_the_largest_subnet_are_given_in_turn() {
    let of = |step| Family::new(Subnet { step, ..subnet("2001:db8:7::/48") }).unwrap();
    let (mut up, mut down) = (of(Step::Up), of(Step::Down));
    for (low, high) in [("1", "ffff"), ("2", "fffe"), ("3", "fffd")] {
        let low = ip(&format!("2001:db8:7::{low}"));
        let high = ip(&format!("2001:db8:7:ffff:ffff:ffff:ffff:{high}"));
        assert_eq!((next(&up, 0, 0), next(&down, 0, 0)), (Ok(low), Ok(high)));
        up.take(low, Uuid::nil()).unwrap();
        down.take(high, Uuid::nil()).unwrap();
    }
}

#[test]
fn a_released_address_rests_while_there_are_others() {
    let mut family = Family::new(Subnet { cooldown_s: 60, ..subnet("192.0.2.0/29") }).unwrap();
    let take = |family: &mut Family, now| {
        let address = next(family, now, 0).unwrap();
        family.take(address, Uuid::nil()).unwrap();
        address
    };
    for last in 1..=4 {
        assert_eq!(take(&mut family, 0), ip(&format!("192.0.2.{last}")));
    }
    family.release(ip("192.0.2.2"), second(10)).unwrap();
    family.release(ip("192.0.2.1"), second(20)).unwrap();
    assert_eq!(family.counts().cooling, 2);
    assert_eq!(take(&mut family, 30), ip("192.0.2.5"));
    assert_eq!(take(&mut family, 30), ip("192.0.2.6"));
    assert_eq!(take(&mut family, 30), ip("192.0.2.2"), "the one that has rested longest");
    assert_eq!(take(&mut family, 30), ip("192.0.2.1"));
    assert_eq!(next(&family, 99, 0), Err("no-address-free"));
    family.release(ip("192.0.2.3"), second(100)).unwrap();
    family.release(ip("192.0.2.2"), second(130)).unwrap();
    assert_eq!(take(&mut family, 160), ip("192.0.2.3"), "rested");
}

#[test]
fn what_is_refused_says_why() {
    let mut family = Family::new(Subnet {
        gateway: Some(ip("192.0.2.1")),
        ranges: vec![range("192.0.2.1", "192.0.2.10")],
        reserved: vec![range("192.0.2.9", "192.0.2.12")],
        ..subnet("192.0.2.0/28")
    })
    .unwrap();
    assert_eq!(family.counts().usable, 7);
    family.take(ip("192.0.2.2"), Uuid::from_u128(5)).unwrap();
    let holder = Uuid::from_u128(5);
    for (address, reserved, detail) in [
        ("192.0.2.2", false, format!("192.0.2.2: it is {holder}'s")),
        ("192.0.2.16", false, "192.0.2.16: it lies outside 192.0.2.0/28".to_owned()),
        ("2001:db8::1", false, "2001:db8::1: it lies outside 192.0.2.0/28".to_owned()),
        ("192.0.2.9", false, "192.0.2.9: it is reserved in 192.0.2.0/28".to_owned()),
        ("192.0.2.13", true, "192.0.2.13: it is in no range of 192.0.2.0/28".to_owned()),
    ] {
        let want = Want::Named { address: ip(address), reserved };
        assert_eq!(family.choose(want, second(0), 0).unwrap_err().detail, detail);
    }
    for own in ["192.0.2.0", "192.0.2.1", "192.0.2.15"] {
        assert_eq!(named(&family, own, true), Err("address-not-given"));
    }
    assert_eq!(named(&family, "192.0.2.11", true), Ok(ip("192.0.2.11")), "reserved, by name");
    for _ in 0..6 {
        let address = next(&family, 0, 0).unwrap();
        family.take(address, holder).unwrap();
    }
    let full = family.choose(Want::Any {}, second(0), 0).unwrap_err();
    assert_eq!(full.detail, "192.0.2.0/28: all 7 addresses that may be given are taken");
    let fixed = Family::new(Subnet { step: Step::Fixed, ..subnet("192.0.2.0/28") }).unwrap();
    assert_eq!(next(&fixed, 0, 0), Err("invalid-field"));
    assert_eq!(named(&fixed, "192.0.2.3", false), Ok(ip("192.0.2.3")));
}

#[test]
fn subnets_that_make_no_sense_are_refused() {
    for net in ["10.0.0.0/7", "10.0.0.0/32", "10.0.0.1/24", "2001:db8::/47", "2001:db8::/127"] {
        assert!(Family::new(subnet(net)).is_err(), "{net}");
    }
    for net in ["10.0.0.0/8", "10.0.0.0/31", "2001:db8::/48", "2001:db8::/126"] {
        assert!(Family::new(subnet(net)).is_ok(), "{net}");
    }
    let base = || subnet("10.0.0.0/24");
    for wrong in [
        Subnet { gateway: Some(ip("10.0.1.1")), ..base() },
        Subnet { gateway: Some(ip("10.0.0.255")), ..base() },
        Subnet { gateway: Some(ip("2001:db8::1")), ..base() },
        Subnet { ranges: vec![range("10.0.0.9", "10.0.0.8")], ..base() },
        Subnet { ranges: vec![range("10.0.0.9", "10.0.1.8")], ..base() },
        Subnet { reserved: vec![range("10.0.0.9", "2001:db8::1")], ..base() },
        Subnet { cooldown_s: 2_592_001, ..base() },
    ] {
        assert_eq!(Family::new(wrong).unwrap_err().code.code, "invalid-field");
    }
    let link = Family::new(subnet("10.0.0.0/31")).unwrap();
    assert_eq!(link.counts().usable, 2, "a link of two has no broadcast");
    assert!(Addresses::new(None, None).is_err());
    assert!(Addresses::new(None, Some(base())).is_err());
    assert!(Addresses::new(Some(subnet("2001:db8::/64")), None).is_err());
}

#[test]
fn a_network_may_have_either_family_or_both() {
    let v6_only = Addresses::new(None, Some(subnet("2001:db8::/64"))).unwrap();
    let want = Some(Want::Any {});
    assert_eq!(v6_only.choose(None, want, second(0), 0).unwrap(), [ip("2001:db8::1")]);
    let refusal = v6_only.choose(want, want, second(0), 0).unwrap_err();
    assert_eq!(refusal.detail, "the network has no IPv4 subnet");
    let mut both =
        Addresses::new(Some(subnet("10.0.0.0/24")), Some(subnet("2001:db8::/64"))).unwrap();
    let found = both.choose(want, want, second(0), 0).unwrap();
    assert_eq!(found, [ip("10.0.0.1"), ip("2001:db8::1")]);
    for address in found {
        both.family(address).unwrap().take(address, Uuid::nil()).unwrap();
    }
    let text = serde_json::to_string(&both).unwrap();
    assert_eq!(serde_json::from_str::<Addresses>(&text).unwrap(), both);
}

#[test]
fn a_subnet_changes_around_what_is_taken() {
    let mut family = Family::new(Subnet { cooldown_s: 60, ..subnet("10.0.0.0/24") }).unwrap();
    for last in [5, 6, 200] {
        family.take(ip(&format!("10.0.0.{last}")), Uuid::nil()).unwrap();
    }
    family.release(ip("10.0.0.6"), second(0)).unwrap();
    let refusal = family.clone().with_subnet(subnet("10.0.0.0/25")).unwrap_err();
    assert_eq!(refusal.detail, "subnet: 1 taken addresses lie outside 10.0.0.0/25");
    let narrow = Subnet { ranges: vec![range("10.0.0.5", "10.0.0.7")], ..subnet("10.0.0.0/24") };
    let mut family = family.with_subnet(Subnet { cooldown_s: 60, ..narrow }).unwrap();
    assert_eq!(next(&family, 1, 0), Ok(ip("10.0.0.7")), "6 rests, 5 is taken");
    assert!(family.holder(ip("10.0.0.200")).is_some(), "it stays with its holder");
    family.release(ip("10.0.0.200"), second(1)).unwrap();
    let counts = family.counts();
    assert_eq!((counts.usable, counts.free, counts.cooling, counts.taken), (3, 2, 1, 1));
}
