//! Views folded from the log anew for every question: slow, and as simple as can be.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ::commands::ports::{
    Cell, Change, Difference, EventLog, Filter, Op, Page, PageToken, Query, Row, Verified,
    ViewFault, Views,
};
use async_trait::async_trait;
use domain::{
    kernel::{Reach, canonical_bytes, sha256},
    log::Position,
};
use projections::{
    view::{Lens, RowState, Value as Column, View},
    views::{LENSES, VIEWS},
};
use serde_json::Value;

pub(crate) struct FoldedViews {
    pub(crate) log: Arc<dyn EventLog>,
    /// Views have not seen anything after this position.
    pub(crate) stuck_at: Mutex<Option<Position>>,
}

struct Folded {
    view: &'static dyn View,
    lens: Option<&'static Lens>,
    rows: BTreeMap<String, (Position, Box<dyn RowState>)>,
}

fn cell(value: &Column) -> Cell {
    match value {
        Column::Null => Cell::Null,
        Column::Boolean(yes) => Cell::Boolean(*yes),
        Column::Integer(number) => Cell::Integer(*number),
        Column::Text(text) => Cell::Text(text.clone()),
    }
}

impl Folded {
    fn value(&self, row: &dyn RowState, name: &str) -> Result<Cell, ViewFault> {
        if let Some(place) = self.view.columns().iter().position(|column| column.name == name) {
            return Ok(cell(&row.columns()[place]));
        }
        let body: Value = serde_json::from_slice(&row.body()).unwrap();
        let found = match name.split_once('.') {
            Some(("tags", tag)) => &body["tags"][tag],
            Some(("state", path)) => path.split('.').fold(&body["state"], |at, step| &at[step]),
            _ => return Err(ViewFault::Query(format!("no column {name}"))),
        };
        Ok(match found {
            Value::Null => Cell::Null,
            Value::String(text) => Cell::Text(text.clone()),
            other => Cell::Text(other.to_string()),
        })
    }

    fn holds(&self, row: &dyn RowState, filter: &Filter) -> Result<bool, ViewFault> {
        let value = self.value(row, &filter.column)?;
        let text = |cell: &Cell| match cell {
            Cell::Text(text) => text.to_lowercase(),
            _ => String::new(),
        };
        let first = filter.values.first().cloned().unwrap_or(Cell::Null);
        Ok(match filter.op {
            Op::In => filter.values.contains(&value),
            Op::NotIn => !filter.values.contains(&value),
            _ if value == Cell::Null => false,
            Op::Less => value < first,
            Op::Greater => value > first,
            Op::Prefix => {
                matches!((&value, &first), (Cell::Text(v), Cell::Text(p)) if v.starts_with(p.as_str()))
            }
            Op::Contains => text(&value).contains(&text(&first)),
        })
    }

    fn wanted(&self, row: &dyn RowState, query: &Query) -> Result<bool, ViewFault> {
        for filter in &query.filters {
            if !self.holds(row, filter)? {
                return Ok(false);
            }
        }
        self.in_scope(row, &query.reach)
    }

    fn in_scope(&self, row: &dyn RowState, reach: &Reach) -> Result<bool, ViewFault> {
        for (column, value) in self.lens.map_or(&[][..], |lens| lens.only) {
            let is = self.value(row, column)?;
            let wanted = match value {
                Some(value) => is == Cell::from(*value),
                None => is != Cell::Null,
            };
            if !wanted {
                return Ok(false);
            }
        }
        Ok(match reach {
            Reach::All => true,
            Reach::Host(_) => false,
            Reach::Projects(_) => match self.value(row, "project")? {
                Cell::Text(id) => reach.covers(id.parse().ok()),
                _ => false,
            },
        })
    }

    fn shown(&self, row: &dyn RowState) -> Value {
        let body = serde_json::from_slice(&row.body()).unwrap();
        self.lens
            .map_or_else(|| body, |lens| (lens.show)(&serde_json::from_slice(&row.body()).unwrap()))
    }
}

impl FoldedViews {
    async fn head(&self) -> Result<Position, ViewFault> {
        let head = self.log.head().await?.position;
        Ok(self.stuck_at.lock().unwrap().map_or(head, |stuck| stuck.min(head)))
    }

    async fn fold(
        &self,
        name: &str,
        at: Option<Position>,
    ) -> Result<(Folded, Position), ViewFault> {
        let lens = LENSES.iter().find(|lens| lens.name == name);
        let view_name = lens.map_or(name, |lens| lens.view);
        let view = VIEWS.iter().find(|view| view.name() == view_name);
        let view = *view.ok_or_else(|| ViewFault::Query(format!("no view {name}")))?;
        let head = self.head().await?;
        let at = at.unwrap_or(head);
        if at > head {
            return Err(ViewFault::Behind { position: head, wanted: at });
        }
        let mut rows: BTreeMap<String, (Position, Box<dyn RowState>)> = BTreeMap::new();
        for record in self.log.read(0, at as usize).await? {
            for key in view.keys(&record) {
                let row = rows.remove(&key).map(|(_, row)| row);
                if let Some(row) = view.fold(&key, row, &record).unwrap() {
                    rows.insert(key, (record.position(), row));
                }
            }
        }
        Ok((Folded { view, lens, rows }, at))
    }
}

