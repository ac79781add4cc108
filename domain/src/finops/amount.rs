//! Amounts, money, currencies, billing months.

use std::{fmt, str::FromStr};

use chrono::{Datelike, NaiveDate};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ratio;

/// Decimals of an amount: real bills carry eleven.
pub const SCALE: u32 = 12;

/// A part of a currency's unit: an integer of [`SCALE`] decimals. As text, a decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub i128);

/// Why a number is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountFault {
    /// It has digits beyond [`SCALE`], which would be lost.
    #[error("{0} has more than {SCALE} decimals")]
    TooFine(String),
    /// It is beyond 39 digits in all.
    #[error("{0} is too large for an amount")]
    TooLarge(String),
    /// It does not read as a decimal.
    #[error("{0:?} is not a decimal number")]
    NotANumber(String),
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum, when it is in range.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Reads a decimal; digits beyond [`SCALE`] are rounded half to even.
    pub fn rounded(text: &str) -> Result<Self, AmountFault> {
        match text.parse() {
            Err(AmountFault::TooFine(_)) => {
                let units = ratio::parse(text).map(|one| one * ratio::whole(10_i128.pow(SCALE)));
                let units = units.and_then(|units| ratio::round_half_even(&units));
                units.map(Self).ok_or_else(|| AmountFault::TooLarge(text.to_owned()))
            }
            read => read,
        }
    }
}

impl FromStr for Amount {
    type Err = AmountFault;

    /// Reads a decimal, with or without an exponent, without losing a digit.
    fn from_str(text: &str) -> Result<Self, AmountFault> {
        let no = || AmountFault::NotANumber(text.to_owned());
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().map_err(|_| no())?),
            None => (text, 0),
        };
        let (negative, digits) = match number.as_bytes().first() {
            Some(b'-') => (true, &number[1..]),
            Some(b'+') => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + part.len() == 0 {
            return Err(no());
        }
        let mut value: i128 = 0;
        for digit in whole.bytes().chain(part.bytes()) {
            if !digit.is_ascii_digit() {
                return Err(no());
            }
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(i128::from(digit - b'0')))
                .ok_or_else(|| AmountFault::TooLarge(text.to_owned()))?;
        }
        let shift = i64::from(SCALE) + i64::from(exponent) - part.len() as i64;
        let power = 10_i128.checked_pow(u32::try_from(shift.unsigned_abs()).unwrap_or(u32::MAX));
        let value = match (value, power) {
            (0, _) => 0,
            (value, Some(power)) if shift >= 0 => {
                value.checked_mul(power).ok_or_else(|| AmountFault::TooLarge(text.to_owned()))?
            }
            (value, Some(power)) if value % power == 0 => value / power,
            _ if shift >= 0 => return Err(AmountFault::TooLarge(text.to_owned())),
            _ => return Err(AmountFault::TooFine(text.to_owned())),
        };
        Ok(Self(if negative { -value } else { value }))
    }
}

impl fmt::Display for Amount {
    /// The shortest decimal that is equal to it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_u128.pow(SCALE);
        let (whole, part) = (self.0.unsigned_abs() / unit, self.0.unsigned_abs() % unit);
        let sign = if self.0 < 0 { "-" } else { "" };
        let part = format!("{part:0width$}", width = SCALE as usize);
        match part.trim_end_matches('0') {
            "" => write!(out, "{sign}{whole}"),
            part => write!(out, "{sign}{whole}.{part}"),
        }
    }
}

impl TryFrom<Decimal> for Amount {
    type Error = AmountFault;

    fn try_from(decimal: Decimal) -> Result<Self, AmountFault> {
        let decimal = decimal.normalize();
        let Some(shift) = SCALE.checked_sub(decimal.scale()) else {
            return Err(AmountFault::TooFine(decimal.to_string()));
        };
        decimal
            .mantissa()
            .checked_mul(10_i128.pow(shift))
            .map(Self)
            .ok_or_else(|| AmountFault::TooLarge(decimal.to_string()))
    }
}

impl TryFrom<Amount> for Decimal {
    type Error = AmountFault;

    fn try_from(amount: Amount) -> Result<Self, AmountFault> {
        amount.to_string().parse().map_err(|_| AmountFault::TooLarge(amount.to_string()))
    }
}

impl Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What an amount is counted in: an ISO 4217 code, or a provider's own unit of three to sixteen
/// capital letters, digits and `_` (FOCUS "virtual currency").
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(String);

impl TryFrom<String> for Currency {
    type Error = String;

