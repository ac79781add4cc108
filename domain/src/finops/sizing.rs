//! Whether a server is idle or larger than it needs to be, by what was measured of it.
//!
//! Of a day there is the 95th percentile; what is judged is the highest of the days', which the
//! percentile of all samples is never above.

use std::collections::BTreeMap;

use chrono::{Days, NaiveDate};
use serde::Serialize;

use super::{amount::Amount, hint::Thresholds};
use crate::compute::{
    shape::Shape,
    utilisation::{DAY_S, Utilisation},
};

/// One, as an amount.
const ONE: i128 = 10_i128.pow(12);

/// What was measured of a server on the days before one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// The first day that is looked at.
    pub from: NaiveDate,
    /// The first day after them.
    pub to: NaiveDate,
    /// Days of which something is known.
    pub days: u64,
    /// Percent of all their time that is measured, cut to a whole number.
    pub covered_percent: u64,
    /// How many samples that are.
    pub samples: u64,
    /// Percent of its processors: the highest of the days' 95th percentiles.
    pub cpu_p95_percent: Amount,
    /// Percent of its processors: the highest sample.
    pub cpu_peak_percent: Amount,
    /// The highest of the days' 95th percentiles, in percent of one processor: 250 keeps two and a
    /// half busy.
    pub busy_p95_percent: Amount,
    /// Percent of its memory at most; none when it is not known of every day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_percent: Option<Amount>,
    /// Bytes in and out of a day, on average; none when they are not known of every day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_day_bytes: Option<u64>,
    /// The events that say so, by position.
    pub events: Vec<u64>,
}

impl Measured {
    /// Sums the days up that lie in so many before `today`, each with the position of its event.
    /// None when too little of their time is measured.
    pub fn of(
        known: &BTreeMap<NaiveDate, (u64, Utilisation)>,
        today: NaiveDate,
        thresholds: &Thresholds,
    ) -> Option<Self> {
        let count = u64::from(thresholds.measured_days);
        let from = today.checked_sub_days(Days::new(count))?;
        let days: Vec<_> = known.range(from..today).map(|(_, one)| one).collect();
        let all = || days.iter().map(|(_, day)| day);
        let covered: u64 = all().map(|day| u64::from(day.covered_s())).sum();
        let whole = count * u64::from(DAY_S);
        if days.is_empty() || covered * 100 < whole * u64::from(thresholds.measured_percent) {
            return None;
        }
        let memory: Option<Vec<Amount>> = all().map(|day| day.memory_peak_percent).collect();
        let passed = |day: &Utilisation| match (day.network_in_bytes, day.network_out_bytes) {
            (None, None) => None,
            (one, other) => Some(u128::from(one.unwrap_or(0)) + u128::from(other.unwrap_or(0))),
        };
        let passed: Option<Vec<u128>> = all().map(passed).collect();
        let busy = |day: &Utilisation| Amount(day.cpu_p95_percent.0 * i128::from(day.vcpus));
        Some(Self {
            from,
            to: today,
            days: days.len() as u64,
            covered_percent: covered * 100 / whole,
            samples: all().map(|day| u64::from(day.samples)).sum(),
            cpu_p95_percent: all().map(|day| day.cpu_p95_percent).max()?,
            cpu_peak_percent: all().map(|day| day.cpu_peak_percent).max()?,
            busy_p95_percent: all().map(busy).max()?,
            memory_peak_percent: memory.and_then(|all| all.into_iter().max()),
            network_day_bytes: passed.and_then(|all| {
                u64::try_from(all.iter().sum::<u128>() / all.len().max(1) as u128).ok()
            }),
            events: days.iter().map(|(position, _)| *position).collect(),
        })
    }

    /// Whether nobody needs it, by its processors and, where it is known, by its network.
    pub fn is_idle(&self, thresholds: &Thresholds) -> bool {
        let limit = u64::from(thresholds.idle_network_mib) << 20;
        self.cpu_p95_percent.0 < i128::from(thresholds.idle_percent) * ONE
            && self.network_day_bytes.is_none_or(|bytes| bytes < limit)
    }

    /// The smallest shape of the same family that would be below the threshold with all of it.
    pub fn smaller<'a>(
        &self,
        own: &Shape,
        shapes: impl IntoIterator<Item = &'a Shape>,
        thresholds: &Thresholds,
    ) -> Option<&'a Shape> {
        let percent = i128::from(thresholds.oversized_percent) * ONE;
        let fits = |other: &Shape| {
            let memory = self.memory_peak_percent.is_none_or(|peak| {
                // Both sides are products of a percent and a size, of the same scale.
                let used = peak.0.saturating_mul(own.equipment.memory_gib.0);
                used < percent.saturating_mul(other.equipment.memory_gib.0)
            });
            self.busy_p95_percent.0 < percent * i128::from(other.equipment.vcpus) && memory
        };
        shapes
            .into_iter()
            .filter(|other| is_smaller(other, own) && fits(other))
            .min_by_key(|other| (other.equipment.vcpus, &other.name))
    }
}

/// What a shape's name says of its family: what stands before the first dot (`m7g.large`), else the
/// name without its number of processors (`n2-standard-4`), else nothing.
fn family(shape: &Shape) -> String {
    let vcpus = shape.equipment.vcpus.to_string();
    match shape.name.split_once('.') {
        Some((family, _)) => family.to_owned(),
        None if shape.name.contains(&vcpus) => shape.name.replacen(&vcpus, "#", 1),
        None => String::new(),
    }
}

