//! Canonical JSON: the one byte form of a value that is hashed, stored and compared.
//!
//! Object members are sorted by name, there is no white space, and numbers are integers or strings
//! (decimals are strings). This is the subset of RFC 8785 that values without floats need.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The canonical bytes of anything that serialises.
///
/// # Panics
/// When the value holds a map whose keys are not strings: a broken type, not bad input.
pub fn canonical_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let value = serde_json::to_value(value).expect("our types serialise to JSON");
    let mut out = Vec::with_capacity(256);
    write(&value, &mut out);
    out
}

/// The canonical bytes of a JSON value.
pub fn canonical_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            // serde_json's map is sorted unless a crate of the build turns `preserve_order` on;
            // the hash must not depend on that.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_scalar(&Value::String(name.clone()), out);
                out.push(b':');
                write(member, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar(value: &Value, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("writing a scalar to memory cannot fail");
}

/// SHA-256 (FIPS 180-4) of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_sorted_at_every_depth() {
        let value = json!({"b": {"z": 1, "a": [true, null]}, "a": "ü\n"});
        assert_eq!(
            String::from_utf8(canonical_bytes(&value)).unwrap(),
            r#"{"a":"ü\n","b":{"a":[true,null],"z":1}}"#
        );
    }
}
