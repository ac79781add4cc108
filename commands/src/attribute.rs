//! Whose costs are: what lines come to by project, domain, node of the organisation and whatever
//! else follows from the rules and the estate, and what placed a line.
//!
//! Lines are summed by the dimensions that placing them depends on, and each sum is placed as a
//! whole: a million lines are a few thousand sums. Only resources that the tag list or the inventory
//! knows are looked at one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::NaiveTime;
use domain::{
    finops::{
        amount::{BillingMonth, Currency},
        attribution::{Axis, Centres, Estate, Looked, Owned, Place, Surroundings, TagList, needs},
        bill::Segment,
        cost::{Basis, Dimension, Sum, Table, TooLarge},
        line::Line,
        repricing::Payer,
        rules::{Placing, Rules},
        tagging::Tagging,
        terms::{Applied, Terms},
    },
    kernel::Refusal,
    log::Position,
    tenancy::{domain::Domain, organisation::Organisation, project::Project},
};
use uuid::Uuid;

use crate::{
    bills::{Counting, Explained, costs, explained},
    ledger::Ledger,
    ports::{BillFault, BillStore, Cell, CostQuery, Filter, Op, Origins, Query, Row, ViewFault},
};

/// Most resources that are asked for at once.
const RESOURCES_AT_ONCE: usize = 400;

/// What places costs.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    /// By rules.
    pub rules: Rules,
    /// By what is known beside them.
    pub around: Surroundings,
    /// What applies to them once they are placed.
    pub terms: Terms,
}

impl Whose {
    /// By these rules, and by what is known beside them; amounts stay as they are billed.
    pub fn new(rules: Rules, around: Surroundings) -> Self {
        Self { rules, around, terms: Terms::default() }
    }

    /// What applies to a number, which is none for quantities: they are no money.
    fn terms(&self, basis: Basis) -> Option<&Terms> {
        (basis != Basis::Quantity && !self.terms.is_none()).then_some(&self.terms)
    }
}

/// What costs are asked for, by axes that lines alone do not tell.
#[derive(Clone, Debug, Default)]
pub struct AxisQuery {
    /// Which of lines' numbers.
    pub basis: Basis,
    /// By what they are grouped.
    pub groups: Vec<Axis>,
    /// All must hold.
    pub filters: Vec<(Axis, Filter)>,
}

impl AxisQuery {
    /// The same question of lines alone, when it is one.
    pub fn of_lines(&self) -> Option<CostQuery> {
        let groups = self.groups.iter().map(|axis| match axis {
            Axis::Line(dimension) => Some(dimension.clone()),
            _ => None,
        });
        let groups = groups.collect::<Option<Vec<_>>>()?;
        let filters = self.of_line_filters();
        let all = filters.len() == self.filters.len();
        all.then_some(CostQuery { basis: self.basis, groups, filters, alike: None })
    }

    fn of_line_filters(&self) -> Vec<(Dimension, Filter)> {
        let of_line = |(axis, filter): &(Axis, Filter)| match axis {
            Axis::Line(dimension) => Some((dimension.clone(), filter.clone())),
            _ => None,
        };
        self.filters.iter().filter_map(of_line).collect()
    }

    /// The filters that lines alone do not decide.
    fn others(&self) -> Vec<&(Axis, Filter)> {
        self.filters.iter().filter(|(axis, _)| !axis.is_of_line()).collect()
    }
}

/// Why it cannot be told whose costs are.
#[derive(Debug, thiserror::Error)]
pub enum AttributeFault {
    /// The rules do not fit these costs.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The costs cannot be told.
    #[error(transparent)]
    Costs(#[from] BillFault),
}

impl From<TooLarge> for AttributeFault {
    fn from(fault: TooLarge) -> Self {
        Self::Costs(fault.into())
    }
}

/// A sum's values, by dimension.
struct Values<'a, T> {
    dimensions: &'a [Dimension],
    values: &'a [T],
}

impl<T: AsRef<str>> Looked for Values<'_, T> {
    fn value(&self, dimension: &Dimension) -> &str {
        let at = self.dimensions.iter().position(|one| one == dimension);
        at.and_then(|at| self.values.get(at)).map_or("", AsRef::as_ref)
    }
}

