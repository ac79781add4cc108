//! Where what a centre has after the rules comes from: its own lines, what pools gave it and by
//! what part, and the lines of those pools, back to the first.

use std::collections::{BTreeMap, BTreeSet};

use domain::finops::{
    allocate::Moved,
    amount::{Amount, Currency, SCALE},
    attribution::Axis,
    cost::TooLarge,
    ratio::{Ratio, round_half_even, whole},
};

use crate::{
    allocate::{Allocation, Bucket},
    attribute::{AttributeFault, AxisQuery, Whose, explain_attributed},
    bills::{Counting, Explained},
    ports::{BillStore, Cell, Filter, Op},
};

/// Decimals of a share in percent.
const PERCENT_DECIMALS: u32 = 4;

/// How an amount after the rules comes about: before, and received, less given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The lines that were placed there.
    pub before: Amount,
    /// What rules brought.
    pub received: Amount,
    /// What rules took.
    pub given: Amount,
    /// After all rules.
    pub after: Amount,
}

/// One movement on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: String,
    /// From.
    pub source: String,
    /// To; the source itself for what stays.
    pub target: String,
    /// In what.
    pub currency: Currency,
    /// `2026-10`.
    pub month: String,
    /// `ChargeCategory`.
    pub category: String,
    /// What the source had to give.
    pub of: Amount,
    /// How much of it moved.
    pub amount: Amount,
    /// The part that the target's weight is; the amount is this part of the whole, within a unit.
    pub share: Ratio,
}

impl Step {
    /// The share in percent, rounded half to even to four decimals, as text.
    pub fn percent(&self) -> String {
        let units = &self.share * whole(100 * 10_i128.pow(PERCENT_DECIMALS));
        let units = round_half_even(&units).unwrap_or_default();
        Amount(units * 10_i128.pow(SCALE - PERCENT_DECIMALS)).to_string()
    }
}

/// Where amounts after the rules come from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// By currency.
    pub flows: BTreeMap<Currency, Flow>,
    /// In the order of months and rules.
    pub steps: Vec<Step>,
    /// The lines of the centres themselves and of the pools that they received from.
    pub explained: Explained,
    /// The question that these lines are the answer to.
    pub asked: AxisQuery,
}

impl Allocation {
    /// Where what these centres have comes from, with at most so many lines. Blocks the thread.
    pub fn explain(
        &self,
        store: &dyn BillStore,
        counting: &Counting,
        whose: &Whose,
        asked: &AxisQuery,
        most: usize,
    ) -> Result<Origin, AttributeFault> {
        let (mut origin, mut wanted) = (Origin::default(), BTreeSet::new());
        for (bucket, share) in &self.buckets {
            if !bucket.is_wanted(whose, asked)? {
                continue;
            }
            let flow = origin.flows.entry(bucket.currency.clone()).or_default();
            flow.before = flow.before.checked_add(share.before).ok_or(TooLarge)?;
            flow.after = flow.after.checked_add(share.after).ok_or(TooLarge)?;
            wanted.insert(bucket.clone());
        }
        let whole = self.given()?;
        // Backwards through each month's rules, so that what filled a pool comes after the pool.
        let mut on_the_way = wanted.clone();
        for (moved, bucket) in self.trace.iter().rev() {
            let to = Bucket { centre: moved.target.clone(), ..bucket.clone() };
            let from = Bucket { centre: moved.source.clone(), ..bucket.clone() };
            let stays = moved.source == moved.target;
            let flow = origin.flows.entry(bucket.currency.clone()).or_default();
            if wanted.contains(&to) && !stays {
                flow.received = flow.received.checked_add(Amount(moved.amount)).ok_or(TooLarge)?;
            }
            if wanted.contains(&from) && !stays {
                flow.given = flow.given.checked_add(Amount(moved.amount)).ok_or(TooLarge)?;
            }
            if on_the_way.contains(&to) || wanted.contains(&from) {
                let of = whole.get(&(moved.rule.as_str(), from.clone())).copied();
                origin.steps.push(step(moved, bucket, of.unwrap_or_default()));
                on_the_way.insert(from);
            }
        }
        origin.steps.reverse();
        origin.flows.retain(|_, flow| *flow != Flow::default());
        origin.asked = of_lines(asked, &on_the_way);
        origin.explained = explain_attributed(store, counting, whose, &origin.asked, most)?;
        Ok(origin)
    }

    /// What each rule had to give, by source.
    fn given(&self) -> Result<BTreeMap<(&str, Bucket), Amount>, TooLarge> {
        let mut given: BTreeMap<(&str, Bucket), Amount> = BTreeMap::new();
        for (moved, bucket) in &self.trace {
            let from = Bucket { centre: moved.source.clone(), ..bucket.clone() };
            let sum = given.entry((moved.rule.as_str(), from)).or_default();
            *sum = sum.checked_add(Amount(moved.amount)).ok_or(TooLarge)?;
        }
        Ok(given)
    }
}

fn step(moved: &Moved, bucket: &Bucket, of: Amount) -> Step {
    Step {
        rule: moved.rule.clone(),
        source: moved.source.clone(),
        target: moved.target.clone(),
        currency: bucket.currency.clone(),
        month: bucket.month.clone(),
        category: bucket.category.clone(),
        of,
        amount: Amount(moved.amount),
        share: moved.share.clone(),
    }
}

/// The lines that were placed in these buckets' centres, of those that are asked for.
fn of_lines(asked: &AxisQuery, buckets: &BTreeSet<Bucket>) -> AxisQuery {
    let centres: BTreeSet<&str> = buckets.iter().map(|bucket| bucket.centre.as_str()).collect();
    let centres = Filter {
        column: Axis::Project.to_string(),
        op: Op::In,
        values: centres.into_iter().map(Cell::from).collect(),
    };
    // What says which centres are meant has been decided: pools have other values there.
    let of_lines = asked.filters.iter().filter(|(axis, _)| axis.is_of_line()).cloned();
    let filters = of_lines.chain([(Axis::Project, centres)]).collect();
    AxisQuery { basis: asked.basis, groups: vec![], filters }
}
