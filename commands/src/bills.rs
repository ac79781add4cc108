//! Bills in, costs out.
//!
//! A file's lines lie in segments before any event names them: a crash in between leaves segments
//! that nothing counts, and the same file sent again makes the same ones. Then each part becomes
//! one command of its bill. What costs are asked of is the bills as they were at a position; the
//! segments that counted then are read, and nothing else.

use std::collections::BTreeMap;

use domain::{
    finops::{
        amount::{Amount, BillingMonth, Currency},
        bill::{Bill, ByCurrency, Manner, Segment},
        cost::{Table, TooLarge},
        issuer::Issuer,
        line::Line,
    },
    kernel::{Decider, Principal, Refusal, StreamId, codes, sha256},
    kinds,
    log::{Position, Record, hex},
};
use futures::channel::oneshot;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    ports::{BillFault, BillStore, CostQuery, Origins, Part, ReadBill, Repeats, ViewFault},
    submit::{Outcome, Submission, SubmitFault},
};

/// How often a part is compared anew because its bill has moved on meanwhile.
const TRIES: usize = 10;
/// Most commitments in one event: some 100 KB.
const COMMITMENTS_MAX: usize = 200;

/// Where a file's lines go, and who sent it.
#[derive(Clone, Debug)]
pub struct Import {
    /// The file, as its sender calls it.
    pub source: String,
    /// What becomes of lines that are there.
    pub manner: Manner,
    /// Why a closed month gets a further version.
    pub reason: String,
    /// Who sends it.
    pub by: Principal,
    /// What becomes of lines that are there already.
    pub repeats: OnRepeats,
}

/// What becomes of lines that the bill has from another file already, word for word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRepeats {
    /// The file is refused, for nobody but its sender knows what they are.
    #[default]
    Refuse,
    /// They are left out: the file repeats what came before.
    Skip,
    /// They count: they only look the same.
    Count,
}

impl OnRepeats {
    /// Of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "refuse" => Some(Self::Refuse),
            "skip" => Some(Self::Skip),
            "count" => Some(Self::Count),
            _ => None,
        }
    }
}

/// What came of a file.
#[derive(Clone, Debug, Default)]
pub struct Booked {
    /// One for each part, then one for each statement.
    pub outcomes: Vec<Outcome>,
    /// The parts as they were booked.
    pub parts: Vec<Part>,
    /// Of each part, the lines that were there already.
    pub repeats: Vec<Repeats>,
}

/// A bill whose lines may be counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The bill's id.
    pub id: Uuid,
    /// The bill, as it was.
    pub bill: Bill,
}

/// The bills of some months, as they were at a position.
#[derive(Clone, Debug)]
pub struct Counting {
    /// In the order of their ids.
    pub bills: Vec<Counted>,
    /// When.
    pub position: Position,
}

impl Counting {
    /// Names what is counted: the same digest, the same numbers.
    pub fn digest(&self) -> String {
        let mut digests: Vec<_> = self.segments().map(|(_, one)| one.digest.as_str()).collect();
        digests.sort_unstable();
        hex(&sha256(digests.join("\n").as_bytes()))
    }

    /// Every segment that counts, with its bill.
    pub fn segments(&self) -> impl Iterator<Item = (&Counted, &Segment)> {
        self.bills.iter().flat_map(|one| one.bill.segments.iter().map(move |part| (one, part)))
    }
}

/// What of a segment is in a number.
#[derive(Clone, Debug)]
pub struct Contribution {
    /// The bill.
    pub bill: Uuid,
    /// The bill's closed version; 0 while it is open.
    pub version: u32,
    /// The segment.
    pub segment: Segment,
    /// How many of its lines.
    pub lines: u64,
    /// What these come to, by currency.
    pub sums: BTreeMap<Currency, Amount>,
}

/// A number's origin.
#[derive(Clone, Debug, Default)]
pub struct Explained {
    /// What it comes to, by currency.
    pub totals: BTreeMap<Currency, Amount>,
    /// Segment by segment; those that have nothing of it are left out.
    pub parts: Vec<Contribution>,
    /// The largest lines by magnitude, with their segments' digests.
    pub lines: Vec<(String, Line)>,
}

/// Sums the lines that are asked for. Blocks the thread.
pub fn costs(
    store: &dyn BillStore,
    counting: &Counting,
    asked: &CostQuery,
) -> Result<Table, BillFault> {
    let segments: Vec<&Segment> = counting.segments().map(|(_, segment)| segment).collect();
    store.sums(&segments, asked)
}

/// Where a number comes from, with at most so many of its lines. Blocks the thread.
pub fn explain(
    store: &dyn BillStore,
    counting: &Counting,
    asked: &CostQuery,
    most: usize,
) -> Result<Explained, BillFault> {
    let segments: Vec<&Segment> = counting.segments().map(|(_, segment)| segment).collect();
    let asked = CostQuery { groups: vec![], ..asked.clone() };
    let origins = store.origins(&segments, &asked, &|_| true, most)?;
    Ok(explained(counting, origins)?)
}

