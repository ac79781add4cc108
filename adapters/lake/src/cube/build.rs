//! Making a cube, line by line, in bounded memory: codes and costs go to the file chunk by chunk,
//! texts slab by slab.

use std::{io, path::Path};

use chrono::NaiveDate;
use domain::finops::{
    amount::{Amount, BillingMonth, SCALE},
    bill::ByCurrency,
    cost::{Basis, Dimension},
    line::Line,
};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{
    DIMENSIONS, Limits, Source,
    file::{CodeBlocks, CostBlocks, Directory, Slab, TagBlocks, Writer},
    texts::Interner,
};
use crate::segment::PlainPart;

/// A column of texts that grows.
#[derive(Default)]
struct Coded {
    texts: Interner,
    held: Vec<u32>,
    blocks: CodeBlocks,
}

/// A column of costs that grows.
#[derive(Default)]
struct Costed {
    held: Vec<i128>,
    blocks: CostBlocks,
}

/// Tags without a column of their own.
#[derive(Default)]
struct Others {
    keys: Interner,
    values: Interner,
    /// Of codes of keys and values.
    pairs: Interner,
    /// Of codes of pairs.
    sets: Interner,
    held: Vec<u32>,
    set: Vec<u8>,
    blocks: TagBlocks,
}

impl Others {
    fn add(&mut self, key: &str, value: &str) {
        let (key, value) = (self.keys.code(key.as_bytes()), self.values.code(value.as_bytes()));
        let mut pair = [0; 8];
        pair[..4].copy_from_slice(&key.to_le_bytes());
        pair[4..].copy_from_slice(&value.to_le_bytes());
        self.set.extend_from_slice(&self.pairs.code(&pair).to_le_bytes());
    }

    fn size(&self) -> usize {
        [&self.keys, &self.values, &self.pairs, &self.sets].map(Interner::size).iter().sum()
    }
}

/// A decimal of few digits and no sign, as most quantities are; none where there is more to it.
fn plain(text: &str) -> Option<Amount> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.len() + part.len();
    if digits == 0 || digits > 18 || part.len() > SCALE as usize {
        return None;
    }
    let mut value = 0_u64;
    for digit in whole.bytes().chain(part.bytes()) {
        value = value * 10 + u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(Amount(i128::from(value) * 10_i128.pow(SCALE - part.len() as u32)))
}

/// The slab that is being made.
struct Open {
    rows: u32,
    /// Lines of the chunk that is being made.
    held: usize,
    plain: [Coded; DIMENSIONS.len()],
    /// The codes of days, for days are not to be written out line by line.
    days: HashMap<NaiveDate, u32, FixedState>,
    month: Option<BillingMonth>,
    tags: Vec<(String, Coded)>,
    /// Where a key's column is.
    promoted: HashMap<String, usize, FixedState>,
    others: Others,
    costs: [Costed; Basis::ALL.len()],
    quantity: (String, Amount),
}

impl Open {
    fn new() -> Self {
        Self {
            rows: 0,
            held: 0,
            plain: std::array::from_fn(|_| Coded::default()),
            days: HashMap::default(),
            month: None,
            tags: Vec::new(),
            promoted: HashMap::default(),
            others: Others::default(),
            costs: std::array::from_fn(|_| Costed::default()),
            quantity: Default::default(),
        }
    }

    fn push(&mut self, line: &Line, promoted_max: usize) {
        let same_month = self.month == Some(line.month);
        self.month = Some(line.month);
        for ((name, source), column) in DIMENSIONS.iter().zip(&mut self.plain) {
            let whole = || Dimension::Plain(name).of(line);
            let code = match source {
                Source::Text(get) => column.texts.code(get(line).as_bytes()),
                Source::Month if same_month => column.texts.last(),
                Source::Month => column.texts.code(whole().as_bytes()),
                Source::Day => {
                    let day = line.from.date_naive();
                    *self.days.entry(day).or_insert_with(|| column.texts.code(whole().as_bytes()))
                }
            };
            column.held.push(code);
        }
        for (key, value) in &line.tags {
            if value.is_empty() {
                continue;
            }
            let place = match self.promoted.get(key) {
                Some(place) => *place,
                None if self.tags.len() < promoted_max => {
                    let place = self.tags.len();
                    let mut column = Coded::default();
                    column.texts.code(b"");
                    self.tags.push((key.clone(), column));
                    self.promoted.insert(key.clone(), place);
                    place
                }
                None => {
                    self.others.add(key, value);
                    continue;
                }
            };
            let column = &mut self.tags[place].1;
            column.held.resize(self.held, 0);
            let code = column.texts.code(value.as_bytes());
            column.held.push(code);
        }
        let Others { set, sets, held, .. } = &mut self.others;
        held.push(sets.code(set));
        set.clear();
        if self.quantity.0 != line.quantity {
            let amount = plain(&line.quantity).unwrap_or_else(|| Basis::Quantity.of(line));
            self.quantity = (line.quantity.clone(), amount);
        }
        let costs = [line.billed, line.contracted, line.effective, line.list, self.quantity.1];
        for (cost, column) in costs.into_iter().zip(&mut self.costs) {
            column.held.push(cost.0);
        }
        self.rows += 1;
        self.held += 1;
    }