/// Whether one shape is another with fewer processors: of the same provider and family, with as much
/// memory for each processor and the same cards.
fn is_smaller(one: &Shape, other: &Shape) -> bool {
    let (less, more) = (&one.equipment, &other.equipment);
    let ratio = |memory: Amount, vcpus: u32| memory.0.saturating_mul(i128::from(vcpus));
    one.provider == other.provider
        && less.vcpus < more.vcpus
        && ratio(less.memory_gib, more.vcpus) == ratio(more.memory_gib, less.vcpus)
        && (&less.gpus, &less.vgpus, less.bare_metal) == (&more.gpus, &more.vgpus, more.bare_metal)
        && family(one) == family(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::shape::Equipment;

    fn shape(name: &str, vcpus: u32, memory_gib: &str) -> Shape {
        let memory_gib = memory_gib.parse().unwrap();
        let equipment = Equipment { vcpus, memory_gib, ..Equipment::default() };
        Shape { provider: "aws".into(), name: name.into(), equipment }
    }

    fn day(number: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 1, number).unwrap()
    }

    fn used(date: u32, p95: &str, memory: Option<&str>, bytes: Option<u64>) -> Utilisation {
        Utilisation {
            day: day(date),
            vcpus: 8,
            cpu_mean_percent: "1".parse().unwrap(),
            cpu_p95_percent: p95.parse().unwrap(),
            cpu_peak_percent: "90".parse().unwrap(),
            memory_peak_percent: memory.map(|memory| memory.parse().unwrap()),
            network_in_bytes: bytes,
            network_out_bytes: None,
            samples: 288,
            step_s: 300,
            source: "test".into(),
        }
    }

    fn measured(days: impl IntoIterator<Item = Utilisation>) -> Option<Measured> {
        let known = days.into_iter().map(|one| (one.day, (u64::from(one.samples), one))).collect();
        Measured::of(&known, day(15), &Thresholds::default())
    }

    #[test]
    fn enough_of_the_days_before_is_needed() {
        let days =
            |numbers: &[u32]| measured(numbers.iter().map(|one| used(*one, "3", None, None)));
        // 80 % of 14 days are 11.2 of them.
        assert_eq!(days(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), None);
        let enough = days(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14]).unwrap();
        assert_eq!((enough.days, enough.covered_percent, enough.samples), (12, 85, 12 * 288));
        assert_eq!((enough.from, enough.to, enough.events.len()), (day(1), day(15), 12));
        // The day that runs is none of them.
        assert_eq!(days(&[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]), None);
    }

    #[test]
    fn it_is_idle_when_no_day_was_busy_and_its_network_is_quiet() {
        let idle = |p95: &str, bytes: Option<u64>| {
            let days = (1..=14).map(|one| used(one, if one == 7 { p95 } else { "1" }, None, bytes));
            measured(days).unwrap().is_idle(&Thresholds::default())
        };
        assert!(idle("4.99", None) && !idle("5", None));
        assert!(idle("1", Some((100 << 20) - 1)) && !idle("1", Some(100 << 20)));
    }

    #[test]
    fn the_smallest_shape_of_the_family_that_still_has_room_is_suggested() {
        let shapes = [
            shape("m7g.large", 2, "8"),
            shape("m7g.xlarge", 4, "16"),
            shape("m7g.2xlarge", 8, "32"),
            shape("c7g.large", 2, "4"),
            shape("m6g.large", 2, "8"),
        ];
        let suggested = |p95: &str, memory: Option<&str>| {
            let known = measured((1..=14).map(|one| used(one, p95, memory, None))).unwrap();
            let found = known.smaller(&shapes[2], &shapes, &Thresholds::default());
            found.map(|shape| shape.name.clone()).unwrap_or_default()
        };
        // 8 processors at 19.99 % are 1.6 of them: just below 80 % of two.
        assert_eq!(suggested("19.99", None), "m7g.large");
        assert_eq!(suggested("20", None), "m7g.xlarge");
        assert_eq!(suggested("40", None), "");
        assert_eq!(suggested("10", Some("19.9")), "m7g.large");
        assert_eq!(suggested("10", Some("20")), "m7g.xlarge");
        assert_eq!(suggested("10", Some("40")), "", "its memory is needed");
    }

    #[test]
    fn a_family_is_read_from_names_and_sizes() {
        let smaller = |a: (&str, u32, &str), b: (&str, u32, &str)| {
            is_smaller(&shape(a.0, a.1, a.2), &shape(b.0, b.1, b.2))
        };
        assert!(smaller(("n2-standard-4", 4, "16"), ("n2-standard-8", 8, "32")));
        assert!(!smaller(("e2-standard-4", 4, "16"), ("n2-standard-8", 8, "32")));
        assert!(smaller(("Standard_D4s_v5", 4, "16"), ("Standard_D8s_v5", 8, "32")));
        assert!(smaller(("s3.large.4", 2, "8"), ("s3.xlarge.4", 4, "16")));
        assert!(!smaller(("s3.large.2", 2, "4"), ("s3.xlarge.4", 4, "16")));
        assert!(smaller(("small", 1, "2"), ("medium", 2, "4")));
        assert!(!smaller(("medium", 2, "4"), ("small", 1, "2")));
        let mut cards = shape("small", 1, "2");
        cards.equipment.gpus = [("a100".to_owned(), 1)].into();
        assert!(!is_smaller(&cards, &shape("medium", 2, "4")));
    }
}
