//! What a command would do, and what came of one.

use serde_json::Value;

use super::{grid, indent, value_lines};
use crate::{columns::plain, format::colour, style::Style};

/// A plan, with the way to apply it.
pub fn plan(plan: &Value, style: Style) -> String {
    let text = |name: &str| plain(&plan[name]);
    let mut out = style.bold(&format!("Plan for {}/{}", text("kind"), text("id")));
    let status = &plan["status"];
    let (now, then) = (plain(&status[0]), plain(&status[1]));
    out.push_str(&if now == then { format!("  {now}") } else { format!("  {now} → {then}") });
    let events = list(plan, "events");
    if events.is_empty() {
        out.push_str("\n  Nothing to do: everything already is so.");
        return out;
    }
    out.push_str("\n\nevents that would be written:");
    for event in events {
        out.push_str(&format!("\n  {}", style.green(&plain(&event["type"]))));
    }
    let calls = list(plan, "calls");
    if !calls.is_empty() {
        let rows =
            calls.iter().map(|call| vec![plain(&call["call"]), plain(&call["effect"])]).collect();
        out.push_str("\n\ncalls that would be made:\n");
        out.push_str(&indent(&grid(&["call", "effect"], rows, style).to_string(), 2));
    }
    let lines: Vec<String> = list(plan, "diff")
        .iter()
        .filter(|field| !plain(&field["field"]).starts_with("orders"))
        .flat_map(|field| {
            // In a plan `seen` is now and `wanted` is then.
            value_lines(&plain(&field["field"]), &field["seen"], &field["wanted"], style)
        })
        .collect();
    if !lines.is_empty() {
        out.push_str("\n\nfields that would change:");
        for line in lines {
            out.push_str("\n  ");
            out.push_str(&line);
        }
    }
    let touches: Vec<String> = list(plan, "touches").iter().map(plain).collect();
    out.push_str(&format!("\n\ntouches: {}", touches.join(", ")));
    out.push_str(&format!("\nplan id: {}", style.cyan(&text("plan_id"))));
    out
}

/// What came of a command, in one or two lines.
pub fn outcome(outcome: &Value, style: Style) -> String {
    let text = |name: &str| plain(&outcome[name]);
    let events: Vec<String> =
        list(outcome, "events").iter().map(|event| plain(&event["type"])).collect();
    let what = if outcome["repeated"] == Value::Bool(true) {
        "done before, under the same idempotency key".to_owned()
    } else if events.is_empty() {
        "nothing to do: it already is so".to_owned()
    } else {
        events.join(", ")
    };
    let status = text("status");
    let status = match colour(&status) {
        Some(comfy_table::Color::Red) => style.red(&status),
        Some(comfy_table::Color::Yellow) => style.yellow(&status),
        Some(_) => style.green(&status),
        None => status,
    };
    let mut out = format!(
        "{}/{}  {status}  {}",
        text("kind"),
        text("id"),
        style.dim(&format!("revision {}, position {}: {what}", text("revision"), text("position"))),
    );
    let order = &outcome["order"];
    if !order.is_null() {
        let tag = order["order"]["type"].as_str().unwrap_or("order");
        let line = match order["parked"].as_str() {
            Some(reason) => style.red(&format!("order {} is parked: {reason}", order["number"])),
            None => format!("order {} ({tag}) is out; wait for it with --wait", order["number"]),
        };
        out.push_str(&format!("\n  {line}"));
    }
    let secret = text("secret");
    if !secret.is_empty() {
        out.push_str(&format!("\n  secret, shown only now: {}", style.cyan(&secret)));
    }
    out
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_shows_events_calls_fields_and_its_id() {
        let value = json!({
            "plan_id": "abc.def", "kind": "security-group", "id": "7", "revision": 2,
            "events": [{"type": "spec-declared", "data": {}}],
            "status": ["linked", "applying"],
            "diff": [{"field": "wanted.description", "wanted": "new", "seen": "old"},
                     {"field": "orders.issued", "wanted": 2, "seen": 1}],
            "calls": [{"call": "sim:SetRules", "effect": "adds 1 rule"}],
            "touches": ["security-group/7"],
        });
        assert_eq!(
            plan(&value, Style::PLAIN),
            "Plan for security-group/7  linked → applying\n\nevents that would be written:\n  \
             spec-declared\n\ncalls that would be made:\n  CALL          EFFECT\n  \
             sim:SetRules  adds 1 rule\n\nfields that would change:\n  \
             ~ wanted.description: old → new\n\ntouches: security-group/7\nplan id: abc.def"
        );
    }

    #[test]
    fn an_outcome_names_the_order_that_is_out() {
        let value = json!({
            "kind": "server", "id": "7", "revision": 3, "position": 9, "status": "stopping",
            "events": [{"type": "stop-ordered"}],
            "order": {"number": 2, "order": {"type": "stop"}},
        });
        assert_eq!(
            outcome(&value, Style::PLAIN),
            "server/7  stopping  revision 3, position 9: stop-ordered\n  \
             order 2 (stop) is out; wait for it with --wait"
        );
    }
}
