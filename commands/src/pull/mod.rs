//! Takes in the bills that lie in object storage.
//!
//! A pull is an order of a bill source. It lists what lies there, leaves alone what was taken in as
//! it is, and books each other delivery by the same commands as an imported file; then it says which
//! files those were. A death in between leaves a delivery booked of which nothing says so: the next
//! pull reads it again, and what is booked again is no news. Lines of a delivery take the place of
//! those that it had before. Of several files of one delivery nothing is booked before all are read.

mod deliveries;

use std::io::{self, Read};

use domain::{
    finops::{
        bill::{ByCurrency, Manner},
        bill_source::{
            self, BillSource, DELIVERIES_MAX, FILES_MAX, File, Order, Repeated, Sum, Taken,
        },
    },
    kernel::{Decider, Principal, canonical_bytes, codes, sha256},
    kinds,
    log::hex,
};
use futures::{SinkExt, StreamExt, channel::mpsc, future::join};
use serde_json::{Value, json};
use uuid::Uuid;

use self::deliveries::{Delivery, Listed};
use crate::{
    bills::{Counting, Import, OnRepeats, apart},
    derive::RunFault,
    ledger::{Ledger, LoadFault, source_context},
    pace::AccountPace,
    ports::{
        Access, BillFault, Bucket, DriverFault, Files, Part, Provider, ReadBill, Reading, Report,
        ViewFault,
    },
    submit::{Submission, SubmitFault},
};

pub use deliveries::ENDINGS;

/// Most files of a place: a listing of them takes S3 a hundred calls.
const LISTED_MAX: usize = 100_000;
/// Largest manifest: some ten thousand files.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Pieces of a file that wait to be read.
const PIECES: usize = 8;
/// Most deliveries of one pull that are told to have been refused; the others are tried again.
const REFUSED_MAX: usize = 200;
/// Longest reason of one of them, in characters.
const REASON_CHARS_MAX: usize = 1_000;

/// Steps of a pull, in their order: where a test lets a server die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A delivery is booked; nothing says that it was taken in.
    Booked,
    /// What was taken in is in the log.
    Taken,
}

/// Why a pull has no report.
pub(crate) enum PullFault {
    /// The server died.
    Died,
    /// The account cannot be used now.
    NotReady,
    /// The store cannot be reached, or what is here to keep lines.
    Driver(DriverFault),
    /// The log or a secret cannot be read.
    Load(LoadFault),
}

impl From<DriverFault> for PullFault {
    fn from(fault: DriverFault) -> Self {
        Self::Driver(fault)
    }
}

impl From<LoadFault> for PullFault {
    fn from(fault: LoadFault) -> Self {
        Self::Load(fault)
    }
}

/// Why a delivery is not taken in.
enum Flaw {
    /// It stays so until somebody does something about it.
    Refused(String, String),
    /// The pull cannot go on.
    Fault(PullFault),
}

impl From<BillFault> for Flaw {
    fn from(fault: BillFault) -> Self {
        match fault {
            BillFault::Refused(why) => Self::Refused("bill-unreadable".into(), why),
            BillFault::TooLarge(why) => Self::Refused("bill-unreadable".into(), why.to_string()),
            fault => Self::Fault(DriverFault::Transient(fault.to_string()).into()),
        }
    }
}

impl From<SubmitFault> for Flaw {
    fn from(fault: SubmitFault) -> Self {
        match fault {
            SubmitFault::Refused(no) => Self::Refused(no.code.code.to_owned(), no.detail),
            SubmitFault::Bill(fault) => fault.into(),
            SubmitFault::Load(fault) => Self::Fault(fault.into()),
            fault => Self::Fault(DriverFault::Transient(fault.to_string()).into()),
        }
    }
}

fn flaw(fault: RunFault) -> Flaw {
    match fault {
        RunFault::Submit(fault) => fault.into(),
        RunFault::Bills(fault) => fault.into(),
        RunFault::Views(fault) => Flaw::Fault(DriverFault::Transient(fault.to_string()).into()),
    }
}

