//! Numbers as they are shown: percents, growth, and amounts with few digits that still add up.

use num_bigint::BigInt;
use num_integer::Integer;

use super::{
    amount::{Amount, SCALE},
    ratio::{Ratio, round_half_even, whole},
};

/// Places of a percent.
const PERCENT_PLACES: u32 = 2;

/// A part of a whole in percent, with at most two decimals, rounded half to even. None of nothing,
/// and of less than nothing: a share of a credit says nothing.
pub fn percent(part: Amount, of: Amount) -> Option<String> {
    (of.0 > 0).then_some(())?;
    let ratio = Ratio::new(BigInt::from(part.0), BigInt::from(of.0));
    let units = round_half_even(&(ratio * whole(100 * 10_i128.pow(PERCENT_PLACES))))?;
    let scaled = units.checked_mul(10_i128.pow(SCALE - PERCENT_PLACES))?;
    Some(Amount(scaled).to_string())
}

/// How much a cost has grown over another, or why that cannot be said.
pub fn growth(now: Amount, before: Amount) -> Result<String, &'static str> {
    match before.0 {
        0 => Err("there was no cost before"),
        less if less < 0 => Err("before it was less than nothing"),
        _ => {
            let difference = now.0.checked_sub(before.0).map(Amount);
            let grown = difference.and_then(|difference| percent(difference, before));
            grown.ok_or("it is beyond what a percent shows")
        }
    }
}

/// Amounts with at most so many decimals, which come to what all of them come to, rounded half to
/// even: each is cut down, and the units that are left go to those that lost most. The first of
/// equal ones takes it.
pub fn rounded(amounts: &[Amount], digits: u32) -> Vec<Amount> {
    let unit = 10_i128.pow(SCALE.saturating_sub(digits));
    let sum: BigInt = amounts.iter().map(|amount| BigInt::from(amount.0)).sum();
    let total = round_half_even(&Ratio::new(sum, BigInt::from(unit)));
    let mut parts: Vec<(i128, i128)> =
        amounts.iter().map(|amount| amount.0.div_mod_floor(&unit)).collect();
    let down: BigInt = parts.iter().map(|(whole, _)| BigInt::from(*whole)).sum();
    // Never more than there are amounts: what was cut off each is less than a unit.
    let left = total.and_then(|total| usize::try_from(BigInt::from(total) - down).ok());
    let mut most: Vec<usize> = (0..parts.len()).collect();
    most.sort_by_key(|at| std::cmp::Reverse(parts[*at].1));
    for at in most.into_iter().take(left.unwrap_or_default()) {
        parts[at].0 += 1;
    }
    parts.into_iter().map(|(whole, _)| Amount(whole.saturating_mul(unit))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    #[test]
    fn a_percent_has_two_decimals() {
        for (part, of, shown) in
            [("1", "3", "33.33"), ("2", "3", "66.67"), ("5", "4", "125"), ("-1", "8", "-12.5")]
        {
            assert_eq!(percent(amount(part), amount(of)).as_deref(), Some(shown));
        }
        assert_eq!(percent(amount("1"), Amount::ZERO), None);
        assert_eq!(percent(amount("1"), amount("-2")), None);
    }

    #[test]
    fn growth_over_nothing_or_less_is_not_said() {
        assert_eq!(growth(amount("150"), amount("100")).as_deref(), Ok("50"));
        assert_eq!(growth(amount("-50"), amount("100")).as_deref(), Ok("-150"));
        assert!(growth(amount("150"), Amount::ZERO).unwrap_err().contains("no cost"));
        assert!(growth(amount("150"), amount("-100")).unwrap_err().contains("less than nothing"));
    }

    #[test]
    fn thirds_are_shown_so_that_they_add_up() {
        let thirds =
            [amount("33.333333333333"), amount("33.333333333333"), amount("33.333333333334")];
        let shown: Vec<_> = rounded(&thirds, 2).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["33.33", "33.33", "33.34"]);
        let credits = [amount("-0.005"), amount("-0.005"), amount("0.005")];
        let shown: Vec<_> = rounded(&credits, 2).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0", "0", "0"], "-0.005 is rounded to the even zero");
        assert_eq!(rounded(&thirds, 12), thirds);
    }

    proptest! {
        #[test]
        fn what_is_shown_comes_to_the_shown_total_and_each_is_within_a_unit(
            units in proptest::collection::vec(-10_i128.pow(20)..10_i128.pow(20), 0..50),
            digits in 0_u32..=12,
        ) {
            let amounts: Vec<Amount> = units.iter().copied().map(Amount).collect();
            let unit = 10_i128.pow(SCALE - digits);
            let shown = rounded(&amounts, digits);
            let total = units.iter().sum::<i128>();
            let sum = shown.iter().map(|one| one.0).sum::<i128>();
            prop_assert!((sum - total).abs() * 2 <= unit);
            for (shown, exact) in shown.iter().zip(&amounts) {
                prop_assert_eq!(shown.0 % unit, 0);
                prop_assert!((shown.0 - exact.0).abs() < unit);
            }
        }
    }
}
