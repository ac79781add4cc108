//! How much of servers was used, out of files as Prometheus writes them, day by day.
//!
//! A sample is what a counter grew by between two moments. Between two that are further apart than
//! two steps nothing is known of how busy a server was; nor where a counter has begun anew, for
//! nobody knows what passed before. Days are those of UTC, and count when they are over.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use domain::{
    compute::{server::Server, utilisation::Utilisation},
    finops::{
        amount::Amount,
        ratio::{Ratio, round_half_even, whole},
    },
    kernel::{Decider, Principal, codes},
    kinds,
    log::Position,
};
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    containers::Series,
    derive::RunFault,
    ledger::{Ledger, LoadFault},
    submit::{Submission, SubmitFault},
};

/// Servers whose days are told at once.
const SERVERS_AT_ONCE: usize = 16;
/// Most names of each sort that an answer has.
const NAMES_MAX: usize = 100;

/// Labels that name a server when nobody says which one does, by who measures.
const NODE_LABELS: &[&str] = &["instance"];
const LIBVIRT_LABELS: &[&str] = &["uuid", "instance_id", "domain"];
/// Interfaces inside a server whose bytes pass another one as well, or never leave it.
const INNER_DEVICES: &[&str] = &["lo", "br-", "cali", "cni", "docker", "flannel", "veth", "virbr"];

/// By what name which servers are known: ids, ids in clouds, names, addresses.
pub type Names = BTreeMap<String, BTreeSet<Uuid>>;

/// What a file says of servers.
#[derive(Debug, Default)]
pub struct Read {
    /// A server's days, in their order; of each day at most one for each who measured it.
    pub days: BTreeMap<Uuid, Vec<Utilisation>>,
    /// What was found and left out.
    pub left_out: LeftOut,
}

/// What of a file is left out, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Series of a name that no server has; the first hundred names.
    pub unmatched: BTreeMap<String, u64>,
    /// Series that no server has the name of.
    pub unmatched_series: u64,
    /// Series of a name that several servers have; the first hundred names.
    pub ambiguous: BTreeMap<String, u64>,
    /// Series whose name several servers have.
    pub ambiguous_series: u64,
    /// Servers whose processors nobody counts.
    pub without_vcpus: u64,
    /// Times between two samples that are too long.
    pub gaps: u64,
    /// Times in which a counter began anew.
    pub resets: u64,
    /// Days that are not over, of all servers.
    pub running_days: u64,
}

/// Who measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Node,
    Libvirt,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node-exporter",
            Self::Libvirt => "libvirt-exporter",
        }
    }

    fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Node => NODE_LABELS,
            Self::Libvirt => LIBVIRT_LABELS,
        }
    }
}

/// What a series measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    /// Seconds that one processor was idle.
    Idle,
    /// Seconds that all processors were busy.
    Busy,
    /// How many processors there are.
    Vcpus,
    /// Bytes of memory that are free to take.
    MemoryFree,
    /// Bytes of memory there are.
    MemoryTotal,
    /// Bytes received.
    In,
    /// Bytes sent.
    Out,
}

/// Who measures what by a series, and of which part of the server.
fn meant(series: &Series) -> Option<(Source, Measure, &str)> {
    let device = || series.label("device");
    let outer = || {
        let is =
            |inner: &&str| device() == *inner || inner.len() > 2 && device().starts_with(*inner);
        !INNER_DEVICES.iter().any(is)
    };
    let target = || series.label("target_device");
    Some(match series.name() {
        "node_cpu_seconds_total" if series.label("mode") == "idle" => {
            (Source::Node, Measure::Idle, series.label("cpu"))
        }
        "node_memory_MemAvailable_bytes" => (Source::Node, Measure::MemoryFree, ""),
        "node_memory_MemTotal_bytes" => (Source::Node, Measure::MemoryTotal, ""),
        "node_network_receive_bytes_total" if outer() => (Source::Node, Measure::In, device()),
        "node_network_transmit_bytes_total" if outer() => (Source::Node, Measure::Out, device()),
        "libvirt_domain_info_cpu_time_seconds_total" => (Source::Libvirt, Measure::Busy, ""),
        "libvirt_domain_info_virtual_cpus" | "libvirt_domain_info_vcpus" => {
            (Source::Libvirt, Measure::Vcpus, "")
        }
        "libvirt_domain_memory_stats_usable_bytes" => (Source::Libvirt, Measure::MemoryFree, ""),
        "libvirt_domain_memory_stats_available_bytes" => {
            (Source::Libvirt, Measure::MemoryTotal, "")
        }
        "libvirt_domain_interface_stats_receive_bytes_total" => {
            (Source::Libvirt, Measure::In, target())
        }
        "libvirt_domain_interface_stats_transmit_bytes_total" => {
            (Source::Libvirt, Measure::Out, target())
        }
        _ => return None,
    })
}

