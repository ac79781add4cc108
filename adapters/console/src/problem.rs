//! A problem as the server tells it (RFC 9457), for people.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::{exit::Exit, style::Style};

/// `application/problem+json`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Problem {
    /// What happened, in a few words.
    #[serde(default)]
    pub title: String,
    /// HTTP status.
    #[serde(default)]
    pub status: u16,
    /// The obstacle with its values.
    #[serde(default)]
    pub detail: String,
    /// Stable, kebab case.
    #[serde(default)]
    pub code: String,
    /// What to do.
    #[serde(default)]
    pub advice: String,
    /// Anything else the answer had, such as what has moved since a plan.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

impl Problem {
    /// Reads an answer; what is not a problem document becomes one.
    pub fn read(status: u16, body: &[u8]) -> Self {
        let mut problem: Self = serde_json::from_slice(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body);
            let detail = text.lines().next().unwrap_or_default().chars().take(200).collect();
            Self { detail, ..Self::default() }
        });
        problem.status = status;
        if problem.title.is_empty() {
            problem.title = format!("the server answered {status}");
        }
        problem
    }

    /// The exit code it becomes.
    pub fn exit(&self) -> Exit {
        Exit::of_status(self.status)
    }

    /// What has moved since a plan was made, one line each.
    pub fn moved(&self) -> Vec<String> {
        let moved = self.more.get("moved").and_then(Value::as_array);
        moved
            .into_iter()
            .flatten()
            .map(|one| {
                let text = |name: &str| match &one[name] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                format!(
                    "{}/{}: the plan saw {}, now it is {}",
                    text("kind"),
                    text("id"),
                    text("saw"),
                    text("found")
                )
            })
            .collect()
    }

    /// Several lines for a person.
    pub fn text(&self, style: Style) -> String {
        let mut out = style.red(&self.title);
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        if !self.code.is_empty() {
            out.push_str(&style.dim(&format!(" [{}]", self.code)));
        }
        for line in self.moved() {
            out.push_str("\n  moved: ");
            out.push_str(&line);
        }
        if !self.advice.is_empty() {
            out.push_str("\n  hint: ");
            out.push_str(&self.advice);
        }
        out
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Style::PLAIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_reads_as_title_detail_code_and_advice() {
        let body = json!({
            "type": "https://skyledger.local/problems/stale-plan", "title": "the plan is stale",
            "status": 412, "detail": "1 thing has moved", "code": "stale-plan",
            "advice": "Plan again.",
            "moved": [{"kind": "security-group", "id": "7", "saw": "3", "found": "4"}],
        });
        let problem = Problem::read(412, body.to_string().as_bytes());
        assert_eq!(
            problem.to_string(),
            "the plan is stale: 1 thing has moved [stale-plan]\n  \
             moved: security-group/7: the plan saw 3, now it is 4\n  hint: Plan again."
        );
        assert_eq!(problem.exit(), Exit::Stale);
    }

    #[test]
    fn an_answer_of_somebody_else_is_a_problem_too() {
        let problem = Problem::read(502, b"<html>Bad gateway\n</html>");
        assert_eq!(problem.to_string(), "the server answered 502: <html>Bad gateway");
        assert_eq!(problem.exit(), Exit::Fault);
    }
}
