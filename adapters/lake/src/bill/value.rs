//! How bills write numbers and times.

use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use domain::finops::amount::{Amount, SCALE};

/// A number of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    /// Rounded half to even, when it must be.
    pub(super) amount: Amount,
    /// Whether it had to be.
    pub(super) rounded: bool,
}

/// Reads a decimal, with or without an exponent; in words why not.
pub(super) fn number(text: &str) -> Result<Number, &'static str> {
    const NO: &str = "is not a decimal number";
    const LARGE: &str = "is too large for an amount";
    let bytes = text.as_bytes();
    let (negative, bytes) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, bytes),
    };
    let end = bytes.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = match end {
        Some(end) => {
            let exponent = std::str::from_utf8(&bytes[end + 1..]).map_err(|_| NO)?;
            (&bytes[..end], i64::from(exponent.parse::<i32>().map_err(|_| NO)?))
        }
        None => (bytes, 0),
    };
    let point = mantissa.iter().position(|byte| *byte == b'.');
    let (whole, part) = match point {
        Some(point) => (&mantissa[..point], &mantissa[point + 1..]),
        None => (mantissa, &[][..]),
    };
    if whole.is_empty() && part.is_empty() {
        return Err(NO);
    }
    // How many of the digits count; what is behind them is rounded.
    let wanted = whole.len() as i64 + exponent + i64::from(SCALE);
    let (mut value, mut at) = (0_i128, 0_i64);
    let (mut half, mut more) = (0_u8, false);
    for digit in whole.iter().chain(part) {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(NO);
        }
        match at.cmp(&wanted) {
            Ordering::Less => value = shifted(value, digit).ok_or(LARGE)?,
            Ordering::Equal => half = digit,
            Ordering::Greater => more |= digit != 0,
        }
        at += 1;
    }
    while at < wanted && value != 0 {
        value = value.checked_mul(10).ok_or(LARGE)?;
        at += 1;
    }
    let rounded = half != 0 || more;
    if half > 5 || (half == 5 && (more || value % 2 == 1)) {
        value = value.checked_add(1).ok_or(LARGE)?;
    }
    if value.unsigned_abs() >= 10_u128.pow(38) {
        return Err(LARGE);
    }
    let amount = Amount(if negative { -value } else { value });
    Ok(Number { amount, rounded })
}

/// The number with one more digit; in 64 bits as long as it goes, for most do.
fn shifted(value: i128, digit: u8) -> Option<i128> {
    match i64::try_from(value) {
        Ok(small) if small < i64::MAX / 10 - 1 => Some(i128::from(small * 10 + i64::from(digit))),
        _ => value.checked_mul(10)?.checked_add(i128::from(digit)),
    }
}

/// A time of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) moment: DateTime<Utc>,
    /// The day and time as written, in its own zone: a month of a bill is one there.
    pub(super) local: NaiveDateTime,
    pub(super) zoned: bool,
    /// It has digits beyond the microsecond.
    pub(super) rounded: bool,
}

/// Reads a date, or a date and time, of ISO 8601.
pub(super) fn time(text: &str) -> Option<Time> {
    let (date, rest) = text.as_bytes().split_at_checked(10)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date else { return None };
    let year = digits(&[y1, y2, y3, y4])?;
    let day = NaiveDate::from_ymd_opt(year.cast_signed(), digits(&[m1, m2])?, digits(&[d1, d2])?)?;
    let (clock, rounded, zone) = match rest {
        [] => (NaiveTime::MIN, false, &[][..]),
        [b'T' | b't' | b' ', h1, h2, b':', m1, m2, rest @ ..] => {
            let (second, rest) = match rest {
                [b':', s1, s2, rest @ ..] => (digits(&[*s1, *s2])?, rest),
                _ => (0, rest),
            };
            let (micros, rounded, rest) = fraction(rest)?;
            let (hour, minute) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            (NaiveTime::from_hms_micro_opt(hour, minute, second, micros)?, rounded, rest)
        }
        _ => return None,
    };
    let zone = match zone {
        [b' ', zone @ ..] => zone,
        zone => zone,
    };
    let offset = match zone {
        [] => None,
        [b'Z' | b'z'] | [b'U', b'T', b'C'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, rest @ ..] => {
            let minutes = match rest {
                [] => 0,
                [b':', m1, m2] | [m1, m2] => digits(&[*m1, *m2])?,
                _ => return None,
            };
            let minutes = i64::from(digits(&[*h1, *h2])? * 60 + minutes);
            Some(if *sign == b'-' { -minutes } else { minutes })
        }
        _ => return None,
    };
    let local = day.and_time(clock);
    let utc = local.checked_sub_signed(TimeDelta::minutes(offset.unwrap_or(0)))?;
    Some(Time { moment: utc.and_utc(), local, zoned: offset.is_some(), rounded })
}

