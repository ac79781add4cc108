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
        bill::{Bill, Manner, Segment},
        cost::{Table, TooLarge},
        issuer::Issuer,
        line::Line,
    },
    kernel::{Decider, Principal, StreamId, sha256},
    kinds,
    log::{Position, Record, hex},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    ports::{BillFault, BillStore, CostQuery, Part, ReadBill, ViewFault},
    submit::{Outcome, Submission, SubmitFault},
};

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

fn add(
    sums: &mut BTreeMap<Currency, Amount>,
    currency: &Currency,
    amount: Amount,
) -> Result<(), TooLarge> {
    match sums.get_mut(currency) {
        Some(sum) => *sum = sum.checked_add(amount).ok_or(TooLarge)?,
        None => {
            sums.insert(currency.clone(), amount);
        }
    }
    Ok(())
}

/// Where a number comes from, with at most so many of its lines. Blocks the thread.
pub fn explain(
    store: &dyn BillStore,
    counting: &Counting,
    asked: &CostQuery,
    most: usize,
) -> Result<Explained, BillFault> {
    let mut explained = Explained::default();
    let magnitude = |line: &Line| asked.basis.of(line).0.unsigned_abs();
    for (counted, segment) in counting.segments() {
        let (mut lines, mut sums) = (0, BTreeMap::new());
        for line in store.lines(&segment.digest)? {
            let line = line?;
            if !asked.wants(&line) {
                continue;
            }
            lines += 1;
            add(&mut sums, &line.currency, asked.basis.of(&line))?;
            explained.lines.push((segment.digest.clone(), line));
            // Twice as many are kept as are shown, so that sorting is rare.
            if explained.lines.len() >= 2 * most.max(1) {
                explained.lines.sort_by_key(|(_, line)| std::cmp::Reverse(magnitude(line)));
                explained.lines.truncate(most);
            }
        }
        if lines == 0 {
            continue;
        }
        for (currency, sum) in &sums {
            add(&mut explained.totals, currency, *sum)?;
        }
        explained.parts.push(Contribution {
            bill: counted.id,
            version: counted.bill.versions.last().map_or(0, |version| version.version),
            segment: segment.clone(),
            lines,
            sums,
        });
    }
    explained.lines.sort_by_key(|(_, line)| std::cmp::Reverse(magnitude(line)));
    explained.lines.truncate(most);
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

impl Ledger {
    /// Books what was read of a file: one command for each account and month, then what issuers
    /// state. The same file has no second effect. Of several bills those before the first that is
    /// refused are booked.
    pub async fn book(
        &self,
        read: &ReadBill,
        import: &Import,
    ) -> Result<Vec<Outcome>, SubmitFault> {
        // Closed months and reach are refused before anything is booked.
        import.by.authorise(domain::kernel::Role::Admin, None)?;
        let mut submissions = Vec::with_capacity(read.parts.len());
        for part in &read.parts {
            submissions.push(booking(read, part, import)?);
        }
        submissions.extend(stating(read, import)?);
        for submission in &submissions {
            self.plan(submission).await?;
        }
        let mut outcomes = Vec::with_capacity(submissions.len());
        for submission in submissions {
            outcomes.push(self.submit(submission).await?);
        }
        Ok(outcomes)
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
