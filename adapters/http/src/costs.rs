//! Bills in as files; costs out, each with its origin.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{Arc, PoisonError},
    time::Duration,
};

use ::commands::{
    allocate::allocate_by,
    attribute::{AxisQuery, Placer, attributed, explain_attributed},
    bills::{self, Booked, Counting, Import, OnRepeats},
    compare::{self, Compare, Row},
    origin::{Flow, Step, explain_allocated},
    ports::{BillFault, BillStore, ReadBill, Reading},
    terms::{Effect, effects},
};
use axum::{body::Body, http::StatusCode};
use bytes::{Buf, Bytes};
use domain::{
    finops::{
        amount::Amount,
        attribution::Axis,
        bill::Manner,
        cost::{Basis, Table},
        line::Line,
        repricing::Repricings,
        terms::Terms,
    },
    kernel::Role,
    log::Position,
};
use futures::StreamExt;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::{
    anomalies,
    asked::{self, Asked, blocking},
    budgets,
    call::{Answer, Call, answer, at_position},
    problem::{
        BILL_UNREADABLE, INTERNAL, Problem, REQUEST_TIMEOUT, SEGMENT_DAMAGED, SEGMENTS_UNAVAILABLE,
    },
    queries::page_size,
    routes::{
        ALLOCATED, COMPARE, DIGITS, FROM_MONTH, MANNER, MAPPING, REASON, REPEATS, SOURCE, STRICT,
        TO_MONTH,
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
    let repeats = match call.params.text(&REPEATS) {
        None => OnRepeats::default(),
        Some(name) => OnRepeats::by_name(name)
            .ok_or_else(|| Problem::parameter(REPEATS.name, "is refuse, skip or count"))?,
    };
    let (source, reason, by) = (text(&SOURCE), text(&REASON), call.principal.clone());
    let import = Import { source, manner, reason, by, repeats };
    let body = std::mem::take(call.body.get_mut().unwrap_or_else(PoisonError::into_inner));
    let ledger = Arc::clone(&call.service.ledger);
    let read = read(body, Arc::clone(&ledger.ports.bills), how).await?;
    let Booked { outcomes, parts, repeats } = ledger.book(&read, &import).await?;
    let position = outcomes.iter().map(|outcome| outcome.position).max().unwrap_or_default();
    // Whoever asks for costs at once, from wherever, finds what was booked. When views are late it
    // is booked all the same, and answers say which position they show.
    let _ = ledger.ports.views.reach_position(position, VIEWS_PATIENCE).await;
    let created = ledger.create_after_booking(&read, &call.principal).await?;
    let anomalies = anomalies::after_import(&ledger).await;
    let budgets = budgets::after_import(&ledger).await;
    let bills: Vec<Value> = parts
        .iter()
        .zip(&outcomes)
        .zip(&repeats)
        .map(|((part, outcome), repeats)| {
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
                "repeats": {"lines": repeats.lines, "shown": repeats.shown},
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
    let statements: Vec<Value> = outcomes[bills.len()..]
        .iter()
        .map(|outcome| {
            json!({
                "kind": outcome.kind,
                "id": outcome.id,
                "revision": outcome.revision,
                "repeated": outcome.events.is_empty(),
            })
        })
        .collect();
    let body = json!({
        "data_set": read.data_set,
        "source_digest": read.source_digest,
        "statements": statements,
        "bills": bills,
        "created_projects": created,
        "findings": findings,
        "anomalies": anomalies,
        "budgets": budgets,
        "quarantined": {"lines": read.quarantined, "missing": read.missing, "shown": shown},
        "position": position,
    });
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// What was asked, and of what: the same digest and the same question give the same numbers.
fn asked_of(counting: &Counting, query: &AxisQuery, asked: &Asked) -> Value {
    let terms = &asked.whose.terms;
    json!({
        "currency": terms.currency,
        "repriced": terms.repricings.is_some(),
        "basis": query.basis.name(),
        "group_by": query.groups.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "inputs": asked.inputs(counting, query.of_lines().is_some()),
        "bills": counting.bills.len(),
        "rule_set": asked.shown(),
        "position": counting.position,
    })
}

/// Every axis of a question.
fn axes(query: &AxisQuery) -> Vec<&Axis> {
    query.groups.iter().chain(query.filters.iter().map(|(axis, _)| axis)).collect()
}

/// The bills of the period that costs are compared with, and how many months back it is.
async fn compared(
    call: &Call,
    groups: &[String],
    position: Position,
) -> Result<Option<(Counting, u32)>, Problem> {
    let Some(name) = call.params.text(&COMPARE) else { return Ok(None) };
    let compare = Compare::by_name(name)
        .ok_or_else(|| Problem::parameter(COMPARE.name, "is previous or year"))?;
    let Some(from) = asked::month(call, &FROM_MONTH)? else {
        return Err(Problem::parameter(FROM_MONTH.name, "says which months are compared"));
    };
    let to = asked::month(call, &TO_MONTH)?.unwrap_or(from);
    let (from, to, back) =
        compare.with(from, to, groups).map_err(|what| Problem::parameter(COMPARE.name, what))?;
    Ok(Some((call.service.ledger.bills(from, to, Some(position)).await?, back)))
}

/// A row's numbers, with the other period's beside them.
fn numbers(row: &Row) -> Value {
    let mut item = json!({"amount": row.amount, "lines": row.lines});
    if let Some(other) = &row.other {
        item["other"] = json!(other.amount);
        item["difference"] = json!(other.difference);
        item["growth"] = json!(other.growth.as_ref().ok());
        if let Err(why) = &other.growth {
            item["growth_reason"] = json!(why);
        }
    }
    item
}

/// A row as a member of a list.
fn item(row: &Row, groups: &[String]) -> Value {
    let values = row.group.iter().map(|value| match value.as_str() {
        "" => Value::Null,
        value => json!(value),
    });
    let group: Map<String, Value> = groups.iter().cloned().zip(values).collect();
    let mut item = numbers(row);
    item["group"] = json!(group);
    item["currency"] = json!(row.currency);
    item
}

/// What the bills come to by the axes that are asked for, before or after what is shared is spread.
fn table(
    store: &dyn BillStore,
    counting: &Counting,
    asked: &Asked,
    query: &AxisQuery,
    spread: bool,
) -> Result<Table, Problem> {
    Ok(if spread {
        let allocated = allocate_by(store, counting, &asked.whose, query)?;
        allocated.costs(&asked.whose, query)?
    } else {
        attributed(store, counting, &asked.whose, query)?
    })
}

/// Sums by group.
pub(crate) async fn costs(call: Call) -> Answer {
    let query = asked::query(&call)?;
    let counting = asked::counting(&call).await?;
    let spread = call.params.flag(&ALLOCATED);
    let mut axes = axes(&query);
    if spread {
        axes.push(&Axis::Project);
    }
    let groups: Vec<String> = query.groups.iter().map(ToString::to_string).collect();
    let other = compared(&call, &groups, counting.position).await?;
    // What is known of both periods.
    let mut both = counting.clone();
    both.bills.extend(other.iter().flat_map(|(other, _)| other.bills.iter().cloned()));
    let asked = asked::whose(&call, &both, &axes).await?;
    let digits = call.params.number(&DIGITS).map(|digits| digits as u32);
    let limit = page_size(&call);
    let store = Arc::clone(&call.service.ledger.ports.bills);
    let position = counting.position;
    let body = blocking(move || {
        let now = table(store.as_ref(), &counting, &asked, &query, spread)?;
        let then = match &other {
            Some((other, back)) => {
                Some((table(store.as_ref(), other, &asked, &query, spread)?, *back))
            }
            None => None,
        };
        let then = then.as_ref().map(|(then, back)| (then, *back));
        let answered = compare::Answer::of(&now, then, &groups, digits).map_err(BillFault::from)?;
        let rows = &answered.rows;
        let items: Vec<Value> = rows.iter().take(limit).map(|row| item(row, &groups)).collect();
        let total = |row: &Row| (row.currency.to_string(), numbers(row));
        let totals: Map<String, Value> = answered.totals.iter().map(total).collect();
        let mut rest: BTreeMap<String, Amount> = BTreeMap::new();
        for row in rows.iter().skip(limit) {
            let own = rest.entry(row.currency.to_string()).or_default();
            *own = Amount(own.0.saturating_add(row.amount.0));
        }
        let mut body = asked_of(&counting, &query, &asked);
        if let Some((other, _)) = &other {
            body["compared_with"] = json!({"inputs": other.digest(), "bills": other.bills.len()});
        }
        body["allocated"] = json!(spread);
        body["items"] = json!(items);
        // What is not shown, so that what is shown and this come to the total.
        body["rest"] = json!(rest);
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

/// What was said of prices and currencies, and what it made of the lines of a bill.
fn effect(effect: &Effect, terms: &Terms) -> Value {
    let Effect { applied, lines, before, after } = effect;
    let repricing = applied.repricing.and_then(|(id, revision)| {
        let mut all = terms.repricings.iter().flat_map(Repricings::all);
        all.find(|one| (one.id, one.revision) == (id, revision))
    });
    let repricing = repricing.map(|one| {
        json!({
            "id": one.id, "name": one.definition.name, "revision": one.revision,
            "price": one.definition.price, "scope": one.definition.scope,
            "from": one.definition.from, "position": one.position,
            "as_of": applied.repriced_at,
        })
    });
    let rate = applied.exchange_rate.and_then(|(id, revision)| {
        let mut all = terms.rates.all();
        all.find(|(_, one)| (one.id, one.revision) == (id, revision))
    });
    let closing = terms.closed.get(&applied.bill);
    let rate = rate.map(|((from, to), one)| {
        json!({
            "id": one.id, "revision": one.revision, "from": from, "to": to, "day": one.day,
            "rate": one.rate, "source": one.source, "position": one.position,
            "as_of": applied.converted_at,
            "known_at_closing": closing.map(|position| *position == applied.converted_at),
        })
    });
    json!({
        "bill": applied.bill,
        "month": applied.month,
        "closed_at": closing,
        "currency": applied.currency,
        "lines": lines,
        "before": before,
        "after": after,
        "repricing": repricing,
        "exchange_rate": rate,
    })
}

/// How the number is made of the lines.
fn formula(basis: Basis, terms: &Terms) -> String {
    let mut formula = format!("sum of {} over the lines", basis.column());
    if terms.repricings.is_some() {
        formula.push_str(", times the re-pricing's factor");
    }
    if terms.currency.is_some() {
        formula.push_str(", times the exchange rate of the month");
    }
    formula
}

fn flow(flow: &Flow) -> Value {
    json!({
        "before": flow.before,
        "received": flow.received,
        "given": flow.given,
        "after": flow.after,
    })
}

fn step(step: &Step) -> Value {
    json!({
        "rule": step.rule,
        "source": step.source,
        "target": step.target,
        "currency": step.currency,
        "month": step.month,
        "charge_category": step.category,
        "of": step.of,
        "amount": step.amount,
        "share": step.share.to_string(),
        "percent": step.percent(),
    })
}

/// Where a number comes from: segments, the events that brought them, and the largest lines.
pub(crate) async fn explain(call: Call) -> Answer {
    let query = asked::query(&call)?;
    let counting = asked::counting(&call).await?;
    let spread = call.params.flag(&ALLOCATED);
    let mut axes = axes(&query);
    if spread {
        axes.push(&Axis::Project);
    }
    let asked = asked::whose(&call, &counting, &axes).await?;
    let most = page_size(&call);
    let ledger = Arc::clone(&call.service.ledger);
    let store = Arc::clone(&ledger.ports.bills);
    let position = counting.position;
    let (explained, shown, mut body) = blocking(move || {
        let (mut origin, mut of_lines) = (None, query.clone());
        let explained = match query.of_lines() {
            _ if spread => {
                let whose = &asked.whose;
                let found = explain_allocated(store.as_ref(), &counting, whose, &query, most)?;
                origin = Some((found.digest, found.flows, found.steps));
                of_lines = found.asked;
                found.explained
            }
            Some(plain) => bills::explain(store.as_ref(), &counting, &plain, most)?,
            None => explain_attributed(store.as_ref(), &counting, &asked.whose, &query, most)?,
        };
        let placer = Placer::new(&asked.whose, vec![])?;
        let shown: Vec<Value> = explained
            .lines
            .iter()
            .map(|(digest, one)| {
                let mut shown = line(digest, one, query.basis);
                if asked.rule_set.is_some() {
                    let (place, _) = placer.place(one);
                    shown["placed"] = json!({
                        "centre": place.centre, "by": place.by.name(), "rule": place.rule,
                    });
                }
                shown
            })
            .collect();
        let mut body = asked_of(&counting, &query, &asked);
        let terms = &asked.whose.terms;
        body["formula"] = json!(formula(query.basis, terms));
        body["totals"] = json!(explained.totals);
        if !terms.is_none() {
            let query = AxisQuery { groups: vec![], ..of_lines };
            let effects = effects(store.as_ref(), &counting, &asked.whose, &query)?;
            let table = attributed(store.as_ref(), &counting, &asked.whose, &query)?;
            let totals = table.totals().map_err(BillFault::from)?.into_iter();
            let totals: BTreeMap<_, _> =
                totals.map(|(currency, sum)| (currency, sum.amount)).collect();
            body["totals"] = json!(totals);
            let effects: Vec<Value> = effects.iter().map(|one| effect(one, terms)).collect();
            body["terms"] = json!(effects);
        }
        body["allocated"] = json!(spread);
        if let Some((digest, flows, steps)) = origin {
            body["formula"] = json!("before + received - given, of lines that rules have placed");
            body["totals"] =
                flows.iter().map(|(of, flow)| (of.to_string(), json!(flow.after))).collect();
            body["flows"] = flows.iter().map(|(of, one)| (of.to_string(), flow(one))).collect();
            body["movements"] = steps.iter().map(step).collect();
            body["digest"] = json!(digest);
        }
        Ok((explained, shown, body))
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
    body["parts"] = json!(parts);
    body["lines"] = json!(shown);
    Ok(at_position(answer(StatusCode::OK, &body), position))
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
