//! What a question needs of a slab: which columns, which of their texts are asked for, and what its
//! groups are called.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use commands::ports::{Cell, CostQuery, Filter, Op};
use domain::finops::{attribution::Alike, cost::Dimension};

use super::{
    DIMENSIONS,
    cache::{Cube, CubeFault},
    column::{CodeColumn, CostColumn, TagColumn},
    packed::Codes,
};

/// A dimension of a slab's lines.
pub(super) enum View {
    /// A column of its own.
    Codes(Arc<CodeColumn>),
    /// A tag without one.
    Others {
        column: Arc<TagColumn>,
        /// For each set of tags, which of the values.
        ids: Vec<u32>,
        /// Codes of values; none is the empty text.
        values: Vec<Option<u32>>,
    },
    /// Resources, called as those that stand for them.
    Alike {
        column: Arc<CodeColumn>,
        /// For each resource, which of the names.
        ids: Vec<u32>,
        /// Those that stand for others here; none for those that nothing is known of.
        names: Vec<Option<u32>>,
        alike: Arc<Alike>,
    },
    /// No line has it.
    Nothing,
}

/// The code of every line that has nothing.
static NOTHING: Codes = Codes::One(0);

impl View {
    pub(super) fn of(
        cube: &Cube<'_>,
        slab: usize,
        dimension: &Dimension,
    ) -> Result<Self, CubeFault> {
        let key = match dimension {
            Dimension::Plain(name) => {
                let at = DIMENSIONS.iter().position(|(own, _)| own == name);
                return Ok(match at {
                    Some(at) => Self::Codes(cube.plain(slab, at)?),
                    None => Self::Nothing,
                });
            }
            Dimension::Tag(key) => key,
        };
        let promoted = cube.directory.slabs[slab].tags.iter().position(|(own, _)| own == key);
        if let Some(at) = promoted {
            return Ok(Self::Codes(cube.tag(slab, at)?));
        }
        let Some(column) = cube.others(slab)? else { return Ok(Self::Nothing) };
        let Some(of_sets) = column.of(key) else { return Ok(Self::Nothing) };
        let mut values = vec![None];
        let mut known = vec![0_u32; column.values.len()];
        let ids = of_sets.into_iter().map(|value| {
            let Some(value) = value else { return 0 };
            let id = &mut known[value as usize];
            if *id == 0 {
                *id = values.len() as u32;
                values.push(Some(value));
            }
            *id
        });
        let ids = ids.collect();
        Ok(Self::Others { column, ids, values })
    }

    /// A group's: the same, but for resources that are one group.
    fn of_group(
        cube: &Cube<'_>,
        slab: usize,
        dimension: &Dimension,
        alike: Option<&Arc<Alike>>,
    ) -> Result<Self, CubeFault> {
        let (Some(alike), Dimension::Plain("resource")) = (alike, dimension) else {
            return Self::of(cube, slab, dimension);
        };
        let Self::Codes(column) = Self::of(cube, slab, dimension)? else {
            return Ok(Self::Nothing);
        };
        let (mut names, mut known) = (Vec::new(), HashMap::new());
        let ids = (0..column.texts.len() as u32).map(|code| {
            let name = alike.of(column.texts.text(code));
            *known.entry(name).or_insert_with(|| {
                names.push(name);
                names.len() as u32 - 1
            })
        });
        let ids = ids.collect();
        Ok(Self::Alike { column, ids, names, alike: Arc::clone(alike) })
    }

