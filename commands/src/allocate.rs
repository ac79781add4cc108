//! Whose costs are: every line placed by rules, what is shared spread, and how each centre came to
//! what it has.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    finops::{
        allocate::{self, Buckets, Moved},
        amount::{Amount, BillingMonth, Currency},
        attribution::{Axis, Place},
        cost::{Basis, Dimension, Sum, Table, TooLarge},
        line::Line,
        parts::{self, Parts, PartsFault},
        ratio::whole,
        rule_set::RuleSet,
        rules::{Attribution, By, Known, Match, Method, Rules, Usage},
    },
    kernel::{Decider, Principal, Refusal, canonical_bytes, codes, sha256},
    kinds,
    log::{Position, hex},
    tenancy::project::Project,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    attribute::{AttributeFault, AxisQuery, Whose, attributed_places},
    bills::{Counting, apart},
    derive::RunFault,
    ledger::{Ledger, LoadFault},
    ports::{BillStore, ReadBill, ViewFault},
    submit::{Submission, SubmitFault},
};

/// Most parts that shared costs are told by: some hundred megabytes of them.
const PARTS_MAX: usize = 2_000_000;

/// What a centre has in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Before anything is spread: the lines that were placed there.
    pub before: Amount,
    /// After all rules.
    pub after: Amount,
}

/// What was placed by one rule, or by one thing that is no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedBy {
    /// What.
    pub by: By,
    /// The rule's name, when it was a rule.
    pub rule: Option<String>,
    /// How many lines.
    pub lines: u64,
    /// What they come to, by currency.
    pub sums: BTreeMap<Currency, Amount>,
}

impl PlacedBy {
    fn new(place: &Place) -> Self {
        Self { by: place.by, rule: place.rule.clone(), lines: 0, sums: BTreeMap::new() }
    }
}

/// One movement of a shared cost, over all months and charge categories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The rule.
    pub rule: String,
    /// From.
    pub source: String,
    /// To; the source itself for what stays.
    pub target: String,
    /// In what.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
}

/// Costs by centre, and how they came there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// What each centre has, month by month.
    pub buckets: BTreeMap<Bucket, Share>,
    /// What placed lines, and which.
    pub placed: Vec<PlacedBy>,
    /// In the order of rules.
    pub movements: Vec<Movement>,
    /// The same month by month in the order of rules, with each part of the whole; each with the
    /// source's bucket.
    pub trace: Vec<(Moved, Bucket)>,
    /// What else of the lines is told apart.
    by: Vec<Axis>,
    /// What each centre has after the rules, by the values of that; empty when it is nothing.
    parts: BTreeMap<Bucket, BTreeMap<Vec<String>, Amount>>,
    /// Centres that a rule with `create_project` has placed lines in.
    pub to_create: BTreeSet<String>,
    /// Names bills, rules, estate and basis: the same digest, the same numbers.
    pub digest: String,
}

/// What is kept apart while costs are spread: the same rules apply to each, and none mixes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    /// The centre.
    pub centre: String,
    /// In what.
    pub currency: Currency,
    /// `2026-10`.
    pub month: String,
    /// `ChargeCategory`.
    pub category: String,
}

impl Bucket {
    pub(crate) fn stratum(&self) -> String {
        format!("{} {} {}", self.currency, self.month, self.category)
    }
}

/// Places every line, and spreads what is shared. What all centres have after it is what the lines
/// come to, to the last unit. Blocks the thread.
pub fn allocate(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    basis: Basis,
) -> Result<Allocation, AttributeFault> {
    allocate_by(store, counting, whose, &AxisQuery { basis, ..AxisQuery::default() })
}

/// The same so that this question can be asked of it: also by what of the lines is neither the
/// centre's nor kept apart anyway. Blocks the thread.
pub fn allocate_by(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    query: &AxisQuery,
) -> Result<Allocation, AttributeFault> {
    let (mut allocation, parts) = run(store, counting, whose, query)?;
    if !allocation.by.is_empty() {
        allocation.parts = spread_parts(parts, allocation.moves())?;
    }
    Ok(allocation)
}

/// What each centre has before the rules, by the values of what else is told apart.
pub(crate) type PartsBefore = BTreeMap<Bucket, BTreeMap<Vec<String>, i128>>;

