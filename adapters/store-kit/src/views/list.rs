//! Pages of rows: which statements, by which index.
//!
//! A page goes on after the last row of the page before. In place of one comparison of whole
//! tuples, which neither planner turns into a seek when nothing, descending order or ties are in
//! it, a page is read in *legs*, each of them equalities and at most one bound:
//!
//! ```text
//! order a, b   after (1, 2, k)   a = 1 and b = 2 and key > k
//!                                a = 1 and b > 2
//!                                a > 1
//! ```
//!
//! At a past position a row is either still valid, or closed since: each leg is read from both
//! tiers of indexes and merged.
//!
//! Which index: the one that gives the order behind the longest prefix of equalities, unless a
//! bounded count of index entries shows that another condition leaves so few rows that reading
//! and sorting them costs less.

use std::cmp::Ordering;

use commands::ports::LogFault;
use domain::log::Position;
use projections::view::Value;
use serde_json::Value as Json;

use super::{
    plan::{Cursor, Plan},
    sql::{Dialect, Sql, SqlValue, column_value},
    store::Snapshot,
    table::{Index, LIVE, Table, Tier},
};

/// Matching entries a probe counts at most. With more, one row in a hundred of a million matches,
/// and the order's index has a page after as many entries.
const PROBE_BOUND: u64 = 10_000;
/// So few rows are read and sorted without asking further: some milliseconds.
const FEW: u64 = 500;
/// Entries of the order's index that a probe counts at most, and how many there may be when there
/// are more.
const ORDER_BOUND: u64 = 50_000;
const ORDER_MOST: u64 = 1_000_000;

/// Values of a leading column that are merged at most; a kind has a few dozen.
const LEADS_MOST: usize = 64;

/// Rows examined at once when conditions on the body are decided here.
const EXAMINED: usize = 500;

/// One row version as a table has it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) from: Position,
    pub(crate) to: Option<Position>,
    pub(crate) columns: Vec<Value>,
    pub(crate) body: Vec<u8>,
}

/// The columns of a statement that [`Found::read`] reads.
pub(crate) fn selected(table: &Table, dialect: Dialect) -> String {
    let mut selected = "key, from_position, to_position".to_owned();
    for column in &table.columns {
        selected.extend([", \"", &column.name, "\""]);
    }
    selected + ", " + &table.body_sql(dialect)
}

impl Found {
    pub(crate) fn read(table: &Table, row: Vec<SqlValue>) -> Result<Self, LogFault> {
        let odd = || LogFault::Unexpected(format!("a row of {} does not read", table.name()));
        if row.len() != table.columns.len() + 4 {
            return Err(odd());
        }
        let mut values = row.into_iter();
        let mut next = || values.next().unwrap_or(SqlValue::Null);
        let (SqlValue::Text(key), SqlValue::Integer(from), SqlValue::Integer(to)) =
            (next(), next(), next())
        else {
            return Err(odd());
        };
        let columns =
            table.columns.iter().map(|column| column_value(next(), column.column_type)).collect();
        let SqlValue::Bytes(body) = next() else { return Err(odd()) };
        let to = (to != LIVE).then_some(to as Position);
        Ok(Self { key, from: from as Position, to, columns, body })
    }

    pub(crate) fn json(&self) -> Result<Json, LogFault> {
        serde_json::from_slice(&self.body).map_err(|error| {
            LogFault::Unexpected(format!("row {} does not read: {error}", self.key))
        })
    }
}