/// The pieces of a file, for a thread that may block.
struct Incoming {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    read: usize,
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            match futures::executor::block_on(self.pieces.next()) {
                Some(piece) => (self.piece, self.read) = (piece?, 0),
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.piece.len() - self.read);
        into[..length].copy_from_slice(&self.piece[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}

impl Ledger {
    /// Orders every pull that a schedule asks for now. A source that cannot be pulled does not hold
    /// up the others.
    pub async fn order_due_pulls(&self) -> Result<(), ViewFault> {
        let Some(kind) = kinds::by_name(BillSource::KIND) else { return Ok(()) };
        let now = self.now();
        for (id, source) in self.states::<BillSource>(None).await?.0 {
            let Some(due) = source.due(now) else { continue };
            let body = json!({"due": due});
            let who = Ledger::system("schedule");
            match self.submit(Submission::new(who, kind, id, "pull", body)).await {
                // Somebody else was first, or it was paused meanwhile.
                Ok(_) | Err(SubmitFault::Refused(_)) => {}
                Err(fault) => tracing::warn!(source = %id, %fault, "a pull could not be ordered"),
            }
        }
        Ok(())
    }
}

/// One pull.
struct Pull<'a> {
    ledger: &'a Ledger,
    id: Uuid,
    number: u64,
    source: &'a BillSource,
    reason: &'a str,
    store: &'a dyn Files,
    access: Access,
    bucket: Bucket,
}

fn failed(number: u64, code: &str, reason: String) -> Report {
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    Report { verb: "fail-pull", body: json!({"number": number, "code": code, "reason": reason}) }
}

/// A report of what will not go away by itself; the fault again when it may.
fn report_of(number: u64, fault: DriverFault) -> Result<Report, PullFault> {
    let code = match &fault {
        DriverFault::Denied(_) => "denied",
        DriverFault::NotFound(_) => "not-found",
        DriverFault::Rejected(_) => "rejected",
        _ => return Err(fault.into()),
    };
    Ok(failed(number, code, fault.to_string()))
}

/// Carries out the pull that is out of a source, and says what to report.
pub(crate) async fn pull(
    ledger: &Ledger,
    id: Uuid,
    dies: &(dyn Fn(Step) -> bool + Send + Sync),
) -> Result<Report, PullFault> {
    let kind = kinds::by_name(BillSource::KIND)
        .ok_or_else(|| LoadFault::Missing("the kind bill-source".to_owned()))?;
    let loaded = ledger.load(kind, &id.to_string()).await?;
    let source: BillSource = serde_json::from_slice(&loaded.state.json()).map_err(|source| {
        LoadFault::Record { position: 0, event_type: BillSource::KIND.to_owned(), source }
    })?;
    let Some(out) = Decider::order(&source) else { return Err(PullFault::NotReady) };
    let Order::Pull { reason, scheduled } = &out.order;
    let number = out.number;
    let (provider, access) = access(ledger, id, &source).await?;
    let Some(store) = provider.files() else {
        let what = format!("{} has no object storage that is read here", provider.name());
        return Ok(failed(number, "unsupported", what));
    };
    let place = &source.place;
    let bucket = Bucket {
        name: place.bucket.clone(),
        region: place.region.clone(),
        endpoint: place.endpoint.clone().or_else(|| access.endpoint.clone()),
    };
    let pull = Pull { ledger, id, number, source: &source, reason, store, access, bucket };
    match pull.run(*scheduled, dies).await {
        Ok(report) => Ok(report),
        Err(PullFault::Driver(fault)) => report_of(number, fault),
        Err(fault) => Err(fault),
    }
}

/// What reads the place: the account's credential, or the source's own.
async fn access(
    ledger: &Ledger,
    id: Uuid,
    source: &BillSource,
) -> Result<(std::sync::Arc<dyn Provider>, Access), PullFault> {
    if let Some(account_id) = source.place.account {
        let account = ledger.account(account_id).await?.ok_or(PullFault::NotReady)?;
        if !account.is_ready() {
            return Err(PullFault::NotReady);
        }
        return Ok(ledger.access(account_id, &account, None)?);
    }
    let provider = ledger
        .provider(OWN_PROVIDER)
        .ok_or_else(|| LoadFault::Missing(format!("this program has no {OWN_PROVIDER}")))?;
    let sealed = source.credential.as_deref().unwrap_or_default();
    let secret = ledger.ports.vault.open(sealed, &source_context(id)).map_err(LoadFault::from)?;
    let credential: Value = serde_json::from_slice(&secret)
        .map_err(|_| LoadFault::Missing("the credential does not read".to_owned()))?;
    let pace = std::sync::Arc::new(AccountPace { paces: ledger.paces.clone(), account: id });
    let endpoint = source.place.endpoint.clone();
    let access = Access { account: id, endpoint, credential, identity: None, pace };
    Ok((provider.clone(), access))
}

/// The provider whose shape a source's own credential has.
pub(crate) const OWN_PROVIDER: &str = "aws";

impl Pull<'_> {
    async fn run(
        &self,
        scheduled: bool,
        dies: &(dyn Fn(Step) -> bool + Send + Sync),
    ) -> Result<Report, PullFault> {
        let Some(listed) = self.list().await? else {
            let what = format!("{} has more than {LISTED_MAX} files", self.source.place.url());
            return Ok(failed(self.number, "too-many-files", what));
        };
        let mut manifests = std::collections::BTreeMap::new();
        for (month, manifest) in deliveries::manifests(&listed) {
            let named = match self.manifest(&manifest).await? {
                Some(bytes) => deliveries::named(&bytes, &self.bucket.name),
                None => Err(format!("it has more than {MANIFEST_BYTES_MAX} bytes")),
            };
            manifests.insert(month, (manifest, named));
        }
        let deliveries = deliveries::deliveries(&self.source.place.base(), &listed, &manifests);
        let new = |one: &&Delivery| !self.source.deliveries.contains_key(&one.name);
        if self.source.deliveries.len() + deliveries.iter().filter(new).count() > DELIVERIES_MAX {
            let what = format!(
                "{} has more than {DELIVERIES_MAX} deliveries: define a source for each of several \
                 prefixes",
                self.source.place.url()
            );
            return Ok(failed(self.number, "too-many-files", what));
        }
        let bills = listed.iter().filter(|(file, _)| deliveries::is_bill(&file.key)).count();
        let mut sum = Sum { listed: bills as u64, ..Sum::default() };
        for delivery in &deliveries {
            let fingerprint = bill_source::fingerprint(&delivery.all());
            if self.source.has(&delivery.name, &fingerprint) {
                sum.unchanged += 1;
                continue;
            }
            // What a person has to look at is not read again and again until it changes.
            let before = self.source.refused(&delivery.name, &fingerprint);
            let refused = match before.filter(|_| scheduled) {
                Some(before) => before.clone(),
                None => match self.take(delivery, dies).await {
                    Ok(()) => {
                        sum.taken += 1;
                        continue;
                    }
                    Err(Flaw::Fault(fault)) => return Err(fault),
                    Err(Flaw::Refused(code, reason)) => bill_source::Refused {
                        delivery: delivery.name.clone(),
                        fingerprint,
                        code,
                        reason: reason.chars().take(REASON_CHARS_MAX).collect(),
                    },
                },
            };
            if sum.refused.len() < REFUSED_MAX {
                sum.refused.push(refused);
            }
        }
        let body = json!({"number": self.number, "sum": sum});
        Ok(Report { verb: "finish-pull", body })
    }