fn resource() -> Dimension {
    Dimension::Plain("resource")
}

fn among<'a>(op: Op, resources: impl IntoIterator<Item = &'a str>) -> (Dimension, Filter) {
    let values = resources.into_iter().map(Cell::from).collect();
    (resource(), Filter { column: "resource".to_owned(), op, values })
}

/// What is asked of lines, in these groups. Resources are looked at one by one only where what the
/// tag list says of them changes with the day, or where it matters which they are: those that are
/// alike for these places and axes are one group. With terms they are not, for sums are rounded one
/// by one.
fn questions(
    around: &Surroundings,
    placing: &Placing<'_>,
    axes: &[Axis],
    asked: &CostQuery,
    terms: bool,
) -> Vec<CostQuery> {
    let dated = around.tag_list.resources().filter(|(_, dated)| *dated);
    let dated: Vec<&str> = dated.map(|(resource, _)| resource).collect();
    let known = around.tag_list.resources().next().is_some()
        || around.then.values().chain([&around.now]).any(|one| !one.resources.is_empty());
    let with = |more: &[Dimension], filter: Option<(Dimension, Filter)>| {
        let mut asked = asked.clone();
        let more = more.iter().filter(|one| !asked.groups.contains(one));
        let more: Vec<Dimension> = more.cloned().collect();
        asked.groups.extend(more);
        asked.filters.extend(filter);
        asked
    };
    let rest = (!dated.is_empty()).then(|| among(Op::NotIn, dated.iter().copied()));
    let by_resource = [resource()];
    let mut undated = with(if known { &by_resource } else { &[] }, rest);
    if known && !terms {
        undated.alike = around.alike(placing, axes).map(Arc::new);
    }
    let mut questions = vec![undated];
    if !dated.is_empty() {
        let by_day = [resource(), Dimension::Plain("day")];
        questions.push(with(&by_day, Some(among(Op::In, dated.iter().copied()))));
    }
    questions
}

/// What lines come to that are placed together.
pub(crate) struct Placed {
    /// Where.
    pub(crate) place: Place,
    /// On the axes that are asked for.
    pub(crate) values: Vec<String>,
    /// In what.
    pub(crate) currency: Currency,
    /// After what applies to it.
    pub(crate) sum: Sum,
    /// What it is billed at, and what applies to that; none where nothing is to apply.
    pub(crate) applied: Option<(Sum, Applied)>,
}

/// The sums' dimensions: what placing them, the axes and the terms need. With terms also those that
/// are filtered by, so that a group's number is the same where it is asked for alone.
fn groups(
    placing: &Placing<'_>,
    terms: Option<&Terms>,
    axes: &[Axis],
    filters: &[(Dimension, Filter)],
) -> Vec<Dimension> {
    let mut groups = needs(placing, axes);
    if let Some(terms) = terms {
        groups.extend(terms.needs());
        groups.extend(filters.iter().map(|(dimension, _)| dimension.clone()));
        groups.sort();
        groups.dedup();
    }
    groups
}

/// Hands on what lines come to, placed, with its values on some axes. Blocks the thread.
pub(crate) fn placed(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    asked: &AxisQuery,
    mut take: impl FnMut(Placed) -> Result<(), TooLarge>,
) -> Result<(), AttributeFault> {
    let placing = whose.rules.placing()?;
    let terms = whose.terms(asked.basis);
    let others = asked.others();
    let axes: Vec<Axis> =
        asked.groups.iter().cloned().chain(others.iter().map(|(axis, _)| axis.clone())).collect();
    let filters = asked.of_line_filters();
    let groups = groups(&placing, terms, &axes, &filters);
    let of_lines = CostQuery { basis: asked.basis, groups, filters, alike: None };
    for of_lines in questions(&whose.around, &placing, &axes, &of_lines, terms.is_some()) {
        for (values, currency, sum) in costs(store, counting, &of_lines)?.iter() {
            let look = Values { dimensions: &of_lines.groups, values };
            let (place, mut values) = whose.around.locate(&look, &placing, &axes);
            let own = values.split_off(asked.groups.len());
            let wanted = others.iter().zip(&own).all(|((_, filter), value)| filter.holds(value));
            if !wanted {
                continue;
            }
            let Some(terms) = terms else {
                let currency = currency.clone();
                take(Placed { place, values, currency, sum, applied: None })?;
                continue;
            };
            let month = look.value(&Dimension::Plain("month")).parse().ok();
            let domain = place.project.and_then(|id| whose.around.domain_of(id, month));
            let payer = Payer { project: place.project, domain };
            let found = terms.of(&look, payer, currency)?;
            let (after, currency) = (found.sum(sum)?, found.currency.clone());
            let applied = Some((sum, found.applied));
            take(Placed { place, values, currency, sum: after, applied })?;
        }
    }
    Ok(())
}

