//! Where money can be saved: what the log says of resources and commitments, what bills say of their
//! costs, and how both fit.
//!
//! The states are those at a position, and ages are counted up to a moment that is given: the same
//! two give the same hints. What something costs in a month is the effective cost of the last full
//! month in which bills have lines of it, three months back at most; of what they have none, what the
//! next full month costs by our own rates if everything stays as it is.

mod used;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Days, Utc};
use domain::{
    compute::{disk::Disk, server::Server},
    finops::{
        amount::{Amount, BillingMonth, Currency},
        commitment::Commitment,
        cost::{Basis, Dimension, TooLarge},
        hint::{
            self, Code, Evidence, Hint, Monthly, Since, Thresholds, is_of_snapshot,
            is_of_unused_address, is_old,
        },
        line::Line,
    },
    kernel::{Decider, State, StreamId},
    log::Position,
};
use uuid::Uuid;

use crate::{
    bills::{Counting, costs},
    derive::RunFault,
    ledger::{Ledger, LoadFault},
    ports::{BillFault, BillStore, CostQuery},
    rate::OurCosts,
    submit::SubmitFault,
};
use used::Share;

/// Full months that are looked back for lines of a resource.
const MONTHS_BACK: usize = 3;
/// Records read at once.
const PAGE: usize = 1_000;

/// Something that may be worth a hint, before it is known what it costs.
#[derive(Debug)]
struct Candidate {
    hint: Hint,
    /// What bills call it, and what goes with it.
    billed_as: BTreeSet<String>,
    /// What our rates call the same.
    rated_as: BTreeSet<String>,
    /// Whether it is none when it is known to cost nothing.
    only_costly: bool,
    /// Of which part of it the money is; all of it when it is none.
    share: Option<Share>,
}

/// Everything that hints are worked out of.
#[derive(Debug)]
pub struct Hinting {
    thresholds: Thresholds,
    now: DateTime<Utc>,
    candidates: Vec<Candidate>,
    commitments: Vec<(Uuid, Commitment)>,
    /// Projects by what bills call a resource.
    owners: BTreeMap<String, Option<Uuid>>,
    counting: Counting,
    rates: OurCosts,
    rated_month: BillingMonth,
    /// As of here.
    pub position: Position,
}

/// What lines say of one thing.
#[derive(Clone, Debug, Default)]
struct Found {
    sums: BTreeMap<Currency, Amount>,
    segments: BTreeMap<String, u64>,
    name: String,
}

impl Found {
    fn add(&mut self, segment: &str, line: &Line) -> Result<(), BillFault> {
        let sum = self.sums.entry(line.currency.clone()).or_default();
        *sum = sum.checked_add(line.effective).ok_or(TooLarge)?;
        *self.segments.entry(segment.to_owned()).or_default() += 1;
        if self.name.is_empty() {
            self.name.clone_from(&line.resource_name);
        }
        Ok(())
    }

    fn monthly(&self, month: BillingMonth) -> Vec<Monthly> {
        let one = |(currency, amount): (&Currency, &Amount)| Monthly {
            amount: *amount,
            currency: currency.clone(),
            month,
            by: "bill",
        };
        self.sums.iter().map(one).collect()
    }
}

/// What the lines of a month say.
#[derive(Debug, Default)]
struct Month {
    resources: BTreeMap<String, Found>,
    snapshots: BTreeMap<String, Found>,
    addresses: BTreeMap<String, Found>,
    /// Used and unused.
    commitments: BTreeMap<String, [Found; 2]>,
}

fn read(
    store: &dyn BillStore,
    counting: &Counting,
    month: BillingMonth,
    wanted: &BTreeSet<&str>,
) -> Result<Month, BillFault> {
    let mut all = Month::default();
    for (_, segment) in counting.segments().filter(|(one, _)| one.bill.month == Some(month)) {
        for line in store.lines(&segment.digest)? {
            let line = line?;
            let digest = &segment.digest;
            if wanted.contains(line.resource.as_str()) {
                all.resources.entry(line.resource.clone()).or_default().add(digest, &line)?;
            }
            if is_of_snapshot(&line) {
                all.snapshots.entry(line.resource.clone()).or_default().add(digest, &line)?;
            } else if is_of_unused_address(&line) {
                all.addresses.entry(line.resource.clone()).or_default().add(digest, &line)?;
            }
            let place = match line.commitment_status.as_str() {
                "Used" => 0,
                "Unused" => 1,
                _ => continue,
            };
            all.commitments.entry(line.commitment.clone()).or_default()[place]
                .add(digest, &line)?;
        }
    }
    Ok(all)
}