/// The allocation without its parts, and these as they were before the rules.
pub(crate) fn run(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    query: &AxisQuery,
) -> Result<(Allocation, PartsBefore), AttributeFault> {
    let mut allocation = Allocation { by: of_origin(whose, query), ..Allocation::default() };
    let mut placed: BTreeMap<(By, String), PlacedBy> = BTreeMap::new();
    let mut parts = PartsBefore::new();
    let mut groups =
        ["month", "charge_category"].map(|name| Axis::Line(Dimension::Plain(name))).to_vec();
    groups.extend(allocation.by.iter().cloned());
    let asked = AxisQuery { basis: query.basis, groups, filters: vec![] };
    for (place, values, currency, sum) in attributed_places(store, counting, whose, &asked)? {
        let by = (place.by, place.rule.clone().unwrap_or_default());
        let by = placed.entry(by).or_insert_with(|| PlacedBy::new(&place));
        by.lines += sum.lines;
        let total = by.sums.entry(currency.clone()).or_default();
        *total = total.checked_add(sum.amount).ok_or(TooLarge)?;
        let creates = |name: &String| {
            whose.rules.attribution.iter().any(|rule| rule.create_project && rule.name == *name)
        };
        if place.rule.as_ref().is_some_and(creates) {
            allocation.to_create.insert(place.centre.clone());
        }
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or_default();
        let bucket = Bucket { centre: place.centre, currency, month: next(), category: next() };
        let share = allocation.buckets.entry(bucket.clone()).or_default();
        share.before = share.before.checked_add(sum.amount).ok_or(TooLarge)?;
        let own = parts.entry(bucket).or_default().entry(values.collect()).or_default();
        *own = own.checked_add(sum.amount.0).ok_or(TooLarge)?;
    }
    allocation.placed = placed.into_values().collect();
    let name = |centre: &str| {
        let project = whose.around.centres.project(centre);
        project.and_then(|id| whose.around.centres.name(id)).unwrap_or(centre).to_owned()
    };
    spread(&mut allocation, store, counting, whose, &whose.rules.called(name))?;
    allocation.digest = digest(counting, whose, query.basis);
    Ok((allocation, parts))
}

/// What of a question's axes is told by the lines a cost comes from, and by nothing else.
fn of_origin(whose: &Whose, query: &AxisQuery) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    let asked = query.groups.iter().chain(query.filters.iter().map(|(axis, _)| axis));
    for axis in asked.filter(|axis| !is_of_bucket(axis, whose)) {
        if !axes.contains(axis) {
            axes.push(axis.clone());
        }
    }
    // The same in whatever order it is asked: how a unit that does not divide falls depends on it.
    axes.sort_by_key(ToString::to_string);
    axes
}

/// Whether the centre, or what is kept apart anyway, tells the value.
pub(crate) fn is_of_bucket(axis: &Axis, whose: &Whose) -> bool {
    match axis {
        Axis::Project | Axis::Domain | Axis::Node | Axis::Level(_) | Axis::ProjectTag(_) => true,
        // The bucket's currency is the one that costs are converted into.
        Axis::Line(Dimension::Plain("currency")) => whose.terms.is_none(),
        Axis::Line(Dimension::Plain(name)) => {
            ["charge_category", "month", "quarter", "year"].contains(name)
        }
        _ => false,
    }
}

/// The parts of every centre after the movements.
fn spread_parts<'t>(
    before: PartsBefore,
    trace: impl IntoIterator<Item = &'t Moved>,
) -> Result<BTreeMap<Bucket, BTreeMap<Vec<String>, Amount>>, AttributeFault> {
    let strata: BTreeMap<String, Bucket> =
        before.keys().map(|bucket| (bucket.stratum(), bucket.clone())).collect();
    let after = moved_parts(before, trace, |_, _, _| {})?;
    let named = after.into_iter().filter_map(|((centre, stratum), parts)| {
        let bucket = Bucket { centre, ..strata.get(&stratum)?.clone() };
        let parts = parts.into_iter().map(|(values, amount)| (values, Amount(amount)));
        Some((bucket, parts.collect()))
    });
    Ok(named.collect())
}