/// One leg of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Leg {
    /// Columns with one value; [`Value::Null`] is `IS NULL`.
    equal: Vec<(usize, Value)>,
    /// The next column of the order lies after this.
    after: Option<After>,
    key_after: Option<String>,
    /// The order of the rows of this leg.
    rest: Vec<(usize, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum After {
    Greater(usize, Value),
    Less(usize, Value),
    Something(usize),
}

fn legs(order: &[(usize, bool)], cursor: Option<&Cursor>) -> Vec<Leg> {
    let Some(cursor) = cursor else {
        return vec![Leg { rest: order.to_vec(), ..Leg::default() }];
    };
    let mut legs = Vec::new();
    for fixed in (0..=order.len()).rev() {
        let equal: Vec<_> =
            order.iter().zip(&cursor.last).take(fixed).map(|((c, _), v)| (*c, v.clone())).collect();
        let leg = Leg { equal, rest: order[fixed..].to_vec(), ..Leg::default() };
        let Some(&(column, descending)) = order.get(fixed) else {
            legs.push(Leg { key_after: Some(cursor.key.clone()), ..leg });
            continue;
        };
        match (&cursor.last[fixed], descending) {
            (Value::Null, true) => {}
            (Value::Null, false) => legs.push(Leg { after: Some(After::Something(column)), ..leg }),
            (value, false) => {
                legs.push(Leg { after: Some(After::Greater(column, value.clone())), ..leg });
            }
            (value, true) => {
                let mut nothing = leg.clone();
                nothing.equal.push((column, Value::Null));
                nothing.rest.remove(0);
                legs.push(Leg { after: Some(After::Less(column, value.clone())), ..leg });
                legs.push(nothing);
            }
        }
    }
    legs
}

/// How the rows of a tier are found.
#[derive(Clone, Debug)]
enum Way {
    /// In the order's own index, chosen for each leg.
    InOrder,
    /// In the order's index for each value of the column that leads it, merged.
    ByLead(usize, Vec<Value>),
    /// All that an index finds, sorted.
    Sorted(Option<Index>),
}

impl Way {
    /// A leg as this way reads it.
    fn legs(&self, leg: &Leg) -> Vec<Leg> {
        let Self::ByLead(lead, values) = self else { return vec![leg.clone()] };
        let with = |value: &Value| {
            let mut leg = leg.clone();
            leg.equal.push((*lead, value.clone()));
            leg
        };
        values.iter().map(with).collect()
    }
}

/// Reads lists of one table at one moment.
pub(crate) struct Lister<'a, S> {
    pub(crate) snapshot: &'a mut S,
    pub(crate) dialect: Dialect,
    pub(crate) table: &'a Table,
    pub(crate) plan: &'a Plan,
    /// None is now.
    pub(crate) at: Option<Position>,
}

