//! What containers used, out of files as Prometheus writes them.
//!
//! A pod uses, while it runs, the larger of what its containers ask for and what they take; a claim
//! of a volume uses its size while it is bound. A sample holds until the next one of its series, at
//! most for the step of the file; a counter says what was taken since the sample before. Where no
//! sample says that a pod runs, it does not.

mod read;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use domain::finops::{
    cluster::Cluster,
    meter::{Metered, Quantities, Timeline, Usage},
    rate_set::Meter,
    ratio::{Ratio, whole},
};
use uuid::Uuid;

pub use read::{Series, read};

/// The name of series that have the use of any meter in labels: `meter`, `resource`, and where
/// there is one `sku`, `name`, `namespace`.
pub const USAGE: &str = "skyledger_usage";

/// What is so from one moment to another.
type Held = (DateTime<Utc>, DateTime<Utc>, Ratio);

/// What one pod, claim or other resource has.
#[derive(Default)]
struct Signals {
    /// Whether it runs or is bound; nothing is said when it is none.
    on: Option<Vec<Held>>,
    /// What is asked for, by meter and container.
    asked: BTreeMap<(Meter, String), Vec<Held>>,
    /// What is taken.
    taken: BTreeMap<(Meter, String), Vec<Held>>,
    labels: BTreeMap<String, String>,
    sku: String,
}

/// Reads what was used of a cluster's series.
///
/// # Errors
/// In words, when the file does not tell for how long a sample holds.
pub fn usages(
    series: &[Series],
    id: Uuid,
    cluster: &Cluster,
    step: Option<TimeDelta>,
) -> Result<Vec<Usage>, String> {
    let apart = series.iter().flat_map(|one| one.samples.windows(2).map(|two| two[1].0 - two[0].0));
    let Some(step) = step.or_else(|| apart.min()) else {
        return Err("no series has two samples: say with step_s how long one holds".to_owned());
    };
    let mut pods: BTreeMap<(&str, &str), Signals> = BTreeMap::new();
    let mut claims: BTreeMap<(&str, &str), Signals> = BTreeMap::new();
    let mut used = Vec::new();
    for one in series {
        let namespace = one.label("namespace");
        let pod = (namespace, one.label("pod"));
        let claim = (namespace, one.label("persistentvolumeclaim"));
        let container = one.label("container").to_owned();
        // The whole of a pod, and what holds it together, are sums of the others.
        let is_sum = container.is_empty() || container == "POD";
        let gib = |held: Vec<Held>| over(held, 1 << 30);
        match one.name() {
            "kube_pod_container_resource_requests" => {
                let held = gauge(one, step);
                let (meter, held) = match one.label("resource") {
                    "cpu" => (Meter::PodVcpu, held),
                    "memory" => (Meter::PodMemoryGib, gib(held)),
                    _ => continue,
                };
                pods.entry(pod).or_default().asked.insert((meter, container), held);
            }
            "container_cpu_usage_seconds_total" if !is_sum => {
                let taken = &mut pods.entry(pod).or_default().taken;
                taken.entry((Meter::PodVcpu, container)).or_default().extend(counter(one));
            }
            "container_memory_working_set_bytes" if !is_sum => {
                let taken = &mut pods.entry(pod).or_default().taken;
                let held = gib(gauge(one, step));
                taken.entry((Meter::PodMemoryGib, container)).or_default().extend(held);
            }
            "kube_pod_status_phase" if one.label("phase") == "Running" => {
                pods.entry(pod).or_default().on = Some(gauge(one, step));
            }
            "kube_pod_labels" => pods.entry(pod).or_default().labels = labels(one),
            "kube_persistentvolumeclaim_resource_requests_storage_bytes" => {
                let held = gib(gauge(one, step));
                let asked = &mut claims.entry(claim).or_default().asked;
                asked.insert((Meter::PvcGib, String::new()), held);
            }
            "kube_persistentvolumeclaim_status_phase" if one.label("phase") == "Bound" => {
                claims.entry(claim).or_default().on = Some(gauge(one, step));
            }
            "kube_persistentvolumeclaim_info" => {
                one.label("storageclass").clone_into(&mut claims.entry(claim).or_default().sku);
            }
            "kube_persistentvolumeclaim_labels" => {
                claims.entry(claim).or_default().labels = labels(one);
            }
            USAGE => used.extend(metered(one, id, cluster, step)?),
            _ => {}
        }
    }
    for (kind, all) in [("pod", pods), ("persistent-volume-claim", claims)] {
        for ((namespace, name), signals) in all {
            let mut of = Metered {
                resource: format!("{id}/{kind}/{namespace}/{name}"),
                name: name.to_owned(),
                resource_type: kind.to_owned(),
                project: cluster.project_of(namespace, &signals.labels),
                tags: signals.labels.clone(),
                ..Metered::default()
            };
            of.tags.insert("cluster".to_owned(), cluster.name.clone());
            of.tags.insert("namespace".to_owned(), namespace.to_owned());
            used.extend(signals.usages(&of));
        }
    }
    Ok(used)
}

