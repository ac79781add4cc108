//! Going through a slab: which lines are asked for, which group each is of, what they come to.
//!
//! Lines are gone through a few thousand at a time, so that what is known of them stays in the
//! nearest memory. A line's group is a number: the place of its texts in a table of all that are
//! possible, when that table is small beside the slab, and else in one of those that were met.

use std::ops::AddAssign;

use domain::finops::{
    amount::Amount,
    cost::{Sum, TooLarge},
};

use super::{
    packed::{Codes, Costs, power},
    plan::{Plan, View},
};

/// Lines at a time.
const BATCH: usize = 2048;
/// Groups that are always worth a table of all that are possible.
const TABLE_MIN: usize = 1 << 16;
/// More are for a slab of many lines: so many for each.
const TABLE_PER_ROW: usize = 4;

/// Lines of a batch.
#[derive(Clone, Copy)]
pub(super) enum Picked<'a> {
    All(usize),
    /// These of them.
    Some(&'a [u16]),
}

impl Picked<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::Some(picked) => picked.len(),
        }
    }

    /// The place of one of them in the batch.
    pub(super) fn at(self, at: usize) -> usize {
        match self {
            Self::All(_) => at,
            Self::Some(picked) => picked[at].into(),
        }
    }
}

/// A batch of lines that are asked for.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) chunk: usize,
    /// The place of its first line in the chunk.
    pub(super) from: usize,
    /// How many lines it has, asked for or not.
    pub(super) rows: usize,
    pub(super) picked: Picked<'a>,
}

/// Does something with codes, whatever their width.
macro_rules! with_codes {
    ($codes:expr, $one:ident => $constant:expr, $many:ident => $each:expr) => {
        match $codes {
            Codes::One($one) => $constant,
            Codes::Bytes($many) => $each,
            Codes::Shorts($many) => $each,
            Codes::Words($many) => $each,
        }
    };
}

/// A code of any width.
trait Code: Copy {
    fn place(self) -> usize;
}

impl Code for u8 {
    fn place(self) -> usize {
        self.into()
    }
}

impl Code for u16 {
    fn place(self) -> usize {
        self.into()
    }
}

impl Code for u32 {
    fn place(self) -> usize {
        self as usize
    }
}

fn pick<C: Code>(codes: &[C], table: &[bool], out: &mut [u16; BATCH]) -> usize {
    let mut count = 0;
    for (at, code) in codes.iter().enumerate() {
        out[count] = at as u16;
        count += usize::from(table[code.place()]);
    }
    count
}

fn pick_again<C: Code>(
    codes: &[C],
    table: &[bool],
    picked: &mut [u16; BATCH],
    before: usize,
) -> usize {
    let mut count = 0;
    for at in 0..before {
        let place = picked[at];
        picked[count] = place;
        count += usize::from(table[codes[usize::from(place)].place()]);
    }
    count
}

/// Goes through the lines that are asked for.
pub(super) fn each_batch(
    plan: &Plan,
    mut take: impl FnMut(Batch<'_>) -> Result<(), TooLarge>,
) -> Result<(), TooLarge> {
    let mut places = [0_u16; BATCH];
    for (chunk, start) in (0..plan.rows).step_by(plan.chunk_rows).enumerate() {
        let all = plan.chunk_rows.min(plan.rows - start);
        'batch: for from in (0..all).step_by(BATCH) {
            let rows = BATCH.min(all - from);
            let mut picked = None;
            for (view, table) in &plan.filters {
                let span = from..from + rows;
                let left = match (view.chunk(chunk), picked) {
                    (Codes::One(code), before) if table[*code as usize] => before,
                    (Codes::One(_), _) => continue 'batch,
                    (codes, None) => Some(with_codes!(
                        codes,
                        _one => rows,
                        codes => pick(&codes[span], table, &mut places)
                    )),
                    (codes, Some(before)) => Some(with_codes!(
                        codes,
                        _one => before,
                        codes => pick_again(&codes[span], table, &mut places, before)
                    )),
                };
                picked = left;
                if picked == Some(0) {
                    continue 'batch;
                }
            }
            let picked = picked.map_or(Picked::All(rows), |count| Picked::Some(&places[..count]));
            take(Batch { chunk, from, rows, picked })?;
        }
    }
    Ok(())
}