/// The servers that a name means; a port behind it does not count.
fn named<'a>(names: &'a Names, name: &str) -> Option<&'a BTreeSet<Uuid>> {
    let without = name.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let without = without.map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']'));
    names.get(name).or_else(|| without.and_then(|host| names.get(host)))
}

/// One server's series by one who measures.
type Signals<'a> = BTreeMap<(Measure, &'a str), &'a Series>;

/// Reads how much of which server was used on the days before `today`. The label names servers;
/// without one it is `instance` of what servers say of themselves, and the first of `uuid`,
/// `instance_id` and `domain` that names one of what their hosts say.
///
/// # Errors
/// In words, when nothing in the file measures a server, or it does not tell how far apart samples
/// are.
pub fn read(
    series: &[Series],
    names: &Names,
    label: Option<&str>,
    step: Option<TimeDelta>,
    today: NaiveDate,
) -> Result<Read, String> {
    let known: Vec<_> = series.iter().filter_map(|one| Some((one, meant(one)?))).collect();
    if known.is_empty() {
        return Err("nothing in it measures a server: it has no series of node_exporter or of \
                    libvirt's; name the cluster when it is of containers"
            .to_owned());
    }
    let spans = |(one, _): &(&Series, _)| -> Vec<TimeDelta> {
        one.samples.windows(2).map(|two| two[1].0 - two[0].0).collect()
    };
    let mut apart: Vec<TimeDelta> = known.iter().flat_map(spans).collect();
    let middle = apart.len() / 2;
    // Times of samples are not to the second, and the one in the middle is as they are meant to be.
    let usual = || (!apart.is_empty()).then(|| *apart.select_nth_unstable(middle).1);
    let Some(step) = step.or_else(usual) else {
        return Err("no series has two samples: say with step_s how far apart they are".to_owned());
    };
    let mut read = Read::default();
    let mut all: BTreeMap<(Uuid, Source), Signals<'_>> = BTreeMap::new();
    for (one, (source, measure, part)) in known {
        let labels: Vec<&str> = label.map_or_else(|| source.labels().to_vec(), |one| vec![one]);
        let values = || labels.iter().map(|label| one.label(label)).filter(|one| !one.is_empty());
        let left_out = &mut read.left_out;
        let Some((name, servers)) = values().find_map(|name| Some((name, named(names, name)?)))
        else {
            left_out.unmatched_series += 1;
            let name = values().next().unwrap_or_default();
            count(&mut left_out.unmatched, name);
            continue;
        };
        let Some(id) = servers.first().filter(|_| servers.len() == 1) else {
            left_out.ambiguous_series += 1;
            count(&mut left_out.ambiguous, name);
            continue;
        };
        all.entry((*id, source)).or_default().insert((measure, part), one);
    }
    for ((id, source), signals) in &all {
        let days = days(signals, *source, step, today, &mut read.left_out);
        read.days.entry(*id).or_default().extend(days);
    }
    for days in read.days.values_mut() {
        // The same day by another comes behind: it counts when it has more of it.
        days.sort_by_key(|one| one.day);
    }
    read.days.retain(|_, days| !days.is_empty());
    Ok(read)
}

fn count(names: &mut BTreeMap<String, u64>, name: &str) {
    if let Some(known) = names.get_mut(name) {
        *known += 1;
    } else if names.len() < NAMES_MAX {
        names.insert(name.to_owned(), 1);
    }
}

/// What a day comes to while it is summed up.
#[derive(Default)]
struct Day {
    /// Hundredths of a percent, one for each sample.
    samples: Vec<i128>,
    busy_s: Option<Ratio>,
    all_s: Option<Ratio>,
    vcpus: i128,
    memory: Option<i128>,
    bytes_in: Option<Ratio>,
    bytes_out: Option<Ratio>,
}

fn add(sum: &mut Option<Ratio>, more: &Ratio) {
    *sum = Some(sum.take().map_or_else(|| more.clone(), |sum| sum + more));
}

/// A part of a whole in hundredths of a percent, 0…10,000.
fn hundredths(part: &Ratio, of: &Ratio) -> i128 {
    let exact = part * whole(10_000) / of;
    round_half_even(&exact).unwrap_or_default().clamp(0, 10_000)
}