impl<S: Snapshot> Lister<'_, S> {
    /// Up to `want` rows after a cursor.
    pub(crate) async fn rows(
        &mut self,
        mut cursor: Option<Cursor>,
        want: usize,
    ) -> Result<Vec<Found>, LogFault> {
        let indexes = self.table.indexes();
        let mut ways = vec![(Tier::Live, self.way(&indexes, Tier::Live, want).await?)];
        if self.at.is_some() {
            ways.push((Tier::Closed, self.way(&indexes, Tier::Closed, want).await?));
        }
        if !self.plan.needs_matching() {
            return self.examine(&indexes, &ways, cursor.as_ref(), want).await;
        }
        let mut out = Vec::new();
        loop {
            let rows = self.examine(&indexes, &ways, cursor.as_ref(), EXAMINED).await?;
            let last = rows.len() < EXAMINED;
            cursor = rows.last().map(|row| self.cursor(row));
            for row in rows {
                if self.plan.matches(&row.columns, &row.json()?) {
                    out.push(row);
                    if out.len() == want {
                        return Ok(out);
                    }
                }
            }
            if last {
                return Ok(out);
            }
        }
    }

    /// How many rows match, up to a bound.
    pub(crate) async fn count(&mut self, bound: u64) -> Result<u64, LogFault> {
        if self.plan.needs_matching() {
            return Ok(self.rows(None, bound as usize).await?.len() as u64);
        }
        let tiers: &[Tier] =
            if self.at.is_some() { &[Tier::Live, Tier::Closed] } else { &[Tier::Live] };
        let mut sum = 0;
        for &tier in tiers {
            let mut sql = Sql::new(
                self.dialect,
                format!("SELECT count(*) FROM (SELECT 1 AS one FROM {} WHERE ", self.table.name()),
            );
            self.validity(&mut sql, tier);
            for condition in &self.plan.conditions {
                condition.write(self.table, &mut sql, self.dialect);
            }
            sql.push(" LIMIT ").bind(bound - sum).push(") AS few");
            sum += self.number(sql).await?;
        }
        Ok(sum)
    }

    fn cursor(&self, row: &Found) -> Cursor {
        Cursor {
            last: self.plan.order.iter().map(|(place, _)| row.columns[*place].clone()).collect(),
            key: row.key.clone(),
        }
    }

    /// Up to `want` rows that meet all conditions that SQL decides.
    async fn examine(
        &mut self,
        indexes: &[Index],
        ways: &[(Tier, Way)],
        cursor: Option<&Cursor>,
        want: usize,
    ) -> Result<Vec<Found>, LogFault> {
        let mut out: Vec<Found> = Vec::new();
        for leg in legs(&self.plan.order, cursor) {
            let mut both = Vec::new();
            let mut parts = 0;
            for (tier, way) in ways {
                for leg in way.legs(&leg) {
                    let sql = self.statement(indexes, *tier, way, &leg, want - out.len());
                    let rows = self.snapshot.select(sql).await?;
                    for row in rows {
                        both.push(Found::read(self.table, row)?);
                    }
                    parts += 1;
                }
            }
            if parts > 1 {
                both.sort_by(|a, b| compare(&self.plan.order, a, b));
            }
            out.extend(both);
            if out.len() >= want {
                out.truncate(want);
                break;
            }
        }
        Ok(out)
    }

    fn validity(&self, sql: &mut Sql, tier: Tier) {
        sql.push(tier.condition());
        if let Some(at) = self.at {
            sql.push(" AND from_position <= ").bind(at);
            if tier == Tier::Closed {
                sql.push(" AND to_position > ").bind(at);
            }
        }
    }

    fn statement(&self, indexes: &[Index], tier: Tier, way: &Way, leg: &Leg, limit: usize) -> Sql {
        let name = self.table.name();
        let column = |place: usize| format!("\"{}\"", self.table.columns[place].name);
        let mut order: Vec<String> = leg
            .rest
            .iter()
            .map(|&(place, descending)| column(place) + self.dialect.direction(descending))
            .collect();
        order.push("key".to_owned());
        let order = order.join(", ");
        let index = match way {
            Way::InOrder | Way::ByLead(..) => self.in_order(indexes, tier, leg),
            Way::Sorted(index) => index.clone(),
        };
        let hint = match (&index, self.dialect) {
            (Some(index), Dialect::Sqlite) => format!(" INDEXED BY {}", index.name),
            _ => String::new(),
        };
        let sorted = matches!(way, Way::Sorted(_));
        let columns = selected(self.table, self.dialect);
        // What has to be sorted is sorted without its body.
        let mut sql = Sql::new(
            self.dialect,
            match (sorted, self.dialect) {
                (true, Dialect::Sqlite) => format!(
                    "SELECT {columns} FROM {name} WHERE rowid IN (SELECT rowid FROM {name}{hint} WHERE "
                ),
                (true, Dialect::Postgres) => {
                    format!("SELECT * FROM (SELECT {columns} FROM {name} WHERE ")
                }
                (false, _) => format!("SELECT {columns} FROM {name}{hint} WHERE "),
            },
        );
        self.validity(&mut sql, tier);
        for (place, value) in &leg.equal {
            match value {
                Value::Null => sql.push(&format!(" AND {} IS NULL", column(*place))),
                value => sql.push(&format!(" AND {} = ", column(*place))).bind(value),
            };
        }
        match &leg.after {
            Some(After::Greater(place, value)) => {
                sql.push(&format!(" AND {} > ", column(*place))).bind(value);
            }
            Some(After::Less(place, value)) => {
                sql.push(&format!(" AND {} < ", column(*place))).bind(value);
            }
            Some(After::Something(place)) => {
                sql.push(&format!(" AND {} IS NOT NULL", column(*place)));
            }
            None => {}
        }
        if let Some(key) = &leg.key_after {
            sql.push(" AND key > ").bind(key.as_str());
        }
        for condition in &self.plan.conditions {
            condition.write(self.table, &mut sql, self.dialect);
        }
        let limit = limit as i64;
        match (sorted, self.dialect) {
            (true, Dialect::Sqlite) => {
                sql.push(&format!(" ORDER BY {order} LIMIT ")).bind(limit);
                sql.push(&format!(") ORDER BY {order}"))
            }
            // The fence keeps the planner from walking an index of the order.
            (true, Dialect::Postgres) => {
                sql.push(&format!(" OFFSET 0) AS few ORDER BY {order} LIMIT ")).bind(limit)
            }
            (false, _) => sql.push(&format!(" ORDER BY {order} LIMIT ")).bind(limit),
        };
        sql
    }

    /// Places of columns that have one value in all rows of a leg.
    fn fixed(&self, leg: &Leg) -> Vec<usize> {
        let conditions = self.plan.conditions.iter().filter_map(|c| c.equal_to().map(|(p, _)| p));
        conditions.chain(leg.equal.iter().map(|(place, _)| *place)).collect()
    }

    /// Whether an index has all rows that are asked for.
    fn serves(&self, index: &Index) -> bool {
        let Some(column) = &index.something else { return true };
        self.table.column(column).is_some_and(|place| {
            self.plan.conditions.iter().any(|condition| condition.excludes_nothing(place))
        })
    }

    /// The index that gives a leg's order behind the longest prefix of fixed columns.
    fn in_order(&self, indexes: &[Index], tier: Tier, leg: &Leg) -> Option<Index> {
        let fixed = self.fixed(leg);
        let place = |name: &String| self.table.column(name);
        let is_fixed = |name: &String| place(name).is_some_and(|place| fixed.contains(&place));
        let wanted: Vec<usize> = leg
            .rest
            .iter()
            .map(|(place, _)| *place)
            .filter(|place| !fixed.contains(place))
            .collect();
        indexes
            .iter()
            .filter(|index| index.tier == tier && self.serves(index))
            .filter_map(|index| {
                let prefix = index.columns.iter().take_while(|name| is_fixed(name)).count();
                let rest: Vec<&String> =
                    index.columns[prefix..].iter().filter(|name| !is_fixed(name)).collect();
                // The first column of the order is what counts; ties in it are few, or sorted.
                let fits = match wanted.first() {
                    None => rest.first().is_some_and(|name| *name == "key"),
                    Some(first) => rest.first().is_some_and(|name| place(name) == Some(*first)),
                };
                fits.then_some((prefix, index))
            })
            .max_by_key(|(prefix, index)| (*prefix, std::cmp::Reverse(index.columns.len())))
            .map(|(_, index)| index.clone())
    }

    /// Decides between the order's index and the most selective condition's.
    async fn way(&mut self, indexes: &[Index], tier: Tier, want: usize) -> Result<Way, LogFault> {
        let leg = Leg { rest: self.plan.order.clone(), ..Leg::default() };
        let ordered = self.in_order(indexes, tier, &leg);
        let fixed = self.fixed(&leg);
        let covered: Vec<&String> = match &ordered {
            Some(index) => index
                .columns
                .iter()
                .take_while(|name| {
                    self.table.column(name).is_some_and(|place| fixed.contains(&place))
                })
                .collect(),
            None => Vec::new(),
        };
        let mut best: Option<(u64, Index)> = None;
        for place in self.plan.conditions.iter().filter_map(super::plan::Condition::seekable) {
            let name = &self.table.columns[place].name;
            if covered.contains(&name) {
                continue;
            }
            // Of the indexes that begin with the column, the shortest.
            let Some(index) = indexes
                .iter()
                .filter(|index| {
                    index.tier == tier && index.columns.first() == Some(name) && self.serves(index)
                })
                .min_by_key(|index| index.columns.len())
                .cloned()
            else {
                continue;
            };
            let count = self.probe(&index, tier, PROBE_BOUND).await?;
            if best.as_ref().is_none_or(|(least, _)| count < *least) {
                best = Some((count, index));
            }
        }
        let (Some(order), Some((matching, index))) = (&ordered, &best) else {
            if ordered.is_some() {
                return Ok(Way::InOrder);
            }
            let few = best.as_ref().is_some_and(|(count, _)| *count <= FEW);
            if !few && let Some(way) = self.by_lead(indexes, tier, &leg).await? {
                return Ok(way);
            }
            return Ok(Way::Sorted(best.map(|(_, index)| index)));
        };
        let sorted = if *matching <= FEW {
            true
        } else if *matching > PROBE_BOUND {
            false
        } else {
            // A page in order meets a match every so many entries.
            let entries = match self.probe(order, tier, ORDER_BOUND).await? {
                all if all > ORDER_BOUND => ORDER_MOST,
                all => all,
            };
            *matching < want as u64 * entries / matching
        };
        Ok(if sorted { Way::Sorted(Some(index.clone())) } else { Way::InOrder })
    }

    /// The walks of all values of the column that leads the order's index; none when no walk gives
    /// the order, or there are too many values.
    async fn by_lead(
        &mut self,
        indexes: &[Index],
        tier: Tier,
        leg: &Leg,
    ) -> Result<Option<Way>, LogFault> {
        let place = |name: &String| self.table.column(name);
        let Some(&(sort, _)) = leg.rest.first() else { return Ok(None) };
        let walk = indexes.iter().find(|index| {
            index.tier == tier
                && self.serves(index)
                && matches!(index.columns.as_slice(), [_, by, ..] if place(by) == Some(sort))
        });
        let Some((walk, lead)) = walk.and_then(|walk| Some((walk, place(walk.columns.first()?)?)))
        else {
            return Ok(None);
        };
        let column = format!("\"{}\"", self.table.columns[lead].name);
        let hint = match self.dialect {
            Dialect::Sqlite => format!(" INDEXED BY {}", walk.name),
            Dialect::Postgres => String::new(),
        };
        let mut values = Vec::new();
        let mut examined = 0;
        let mut last: Option<Value> = None;
        loop {
            let mut sql = Sql::new(
                self.dialect,
                format!(
                    "SELECT {column} FROM {}{hint} WHERE {}",
                    self.table.name(),
                    tier.condition()
                ),
            );
            match &last {
                None => {}
                Some(Value::Null) => {
                    sql.push(&format!(" AND {column} IS NOT NULL"));
                }
                Some(value) => {
                    sql.push(&format!(" AND {column} > ")).bind(value);
                }
            }
            sql.push(&format!(" ORDER BY {column}{} LIMIT 1", self.dialect.nulls_first()));
            let Some(found) = self.snapshot.select(sql).await?.pop().and_then(|mut row| row.pop())
            else {
                break;
            };
            examined += 1;
            if examined > LEADS_MOST {
                return Ok(None);
            }
            let value = column_value(found, self.table.columns[lead].column_type);
            if self.plan.conditions.iter().all(|condition| condition.allows(lead, &value)) {
                values.push(value.clone());
            }
            last = Some(value);
        }
        Ok(Some(Way::ByLead(lead, values)))
    }

    /// How many entries of an index meet the conditions on its columns, up to one over the bound.
    async fn probe(&mut self, index: &Index, tier: Tier, bound: u64) -> Result<u64, LogFault> {
        let name = self.table.name();
        let hint = match self.dialect {
            Dialect::Sqlite => format!(" INDEXED BY {}", index.name),
            Dialect::Postgres => String::new(),
        };
        let mut sql = Sql::new(
            self.dialect,
            format!(
                "SELECT count(*) FROM (SELECT 1 AS one FROM {name}{hint} WHERE {}",
                tier.condition()
            ),
        );
        if let Some(at) = self.at.filter(|_| tier == Tier::Closed) {
            sql.push(" AND from_position <= ").bind(at);
        }
        for condition in &self.plan.conditions {
            let of_index = condition
                .seekable()
                .is_some_and(|place| index.columns.contains(&self.table.columns[place].name));
            if of_index {
                condition.write(self.table, &mut sql, self.dialect);
            }
        }
        sql.push(" LIMIT ").bind(bound + 1).push(") AS few");
        self.number(sql).await
    }

    async fn number(&mut self, sql: Sql) -> Result<u64, LogFault> {
        match self.snapshot.select(sql).await?.pop().and_then(|mut row| row.pop()) {
            Some(SqlValue::Integer(number)) => Ok(number as u64),
            _ => Err(LogFault::Unexpected("a count came without a number".to_owned())),
        }
    }
}

fn compare(order: &[(usize, bool)], a: &Found, b: &Found) -> Ordering {
    for &(place, descending) in order {
        let by = a.columns[place].cmp(&b.columns[place]);
        let by = if descending { by.reverse() } else { by };
        if by.is_ne() {
            return by;
        }
    }
    a.key.cmp(&b.key)
}

/// What a cell of a token is.
pub(crate) fn cell(value: &Value) -> commands::ports::Cell {
    use commands::ports::Cell;
    match value {
        Value::Null => Cell::Null,
        Value::Boolean(yes) => Cell::Boolean(*yes),
        Value::Integer(number) => Cell::Integer(*number),
        Value::Text(text) => Cell::Text(text.clone()),
    }
}
