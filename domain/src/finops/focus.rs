//! Lines as FOCUS writes them: which columns a version has, what each says of a line, and the rows
//! that a shared charge becomes (split cost allocation).
//!
//! What a version asks of every line and a bill does not have is taken from what means the same
//! where there is such a thing: a provider for an issuer. Nothing else is made up.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use chrono::{DateTime, Utc};
use num_traits::{One, Zero};
use serde_json::json;

use super::{
    amount::SCALE,
    line::Line,
    ratio::{Ratio, parse, truncated},
    split::Weights,
};

/// Most columns of the bills' own (`x_…`) in an export.
const CUSTOM_MAX: usize = 500;
/// Decimals of a ratio in `AllocatedMethodDetails`.
const RATIO_PLACES: u32 = 12;

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.2.
    V1_2,
    /// 1.4.
    V1_4,
}

impl Version {
    /// Those that can be written.
    pub const ALL: [Self; 2] = [Self::V1_2, Self::V1_4];

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_4 => "1.4",
        }
    }

    /// The version of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// When a column is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    /// Not in this version.
    No,
    /// Always.
    Always,
    /// When every line says something there: the specification lets it not be null.
    IfAll,
    /// When a line says something there.
    IfAny,
}

use There::{Always, IfAll, IfAny, No};

/// The columns of CostAndUsage, sorted: when each is there in 1.2 and in 1.4. Those of split cost
/// allocation are not among them.
const COLUMNS: &[(&str, There, There)] = &[
    ("AvailabilityZone", IfAny, IfAny),
    ("BilledCost", Always, Always),
    ("BillingAccountId", Always, Always),
    ("BillingAccountName", Always, Always),
    ("BillingAccountType", IfAll, IfAll),
    ("BillingCurrency", Always, Always),
    ("BillingPeriodEnd", Always, Always),
    ("BillingPeriodStart", Always, Always),
    ("CapacityReservationId", IfAny, IfAny),
    ("CapacityReservationStatus", IfAny, IfAny),
    ("ChargeCategory", Always, Always),
    ("ChargeClass", Always, Always),
    ("ChargeDescription", Always, Always),
    ("ChargeFrequency", IfAll, IfAll),
    ("ChargePeriodEnd", Always, Always),
    ("ChargePeriodStart", Always, Always),
    ("CommitmentDiscountCategory", IfAny, IfAny),
    ("CommitmentDiscountId", IfAny, IfAny),
    ("CommitmentDiscountName", IfAny, IfAny),
    ("CommitmentDiscountQuantity", IfAny, IfAny),
    ("CommitmentDiscountStatus", IfAny, IfAny),
    ("CommitmentDiscountType", IfAny, IfAny),
    ("CommitmentDiscountUnit", IfAny, IfAny),
    ("CommitmentProgramEligibilityDetails", No, IfAny),
    ("ConsumedQuantity", IfAny, IfAny),
    ("ConsumedUnit", IfAny, IfAny),
    ("ContractApplied", No, IfAny),
    ("ContractedCost", Always, Always),
    ("ContractedUnitPrice", IfAny, IfAny),
    ("EffectiveCost", Always, Always),
    ("HostProviderName", No, Always),
    ("InvoiceDetailId", No, IfAny),
    ("InvoiceId", Always, IfAny),
    ("InvoiceIssuerName", Always, Always),
    ("ListCost", Always, Always),
    ("ListUnitPrice", IfAny, IfAny),
    ("PricingCategory", IfAny, IfAny),
    ("PricingCurrency", IfAll, IfAll),
    ("PricingCurrencyContractedUnitPrice", IfAny, IfAny),
    ("PricingCurrencyEffectiveCost", IfAll, IfAll),
    ("PricingCurrencyListUnitPrice", IfAny, IfAny),
    ("PricingQuantity", Always, Always),
    ("PricingUnit", Always, Always),
    ("ProviderName", Always, No),
    ("PublisherName", Always, No),
    ("RegionId", IfAny, IfAny),
    ("RegionName", IfAny, IfAny),
    ("ResourceId", IfAny, IfAny),
    ("ResourceName", IfAny, IfAny),
    ("ResourceType", IfAny, IfAny),
    ("ServiceCategory", Always, Always),
    ("ServiceName", Always, Always),
    ("ServiceProviderName", No, Always),
    ("ServiceSubcategory", IfAll, IfAll),
    ("SkuId", IfAny, IfAny),
    ("SkuMeter", IfAny, IfAny),
    ("SkuPriceDetails", IfAny, IfAny),
    ("SkuPriceId", IfAny, IfAny),
    ("SubAccountId", IfAny, IfAny),
    ("SubAccountName", IfAny, IfAny),
    ("SubAccountType", IfAny, IfAny),
    ("Tags", IfAny, IfAny),
];