fn add<C: Code, K: Copy + AddAssign>(codes: &[C], picked: Picked<'_>, table: &[K], keys: &mut [K]) {
    // Of codes of one byte none is beyond, and nothing needs to be checked.
    let table = match table.first_chunk::<256>() {
        Some(all) if size_of::<C>() == 1 => all.as_slice(),
        _ => table,
    };
    match picked {
        Picked::All(_) => {
            for (key, code) in keys.iter_mut().zip(codes) {
                *key += table[code.place()];
            }
        }
        Picked::Some(places) => {
            for (key, place) in keys.iter_mut().zip(places) {
                *key += table[codes[usize::from(*place)].place()];
            }
        }
    }
}

/// Adds to lines' keys what a dimension says of them.
fn add_keys<K: Copy + AddAssign>(codes: &Codes, batch: Batch<'_>, table: &[K], keys: &mut [K]) {
    let span = batch.from..batch.from + batch.rows;
    with_codes!(
        codes,
        one => {
            let part = table[*one as usize];
            for key in keys {
                *key += part;
            }
        },
        codes => add(&codes[span], batch.picked, table, keys)
    );
}

/// Keys that were met, each with a number: in the order of their first meeting.
#[derive(Default)]
struct Met {
    /// Number + 1 by hash; 0 is free. Its length is a power of two.
    places: Vec<u32>,
    keys: Vec<u64>,
}

impl Met {
    fn place(&self, key: u64) -> usize {
        // The upper half of a product is as good as a hash gets that costs one multiplication.
        let product = u128::from(key ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        let mixed = (product >> 64) as u64 ^ product as u64;
        mixed as usize & (self.places.len() - 1)
    }

    fn find(&self, key: u64) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let mut at = self.place(key);
        loop {
            let number = self.places[at].checked_sub(1)?;
            if self.keys[number as usize] == key {
                return Some(number);
            }
            at = (at + 1) & (self.places.len() - 1);
        }
    }

    fn number(&mut self, key: u64) -> u32 {
        if 2 * (self.keys.len() + 1) > self.places.len() {
            self.grow();
        }
        let mut at = self.place(key);
        loop {
            match self.places[at].checked_sub(1) {
                Some(number) if self.keys[number as usize] == key => return number,
                Some(_) => at = (at + 1) & (self.places.len() - 1),
                None => {
                    self.keys.push(key);
                    self.places[at] = self.keys.len() as u32;
                    return self.keys.len() as u32 - 1;
                }
            }
        }
    }

    fn grow(&mut self) {
        self.places = vec![0; (4 * self.keys.len()).next_power_of_two().max(1024)];
        for (key, number) in self.keys.iter().zip(1..) {
            let mut at = self.place(*key);
            while self.places[at] != 0 {
                at = (at + 1) & (self.places.len() - 1);
            }
            self.places[at] = number;
        }
    }
}

/// Some dimensions whose texts together have a key.
struct Stage {
    /// Which, and for each of their codes its part of the key.
    tables: Vec<(usize, Vec<u64>)>,
    /// For each dimension how many texts it has.
    counts: Vec<u64>,
    met: Met,
}

/// Which group lines are of.
enum Groups {
    /// One of all that are possible.
    Possible { tables: Vec<(usize, Vec<u32>)>, counts: Vec<usize>, count: usize },
    /// One of those that were met. More dimensions than a key can hold are taken in stages: the
    /// number of what was met before is part of the next key.
    Met(Vec<Stage>),
}

impl Groups {
    fn of(plan: &Plan) -> Self {
        let counts: Vec<usize> = plan.groups.iter().map(View::count).collect();
        let possible = counts.iter().try_fold(1_usize, |all, count| all.checked_mul(*count));
        let most = TABLE_MIN.max(TABLE_PER_ROW * plan.rows);
        if let Some(count) = possible
            && count <= most
        {
            let mut stride = 1_u32;
            let tables = plan.groups.iter().enumerate().filter_map(|(at, view)| {
                let own = stride;
                stride *= view.count() as u32;
                (view.count() > 1).then(|| (at, view.long_table(|id| id * own)))
            });
            return Self::Possible { tables: tables.collect(), counts, count };
        }
        // A number of what was met before is below the number of lines.
        let (mut stages, mut stride, mut first) = (Vec::new(), 1_u64, 0);
        let mut tables = Vec::new();
        for (at, view) in plan.groups.iter().enumerate() {
            let next = stride.checked_mul(view.count() as u64);
            let fits = next.is_some_and(|next| next < 1 << 63);
            if !fits {
                let counts = counts[first..at].iter().map(|count| *count as u64).collect();
                stages.push(Stage {
                    tables: std::mem::take(&mut tables),
                    counts,
                    met: Met::default(),
                });
                (stride, first) = (plan.rows as u64 + 1, at);
            }
            if view.count() > 1 {
                tables.push((at, view.long_table(|id| u64::from(id) * stride)));
            }
            stride *= view.count() as u64;
        }
        let counts = counts[first..].iter().map(|count| *count as u64).collect();
        stages.push(Stage { tables, counts, met: Met::default() });
        Self::Met(stages)
    }