/// The parts after the movements; tells what of each part every movement is, by its place.
pub(crate) fn moved_parts<'t>(
    before: PartsBefore,
    trace: impl IntoIterator<Item = &'t Moved>,
    tell: impl FnMut(usize, &Vec<String>, i128),
) -> Result<Parts<Vec<String>>, AttributeFault> {
    let before: Parts<Vec<String>> = before
        .into_iter()
        .map(|(bucket, parts)| ((bucket.centre.clone(), bucket.stratum()), parts))
        .collect();
    let after = parts::moved_each(before, trace, PARTS_MAX, tell);
    Ok(after.map_err(|fault| match fault {
        PartsFault::TooMany(most) => {
            let detail = format!(
                "group_by: what is shared comes to more than {most} parts by these dimensions; \
                 group and filter by fewer or coarser ones"
            );
            Refusal::new(&codes::INVALID_FIELD, detail)
        }
        PartsFault::Split(fault) => Refusal::new(&codes::RULES_INVALID, fault.to_string()),
    })?)
}

/// Spreads month by month: what weighs may differ from one to the next.
fn spread(
    allocation: &mut Allocation,
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    rules: &Rules,
) -> Result<(), AttributeFault> {
    let centres: BTreeSet<String> =
        allocation.buckets.keys().map(|bucket| bucket.centre.clone()).collect();
    let usage = usage(store, counting, whose, rules)?;
    let months: BTreeSet<String> =
        allocation.buckets.keys().map(|bucket| bucket.month.clone()).collect();
    let mut places = BTreeMap::new();
    for month in months {
        let buckets = allocation.buckets.iter().filter(|(bucket, _)| bucket.month == month);
        let strata: BTreeMap<String, Bucket> =
            buckets.clone().map(|(bucket, _)| (bucket.stratum(), bucket.clone())).collect();
        let before: Buckets = buckets
            .map(|(bucket, share)| ((bucket.centre.clone(), bucket.stratum()), share.before.0))
            .collect();
        let own = usage.get(&month).cloned().unwrap_or_default();
        let (spreading, drivers) = rules.spreading(&centres, month.parse().ok(), &own)?;
        // A rule whose targets no line has reached has nobody to give to: its pool keeps what it
        // has.
        let spreading: Vec<_> =
            spreading.into_iter().filter(|rule| !rule.targets.is_empty()).collect();
        let allocated = allocate::allocate(&before, &spreading, &drivers)
            .map_err(|fault| Refusal::new(&codes::RULES_INVALID, fault.to_string()))?;
        for ((centre, stratum), amount) in allocated.buckets {
            let Some(bucket) = strata.get(&stratum) else { continue };
            let bucket = Bucket { centre, ..bucket.clone() };
            allocation.buckets.entry(bucket).or_default().after = Amount(amount);
        }
        for moved in allocated.trace {
            let Some(bucket) = strata.get(&moved.stratum) else { continue };
            let from = Bucket { centre: moved.source.clone(), ..bucket.clone() };
            allocation.trace.push((moved.clone(), from));
            take_movement(&mut allocation.movements, &mut places, moved, &bucket.currency)?;
        }
    }
    // In the order rules apply.
    let order = |rule: &str| rules.shared.iter().position(|one| one.name == rule);
    allocation.movements.sort_by_key(|one| order(&one.rule));
    Ok(())
}

/// What targets used in each month, for the rules that weigh by it.
fn usage(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    rules: &Rules,
) -> Result<BTreeMap<String, Usage>, AttributeFault> {
    let mut months: BTreeMap<String, Usage> = BTreeMap::new();
    for rule in &rules.shared {
        let Method::Usage { conditions, .. } = &rule.method else { continue };
        // All must hold, as a rule of its own says it of each sum.
        let meter = Attribution {
            name: rule.name.clone(),
            how: Match::All,
            conditions: conditions.clone(),
            centre: "meter".to_owned(),
            centre_of: None,
            create_project: false,
        };
        let meter = Rules { attribution: vec![meter], ..Rules::default() };
        let metering = meter.placing()?;
        let looked = metering.dimensions().iter().map(|dimension| match dimension {
            Dimension::Tag(key) => Axis::EffectiveTag(key.clone()),
            Dimension::Plain(_) => Axis::Line(dimension.clone()),
        });
        let mut groups = vec![Axis::Line(Dimension::Plain("month"))];
        groups.extend(looked);
        let asked = AxisQuery { basis: Basis::Quantity, groups, filters: vec![] };
        for (place, values, _, sum) in attributed_places(store, counting, whose, &asked)? {
            let Some((month, values)) = values.split_first() else { continue };
            if metering.of(values, Known::default()).by != By::Rule {
                continue;
            }
            let used = months.entry(month.clone()).or_default();
            let used = used.entry((rule.name.clone(), place.centre)).or_insert_with(|| whole(0));
            *used += whole(sum.amount.0);
        }
    }
    for used in months.values_mut() {
        used.retain(|_, quantity| *quantity > whole(0));
    }
    Ok(months)
}