/// The columns of split cost allocation, in 1.4; in 1.2 they are custom ones.
const ALLOCATED: [&str; 5] = [
    "AllocatedMethodId",
    "AllocatedMethodDetails",
    "AllocatedResourceId",
    "AllocatedResourceName",
    "AllocatedTags",
];

/// Whose the line is; a custom column in every version.
const CENTRE: &str = "x_Centre";

/// What sums: over the rows of a split charge these come to what they were.
const SUMMED: [&str; 8] = [
    "BilledCost",
    "CommitmentDiscountQuantity",
    "ConsumedQuantity",
    "ContractedCost",
    "EffectiveCost",
    "ListCost",
    "PricingCurrencyEffectiveCost",
    "PricingQuantity",
];

/// What the lines of an export say, to tell which columns it has.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    lines: u64,
    said: BTreeMap<&'static str, u64>,
    custom: BTreeSet<String>,
}

impl Survey {
    /// One more line.
    pub fn add(&mut self, line: &Line) {
        self.lines += 1;
        for (name, one, other) in COLUMNS {
            if (*one != Always || *other != Always) && !value(line, name).is_empty() {
                *self.said.entry(name).or_default() += 1;
            }
        }
        for name in line.other.keys().filter(|name| custom(name)) {
            if !self.custom.contains(name) && self.custom.len() < CUSTOM_MAX {
                self.custom.insert(name.clone());
            }
        }
    }

    /// The columns of an export of these lines, with those of split cost allocation or without.
    pub fn columns(&self, version: Version, allocated: bool) -> Vec<Cow<'static, str>> {
        let there = |(name, one, other): &(&'static str, There, There)| {
            let said = self.said.get(name).copied().unwrap_or_default();
            let there = match if version == Version::V1_2 { one } else { other } {
                No => false,
                Always => true,
                IfAll => said > 0 && said == self.lines,
                IfAny => said > 0,
            };
            there.then_some(Cow::Borrowed(*name))
        };
        let mut columns: Vec<_> = COLUMNS.iter().filter_map(there).collect();
        if allocated {
            columns.extend(ALLOCATED.map(|name| match version {
                Version::V1_2 => Cow::Owned(format!("x_{name}")),
                Version::V1_4 => Cow::Borrowed(name),
            }));
            columns.push(Cow::Borrowed(CENTRE));
        }
        let taken: BTreeSet<String> = columns.iter().map(ToString::to_string).collect();
        let custom = self.custom.iter().filter(|name| !taken.contains(*name));
        columns.extend(custom.cloned().map(Cow::Owned));
        columns
    }
}

/// Whether a column is one of the bill's own that FOCUS lets be.
fn custom(name: &str) -> bool {
    name.starts_with("x_")
}