/// Sums the lines that are asked for. Blocks the thread.
pub fn attributed(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    asked: &AxisQuery,
) -> Result<Table, AttributeFault> {
    if whose.terms(asked.basis).is_none()
        && let Some(of_lines) = asked.of_lines()
    {
        return Ok(costs(store, counting, &of_lines)?);
    }
    let mut table = Table::default();
    placed(store, counting, whose, asked, |one| table.take(one.values, one.currency, one.sum))?;
    Ok(table)
}

/// A sum's place, its values, its currency, and what it is.
pub(crate) type PlacedSum = (Place, Vec<String>, Currency, Sum);

/// The same, with the place of each sum.
pub(crate) fn attributed_places(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    asked: &AxisQuery,
) -> Result<Vec<PlacedSum>, AttributeFault> {
    let mut all = Vec::new();
    placed(store, counting, whose, asked, |one| {
        all.push((one.place, one.values, one.currency, one.sum));
        Ok(())
    })?;
    Ok(all)
}

/// One line's values, by dimension.
struct OfLine {
    values: BTreeMap<Dimension, String>,
}

impl Looked for OfLine {
    fn value(&self, dimension: &Dimension) -> &str {
        self.values.get(dimension).map_or("", String::as_str)
    }
}

/// Places single lines.
pub struct Placer<'a> {
    whose: &'a Whose,
    placing: Placing<'a>,
    dimensions: Vec<Dimension>,
    axes: Vec<Axis>,
}

impl<'a> Placer<'a> {
    /// By what, and on which axes.
    pub fn new(whose: &'a Whose, axes: Vec<Axis>) -> Result<Self, Refusal> {
        let placing = whose.rules.placing()?;
        let mut dimensions = needs(&placing, &axes);
        dimensions.extend([resource(), Dimension::Plain("day")]);
        Ok(Self { whose, placing, dimensions, axes })
    }

    /// The line's place, and its values on the axes.
    pub fn place(&self, line: &Line) -> (Place, Vec<String>) {
        let values = self.dimensions.iter().map(|one| (one.clone(), one.of(line).into_owned()));
        self.whose.around.locate(&OfLine { values: values.collect() }, &self.placing, &self.axes)
    }
}

/// Where a number comes from that axes are asked of, with at most so many of its lines. Blocks the
/// thread.
pub fn explain_attributed(
    store: &dyn BillStore,
    counting: &Counting,
    whose: &Whose,
    asked: &AxisQuery,
    most: usize,
) -> Result<Explained, AttributeFault> {
    let placing = whose.rules.placing()?;
    let others = asked.others();
    let axes: Vec<Axis> = others.iter().map(|(axis, _)| axis.clone()).collect();
    let of_lines = CostQuery {
        basis: asked.basis,
        groups: needs(&placing, &axes),
        filters: asked.of_line_filters(),
        alike: None,
    };
    let segments: Vec<&Segment> = counting.segments().map(|(_, segment)| segment).collect();
    let mut origins = Origins::default();
    // Lines are placed by what they have in common, as for their sum.
    for of_lines in questions(&whose.around, &placing, &axes, &of_lines, false) {
        let wanted = |values: &[&str]| {
            let look = Values { dimensions: &of_lines.groups, values };
            let (_, own) = whose.around.locate(&look, &placing, &axes);
            others.iter().zip(&own).all(|((_, filter), value)| filter.holds(value))
        };
        origins.add(store.origins(&segments, &of_lines, &wanted, most)?)?;
    }
    origins.cut(asked.basis, most);
    Ok(explained(counting, origins)?)
}

