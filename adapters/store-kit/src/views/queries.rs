//! The port [`Views`], for any store.

use std::time::Duration;

use async_trait::async_trait;
use commands::ports::{
    Change, Difference, LogFault, Page, PageToken, Query, Row, Verified, ViewFault, Views,
};
use domain::log::Position;
use projections::view::{Lens, stored_key};
use serde_json::Value as Json;

use super::{
    engine::{Engine, Inner},
    list::{Found, Lister, cell, selected},
    plan::{Plan, lens_conditions},
    sql::{Sql, SqlValue},
    store::{Registered, Snapshot, ViewStore},
    table::Table,
};

/// Keys of changed rows looked at in one go.
const CHANGED_AT_ONCE: usize = 400;

/// How long a reader waits for a view that is not served yet: within this a process that has just
/// started has found its tables, or made them.
const START: Duration = Duration::from_secs(2);

/// A view's or lens's table at one moment.
struct Reading<S> {
    snapshot: S,
    registered: Registered,
    lens: Option<&'static Lens>,
}

impl<S> Reading<S> {
    /// Whether the table has seen a position.
    fn ensure_seen(&self, wanted: Position) -> Result<(), ViewFault> {
        let position = self.registered.checkpoint.position;
        if wanted > position { Err(ViewFault::Behind { position, wanted }) } else { Ok(()) }
    }

    /// None when the position is the table's own: then there is no past to look at.
    fn past(&self, at: Option<Position>) -> Option<Position> {
        at.filter(|at| *at < self.registered.checkpoint.position)
    }

    fn shown(&self, body: Json) -> Json {
        self.lens.map_or_else(|| body.clone(), |lens| (lens.show)(&body))
    }
}

impl<S: ViewStore> Inner<S> {
    /// Whether a view has a table that is known to be of this log. Who asks a process that has
    /// just started waits for it, but not for one that is being built.
    async fn is_served(&self, view: &str) -> bool {
        let mut statuses = self.statuses.subscribe();
        let told = statuses.wait_for(|statuses| {
            statuses.get(view).is_none_or(|s| s.version.is_some() || s.building.is_some())
        });
        // What is not there by then is not about to be.
        drop(tokio::time::timeout(START, told).await);
        self.statuses.borrow().get(view).is_some_and(|status| status.version.is_some())
    }

    async fn read(&self, name: &str) -> Result<Reading<S::Snapshot>, ViewFault> {
        let lens = self.lenses.iter().find(|lens| lens.name == name);
        let entry = self.entry(lens.map_or(name, |lens| lens.view))?;
        if !self.is_served(entry.view.name()).await {
            return Err(ViewFault::Behind { position: 0, wanted: 1 });
        }
        match self.store.snapshot(entry.view.name()).await? {
            Some((snapshot, registered)) => Ok(Reading { snapshot, registered, lens }),
            None => Err(ViewFault::Behind { position: 0, wanted: 1 }),
        }
    }

    /// An older table is served until the newer is built. What it has no column for has to wait.
    fn or_behind(&self, reading: &Reading<S::Snapshot>, fault: ViewFault) -> ViewFault {
        let table = &reading.registered.table;
        let outdated = self
            .entries
            .get(table.view.as_str())
            .is_some_and(|entry| Table::of(entry.view, table.generation) != *table);
        match fault {
            ViewFault::Query(_) if outdated => {
                ViewFault::Behind { position: 0, wanted: reading.registered.checkpoint.position }
            }
            other => other,
        }
    }

    async fn list(&self, name: &str, query: &Query) -> Result<Page, ViewFault> {
        let mut reading = self.read(name).await?;
        let table = reading.registered.table.clone();
        let plan = Plan::new(&table, reading.lens, query)
            .map_err(|fault| self.or_behind(&reading, fault))?;
        let (at, cursor) = match (&query.token, query.at) {
            (Some(token), Some(at)) if token.at != at => {
                return Err(ViewFault::Query(format!(
                    "the page token is of position {}, not {at}",
                    token.at
                )));
            }
            (Some(token), _) => (Some(token.at), Some(plan.cursor(&table, token)?)),
            (None, at) => (at, None),
        };
        let position = at.unwrap_or(reading.registered.checkpoint.position);
        reading.ensure_seen(position)?;
        let past = reading.past(at);
        let mut lister = Lister {
            snapshot: &mut reading.snapshot,
            dialect: S::DIALECT,
            table: &table,
            plan: &plan,
            at: past,
        };
        let mut found = lister.rows(cursor, query.limit + 1).await?;
        let next = (found.len() > query.limit).then(|| {
            found.truncate(query.limit);
            found.last().map(|last| PageToken {
                at: position,
                last: plan.order.iter().map(|(place, _)| cell(&last.columns[*place])).collect(),
                key: last.key.clone(),
                query: plan.digest,
            })
        });
        let rows = found.into_iter().map(|found| row(&reading, found)).collect::<Result<_, _>>()?;
        Ok(Page { rows, next: next.flatten(), position })
    }

