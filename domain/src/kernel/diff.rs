//! Field by field what differs between two JSON values.

use serde_json::Value;

use crate::mapping::FieldDrift;

/// What differs, by path (`a.b`), sorted. Arrays are compared whole: their items have no names.
/// `wanted` is the left value, `seen` the right one.
pub fn fields(left: &Value, right: &Value) -> Vec<FieldDrift> {
    let mut out = Vec::new();
    walk(String::new(), left, right, &mut out);
    out
}

fn walk(path: String, left: &Value, right: &Value, out: &mut Vec<FieldDrift>) {
    if left == right {
        return;
    }
    let (Value::Object(ours), Value::Object(theirs)) = (left, right) else {
        out.push(FieldDrift { field: path, wanted: left.clone(), seen: right.clone() });
        return;
    };
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let member =
            |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or_default();
        walk(path, &member(ours), &member(theirs), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_named_by_its_path() {
        let drift = fields(
            &json!({"a": 1, "b": {"c": [1], "d": 2}, "e": null}),
            &json!({"a": 1, "b": {"c": [2], "d": 2}, "f": 3}),
        );
        let paths: Vec<_> = drift.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(paths, ["b.c", "f"]);
    }
}
