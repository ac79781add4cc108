//! Sets of whole numbers as ranges: their size costs nothing, only their gaps do.

use std::collections::BTreeMap;

/// A set of numbers, as the ranges it consists of: disjoint, with a gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First and last number of each.
    ranges: BTreeMap<u128, u128>,
    count: u128,
}

impl Ranges {
    /// All of a range.
    pub fn of(first: u128, last: u128) -> Self {
        let mut ranges = Self::default();
        ranges.insert(first, last);
        ranges
    }

    /// How many numbers there are; at most `u128::MAX`.
    pub fn count(&self) -> u128 {
        self.count
    }

    /// The smallest number.
    pub fn first(&self) -> Option<u128> {
        self.ranges.keys().next().copied()
    }

    /// The largest number.
    pub fn last(&self) -> Option<u128> {
        self.ranges.values().next_back().copied()
    }

    /// Whether the number is there.
    pub fn contains(&self, number: u128) -> bool {
        self.around(number).is_some()
    }

    /// The range a number lies in.
    fn around(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.ranges.range(..=number).next_back()?;
        (number <= *last).then_some((*first, *last))
    }

    /// The smallest number that is not below this one.
    pub fn next(&self, from: u128) -> Option<u128> {
        if self.contains(from) {
            return Some(from);
        }
        self.ranges.range(from..).next().map(|(first, _)| *first)
    }

    /// The number at a place, from 0; it costs as much as there are ranges.
    pub fn nth(&self, mut place: u128) -> Option<u128> {
        for (first, last) in &self.ranges {
            let size = last - first;
            if place <= size {
                return Some(first + place);
            }
            place -= size + 1;
        }
        None
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    /// Adds all numbers of a range; nothing when it is empty.
    pub fn insert(&mut self, first: u128, last: u128) {
        if first > last {
            return;
        }
        self.remove(first, last);
        let (mut low, mut high) = (first, last);
        if let Some((before, _)) = first.checked_sub(1).and_then(|before| self.around(before)) {
            low = before;
            self.ranges.remove(&before);
        }
        if let Some((next, after)) = last.checked_add(1).and_then(|after| self.around(after)) {
            high = after;
            self.ranges.remove(&next);
        }
        self.ranges.insert(low, high);
        self.count = self.count.saturating_add(last - first).saturating_add(1);
    }

    /// Takes out all numbers of a range.
    pub fn remove(&mut self, first: u128, last: u128) {
        if first > last {
            return;
        }
        let from = self.around(first).map_or(first, |(start, _)| start);
        let touched: Vec<(u128, u128)> =
            self.ranges.range(from..=last).map(|(first, last)| (*first, *last)).collect();
        for (start, end) in touched {
            self.ranges.remove(&start);
            self.count -= end.min(last) - start.max(first) + 1;
            if start < first {
                self.ranges.insert(start, first - 1);
            }
            if end > last {
                self.ranges.insert(last + 1, end);
            }
        }
    }
}
