//! A query checked against a table: conditions on columns, which SQL decides, and conditions on
//! the body, which are decided here, so that both stores agree to the letter.

use commands::ports::{Cell, Filter, Op, PageToken, Query, ViewFault};
use domain::kernel::{Reach, canonical_bytes, sha256};
use projections::view::{ColumnType, Lens, Value};
use serde_json::Value as Json;

use super::{
    sql::{Dialect, Sql, SqlValue, storable},
    table::{Most, Table},
};

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A column, by place.
    Column(usize),
    /// A path into the body.
    Body(Vec<String>),
}

/// One condition; all must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) target: Target,
    pub(crate) op: Op,
    /// Never [`Value::Null`]; that one of the values was nothing says `or_nothing`.
    pub(crate) values: Vec<Value>,
    pub(crate) or_nothing: bool,
}

/// A row's place in an order: a page goes on after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The values of the order's columns.
    pub(crate) last: Vec<Value>,
    pub(crate) key: String,
}

/// A query that fits its table.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The caller's first, then those of lens and reach.
    pub(crate) conditions: Vec<Condition>,
    /// How many are the caller's.
    pub(crate) asked: usize,
    /// Columns by place, and whether the largest come first.
    pub(crate) order: Vec<(usize, bool)>,
    /// Digest of conditions, order and reach.
    pub(crate) digest: u64,
}

fn query_fault(text: String) -> ViewFault {
    ViewFault::Query(text)
}

impl Plan {
    /// Checks a query. A fault says which columns there are.
    pub(crate) fn new(
        table: &Table,
        lens: Option<&Lens>,
        query: &Query,
    ) -> Result<Self, ViewFault> {
        if !(1..=Query::LIMIT_MAX).contains(&query.limit) {
            return Err(query_fault(format!(
                "the page size {} is not within 1…{}",
                query.limit,
                Query::LIMIT_MAX
            )));
        }
        if query.order.len() > 2 {
            return Err(query_fault("a list is ordered by two columns at most".to_owned()));
        }
        let mut conditions = Vec::new();
        for filter in &query.filters {
            conditions.push(condition(table, filter)?);
        }
        let asked = conditions.len();
        conditions.extend(lens_conditions(table, lens)?);
        // Whoever works for a host reaches no project.
        let projects = match &query.reach {
            Reach::All => None,
            Reach::Host(_) => Some([].as_slice()),
            Reach::Projects(projects) => Some(projects.as_slice()),
        };
        if let Some(projects) = projects {
            let Some(project) = table.column("project") else {
                return Err(query_fault(format!(
                    "{} belongs to no project: only who reaches everything may read it",
                    table.view
                )));
            };
            conditions.push(Condition {
                target: Target::Column(project),
                op: Op::In,
                values: projects.iter().map(|id| Value::Text(id.to_string())).collect(),
                or_nothing: false,
            });
        }
        let mut order: Vec<(usize, bool)> = Vec::new();
        for by in &query.order {
            let column = table.column(&by.column).ok_or_else(|| unknown(table, &by.column))?;
            if !order.iter().any(|(other, _)| *other == column) {
                order.push((column, by.descending));
            }
        }
        let name = lens.map_or(table.view.as_str(), |lens| lens.name);
        let what = canonical_bytes(&(name, &query.filters, &query.order, &query.reach));
        let digest = sha256(&what);
        let digest = u64::from_be_bytes(*digest.first_chunk().unwrap_or(&[0; 8]));
        Ok(Self { conditions, asked, order, digest })
    }

    /// Conditions that SQL cannot decide the same way in both stores.
    pub(crate) fn needs_matching(&self) -> bool {
        self.conditions.iter().any(|condition| !condition.in_sql())
    }

    /// Whether a row meets all conditions.
    pub(crate) fn matches(&self, columns: &[Value], body: &Json) -> bool {
        self.is_asked_for(columns, body) && self.is_in_scope(columns, body)
    }

    /// Whether a row meets the caller's conditions.
    pub(crate) fn is_asked_for(&self, columns: &[Value], body: &Json) -> bool {
        self.conditions[..self.asked].iter().all(|condition| condition.matches(columns, body))
    }

