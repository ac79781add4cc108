//! What was used, priced by our own rates: one line for each resource, meter and day.
//!
//! Money is rounded once, on the cumulative price: a line has what the price has grown by since the
//! line before. So lines sum to the price of the whole, and a use that is cut in two costs what it
//! costs in one piece.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Days, Utc};
use num_traits::Zero;
use uuid::Uuid;

use super::{
    amount::{Amount, BillingMonth, SCALE},
    cost::TooLarge,
    line::Line,
    meter::Usage,
    rate::{Tiers, midnight, units},
    rate_set::{Meter, Over, Pricing, Rate, RateSet, Scope, Settings, exactly},
    ratio::{Ratio, round_half_even, truncated, whole},
};

/// For whom a project's rates are, the most specific first, from a moment to the next entry's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    by_project: BTreeMap<Uuid, Vec<Since>>,
}

/// In which scopes from when on.
type Since = (DateTime<Utc>, Vec<Scope>);

impl Scopes {
    /// From this moment on a project is in these, the most specific first: itself, its domain, the
    /// nodes of organisations from the nearest up. Moments do not go back.
    pub fn are(&mut self, project: Uuid, at: DateTime<Utc>, scopes: Vec<Scope>) {
        let known = self.by_project.entry(project).or_default();
        if known.last().is_none_or(|(_, last)| *last != scopes) {
            known.push((at, scopes));
        }
    }

    fn of(&self, project: Option<Uuid>, at: DateTime<Utc>) -> &[Scope] {
        let known = project.and_then(|project| self.by_project.get(&project));
        let then = known.and_then(|known| known.iter().rev().find(|(from, _)| *from <= at));
        then.map_or(&[], |(_, scopes)| scopes.as_slice())
    }

    fn changes(&self, project: Option<Uuid>) -> impl Iterator<Item = DateTime<Utc>> {
        let known = project.and_then(|project| self.by_project.get(&project));
        known.into_iter().flatten().map(|(from, _)| *from)
    }
}

/// What is priced by what.
#[derive(Clone, Copy, Debug)]
pub struct Prices<'a> {
    /// Every set there was, by id.
    pub sets: &'a BTreeMap<Uuid, RateSet>,
    /// For whom they are.
    pub scopes: &'a Scopes,
}

/// A rate that was found for a use.
#[derive(Clone, Copy, Debug)]
struct Chosen<'a> {
    set: Uuid,
    settings: &'a Settings,
    key: &'a str,
    rate: &'a Rate,
}

impl Chosen<'_> {
    fn is(&self, other: &Self) -> bool {
        (self.set, self.key) == (other.set, other.key)
    }
}

/// From when to when which rate holds, if any does.
type Holding<'a> = (DateTime<Utc>, DateTime<Utc>, Option<Chosen<'a>>);

/// What came of rating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rated {
    /// In the order of bills, time, resources and meters.
    pub lines: Vec<Line>,
    /// How many uses no set has a rate for, by meter.
    pub unrated: BTreeMap<Meter, u64>,
}

/// A line whose price depends on what was used before it in the month.
struct Tiered<'a> {
    line: usize,
    tiers: Tiers,
    /// Set, rate, and whose use is counted together.
    key: (Uuid, &'a str, String),
    units: Ratio,
}

