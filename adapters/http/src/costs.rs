//! Bills in as files; costs out, each with its origin.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    sync::{Arc, PoisonError},
    time::Duration,
};

use ::commands::{
    allocate::{AllocateFault, Share, allocate},
    bills::{self, Counting, Import},
    ports::{BillFault, BillStore, CostQuery, ReadBill, Reading},
};
use axum::{body::Body, http::StatusCode};
use bytes::{Buf, Bytes};
use domain::{
    finops::{
        amount::{Amount, BillingMonth},
        bill::Manner,
        cost::{Basis, Dimension, GROUPS_MAX},
        line::Line,
    },
    kernel::{Refusal, Role, codes},
};
use futures::StreamExt;
use projections::view::{Column, ColumnType, Indexing};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::{
    call::{Answer, Call, answer, at_position},
    filter,
    problem::{
        BILL_UNREADABLE, INTERNAL, INVALID_FILTER, Problem, REQUEST_TIMEOUT, SEGMENT_DAMAGED,
        SEGMENTS_UNAVAILABLE,
    },
    queries::page_size,
    routes::{
        BASIS, DRAFT, FILTER, FROM_MONTH, GROUP_BY, MANNER, MAPPING, REASON, RULE_SET, SOURCE,
        STRICT, TO_MONTH,
    },
    show,
};

/// Pieces of a file that wait to be read.
const PIECES: usize = 16;
/// The next piece of a file must have come by then.
const PIECE_PATIENCE: Duration = Duration::from_secs(30);

/// How long an import waits for the views.
const VIEWS_PATIENCE: Duration = Duration::from_secs(5);

/// The pieces of a body, for a thread that may block.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Problem::new(&INTERNAL, error.to_string()))?
}

/// Hands a body on piece by piece, and tells what was read of it.
async fn read(body: Body, store: Arc<dyn BillStore>, how: Reading) -> Result<ReadBill, Problem> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let reading = tokio::spawn(blocking(move || {
        let mut pieces = Pieces { pieces, piece: Bytes::new() };
        Ok(store.read(&mut pieces, &how)?)
    }));
    let mut stream = body.into_data_stream();
    loop {
        let piece = match tokio::time::timeout(PIECE_PATIENCE, stream.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(piece))) => Ok(piece),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no more of the file came")),
        };
        let late = piece.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        // Whoever reads has refused the file: what is left of it is not wanted.
        if sender.send(piece).await.is_err() {
            break;
        }
        if late {
            return Err(Problem::new(&REQUEST_TIMEOUT, "the file did not come in time"));
        }
    }
    drop(sender);
    reading.await.map_err(|error| Problem::new(&INTERNAL, error.to_string()))?
}

/// Takes a bill's file in.
pub(crate) async fn import(mut call: Call) -> Answer {
    call.principal.authorise(Role::Admin, None)?;
    let text = |parameter| call.params.text(parameter).unwrap_or_default().to_owned();
    let manner = match call.params.text(&MANNER) {
        None => Manner::default(),
        Some(name) => Manner::by_name(name)
            .ok_or_else(|| Problem::parameter(MANNER.name, "is add or replace"))?,
    };
    let how = Reading {
        mapping: call.params.text(&MAPPING).map(str::to_owned),
        strict: call.params.flag(&STRICT),
    };
    let import =
        Import { source: text(&SOURCE), manner, reason: text(&REASON), by: call.principal.clone() };
    let body = std::mem::take(call.body.get_mut().unwrap_or_else(PoisonError::into_inner));
    let ledger = Arc::clone(&call.service.ledger);
    let read = read(body, Arc::clone(&ledger.ports.bills), how).await?;
    let outcomes = ledger.book(&read, &import).await?;
    let position = outcomes.iter().map(|outcome| outcome.position).max().unwrap_or_default();
    // Whoever asks for costs at once, from wherever, finds what was booked. When views are late it
    // is booked all the same, and answers say which position they show.
    let _ = ledger.ports.views.reach_position(position, VIEWS_PATIENCE).await;
    let bills: Vec<Value> = read
        .parts
        .iter()
        .zip(&outcomes)
        .map(|(part, outcome)| {
            json!({
                "id": outcome.id,
                "billing_account": part.billing_account,
                "month": part.month,
                "segment": part.digest,
                "lines": part.lines,
                "sums": part.sums,
                "status": outcome.status,
                "revision": outcome.revision,
                "repeated": outcome.events.is_empty(),
            })
        })
        .collect();
    let shown: Vec<Value> = read
        .shown
        .iter()
        .map(|one| {
            json!({
                "line": one.line, "column": one.column, "value": one.value, "reason": one.reason,
            })
        })
        .collect();
    let findings: Map<String, Value> = read
        .findings
        .iter()
        .map(|(code, (lines, first))| (code.clone(), json!({"lines": lines, "first_line": first})))
        .collect();
    let body = json!({
        "source_digest": read.source_digest,
        "bills": bills,
        "findings": findings,
        "quarantined": {"lines": read.quarantined, "missing": read.missing, "shown": shown},
        "position": position,
    });
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// For the grammar of filters.
const fn text_column(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Text, indexing: Indexing::None, summary: "" }
}

