//! Queries: lists of kinds, views and lenses, single resources, and what differs between moments.

use std::collections::HashSet;

use ::commands::ports::{Cell, Filter, Op, Order, PageToken, Query};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::{
    kernel::{OrderKey, Reach, StreamId, canonical_bytes, fields, sha256},
    log::Position,
};
use projections::view::ColumnType;
use serde_json::{Value, json};

use crate::{
    call::{Answer, Call, answer, at_position},
    commands::etag,
    filter,
    problem::{INVALID_FILTER, Problem},
    routes::{
        AT, COUNT, FILTER, FROM, IF_NONE_MATCH, ORDER_BY, PAGE_SIZE, PAGE_TOKEN, SHOW_GONE, TO,
        VIEW,
    },
    show,
    source::{Source, source, sources},
};

/// Items on a page when the caller does not say.
const PAGE_SIZE_DEFAULT: usize = 100;
/// Rows are counted up to here: what a count of everything costs has an end.
const COUNT_MAX: u64 = 100_000;

/// Where every kind's rows are.
pub(crate) const INVENTORY: &str = "inventory";

pub(crate) async fn list_kind(call: Call) -> Answer {
    let kind = call.kind()?;
    let source = source(INVENTORY).ok_or_else(|| Problem::parameter(VIEW.name, "is missing"))?;
    let only = Filter { column: "kind".into(), op: Op::In, values: vec![kind.name.into()] };
    list(call, source, vec![only]).await
}

pub(crate) async fn list_source(call: Call) -> Answer {
    let source = call.source()?;
    list(call, source, Vec::new()).await
}

pub(crate) fn page_size(call: &Call) -> usize {
    call.params.number(&PAGE_SIZE).map_or(PAGE_SIZE_DEFAULT, |size| size as usize)
}

fn read_filter(call: &Call, source: Source) -> Result<Vec<Filter>, Problem> {
    let text = call.params.text(&FILTER).unwrap_or_default();
    let wrong = |what: String| Problem::new(&INVALID_FILTER, format!("filter: {what}"));
    let filters = filter::filters(text, source.view.columns()).map_err(wrong)?;
    let estate = |filter: &&Filter| show::tells_of_other_hosts(&filter.column);
    if !call.covers(None)
        && let Some(filter) = filters.iter().find(estate)
    {
        return Err(wrong(format!("{} is the estate's", filter.column)));
    }
    Ok(filters)
}

fn read_order(call: &Call, source: Source) -> Result<Vec<Order>, Problem> {
    let Some(text) = call.params.text(&ORDER_BY) else { return Ok(Vec::new()) };
    filter::orders(text, source.view.columns())
        .map_err(|what| Problem::parameter(ORDER_BY.name, what))
}

async fn list(call: Call, source: Source, fixed: Vec<Filter>) -> Answer {
    source.readable(&call.principal.reach)?;
    let mut filters = read_filter(&call, source)?;
    let order = read_order(&call, source)?;
    let asks_for_gone = filters.iter().any(|filter| filter.column == "gone");
    if source.column("gone").is_some() && !asks_for_gone && !call.params.flag(&SHOW_GONE) {
        let values = vec![Cell::Boolean(false)];
        filters.push(Filter { column: "gone".into(), op: Op::In, values });
    }
    filters.extend(fixed);
    let token = match call.params.text(&PAGE_TOKEN) {
        None => None,
        Some(text) => {
            let token = PageToken::decode(text)
                .ok_or_else(|| Problem::parameter(PAGE_TOKEN.name, "does not read"))?;
            call.logged(PAGE_TOKEN.name, token.at).await?;
            call.seen(token.at).await?;
            Some(token)
        }
    };
    let at = call.at().await?;
    let limit = page_size(&call);
    let reach = call.principal.reach.clone();
    let query = Query { filters, order, limit, token, at, reach };
    let ports = &call.service.ledger.ports;
    let page = ports.views.list(source.name, &query).await?;
    let running = if source.name == "orders" && at.is_none() {
        ports.leases.held().await?.into_iter().collect()
    } else {
        HashSet::new()
    };
    let items: Vec<Value> = page
        .rows
        .into_iter()
        .map(|row| {
            let mut row = show::row(row.body, &call.principal.reach);
            mark_running(&mut row, &running);
            row
        })
        .collect();
    let mut body = json!({
        "items": items,
        "next_page_token": page.next.map(|next| next.encode()),
        "position": page.position,
    });
    if call.params.flag(&COUNT) {
        let counted = Query { token: None, at: Some(page.position), ..query };
        let count = ports.views.count(source.name, &counted, COUNT_MAX).await?;
        body["count"] = json!(count);
        body["count_is_lower_bound"] = json!(count >= COUNT_MAX);
    }
    Ok(at_position(answer(StatusCode::OK, &body), page.position))
}

