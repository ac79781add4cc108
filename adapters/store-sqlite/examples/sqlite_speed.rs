//! How fast the log on SQLite is, beside the disk's own speed:
//! `cargo run --release -p adapters-store-sqlite --example sqlite_speed [FOLDER] [SECONDS]`.
//!
//! One event of some 300 bytes to an append, each durable before its answer.
#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use adapters_store_sqlite::{Options, Store};
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

fn fdatasync_per_second(folder: &std::path::Path, time: Duration) -> u64 {
    let mut file = File::create(folder.join("fdatasync")).unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        file.write_all(&[b'x'; 600]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count * 1_000 / u64::try_from(start.elapsed().as_millis()).unwrap()
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
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| ".".to_owned()));
    let seconds = arguments.next().map_or(5, |text| text.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let path = folder.join("log_speed.db");
    let store = Store::open(&path, Options::default()).unwrap();
    for (round, writers) in [(1, 1), (2, 32), (3, 32), (4, 128)] {
        let disk = fdatasync_per_second(&folder, Duration::from_secs(2));
        let before = cpu();
        let rate = appends_per_second(&store, round, writers, time).await;
        let ratio = rate * 100 / disk;
        println!(
            "{writers} writers: {rate}/s; fdatasync {disk}/s; ratio {}.{:02}; processor {:?}",
            ratio / 100,
            ratio % 100,
            cpu().saturating_sub(before)
        );
    }
    let mut position = store.head().await.unwrap().position;
    for n in (0..).take_while(|n| position + n * 1_000 < 1_000_000) {
        store.append(append(&format!("bulk-{n}"), 1 << 40 | n, 0, 1_000)).await.unwrap();
    }
    drop(store);
    let start = Instant::now();
    let store = Store::open(&path, Options::default()).unwrap();
    println!("opened in {:?}", start.elapsed());
    let (start, before) = (Instant::now(), cpu());
    position = 0;
    loop {
        let records = store.read(position, 5_000).await.unwrap();
        let Some(last) = records.last() else { break };
        position = last.position();
    }
    let (wall, cpu) = (start.elapsed(), cpu().saturating_sub(before));
    println!("read {position} in {wall:?}, processor {cpu:?}");
    for name in ["log_speed.db", "log_speed.db-wal", "log_speed.db-shm", "log_speed.db.lock"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    let _ = std::fs::remove_file(folder.join("fdatasync"));
}