    pub(crate) async fn count(
        &self,
        name: &str,
        query: &Query,
        bound: u64,
    ) -> Result<u64, ViewFault> {
        let mut reading = self.read(name).await?;
        let table = reading.registered.table.clone();
        let plan = Plan::new(&table, reading.lens, query)
            .map_err(|fault| self.or_behind(&reading, fault))?;
        if let Some(at) = query.at {
            reading.ensure_seen(at)?;
        }
        let at = reading.past(query.at);
        let snapshot = &mut reading.snapshot;
        let mut lister = Lister { snapshot, dialect: S::DIALECT, table: &table, plan: &plan, at };
        Ok(lister.count(bound).await?)
    }

    async fn get(
        &self,
        name: &str,
        key: &str,
        at: Option<Position>,
    ) -> Result<Option<Row>, ViewFault> {
        let mut reading = self.read(name).await?;
        let at = at.unwrap_or(reading.registered.checkpoint.position);
        reading.ensure_seen(at)?;
        let table = reading.registered.table.clone();
        let conditions = lens_conditions(&table, reading.lens)
            .map_err(|fault| self.or_behind(&reading, fault))?;
        let mut sql = Sql::new(
            S::DIALECT,
            format!("SELECT {} FROM {} WHERE key = ", selected(&table, S::DIALECT), table.name()),
        );
        sql.bind(stored_key(key).as_ref()).push(" AND from_position <= ").bind(at);
        sql.push(" ORDER BY from_position DESC LIMIT 1");
        let Some(row_of) = reading.snapshot.select(sql).await?.pop() else { return Ok(None) };
        let found = Found::read(&table, row_of)?;
        if found.to.is_some_and(|to| to <= at) {
            return Ok(None);
        }
        let body = found.json()?;
        if conditions.iter().any(|condition| !condition.matches(&found.columns, &body)) {
            return Ok(None);
        }
        row(&reading, found).map(Some)
    }

    async fn diff(
        &self,
        name: &str,
        from: Position,
        to: Position,
        query: &Query,
        after_key: Option<&str>,
    ) -> Result<Difference, ViewFault> {
        let mut reading = self.read(name).await?;
        let table = reading.registered.table.clone();
        let plan = Plan::new(&table, reading.lens, query)
            .map_err(|fault| self.or_behind(&reading, fault))?;
        reading.ensure_seen(from.max(to))?;
        let mut changes: Vec<Change> = Vec::new();
        let mut after = after_key.map(str::to_owned);
        loop {
            let (first, last) = (from.min(to), from.max(to));
            let keys =
                changed(&mut reading.snapshot, S::DIALECT, &table, first, last, after.as_deref())
                    .await?;
            let mut sides = std::collections::BTreeMap::new();
            for found in valid(&mut reading.snapshot, S::DIALECT, &table, &keys, from, to).await? {
                let body = found.json()?;
                if !plan.is_in_scope(&found.columns, &body) {
                    continue;
                }
                let asked = plan.is_asked_for(&found.columns, &body);
                let body = reading.shown(body);
                let at =
                    |position| found.from <= position && found.to.is_none_or(|to| position < to);
                let (before, now, matched): &mut (Option<Json>, Option<Json>, bool) =
                    sides.entry(found.key.clone()).or_default();
                *matched |= asked;
                if at(from) {
                    *before = Some(body.clone());
                }
                if at(to) {
                    *now = Some(body);
                }
            }
            for (key, (before, after, matched)) in sides {
                if matched && before != after {
                    if changes.len() == query.limit {
                        let next = changes.last().map(|change| change.key.clone());
                        return Ok(Difference { changes, next });
                    }
                    changes.push(Change { key, before, after });
                }
            }
            if keys.len() < CHANGED_AT_ONCE {
                return Ok(Difference { changes, next: None });
            }
            after = keys.into_iter().next_back();
        }
    }
}