impl<'a> Prices<'a> {
    /// The rate that holds for a use at a moment, whole from the most specific set that has one:
    /// in it by SKU before by kind of resource before any; then the one that began last; then by
    /// key and set.
    fn chosen(&self, usage: &Usage, at: DateTime<Utc>) -> Option<Chosen<'a>> {
        let scopes = self.scopes.of(usage.of.project, at);
        scopes.iter().chain([&Scope::Default]).find_map(|scope| self.within(scope, usage, at))
    }

    fn within(&self, scope: &Scope, usage: &Usage, at: DateTime<Utc>) -> Option<Chosen<'a>> {
        let mut best: Option<((u8, DateTime<Utc>), Chosen<'a>)> = None;
        for (set, state) in self.sets {
            let Some(settings) = state.settings.as_ref().filter(|one| one.scope == *scope) else {
                continue;
            };
            if state.retired.is_some_and(|retired| retired <= at) || !is_for(settings, usage) {
                continue;
            }
            for (key, rate) in &state.rates {
                let Some(specific) = fits(rate, usage).filter(|_| rate.holds(at)) else { continue };
                let rank = (specific, rate.from);
                if best.as_ref().is_none_or(|(known, _)| *known < rank) {
                    best = Some((rank, Chosen { set: *set, settings, key, rate }));
                }
            }
        }
        best.map(|(_, chosen)| chosen)
    }

    /// Moments in a use at which another rate may hold.
    fn cuts(&self, usage: &Usage) -> BTreeSet<DateTime<Utc>> {
        let sets = self.sets.values().flat_map(|set| {
            let rates = set.rates.values().filter(|rate| fits(rate, usage).is_some());
            rates.flat_map(|rate| [Some(rate.from), rate.to]).chain([set.retired]).flatten()
        });
        let all = sets.chain(self.scopes.changes(usage.of.project));
        let within = all.filter(|at| usage.begun < *at && *at < usage.to);
        within.chain([usage.begun, usage.to]).collect()
    }

    /// From when to when which rate holds, from the use's beginning on.
    fn pieces(&self, usage: &Usage) -> Vec<Holding<'a>> {
        let cuts: Vec<_> = self.cuts(usage).into_iter().collect();
        let mut pieces: Vec<Holding<'a>> = Vec::new();
        for two in cuts.windows(2) {
            let chosen = self.chosen(usage, two[0]);
            if let Some((_, to, last)) = pieces.last_mut()
                && match (&last, &chosen) {
                    (Some(last), Some(chosen)) => last.is(chosen),
                    (None, None) => true,
                    _ => false,
                }
            {
                *to = two[1];
                continue;
            }
            pieces.push((two[0], two[1], chosen));
        }
        pieces
    }
}

/// Whether a set prices this at all.
fn is_for(settings: &Settings, usage: &Usage) -> bool {
    let provider = &usage.of.provider;
    settings.providers.is_empty() || provider.is_empty() || settings.providers.contains(provider)
}

/// How specific a rate is for a use; none when it is not for it.
fn fits(rate: &Rate, usage: &Usage) -> Option<u8> {
    let is = |asked: &str, has: &str| asked.is_empty() || asked == has;
    let right = rate.meter == usage.meter
        && is(&rate.sku, &usage.sku)
        && is(&rate.resource_type, &usage.of.resource_type);
    let specific = 2 * u8::from(!rate.sku.is_empty()) + u8::from(!rate.resource_type.is_empty());
    right.then_some(specific)
}

fn rounded(price: &Ratio) -> Result<Amount, TooLarge> {
    let units = price * whole(10_i128.pow(SCALE));
    round_half_even(&units).map(Amount).ok_or(TooLarge)
}

fn grown(before: &Ratio, after: &Ratio) -> Result<Amount, TooLarge> {
    Ok(Amount(rounded(after)?.0.checked_sub(rounded(before)?.0).ok_or(TooLarge)?))
}

/// A quantity as a bill has it.
fn decimal(quantity: &Ratio) -> String {
    truncated(quantity, SCALE)
}

