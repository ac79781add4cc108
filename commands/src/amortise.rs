//! What was paid in advance, as lines of the days it is for.
//!
//! A commitment's purchase stands in the bill of one month, with its whole amount as effective. A
//! run adds lines beside it: one that takes the purchase's effective amount away (FOCUS wants it to
//! be 0), and one for every day of the term. Over all months what is recognised is what was billed.
//! A bill that recognises a commitment by itself is left alone, and so is one whose purchases are
//! not what the commitment says: the run tells.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    finops::{
        amount::{Amount, BillingMonth},
        bill::Segment,
        commitment::{Commitment, Terms},
        cost::{Basis, Dimension, TooLarge},
        line::{ChargeCategory, Line},
    },
    kernel::{canonical_bytes, sha256},
    log::hex,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    bills::{Counted, Counting},
    derive::{Derived, Run, RunFault, write},
    ledger::Ledger,
    ports::{BillFault, BillStore, Cell, CostQuery, Filter, Op},
};

/// What its segments' source is called.
pub const SOURCE: &str = "amortisation";

/// What a run has to say about a commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The commitment.
    pub commitment: Uuid,
    /// What it is called.
    pub name: String,
    /// Stable.
    pub code: &'static str,
    /// In words.
    pub detail: String,
}

/// What a run is worked out of.
#[derive(Clone, Debug)]
pub struct Amortising {
    /// Every commitment, in the order of ids.
    commitments: Vec<(Uuid, Commitment)>,
    /// The bills of every month: a purchase may lie in any.
    counting: Counting,
}

/// What the bills say of one commitment.
#[derive(Clone, Debug, Default)]
struct Found {
    /// Lines that are of a purchase or came back, with their segments.
    paid: Vec<(String, Line)>,
    /// What its usage is billed.
    usage_billed: Amount,
    /// What is recognised of it by the bill itself.
    usage_effective: Amount,
}

fn first() -> BillingMonth {
    BillingMonth::of(chrono::NaiveDate::MIN)
}

fn last() -> BillingMonth {
    BillingMonth::of(chrono::NaiveDate::from_ymd_opt(9_999, 12, 1).unwrap_or_default())
}

fn add(sum: &mut Amount, more: Amount) -> Result<(), BillFault> {
    *sum = sum.checked_add(more).ok_or(TooLarge)?;
    Ok(())
}

/// The sum of these amounts.
fn total(amounts: impl IntoIterator<Item = Amount>) -> Result<Amount, BillFault> {
    let mut sum = Amount::ZERO;
    for amount in amounts {
        add(&mut sum, amount)?;
    }
    Ok(sum)
}

/// Whether so much is a run of payments that follow each other: bills have a part of the term.
fn is_a_run(payments: &[Amount], sum: Amount) -> bool {
    (0..payments.len()).any(|from| {
        let mut all = 0_i128;
        payments[from..].iter().any(|one| {
            all = all.saturating_add(one.0);
            all == sum.0
        })
    })
}

/// What becomes of a commitment.
#[derive(Default)]
struct Judged<'a> {
    /// Lines whose effective amount is recognised by days; none when the commitment is left alone.
    taken: Option<Vec<&'a (String, Line)>>,
    /// What is to be said, by code.
    said: Vec<(&'static str, String)>,
}