fn row<S>(reading: &Reading<S>, found: Found) -> Result<Row, ViewFault> {
    let body = reading.shown(found.json()?);
    Ok(Row { key: found.key, from: found.from, to: found.to, body })
}

/// Keys of rows that have a version that begins or ends after one position and up to another.
async fn changed<S: Snapshot>(
    snapshot: &mut S,
    dialect: super::Dialect,
    table: &Table,
    first: Position,
    last: Position,
    after: Option<&str>,
) -> Result<Vec<String>, LogFault> {
    let mut sql = Sql::new(dialect, "SELECT key FROM (");
    for end in ["from_position", "to_position"] {
        if end == "to_position" {
            sql.push(" UNION ");
        }
        sql.push(&format!("SELECT key FROM {} WHERE {end} > ", table.name())).bind(first);
        sql.push(&format!(" AND {end} <= ")).bind(last);
        if end == "to_position" {
            sql.push(" AND ").push(super::Tier::Closed.condition());
        }
        if let Some(after) = after {
            sql.push(" AND key > ").bind(after);
        }
    }
    sql.push(") AS changed ORDER BY key LIMIT ").bind(CHANGED_AT_ONCE as i64);
    let rows = snapshot.select(sql).await?;
    Ok(rows
        .into_iter()
        .filter_map(|mut row| match row.pop() {
            Some(SqlValue::Text(key)) => Some(key),
            _ => None,
        })
        .collect())
}

/// The versions of some rows that are valid at either of two positions.
async fn valid<S: Snapshot>(
    snapshot: &mut S,
    dialect: super::Dialect,
    table: &Table,
    keys: &[String],
    one: Position,
    other: Position,
) -> Result<Vec<Found>, LogFault> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new(
        dialect,
        format!("SELECT {} FROM {} WHERE key IN (", selected(table, dialect), table.name()),
    );
    sql.bind_all(keys.iter().map(String::as_str));
    sql.push(") AND ((from_position <= ").bind(one).push(" AND to_position > ").bind(one);
    sql.push(") OR (from_position <= ").bind(other).push(" AND to_position > ").bind(other);
    sql.push("))");
    snapshot.select(sql).await?.into_iter().map(|row| Found::read(table, row)).collect()
}

#[async_trait]
impl<S: ViewStore> Views for Engine<S> {
    async fn list(&self, view: &str, query: &Query) -> Result<Page, ViewFault> {
        self.inner.list(view, query).await
    }

    async fn count(&self, view: &str, query: &Query, bound: u64) -> Result<u64, ViewFault> {
        self.inner.count(view, query, bound).await
    }

    async fn get(
        &self,
        view: &str,
        key: &str,
        at: Option<Position>,
    ) -> Result<Option<Row>, ViewFault> {
        self.inner.get(view, key, at).await
    }

    async fn diff(
        &self,
        view: &str,
        from: Position,
        to: Position,
        query: &Query,
        after_key: Option<&str>,
    ) -> Result<Difference, ViewFault> {
        self.inner.diff(view, from, to, query, after_key).await
    }

    async fn position(&self, view: &str) -> Result<Position, ViewFault> {
        Ok(self.inner.read(view).await?.registered.checkpoint.position)
    }

    async fn reach_position(&self, wanted: Position, patience: Duration) -> Result<(), ViewFault> {
        let mut statuses = self.inner.statuses.subscribe();
        let least = |statuses: &std::collections::BTreeMap<&'static str, super::ViewStatus>| {
            statuses.values().map(|s| s.version.map(|_| s.position)).min().unwrap_or(Some(wanted))
        };
        let reached = statuses.wait_for(|statuses| least(statuses).is_some_and(|p| p >= wanted));
        let in_time = tokio::time::timeout(patience, reached).await.is_ok_and(|ok| ok.is_ok());
        if in_time {
            return Ok(());
        }
        // A view that is built for the first time is as far as that has come.
        let place = |s: &super::ViewStatus| match s.version {
            Some(_) => s.position,
            None => s.building.unwrap_or(0),
        };
        let position = self.inner.statuses.borrow().values().map(place).min().unwrap_or(0);
        Err(ViewFault::Behind { position, wanted })
    }

    async fn rebuild(
        &self,
        view: &str,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<(), ViewFault> {
        self.inner.rebuild(view, progress).await
    }

    async fn verify(
        &self,
        view: &str,
        threads: usize,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<Verified, ViewFault> {
        self.inner.verify(view, threads, progress).await
    }
}
