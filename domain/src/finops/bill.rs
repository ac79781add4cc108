//! The bill of one account for one month.
//!
//! ```text
//!            import              close
//!   absent ────────► open ───────────────► closed ◄─┐
//!                    │  ▲                     │     │ restate: a further version
//!                    └──┘ import              └─────┘
//! ```
//!
//! A bill holds no lines: they lie in segments, which never change, and the digest of a segment
//! vouches for them. While a bill is open, lines are added and replaced. Once it is closed its
//! versions never change; a correction is one more version, with its reason.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    amount::{Amount, BillingMonth, Currency},
    line::Line,
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Longest reason, in characters.
const REASON_CHARS_MAX: usize = 500;
/// Most segments of a version: beyond it the month is to be imported anew, as a whole.
const SEGMENTS_MAX: usize = 1_000;

/// What lines come to, in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// What the issuer invoices.
    #[schemars(with = "String")]
    pub billed: Amount,
    /// What is recognised in the charge periods.
    #[schemars(with = "String")]
    pub effective: Amount,
    /// At public prices.
    #[schemars(with = "String")]
    pub list: Amount,
    /// At negotiated prices.
    #[schemars(with = "String")]
    pub contracted: Amount,
}

impl Sums {
    /// Of one line.
    pub fn of(line: &Line) -> Self {
        Self {
            billed: line.billed,
            effective: line.effective,
            list: line.list,
            contracted: line.contracted,
        }
    }

    /// The sum of both, when all four are in range.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            billed: self.billed.checked_add(other.billed)?,
            effective: self.effective.checked_add(other.effective)?,
            list: self.list.checked_add(other.list)?,
            contracted: self.contracted.checked_add(other.contracted)?,
        })
    }
}

/// Sums by currency; currencies never mix.
pub type ByCurrency = BTreeMap<Currency, Sums>;

/// What the lines of an invoice come to, or what it says of them itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvoiceTotal {
    /// `InvoiceId`; empty for lines that no invoice has yet.
    pub invoice: String,
    /// `InvoiceIssuerName`.
    pub issuer: String,
    /// In what.
    pub currency: Currency,
    /// `BilledCost`.
    #[schemars(with = "String")]
    pub billed: Amount,
}

impl InvoiceTotal {
    /// Most of one bill in one file; of a file with more, the lines' invoices are not told apart.
    pub const MAX: usize = 1_000;

    fn key(&self) -> (&str, &str, &Currency) {
        (&self.invoice, &self.issuer, &self.currency)
    }
}

/// An invoice beside the lines that bear its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// `InvoiceId`.
    pub invoice: String,
    /// `InvoiceIssuerName`.
    pub issuer: String,
    /// In what.
    pub currency: Currency,
    /// What its lines come to; none when it has no line.
    pub lines: Option<Amount>,
    /// What it says itself; none when nobody has said it.
    pub stated: Option<Amount>,
}

impl Reconciled {
    /// Whether lines and invoice say different things. Where only one of them speaks there is
    /// nothing to compare, unless the invoice asks for something that no line explains.
    pub fn differs(&self) -> bool {
        self.stated.is_some_and(|stated| self.lines.unwrap_or(Amount::ZERO) != stated)
    }
}

/// Lines of one bill that came in one file: immutable, found by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// SHA-256 of the segment's file, in hexadecimal.
    pub digest: String,
    /// How many lines it has.
    pub lines: u64,
    /// What they come to.
    pub sums: ByCurrency,
    /// The file the lines were read from, as its sender calls it.
    pub source: String,
    /// SHA-256 of that file, in hexadecimal.
    pub source_digest: String,
    /// What of the lines breaks the specification and was booked all the same: how many lines, by
    /// the finding's code.
    pub findings: BTreeMap<String, u64>,
    /// Lines of the file that could not be booked in any bill.
    pub quarantined: u64,
    /// Who sent the file.
    pub imported_by: String,
    /// What the lines of each invoice come to, sorted; none when nobody has told them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoices: Option<Vec<InvoiceTotal>>,
}