fn time(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What a column says of a line; empty for null.
fn value<'l>(line: &'l Line, column: &str) -> Cow<'l, str> {
    let midnight = |day: chrono::NaiveDate| time(day.and_time(chrono::NaiveTime::MIN).and_utc());
    let other = |name: &str| line.other.get(name).map_or("", String::as_str);
    let first = |names: &[&str]| {
        names.iter().map(|name| other(name)).find(|text| !text.is_empty()).unwrap_or_default()
    };
    let or = |text: &'l str, else_: &'l str| if text.is_empty() { else_ } else { text };
    let provider = ["ServiceProviderName", "ProviderName", "PublisherName"];
    match column {
        "BilledCost" => line.billed.to_string().into(),
        "BillingAccountId" => (&*line.billing_account).into(),
        "BillingCurrency" => line.currency.code().into(),
        "BillingPeriodEnd" => midnight(line.month.next().first()).into(),
        "BillingPeriodStart" => midnight(line.month.first()).into(),
        "ChargeCategory" => line.category.name().into(),
        "ChargeClass" => if line.correction { "Correction" } else { "" }.into(),
        "ChargeDescription" => (&*line.description).into(),
        "ChargePeriodEnd" => time(line.to).into(),
        "ChargePeriodStart" => time(line.from).into(),
        "CommitmentDiscountId" => (&*line.commitment).into(),
        "CommitmentDiscountStatus" => (&*line.commitment_status).into(),
        "ConsumedQuantity" => (&*line.quantity).into(),
        "ConsumedUnit" => (&*line.unit).into(),
        "ContractedCost" => line.contracted.to_string().into(),
        "EffectiveCost" => line.effective.to_string().into(),
        "InvoiceId" => (&*line.invoice).into(),
        "InvoiceIssuerName" => or(&line.issuer, first(&provider)).into(),
        "ListCost" => line.list.to_string().into(),
        "PricingCategory" => (&*line.billing_mode).into(),
        "ProviderName" => or(first(&["ProviderName", "ServiceProviderName"]), &line.issuer).into(),
        "PublisherName" => {
            or(first(&["PublisherName", "HostProviderName", "ProviderName"]), &line.issuer).into()
        }
        "RegionId" => (&*line.region).into(),
        "ResourceId" => (&*line.resource).into(),
        "ResourceName" => (&*line.resource_name).into(),
        "ResourceType" => (&*line.resource_type).into(),
        "ServiceCategory" => or(&line.service_category, "Other").into(),
        "ServiceName" => (&*line.service).into(),
        "ServiceProviderName" => or(first(&provider), &line.issuer).into(),
        // FOCUS has such a word for each of its categories.
        "ServiceSubcategory" if other(column).is_empty() => {
            format!("Other ({})", or(&line.service_category, "Other")).into()
        }
        "SkuId" => (&*line.sku).into(),
        "SubAccountId" => (&*line.sub_account).into(),
        "Tags" if line.tags.is_empty() => "".into(),
        "Tags" => json!(line.tags).to_string().into(),
        name => other(name).into(),
    }
}

/// Where one part of a shared charge goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// To whom.
    pub centre: String,
    /// The rule that gives it; several by name.
    pub rule: String,
    /// What part: over one charge these sum to one.
    pub ratio: Ratio,
}

/// What becomes of the charges of one pool.
#[derive(Clone, Debug)]
pub struct Shares {
    parts: Vec<Share>,
    weights: Weights<usize>,
    /// The ratios as decimals that sum to exactly one.
    ratios: Vec<String>,
}

impl Shares {
    /// None when they do not sum to one: then nothing can be split by them.
    pub fn new(shares: Vec<Share>) -> Option<Self> {
        let sum: Ratio = shares.iter().map(|share| &share.ratio).sum();
        if !sum.is_one() {
            return None;
        }
        let numbered = shares.iter().map(|share| share.ratio.clone()).enumerate();
        let weights = Weights::new(&numbered.collect()).ok()?;
        let mut left = Ratio::one();
        let last = shares.iter().rposition(|share| !share.ratio.is_zero())?;
        let mut ratios = Vec::with_capacity(shares.len());
        for share in &shares {
            let text = truncated(&share.ratio, RATIO_PLACES);
            left -= parse(&text)?;
            ratios.push(text);
        }
        // What was cut off goes to the last one that has something.
        ratios[last] = truncated(&(left + parse(&ratios[last])?), RATIO_PLACES);
        Some(Self { parts: shares, weights, ratios })
    }

    /// Each part, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Share> {
        self.parts.iter()
    }
}

/// Whose a line is, and how it comes to others.
#[derive(Clone, Copy, Debug)]
pub struct Allocated<'a> {
    /// The centre that rules placed it in.
    pub centre: &'a str,
    /// How that centre's charges are shared, when they are.
    pub shares: Option<&'a Shares>,
    /// Names the rules, with their revision.
    pub method: &'a str,
}

/// A number of so many decimals.
fn scaled(text: &str) -> Option<(i128, u32)> {
    let number = parse(text)?;
    let mut scale = SCALE;
    loop {
        let power = num_bigint::BigInt::from(10).pow(scale);
        let units = &number * Ratio::from_integer(power);
        if units.is_integer() {
            return Some((i128::try_from(units.to_integer()).ok()?, scale));
        }
        scale += 1;
        if scale > 30 {
            return None;
        }
    }
}