static COLUMNS: [Column; Dimension::PLAIN.len()] = {
    let mut columns = [text_column(""); Dimension::PLAIN.len()];
    let mut at = 0;
    while at < columns.len() {
        columns[at] = text_column(Dimension::PLAIN[at]);
        at += 1;
    }
    columns
};

pub(crate) fn month(
    call: &Call,
    parameter: &'static crate::params::Parameter,
) -> Result<Option<BillingMonth>, Problem> {
    let Some(text) = call.params.text(parameter) else { return Ok(None) };
    let month = BillingMonth::try_from(text.to_owned());
    month.map(Some).map_err(|_| Problem::parameter(parameter.name, "is a month such as 2026-10"))
}

fn basis(call: &Call) -> Result<Basis, Problem> {
    let Some(name) = call.params.text(&BASIS) else { return Ok(Basis::default()) };
    Basis::by_name(name).ok_or_else(|| {
        let known = Basis::ALL.map(Basis::name).join(", ");
        Problem::parameter(BASIS.name, format!("is one of {known}"))
    })
}

fn query(call: &Call) -> Result<CostQuery, Problem> {
    let basis = basis(call)?;
    let names = call.params.text(&GROUP_BY).unwrap_or_default().split(',').map(str::trim);
    let groups = names
        .filter(|name| !name.is_empty())
        .map(|name| name.parse().map_err(|what| Problem::parameter(GROUP_BY.name, what)))
        .collect::<Result<Vec<Dimension>, _>>()?;
    let doubled = groups.iter().enumerate().any(|(at, one)| groups[..at].contains(one));
    if doubled || groups.len() > GROUPS_MAX {
        let what = format!("has at most {GROUPS_MAX} dimensions, each once");
        return Err(Problem::parameter(GROUP_BY.name, what));
    }
    let no = |what: String| Problem::new(&INVALID_FILTER, format!("filter: {what}"));
    let text = call.params.text(&FILTER).unwrap_or_default();
    let filters = filter::filters(text, &COLUMNS)
        .map_err(no)?
        .into_iter()
        .map(|filter| Ok((filter.column.parse().map_err(no)?, filter)))
        .collect::<Result<Vec<_>, Problem>>()?;
    Ok(CostQuery { basis, groups, filters })
}

/// The bills that are asked for: by default those of every month.
async fn counting(call: &Call) -> Result<Counting, Problem> {
    let first = month(call, &FROM_MONTH)?;
    let last = month(call, &TO_MONTH)?;
    let day = |year| chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default();
    let from = first.unwrap_or_else(|| BillingMonth::of(day(1)));
    let to = last.or(first).unwrap_or_else(|| BillingMonth::of(day(9_999)));
    if to < from {
        return Err(Problem::parameter(TO_MONTH.name, format!("is before {from}")));
    }
    let at = call.at().await?;
    Ok(call.service.ledger.bills(from, to, at).await?)
}

/// What was asked, and of what: the same digest and the same question give the same numbers.
fn asked(counting: &Counting, query: &CostQuery) -> Value {
    json!({
        "basis": query.basis.name(),
        "group_by": query.groups.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "inputs": counting.digest(),
        "bills": counting.bills.len(),
        "position": counting.position,
    })
}

