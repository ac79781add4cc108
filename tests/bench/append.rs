//! Durable appends, one event per request, each acknowledged on its own.

use std::{
    fs::File,
    io::Write,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use commands::ports::EventLog;
use uuid::Uuid;

use crate::support::{Postgres, Size, closed_loops, median, one_event, open_sqlite, runtime};

/// 600 bytes to the end of a growing file, one fdatasync each.
fn fdatasyncs(how_long: Duration) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let mut file = File::create(folder.path().join("raw")).expect("a file");
    let start = Instant::now();
    let mut done = 0_u64;
    while start.elapsed() < how_long {
        file.write_all(&[7; 600]).expect("it writes");
        file.sync_data().expect("it syncs");
        done += 1;
    }
    done as f64 / start.elapsed().as_secs_f64()
}

async fn appends(log: Arc<dyn EventLog>, writers: usize, how_long: Duration) -> f64 {
    let streams: Vec<Uuid> = (0..writers).map(|_| Uuid::now_v7()).collect();
    closed_loops(writers, how_long, move |client| {
        let (log, stream) = (log.clone(), streams[client]);
        async move {
            log.append(one_event(stream)).await.expect("it appends");
        }
    })
    .await
}

/// Plain one-row INSERT transactions by pgbench into the same server.
fn inserts(server: &Postgres, clients: usize, how_long: Duration) -> f64 {
    let script = server.place.join("insert.sql");
    let statement =
        format!("INSERT INTO bench_raw(payload) VALUES ('{}'::bytea);", "x".repeat(500));
    std::fs::write(&script, statement).expect("the script is written");
    let seconds = how_long.as_secs().max(1).to_string();
    let output = Command::new("pgbench")
        .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string(), "-T", &seconds, "-f"])
        .arg(&script)
        .arg(&server.url)
        .output()
        .expect("pgbench is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("tps")).unwrap_or_else(|| {
        panic!("pgbench said: {text} {}", String::from_utf8_lossy(&output.stderr))
    });
    line.split_whitespace().nth(2).and_then(|tps| tps.parse().ok()).expect("a number")
}

fn psql(server: &Postgres, sql: &str) {
    let status =
        Command::new("psql").args(["-q", "-c", sql]).arg(&server.url).status().expect("psql runs");
    assert!(status.success());
}

fn row(what: &str, ours: &[f64], reference: &[f64], target: f64) {
    let ratios: Vec<f64> = ours.iter().zip(reference).map(|(a, b)| a / b).collect();
    println!(
        "| {what} | {:.0} | {:.0} | **{:.2}** | {target} |",
        median(ours.to_vec()),
        median(reference.to_vec()),
        median(ratios)
    );
}

pub(crate) fn run(size: Size) {
    let how_long = size.pick(Duration::from_secs(5), Duration::from_secs(1));
    let rounds = size.pick(5, 1);
    println!("Medians of {rounds} rounds of {} s, in turns.\n", how_long.as_secs());
    println!("| | ours, events/s | reference, /s | ratio | goal |\n|---|--:|--:|--:|--:|");
    let runtime = runtime();

    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn EventLog> = Arc::new(open_sqlite(folder.path()));
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raw.push(fdatasyncs(how_long));
        ours.push(runtime.block_on(appends(store.clone(), 32, how_long)));
    }
    row("embedded, 32 writers : fdatasync", &ours, &raw, 10.0);

    let server = Postgres::start();
    psql(&server, "CREATE TABLE bench_raw(id bigserial PRIMARY KEY, payload bytea NOT NULL)");
    let log = runtime.block_on(server.open("bench_append"));
    for (clients, target) in [(32, 0.8), (128, 1.2)] {
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            raw.push(inserts(&server, clients, how_long));
            ours.push(runtime.block_on(appends(log.clone(), clients, how_long)));
        }
        row(&format!("PostgreSQL, {clients} writers : pgbench INSERT"), &ours, &raw, target);
    }
}
