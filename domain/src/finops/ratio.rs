//! Exact ratios, and the one way they round.

use num_bigint::{BigInt, Sign};
use num_integer::Integer;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// A rational of any size.
pub type Ratio = num_rational::BigRational;

/// A whole number as a ratio.
pub fn whole(number: i128) -> Ratio {
    Ratio::from_integer(BigInt::from(number))
}

/// Reads `12`, `0.25`, `1e-3` or `1/3`.
pub fn parse(text: &str) -> Option<Ratio> {
    if let Some((above, below)) = text.split_once('/') {
        let below: BigInt = below.parse().ok()?;
        return (!below.is_zero())
            .then_some(())
            .and_then(|()| Some(Ratio::new(above.parse().ok()?, below)));
    }
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    if exponent.unsigned_abs() > 64 {
        return None;
    }
    let (above, part) = number.split_once('.').unwrap_or((number, ""));
    if !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: BigInt = format!("{above}{part}").parse().ok()?;
    let shift = exponent - i32::try_from(part.len()).ok()?;
    let power = BigInt::from(10).pow(shift.unsigned_abs());
    let number = if shift < 0 { Ratio::new(digits, power) } else { (digits * power).into() };
    Some(number)
}

/// The nearest whole number; the even one of two that are equally near. None when it has more than
/// 127 bits.
pub fn round_half_even(ratio: &Ratio) -> Option<i128> {
    let (floor, rest) = ratio.numer().div_mod_floor(ratio.denom());
    let twice: BigInt = rest * 2_u8;
    let up = match twice.cmp(ratio.denom()) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => floor.is_odd(),
    };
    (if up { floor + BigInt::one() } else { floor }).to_i128()
}

/// A ratio as a decimal with so many places, cut off towards zero: for a FOCUS column, whose last
/// part takes what the others left.
pub fn truncated(ratio: &Ratio, places: u32) -> String {
    let power = BigInt::from(10).pow(places);
    let units = (ratio.numer().abs() * &power) / ratio.denom();
    let (whole, part) = units.div_rem(&power);
    let sign = if ratio.numer().sign() == Sign::Minus { "-" } else { "" };
    let part = format!("{part:0>width$}", width = places as usize);
    match part.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_read_and_round() {
        assert_eq!(parse("1/3"), Some(Ratio::new(1.into(), 3.into())));
        assert_eq!(parse("-0.25"), Some(Ratio::new((-1).into(), 4.into())));
        assert_eq!(parse("2.5e1"), Some(whole(25)));
        for text in ["", "1/0", "a", "1.-2", "1e999", "1/x"] {
            assert_eq!(parse(text), None, "{text}");
        }
        for (text, rounded) in
            [("1/2", 0), ("3/2", 2), ("-1/2", 0), ("-3/2", -2), ("5/4", 1), ("-7/4", -2)]
        {
            assert_eq!(
                parse(text).and_then(|ratio| round_half_even(&ratio)),
                Some(rounded),
                "{text}"
            );
        }
        let third = parse("1/3").unwrap();
        assert_eq!(truncated(&third, 4), "0.3333");
        assert_eq!(truncated(&parse("-5/2").unwrap(), 4), "-2.5");
        assert_eq!(truncated(&whole(7), 4), "7");
    }
}
