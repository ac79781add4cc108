//! Columns of a slab in memory.

use super::{
    file::{CodeBlocks, CostBlocks, Directory, Reader, Slab, TagBlocks, Unfit},
    packed::{Codes, Costs, power},
    texts::Texts,
};

/// Lines' texts, by codes.
#[derive(Debug)]
pub(super) struct CodeColumn {
    pub(super) texts: Texts,
    pub(super) chunks: Vec<Codes>,
}

/// Lines' costs.
#[derive(Debug)]
pub(super) struct CostColumn {
    pub(super) chunks: Vec<Costs>,
    /// The power of ten that they can all be counted in so that no sum of them is beyond an `i64`;
    /// none when there is none.
    pub(super) narrow: Option<u8>,
}

/// Lines' tags that have no column of their own.
#[derive(Debug)]
pub(super) struct TagColumn {
    keys: Texts,
    pub(super) values: Texts,
    /// Codes of key and value.
    pairs: Vec<(u32, u32)>,
    /// Of each set the place behind its last pair.
    ends: Vec<u32>,
    /// Codes of pairs.
    sets: Vec<u32>,
    pub(super) chunks: Vec<Codes>,
}

/// How many lines each chunk of a slab has.
fn chunk_rows<'a>(directory: &'a Directory, slab: &'a Slab) -> impl Iterator<Item = usize> + 'a {
    let (all, each) = (slab.rows as usize, directory.chunk_rows.max(1) as usize);
    (0..all.div_ceil(each)).map(move |chunk| each.min(all - chunk * each))
}

fn chunks<B: Copy, C>(
    directory: &Directory,
    slab: &Slab,
    blocks: &[B],
    read: impl Fn(B, usize) -> Result<C, Unfit>,
) -> Result<Vec<C>, Unfit> {
    let rows = chunk_rows(directory, slab);
    let chunks: Vec<C> =
        rows.zip(blocks).map(|(rows, block)| read(*block, rows)).collect::<Result<_, _>>()?;
    if chunks.len() == chunk_rows(directory, slab).count() && chunks.len() == blocks.len() {
        Ok(chunks)
    } else {
        Err(Unfit::new("it has other chunks than lines"))
    }
}

impl CodeColumn {
    pub(super) fn read(
        reader: &Reader,
        directory: &Directory,
        slab: &Slab,
        blocks: &CodeBlocks,
    ) -> Result<Self, Unfit> {
        let texts = reader.texts(blocks.texts)?;
        let read = |block, rows| reader.codes(block, rows, texts.len());
        let chunks = chunks(directory, slab, &blocks.chunks, read)?;
        Ok(Self { texts, chunks })
    }

    pub(super) fn size(&self) -> usize {
        self.texts.size() + self.chunks.iter().map(Codes::size).sum::<usize>()
    }
}

impl CostColumn {
    pub(super) fn read(
        reader: &Reader,
        directory: &Directory,
        slab: &Slab,
        blocks: &CostBlocks,
    ) -> Result<Self, Unfit> {
        let read = |block, rows| reader.costs(block, rows);
        let chunks = chunks(directory, slab, &blocks.chunks, read)?;
        let totals = chunks.iter().zip(chunk_rows(directory, slab));
        let total = totals.fold(0_i128, |sum, (chunk, rows)| sum.wrapping_add(chunk.total(rows)));
        if total != blocks.total.0 {
            return Err(Unfit::new("its costs do not come to what they came to"));
        }
        Ok(Self { narrow: narrow(&chunks, slab.rows), chunks })
    }

    pub(super) fn size(&self) -> usize {
        self.chunks.iter().map(Costs::size).sum()
    }
}

/// What costs can be counted in.
fn narrow(chunks: &[Costs], rows: u32) -> Option<u8> {
    let least = chunks.iter().map(|chunk| chunk.exponent).min()?;
    let most = i128::from(i64::MAX) / i128::from(rows.max(1));
    let fits = chunks.iter().all(|chunk| {
        let factor = i128::from(power(chunk.exponent - least));
        let below = |cost: i128| cost.checked_mul(factor).is_some_and(|one| one.abs() <= most);
        chunk.narrow() && below(chunk.span.0) && below(chunk.span.1)
    });
    fits.then_some(least)
}

impl TagColumn {
    pub(super) fn read(
        reader: &Reader,
        directory: &Directory,
        slab: &Slab,
        blocks: &TagBlocks,
    ) -> Result<Self, Unfit> {
        let (keys, values) = (reader.texts(blocks.keys)?, reader.texts(blocks.values)?);
        let pairs = reader.numbers(blocks.pairs)?;
        let pairs: Vec<(u32, u32)> =
            pairs.as_chunks().0.iter().map(|[key, value]| (*key, *value)).collect();
        let (ends, sets) = (reader.numbers(blocks.ends)?, reader.numbers(blocks.sets)?);
        let below = |code: u32, limit: usize| (code as usize) < limit;
        let right =
            pairs.iter().all(|(key, value)| below(*key, keys.len()) && below(*value, values.len()))
                && sets.iter().all(|pair| below(*pair, pairs.len()))
                && ends.is_sorted()
                && ends.last().map_or(0, |end| *end as usize) == sets.len();
        if !right {
            return Err(Unfit::new("its tags are none"));
        }
        let read = |block, rows| reader.codes(block, rows, ends.len());
        let chunks = chunks(directory, slab, &blocks.chunks, read)?;
        Ok(Self { keys, values, pairs, ends, sets, chunks })
    }

    /// What each set has for a key: the code of its value; none when it has not.
    pub(super) fn of(&self, key: &str) -> Option<Vec<Option<u32>>> {
        let key = (0..self.keys.len() as u32).find(|code| self.keys.text(*code) == key)?;
        let of_pair: Vec<Option<u32>> =
            self.pairs.iter().map(|(own, value)| (*own == key).then_some(*value)).collect();
        let mut start = 0;
        let of_set = |end: &u32| {
            let set = &self.sets[start..*end as usize];
            start = *end as usize;
            set.iter().find_map(|pair| of_pair[*pair as usize])
        };
        Some(self.ends.iter().map(of_set).collect())
    }

    pub(super) fn size(&self) -> usize {
        let numbers = 2 * self.pairs.len() + self.ends.len() + self.sets.len();
        let chunks = self.chunks.iter().map(Codes::size).sum::<usize>();
        self.keys.size() + self.values.size() + 4 * numbers + chunks
    }
}
