//! How fast the log on PostgreSQL is, beside plain one-row inserts into the same server:
//! `cargo run --release -p adapters-store-postgres --example postgres_speed URL [SECONDS] [PGBENCH]`.
//!
//! One event of some 300 bytes to an append, each durable before its answer.
#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use adapters_store_postgres::{Options, Store};
use commands::ports::{Append, EventLog, Expected, NewEvent, StreamAppend};
use domain::kernel::StreamId;
use uuid::Uuid;

fn append(stream: &str, number: u64, revision: u64, events: usize) -> Append {
    let command_id = Uuid::from_u128(u128::from(number) << 64 | u128::from(revision));
    let data = format!("{{\"name\":\"thing {number}\",\"note\":\"{}\"}}", "x".repeat(260));
    Append {
        actor: "token:bench".to_owned(),
        command_id,
        correlation_id: command_id,
        causation_id: None,
        request: None,
        streams: vec![StreamAppend {
            stream: StreamId::new("server", stream),
            expected: Expected::Exact(revision),
            project: Some(Uuid::from_u128(7)),
            events: vec![
                NewEvent {
                    event_type: "renamed".to_owned(),
                    schema_version: 1,
                    data: data.into_bytes(),
                };
                events
            ],
        }],
    }
}

/// Processor time of this process so far, all threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// One-row inserts by `pgbench` into a table of its own on the same server: the reference.
fn pgbench(program: &str, url: &str, clients: u64, seconds: u64) -> u64 {
    let script = std::env::temp_dir().join(format!("log_speed_{}.sql", std::process::id()));
    let row = "x".repeat(300);
    std::fs::write(&script, format!("INSERT INTO log_speed_plain (data) VALUES ('{row}');"))
        .unwrap();
    let output = Command::new(program)
        .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string()])
        .args(["-T", &seconds.to_string(), "-f", script.to_str().unwrap(), url])
        .output()
        .unwrap();
    std::fs::remove_file(script).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")).expect(&text);
    rate.split('.').next().unwrap().parse().unwrap()
}

async fn appends_per_second(store: &Store, round: u64, writers: u64, time: Duration) -> u64 {
    let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (count, stop): (&'static AtomicU64, &'static AtomicBool) =
        (Box::leak(Box::new(count)), Box::leak(Box::new(stop)));
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    // A new stream every eight events, as commands on many resources make them.
                    let (which, revision) = (number / 8, number % 8);
                    let stream = format!("{round}-{writer}-{which}");
                    let append = append(&stream, writer << 32 | which, revision, 1);
                    store.append(append).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    count.load(Ordering::Relaxed) * 1_000 / u64::try_from(start.elapsed().as_millis()).unwrap()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("the URL of a server");
    let seconds = arguments.next().map_or(5, |text| text.parse().unwrap());
    let program = arguments.next().unwrap_or_else(|| "pgbench".to_owned());
    let time = Duration::from_secs(seconds);
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let prepare = "DROP SCHEMA IF EXISTS log_speed CASCADE; DROP TABLE IF EXISTS log_speed_plain; \
                   CREATE TABLE log_speed_plain (no bigserial PRIMARY KEY, data text NOT NULL)";
    client.batch_execute(prepare).await.unwrap();
    let options = Options { schema: "log_speed".to_owned(), ..Options::default() };
    let store = Store::connect(&url, options).await.unwrap();
    for (round, writers) in [(1, 1), (2, 32), (3, 32), (4, 128), (5, 128)] {
        let plain = pgbench(&program, &url, writers, seconds);
        let before = cpu();
        let rate = appends_per_second(&store, round, writers, time).await;
        let ratio = rate * 100 / plain;
        println!(
            "{writers} writers: {rate}/s; plain INSERT {plain}/s; ratio {}.{:02}; our processor {:?}",
            ratio / 100,
            ratio % 100,
            cpu().saturating_sub(before)
        );
    }
    for n in 0..200 {
        store.append(append(&format!("bulk-{n}"), 1 << 40 | n, 0, 1_000)).await.unwrap();
    }
    let (start, before) = (Instant::now(), cpu());
    let mut position = 0;
    loop {
        let records = store.read(position, 5_000).await.unwrap();
        let Some(last) = records.last() else { break };
        position = last.position();
    }
    let (wall, cpu) = (start.elapsed(), cpu().saturating_sub(before));
    println!("read {position} in {wall:?}, our processor {cpu:?}");
    client
        .batch_execute("DROP SCHEMA log_speed CASCADE; DROP TABLE log_speed_plain")
        .await
        .unwrap();
}
