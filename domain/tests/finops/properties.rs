//! What holds of any amounts, weights, rules and terms.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use domain::finops::{
    allocate::{Basis, Buckets, Drivers, Fallback, Rule, RulesFault, Weighing, allocate},
    amortise::{Method, Schedule},
    rate::{Granule, Per, Rounding, Tier, TierMode, Tiers, units},
    ratio::{Ratio, whole},
    split::split,
};
use proptest::prelude::*;

fn weights() -> impl Strategy<Value = BTreeMap<u16, Ratio>> {
    let weight = (0_i64..1_000_000, 1_i64..60)
        .prop_map(|(above, below)| Ratio::new(above.into(), below.into()));
    prop::collection::btree_map(any::<u16>(), weight, 1..40)
}

fn total() -> impl Strategy<Value = i128> {
    prop_oneof![-100_i128..100, -10_i128.pow(25)..10_i128.pow(25)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_split_loses_nothing_and_is_nobodys_favour(total in total(), weights in weights()) {
        let sum: Ratio = weights.values().sum();
        prop_assume!(sum != whole(0));
        let parts = split(total, &weights).unwrap();
        prop_assert_eq!(parts.values().sum::<i128>(), total);
        for (key, part) in &parts {
            // |total · weight / sum − part| < 1, without a division.
            let weight = &weights[key];
            let unit = weight.denom() * sum.numer();
            let off = weight.numer() * sum.denom() * total - &unit * *part;
            prop_assert!(off.magnitude() < unit.magnitude(), "{} is off by {}", key, off);
        }
        let credit = split(-total, &weights).unwrap();
        prop_assert!(credit.iter().all(|(key, part)| -part == parts[key]));
    }
}

fn centre() -> impl Strategy<Value = String> {
    (0_u8..8).prop_map(|number| format!("c{number}"))
}

fn weighing() -> impl Strategy<Value = Weighing> {
    let basis = prop_oneof![Just(Basis::Direct), Just(Basis::Current)];
    let fallback = prop_oneof![Just(Fallback::Even), Just(Fallback::Keep)];
    let shares = prop::collection::btree_map(centre(), 0_i128..26, 1..4);
    prop_oneof![
        Just(Weighing::Even),
        (basis, fallback.clone())
            .prop_map(|(basis, fallback)| Weighing::Proportional { basis, fallback }),
        fallback.prop_map(|fallback| Weighing::Driver { name: "hours".to_owned(), fallback }),
        shares.prop_map(|shares| Weighing::Fixed(
            shares.into_iter().map(|(centre, share)| (centre, whole(share))).collect()
        )),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let targets = prop::collection::btree_set(centre(), 1..8);
    let rule = (0_u8..4, targets, weighing());
    prop::collection::vec(rule, 1..4).prop_map(|rules| {
        let rule =
            |(number, (source, targets, weighing)): (usize, (u8, BTreeSet<String>, _))| Rule {
                id: format!("r{number}"),
                source: format!("shared{source}"),
                targets: targets
                    .into_iter()
                    // Later sources may be targets too.
                    .chain((source + 1..4).map(|later| format!("shared{later}")))
                    .collect(),
                weighing,
            };
        rules.into_iter().enumerate().map(rule).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_stratum_sums_to_what_it_was(
        amounts in prop::collection::vec((0_u8..12, 0_u8..3, total()), 1..40),
        rules in rules(),
        hours in prop::collection::btree_map(centre(), 0_i128..1_000, 0..8),
    ) {
        let mut before = Buckets::new();
        for (centre, stratum, amount) in amounts {
            let centre =
                if centre < 8 { format!("c{centre}") } else { format!("shared{}", centre - 8) };
            *before.entry((centre, format!("s{stratum}"))).or_default() += amount;
        }
        let drivers: Drivers = hours
            .into_iter()
            .map(|(centre, hours)| (("hours".to_owned(), centre), whole(hours)))
            .collect();
        let allocated = match allocate(&before, &rules, &drivers) {
            Ok(allocated) => allocated,
            Err(RulesFault::Closed { .. } | RulesFault::Cycle(_)) => return Ok(()),
            Err(fault) => return Err(TestCaseError::fail(fault.to_string())),
        };
        let sums = |buckets: &Buckets| {
            let mut sums: BTreeMap<String, i128> = BTreeMap::new();
            for ((_, stratum), amount) in buckets {
                *sums.entry(stratum.clone()).or_default() += amount;
            }
            sums.retain(|_, sum| *sum != 0);
            sums
        };
        prop_assert_eq!(sums(&before), sums(&allocated.buckets));
        // The trace says the same: shares sum to one, and movements lead from before to after.
        let mut shares: BTreeMap<(&str, &str), Ratio> = BTreeMap::new();
        let mut now = before.clone();
        for moved in &allocated.trace {
            *shares.entry((&moved.rule, &moved.stratum)).or_default() += &moved.share;
            let bucket = |centre: &str| (centre.to_owned(), moved.stratum.clone());
            *now.entry(bucket(&moved.source)).or_default() -= moved.amount;
            *now.entry(bucket(&moved.target)).or_default() += moved.amount;
        }
        now.retain(|_, amount| *amount != 0);
        prop_assert_eq!(now, allocated.buckets);
        prop_assert!(shares.values().all(|sum| *sum == whole(1)), "{:?}", shares);
    }
}

fn day(number: i64) -> NaiveDate {
    NaiveDate::from_ymd_opt(2020, 1, 1).unwrap() + chrono::Duration::days(number)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_term_sums_to_its_amount_and_every_range_is_within_a_unit(
        total in total(),
        start in 0_i64..2_000,
        days in 1_i64..1_200,
        monthly in any::<bool>(),
        cuts in prop::collection::vec(-50_i64..1_300, 2),
        refund in total(),
    ) {
        let method = if monthly { Method::Monthly } else { Method::Daily };
        let schedule = Schedule::new(total, day(start), day(start + days), method).unwrap();
        let months: i128 = schedule.months_touched().map(|month| schedule.month(month)).sum();
        prop_assert_eq!(months, total);
        let (from, to) = (start + cuts[0].min(cuts[1]), start + cuts[0].max(cuts[1]));
        if method == Method::Daily {
            let inside = |day: i64| (day - start).clamp(0, days);
            let exact = whole(total) * whole((inside(to) - inside(from)).into()) / whole(days.into());
            let off = exact - whole(schedule.between(day(from), day(to)));
            prop_assert!(off >= whole(-1) && off <= whole(1), "off by {}", off);
            // Days sum to the range.
            let sum: i128 = (from..to).map(|one| schedule.between(day(one), day(one + 1))).sum();
            prop_assert_eq!(sum, schedule.between(day(from), day(to)));
        }
        let left = schedule.cancel(day(from), refund);
        prop_assert_eq!(left.kept + left.unamortised, total);
        prop_assert_eq!(left.kept + left.adjustment, total - refund);
    }

    #[test]
    fn lines_add_up_to_what_all_of_them_cost(
        volume in any::<bool>(),
        ends in prop::collection::btree_set(1_i128..10_000, 0..5),
        prices in prop::collection::vec(0_i128..1_000, 6),
        lines in prop::collection::vec((0_i128..5_000, 1_i128..60), 1..20),
    ) {
        let mode = if volume { TierMode::Volume } else { TierMode::Graduated };
        let tiers = ends.iter().map(|end| Some(whole(*end))).chain([None]).zip(&prices);
        let tiers = tiers.map(|(up_to, price)| Tier { up_to, price: whole(*price) }).collect();
        let tiers = Tiers::new(mode, tiers).unwrap();
        let (mut used, mut cost) = (whole(0), whole(0));
        for (above, below) in lines {
            let more = Ratio::new(above.into(), below.into());
            cost += tiers.cost_of_more(&used, &more);
            used += more;
        }
        prop_assert_eq!(cost, tiers.cost(&used));
    }

    #[test]
    fn a_time_costs_what_its_parts_cost(
        zone in prop::sample::select(vec![chrono_tz::Asia::Shanghai, chrono_tz::America::New_York, chrono_tz::Europe::Berlin, chrono_tz::Australia::Lord_Howe]),
        per in prop::sample::select(vec![Per::Year, Per::Month, Per::Day, Per::Hour, Per::Second]),
        from in 1_500_000_000_i64..1_900_000_000,
        first in 0_i64..90_000_000,
        second in 0_i64..90_000_000,
    ) {
        let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0).unwrap();
        let units = |from, to| units(per, zone, at(from), at(to), Granule::Second, Rounding::None);
        let (middle, end) = (from + first, from + first + second);
        prop_assert_eq!(units(from, middle) + units(middle, end), units(from, end));
    }
}

#[test]
fn a_circle_is_refused_and_shown() {
    let rule = |id: &str, source: &str, target: &str| Rule {
        id: id.to_owned(),
        source: source.to_owned(),
        targets: BTreeSet::from([target.to_owned()]),
        weighing: Weighing::Even,
    };
    let rules =
        [rule("r1", "a", "b"), rule("r2", "b", "c"), rule("r3", "c", "a"), rule("r4", "x", "a")];
    let refused = allocate(&Buckets::new(), &rules, &Drivers::new()).unwrap_err();
    assert_eq!(refused.to_string(), "the rules run in a circle: a → b → c → a");
    // No circle, but what b has given away would come back to it.
    let rules = [rule("r1", "b", "c"), rule("r2", "a", "b")];
    let refused = allocate(&Buckets::new(), &rules, &Drivers::new()).unwrap_err();
    assert!(matches!(refused, RulesFault::Closed { .. }), "{refused}");
    let refused = allocate(&Buckets::new(), &[rule("r1", "a", "a")], &Drivers::new()).unwrap_err();
    assert_eq!(refused, RulesFault::NoTarget("r1".to_owned()));
}