    /// What its texts take in memory, in bytes.
    fn size(&self) -> usize {
        let columns = self.plain.iter().chain(self.tags.iter().map(|(_, column)| column));
        columns.map(|column| column.texts.size()).sum::<usize>() + self.others.size()
    }

    /// Writes the chunk that is held. `before` chunks are written already.
    fn flush(&mut self, out: &mut Writer<PlainPart>) -> io::Result<()> {
        if self.held == 0 {
            return Ok(());
        }
        let before = self.plain[0].blocks.chunks.len();
        let tags = self.tags.iter_mut().map(|(_, column)| column);
        for column in self.plain.iter_mut().chain(tags) {
            // A key that was met late, or not in this chunk.
            column.held.resize(self.held, 0);
            column.blocks.chunks.resize_with(before, Default::default);
            column.blocks.chunks.push(out.codes(&column.held)?);
            column.held.clear();
        }
        self.others.blocks.chunks.push(out.codes(&self.others.held)?);
        self.others.held.clear();
        for column in &mut self.costs {
            let total = column.held.iter().fold(0_i128, |sum, one| sum.wrapping_add(*one));
            column.blocks.total.0 = column.blocks.total.0.wrapping_add(total);
            column.blocks.chunks.push(out.costs(&column.held)?);
            column.held.clear();
        }
        self.held = 0;
        Ok(())
    }

    fn finish(mut self, out: &mut Writer<PlainPart>) -> io::Result<Slab> {
        self.flush(out)?;
        let texts = |column: Coded, out: &mut Writer<PlainPart>| {
            let Coded { texts, blocks, .. } = column;
            Ok::<_, io::Error>(CodeBlocks { texts: out.texts(texts.texts())?, ..blocks })
        };
        let plain = self.plain.into_iter().map(|column| texts(column, out));
        let plain = plain.collect::<io::Result<Vec<_>>>()?;
        let tags = self.tags.into_iter().map(|(key, column)| Ok((key, texts(column, out)?)));
        let tags = tags.collect::<io::Result<Vec<_>>>()?;
        let Others { keys, values, pairs, sets, mut blocks, .. } = self.others;
        let others = if keys.texts().len() == 0 {
            None
        } else {
            blocks.keys = out.texts(keys.texts())?;
            blocks.values = out.texts(values.texts())?;
            blocks.pairs = out.block(pairs.texts().bytes())?;
            let ends: Vec<u32> = sets.texts().ends().iter().map(|end| end / 4).collect();
            blocks.ends = out.numbers(&ends)?;
            blocks.sets = out.block(sets.texts().bytes())?;
            Some(blocks)
        };
        let costs = self.costs.map(|column| column.blocks);
        Ok(Slab { rows: self.rows, plain, tags, others, costs })
    }
}

/// Makes a cube. Dropped, it leaves nothing.
pub(crate) struct Builder {
    out: Writer<PlainPart>,
    directory: Directory,
    open: Open,
    limits: Limits,
}

impl Builder {
    pub(crate) fn new(folder: &Path, limits: Limits) -> io::Result<Self> {
        Ok(Self {
            out: Writer::new(PlainPart::new(folder)?),
            directory: Directory { chunk_rows: limits.chunk_rows, ..Directory::default() },
            open: Open::new(),
            limits,
        })
    }

    pub(crate) fn push(&mut self, line: &Line) -> io::Result<()> {
        self.open.push(line, self.limits.promoted);
        if self.open.held == self.limits.chunk_rows as usize {
            self.open.flush(&mut self.out)?;
        }
        let full = self.open.rows == self.limits.slab_rows
            || (self.open.rows.is_multiple_of(1024) && self.open.size() > self.limits.slab_texts);
        if full { self.slab() } else { Ok(()) }
    }

    fn slab(&mut self) -> io::Result<()> {
        let open = std::mem::replace(&mut self.open, Open::new());
        self.directory.rows += u64::from(open.rows);
        self.directory.slabs.push(open.finish(&mut self.out)?);
        Ok(())
    }

    /// Puts it where it belongs, for a segment of so many bytes whose lines come to this.
    pub(crate) fn finish(
        mut self,
        path: &Path,
        segment_bytes: u64,
        sums: &ByCurrency,
    ) -> io::Result<()> {
        if self.open.rows > 0 {
            self.slab()?;
        }
        let Self { out, mut directory, .. } = self;
        (directory.segment_bytes, directory.sums) = (segment_bytes, sums.clone());
        out.finish(&directory)?.keep_as(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_decimal_is_what_it_is_otherwise() {
        for text in
            ["", ".", "1", "1.5", "0.000000000001", "123456.789012345678", "007.10", ".5", "5."]
        {
            if let Some(amount) = plain(text) {
                assert_eq!(Amount::rounded(text), Ok(amount), "{text}");
            }
        }
        assert_eq!(plain("1.5"), Some(Amount(1_500_000_000_000)));
        for text in ["-1", "+1", "1e3", "1.2.3", "0.0000000000001", "1234567890123456789", "x"] {
            assert_eq!(plain(text), None, "{text}");
        }
    }
}
