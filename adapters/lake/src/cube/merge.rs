//! What slabs come to, together.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use commands::ports::{BillFault, CostQuery};
use domain::finops::{
    amount::Currency,
    bill::Segment,
    cost::{Sum, Table, TooLarge},
};

use super::{
    cache::{Cube, CubeFault},
    plan::{Plan, Question},
    scan::scan,
    texts::Interner,
};
use crate::Lake;

/// Most threads that one question has.
const THREADS_MAX: usize = 16;
/// Fewer lines are not worth another thread.
const THREAD_LINES: u64 = 100_000;

/// Does the work of each place, by as many threads as pay; the answers are in the order of places.
pub(super) fn each<T: Send>(
    places: usize,
    lines: u64,
    work: impl Fn(usize) -> Result<T, BillFault> + Sync,
) -> Result<Vec<T>, BillFault> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let worth = usize::try_from(lines / THREAD_LINES).unwrap_or(THREADS_MAX).max(1);
    let threads = cores.min(places).min(worth);
    if threads <= 1 {
        return (0..places).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let take = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= places {
                break;
            }
            let answer = work(place);
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(place, answer);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(take);
        }
        take();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// A slab of a segment.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) segment: &'a Segment,
    /// The segment's place among those that are asked.
    pub(super) at: usize,
    pub(super) slab: usize,
    /// The slab's first line in the segment.
    pub(super) row: u64,
}

impl Lake {
    /// Every slab of these segments.
    pub(super) fn slabs<'a>(&self, segments: &[&'a Segment]) -> Result<Vec<Place<'a>>, BillFault> {
        let mut places = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let rows = |slab: &super::file::Slab| u64::from(slab.rows);
            let slabs = self.ask_cube(segment, |cube| {
                Ok(cube.directory.slabs.iter().map(rows).collect::<Vec<_>>())
            })?;
            let mut row = 0;
            for (slab, rows) in slabs.into_iter().enumerate() {
                places.push(Place { segment, at, slab, row });
                row += rows;
            }
        }
        Ok(places)
    }

    /// What the lines of these segments come to that are asked for.
    pub(crate) fn cube_sums(
        &self,
        segments: &[&Segment],
        asked: &CostQuery,
    ) -> Result<Table, BillFault> {
        let places = self.slabs(segments)?;
        let question = Question::of(asked);
        let lines = segments.iter().map(|segment| segment.lines).sum();
        let merged = Mutex::new(Merged::new(asked.groups.len() + 1));
        each(places.len(), lines, |at| {
            let Place { segment, slab, .. } = places[at];
            let found = self.ask_cube(segment, |cube| Found::of(cube, slab, &question))?;
            if let Some(found) = found {
                merged.lock().unwrap_or_else(PoisonError::into_inner).take(&found);
            }
            Ok(())
        })?;
        Ok(merged.into_inner().unwrap_or_else(PoisonError::into_inner).table()?)
    }
}

/// The groups of a slab.
struct Found {
    plan: Plan,
    /// The ids of a group's texts, group after group.
    ids: Vec<u32>,
    sums: Vec<Sum>,
}

impl Found {
    fn of(
        cube: &Cube<'_>,
        slab: usize,
        question: &Question<'_>,
    ) -> Result<Option<Self>, CubeFault> {
        let Some(plan) = Plan::of(cube, slab, question)? else { return Ok(None) };
        let scanned = scan(&plan)?;
        let (mut ids, mut sums) = (Vec::new(), Vec::new());
        for (number, sum) in scanned.sums() {
            scanned.ids(number, &plan, &mut ids);
            sums.push(sum?);
        }
        Ok(Some(Self { plan, ids, sums }))
    }
}

/// The groups of several slabs, by texts that are the same for all.
struct Merged {
    dimensions: Vec<Interner>,
    ids: Vec<u32>,
    sums: Vec<Sum>,
}

impl Merged {
    fn new(dimensions: usize) -> Self {
        let dimensions = (0..dimensions).map(|_| Interner::default()).collect();
        Self { dimensions, ids: Vec::new(), sums: Vec::new() }
    }

    fn take(&mut self, found: &Found) {
        const UNKNOWN: u32 = u32::MAX;
        let views = &found.plan.groups;
        let mut known: Vec<Vec<u32>> =
            views.iter().map(|view| vec![UNKNOWN; view.count()]).collect();
        self.ids.reserve(found.ids.len());
        for ids in found.ids.chunks_exact(views.len()) {
            for (at, id) in ids.iter().enumerate() {
                let own = &mut known[at][*id as usize];
                if *own == UNKNOWN {
                    *own = self.dimensions[at].code(views[at].text(*id).as_bytes());
                }
                self.ids.push(*own);
            }
        }
        self.sums.extend_from_slice(&found.sums);
    }

    /// Each group once, in the order of its texts.
    fn table(self) -> Result<Table, TooLarge> {
        let width = self.dimensions.len();
        let texts: Vec<_> = self.dimensions.iter().map(Interner::texts).collect();
        // In the order of texts, for each code its rank, and for each rank its code.
        let sorted = texts.iter().map(|texts| {
            let mut codes: Vec<u32> = (0..texts.len() as u32).collect();
            codes.sort_unstable_by_key(|code| texts.get(*code));
            codes
        });
        let sorted: Vec<Vec<u32>> = sorted.collect();
        let ranks = sorted.iter().map(|codes| {
            let mut ranks = vec![0_u32; codes.len()];
            for (code, rank) in codes.iter().zip(0..) {
                ranks[*code as usize] = rank;
            }
            ranks
        });
        let ranks: Vec<Vec<u32>> = ranks.collect();
        let places = 0..self.sums.len();
        let group = |place: usize| &self.ids[place * width..(place + 1) * width];
        let ranked = |place: usize| {
            group(place).iter().zip(&ranks).map(|(code, ranks)| ranks[*code as usize])
        };
        let mut order: Vec<usize> = places.clone().collect();
        let whole =
            texts.iter().try_fold(1_u128, |all, texts| all.checked_mul(texts.len() as u128));
        if whole.is_some() {
            let key = |place| {
                let parts = ranked(place).zip(&texts);
                parts
                    .fold(0_u128, |key, (rank, texts)| key * texts.len() as u128 + u128::from(rank))
            };
            let mut keys: Vec<(u128, usize)> = places.map(|place| (key(place), place)).collect();
            keys.sort_unstable();
            order = keys.into_iter().map(|(_, place)| place).collect();
        } else {
            order.sort_by(|one, other| ranked(*one).cmp(ranked(*other)));
        }
        let currencies = texts[width - 1];
        let currencies: Vec<Currency> = (0..currencies.len() as u32)
            .map(|code| Currency::try_from(currencies.text(code).to_owned()))
            .map(|currency| currency.unwrap_or_else(|_| Currency::none()))
            .collect();
        let mut rows = Vec::new();
        let mut order = order.into_iter().peekable();
        while let Some(place) = order.next() {
            let own = group(place);
            let mut sum = self.sums[place];
            while let Some(other) = order.next_if(|other| group(*other) == own) {
                sum = sum.plus(self.sums[other])?;
            }
            let (currency, own) = own.split_last().unwrap_or((&0, &[]));
            let own = own.iter().zip(&texts).map(|(code, texts)| texts.text(*code).to_owned());
            rows.push(((own.collect(), currencies[*currency as usize].clone()), sum));
        }
        Ok(rows.into_iter().collect())
    }
}