#[async_trait]
impl Views for FoldedViews {
    async fn list(&self, view: &str, query: &Query) -> Result<Page, ViewFault> {
        let digest = sha256(&canonical_bytes(&(&query.filters, &query.order, &query.reach)));
        let digest = u64::from_be_bytes(*digest.first_chunk().unwrap());
        if query.token.as_ref().is_some_and(|token| token.query != digest) {
            return Err(ViewFault::Query("the page token belongs to another query".into()));
        }
        let at = query.token.as_ref().map(|token| token.at).or(query.at);
        let (folded, position) = self.fold(view, at).await?;
        let mut found = Vec::new();
        for (key, (from, row)) in &folded.rows {
            if folded.wanted(row.as_ref(), query)? {
                let mut sort = Vec::new();
                for order in &query.order {
                    sort.push((folded.value(row.as_ref(), &order.column)?, order.descending));
                }
                found.push((sort, key.clone(), *from, folded.shown(row.as_ref())));
            }
        }
        found.sort_by(|a, b| {
            let sorts = a.0.iter().zip(&b.0).map(
                |((a, descending), (b, _))| {
                    if *descending { b.cmp(a) } else { a.cmp(b) }
                },
            );
            sorts.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(a.1.cmp(&b.1))
        });
        if let Some(token) = &query.token {
            let after = found.iter().position(|(_, key, ..)| *key == token.key);
            found.drain(..=after.ok_or_else(|| ViewFault::Query("token".into()))?);
        }
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let next = found.last().filter(|_| more).map(|(sort, key, ..)| PageToken {
            at: position,
            last: sort.iter().map(|(cell, _)| cell.clone()).collect(),
            key: key.clone(),
            query: digest,
        });
        let rows = found.into_iter();
        let rows = rows.map(|(_, key, from, body)| Row { key, from, to: None, body }).collect();
        Ok(Page { rows, next, position })
    }

    async fn count(&self, view: &str, query: &Query, bound: u64) -> Result<u64, ViewFault> {
        let query = Query { limit: bound as usize, token: None, ..query.clone() };
        Ok(self.list(view, &query).await?.rows.len() as u64)
    }

    async fn get(
        &self,
        view: &str,
        key: &str,
        at: Option<Position>,
    ) -> Result<Option<Row>, ViewFault> {
        let (folded, _) = self.fold(view, at).await?;
        let Some((from, row)) = folded.rows.get(key) else { return Ok(None) };
        if !folded.in_scope(row.as_ref(), &Reach::All)? {
            return Ok(None);
        }
        let body = folded.shown(row.as_ref());
        Ok(Some(Row { key: key.to_owned(), from: *from, to: None, body }))
    }

    async fn diff(
        &self,
        view: &str,
        from: Position,
        to: Position,
        query: &Query,
        after_key: Option<&str>,
    ) -> Result<Difference, ViewFault> {
        let mut sides: BTreeMap<String, (Option<Value>, Option<Value>, bool)> = BTreeMap::new();
        for (at, second) in [(from, false), (to, true)] {
            let (folded, _) = self.fold(view, Some(at)).await?;
            for (key, (_, row)) in &folded.rows {
                if !folded.in_scope(row.as_ref(), &query.reach)? {
                    continue;
                }
                let side = sides.entry(key.clone()).or_default();
                side.2 |= folded.wanted(row.as_ref(), query)?;
                *(if second { &mut side.1 } else { &mut side.0 }) =
                    Some(folded.shown(row.as_ref()));
            }
        }
        let mut changes: Vec<Change> = sides
            .into_iter()
            .filter(|(key, (before, after, wanted))| {
                *wanted && before != after && after_key.is_none_or(|last| key.as_str() > last)
            })
            .map(|(key, (before, after, _))| Change { key, before, after })
            .collect();
        let more = changes.len() > query.limit;
        changes.truncate(query.limit);
        let next = changes.last().filter(|_| more).map(|last| last.key.clone());
        Ok(Difference { changes, next })
    }

    async fn position(&self, _: &str) -> Result<Position, ViewFault> {
        self.head().await
    }

    async fn reach_position(&self, wanted: Position, _: Duration) -> Result<(), ViewFault> {
        let position = self.head().await?;
        if position < wanted { Err(ViewFault::Behind { position, wanted }) } else { Ok(()) }
    }

    async fn rebuild(
        &self,
        _: &str,
        _: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<(), ViewFault> {
        Ok(())
    }

    async fn verify(
        &self,
        view: &str,
        _: usize,
        _: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<Verified, ViewFault> {
        Err(ViewFault::Query(format!("{view} is not stored")))
    }
}