    /// Numbers the groups of a batch's lines, and says how many numbers there are.
    fn number(&mut self, plan: &Plan, batch: Batch<'_>, numbers: &mut [u32]) -> usize {
        match self {
            Self::Possible { tables, count, .. } => {
                numbers.fill(0);
                for (at, table) in tables {
                    add_keys(plan.groups[*at].chunk(batch.chunk), batch, table, numbers);
                }
                *count
            }
            Self::Met(stages) => {
                numbers.fill(0);
                let mut keys = [0_u64; BATCH];
                let keys = &mut keys[..numbers.len()];
                for stage in &mut *stages {
                    for (key, number) in keys.iter_mut().zip(numbers.iter()) {
                        *key = (*number).into();
                    }
                    for (at, table) in &stage.tables {
                        add_keys(plan.groups[*at].chunk(batch.chunk), batch, table, keys);
                    }
                    for (number, key) in numbers.iter_mut().zip(keys.iter()) {
                        *number = stage.met.number(*key);
                    }
                }
                stages.last().map_or(0, |stage| stage.met.keys.len())
            }
        }
    }

    /// The number of one line's group that was met before.
    fn of_line(&self, plan: &Plan, chunk: usize, row: usize) -> Option<u32> {
        let code = |at: usize| plan.groups[at].chunk(chunk).at(row) as usize;
        match self {
            Self::Possible { tables, .. } => {
                Some(tables.iter().map(|(at, table)| table[code(*at)]).sum())
            }
            Self::Met(stages) => stages.iter().try_fold(0, |number, stage| {
                let key = |(at, table): &(usize, Vec<u64>)| table[code(*at)];
                let key = stage.tables.iter().map(key).sum::<u64>() + u64::from(number);
                stage.met.find(key)
            }),
        }
    }

    /// The texts of a group, by their ids.
    fn ids(&self, number: usize, rows: usize, out: &mut Vec<u32>) {
        match self {
            Self::Possible { counts, .. } => {
                let mut rest = number;
                for count in counts {
                    out.push((rest % count) as u32);
                    rest /= count;
                }
            }
            Self::Met(stages) => {
                let start = out.len();
                let mut number = number;
                for (at, stage) in stages.iter().enumerate().rev() {
                    let mut rest = stage.met.keys[number];
                    if at > 0 {
                        number = (rest % (rows as u64 + 1)) as usize;
                        rest /= rows as u64 + 1;
                    }
                    let own = stage.counts.iter().map(|count| {
                        let id = (rest % count) as u32;
                        rest /= count;
                        id
                    });
                    let own: Vec<u32> = own.collect();
                    out.splice(start..start, own);
                }
            }
        }
    }
}

/// What the lines of a group come to, in the costs' own unit: no sum is beyond it.
#[derive(Clone, Copy, Default)]
struct Narrow {
    amount: i64,
    /// What is below zero of it.
    negative: i64,
    lines: u64,
}

/// The same, whatever the sum.
#[derive(Clone, Copy, Default)]
struct Wide {
    amount: i128,
    magnitude: i128,
    lines: u64,
}

enum Tally {
    Narrow { exponent: u8, sums: Vec<Narrow> },
    Wide(Vec<Wide>),
}