impl Found {
    fn judged(&self, state: &Commitment) -> Result<Judged<'_>, BillFault> {
        let mut said = Vec::new();
        let negative = |line: &Line| line.billed < Amount::ZERO;
        let back = || self.paid.iter().filter(|(_, line)| negative(line));
        let refunded = total(back().map(|(_, line)| Amount(-line.billed.0)))?;
        let refund = state.refund();
        let settled = refund != Amount::ZERO && refunded == refund;
        if refund != Amount::ZERO && !settled {
            said.push(("refund-missing", format!("bills have {refunded} of the refund {refund}")));
        }
        let taken: Vec<_> = self
            .paid
            .iter()
            .filter(|(_, line)| {
                (negative(line) && settled) || line.category == ChargeCategory::Purchase
            })
            .collect();
        let bought = taken.iter().filter(|(_, line)| !(settled && negative(line)));
        let purchases = total(bought.clone().map(|(_, line)| line.billed))?;
        let effective = total(bought.map(|(_, line)| line.effective))?;
        let own = self.usage_effective != self.usage_billed;
        let no = |code, detail: String| Ok(Judged { taken: None, said: vec![(code, detail)] });
        let none = purchases == Amount::ZERO;
        if (!none && effective == Amount::ZERO) || (none && own) {
            let detail = "the bills recognise it by themselves; no lines are made".to_owned();
            return no("amortised-already", detail);
        }
        if own || effective != purchases {
            let detail = format!(
                "the purchases are effective at {effective} of {purchases}, the usage at {} of {}; \
                 no lines are made",
                self.usage_effective, self.usage_billed
            );
            return no("amortised-partly", detail);
        }
        let payments = state.payments();
        let agreed = total(payments.iter().copied())?;
        if none {
            said.push(("purchase-missing", format!("bills have no purchase of {agreed}")));
        } else if purchases != agreed {
            if !is_a_run(&payments, purchases) {
                let detail =
                    format!("bills have purchases of {purchases}, not {agreed}; no lines are made");
                return no("purchase-differs", detail);
            }
            said.push(("purchase-missing", format!("bills have {purchases} of {agreed}")));
        }
        Ok(Judged { taken: Some(taken), said })
    }
}

impl Amortising {
    /// The commitments' accounts.
    fn accounts(&self) -> BTreeSet<&str> {
        let terms = self.commitments.iter().filter_map(|(_, one)| one.terms.as_ref());
        terms.map(|terms| terms.billing_account.as_str()).collect()
    }

