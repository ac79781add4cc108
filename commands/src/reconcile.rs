//! Bills beside what their issuers say: invoice by invoice, and whether a month is closed.

use std::collections::BTreeMap;

use domain::{
    finops::{
        amount::BillingMonth,
        bill::Reconciled,
        issuer::{Issuer, Period},
    },
    log::Position,
};

use crate::{bills::Counted, ledger::Ledger, ports::ViewFault};

/// Where an issuer and we say different things about a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// `InvoiceIssuerName`.
    pub issuer: String,
    /// What the issuer says; our bill is the other.
    pub says: Period,
}

/// One bill beside what is stated about it.
#[derive(Clone, Debug)]
pub struct Reconciliation {
    /// The bill.
    pub counted: Counted,
    /// Its invoices, sorted; none when lines of it do not say theirs.
    pub invoices: Option<Vec<Reconciled>>,
    /// Issuers of its lines that say otherwise about the month.
    pub disagreements: Vec<Disagreement>,
}

impl Ledger {
    /// The bills of these months, both included, beside what is stated, as it was at a position.
    pub async fn reconcile(
        &self,
        from: BillingMonth,
        to: BillingMonth,
        at: Option<Position>,
    ) -> Result<(Vec<Reconciliation>, Position), ViewFault> {
        let counting = self.bills(from, to, at).await?;
        let issuers = self.issuers(Some(counting.position)).await?;
        let reconcile = |counted: Counted| {
            let says = |issuer: &str| {
                let period = issuers.get(issuer)?.periods.get(&counted.bill.month?)?;
                let closed = *period == Period::Closed;
                (closed != counted.bill.closed)
                    .then(|| Disagreement { issuer: issuer.to_owned(), says: *period })
            };
            let disagreements = counted.bill.issuers().into_iter().filter_map(says).collect();
            Reconciliation { invoices: counted.bill.reconciled(), disagreements, counted }
        };
        Ok((counting.bills.into_iter().map(reconcile).collect(), counting.position))
    }

    /// Every issuer by its name, as they were at a position.
    pub async fn issuers(
        &self,
        at: Option<Position>,
    ) -> Result<BTreeMap<String, Issuer>, ViewFault> {
        let (issuers, _) = self.states::<Issuer>(at).await?;
        Ok(issuers.into_iter().map(|(_, issuer)| (issuer.name.clone(), issuer)).collect())
    }
}