impl Hinting {
    /// The hints, by code and then by what they cost. Blocks the thread.
    ///
    /// # Errors
    /// When lines are not to be had.
    pub fn work(self, store: &dyn BillStore) -> Result<Vec<Hint>, BillFault> {
        let today = self.now.date_naive();
        let mut months = Vec::new();
        let mut month = BillingMonth::of(today);
        for _ in 0..MONTHS_BACK {
            month = BillingMonth::of(month.first() - Days::new(1));
            months.push(month);
        }
        let wanted: BTreeSet<&str> = self
            .candidates
            .iter()
            .flat_map(|one| one.billed_as.iter().map(String::as_str))
            .collect();
        let mut read_months: Vec<(BillingMonth, Month)> = Vec::new();
        for month in months {
            // Most of what is asked for is in the newest month.
            let found = |one: &Candidate| {
                let is_in = |name: &String| {
                    read_months.iter().any(|(_, read)| read.resources.contains_key(name))
                };
                one.billed_as.is_empty() || one.billed_as.iter().any(is_in)
            };
            let billed = |month: BillingMonth| {
                self.counting.bills.iter().any(|one| one.bill.month == Some(month))
            };
            let some = read_months.iter().any(|(month, _)| billed(*month));
            if some && self.candidates.iter().all(found) {
                break;
            }
            read_months.push((month, read(store, &self.counting, month, &wanted)?));
        }
        let mut hints = Vec::new();
        // What only bills know of is of the newest full month that has a bill.
        let newest = read_months.iter().find(|(month, _)| {
            self.counting.bills.iter().any(|one| one.bill.month == Some(*month))
        });
        if let Some((month, read)) = newest {
            self.of_bills(store, *month, read, &mut hints)?;
        }
        for candidate in &self.candidates {
            let Candidate { hint, billed_as, rated_as, only_costly, share } = candidate;
            let mut hint = hint.clone();
            // What our rates say of two shapes is better than a part of what bills say of one.
            let known = !hint.monthly.is_empty();
            for (month, read) in read_months.iter().filter(|_| !known) {
                let found: Vec<&Found> =
                    billed_as.iter().filter_map(|name| read.resources.get(name)).collect();
                if found.is_empty() {
                    continue;
                }
                let mut sum = Found::default();
                for one in found {
                    for (currency, amount) in &one.sums {
                        let own = sum.sums.entry(currency.clone()).or_default();
                        *own = own.checked_add(*amount).ok_or(TooLarge)?;
                    }
                    for (segment, lines) in &one.segments {
                        *sum.segments.entry(segment.clone()).or_default() += lines;
                    }
                }
                hint.monthly = sum.monthly(*month);
                hint.evidence.segments = sum.segments;
                break;
            }
            if hint.monthly.is_empty() {
                hint.monthly = self.rated(rated_as)?;
            }
            if let Some(share) = share.filter(|_| !known) {
                share.take(&mut hint);
            }
            let nothing = hint.monthly.iter().all(|one| one.amount == Amount::ZERO);
            if *only_costly && nothing && !hint.monthly.is_empty() {
                continue;
            }
            hints.push(hint);
        }
        hints.sort_by(|a, b| {
            let most = |hint: &Hint| hint.monthly.iter().map(|one| one.amount).max();
            (a.code, std::cmp::Reverse(most(a)), &a.resource).cmp(&(
                b.code,
                std::cmp::Reverse(most(b)),
                &b.resource,
            ))
        });
        Ok(hints)
    }

