//! Where a number comes from: how much of it each segment has, and its largest lines. The cube says
//! which lines those are, and only they are read from the segments.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use commands::ports::{BillFault, CostQuery, Found, Origins, Wanted};
use domain::finops::{
    amount::{Amount, Currency},
    bill::Segment,
    cost::TooLarge,
    line::Line,
};

use parquet::file::metadata::ParquetMetaData;

use super::{
    cache::{Cube, CubeFault},
    merge::{Place, each},
    packed::power,
    plan::{Plan, Question},
    scan::{Scanned, each_batch, narrow_costs, scan},
};
use crate::{Lake, segment::spans};

/// Row groups that one thread reads from in one go.
const GROUPS_AT_ONCE: usize = 8;

/// How large a line is, and where in its slab it is.
type Sized = (u128, u64);

/// Some row groups of a segment.
struct Piece {
    /// The segment's place.
    at: usize,
    /// The rows that are asked for, in the segment,
    rows: Vec<u64>,
    layout: Arc<ParquetMetaData>,
    /// and in the row groups.
    groups: Vec<(usize, Vec<usize>)>,
}

/// What a slab has of a number.
#[derive(Default)]
struct Own {
    lines: u64,
    sums: BTreeMap<Currency, Amount>,
    largest: Vec<Sized>,
}

/// The largest lines first; of equal ones the first.
fn cut(largest: &mut Vec<Sized>, most: usize) {
    largest.sort_unstable_by_key(|(size, row)| (Reverse(*size), *row));
    largest.truncate(most);
}

impl Lake {
    /// Where what is asked of these segments comes from.
    pub(crate) fn cube_origins(
        &self,
        segments: &[&Segment],
        asked: &CostQuery,
        wanted: &Wanted<'_>,
        most: usize,
    ) -> Result<Origins, BillFault> {
        let places = self.slabs(segments)?;
        let question = Question::of(asked);
        let lines = segments.iter().map(|segment| segment.lines).sum();
        let own = each(places.len(), lines, |at| {
            let Place { segment, slab, .. } = places[at];
            self.ask_cube(segment, |cube| Own::of(cube, slab, &question, wanted, most))
        })?;
        let mut origins =
            Origins { parts: vec![Default::default(); segments.len()], lines: vec![] };
        let mut largest = Vec::new();
        for (place, own) in places.iter().zip(own) {
            let (lines, sums) = &mut origins.parts[place.at];
            *lines += own.lines;
            for (currency, amount) in own.sums {
                let sum = sums.entry(currency).or_default();
                *sum = sum.checked_add(amount).ok_or(TooLarge)?;
            }
            let found = own.largest.into_iter();
            largest.extend(found.map(|(size, row)| (Reverse(size), place.at, place.row + row)));
        }
        largest.sort_unstable();
        largest.truncate(most);
        let mut rows: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (_, at, row) in &largest {
            rows.entry(*at).or_default().push(*row);
        }
        let mut read = self.rows_of(segments, rows)?;
        let found = largest.into_iter().map(|(_, at, row)| {
            let digest = || segments[at].digest.clone();
            let missing =
                || BillFault::Damaged { digest: digest(), reason: format!("it has no line {row}") };
            let line = read.remove(&(at, row)).ok_or_else(missing)?;
            Ok(Found { segment: at, row, line })
        });
        origins.lines = found.collect::<Result<_, BillFault>>()?;
        Ok(origins)
    }

    /// Some lines of segments, by segment and row.
    fn rows_of(
        &self,
        segments: &[&Segment],
        rows: BTreeMap<usize, Vec<u64>>,
    ) -> Result<BTreeMap<(usize, u64), Line>, BillFault> {
        let mut pieces: Vec<Piece> = Vec::new();
        for (at, mut rows) in rows {
            rows.sort_unstable();
            let layout = self.layout_of(&segments[at].digest)?;
            let spans: Vec<_> = spans(&layout).collect();
            let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
            let mut own = Vec::new();
            for row in rows {
                let Some(group) = spans.iter().position(|span| span.contains(&row)) else {
                    continue;
                };
                let place = (row - spans[group].start) as usize;
                let full = groups.len() == GROUPS_AT_ONCE;
                match groups.last_mut() {
                    Some((last, places)) if *last == group => places.push(place),
                    _ => {
                        if full {
                            let before = std::mem::take(&mut groups);
                            let rows = std::mem::take(&mut own);
                            let layout = Arc::clone(&layout);
                            pieces.push(Piece { at, rows, layout, groups: before });
                        }
                        groups.push((group, vec![place]));
                    }
                }
                own.push(row);
            }
            pieces.push(Piece { at, rows: own, layout, groups });
        }
        let read = each(pieces.len(), u64::MAX, |at| {
            let Piece { at, rows, layout, groups } = &pieces[at];
            let lines = self.rows(&segments[*at].digest, layout, groups)?;
            Ok(rows.iter().map(|row| (*at, *row)).zip(lines).collect::<Vec<_>>())
        })?;
        Ok(read.into_iter().flatten().collect())
    }
}