/// Sums a movement over months and categories.
fn take_movement(
    movements: &mut Vec<Movement>,
    places: &mut BTreeMap<(String, String, String, Currency), usize>,
    moved: Moved,
    currency: &Currency,
) -> Result<(), TooLarge> {
    let Moved { rule, source, target, amount, .. } = moved;
    let key = (rule.clone(), source.clone(), target.clone(), currency.clone());
    let place = *places.entry(key).or_insert_with(|| {
        let (currency, amount) = (currency.clone(), Amount::ZERO);
        movements.push(Movement { rule, source, target, currency, amount });
        movements.len() - 1
    });
    let sum = &mut movements[place].amount;
    *sum = sum.checked_add(Amount(amount)).ok_or(TooLarge)?;
    Ok(())
}

fn digest(counting: &Counting, whose: &Whose, basis: Basis) -> String {
    let what = (counting.digest(), &whose.rules, whose.around.digest(), basis.name());
    hex(&sha256(&canonical_bytes(&what)))
}

impl Allocation {
    /// What each centre has in each currency, over all months and categories.
    pub fn shares(&self) -> Result<BTreeMap<(String, Currency), Share>, TooLarge> {
        let mut shares: BTreeMap<_, Share> = BTreeMap::new();
        for (bucket, share) in &self.buckets {
            let sum = shares.entry((bucket.centre.clone(), bucket.currency.clone())).or_default();
            sum.before = sum.before.checked_add(share.before).ok_or(TooLarge)?;
            sum.after = sum.after.checked_add(share.after).ok_or(TooLarge)?;
        }
        Ok(shares)
    }
}

impl Allocation {
    /// Every movement, without its bucket.
    pub fn moves(&self) -> impl Iterator<Item = &Moved> {
        self.trace.iter().map(|(moved, _)| moved)
    }

    /// What each group has after the rules. A spread cost has the project that got it, with what
    /// follows from that; everything else is what the lines have that it comes from, which is told
    /// when it was allocated for this question.
    pub fn costs(&self, whose: &Whose, asked: &AxisQuery) -> Result<Table, AttributeFault> {
        let mut table = Table::default();
        let mut take = |bucket: &Bucket, own: &[String], amount: Amount| {
            if amount == Amount::ZERO {
                return Ok(());
            }
            let value = |axis: &Axis| self.value(bucket, own, axis, whose);
            for (axis, filter) in &asked.filters {
                if !filter.holds(&value(axis)?) {
                    return Ok(());
                }
            }
            let values = asked.groups.iter().map(value).collect::<Result<_, _>>()?;
            let sum = Sum { lines: 0, ..Sum::of(amount)? };
            Ok::<_, AttributeFault>(table.take(values, bucket.currency.clone(), sum)?)
        };
        if self.by.is_empty() {
            self.buckets.iter().try_for_each(|(bucket, share)| take(bucket, &[], share.after))?;
        }
        for (bucket, parts) in &self.parts {
            parts.iter().try_for_each(|(own, amount)| take(bucket, own, *amount))?;
        }
        Ok(table)
    }

    /// What a part of a bucket has on an axis.
    pub(crate) fn value(
        &self,
        bucket: &Bucket,
        own: &[String],
        axis: &Axis,
        whose: &Whose,
    ) -> Result<String, Refusal> {
        if is_of_bucket(axis, whose) {
            return Ok(bucket.value(axis, whose));
        }
        let at = self.by.iter().position(|one| one == axis);
        at.and_then(|at| own.get(at)).cloned().ok_or_else(|| {
            let detail = format!("it was not allocated by {axis}");
            Refusal::new(&codes::INVALID_FIELD, detail)
        })
    }
}