    fn rated(&self, names: &BTreeSet<String>) -> Result<Vec<Monthly>, BillFault> {
        let mut sums: BTreeMap<&Currency, Amount> = BTreeMap::new();
        for (currency, amount) in
            names.iter().filter_map(|name| self.rates.get(name)).flat_map(|one| &one.sums)
        {
            let sum = sums.entry(currency).or_default();
            *sum = sum.checked_add(*amount).ok_or(TooLarge)?;
        }
        let one = |(currency, amount): (&Currency, Amount)| Monthly {
            amount,
            currency: currency.clone(),
            month: self.rated_month,
            by: "rates",
        };
        Ok(sums.into_iter().map(one).collect())
    }

    /// What only bills say: snapshots, addresses, and how commitments are used.
    fn of_bills(
        &self,
        store: &dyn BillStore,
        month: BillingMonth,
        read: &Month,
        hints: &mut Vec<Hint>,
    ) -> Result<(), BillFault> {
        let hint = |code: Code, resource: &str, found: &Found, threshold: String| Hint {
            code,
            kind: "",
            id: None,
            resource: resource.to_owned(),
            name: found.name.clone(),
            project: self.owners.get(resource).copied().flatten(),
            monthly: found.monthly(month),
            evidence: Evidence {
                segments: found.segments.clone(),
                threshold,
                ..Evidence::default()
            },
            advice: code.advice(),
            suggestion: None,
        };
        for (resource, found) in &read.addresses {
            let threshold = format!("the bill of {month} calls it idle");
            hints.push(hint(Code::UnusedAddress, resource, found, threshold));
        }
        let days = self.thresholds.snapshot_days;
        if let Some(then) = self.now.date_naive().checked_sub_days(Days::new(days.into()))
            && !read.snapshots.is_empty()
        {
            let then = BillingMonth::of(then).min(month);
            let mut counting = self.counting.clone();
            counting.bills.retain(|one| one.bill.month == Some(then));
            let groups = vec![Dimension::Plain("resource")];
            let asked = CostQuery { basis: Basis::Effective, groups, ..CostQuery::default() };
            let table = costs(store, &counting, &asked)?;
            let rows = table.rows();
            let old: BTreeSet<&str> =
                rows.iter().filter_map(|(group, ..)| group.first()).map(|name| &**name).collect();
            let old = read.snapshots.iter().filter(|(name, _)| old.contains(name.as_str()));
            for (resource, found) in old {
                let threshold = format!("snapshot_days {days}: it was billed in {then} already");
                hints.push(hint(Code::OldSnapshot, resource, found, threshold));
            }
        }
        for (name, [used, unused]) in &read.commitments {
            let percent = self.thresholds.unused_percent;
            let mut monthly = unused.monthly(month);
            monthly.retain(|one| {
                let used = used.sums.get(&one.currency).copied().unwrap_or_default();
                hint::is_unused(one.amount, used, percent)
            });
            if monthly.is_empty() {
                continue;
            }
            let of = |one: &&(Uuid, Commitment)| {
                one.1.terms.as_ref().is_some_and(|terms| terms.commitment == *name)
            };
            let known = self.commitments.iter().find(of);
            let mut segments = unused.segments.clone();
            for (segment, lines) in &used.segments {
                *segments.entry(segment.clone()).or_default() += lines;
            }
            let used: Vec<String> =
                used.sums.iter().map(|(currency, sum)| format!("{sum} {currency}")).collect();
            let used = if used.is_empty() { "nothing".to_owned() } else { used.join(", ") };
            let threshold = format!("unused_percent {percent}: of {month} {used} was used");
            let mut hint = hint(Code::CommitmentUnused, name, unused, threshold);
            hint.monthly = monthly;
            hint.evidence.segments = segments;
            if let Some((id, one)) = known {
                hint.kind = Commitment::KIND;
                hint.id = Some(*id);
                hint.name = one.terms.as_ref().map(|terms| terms.name.clone()).unwrap_or_default();
            }
            hints.push(hint);
        }
        Ok(())
    }
}