/// Reads a date, or a date and time, of one of these patterns.
pub(super) fn time_like(text: &str, patterns: &[String]) -> Option<Time> {
    patterns.iter().find_map(|pattern| {
        if let Ok(at) = DateTime::parse_from_str(text, pattern) {
            let (moment, local) = (at.to_utc(), at.naive_local());
            return Some(Time { moment, local, zoned: true, rounded: false });
        }
        let local = NaiveDateTime::parse_from_str(text, pattern)
            .or_else(|_| NaiveDate::parse_from_str(text, pattern).map(Into::into))
            .ok()?;
        Some(Time { moment: local.and_utc(), local, zoned: false, rounded: false })
    })
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })
}

/// The microseconds behind a point, whether there was more, and what follows.
fn fraction(text: &[u8]) -> Option<(u32, bool, &[u8])> {
    let [b'.', text @ ..] = text else { return Some((0, false, text)) };
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let (fraction, rest) = text.split_at(length);
    let kept = fraction.len().min(6);
    let micros = digits(&fraction[..kept])? * 10_u32.pow(6 - kept as u32);
    Some((micros, fraction[kept..].iter().any(|digit| *digit != b'0'), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_exact_or_rounded_half_to_even() {
        for (text, units, rounded) in [
            ("0.012264277499950943", 12_264_277_500, true),
            ("2.323760000E-9", 2324, true),
            ("0.0000000000005", 0, true),
            ("0.0000000000015", 2, true),
            ("-0.0000000000025", -2, true),
            ("0.00000000000250000000001", 3, true),
            ("0.9999999999999", 1_000_000_000_000, true),
            ("0.1000000000000000000", 100_000_000_000, false),
            ("-12.5", -12_500_000_000_000, false),
            ("1.5E3", 1_500_000_000_000_000, false),
            ("+.5", 500_000_000_000, false),
            ("5.", 5_000_000_000_000, false),
            ("6.71E-8", 67_100, false),
            ("1e-99999999", 0, true),
            ("0e99999999", 0, false),
            ("92233720368547758.07", 92_233_720_368_547_758_070_000_000_000, false),
        ] {
            let expected = Number { amount: Amount(units), rounded };
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for text in ["", "-", ".", "1,5", "NaN", "1e", "1e5.0", "--1", "1.2.3", " 1", "€1"] {
            assert_eq!(number(text), Err("is not a decimal number"), "{text}");
        }
        for text in [
            "1e26",
            "1e99999999",
            "170141183460469231731687303.7158841057279",
            "9999999999999999999999999999999999999999",
        ] {
            assert_eq!(number(text), Err("is too large for an amount"), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_an_amount_can_hold_is_read_as_it_reads_itself(units in -10_i128.pow(37)..10_i128.pow(37)) {
            let text = Amount(units).to_string();
            let read = number(&text).unwrap();
            proptest::prop_assert_eq!((read.amount, read.rounded), (Amount(units), false));
        }
    }

    #[test]
    fn times_are_read_as_bills_write_them() {
        for (text, utc, local, zoned) in [
            ("2024-09-18 22:00:00", "2024-09-18T22:00:00", "2024-09-18T22:00:00", false),
            ("2023-11-01T00:00:00.000Z", "2023-11-01T00:00:00", "2023-11-01T00:00:00", true),
            ("2023-11-13T10:00Z", "2023-11-13T10:00:00", "2023-11-13T10:00:00", true),
            ("2024-09-01T00:00:00+08:00", "2024-08-31T16:00:00", "2024-09-01T00:00:00", true),
            ("2024-09-01 00:00:00 UTC", "2024-09-01T00:00:00", "2024-09-01T00:00:00", true),
            (
                "2024-09-01 00:00:00.25-0330",
                "2024-09-01T03:30:00.25",
                "2024-09-01T00:00:00.25",
                true,
            ),
            ("2024-02-29", "2024-02-29T00:00:00", "2024-02-29T00:00:00", false),
        ] {
            let read = time(text).unwrap();
            let shown = (read.moment.naive_utc(), read.local, read.zoned);
            assert_eq!(shown, (utc.parse().unwrap(), local.parse().unwrap(), zoned), "{text}");
        }
        assert!(time("2024-09-01T00:00:00.1234567Z").unwrap().rounded);
        for text in [
            "",
            "2023-02-29",
            "2024-9-1",
            "2024-09-01T24:00",
            "2024-09-01X",
            "2024-09-01T1:00",
            "20240901",
            "2024-09-01T00:00:00.Z",
            "2024-09-0ü",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
        let patterns = ["%m/%d/%Y".to_owned(), "%d.%m.%Y %H:%M".to_owned()];
        let read = |text| time_like(text, &patterns).map(|time| time.local.to_string());
        assert_eq!(read("09/18/2024").as_deref(), Some("2024-09-18 00:00:00"));
        assert_eq!(read("18.09.2024 13:05").as_deref(), Some("2024-09-18 13:05:00"));
        assert_eq!(read("2024-09-18"), None);
    }
}
