//! Events, one line each.

use chrono::{DateTime, Utc};
use comfy_table::Table;
use serde_json::Value;

use super::grid;
use crate::{columns::plain, style::Style, time};

/// One event of a feed, or how far a transfer is.
pub fn event_line(event: &Value, style: Style) -> String {
    let text = |name: &str| plain(&event[name]);
    if let Some(far) = progress(event) {
        let of = format_args!("{}/{}", text("kind"), text("id"));
        return format!("{:>8}  {of}  {}", "", style.cyan(&far));
    }
    format!(
        "{:>8}  {}  {}  {}  {}",
        text("position"),
        style.dim(&text("recorded_at")),
        style.bold(&text("type")),
        format_args!("{}/{}", text("kind"), text("id")),
        style.cyan(&text("actor")),
    )
}

/// How far a transfer is, in words; nothing where it does not say.
pub fn progress(said: &Value) -> Option<String> {
    const MIB: u64 = 1 << 20;
    let (done, total) = (said["done_bytes"].as_u64()?, said["total_bytes"].as_u64()?);
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    Some(format!("{percent} %, {} of {} MiB", done / MIB, total.div_ceil(MIB)))
}

/// What the data of an event says, in a few words.
fn gist(data: &Value) -> String {
    const WIDTH: usize = 48;
    let Value::Object(members) = data else { return String::new() };
    let mut words = Vec::new();
    for (name, value) in members {
        match value {
            Value::Null => {}
            // Ids say nothing to a person.
            Value::String(text) if crate::names::is_id(text) => {}
            Value::Array(items) if name == "fields" => {
                let names: Vec<String> =
                    items.iter().map(|item| plain(item.get("field").unwrap_or(item))).collect();
                words.push(names.join(", "));
            }
            Value::Array(items) => words.push(format!("{name}: {}", items.len())),
            Value::Object(_) => {
                let inner = plain(&value["name"]);
                if !inner.is_empty() {
                    words.push(format!("{name}: {inner}"));
                }
            }
            scalar => words.push(format!("{name}: {}", plain(scalar))),
        }
    }
    let text = words.join("; ");
    if text.chars().count() > WIDTH {
        let cut: String = text.chars().take(WIDTH - 1).collect();
        return format!("{cut}…");
    }
    text
}

/// A resource's events, oldest first.
pub fn history(events: &[Value], now: DateTime<Utc>, style: Style) -> Table {
    let rows = events
        .iter()
        .map(|event| {
            let when = event["recorded_at"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .map(|then| format!("{} ago", time::age(then, now)))
                .unwrap_or_default();
            vec![
                plain(&event["revision"]),
                plain(&event["position"]),
                when,
                plain(&event["type"]),
                plain(&event["actor"]),
                gist(&event["data"]),
            ]
        })
        .collect();
    grid(&["rev", "position", "when", "event", "by", "what"], rows, style)
}

/// Which event last set a field, who made it, and what it was before.
pub fn why(answer: &Value, now: DateTime<Utc>, style: Style) -> String {
    let text = |name: &str| plain(&answer[name]);
    let event = &answer["event"];
    let when = answer["recorded_at"]
        .as_str()
        .and_then(|text| text.parse::<DateTime<Utc>>().ok())
        .map(|then| format!("{} ({} ago)", time::exact(then), time::age(then, now)))
        .unwrap_or_default();
    let mut lines = vec![style.bold(&text("field"))];
    lines.extend(
        super::value_lines("value", &answer["before"], &answer["value"], style)
            .into_iter()
            .map(|line| format!("  {line}")),
    );
    let who = if event.is_null() {
        "by an event that this token does not reach".to_owned()
    } else {
        format!("by {}, event {}", style.cyan(&plain(&event["actor"])), plain(&event["type"]))
    };
    lines.push(format!("  {who}"));
    lines.push(format!(
        "  at {when}, position {}, revision {}",
        text("position"),
        text("revision")
    ));
    let command = plain(&event["command_id"]);
    if !command.is_empty() {
        lines.push(format!("  command {command}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn how_far_a_transfer_is_is_a_line_of_its_own() {
        let far = |done: u64, total: u64| json!({"kind": "move-in", "id": "m", "done_bytes": done, "total_bytes": total});
        let line = event_line(&far(3 << 20, 8 << 20), Style::PLAIN);
        assert_eq!(line.trim_start(), "move-in/m  37 %, 3 of 8 MiB");
        assert_eq!(progress(&far(0, 0)).unwrap(), "0 %, 0 of 0 MiB");
        assert_eq!(progress(&Value::Null), None);
    }
}