impl Own {
    fn of(
        cube: &Cube<'_>,
        slab: usize,
        question: &Question<'_>,
        wanted: &Wanted<'_>,
        most: usize,
    ) -> Result<Self, CubeFault> {
        let mut own = Self::default();
        let Some(plan) = Plan::of(cube, slab, question)? else { return Ok(own) };
        let scanned = scan(&plan)?;
        // By the group's number; what was not met is not wanted.
        let mut is_wanted: Vec<bool> = Vec::new();
        let (mut ids, mut any) = (Vec::new(), false);
        let mut all = true;
        for (number, sum) in scanned.sums() {
            let sum = sum?;
            ids.clear();
            scanned.ids(number, &plan, &mut ids);
            let Some((currency, groups)) = ids.split_last() else { continue };
            let texts: Vec<&str> =
                groups.iter().zip(&plan.groups).map(|(id, view)| view.text(*id)).collect();
            if !wanted(&texts) {
                all = false;
                continue;
            }
            any = true;
            is_wanted.resize(is_wanted.len().max(number + 1), false);
            is_wanted[number] = true;
            let currency = plan.groups.last().map_or("", |view| view.text(*currency));
            let currency =
                Currency::try_from(currency.to_owned()).unwrap_or_else(|_| Currency::none());
            let total = own.sums.entry(currency).or_default();
            *total = total.checked_add(sum.amount).ok_or(TooLarge)?;
            own.lines += sum.lines;
        }
        if any && most > 0 {
            own.largest = largest(&plan, &scanned, (!all).then_some(&is_wanted), most)?;
        }
        Ok(own)
    }
}

/// The largest lines of the groups that are wanted; none is: of all.
fn largest(
    plan: &Plan,
    scanned: &Scanned,
    wanted: Option<&Vec<bool>>,
    most: usize,
) -> Result<Vec<Sized>, TooLarge> {
    let mut found: Vec<Sized> = Vec::new();
    // What a line must be larger than, once there are enough.
    let mut least = None;
    let mut values = [0; 2048];
    each_batch(plan, |batch| {
        let costs = &plan.costs.chunks[batch.chunk];
        let scale = power(costs.exponent).unsigned_abs().into();
        let of_chunk = costs.span.0.unsigned_abs().max(costs.span.1.unsigned_abs());
        let above = |size: u128| least.is_none_or(|least| size > least);
        if !of_chunk.checked_mul(scale).is_none_or(above) {
            return Ok(());
        }
        let exponent = plan.costs.narrow;
        if let Some(exponent) = exponent {
            narrow_costs(costs, exponent, batch, &mut values);
        }
        for (at, value) in values[..batch.picked.len()].iter().enumerate() {
            let row = batch.from + batch.picked.at(at);
            let size = match exponent {
                Some(exponent) => {
                    u128::from(value.unsigned_abs()) * u128::from(power(exponent).unsigned_abs())
                }
                None => costs.at(row).unsigned_abs().checked_mul(scale).ok_or(TooLarge)?,
            };
            if least.is_some_and(|least| size <= least) {
                continue;
            }
            let is_wanted = wanted.is_none_or(|wanted| {
                let number = scanned.of_line(plan, batch.chunk, row);
                number.is_some_and(|number| wanted.get(number).copied().unwrap_or(false))
            });
            if !is_wanted {
                continue;
            }
            found.push((size, (batch.chunk * plan.chunk_rows + row) as u64));
            if found.len() >= 2 * most {
                cut(&mut found, most);
                least = found.last().map(|(size, _)| *size);
            }
        }
        Ok(())
    })?;
    cut(&mut found, most);
    Ok(found)
}
