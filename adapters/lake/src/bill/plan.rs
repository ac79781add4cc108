//! A mapping laid over a heading: which field of a line goes where, by its place.

use std::{borrow::Cow, collections::BTreeMap};

use csv::StringRecord;
use domain::finops::{
    amount::{Amount, SCALE},
    line::Line,
};

use super::{
    mapping::{Mapping, NEEDED, Source, Term},
    reader::BillFault,
    value::{Number, Time, number, time, time_like},
};
use crate::segment::{COLUMNS, Kind};

/// Where in a line its text goes.
type Slot = fn(&mut Line) -> &mut String;

/// What happens with the fields of a line.
pub(super) struct Plan {
    pub(super) heading: Vec<String>,
    pub(super) billed: Feed,
    pub(super) effective: Feed,
    pub(super) list: Feed,
    pub(super) contracted: Feed,
    pub(super) list_price: Feed,
    pub(super) pricing_quantity: Feed,
    pub(super) account: Feed,
    pub(super) currency: Feed,
    pub(super) month: Feed,
    pub(super) from: Feed,
    pub(super) to: Feed,
    pub(super) category: Feed,
    pub(super) class: Feed,
    pub(super) tags: Feed,
    /// The month is told by the time of the charge.
    pub(super) month_of_charge: bool,
    pub(super) texts: Vec<(Slot, Feed)>,
    /// Columns that are tags, sorted by the tag's name.
    pub(super) tag_columns: Vec<(String, usize)>,
    /// Columns that go nowhere else as they are, sorted.
    pub(super) other: Vec<(String, usize)>,
    mapping: Mapping,
}

/// Where one column of FOCUS gets its values.
pub(super) struct Feed {
    pub(super) name: &'static str,
    ways: Vec<Way>,
    constant: Option<String>,
    values: Option<BTreeMap<String, String>>,
}

/// A term whose columns are in the heading.
struct Way {
    when: Vec<(usize, Vec<String>)>,
    what: What,
}

enum What {
    Column(usize),
    Text(String),
    Sum { add: Vec<usize>, less: Vec<usize> },
}

/// A cost that is no number.
pub(super) struct NoNumber<'r> {
    pub(super) column: Option<usize>,
    pub(super) text: &'r str,
    pub(super) reason: &'static str,
}

impl Plan {
    pub(super) fn new(heading: Vec<String>, mapping: &Mapping) -> Result<Self, BillFault> {
        let mut sorted: Vec<_> = heading.iter().collect();
        sorted.sort_unstable();
        let twice = sorted.windows(2).filter(|pair| pair[0] == pair[1]);
        let mut twice: Vec<_> = twice.map(|pair| pair[0].clone()).collect();
        twice.dedup();
        if !twice.is_empty() {
            return Err(BillFault::Twice(twice));
        }
        let feed = |name| Feed::new(name, &heading, mapping);
        let lacking = NEEDED.into_iter().filter(|name| !feed(name).feeds());
        let lacking: Vec<_> = lacking.map(|name| wanted(name, mapping)).collect();
        if !lacking.is_empty() {
            return Err(BillFault::Lacking(lacking));
        }

        let texts = COLUMNS.iter().filter_map(|column| match column.kind {
            Kind::Text(_, slot) if column.name != "BillingAccountId" => {
                Some((slot, feed(column.name)))
            }
            _ => None,
        });
        let mut plan = Self {
            billed: feed("BilledCost"),
            effective: feed("EffectiveCost"),
            list: feed("ListCost"),
            contracted: feed("ContractedCost"),
            list_price: feed("ListUnitPrice"),
            pricing_quantity: feed("PricingQuantity"),
            account: feed("BillingAccountId"),
            currency: feed("BillingCurrency"),
            month: feed("BillingPeriodStart"),
            from: feed("ChargePeriodStart"),
            to: feed("ChargePeriodEnd"),
            category: feed("ChargeCategory"),
            class: feed("ChargeClass"),
            tags: feed("Tags"),
            month_of_charge: mapping.columns.get("BillingPeriodStart")
                == mapping.columns.get("ChargePeriodStart"),
            texts: texts.filter(|(_, feed)| feed.feeds()).collect(),
            tag_columns: Vec::new(),
            other: Vec::new(),
            mapping: mapping.clone(),
            heading,
        };
        let taken: Vec<_> = plan.feeds().filter_map(Feed::takes).collect();
        for (place, name) in plan.heading.iter().enumerate() {
            let tag = plan.mapping.tags.iter().find_map(|prefix| name.strip_prefix(&**prefix));
            match tag {
                Some(tag) => plan.tag_columns.push((tag.to_owned(), place)),
                None if taken.contains(&place) => {}
                None => plan.other.push((name.clone(), place)),
            }
        }
        plan.tag_columns.sort();
        plan.other.sort();
        Ok(plan)
    }

