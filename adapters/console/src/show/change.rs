//! What differs between two moments, or between wanted and seen.

use serde_json::Value;

use crate::{columns::plain, style::Style};

/// Fields of a row that change with every event and say nothing.
const NOISE: &[&str] = &["revision", "updated_at", "updated_by", "created_at"];

/// Rows that differ, each with its fields.
pub fn changes(changes: &[Value], style: Style) -> String {
    let mut out = String::new();
    for change in changes {
        let (before, after) = (&change["before"], &change["after"]);
        let row = if after.is_null() { before } else { after };
        let mut title = format!("{} {}", plain(&row["kind"]), display_name(row));
        let region = plain(&row["region"]);
        if !region.is_empty() {
            title = format!("{title} ({region})");
        }
        let line = match (before.is_null(), after.is_null()) {
            (true, _) => style.green(&format!("+ {title}  {}", plain(&after["status"]))),
            (_, true) => style.red(&format!("- {title}")),
            _ => style.yellow(&format!("~ {title}")),
        };
        out.push_str(&line);
        out.push('\n');
        if !before.is_null() && !after.is_null() {
            for (path, old, new) in fields(before, after) {
                for line in value_lines(&path, &old, &new, style) {
                    out.push_str("    ");
                    out.push_str(&line);
                    out.push('\n');
                }
            }
        }
    }
    out
}

fn display_name(row: &Value) -> String {
    ["name", "external_id", "id"]
        .iter()
        .map(|name| plain(&row[*name]))
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// A field's two values: on one line when they are short, items of lists one by one.
pub fn value_lines(path: &str, old: &Value, new: &Value, style: Style) -> Vec<String> {
    if let (Value::Array(before), Value::Array(after)) = (old, new) {
        let gone = before.iter().filter(|item| !after.contains(item));
        let come = after.iter().filter(|item| !before.contains(item));
        return gone
            .map(|item| style.red(&format!("- {path}: {}", short(item))))
            .chain(come.map(|item| style.green(&format!("+ {path}: {}", short(item)))))
            .collect();
    }
    vec![match (old, new) {
        (Value::Null, new) => style.green(&format!("+ {path}: {}", short(new))),
        (old, Value::Null) => style.red(&format!("- {path}: {}", short(old))),
        (old, new) => format!("~ {path}: {} → {}", short(old), short(new)),
    }]
}

/// A security group's rule reads as a rule, other values as JSON in one line.
fn short(value: &Value) -> String {
    let Some(direction) = value["direction"].as_str() else { return plain(value) };
    let mut words = vec![direction.to_owned()];
    if value["action"] == "deny" {
        words.push("deny".to_owned());
    }
    words.extend(["protocol", "ports"].iter().map(|name| plain(&value[*name])));
    if let Value::Object(peer) = &value["peer"] {
        words.extend(peer.values().map(plain));
    }
    let description = plain(&value["description"]);
    if !description.is_empty() {
        words.push(format!("({description})"));
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Field by field what differs, without what changes with every event.
fn fields(before: &Value, after: &Value) -> Vec<(String, Value, Value)> {
    let mut out = Vec::new();
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return out };
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        // The state repeats what the columns say; of it only what is seen and wanted is shown.
        if NOISE.contains(&name.as_str()) || name == "drift" || name == "order" {
            continue;
        }
        let member =
            |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or_default();
        let (old, new) = (member(old), member(new));
        if old == new {
            continue;
        }
        if name == "state" {
            let inner = |of: &Value, part: &str| {
                let observed = of.get("observation").unwrap_or(of);
                observed[part].clone()
            };
            for part in ["wanted", "seen"] {
                walk(part, &inner(&old, part), &inner(&new, part), &mut out);
            }
        } else {
            out.push((name.clone(), old, new));
        }
    }
    out
}

fn walk(path: &str, old: &Value, new: &Value, out: &mut Vec<(String, Value, Value)>) {
    if old == new {
        return;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        out.push((path.to_owned(), old.clone(), new.clone()));
        return;
    };
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let member =
            |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or_default();
        walk(&format!("{path}.{name}"), &member(before), &member(after), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_diff_names_what_came_went_and_changed_field_by_field() {
        let rule = json!({"direction": "ingress", "protocol": "tcp", "ports": "22",
                          "peer": {"cidr": "10.0.0.0/8"}});
        let row = |status: &str, rules: Value, revision: u64| {
            json!({"kind": "security-group", "name": "web", "status": status, "region": "eu-1",
                   "revision": revision, "state": {"seen": {"rules": rules}}})
        };
        let all = [
            json!({"before": null, "after": {"kind": "server", "name": "a", "status": "running"}}),
            json!({"before": {"kind": "server", "name": "b"}, "after": null}),
            json!({"before": row("linked", json!([]), 2), "after": row("drifted", json!([rule]), 3)}),
        ];
        assert_eq!(
            changes(&all, Style::PLAIN),
            "+ server a  running\n- server b\n~ security-group web (eu-1)\n    \
             + seen.rules: ingress tcp 22 10.0.0.0/8\n    ~ status: linked → drifted\n"
        );
    }
}