/// Prices what was used in a month, days that are over at `until` only: a day that is not over is
/// not priced yet.
///
/// # Errors
/// When a price is beyond what an amount holds.
pub fn rate(
    prices: Prices<'_>,
    usages: &[Usage],
    month: BillingMonth,
    until: DateTime<Utc>,
) -> Result<Rated, TooLarge> {
    let mut rated = Rated::default();
    let mut tiered: Vec<Tiered<'_>> = Vec::new();
    for usage in usages.iter().filter(|one| one.from < one.to) {
        for (begun, end, chosen) in prices.pieces(usage) {
            let (from, to) = (begun.max(usage.from), end.min(usage.to));
            if from >= to {
                continue;
            }
            let Some(chosen) = chosen else {
                let (starts, ends) = days(month, chrono_tz::Tz::UTC);
                if from < ends && to > starts {
                    *rated.unrated.entry(usage.meter).or_default() += 1;
                }
                continue;
            };
            let piece = Piece { usage, chosen, begun, from, to };
            if usage.meter.is_flow() {
                piece.flow(month, until, &mut rated.lines, &mut tiered)?;
            } else {
                piece.days(month, until, &mut rated.lines, &mut tiered)?;
            }
        }
    }
    price_tiers(&mut rated.lines, tiered)?;
    rated.lines.sort_by(|a, b| {
        let key = |line: &Line| (line.month, line.from, line.to);
        (&a.billing_account, key(a), &a.resource, &a.unit, &a.sku, &a.other).cmp(&(
            &b.billing_account,
            key(b),
            &b.resource,
            &b.unit,
            &b.sku,
            &b.other,
        ))
    });
    Ok(rated)
}

/// A month's first moment, and the first after it.
fn days(month: BillingMonth, zone: chrono_tz::Tz) -> (DateTime<Utc>, DateTime<Utc>) {
    (midnight(zone, month.first()), midnight(zone, month.end()))
}

/// A use while one rate holds.
struct Piece<'a, 'u> {
    usage: &'u Usage,
    chosen: Chosen<'a>,
    /// Since when rate and quantity are the same.
    begun: DateTime<Utc>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl<'a> Piece<'a, '_> {
    fn days(
        &self,
        month: BillingMonth,
        until: DateTime<Utc>,
        lines: &mut Vec<Line>,
        tiered: &mut Vec<Tiered<'a>>,
    ) -> Result<(), TooLarge> {
        let (zone, rate) = (self.chosen.settings.zone(), self.chosen.rate);
        let over = midnight(zone, until.with_timezone(&zone).date_naive());
        let (starts, ends) = days(month, zone);
        let (from, to) = (self.from.max(starts), self.to.min(ends).min(over));
        if from >= to {
            return Ok(());
        }
        let used = |at| units(rate.per, zone, self.begun, at, rate.granule, rate.rounding);
        let (mut at, mut before) = (from, used(from));
        while at < to {
            let day = at.with_timezone(&zone).date_naive();
            let next = midnight(zone, day + Days::new(1)).min(to);
            let after = used(next);
            let mut line = self.line(month, at, next);
            let hours = Ratio::new((next - at).num_seconds().into(), 3_600.into());
            line.quantity = decimal(&(&self.usage.quantity * hours));
            let cost = match &rate.pricing {
                Pricing::Fixed { price } => {
                    let price = exactly(*price);
                    grown(&(&price * &before), &(&price * &after))?
                }
                Pricing::PayAsYouGo { price } => {
                    let price = exactly(*price) * &self.usage.quantity;
                    grown(&(&price * &before), &(&price * &after))?
                }
                Pricing::Tiers { .. } => {
                    let units = &self.usage.quantity * (&after - &before);
                    tiered.extend(self.tiered(lines.len(), units));
                    Amount::ZERO
                }
            };
            priced(&mut line, cost);
            lines.push(line);
            (at, before) = (next, after);
        }
        Ok(())
    }