    /// Whether a row is one of the lens's, and in reach.
    pub(crate) fn is_in_scope(&self, columns: &[Value], body: &Json) -> bool {
        self.conditions[self.asked..].iter().all(|condition| condition.matches(columns, body))
    }

    /// Where the page before ended, from its token.
    pub(crate) fn cursor(&self, table: &Table, token: &PageToken) -> Result<Cursor, ViewFault> {
        if token.query != self.digest || token.last.len() != self.order.len() {
            return Err(query_fault("the page token belongs to another query".to_owned()));
        }
        let mut last = Vec::with_capacity(token.last.len());
        for (cell, (place, _)) in token.last.iter().zip(&self.order) {
            let column = &table.columns[*place];
            last.push(value_of(&column.name, column.column_type, table.most(column), cell)?);
        }
        Ok(Cursor { last, key: token.key.clone() })
    }
}

/// The conditions of a lens.
pub(crate) fn lens_conditions(
    table: &Table,
    lens: Option<&Lens>,
) -> Result<Vec<Condition>, ViewFault> {
    let Some(lens) = lens else { return Ok(Vec::new()) };
    lens.only
        .iter()
        .map(|&(column, value)| {
            let op = if value.is_some() { Op::In } else { Op::NotIn };
            let values = vec![value.map_or(Cell::Null, Cell::from)];
            condition(table, &Filter { column: column.to_owned(), op, values })
        })
        .collect()
}

fn unknown(table: &Table, name: &str) -> ViewFault {
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    query_fault(format!(
        "{} has no column {name:?}; it has {}, and tags.<name> and state.<path> to filter by",
        table.view,
        names.join(", ")
    ))
}

fn condition(table: &Table, filter: &Filter) -> Result<Condition, ViewFault> {
    let name = filter.column.as_str();
    let (target, column_type, most) = if let Some(place) = table.column(name) {
        let column = &table.columns[place];
        (Target::Column(place), column.column_type, table.most(column))
    } else if let Some(tag) = name.strip_prefix("tags.").filter(|tag| !tag.is_empty()) {
        (Target::Body(vec!["tags".to_owned(), tag.to_owned()]), ColumnType::Text, Most::ALL)
    } else if name.starts_with("state.") && !name.split('.').any(str::is_empty) {
        (Target::Body(name.split('.').map(str::to_owned).collect()), ColumnType::Text, Most::ALL)
    } else {
        return Err(unknown(table, name));
    };
    let mut values = Vec::with_capacity(filter.values.len());
    for cell in &filter.values {
        values.push(value_of(name, column_type, most, cell)?);
    }
    let given = values.len();
    values.retain(|value| *value != Value::Null);
    let or_nothing = values.len() < given;
    let many = matches!(filter.op, Op::In | Op::NotIn);
    if !many && (values.len() != 1 || or_nothing) {
        return Err(query_fault(format!("{name} is compared with one value")));
    }
    if matches!(filter.op, Op::Prefix | Op::Contains) && column_type != ColumnType::Text {
        return Err(query_fault(format!("{name} is not a text")));
    }
    values.sort();
    values.dedup();
    Ok(Condition { target, op: filter.op, values, or_nothing })
}

/// A cell as a value of the column's type. Text that reads as the type is taken for it: that is
/// how filters come from paths and command lines. Of a text as much is compared as a row has.
fn value_of(
    name: &str,
    column_type: ColumnType,
    most: Most,
    cell: &Cell,
) -> Result<Value, ViewFault> {
    let misfit = |what: &str| Err(query_fault(format!("{name} is compared with {what}")));
    match (column_type, cell) {
        (_, Cell::Null) => Ok(Value::Null),
        (ColumnType::Text, Cell::Text(text)) => Ok(Value::Text(most.kept(text.clone()))),
        (ColumnType::Text, Cell::Integer(number)) => Ok(Value::Text(number.to_string())),
        (ColumnType::Text, Cell::Boolean(yes)) => Ok(Value::Text(yes.to_string())),
        (ColumnType::Integer, Cell::Integer(number)) => Ok(Value::Integer(*number)),
        (ColumnType::Integer, Cell::Text(text)) => {
            text.parse().map(Value::Integer).or_else(|_| misfit("a whole number"))
        }
        (ColumnType::Integer, Cell::Boolean(_)) => misfit("a whole number"),
        (ColumnType::Boolean, Cell::Boolean(yes)) => Ok(Value::Boolean(*yes)),
        (ColumnType::Boolean, Cell::Text(text)) => {
            text.parse().map(Value::Boolean).or_else(|_| misfit("true or false"))
        }
        (ColumnType::Boolean, Cell::Integer(_)) => misfit("true or false"),
    }
}