/// The same for the segments of these bills, in their order.
pub(crate) fn explained(counting: &Counting, origins: Origins) -> Result<Explained, TooLarge> {
    let mut explained = Explained::default();
    for ((counted, segment), (lines, sums)) in counting.segments().zip(origins.parts) {
        if lines == 0 {
            continue;
        }
        for (currency, sum) in &sums {
            let total = explained.totals.entry(currency.clone()).or_default();
            *total = total.checked_add(*sum).ok_or(TooLarge)?;
        }
        explained.parts.push(Contribution {
            bill: counted.id,
            version: counted.bill.versions.last().map_or(0, |version| version.version),
            segment: segment.clone(),
            lines,
            sums,
        });
    }
    let digests: Vec<&str> = counting.segments().map(|(_, one)| one.digest.as_str()).collect();
    let lines = origins.lines.into_iter();
    explained.lines = lines.map(|found| (digests[found.segment].to_owned(), found.line)).collect();
    Ok(explained)
}

/// The command that books a part of a file.
pub(crate) fn booking(
    read: &ReadBill,
    part: &Part,
    import: &Import,
) -> Result<Submission, SubmitFault> {
    let findings = read.findings.iter().map(|(code, (lines, _))| (code.clone(), *lines));
    let segment = Segment {
        digest: part.digest.clone(),
        lines: part.lines,
        sums: part.sums.clone(),
        source: import.source.clone(),
        source_digest: read.source_digest.clone(),
        findings: findings.collect(),
        quarantined: read.quarantined,
        imported_by: import.by.name.clone(),
        invoices: part.invoices.clone(),
    };
    let body = json!({
        "billing_account": part.billing_account,
        "month": part.month,
        "segment": segment,
        "manner": import.manner,
        "reason": import.reason,
    });
    let kind =
        kinds::by_name(Bill::KIND).ok_or_else(|| LoadFault::Missing("the kind bill".to_owned()))?;
    let id = Bill::id(&part.billing_account, part.month);
    Ok(Submission::new(Principal::system("bills"), kind, id, "import", body))
}

/// The commands that take down what a file of statements says.
fn stating(read: &ReadBill, import: &Import) -> Result<Vec<Submission>, SubmitFault> {
    let kind = |name: &str| {
        kinds::by_name(name).ok_or_else(|| LoadFault::Missing(format!("the kind {name}")))
    };
    let submission = |kind, id, verb, mut body: Value| {
        body["source"] = json!(import.source);
        body["source_digest"] = json!(read.source_digest);
        body["stated_by"] = json!(import.by.name);
        Submission::new(Principal::system("bills"), kind, id, verb, body)
    };
    let mut all = Vec::new();
    for ((account, month), invoices) in &read.invoices {
        let body = json!({"billing_account": account, "month": month, "invoices": invoices});
        let id = Bill::id(account, *month);
        all.push(submission(kind(Bill::KIND)?, id, "state-invoices", body));
    }
    for (name, statement) in &read.issuers {
        let mut state = |part: Value| -> Result<(), SubmitFault> {
            let mut body = part;
            body["name"] = json!(name);
            all.push(submission(kind(Issuer::KIND)?, Issuer::id(name), "state", body));
            Ok(())
        };
        for commitments in statement.commitments.chunks(COMMITMENTS_MAX) {
            state(json!({"commitments": commitments}))?;
        }
        if !statement.periods.is_empty() {
            state(json!({"periods": statement.periods}))?;
        }
    }
    Ok(all)
}

/// Does what blocks on a thread of its own.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BillFault> + Send + 'static,
) -> Result<T, BillFault> {
    let (done, waiting) = oneshot::channel();
    std::thread::spawn(move || done.send(work()));
    let gone = |_| Err(BillFault::Unavailable("the thread that reads lines has died".to_owned()));
    waiting.await.unwrap_or_else(gone)
}

impl Ledger {
    /// Books what was read of a file: one command for each account and month, then what issuers
    /// state. The same file has no second effect. Of several bills those before the first that is
    /// refused are booked.
    pub async fn book(&self, read: &ReadBill, import: &Import) -> Result<Booked, SubmitFault> {
        // Closed months and reach are refused before anything is booked.
        import.by.authorise(domain::kernel::Role::Admin, None)?;
        let mut booked = Booked::default();
        for part in &read.parts {
            let (part, _, _) = self.further(part, import).await?;
            self.plan(&booking(read, &part, import)?).await?;
        }
        let statements = stating(read, import)?;
        for submission in &statements {
            self.plan(submission).await?;
        }
        for whole in &read.parts {
            let (part, repeats, outcome) = self.book_part(read, whole, import).await?;
            booked.parts.push(part);
            booked.repeats.push(repeats);
            booked.outcomes.push(outcome);
        }
        for submission in statements {
            booked.outcomes.push(self.submit(submission).await?);
        }
        Ok(booked)
    }