    fn try_from(code: String) -> Result<Self, String> {
        let plain = |letter: u8| letter.is_ascii_uppercase() || letter.is_ascii_digit();
        let right = (3..=16).contains(&code.len())
            && code.as_bytes()[0].is_ascii_uppercase()
            && code.bytes().all(|letter| plain(letter) || letter == b'_');
        if right { Ok(Self(code)) } else { Err(format!("{code:?} is not a currency's code")) }
    }
}

impl Currency {
    /// No currency: the code that ISO 4217 has for it. It stands where none has been read yet.
    pub fn none() -> Self {
        Self("XXX".to_owned())
    }

    /// Its code.
    pub fn code(&self) -> &str {
        &self.0
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.0
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// An amount of a currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// How much, as a decimal in text.
    pub amount: Amount,
    /// Of what. Currencies never mix in a sum.
    pub currency: Currency,
}

/// A calendar month that bills are for, such as `2026-10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BillingMonth {
    /// Its first day; the only one there is here.
    first: NaiveDate,
}

impl BillingMonth {
    /// The month a day lies in.
    pub fn of(day: NaiveDate) -> Self {
        Self { first: day.with_day(1).unwrap_or(day) }
    }

    /// Its first day.
    pub fn first(self) -> NaiveDate {
        self.first
    }

    /// The first day that is after it.
    pub fn end(self) -> NaiveDate {
        self.first.checked_add_months(chrono::Months::new(1)).unwrap_or(NaiveDate::MAX)
    }

    /// The month after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self { first: self.end() }
    }

    /// How many days it has: 28 … 31.
    pub fn days(self) -> i64 {
        (self.end() - self.first).num_days()
    }
}

impl fmt::Display for BillingMonth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04}-{:02}", self.first.year(), self.first.month())
    }
}

impl FromStr for BillingMonth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no = || format!("{text:?} is not a month such as 2026-10");
        if text.len() != 7 {
            return Err(no());
        }
        let first = format!("{text}-01").parse().map_err(|_| no())?;
        Ok(Self { first })
    }
}

impl TryFrom<String> for BillingMonth {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BillingMonth> for String {
    fn from(month: BillingMonth) -> Self {
        month.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_keeps_every_digit_and_refuses_to_lose_one() {
        for (text, units, shown) in [
            ("0", 0, "0"),
            ("-0.00", 0, "0"),
            ("12.5", 12_500_000_000_000, "12.5"),
            ("-0.00000000001", -10, "-0.00000000001"),
            ("1e-11", 10, "0.00000000001"),
            ("1.5E3", 1_500_000_000_000_000, "1500"),
            ("0.1000000000000000000", 100_000_000_000, "0.1"),
        ] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!((amount.0, amount.to_string().as_str()), (units, shown), "{text}");
            assert_eq!(amount.to_string().parse(), Ok(amount));
            assert_eq!(Amount::try_from(Decimal::try_from(amount).unwrap()), Ok(amount));
        }
        assert!(matches!("1e-13".parse::<Amount>(), Err(AmountFault::TooFine(_))));
        for (text, units) in [
            ("1e-13", 0),
            ("0.0000000000015", 2),
            ("-0.0000000000025", -2),
            ("7", 7 * 10_i128.pow(12)),
        ] {
            assert_eq!(Amount::rounded(text), Ok(Amount(units)), "{text}");
        }
        assert!(matches!("1e40".parse::<Amount>(), Err(AmountFault::TooLarge(_))));
        for text in ["", ".", "-", "1,5", "0x10", "NaN", "1e", "--1", "1.2.3"] {
            assert!(matches!(text.parse::<Amount>(), Err(AmountFault::NotANumber(_))), "{text}");
        }
    }

    #[test]
    fn a_month_knows_its_days() {
        let february: BillingMonth = "2024-02".parse().unwrap();
        assert_eq!((february.days(), february.next().to_string()), (29, "2024-03".to_owned()));
        let december: BillingMonth = "2025-12".parse().unwrap();
        assert_eq!(december.next().to_string(), "2026-01");
        for text in ["2026-13", "2026-1", "26-10", "2026-10-01", ""] {
            assert!(text.parse::<BillingMonth>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_currency_is_a_code() {
        assert!(Currency::try_from("EUR".to_owned()).is_ok());
        assert!(Currency::try_from("CREDITS_2".to_owned()).is_ok());
        for code in ["", "eu", "eur", "E", "€€€", "2EU"] {
            assert!(Currency::try_from(code.to_owned()).is_err(), "{code}");
        }
    }
}
