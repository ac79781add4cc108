//! Hints by what was measured of servers: those that idle, and those that are larger than they need
//! to be.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use domain::{
    compute::{
        server::{Power, Server},
        shape::Shape,
        utilisation::Utilisation,
    },
    finops::{
        amount::{Amount, BillingMonth},
        hint::{Code, Evidence, Hint, Monthly, Suggestion, Thresholds},
        ratio::{round_half_even, whole},
        sizing::Measured,
    },
    kernel::{Decider, State},
    log::Position,
};
use uuid::Uuid;

use super::{Candidate, PAGE, candidate};
use crate::{
    derive::RunFault,
    ledger::{Ledger, LoadFault},
    ports::AuditFilter,
    rate::{OurCost, OurCosts},
    submit::SubmitFault,
};

/// Days of servers, each with the position of the event that says so.
type Known = BTreeMap<Uuid, BTreeMap<NaiveDate, (Position, Utilisation)>>;

/// Of which part of something a hint's money is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Processors it has.
    pub(super) of: u32,
    /// Processors it needs.
    pub(super) needed: u32,
}

impl Share {
    /// Leaves of a hint's money the part that is not needed.
    pub(super) fn take(self, hint: &mut Hint) {
        let Some(by) = hint.monthly.first().map(|one| one.by) else { return };
        let (of, needed) = (i128::from(self.of), i128::from(self.needed));
        for one in &mut hint.monthly {
            let part = whole(one.amount.0) * whole(of - needed) / whole(of);
            one.amount = Amount(round_half_even(&part).unwrap_or_default());
            one.by = "estimate";
        }
        hint.evidence.money =
            format!("{} of {of} vCPUs of what it costs by {by}: an estimate", of - needed);
    }
}

impl Candidate {
    /// The server whose cost by another shape is asked, and the shape.
    pub(super) fn instead(&self) -> Option<(Uuid, String)> {
        let suggestion = self.hint.suggestion.as_ref()?;
        Some((self.hint.id?, suggestion.shape.clone()))
    }

    /// Says what is saved by our own rates, when all of it has a price in both shapes.
    pub(super) fn rate_instead(
        &mut self,
        rates: &OurCosts,
        others: &OurCosts,
        month: BillingMonth,
    ) {
        let Some((id, shape)) = self.instead() else { return };
        let id = id.to_string();
        let (Some(is), Some(would)) = (rates.get(&id), others.get(&id)) else { return };
        if is.units != would.units || is.sums.keys().ne(would.sums.keys()) {
            return;
        }
        let saved =
            is.sums.iter().zip(would.sums.values()).map(|((currency, is), would)| Monthly {
                amount: Amount(is.0.saturating_sub(would.0)),
                currency: currency.clone(),
                month,
                by: "rates",
            });
        self.hint.monthly = saved.collect();
        let sums = |cost: &OurCost| {
            let sums = cost.sums.iter().map(|(currency, sum)| format!("{sum} {currency}"));
            sums.collect::<Vec<_>>().join(", ")
        };
        self.hint.evidence.money =
            format!("by our rates {} as it is, {} as {shape}", sums(is), sums(would));
    }
}

/// Percent of memory, as the words of a hint.
fn memory(measured: &Measured) -> String {
    match measured.memory_peak_percent {
        Some(peak) => format!("memory at most {peak} %"),
        None => "memory is not known".to_owned(),
    }
}