/// A row of the inventory as costs see it.
fn owned(row: &Row) -> Option<(String, Owned)> {
    let text = |name: &str| row.body[name].as_str().map(str::to_owned);
    let tags = row.body["tags"].as_object().into_iter().flatten();
    let tags = tags.filter_map(|(key, tag)| Some((key.clone(), tag.as_str()?.to_owned())));
    let owned = Owned {
        project: row.body["project"].as_str().and_then(|id| id.parse().ok()),
        tags: tags.collect(),
        columns: Axis::INVENTORY
            .into_iter()
            .filter_map(|column| Some((column, text(column)?)))
            .collect(),
    };
    Some((text("external_id")?, owned))
}

impl Ledger {
    /// All that whose costs are depends on, as it was at the position of what is counted, and for
    /// each month at its end.
    pub async fn surroundings(
        &self,
        counting: &Counting,
        organisation: Option<Uuid>,
    ) -> Result<Surroundings, ViewFault> {
        let at = counting.position;
        let (taggings, _) = self.states::<Tagging>(Some(at)).await?;
        let listed = taggings.into_iter().filter(|(_, one)| !one.retired);
        let tag_list = TagList::new(listed.map(|(id, one)| (id, one.entry)));
        let mut now = self.tree(organisation, at).await?;
        let mut query = Query::all();
        query.filters.push(Filter {
            column: "external_id".to_owned(),
            op: Op::NotIn,
            values: vec![Cell::Null],
        });
        query.at = Some(at);
        let (rows, _) = self.rows(query).await?;
        let changed: Vec<(String, i64)> = rows
            .iter()
            .filter_map(|row| {
                let id = row.body["external_id"].as_str()?;
                Some((id.to_owned(), row.body["updated_at"].as_i64()?))
            })
            .collect();
        now.resources = rows.iter().filter_map(owned).collect();
        let centres = Centres::of(&now.projects);
        let mut then = BTreeMap::new();
        let months: BTreeSet<BillingMonth> =
            counting.bills.iter().filter_map(|counted| counted.bill.month).collect();
        for month in months {
            let end = month.end().and_time(NaiveTime::MIN).and_utc();
            let position = self.ports.log.position_at(end).await.map_err(ViewFault::Store)?;
            if position == 0 || position >= at {
                continue;
            }
            let mut estate = self.tree(organisation, position).await?;
            // A row that has not changed since is what it was.
            let since = changed.iter().filter(|(_, when)| *when >= end.timestamp_micros());
            let since: Vec<&str> = since.map(|(id, _)| id.as_str()).collect();
            estate.resources = self.resources(&since, position).await?;
            then.insert(month, Arc::new(estate));
        }
        Ok(Surroundings { tag_list, centres, now: Arc::new(now), then })
    }

    /// Projects, domains and the organisation at a position.
    async fn tree(&self, organisation: Option<Uuid>, at: Position) -> Result<Estate, ViewFault> {
        let (projects, _) = self.states::<Project>(Some(at)).await?;
        let (domains, _) = self.states::<Domain>(Some(at)).await?;
        let organisation = match organisation {
            None => None,
            Some(id) => {
                let (all, _) = self.states::<Organisation>(Some(at)).await?;
                all.into_iter().find(|(one, _)| *one == id).map(|(_, one)| one)
            }
        };
        Ok(Estate {
            projects: projects.into_iter().collect(),
            domains: domains.into_iter().map(|(id, one)| (id, one.name)).collect(),
            organisation,
            resources: BTreeMap::new(),
        })
    }

    /// These resources, by external id, as they were at a position.
    async fn resources(
        &self,
        ids: &[&str],
        at: Position,
    ) -> Result<BTreeMap<String, Owned>, ViewFault> {
        let mut resources = BTreeMap::new();
        for some in ids.chunks(RESOURCES_AT_ONCE) {
            let mut query = Query::all();
            query.filters.push(Filter {
                column: "external_id".to_owned(),
                op: Op::In,
                values: some.iter().copied().map(Cell::from).collect(),
            });
            query.at = Some(at);
            let (rows, _) = self.rows(query).await?;
            resources.extend(rows.iter().filter_map(owned));
        }
        Ok(resources)
    }
}