/// The sources whose lines are worked out here, and not read from a file.
pub const DERIVED: [&str; 2] = ["amortisation", "rating"];

impl Segment {
    /// Whether its lines were worked out here: `amortisation`, `rating`, or a part of them such as
    /// `rating/containers`.
    pub fn is_derived(&self) -> bool {
        let first = self.source.split('/').next().unwrap_or_default();
        DERIVED.contains(&first)
    }
}

/// What an import does with the lines that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// The lines are further ones.
    #[default]
    Add,
    /// The lines take the place of those that came from the same source: what is worked out again
    /// and again, with the same source each time, is counted once.
    Renew,
    /// The lines are all that files have: those of before count no more, but for what is worked
    /// out here.
    Replace,
}

impl Manner {
    /// The manner of this name, of those that a file may come in.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "add" => Some(Self::Add),
            "replace" => Some(Self::Replace),
            _ => None,
        }
    }
}

/// A command of a bill.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Let the month's lines stand.
    Close {
        /// What the invoice says, by currency: the billed lines must come to the same.
        #[serde(default)]
        #[schemars(with = "BTreeMap<Currency, String>")]
        invoiced: BTreeMap<Currency, Amount>,
        /// Close although they differ.
        #[serde(default)]
        accept_difference: bool,
    },
    /// Take lines in.
    Import {
        /// `BillingAccountId`.
        billing_account: String,
        /// The month.
        #[schemars(with = "String")]
        month: BillingMonth,
        /// The lines.
        segment: Segment,
        /// What becomes of the lines that are there.
        manner: Manner,
        /// Why a closed month gets a further version.
        #[serde(default)]
        reason: String,
    },
    /// Take down what invoices come to.
    StateInvoices {
        /// `BillingAccountId`.
        billing_account: String,
        /// The month.
        #[schemars(with = "String")]
        month: BillingMonth,
        /// The invoices of a file; what was stated of the same before counts no more.
        invoices: Vec<InvoiceTotal>,
        /// The file, as its sender calls it.
        source: String,
        /// SHA-256 of that file, in hexadecimal.
        source_digest: String,
        /// Who sent the file.
        stated_by: String,
    },
}

/// A fact about a bill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// Its lines stand.
    Closed {
        /// The version that stands.
        version: u32,
        /// What its lines come to.
        sums: ByCurrency,
        /// What the invoice says, where it was given.
        #[schemars(with = "BTreeMap<Currency, String>")]
        invoiced: BTreeMap<Currency, Amount>,
    },
    /// Invoices say what they come to.
    InvoicesStated {
        /// Those that were not stated so before.
        invoices: Vec<InvoiceTotal>,
        /// The file, as its sender calls it.
        source: String,
        /// SHA-256 of that file, in hexadecimal.
        source_digest: String,
        /// Who sent the file.
        stated_by: String,
    },
    /// Lines came in.
    LinesImported {
        /// These.
        segment: Segment,
        /// Segments that count no more.
        replaces: Vec<String>,
    },
    /// It has begun.
    Opened {
        /// `BillingAccountId`.
        billing_account: String,
        /// The month.
        #[schemars(with = "String")]
        month: BillingMonth,
    },
    /// The closed month has a further version.
    Restated {
        /// From 2.
        version: u32,
        /// What came in.
        segment: Segment,
        /// Segments of the version before that count no more.
        replaces: Vec<String>,
        /// Why.
        reason: String,
    },
}