impl Tally {
    fn add(
        &mut self,
        costs: &Costs,
        batch: Batch<'_>,
        numbers: &[u32],
        groups: usize,
    ) -> Result<(), TooLarge> {
        match self {
            Self::Narrow { exponent, sums } => {
                sums.resize(groups.max(sums.len()), Narrow::default());
                let mut values = [0_i64; BATCH];
                narrow_costs(costs, *exponent, batch, &mut values);
                let lines = numbers.iter().zip(&values);
                if costs.span.0 < 0 {
                    for (number, value) in lines {
                        let sum = &mut sums[*number as usize];
                        sum.amount += value;
                        // The value where its sign is set, else nothing.
                        sum.negative += value & (value >> 63);
                        sum.lines += 1;
                    }
                } else {
                    for (number, value) in lines {
                        let sum = &mut sums[*number as usize];
                        sum.amount += value;
                        sum.lines += 1;
                    }
                }
            }
            Self::Wide(sums) => {
                sums.resize(groups.max(sums.len()), Wide::default());
                let scale = i128::from(power(costs.exponent));
                for (at, number) in numbers.iter().enumerate() {
                    let cost = costs.at(batch.from + batch.picked.at(at));
                    let cost = cost.checked_mul(scale).ok_or(TooLarge)?;
                    let sum = &mut sums[*number as usize];
                    // Where the magnitude is in range the amount is.
                    sum.amount = sum.amount.wrapping_add(cost);
                    let size = cost.checked_abs().ok_or(TooLarge)?;
                    sum.magnitude = sum.magnitude.checked_add(size).ok_or(TooLarge)?;
                    sum.lines += 1;
                }
            }
        }
        Ok(())
    }

    fn sums(&self) -> impl Iterator<Item = (usize, Result<Sum, TooLarge>)> {
        let (narrow, exponent, wide): (&[Narrow], _, &[Wide]) = match self {
            Self::Narrow { exponent, sums } => (sums, *exponent, &[]),
            Self::Wide(sums) => (&[], 0, sums),
        };
        let scale = i128::from(power(exponent));
        let narrow = narrow.iter().enumerate().filter(|(_, sum)| sum.lines > 0);
        let narrow = narrow.map(move |(number, sum)| {
            let amount = i128::from(sum.amount);
            let magnitude = amount - 2 * i128::from(sum.negative);
            let whole = |cost: i128| cost.checked_mul(scale).map(Amount).ok_or(TooLarge);
            let sum = whole(amount).and_then(|amount| {
                Ok(Sum { amount, magnitude: whole(magnitude)?, lines: sum.lines })
            });
            (number, sum)
        });
        let wide = wide.iter().enumerate().filter(|(_, sum)| sum.lines > 0).map(|(number, sum)| {
            let (amount, magnitude) = (Amount(sum.amount), Amount(sum.magnitude));
            (number, Ok(Sum { amount, magnitude, lines: sum.lines }))
        });
        narrow.chain(wide)
    }
}

/// The costs of the lines that are asked for, in units of ten to `exponent`.
pub(super) fn narrow_costs(
    costs: &Costs,
    exponent: u8,
    batch: Batch<'_>,
    values: &mut [i64; BATCH],
) {
    let factor = power(costs.exponent - exponent);
    match batch.picked {
        Picked::Some(places) if places.len() < batch.rows / 16 => {
            for (value, place) in values.iter_mut().zip(places) {
                *value = costs.at(batch.from + usize::from(*place)) as i64 * factor;
            }
        }
        picked => {
            costs.fill(batch.from, &mut values[..batch.rows], factor);
            if let Picked::Some(places) = picked {
                for (at, place) in places.iter().enumerate() {
                    values[at] = values[usize::from(*place)];
                }
            }
        }
    }
}

/// What a slab's lines come to.
pub(super) struct Scanned {
    groups: Groups,
    tally: Tally,
}

pub(super) fn scan(plan: &Plan) -> Result<Scanned, TooLarge> {
    let costs = &plan.costs;
    let mut groups = Groups::of(plan);
    let mut tally = match costs.narrow {
        Some(exponent) => Tally::Narrow { exponent, sums: Vec::new() },
        None => Tally::Wide(Vec::new()),
    };
    let mut numbers = [0_u32; BATCH];
    each_batch(plan, |batch| {
        let numbers = &mut numbers[..batch.picked.len()];
        let count = groups.number(plan, batch, numbers);
        tally.add(&costs.chunks[batch.chunk], batch, numbers, count)
    })?;
    Ok(Scanned { groups, tally })
}

impl Scanned {
    /// The groups that have lines, by number, and what these come to.
    pub(super) fn sums(&self) -> impl Iterator<Item = (usize, Result<Sum, TooLarge>)> {
        self.tally.sums()
    }

    /// Puts the texts of a group behind `out`, by their ids.
    pub(super) fn ids(&self, number: usize, plan: &Plan, out: &mut Vec<u32>) {
        self.groups.ids(number, plan.rows, out);
    }

    /// The number of a line's group.
    pub(super) fn of_line(&self, plan: &Plan, chunk: usize, row: usize) -> Option<usize> {
        self.groups.of_line(plan, chunk, row).map(|number| number as usize)
    }
}
