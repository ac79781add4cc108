//! One resource over time: its events, what differs between two moments, and which event last set
//! a field.

use axum::http::StatusCode;
use domain::{
    kernel::StreamId,
    log::{Position, Record},
};
use projections::views::VIEWS;
use serde_json::{Value, json};

use crate::{
    call::{Answer, Call, answer, at_position},
    params::number,
    problem::{INTERNAL, Problem},
    queries::{INVENTORY, compared, moments, page_size, project_of, until},
    routes::{FIELD, PAGE_TOKEN},
    show,
};

/// Records read at once.
const PAGE: usize = 500;

/// Records of one stream, as far as a moment.
struct Stream<'a> {
    call: &'a Call,
    id: StreamId,
    revision: u64,
    until: Option<Position>,
    ended: bool,
}

impl Stream<'_> {
    async fn next(&mut self, limit: usize) -> Result<Vec<Record>, Problem> {
        if self.ended {
            return Ok(Vec::new());
        }
        let log = &self.call.service.ledger.ports.log;
        let mut records = log.stream(&self.id, self.revision, limit).await?;
        self.ended = records.len() < limit;
        if let Some(until) = self.until {
            let all = records.len();
            records.retain(|record| record.position() <= until);
            self.ended |= records.len() < all;
        }
        if let Some(last) = records.last() {
            self.revision = last.revision();
        }
        Ok(records)
    }
}

pub(crate) async fn history(call: Call) -> Answer {
    let (kind, id) = (call.kind()?, call.id()?);
    let limit = page_size(&call);
    let after = match call.params.text(&PAGE_TOKEN) {
        None => 0,
        Some(text) => {
            number(text).ok_or_else(|| Problem::parameter(PAGE_TOKEN.name, "does not read"))?
        }
    };
    let position = call.service.ledger.ports.log.head().await?.position;
    let until = until(&call).await?;
    let mut stream = Stream {
        call: &call,
        id: StreamId::new(kind.name, id),
        // No stream is that long; stores count in 63 bits.
        revision: after.min(i64::MAX as u64),
        until,
        ended: false,
    };
    let mut items: Vec<Record> = Vec::new();
    // One more than the page, to know whether there is a next one.
    while items.len() <= limit && !stream.ended {
        let records = stream.next(PAGE).await?;
        items.extend(records.into_iter().filter(|record| call.covers(record.project())));
    }
    if items.is_empty() && after == 0 {
        return Err(Call::missing(kind, id));
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|record| record.revision().to_string());
    let items: Vec<Value> =
        items.iter().map(|record| show::record(record, &call.principal.reach)).collect();
    let position = until.unwrap_or(position);
    let body = json!({"items": items, "next_page_token": next, "position": position});
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

pub(crate) async fn difference(call: Call) -> Answer {
    let (kind, id) = (call.kind()?, call.id()?);
    let (from, to) = moments(&call).await?;
    let views = &call.service.ledger.ports.views;
    let mut sides = [None, None];
    for (side, at) in sides.iter_mut().zip([from, to]) {
        let row = views.get(INVENTORY, &id.to_string(), Some(at)).await?;
        *side = row
            .map(|row| row.body)
            .filter(|body| body["kind"] == kind.name && call.covers(project_of(body)));
    }
    let [before, after] = sides;
    if before.is_none() && after.is_none() {
        return Err(Call::missing(kind, id));
    }
    let mut body = if before == after {
        json!({"key": id, "change": "none", "fields": []})
    } else {
        compared(&id.to_string(), before, after, &call.principal.reach)
    };
    body["from"] = json!(from);
    body["to"] = json!(to);
    Ok(at_position(answer(StatusCode::OK, &body), to))
}

pub(crate) async fn why(call: Call) -> Answer {
    let (kind, id) = (call.kind()?, call.id()?);
    let field = call.params.text(&FIELD).filter(|field| !field.is_empty());
    let field = field.ok_or_else(|| {
        Problem::parameter(FIELD.name, "is needed, for instance name or state.wanted")
    })?;
    if show::is_secret(field) {
        return Err(Problem::parameter(FIELD.name, "secrets are not shown, nor compared"));
    }
    if show::is_of_other_hosts(field) && !call.covers(None) {
        return Err(Problem::parameter(FIELD.name, "is the estate's"));
    }
    let broken =
        |what: String| Problem { fault: Some(what), ..Problem::new(&INTERNAL, INTERNAL.title) };
    let view = VIEWS.iter().find(|view| view.name() == INVENTORY);
    let view = view.ok_or_else(|| broken("there is no inventory".to_owned()))?;
    let mut stream = Stream {
        call: &call,
        id: StreamId::new(kind.name, id),
        revision: 0,
        until: until(&call).await?,
        ended: false,
    };
    let key = id.to_string();
    let (mut row, mut body, mut value, mut found) = (None, Value::Null, Value::Null, None);
    let mut before = Value::Null;
    while !stream.ended {
        for record in stream.next(PAGE).await? {
            row = view.fold(&key, row, &record).map_err(|fault| broken(fault.to_string()))?;
            let bytes = row.as_ref().map(|row| row.body()).unwrap_or_default();
            body = serde_json::from_slice(&bytes).unwrap_or_default();
            let now = resolve(&body, field).or_else(|| resolve(&body["state"], field)).cloned();
            let now = now.unwrap_or_default();
            if now != value {
                before = std::mem::replace(&mut value, now);
                found = Some(record);
            }
        }
    }
    if row.is_none() || !call.covers(project_of(&body)) {
        return Err(Call::missing(kind, id));
    }
    let Some(record) = found else {
        let what = format!("{field:?} was never set; see the resource for its fields");
        return Err(Problem::parameter(FIELD.name, what));
    };
    let position = record.position();
    // Under the field's own name, by which it is known what is secret in it.
    let name = field.rsplit('.').next().unwrap_or(field);
    let mut shown = json!({"value": {name: value}, "before": {name: before}});
    show::redact(&mut shown, &call.principal.reach);
    // Who did it while it was another project's is that project's business.
    let event = call.covers(record.project()).then(|| show::record(&record, &call.principal.reach));
    if event.is_none() {
        shown["before"][name] = Value::Null;
    }
    let body = json!({
        "kind": kind.name,
        "id": id,
        "field": field,
        "value": shown["value"][name],
        "before": shown["before"][name],
        "position": position,
        "recorded_at": show::time(record.recorded_at()),
        "revision": record.revision(),
        "event": event,
    });
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// The value at a path. A member's name may hold dots, as tags' do.
fn resolve<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => {
            if let Some(found) = members.get(path) {
                return Some(found);
            }
            path.match_indices('.')
                .find_map(|(at, _)| resolve(members.get(&path[..at])?, &path[at + 1..]))
        }
        Value::Array(items) => {
            let (index, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
            let item = items.get(number(index)? as usize)?;
            rest.map_or(Some(item), |rest| resolve(item, rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_through_members_with_dots_and_through_lists() {
        let value = json!({"a": {"b": [1, {"c": 2}]}, "tags": {"x.y": "z"}});
        assert_eq!(resolve(&value, "a.b.1.c"), Some(&json!(2)));
        assert_eq!(resolve(&value, "tags.x.y"), Some(&json!("z")));
        assert_eq!(resolve(&value, "a.c"), None);
        assert_eq!(resolve(&value, ""), None);
    }
}