/// An order that somebody holds the lease of is being worked on.
fn mark_running(row: &mut Value, running: &HashSet<String>) {
    if running.is_empty() {
        return;
    }
    let (Some(kind), Some(id), Some(number)) =
        (row["kind"].as_str(), row["id"].as_str(), row["number"].as_u64())
    else {
        return;
    };
    let key = OrderKey { stream: StreamId::new(kind, id), number }.to_string();
    if running.contains(&key) {
        row["order_state"] = json!("running");
    }
}

/// Whose a row is.
pub(crate) fn project_of(body: &Value) -> Option<uuid::Uuid> {
    body["project"].as_str().and_then(|id| id.parse().ok())
}

pub(crate) async fn get(call: Call) -> Answer {
    let (kind, id) = (call.kind()?, call.id()?);
    let at = call.at().await?;
    let views = &call.service.ledger.ports.views;
    // Asked for first: the row is as of this position or later.
    let position = match at {
        Some(at) => at,
        None => views.position(INVENTORY).await?,
    };
    let row = views.get(INVENTORY, &id.to_string(), at).await?;
    let row = row
        .filter(|row| row.body["kind"] == kind.name && call.covers(project_of(&row.body)))
        .ok_or_else(|| Call::missing(kind, id))?;
    let revision = row.body["revision"].as_u64().unwrap_or_default();
    let known = call.params.text(&IF_NONE_MATCH).is_some_and(|tags| matches_tag(tags, revision));
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut body = show::row(row.body, &call.principal.reach);
        // It is of now, and of what this process hears.
        let progress = call.service.ledger.progress(kind.name, &id.to_string());
        if let Some(progress) = progress.filter(|_| at.is_none()) {
            body["progress"] = json!(progress);
        }
        answer(StatusCode::OK, &body)
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(revision));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(at_position(response, position))
}

/// Whether one of the entity tags is this revision; compared weakly (RFC 9110 §13.1.2).
fn matches_tag(tags: &str, revision: u64) -> bool {
    let own = format!("\"{revision}\"");
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == own)
}

#[expect(clippy::unused_async, reason = "every handler of a route is asynchronous")]
pub(crate) async fn views(call: Call) -> Answer {
    let shown: Vec<Value> = sources()
        .filter(|source| source.readable(&call.principal.reach).is_ok())
        .map(|source| {
            let columns: Vec<Value> = source
                .view
                .columns()
                .iter()
                .map(|column| {
                    json!({
                        "name": column.name,
                        "type": match column.column_type {
                            ColumnType::Boolean => "boolean",
                            ColumnType::Integer if column.name.ends_with("_at") => "time",
                            ColumnType::Integer => "integer",
                            ColumnType::Text => "text",
                        },
                        "summary": column.summary,
                    })
                })
                .collect();
            json!({
                "name": source.name,
                "path": format!("/v1/{}", source.path()),
                "summary": source.summary,
                "columns": columns,
            })
        })
        .collect();
    Ok(answer(StatusCode::OK, &json!({ "items": shown })))
}

