//! Lines that are worked out here into bills.
//!
//! A run works lines out of the log as it stands at a position, puts them into segments, and books
//! these by the same command as a file's. Its lines take the place of those that it made before;
//! equal lines make no event, and a closed month gets a further version, with a reason, or the run
//! is refused as a whole. So closing, restating, explaining and allocating know no other lines.

use std::{collections::BTreeMap, ops::RangeInclusive};

use domain::{
    finops::{
        amount::BillingMonth,
        bill::{ByCurrency, Manner},
        line::Line,
    },
    kernel::{Principal, Role},
    log::Position,
};
use uuid::Uuid;

use crate::{
    bills::{Counting, Import, OnRepeats, booking},
    ledger::Ledger,
    ports::{BillFault, BillStore, Part, ReadBill, ViewFault},
    submit::SubmitFault,
};

/// What a run is asked for.
#[derive(Clone, Debug)]
pub struct Run {
    /// Of these months.
    pub months: RangeInclusive<BillingMonth>,
    /// Why a closed month gets a further version.
    pub reason: String,
    /// Who asks.
    pub by: Principal,
    /// Only tell what would change.
    pub validate_only: bool,
}

/// Lines of a run, in segments that nothing counts yet.
#[derive(Clone, Debug)]
pub struct Derived {
    /// What worked them out.
    pub source: String,
    /// One part for each bill; [`ReadBill::source_digest`] names what they were worked out of.
    pub read: ReadBill,
    /// As the log stood here.
    pub position: Position,
    /// What the lines came to that are there of each bill.
    before: BTreeMap<Uuid, ByCurrency>,
}

/// A bill after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Its id.
    pub id: Uuid,
    /// The run's lines.
    pub part: Part,
    /// What the lines came to whose place they take.
    pub before: ByCurrency,
    /// Whether they differ from those.
    pub changed: bool,
    /// The bill's status.
    pub status: String,
    /// The position of the event, or where there was nothing to do.
    pub position: Position,
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RunFault {
    /// Lines are not to be had, or cannot be written.
    #[error(transparent)]
    Bills(#[from] BillFault),
    /// The views do not answer.
    #[error(transparent)]
    Views(#[from] ViewFault),
    /// A bill does not take them, or the log failed.
    #[error(transparent)]
    Submit(#[from] SubmitFault),
}

/// Writes what a run worked out of these bills' months. Where it had lines before and has none now,
/// an empty segment takes their place. Blocks the thread.
pub fn write(
    store: &dyn BillStore,
    source: &str,
    inputs: String,
    counting: &Counting,
    mut lines: Vec<Line>,
) -> Result<Derived, BillFault> {
    lines.sort_by(|a, b| (&a.billing_account, a.month).cmp(&(&b.billing_account, b.month)));
    let mut number = 0;
    let mut bill: Option<(String, BillingMonth)> = None;
    let mut numbered = lines.into_iter().map(|mut line| {
        let same = bill.as_ref().is_some_and(|(account, month)| {
            *account == line.billing_account && *month == line.month
        });
        if !same {
            bill = Some((line.billing_account.clone(), line.month));
            number = 0;
        }
        number += 1;
        line.number = number;
        line
    });
    let mut parts = store.write(&mut numbered)?;
    let mut before = BTreeMap::new();
    for (counted, segment) in counting.segments().filter(|(_, one)| one.source == source) {
        before.insert(counted.id, segment.sums.clone());
        let (account, month) = (&counted.bill.billing_account, counted.bill.month);
        let again = |part: &Part| part.billing_account == *account && Some(part.month) == month;
        if let Some(month) = month
            && segment.lines > 0
            && !parts.iter().any(again)
        {
            parts.push(Part {
                billing_account: account.clone(),
                month,
                digest: store.empty()?,
                lines: 0,
                sums: ByCurrency::new(),
                invoices: Some(Vec::new()),
            });
        }
    }
    parts.sort_by(|a, b| (&a.billing_account, a.month).cmp(&(&b.billing_account, b.month)));
    let read = ReadBill { source_digest: inputs, parts, ..ReadBill::default() };
    Ok(Derived { source: source.to_owned(), read, position: counting.position, before })
}

impl Ledger {
    /// Waits until the views show all that is in the log.
    pub(crate) async fn views_caught_up(&self) -> Result<(), RunFault> {
        /// How long views may take.
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
        let head = self.ports.log.head().await.map_err(SubmitFault::from)?.position;
        Ok(self.ports.views.reach_position(head, PATIENCE).await?)
    }

    /// Books a run's lines: all bills or, when one of them refuses, none.
    pub async fn renew(&self, derived: &Derived, run: &Run) -> Result<Vec<Renewed>, SubmitFault> {
        run.by.authorise(Role::Admin, None)?;
        let import = Import {
            source: derived.source.clone(),
            manner: Manner::Renew,
            reason: run.reason.clone(),
            by: run.by.clone(),
            repeats: OnRepeats::Count,
        };
        let mut bills = Vec::with_capacity(derived.read.parts.len());
        for part in &derived.read.parts {
            let plan = self.plan(&booking(&derived.read, part, &import)?).await?;
            let id = domain::finops::bill::Bill::id(&part.billing_account, part.month);
            bills.push(Renewed {
                id,
                part: part.clone(),
                before: derived.before.get(&id).cloned().unwrap_or_default(),
                changed: !plan.events.is_empty(),
                status: plan.status[1].clone(),
                position: derived.position,
            });
        }
        if !run.validate_only {
            for bill in bills.iter_mut().filter(|bill| bill.changed) {
                let submission = booking(&derived.read, &bill.part, &import)?;
                let outcome = self.submit(submission).await?;
                outcome.status.clone_into(&mut bill.status);
                bill.position = outcome.position;
            }
        }
        Ok(bills)
    }
}
