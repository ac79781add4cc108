//! What is odd about a bill and can be booked all the same.

/// What a line breaks. The sentence says what was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Rule {
    /// No `ChargeCategory`.
    ChargeCategoryMissing,
    /// A `ChargeCategory` that FOCUS does not know.
    ChargeCategoryUnknown,
    /// A `ChargeClass` that FOCUS does not know.
    ChargeClassUnknown,
    /// `ChargePeriodEnd` is `ChargePeriodStart`.
    ChargePeriodEmpty,
    /// No `ContractedCost`.
    ContractedCostMissing,
    /// Costs are floating point numbers.
    CostFloating,
    /// A cost has more than twelve decimals.
    CostRounded,
    /// A cost other than `BilledCost` does not read as a number.
    CostUnreadable,
    /// No `EffectiveCost`.
    EffectiveCostMissing,
    /// `ListCost` is not `ListUnitPrice` × `PricingQuantity`.
    ListCostMismatch,
    /// No `ListCost`.
    ListCostMissing,
    /// `BillingPeriodStart` is not the first moment of a month.
    MonthNotFromItsFirst,
    /// No `ServiceName`.
    ServiceNameMissing,
    /// `Tags` is not a JSON object.
    TagsUnreadable,
    /// A text goes over several lines of the file: a quote may be open.
    TextOverLines,
    /// A time has digits beyond the microsecond.
    TimeRounded,
    /// A time without a zone.
    TimeWithoutZone,
}

impl Rule {
    /// Every rule, sorted.
    pub const ALL: [Self; 17] = [
        Self::ChargeCategoryMissing,
        Self::ChargeCategoryUnknown,
        Self::ChargeClassUnknown,
        Self::ChargePeriodEmpty,
        Self::ContractedCostMissing,
        Self::CostFloating,
        Self::CostRounded,
        Self::CostUnreadable,
        Self::EffectiveCostMissing,
        Self::ListCostMismatch,
        Self::ListCostMissing,
        Self::MonthNotFromItsFirst,
        Self::ServiceNameMissing,
        Self::TagsUnreadable,
        Self::TextOverLines,
        Self::TimeRounded,
        Self::TimeWithoutZone,
    ];

    /// Its code.
    pub fn code(self) -> &'static str {
        self.texts().0
    }

    /// What is odd and what was done.
    pub fn says(self) -> &'static str {
        self.texts().1
    }

    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::ChargeCategoryMissing => {
                ("charge-category-missing", "no ChargeCategory: taken as Adjustment")
            }
            Self::ChargeCategoryUnknown => {
                ("charge-category-unknown", "an unknown ChargeCategory: taken as Adjustment")
            }
            Self::ChargeClassUnknown => {
                ("charge-class-unknown", "an unknown ChargeClass: taken as no correction")
            }
            Self::ChargePeriodEmpty => {
                ("charge-period-empty", "the charge period has no length: kept")
            }
            Self::ContractedCostMissing => {
                ("contracted-cost-missing", "no ContractedCost: taken as zero")
            }
            Self::CostFloating => (
                "cost-floating",
                "a cost is a floating point number: its shortest decimal is taken",
            ),
            Self::CostRounded => (
                "cost-rounded",
                "a cost of more than 12 decimals: rounded half to even, the text kept",
            ),
            Self::CostUnreadable => {
                ("cost-unreadable", "a cost that is no number: taken as missing, the text kept")
            }
            Self::EffectiveCostMissing => {
                ("effective-cost-missing", "no EffectiveCost: taken as billed")
            }
            Self::ListCostMismatch => (
                "list-cost-mismatch",
                "ListCost is not ListUnitPrice times PricingQuantity: taken as written",
            ),
            Self::ListCostMissing => ("list-cost-missing", "no ListCost: taken as zero"),
            Self::MonthNotFromItsFirst => (
                "month-not-from-its-first",
                "BillingPeriodStart is within a month: that month is taken, the text kept",
            ),
            Self::ServiceNameMissing => ("service-name-missing", "no ServiceName: left empty"),
            Self::TagsUnreadable => {
                ("tags-unreadable", "Tags are no JSON object: no tags, the text kept")
            }
            Self::TextOverLines => {
                ("text-over-lines", "a text with line breaks: kept; is a quote left open?")
            }
            Self::TimeRounded => {
                ("time-rounded", "a time finer than a microsecond: the rest cut off")
            }
            Self::TimeWithoutZone => ("time-without-zone", "a time without a zone: taken as UTC"),
        }
    }
}

/// How often a rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub rule: Rule,
    /// In how many of the lines that can be booked.
    pub count: u64,
    /// In which line first.
    pub first: u64,
}

/// The rules that one line breaks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Broken(u32);

impl Broken {
    pub(super) fn add(&mut self, rule: Rule) {
        self.0 |= 1 << rule as u8;
    }
}

/// Of the whole bill: for each rule how often, and where first.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally([(u64, u64); Rule::ALL.len()]);

impl Tally {
    pub(super) fn add(&mut self, broken: Broken, line: u64) {
        let mut bits = broken.0;
        while bits != 0 {
            let (count, first) = &mut self.0[bits.trailing_zeros() as usize];
            if *count == 0 {
                *first = line;
            }
            *count += 1;
            bits &= bits - 1;
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let counted = Rule::ALL.into_iter().zip(self.0);
        counted
            .filter(|(_, (count, _))| *count > 0)
            .map(|(rule, (count, first))| Finding { rule, count, first })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_sorted_and_each_has_its_place_and_code() {
        assert!(Rule::ALL.is_sorted_by_key(|rule| rule.code()));
        assert!(Rule::ALL.iter().enumerate().all(|(place, rule)| place == *rule as usize));
    }
}