impl Ledger {
    /// What hints are worked out of, as of a position; ages are counted up to `now`.
    ///
    /// # Errors
    /// When views, log or rates are not to be had.
    pub async fn hinting(
        &self,
        at: Option<Position>,
        now: DateTime<Utc>,
        thresholds: Thresholds,
    ) -> Result<Hinting, RunFault> {
        let (disks, position) = self.states::<Disk>(at).await?;
        let at = Some(position);
        let (servers, _) = self.states::<Server>(at).await?;
        let (commitments, _) = self.states::<Commitment>(at).await?;
        let counting = self.all_bills(at).await?;
        let rated_month = BillingMonth::of(now.date_naive()).next();
        let mut owners = BTreeMap::new();
        let mut disks_by_name = BTreeMap::new();
        for (id, disk) in &disks {
            let facets = Decider::facets(disk);
            if let Some(name) = facets.external_id {
                owners.insert(name.clone(), facets.project);
                disks_by_name.insert(name, id.to_string());
            }
        }
        for (_, server) in &servers {
            let facets = Decider::facets(server);
            owners.extend(facets.external_id.map(|name| (name, facets.project)));
        }
        let mut candidates = Vec::new();
        for (id, disk) in &disks {
            let seen = &disk.observation;
            if !seen.is_there() || !seen.seen.as_ref().is_some_and(hint::is_unattached) {
                continue;
            }
            let holds = |disk: &Disk| {
                let seen = &disk.observation;
                seen.is_there() && seen.seen.as_ref().is_some_and(hint::is_unattached)
            };
            let days = thresholds.unattached_days;
            let Some(since) = self.since(*id, position, holds).await? else { continue };
            if !is_old(since.recorded_at, now, days) {
                continue;
            }
            let passed = (now - since.recorded_at).num_days();
            let threshold = format!("unattached_days {days}: it has been for {passed}");
            candidates.push(candidate(
                Code::UnattachedDisk,
                Disk::KIND,
                *id,
                Decider::facets(disk),
                Evidence { since: Some(since), threshold, ..Evidence::default() },
            ));
        }
        for (id, server) in &servers {
            let there = |server: &Server| {
                let seen = &server.observation;
                seen.is_there() && seen.seen.as_ref().is_some_and(hint::is_stopped)
            };
            if !there(server) {
                continue;
            }
            let days = thresholds.stopped_days;
            let Some(since) = self.since(*id, position, there).await? else { continue };
            if !is_old(since.recorded_at, now, days) {
                continue;
            }
            let passed = (now - since.recorded_at).num_days();
            let threshold = format!("stopped_days {days}: it has been for {passed}");
            let evidence = Evidence { since: Some(since), threshold, ..Evidence::default() };
            let facets = Decider::facets(server);
            let mut one = candidate(Code::StoppedServer, Server::KIND, *id, facets, evidence);
            // What stands still costs by its disks.
            for disk in server.observation.seen.iter().flat_map(|seen| &seen.disks) {
                one.billed_as.insert(disk.clone());
                if let Some(id) = disks_by_name.get(disk) {
                    one.billed_as.insert(id.clone());
                    one.rated_as.insert(id.clone());
                }
            }
            one.only_costly = true;
            candidates.push(one);
        }
        self.used(&servers, (position, now), thresholds, &mut candidates).await?;
        let instead = candidates.iter().filter_map(Candidate::instead).collect();
        let [rates, others] = self.at_our_rates(position, rated_month, &instead).await?;
        for candidate in &mut candidates {
            candidate.rate_instead(&rates, &others, rated_month);
        }
        self.ending(&commitments, (position, now), thresholds, &mut candidates).await?;
        Ok(Hinting {
            thresholds,
            now,
            candidates,
            commitments,
            owners,
            counting,
            rates,
            rated_month,
            position,
        })
    }