/// One closed version of a bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// From 1.
    pub version: u32,
    /// Digests of its segments, in the order they came.
    pub segments: Vec<String>,
    /// What its lines come to.
    pub sums: ByCurrency,
    /// Why there is one beyond the first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The bill of one account for one month.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bill {
    /// `BillingAccountId`; empty while the bill does not exist.
    pub billing_account: String,
    /// The month.
    pub month: Option<BillingMonth>,
    /// Whether its lines stand.
    pub closed: bool,
    /// The segments that count, in the order they came.
    pub segments: Vec<Segment>,
    /// What their lines come to.
    pub sums: ByCurrency,
    /// What the invoice says, where it was given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub invoiced: BTreeMap<Currency, Amount>,
    /// What invoices say they come to, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invoices: Vec<InvoiceTotal>,
    /// Every version that was closed, the present one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
}

static VERBS: &[Verb] = &[
    Verb::admin("close", "Lets the month's lines stand, compared with the invoice's total."),
    Verb::system("import", "Takes lines in; sent by the server for each part of an imported file.")
        .creating(),
    Verb::system(
        "state-invoices",
        "Takes down what invoices come to; sent by the server for a file of them.",
    )
    .creating(),
];

impl Bill {
    /// The stream of an account's month.
    pub fn id(billing_account: &str, month: BillingMonth) -> Uuid {
        /// The namespace of such ids.
        const SPACE: Uuid = Uuid::from_u128(0x7a1c_53f0_6d0e_4b53_9b6a_0c1d_5a44_b111);
        Uuid::new_v5(&SPACE, format!("{month}/{billing_account}").as_bytes())
    }

    fn exists(&self) -> bool {
        self.month.is_some()
    }