impl Signals {
    fn usages(&self, of: &Metered) -> Vec<Usage> {
        let held = || self.asked.values().chain(self.taken.values()).chain(&self.on).flatten();
        let moments: BTreeSet<_> = held().flat_map(|(from, to, _)| [*from, *to]).collect();
        let keys: BTreeSet<_> = self.asked.keys().chain(self.taken.keys()).collect();
        let mut cursors = Cursors::default();
        let mut timeline = Timeline::default();
        for at in &moments {
            let on = self.on.as_ref().is_none_or(|on| cursors.at("on", on, *at) > whole(0));
            let mut quantities = Quantities::new();
            for (meter, container) in &keys {
                let of = |signals: &BTreeMap<_, Vec<Held>>, name: &str, cursors: &mut Cursors| {
                    let held = signals.get(&(*meter, container.clone()));
                    let name = format!("{name} {} {container}", meter.name());
                    held.map_or_else(|| whole(0), |held| cursors.at(&name, held, *at))
                };
                let asked = of(&self.asked, "asked", &mut cursors);
                let taken = of(&self.taken, "taken", &mut cursors);
                let more = asked.max(taken);
                let sum = quantities.entry((*meter, self.sku.clone())).or_insert_with(|| whole(0));
                *sum += more;
            }
            quantities.retain(|_, quantity| on && *quantity > whole(0));
            if quantities.is_empty() {
                timeline.is_gone(*at);
            } else {
                timeline.is(*at, of.clone(), quantities);
            }
        }
        moments.last().map_or_else(Vec::new, |last| timeline.until(*last))
    }
}

/// Where in its times each signal is; moments do not go back.
#[derive(Default)]
struct Cursors(BTreeMap<String, usize>);

impl Cursors {
    /// What is held at a moment; 0 when nothing is.
    fn at(&mut self, name: &str, held: &[Held], at: DateTime<Utc>) -> Ratio {
        let place = self.0.entry(name.to_owned()).or_default();
        while held.get(*place).is_some_and(|(_, to, _)| *to <= at) {
            *place += 1;
        }
        match held.get(*place) {
            Some((from, _, value)) if *from <= at => value.clone(),
            _ => whole(0),
        }
    }
}

/// A gauge holds until its next sample, at most for a step.
fn gauge(series: &Series, step: TimeDelta) -> Vec<Held> {
    let next = series.samples.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
    let held = series.samples.iter().zip(next).map(|((at, value), next)| {
        let ends = *at + step;
        (*at, next.map_or(ends, |next| next.min(ends)), value.clone())
    });
    held.collect()
}

/// What a counter has grown by each second since the sample before; one that has fallen has begun
/// anew.
fn counter(series: &Series) -> Vec<Held> {
    let grown = series.samples.windows(2).map(|two| {
        let [(from, before), (to, after)] = two else { return None };
        let more = if after < before { after.clone() } else { after - before };
        let micros = (*to - *from).num_microseconds()?;
        Some((*from, *to, more * whole(1_000_000) / whole(micros.into())))
    });
    grown.flatten().collect()
}

fn over(held: Vec<Held>, by: i128) -> Vec<Held> {
    held.into_iter().map(|(from, to, value)| (from, to, value / whole(by))).collect()
}

/// Labels as `kube-state-metrics` writes them: `label_app` is `app`.
fn labels(series: &Series) -> BTreeMap<String, String> {
    let named = series.labels.iter();
    let own = named.filter_map(|(name, value)| Some((name.strip_prefix("label_")?, value)));
    own.map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

/// The use of any meter.
fn metered(
    series: &Series,
    id: Uuid,
    cluster: &Cluster,
    step: TimeDelta,
) -> Result<Vec<Usage>, String> {
    let name = series.label("meter");
    let meter = Meter::ALL.iter().find(|meter| meter.name() == name);
    let meter = *meter.ok_or_else(|| format!("{name:?} is not a meter"))?;
    let resource = series.label("resource");
    if resource.is_empty() {
        return Err(format!("a series of {name} has no label `resource`"));
    }
    let tags = labels(series);
    let of = Metered {
        resource: format!("{id}/{resource}"),
        name: series.label("name").to_owned(),
        resource_type: series.label("resource_type").to_owned(),
        region: series.label("region").to_owned(),
        project: cluster.project_of(series.label("namespace"), &tags),
        tags,
        ..Metered::default()
    };
    let key = (meter, series.label("sku").to_owned());
    if meter.is_flow() {
        // Prices need what passed, not how fast.
        let of = std::sync::Arc::new(of);
        let passed = counter(series).into_iter().filter(|(.., speed)| *speed > whole(0));
        return Ok(passed
            .map(|(from, to, speed)| {
                let micros = (to - from).num_microseconds().unwrap_or_default();
                let quantity = speed * whole(micros.into()) / whole(1_000_000);
                let (meter, sku) = key.clone();
                Usage { of: of.clone(), meter, sku, quantity, begun: from, from, to }
            })
            .collect());
    }
    let held = gauge(series, step);
    let signals = Signals {
        asked: [((meter, String::new()), held)].into(),
        sku: key.1,
        ..Signals::default()
    };
    Ok(signals.usages(&of))
}