fn seconds(span: TimeDelta) -> Ratio {
    whole(span.num_microseconds().unwrap_or(i64::MAX).into()) / whole(1_000_000)
}

/// What a series was last at a moment; what it was first, before there is anything.
fn value_at(series: &Series, at: DateTime<Utc>) -> Option<&Ratio> {
    let after = series.samples.partition_point(|(moment, _)| *moment <= at);
    series.samples.get(after.saturating_sub(1)).map(|(_, value)| value)
}

/// A span between two samples.
type Span = (DateTime<Utc>, DateTime<Utc>);

/// How busy processors were in each span that is known: seconds, of how many processors.
fn busy(
    signals: &Signals<'_>,
    source: Source,
    step: TimeDelta,
    left_out: &mut LeftOut,
) -> BTreeMap<Span, (Ratio, i128)> {
    let mut spans: BTreeMap<Span, (Ratio, i128)> = BTreeMap::new();
    let (mut gaps, mut resets) = (BTreeSet::new(), BTreeSet::new());
    let vcpus = signals.get(&(Measure::Vcpus, ""));
    let counters = signals.iter().filter(|((measure, _), _)| {
        *measure == if source == Source::Node { Measure::Idle } else { Measure::Busy }
    });
    let mut counted = true;
    for (_, series) in counters {
        for two in series.samples.windows(2) {
            let [(from, before), (to, after)] = two else { continue };
            let span = (*from, *to);
            if *to - *from > step * 2 {
                gaps.insert(span);
                continue;
            }
            if after < before {
                resets.insert(span);
                continue;
            }
            let grown = after - before;
            let (busy, processors) = match source {
                Source::Node => (seconds(*to - *from) - grown, 1),
                Source::Libvirt => {
                    let count = vcpus.and_then(|series| value_at(series, *to));
                    let count = count.and_then(round_half_even).filter(|count| *count > 0);
                    let Some(count) = count else {
                        counted = false;
                        continue;
                    };
                    (grown, count)
                }
            };
            let sum = spans.entry(span).or_insert_with(|| (whole(0), 0));
            sum.0 += busy;
            sum.1 += processors;
        }
    }
    // What one processor's counter says of a restart holds of all of them.
    spans.retain(|span, _| !resets.contains(span));
    left_out.gaps += gaps.len() as u64;
    left_out.resets += resets.len() as u64;
    left_out.without_vcpus += u64::from(!counted);
    spans
}

fn days(
    signals: &Signals<'_>,
    source: Source,
    step: TimeDelta,
    today: NaiveDate,
    left_out: &mut LeftOut,
) -> Vec<Utilisation> {
    let mut days: BTreeMap<NaiveDate, Day> = BTreeMap::new();
    for ((from, to), (busy, processors)) in busy(signals, source, step, left_out) {
        let day = days.entry(from.date_naive()).or_default();
        let all = seconds(to - from) * whole(processors);
        day.samples.push(hundredths(&busy, &all));
        add(&mut day.busy_s, &busy);
        add(&mut day.all_s, &all);
        day.vcpus = day.vcpus.max(processors);
    }
    if let (Some(free), Some(total)) =
        (signals.get(&(Measure::MemoryFree, "")), signals.get(&(Measure::MemoryTotal, "")))
    {
        for (at, free) in &free.samples {
            let Some(total) = value_at(total, *at).filter(|total| **total > whole(0)) else {
                continue;
            };
            // Only of days whose processors are known.
            let Some(day) = days.get_mut(&at.date_naive()) else { continue };
            let used = hundredths(&(total - free), total);
            day.memory = Some(day.memory.map_or(used, |known| known.max(used)));
        }
    }
    for ((measure, _), series) in signals {
        if !matches!(measure, Measure::In | Measure::Out) {
            continue;
        }
        for two in series.samples.windows(2) {
            let [(from, before), (_, after)] = two else { continue };
            let Some(day) = days.get_mut(&from.date_naive()) else { continue };
            let passed = if after < before { after.clone() } else { after - before };
            let sum = if *measure == Measure::In { &mut day.bytes_in } else { &mut day.bytes_out };
            add(sum, &passed);
        }
    }
    let running = days.split_off(&today);
    left_out.running_days += running.len() as u64;
    let step_s = (step + TimeDelta::milliseconds(500)).num_seconds();
    let step_s = u32::try_from(step_s.max(1)).unwrap_or(u32::MAX);
    days.into_iter().filter_map(|(date, day)| day.summed_up(date, step_s, source)).collect()
}