/// Letter case aside. ASCII letters never come from others, so that a search for ASCII text is
/// the same when SQL does it, which knows only the case of ASCII.
fn fold_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c.to_ascii_lowercase());
        } else if c.to_lowercase().any(|lower| lower.is_ascii()) {
            out.push(c);
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

/// The first text after all that begin with this one, in the order of bytes; none when there is
/// none.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            char::MAX => None,
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            return Some(chars.into_iter().chain([next]).collect());
        }
    }
    None
}

impl Condition {
    /// Whether SQL decides it. Else [`Self::matches`] does, on what SQL let through.
    fn in_sql(&self) -> bool {
        match (&self.target, self.op, self.values.first()) {
            (Target::Body(_), ..) => false,
            (_, Op::Contains, Some(Value::Text(text))) => text.is_ascii(),
            _ => true,
        }
    }

    /// The one value a column must have.
    pub(crate) fn equal_to(&self) -> Option<(usize, Value)> {
        match (&self.target, self.op, self.values.as_slice()) {
            (Target::Column(place), Op::In, [value]) if !self.or_nothing => {
                Some((*place, value.clone()))
            }
            (Target::Column(place), Op::In, []) if self.or_nothing => Some((*place, Value::Null)),
            _ => None,
        }
    }

    /// The column whose index could find the rows that meet this.
    pub(crate) fn seekable(&self) -> Option<usize> {
        match (&self.target, self.op) {
            // `false` is nearly always what most rows have.
            (Target::Column(_), Op::In) if self.values == [Value::Boolean(false)] => None,
            (Target::Column(place), Op::In | Op::Less | Op::Greater | Op::Prefix) => Some(*place),
            (Target::Column(place), Op::NotIn) if self.values.is_empty() && self.or_nothing => {
                Some(*place)
            }
            _ => None,
        }
    }

    /// Whether a row with this value in this column may meet it.
    pub(crate) fn allows(&self, place: usize, value: &Value) -> bool {
        self.target != Target::Column(place) || self.holds(value, Ord::cmp)
    }

    /// Whether only rows that have something in this column meet it, and its SQL says so.
    pub(crate) fn excludes_nothing(&self, place: usize) -> bool {
        self.target == Target::Column(place)
            && match self.op {
                Op::In => !self.or_nothing && !self.values.is_empty(),
                Op::Less | Op::Greater | Op::Prefix => true,
                Op::NotIn => self.or_nothing && self.values.is_empty(),
                Op::Contains => false,
            }
    }

    /// Adds ` AND <condition>`. For a condition that SQL does not decide, one that all rows meet
    /// that meet it, where there is one.
    pub(crate) fn write(&self, table: &Table, sql: &mut Sql, dialect: Dialect) {
        let place = match &self.target {
            Target::Body(_) => return self.write_body(table, sql, dialect),
            Target::Column(place) => *place,
        };
        if !self.in_sql() {
            return;
        }
        let column = format!("\"{}\"", table.columns[place].name);
        match (self.op, self.values.as_slice()) {
            (Op::In, []) if self.or_nothing => sql.push(&format!(" AND {column} IS NULL")),
            (Op::In, []) => sql.push(" AND 1 = 0"),
            (Op::In, [one]) if !self.or_nothing => sql.push(&format!(" AND {column} = ")).bind(one),
            (Op::In, values) => {
                sql.push(&format!(" AND ({column} IN (")).bind_all(values).push(")");
                if self.or_nothing {
                    sql.push(&format!(" OR {column} IS NULL"));
                }
                sql.push(")")
            }
            (Op::NotIn, []) if self.or_nothing => sql.push(&format!(" AND {column} IS NOT NULL")),
            (Op::NotIn, []) => sql,
            (Op::NotIn, values) => {
                sql.push(&format!(" AND ({column} NOT IN (")).bind_all(values).push(")");
                if !self.or_nothing {
                    sql.push(&format!(" OR {column} IS NULL"));
                }
                sql.push(")")
            }
            (Op::Less, values) => sql.push(&format!(" AND {column} < ")).bind_all(values),
            (Op::Greater, values) => sql.push(&format!(" AND {column} > ")).bind_all(values),
            (Op::Prefix, values) => {
                sql.push(&format!(" AND {column} >= ")).bind_all(values);
                if let Some(Value::Text(text)) = values.first()
                    && let Some(end) = after_prefix(text)
                {
                    sql.push(&format!(" AND {column} < ")).bind(end.as_str());
                }
                sql
            }
            (Op::Contains, values) => {
                let text = match values.first() {
                    Some(Value::Text(text)) => fold_case(text),
                    _ => String::new(),
                };
                let function = if dialect == Dialect::Sqlite { "instr" } else { "strpos" };
                sql.push(&format!(" AND {function}(lower({column}), "))
                    .bind(text.as_str())
                    .push(") > 0")
            }
        };
    }

