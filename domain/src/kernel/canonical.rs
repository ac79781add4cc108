//! Canonical JSON: the one byte form of a value that is hashed, stored and compared.
//!
//! Object members are sorted by name, there is no white space, and numbers are integers or strings
//! (decimals are strings). This is the subset of RFC 8785 that values without floats need.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::canonical_writer::Writer;

/// The canonical bytes of anything that serialises.
///
/// # Panics
/// When the value holds a map whose keys are not strings, numbers or booleans, or an integer of
/// more than 64 bits: a broken type, not bad input.
pub fn canonical_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_canonical(value, &mut out);
    out
}

/// The canonical bytes of a JSON value.
pub fn canonical_value(value: &Value) -> Vec<u8> {
    canonical_bytes(value)
}

/// Adds the canonical bytes of something to what is there already.
///
/// # Panics
/// As [`canonical_bytes`].
pub fn write_canonical<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    value.serialize(Writer(out)).expect("our types serialise to JSON");
}

/// SHA-256 (FIPS 180-4) of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The same by way of a tree of values, as it is defined.
    fn by_value<T: Serialize>(value: &T) -> String {
        fn write(value: &Value, out: &mut String) {
            match value {
                Value::Object(members) => {
                    let mut members: Vec<_> = members.iter().collect();
                    members.sort_by(|a, b| a.0.cmp(b.0));
                    let members = members.into_iter().map(|(name, member)| {
                        let mut text = format!("{}:", Value::String(name.clone()));
                        write(member, &mut text);
                        text
                    });
                    out.push('{');
                    out.push_str(&members.collect::<Vec<_>>().join(","));
                    out.push('}');
                }
                Value::Array(items) => {
                    let items = items.iter().map(|item| {
                        let mut text = String::new();
                        write(item, &mut text);
                        text
                    });
                    out.push('[');
                    out.push_str(&items.collect::<Vec<_>>().join(","));
                    out.push(']');
                }
                scalar => out.push_str(&scalar.to_string()),
            }
        }
        let mut out = String::new();
        write(&serde_json::to_value(value).unwrap(), &mut out);
        out
    }

    #[derive(Serialize, Default)]
    struct Mixed {
        zone: Option<&'static str>,
        #[serde(flatten)]
        more: std::collections::HashMap<String, Value>,
        size: u64,
        below: i64,
        letter: char,
        pair: (u8, bool),
        nothing: (),
        kinds: Vec<Kind>,
        by_number: std::collections::BTreeMap<u32, &'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<u8>,
        decimal: rust_decimal::Decimal,
    }

    #[derive(Serialize, Clone)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        Unit,
        New(&'static str),
        Two(u8, u8),
        Named { b: u8, a: u8 },
    }

    #[derive(Serialize)]
    #[serde(tag = "type", content = "data", rename_all = "kebab-case")]
    enum Adjacent {
        Plain,
        Of { z: u8, a: Option<u8> },
    }

    #[test]
    fn writing_directly_is_the_same_as_by_a_tree_of_values() {
        let mixed = Mixed {
            zone: Some("a\"\u{1}é"),
            more: (0..20)
                .map(|n| (format!("x{}", n * 7 % 20), json!({"b": n, "a": [n]})))
                .collect(),
            size: u64::MAX,
            below: i64::MIN,
            letter: '\n',
            kinds: vec![Kind::Unit, Kind::New("n"), Kind::Two(1, 2), Kind::Named { b: 1, a: 2 }],
            by_number: [(10, "ten"), (9, "nine")].into(),
            ..Mixed::default()
        };
        assert_eq!(String::from_utf8(canonical_bytes(&mixed)).unwrap(), by_value(&mixed));
        for one in [Adjacent::Plain, Adjacent::Of { z: 1, a: None }] {
            assert_eq!(String::from_utf8(canonical_bytes(&one)).unwrap(), by_value(&one));
        }
    }

    #[test]
    fn of_two_members_of_one_name_the_last_counts_as_in_a_tree() {
        #[derive(Serialize)]
        struct Twice {
            name: u8,
            #[serde(flatten)]
            more: std::collections::BTreeMap<&'static str, u8>,
        }
        let twice = Twice { name: 1, more: [("a", 0), ("name", 2)].into() };
        assert_eq!(canonical_bytes(&twice), br#"{"a":0,"name":2}"#);
        assert_eq!(by_value(&twice).as_bytes(), br#"{"a":0,"name":2}"#);
    }

    proptest::proptest! {
        #[test]
        fn any_tree_is_written_as_defined(value in tree()) {
            proptest::prop_assert_eq!(
                String::from_utf8(canonical_bytes(&value)).unwrap(),
                by_value(&value)
            );
        }
    }

    fn tree() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::hash_map(".{0,4}", inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn members_are_sorted_at_every_depth() {
        let value = json!({"b": {"z": 1, "a": [true, null]}, "a": "ü\n"});
        assert_eq!(
            String::from_utf8(canonical_bytes(&value)).unwrap(),
            r#"{"a":"ü\n","b":{"a":[true,null],"z":1}}"#
        );
    }
}