    /// Books a part on the very bill whose lines it was compared with.
    async fn book_part(
        &self,
        read: &ReadBill,
        whole: &Part,
        import: &Import,
    ) -> Result<(Part, Repeats, Outcome), SubmitFault> {
        let mut tries = 0;
        loop {
            let (part, repeats, revision) = self.further(whole, import).await?;
            let mut submission = booking(read, &part, import)?;
            submission.if_match = Some(revision);
            tries += 1;
            match self.submit(submission).await {
                Ok(outcome) => return Ok((part, repeats, outcome)),
                // Somebody else has booked meanwhile.
                Err(SubmitFault::Precondition { .. }) if tries < TRIES => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// What of a part is to be booked, which of its lines the bill has already, and the revision of
    /// the bill that says so.
    async fn further(
        &self,
        part: &Part,
        import: &Import,
    ) -> Result<(Part, Repeats, u64), SubmitFault> {
        let missing = || LoadFault::Missing("the kind bill".to_owned());
        let kind = kinds::by_name(Bill::KIND).ok_or_else(missing)?;
        let id = Bill::id(&part.billing_account, part.month);
        let loaded = self.load(kind, &id.to_string()).await?;
        let bill: Bill = serde_json::from_slice(&loaded.state.json()).map_err(|source| {
            LoadFault::Record { position: 0, event_type: Bill::KIND.to_owned(), source }
        })?;
        let stays = |one: &&Segment| match import.manner {
            Manner::Add => true,
            Manner::Renew => one.source != import.source,
            Manner::Replace => false,
        };
        let others: Vec<String> =
            bill.segments.iter().filter(stays).map(|one| one.digest.clone()).collect();
        let whole = (part.clone(), Repeats::default(), loaded.revision);
        // The same part again is no news, and says so by itself.
        if others.is_empty() || others.contains(&part.digest) {
            return Ok(whole);
        }
        let (store, digest) = (self.ports.bills.clone(), part.digest.clone());
        let skip = import.repeats == OnRepeats::Skip;
        let compared = apart(move || {
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            let repeats = store.repeats(&digest, &others)?;
            let rest = match repeats.lines {
                0 => None,
                _ if skip => Some(store.rest(&digest, &others)?),
                _ => None,
            };
            let empty = if rest == Some(None) { store.empty()? } else { String::new() };
            Ok::<_, BillFault>((repeats, rest, empty))
        });
        let (repeats, rest, empty) = compared.await?;
        if repeats.lines > 0 && import.repeats == OnRepeats::Refuse {
            let (account, month) = (&part.billing_account, part.month);
            let first = repeats.shown.first().copied().unwrap_or_default();
            let (lines, all) = (repeats.lines, part.lines);
            let detail = format!(
                "{lines} of the {all} lines for {account} in {month} are there already, the first \
                 is line {first}"
            );
            return Err(Refusal::new(&codes::BILL_REPEATS, detail).into());
        }
        let part = match rest {
            None => whole.0,
            Some(Some(rest)) => rest,
            Some(None) => {
                let (sums, invoices) = (ByCurrency::new(), Some(Vec::new()));
                Part { digest: empty, lines: 0, sums, invoices, ..whole.0 }
            }
        };
        Ok((part, repeats, whole.2))
    }

    /// The bills of these months, both included, as they were at a position.
    pub async fn bills(
        &self,
        from: BillingMonth,
        to: BillingMonth,
        at: Option<Position>,
    ) -> Result<Counting, ViewFault> {
        let (states, position) = self.states::<Bill>(at).await?;
        let asked = |bill: &Bill| bill.month.is_some_and(|month| (from..=to).contains(&month));
        let bills = states.into_iter().filter(|(_, bill)| asked(bill));
        let bills = bills.map(|(id, bill)| Counted { id, bill }).collect();
        Ok(Counting { bills, position })
    }

    /// The record that brought a segment into a bill.
    pub async fn import_of(&self, bill: Uuid, digest: &str) -> Result<Option<Record>, LoadFault> {
        let stream = StreamId::new(Bill::KIND, bill.to_string());
        let mut after = 0;
        loop {
            let records = self.ports.log.stream(&stream, after, 1_000).await?;
            let Some(last) = records.last() else { return Ok(None) };
            after = last.revision();
            let brought = records.into_iter().find(|record| {
                let data: Value = serde_json::from_slice(record.data()).unwrap_or_default();
                data["segment"]["digest"] == *digest
            });
            if brought.is_some() {
                return Ok(brought);
            }
        }
    }
}
