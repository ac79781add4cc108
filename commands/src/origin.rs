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
    allocate::{Allocation, Bucket, is_of_bucket, moved_parts, run},
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
    /// What the source had to give of what is asked for.
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
    /// The allocation's digest.
    pub digest: String,
    /// By currency.
    pub flows: BTreeMap<Currency, Flow>,
    /// In the order of months and rules.
    pub steps: Vec<Step>,
    /// The lines of the centres themselves and of the pools that they received from.
    pub explained: Explained,
    /// The question that these lines are the answer to.
    pub asked: AxisQuery,
}

/// Where what centres have after the rules comes from, with at most so many lines. Blocks the
/// thread.
pub fn explain_allocated(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    asked: &AxisQuery,
    most: usize,
) -> Result<Origin, AttributeFault> {
    let of_parts = AxisQuery { groups: vec![], ..asked.clone() };
    let (allocation, before) = run(store, counting, whose, &of_parts)?;
    let ask = Ask { allocation: &allocation, whose, asked };
    let mut origin = Origin { digest: allocation.digest.clone(), ..Origin::default() };
    let strata: BTreeMap<String, Bucket> =
        before.keys().map(|bucket| (bucket.stratum(), bucket.clone())).collect();
    for (bucket, parts) in &before {
        for (_, amount) in parts.iter().filter(|(own, _)| ask.wants(bucket, own)) {
            add(&mut origin.flow(bucket).before, *amount)?;
        }
    }
    // What of each movement is asked for, and what its source had of that.
    let trace = &allocation.trace;
    let (mut amounts, mut of) = (vec![0; trace.len()], BTreeMap::<(&str, Bucket), i128>::new());
    let mut overflown = false;
    let after = moved_parts(before, allocation.moves(), |place, own, amount| {
        let Some((moved, bucket)) = trace.get(place) else { return };
        if !ask.wants_part(bucket, own) {
            return;
        }
        let (to, from) = ends(moved, bucket);
        let had = of.entry((moved.rule.as_str(), from.clone())).or_default();
        let mut sums = vec![&mut amounts[place], had];
        let flow = origin.flow(bucket);
        if moved.source != moved.target && ask.wants(&to, own) {
            sums.push(&mut flow.received.0);
        }
        if moved.source != moved.target && ask.wants(&from, own) {
            sums.push(&mut flow.given.0);
        }
        for sum in sums {
            match sum.checked_add(amount) {
                Some(more) => *sum = more,
                None => overflown = true,
            }
        }
    })?;
    if overflown {
        return Err(TooLarge.into());
    }
    for ((centre, stratum), parts) in &after {
        let Some(bucket) = strata.get(stratum) else { continue };
        let bucket = Bucket { centre: centre.clone(), ..bucket.clone() };
        for (_, amount) in parts.iter().filter(|(own, _)| ask.wants(&bucket, own)) {
            add(&mut origin.flow(&bucket).after, *amount)?;
        }
    }
    // Backwards through each month's rules, so that what filled a pool comes after the pool.
    let buckets = allocation.buckets.keys();
    let wanted: BTreeSet<Bucket> =
        buckets.filter(|bucket| ask.wants_bucket(bucket)).cloned().collect();
    let mut on_the_way = wanted.clone();
    for ((moved, bucket), amount) in trace.iter().zip(&amounts).rev() {
        let (to, from) = ends(moved, bucket);
        if on_the_way.contains(&to) || wanted.contains(&from) {
            let of = of.get(&(moved.rule.as_str(), from.clone())).copied().unwrap_or_default();
            if of != 0 || *amount != 0 {
                origin.steps.push(step(moved, bucket, Amount(of), Amount(*amount)));
            }
            on_the_way.insert(from);
        }
    }
    origin.steps.reverse();
    origin.flows.retain(|_, flow| *flow != Flow::default());
    origin.asked = ask.of_lines(&on_the_way);
    origin.explained = explain_attributed(store, counting, whose, &origin.asked, most)?;
    Ok(origin)
}

impl Origin {
    fn flow(&mut self, bucket: &Bucket) -> &mut Flow {
        self.flows.entry(bucket.currency.clone()).or_default()
    }
}

fn add(sum: &mut Amount, amount: i128) -> Result<(), TooLarge> {
    *sum = sum.checked_add(Amount(amount)).ok_or(TooLarge)?;
    Ok(())
}

/// Where a movement goes, and where it comes from.
fn ends(moved: &Moved, bucket: &Bucket) -> (Bucket, Bucket) {
    let of = |centre: &String| Bucket { centre: centre.clone(), ..bucket.clone() };
    (of(&moved.target), of(&moved.source))
}

/// What is asked of an allocation.
struct Ask<'a> {
    allocation: &'a Allocation,
    whose: &'a Whose,
    asked: &'a AxisQuery,
}

impl Ask<'_> {
    /// The filters that a centre decides, or those that lines do.
    fn filters(&self, of_bucket: bool) -> impl Iterator<Item = &(Axis, Filter)> {
        let filters = self.asked.filters.iter();
        filters.filter(move |(axis, _)| is_of_bucket(axis, self.whose) == of_bucket)
    }

    fn hold(&self, of_bucket: bool, bucket: &Bucket, own: &[String]) -> bool {
        self.filters(of_bucket).all(|(axis, filter)| {
            let value = self.allocation.value(bucket, own, axis, self.whose);
            value.is_ok_and(|value| filter.holds(&value))
        })
    }

    fn wants_bucket(&self, bucket: &Bucket) -> bool {
        self.hold(true, bucket, &[])
    }

    fn wants_part(&self, bucket: &Bucket, own: &[String]) -> bool {
        self.hold(false, bucket, own)
    }

    fn wants(&self, bucket: &Bucket, own: &[String]) -> bool {
        self.wants_part(bucket, own) && self.wants_bucket(bucket)
    }

    /// The lines that were placed in these buckets' centres, of those that are asked for.
    fn of_lines(&self, buckets: &BTreeSet<Bucket>) -> AxisQuery {
        let centres: BTreeSet<&str> = buckets.iter().map(|one| one.centre.as_str()).collect();
        let centres = Filter {
            column: Axis::Project.to_string(),
            op: Op::In,
            values: centres.into_iter().map(Cell::from).collect(),
        };
        // What says which centres are meant has been decided: pools have other values there.
        let of_lines = self
            .asked
            .filters
            .iter()
            .filter(|(axis, _)| axis.is_of_line() || !is_of_bucket(axis, self.whose));
        let filters = of_lines.cloned().chain([(Axis::Project, centres)]).collect();
        AxisQuery { basis: self.asked.basis, groups: vec![], filters }
    }
}

fn step(moved: &Moved, bucket: &Bucket, of: Amount, amount: Amount) -> Step {
    Step {
        rule: moved.rule.clone(),
        source: moved.source.clone(),
        target: moved.target.clone(),
        currency: bucket.currency.clone(),
        month: bucket.month.clone(),
        category: bucket.category.clone(),
        of,
        amount,
        share: moved.share.clone(),
    }
}