    /// Which categories a segment has of each commitment or resource, with what its usage comes to:
    /// asked of the store's sums, so that segments without any are not read line by line.
    fn found(&self, store: &dyn BillStore) -> Result<BTreeMap<Uuid, Found>, BillFault> {
        let mut found: BTreeMap<Uuid, Found> = BTreeMap::new();
        let accounts = self.accounts();
        for (counted, segment) in self.counting.segments() {
            let account = counted.bill.billing_account.as_str();
            if segment.is_derived() || !accounts.contains(account) {
                continue;
            }
            let of_account = |terms: &&Terms| terms.billing_account == account;
            let counted = self.commitments.iter().filter(|(_, one)| one.counts());
            let here: Vec<_> = counted
                .filter_map(|(id, one)| Some((*id, one.terms.as_ref().filter(of_account)?)))
                .collect();
            let mut wanted = false;
            for dimension in ["commitment", "resource"] {
                wanted |= tally(store, segment, dimension, &here, &mut found)?;
            }
            if !wanted {
                continue;
            }
            for line in store.lines(&segment.digest)? {
                let line = line?;
                let bought = line.category == ChargeCategory::Purchase;
                let back =
                    matches!(line.category, ChargeCategory::Credit | ChargeCategory::Adjustment)
                        && line.billed < Amount::ZERO;
                if !bought && !back {
                    continue;
                }
                for (id, terms) in &here {
                    if terms.is_of(&line) && terms.currency == line.currency {
                        let found = found.entry(*id).or_default();
                        found.paid.push((segment.digest.clone(), line.clone()));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Works the lines of some months out, and writes them. Blocks the thread.
    pub fn work(
        &self,
        store: &dyn BillStore,
        run: &Run,
    ) -> Result<(Derived, Vec<Finding>), BillFault> {
        let (found, nothing) = (self.found(store)?, Found::default());
        let (mut lines, mut findings) = (Vec::new(), Vec::new());
        for (id, state) in &self.commitments {
            let Some(terms) = state.terms.as_ref().filter(|_| state.counts()) else { continue };
            let Judged { taken, said } = found.get(id).unwrap_or(&nothing).judged(state)?;
            findings.extend(said.into_iter().map(|(code, detail)| Finding {
                commitment: *id,
                name: terms.name.clone(),
                code,
                detail,
            }));
            let Some(taken) = taken else { continue };
            let here =
                |line: &Line| run.months.contains(&line.month) && line.effective != Amount::ZERO;
            let taken = taken.into_iter().filter(|(_, line)| here(line));
            lines.extend(taken.map(|(segment, line)| Commitment::taken_from(*id, line, segment)));
            let mut month = *run.months.start();
            while run.months.contains(&month) {
                lines.extend(state.lines(*id, month));
                month = month.next();
            }
        }
        let counting = Counting {
            bills: self.in_months(run).cloned().collect(),
            position: self.counting.position,
        };
        Ok((write(store, SOURCE, self.digest(run), &counting, lines)?, findings))
    }

    fn in_months(&self, run: &Run) -> impl Iterator<Item = &Counted> {
        let asked = |one: &&Counted| one.bill.month.is_some_and(|one| run.months.contains(&one));
        self.counting.bills.iter().filter(asked)
    }

    /// Names commitments, bills and months: the same digest, the same lines.
    fn digest(&self, run: &Run) -> String {
        let accounts = self.accounts();
        let files = self.counting.segments().filter(|(counted, segment)| {
            !segment.is_derived() && accounts.contains(counted.bill.billing_account.as_str())
        });
        let mut files: Vec<_> = files.map(|(_, segment)| segment.digest.as_str()).collect();
        files.sort_unstable();
        let named = json!({
            "commitments": self.commitments, "segments": files,
            "from": run.months.start(), "to": run.months.end(),
        });
        hex(&sha256(&canonical_bytes(&named)))
    }
}

/// Adds what a segment's usage comes to; tells whether there are purchases or refunds in it.
fn tally(
    store: &dyn BillStore,
    segment: &Segment,
    dimension: &'static str,
    here: &[(Uuid, &Terms)],
    found: &mut BTreeMap<Uuid, Found>,
) -> Result<bool, BillFault> {
    let by_commitment = dimension == "commitment";
    let named: BTreeMap<&str, Vec<(Uuid, &Terms)>> = here
        .iter()
        .filter(|(_, terms)| terms.commitment.is_empty() != by_commitment)
        .map(|(id, terms)| {
            let name = if by_commitment { &terms.commitment } else { &terms.resource };
            (name.as_str(), (*id, *terms))
        })
        .fold(BTreeMap::new(), |mut named: BTreeMap<_, Vec<_>>, (name, one)| {
            named.entry(name).or_default().push(one);
            named
        });
    if named.is_empty() {
        return Ok(false);
    }
    let values = named.keys().map(|name| Cell::from(*name)).collect();
    let filter = Filter { column: dimension.to_owned(), op: Op::In, values };
    let mut wanted = false;
    for basis in [Basis::Billed, Basis::Effective] {
        let asked = CostQuery {
            basis,
            groups: vec![Dimension::Plain(dimension), Dimension::Plain("charge_category")],
            filters: vec![(Dimension::Plain(dimension), filter.clone())],
            alike: None,
        };
        for (group, currency, sum) in store.sums(&[segment], &asked)?.iter() {
            wanted |= group[1] != ChargeCategory::Usage.name();
            for (id, terms) in named.get(group[0].as_str()).into_iter().flatten() {
                // What is used of a resource is charged apart from what was paid for it.
                if !by_commitment || group[1] != "Usage" || terms.currency != *currency {
                    continue;
                }
                let found = found.entry(*id).or_default();
                let own = match basis {
                    Basis::Billed => &mut found.usage_billed,
                    _ => &mut found.usage_effective,
                };
                add(own, sum.amount)?;
            }
        }
    }
    Ok(wanted)
}

impl Ledger {
    /// What an amortisation is worked out of, as the log stands now.
    pub async fn amortising(&self) -> Result<Amortising, RunFault> {
        self.views_caught_up().await?;
        let (commitments, position) = self.states::<Commitment>(None).await?;
        let counting = self.bills(first(), last(), Some(position)).await?;
        Ok(Amortising { commitments, counting })
    }
}