    /// Those whose column is in the line as it is, so that it need not be kept a second time.
    fn feeds(&self) -> impl Iterator<Item = &Feed> {
        let single = [
            &self.billed,
            &self.effective,
            &self.list,
            &self.contracted,
            &self.account,
            &self.currency,
            &self.month,
            &self.from,
            &self.to,
            &self.category,
            &self.class,
            &self.tags,
        ];
        single.into_iter().chain(self.texts.iter().map(|(_, feed)| feed))
    }

    /// Whether a cost comes from this field.
    pub(super) fn costs_by(&self, place: usize) -> bool {
        let costs = [&self.billed, &self.effective, &self.list, &self.contracted];
        let by = |way: &Way| match &way.what {
            What::Column(column) => *column == place,
            What::Text(_) => false,
            What::Sum { add, less } => add.contains(&place) || less.contains(&place),
        };
        costs.into_iter().flat_map(|feed| &feed.ways).any(by)
    }

    /// Whether a text says nothing.
    pub(super) fn null(&self, text: &str) -> bool {
        text.is_empty() || self.mapping.nulls.iter().any(|null| null == text)
    }

    /// A field, unless it says nothing. A line may end in a carriage return, which is not its own.
    pub(super) fn field<'r>(&self, line: &'r StringRecord, place: usize) -> Option<&'r str> {
        let text = line.get(place)?;
        let text = if place + 1 == self.heading.len() {
            text.strip_suffix('\r').unwrap_or(text)
        } else {
            text
        };
        (!self.null(text)).then_some(text)
    }

    /// The text of a column, and from which field it is.
    pub(super) fn text<'r>(
        &'r self,
        feed: &'r Feed,
        line: &'r StringRecord,
    ) -> Option<(Option<usize>, &'r str)> {
        let said = feed.ways.iter().filter(|way| self.applies(way, line));
        let said = said.filter_map(|way| match &way.what {
            What::Column(place) => self.field(line, *place).map(|text| (Some(*place), text)),
            What::Text(text) => Some((None, &**text)),
            What::Sum { .. } => None,
        });
        let (place, text) = said
            .into_iter()
            .next()
            .or_else(|| feed.constant.as_deref().map(|constant| (None, constant)))?;
        match feed.values.as_ref().and_then(|values| values.get(text)) {
            Some(value) if value.is_empty() => None,
            Some(value) => Some((place, value)),
            None => Some((place, text)),
        }
    }

    /// The cost of a column, and of which field it is.
    pub(super) fn cost<'r>(
        &'r self,
        feed: &'r Feed,
        line: &'r StringRecord,
    ) -> Result<Option<(Option<usize>, Number)>, NoNumber<'r>> {
        for way in feed.ways.iter().filter(|way| self.applies(way, line)) {
            let said = match &way.what {
                What::Column(place) => match self.field(line, *place) {
                    Some(text) => Some((Some(*place), self.number(Some(*place), text)?)),
                    None => None,
                },
                What::Text(text) => Some((None, self.number(None, text)?)),
                What::Sum { add, less } => self.sum(add, less, line)?.map(|sum| (None, sum)),
            };
            if said.is_some() {
                return Ok(said);
            }
        }
        feed.constant.as_deref().map(|text| Ok((None, self.number(None, text)?))).transpose()
    }

    fn sum<'r>(
        &self,
        add: &[usize],
        less: &[usize],
        line: &'r StringRecord,
    ) -> Result<Option<Number>, NoNumber<'r>> {
        let mut sum = None;
        for (place, sign) in
            add.iter().map(|place| (*place, 1)).chain(less.iter().map(|place| (*place, -1)))
        {
            let Some(text) = self.field(line, place) else { continue };
            let part = self.number(Some(place), text)?;
            let none = Number { amount: Amount::ZERO, rounded: false };
            let Number { amount, rounded } = sum.unwrap_or(none);
            let reason = "is too large for an amount";
            let amount = amount.checked_add(Amount(part.amount.0 * sign)).ok_or(NoNumber {
                column: Some(place),
                text,
                reason,
            })?;
            sum = Some(Number { amount, rounded: rounded || part.rounded });
        }
        Ok(sum)
    }

    fn number<'r>(&self, column: Option<usize>, text: &'r str) -> Result<Number, NoNumber<'r>> {
        let (mark, thousands) = (self.mapping.decimal_mark, self.mapping.thousands_mark);
        let plain = if mark == '.' && thousands.is_none() {
            Cow::Borrowed(text)
        } else {
            // A point that is neither mark makes it no number.
            let letters = text.chars().filter(|letter| Some(*letter) != thousands);
            let point = |letter| match letter {
                letter if letter == mark => '.',
                '.' => '?',
                letter => letter,
            };
            Cow::Owned(letters.map(point).collect())
        };
        number(&plain).map_err(|reason| NoNumber { column, text, reason })
    }

    /// The tags of a JSON object; one without a value is `true`.
    pub(super) fn tags(&self, text: &str) -> Option<BTreeMap<String, String>> {
        let tags: BTreeMap<String, String> = if let Ok(tags) = serde_json::from_str(text) {
            tags
        } else {
            let tags: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).ok()?;
            let text = |value| match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Null => "true".to_owned(),
                other => other.to_string(),
            };
            tags.into_iter().map(|(key, value)| (key, text(value))).collect()
        };
        let prefix = &*self.mapping.tag_key_prefix;
        if prefix.is_empty() {
            return Some(tags);
        }
        let own = |key: String| key.strip_prefix(prefix).map(str::to_owned).unwrap_or(key);
        Some(tags.into_iter().map(|(key, value)| (own(key), value)).collect())
    }

    /// Reads a time as this source writes it.
    pub(super) fn time(&self, text: &str) -> Option<Time> {
        match &*self.mapping.dates {
            [] => time(text),
            patterns => time_like(text, patterns).or_else(|| time(text)),
        }
    }

    fn applies(&self, way: &Way, line: &StringRecord) -> bool {
        way.when.iter().all(|(place, values)| {
            let any = |text: &str| values.iter().any(|value| value == "*" || value == text);
            self.field(line, *place).is_some_and(any)
        })
    }

    /// Whether `ListUnitPrice` times `PricingQuantity` is another amount than this. AWS rounds each
    /// of the three to ten decimals, so that a billionth of the unit of currency is nobody's fault.
    pub(super) fn list_differs(&self, line: &StringRecord, list: Amount) -> bool {
        let factor = |feed| match self.cost(feed, line) {
            Ok(Some((_, number))) if !number.rounded => Some(number.amount.0),
            _ => None,
        };
        let Some(price) = factor(&self.list_price) else { return false };
        let Some(quantity) = factor(&self.pricing_quantity) else { return false };
        let unit = 10_i128.pow(SCALE);
        let Some(product) = price.checked_mul(quantity) else { return false };
        (product / unit - list.0).abs() > unit / 1_000_000_000
    }
}