impl Bucket {
    fn value(&self, axis: &Axis, whose: &Whose) -> String {
        let month: Option<BillingMonth> = self.month.parse().ok();
        match axis {
            Axis::Project => self.centre.clone(),
            Axis::Line(Dimension::Plain("charge_category")) => self.category.clone(),
            Axis::Line(dimension) => {
                // A line that has this bucket's month says what its quarter and year are.
                let line = month.map(|month| Line::new("", month, self.currency.clone()));
                line.map_or_else(String::new, |line| dimension.of(&line).into_owned())
            }
            _ => {
                let id = whose.around.centres.project(&self.centre);
                id.map_or_else(String::new, |id| whose.around.of_project(axis, id, month))
            }
        }
    }
}

/// The project that a rule creates for a centre.
fn created_id(centre: &str) -> Uuid {
    /// The namespace of such ids.
    const SPACE: Uuid = Uuid::from_u128(0x1f6b_0c0e_52d8_4c0f_9d55_70a6_51c7_2e01);
    Uuid::new_v5(&SPACE, centre.as_bytes())
}

impl Ledger {
    /// Creates projects for the centres that rules have placed lines in, that are no project yet and
    /// that are to be one. Says which. The same again creates none.
    pub async fn create_projects(
        &self,
        by: &Principal,
        whose: &Whose,
        allocated: &Allocation,
    ) -> Result<Vec<Uuid>, SubmitFault> {
        let kind = kinds::by_name(Project::KIND)
            .ok_or_else(|| LoadFault::Missing("the kind project".to_owned()))?;
        let mut created = Vec::new();
        for centre in &allocated.to_create {
            if whose.around.centres.project(centre).is_some() {
                continue;
            }
            let id = created_id(centre);
            let body = json!({"name": centre});
            let submission = Submission::new(by.clone(), kind, id, "create", body);
            match self.submit(submission).await {
                Ok(_) => created.push(id),
                // Archived or renamed since: it was created once, and is nobody's error.
                Err(SubmitFault::Refused(no)) if no.code == &codes::ALREADY_EXISTS => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(created)
    }

    /// Creates the projects that published rules create for the months of what was booked. That stays
    /// booked, whatever comes of it.
    ///
    /// # Errors
    /// When rules refuse, or views, lines or the log are not to be had.
    pub async fn create_after_booking(
        &self,
        read: &ReadBill,
        by: &Principal,
    ) -> Result<Vec<Uuid>, RunFault> {
        let months = read.parts.iter().map(|part| part.month);
        let (Some(from), Some(to)) = (months.clone().min(), months.max()) else {
            return Ok(vec![]);
        };
        let (sets, _) = self.states::<RuleSet>(None).await?;
        let creates = |rules: &Rules| rules.attribution.iter().any(|rule| rule.create_project);
        let published = sets.into_iter().filter_map(|(_, set)| set.published).filter(creates);
        let mut created = Vec::new();
        for rules in published {
            self.views_caught_up().await?;
            let counting = self.bills(from, to, None).await?;
            let around = self.surroundings(&counting, None).await?;
            let store = self.ports.bills.clone();
            // A refusal is an answer, not a fault of reading lines.
            let answered = apart(move || {
                let whose = Whose::new(rules, around);
                match allocate(store.as_ref(), &counting, &whose, Basis::Billed) {
                    Ok(allocated) => Ok(Ok((whose, allocated))),
                    Err(AttributeFault::Refused(refusal)) => Ok(Err(refusal)),
                    Err(AttributeFault::Costs(fault)) => Err(fault),
                }
            });
            let (whose, allocated) = answered.await?.map_err(SubmitFault::from)?;
            created.extend(self.create_projects(by, &whose, &allocated).await?);
        }
        Ok(created)
    }

    /// A rule set as it was at a position.
    pub async fn rule_set(
        &self,
        id: Uuid,
        at: Option<Position>,
    ) -> Result<Option<RuleSet>, ViewFault> {
        let (sets, _) = self.states::<RuleSet>(at).await?;
        Ok(sets.into_iter().find(|(one, _)| *one == id).map(|(_, set)| set))
    }
}