    /// What passes has its quantity in itself: it is one line, of the day it began.
    fn flow(
        &self,
        month: BillingMonth,
        until: DateTime<Utc>,
        lines: &mut Vec<Line>,
        tiered: &mut Vec<Tiered<'a>>,
    ) -> Result<(), TooLarge> {
        let zone = self.chosen.settings.zone();
        let over = midnight(zone, until.with_timezone(&zone).date_naive());
        let (starts, ends) = days(month, zone);
        // A rate that begins later does not price it a second time.
        if self.from != self.usage.from || !(starts..ends.min(over)).contains(&self.from) {
            return Ok(());
        }
        let mut line = self.line(month, self.usage.from, self.usage.to);
        line.quantity = decimal(&self.usage.quantity);
        let cost = match &self.chosen.rate.pricing {
            // Fixed prices of flows are refused.
            Pricing::Fixed { .. } => Amount::ZERO,
            Pricing::PayAsYouGo { price } => rounded(&(exactly(*price) * &self.usage.quantity))?,
            Pricing::Tiers { .. } => {
                tiered.extend(self.tiered(lines.len(), self.usage.quantity.clone()));
                Amount::ZERO
            }
        };
        priced(&mut line, cost);
        lines.push(line);
        Ok(())
    }

    fn tiered(&self, line: usize, units: Ratio) -> Option<Tiered<'a>> {
        let Pricing::Tiers { over, .. } = &self.chosen.rate.pricing else { return None };
        let whose = match over {
            Over::Project => self.usage.of.project.map(|id| id.to_string()).unwrap_or_default(),
            Over::Resource => self.usage.of.resource.clone(),
        };
        let tiers = self.chosen.rate.pricing.tiers()?;
        Some(Tiered { line, tiers, key: (self.chosen.set, self.chosen.key, whose), units })
    }

    fn line(&self, month: BillingMonth, from: DateTime<Utc>, to: DateTime<Utc>) -> Line {
        let (usage, settings) = (self.usage, self.chosen.settings);
        let of = &usage.of;
        let mut line = Line::new(&settings.billing_account, month, settings.currency.clone());
        (line.from, line.to) = (from, to);
        line.sub_account = of.project.map(|project| project.to_string()).unwrap_or_default();
        usage.meter.service().clone_into(&mut line.service);
        usage.meter.category().clone_into(&mut line.service_category);
        line.region.clone_from(&of.region);
        line.resource.clone_from(&of.resource);
        line.resource_name.clone_from(&of.name);
        line.resource_type.clone_from(&of.resource_type);
        "Standard".clone_into(&mut line.billing_mode);
        line.sku.clone_from(&usage.sku);
        let unit = if usage.meter.is_flow() { "" } else { "-hour" };
        line.unit = format!("{}{unit}", usage.meter.name());
        line.description = format!("{} by the rate {}", usage.meter.name(), self.chosen.key);
        line.tags.clone_from(&of.tags);
        line.other = [
            ("x_Meter".to_owned(), usage.meter.name().to_owned()),
            ("x_Rate".to_owned(), self.chosen.key.to_owned()),
            ("x_RateSet".to_owned(), self.chosen.set.to_string()),
        ]
        .into();
        line
    }
}

fn priced(line: &mut Line, cost: Amount) {
    (line.billed, line.effective, line.list, line.contracted) = (cost, cost, cost, cost);
}

/// Prices by how much was used before, in the order of time and, at one time, of resources.
fn price_tiers(lines: &mut [Line], mut tiered: Vec<Tiered<'_>>) -> Result<(), TooLarge> {
    tiered.sort_by(|a, b| {
        let of = |one: &Tiered<'_>| &lines[one.line];
        let (la, lb) = (of(a), of(b));
        (&a.key, la.from, la.to, &la.resource, &la.sku).cmp(&(
            &b.key,
            lb.from,
            lb.to,
            &lb.resource,
            &lb.sku,
        ))
    });
    let mut used: BTreeMap<(Uuid, &str, String), Ratio> = BTreeMap::new();
    for Tiered { line, tiers, key, units } in tiered {
        let sum = used.entry(key).or_insert_with(Ratio::zero);
        let before = tiers.cost(sum);
        *sum += units;
        let cost = grown(&before, &tiers.cost(sum))?;
        priced(&mut lines[line], cost);
    }
    Ok(())
}
