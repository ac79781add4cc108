//! What a segment's columns are, and which part of a line each holds.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::finops::{
    amount::{Amount, BillingMonth, Currency},
    line::{ChargeCategory, Line},
};
use parquet::{
    basic::{LogicalType, Repetition, TimeUnit, Type as Physical},
    errors::ParquetError,
    schema::types::{Type, TypePtr},
};

/// Decimal digits of a money column: as many as 16 bytes can hold for sure.
pub(super) const PRECISION: i32 = 38;

/// One column.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// How a column is stored, how it is taken from a line and put into one.
pub(crate) enum Kind {
    /// `INT64`.
    Number(fn(&Line) -> u64, fn(&mut Line, u64)),
    /// `DECIMAL(38,12)`.
    Money(fn(&Line) -> Amount, fn(&mut Line) -> &mut Amount),
    /// Microseconds of UTC.
    Moment(fn(&Line) -> DateTime<Utc>, fn(&mut Line, DateTime<Utc>)),
    /// A text that is always there, and has a meaning; none when it has not.
    Word(fn(&Line) -> &str, fn(&mut Line, &str) -> Option<()>),
    /// Any text; null when it is empty.
    Text(fn(&Line) -> &str, fn(&mut Line) -> &mut String),
    /// A JSON object of texts; null when it is empty.
    Json(fn(&Line) -> &Texts, fn(&mut Line) -> &mut Texts),
}

type Texts = BTreeMap<String, String>;

macro_rules! money {
    ($name:literal, $field:ident) => {
        Column { name: $name, kind: Kind::Money(|line| line.$field, |line| &mut line.$field) }
    };
}

macro_rules! text {
    ($name:literal, $field:ident) => {
        Column { name: $name, kind: Kind::Text(|line| &line.$field, |line| &mut line.$field) }
    };
}

/// Every column, sorted. The order is part of a segment's digest.
pub(crate) const COLUMNS: &[Column] = &[
    money!("BilledCost", billed),
    text!("BillingAccountId", billing_account),
    Column {
        name: "BillingCurrency",
        kind: Kind::Word(
            |line| line.currency.code(),
            |line, code| {
                if line.currency.code() != code {
                    line.currency = Currency::try_from(code.to_owned()).ok()?;
                }
                Some(())
            },
        ),
    },
    Column {
        name: "BillingPeriodStart",
        kind: Kind::Moment(
            |line| line.month.first().and_time(chrono::NaiveTime::MIN).and_utc(),
            |line, start| line.month = BillingMonth::of(start.date_naive()),
        ),
    },
    Column {
        name: "ChargeCategory",
        kind: Kind::Word(
            |line| line.category.name(),
            |line, name| ChargeCategory::by_name(name).map(|category| line.category = category),
        ),
    },
    Column {
        name: "ChargeClass",
        kind: Kind::Word(
            |line| if line.correction { "Correction" } else { "" },
            |line, class| match class {
                "" | "Correction" => {
                    line.correction = !class.is_empty();
                    Some(())
                }
                _ => None,
            },
        ),
    },
    text!("ChargeDescription", description),
    Column { name: "ChargePeriodEnd", kind: Kind::Moment(|line| line.to, |line, to| line.to = to) },
    Column {
        name: "ChargePeriodStart",
        kind: Kind::Moment(|line| line.from, |line, from| line.from = from),
    },
    text!("CommitmentDiscountId", commitment),
    text!("CommitmentDiscountStatus", commitment_status),
    text!("ConsumedQuantity", quantity),
    text!("ConsumedUnit", unit),
    money!("ContractedCost", contracted),
    money!("EffectiveCost", effective),
    text!("InvoiceId", invoice),
    text!("InvoiceIssuerName", issuer),
    money!("ListCost", list),
    text!("PricingCategory", billing_mode),
    text!("RegionId", region),
    text!("ResourceId", resource),
    text!("ResourceName", resource_name),
    text!("ResourceType", resource_type),
    text!("ServiceCategory", service_category),
    text!("ServiceName", service),
    text!("SkuId", sku),
    text!("SubAccountId", sub_account),
    Column { name: "Tags", kind: Kind::Json(|line| &line.tags, |line| &mut line.tags) },
    Column {
        name: "x_LineNumber",
        kind: Kind::Number(|line| line.number, |line, number| line.number = number),
    },
    Column { name: "x_Other", kind: Kind::Json(|line| &line.other, |line| &mut line.other) },
];

/// A line that says nothing yet.
pub(crate) fn blank(currency: Currency) -> Line {
    Line::new("", BillingMonth::of(chrono::NaiveDate::default()), currency)
}

/// The schema of every segment.
pub(super) fn schema() -> Result<TypePtr, ParquetError> {
    let fields = COLUMNS.iter().map(|column| column.field().map(TypePtr::new));
    let fields = fields.collect::<Result<Vec<_>, _>>()?;
    Type::group_type_builder("line").with_fields(fields).build().map(TypePtr::new)
}

impl Column {
    /// Whether an empty text is stored as null.
    pub(super) fn optional(&self) -> bool {
        matches!(self.kind, Kind::Text(..) | Kind::Json(..)) || self.name == "ChargeClass"
    }

    fn field(&self) -> Result<Type, ParquetError> {
        let (physical, logical) = match self.kind {
            Kind::Number(..) => (Physical::INT64, None),
            Kind::Money(..) => {
                let scale = domain::finops::amount::SCALE.cast_signed();
                let decimal = LogicalType::decimal(scale, PRECISION);
                (Physical::FIXED_LEN_BYTE_ARRAY, Some(decimal))
            }
            Kind::Moment(..) => {
                let micros = LogicalType::timestamp(true, TimeUnit::MICROS);
                (Physical::INT64, Some(micros))
            }
            Kind::Word(..) | Kind::Text(..) | Kind::Json(..) => {
                (Physical::BYTE_ARRAY, Some(LogicalType::String))
            }
        };
        let presence = if self.optional() { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let field = Type::primitive_type_builder(self.name, physical)
            .with_repetition(presence)
            .with_logical_type(logical);
        match self.kind {
            Kind::Money(..) => field
                .with_length(16)
                .with_precision(PRECISION)
                .with_scale(domain::finops::amount::SCALE.cast_signed())
                .build(),
            _ => field.build(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_sorted() {
        assert!(COLUMNS.is_sorted_by_key(|column| column.name));
    }
}