    /// How many different texts there may be.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Codes(column) => column.texts.len(),
            Self::Others { values, .. } => values.len(),
            Self::Alike { names, .. } => names.len(),
            Self::Nothing => 1,
        }
    }

    /// One of these texts.
    pub(super) fn text(&self, id: u32) -> &str {
        match self {
            Self::Codes(column) => column.texts.text(id),
            Self::Others { column, values, .. } => {
                values[id as usize].map_or("", |value| column.values.text(value))
            }
            Self::Alike { names, alike, .. } => {
                names[id as usize].map_or("", |name| alike.name(name))
            }
            Self::Nothing => "",
        }
    }

    /// The codes of a chunk's lines.
    pub(super) fn chunk(&self, chunk: usize) -> &Codes {
        match self {
            Self::Codes(column) | Self::Alike { column, .. } => &column.chunks[chunk],
            Self::Others { column, .. } => &column.chunks[chunk],
            Self::Nothing => &NOTHING,
        }
    }

    /// For each code, what is said of its text.
    pub(super) fn table<T: Clone>(&self, mut of: impl FnMut(u32) -> T) -> Vec<T> {
        let texts: Vec<T> = (0..self.count() as u32).map(&mut of).collect();
        match self {
            Self::Others { ids, .. } | Self::Alike { ids, .. } => {
                ids.iter().map(|id| texts[*id as usize].clone()).collect()
            }
            Self::Codes(_) | Self::Nothing => texts,
        }
    }

    /// The same, long enough for every code of one byte.
    pub(super) fn long_table<T: Clone + Default>(&self, of: impl FnMut(u32) -> T) -> Vec<T> {
        let mut table = self.table(of);
        table.resize(table.len().max(256), T::default());
        table
    }
}

/// A filter that is quick to ask.
enum Test<'a> {
    Among(HashSet<String>, bool),
    Other(&'a Filter),
}

impl<'a> Test<'a> {
    fn of(filter: &'a Filter) -> Self {
        let wanted = match filter.op {
            Op::In => true,
            Op::NotIn => false,
            Op::Less | Op::Greater | Op::Prefix | Op::Contains => return Self::Other(filter),
        };
        let text = |cell: &Cell| match cell {
            Cell::Null => String::new(),
            Cell::Boolean(yes) => yes.to_string(),
            Cell::Integer(number) => number.to_string(),
            Cell::Text(text) => text.clone(),
        };
        Self::Among(filter.values.iter().map(text).collect(), wanted)
    }

    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Among(values, wanted) => values.contains(value) == *wanted,
            Self::Other(filter) => filter.holds(value),
        }
    }
}

/// A question, for slab after slab.
pub(super) struct Question<'a> {
    pub(super) asked: &'a CostQuery,
    tests: Vec<(&'a Dimension, Test<'a>)>,
}

impl<'a> Question<'a> {
    pub(super) fn of(asked: &'a CostQuery) -> Self {
        let tests = asked.filters.iter().map(|(dimension, filter)| (dimension, Test::of(filter)));
        Self { asked, tests: tests.collect() }
    }
}

/// What it comes to for one slab.
pub(super) struct Plan {
    pub(super) rows: usize,
    pub(super) chunk_rows: usize,
    /// For each filter which codes are asked for; the one that leaves least comes first.
    pub(super) filters: Vec<(View, Vec<bool>)>,
    /// The groups, and the currency behind them.
    pub(super) groups: Vec<View>,
    pub(super) costs: Arc<CostColumn>,
}

impl Plan {
    /// None when no line of the slab is asked for.
    pub(super) fn of(
        cube: &Cube<'_>,
        slab: usize,
        question: &Question<'_>,
    ) -> Result<Option<Self>, CubeFault> {
        let mut filters = Vec::new();
        for (dimension, test) in &question.tests {
            let view = View::of(cube, slab, dimension)?;
            let mut held = 0;
            let table = view.table(|id| {
                let holds = test.holds(view.text(id));
                held += u64::from(holds);
                holds
            });
            match held {
                0 => return Ok(None),
                all if all == view.count() as u64 => {}
                some => filters.push((some * 1_000 / view.count() as u64, view, table)),
            }
        }
        filters.sort_by_key(|(share, _, _)| *share);
        let currency = Dimension::Plain("currency");
        let groups = question.asked.groups.iter().chain([&currency]);
        let alike = question.asked.alike.as_ref();
        let groups = groups.map(|group| View::of_group(cube, slab, group, alike));
        let groups = groups.collect::<Result<_, _>>()?;
        Ok(Some(Self {
            rows: cube.directory.slabs[slab].rows as usize,
            chunk_rows: cube.directory.chunk_rows.max(1) as usize,
            filters: filters.into_iter().map(|(_, view, table)| (view, table)).collect(),
            groups,
            costs: cube.costs(slab, question.asked.basis)?,
        }))
    }
}