fn unscaled(units: i128, scale: u32) -> String {
    let power = num_bigint::BigInt::from(10).pow(scale);
    truncated(&Ratio::new(units.into(), power), scale)
}

/// The rows of a line: one, or one for each part of a shared charge. Each has a text for each
/// column, empty for null.
pub fn rows(
    line: &Line,
    columns: &[Cow<'static, str>],
    allocated: Option<Allocated<'_>>,
) -> Vec<Vec<String>> {
    let row: Vec<String> = columns.iter().map(|column| value(line, column).into_owned()).collect();
    let Some(Allocated { centre, shares, method }) = allocated else { return vec![row] };
    let place = |name: &str| {
        columns.iter().position(|column| column.strip_prefix("x_").unwrap_or(column) == name)
    };
    let put = |row: &mut Vec<String>, name: &str, text: String| {
        if let Some(place) = place(name) {
            row[place] = text;
        }
    };
    let Some(shares) = shares else {
        let mut row = row;
        for name in ALLOCATED {
            put(&mut row, name, String::new());
        }
        put(&mut row, "Centre", centre.to_owned());
        return vec![row];
    };
    let mut rows = vec![row.clone(); shares.parts.len()];
    for name in SUMMED {
        let Some(place) = columns.iter().position(|column| column == name) else { continue };
        match scaled(&row[place]) {
            Some((units, scale)) => {
                for (row, part) in rows.iter_mut().zip(shares.weights.split(units)) {
                    row[place] = unscaled(part, scale);
                }
            }
            // What is no number cannot be split: it stays with the first.
            None => rows.iter_mut().skip(1).for_each(|row| row[place].clear()),
        }
    }
    for ((row, share), ratio) in rows.iter_mut().zip(&shares.parts).zip(&shares.ratios) {
        let mut tags = line.tags.clone();
        tags.insert("skyledger/centre".to_owned(), share.centre.clone());
        put(row, ALLOCATED[0], format!("{method}/{}", share.rule));
        put(row, ALLOCATED[1], format!("{{\"Elements\":[{{\"AllocatedRatio\":{ratio}}}]}}"));
        put(row, ALLOCATED[2], share.centre.clone());
        put(row, ALLOCATED[3], share.centre.clone());
        put(row, ALLOCATED[4], json!(tags).to_string());
        put(row, "Centre", share.centre.clone());
    }
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::finops::amount::{Amount, Currency};

    fn line() -> Line {
        let currency = Currency::try_from("USD".to_owned()).unwrap();
        let mut line = Line::new("42", "2026-12".parse().unwrap(), currency);
        line.issuer = "AWS".into();
        line.quantity = "0.1".into();
        line.tags = [("env".into(), "prod".into())].into();
        line.other = [
            ("ChargeFrequency", "One-Time"),
            ("PricingQuantity", "3"),
            ("Unknown", "left out"),
            ("x_Own", "kept"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
        line
    }

    fn columns(lines: &[Line], version: Version, allocated: bool) -> Vec<Cow<'static, str>> {
        let mut survey = Survey::default();
        for line in lines {
            survey.add(line);
        }
        survey.columns(version, allocated)
    }

    #[test]
    fn columns_are_sorted_and_a_version_has_its_own() {
        assert!(COLUMNS.is_sorted_by_key(|(name, ..)| name));
        let always = |which: fn(&(&str, There, There)) -> There| {
            COLUMNS.iter().filter(|column| which(column) == Always).count()
        };
        // 21 are mandatory in 1.4; 1.2 has two names where 1.4 has two others, and recommends one.
        assert_eq!((always(|column| column.1), always(|column| column.2)), (22, 21));
        let plain = Line { other: BTreeMap::new(), ..line() };
        let (both, one) = ([line(), plain], [line()]);
        for (lines, version, name, there) in [
            (&both[..], Version::V1_2, "ProviderName", true),
            (&both[..], Version::V1_4, "ProviderName", false),
            (&both[..], Version::V1_4, "ServiceProviderName", true),
            (&both[..], Version::V1_4, "ChargeFrequency", false),
            (&one[..], Version::V1_4, "ChargeFrequency", true),
            (&both[..], Version::V1_4, "x_Own", true),
            (&both[..], Version::V1_4, "Unknown", false),
            (&both[..], Version::V1_4, "RegionId", false),
        ] {
            let columns = columns(lines, version, false);
            assert_eq!(columns.iter().any(|column| column == name), there, "{name}");
        }
    }

    #[test]
    fn a_line_says_what_it_is_and_who_provides_it() {
        let columns = columns(&[line()], Version::V1_2, false);
        let rows = rows(&line(), &columns, None);
        let said =
            |name: &str| rows[0][columns.iter().position(|column| column == name).unwrap()].clone();
        assert_eq!(said("BillingPeriodEnd"), "2027-01-01T00:00:00Z");
        assert_eq!((said("ProviderName"), said("PublisherName")), ("AWS".into(), "AWS".into()));
        assert_eq!(
            (said("ServiceCategory"), said("Tags")),
            ("Other".into(), "{\"env\":\"prod\"}".into())
        );
    }

    proptest! {
        /// Whatever is shared in whatever parts: every number over the rows is the charge's, and
        /// the ratios sum to one, to the last digit.
        #[test]
        fn the_rows_of_a_shared_charge_come_to_the_charge(
            billed in -10_i128.pow(30)..10_i128.pow(30),
            quantity in -10_i64.pow(12)..10_i64.pow(12),
            weights in proptest::collection::vec(0_u32..1_000, 1..12),
        ) {
            let sum: u32 = weights.iter().sum();
            prop_assume!(sum > 0);
            let shares = weights.iter().enumerate().map(|(at, weight)| Share {
                centre: format!("c{at}"),
                rule: "r".into(),
                ratio: Ratio::new((*weight).into(), sum.into()),
            });
            let shares = Shares::new(shares.collect()).unwrap();
            let mut origin = line();
            (origin.billed, origin.list) = (Amount(billed), Amount(-billed / 7));
            origin.quantity = format!("{quantity}.123456789012345");
            for version in Version::ALL {
                let columns = columns(std::slice::from_ref(&origin), version, true);
                let allocated = Allocated { centre: "pool", shares: Some(&shares), method: "m/1" };
                let rows = rows(&origin, &columns, Some(allocated));
                prop_assert_eq!(rows.len(), weights.len());
                let place = |name: &str| {
                    columns.iter().position(|column| column.trim_start_matches("x_") == name).unwrap()
                };
                for name in SUMMED.iter().filter(|name| columns.iter().any(|one| one == *name)) {
                    let of = |row: &Vec<String>| parse(&row[place(name)]).unwrap();
                    let all: Ratio = rows.iter().map(of).sum();
                    prop_assert_eq!(all, parse(&value(&origin, name)).unwrap(), "{}", name);
                }
                let ratio = |row: &Vec<String>| {
                    let details = &row[place("AllocatedMethodDetails")];
                    let start = details.find("Ratio\":").unwrap() + 7;
                    let number = &details[start..details.len() - 3];
                    serde_json::from_str::<serde_json::Value>(details).unwrap();
                    parse(number).unwrap()
                };
                let ratios: Vec<Ratio> = rows.iter().map(ratio).collect();
                prop_assert!(ratios.iter().sum::<Ratio>().is_one());
                prop_assert!(ratios.iter().all(|one| *one >= Ratio::zero() && *one <= Ratio::one()));
                for row in &rows {
                    let tags: BTreeMap<String, String> =
                        serde_json::from_str(&row[place("AllocatedTags")]).unwrap();
                    prop_assert_eq!(&tags["env"], "prod");
                }
            }
        }
    }

    #[test]
    fn shares_that_do_not_sum_to_one_split_nothing() {
        let share = |above: i64| Share {
            centre: "c".into(),
            rule: "r".into(),
            ratio: Ratio::new(above.into(), 3.into()),
        };
        assert!(Shares::new(vec![share(1), share(1)]).is_none());
        assert!(Shares::new(vec![]).is_none());
        assert_eq!(Shares::new(vec![share(1), share(2)]).unwrap().ratios[1], "0.666666666667");
    }
}