    fn close(
        &self,
        invoiced: BTreeMap<Currency, Amount>,
        accept_difference: bool,
    ) -> Result<Vec<Event>, Refusal> {
        if !self.exists() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such bill"));
        }
        if self.closed {
            return Ok(vec![]);
        }
        let billed = |currency| self.sums.get(currency).map_or(Amount::ZERO, |sums| sums.billed);
        let differing = invoiced.iter().find(|(currency, total)| billed(currency) != **total);
        if let Some((currency, total)) = differing
            && !accept_difference
        {
            let lines = billed(currency);
            return Err(Refusal::new(
                &codes::BILL_DIFFERS,
                format!("the lines come to {lines} {currency}, the invoice says {total}"),
            ));
        }
        let reconciled = self.reconciled().unwrap_or_default();
        let mut differing = reconciled.iter().filter(|one| one.differs());
        if let Some(one) = differing.next()
            && !accept_difference
        {
            let Reconciled { invoice, issuer, currency, .. } = one;
            let lines = one.lines.unwrap_or(Amount::ZERO);
            let stated = one.stated.unwrap_or(Amount::ZERO);
            let more = match differing.count() {
                0 => String::new(),
                more => format!(", and {more} more differ"),
            };
            return Err(Refusal::new(
                &codes::BILL_DIFFERS,
                format!(
                    "invoice {invoice} of {issuer} says {stated} {currency}, its lines come to \
                     {lines}{more}"
                ),
            ));
        }
        Ok(vec![Event::Closed { version: 1, sums: self.sums.clone(), invoiced }])
    }

    fn import(
        &self,
        billing_account: String,
        month: BillingMonth,
        segment: Segment,
        manner: Manner,
        reason: String,
    ) -> Result<Vec<Event>, Refusal> {
        if segment.is_derived() && manner != Manner::Renew {
            let detail = format!("source: {} is not a file's name", segment.source);
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let (goes, counts): (Vec<&Segment>, Vec<&Segment>) =
            self.segments.iter().partition(|one| match manner {
                Manner::Add => false,
                Manner::Renew => one.source == segment.source,
                Manner::Replace => !one.is_derived(),
            });
        let known = |one: &Segment| one.digest == segment.digest;
        let stays = counts.iter().any(|one| known(one)) && goes.is_empty();
        if stays || (goes.len() == 1 && known(goes[0])) {
            // The same lines again.
            return Ok(vec![]);
        }
        if counts.len() >= SEGMENTS_MAX {
            let detail = format!("the bill has {SEGMENTS_MAX} parts; import the month as a whole");
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        if total(counts.iter().copied().chain([&segment])).is_none() {
            let detail = "the bill's lines come to more than an amount holds";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let replaces = goes.iter().map(|one| one.digest.clone()).collect();
        if self.closed {
            if reason.trim().is_empty() || reason.chars().count() > REASON_CHARS_MAX {
                let month = month.to_string();
                return Err(Refusal::new(
                    &codes::BILL_CLOSED,
                    format!("the bill of {billing_account} for {month} is closed"),
                ));
            }
            let version = self.versions.last().map_or(0, |last| last.version) + 1;
            return Ok(vec![Event::Restated { version, segment, replaces, reason }]);
        }
        let opened = Event::Opened { billing_account, month };
        let imported = Event::LinesImported { segment, replaces };
        Ok(if self.exists() { vec![imported] } else { vec![opened, imported] })
    }

    fn state_invoices(
        &self,
        billing_account: String,
        month: BillingMonth,
        mut invoices: Vec<InvoiceTotal>,
        about: (String, String, String),
    ) -> Result<Vec<Event>, Refusal> {
        invoices.sort_unstable();
        if invoices.windows(2).any(|pair| pair[0].key() == pair[1].key()) {
            let detail = "an invoice is stated twice";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        invoices.retain(|one| !self.invoices.contains(one));
        if invoices.is_empty() {
            return Ok(vec![]);
        }
        let further = |one: &&InvoiceTotal| !self.invoices.iter().any(|old| old.key() == one.key());
        if self.invoices.len() + invoices.iter().filter(further).count() > InvoiceTotal::MAX {
            let detail = format!("a bill has at most {} invoices", InvoiceTotal::MAX);
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let (source, source_digest, stated_by) = about;
        let stated = Event::InvoicesStated { invoices, source, source_digest, stated_by };
        let opened = Event::Opened { billing_account, month };
        Ok(if self.exists() { vec![stated] } else { vec![opened, stated] })
    }

    /// Each invoice that lines bear or that was stated, sorted. None when some of the lines do not
    /// say what their invoices are: then nothing can be compared.
    pub fn reconciled(&self) -> Option<Vec<Reconciled>> {
        type Sides = (Option<Amount>, Option<Amount>);
        let mut all: BTreeMap<(&str, &str, &Currency), Sides> = BTreeMap::new();
        for segment in &self.segments {
            for one in segment.invoices.as_ref()? {
                let (lines, _) = all.entry(one.key()).or_default();
                *lines = Some(lines.unwrap_or(Amount::ZERO).checked_add(one.billed)?);
            }
        }
        for one in &self.invoices {
            all.entry(one.key()).or_default().1 = Some(one.billed);
        }
        let reconciled =
            |((invoice, issuer, currency), (lines, stated)): ((&str, &str, &Currency), Sides)| {
                Reconciled {
                    invoice: invoice.to_owned(),
                    issuer: issuer.to_owned(),
                    currency: currency.clone(),
                    lines,
                    stated,
                }
            };
        Some(all.into_iter().map(reconciled).collect())
    }

    /// Who has sent lines or invoices of this bill, as far as they say.
    pub fn issuers(&self) -> std::collections::BTreeSet<&str> {
        let lines = self.segments.iter().flat_map(|one| one.invoices.iter().flatten());
        let issuers = lines.chain(&self.invoices).map(|one| &*one.issuer);
        issuers.filter(|issuer| !issuer.is_empty()).collect()
    }

    fn take(&mut self, segment: Segment, replaces: &[String]) {
        self.segments.retain(|one| !replaces.contains(&one.digest) && one.digest != segment.digest);
        self.segments.push(segment);
        // In range: the decision has added them up.
        self.sums = total(&self.segments).unwrap_or_default();
    }

    fn version(&self, version: u32, reason: String) -> Version {
        let segments = self.segments.iter().map(|one| one.digest.clone()).collect();
        Version { version, segments, sums: self.sums.clone(), reason }
    }
}

fn total<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Option<ByCurrency> {
    let mut all = ByCurrency::new();
    for (currency, sums) in segments.into_iter().flat_map(|segment| &segment.sums) {
        let sum = all.entry(currency.clone()).or_default();
        *sum = sum.checked_add(*sums)?;
    }
    Some(all)
}

impl Decider for Bill {
    const KIND: &'static str = "bill";
    const PLURAL: &'static str = "bills";
    const SUMMARY: &'static str = "What one account is billed for one month.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Close { invoiced, accept_difference } => {
                self.close(invoiced, accept_difference)
            }
            Command::Import { billing_account, month, segment, manner, reason } => {
                self.import(billing_account, month, segment, manner, reason)
            }
            Command::StateInvoices {
                billing_account,
                month,
                invoices,
                source,
                source_digest,
                stated_by,
            } => {
                let about = (source, source_digest, stated_by);
                self.state_invoices(billing_account, month, invoices, about)
            }
        }
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Closed { version, invoiced, .. } => {
                self.closed = true;
                self.invoiced = invoiced;
                let closed = self.version(version, String::new());
                self.versions.push(closed);
            }
            Event::InvoicesStated { invoices, .. } => {
                self.invoices.retain(|old| !invoices.iter().any(|new| new.key() == old.key()));
                self.invoices.extend(invoices);
                self.invoices.sort_unstable();
            }
            Event::LinesImported { segment, replaces } => self.take(segment, &replaces),
            Event::Opened { billing_account, month } => {
                self.billing_account = billing_account;
                self.month = Some(month);
            }
            Event::Restated { version, segment, replaces, reason } => {
                self.take(segment, &replaces);
                let restated = self.version(version, reason);
                self.versions.push(restated);
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.month, self.closed) {
            (None, _) => "absent",
            (_, true) => "closed",
            _ => "open",
        }
    }

    fn facets(&self) -> Facets {
        let month = self.month.map(|month| month.to_string()).unwrap_or_default();
        Facets {
            name: Some(format!("{month} {}", self.billing_account)),
            external_id: Some(self.billing_account.clone()),
            parent: Some(month),
            ..Facets::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn usd() -> Currency {
        Currency::try_from("USD".to_owned()).unwrap()
    }

    fn segment(digest: &str, billed: i128) -> Segment {
        let sums = Sums { billed: Amount(billed), ..Sums::default() };
        Segment {
            digest: digest.into(),
            lines: 1,
            sums: [(usd(), sums)].into(),
            source: "bill.csv".into(),
            source_digest: "00".into(),
            findings: BTreeMap::new(),
            quarantined: 0,
            imported_by: "token:test".into(),
            invoices: None,
        }
    }

    fn import(digest: &str, billed: i128, manner: Manner, reason: &str) -> Command {
        Command::Import {
            billing_account: "1".into(),
            month: "2026-10".to_owned().try_into().unwrap(),
            segment: segment(digest, billed),
            manner,
            reason: reason.into(),
        }
    }

    fn close(invoiced: Option<i128>, accept_difference: bool) -> Command {
        let invoiced = invoiced.into_iter().map(|total| (usd(), Amount(total))).collect();
        Command::Close { invoiced, accept_difference }
    }

    /// Sends commands one after the other; gives the bill, and what came of the last.
    fn after(commands: &[Command]) -> (Bill, Result<usize, &'static str>) {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let mut bill = Bill::default();
        let mut last = Ok(0);
        for command in commands {
            let decided = bill.decide(command.clone(), &stamp);
            last = decided.as_ref().map(Vec::len).map_err(|no| no.code.code);
            bill = decided.into_iter().flatten().fold(bill, Decider::evolve);
        }
        (bill, last)
    }

    fn billed(bill: &Bill) -> i128 {
        bill.sums.get(&usd()).map_or(0, |sums| sums.billed.0)
    }

    #[test]
    fn an_open_bill_takes_further_lines_or_all_of_them_anew_and_the_same_lines_once() {
        let add = |digest, sum| import(digest, sum, Manner::Add, "");
        let replace = |digest, sum| import(digest, sum, Manner::Replace, "");
        let (bill, last) = after(&[add("a", 5)]);
        assert_eq!((bill.status(), billed(&bill), last), ("open", 5, Ok(2)));
        let (bill, last) = after(&[add("a", 5), add("a", 5)]);
        assert_eq!((billed(&bill), last), (5, Ok(0)), "the same lines again");
        let (bill, _) = after(&[add("a", 5), add("b", 7)]);
        assert_eq!(billed(&bill), 12);
        let (bill, last) = after(&[add("a", 5), add("b", 7), replace("b", 7)]);
        assert_eq!((billed(&bill), bill.segments.len(), last), (7, 1, Ok(1)));
        let (_, last) = after(&[add("a", 5), replace("a", 5)]);
        assert_eq!(last, Ok(0));
    }

    #[test]
    fn a_closed_month_stays_as_it_was_and_gets_further_versions_with_a_reason() {
        let lines = import("a", 5, Manner::Add, "");
        let (_, last) =
            after(&[lines.clone(), close(None, false), import("b", 1, Manner::Add, " ")]);
        assert_eq!(last, Err("bill-closed"));
        let late = import("b", 1, Manner::Add, "late lines of the 31st");
        let (bill, last) = after(&[lines, close(None, false), late]);
        assert_eq!((bill.status(), billed(&bill), last), ("closed", 6, Ok(1)));
        let versions: Vec<_> = bill
            .versions
            .iter()
            .map(|one| (one.version, one.segments.len(), one.sums[&usd()].billed.0))
            .collect();
        assert_eq!(versions, [(1, 1, 5), (2, 2, 6)]);
        assert_eq!(bill.versions[1].reason, "late lines of the 31st");
    }

    #[test]
    fn a_bill_that_differs_from_its_invoice_is_not_closed_by_mistake() {
        let lines = import("a", 5, Manner::Add, "");
        let (_, last) = after(&[lines.clone(), close(Some(6), false)]);
        assert_eq!(last, Err("bill-differs"));
        for (total, accept) in [(5, false), (6, true)] {
            let (bill, last) = after(&[lines.clone(), close(Some(total), accept)]);
            assert_eq!((bill.status(), last), ("closed", Ok(1)));
            assert_eq!(bill.invoiced[&usd()], Amount(total));
        }
        assert_eq!(after(&[close(None, false)]).1, Err("not-found"));
    }

    fn invoice(number: &str, billed: i128) -> InvoiceTotal {
        let (invoice, issuer) = (number.to_owned(), "AWS".to_owned());
        InvoiceTotal { invoice, issuer, currency: usd(), billed: Amount(billed) }
    }

    fn state(invoices: &[InvoiceTotal]) -> Command {
        Command::StateInvoices {
            billing_account: "1".into(),
            month: "2026-10".to_owned().try_into().unwrap(),
            invoices: invoices.to_vec(),
            source: "invoices.csv".into(),
            source_digest: "01".into(),
            stated_by: "token:test".into(),
        }
    }

    /// Lines of two invoices, and one that no invoice has yet.
    fn invoiced(digest: &str, first: i128, second: i128) -> Command {
        let mut command = import(digest, first + second + 1, Manner::Add, "");
        if let Command::Import { segment, .. } = &mut command {
            let lines = [invoice("", 1), invoice("A", first), invoice("B", second)];
            segment.invoices = Some(lines.to_vec());
        }
        command
    }

    #[test]
    fn a_close_says_which_invoice_differs_from_its_lines() {
        let stated = state(&[invoice("B", 7), invoice("A", 5)]);
        let (bill, last) = after(&[stated.clone(), invoiced("a", 2, 4), invoiced("b", 3, 4)]);
        assert_eq!((bill.status(), last), ("open", Ok(1)));
        let refused = bill
            .decide(close(None, false), &Stamp { now: DateTime::UNIX_EPOCH, actor: "t".into() })
            .unwrap_err();
        assert_eq!(refused.code.code, "bill-differs");
        let (seven, eight) = (Amount(7), Amount(8));
        let detail = format!("invoice B of AWS says {seven} USD, its lines come to {eight}");
        assert_eq!(refused.detail, detail);
        let right = state(&[invoice("B", 8)]);
        let (bill, last) = after(&[
            stated.clone(),
            invoiced("a", 2, 4),
            invoiced("b", 3, 4),
            right,
            close(None, false),
        ]);
        assert_eq!((bill.status(), last), ("closed", Ok(1)));
        assert_eq!(bill.issuers(), ["AWS"].into());
        let (_, last) = after(&[stated.clone(), stated.clone()]);
        assert_eq!(last, Ok(0), "stated once");
        let (_, last) = after(&[invoiced("a", 5, 7), stated.clone(), close(None, false)]);
        assert_eq!(last, Ok(1));
        let unknown = import("a", 3, Manner::Add, "");
        let (_, last) = after(&[unknown, stated, close(None, false)]);
        assert_eq!(last, Ok(1), "lines that do not say their invoice are not compared");
        assert_eq!(after(&[state(&[invoice("A", 1), invoice("A", 2)])]).1, Err("invalid-field"));
    }

    #[test]
    fn what_is_worked_out_again_takes_the_place_of_what_its_source_had_before() {
        let run = |digest: &str, billed, source: &str, reason: &str| {
            let mut command = import(digest, billed, Manner::Renew, reason);
            if let Command::Import { segment, .. } = &mut command {
                segment.source = source.into();
            }
            command
        };
        let file = import("a", 5, Manner::Add, "");
        let first = [file.clone(), run("b", 1, "rating", ""), run("c", 10, "amortisation", "")];
        let (bill, last) = after(&first);
        assert_eq!((billed(&bill), last), (16, Ok(1)));
        let again = |command| after(&[first.as_slice(), &[command]].concat());
        let (bill, last) = again(run("b", 1, "rating", ""));
        assert_eq!((billed(&bill), last), (16, Ok(0)), "equal lines make no event");
        let (bill, last) = again(run("d", 2, "rating", ""));
        assert_eq!((billed(&bill), bill.segments.len(), last), (17, 3, Ok(1)));
        let (bill, _) = again(import("e", 100, Manner::Replace, ""));
        assert_eq!(billed(&bill), 111, "a file replaces files");
        let mut file_of_that_name = run("f", 1, "rating/pods", "");
        if let Command::Import { manner, .. } = &mut file_of_that_name {
            *manner = Manner::Add;
        }
        assert_eq!(again(file_of_that_name).1, Err("invalid-field"));
        let closed = [first.as_slice(), &[close(None, false)]].concat();
        let on_closed = |command| after(&[closed.as_slice(), &[command]].concat());
        assert_eq!(on_closed(run("b", 1, "rating", "")).1, Ok(0));
        assert_eq!(on_closed(run("d", 2, "rating", "")).1, Err("bill-closed"));
        let (bill, _) = on_closed(run("d", 2, "rating", "the rate was wrong"));
        assert_eq!((billed(&bill), bill.versions.len()), (17, 2));
    }

    #[test]
    fn a_sum_beyond_an_amount_is_refused() {
        let (bill, last) =
            after(&[import("a", i128::MAX, Manner::Add, ""), import("b", 1, Manner::Add, "")]);
        assert_eq!((billed(&bill), last), (i128::MAX, Err("invalid-field")));
    }
}
