//! What containers used, from Prometheus' own formats to lines of a bill.

use std::{collections::BTreeMap, fmt::Write as _};

use adapters_sim::Population;
use chrono::{DateTime, TimeDelta, Utc};
use commands::{
    bills::costs,
    containers::{read, usages},
    derive::{Renewed, Run},
    ports::{Clock, CostQuery},
    rate::UsageFile,
};
use domain::finops::{cluster::Cluster, cost::Basis};
use serde_json::json;
use uuid::Uuid;

use crate::world::World;

/// A sample of the text format.
fn sample(file: &mut String, name: &str, labels: &str, value: &str, at: DateTime<Utc>) {
    writeln!(file, "{name}{{{labels}}} {value} {}", at.timestamp_millis()).unwrap();
}

/// Six hours from a moment, a sample every ten minutes: a pod that asks for half a processor and a
/// GiB, takes two processors in the second hour, and runs for four hours; a claim that is bound for
/// three hours; a snapshot; and traffic.
fn file(begin: DateTime<Utc>) -> String {
    let mut file = String::new();
    let mut seconds = 0;
    for step in 0..36 {
        let at = begin + TimeDelta::minutes(10 * step);
        let pod = r#"namespace="web",pod="shop-1""#;
        let container = format!(r#"{pod},container="app""#);
        let requests = "kube_pod_container_resource_requests";
        let resource = |name: &str| format!(r#"{container},resource="{name}""#);
        sample(&mut file, requests, &resource("cpu"), "0.5", at);
        sample(&mut file, requests, &resource("memory"), "1073741824", at);
        sample(
            &mut file,
            "container_cpu_usage_seconds_total",
            &container,
            &seconds.to_string(),
            at,
        );
        seconds += if (6..12).contains(&step) { 1_200 } else { 60 };
        let memory = "container_memory_working_set_bytes";
        sample(&mut file, memory, &container, "5.36870912e+08", at);
        // The whole of the pod is not counted beside its containers.
        sample(&mut file, memory, pod, "9e+09", at);
        let phase = format!(r#"{pod},phase="Running""#);
        let running = if step < 24 { "1" } else { "0" };
        sample(&mut file, "kube_pod_status_phase", &phase, running, at);
        let team = format!(r#"{pod},label_team="shop""#);
        sample(&mut file, "kube_pod_labels", &team, "1", at);

        let claim = r#"namespace="web",persistentvolumeclaim="data""#;
        let size = "kube_persistentvolumeclaim_resource_requests_storage_bytes";
        sample(&mut file, size, claim, "10737418240", at);
        let bound = format!(r#"{claim},phase="Bound""#);
        let is = if step < 18 { "1" } else { "0" };
        sample(&mut file, "kube_persistentvolumeclaim_status_phase", &bound, is, at);
        let class = format!(r#"{claim},storageclass="fast""#);
        sample(&mut file, "kube_persistentvolumeclaim_info", &class, "1", at);

        let snapshot = r#"meter="snapshot-gib",resource="snap-1",namespace="db""#;
        sample(&mut file, "skyledger_usage", snapshot, "100", at);
        let traffic = r#"meter="traffic-gib",resource="nat-1",namespace="db""#;
        sample(&mut file, "skyledger_usage", traffic, &(step * 2).to_string(), at);
    }
    file
}

async fn import(world: &World, id: Uuid, cluster: &Cluster, text: &str) -> Vec<Renewed> {
    let usages = usages(&read(text).unwrap(), id, cluster, None).unwrap();
    let name = "october.prom".to_owned();
    let file = UsageFile { cluster: id, name, digest: "00".into(), usages };
    let months = file.months().unwrap();
    let run = Run { months, reason: String::new(), by: World::admin(), validate_only: false };
    let rating = world.ledger.rating(&run).await.unwrap();
    let store = world.ledger.ports.bills.as_ref();
    let (derived, unrated) = rating.work_file(store, &run, &file).unwrap();
    assert!(unrated.is_empty(), "{unrated:?}");
    world.ledger.renew(&derived, &run).await.unwrap()
}

async fn sums(world: &World, basis: Basis, by: &[&str]) -> BTreeMap<String, String> {
    world.caught_up().await;
    let months = ["2020-01", "2040-12"].map(|month| month.parse().unwrap());
    let counting = world.ledger.bills(months[0], months[1], None).await.unwrap();
    let groups = by.iter().map(|name| name.parse().unwrap()).collect();
    let asked = CostQuery { basis, groups, ..CostQuery::default() };
    let table = costs(world.ledger.ports.bills.as_ref(), &counting, &asked).unwrap();
    table.iter().map(|(key, _, sum)| (key.join(" "), sum.amount.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_cost_the_larger_of_what_they_ask_and_take_while_they_run() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let project = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    let settings = json!({"settings": {"name": "own", "currency": "EUR"}});
    let set = world.send("rate-set", None, "define", settings).await.unwrap().id;
    let meters = ["pod-memory-gib", "pod-vcpu", "pvc-gib", "snapshot-gib", "traffic-gib"];
    for meter in meters {
        let pricing = json!({"pay-as-you-go": {"price": "0.5"}});
        let body = json!({"key": meter, "rate": {"meter": meter, "pricing": pricing}});
        world.send("rate-set", set, "set-rate", body).await.unwrap();
    }
    let places = json!([{"namespace": "web", "labels": {"team": "shop"}, "project": project}]);
    let body = json!({"name": "edge", "places": places});
    let id = world.send("cluster", None, "define", body.clone()).await.unwrap().id;
    let cluster = Cluster {
        name: "edge".into(),
        places: serde_json::from_value(places).unwrap(),
        otherwise: None,
    };
    let begin = world.clock.now() + TimeDelta::hours(1);
    // A whole hour: days are measured one by one, and midnight is to leave no thirds of hours.
    let begin = DateTime::from_timestamp(begin.timestamp() / 3_600 * 3_600, 0).unwrap();
    let bills = import(&world, id, &cluster, &file(begin)).await;
    assert!(bills.iter().all(|bill| bill.changed));

    let used = sums(&world, Basis::Quantity, &["unit", "sku"]).await;
    let expected = [
        ("pod-memory-gib-hour ", "4"),
        // Three hours of what it asks, and one of what it takes.
        ("pod-vcpu-hour ", "3.5"),
        ("pvc-gib-hour fast", "30"),
        ("snapshot-gib-hour ", "600"),
        ("traffic-gib ", "70"),
    ];
    let expected: BTreeMap<_, _> =
        expected.map(|(unit, hours)| (unit.to_owned(), hours.to_owned())).into();
    assert_eq!(used, expected);
    let costs = sums(&world, Basis::Billed, &["sub_account"]).await;
    assert_eq!(costs[&project.to_string()], "3.75", "the pod is the project's");
    assert_eq!(costs[""], "350", "the claim has no label, the rest no namespace of ours");
    let tagged = sums(&world, Basis::Billed, &["tags.namespace", "tags.cluster"]).await;
    assert_eq!(tagged["web edge"], "18.75");

    let again = import(&world, id, &cluster, &file(begin)).await;
    assert!(again.iter().all(|bill| !bill.changed), "the same file counts once");
    let shorter: String =
        file(begin).lines().take(11 * 12).fold(String::new(), |file, line| file + line + "\n");
    let renewed = import(&world, id, &cluster, &shorter).await;
    assert!(renewed.iter().any(|bill| bill.changed), "a file of the same name takes its place");
}
