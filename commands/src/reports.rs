//! Asks a report: as of a position, with the same bytes whenever it is asked.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::{
    finops::{
        attribution::Axis,
        cost::GROUPS_MAX,
        report::{Format, Question, Report, Run, With},
    },
    kernel::{Decider, Principal, canonical_bytes, sha256},
    kinds,
    log::{Position, hex},
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    attribute::{AttributeFault, AxisQuery, Whose, attributed},
    bills::Counting,
    compare::{self, Compare},
    ledger::{Ledger, LoadFault},
    ports::{
        AnswerFault, AnswerTable, Answers, BillFault, BillStore, Holds, LogFault, Value, ViewFault,
    },
    submit::{Outcome, Submission, SubmitFault},
    watch::{By, Unknown, axes, basis, filters},
};

/// Most rows of an answer: it lies in memory as a whole.
const ROWS_MAX: usize = 200_000;

/// A report has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReportFault {
    /// It cannot be asked by this program, or has too much of an answer.
    #[error("{0}")]
    Refused(String),
    /// The costs cannot be told.
    #[error(transparent)]
    Costs(#[from] BillFault),
    /// The answer cannot be written or kept.
    #[error(transparent)]
    Answer(#[from] AnswerFault),
}

impl From<AttributeFault> for ReportFault {
    fn from(fault: AttributeFault) -> Self {
        match fault {
            AttributeFault::Refused(refusal) => Self::Refused(refusal.detail),
            AttributeFault::Costs(fault) => Self::Costs(fault),
        }
    }
}

impl From<Unknown> for ReportFault {
    fn from(unknown: Unknown) -> Self {
        Self::Refused(unknown.0)
    }
}

/// A question, and the bills that it is about.
#[derive(Clone, Debug)]
pub struct Asking {
    question: Question,
    query: AxisQuery,
    whose: Whose,
    now: Counting,
    other: Option<(Counting, u32)>,
    /// The position it is asked as of.
    pub position: Position,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// As it is written.
    pub bytes: Vec<u8>,
    /// How many rows it has.
    pub rows: u64,
    /// The digest of the question and of the segments that counted.
    pub inputs: String,
}

fn asking(question: &Question, all: &Counting) -> Result<Asking, Unknown> {
    let groups = axes(&question.group_by)?;
    let asked = AxisQuery {
        basis: basis(&question.basis)?,
        groups,
        filters: filters(&question.conditions)?,
    };
    let of = |from, to| {
        let mut counting = all.clone();
        counting
            .bills
            .retain(|one| one.bill.month.is_some_and(|month| (from..=to).contains(&month)));
        counting
    };
    let position = all.position;
    let question = question.clone();
    let Some((_, newest)) = all.months() else {
        return Ok(Asking {
            question,
            query: asked,
            whose: Whose::default(),
            now: all.clone(),
            other: None,
            position,
        });
    };
    let (from, to) = question.months.of(newest);
    let other = match question.compare {
        None => None,
        Some(with) => {
            let compare = match with {
                With::Previous => Compare::Previous,
                With::Year => Compare::Year,
            };
            let (first, last, back) =
                compare.with(from, to, &question.group_by).map_err(Unknown)?;
            Some((of(first, last), back))
        }
    };
    let whose = Whose::default();
    Ok(Asking { question, query: asked, whose, now: of(from, to), other, position })
}

/// Asks. Blocks the thread.
pub fn answer(
    store: &dyn BillStore,
    answers: &dyn Answers,
    asking: &Asking,
    format: Format,
) -> Result<Answered, ReportFault> {
    let beside = asking.other.as_ref().map(|(counting, back)| (counting, *back));
    let digits = asking.question.digits;
    let table = |counting| attributed(store, counting, &asking.whose, &asking.query);
    let now = table(&asking.now)?;
    let then = match beside {
        Some((counting, back)) => Some((table(counting)?, back)),
        None => None,
    };
    let then = then.as_ref().map(|(then, back)| (then, *back));
    let answer = compare::Answer::of(&now, then, &asking.question.group_by, digits)
        .map_err(BillFault::from)?;
    if answer.rows.len() > ROWS_MAX {
        let what = format!("{} rows are more than {ROWS_MAX}: group by less", answer.rows.len());
        return Err(ReportFault::Refused(what));
    }
    let column = |name: &str, holds| (name.to_owned(), holds);
    let mut columns = Vec::with_capacity(GROUPS_MAX + 6);
    columns.extend(asking.question.group_by.iter().map(|name| column(name, Holds::Texts)));
    columns.push(column("currency", Holds::Texts));
    columns.push(column("amount", Holds::Amounts));
    columns.push(column("lines", Holds::Counts));
    if beside.is_some() {
        columns.push(column("before", Holds::Amounts));
        columns.push(column("difference", Holds::Amounts));
        columns.push(column("growth_percent", Holds::Texts));
    }
    let text = |value: &str| match value {
        "" => Value::Nothing,
        value => Value::Text(value.to_owned()),
    };
    let rows: Vec<Vec<Value>> = answer
        .rows
        .iter()
        .map(|row| {
            let mut values: Vec<Value> = row.group.iter().map(|value| text(value)).collect();
            values.push(text(row.currency.code()));
            values.push(Value::Amount(row.amount));
            values.push(Value::Count(row.lines));
            if let Some(other) = &row.other {
                values.push(Value::Amount(other.amount));
                values.push(Value::Amount(other.difference));
                values.push(other.growth.as_ref().map_or(Value::Nothing, |growth| text(growth)));
            }
            values
        })
        .collect();
    let table = AnswerTable { columns, rows };
    let Whose { rules, around, terms } = &asking.whose;
    let other = asking.other.as_ref().map(|(other, _)| other.digest());
    let digests = (asking.now.digest(), other, (rules, around.digest()));
    let inputs = if terms.is_none() {
        canonical_bytes(&(&asking.question, digests))
    } else {
        canonical_bytes(&(&asking.question, digests, terms.digest()))
    };
    let inputs = hex(&sha256(&inputs));
    let bytes = answers.write(&table, format)?;
    Ok(Answered { bytes, rows: table.rows.len() as u64, inputs })
}

impl Ledger {
    /// A report as it was at a position.
    pub async fn kept_report(
        &self,
        id: Uuid,
        at: Option<Position>,
    ) -> Result<Option<Report>, ViewFault> {
        let row = self.ports.views.get("inventory", &id.to_string(), at).await?;
        let Some(row) = row.filter(|row| row.body["kind"] == Report::KIND) else { return Ok(None) };
        serde_json::from_value(row.body["state"].clone()).map(Some).map_err(|error| {
            let what = format!("the row of report {id} does not read: {error}");
            ViewFault::Store(LogFault::Unexpected(what))
        })
    }

    /// A question with the bills as they were at a position.
    pub async fn asking(
        &self,
        question: &Question,
        at: Option<Position>,
    ) -> Result<Result<Asking, Unknown>, ViewFault> {
        let mut asking = match asking(question, &self.all_bills(at).await?) {
            Ok(asking) => asking,
            Err(unknown) => return Ok(Err(unknown)),
        };
        let filters = asking.query.filters.iter().map(|(axis, _)| axis);
        let axes: Vec<Axis> = asking.query.groups.iter().chain(filters).cloned().collect();
        let mut both = asking.now.clone();
        let other = asking.other.iter().flat_map(|(other, _)| other.bills.iter().cloned());
        both.bills.extend(other);
        let Question { currency, repriced, rule_set, organisation, .. } = &asking.question;
        // A price is a project's.
        let priced = repriced.then_some(&Axis::Project);
        let by = By::of(axes.iter().chain(priced), *rule_set, *organisation);
        let terms = self.terms(&both, currency.clone(), *repriced).await?;
        asking.whose = match self.watched_whose(&both, by).await? {
            Ok(whose) => Whose { terms, ..whose },
            Err(unknown) => return Ok(Err(unknown)),
        };
        Ok(Ok(asking))
    }

    /// Says what a run of a report gave.
    pub async fn record_run(&self, id: Uuid, run: &Run) -> Result<Outcome, SubmitFault> {
        let kind = kinds::by_name(Report::KIND)
            .ok_or_else(|| LoadFault::Missing("the kind report".to_owned()))?;
        let who = Principal::system("reports");
        self.submit(Submission::new(who, kind, id, "record", json!({"run": run}))).await
    }

    /// The reports that have to be asked now, and since when.
    pub async fn due_reports(
        &self,
        now: DateTime<Utc>,
    ) -> Result<Vec<(Uuid, Report, DateTime<Utc>)>, ViewFault> {
        let position = self.ports.views.position("inventory").await?;
        let all = self.all_of::<Report>(position).await?.into_iter();
        Ok(all.filter_map(|(id, report)| report.due(now).map(|due| (id, report, due))).collect())
    }
}

/// Asks and keeps the answer: what is to be recorded. Blocks the thread.
pub fn run(
    store: &Arc<dyn BillStore>,
    answers: &Arc<dyn Answers>,
    asking: &Asking,
    due: DateTime<Utc>,
    scheduled: bool,
) -> Result<Run, ReportFault> {
    let format = asking.question.format;
    let Answered { bytes, rows, inputs } =
        answer(store.as_ref(), answers.as_ref(), asking, format)?;
    let digest = answers.keep(&bytes)?;
    let (position, bytes) = (asking.position, bytes.len() as u64);
    Ok(Run { due, scheduled, position, inputs, format, digest, bytes, rows })
}
