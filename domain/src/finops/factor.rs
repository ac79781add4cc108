//! An exact factor that people give: how many times.

use std::{fmt, str::FromStr};

use num_traits::{One, Signed, Zero};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ratio::{self, Ratio};

/// Longest text, in bytes.
const BYTES_MAX: usize = 60;
/// Most decimals that are written; what needs more is written as a fraction.
const PLACES_MAX: u32 = 130;

/// A number of any size that is not below zero: in JSON a number, or text such as `1.0823` or `1/3`,
/// which keeps every digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor(Ratio);

impl Factor {
    /// One: it changes nothing.
    pub fn one() -> Self {
        Self(Ratio::one())
    }

    /// The number.
    pub fn ratio(&self) -> &Ratio {
        &self.0
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for Factor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = Some(text).filter(|text| text.len() <= BYTES_MAX).and_then(ratio::parse);
        let right = read.filter(|number| !number.is_negative());
        right.map(Self).ok_or_else(|| {
            format!("{text:?} is no number from 0 on of at most {BYTES_MAX} characters")
        })
    }
}

impl fmt::Display for Factor {
    /// The shortest decimal, where there is one; else a fraction.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ten = ratio::whole(10);
        let mut shifted = self.0.clone();
        for places in 0..=PLACES_MAX {
            if shifted.is_integer() {
                return out.write_str(&ratio::truncated(&self.0, places));
            }
            shifted *= &ten;
        }
        write!(out, "{}", self.0)
    }
}

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl de::Visitor<'_> for Reader {
            type Value = Factor;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number from 0 on, or one as text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Factor, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Factor, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Factor, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Factor, E> {
                // The shortest decimal that reads as this number: what was written.
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Factor {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Factor".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number from 0 on; as text, a decimal or a fraction such as 1/3, it keeps every digit.",
            "type": ["string", "number"],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_factor_keeps_every_digit_and_is_written_one_way() {
        for (text, shown) in [
            ("1.10", "1.1"),
            ("1e-3", "0.001"),
            ("0", "0"),
            ("2/4", "0.5"),
            ("1/3", "1/3"),
            ("1.082300000000000000000000000001", "1.082300000000000000000000000001"),
        ] {
            let factor: Factor = text.parse().unwrap();
            assert_eq!(factor.to_string(), shown);
            assert_eq!(serde_json::from_value::<Factor>(json!(factor)).unwrap(), factor);
        }
        let read = |value| serde_json::from_value::<Factor>(value).ok();
        assert_eq!(read(json!(1.15)), "1.15".parse().ok());
        assert_eq!(read(json!(2)), "2".parse().ok());
        for wrong in [json!(-1), json!("-0.1"), json!("1/0"), json!("a"), json!("1".repeat(61))] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