/// How a column that is needed is called in this source.
fn wanted(name: &str, mapping: &Mapping) -> String {
    let terms = mapping.columns.get(name).map(|Source(terms)| &**terms).unwrap_or_default();
    let names: Vec<_> = terms
        .iter()
        .flat_map(|term| term.column.iter().chain(&term.add).chain(&term.less))
        .map(String::as_str)
        .collect();
    match &*names {
        [] => name.to_owned(),
        [one] if *one == name => name.to_owned(),
        names => format!("{} ({name})", names.join(" or ")),
    }
}

impl Feed {
    fn new(name: &'static str, heading: &[String], mapping: &Mapping) -> Self {
        let terms = mapping.columns.get(name).map(|Source(terms)| &**terms).unwrap_or_default();
        Self {
            name,
            ways: terms.iter().filter_map(|term| Way::new(term, heading)).collect(),
            constant: mapping.constants.get(name).cloned(),
            values: mapping.values.get(name).cloned(),
        }
    }

    /// Whether it can say something.
    fn feeds(&self) -> bool {
        !self.ways.is_empty() || self.constant.is_some()
    }

    /// The field that it takes as it is.
    fn takes(&self) -> Option<usize> {
        match (&*self.ways, &self.values) {
            ([Way { when, what: What::Column(place) }], None) if when.is_empty() => Some(*place),
            _ => None,
        }
    }
}

impl Way {
    /// None when the heading does not have what it needs.
    fn new(term: &Term, heading: &[String]) -> Option<Self> {
        let place = |name: &String| heading.iter().position(|column| column == name);
        let when = term.when.iter().map(|(name, values)| Some((place(name)?, values.clone())));
        let places = |names: &[String]| names.iter().filter_map(place).collect::<Vec<_>>();
        let what = match (&term.column, &term.value) {
            (Some(column), _) => What::Column(place(column)?),
            (None, Some(text)) => What::Text(text.clone()),
            (None, None) => {
                let (add, less) = (places(&term.add), places(&term.less));
                if add.len() + less.len() == 0 {
                    return None;
                }
                What::Sum { add, less }
            }
        };
        Some(Self { when: when.collect::<Option<_>>()?, what })
    }
}
