//! What centres have after shared cost is spread, by the parts it was made of: the service, the
//! account, the day of the lines it comes from.
//!
//! A rule moves every part of its source in the same proportion. What a target gets of the parts up
//! to one of them is the rounded share of their sum, and of that part the difference to the one
//! before. So the parts of a target come to what it got, what the targets got of a part comes to that
//! part, both to the last unit, whatever the signs; and each is less than two units from exact.

use std::collections::BTreeMap;

use super::{
    allocate::Moved,
    ratio::Ratio,
    split::{SplitFault, Weights},
};

/// Amounts by centre and stratum, each by its parts.
pub type Parts<K> = BTreeMap<(String, String), BTreeMap<K, i128>>;

/// Why parts cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsFault {
    /// There are more than whoever asks wants to have.
    #[error("there are more than {0} parts")]
    TooMany(usize),
    /// The movements are none of a rule.
    #[error(transparent)]
    Split(#[from] SplitFault),
}

/// The parts after the movements of a run, which are in the order of its rules; at most so many.
///
/// # Errors
/// [`PartsFault`].
pub fn moved<'t, K: Ord + Clone>(
    before: Parts<K>,
    trace: impl IntoIterator<Item = &'t Moved>,
    most: usize,
) -> Result<Parts<K>, PartsFault> {
    moved_each(before, trace, most, |_, _, _| {})
}

/// The same, and tells what of each part every movement is, by the movement's place.
///
/// # Errors
/// [`PartsFault`].
pub fn moved_each<'t, K: Ord + Clone>(
    before: Parts<K>,
    trace: impl IntoIterator<Item = &'t Moved>,
    most: usize,
    mut tell: impl FnMut(usize, &K, i128),
) -> Result<Parts<K>, PartsFault> {
    let trace: Vec<&Moved> = trace.into_iter().collect();
    let mut next = 0;
    let mut now = before;
    let mut count: usize = now.values().map(BTreeMap::len).sum();
    for moves in trace.chunk_by(|a, b| (&a.rule, &a.stratum) == (&b.rule, &b.stratum)) {
        let Some(first) = moves.first() else { continue };
        let places: BTreeMap<&str, usize> =
            moves.iter().zip(next..).map(|(one, place)| (one.target.as_str(), place)).collect();
        next += moves.len();
        let source = (first.source.clone(), first.stratum.clone());
        let Some(parts) = now.remove(&source) else { continue };
        let shares: BTreeMap<String, Ratio> =
            moves.iter().map(|one| (one.target.clone(), one.share.clone())).collect();
        let weights = Weights::new(&shares)?;
        count = count.saturating_add(parts.len().saturating_mul(weights.keys().len()));
        if count > most {
            return Err(PartsFault::TooMany(most));
        }
        let (mut sum, mut given) = (0, vec![0; weights.keys().len()]);
        for (part, amount) in parts {
            sum += amount;
            let until = weights.split(sum);
            for ((target, until), given) in weights.keys().iter().zip(&until).zip(&given) {
                if until != given {
                    if let Some(place) = places.get(target.as_str()) {
                        tell(*place, &part, until - given);
                    }
                    let bucket = (target.clone(), first.stratum.clone());
                    let own = now.entry(bucket).or_default();
                    *own.entry(part.clone()).or_default() += until - given;
                }
            }
            given = until;
        }
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::finops::{
        allocate::{Basis, Buckets, Drivers, Fallback, Rule, Weighing, allocate},
        ratio::whole,
    };

    fn rule(id: &str, source: &str, targets: &[&str], weighing: Weighing) -> Rule {
        let targets = targets.iter().map(|&one| one.to_owned()).collect();
        Rule { id: id.into(), source: source.into(), targets, weighing }
    }

    fn totals(parts: &Parts<u8>) -> Buckets {
        let sums = parts.iter().map(|(bucket, parts)| (bucket.clone(), parts.values().sum()));
        sums.filter(|(_, sum)| *sum != 0).collect()
    }

    /// What all centres have of each part in each stratum.
    fn by_part(parts: &Parts<u8>) -> BTreeMap<(String, u8), i128> {
        let mut all = BTreeMap::new();
        for ((_, stratum), own) in parts {
            for (part, amount) in own {
                *all.entry((stratum.clone(), *part)).or_default() += amount;
            }
        }
        all.retain(|_, amount| *amount != 0);
        all
    }

    fn parts() -> impl Strategy<Value = Parts<u8>> {
        let amount = prop_oneof![-20_i128..20, -10_i128.pow(20)..10_i128.pow(20)];
        let own = prop::collection::btree_map(0_u8..9, amount, 1..9);
        let bucket = ("[abcp]", "[xy]");
        prop::collection::btree_map(bucket, own, 1..8)
    }

    proptest! {
        #[test]
        fn no_unit_of_a_part_is_lost_and_each_centre_has_what_it_has(
            before in parts(),
            percent in 0_i128..70,
        ) {
            let sums: Buckets = before.iter()
                .map(|(bucket, parts)| (bucket.clone(), parts.values().sum()))
                .collect();
            let fixed = [("a".to_owned(), whole(percent)), ("b".to_owned(), whole(30))].into();
            let basis = Weighing::Proportional { basis: Basis::Current, fallback: Fallback::Even };
            let rules = [
                rule("first", "p", &["a", "b", "c"], Weighing::Fixed(fixed)),
                rule("second", "c", &["a", "b"], basis),
            ];
            let allocated = allocate(&sums, &rules, &Drivers::new()).unwrap();
            let after = moved(before.clone(), &allocated.trace, 1_000).unwrap();
            prop_assert_eq!(totals(&after), allocated.buckets);
            prop_assert_eq!(by_part(&after), by_part(&before));
        }
    }

    #[test]
    fn every_part_moves_in_the_same_proportion() {
        let bucket = |centre: &str| (centre.to_owned(), "x".to_owned());
        let before: Parts<u8> = [(bucket("p"), [(1, 10), (2, 20), (3, -3)].into())].into();
        let rules = [rule("halves", "p", &["a", "b"], Weighing::Even)];
        let sums = [(bucket("p"), 27)].into();
        let trace = allocate(&sums, &rules, &Drivers::new()).unwrap().trace;
        let after = moved(before.clone(), &trace, 100).unwrap();
        assert_eq!(after[&bucket("a")], [(1, 5), (2, 10), (3, -1)].into());
        assert_eq!(after[&bucket("b")], [(1, 5), (2, 10), (3, -2)].into());
        assert_eq!(moved(before, &trace, 5), Err(PartsFault::TooMany(5)));
    }
}