    /// Everything that lies there; none when it is too much.
    async fn list(&self) -> Result<Option<Vec<Listed>>, PullFault> {
        let (mut listed, mut page) = (Vec::new(), None);
        loop {
            let prefix = &self.source.place.prefix;
            let got = self.store.list(&self.access, &self.bucket, prefix, page.as_deref()).await?;
            listed.extend(got.files);
            if listed.len() > LISTED_MAX {
                return Ok(None);
            }
            match got.next {
                Some(next) => page = Some(next),
                None => return Ok(Some(listed)),
            }
        }
    }

    /// A small file as a whole; none when it is none.
    async fn manifest(&self, file: &File) -> Result<Option<Vec<u8>>, PullFault> {
        let mut pieces = self.store.open(&self.access, &self.bucket, file).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend(piece?);
            if bytes.len() > MANIFEST_BYTES_MAX {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }

    async fn take(
        &self,
        delivery: &Delivery,
        dies: &(dyn Fn(Step) -> bool + Send + Sync),
    ) -> Result<(), Flaw> {
        if let Some((code, why)) = &delivery.flaw {
            return Err(Flaw::Refused((*code).to_owned(), why.clone()));
        }
        let files = delivery.all();
        if files.len() > FILES_MAX {
            let what = format!("it has more than {FILES_MAX} files");
            return Err(Flaw::Refused("too-many-files".into(), what));
        }
        let mut read = self.read(delivery).await?;
        let counting = self.all_bills().await?;
        if self.source.place.repeats != Repeated::Skip {
            nobody_else_s(delivery, &read, &counting)?;
        }
        self.nothing_left(delivery, &mut read, &counting).await?;
        let import = Import {
            source: delivery.name.clone(),
            manner: Manner::Renew,
            reason: self.reason.to_owned(),
            by: Principal::system("pull"),
            repeats: match self.source.place.repeats {
                Repeated::Refuse => OnRepeats::Refuse,
                Repeated::Skip => OnRepeats::Skip,
                Repeated::Count => OnRepeats::Count,
            },
        };
        let booked = self.ledger.book(&read, &import).await?;
        if dies(Step::Booked) {
            return Err(Flaw::Fault(PullFault::Died));
        }
        self.create_projects(delivery, &read, &import.by).await?;
        let bills = booked.parts.iter().map(|part| bill_source::Booked {
            billing_account: part.billing_account.clone(),
            month: part.month,
            segment: part.digest.clone(),
            lines: part.lines,
        });
        let taken = Taken {
            delivery: delivery.name.clone(),
            files,
            source_digest: read.source_digest.clone(),
            bills: bills.collect(),
            quarantined: read.quarantined,
        };
        let kind = kinds::by_name(BillSource::KIND)
            .ok_or_else(|| Flaw::Fault(LoadFault::Missing("the kind".to_owned()).into()))?;
        let body = json!({"number": self.number, "taken": taken});
        let system = Principal::system("pull");
        self.ledger.submit(Submission::new(system, kind, self.id, "take", body)).await?;
        if dies(Step::Taken) {
            return Err(Flaw::Fault(PullFault::Died));
        }
        Ok(())
    }

    /// Creates the projects that rules create for what was booked. What they refuse does not unbook
    /// it: whoever asks for allocations is told.
    async fn create_projects(
        &self,
        delivery: &Delivery,
        read: &ReadBill,
        by: &Principal,
    ) -> Result<(), Flaw> {
        let created = self.ledger.create_after_booking(read, by).await;
        match created.map_err(flaw) {
            Err(Flaw::Refused(code, why)) => {
                let delivery = &delivery.name;
                tracing::warn!(source = %self.id, delivery, code, why, "no projects are created");
                Ok(())
            }
            Err(fault) => Err(fault),
            Ok(_) => Ok(()),
        }
    }

    /// Reads every file of a delivery: its lines lie in one segment for each bill.
    async fn read(&self, delivery: &Delivery) -> Result<ReadBill, Flaw> {
        let mut all = Vec::with_capacity(delivery.files.len());
        for file in &delivery.files {
            let read = self.read_one(file).await.map_err(|fault| Flaw::Fault(fault.into()))?;
            all.push(read.map_err(|fault| match fault {
                BillFault::Refused(why) => {
                    Flaw::Refused("bill-unreadable".into(), format!("{}: {why}", file.key))
                }
                fault => fault.into(),
            })?);
        }
        if all.len() == 1
            && let Some(one) = all.pop()
        {
            return Ok(one);
        }
        let store = self.ledger.ports.bills.clone();
        Ok(apart(move || together(store.as_ref(), all)).await?)
    }

    /// Reads a file as it comes. What is wrong with the way to it is told before what is wrong with
    /// the file: a file that breaks off is not a bad one.
    async fn read_one(&self, file: &File) -> Result<Result<ReadBill, BillFault>, DriverFault> {
        let mut body = self.store.open(&self.access, &self.bucket, file).await?;
        let (mut sender, pieces) = mpsc::channel(PIECES);
        let store = self.ledger.ports.bills.clone();
        let place = &self.source.place;
        let how = Reading { mapping: place.mapping.clone(), strict: place.strict };
        let reading = apart(move || {
            let mut incoming = Incoming { pieces, piece: Vec::new(), read: 0 };
            store.read(&mut incoming, &how)
        });
        let pumping = async move {
            while let Some(piece) = body.next().await {
                match piece {
                    Ok(piece) => {
                        // Whoever reads has refused the file: the rest of it is not wanted.
                        if sender.send(Ok(piece)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Err(fault) => {
                        let broken = io::Error::other(fault.to_string());
                        let _ = sender.send(Err(broken)).await;
                        return Err(fault);
                    }
                }
            }
            Ok(())
        };
        let (read, pumped) = join(reading, pumping).await;
        pumped.map(|()| read)
    }

    /// All bills, as they stand in the log now.
    async fn all_bills(&self) -> Result<Counting, Flaw> {
        self.ledger.views_caught_up().await.map_err(flaw)?;
        let unseen =
            |fault: ViewFault| Flaw::Fault(DriverFault::Transient(fault.to_string()).into());
        self.ledger.all_bills(None).await.map_err(unseen)
    }

    /// Where a delivery has lines of before in a bill and none now, nothing takes their place.
    async fn nothing_left(
        &self,
        delivery: &Delivery,
        read: &mut ReadBill,
        counting: &Counting,
    ) -> Result<(), Flaw> {
        let store = self.ledger.ports.bills.clone();
        let had = counting
            .segments()
            .filter(|(_, segment)| segment.source == delivery.name && segment.lines > 0);
        for (counted, _) in had {
            let Some(month) = counted.bill.month else { continue };
            let account = &counted.bill.billing_account;
            let again = |part: &Part| part.billing_account == *account && part.month == month;
            if read.parts.iter().any(again) {
                continue;
            }
            let store = store.clone();
            read.parts.push(Part {
                billing_account: account.clone(),
                month,
                digest: apart(move || store.empty()).await?,
                lines: 0,
                sums: ByCurrency::new(),
                invoices: Some(Vec::new()),
            });
        }
        read.parts
            .sort_by(|a, b| (&a.billing_account, a.month).cmp(&(&b.billing_account, b.month)));
        Ok(())
    }
}

/// The very lines of another delivery, or of a file that somebody has sent, would count as that
/// one's: what becomes of them when one of both changes, nobody could tell.
fn nobody_else_s(delivery: &Delivery, read: &ReadBill, counting: &Counting) -> Result<(), Flaw> {
    let same = |part: &Part| {
        let others = counting.segments().map(|(_, segment)| segment);
        let mut others = others.filter(|one| one.source != delivery.name && one.lines > 0);
        others.find(|one| one.digest == part.digest)
    };
    let Some(other) = read.parts.iter().find_map(same) else { return Ok(()) };
    let why = format!("all of its lines are there already, from {}", other.source);
    Err(Flaw::Refused(codes::BILL_REPEATS.code.to_owned(), why))
}

/// What several files of one delivery come to: the lines of a bill in one segment, numbered through
/// in the order of the files. Blocks the thread.
fn together(
    store: &dyn crate::ports::BillStore,
    all: Vec<ReadBill>,
) -> Result<ReadBill, BillFault> {
    let digests: Vec<&str> = all.iter().map(|one| &*one.source_digest).collect();
    let mut read = ReadBill {
        data_set: all.first().map_or("", |one| one.data_set),
        source_digest: hex(&sha256(&canonical_bytes(&digests))),
        ..ReadBill::default()
    };
    let mut bills: std::collections::BTreeMap<_, Vec<String>> = std::collections::BTreeMap::new();
    for one in all {
        for part in one.parts {
            bills.entry((part.billing_account, part.month)).or_default().push(part.digest);
        }
        read.invoices.extend(one.invoices);
        for (name, delivery) in one.issuers {
            let known = read.issuers.entry(name).or_default();
            known.commitments.extend(delivery.commitments);
            known.periods.extend(delivery.periods);
        }
        read.quarantined += one.quarantined;
        read.shown.extend(one.shown);
        for (currency, amount) in one.missing {
            let sum = read.missing.entry(currency).or_default();
            *sum = sum.checked_add(amount).ok_or(domain::finops::cost::TooLarge)?;
        }
        for (code, (lines, first)) in one.findings {
            let known = read.findings.entry(code).or_insert((0, first));
            known.0 += lines;
        }
    }
    read.shown.truncate(ReadBill::SHOWN_MAX);
    for (_, digests) in bills {
        let (mut number, mut broken) = (0, None);
        let mut opened = Vec::with_capacity(digests.len());
        for digest in &digests {
            opened.push(store.lines(digest)?);
        }
        let mut lines = opened.into_iter().flatten().map_while(|line| match line {
            Ok(mut line) => {
                number += 1;
                line.number = number;
                Some(line)
            }
            Err(fault) => {
                broken = Some(fault);
                None
            }
        });
        let parts = store.write(&mut lines);
        drop(lines);
        if let Some(fault) = broken {
            return Err(fault);
        }
        read.parts.extend(parts?);
    }
    Ok(read)
}
