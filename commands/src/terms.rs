//! What applies to sums, out of the log: what was said of exchange rates and re-pricings, where; and
//! where bills were closed.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    finops::{
        amount::{Amount, Currency},
        bill::Bill,
        cost::TooLarge,
        exchange_rate::{ExchangeRate, Rates},
        repricing::{Repricing, Repricings},
        terms::{Applied, Terms},
    },
    kernel::{Decider, State},
    log::{Position, Record},
};
use uuid::Uuid;

use crate::{
    attribute::{AttributeFault, AxisQuery, Whose, placed},
    bills::Counting,
    ledger::Ledger,
    ports::{AuditFilter, BillStore, LogFault, ViewFault},
};

/// Records that are asked for at once.
const PAGE: usize = 1_000;

/// What became of sums by the same terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The terms.
    pub applied: Applied,
    /// How many lines.
    pub lines: u64,
    /// What they are billed at.
    pub before: Amount,
    /// What that comes to.
    pub after: Amount,
}

/// What applies to what is asked for, and what it makes of it: bill by bill. Blocks the thread.
pub fn effects(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    asked: &AxisQuery,
) -> Result<Vec<Effect>, AttributeFault> {
    let mut effects: BTreeMap<Applied, Effect> = BTreeMap::new();
    placed(store, counting, whose, asked, |one| {
        let Some((before, applied)) = one.applied else { return Ok(()) };
        let new = || Effect {
            applied: applied.clone(),
            lines: 0,
            before: Amount::ZERO,
            after: Amount::ZERO,
        };
        let effect = effects.entry(applied.clone()).or_insert_with(new);
        effect.lines += before.lines;
        effect.before = effect.before.checked_add(before.amount).ok_or(TooLarge)?;
        effect.after = effect.after.checked_add(one.sum.amount).ok_or(TooLarge)?;
        Ok(())
    })?;
    Ok(effects.into_values().collect())
}

impl Ledger {
    /// Records of a kind up to a position, in order.
    async fn said(
        &self,
        kind: &str,
        event_type: Option<&str>,
        until: Position,
    ) -> Result<Vec<Record>, ViewFault> {
        let filter = AuditFilter {
            kind: Some(kind.to_owned()),
            event_type: event_type.map(str::to_owned),
            ..AuditFilter::default()
        };
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let found = self.ports.log.search(&filter, from, false, PAGE).await;
            let found = found.map_err(ViewFault::Store)?;
            let full = found.len() == PAGE;
            from = found.last().map_or(from, Record::position);
            all.extend(found.into_iter().take_while(|record| record.position() <= until));
            if !full || from > until {
                return Ok(all);
            }
        }
    }

    /// What each of a kind was after each of its events up to a position, in the order of the log.
    async fn past<D: Decider>(
        &self,
        until: Position,
        mut take: impl FnMut(Position, Uuid, &D) + Send,
    ) -> Result<(), ViewFault> {
        let mut states: BTreeMap<String, D> = BTreeMap::new();
        for record in self.said(D::KIND, None, until).await? {
            let state = states.entry(record.id().to_owned()).or_default();
            let read = State::evolve(state, record.event_type(), record.data());
            let id = record.id().parse().ok();
            let (Ok(()), Some(id)) = (read, id) else {
                let what = format!("the record at position {} does not read", record.position());
                return Err(ViewFault::Store(LogFault::Unexpected(what)));
            };
            take(record.position(), id, state);
        }
        Ok(())
    }

    /// What applies to costs of these bills, as it was known at their position: into which currency
    /// they are converted, and whether they have other prices.
    pub async fn terms(
        &self,
        counting: &Counting,
        currency: Option<Currency>,
        repriced: bool,
    ) -> Result<Terms, ViewFault> {
        let position = counting.position;
        let mut terms = Terms { currency, position, ..Terms::default() };
        if terms.currency.is_some() {
            let mut rates = Rates::default();
            self.past::<ExchangeRate>(position, |at, id, rate| rates.take(at, id, rate)).await?;
            terms.rates = rates;
        }
        if repriced {
            let mut all = Repricings::default();
            self.past::<Repricing>(position, |at, id, one| all.take(at, id, one)).await?;
            terms.repricings = Some(all);
        }
        if !terms.is_none() && counting.bills.iter().any(|one| one.bill.closed) {
            let counted: BTreeSet<Uuid> = counting.bills.iter().map(|one| one.id).collect();
            let closings = self.said(Bill::KIND, Some("closed"), position).await?;
            let closed = closings
                .iter()
                .filter_map(|record| Some((record.id().parse().ok()?, record.position())));
            terms.closed = closed.filter(|(id, _)| counted.contains(id)).collect();
        }
        Ok(terms)
    }
}