    /// A row whose body holds one of these values at a path has its text somewhere in its bytes.
    fn write_body(&self, table: &Table, sql: &mut Sql, dialect: Dialect) {
        // Lists and objects are not written in a body as they are in a value, and neither is NUL.
        let unlike = |text: &str| text.starts_with(['{', '[']) || text.contains('\u{fffd}');
        if self.op != Op::In || self.or_nothing || self.values.iter().any(|v| unlike(text_of(v))) {
            return;
        }
        if self.values.is_empty() {
            sql.push(" AND 1 = 0");
            return;
        }
        let body = table.body_sql(dialect);
        for (place, value) in self.values.iter().enumerate() {
            let quoted = canonical_bytes(&text_of(value));
            let needle = quoted[1..quoted.len() - 1].to_vec();
            sql.push(if place == 0 { " AND (" } else { " OR " });
            match dialect {
                Dialect::Sqlite => {
                    sql.push(&format!("instr({body}, ")).bind(SqlValue::Bytes(needle)).push(") > 0")
                }
                Dialect::Postgres => {
                    let end = format!(" IN {body}) > 0");
                    sql.push("position(").bind(SqlValue::Bytes(needle)).push(&end)
                }
            };
        }
        sql.push(")");
    }

    pub(crate) fn matches(&self, columns: &[Value], body: &Json) -> bool {
        match &self.target {
            Target::Column(place) => {
                self.holds(columns.get(*place).unwrap_or(&Value::Null), Ord::cmp)
            }
            Target::Body(path) => {
                let value = path.iter().try_fold(body, |at, step| match at {
                    Json::Array(items) => items.get(step.parse::<usize>().ok()?),
                    other => other.get(step),
                });
                let value = match value {
                    None | Some(Json::Null) => Value::Null,
                    Some(Json::String(text)) => Value::Text(storable(text.clone())),
                    // Numbers, yes and no, lists and objects as they are written.
                    Some(other) => Value::Text(other.to_string()),
                };
                self.holds(&value, |a, b| {
                    let number = |value: &Value| text_of(value).parse::<i64>().ok();
                    match (number(a), number(b)) {
                        (Some(a), Some(b)) => a.cmp(&b),
                        _ => a.cmp(b),
                    }
                })
            }
        }
    }

    fn holds(&self, value: &Value, compare: impl Fn(&Value, &Value) -> std::cmp::Ordering) -> bool {
        let nothing = *value == Value::Null;
        let one_of = if nothing { self.or_nothing } else { self.values.contains(value) };
        let first = self.values.first();
        match (self.op, first) {
            (Op::In, _) => one_of,
            (Op::NotIn, _) => !one_of,
            (_, None) => false,
            _ if nothing => false,
            (Op::Less, Some(than)) => compare(value, than).is_lt(),
            (Op::Greater, Some(than)) => compare(value, than).is_gt(),
            (Op::Prefix, Some(prefix)) => text_of(value).starts_with(text_of(prefix)),
            (Op::Contains, Some(part)) => {
                fold_case(text_of(value)).contains(&fold_case(text_of(part)))
            }
        }
    }
}

fn text_of(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        _ => "",
    }
}