impl Day {
    fn summed_up(mut self, day: NaiveDate, step_s: u32, source: Source) -> Option<Utilisation> {
        self.samples.sort_unstable();
        let peak = *self.samples.last()?;
        // The least that 95 of 100 samples are not above.
        let rank = (self.samples.len() * 95).div_ceil(100);
        let p95 = *self.samples.get(rank.saturating_sub(1))?;
        let mean = hundredths(&self.busy_s?, &self.all_s?);
        let percent = |hundredths: i128| Amount(hundredths * 10_i128.pow(10));
        let bytes = |sum: Option<Ratio>| {
            sum.and_then(|sum| round_half_even(&sum)).and_then(|sum| u64::try_from(sum).ok())
        };
        Some(Utilisation {
            day,
            vcpus: u32::try_from(self.vcpus).ok()?,
            cpu_mean_percent: percent(mean.min(peak)),
            cpu_p95_percent: percent(p95),
            cpu_peak_percent: percent(peak),
            memory_peak_percent: self.memory.map(percent),
            network_in_bytes: bytes(self.bytes_in),
            network_out_bytes: bytes(self.bytes_out),
            samples: u32::try_from(self.samples.len()).ok()?,
            step_s,
            source: source.name().to_owned(),
        })
    }
}

/// What came of telling the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Days that were not known.
    pub measured: u64,
    /// Days of which more is known now.
    pub remeasured: u64,
    /// Days of which as much was known.
    pub unchanged: u64,
    /// Days that are too long ago.
    pub settled: u64,
    /// The last position that was written; that of the newest answer when nothing was.
    #[serde(skip)]
    pub position: Position,
}

impl Told {
    fn with(self, other: Self) -> Self {
        Self {
            measured: self.measured + other.measured,
            remeasured: self.remeasured + other.remeasured,
            unchanged: self.unchanged + other.unchanged,
            settled: self.settled + other.settled,
            position: self.position.max(other.position),
        }
    }
}

impl Ledger {
    /// By what name which servers are known now. What is gone has its ids only: others may have its
    /// name and addresses.
    ///
    /// # Errors
    /// When the views are not to be had.
    pub async fn server_names(&self) -> Result<Names, RunFault> {
        self.views_caught_up().await?;
        let (servers, _) = self.states::<Server>(None).await?;
        let mut names = Names::new();
        for (id, server) in servers {
            let facets = server.facets();
            let mut own = vec![id.to_string()];
            own.extend(facets.external_id);
            if !facets.gone {
                own.extend(facets.name);
                let seen = server.observation.seen.iter();
                own.extend(seen.flat_map(|seen| &seen.addresses).map(|one| one.addr().to_string()));
            }
            for name in own.into_iter().filter(|name| !name.is_empty()) {
                names.entry(name).or_default().insert(id);
            }
        }
        Ok(names)
    }

    /// Tells the log how much of servers was used; what is known already makes no event. Nothing is
    /// written when it is only asked what would be.
    ///
    /// # Errors
    /// When the log is not to be had, or a server is out of the principal's reach.
    pub async fn measure(
        &self,
        days: BTreeMap<Uuid, Vec<Utilisation>>,
        by: &Principal,
        validate_only: bool,
    ) -> Result<Told, SubmitFault> {
        let telling =
            days.into_iter().map(|(id, days)| self.tell_days(id, days, by, validate_only));
        let mut telling = stream::iter(telling).buffer_unordered(SERVERS_AT_ONCE);
        let mut told = Told::default();
        while let Some(one) = telling.next().await {
            told = told.with(one?);
        }
        Ok(told)
    }

    async fn tell_days(
        &self,
        id: Uuid,
        days: Vec<Utilisation>,
        by: &Principal,
        validate_only: bool,
    ) -> Result<Told, SubmitFault> {
        let kind = kinds::by_name(Server::KIND)
            .ok_or_else(|| LoadFault::Missing("the kind server".to_owned()))?;
        let mut told = Told::default();
        for utilisation in days {
            let body = json!({"utilisation": utilisation});
            let submission = Submission::new(by.clone(), kind, id, "measure", body);
            let events = if validate_only {
                self.plan(&submission).await.map(|plan| plan.events)
            } else {
                self.submit(submission).await.map(|outcome| {
                    told.position = told.position.max(outcome.position);
                    outcome.events
                })
            };
            let events = match events {
                Ok(events) => events,
                Err(SubmitFault::Refused(refusal)) if refusal.code == &codes::DAY_SETTLED => {
                    told.settled += 1;
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            match events.first().map(|event| event.event_type.as_str()) {
                None => told.unchanged += 1,
                Some("measured") => told.measured += 1,
                Some(_) => told.remeasured += 1,
            }
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests;
