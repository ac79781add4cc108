//! How much of servers was used, from Prometheus' own formats to events of days.

use std::{fmt::Write as _, time::Duration};

use adapters_sim::Population;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use commands::{
    containers,
    ports::{AuditFilter, Clock},
    utilisation::{LeftOut, Told, read},
};
use domain::compute::server::Server;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{rating::observe, world::World};

pub(crate) fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// What a node of two processors says from one moment to another, a sample each half an hour: so many
/// percent of it are busy, and it passes so many bytes in each time.
fn node(instance: &str, from: DateTime<Utc>, to: DateTime<Utc>, busy: i64, bytes: i64) -> String {
    let (mut file, mut at, mut steps) = (String::new(), from, 0);
    while at <= to {
        let time = at.timestamp_millis();
        let idle = steps * 18 * (100 - busy);
        for cpu in 0..2 {
            let of = format!("instance=\"{instance}\",mode=\"idle\",cpu=\"{cpu}\"");
            writeln!(file, "node_cpu_seconds_total{{{of}}} {idle} {time}").unwrap();
        }
        let of = format!("instance=\"{instance}\",device=\"eth0\"");
        let received = steps * bytes;
        writeln!(file, "node_network_receive_bytes_total{{{of}}} {received} {time}").unwrap();
        (at, steps) = (at + TimeDelta::minutes(30), steps + 1);
    }
    file
}

async fn import(world: &World, file: &str, validate_only: bool) -> (Told, LeftOut) {
    let names = world.ledger.server_names().await.unwrap();
    let today = world.clock.now().date_naive();
    let series = containers::read(file).unwrap();
    let read = read(&series, &names, None, None, today).unwrap();
    let told = world.ledger.measure(read.days, &World::admin(), validate_only).await.unwrap();
    world.caught_up().await;
    (Told { position: 0, ..told }, read.left_out)
}

fn told(measured: u64, remeasured: u64, unchanged: u64, settled: u64) -> Told {
    Told { measured, remeasured, unchanged, settled, position: 0 }
}

async fn server(world: &World, number: u128, name: &str, address: &str) -> Uuid {
    let id = Uuid::from_u128(number);
    let seen = json!({
        "name": name, "power": "running", "shape": "small", "addresses": [address],
    });
    observe(world, "server", id, None, seen).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_samples_is_an_event_for_each_server_and_day_and_again_none() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let id = server(&world, 1, "web-1", "10.0.0.4/32").await;
    let (two, three) = (
        server(&world, 2, "db", "10.0.0.5/32").await,
        server(&world, 3, "db", "10.0.0.6/32").await,
    );
    world.caught_up().await;
    let today = world.clock.now().date_naive();
    let first = midnight(today - Days::new(3));
    let noon = midnight(today) + TimeDelta::hours(12);
    let half = midnight(today - Days::new(1)) + TimeDelta::hours(12);
    // Three servers by address, name and id; one by a name that two have; one that nobody knows.
    let file = |to| {
        [
            node("10.0.0.4:9100", first, to, 20, 10),
            node(&two.to_string(), first, to, 40, 10),
            node("10.0.0.6:9100", first, to, 1, 10),
            node("db", first, to, 1, 10),
            node("elsewhere:9100", first, to, 1, 10),
        ]
        .concat()
    };
    let before = world.log.head().await.unwrap().position;
    let (planned, _) = import(&world, &file(half), true).await;
    assert_eq!(planned, told(9, 0, 0, 0));
    assert_eq!(world.log.head().await.unwrap().position, before, "nothing is written");

    let (came, left_out) = import(&world, &file(half), false).await;
    assert_eq!(came, planned);
    assert_eq!(left_out.unmatched, [("elsewhere:9100".to_owned(), 3)].into());
    assert_eq!(left_out.ambiguous, [("db".to_owned(), 3)].into());
    let after = world.log.head().await.unwrap().position;
    assert_eq!(after, before + 9, "an event for each server and day, whatever the samples");
    // The same again says nothing; more of a day takes the place of what was known of it.
    let (came, _) = import(&world, &file(half), false).await;
    assert_eq!(came, told(0, 0, 9, 0));
    let (came, left_out) = import(&world, &file(noon), false).await;
    assert_eq!((came, left_out.running_days), (told(0, 3, 6, 0), 3));
    assert_eq!(world.log.head().await.unwrap().position, after + 3);

    let (states, _) = world.ledger.states::<Server>(None).await.unwrap();
    let (_, state) = states.iter().find(|(one, _)| *one == id).unwrap();
    let last: Value = serde_json::to_value(state.utilisation.last.as_ref().unwrap()).unwrap();
    let expected = json!({
        "day": today - Days::new(1), "vcpus": 2, "cpu_mean_percent": "20",
        "cpu_p95_percent": "20", "cpu_peak_percent": "20", "network_in_bytes": 480,
        "samples": 48, "step_s": 1800, "source": "node-exporter",
    });
    assert_eq!(last, expected);
    let filter = AuditFilter { id: Some(three.to_string()), ..AuditFilter::default() };
    let records = world.log.search(&filter, 0, false, 100).await.unwrap();
    let types: Vec<&str> = records.iter().map(domain::log::Record::event_type).collect();
    assert_eq!(types, ["discovered", "measured", "measured", "measured", "remeasured"]);
    // What is long past is settled.
    world.clock.advance(Duration::from_hours(24 * 40));
    let today = world.clock.now().date_naive();
    let days = midnight(today - Days::new(45));
    let (came, _) = import(&world, &node("10.0.0.4", days, midnight(today), 20, 10), false).await;
    // 45 days, three of which were known.
    assert_eq!(came, told(42, 0, 3, 0));
    let (came, _) = import(&world, &node("10.0.0.4", days, midnight(today), 20, 10), false).await;
    assert_eq!(came, told(0, 0, 31, 14));
}
