//! One amount over weights, to the last unit: largest remainder (Hamilton).
//!
//! What comes out sums to what went in; each part is less than one unit from the exact one; a
//! credit is split as the charge of its size, with the sign turned; the order of the weights does
//! not matter.

use std::{cmp::Reverse, collections::BTreeMap};

use num_bigint::{BigInt, BigUint};
use num_integer::Integer;
use num_traits::{Signed, ToPrimitive, Zero};

use super::ratio::Ratio;

/// Why an amount cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitFault {
    /// There is nobody to take it.
    #[error("there is nothing to split over")]
    Empty,
    /// All weights are zero: nobody has more of it than anybody else.
    #[error("every weight is zero")]
    Zero,
    /// A share of less than nothing.
    #[error("the weight of {0} is negative")]
    Negative(String),
}

/// Weights, made ready for many splits.
#[derive(Clone, Debug)]
pub struct Weights<K> {
    keys: Vec<K>,
    /// Whole numbers in the proportion of the weights.
    parts: Vec<BigUint>,
    sum: BigUint,
    /// The same, when they are small.
    small: Option<(Vec<u128>, u128)>,
}

impl<K: Ord + Clone + ToString> Weights<K> {
    /// From a weight each.
    ///
    /// # Errors
    /// When nothing can be split by them.
    pub fn new(weights: &BTreeMap<K, Ratio>) -> Result<Self, SplitFault> {
        if weights.is_empty() {
            return Err(SplitFault::Empty);
        }
        if let Some((key, _)) = weights.iter().find(|(_, weight)| weight.is_negative()) {
            return Err(SplitFault::Negative(key.to_string()));
        }
        let common = weights.values().fold(BigInt::from(1), |all, one| all.lcm(one.denom()));
        let parts: Vec<BigUint> = weights
            .values()
            .map(|weight| (weight.numer() * (&common / weight.denom())).magnitude().clone())
            .collect();
        let sum: BigUint = parts.iter().sum();
        if sum.is_zero() {
            return Err(SplitFault::Zero);
        }
        let small = parts.iter().map(ToPrimitive::to_u128).collect::<Option<Vec<_>>>();
        let small = small.zip(sum.to_u128());
        Ok(Self { keys: weights.keys().cloned().collect(), parts, sum, small })
    }

    /// The same weight each.
    ///
    /// # Errors
    /// [`SplitFault::Empty`].
    pub fn even(keys: impl IntoIterator<Item = K>) -> Result<Self, SplitFault> {
        Self::new(&keys.into_iter().map(|key| (key, super::ratio::whole(1))).collect())
    }

    /// Who takes part, in order.
    pub fn keys(&self) -> &[K] {
        &self.keys
    }

    /// What each one's weight is of the sum.
    pub fn share(&self, place: usize) -> Ratio {
        let (above, below) = (self.parts[place].clone(), self.sum.clone());
        Ratio::new(above.into(), below.into())
    }

    /// Each one's part, in the order of [`Self::keys`].
    pub fn split(&self, total: i128) -> Vec<i128> {
        let size = total.unsigned_abs();
        let (mut floors, rests) = self.floors(size);
        let given: u128 = floors.iter().sum();
        let mut order: Vec<usize> = (0..self.keys.len()).collect();
        // Keys are in order, and the sort keeps it among equals.
        order.sort_by_key(|&at| (Reverse(&rests[at]), Reverse(&self.parts[at])));
        for &at in order.iter().take((size - given) as usize) {
            floors[at] += 1;
        }
        let sign = total.signum();
        floors.into_iter().map(|part| sign * part as i128).collect()
    }

    /// Each one's part rounded down, and what was cut off: comparable among each other.
    fn floors(&self, size: u128) -> (Vec<u128>, Vec<BigUint>) {
        let small = self.small.as_ref().and_then(|(parts, sum)| {
            let products: Option<Vec<u128>> =
                parts.iter().map(|part| part.checked_mul(size)).collect();
            Some((products?, *sum))
        });
        if let Some((products, sum)) = small {
            return products
                .into_iter()
                .map(|product| (product / sum, BigUint::from(product % sum)))
                .unzip();
        }
        self.parts
            .iter()
            .map(|part| {
                let (floor, rest) = (part * size).div_rem(&self.sum);
                // A part is not more than the whole.
                (floor.to_u128().unwrap_or(size), rest)
            })
            .unzip()
    }
}

/// Splits once.
///
/// # Errors
/// When the weights do not allow it.
pub fn split<K: Ord + Clone + ToString>(
    total: i128,
    weights: &BTreeMap<K, Ratio>,
) -> Result<BTreeMap<K, i128>, SplitFault> {
    let weights = Weights::new(weights)?;
    let parts = weights.split(total);
    Ok(weights.keys.into_iter().zip(parts).collect())
}