/// The two moments of a comparison; the later one is now when it is left out.
pub(crate) async fn moments(call: &Call) -> Result<(Position, Position), Problem> {
    call.seen_min_position().await?;
    let from = call.params.text(&FROM);
    let from = from.ok_or_else(|| Problem::parameter(FROM.name, "is needed"))?;
    let from = call.position(FROM.name, from).await?;
    let to = match call.params.text(&TO) {
        Some(text) => call.position(TO.name, text).await?,
        None => call.service.ledger.ports.views.position(INVENTORY).await?.max(from),
    };
    if to < from {
        return Err(Problem::parameter(TO.name, format!("is before {}", FROM.name)));
    }
    call.seen(to).await?;
    Ok((from, to))
}

/// Goes on with a comparison: positions, the last key, and a digest of what is compared.
fn diff_token(from: Position, to: Position, key: &str, digest: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(canonical_bytes(&json!([from, to, key, digest])))
}

fn read_diff_token(text: &str) -> Option<(Position, Position, String, String)> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

pub(crate) async fn difference(call: Call) -> Answer {
    let name = call.params.text(&VIEW).unwrap_or(INVENTORY);
    let source = source(name).ok_or_else(|| {
        let names: Vec<_> = sources().map(|source| source.name).collect();
        Problem::parameter(VIEW.name, format!("is one of {}", names.join(", ")))
    })?;
    source.readable(&call.principal.reach)?;
    let filters = read_filter(&call, source)?;
    let digest = sha256(&canonical_bytes(&(source.name, &filters)));
    let digest = domain::log::hex(&digest[..8]);
    let (from, to, after) = match call.params.text(&PAGE_TOKEN) {
        None => {
            let (from, to) = moments(&call).await?;
            (from, to, None)
        }
        Some(text) => {
            let wrong = |what| Problem::parameter(PAGE_TOKEN.name, what);
            let (from, to, key, of) = read_diff_token(text).ok_or(wrong("does not read"))?;
            if of != digest || from > to {
                return Err(wrong("belongs to another query"));
            }
            call.logged(PAGE_TOKEN.name, to).await?;
            call.seen(to).await?;
            (from, to, Some(key))
        }
    };
    let query = Query {
        filters,
        limit: page_size(&call),
        reach: call.principal.reach.clone(),
        ..Query::all()
    };
    let views = &call.service.ledger.ports.views;
    let found = views.diff(source.name, from, to, &query, after.as_deref()).await?;
    let changes: Vec<Value> = found
        .changes
        .into_iter()
        .map(|change| compared(&change.key, change.before, change.after, &call.principal.reach))
        .collect();
    let body = json!({
        "view": source.name,
        "from": from,
        "to": to,
        "changes": changes,
        "next_page_token": found.next.map(|key| diff_token(from, to, &key, &digest)),
    });
    Ok(at_position(answer(StatusCode::OK, &body), to))
}

/// One row at two moments, and the fields that differ.
pub(crate) fn compared(
    key: &str,
    before: Option<Value>,
    after: Option<Value>,
    reach: &Reach,
) -> Value {
    let shown = |body: Option<Value>| body.map(|body| show::row(body, reach));
    let (before, after) = (shown(before), shown(after));
    let empty = json!({});
    let differ: Vec<Value> =
        fields(before.as_ref().unwrap_or(&empty), after.as_ref().unwrap_or(&empty))
            .into_iter()
            .map(|one| json!({"field": one.field, "before": one.wanted, "after": one.seen}))
            .collect();
    let change = match (&before, &after) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    json!({"key": key, "change": change, "before": before, "after": after, "fields": differ})
}

/// The moment that a history or an explanation ends at; none is the log's end.
pub(crate) async fn until(call: &Call) -> Result<Option<Position>, Problem> {
    match call.params.text(&AT) {
        None => Ok(None),
        Some(text) => call.position(AT.name, text).await.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly_for_reading() {
        assert!(matches_tag("\"3\"", 3));
        assert!(matches_tag("\"2\", W/\"3\"", 3));
        assert!(matches_tag("*", 3));
        assert!(!matches_tag("3, \"33\"", 3));
    }

    #[test]
    fn a_held_order_is_shown_as_running() {
        let mut row = json!({"kind": "server", "id": "x", "number": 2, "order_state": "pending"});
        mark_running(&mut row, &HashSet::from(["server/x/2".to_owned()]));
        assert_eq!(row["order_state"], "running");
    }
}