impl Ledger {
    /// Servers that idle, and those for which there is a smaller shape.
    pub(super) async fn used(
        &self,
        servers: &[(Uuid, Server)],
        (at, now): (Position, DateTime<Utc>),
        thresholds: Thresholds,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), RunFault> {
        let today = now.date_naive();
        let days = self.days_measured(today, at, thresholds).await?;
        if days.is_empty() {
            return Ok(());
        }
        let (shapes, _) = self.states::<Shape>(Some(at)).await?;
        for (id, server) in servers {
            let seen = &server.observation;
            let Some(machine) = seen.seen.as_ref().filter(|_| seen.is_there()) else { continue };
            let Some(known) = days.get(id).filter(|_| machine.power == Power::Running) else {
                continue;
            };
            let Some(measured) = Measured::of(known, today, &thresholds) else { continue };
            let covered = format!(
                "{} of {} days, {} % of their time",
                measured.days, thresholds.measured_days, measured.covered_percent
            );
            if measured.is_idle(&thresholds) {
                let network = match measured.network_day_bytes {
                    Some(bytes) => format!(
                        "{} MiB of network a day, idle_network_mib {}",
                        bytes >> 20,
                        thresholds.idle_network_mib
                    ),
                    None => "its network is not known".to_owned(),
                };
                let threshold = format!(
                    "idle_percent {}: 95 of 100 samples were at most {} % of every day; {network}; \
                     {covered}",
                    thresholds.idle_percent, measured.cpu_p95_percent
                );
                let measured = Some(measured);
                let evidence = Evidence { threshold, measured, ..Evidence::default() };
                let facets = Decider::facets(server);
                candidates.push(candidate(Code::IdleServer, Server::KIND, *id, facets, evidence));
                continue;
            }
            let provider = seen.origin.as_ref().map_or("", |origin| origin.provider.as_str());
            let shapes = || shapes.iter().map(|(_, shape)| shape);
            let own = shapes().find(|one| one.provider == provider && one.name == machine.shape);
            let Some(own) = own else { continue };
            let Some(other) = measured.smaller(own, shapes(), &thresholds) else { continue };
            let threshold = format!(
                "oversized_percent {}: 95 of 100 samples were at most {} % of {} vCPUs on every \
                 day, {}; {covered}",
                thresholds.oversized_percent,
                measured.cpu_p95_percent,
                own.equipment.vcpus,
                memory(&measured),
            );
            let evidence = Evidence { threshold, measured: Some(measured), ..Evidence::default() };
            let facets = Decider::facets(server);
            let mut one = candidate(Code::OversizedServer, Server::KIND, *id, facets, evidence);
            one.hint.suggestion = Some(Suggestion {
                shape: other.name.clone(),
                vcpus: other.equipment.vcpus,
                memory_gib: other.equipment.memory_gib,
            });
            one.share = Some(Share { of: own.equipment.vcpus, needed: other.equipment.vcpus });
            candidates.push(one);
        }
        Ok(())
    }

    /// What was measured of every server on the days that count, as it was known at a position.
    async fn days_measured(
        &self,
        today: NaiveDate,
        at: Position,
        thresholds: Thresholds,
    ) -> Result<Known, RunFault> {
        let first = today.checked_sub_days(Days::new(thresholds.measured_days.into()));
        // No day is told before it has begun.
        let since = first.map(|day| day.and_time(NaiveTime::MIN).and_utc());
        let mut days = Known::new();
        for event_type in ["measured", "remeasured"] {
            let filter = AuditFilter {
                kind: Some(Server::KIND.to_owned()),
                event_type: Some(event_type.to_owned()),
                since,
                ..AuditFilter::default()
            };
            let mut after = 0;
            loop {
                let page = self.ports.log.search(&filter, after, false, PAGE).await;
                let page = page.map_err(SubmitFault::from)?;
                let Some(last) = page.last() else { break };
                after = last.position();
                for record in page.iter().take_while(|record| record.position() <= at) {
                    let mut one = Server::default();
                    State::evolve(&mut one, record.event_type(), record.data()).map_err(
                        |source| {
                            let event_type = record.event_type().to_owned();
                            let position = record.position();
                            SubmitFault::from(LoadFault::Record { position, event_type, source })
                        },
                    )?;
                    let Some(utilisation) = one.utilisation.last else { continue };
                    let Ok(id) = record.id().parse() else { continue };
                    let known: &mut BTreeMap<_, (Position, _)> = days.entry(id).or_default();
                    let day = utilisation.day;
                    if known.get(&day).is_none_or(|(position, _)| *position < record.position()) {
                        known.insert(day, (record.position(), utilisation));
                    }
                }
                if page.len() < PAGE || after >= at {
                    break;
                }
            }
        }
        Ok(days)
    }
}