/// Sums by group.
pub(crate) async fn costs(call: Call) -> Answer {
    let query = query(&call)?;
    let counting = counting(&call).await?;
    let limit = page_size(&call);
    let store = Arc::clone(&call.service.ledger.ports.bills);
    let position = counting.position;
    let body = blocking(move || {
        let table = bills::costs(store.as_ref(), &counting, &query)?;
        let rows = table.rows();
        let items: Vec<Value> = rows
            .iter()
            .take(limit)
            .map(|(key, currency, sum)| {
                let names = query.groups.iter().map(ToString::to_string);
                let values = key.iter().map(|value| match value.as_str() {
                    "" => Value::Null,
                    value => json!(value),
                });
                let group: Map<String, Value> = names.zip(values).collect();
                json!({
                    "group": group, "currency": currency, "amount": sum.amount, "lines": sum.lines,
                })
            })
            .collect();
        let totals: Map<String, Value> = table
            .totals()
            .map_err(BillFault::from)?
            .into_iter()
            .map(|(currency, sum)| {
                (currency.to_string(), json!({"amount": sum.amount, "lines": sum.lines}))
            })
            .collect();
        let mut body = asked(&counting, &query);
        body["items"] = json!(items);
        body["groups"] = json!(rows.len());
        body["totals"] = json!(totals);
        Ok(body)
    })
    .await?;
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

fn line(digest: &str, line: &Line, basis: Basis) -> Value {
    json!({
        "segment": digest,
        "line": line.number,
        "amount": basis.of(line),
        "currency": line.currency,
        "charge_category": line.category.name(),
        "charge_from": show::time(line.from),
        "charge_to": show::time(line.to),
        "service": line.service,
        "region": line.region,
        "resource": line.resource,
        "sub_account": line.sub_account,
        "description": line.description,
        "quantity": line.quantity,
        "unit": line.unit,
        "tags": line.tags,
    })
}

/// Where a number comes from: segments, the events that brought them, and the largest lines.
pub(crate) async fn explain(call: Call) -> Answer {
    let query = query(&call)?;
    let counting = counting(&call).await?;
    let most = page_size(&call);
    let ledger = Arc::clone(&call.service.ledger);
    let store = Arc::clone(&ledger.ports.bills);
    let position = counting.position;
    let asking = (counting.clone(), query.clone());
    let explained = blocking(move || {
        let (counting, query) = asking;
        Ok(bills::explain(store.as_ref(), &counting, &query, most)?)
    })
    .await?;
    let mut parts = Vec::with_capacity(explained.parts.len());
    for part in &explained.parts {
        let brought = ledger.import_of(part.bill, &part.segment.digest).await?;
        let event = brought.map(|record| {
            json!({
                "position": record.position(),
                "type": record.event_type(),
                "recorded_at": show::time(record.recorded_at()),
            })
        });
        parts.push(json!({
            "bill": part.bill,
            "version": part.version,
            "segment": part.segment.digest,
            "source": part.segment.source,
            "source_digest": part.segment.source_digest,
            "imported_by": part.segment.imported_by,
            "lines": part.lines,
            "sums": part.sums,
            "event": event,
        }));
    }
    let shown: Vec<Value> =
        explained.lines.iter().map(|(digest, one)| line(digest, one, query.basis)).collect();
    let mut body = asked(&counting, &query);
    body["formula"] = json!(format!("sum of {} over the lines", query.basis.column()));
    body["totals"] = json!(explained.totals);
    body["parts"] = json!(parts);
    body["lines"] = json!(shown);
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// Whose costs are: by the rules that count, or by the draft beside them.
pub(crate) async fn allocations(call: Call) -> Answer {
    let Some(id) = call.params.uuid(&RULE_SET) else {
        return Err(Problem::parameter(RULE_SET.name, "names the rules to allocate by"));
    };
    let basis = basis(&call)?;
    let counting = counting(&call).await?;
    let ledger = Arc::clone(&call.service.ledger);
    let set = ledger.rule_set(id, Some(counting.position)).await?;
    let missing = || Refusal::new(&codes::NOT_FOUND, format!("there is no rule set {id}"));
    let set = set.ok_or_else(missing)?;
    let draft = call.params.flag(&DRAFT);
    let published = set.published.clone().unwrap_or_default();
    let rules =
        if draft { set.draft.unwrap_or_else(|| published.clone()) } else { published.clone() };
    let store = Arc::clone(&ledger.ports.bills);
    let position = counting.position;
    let body = blocking(move || {
        let allocated = allocate(store.as_ref(), &counting, &rules, basis)?;
        let beside = if draft {
            Some(allocate(store.as_ref(), &counting, &published, basis)?)
        } else {
            None
        };
        let nothing = Share::default();
        let mut keys: BTreeSet<_> = allocated.shares.keys().collect();
        keys.extend(beside.iter().flat_map(|beside| beside.shares.keys()));
        let items: Vec<Value> = keys
            .into_iter()
            .map(|key| {
                let share = allocated.shares.get(key).unwrap_or(&nothing);
                let mut item = json!({
                    "centre": key.0, "currency": key.1,
                    "before": share.before, "after": share.after,
                });
                if let Some(beside) = &beside {
                    let other = beside.shares.get(key).unwrap_or(&nothing);
                    item["published"] = json!(other.after);
                    item["difference"] = json!(Amount(share.after.0.saturating_sub(other.after.0)));
                }
                item
            })
            .collect();
        let placed: Map<String, Value> = allocated
            .placed
            .iter()
            .map(|(rule, placed)| {
                (rule.clone(), json!({"lines": placed.lines, "sums": placed.sums}))
            })
            .collect();
        let movements: Vec<Value> = allocated
            .movements
            .iter()
            .map(|one| {
                json!({
                    "rule": one.rule, "source": one.source, "target": one.target,
                    "currency": one.currency, "amount": one.amount,
                })
            })
            .collect();
        Ok(json!({
            "rule_set": id,
            "revision": set.revision,
            "draft": draft,
            "basis": basis.name(),
            "items": items,
            "placed": placed,
            "movements": movements,
            "digest": allocated.digest,
            "position": position,
        }))
    })
    .await?;
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

impl From<AllocateFault> for Problem {
    fn from(fault: AllocateFault) -> Self {
        match fault {
            AllocateFault::Refused(refusal) => refusal.into(),
            AllocateFault::Costs(fault) => fault.into(),
        }
    }
}

impl From<BillFault> for Problem {
    fn from(fault: BillFault) -> Self {
        match fault {
            BillFault::Refused(detail) => Self::new(&BILL_UNREADABLE, detail),
            BillFault::Damaged { .. } => Self::new(&SEGMENT_DAMAGED, fault.to_string()),
            BillFault::TooLarge(_) => Self::new(&INTERNAL, fault.to_string()),
            BillFault::Unavailable(_) => Self::new(&SEGMENTS_UNAVAILABLE, fault.to_string()),
        }
    }
}