    /// Commitments whose term is over soon, each with what is left of it.
    async fn ending(
        &self,
        commitments: &[(Uuid, Commitment)],
        (at, now): (Position, DateTime<Utc>),
        thresholds: Thresholds,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), RunFault> {
        let (today, days) = (now.date_naive(), thresholds.commitment_days);
        let last = BillingMonth::of(BillingMonth::of(today).first() - Days::new(1));
        for (id, commitment) in commitments {
            let Some(terms) = &commitment.terms else { continue };
            let Some(left) = hint::ends_within(commitment, today, days) else { continue };
            let remaining =
                hint::remaining(commitment, today).ok_or(TooLarge).map_err(BillFault::from)?;
            let mut amount = Amount::ZERO;
            for part in commitment.recognised(last) {
                amount =
                    amount.checked_add(part.amount).ok_or(TooLarge).map_err(BillFault::from)?;
            }
            let since = self.newest(Commitment::KIND, *id, at).await?;
            let currency = terms.currency.clone();
            let threshold = format!(
                "commitment_days {days}: it ends on {}, in {left} days; {remaining} {currency} are \
                 left of it",
                commitment.end()
            );
            let names = [&terms.commitment, &terms.resource];
            let resource = names.into_iter().find(|name| !name.is_empty()).cloned();
            candidates.push(Candidate {
                hint: Hint {
                    code: Code::CommitmentEnding,
                    kind: Commitment::KIND,
                    id: Some(*id),
                    resource: resource.unwrap_or_default(),
                    name: terms.name.clone(),
                    project: None,
                    monthly: vec![Monthly { amount, currency, month: last, by: "commitment" }],
                    evidence: Evidence { since, threshold, ..Evidence::default() },
                    advice: Code::CommitmentEnding.advice(),
                    suggestion: None,
                },
                billed_as: BTreeSet::new(),
                rated_as: BTreeSet::new(),
                only_costly: false,
                share: None,
            });
        }
        Ok(())
    }

    /// The event since which something holds of a resource, without a break up to a position.
    async fn since<T: Decider>(
        &self,
        id: Uuid,
        at: Position,
        holds: impl Fn(&T) -> bool,
    ) -> Result<Option<Since>, RunFault> {
        let stream = StreamId::new(T::KIND, id);
        let (mut after, mut state, mut since) = (0, T::default(), None);
        loop {
            let records = self.ports.log.stream(&stream, after, PAGE).await;
            let records = records.map_err(SubmitFault::from)?;
            let Some(last) = records.last() else { return Ok(since) };
            after = last.revision();
            for record in records.iter().take_while(|record| record.position() <= at) {
                let evolved = State::evolve(&mut state, record.event_type(), record.data());
                evolved.map_err(|source| {
                    let event_type = record.event_type().to_owned();
                    let position = record.position();
                    SubmitFault::from(LoadFault::Record { position, event_type, source })
                })?;
                if !holds(&state) {
                    since = None;
                } else if since.is_none() {
                    since = Some(since_of(record));
                }
            }
        }
    }

    /// The newest event of a resource up to a position.
    async fn newest(
        &self,
        kind: &'static str,
        id: Uuid,
        at: Position,
    ) -> Result<Option<Since>, RunFault> {
        let stream = StreamId::new(kind, id);
        let (mut after, mut newest) = (0, None);
        loop {
            let records = self.ports.log.stream(&stream, after, PAGE).await;
            let records = records.map_err(SubmitFault::from)?;
            let Some(last) = records.last() else { return Ok(newest) };
            after = last.revision();
            let known = records.iter().rev().find(|record| record.position() <= at);
            newest = known.map(since_of).or(newest);
        }
    }
}

fn since_of(record: &domain::log::Record) -> Since {
    Since {
        position: record.position(),
        event_type: record.event_type().to_owned(),
        recorded_at: record.recorded_at(),
    }
}

fn candidate(
    code: Code,
    kind: &'static str,
    id: Uuid,
    facets: domain::kernel::Facets,
    evidence: Evidence,
) -> Candidate {
    let resource = facets.external_id.unwrap_or_default();
    let mut billed_as = BTreeSet::from([id.to_string()]);
    if !resource.is_empty() {
        billed_as.insert(resource.clone());
    }
    Candidate {
        hint: Hint {
            code,
            kind,
            id: Some(id),
            resource,
            name: facets.name.unwrap_or_default(),
            project: facets.project,
            monthly: vec![],
            evidence,
            advice: code.advice(),
            suggestion: None,
        },
        billed_as,
        rated_as: BTreeSet::from([id.to_string()]),
        only_costly: false,
        share: None,
    }
}
