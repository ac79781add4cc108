//! One resource, for people.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{grid, indent};
use crate::{
    columns::{of, plain},
    style::Style,
};

/// Everything worth knowing about one resource.
pub fn resource(plural: &str, row: &Value, now: DateTime<Utc>, style: Style) -> String {
    let title = [plain(&row["name"]), plain(&row["external_id"]), plain(&row["id"])]
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default();
    let mut out = format!("{} {}", plain(&row["kind"]), style.bold(&title));
    let mut lines: Vec<(String, String)> = of(plural)
        .iter()
        .filter(|column| !matches!(column.name, "kind" | "name"))
        .map(|column| (column.name.to_owned(), column.text(row, Some(now))))
        .collect();
    if let Value::Object(tags) = &row["tags"] {
        let tags = tags.iter().map(|(name, value)| format!("{name}={}", plain(value)));
        lines.push(("tags".to_owned(), tags.collect::<Vec<_>>().join(" ")));
    }
    lines.retain(|(_, text)| !text.is_empty());
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, text) in lines {
        out.push_str(&format!("\n  {}  {text}", style.dim(&format!("{name:width$}"))));
    }
    if let Value::Object(order) = &row["order"] {
        let tag = plain(&order["order"]["type"]);
        let number = plain(&order["number"]);
        out.push_str(&match order.get("parked").and_then(Value::as_str) {
            Some(reason) => format!(
                "\n\n{}\n  answer it with `retry` or `abandon`",
                style.red(&format!("order {number} ({tag}) is parked: {reason}"))
            ),
            None => format!("\n\norder {number} ({tag}) is out"),
        });
    }
    let drift = drift(row, style);
    if !drift.is_empty() {
        out.push_str(&format!("\n\n{}\n{drift}", style.red("drift")));
        out.push_str("\n  answer it with `reapply`, `accept` or `mute`");
    }
    let state = &row["state"];
    let body = state.get("observation").unwrap_or(state);
    for part in ["wanted", "seen"] {
        if let Value::Object(_) = &body[part] {
            let text = serde_norway::to_string(&body[part]).unwrap_or_default();
            out.push_str(&format!("\n\n{}\n{}", style.bold(part), indent(&text, 2)));
        }
    }
    out
}

/// A row's drift, field by field; empty without drift.
pub fn drift(row: &Value, style: Style) -> String {
    let Some(fields) = row["drift"].as_array().filter(|fields| !fields.is_empty()) else {
        return String::new();
    };
    let by = [plain(&row["seen_by"]), plain(&row["state"]["seen_by"])].concat();
    let short = |field: &str, value: &Value| match value {
        Value::Null => "—".to_owned(),
        // The field's own name says what the rule is.
        Value::Object(_) if field.starts_with("rules.") => "there".to_owned(),
        other => plain(other),
    };
    let rows = fields
        .iter()
        .map(|one| {
            let field = plain(&one["field"]);
            vec![field.clone(), short(&field, &one["wanted"]), short(&field, &one["seen"])]
        })
        .collect();
    let mut out = indent(&grid(&["field", "wanted", "seen"], rows, style).to_string(), 2);
    if !by.is_empty() {
        out.push_str(&format!("\n  changed in the cloud by {by}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn drift_is_shown_field_by_field_with_who_did_it() {
        let row = json!({
            "kind": "security-group", "id": "7", "name": "web", "status": "drifted",
            "drift": [
                {"field": "description", "wanted": "front", "seen": "x"},
                {"field": "rules.ingress tcp 22 0.0.0.0/0", "wanted": null,
                 "seen": {"direction": "ingress"}},
            ],
            "state": {"seen_by": "mallory"},
        });
        let now = "2026-03-01T12:05:00Z".parse().unwrap();
        assert_eq!(
            resource("security-groups", &row, now, Style::PLAIN),
            "security-group web\n  status          drifted\n  drifted fields  2\n  \
             id              7\n\ndrift\n  FIELD                           WANTED  SEEN\n  \
             description                     front   x\n  \
             rules.ingress tcp 22 0.0.0.0/0  —       there\n  \
             changed in the cloud by mallory\n  answer it with `reapply`, `accept` or `mute`"
        );
    }
}
